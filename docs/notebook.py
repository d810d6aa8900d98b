"""The lecture page as a notebook, docs/lecture.ipynb.

python docs/notebook.py      # writes it anew, after the page was changed
"""

import pathlib
import re

import jupytext

DOCS = pathlib.Path(__file__).parent
PAGE, NOTEBOOK = DOCS / "lecture.md", DOCS / "lecture.ipynb"


def notebook():
    """Its text: a code cell per block, without outputs."""
    # The marks by which the Chinese page takes the code from here.
    text = re.sub(r"^<!-- --8<-- .*-->\n", "", PAGE.read_text(encoding="utf-8"), flags=re.M)
    made = jupytext.reads(text, "md")
    made.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
    }
    for number, cell in enumerate(made.cells):
        cell.id = f"cell-{number}"  # Random otherwise.
    return jupytext.writes(made, "ipynb")


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook(), encoding="utf-8")
