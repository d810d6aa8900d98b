"""The script of the gallery on vanishing gradients."""

import keras
import numpy as np
import pytest
import vanishing

from kerasrnn.diagnostics import gradient_flow
from kerasrnn.tasks import adding_problem

SMALL = {"epochs": 2, "length": 8, "samples": 64, "units": 4}


def test_what_is_measured():
    """Before training that of a net of the same start."""
    one = vanishing.result("SimpleRNN", seed=3, **SMALL)
    keras.utils.set_random_seed(3)
    layers = [keras.Input((8, 2)), vanishing.NETS["SimpleRNN"](4), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(loss="mse")
    test = adding_problem(1000, 8, seed=7)
    flow = gradient_flow(model, *(part[:64] for part in test))
    (half_life,), (profile,) = flow.half_life.values(), flow.profile.values()
    assert one["before"] == one["half_lives"][0] == pytest.approx(half_life, rel=1e-4)
    np.testing.assert_allclose(one["profile"], profile, rtol=1e-4)
    assert one["errors"][0] == pytest.approx(model.evaluate(*test, verbose=0), rel=1e-4)

    assert len(one["half_lives"]) == len(one["errors"]) == 3
    assert one["after"] == one["half_lives"][-1] != one["before"]
    assert one["longest"] == max(one["half_lives"][1:])
    assert one["error"] == one["errors"][-1] < one["errors"][0]
    assert one["learned"] == (one["error"] < 1 / 60)


def test_the_irnn_starts_as_its_authors_have_it():
    """Where all is positive, its state keeps what it has."""
    layer = vanishing.NETS["IRNN"](4)
    x = np.abs(np.random.default_rng(0).normal(size=(2, 5, 3))).astype("float32")
    layer.build(x.shape)
    kernel = np.abs(layer.get_weights()[0])
    layer.set_weights([kernel, *layer.get_weights()[1:]])
    np.testing.assert_allclose(layer(x), (x @ kernel).sum(axis=1), rtol=1e-5)


def test_the_script(tmp_path, capsys, monkeypatch):
    """With numbers at hand, infinite ones too."""
    made = {"before": 1.0, "after": 2.0, "longest": np.inf, "error": 0.1, "learned": False}
    made |= {"profile": [1.0, 0.5], "half_lives": [1.0, np.inf, 2.0], "errors": [1.0, 0.5, 0.1]}
    seen = []
    monkeypatch.setattr(
        vanishing, "result", lambda kind, **settings: seen.append((kind, settings)) or made
    )
    flags = ["--epochs", "2", "--length", "8", "--samples", "64", "--units", "4", "--seed", "3"]
    vanishing.main([*flags, "--out", str(tmp_path / "a.png")])
    assert seen == [(name, {**SMALL, "seed": 3}) for name in vanishing.NETS]
    assert (tmp_path / "a.png").stat().st_size > 10_000
    lines = capsys.readouterr().out.splitlines()
    for name in vanishing.NETS:
        (row,) = (line.split() for line in lines if line.startswith(f"{name} "))
        assert row == [name, "1.0", "inf", "2.0", "0.1000", "not", "learned"]
    assert lines[-1].startswith("Next: python examples/vanishing.py")
