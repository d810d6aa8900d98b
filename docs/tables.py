"""What pages take from elsewhere: the tables of cells and verdicts, the numbers of the lines that
the lecture links to, and the code of its Chinese page from the English one.

python docs/tables.py      # writes them anew, after the code was changed
"""

import inspect
import os
import pathlib
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from kerasrnn.cells import CELLS, describe
from kerasrnn.diagnostics.health.findings import CHECKS
from kerasrnn.initializers import Chrono

DOCS = pathlib.Path(__file__).parent
# As a user writes them, and as they are.
OPTIONS = {
    "zoneout=0.1": {"zoneout": 0.1},
    'initial_state="learned"': {"initial_state": "learned"},
    'normalization="layer"': {"normalization": "layer"},
    "recurrent_dropout=0.1": {"recurrent_dropout": 0.1},
    'recurrent_dropout=0.1, recurrent_dropout_form="candidate"': {
        "recurrent_dropout": 0.1,
        "recurrent_dropout_form": "candidate",
    },
    "bias_initializer=Chrono(T_max=50)": {"bias_initializer": Chrono(T_max=50)},
    "vanishing_gradient_regularization=0.1": {"vanishing_gradient_regularization": 0.1},
}


def refuses(cell_class, options):
    try:
        cell_class(2, **options)
    except ValueError:
        return True
    return False


def refusals():
    """A row per option with the cells that refuse it."""
    rows = ["| option | cells that refuse it |", "|---|---|"]
    for written, options in OPTIONS.items():
        names = [f"`{name}`" for name, kind in CELLS.items() if refuses(kind, options)]
        rows.append(f"| `{written}` | {', '.join(names) or 'none'} |")
    return "\n".join(rows)


def verdicts():
    """A row per verdict with what it rests on, and the status of a report that has it."""
    rows = ["| verdict | what it rests on | status |", "|---|---|---|"]
    for code, check in CHECKS.items():
        rows.append(f"| {code} | {' '.join(inspect.getdoc(check).split())} | {check.severity} |")
    return "\n".join(rows)


def numbered(page):
    """The page with each link of a line of code at the number that line has now."""

    def link(match):
        text, path = match.groups()
        lines = [line.strip() for line in (DOCS / path).read_text(encoding="utf-8").splitlines()]
        return f"[`{text}`]({path}#L{lines.index(text) + 1})"

    return re.sub(r"\[`([^`]+)`\]\(([\w./]+)#L\d+\)", link, page)


def blocks():
    """What stands between the marks of the English lecture, by name."""
    page = (DOCS / "lecture.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^<!-- (\w+) -->\n(.*?)\n<!-- end of \1 -->", page, re.M | re.S))


LECTURES = ["lecture.md", "lecture.zh.md"]
# The tables of each page, by their names.
PAGES = {
    "cells.md": {"cells": describe, "refusals": refusals},
    "verdicts.md": {"verdicts": verdicts},
    "lecture.zh.md": {name: text.__str__ for name, text in blocks().items()},
}


def filled(page, tables):
    """The page with its tables as they are now, each between a pair of comments with its name."""
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        head, rest = page.split(begin)
        page = head + begin + table() + end + rest.split(end)[1]
    return page


if __name__ == "__main__":
    for name, tables in PAGES.items():
        page = DOCS / name
        page.write_text(filled(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    for name in LECTURES:
        page = DOCS / name
        page.write_text(numbered(page.read_text(encoding="utf-8")), encoding="utf-8")
