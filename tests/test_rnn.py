"""The layers against `keras.layers`, which they replace: same weights in, same numbers out."""

import inspect

import keras
import numpy as np
import pytest
import twins
from any_backend import PLAIN_PATHS, compiled, outputs_and_gradients
from keras import ops
from keras_masks import keras_hands_on
from slow import slow_but

from kerasrnn import cells, layers, recurrence
from kerasrnn.backends import BACKEND, tf

PAIRS = {
    "simple_rnn": (layers.SimpleRNN, keras.layers.SimpleRNN, {}),
    "lstm": (layers.LSTM, keras.layers.LSTM, {}),
    "gru": (layers.GRU, keras.layers.GRU, {}),
    "gru_reset_before": (layers.GRU, keras.layers.GRU, {"reset_after": False}),
}
over_pairs = pytest.mark.parametrize("pair", PAIRS)

MASKS = {
    "none": None,
    "right": [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]],
    "left": [[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 1]],
    "holes": [[1, 0, 1, 1, 0, 1], [0, 1, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1]],
    "empty_row": [[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]],
}


# tests/test_portable.py has masks there.
KERAS_UNDER_JAX = "Keras's own loop gives the first state at a masked step there"


@pytest.fixture
def make(rng, random_weights):
    """Our layer and Keras's of the same configuration, with the same random weights."""

    def make(pair, **options):
        ours, theirs, fixed = PAIRS[pair]
        ours, theirs = ours(5, **fixed, **options), theirs(5, **fixed, **options)
        keras_hands_on(theirs).build((3, 6, 4))
        ours.build((3, 6, 4))
        random_weights(theirs)
        ours.set_weights(theirs.get_weights())
        return ours, theirs

    return make


def assert_same(ours, theirs, tolerance=1e-5):
    """Equal to within `tolerance` of each tensor's largest entry."""
    for mine, other in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        scale = np.abs(np.array(other)).max(initial=1e-30)
        np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance * scale)


def random_states(layer, rng):
    def draw(state):
        return ops.convert_to_tensor(rng.normal(size=state.shape), state.dtype)

    return keras.tree.map_structure(draw, layer.get_initial_state(3))


def assert_same_under(mask, ours, theirs, rng, run=outputs_and_gradients, **call):
    """The same outputs and gradients on random sequences, from random states."""
    if mask is not None and BACKEND == "jax":
        pytest.skip(KERAS_UNDER_JAX)
    x = ops.convert_to_tensor(rng.normal(size=(3, 6, 4)), ours.compute_dtype)
    mask = None if mask is None else ops.convert_to_tensor(np.array(mask, bool))
    call |= {"initial_state": random_states(theirs, rng), "mask": mask}
    assert_same(run(ours, x, **call), outputs_and_gradients(theirs, x, **call))


@over_pairs
def test_takes_the_same_arguments_in_the_same_order(pair):
    ours, theirs, _ = PAIRS[pair]
    ours, theirs = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
    shared = [p for p in ours.values() if p.name in theirs]
    assert [(p.name, p.default) for p in shared] == [(p.name, p.default) for p in theirs.values()]


@over_pairs
def test_holds_the_same_weights(pair, make):
    ours, theirs = make(pair)
    assert [(w.name, w.shape) for w in ours.weights] == [(w.name, w.shape) for w in theirs.weights]
    theirs.set_weights(ours.get_weights())


@over_pairs
@pytest.mark.parametrize("unroll", slow_but([False], [False, True]))
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("mask", MASKS)
def test_same_outputs_and_gradients(pair, make, rng, mask, return_sequences, go_backwards, unroll):
    ours, theirs = make(
        pair,
        return_sequences=return_sequences,
        return_state=True,
        go_backwards=go_backwards,
        unroll=unroll,
    )
    if go_backwards and BACKEND == "torch":
        # Keras's unrolled loop fails there, where there is a mask to turn around.
        theirs.unroll = False
    assert_same_under(MASKS[mask], ours, theirs, rng)


@pytest.mark.parametrize("pair", slow_but(["lstm"], PAIRS))
@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("mask", MASKS)
def test_zero_output_for_mask(pair, make, rng, mask, return_sequences, unroll):
    options = {"zero_output_for_mask": True, "go_backwards": True}
    options |= {"return_sequences": return_sequences, "return_state": True}
    ours, theirs = make(pair, unroll=unroll, **options)
    # Keras's unrolled loop forgets to turn this mask around.
    theirs.unroll = False
    assert_same_under(MASKS[mask], ours, theirs, rng)


PATHS = {
    "eager": lambda layer: layer,
    "unrolled": lambda layer: layer,
    "stacked": lambda layer: layer,
    "graph": compiled,
    "programs": compiled,
    "both directions": lambda layer: layer,
    "portable": compiled,
}
if tf:
    PATHS["xla"] = lambda layer: tf.function(layer, jit_compile=True)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("path", slow_but(PATHS.keys() - {"xla", "graph"}, PATHS))
def test_one_rule_for_masked_steps(path, zeros, rng, random_weights, take_path):
    """A masked step changes no state; its output is that of the step before, or zeros."""
    take_path(path if path in ("programs", "portable") else PLAIN_PATHS[0])
    options = {"return_sequences": True, "zero_output_for_mask": zeros, "return_state": True}
    inner = cells.GRUCell(5)
    layer = layers.RNN(
        [inner] if path == "stacked" else inner, unroll=path == "unrolled", **options
    )
    if path == "both directions":
        layer = layers.Bidirectional(layer)
        # Keras's Bidirectional asks for zeros, whatever its layer says.
        zeros = True
    layer.build((3, 6, 4))
    random_weights(layer)
    x = rng.normal(size=(3, 6, 4)).astype("float32")

    for mask in map(np.array, filter(None, MASKS.values())):
        y, h, *_ = PATHS[path](layer)(x, mask=ops.convert_to_tensor(mask == 1), training=True)
        state, output, expected = np.zeros((3, 5)), np.zeros((3, 5)), []
        for t in range(6):
            on = mask[:, t, None] == 1
            (new,) = twins.gru(layer.get_weights()[:3], x[:, t], (state,))
            state, output = np.where(on, new, state), np.where(on, new, 0 if zeros else output)
            expected.append(output)
        assert_same([y[..., :5], h], [np.stack(expected, axis=1), state])


@over_pairs
def test_stateful(pair, make, rng):
    ours, theirs = make(pair, stateful=True, return_sequences=True, return_state=True)
    x = rng.normal(size=(4, 3, 6, 4)).astype("float32")
    mask = None if BACKEND == "jax" else np.array(MASKS["holes"], bool)
    for i, given in enumerate([{}, {"mask": mask}, {"initial_state": random_states(theirs, rng)}]):
        mine, by_weight = outputs_and_gradients(ours, x[i], **given)
        if BACKEND == "torch":
            # Where Keras's layer overwrites the states that its gradient needs.
            assert_same(mine, theirs(x[i], **given))
            continue
        assert_same([mine, by_weight], outputs_and_gradients(theirs, x[i], **given))
    continued = ours(x[3])
    assert_same(continued, theirs(x[3]))
    ours.reset_state()
    assert not np.allclose(ours(x[3])[0], continued[0])


@pytest.mark.parametrize("pair", slow_but(["gru_reset_before"], PAIRS))
@pytest.mark.parametrize("path", ["graph", "xla", "programs", "portable"])
def test_every_path_is_keras_s(pair, path, make, rng, take_path):
    take_path(path if path in ("programs", "portable") else "loop")
    ours, theirs = make(pair, return_sequences=True, return_state=True, go_backwards=True)
    run = outputs_and_gradients
    if path != "portable":
        run = tf.function(run, jit_compile=path == "xla")
    for mask in ("none", "holes"):
        assert_same_under(MASKS[mask], ours, theirs, rng, run, training=True)


@pytest.mark.tensorflow
@over_pairs
def test_unknown_batch_and_time(pair, make, rng):
    ours, theirs = make(pair, return_sequences=True)
    signature = [tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None), "bool")]
    run = tf.function(
        lambda x, mask: outputs_and_gradients(ours, x, mask=mask), input_signature=signature
    )
    for shape in ((3, 6, 4), (2, 9, 4), (1, 1, 4)):
        x = rng.normal(size=shape).astype("float32")
        mask = rng.random(shape[:2]) < 0.7
        assert_same(run(x, mask), outputs_and_gradients(theirs, x, mask=mask))


@pytest.mark.parametrize("kind", [layers.LSTM, layers.MinGRU])
def test_a_model_of_unknown_length_and_a_smaller_last_batch(kind, rng, random_weights):
    """In `fit`, `evaluate` and `predict`, which are those of the layer."""
    layer = kind(5)
    model = keras.Sequential([keras.Input((None, 4)), keras.layers.Masking(), layer])
    random_weights(model)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    for steps in (3, 7):
        x = rng.normal(size=(5, steps, 4)).astype("float32")
        x[1, 1:] = x[3, :2] = 0
        y = np.array(layer(x, mask=np.any(x, axis=-1)))
        np.testing.assert_allclose(model.predict(x, 2, verbose=0), y, rtol=1e-5, atol=1e-6)
        target = np.ones((5, 5), "float32")
        loss = np.mean((y - 1) ** 2)
        np.testing.assert_allclose(model.evaluate(x, target, 2, verbose=0), loss, rtol=1e-5)
        history = model.fit(x, target, 2, verbose=0).history
        np.testing.assert_allclose(history["loss"][0], loss, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float64", "mixed_float16", "mixed_bfloat16"])
@over_pairs
def test_precision(pair, make, rng, dtype):
    ours, theirs = make(pair, return_sequences=True, dtype=dtype)
    x = rng.normal(size=(3, 6, 4)).astype("float64" if dtype == "float64" else "float32")
    results = [outputs_and_gradients(layer, x) for layer in (ours, theirs)]
    dtypes = [list(map(ops.dtype, keras.tree.flatten(result))) for result in results]
    assert dtypes[0] == dtypes[1]
    tolerance = {"float64": 1e-12, "mixed_float16": 1e-2, "mixed_bfloat16": 1e-1}[dtype]
    mine, other = (keras.tree.map_structure(lambda v: ops.cast(v, "float64"), r) for r in results)
    assert_same(mine, other, tolerance)


@over_pairs
@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.5},
        {"recurrent_dropout": 0.5},
        {"dropout": 0.3, "recurrent_dropout": 0.3},
    ],
)
def test_dropout_has_the_same_distribution(pair, make, rng, options):
    ours, theirs = make(pair, **options)
    x = np.repeat(rng.normal(size=(1, 6, 4)).astype("float32"), 4000, axis=0)
    mine, other = (np.array(layer(x, training=True)) for layer in (ours, theirs))
    spread = other.std(axis=0)
    # Means and deviations of 4,000 draws; their own error is about spread / 63.
    np.testing.assert_allclose(mine.mean(axis=0), other.mean(axis=0), atol=0.08 * spread.max())
    np.testing.assert_allclose(mine.std(axis=0), spread, atol=0.08 * spread.max())
    # Units that share masks move together.
    np.testing.assert_allclose(np.corrcoef(mine.T), np.corrcoef(other.T), atol=0.1)
    assert_same(ours(x[:3]), theirs(x[:3]))


def test_dropout_drops_the_same_inputs_at_every_step(rng):
    cell = cells.SimpleRNNCell(
        4,
        activation="linear",
        recurrent_initializer="zeros",
        kernel_initializer="identity",
        dropout=0.5,
    )
    y = layers.RNN(cell, return_sequences=True)(np.ones((50, 6, 4), "float32"), training=True)
    y = np.array(y)
    assert set(np.unique(y)) == {0.0, 2.0}
    np.testing.assert_array_equal(y, np.repeat(y[:, :1], 6, axis=1))


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("mask", ["none", "holes"])
def test_a_list_of_cells_is_keras_s_stack(rng, random_weights, mask, go_backwards):
    def build(rnn, module):
        layer = rnn(
            [module.LSTMCell(5), module.GRUCell(3)],
            return_sequences=True,
            return_state=True,
            go_backwards=go_backwards,
        )
        layer.build((3, 6, 4))
        return keras_hands_on(layer)

    ours, theirs = build(layers.RNN, cells), build(keras.layers.RNN, keras.layers)
    random_weights(theirs)
    ours.set_weights(theirs.get_weights())
    assert_same_under(MASKS[mask], ours, theirs, rng)


def test_runs_a_keras_cell(rng, random_weights):
    ours = layers.RNN(keras.layers.LSTMCell(5), return_sequences=True)
    theirs = keras.layers.RNN(keras.layers.LSTMCell(5), return_sequences=True)
    theirs.build((3, 6, 4))
    ours.build((3, 6, 4))
    random_weights(theirs)
    ours.set_weights(theirs.get_weights())
    x = rng.normal(size=(3, 6, 4)).astype("float32")
    assert_same(outputs_and_gradients(ours, x), outputs_and_gradients(theirs, x))


def test_a_cell_by_name_is_the_layer_of_that_name(rng, random_weights):
    by_name = layers.RNN("gru", units=5, reset_after=False, return_sequences=True)
    layer = layers.GRU(5, reset_after=False, return_sequences=True)
    by_name.build((3, 6, 4))
    layer.build((3, 6, 4))
    random_weights(layer)
    by_name.set_weights(layer.get_weights())
    x = rng.normal(size=(3, 6, 4)).astype("float32")
    np.testing.assert_array_equal(by_name(x), layer(x))


@over_pairs
def test_saved_and_loaded(pair, make, rng, tmp_path):
    ours, _ = make(
        pair,
        recurrent_dropout=0.1,
        activity_regularizer=keras.regularizers.L2(0.1),
        recurrent_constraint="max_norm",
        zero_output_for_mask=True,
        go_backwards=True,
    )
    model = keras.Sequential([keras.Input((6, 4)), ours])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = rng.normal(size=(3, 6, 4)).astype("float32")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.layers[0].get_config() == ours.get_config()


def test_exposes_the_cells_arguments():
    layer = layers.GRU(5, dropout=0.25, activation="relu")
    assert (layer.units, layer.dropout, layer.reset_after) == (5, 0.25, True)
    assert layer.activation is keras.activations.relu
    assert layers.GRU.dropout.__doc__ == "The cell's `dropout`."


@pytest.mark.parametrize("shape", [(32, 10), (32, 5, 4, 3)])
def test_bad_rank(shape):
    with pytest.raises(ValueError, match=r"`sequences` must have rank 3.*shape=\(32, "):
        layers.LSTM(4)(np.ones(shape, "float32"))
    built = layers.LSTM(4)
    built.build((None, None, 10))
    with pytest.raises(ValueError, match="`sequences` must have rank 3") as error:
        built(np.ones(shape, "float32"))
    hints = [hint in str(error.value) for hint in ("x[..., None]", "Embedding", "x[:, None]")]
    assert hints == [len(shape) == 2] * 3


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("RNN", {"cell": "lstmm", "units": 4}, "cell='lstmm'"),
        ("RNN", {"cell": "lstm"}, r"size as a keyword, RNN\('lstm', units=\.\.\.\).*cell='lstm'"),
        ("RNN", {"cell": "mgu", "return_sequences": 4}, r"units=\.\.\.\).*return_sequences=4"),
        ("RNN", {"cell": "mgu", "unit": 4}, r"no argument `unit`; did you mean `units`.*unit=4"),
        ("RNN", {"cell": cells.MGUCell}, r"and not its class: make one, as MGUCell\(8\).*cell=<"),
        ("RNN", {"cell": [cells.MGUCell]}, r"and not its class: make one, as MGUCell\(8\).*cell="),
        ("RNN", {"cell": cells.MGUCell(4), "zoneout": 0.1}, "give it to MGUCell.*zoneout=0.1"),
        ("RNN", {"cell": cells.LRUCell(4), "r_min": 0.1}, "give it to LRUCell.*r_min=0.1"),
        ("RNN", {"cell": keras.layers.LSTMCell(4), "units": 4}, "give it to LSTMCell.*units=4"),
        (
            "RNN",
            {"cell": [keras.layers.LSTMCell(4), cells.MGUCell(4)], "units": 4},
            "give it to LSTMCell and MGUCell, or.*units=4",
        ),
        ("RNN", {"cell": cells.MGUCell(4), "statefull": True}, "did you mean `stateful`"),
        ("LSTM", {"units": 4, "normalisation": "layer"}, "LSTM has no.*mean `normalization`"),
        ("RNNStack", {"cell": "mgu", "zonout": 0.1}, "RNNStack has no.*mean `zoneout`.*zonout=0.1"),
        ("MinGRU", {"units": 4, "zonout": 0.1}, "MinGRU has no.*mean `zoneout`.*zonout=0.1"),
        ("RNN", {"cell": []}, r"`cell` must be a cell, a list of one or more.*cell=\[\]"),
        ("RNN", {"cell": layers.LSTM(3)}, "`cell` must be a cell.*cell=<LSTM"),
        ("LSTM", {"units": 0}, "`units` must be a positive integer"),
        ("RNN", {"cell": np.ones(2)}, "`cell`"),
        ("LSTM", {"units": 4, "use_cudnn": "yes"}, "must be 'auto', True or False.*'yes'"),
        ("LSTM", {"units": 4, "use_cudnn": np.ones(2)}, "must be 'auto', True or False.*array"),
        ("LSTM", {"units": 4, "unroll": np.ones(2)}, "`unroll` must be True or False.*array"),
        ("LSTM", {"units": 4, "stateful": "no"}, "`stateful` must be True or False.*'no'"),
        ("GRU", {"units": 4, "reset_after": None}, "`reset_after` must be True or False.*None"),
        ("GRU", {"units": 4, "hidden": 4}, "hidden"),
        ("Bidirectional", {"layer": keras.layers.Dense(3)}, "`layer` must be.*layer=<Dense"),
    ],
)
def test_bad_arguments(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(layers, kind)(**arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"mask": (3, 5)}, r"`mask` must have the shape.*\(3, 6\).*mask.shape=\(3, 5\)"),
        ({"mask": (3, 1)}, r"`mask` must have the shape.*mask.shape=\(3, 1\)"),
        ({"mask": (2, 6)}, r"`mask` must have the shape.*mask.shape=\(2, 6\)"),
        ({"mask": (6,)}, r"`mask` must have the shape.*mask.shape=\(6,\)"),
        ({"mask": (3, 6, 4)}, r"`mask` must have the shape.*mask.shape=\(3, 6, 4\)"),
        ({"initial_state": [(3, 5)]}, r"\(3, 5\), \(3, 5\). Received: the shapes \(3, 5\)(?!,)"),
        ({"initial_state": [(3, 5)] * 3}, r"Received: the shapes \(3, 5\), \(3, 5\), \(3, 5\)"),
        ({"initial_state": [(3, 5), (3, 4)]}, r"Received: the shapes \(3, 5\), \(3, 4\)"),
        ({"initial_state": [(2, 5), (3, 5)]}, r"Received: the shapes \(2, 5\), \(3, 5\)"),
        ({"initial_state": [(5,), (5,)]}, r"Received: the shapes \(5,\), \(5,\)"),
        ({"initial_state": (2, 3, 5)}, r"Received: the shapes \(2, 3, 5\)"),
    ],
)
def test_call_arguments_of_the_wrong_shape(call, message):
    call = {
        name: [np.ones(shape) for shape in value] if isinstance(value, list) else np.ones(value)
        for name, value in call.items()
    }
    layer = layers.LSTM(5)
    for _ in ("unbuilt", "built"):
        with pytest.raises(ValueError, match=message):
            layer(np.ones((3, 6, 4), "float32"), **call)
        layer.build((3, 6, 4))


def test_states_of_the_wrong_shape_in_a_functional_model():
    x, h = keras.Input((None, 4)), keras.Input((5,))
    with pytest.raises(ValueError, match=r"`initial_state` of .*Received: the shapes \(None, 5\)"):
        layers.LSTM(5)(x, initial_state=[h])


def test_both_directions_need_all_their_states():
    states = [np.ones((3, 5), "float32")] * 2
    layer = layers.Bidirectional(layers.LSTM(5))
    for given, received in (
        (states, r"list of the shapes \(3, 5\), \(3, 5\)(?!,)"),
        (np.ones((4, 5), "float32"), r"of the shapes \(4, 5\)(?!,)"),
    ):
        with pytest.raises(ValueError, match="`initial_state` must be a list of 4.*" + received):
            layer(np.ones((3, 6, 4), "float32"), initial_state=given)


def test_a_mask_for_all_rows(make, rng, take_path):
    ours, theirs = make("gru", return_sequences=True)
    assert_same_under(MASKS["holes"][:1], ours, theirs, rng)
    take_path("programs")
    run = compiled(outputs_and_gradients)
    assert_same_under(MASKS["holes"][:1], ours, theirs, rng, run, training=True)


@pytest.mark.parametrize("use_cudnn", [True, 1])
def test_cudnn_without_a_gpu_is_an_error(use_cudnn):
    with pytest.raises(ValueError, match="use_cudnn=True"):
        layers.LSTM(4, use_cudnn=use_cudnn)(np.ones((2, 3, 4), "float32"))


@pytest.mark.parametrize("features", [None, 3])
def test_bad_features(features):
    layer = layers.LSTM(4)
    if features:
        layer.build((None, None, 4))
    with pytest.raises(ValueError, match=r"None\)|for 4 features.*of 3 features"):
        layer(keras.Input((None, None)) if features is None else np.ones((2, 5, 3), "float32"))


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU, layers.MinGRU, layers.SimpleRNN])
@pytest.mark.parametrize("masked", [False, True])
def test_a_batch_without_rows(kind, masked):
    """As of Keras's layers; a data set may leave one over."""
    layer = kind(3, return_sequences=True)
    x = np.zeros((0, 5, 2), "float32")
    mask = np.zeros((0, 5), bool) if masked else None
    layer(np.zeros((1, 5, 2), "float32"))
    y, gradients = outputs_and_gradients(layer, x, mask=mask)
    assert tuple(y.shape) == (0, 5, 3)
    for gradient in gradients[1:]:
        assert not np.any(ops.convert_to_numpy(gradient))


def test_a_sequence_without_steps():
    with pytest.raises(ValueError, match=r"at least one time step.*\(2, 0, 4\)"):
        layers.LSTM(3)(np.zeros((2, 0, 4), "float32"))


@pytest.mark.parametrize("kind", [layers.LSTM, layers.MinGRU])
def test_unrolling_what_has_no_known_length(kind):
    """Fails where the model is made, and not in its `fit`; a built layer where it is traced, for
    which PyTorch has numbers of its own."""
    layer = kind(3, unroll=True)
    rule = r"unroll=True needs to know the number of time steps.*\(None, None, 4\)"
    with pytest.raises(ValueError, match=rule):
        layer(keras.Input((None, 4)))
    layer.build((None, 6, 4))
    if tf:
        with pytest.raises(ValueError, match=rule):
            tf.function(layer).get_concrete_function(tf.TensorSpec((None, None, 4)))


def test_lists_of_names_are_refused():
    with pytest.raises(ValueError, match=r"cells, not names.*\['lstm', 'gru'\]"):
        layers.RNN(["lstm", "gru"], units=4)


def test_a_subclass_with_a_constructor_of_its_own(tmp_path, rng):
    @keras.saving.register_keras_serializable("test_recurrent")
    class Mine(layers.LSTM):
        def __init__(self, units, extra=1, **kwargs):
            super().__init__(units, **kwargs)
            self.extra = extra

        def get_config(self):
            return super().get_config() | {"extra": self.extra}

    model = keras.Sequential([keras.Input((6, 4)), Mine(3, extra=2, use_cudnn=False)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = rng.normal(size=(3, 6, 4)).astype("float32")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert (loaded.layers[0].extra, loaded.layers[0].use_cudnn) == (2, False)


@pytest.mark.parametrize("mask", ["none", "holes"])
def test_a_stack_of_cells_with_connections_of_its_own(rng, random_weights, mask):
    class Residual(keras.layers.StackedRNNCells):
        def call(self, inputs, states, training=False, **kwargs):
            outputs, states = super().call(inputs, states, training=training, **kwargs)
            return inputs + outputs, states

    def build(rnn):
        inner = [keras.layers.LSTMCell(4), keras.layers.GRUCell(4)]
        layer = rnn(Residual(inner), return_sequences=True, return_state=True)
        layer.build((3, 6, 4))
        return keras_hands_on(layer)

    ours, theirs = build(layers.RNN), build(keras.layers.RNN)
    random_weights(theirs)
    ours.set_weights(theirs.get_weights())
    assert_same_under(MASKS[mask], ours, theirs, rng)


@pytest.mark.parametrize("mask", ["none", "holes"])
def test_a_cell_whose_output_is_wider_than_its_state(rng, mask):
    class Both:
        """Not even a layer: all that Keras asks for."""

        state_size = 4

        def __call__(self, inputs, states):
            new = ops.tanh(inputs + states[0])
            return ops.concatenate([inputs, new], axis=-1), [new]

        call = __call__

    x = rng.normal(size=(3, 6, 4)).astype("float32")
    states = [ops.zeros((3, 4))]
    mask = None if MASKS[mask] is None else np.array(MASKS[mask], bool)
    _, outputs, _ = recurrence.run(Both(), ops.convert_to_tensor(x), states, mask=mask)
    h, expected, last = np.zeros((3, 4)), [], np.zeros((3, 8))
    for t in range(6):
        on = np.ones((3, 1), bool) if mask is None else mask[:, t, None]
        new = np.tanh(x[:, t] + h)
        last = np.where(on, np.concatenate([x[:, t], new], axis=-1), last)
        h = np.where(on, new, h)
        expected.append(last)
    np.testing.assert_allclose(outputs, np.stack(expected, axis=1), rtol=1e-5)


def test_a_mask_with_an_axis_for_the_features(make, rng):
    ours, theirs = make("lstm", return_sequences=True)
    x = rng.normal(size=(3, 6, 4)).astype("float32")
    mask = np.array(MASKS["holes"], bool)
    assert_same(ours(x, mask=mask[:, :, None]), theirs(x, mask=mask))


def test_trainable_reaches_a_cell_given_by_name():
    layer = layers.RNN("gru", units=3, trainable=False)
    layer.build((3, 6, 4))
    assert layer.trainable_weights == []
    assert not layer.cell.trainable


@pytest.mark.parametrize("layer", [layers.MinGRU, layers.MinLSTM, layers.LRU])
def test_what_has_no_place_of_its_own_is_to_be_named(layer):
    with pytest.raises(TypeError, match=f"{layer.__name__} takes `units` alone.*8, 'tanh'"):
        layer(8, "tanh")


@pytest.mark.parametrize("within", ["itself", "bidirectional", "stack", "keras"])
def test_no_mask_where_one_is_attached(within, random_weights):
    """`mask=False`: what is attached is handed on and not heeded, by the layers inside either."""
    make = {
        "itself": lambda: layers.GRU(4, return_sequences=True),
        "bidirectional": lambda: layers.Bidirectional(layers.GRU(4, return_sequences=True)),
        "stack": lambda: layers.RNNStack("gru", 4, 2, return_sequences=True),
        "keras": lambda: layers.Residual(keras.layers.GRU(3, return_sequences=True)),
    }
    layer = make[within]()
    x, mask = keras.Input((6, 3)), keras.Input((6,), dtype="bool")
    masked = keras.layers.Masking()(x)
    model = keras.Model([x, mask], [layer(masked, mask=False), layer(masked), layer(x, mask=mask)])
    random_weights(layer)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 6, 3)).astype("float32")
    values[0, 2:4] = values[1, 4:] = 0
    without, heeding, told = model([values, np.any(values, axis=-1)])
    np.testing.assert_allclose(without, layer(values), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(heeding, told, rtol=1e-5, atol=1e-6)
    assert not np.allclose(without, heeding)
    handed_on = layer(keras.layers.Masking()(values), mask=False)._keras_mask
    np.testing.assert_array_equal(handed_on, np.any(values, axis=-1))
