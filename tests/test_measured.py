"""The bounds of a gradient; what else is measured has its own tests: flow, gates, spectrum."""

import keras
import numpy as np
import pytest
from known_nets import TIME, X, Y, compiled, found, simple

from kerasrnn import layers
from kerasrnn.diagnostics import health_report, plots


@pytest.mark.parametrize("backward", [False, True])
def test_the_bound_over_time(backward):
    layer = simple(layers, 0.9, go_backwards=backward)
    report = health_report(compiled(layer), X, Y)
    norms, bound = report.flow.norms["rnn"], report.layers["rnn"].bound_over_time
    assert (norms <= bound * (1 + 1e-5)).all()
    last = 0 if backward else -1
    assert norms[last] == pytest.approx(bound[last])


def test_a_bound_beyond_all_numbers():
    """What saturates passes on no gradient, however large its weights."""
    layer = simple(layers, 3e30)
    report = health_report(compiled(layer), X, 1e8 * Y)
    layer, norms = report.layers["rnn"], report.flow.norms["rnn"]
    assert found(report) == [("DEAD", "rnn")]
    assert layer.bound[[0, 1, -1]] == pytest.approx([1, 3e30, np.inf])
    # The last but one is beyond them times the norm only.
    assert np.isfinite(layer.bound[-2])
    assert layer.bound_over_time[[0, 1, -1]] == pytest.approx([np.inf, np.inf, norms[-1]])
    _, axis = plots.over_time(report.flow, "rnn", layer)
    assert axis.get_yscale() == "log"
    assert axis.get_ylim() == pytest.approx((norms[-1] / 2, norms[-1] * 2))
    # Drawn without a warning.
    assert report._repr_html_().count("<img") == 3


def test_where_there_is_no_bound_over_time():
    # Where every step is read, or masked ones are repeated, it would be none.
    read = compiled(simple(layers, 0.9, return_sequences=True))
    report = health_report(read, X, np.repeat(Y[:, None], TIME, 1))
    assert report.layers["rnn"].bound_over_time is None
    masked = compiled(keras.layers.Masking(), simple(layers, 0.9))
    report = health_report(masked, np.where(np.arange(TIME)[:, None] < 9, X, 0), Y)
    assert report.layers["rnn"].bound_over_time is None
    assert (report.layers["rnn"].steps, report.layers["rnn"].lyapunov) == (9, None)


def language_model(bidirectional, steps):
    model = keras.Sequential(
        [
            keras.Input((steps,), dtype="int64"),
            keras.layers.Embedding(9, 4),
            layers.RNNStack(
                "gru", 6, 1, bidirectional=bidirectional, return_sequences=True, name="stack"
            ),
            keras.layers.Dense(9, "softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("steps", [None, 20])
def test_a_language_model_that_sees_the_next_word(steps):
    """Of one length, too; where the targets are not the next words, nothing is said of it."""
    words = np.random.default_rng(0).integers(0, 9, (8, 21))
    x, y = words[:, :-1], words[:, 1:]
    (verdict, *_) = health_report(language_model(True, steps), x, y).verdicts
    assert (verdict.code, verdict.severity) == ("LOOKS_AHEAD", "sick")
    assert verdict.layer.startswith("stack")
    assert verdict.numbers["step"] < verdict.numbers["seen"]
    assert "run in one direction" in verdict.remedy
    # Padding that a loss ignores, and one-hot words.
    padded = np.where(np.arange(20) < 15, y, -1)
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    for targets, of in ((padded, loss), (np.eye(9)[y], "categorical_crossentropy")):
        model = language_model(True, steps)
        model.compile("adam", of)
        assert health_report(model, x, targets).verdicts[0].code == "LOOKS_AHEAD"
    for model, targets in (
        (language_model(False, steps), y),
        (language_model(True, steps), y[::-1]),
    ):
        codes = {verdict.code for verdict in health_report(model, x, targets).verdicts}
        assert "LOOKS_AHEAD" not in codes


@pytest.mark.parametrize("backward", [True, False])
def test_a_forecast_that_sees_the_next_step(backward):
    """Of one of several numbers, scaled and shifted; of all; and by a convolution."""
    series = np.random.default_rng(0).normal(size=(8, 16, 3)).astype("float32")
    x, y = series[:, :-1], series[:, 1:]
    rnn = layers.GRU(4, return_sequences=True)
    rnn = layers.Bidirectional(rnn) if backward else rnn
    padding = "same" if backward else "causal"
    for layer, targets, remedy in (
        (rnn, 3 * y[..., 1:2] - 5, "run in one direction"),
        (rnn, y[..., :2], "run in one direction"),
        (keras.layers.Conv1D(4, 3, padding=padding), y, 'padding="causal"'),
    ):
        outputs = keras.layers.Dense(targets.shape[-1])
        model = keras.Sequential([keras.Input((15, 3)), layer, outputs])
        model.compile("adam", "mse")
        (verdict, *_) = health_report(model, x, targets).verdicts
        assert (verdict.code == "LOOKS_AHEAD") == backward
        assert not backward or remedy in verdict.remedy


def test_a_forecast_of_something_like_the_next_step():
    """However near to it, another quantity may be known at its time."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 16, 1)).astype("float32")
    like = x[:, 1:] + 0.1 * rng.normal(size=(8, 15, 1)).astype("float32")
    rnn = layers.Bidirectional(layers.GRU(4, return_sequences=True))
    model = keras.Sequential([keras.Input((15, 1)), rnn, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    codes = {verdict.code for verdict in health_report(model, x[:, :-1], like).verdicts}
    assert "LOOKS_AHEAD" not in codes


def test_targets_that_the_output_does_not_reach():
    x = np.random.default_rng(0).normal(size=(8, 5, 3)).astype("float32")
    y = np.linspace(-3, 4, 8, dtype="float32")[:, None]
    for activation, targets, reached in (
        ("sigmoid", y, False),
        ("tanh", y, False),
        ("relu", y, False),
        ("tanh", y / 4, True),
        (None, y, True),
    ):
        parts = [layers.GRU(4), keras.layers.Dense(1, activation, name="out")]
        model = keras.Sequential([keras.Input((5, 3)), *parts])
        model.compile("adam", "mse")
        notes = health_report(model, x, targets).notes
        said = [note for note in notes if "the output of out" in note]
        assert len(said) == (not reached)
        assert all("from -3 to 4" in note for note in said)


def test_a_frozen_layer_is_not_said_to_learn_nothing():
    x = np.random.default_rng(0).normal(size=(8, 40, 3)).astype("float32")
    rnn = layers.SimpleRNN(4, recurrent_initializer="zeros", name="rnn")
    model = keras.Sequential([keras.Input((40, 3)), rnn, keras.layers.Dense(1)])
    for trainable, code in ((True, "VANISHING"), (False, "HEALTHY")):
        rnn.trainable = trainable
        model.compile("adam", "mse")
        report = health_report(model, x, np.arange(8.0)[:, None])
        assert report.verdicts[0].code == code
        assert any("rnn is frozen" in note for note in report.notes) != trainable
