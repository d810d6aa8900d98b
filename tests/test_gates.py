import keras
import numpy as np
import pytest
from known_nets import BATCH, FEATURES, TIME, UNITS, X, Y, compiled, rng

from kerasrnn import layers
from kerasrnn.cells import CELLS
from kerasrnn.diagnostics import health_report
from kerasrnn.diagnostics.flow import Measurement
from kerasrnn.diagnostics.gates import BINS, HIGH, LOW, GateRecorder


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def by_hand(layer, x, kind):
    """The gates of a layer, (batch, time, units) each, from its equations."""
    w, u, b = layer.get_weights()
    h = c = np.zeros((len(x), UNITS))
    kept = []
    for t in range(x.shape[1]):
        if kind == "LSTM":
            i, f, g, o = np.split(x[:, t] @ w + h @ u + b, 4, axis=1)
            gates = {"i": sigmoid(i), "f": sigmoid(f), "o": sigmoid(o)}
            c = gates["f"] * c + gates["i"] * np.tanh(g)
            h = gates["o"] * np.tanh(c)
        else:
            (z, r, g), (uz, ur, ug) = (
                np.split(v, 3, axis=1) for v in (x[:, t] @ w + b[0], h @ u + b[1])
            )
            gates = {"z": sigmoid(z + uz), "r": sigmoid(r + ur)}
            h = gates["z"] * h + (1 - gates["z"]) * np.tanh(g + gates["r"] * ug)
        kept.append(gates)
    return {gate: np.stack([gates[gate] for gates in kept], 1) for gate in kept[0]}


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize(("package", "backward"), [(layers, True), (keras.layers, False)])
def test_gates_against_their_equations(package, kind, backward, random_weights):
    layer = getattr(package, kind)(UNITS, name="rnn", go_backwards=backward)
    # Masked at the end of what is run.
    lengths = rng.integers(3, TIME, BATCH)
    valid = np.arange(TIME) < lengths[:, None]
    valid = valid[:, ::-1] if backward else valid
    x = np.where(valid[:, :, None], X, 0)
    model = compiled(keras.layers.Masking(), layer)
    random_weights(layer, 1.5)
    gates = health_report(model, x, Y).layers["rnn"].gates
    along = slice(None, None, -1 if backward else 1)
    expected = by_hand(layer, x[:, along], kind)
    assert list(gates) == list(expected)
    for name, values in expected.items():
        values = values[valid[:, along]]
        shares = np.mean(values < LOW), np.mean(values > HIGH)
        assert min(shares) > 0
        assert gates[name][1:3] == pytest.approx(shares, abs=1e-3)
        counts = np.histogram(values, BINS, (0, 1))[0]
        np.testing.assert_allclose(gates[name].counts, counts, atol=5)
        assert gates[name].counts.sum() == valid.sum() * UNITS


@pytest.mark.parametrize("kind", CELLS)
def test_the_gates_of_every_cell_are_known_by_name(kind, random_weights):
    layer = layers.RNN(kind, units=FEATURES, name="rnn")
    model = compiled(layer, shape=(5, FEATURES))
    random_weights(layer, 0.3)
    recorder = GateRecorder()

    activation = getattr(layer.cell, "recurrent_activation", None)
    with recorder:
        Measurement(model, trace=False, watch=recorder.begin)(X[:2, :5], Y[:2])
    gates = recorder.gates("rnn")
    assert [name.rstrip("'") for name in gates] == list(layer.cell.gated)
    assert getattr(layer.cell, "recurrent_activation", None) is activation
    for name, gate in gates.items():
        assert gate.counts.sum() == 2 * 5 * FEATURES
        remembers = "high" * (name.rstrip("'") in layer.cell.keeps)
        assert gate.remembers == (remembers or "low" * (name in layer.cell.writes))


def test_gates_that_are_none():
    """What is no number in [0, 1] is no gate, nor is what a function of the user's own hides."""
    model = compiled(layers.LSTM(UNITS, recurrent_activation="tanh", name="rnn"))
    assert health_report(model, X, Y).layers["rnn"].gates == {}
