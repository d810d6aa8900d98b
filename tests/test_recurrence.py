"""The front door to the paths, and what gates promise on all of them: information can be kept for
as long as one likes."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import twins
from any_backend import compiled, gradients
from keras import ops
from slow import slow_but

import kerasrnn
from kerasrnn import cells, initializers, layers, recurrence
from kerasrnn.backends import tf
from kerasrnn.layers.states import state_sizes


def test_the_paths_are_named_as_their_files():
    for name, path in recurrence.PATHS.items():
        assert path.__name__ == f"kerasrnn.recurrence.{name}"
        assert callable(path.refuses)
        assert callable(path.run)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"path": "fast"},
            "`path` must be None, 'cudnn', 'programs', 'scan', 'loop' or 'portable'.*'fast'",
        ),
        (
            {"path": "scan"},
            "path='scan' cannot be met here: GRUCell is no linear recurrence. path=None takes "
            "another path where it must. Received: path='scan' for gru",
        ),
        ({"path": "programs", "unroll": True}, "path='programs' cannot be met here: unroll=True"),
        ({"path": "cudnn"}, "path='cudnn' cannot be met here: no GPU is visible. path=None"),
        ({"use_cudnn": True}, "use_cudnn=True cannot be met here: no GPU.* use_cudnn='auto' takes"),
    ],
)
def test_a_path_that_cannot_be_taken(options, message):
    cell = cells.GRUCell(3, name="gru")
    cell.build((None, 2))
    with pytest.raises(ValueError, match=message):
        recurrence.run(cell, np.ones((1, 4, 2)), cell.get_initial_state(1), **options)


# But for those of LSTM and GRU alone.
PATHS = [name for name in recurrence.PATHS if name not in ("cudnn", "torch_kernels")]


@pytest.mark.parametrize("path", PATHS)
def test_every_path_in_an_eager_call(path, rng, random_weights):
    cell = cells.QRNNCell(3, dtype="float64")
    cell.build((None, 2))
    random_weights(cell)
    x, c = rng.normal(size=(2, 7, 2)), rng.normal(size=(2, 3))
    last, outputs, states = recurrence.run(cell, x, [c], path=path)
    expected, final = twins.run(twins.qrnn, cell.get_weights(), x, [c])
    np.testing.assert_allclose(outputs, expected, rtol=1e-12)
    np.testing.assert_allclose(last, expected[:, -1], rtol=1e-12)
    np.testing.assert_allclose(states[0], final[0], rtol=1e-12)


STEPS = 10_000


def test_a_gru_that_never_writes_keeps_its_state(rng, random_weights):
    cell = cells.GRUCell(3, update_gate="write", reset_after=False)
    cell.build((None, 2))
    random_weights(cell)
    kernel, recurrent, bias = cell.get_weights()
    # u = σ(-1000 + ...) is 0 to the last bit.
    bias[:3] = -1000
    cell.set_weights([kernel, recurrent, bias])
    h = rng.normal(size=(1, 3)).astype("float32")
    x = ops.convert_to_tensor(rng.normal(size=(1, STEPS, 2)), "float32")
    run = compiled(lambda x, h: recurrence.run(cell, x, [h], return_sequences=False))
    _, _, (final,) = run(x, ops.convert_to_tensor(h))
    np.testing.assert_array_equal(final, h)


def test_an_lstm_that_forgets_nothing_and_writes_nothing_keeps_its_cell(rng, random_weights):
    cell = cells.LSTMCell(3)
    cell.build((None, 2))
    random_weights(cell)
    kernel, recurrent, bias = cell.get_weights()
    bias[:3], bias[3:6] = -1000, 1000
    cell.set_weights([kernel, recurrent, bias])
    h, c = rng.normal(size=(2, 1, 3)).astype("float32")
    x = ops.convert_to_tensor(rng.normal(size=(1, STEPS, 2)), "float32")
    run = compiled(lambda x, h, c: recurrence.run(cell, x, [h, c], return_sequences=False))
    _, _, (_, final) = run(x, ops.convert_to_tensor(h), ops.convert_to_tensor(c))
    np.testing.assert_array_equal(final, c)


LONG = {"bias_initializer": initializers.Chrono(1000, seed=1)}
# Linear recurrences with coefficients near 1, and their twins.
LINEAR = {
    "qrnn": (LONG, twins.qrnn),
    "mingru": (LONG, twins.mingru),
    "minlstm": (LONG, twins.minlstm),
    "sru": (LONG | {"peephole": False, "activation": "tanh"}, twins.sru_of_2017),
    "lru": ({"r_min": 0.999, "r_max": 0.9999}, twins.lru),
    "rg_lru": ({}, twins.rg_lru),
}
BITS = {"mixed_float16": 2**-10, "mixed_bfloat16": 2**-7}


@pytest.fixture
def on_path(take_path):
    """Calls a function in the graph of a step of training, on one path."""

    def on_path(path, function):
        take_path(path)
        return compiled(function)()

    return on_path


def half_precision(name, dtype, rng, steps):
    """A layer, inputs that are exact in half precision, and the layer's twin."""
    options, twin = LINEAR[name]
    layer = layers.RNN(name, units=3, return_sequences=True, dtype=dtype, **options)
    width = 3 * len(layer.cell.gates)
    layer.build((2, steps, width))
    # With which the projection is the input, exactly.
    layer.cell.kernel.assign(np.eye(width))
    x = 0.5 * rng.normal(size=(2, steps, width))
    x = ops.cast(ops.convert_to_tensor(x), dtype.removeprefix("mixed_"))
    return layer, x, twin


@pytest.mark.parametrize(
    ("path", "dtype"),
    slow_but(
        [("scan", "mixed_float16"), ("loop", "mixed_bfloat16"), ("portable", "mixed_float16")],
        [
            ("scan", "mixed_float16"),
            ("scan", "mixed_bfloat16"),
            ("loop", "mixed_bfloat16"),
            ("programs", "mixed_bfloat16"),
            ("portable", "mixed_float16"),
            ("portable", "mixed_bfloat16"),
        ],
    ),
)
@pytest.mark.parametrize("name", LINEAR)
def test_linear_recurrences_keep_their_states_in_single_precision(name, path, dtype, rng, on_path):
    """Long memories in half precision differ from float64 by one rounding, that of the output."""
    layer, x, twin = half_precision(name, dtype, rng, 2000)
    y = on_path(path, lambda: layer(x, training=True))
    assert y.dtype == x.dtype
    weights = [np.array(weight, "float64") for weight in layer.get_weights()]
    zeros = [np.zeros((2, 3))] * len(layer.cell.states)
    expected, _ = twins.run(twin, weights, np.array(ops.cast(x, "float64")), zeros)
    atol = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(ops.cast(y, "float64"), expected, rtol=BITS[dtype], atol=atol)


@pytest.mark.parametrize("path", ["scan", "loop", "programs", "portable"])
@pytest.mark.parametrize("name", slow_but(["lru"], ["mingru", "lru"]))
def test_gradients_through_long_memories_in_half_precision(name, path, rng, on_path):
    """Those of the weights that half precision has no part in are float64's."""
    layer, x, _ = half_precision(name, "mixed_bfloat16", rng, 500)
    options, _ = LINEAR[name]
    exact = layers.RNN(name, units=3, return_sequences=True, dtype="float64", **options)
    exact.build(x.shape)
    exact.set_weights(layer.get_weights())
    signs = ops.convert_to_tensor(rng.choice([-1.0, 1.0], size=(2, 500, 3)))

    def of_weights(layer, x):
        # The gradient of the output is exact in half precision, too.
        def loss():
            return None, ops.sum(ops.cast(layer(x, training=True), "float64") * signs)

        return gradients(loss, [], layer.trainable_weights[1:])[1]

    ours = on_path(path, lambda: of_weights(layer, x))
    expected = of_weights(exact, ops.cast(x, "float64"))
    for mine, other in zip(ours, map(np.array, expected), strict=True):
        assert ops.dtype(mine) == "float32"
        # Single precision of a decay of 1e-4 per step is good for three digits.
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-3 * np.abs(other).max())


@pytest.mark.parametrize("name", ["mingru", "lru"])
def test_linear_cells_in_half_precision_inside_keras(name, rng):
    """Whose loop needs states of the dtype in which it has given them."""
    layer, x, _ = half_precision(name, "mixed_float16", rng, 6)
    theirs = keras.layers.RNN(layer.cell, return_sequences=True, dtype="mixed_float16")
    y, other = layer(x), theirs(x)
    assert ops.dtype(y) == ops.dtype(other) == "float16"
    np.testing.assert_allclose(y, other, rtol=0.02, atol=0.02 * np.abs(np.array(y)).max())


def by_call(layer, x):
    """The outputs, one step per call, each from the states that the one before has returned."""
    streams = type(layer).from_config(layer.get_config() | {"return_state": True})
    streams.build(x.shape)
    streams.set_weights(layer.get_weights())
    outputs, states = [], None
    for t in range(x.shape[1]):
        y, *states = streams(x[:, t : t + 1], initial_state=states)
        outputs.append(y)
    return outputs, states


def by_cell(layer, x):
    outputs, states = [], layer.cell.get_initial_state(x.shape[0])
    for t in range(x.shape[1]):
        y, states = layer.cell(x[:, t], states)
        outputs.append(y[:, None])
    return outputs, states


def by_state(layer, x):
    """The same, by a stateful layer inside a model of half precision."""
    streams = type(layer).from_config(layer.get_config() | {"stateful": True})
    keras.config.set_dtype_policy(layer.dtype_policy)
    model = keras.Sequential([keras.Input(batch_shape=(x.shape[0], None, x.shape[2])), streams])
    streams.set_weights(layer.get_weights())
    streams.reset_state()
    outputs = [model(x[:, t : t + 1]) for t in range(x.shape[1])]
    return outputs, streams.states


@pytest.mark.parametrize("dtype", slow_but(["mixed_float16"], BITS))
@pytest.mark.parametrize("stream", [by_call, by_cell, by_state])
@pytest.mark.parametrize("name", LINEAR)
def test_streaming_in_half_precision(name, stream, dtype, rng):
    """Gives the numbers of the whole sequence: states are in single precision all the way."""
    options, _ = LINEAR[name]
    layer = layers.RNN(
        name, units=3, return_sequences=True, dtype=dtype, initial_state="learned", **options
    )
    x = ops.convert_to_tensor(rng.normal(size=(2, 12, 3)))
    x = ops.cast(x, dtype.removeprefix("mixed_"))
    layer.build(x.shape)
    # A third is none of the numbers of half precision.
    for initial in layer.cell.initial_states.values():
        initial.assign(np.full(3, 1 / 3))
    outputs, states = stream(layer, x)
    whole = type(layer).from_config(layer.get_config() | {"return_state": True})
    whole.build(x.shape)
    whole.set_weights(layer.get_weights())
    y, *final = whole(x)
    for state, expected in zip(states, final, strict=True):
        assert ops.dtype(state) == ops.dtype(expected) == "float32"
        np.testing.assert_allclose(state, expected, rtol=1e-5, atol=1e-6)
    assert {ops.dtype(output) for output in outputs} == {ops.dtype(y)}
    outputs = ops.concatenate(outputs, 1)
    bit = BITS[dtype]
    np.testing.assert_allclose(
        *(ops.cast(v, "float32") for v in (outputs, y)), rtol=bit, atol=bit / 100
    )


@pytest.mark.parametrize("name", LINEAR)
def test_a_learned_initial_state_is_not_rounded(name):
    """A layer of which all steps are masked gives it back."""
    options = LINEAR[name][0] | {"initial_state": "learned", "dtype": "mixed_bfloat16"}
    layer = layers.RNN(name, units=3, return_state=True, **options)
    layer.build((2, 1, 3))
    for initial in layer.cell.initial_states.values():
        initial.assign(np.full(3, 1 / 3))
    _, *states = layer(np.ones((2, 1, 3)), mask=np.zeros((2, 1), bool))
    for state in states:
        np.testing.assert_array_equal(state, np.full((2, 3), 1 / 3, "float32"))


HALF = {"return_sequences": True, "return_state": True, "dtype": "mixed_bfloat16"}


@pytest.mark.parametrize("in_a_model", [False, True])
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda: layers.RNNStack("mingru", 3, 2, connection="residual", **HALF),
        lambda: layers.RNNStack("lru", 3, 2, bidirectional=True, **HALF),
        lambda: layers.Residual(layers.MinGRU(3, **HALF)),
        lambda: layers.Bidirectional(layers.MinGRU(3, **HALF), dtype=HALF["dtype"]),
    ],
)
def test_wrappers_do_not_round_the_states_they_are_given(wrapped, in_a_model):
    """They give them back where all steps are masked."""
    layer = wrapped()
    sizes = state_sizes(layer)
    run = layer
    if in_a_model:
        inputs = [keras.Input((1, 3)), [keras.Input((size,)) for size in sizes]]
        mask = keras.Input((1,), dtype="bool")
        outputs = layer(inputs[0], initial_state=inputs[1], mask=mask)
        model = keras.Model([*inputs, mask], outputs)

        def run(x, initial_state, mask):
            return model([x, initial_state, mask])

    given = [np.full((2, size), 1 / 3, "float32") for size in sizes]
    y, *states = run(np.ones((2, 1, 3)), initial_state=given, mask=np.zeros((2, 1), bool))
    assert ops.dtype(y) == "bfloat16"
    for state, expected in zip(states, given, strict=True):
        np.testing.assert_array_equal(state, expected)


def test_symbolic_states_are_of_the_dtype_of_the_real_ones():
    inputs = keras.Input((None, 3))
    layer = layers.MinGRU(4, return_sequences=True, return_state=True, dtype="mixed_float16")
    model = keras.Model(inputs, layer(inputs))
    assert [v.dtype for v in model.outputs] == ["float16", "float32"]
    assert list(map(ops.dtype, model(np.ones((2, 5, 3))))) == ["float16", "float32"]


@pytest.mark.tensorflow
def test_the_spectrum_of_a_linear_recurrence_in_half_precision(rng):
    options = {"dtype": "mixed_bfloat16"}
    layer, exact = layers.MinGRU(3, **options), layers.MinGRU(3)
    x = ops.cast(rng.normal(size=(2, 8, 3)), "bfloat16")
    for one in (layer, exact):
        one.build(x.shape)
    exact.set_weights([np.float32(ops.cast(w, "bfloat16")) for w in layer.get_weights()])
    found = kerasrnn.diagnostics.lyapunov_exponent(layer, x)
    expected = kerasrnn.diagnostics.lyapunov_exponent(exact, ops.cast(x, "float32"))
    np.testing.assert_allclose(found, expected, rtol=0.02)


@pytest.mark.parametrize("path", ["loop", "programs", "portable"])
@pytest.mark.parametrize(("dtype", "bias"), [("float32", -100.0), ("mixed_float16", -12.0)])
def test_an_slstm_that_writes_little_at_first(dtype, bias, path, rng, random_weights, on_path):
    """What it has not yet written it does not rescale, by a number that would be too large."""
    layer = layers.RNN("slstm", units=3, return_sequences=True, dtype=dtype)
    layer.build((2, 6, 2))
    random_weights(layer)
    kernel, recurrent, b = layer.get_weights()
    b[:3] = bias
    layer.set_weights([kernel, recurrent, b])
    x = rng.normal(size=(2, 6, 2)).astype("float32")
    reset = np.zeros((2, 6), bool)
    reset[:, 3] = True

    def output_and_loss():
        y = layer(x, reset=reset, training=True)
        return y, ops.sum(y)

    y, found = on_path(path, lambda: gradients(output_and_loss, [], layer.trainable_weights))
    weights, start = [w.astype("float64") for w in (kernel, recurrent, b)], [np.zeros((2, 3))] * 4
    twin = twins.slstm(twins.sigmoid)
    expected = [twins.run(twin, weights, part, start)[0] for part in (x[:, :3], x[:, 3:])]
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(y, np.concatenate(expected, 1), rtol=tolerance, atol=tolerance)
    assert all(np.isfinite(d).all() and np.any(d) for d in map(np.array, found))


MASK = np.array([[1, 0, 1, 1, 0, 1], [0, 1, 0, 0, 1, 0]], bool)
RESET = np.array([[0, 0, 1, 0, 0, 1], [1, 0, 0, 1, 1, 0]], bool)


def directions(layer, rng, steps=6, features=3):
    """What a layer's output depends on, input, states and weights, and a direction in its space."""
    x = rng.normal(size=(2, steps, features))
    states = [rng.normal(size=(2, layer.cell.units)) for _ in layer.cell.states]
    at = [ops.convert_to_tensor(v, layer.compute_dtype) for v in (x, *states)]
    at += [weight.value for weight in layer.trainable_weights]
    return at, [ops.convert_to_tensor(rng.normal(size=v.shape), v.dtype) for v in at]


def both_modes(layer, at, direction, **call):
    """The derivative of all that a layer returns in one direction, forward-mode, and as the tape's
    gradients have it: of the sum of v ∘ y."""

    def run():
        states = at[1 : 1 + len(layer.cell.states)]
        return keras.tree.flatten(layer(at[0], initial_state=states, **call))

    with tf.autodiff.ForwardAccumulator(at, direction) as accumulator:
        y = run()
    forward = [accumulator.jvp(part) for part in y]
    signs = [np.sign(np.random.default_rng(2).normal(size=v.shape)) for v in y]
    with tf.GradientTape() as tape:
        tape.watch(at)
        loss = tf.add_n([ops.sum(s * v) for s, v in zip(signs, run(), strict=True)])
    gradients = tape.gradient(loss, at, unconnected_gradients="zero")
    forward = tf.add_n([ops.sum(s * v) for s, v in zip(signs, forward, strict=True)])
    reverse = tf.add_n([ops.sum(g * u) for g, u in zip(gradients, direction, strict=True)])
    return forward, reverse


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("call", "go_backwards"),
    [({}, False), ({"mask": MASK}, False), ({"mask": MASK, "reset": RESET}, True)],
    ids=["plain", "mask", "reset"],
)
@pytest.mark.parametrize("name", [*LINEAR, "lstm", "gru"])
def test_forward_mode(name, call, go_backwards, rng, random_weights):
    options = LINEAR[name][0] if name in LINEAR else {}
    options = {"return_sequences": True, "return_state": True, "dtype": "float64"} | options
    layer = layers.RNN(name, units=4, go_backwards=go_backwards, **options)
    layer.build((2, 6, 3))
    random_weights(layer)
    forward, reverse = both_modes(layer, *directions(layer, rng), **call)
    np.testing.assert_allclose(forward, reverse, rtol=1e-9)


@pytest.mark.tensorflow
@pytest.mark.parametrize("before", [False, True], ids=["at once", "after a backward pass"])
@pytest.mark.parametrize("name", ["lstm", "mingru"])
@pytest.mark.parametrize("place", ["eager", "around a function", "inside a function"])
def test_forward_mode_is_an_error_in_the_programs(place, name, before, monkeypatch, take_path):
    """And is no part of what they are afterwards."""
    take_path("programs")
    monkeypatch.setattr(recurrence.programs.program, "_PROGRAMS", {})
    layer = layers.RNN(name, units=4)
    x = ops.convert_to_tensor(np.ones((2, 5, 3)), "float32")

    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return tape.gradient(y, x)

    def jvp(function, v):
        with tf.autodiff.ForwardAccumulator(x if v is None else v, tf.ones_like(x)) as accumulator:
            y = function(x if v is None else v)
        return accumulator.jvp(y)

    layer.build(x.shape)
    if before:
        gradient()
    forward = {
        "eager": lambda: jvp(layer, None),
        "around a function": lambda: jvp(tf.function(lambda v: layer(v)), None),
        "inside a function": lambda: tf.function(lambda v: jvp(layer, v))(x),
    }
    with pytest.raises(NotImplementedError, match="programs have no forward-mode derivative"):
        forward[place]()
    fast = gradient()
    take_path("loop")
    np.testing.assert_allclose(fast, gradient(), rtol=1e-5)


def jacobians(layer, x, pfor, call):
    """Of all that a layer returns, by x and by a weight."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        parts = keras.tree.flatten(layer(x, **call))
        y = tf.concat([tf.reshape(part, [2, -1]) for part in parts], -1)
    options = {"experimental_use_pfor": pfor}
    return (
        tape.batch_jacobian(y, x, **options),
        tape.jacobian(y, layer.trainable_weights[-1], **options),
    )


# Cells of which a step reads its states, and one, the SRU, of which none reads h.
VECTORIZED = {
    "lstm": lambda: layers.LSTM(3, return_state=True),
    "gru": lambda: layers.GRU(3, return_sequences=True),
    "simple_rnn": lambda: layers.SimpleRNN(3, go_backwards=True),
    "indrnn": lambda: layers.RNN("indrnn", units=3, return_state=True),
    "sru": lambda: layers.RNN("sru", units=3, return_state=True),
    "lru": lambda: layers.LRU(3, return_state=True),
    "keras": lambda: layers.RNN(keras.layers.LSTMCell(3), return_state=True),
    "zeros": lambda: layers.GRU(3, return_sequences=True, zero_output_for_mask=True),
    "stack": lambda: layers.RNNStack("gru", 3, 2, connection="residual", return_state=True),
    "both directions": lambda: layers.Bidirectional(layers.GRU(3)),
}
CALLS = {"plain": {}, "mask": {"mask": MASK}, "training": {"training": True, "mask": MASK}}


@pytest.mark.tensorflow
@pytest.mark.parametrize("call", slow_but(["plain"], CALLS))
@pytest.mark.parametrize(
    ("name", "path"),
    slow_but(
        [("lstm", None), ("sru", "programs")],
        [(name, None) for name in VECTORIZED]
        + [(name, "programs") for name in VECTORIZED if name != "keras"],
    ),
)
def test_a_jacobian_in_a_graph(name, path, call, rng, random_weights, take_path):
    """TensorFlow vectorizes the gradient of the path; the numbers are those of one by one."""
    layer = VECTORIZED[name]()
    x = ops.convert_to_tensor(rng.normal(size=(2, 6, 3)), "float32")
    layer.build(x.shape)
    random_weights(layer)
    take_path("loop")
    expected = jacobians(layer, x, False, CALLS[call])
    take_path(path)
    found = tf.function(jacobians)(layer, x, True, CALLS[call])
    for mine, other in zip(*map(keras.tree.flatten, (found, expected)), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)


# In the plain loop of few units, and in the programs behind a layer of Keras's.
SAMPLE_BY_SAMPLE = """
import keras
import numpy as np
import tensorflow as tf
from kerasrnn import layers, recurrence

keras.utils.set_random_seed(0)
x = tf.random.normal((2, 32, 4))
few = layers.GRU(1)
many = keras.Sequential([keras.layers.Dense(4), layers.GRU(22)])


def output(sample):
    return [few(sample[None])]


def gradients(sample):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(many(sample[None]) ** 2)
    return tape.gradient(loss, many.trainable_variables)


for function in (output, gradients):
    with recurrence.compiled():
        found = tf.function(lambda x: tf.vectorized_map(function, x), autograph=False)(x)
    for mine, *others in zip(found, *map(function, x), strict=True):
        np.testing.assert_allclose(mine, tf.stack(others), rtol=1e-4, atol=1e-5)
"""


@pytest.mark.tensorflow
def test_sample_by_sample_in_a_fresh_process():
    """Outputs and gradients of every sample in `tf.vectorized_map`, where Keras before 3.15 has
    TensorFlow compute a product that is wrong or ends the process."""
    done = subprocess.run([sys.executable, "-c", SAMPLE_BY_SAMPLE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
