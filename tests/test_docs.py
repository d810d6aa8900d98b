"""Every example in docstrings, README and docs runs, and every link leads somewhere."""

import doctest
import importlib
import pathlib
import pkgutil
import re
import runpy
import subprocess
import sys

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from slow import slow_but

import kerasrnn
from kerasrnn.arguments import own_parameters
from kerasrnn.cells.configured import parameters
from kerasrnn.diagnostics.health.findings import CHECKS

ROOT = pathlib.Path(__file__).parents[1]
MODULES = [
    name
    for _, name, is_package in pkgutil.walk_packages(kerasrnn.__path__, "kerasrnn.")
    if not is_package
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name, tmp_path, monkeypatch, quiet_tuner):
    monkeypatch.chdir(tmp_path)
    names = {"keras": keras, "keras_tuner": keras_tuner, "np": np, "tf": tf, "kerasrnn": kerasrnn}
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Those of another backend, which need not be installed.
        if error.name not in ("jax", "torch"):
            raise
        pytest.skip(f"{name} needs {error.name}")
    assert doctest.testmod(module, extraglobs=names).failed == 0


def test_every_public_class_has_an_example():
    for package in (kerasrnn.cells, kerasrnn.layers, kerasrnn.callbacks):
        for name in package.__all__:
            documented = getattr(package, name)
            if isinstance(documented, type) and documented is not kerasrnn.cells.Cell:
                assert ">>>" in documented.__doc__, name


def test_the_tables_are_those_of_cells_and_checks():
    """`python docs/tables.py` writes them."""
    tables = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    pages = {name: PAGES[f"docs/{name}"] for name in tables["PAGES"]}
    for name, page in pages.items():
        assert page == tables["filled"](page, tables["PAGES"][name])
    rows = pages["cells.md"].count("\n| `")
    assert rows == len(kerasrnn.cells.CELLS) + len(tables["OPTIONS"])
    assert re.findall(r"^\| ([A-Z_]+) \|", pages["verdicts.md"], re.M) == list(CHECKS)


@pytest.mark.parametrize(
    "layer", ["SimpleRNN", "LSTM", "GRU", "MinGRU", "MinLSTM", "LRU"], ids=lambda name: name
)
def test_a_layer_s_docstring_lists_the_arguments_of_its_cell(layer):
    layer = getattr(kerasrnn.layers, layer)
    listed = re.findall(r"^ {8}(\w+(?:, \w+)*): ", layer.__doc__, re.M)
    listed = {name for names in listed for name in names.split(", ")}
    # A layer without a constructor of its own shows no argument in its signature.
    named = own_parameters(layer).keys() if "__init__" in vars(layer) else set()
    further = set(parameters(layer.cell_class)) - named
    # Without a product with the state there is none to normalize.
    refused = {"normalization"} if not layer.cell_class.recurrent_gates else set()
    assert listed - named == (further - refused) | {"reset"}
    assert "zoneout: Probability, in [0, 1), that a unit keeps its old value" in layer.__doc__
    defaults = re.findall(
        r"^ {8}(\w+)[\w, ]*: (?:.*\n {12})+Default: `(.*)`\.$", layer.__doc__, re.M
    )
    of_cell = parameters(layer.cell_class)
    assert ("zoneout", "0.0") in defaults
    for name, default in defaults:
        assert default == repr(of_cell[name].default).replace("'", '"')


PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"))
}
SNIPPETS = {
    name: re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) for name, page in PAGES.items()
}
# The Chinese lecture has the code of the English one.
SNIPPETS = {n: s for n, s in SNIPPETS.items() if s and n != "docs/lecture.zh.md"}
QUICK = ["README.md", "docs/coming-from.md", "docs/directions.md", "docs/masks.md"]


def words(text):
    """The text without its numbers, whose last digits differ from machine to machine."""
    return re.sub(r"[-+]?[\d.]+(e[-+]?\d+)?", "#", text).split()


def test_what_a_report_prints_stands_in_the_docs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(SNIPPETS["docs/verdicts.md"][0], {})
    (shown,) = re.findall(r"```text\n(.*?)```", PAGES["docs/verdicts.md"], re.S)
    assert words(capsys.readouterr().out)[: len(words(shown))] == words(shown)


# Some show what it is for, the lecture a net that nothing can train.
@pytest.mark.filterwarnings("ignore:DivergenceGuard")
@pytest.mark.parametrize("name", slow_but(QUICK, SNIPPETS))
def test_the_snippets_of_a_page(name, tmp_path, monkeypatch, quiet_tuner, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for snippet in SNIPPETS[name]:
        exec(snippet, names)
        assert name == "docs/lecture.md" or capsys.readouterr().out
    if list(tmp_path.iterdir()) and name != "docs/lecture.md":
        # Once more, as a reader does who changes something.
        exec(snippet, names)


LINKS = [
    (name, text, target)
    for name, page in PAGES.items()
    for text, target in re.findall(r"\[([^\]\[]*(?:\[[^\]]*\][^\]\[]*)*)\]\(([^)\s]+)\)", page)
    if not target.startswith("http")
]


def heading_ids(page):
    headings = re.findall(r"^#+ (.*)", page, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    """A link to a line of code says that line; `python docs/tables.py` numbers them."""
    for page, text, target in LINKS:
        if page != name:
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.is_file(), target
        if re.fullmatch(r"L\d+", anchor):
            line = file.read_text(encoding="utf-8").splitlines()[int(anchor[1:]) - 1]
            assert text == f"`{line.strip()}`"
        elif anchor.startswith("kerasrnn."):
            module, _, documented = anchor.rpartition(".")
            assert f"::: {module}\n" in file.read_text(encoding="utf-8")
            assert documented in importlib.import_module(module).__all__
        elif anchor:
            assert anchor in heading_ids(file.read_text(encoding="utf-8"))


def test_the_chinese_lecture_has_what_the_english_one_has():
    """But for the words; `python docs/tables.py` brings the code over."""
    of_both = [
        re.findall(
            r"^```(?s:.*?)^```|^    .*?(?=  |$)|\]\(\.\.[^)]*\)|^(?=##+ )|^<!--.*", text, re.M
        )
        for text in (PAGES["docs/lecture.md"], PAGES["docs/lecture.zh.md"])
    ]
    assert of_both[0] == of_both[1]


def test_the_notebook_is_the_lecture():
    """`python docs/notebook.py` writes it."""
    made = runpy.run_path(str(ROOT / "docs" / "notebook.py"))["notebook"]()
    assert (ROOT / "docs" / "lecture.ipynb").read_text(encoding="utf-8") == made


def test_every_finding_is_listed():
    listed = re.findall(r"\(\.\./findings/([\w.]+)\)", PAGES["docs/findings.md"])
    assert listed == sorted(path.name for path in (ROOT / "findings").glob("*.sh"))


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    lecture = (tmp_path / "lecture" / "index.html").read_text(encoding="utf-8")
    for target in re.findall(r'href="(\.\./source/[^"]*)"', lecture):
        path, _, anchor = target.partition("#")
        page = (tmp_path / "lecture" / path / "index.html").read_text(encoding="utf-8")
        assert not anchor or f'id="{anchor}"' in page
    for page in (ROOT / "docs" / "api").glob("*.md"):
        built = (tmp_path / "api" / page.stem / "index.html").read_text(encoding="utf-8")
        for name in re.findall(r"^::: (.*)", page.read_text(encoding="utf-8"), re.M):
            module = importlib.import_module(name)
            for public in getattr(module, "__all__", ()):
                assert not callable(getattr(module, public)) or f'id="{name}.{public}"' in built
        # As a list.
        codes = CHECKS if page.stem == "diagnostics" else ()
        assert all(f"<li>{code}: " in built for code in codes)
