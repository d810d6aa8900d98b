import copy

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


def fit(net, *callbacks):
    keras.utils.set_random_seed(2)
    return net.fit(X, Y, batch_size=8, epochs=4, verbose=0, callbacks=list(callbacks)).history


def test_training_is_the_same_to_the_bit():
    plain, watched = model(), model()
    alone, beside = fit(plain), fit(watched, GradientFlowMonitor(X[:4], Y[:4]))
    assert alone == beside
    for a, b in zip(plain.get_weights(), watched.get_weights(), strict=True):
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


def test_errors():
    with pytest.raises(ValueError, match="every=0"):
        GradientFlowMonitor(X, Y, every=0)
    with pytest.raises(ValueError, match="after fit"):
        GradientFlowMonitor(X, Y).plot()
