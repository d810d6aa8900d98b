"""The lecture page as a notebook, docs/lecture.ipynb, and what its code prints.

python docs/notebook.py          # writes the notebook anew, after the page was changed
python docs/notebook.py --run    # first runs the page and puts what it prints below each block
"""

import argparse
import contextlib
import io
import os
import pathlib
import re
import tempfile

import jupytext

DOCS = pathlib.Path(__file__).parent
PAGE, NOTEBOOK = DOCS / "lecture.md", DOCS / "lecture.ipynb"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# A block of code and what it printed, between the marks by which the Chinese page takes both.
BLOCK = re.compile(
    r"(?P<head><!-- \w+ -->\n```python\n(?P<code>.*?)```\n)"
    r"(?:\n```text\n.*?```\n)?(?P<tail><!-- end of \w+ -->\n)",
    re.S,
)


def printed(page):
    """The page with what its code prints now."""
    names = {}

    def run(block):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(block["code"], names)
        text = out.getvalue() and f"\n```text\n{out.getvalue()}```\n"
        return block["head"] + text + block["tail"]

    return BLOCK.sub(run, page)


def notebook():
    """Its text: a code cell per block, without outputs."""
    text = re.sub(r"^<!-- .* -->\n", "", PAGE.read_text(encoding="utf-8"), flags=re.M)
    made = jupytext.reads(text, "md")
    made.metadata = {"kernelspec": KERNEL}
    for number, cell in enumerate(made.cells):
        cell.id = f"cell-{number}"  # Random otherwise.
    return jupytext.writes(made, "ipynb")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", action="store_true", help="run the code first, two minutes")
    if parser.parse_args().run:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        page = PAGE.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            page = printed(page)
            picture = pathlib.Path("lecture_vanishing.png").read_bytes()
        (DOCS / "lecture_vanishing.png").write_bytes(picture)
        PAGE.write_text(page, encoding="utf-8")
    NOTEBOOK.write_text(notebook(), encoding="utf-8")
