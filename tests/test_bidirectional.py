import keras
import numpy as np
import pytest
from any_backend import outputs_and_gradients
from keras import ops
from keras_masks import keras_hands_on
from slow import slow_but

from kerasrnn import layers
from kerasrnn.backends import tf

X = np.random.default_rng(1).normal(size=(3, 6, 4)).astype("float32")
MASKS = {
    "none": None,
    "right": np.arange(6) < [[4], [2], [6]],
    "left": np.arange(6) >= [[2], [4], [0]],
    "holes": np.array([[1, 0, 1, 1, 0, 1], [0, 1, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1]], bool),
}


@pytest.fixture
def make(random_weights):
    """Our layer and Keras's of the same configuration, with the same random weights."""

    def make(kind, merge_mode="concat", dtype="float32", **options):
        pair = []
        for module in (layers, keras.layers):
            inner = getattr(module, kind)(5, dtype=dtype, **options)
            layer = module.Bidirectional(inner, merge_mode=merge_mode, dtype=dtype)
            pair.append(keras_hands_on(layer))
            layer.build((3, 6, 4))
        ours, theirs = pair
        random_weights(theirs)
        ours.set_weights(theirs.get_weights())
        return ours, theirs

    return make


def assert_same_as_keras(ours, theirs, rng, run=outputs_and_gradients, mask=None):
    """The same outputs and gradients from random states, to 1e-5 of each tensor's largest entry."""
    x = ops.cast(X, ours.compute_dtype)
    count = sum(len(layer.state_size) for layer in (ours.forward_layer, ours.backward_layer))
    states = [ops.convert_to_tensor(rng.normal(size=(3, 5)), x.dtype) for _ in range(count)]
    mask = None if mask is None else ops.convert_to_tensor(mask)
    call = {"mask": mask, "training": True}
    results = run(ours, x, states, **call), outputs_and_gradients(theirs, x, states, **call)
    tolerance = {"float64": 1e-12, "float16": 1e-2}.get(ops.dtype(x), 1e-5)
    for mine, other in zip(*map(keras.tree.flatten, results), strict=True):
        assert ops.dtype(mine) == ops.dtype(other)
        mine, other = np.array(mine, "float64"), np.array(other, "float64")
        np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize(
    ("merge_mode", "mask"),
    [("concat", mask) for mask in MASKS] + [(m, "holes") for m in ("sum", "ave", "mul", None)],
)
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("kind", slow_but(["LSTM", "GRU"], ["LSTM", "GRU", "SimpleRNN"]))
def test_same_as_keras(kind, return_sequences, merge_mode, mask, make, rng):
    pair = make(kind, merge_mode, return_sequences=return_sequences, return_state=True)
    assert_same_as_keras(*pair, rng, mask=MASKS[mask])


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("kind", slow_but(["LSTM"], ["LSTM", "GRU", "SimpleRNN"]))
def test_a_row_that_is_all_masked(kind, return_sequences, make, rng):
    """Its outputs are zeros, its states stay. Under JAX Keras shows its initial state instead
    (docs/backends.md), so that it gives the expectation without that row."""
    ours, theirs = make(kind, return_sequences=return_sequences, return_state=True)
    mask, rest = np.arange(6) < [[4], [0], [6]], [0, 2]
    count = len(ours.forward_layer.state_size) * 2
    states = [rng.normal(size=(3, 5)).astype("float32") for _ in range(count)]
    (y, *final), gradients = outputs_and_gradients(ours, X, states, mask=mask, training=True)
    (y_rest, *final_rest), expected = outputs_and_gradients(
        theirs, X[rest], [s[rest] for s in states], mask=mask[rest], training=True
    )
    # Of the loss, the sum of sin 3v over all values, by the state.
    on_states = [3 * np.cos(3 * s[1]) for s in states]
    of_row = [0 * X[1], *on_states, *[None] * len(theirs.trainable_weights)]
    rows = [np.zeros_like(y[1]), *(s[1] for s in states), *of_row]
    received, known = [y, *final, *gradients], [y_rest, *final_rest, *expected]
    for mine, other, row in zip(received, known, rows, strict=True):
        mine, other = np.array(mine), np.array(other)
        if row is not None:
            np.testing.assert_allclose(mine[1], row, rtol=1e-5, atol=1e-6)
            mine = mine[rest]
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("path", ["graph", "xla", "programs", "portable"])
@pytest.mark.parametrize("kind", slow_but(["LSTM"], ["LSTM", "GRU", "SimpleRNN"]))
def test_every_path_is_keras_s(kind, path, make, rng, take_path):
    take_path(path if path in ("programs", "portable") else "loop")
    run = outputs_and_gradients
    if path != "portable":
        run = tf.function(run, jit_compile=path == "xla")
    assert_same_as_keras(*make(kind, return_sequences=True), rng, run, MASKS["holes"])


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float64"},
        {"dtype": "mixed_float16"},
        {"unroll": True},
        {"reset_after": False},
        {"stateful": True},
    ],
)
def test_options_reach_both_directions(options, make, rng):
    ours, theirs = make("GRU", return_sequences=True, **options)
    # Twice, for what the first run leaves behind.
    for _ in range(2):
        assert_same_as_keras(ours, theirs, rng)
    if "stateful" in options:
        np.testing.assert_allclose(ours(X), theirs(X), rtol=1e-5, atol=1e-6)


@pytest.mark.tensorflow
def test_unknown_batch_and_time(make, rng):
    ours, theirs = make("LSTM")
    call = tf.function(ours, input_signature=[tf.TensorSpec((None, None, 4))])
    for shape in ((3, 6, 4), (2, 9, 4), (1, 1, 4)):
        x = rng.normal(size=shape).astype("float32")
        np.testing.assert_allclose(call(x), theirs(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("merge_mode", ["concat", None])
def test_a_stateful_layer_that_returns_its_states(merge_mode):
    """In Keras 3.15 its mask is an error."""
    inner = layers.LSTM(5, stateful=True, return_state=True, return_sequences=True)
    layer = layers.Bidirectional(inner, merge_mode=merge_mode)
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(np.array([[3, 1, 0], [2, 0, 0]]))
    *outputs, h, c, back_h, back_c = layer(embedded)
    for y in outputs:
        np.testing.assert_array_equal(y._keras_mask, embedded._keras_mask)
    for state, kept in zip((h, c, back_h, back_c), layer.states, strict=True):
        assert not hasattr(state, "_keras_mask")
        np.testing.assert_array_equal(state, kept)


def test_saved_and_loaded(random_weights, tmp_path):
    layer = layers.Bidirectional(layers.LSTM(5, return_sequences=True, recurrent_dropout=0.1))
    model = keras.Sequential([keras.Input((6, 4)), layer])
    random_weights(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), model(X))
    assert isinstance(loaded.layers[0], layers.Bidirectional)
    assert isinstance(loaded.layers[0].backward_layer, layers.LSTM)


def test_the_gate_is_its_equation(random_weights):
    inner = layers.GRU(5, return_sequences=True, return_state=True)
    layer = layers.Bidirectional(inner, merge_mode="gate")
    layer.build(X.shape)
    random_weights(layer)
    both = layers.Bidirectional(inner, merge_mode=None)
    both.build(X.shape)
    both.set_weights(layer.get_weights()[:6])
    forward, backward, *expected = both(X, mask=MASKS["holes"])
    forward, backward = np.array(forward), np.array(backward)
    z = np.concatenate([forward, backward], -1) @ layer.gate.kernel.numpy()
    g = 1 / (1 + np.exp(-(z + layer.gate.bias.numpy())))
    y, *states = layer(X, mask=MASKS["holes"])
    np.testing.assert_allclose(y, g * forward + (1 - g) * backward, rtol=1e-5, atol=1e-6)
    for one, other in zip(states, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [tuple(part.shape) for part in (y, *states)] == list(layer.compute_output_shape(X.shape))


@pytest.mark.parametrize("return_sequences", [False, True])
def test_a_gated_layer_is_saved_and_trains(return_sequences, tmp_path):
    inner = layers.LSTM(5, return_sequences=return_sequences)
    model = keras.Sequential([keras.Input((6, 4)), layers.Bidirectional(inner, "gate")])
    assert model.output_shape == ((None, 6, 5) if return_sequences else (None, 5))
    model.compile("adam", "mse")
    model.fit(X, np.array(model(X)) + 1, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), model(X))
    assert loaded.layers[0].get_config()["merge_mode"] == "gate"


@pytest.mark.parametrize("merge_mode", ["sum", "ave", "mul", "gate"])
def test_directions_of_different_units(merge_mode):
    options = {"return_sequences": True, "return_state": True}
    pair = layers.LSTM(5, **options), layers.GRU(3, go_backwards=True, **options)
    layer = layers.Bidirectional(pair[0], merge_mode, backward_layer=pair[1])
    rule = rf"same units.*merge_mode='{merge_mode}' of bid.*\(3, 6, 5\) forw.*\(3, 6, 3\) back"
    with pytest.raises(ValueError, match=rule):
        layer(X)
    forward, backward, *_ = layers.Bidirectional(pair[0], None, backward_layer=pair[1])(X)
    assert (forward.shape[-1], backward.shape[-1]) == (5, 3)


@pytest.mark.parametrize("return_sequences", [True, False])
def test_directions_of_different_units_side_by_side(return_sequences, random_weights):
    options = {"return_sequences": return_sequences, "return_state": True}
    pair = layers.LSTM(5, **options), layers.GRU(3, go_backwards=True, **options)
    layer = layers.Bidirectional(pair[0], backward_layer=pair[1])
    x = keras.Input((None, 4))
    symbolic = layer(x)
    random_weights(layer)
    y, *states = layer(X)
    assert [s.shape[1:] for s in symbolic[1:]] == [tuple(s.shape[1:]) for s in states]
    assert symbolic[0].shape[-1] == y.shape[-1] == 8
    (forward, *of_forward), (backward, *of_backward) = (
        one(X) for one in (layer.forward_layer, layer.backward_layer)
    )
    backward = np.array(backward)[:, ::-1] if return_sequences else backward
    np.testing.assert_allclose(y, np.concatenate([forward, backward], -1), atol=1e-6)
    for state, expected in zip(states, of_forward + of_backward, strict=True):
        np.testing.assert_allclose(state, expected, atol=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_nothing(side, random_weights):
    layer = layers.Bidirectional(layers.LSTM(5, return_sequences=True), "gate")
    layer.build(X.shape)
    random_weights(layer)
    mask = MASKS[side]
    y = np.array(layer(X, mask=mask))
    for row, steps in enumerate(mask):
        np.testing.assert_allclose(
            y[row, steps], layer(X[row : row + 1, steps])[0], rtol=1e-5, atol=1e-6
        )


def test_states_of_stacked_cells(random_weights):
    """As nested as they come, or in one list."""
    cells = [keras.layers.LSTMCell(4), keras.layers.GRUCell(3)]
    inner = layers.RNN(cells, return_sequences=True, return_state=True)
    layer = layers.Bidirectional(inner)
    layer.build(X.shape)
    random_weights(layer)
    _, *states = layer(X)
    flat = keras.tree.flatten(states)
    assert [state.shape[1] for state in flat] == [4, 4, 3, 4, 4, 3]
    forward, *_ = layer.forward_layer(X, initial_state=[flat[:2], flat[2]])
    backward, *_ = layer.backward_layer(X, initial_state=[flat[3:5], flat[5]])
    expected = np.concatenate([forward, np.array(backward)[:, ::-1]], axis=-1)
    for given in (states, flat):
        y, *_ = layer(X, initial_state=given)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"must be a list of 6.*\(3, 4\), \(3, 4\)"):
        layer(X, initial_state=flat[:2])


def test_a_layer_that_cannot_run_backward():
    with pytest.raises(ValueError, match=r"must be a recurrent layer.*Dense"):
        layers.Bidirectional(keras.layers.Dense(3))
    with pytest.raises(ValueError, match=r"`merge_mode` must be 'concat'.*'gate' or None.*median"):
        layers.Bidirectional(layers.GRU(3), merge_mode="median")


def test_a_stateful_stack_has_no_batch_before_it_backward():
    stack = layers.RNNStack("lstm", 3, 2, stateful=True, name="stack")
    with pytest.raises(ValueError, match=r"cannot be stateful.*layer=stack"):
        layers.Bidirectional(stack)
