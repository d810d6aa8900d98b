"""What is not finite is traced to its cause."""

import keras
import numpy as np
import pytest
from known_nets import FEATURES, PACKAGES, TIME, X, Y, compiled, found, healthy_lstm, only, simple

from kerasrnn import layers
from kerasrnn.diagnostics import health_report


@pytest.mark.parametrize("where", ["x", "y", "weights"])
def test_what_is_not_finite(where):
    model = healthy_lstm()
    x, y = X.copy(), Y.copy()
    if where == "weights":
        layer = model.get_layer("rnn")
        layer.set_weights([np.full_like(w, np.nan) for w in layer.get_weights()])
    else:
        {"x": x, "y": y}[where][[3, 5]] = np.nan
    report = health_report(model, x, y)
    assert found(report) == [("NON_FINITE", "rnn" if where == "weights" else None)]
    what, remedy = {
        "x": ("`x` holds an Inf or NaN, first in sample 3,", "Clean or mask"),
        "y": ("`y` holds an Inf or NaN, first in sample 3,", "Clean"),
        "weights": ("rnn/lstm_cell/kernel holds an Inf or NaN", "Go back to an earlier checkpoint"),
    }[where]
    assert what in only(report).meaning
    assert only(report).remedy.startswith(remedy)
    steps = " ".join(only(report).steps)
    assert "`kerasrnn.callbacks.DivergenceGuard()`" in steps
    clip = '`kerasrnn.callbacks.GradientClipping("global_norm", 1.0)`'
    assert (clip in steps) == (where == "weights")


def test_weights_that_no_gradient_goes_to_are_of_a_layer_too():
    model = compiled(keras.layers.BatchNormalization(name="norm"), keras.layers.Flatten())
    norm = model.get_layer("norm")
    norm.moving_mean.assign(np.full(FEATURES, np.nan))
    for trainable in (True, False):
        norm.trainable = trainable
        verdict = only(health_report(model, X, Y))
        assert (verdict.code, verdict.layer) == ("NON_FINITE", "norm")
        assert "norm/moving_mean holds" in verdict.meaning


@PACKAGES
def test_states_that_overflow(package):
    """The upper layer only gets what the lower one has made huge."""
    x = np.repeat(X, 5, axis=1)
    lower = simple(package, 6.0, "relu", return_sequences=True)
    upper = package.SimpleRNN(4, "linear", recurrent_initializer="orthogonal", name="upper")
    model = compiled(lower, upper, shape=x.shape[1:])
    verdict = only(health_report(model, x, Y))
    assert (verdict.code, verdict.layer) == ("EXPLODING", "rnn")
    largest = np.max(lower(x))
    assert verdict.numbers["largest"] == pytest.approx(float(largest), rel=1e-3)
    assert largest > 1e20
    assert "GradientClipping" in " ".join(verdict.steps)
    assert "logarithm" not in verdict.remedy


def test_gradients_that_overflow_where_states_do_not():
    """At rest a tanh multiplies gradients by W_h, and its states stay zero."""
    x = np.zeros((4, 60, FEATURES), "float32")
    options = {"kernel_initializer": "zeros", "return_sequences": True}
    lower = layers.SimpleRNN(5, name="lower", **options)
    model = compiled(lower, simple(layers, 6.0), shape=x.shape[1:])
    verdict = only(health_report(model, x, Y[:4] + 1))
    assert (verdict.code, verdict.layer) == ("EXPLODING", "rnn")
    assert np.isfinite(verdict.numbers["loss"])
    assert verdict.numbers["largest"] > 6.0**40


def test_data_too_large_to_be_squared_are_no_explosion():
    linear = compiled(simple(layers, 1.0, "linear"))
    for model, x, y in ((healthy_lstm(), X, 1e30 * Y), (linear, 1e25 * X, Y)):
        verdict = only(health_report(model, x, y))
        assert (verdict.code, verdict.layer) == ("NON_FINITE", None)
        assert "the loss is inf" in verdict.meaning
        first = "Divide the targets" if y is not Y else "`x`, `y` and the weights have none"
        assert verdict.remedy.startswith(first)
        assert "too large to be squared" in " ".join(verdict.steps)


@pytest.mark.parametrize("steps", [False, True])
def test_a_logarithm_of_zero_is_no_explosion(steps):
    """Its gradient comes to some steps only where a layer is read at every one."""
    model = compiled(simple(layers, 1.0, return_sequences=steps))
    y = np.repeat(Y[:, None], TIME, 1) if steps else Y

    def loss(y, prediction):
        at = prediction[:, 5] if steps else prediction
        zero = at - keras.ops.stop_gradient(at)
        return keras.ops.mean(keras.ops.square(prediction - y)) + keras.ops.mean(
            keras.ops.sqrt(zero)
        )

    model.compile("sgd", loss, run_eagerly=True)
    verdict = only(health_report(model, X, y))
    assert (verdict.code, verdict.layer) == ("NON_FINITE", "rnn")
    assert "the gradient of" in verdict.meaning
    assert "logarithm, root or division of zero" in verdict.remedy
