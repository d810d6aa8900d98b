import keras
import numpy as np
import pytest
from keras import ops
from keras_masks import keras_hands_on
from slow import slow_but

from kerasrnn import cells, layers
from kerasrnn.backends import tf
from kerasrnn.layers.connections import Normalized

X = np.random.default_rng(1).normal(size=(3, 6, 4)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [1, 0, 1, 1, 1, 0]], bool)


def keras_stack(kind, bidirectional, mask):
    """The same plain stack, put together by hand from `keras.layers`."""
    x = inputs = keras.Input((6, 4))
    for return_sequences in (True, False):
        layer = getattr(keras.layers, kind)(5, return_sequences=return_sequences)
        layer = keras.layers.Bidirectional(layer) if bidirectional else layer
        x = keras_hands_on(layer)(x, mask=mask)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("cell", "kind"), [("lstm", "LSTM"), ("gru", "GRU")])
def test_plain_stack_is_keras_s(cell, kind, bidirectional, mask, random_weights):
    stack = layers.RNNStack(cell, 5, 2, bidirectional=bidirectional)
    stack.build(X.shape)
    random_weights(stack)
    fixed = None if mask is None else ops.convert_to_tensor(mask)
    model = keras_stack(kind, bidirectional, fixed)
    model.set_weights(stack.get_weights())
    np.testing.assert_allclose(stack(X, mask=mask), model(X), rtol=1e-5, atol=1e-6)


def by_hand(stack, x, mask):
    """A stack's sequences from its weights: the connections in NumPy, the layers from Keras."""
    levels = stack.layers[0].layers if stack.connection == "dense" else stack.layers
    h = x
    for level in levels:
        layer = level.layer if stack.connection in ("residual", "highway") else level
        x = h
        if isinstance(layer, Normalized):
            centred = x - x.mean(-1, keepdims=True)
            scaled = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-3)
            x = scaled * layer.norm.gamma.numpy() + layer.norm.beta.numpy()
            layer = layer.layer
        kind = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[stack.cell]
        inner = layer.forward_layer if stack.bidirectional else layer
        twin = kind(inner.cell.units, return_sequences=True)
        twin = keras.layers.Bidirectional(twin) if stack.bidirectional else twin
        twin.build(x.shape)
        twin.set_weights(layer.get_weights())
        told = None if mask is None else ops.convert_to_tensor(mask)
        f = np.array(keras_hands_on(twin)(x, mask=told))
        if stack.connection == "dense":
            h = f if level is levels[-1] else np.concatenate([h, f], -1)
            continue
        if stack.connection is None:
            h = f
            continue
        carried = h if level.projection is None else h @ level.projection.kernel.numpy()
        if stack.connection == "residual":
            h = carried + f
        else:
            t = 1 / (1 + np.exp(-(h @ level.gate.kernel.numpy() + level.gate.bias.numpy())))
            h = t * f + (1 - t) * carried
    return h


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("normalization", slow_but(["layer"], [None, "layer"]))
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("connection", ["residual", "highway", "dense"])
def test_connected_stack(connection, bidirectional, normalization, mask, random_weights):
    cell = "lstm" if normalization is None else "gru"
    stack = layers.RNNStack(
        cell,
        [5, 3, 3],
        connection=connection,
        bidirectional=bidirectional,
        normalization=normalization,
        project=True,
        return_sequences=True,
    )
    stack.build(X.shape)
    random_weights(stack)
    y, expected = np.array(stack(X, mask=mask)), by_hand(stack, X, mask)
    steps = np.ones((3, 6), bool) if mask is None else mask
    np.testing.assert_allclose(y[steps], expected[steps], rtol=1e-4, atol=1e-5)
    assert y.shape == stack.compute_output_shape(X.shape)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("connection", [None, "residual", "highway", "dense"])
def test_last_step_is_that_of_the_sequence(connection, bidirectional, random_weights):
    options = {"connection": connection, "bidirectional": bidirectional, "project": True}
    stack = layers.RNNStack("gru", 5, 2, **options)
    stack.build(X.shape)
    random_weights(stack)
    sequences = layers.RNNStack("gru", 5, 2, return_sequences=True, **options)
    sequences.build(X.shape)
    sequences.set_weights(stack.get_weights())
    y = np.array(sequences(X, mask=MASK))
    for row, steps in enumerate(MASK):
        first, last = np.flatnonzero(steps)[[0, -1]]
        expected = y[row, last]
        if bidirectional:
            expected = np.concatenate([y[row, last, :5], y[row, first, 5:]])
        np.testing.assert_array_equal(stack(X, mask=MASK)[row], expected)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_masks_of_every_form_that_keras_knows(bidirectional):
    """With an axis of its own, as Keras's own layers take it, or one for all rows."""
    stack = layers.RNNStack("gru", 5, 2, bidirectional=bidirectional)
    expected = stack(X, mask=MASK)
    np.testing.assert_array_equal(stack(X, mask=MASK[..., None]), expected)
    one = np.repeat(MASK[:1], 3, axis=0)
    np.testing.assert_array_equal(stack(X, mask=MASK[:1]), stack(X, mask=one))
    with pytest.raises(ValueError, match=r"`mask` must have the shape.*\(3, 5\)"):
        stack(X, mask=MASK[:, :5])


def test_a_row_that_is_all_masked_gives_zeros():
    mask = MASK.copy()
    mask[1] = False
    y = np.array(layers.RNNStack("lstm", 4, 2, connection="residual")(X, mask=mask))
    assert (y[1] == 0).all()
    assert (y[0] != 0).all()


@pytest.mark.parametrize("cell", slow_but(["simple_rnn", "lstm", "slstm", "lru"], cells.CELLS))
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
        (
            {"connection": "skip"},
            "`connection` must be None, 'residual', 'highway' or 'dense'.*connection='skip'",
        ),
        ({"connection": np.array(["residual"])}, r"`connection` must be None.*array\("),
        ({"normalization": "batch"}, "`normalization` must be None or 'layer'.*='batch'"),
        ({"units": [3, 4], "depth": 3}, r"one per layer.*units=\[3, 4\], depth=3"),
        ({"units": [3, 0]}, "`units` must be a positive integer.*units=0"),
        ({"units": []}, r"one per layer.*units=\[\], depth=None"),
        ({"units": np.array([3.5, 4])}, "`units` must be a positive integer.*units=3.5"),
        ({"bidirectional": True, "stateful": True}, "cannot be stateful.*stateful=True"),
        ({"bidirectional": "yes"}, "`bidirectional` must be True or False.*'yes'"),
        ({"return_state": 2}, "`return_state` must be True or False.*2"),
        ({"cell": keras.layers.Dense(3)}, "simple_rnn, lstm, gru.*cell=<Dense"),
        ({"cell": cells.MGUCell(4)}, "a cell of its own.*class or function.*cell=<MGUCell"),
        (
            {"cell": "mingru", "recurrent_initializer": "zeros"},
            "MinGRUCell has no `recurrent_initializer`",
        ),
        (
            {"cell": cells.LSTMCell, "initial_state": "learned"},
            "`initial_state` is the cell's: pass it on.*initial_state='learned'",
        ),
        (
            {"cell": lambda units: cells.MGUCell(units), "dropout": 0.2},
            r"must take their units and, as keywords, dropout.*\{'dropout': 0.2\}",
        ),
        ({"seed": "a"}, "`seed` must be an integer.*a"),
        ({"cell": "lsmt"}, "simple_rnn, lstm, gru.*'lsmt'"),
        ({"dropout": -0.1}, r"`dropout` must lie in \[0, 1\).*-0.1"),
        ({"cell": cells.GRUCell, "zoneout": 1}, r"`zoneout` must lie in \[0, 1\).*zoneout=1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        layers.RNNStack(**arguments)


def test_seeded_layers_draw_other_numbers_each():
    stack = layers.RNNStack(
        "lstm", 4, 3, kernel_initializer=keras.initializers.GlorotUniform(seed=1), seed=2
    )
    stack.build(X.shape)
    kernels = [layer.cell.kernel.numpy() for layer in stack.layers]
    expected = keras.initializers.GlorotUniform(seed=3)((4, 16))
    np.testing.assert_array_equal(kernels[2], expected)
    assert not np.allclose(kernels[0], kernels[1])
    again = layers.RNNStack.from_config(stack.get_config())
    again.build(X.shape)
    np.testing.assert_array_equal(again.layers[2].cell.kernel, expected)


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
    assert ops.dtype(stack(X)) == "float64"
    assert {w.dtype for w in stack.weights} == {"float64"}
    assert stack.get_config()["units"] == 3
    assert layers.RNNStack(units=np.array([3, 5])).get_config()["units"] == [3, 5]
    for layer in stack.layers:
        for direction in (layer.layer.forward_layer, layer.layer.backward_layer):
            assert (direction.cell.dropout, direction.cell.recurrent_dropout) == (0.1, 0.2)


def innermost(layer):
    """The recurrent layers inside, bottom to top, forward before backward."""
    if isinstance(layer, layers.RNN):
        return [layer]
    if isinstance(layer, layers.Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    return [inner for part in layer.layers for inner in innermost(part)]


CONNECTIONS = pytest.mark.parametrize("connection", [None, "residual", "highway", "dense"])


@CONNECTIONS
@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_in_and_out(connection, bidirectional, random_weights):
    """Layer by layer, forward before backward, h before c; and back in, in that order."""
    options = {"connection": connection, "bidirectional": bidirectional, "project": True}
    stack = layers.RNNStack("lstm", [5, 3], return_sequences=True, return_state=True, **options)
    stack.build(X.shape)
    random_weights(stack)
    y, *states = stack(X)
    directions = 2 if bidirectional else 1
    sizes = [5, 5] * directions + [3, 3] * directions
    assert [s.shape[1] for s in states] == sizes == stack.state_size
    assert [tuple(part.shape) for part in (y, *states)] == list(stack.compute_output_shape(X.shape))
    # An h is what its layer gave at its last step, which a bottom layer shows when it stands alone.
    plain = layers.RNNStack("lstm", 5, 1, bidirectional=bidirectional, return_sequences=True)
    plain.build(X.shape)
    first = innermost(stack)[:directions]
    plain.set_weights([w for part in first for w in part.get_weights()])
    h1 = np.array(plain(X))
    np.testing.assert_allclose(states[0], h1[:, -1, :5], rtol=1e-5, atol=1e-6)
    if bidirectional:
        np.testing.assert_allclose(states[2], h1[:, 0, 5:], rtol=1e-5, atol=1e-6)
    else:
        # What is run in two halves is what is run at once.
        first, *middle = stack(X[:, :2])
        second, *final = stack(X[:, 2:], initial_state=middle)
        np.testing.assert_allclose(np.concatenate([first, second], 1), y, rtol=1e-5, atol=1e-6)
        for one, other in zip(final, states, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    grouped = [states[: 2 * directions], states[2 * directions :]]
    for one, other in zip(
        stack(X, initial_state=states), stack(X, initial_state=grouped), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=rf"must hold its {len(sizes)} states.*Received: 1 of"):
        stack(X, initial_state=states[:1])
    short = layers.RNNStack("lstm", [5, 3], return_state=True, **options)
    assert [tuple(part.shape) for part in short(X)] == list(short.compute_output_shape(X.shape))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_encoder_s_states_start_a_decoder(bidirectional, random_weights):
    options = {"connection": "highway", "bidirectional": bidirectional, "project": True}
    encoder = layers.RNNStack("gru", 4, 2, return_state=True, **options)
    decoder = layers.RNNStack("gru", 4, 2, return_sequences=True, **options)
    a, b = keras.Input((6, 4)), keras.Input((None, 4))
    _, *states = encoder(a)
    model = keras.Model([a, b], decoder(b, initial_state=states))
    random_weights(model)
    _, *states = encoder(X)
    z = X[:, :3]
    np.testing.assert_allclose(
        model([X, z]), decoder(z, initial_state=states), rtol=1e-5, atol=1e-6
    )
    assert not np.allclose(model([X, z]), decoder(z))


@CONNECTIONS
def test_stateful(connection, assert_stateful):
    options = {"return_sequences": True, "stateful": True}
    assert_stateful(layers.RNNStack("gru", 4, 2, connection, project=True, **options), X)


@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("mask", [None, MASK])
def test_inside_bidirectional(mask, return_sequences, random_weights):
    """Two whole stacks, the second on the sequence turned around."""
    options = {"return_sequences": return_sequences, "return_state": True}
    both = layers.Bidirectional(layers.RNNStack("gru", 4, 2, "residual", **options))
    both.build(X.shape)
    random_weights(both)
    y, *states = both(X, mask=mask)
    halves = []
    for weights, turn in zip(np.split(np.arange(12), 2), (1, -1), strict=True):
        stack = layers.RNNStack("gru", 4, 2, "residual", **options)
        stack.build(X.shape)
        stack.set_weights([both.get_weights()[i] for i in weights])
        halves.append(stack(X[:, ::turn], mask=None if mask is None else mask[:, ::turn]))
    (forward, *states_f), (backward, *states_b) = halves
    backward = np.array(backward)[:, ::-1] if return_sequences else backward
    np.testing.assert_allclose(y, np.concatenate([forward, backward], -1), rtol=1e-5, atol=1e-6)
    for one, other in zip(states, states_f + states_b, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@keras.saving.register_keras_serializable("test_stack")
class Zoneout(keras.layers.GRUCell):
    """A cell of somebody else's, which keeps what it was given."""

    def __init__(self, units, zoneout=0.0, **kwargs):
        super().__init__(units, **kwargs)
        self.zoneout = zoneout

    def get_config(self):
        return super().get_config() | {"zoneout": self.zoneout}


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_function_that_makes_cells(bidirectional, random_weights, tmp_path):
    stack = layers.RNNStack(
        Zoneout, [4, 3], None, "residual", bidirectional, project=True, dropout=0.2, zoneout=0.1
    )
    stack.build(X.shape)
    random_weights(stack)
    inside = [layer.cell for layer in innermost(stack)]
    assert [cell.units for cell in inside] == [n for n in (4, 3) for _ in range(1 + bidirectional)]
    rates = {(cell.dropout, cell.recurrent_dropout, cell.zoneout) for cell in inside}
    assert rates == {(0.2, 0.0, 0.1)}
    named = layers.RNNStack("gru", [4, 3], None, "residual", bidirectional, project=True)
    named.build(X.shape)
    named.set_weights(stack.get_weights())
    np.testing.assert_allclose(stack(X), named(X), rtol=1e-5, atol=1e-6)

    model = keras.Sequential([keras.Input((None, 4)), stack])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), model(X))
    assert {type(layer.cell) for layer in innermost(loaded.layers[0])} == {Zoneout}


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda units: cells.GRUCell(7), {}, "Asked for: {'units': 3.*GRUCell with {'units': 7"),
        (
            lambda units: keras.layers.StackedRNNCells([keras.layers.GRUCell(n) for n in (3, 5)]),
            {},
            "StackedRNNCells with {'units': 5",
        ),
        (cells.GRUCell, {"dtype": "float64"}, "'float64'}.*GRUCell with.*'float32'}"),
        (
            lambda units, **rates: cells.GRUCell(units),
            {"dropout": 0.2},
            "'dropout': 0.2}.*'dropout': 0.0}",
        ),
        (
            lambda units, **rates: keras.layers.GRUCell(units),
            {"zoneout": 0.2},
            "'zoneout': 0.2}.*'zoneout': None}",
        ),
        (lambda units: None, {}, "NoneType with {'units': None"),
    ],
)
def test_a_function_that_makes_other_cells_than_asked_for(make, options, message):
    with pytest.raises(ValueError, match=message):
        layers.RNNStack(make, 3, 2, **options)
    # Where it heeds them it serves.
    policy = options.get("dtype", "float32")
    stack = layers.RNNStack(
        lambda units, **rates: cells.GRUCell(units, dtype=policy, **rates), 3, 2, **options
    )
    assert ops.dtype(stack(X)) == policy


def test_a_function_that_makes_one_cell_only():
    cell = cells.GRUCell(3)
    with pytest.raises(ValueError, match="make a new cell every time"):
        layers.RNNStack(lambda units: cell, 3, 2)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_no_rows(bidirectional):
    stack = layers.RNNStack("gru", 4, 2, bidirectional=bidirectional)
    assert stack(np.zeros((0, 5, 3))).shape == (0, 8 if bidirectional else 4)


@CONNECTIONS
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(connection, policy):
    stack = layers.RNNStack(
        "lstm", 4, 3, connection, True, "layer", project=True, return_state=True, dtype=policy
    )
    policy = keras.dtype_policies.get(policy)
    y, *states = stack(X)
    assert set(map(ops.dtype, (y, *states))) == {policy.compute_dtype}
    assert {w.dtype for w in stack.weights} == {"float32"}


@pytest.mark.parametrize(
    "connection", slow_but(["highway"], [None, "residual", "highway", "dense"])
)
def test_trains_and_is_served(connection, tmp_path):
    """Through `fit`, which runs the compiled programs, and as a SavedModel."""
    stack = layers.RNNStack("gru", 16, 2, connection, True, "layer", project=True, dropout=0.1)
    model = keras.Sequential([keras.Input((6, 4)), stack, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    x = np.tile(X, (8, 1, 1))
    losses = model.fit(x, x[:, 0, :1], epochs=30, batch_size=24, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]
    if tf:
        model.export(str(tmp_path / "served"), verbose=False)
        artifact = tf.saved_model.load(str(tmp_path / "served"))
        np.testing.assert_allclose(artifact.serve(X), model(X), rtol=1e-4, atol=1e-5)


def test_a_single_feature_is_not_normalized_away():
    stack = layers.RNNStack("gru", 4, 2, normalization="layer")
    with pytest.raises(ValueError, match=r"two features or more.*\(3, 6, 1\)"):
        stack(X[..., :1])


@pytest.mark.tensorflow
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_mask_of_one_row_that_only_the_running_graph_sees(bidirectional, random_weights, rng):
    stack = layers.RNNStack("gru", 3, 2, bidirectional=bidirectional)
    stack.build((None, None, 2))
    random_weights(stack)
    x, mask = rng.normal(size=(4, 5, 2)).astype("float32"), np.array([[1, 0, 1, 1, 0]], bool)
    signature = [tf.TensorSpec((None, None, 2)), tf.TensorSpec((None, None), "bool")]
    y = tf.function(lambda x, mask: stack(x, mask=mask), signature)(x, mask)
    np.testing.assert_allclose(y, stack(x[:, mask[0]]), rtol=1e-5, atol=1e-6)
