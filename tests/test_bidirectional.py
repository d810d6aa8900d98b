import keras
import numpy as np
import pytest

from kerasrnn import layers

X = np.random.default_rng(1).normal(size=(3, 6, 4)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [1, 0, 1, 1, 1, 0]], bool)


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("merge_mode", ["concat", "sum", "ave", "mul"])
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_same_as_keras(kind, return_sequences, merge_mode, mask, random_weights):
    def build(module):
        inner = getattr(module, kind)(5, return_sequences=return_sequences)
        layer = module.Bidirectional(inner, merge_mode=merge_mode)
        layer.build((3, 6, 4))
        return layer

    ours, theirs = build(layers), build(keras.layers)
    random_weights(theirs)
    ours.set_weights(theirs.get_weights())
    np.testing.assert_allclose(ours(X, mask=mask), theirs(X, mask=mask), rtol=1e-5, atol=1e-6)


def test_saved_and_loaded(random_weights, tmp_path):
    layer = layers.Bidirectional(layers.LSTM(5, return_sequences=True, recurrent_dropout=0.1))
    model = keras.Sequential([keras.Input((6, 4)), layer])
    random_weights(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), model(X))
    assert isinstance(loaded.layers[0], layers.Bidirectional)
    assert isinstance(loaded.layers[0].backward_layer, layers.LSTM)
