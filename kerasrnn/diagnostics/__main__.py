"""`python -m kerasrnn.diagnostics model.keras data.npz`: the health report of a saved model.

It prints the report on the arrays `x` and `y` of the file, and writes its page where `--page` names
one. The exit code is the status: 0 healthy, 1 attention, 2 sick; 64 where the command or its files
are wrong, with the reason, and 70 where the report itself failed. What comes from training needs a
`GradientNormMonitor`, and so a call of `health_report` in the script that trains.
"""

import argparse
import os
import pathlib
import sys
import traceback
import zipfile

import keras
import numpy as np

from kerasrnn.backends import require_tensorflow, tf
from kerasrnn.diagnostics import health_report
from kerasrnn.diagnostics.health.verdict import SEVERITIES

# As sysexits.h of BSD has them; those of argparse and of Python itself are a status here.
USAGE, SOFTWARE = 64, 70


class Parser(argparse.ArgumentParser):
    """One that exits with a code that is no status."""

    def error(self, message):
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: error: {message}\n")


def main(arguments=None):
    """Runs the command.

    Args:
        arguments: A list of strings; `None` for those of the command line.

    Returns:
        The exit code.
    """
    parser = Parser(
        prog="python -m kerasrnn.diagnostics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="a compiled model, as model.save wrote it")
    parser.add_argument("data", help="a file of np.savez(path, x=..., y=...)")
    parser.add_argument("--page", help="where to write the HTML page")
    options = parser.parse_args(arguments)
    try:
        require_tensorflow(
            "kerasrnn.diagnostics.health_report", "run the command under KERAS_BACKEND=tensorflow"
        )
    except RuntimeError as error:
        parser.error(str(error))
    try:
        model = keras.models.load_model(_file(options.model))
        report = health_report(model, *_arrays(_file(options.data)))
        if options.page:
            report.save(options.page)
    except (ValueError, TypeError, OSError, tf.errors.InvalidArgumentError) as error:
        parser.error(str(error))
    except Exception:
        traceback.print_exc()
        return SOFTWARE
    try:
        print(report.text, flush=True)
    except BrokenPipeError:
        # Who reads the first lines only still wants the status; Python writes what is left at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return SEVERITIES.index(report.status)


def _file(path):
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    return path


def _arrays(path):
    with path.open("rb") as file:
        try:
            arrays = np.load(file)
        except (zipfile.BadZipFile, EOFError, ValueError) as error:
            raise ValueError(f"{str(path)!r} must be a file of np.savez: {error}") from error
        missing = [name for name in "xy" if name not in getattr(arrays, "files", ())]
        if missing:
            raise ValueError(f"{str(path)!r} must hold arrays x and y; it has no {missing[0]}")
        return arrays["x"], arrays["y"]


if __name__ == "__main__":
    sys.exit(main())
