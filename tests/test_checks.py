"""Masks, on their way into every layer of this package and out of it: those that Keras attaches to
a tensor, those of ragged sequences, and those of outputs that stand in the other order."""

import keras
import numpy as np
import pytest
from any_backend import compiled
from keras import ops
from slow import slow_but

from kerasrnn import cells, layers
from kerasrnn.backends import tf
from kerasrnn.layers.states import state_sizes, state_structure

UNITS, FEATURES = 3, 3
LENGTHS = np.array([2, 5, 0, 4])
MASK = np.arange(5) < LENGTHS[:, None]
X = np.random.default_rng(1).normal(size=(4, 5, FEATURES)).astype("float32")
X[~MASK] = 0
TOKENS = np.where(MASK, np.random.default_rng(2).integers(1, 7, (4, 5)), 0)
RESET = np.random.default_rng(3).random((4, 5)) < 0.3


def listed(**options):
    return layers.RNN([cells.GRUCell(2), cells.LRUCell(UNITS)], **options)


def both(**options):
    return layers.Bidirectional(layers.LSTM(UNITS, **options), merge_mode="sum")


def other_way_round(**options):
    """A Bidirectional whose forward layer is the one that runs backward: Keras lets it be."""
    directions = (layers.LSTM(UNITS, go_backwards=back, **options) for back in (True, False))
    return layers.Bidirectional(next(directions), backward_layer=next(directions), merge_mode="ave")


def stack(**options):
    return layers.RNNStack("gru", UNITS, 2, connection="residual", **options)


def dense_stack(**options):
    return layers.RNNStack("lstm", UNITS, 2, connection="dense", bidirectional=True, **options)


def both_of_stacks(**options):
    return layers.Bidirectional(layers.RNNStack("mgu", UNITS, 2, **options))


def around(kind):
    def make(return_sequences, **options):
        inner = layers.LSTM(UNITS, return_sequences=True)
        return getattr(layers, kind)([inner] if kind == "DenselyConnected" else inner, **options)

    return make


MAKE = {
    "LSTM": lambda **options: layers.LSTM(UNITS, **options),
    "MinGRU": lambda **options: layers.MinGRU(UNITS, **options),
    "a list": listed,
    "Bidirectional": both,
    "Bidirectional, the other way round": other_way_round,
    "RNNStack": stack,
    "RNNStack of both directions": dense_stack,
    "Bidirectional of a stack": both_of_stacks,
    "Residual": around("Residual"),
    "Highway": around("Highway"),
    "DenselyConnected": around("DenselyConnected"),
}
TURNABLE = [name for name in MAKE if not name.startswith("Bidirectional")]
FORWARD = [name for name in MAKE if name != "Bidirectional, the other way round"]


def made(name, return_sequences=True, **options):
    layer = MAKE[name](return_sequences=return_sequences, **options)
    layer.build(X.shape)
    return layer


def assert_same(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def states_of(layer, rng):
    states = [rng.normal(size=(4, size)).astype("float32") for size in state_sizes(layer)]
    return keras.tree.pack_sequence_as(state_structure(layer), states)


class Model(keras.Model):
    """Tokens, padded with 0, and resets or states."""

    def __init__(self, layer):
        super().__init__()
        self.embedding = keras.layers.Embedding(7, FEATURES, mask_zero=True)
        self.layer = layer
        self.head = keras.layers.Dense(1)

    def call(self, inputs):
        tokens, *more = inputs
        x = self.embedding(tokens)
        if len(more) == 1 and len(more[0].shape) == 2 and ops.dtype(more[0]) == "bool":
            return self.head(self.layer(x, reset=more[0]))
        return self.head(self.layer(x, initial_state=more))


@pytest.mark.parametrize("name", MAKE)
def test_a_mask_attached_to_the_sequences_holds_beside_other_tensors(name, rng, random_weights):
    layer = made(name, return_sequences=name not in ("LSTM", "RNNStack"))
    random_weights(layer)
    states = states_of(layer, rng)
    masked = keras.layers.Masking()(X)
    in_a_graph = compiled(lambda x, more: layer(keras.layers.Masking()(x), **more))
    for more in ({"reset": RESET}, {"initial_state": states}):
        expected = layer(X, mask=MASK, **more)
        assert not np.allclose(layer(X, **more), expected)
        assert_same(layer(masked, **more), expected)
        assert_same(in_a_graph(X, more), expected)
        # One that is passed wins.
        assert_same(layer(masked, mask=np.ones_like(MASK), **more), layer(X, **more))


# Keras says so of every model inside a model, and has the mask go on all the same.
@pytest.mark.filterwarnings("ignore:.*'functional.* does not support masking")
@pytest.mark.parametrize(
    "name", slow_but(["LSTM"], ["LSTM", "MinGRU", "Bidirectional", "RNNStack", "Highway"])
)
def test_an_attached_mask_in_models(name, rng, random_weights):
    """Functional, inside another model, subclassed; called, in `predict` and in `fit`."""
    layer = made(name)
    random_weights(layer)
    states = states_of(layer, rng)
    for more, arguments in (
        ([RESET], lambda inputs: {"reset": inputs[0]}),
        (states, lambda inputs: {"initial_state": inputs}),
    ):
        inputs = [keras.Input((5, FEATURES))]
        inputs += [keras.Input(v.shape[1:], dtype=str(v.dtype)) for v in more]
        first, *rest = inputs
        inner = keras.Model(inputs, layer(keras.layers.Masking()(first), **arguments(rest)))
        unmasked = keras.Model(inputs, layer(first, **arguments(rest)))
        outer = keras.Model(inputs, unmasked([keras.layers.Masking()(first), *rest]))
        expected = layer(X, mask=MASK, **arguments(more))
        for model in (inner, outer):
            assert_same(model([X, *more]), expected)
            assert_same(model.predict([X, *more], verbose=0), expected)
            np.testing.assert_array_equal(model([X, *more])._keras_mask, MASK)

        model = Model(layer)
        y = model([TOKENS, *more])
        embedded = model.embedding(TOKENS)
        assert_same(y, model.head(layer(embedded * 1, mask=MASK, **arguments(more))))
        model.compile(keras.optimizers.SGD(0.0), "mse")
        history = model.fit([TOKENS, *more], np.ones((4, 5, 1)), verbose=0, batch_size=4).history
        loss = np.mean((np.array(y) - 1) ** 2, axis=-1)[MASK].mean()
        np.testing.assert_allclose(history["loss"][0], loss, rtol=1e-5)


@pytest.mark.parametrize("name", slow_but(["LSTM", "a list", "RNNStack", "Highway"], TURNABLE))
def test_outputs_in_the_other_order_have_their_mask_in_it(name, random_weights):
    layer = made(name, go_backwards=True)
    random_weights(layer)
    masked = keras.layers.Masking()(X)
    for y in (layer(masked), layer(masked, reset=RESET)):
        np.testing.assert_array_equal(y._keras_mask, MASK[:, ::-1])
    turned = layer.compute_mask(X, MASK)
    np.testing.assert_array_equal(turned, MASK[:, ::-1])
    symbolic = layer(keras.layers.Masking()(keras.Input((5, FEATURES))))
    assert symbolic._keras_mask.shape == (None, 5)
    # So that a second layer passes over the steps that were masked.
    second = layers.LSTM(2, go_backwards=True)
    second.build(layer.compute_output_shape(X.shape))
    random_weights(second)
    y = layer(X, mask=MASK)
    expected = second(y * 1, mask=MASK[:, ::-1])
    assert_same(second(layer(masked)), expected)
    inputs = keras.Input((5, FEATURES))
    model = keras.Model(inputs, second(layer(keras.layers.Masking()(inputs))))
    assert_same(model.predict(X, verbose=0), expected)
    # Changed padding changes nothing.
    changed = np.where(MASK[..., None], X, 7.0)
    assert_same(second(layer(changed, mask=MASK) * 1, mask=MASK[:, ::-1]), expected)


@pytest.mark.parametrize("name", ["LSTM", "Bidirectional", "Bidirectional, the other way round"])
def test_the_mask_of_each_step_is_that_of_its_output(name, random_weights):
    """Whatever the order of the outputs: at masked steps, and nowhere else, they are zeros."""
    options = {"zero_output_for_mask": True, "go_backwards": True}
    layer = made(name, **options if name == "LSTM" else {})
    random_weights(layer)
    y = layer(keras.layers.Masking()(X))
    np.testing.assert_array_equal(np.any(np.array(y) != 0, axis=-1), y._keras_mask)


def test_masks_that_are_not_of_sequences_are_not_turned():
    masked = keras.layers.Masking()(X)
    for name in ("LSTM", "RNNStack"):
        layer = made(name, return_sequences=False, go_backwards=True)
        assert getattr(layer(masked), "_keras_mask", None) is None
        assert layer.compute_mask(X, MASK) is None
        layer = made(name, return_sequences=True, go_backwards=True, return_state=True)
        y, *states = layer(masked)
        np.testing.assert_array_equal(y._keras_mask, MASK[:, ::-1])
        assert all(getattr(state, "_keras_mask", None) is None for state in states)
        mask, *others = layer.compute_mask(X, MASK)
        np.testing.assert_array_equal(mask, MASK[:, ::-1])
        assert others == [None] * len(states)


def ragged(v):
    return tf.RaggedTensor.from_tensor(ops.convert_to_tensor(v), lengths=LENGTHS)


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", slow_but(["LSTM", "Bidirectional", "Residual"], FORWARD))
def test_ragged_sequences(name, rng, random_weights):
    """They are what they are with padding and a mask."""
    layer = made(name, return_sequences=name not in ("LSTM", "RNNStack"))
    random_weights(layer)
    expected = layer(X, mask=MASK)
    y = layer(ragged(X))
    assert_same(y, expected)
    if len(y.shape) == 3:
        np.testing.assert_array_equal(y._keras_mask, MASK)
    assert_same(tf.function(layer)(ragged(X)), expected)
    # A reset acts at a masked step, too, but a ragged one has none of them.
    more = {"reset": RESET & MASK, "initial_state": states_of(layer, rng)}
    expected = layer(X, mask=MASK, **more)
    assert_same(layer(ragged(X), **more | {"reset": ragged(RESET)}), expected)
    holes = MASK & (rng.random(MASK.shape) < 0.6)
    for mask in (holes, ragged(holes), holes[:, :, None]):
        assert_same(layer(ragged(X), mask=mask), layer(X, mask=holes))


@pytest.mark.tensorflow
def test_ragged_sequences_in_fit(random_weights):
    layer = made("LSTM", return_sequences=False)
    model = keras.Sequential([layer, layers.Residual(keras.layers.Dense(UNITS))])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    y = np.ones((4, UNITS), "float32")
    history = model.fit(ragged(X), y, batch_size=4, verbose=0).history
    expected = np.mean((model(ragged(X)) - y) ** 2)
    np.testing.assert_allclose(history["loss"][0], expected, rtol=1e-5)
    assert_same(model.predict(ragged(X), batch_size=2, verbose=0), model(ragged(X)))
