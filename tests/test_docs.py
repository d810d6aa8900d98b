"""Every example in a docstring or in the README runs."""

import doctest
import importlib
import pathlib
import pkgutil
import re
import runpy

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
def test_docstrings(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"keras": keras, "keras_tuner": keras_tuner, "np": np, "tf": tf, "kerasrnn": kerasrnn}
    module = importlib.import_module(name)
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
    pages = {name: (ROOT / "docs" / name).read_text() for name in tables["PAGES"]}
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


SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
assert SNIPPETS


@pytest.mark.filterwarnings("ignore:DivergenceGuard skipped")  # One shows what it is for.
@pytest.mark.parametrize(
    "snippet",
    # The one that searches takes long.
    slow_but([s for s in SNIPPETS if "tuner.search" not in s], SNIPPETS),
)
def test_readme(snippet, tmp_path, monkeypatch, quiet_tuner, capsys):
    monkeypatch.chdir(tmp_path)
    exec(snippet, {})
    assert capsys.readouterr().out
    if list(tmp_path.iterdir()):
        # Once more, as a reader does who changes something.
        exec(snippet, {})
