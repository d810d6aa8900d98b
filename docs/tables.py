"""The tables of docs/cells.md, from the cells themselves.

python docs/tables.py      # writes them anew, after a cell was added or changed
"""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from kerasrnn.cells import CELLS, describe
from kerasrnn.initializers import Chrono

PAGE = pathlib.Path(__file__).with_name("cells.md")
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


def filled(page):
    """The page with its tables as they are now, each between a pair of comments with its name."""
    for name, table in {"cells": describe(), "refusals": refusals()}.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        head, rest = page.split(begin)
        page = head + begin + table + end + rest.split(end)[1]
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
