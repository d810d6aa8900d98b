import copy
import pickle
import random

import keras
import numpy as np
import pytest

from kerasrnn import layers
from kerasrnn.callbacks import GradientFlowMonitor
from kerasrnn.diagnostics import gradient_flow

rng = np.random.default_rng(0)
X = rng.normal(size=(16, 6, 3)).astype("float32")
Y = rng.normal(size=(16, 1)).astype("float32")


def model():
    keras.utils.set_random_seed(1)
    net = keras.Sequential([keras.Input((6, 3))])
    net.add(layers.SimpleRNN(4, dropout=0.3, name="rnn"))
    net.add(keras.layers.Dense(1))
    net.compile("adam", "mse", metrics=["mae"])
    return net


class Pooled(keras.Model):
    """Subclassed, without a configuration, with a stateful layer, and built in its first step."""

    def __init__(self, units):
        super().__init__()
        self.rnn = layers.SimpleRNN(units, stateful=True, dropout=0.3, name="rnn")
        self.head = keras.layers.Dense(1)

    def call(self, x, training=False):
        return self.head(self.rnn(x, training=training))


def pooled():
    keras.utils.set_random_seed(1)
    net = Pooled(4)
    net.compile("adam", "mse", metrics=["mae"])
    return net


def fit(net, *callbacks):
    keras.utils.set_random_seed(2)
    return net.fit(X, Y, batch_size=8, epochs=4, verbose=0, callbacks=list(callbacks)).history


@pytest.mark.parametrize("made", [model, pooled])
def test_training_is_the_same_to_the_bit(made):
    def train(*callbacks):
        net = made()
        logs = fit(net, *callbacks)
        drawn = random.random(), np.random.rand(), float(keras.random.uniform(()))
        states = [] if made is model else net.rnn.states
        return logs, drawn, [*net.get_weights(), *(state.numpy() for state in states)]

    monitor = GradientFlowMonitor(X[:8], Y[:8], every=2)
    (*alone, weights), (*beside, watched) = train(), train(monitor)
    assert alone == beside
    assert monitor.epochs == [2, 4]
    for a, b in zip(weights, watched, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_recorded_and_when():
    net, every = model(), GradientFlowMonitor(X[:4], Y[:4])
    seldom = copy.deepcopy(GradientFlowMonitor(X[:4], Y[:4], every=3))
    fit(net, seldom, every)
    assert (seldom.epochs, every.epochs) == ([3], [1, 2, 3, 4])
    assert list(seldom.history[0].norms) == ["rnn"]
    last = gradient_flow(net, X[:4], Y[:4])
    for path, norms in last.per_sample.items():
        np.testing.assert_allclose(every.history[-1].per_sample[path], norms, rtol=1e-5)
    (axis,) = every.plot().axes
    line = next(line for line in axis.lines if line.get_label() == "rnn")
    np.testing.assert_allclose(line.get_ydata(), [f.slope["rnn"] for f in every.history])

    fit(net, seldom)
    assert len(seldom.history) == 1


def test_a_label_that_is_no_number():
    y = Y[:4].copy()
    y[2] = np.nan
    monitor = GradientFlowMonitor(X[:4], y)
    fit(model(), monitor)
    assert np.isnan([[f.slope["rnn"], f.half_life["rnn"]] for f in monitor.history]).all()


def test_copies_in_fit_and_outside():
    """keras-tuner copies callbacks for every trial."""
    monitor, copies = GradientFlowMonitor(X[:8], Y[:8], every=2), []

    def copied():
        return copy.deepcopy(monitor), pickle.loads(pickle.dumps(monitor))

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            copies.extend(copied())
            if epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(pooled(), monitor, Interrupt())
    copies.extend(copied())
    assert [one.epochs for one in copies] == [[], [], [2], [2], [2], [2]]
    for one in copies:
        assert (one.every, one.model) == (2, None)
        np.testing.assert_array_equal(one.x, X[:8])
        for mine, flow in zip(one.history, monitor.history, strict=False):
            np.testing.assert_array_equal(mine.norms["rnn"], flow.norms["rnn"])
    fit(model(), copies[-1])
    assert copies[-1].epochs == [2, 4]


def without_rnn(built):
    start = [keras.Input((6, 3))] if built else []
    net = keras.Sequential([*start, keras.layers.Flatten(), keras.layers.Dense(1)])
    net.compile("sgd", "mse")
    return net


@pytest.mark.parametrize(
    ("made", "x", "y", "message"),
    [
        (lambda: without_rnn(True), X, Y, "`model` must have a recurrent layer"),
        (lambda: without_rnn(False), X, Y, "`model` must have a recurrent layer"),
        (model, X[:, :, :2], Y, r"must run on `x`.* Received: .* \(16, 6, 2\) and \(16, 1\)"),
        (model, X, None, r"its loss take `y`.* shapes \(16, 6, 3\) and None"),
        (model, X, Y[:3], r"its loss take `y`.* shapes \(16, 6, 3\) and \(3, 1\)"),
        (pooled, X[:3], Y[:3], r"must run on `x`"),
    ],
)
def test_what_cannot_be_measured_shows_before_training_does(made, x, y, message):
    seen, net = [], made()
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda b, logs: seen.append(b))
    built = net.built
    with pytest.raises(ValueError, match=message):
        fit(net, watch, GradientFlowMonitor(x, y, every=3))
    assert seen == ([] if built else [0])


def test_errors():
    with pytest.raises(ValueError, match="every=0"):
        GradientFlowMonitor(X, Y, every=0)
    with pytest.raises(ValueError, match="after fit"):
        GradientFlowMonitor(X, Y).plot()


class Counted(keras.layers.Layer):
    """Counts how often it is traced."""

    traces = 0

    def call(self, x):
        self.traces += 1
        return x


@pytest.mark.parametrize("built", [True, False])
def test_the_measurement_is_traced_once_for_several_fits(built):
    """And anew, where it would come out differently."""
    keras.utils.set_random_seed(1)
    counted = Counted()
    net = keras.Sequential([keras.Input((6, 3))] if built else [])
    for layer in (layers.SimpleRNN(4, name="rnn"), counted, keras.layers.Dense(1)):
        net.add(layer)
    net.compile("adam", "mse")
    monitor = GradientFlowMonitor(X, Y)

    def assert_right():
        fit(net, monitor)
        expected = gradient_flow(net, X, Y)
        assert len(monitor.history) == 4
        assert monitor.history[-1].loss == pytest.approx(expected.loss, rel=1e-5)
        np.testing.assert_allclose(monitor.history[-1].norms["rnn"], expected.norms["rnn"], 1e-4)

    assert_right()
    before = counted.traces
    for _ in range(2):
        fit(net, monitor)
    assert counted.traces == before
    assert_right()
    net.compile(net.optimizer, "mae")
    assert_right()
    own = net.compute_loss
    net.compute_loss = lambda *a, **k: 2 * own(*a, **k)
    assert_right()
