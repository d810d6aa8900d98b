"""Nets whose health is known, and what a report says of them."""

import functools

import keras
import numpy as np
import pytest
from keras_masks import keras_hands_on

from kerasrnn import layers
from kerasrnn.callbacks import GradientNormMonitor
from kerasrnn.diagnostics import health_report
from kerasrnn.initializers import Chrono

BATCH, TIME, FEATURES, UNITS = 16, 12, 3, 6
rng = np.random.default_rng(0)
X = rng.normal(size=(BATCH, TIME, FEATURES)).astype("float32")
# The sign of the first step: something to remember.
Y = (X[:, 0, :1] > 0).astype("float32")
PACKAGES = pytest.mark.parametrize("package", [layers, keras.layers], ids=["ours", "keras"])


def compiled(*parts, optimizer="sgd", shape=(TIME, FEATURES), eagerly=True, name=None):
    parts = [*map(keras_hands_on, parts), keras.layers.Dense(1, name="head")]
    model = keras.Sequential([keras.Input(shape), *parts], name=name)
    # Few updates take less time than tracing one.
    model.compile(optimizer, "mse", run_eagerly=eagerly, jit_compile=False)
    return model


def simple(package, scale, activation="tanh", **options):
    orthogonal = keras.initializers.Orthogonal(scale, seed=0)
    return package.SimpleRNN(
        UNITS, activation, recurrent_initializer=orthogonal, name="rnn", **options
    )


def healthy_lstm(optimizer="adam", **options):
    lstm = layers.LSTM(UNITS, bias_initializer=Chrono(T_max=TIME, seed=0), name="rnn")
    return compiled(lstm, optimizer=optimizer, **options)


def trained(model, *callbacks, epochs=1):
    monitor = GradientNormMonitor()
    model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=[monitor, *callbacks])
    return monitor


def found(report):
    return [(verdict.code, verdict.layer) for verdict in report.verdicts]


def only(report):
    (verdict,) = report.verdicts
    return verdict


@functools.cache
def stack():
    """The report on two layers that read each other, of which the lower one runs both ways."""
    keras.utils.set_random_seed(0)
    lower = layers.Bidirectional(simple(layers, 0.4, return_sequences=True), name="lower")
    model = compiled(lower, keras.layers.LSTM(4, name="b>a"), optimizer="adam")
    return health_report(model, X, Y, trained(model))


@functools.cache
def plain():
    """The report on a model without recurrent layers."""
    return health_report(compiled(keras.layers.Flatten()), X, Y)
