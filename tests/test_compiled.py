"""The XLA programs against the loop they stand in for, and against Keras."""

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
    monkeypatch.setattr(compiled, "run", lambda cell, *args: seen.add(cell) or run(cell, *args))
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


def both_ways(layer, x, monkeypatch, **call):
    """What the programs give, and what the plain loop does."""
    fast = tf.function(outputs_and_gradients)(layer, tf.constant(x), **call)
    with monkeypatch.context() as patch:
        patch.setattr(recurrence, "WORTH_COMPILING", np.inf)
        slow = tf.function(outputs_and_gradients)(layer, tf.constant(x), **call)
    return fast, slow


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
        {"return_sequences": True},
        {"return_sequences": True, "go_backwards": True},
        {"return_sequences": True, "zero_output_for_mask": True},
    ],
)
def test_same_as_the_loop(kind, mask, options, random_weights, monkeypatch, runs):
    layer = build(kind, random_weights, return_state=True, dtype="float64", **options)
    assert_same(*both_ways(layer, X, monkeypatch, mask=mask), tolerance=1e-12)
    assert runs == {layer.cell}


@pytest.mark.parametrize("implementation", [1, 2])
@pytest.mark.parametrize("kind", ["lstm", "gru", "gru_reset_before"])
def test_dropout(kind, implementation, random_weights, monkeypatch, runs):
    layer = build(
        kind, random_weights, dropout=0.4, recurrent_dropout=0.4, implementation=implementation
    )
    draw = type(layer.cell).dropout_masks
    masks = draw(layer.cell, tf.constant(X, "float32"), [tf.ones((3, 5))], training=True)
    monkeypatch.setattr(type(layer.cell), "dropout_masks", lambda *_: masks)
    assert any((m.numpy() == 0).any() for m in masks[1])
    assert_same(*both_ways(layer, X.astype("float32"), monkeypatch))
    assert runs == {layer.cell}


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", ["lstm", "gru_reset_before"])
def test_mixed_precision(kind, dtype, random_weights, monkeypatch):
    layer = build(kind, random_weights, return_sequences=True, dtype=dtype)
    fast, slow = both_ways(layer, X.astype("float32"), monkeypatch, mask=MASK)
    assert_same(fast, slow, tolerance=2e-2 if dtype == "mixed_float16" else 2e-1)
    assert all(w.dtype == "float32" for w in fast[1][-3:])


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_inside_an_xla_program_of_the_users(kind, random_weights, monkeypatch):
    layer = build(kind, random_weights, return_sequences=True)
    x = tf.constant(X, "float32")
    fast = tf.function(outputs_and_gradients, jit_compile=True)(layer, x)
    assert_same(fast, both_ways(layer, x, monkeypatch)[1])


def test_batch_and_time_unknown(random_weights, runs):
    layer = build("gru_reset_before", random_weights, return_sequences=True, return_state=True)
    theirs = keras.layers.GRU(5, reset_after=False, return_sequences=True, return_state=True)
    theirs.build((3, 6, 4))
    theirs.set_weights(layer.get_weights())

    def gradients(layer, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = sum(tf.reduce_sum(tf.sin(3.0 * part)) for part in y)
        return y, tape.gradient(loss, [x, *layer.trainable_weights])

    step = tf.function(
        lambda x: gradients(layer, x), input_signature=[tf.TensorSpec((None, None, 4))]
    )
    rng = np.random.default_rng(0)
    for shape in [(3, 6, 4), (1, 6, 4), (2, 1, 4), (5, 8, 4), (4, 9, 4), (3, 70, 4)]:
        x = tf.constant(rng.normal(size=shape), "float32")
        assert_same(step(x), gradients(theirs, x))
    assert runs == {layer.cell}


def test_lengths_share_a_few_programs():
    rounded = {steps: int(compiled._rounded_up(tf.constant(steps))) for steps in range(1, 2049)}
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
    fast, slow = both_ways(layer, X, monkeypatch, mask=MASK)
    assert_same(fast, slow, tolerance=1e-12)
    assert np.abs(fast[1][-1]).max() > 1e-3
    assert runs == {layer.cell}


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


@pytest.mark.parametrize("steps_per_execution", [1, 2])
def test_a_fit_is_that_of_keras(steps_per_execution, rng, runs):
    x, y = rng.normal(size=(22, 7, 4)), rng.normal(size=(22, 1))
    x[:, 5:] = 0
    ours, theirs = model(layers), model(keras.layers)
    theirs.set_weights(ours.get_weights())
    for net in (ours, theirs):
        net.steps_per_execution = steps_per_execution
        net.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    assert len(runs) == 3
    np.testing.assert_allclose(
        ours.history.history["loss"], theirs.history.history["loss"], rtol=1e-5
    )
    np.testing.assert_allclose(ours.predict(x, verbose=0), theirs.predict(x, verbose=0), atol=1e-5)


def test_an_export_of_a_trained_model_needs_no_xla(tmp_path, rng):
    net = model(layers)
    net.fit(rng.normal(size=(8, 7, 4)), rng.normal(size=(8, 1)), verbose=0)
    net.export(tmp_path / "artifact", verbose=False)
    assert b"_XlaMustCompile" not in (tmp_path / "artifact" / "saved_model.pb").read_bytes()


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
