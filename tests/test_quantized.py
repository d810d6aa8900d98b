"""Quantized models, saved and loaded."""

import keras
import numpy as np
import pytest
from slow import slow_but

from kerasrnn import layers

X = np.random.default_rng(0).normal(size=(4, 6, 3)).astype("float32")


def sequences(units=3):
    return layers.LSTM(units, return_sequences=True)


KINDS = {
    "highway": lambda: layers.Highway(sequences()),
    "projected": lambda: layers.Residual(sequences(8), project=True),
    "gate": lambda: layers.Bidirectional(layers.LSTM(8), merge_mode="gate"),
    "stack": lambda: layers.RNNStack("lstm", 3, 3, connection="highway"),
    "both directions": lambda: layers.Bidirectional(layers.Highway(sequences())),
    "nested": lambda: layers.Residual(layers.Highway(sequences(8), project=True), project=True),
    "inside Keras's": lambda: keras.layers.TimeDistributed(layers.Highway(keras.layers.Dense(3))),
}
CASES = [(kind, "int8") for kind in KINDS] + [("nested", "int4"), ("nested", "float8")]


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.parametrize(("kind", "mode"), slow_but(CASES[:1], CASES))
def test_a_quantized_model_is_loaded_as_it_was(kind, mode, tmp_path, random_weights):
    model = keras.Sequential([keras.Input((6, 3)), KINDS[kind](), keras.layers.Dense(2)])
    random_weights(model)
    before = model(X)
    model.quantize(mode)
    y = model(X)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), y)
    if mode == "int8":
        np.testing.assert_allclose(y, before, atol=0.1)
        dtypes = [w.dtype for w in loaded.layers[0].weights]
        assert dtypes.count("int8") == [w.dtype for w in model.layers[0].weights].count("int8") > 0


@pytest.mark.filterwarnings("ignore:Layer InputLayer")
def test_recurrent_layers_stay_in_their_precision():
    """As Keras's do, and with its warning."""
    model = keras.Sequential([keras.Input((6, 3)), layers.LSTM(4, name="lstm")])
    y = model(X)
    with pytest.warns(UserWarning, match="LSTMCell does not have a `quantize` method"):
        model.quantize("int8")
    np.testing.assert_array_equal(model(X), y)
