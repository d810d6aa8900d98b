"""Every example in a docstring or in the README runs."""

import doctest
import importlib
import pathlib
import pkgutil
import re

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

import kerasrnn

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


def test_the_table_of_cells_is_in_the_readme():
    assert f"\n{kerasrnn.cells.describe()}\n" in (ROOT / "README.md").read_text()


SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
assert SNIPPETS


@pytest.mark.filterwarnings("ignore:DivergenceGuard skipped")  # One shows what it is for.
@pytest.mark.parametrize("snippet", SNIPPETS)
def test_readme(snippet, tmp_path, monkeypatch, quiet_tuner, capsys):
    monkeypatch.chdir(tmp_path)
    # Twice, as a reader does who changes something.
    for _ in range(2):
        exec(snippet, {})
        assert capsys.readouterr().out
