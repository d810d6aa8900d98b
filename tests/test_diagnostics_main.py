"""`python -m kerasrnn.diagnostics`: what it prints and how it ends."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from known_nets import X, Y, compiled, healthy_lstm, simple

from kerasrnn import layers
from kerasrnn.diagnostics.__main__ import main


@pytest.fixture
def saved(tmp_path):
    """Files of a model and of data, as arguments."""

    def save(model, **arrays):
        model.save(tmp_path / "model.keras")
        np.savez(tmp_path / "data.npz", **(arrays or {"x": X, "y": Y}))
        return [str(tmp_path / "model.keras"), str(tmp_path / "data.npz")]

    return save


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        (lambda: healthy_lstm(optimizer="sgd"), "healthy", 0),
        (lambda: compiled(simple(layers, 0.5)), "attention", 1),
        (lambda: compiled(simple(layers, 1.5, "linear")), "sick", 2),
    ],
)
def test_the_exit_code_is_the_status(saved, model, status, code, capsys, tmp_path):
    page = tmp_path / "page.html"
    assert main([*saved(model()), "--page", str(page)]) == code
    assert f"Status: {status}." in capsys.readouterr().out
    assert f"Status: {status}." in page.read_text(encoding="utf-8")


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 64
    return capsys.readouterr().err


def test_what_is_wrong_with_the_command_is_no_status(saved, capsys, tmp_path):
    assert "required: model, data" in refused([], capsys)
    model, data = saved(compiled(layers.GRU(2)), x=X)
    assert "there is no file" in refused([model, "nowhere.npz"], capsys)
    assert "must hold arrays x and y; it has no y" in refused([model, data], capsys)
    assert refused([data, data], capsys)
    for content in (b"", b"text"):
        (tmp_path / "text.npz").write_bytes(content)
        assert "text.npz" in refused([model, str(tmp_path / "text.npz")], capsys)
    np.save(tmp_path / "one.npy", X)
    assert "it has no x" in refused([model, str(tmp_path / "one.npy")], capsys)
    raw = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    assert "compiled Keras model" in refused(saved(raw), capsys)
    for net in (layers.GRU(2), keras.layers.GRU(2)):
        wide = np.concatenate([X, X], axis=-1)
        assert "Exception encountered" in refused(saved(compiled(net), x=wide, y=Y), capsys)
    assert "as many samples" in refused(saved(compiled(layers.GRU(2)), x=X, y=Y[:3]), capsys)


def test_a_report_that_fails_is_no_status(saved, capsys, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("of our own making")

    monkeypatch.setattr("kerasrnn.diagnostics.__main__.health_report", fail)
    assert main(saved(compiled(layers.GRU(2)))) == 70
    assert "of our own making" in capsys.readouterr().err


def test_in_a_process_of_its_own(saved):
    command = [sys.executable, "-m", "kerasrnn.diagnostics", *saved(compiled(simple(layers, 0.5)))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "VANISHING" in done.stdout
    # Who reads no further has the status all the same.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as cut:
        cut.stdout.close()
        assert cut.stderr.read() == b"" or b"BrokenPipe" not in cut.stderr.read()
    assert cut.returncode == 1
