import keras
import numpy as np
import pytest

from kerasrnn import cells, layers

X = np.random.default_rng(1).normal(size=(3, 6, 4)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [1, 0, 1, 1, 1, 0]], bool)


def keras_stack(kind, bidirectional, residual, mask):
    """The same stack, put together by hand from `keras.layers`."""

    def layer(return_sequences):
        inner = getattr(keras.layers, kind)(5, return_sequences=return_sequences)
        return keras.layers.Bidirectional(inner) if bidirectional else inner

    first, second = layer(True), layer(residual)
    inputs = keras.Input((6, 4))
    x = first(inputs, mask=mask)
    if residual:
        x = keras.layers.Dense(10 if bidirectional else 5, use_bias=False)(inputs) + x
    y = second(x, mask=mask)
    return keras.Model(inputs, x + y if residual else y), first, second


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("cell", "kind"), [("lstm", "LSTM"), ("gru", "GRU")])
def test_plain_stack_is_keras_s(cell, kind, bidirectional, mask, random_weights):
    stack = layers.RNNStack(cell, 5, 2, bidirectional=bidirectional)
    stack.build(X.shape)
    random_weights(stack)
    fixed = None if mask is None else keras.ops.convert_to_tensor(mask)
    model, *_ = keras_stack(kind, bidirectional, residual=False, mask=fixed)
    model.set_weights(stack.get_weights())
    np.testing.assert_allclose(stack(X, mask=mask), model(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_residual_stack(bidirectional, mask, random_weights):
    stack = layers.RNNStack(
        "lstm", 5, 2, "residual", bidirectional, project=True, return_sequences=True
    )
    stack.build(X.shape)
    random_weights(stack)
    fixed = None if mask is None else keras.ops.convert_to_tensor(mask)
    model, first, second = keras_stack("LSTM", bidirectional, residual=True, mask=fixed)
    one, two = stack.layers
    first.set_weights(one.layer.get_weights())
    second.set_weights(two.layer.get_weights())
    dense = next(part for part in model.layers if isinstance(part, keras.layers.Dense))
    dense.set_weights(one.projection.get_weights())
    np.testing.assert_allclose(stack(X, mask=mask), model(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("connection", [None, "residual"])
def test_last_step_is_that_of_the_sequence(connection, bidirectional, random_weights):
    options = {"connection": connection, "bidirectional": bidirectional, "project": True}
    stack = layers.RNNStack("gru", 5, 2, **options)
    stack.build(X.shape)
    random_weights(stack)
    sequences = layers.RNNStack("gru", 5, 2, return_sequences=True, **options)
    sequences.build(X.shape)
    sequences.set_weights(stack.get_weights())
    y = sequences(X, mask=MASK).numpy()
    for row, steps in enumerate(MASK):
        first, last = np.flatnonzero(steps)[[0, -1]]
        expected = y[row, last]
        if bidirectional:
            expected = np.concatenate([y[row, last, :5], y[row, first, 5:]])
        np.testing.assert_array_equal(stack(X, mask=MASK)[row], expected)


def test_a_row_that_is_all_masked_gives_zeros():
    mask = MASK.copy()
    mask[1] = False
    y = layers.RNNStack("lstm", 4, 2, connection="residual")(X, mask=mask).numpy()
    assert (y[1] == 0).all()
    assert (y[0] != 0).all()


@pytest.mark.parametrize("cell", cells.CELLS)
def test_padding_changes_nothing(cell, random_weights):
    stack = layers.RNNStack(cell, 4, 3, connection="residual", project=True, bidirectional=True)
    stack.build((None, None, 4))
    random_weights(stack)
    padded = np.concatenate([X, np.full((3, 5, 4), 9, "float32")], axis=1)
    mask = np.arange(11)[None] < np.full((3, 1), 6)
    np.testing.assert_allclose(stack(padded, mask=mask), stack(X), rtol=1e-5, atol=1e-6)


def test_dropout_only_in_training():
    stack = layers.RNNStack("lstm", 4, 2, dropout=0.5)
    np.testing.assert_array_equal(stack(X), stack(X))
    assert not np.allclose(stack(X, training=True), stack(X, training=True))


@pytest.mark.parametrize("return_sequences", [False, True])
def test_mask_passes_on_with_sequences_only(return_sequences):
    tokens = np.array([[3, 1, 0, 0], [2, 0, 0, 0]])
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(tokens)
    stack = layers.RNNStack("gru", 4, 2, return_sequences=return_sequences)
    mask = getattr(stack(embedded), "_keras_mask", None)
    assert (mask is not None) == return_sequences


def test_saved_and_loaded(random_weights, tmp_path):
    stack = layers.RNNStack(
        "gru", 3, 2, "residual", True, project=True, dropout=0.1, recurrent_dropout=0.2
    )
    model = keras.Sequential([keras.Input((None, 4)), stack])
    random_weights(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), model(X))
    assert loaded.layers[0].get_config() == stack.get_config()


@pytest.mark.parametrize("options", [{}, {"return_sequences": True}])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_output_shape(options, bidirectional):
    stack = layers.RNNStack("lstm", 3, 2, bidirectional=bidirectional, **options)
    assert tuple(stack(X).shape) == stack.compute_output_shape(X.shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "`depth` must be a positive integer.*depth=0"),
        ({"depth": 2.0}, "`depth` must be a positive integer.*depth=2.0"),
        ({"units": 0}, "`units` must be a positive integer.*units=0"),
        ({"connection": "dense"}, "`connection` must be one of None, 'residual'.*'dense'"),
        ({"cell": keras.layers.Dense(3)}, "simple_rnn, lstm, gru.*cell=<Dense"),
        ({"cell": "lsmt"}, "simple_rnn, lstm, gru.*'lsmt'"),
        ({"dropout": -0.1}, r"`dropout` must lie in \[0, 1\).*-0.1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        layers.RNNStack(**arguments)


def test_widths_that_differ_need_a_projection():
    with pytest.raises(ValueError, match=r"project=True.*\(3, 6, 4\) into \(3, 6, 5\)"):
        layers.RNNStack("lstm", 5, 2, connection="residual")(X)
    with pytest.raises(ValueError, match="rank 3"):
        layers.RNNStack("lstm", 4, 2)(X[:, 0])


def test_precision_and_dropout_reach_every_layer():
    stack = layers.RNNStack(
        "lstm",
        np.int64(3),
        np.int64(2),
        "residual",
        True,
        project=True,
        dropout=0.1,
        recurrent_dropout=0.2,
        dtype="float64",
    )
    assert stack(X).dtype == "float64"
    assert {w.dtype for w in stack.weights} == {"float64"}
    assert stack.get_config()["units"] == 3
    for layer in stack.layers:
        for direction in (layer.layer.forward_layer, layer.layer.backward_layer):
            assert (direction.cell.dropout, direction.cell.recurrent_dropout) == (0.1, 0.2)
