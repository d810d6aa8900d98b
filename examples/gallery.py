"""What the scripts of the gallery share: their flags, the packages they need, their tables."""

import argparse
import importlib.util
import os
import pathlib


def parser(doc, picture, seeded=True):
    """Of the flags that every script has, for a script with this docstring; `--seed` unless nothing
    in it is left to chance."""
    flags = argparse.ArgumentParser(
        description=doc.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    if seeded:
        flags.add_argument(
            "--seed",
            type=at_least(0),
            default=0,
            help="of the weights and of what is drawn by chance",
        )
    flags.add_argument("--out", type=png, default=picture, help="the picture to write")
    return flags


def at_least(least):
    """A type for `argparse`: a whole number that is not smaller."""

    def number(text):
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"must be a whole number, at least {least}, not {text!r}"
            )
        return int(text)

    return number


def png(text):
    """A type for `argparse`: what cannot be written is said before the work, not after it."""
    path = pathlib.Path(text)
    if path.suffix != ".png" or path.is_dir():
        raise argparse.ArgumentTypeError(f"must name a file that ends in .png, not {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"must lie in a folder that is there, not {text!r}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"must be a file that can be written, not {text!r}")
    return path


def missing_packages(packages):
    """What is wrong, in a sentence, or `None`.

    Args:
        packages: Names for pip by the names of the modules.
    """
    missing = [name for module, name in packages.items() if not importlib.util.find_spec(module)]
    if missing:
        return (
            f"The environment lacks {', '.join(missing)}: in the clone, "
            'pip install -e ".[examples]" installs all it needs'
        )


def require(*packages):
    """Raises a ModuleNotFoundError that names the extra, if a module of that name is missing."""
    problem = missing_packages({name: name for name in packages})
    if problem:
        raise ModuleNotFoundError(problem)


def table(head, rows):
    """Text with the columns below each other, the first to the left, the others to the right."""
    rows = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    )
