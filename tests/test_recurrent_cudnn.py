"""Which layers would go to cuDNN on a GPU, and how. No GPU is needed to see it; none was used."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrnn import layers

X = np.random.default_rng(1).normal(size=(3, 5, 4)).astype("float32")


@pytest.fixture
def dispatched(monkeypatch):
    """Pretends that there is a GPU and lists the layers of Keras's that were asked to run. Without
    a real one those run our cell step by step, with the numbers that cuDNN should give."""
    seen = []
    for kind in (keras.layers.LSTM, keras.layers.GRU):

        def inner_loop(self, *args, original=kind.inner_loop, **kwargs):
            seen.append(type(self))
            return original(self, *args, **kwargs)

        monkeypatch.setattr(kind, "inner_loop", inner_loop)
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["GPU:0"])
    return seen


@pytest.mark.parametrize("options", [{}, {"go_backwards": True}, {"return_sequences": True}])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_goes_to_keras_s_path(kind, options, dispatched, monkeypatch, random_weights):
    layer = getattr(layers, kind)(6, **options)
    layer.build(X.shape)
    random_weights(layer)
    y = layer(X)
    assert dispatched == [getattr(keras.layers, kind)]
    assert layer.supports_jit is False
    assert len(layer.weights) == 3

    monkeypatch.undo()
    np.testing.assert_allclose(layer(X), y, rtol=1e-5, atol=1e-6)


def test_dropout_still_applies(dispatched):
    layer = layers.LSTM(6, dropout=0.5)
    assert not np.allclose(layer(X, training=True), layer(X, training=True))
    np.testing.assert_array_equal(layer(X), layer(X))


@pytest.mark.parametrize(
    "options",
    [
        {"use_cudnn": False},
        {"activation": "relu"},
        {"recurrent_activation": "tanh"},
        {"use_bias": False},
        {"unroll": True},
        {"recurrent_dropout": 0.1},
        {"vanishing_gradient_regularization": 0.1},
        {"dropout": 0.1, "implementation": 1},
        {"reset_after": False},
        {"update_gate": "write"},
    ],
)
def test_what_cudnn_does_not_know_stays(options, dispatched):
    layer = layers.GRU(6, **options)
    layer(X)
    assert dispatched == []
    assert layer.supports_jit


def test_masks_keep_to_one_rule(dispatched):
    layer = layers.LSTM(6, return_sequences=True)
    y = layer(X, mask=np.arange(5)[None] < [[3], [5], [2]])
    assert dispatched == []
    # A masked step repeats the output of the step before.
    np.testing.assert_array_equal(y[0, 3:], np.repeat(y[0, 2:3], 2, axis=0))


def test_use_cudnn_that_cannot_be_is_an_error(dispatched):
    with pytest.raises(ValueError, match="use_cudnn=True needs a GPU, no mask"):
        layers.LSTM(6, use_cudnn=True, activation="relu")(X)
