"""Masks on their way through our layers, whatever Keras does with them."""

import functools
import inspect

import keras
import numpy as np
import pytest
from keras import ops

from kerasrnn import layers
from kerasrnn.backends import tf

TOKENS = np.array([[3, 1, 2, 0, 0], [2, 0, 0, 0, 0], [4, 3, 3, 1, 2]])
OPTIONS = {"return_sequences": True, "name": "inner"}
INNER = {
    "ours": lambda: layers.GRU(4, **OPTIONS),
    "keras": lambda: keras.layers.GRU(4, **OPTIONS),
    "both ways": lambda: layers.Bidirectional(keras.layers.LSTM(2, return_sequences=True)),
}


def with_inner(make):
    return {inner: functools.partial(lambda of: make(INNER[of]()), inner) for inner in INNER}


# Each layer, with each kind of layer inside it.
LAYERS = {
    "SimpleRNN": {"": lambda: layers.SimpleRNN(4, **OPTIONS)},
    "LSTM": {"": lambda: layers.LSTM(4, **OPTIONS)},
    "GRU": {"": lambda: layers.GRU(4, **OPTIONS)},
    "MinGRU": {"": lambda: layers.MinGRU(4, **OPTIONS)},
    "MinLSTM": {"": lambda: layers.MinLSTM(4, **OPTIONS)},
    "LRU": {"": lambda: layers.LRU(4, **OPTIONS)},
    "RNN": {
        "ours": lambda: layers.RNN("mgu", units=4, **OPTIONS),
        "keras": lambda: layers.RNN([keras.layers.GRUCell(4) for _ in "ab"], **OPTIONS),
    },
    "Bidirectional": {
        "ours": lambda: layers.Bidirectional(INNER["ours"]()),
        "keras": lambda: layers.Bidirectional(INNER["keras"](), merge_mode="gate"),
        "Residual": lambda: layers.Bidirectional(layers.Residual(INNER["keras"]())),
    },
    "Residual": with_inner(layers.Residual),
    "Highway": with_inner(layers.Highway),
    "DenselyConnected": with_inner(
        lambda inner: layers.DenselyConnected([keras.layers.LSTM(3, return_sequences=True), inner])
    ),
    "RNNStack": {
        str(connection): functools.partial(
            layers.RNNStack, "gru", 4, 2, connection, True, project=True, return_sequences=True
        )
        for connection in (None, "residual", "highway", "dense")
    },
}
CASES = [(name, inner) for name, made in LAYERS.items() for inner in made]


def test_every_layer_is_among_them():
    public = {name for name in layers.__all__ if inspect.isclass(getattr(layers, name))}
    assert set(LAYERS) == public


@pytest.fixture
def keras_hands_no_mask_on(monkeypatch):
    """As Keras's recurrent layers are from 3.16 on."""

    def without(original):
        def init(self, *args, **kwargs):
            original(self, *args, **kwargs)
            self.supports_masking = False

        return init

    for kind in (keras.layers.RNN, keras.layers.Bidirectional):
        monkeypatch.setattr(kind, "__init__", without(kind.__init__))
    layer = keras.layers.Bidirectional(keras.layers.LSTM(2))
    assert not layer.supports_masking
    assert not layer.forward_layer.supports_masking


@pytest.mark.usefixtures("keras_hands_no_mask_on")
@pytest.mark.parametrize(("name", "inner"), CASES, ids=map("-".join, CASES))
def test_masks_are_handed_on_whatever_keras_does(name, inner, random_weights):
    """And without a warning, which here is an error: padding changes nothing behind them."""
    embedding, layer = keras.layers.Embedding(5, 4, mask_zero=True), LAYERS[name][inner]()
    model = keras.Sequential([embedding, layer, layers.LSTM(3)])
    model.build(TOKENS.shape)
    random_weights(model)
    y = np.array(model(TOKENS))
    for row, tokens in zip(y, TOKENS, strict=True):
        alone = model(tokens[None, tokens != 0])[0]
        np.testing.assert_allclose(row, alone, rtol=1e-5, atol=1e-6)
    between = layer(embedding(TOKENS))
    np.testing.assert_array_equal(between._keras_mask, TOKENS != 0)


@pytest.mark.tensorflow
def test_a_loss_with_one_value_per_sequence_takes_no_mask():
    """Nor does it get one where a sum comes before, as RNN's docstring says."""
    tokens, labels = keras.Input((5,), dtype="int32"), TOKENS[:, :2] % 3 + 1
    y = layers.LSTM(4, return_sequences=True)(keras.layers.Embedding(5, 4, mask_zero=True)(tokens))
    head, loss = keras.layers.Dense(4, "softmax"), keras.losses.CTC()
    masked, plain = (keras.Model(tokens, head(one)) for one in (y, ops.add(y, 0)))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[3\] vs. \[3,5\]"):
        loss(labels, masked(TOKENS))
    assert np.isfinite(loss(labels, plain(TOKENS)))
