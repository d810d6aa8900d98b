"""The XLA programs against the loop they stand in for, and against Keras."""

import functools
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrnn import cells, compiled, layers, program, recurrence

KINDS = {
    "simple_rnn": (layers.SimpleRNN, {}),
    "lstm": (layers.LSTM, {}),
    "gru": (layers.GRU, {}),
    "gru_reset_before": (layers.GRU, {"reset_after": False}),
    "gru_of_the_lecture": (layers.GRU, {"reset_after": False, "update_gate": "write"}),
    "lstm_without_bias": (layers.LSTM, {"use_bias": False}),
    "gru_without_bias": (layers.GRU, {"use_bias": False}),
}
MASK = np.array([[1, 0, 1, 1, 0, 1], [0, 1, 0, 0, 1, 0], [1, 1, 1, 0, 0, 0]], bool)
X = np.random.default_rng(1).normal(size=(3, 6, 4))


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setattr(recurrence, "WORTH_COMPILING", 0)


@pytest.fixture
def runs(monkeypatch):
    """The cells that go through the programs (a graph may be traced more than once)."""
    seen = set()
    run = compiled.run
    monkeypatch.setattr(compiled, "run", lambda given: seen.add(given.cell) or run(given))
    return seen


def build(kind, random_weights, **options):
    cls, fixed = KINDS[kind]
    layer = cls(5, **fixed, **options)
    layer.build((3, 6, 4))
    random_weights(layer)
    return layer


def outputs_and_gradients(layer, x, **call):
    x = tf.convert_to_tensor(x)
    states = [tf.ones((x.shape[0] or 3, 5), x.dtype) * 0.3 for _ in layer.cell.states]
    with tf.GradientTape() as tape:
        tape.watch([x, *states])
        y = layer(x, initial_state=states, training=True, **call)
        loss = sum(tf.reduce_sum(tf.sin(3.0 * part)) for part in tf.nest.flatten(y))
    return y, tape.gradient(loss, [x, *states, *layer.trainable_weights])


def both_ways(layer, x, **call):
    """What the programs give, and what the plain loop does, in which eager calls run."""
    fast = tf.function(outputs_and_gradients)(layer, tf.constant(x), **call)
    return fast, outputs_and_gradients(layer, tf.constant(x), **call)


def assert_same(ours, theirs, tolerance=1e-5):
    for mine, other in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        mine, other = (
            keras.ops.convert_to_numpy(keras.ops.cast(v, "float64")) for v in (mine, other)
        )
        np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_sequences": True, "go_backwards": True},
        {"return_sequences": True, "zero_output_for_mask": True},
    ],
)
def test_same_as_the_loop(kind, mask, options, random_weights, runs):
    layer = build(kind, random_weights, return_state=True, dtype="float64", **options)
    assert_same(*both_ways(layer, X, mask=mask), tolerance=1e-12)
    assert runs == {layer.cell}


@pytest.mark.parametrize("implementation", [1, 2])
@pytest.mark.parametrize("kind", ["lstm", "gru", "gru_reset_before"])
def test_dropout(kind, implementation, random_weights, monkeypatch, runs):
    layer = build(
        kind, random_weights, dropout=0.4, recurrent_dropout=0.4, implementation=implementation
    )
    noise = layer.cell.noise(tf.constant(X, "float32"), [tf.ones((3, 5))], training=True)
    monkeypatch.setattr(type(layer.cell), "noise", lambda *_: noise)
    assert any((m.numpy() == 0).any() for m in noise.products)
    assert_same(*both_ways(layer, X.astype("float32")))
    assert runs == {layer.cell}


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", ["lstm", "gru_reset_before"])
def test_mixed_precision(kind, dtype, random_weights):
    layer = build(kind, random_weights, return_sequences=True, dtype=dtype)
    fast, slow = both_ways(layer, X.astype("float32"), mask=MASK)
    assert_same(fast, slow, tolerance=2e-2 if dtype == "mixed_float16" else 2e-1)
    assert all(w.dtype == "float32" for w in fast[1][-3:])


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_inside_an_xla_program_of_the_users(kind, random_weights):
    layer = build(kind, random_weights, return_sequences=True)
    x = tf.constant(X, "float32")
    fast = tf.function(outputs_and_gradients, jit_compile=True)(layer, x)
    assert_same(fast, both_ways(layer, x)[1])


def gradients_of(layer, x, mask=None):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, mask=mask, training=True)
        loss = sum(tf.reduce_sum(tf.sin(3.0 * part)) for part in tf.nest.flatten(y))
    return y, tape.gradient(loss, [x, *layer.trainable_weights])


SIZES = [(3, 6), (1, 6), (2, 1), (5, 8), (4, 9), (9, 17), (3, 70)]


@pytest.fixture
def twins_that_return_all(random_weights):
    pair = [
        module.GRU(5, reset_after=False, return_sequences=True, return_state=True)
        for module in (layers, keras.layers)
    ]
    for layer in pair:
        layer.build((3, 6, 4))
    random_weights(pair[0])
    pair[1].set_weights(pair[0].get_weights())
    return pair


@pytest.mark.parametrize("masked", [False, True])
def test_batch_and_time_unknown(masked, twins_that_return_all, rng, runs):
    ours, theirs = twins_that_return_all
    signature = [tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None), tf.bool)]
    step = tf.function(
        lambda x, mask: gradients_of(ours, x, mask if masked else None), input_signature=signature
    )
    for batch, steps in SIZES:
        x = tf.constant(rng.normal(size=(batch, steps, 4)), "float32")
        mask = tf.constant(rng.random((batch, steps)) < 0.4)
        assert_same(step(x, mask), gradients_of(theirs, x, mask if masked else None))
    assert runs == {ours.cell}


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batch_and_time_known(batch, twins_that_return_all, rng, runs):
    ours, theirs = twins_that_return_all
    x = tf.constant(rng.normal(size=(batch, 6, 4)), "float32")
    assert_same(tf.function(gradients_of)(ours, x), gradients_of(theirs, x))
    assert runs == {ours.cell}


@pytest.mark.parametrize("side", ["left", "right"])
def test_no_work_on_steps_that_all_rows_of_a_part_mask(side, rng, monkeypatch):
    steps_run = []
    run = program.run

    def spy(cell, x, states, rows, fresh, noise, start, stop, *rest):
        tf.numpy_function(lambda n: steps_run.append(int(n)), [stop - start], [])
        return run(cell, x, states, rows, fresh, noise, start, stop, *rest)

    monkeypatch.setattr(program, "run", spy)
    monkeypatch.setattr(compiled, "_cores", lambda: 2)
    lengths = rng.permutation([10, 20, 30, 40, 50, 60, 70, 0])
    mask = np.arange(100) < lengths[:, None]
    mask = mask if side == "right" else mask[:, ::-1]
    layer = layers.LSTM(5)
    x = tf.constant(rng.normal(size=(8, 100, 4)), "float32")
    tf.function(lambda: layer(x, mask=mask, training=True))()
    # Four parts of two rows, put together by their lengths.
    assert sorted(steps_run) == [10, 30, 50, 70]


def test_compilations_of_a_fit(rng, monkeypatch):
    """A program is compiled for every shape that it meets."""
    shapes = set()
    run = program.run

    def spy(cell, x, *rest):
        tf.numpy_function(lambda shape: shapes.add(tuple(shape)), [tf.shape(x)], [])
        return run(cell, x, *rest)

    monkeypatch.setattr(program, "run", spy)
    monkeypatch.setattr(compiled, "_cores", lambda: 2)
    net = keras.Sequential([keras.Input((None, 4))])
    net.add(layers.GRU(4, return_sequences=True))
    net.add(layers.GRU(4))
    net.compile("sgd", "mse")

    def batches(sizes_and_lengths):
        for size, steps in sizes_and_lengths:
            yield rng.normal(size=(size, steps, 4)), rng.normal(size=(size, 4))

    def fit(sizes_and_lengths):
        steps = len(sizes_and_lengths)
        net.fit(batches(sizes_and_lengths), steps_per_epoch=steps, shuffle=False, verbose=0)

    fit([(8, 20), (8, 20), (5, 20)])
    # The two layers share; the last, smaller batch costs one more.
    assert len(shapes) == 2
    fit([(8, steps) for steps in range(65, 129)])
    assert len(shapes) == 2 + 8


def test_lengths_share_a_few_programs():
    rounded = {steps: int(compiled.rounded_up(tf.constant(steps))) for steps in range(1, 2049)}
    assert all(steps <= up < steps + max(8, steps / 8 + 1) for steps, up in rounded.items())
    assert len({rounded[steps] for steps in range(100, 200)}) == 9
    assert len(set(rounded.values())) < 60


def test_layers_alike_share_a_program(random_weights, monkeypatch):
    monkeypatch.setattr(program, "_PROGRAMS", {})
    stack = layers.RNNStack("lstm", 4, 3, bidirectional=True, dropout=0.1)
    model = keras.Sequential([keras.Input((6, 8)), stack, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 6, 8)), np.ones((4, 1)), verbose=0)
    (one,) = program._PROGRAMS.values()
    assert one.forward.experimental_get_tracing_count() == 1
    assert one.backward.experimental_get_tracing_count() == 1
    # The program holds no model's weights.
    assert one.cell.kernel.shape[0] == 1
    other = keras.Sequential([keras.Input((6, 8)), layers.GRU(4), keras.layers.Dense(1)])
    other.compile("sgd", "mse")
    other.fit(np.ones((4, 6, 8)), np.ones((4, 1)), verbose=0)
    assert len(program._PROGRAMS) == 2


RESET = np.array([[0, 0, 1, 0, 0, 1], [1, 0, 0, 1, 1, 0], [0, 1, 0, 0, 0, 0]], bool)


def outputs_and_all_gradients(layer, x, mask, reset):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True, mask=mask, reset=reset)
        loss = sum(tf.reduce_sum(tf.sin(3.0 * part)) for part in tf.nest.flatten(y))
    gradients = tape.gradient(
        loss, [x, *layer.trainable_weights], unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return y, gradients


OPTIONS = {
    "plain": {},
    # Everything at once that a cell can be asked for.
    "all": {
        "initial_state": "learned",
        "normalization": "layer",
        "zoneout": 0.3,
        "recurrent_dropout": 0.4,
        "recurrent_dropout_form": "candidate",
        "dropout": 0.2,
    },
}


def with_what_it_can_have(name, options):
    """A layer with those of the options that its cell does not refuse."""
    accepted = {}
    for option, value in options.items():
        try:
            cells.get(name)(5, **accepted, **{option: value})
        except ValueError:
            continue
        accepted[option] = value
    return layers.RNN(
        name, units=5, return_sequences=True, return_state=True, dtype="float64", **accepted
    )


# Zones make an LRU's coefficients depend on the step, so linear recurrences come without, too.
CASES = [(name, "all") for name in cells.CELLS]
CASES += [(name, "plain") for name, kind in cells.CELLS.items() if kind(1).linear]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_cell_with_all_it_can_have(name, options, random_weights, monkeypatch, runs):
    """Masks and episodes too, in the programs, in the plain loop, and step by step."""
    layer = with_what_it_can_have(name, OPTIONS[options])
    layer.build((3, 6, 4))
    random_weights(layer)
    x = tf.constant(X)
    states = [tf.zeros((3, 5), "float64") for _ in layer.cell.states]
    noise = layer.cell.noise(x, states, training=True)
    monkeypatch.setattr(type(layer.cell), "noise", lambda *_: noise)
    layer.go_backwards = options == "all"
    fast = tf.function(outputs_and_all_gradients)(layer, x, MASK, RESET)
    assert runs == {layer.cell}
    assert_same(fast, outputs_and_all_gradients(layer, x, MASK, RESET), tolerance=1e-12)
    layer.unroll = True
    assert_same(fast, outputs_and_all_gradients(layer, x, MASK, RESET), tolerance=1e-12)


def test_a_complex_state_shows_both_its_parts(random_weights, monkeypatch, runs):
    """Without a mask, the last step alone: an LRU reads out of all that its programs return."""
    layer = layers.LRU(5, dtype="float64")
    layer.build((3, 6, 4))
    random_weights(layer)
    assert_same(*both_ways(layer, X), tolerance=1e-12)
    assert runs == {layer.cell}


class Multiplicative(cells.SimpleRNNCell):
    """Does not add W x + b and U h (Wu et al., 2016, equation 2, multiplies them)."""

    def step(self, x, states, product):
        return (keras.ops.tanh(x * product("h", states[0])),)


def test_a_cell_that_does_not_sum(random_weights, monkeypatch, runs):
    monkeypatch.setitem(cells.CELLS, "multiplicative", Multiplicative)
    layer = layers.RNN("multiplicative", units=5, dtype="float64", return_sequences=True)
    layer.build((3, 6, 4))
    random_weights(layer)
    assert_same(*both_ways(layer, X, mask=MASK), tolerance=1e-12)
    assert runs == {layer.cell}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["tanh", "relu", "hard_sigmoid"])
@pytest.mark.parametrize("units", [1, 2, 5])
def test_what_a_program_knows_of_its_cell(kind, activation, units):
    """Only a reset gate between U h and the sum keeps the two apart."""
    cls, fixed = KINDS[kind]
    known = program._program_for(cls(units, activation=activation, **fixed).cell)
    assert known.summed == (kind not in ("gru", "gru_without_bias"))
    assert known.inner == []


@pytest.mark.parametrize("kind", ["gru", "lstm", "simple_rnn"])
def test_a_single_unit_with_a_flat_side(kind, random_weights, monkeypatch):
    cls, _ = KINDS[kind]
    layer = cls(1, activation="relu", return_sequences=True, dtype="float64")
    layer.build((3, 6, 4))
    random_weights(layer)
    x = tf.constant(X)
    fast = tf.function(gradients_of)(layer, x)
    monkeypatch.setattr(recurrence, "WORTH_COMPILING", np.inf)
    assert_same(fast, tf.function(gradients_of)(layer, x), tolerance=1e-12)


def test_programs_draw_nothing_at_random(monkeypatch, random_weights):
    """A seeded run must not depend on which programs are there already."""
    layer = build("lstm", random_weights, seed=3)
    monkeypatch.setattr(program, "_PROGRAMS", {})
    before = random.getstate()
    program._program_for(layer.cell)
    assert random.getstate() == before


class Peephole(cells.LSTMCell):
    """Uses a weight outside of products: p in o_t = σ(... + p ∘ c_t)."""

    def build(self, input_shape):
        super().build(input_shape)
        self.peephole = self.add_weight(shape=(self.units,), name="peephole")

    def step(self, x, states, product):
        h, c = super().step(x, states, product)
        return h * keras.ops.sigmoid(self.peephole * c), c


def test_a_weight_outside_of_products(random_weights, monkeypatch, runs):
    monkeypatch.setitem(cells.CELLS, "peephole", Peephole)
    layer = layers.RNN("peephole", units=5, dtype="float64", return_sequences=True)
    layer.build((3, 6, 4))
    random_weights(layer)
    fast, slow = both_ways(layer, X, mask=MASK)
    assert_same(fast, slow, tolerance=1e-12)
    assert np.abs(fast[1][-1]).max() > 1e-3
    assert runs == {layer.cell}


def test_a_gradient_of_what_was_not_to_need_one(random_weights, monkeypatch, runs):
    """A user's `test_step` may take one."""
    layer = build("lstm", random_weights, return_sequences=True)
    x = tf.constant(X, "float32")

    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, mask=MASK, training=False)
            loss = tf.reduce_sum(tf.sin(3.0 * y))
        return y, tape.gradient(loss, [x, *layer.trainable_weights])

    slow = tf.function(gradient)()
    assert runs == set()
    monkeypatch.setattr(recurrence, "_in_a_step", lambda training: True)
    assert_same(tf.function(gradient)(), slow)
    assert runs == {layer.cell}


@pytest.mark.parametrize(
    ("kind", "mask", "options"),
    [("lstm", None, {}), ("gru_reset_before", MASK, {"return_sequences": True})],
)
def test_a_gradient_of_gradients(kind, mask, options, random_weights, monkeypatch, runs):
    layer = build(kind, random_weights, return_state=True, dtype="float64", **options)
    of = [tf.constant(X), *layer.trainable_weights]

    def second():
        with tf.GradientTape() as outer:
            outer.watch(of[0])
            _, gradients = gradients_of(layer, of[0], mask)
            penalty = sum(tf.reduce_sum(g**2) for g in gradients)
        return penalty, outer.gradient(penalty, of)

    fast = tf.function(second)()
    assert runs == {layer.cell}
    monkeypatch.setattr(recurrence, "WORTH_COMPILING", np.inf)
    assert_same(fast, second(), tolerance=1e-12)


@pytest.mark.parametrize(
    "activation",
    [lambda v: keras.ops.tanh(2 * v), keras.layers.LeakyReLU()],
    ids=["lambda", "layer"],
)
def test_steps_aside_for_an_activation_of_the_users(activation, rng, runs):
    x, y = rng.normal(size=(8, 7, 4)), rng.normal(size=(8, 5))
    nets = []
    for module in (layers, keras.layers):
        nets.append(keras.Sequential([keras.Input((7, 4)), module.LSTM(5, activation=activation)]))
        nets[-1].compile("sgd", "mse")
    nets[1].set_weights(nets[0].get_weights())
    for net in nets:
        net.fit(x, y, verbose=0)
    for mine, other in zip(*(net.get_weights() for net in nets), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)
    assert runs == set()


def test_steps_aside(random_weights, monkeypatch, runs):
    layer = build("lstm", random_weights)
    x = tf.constant(X, "float32")
    layer(x, training=True)
    tf.function(lambda x: layer(x, training=False))(x)
    tf.function(lambda x: layer(x))(x)
    tf.function(lambda x: build("lstm", random_weights, unroll=True)(x, training=True))
    # A cell of the user's own may not say all about itself in its configuration.
    own = layers.RNN(Peephole(5))
    own.build((3, 6, 4))
    tf.function(lambda x: own(x, training=True))(x)
    monkeypatch.setattr(recurrence, "WORTH_COMPILING", 2048)
    tf.function(lambda x: layer(x, training=True))(x)
    assert runs == set()


def model(module):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, 4))
    x = keras.layers.Masking()(inputs)
    x = module.Bidirectional(module.LSTM(6, return_sequences=True))(x)
    x = module.GRU(5, reset_after=False)(x)
    net = keras.Model(inputs, keras.layers.Dense(1)(x))
    net.compile(keras.optimizers.Adam(0.01, global_clipnorm=1.0), "mse")
    return net


@functools.cache
def of_keras():
    """Data, and what a model of Keras's layers makes of it, that starts from the same weights."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(22, 7, 4)), rng.normal(size=(22, 1))
    x[:, 5:] = 0
    theirs = model(keras.layers)
    theirs.set_weights(model(layers).get_weights())
    found = {
        "at first": theirs.predict(x, verbose=0),
        "evaluated": theirs.evaluate(x, y, verbose=0),
    }
    fit = theirs.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    return x, y, found | {"fit": fit.history["loss"], "at last": theirs.predict(x, verbose=0)}


@pytest.mark.parametrize("steps_per_execution", [1, 2])
def test_a_fit_is_that_of_keras(steps_per_execution, runs):
    x, y, theirs = of_keras()
    ours = model(layers)
    ours.steps_per_execution = steps_per_execution
    fit = ours.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    assert len(runs) == 3
    np.testing.assert_allclose(fit.history["loss"], theirs["fit"], rtol=1e-5)
    np.testing.assert_allclose(ours.predict(x, verbose=0), theirs["at last"], atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 2}, {"jit_compile": True}])
def test_evaluation_and_prediction(options, runs):
    """The seam of `recurrence._in_a_step`: what Keras calls the functions it traces."""
    x, y, theirs = of_keras()
    ours = model(layers)
    ours.compile(loss="mse", **options)
    found = ours.predict(x, batch_size=8, verbose=0)
    np.testing.assert_allclose(found, theirs["at first"], atol=1e-5)
    assert len(runs) == 3
    runs.clear()
    loss = ours.evaluate(x, y, batch_size=11, verbose=0)
    assert loss == pytest.approx(theirs["evaluated"], rel=1e-5)
    assert len(runs) == 3


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch", "predict_on_batch"])
def test_single_batches(method, rng, runs):
    net = model(layers)
    data = rng.normal(size=(8, 7, 4)), rng.normal(size=(8, 1))
    getattr(net, method)(*data[: 1 if method == "predict_on_batch" else 2])
    assert len(runs) == 3


def test_an_export_of_a_trained_model_needs_no_xla(tmp_path, rng):
    net = model(layers)
    x, y = rng.normal(size=(8, 7, 4)), rng.normal(size=(8, 1))
    net.fit(x, y, verbose=0)
    net.evaluate(x, y, verbose=0)
    net.predict(x, verbose=0)
    net.export(tmp_path / "artifact", verbose=False)
    assert b"_XlaMustCompile" not in (tmp_path / "artifact" / "saved_model.pb").read_bytes()


def test_an_export_with_dropout_at_inference_needs_no_xla(tmp_path):
    inputs = keras.Input((None, 4))
    net = keras.Model(inputs, layers.LSTM(5, dropout=0.5)(inputs, training=True))
    net.export(tmp_path / "artifact", verbose=False)
    assert b"_XlaMustCompile" not in (tmp_path / "artifact" / "saved_model.pb").read_bytes()


@pytest.mark.parametrize("return_sequences", [False, True])
def test_the_loop_in_an_xla_program_of_the_users(return_sequences, rng, monkeypatch, runs):
    """As `compile(jit_compile=True)` has it for layers too small for programs of their own."""
    monkeypatch.setattr(recurrence, "WORTH_COMPILING", np.inf)
    x, y = rng.normal(size=(10, 7, 4)), rng.normal(size=(10, 5))
    nets = []
    for module in (layers, keras.layers):
        net = keras.Sequential([keras.Input((7, 4))])
        net.add(module.LSTM(5, return_sequences=return_sequences))
        if return_sequences:
            net.add(keras.layers.GlobalAveragePooling1D())
        net.compile("sgd", "mse", jit_compile=True)
        nets.append(net)
    nets[1].set_weights(nets[0].get_weights())
    losses = [net.fit(x, y, batch_size=4, shuffle=False, verbose=0) for net in nets]
    np.testing.assert_allclose(losses[0].history["loss"], losses[1].history["loss"], rtol=1e-5)
    assert runs == set()


def in_a_graph(function, *signature):
    return tf.function(function, input_signature=signature)


def test_one_row_of_a_mask_stands_for_all(random_weights, rng):
    layer = build("lstm", random_weights, return_sequences=True)
    call = in_a_graph(
        lambda x, mask: layer(x, mask=mask, training=True),
        tf.TensorSpec((None, None, 4)),
        tf.TensorSpec((None, None), tf.bool),
    )
    x, mask = tf.constant(X, "float32"), tf.constant(MASK[:1])
    assert_same(call(x, mask), layer(x, mask=tf.repeat(mask, 3, axis=0)))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"[Ii]ncompatible shapes"):
        call(x, mask[:, :4])


@pytest.mark.parametrize("training", [False, True])
def test_no_time_steps(training, random_weights):
    layer = build("lstm", random_weights)
    call = in_a_graph(lambda x: layer(x, training=training), tf.TensorSpec((None, None, 4)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have at least one time step"):
        call(np.zeros((3, 0, 4), "float32"))


def test_no_rows():
    net = keras.Sequential([keras.Input((7, 4)), layers.GRU(6)])
    net.compile("sgd", "mse")
    assert net.predict_on_batch(np.zeros((0, 7, 4))).shape == (0, 6)


def test_a_known_length_beside_an_unknown_one(random_weights):
    layer = build("gru", random_weights, return_sequences=True)
    specs = tf.TensorSpec((None, None, 4)), tf.TensorSpec((3, 6), "bool")
    call = in_a_graph(lambda x, marks: layer(x, mask=marks, reset=marks, training=True), *specs)
    x = X.astype("float32")
    assert_same(call(x, MASK), layer(x, mask=MASK, reset=MASK))


def test_under_two_replicas(on_two_devices):
    on_two_devices("""
        import test_compiled as t

        t.recurrence.WORTH_COMPILING = 0
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(16, 7, 4)), rng.normal(size=(16, 1))
        alone = t.model(t.layers)
        with strategy.scope():
            both = t.model(t.layers)
        for net in (alone, both):
            net.compile(t.keras.optimizers.SGD(0.1), "mse")
            net.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        for mine, other in zip(both.get_weights(), alone.get_weights()):
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)
        assert t.program._PROGRAMS
    """)
