"""A batch through the XLA programs: its parts and lengths, and when it takes this path."""

import functools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_masks import keras_hands_on
from slow import slow_but
from two_paths import MASK, Peephole, X, assert_same, build, gradients_of

from kerasrnn import layers, recurrence
from kerasrnn.callbacks import GradientNormMonitor
from kerasrnn.recurrence import program, programs

SIZES = [(3, 6), (1, 6), (2, 1), (4, 9), (9, 17)]


# Without a mask a small layer and a larger one differ in the least rows of a part; under one in the
# number of parts, too.
@pytest.fixture(params=[5, 44])
def twins_that_return_all(request, random_weights):
    pair = [
        module.GRU(request.param, reset_after=False, return_sequences=True, return_state=True)
        for module in (layers, keras.layers)
    ]
    for layer in pair:
        keras_hands_on(layer).build((3, 6, 4))
    random_weights(pair[0])
    pair[1].set_weights(pair[0].get_weights())
    return pair


@pytest.mark.parametrize("masked", [False, True])
def test_batch_and_time_unknown(masked, twins_that_return_all, rng, take_path):
    take_path("programs")
    ours, theirs = twins_that_return_all
    signature = [tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None), tf.bool)]
    step = tf.function(
        lambda x, mask: gradients_of(ours, x, mask if masked else None), input_signature=signature
    )
    for batch, steps in SIZES:
        x = tf.constant(rng.normal(size=(batch, steps, 4)), "float32")
        mask = tf.constant(rng.random((batch, steps)) < 0.4)
        assert_same(step(x, mask), gradients_of(theirs, x, mask if masked else None))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batch_and_time_known(batch, twins_that_return_all, rng, take_path):
    take_path("programs")
    ours, theirs = twins_that_return_all
    x = tf.constant(rng.normal(size=(batch, 6, 4)), "float32")
    assert_same(tf.function(gradients_of)(ours, x), gradients_of(theirs, x))


@pytest.mark.parametrize("side", ["left", "right"])
def test_no_work_on_steps_that_all_rows_of_a_part_mask(side, rng, monkeypatch, take_path):
    take_path("programs")
    steps_run = []
    run = program.run

    def spy(cell, x, states, steps, episode_start, noise, start, stop, *rest):
        tf.numpy_function(lambda n: steps_run.append(int(n)), [stop - start], [])
        return run(cell, x, states, steps, episode_start, noise, start, stop, *rest)

    monkeypatch.setattr(program, "run", spy)
    monkeypatch.setattr(programs, "_BATCHES", {})
    monkeypatch.setattr(programs, "_cores", lambda: 2)
    lengths = rng.permutation([10, 20, 30, 40, 50, 60, 70, 0])
    mask = np.arange(100) < lengths[:, None]
    mask = mask if side == "right" else mask[:, ::-1]
    layer = layers.LSTM(33)
    x = tf.constant(rng.normal(size=(8, 100, 4)), "float32")
    tf.function(lambda: layer(x, mask=mask, training=True))()
    # Four parts of two rows, put together by their lengths.
    assert sorted(steps_run) == [10, 30, 50, 70]


def test_compilations_of_a_fit(rng, monkeypatch, take_path):
    """A program is compiled for every shape that it meets."""
    shapes = set()
    run = program.run

    def spy(cell, x, *rest):
        tf.numpy_function(lambda shape: shapes.add(tuple(shape)), [tf.shape(x)], [])
        return run(cell, x, *rest)

    monkeypatch.setattr(program, "run", spy)
    monkeypatch.setattr(programs, "_BATCHES", {})
    monkeypatch.setattr(programs, "_cores", lambda: 2)
    net = keras.Sequential([keras.Input((None, 4))])
    net.add(layers.GRU(4, return_sequences=True))
    net.add(layers.GRU(4))
    net.compile("sgd", "mse")
    take_path("programs")

    def batches(sizes_and_lengths):
        for size, steps in sizes_and_lengths:
            yield rng.normal(size=(size, steps, 4)), rng.normal(size=(size, 4))

    def fit(sizes_and_lengths):
        steps = len(sizes_and_lengths)
        net.fit(batches(sizes_and_lengths), steps_per_epoch=steps, shuffle=False, verbose=0)

    fit([(8, 20), (8, 20), (5, 20)])
    # The two layers share, and so does the last, smaller batch.
    assert len(shapes) == 1
    fit([(size, steps) for size in (32, 20, 9, 31, 17) for steps in range(66, 126, 3)])
    assert len(shapes) == 1 + 1


def test_traces_of_a_fit(rng, monkeypatch):
    """Keras traces the first step twice, and a layer has two directions of several parts: each kind
    of layer is written once all the same."""
    monkeypatch.setattr(programs, "_BATCHES", {})
    net = keras.Sequential([keras.Input((None, 4)), keras.layers.Masking()])
    net.add(layers.Bidirectional(layers.GRU(22, return_sequences=True)))
    net.add(layers.Bidirectional(layers.GRU(22)))
    net.add(keras.layers.Dense(1))
    net.compile("adam", "mse")
    x, y = rng.normal(size=(21, 40, 4)), rng.normal(size=(21, 1))

    def traces():
        functions = [f for batch in programs._BATCHES.values() for f in (batch.run, batch.run_part)]
        return [function.experimental_get_tracing_count() for function in functions]

    net.fit(x, y, batch_size=8, epochs=2, verbose=0)
    # The second layer has more features.
    assert traces() == [1] * 4
    net.fit(x, y, batch_size=16, verbose=0, callbacks=[GradientNormMonitor()])
    assert traces() == [1] * 4
    net.evaluate(x, y, batch_size=8, verbose=0)
    net.predict(x, batch_size=8, verbose=0)
    assert traces() == [2] * 4


def test_powers_of_two():
    received = [int(programs.power_of_two(tf.constant(n))) for n in range(1, 4097)]
    assert received == [1 << (n - 1).bit_length() for n in range(1, 4097)]


def test_lengths_share_a_few_programs():
    received = {n: int(programs.rounded_up(tf.constant(n))) for n in range(1, 2049)}
    assert sorted({up for n, up in received.items() if n <= 128}) == [32, 64, 128]
    assert sorted({up for n, up in received.items() if 128 < n <= 512}) == [
        *(160, 192, 224, 256, 320, 384, 448, 512)
    ]
    assert all(n <= up <= 1.25 * n + 1 for n, up in received.items() if n > 128)


def test_batches_of_unknown_size_share_a_few_programs():
    def rows(size, **options):
        cut = {"masked": False, "keep": True, "cores": 2, "columns": 512} | options
        parts, rows = programs._cut(None, tf.constant(size), **cut)
        assert parts * int(rows) >= size
        return int(rows)

    assert {rows(size) for size in range(3, 33)} == {4, 8, 16}
    assert {rows(size, masked=True) for size in range(3, 65)} == {8, 16}
    assert {rows(size, keep=False) for size in (1, 2)} == {1}
    # Where a part is full, no row more.
    assert [rows(size) for size in (34, 100, 128)] == [17, 50, 64]


@pytest.fixture
def runs(monkeypatch):
    """The cells that go through the programs (a graph may be traced more than once)."""
    seen, run = set(), programs.run
    monkeypatch.setattr(programs, "run", lambda p: seen.add(p.cell) or run(p))
    return seen


# From here on layers are large enough for compiling to pay.
STEPS, FEATURES = 32, 4


@pytest.mark.parametrize(
    ("activation", "name"),
    [(lambda v: keras.ops.tanh(2 * v), "<lambda>"), (keras.layers.LeakyReLU(), "<LeakyReLU")],
    ids=["lambda", "layer"],
)
def test_steps_aside_for_an_activation_of_the_users(activation, name, rng, runs):
    x, y = rng.normal(size=(8, STEPS, FEATURES)), rng.normal(size=(8, 16))
    nets = []
    for module in (layers, keras.layers):
        layer = module.LSTM(16, activation=activation, name="lstm")
        nets.append(keras.Sequential([keras.Input((STEPS, FEATURES)), layer]))
        nets[-1].compile("sgd", "mse")
    nets[1].set_weights(nets[0].get_weights())
    for net in nets:
        net.fit(x, y, verbose=0)
    for mine, other in zip(*(net.get_weights() for net in nets), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)
    assert runs == set()
    reason = recurrence.explain(nets[0])["lstm"]["fit"].passed_over["programs"]
    assert reason.startswith(f"activation={name}")


def test_steps_aside(rng, runs):
    """In eager calls, in graphs that may be exported, and for what it cannot run or what is too
    small."""
    x = tf.constant(rng.normal(size=(3, STEPS, FEATURES)), "float32")
    layer, unrolled, small = layers.LSTM(16), layers.LSTM(16, unroll=True), layers.LSTM(15)
    # A cell of the user's own may not say all about itself in its configuration.
    unregistered = layers.RNN(Peephole(16))
    for one in (layer, unrolled, small, unregistered):
        one.build(x.shape)
    for training in (True, False, None):
        tf.function(lambda x, training=training: layer(x, training=training))(x)
    with recurrence.compiled():
        layer(x, training=True)
        for one in (unrolled, small, unregistered):
            tf.function(lambda x, one=one: one(x, training=True))(x)
    assert runs == set()


@pytest.mark.parametrize("training", [True, False])
def test_a_function_of_the_users_that_is_compiled(training, rng, runs):
    x = tf.constant(rng.normal(size=(3, STEPS, FEATURES)), "float32")
    layer = layers.LSTM(16)

    @tf.function
    def run(x):
        with recurrence.compiled():
            return layer(x, training=training)

    np.testing.assert_allclose(run(x), layer(x), rtol=1e-5, atol=1e-6)
    assert runs == {layer.cell}
    # Outside of it nothing is left of it.
    runs.clear()
    tf.function(layer)(x)
    assert runs == set()


def model(module):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, FEATURES))
    x = keras.layers.Masking()(inputs)
    x = keras_hands_on(module.Bidirectional(module.GRU(22, return_sequences=True)))(x)
    x = keras_hands_on(module.GRU(22))(x)
    net = keras.Model(inputs, keras.layers.Dense(1)(x))
    net.compile(keras.optimizers.Adam(0.01, global_clipnorm=1.0), "mse")
    return net


@functools.cache
def of_keras():
    """Data, and what a model of Keras's layers makes of it, that starts from the same weights."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(22, STEPS, FEATURES)), rng.normal(size=(22, 1))
    x[:, -9:] = 0
    theirs = model(keras.layers)
    theirs.set_weights(model(layers).get_weights())
    found = {
        "at first": theirs.predict(x, verbose=0),
        "evaluated": theirs.evaluate(x, y, verbose=0),
    }
    fit = theirs.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    return x, y, found | {"fit": fit.history["loss"], "at last": theirs.predict(x, verbose=0)}


@pytest.mark.parametrize("steps_per_execution", slow_but([1], [1, 2]))
def test_a_fit_is_that_of_keras(steps_per_execution, runs):
    x, y, theirs = of_keras()
    ours = model(layers)
    ours.steps_per_execution = steps_per_execution
    fit = ours.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    assert len(runs) == 3
    np.testing.assert_allclose(fit.history["loss"], theirs["fit"], rtol=1e-5)
    np.testing.assert_allclose(ours.predict(x, verbose=0), theirs["at last"], atol=1e-5)


@pytest.mark.parametrize(
    "options", slow_but([{}], [{}, {"steps_per_execution": 2}, {"jit_compile": True}])
)
def test_evaluation_and_prediction(options, runs):
    """What Keras traces for them is known to be no export."""
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


@pytest.mark.parametrize(
    "method",
    slow_but(["predict_on_batch"], ["train_on_batch", "test_on_batch", "predict_on_batch"]),
)
def test_single_batches(method, rng, runs):
    net = model(layers)
    data = rng.normal(size=(8, STEPS, FEATURES)), rng.normal(size=(8, 1))
    getattr(net, method)(*data[: 1 if method == "predict_on_batch" else 2])
    assert len(runs) == 3


def needs_xla(path):
    return b"_XlaMustCompile" in (path / "saved_model.pb").read_bytes()


def signed(model, **options):
    """A module with a step of training, as one for a device that trains, and that function."""

    class Module(tf.Module):
        def __init__(self):
            self.optimizer = keras.optimizers.SGD(0.1)
            self.optimizer.build(model.trainable_variables)
            self.kept = model.variables + self.optimizer.variables

        @tf.function(**options)
        def one_step_on_data(self, x, y):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
            gradients = tape.gradient(loss, model.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return {"loss": loss}

    module = Module()
    return module, module.one_step_on_data


def archived(path, model, function, **options):
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", function, **options)
    archive.write_out(path, verbose=False)


def archived_after_a_call(path, model, x, **options):
    """As Keras's documentation has it."""
    function = tf.function(lambda x: model(x, training=True), **options)
    function(x)
    archived(path, model, function)


def saved_after_a_call(path, model, x, concrete):
    module, train = signed(model)
    train(x, np.zeros((len(x), 1), "float32"))
    function = train
    if concrete:
        specs = tf.TensorSpec(x.shape), tf.TensorSpec((len(x), 1))
        function = train.get_concrete_function(*specs)
    tf.saved_model.save(module, path, signatures={"serve": function} if concrete else None)


SPECS = tf.TensorSpec((None, None, FEATURES)), tf.TensorSpec((None, 1))
# Ways to a SavedModel, each `save(path, model, x)`, with a function of training in it.
EXPORTS = {
    "export": lambda path, model, x: model.export(path, verbose=False),
    "archive": lambda path, model, x: archived(
        path, model, lambda x: model(x, training=True), input_signature=[SPECS[0]]
    ),
    "archive of a call": archived_after_a_call,
    "archive of Keras's step": lambda path, model, x: archived(
        path, model, lambda x, y: model.train_step((x, y)), input_signature=SPECS
    ),
    "module": lambda path, model, x: tf.saved_model.save(
        signed(model, input_signature=SPECS)[0], path
    ),
    "module of a call": lambda path, model, x: saved_after_a_call(path, model, x, concrete=False),
    "signature of a call": lambda path, model, x: saved_after_a_call(path, model, x, concrete=True),
}


@pytest.mark.parametrize("way", EXPORTS)
def test_no_export_needs_xla(way, tmp_path, rng):
    """Of a model that has been trained, whatever it is called with and its functions are named."""
    net = model(layers)
    x = rng.normal(size=(8, STEPS, FEATURES)).astype("float32")
    net.fit(x, rng.normal(size=(8, 1)), verbose=0)
    net.predict(x, verbose=0)
    EXPORTS[way](tmp_path / "artifact", net, x)
    assert not needs_xla(tmp_path / "artifact")


def test_a_signature_of_training_trains(tmp_path, rng):
    """In a process without this package, as far as TensorFlow goes: the numbers are Keras's."""
    x, y = rng.normal(size=(8, STEPS, FEATURES)).astype("float32"), np.ones((8, 1), "float32")
    ours, theirs = model(layers), model(keras.layers)
    theirs.set_weights(ours.get_weights())
    module, train = signed(ours, input_signature=SPECS)
    tf.saved_model.save(module, tmp_path, signatures={"train": train})
    run = tf.saved_model.load(tmp_path).signatures["train"]
    losses = [float(run(x=x, y=y)["loss"]) for _ in range(3)]
    _, train = signed(theirs)
    np.testing.assert_allclose(losses, [train(x, y)["loss"] for _ in range(3)], rtol=1e-5)


def test_what_is_compiled_is_not_exported(tmp_path, rng):
    """What is traced to be saved takes plain operations all the same; of what was traced before,
    TensorFlow's message names the remedy."""
    x = tf.constant(rng.normal(size=(3, STEPS, FEATURES)), "float32")
    layer = layers.LSTM(16)
    layer.build(x.shape)

    def run(x):
        with recurrence.compiled():
            return layer(x, training=True)

    archived(tmp_path / "a", layer, run, input_signature=[tf.TensorSpec(x.shape)])
    assert not needs_xla(tmp_path / "a")
    function = tf.function(run)
    signature = function.get_concrete_function(tf.TensorSpec(x.shape))
    module = tf.Module()
    module.weights = [weight.value for weight in layer.weights]
    with pytest.raises(AssertionError, match=r"again_without_kerasrnn\.recurrence\.compiled"):
        tf.saved_model.save(module, tmp_path / "b", signatures=signature)
    module.function = function
    tf.saved_model.save(module, tmp_path / "b")
    assert not needs_xla(tmp_path / "b")


def test_an_export_with_dropout_at_inference_needs_no_xla(tmp_path):
    inputs = keras.Input((None, FEATURES))
    net = keras.Model(inputs, layers.LSTM(16, dropout=0.5)(inputs, training=True))
    net.export(tmp_path / "artifact", verbose=False)
    assert not needs_xla(tmp_path / "artifact")


@pytest.mark.parametrize("return_sequences", slow_but([False], [False, True]))
def test_the_loop_in_an_xla_program_of_the_users(return_sequences, rng, runs):
    """As `compile(jit_compile=True)` has it for layers too small for programs of their own."""
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


def test_one_row_of_a_mask_stands_for_all(random_weights, take_path):
    take_path("programs")
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


@pytest.mark.parametrize("path", ["loop", "programs"])
def test_no_time_steps(path, random_weights, take_path):
    take_path(path)
    layer = build("lstm", random_weights)
    call = in_a_graph(layer, tf.TensorSpec((None, None, 4)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have at least one time step"):
        call(np.zeros((3, 0, 4), "float32"))


def test_no_rows():
    net = keras.Sequential([keras.Input((STEPS, FEATURES)), layers.GRU(22)])
    net.compile("sgd", "mse")
    assert net.predict_on_batch(np.zeros((0, STEPS, FEATURES))).shape == (0, 22)


def test_a_known_length_beside_an_unknown_one(random_weights, take_path):
    layer = build("gru", random_weights, return_sequences=True)
    specs = tf.TensorSpec((None, None, 4)), tf.TensorSpec((3, 6), "bool")
    call = in_a_graph(lambda x, marks: layer(x, mask=marks, reset=marks, training=True), *specs)
    x = X.astype("float32")
    take_path("programs")
    fast = call(x, MASK)
    take_path("loop")
    assert_same(fast, layer(x, mask=MASK, reset=MASK))


SECOND_LENGTHS = """
import threading
import keras
import numpy as np
import tensorflow as tf
from kerasrnn import layers, recurrence

def model(layer):
    net = keras.Sequential([keras.Input((None, 3)), layer, keras.layers.Dense(1)])
    net.compile("sgd", "mse")
    return net

def batch(steps):
    return np.ones((2, steps, 3), "float32"), np.ones((2, 1), "float32")

net = model(layers.LSTM(32))
whole = net.predict(batch(6)[0], verbose=0), [net.predict(batch(n)[0], verbose=0) for n in (5, 6)]
np.testing.assert_allclose(whole[0], whole[1][1], rtol=1e-5)
net = model(layers.RNNStack("mgu", 34, 2))
[net.train_on_batch(*batch(n)) for n in (5, 6)]
layer = layers.SimpleRNN(36)
layer.build((None, None, 3))
step = tf.function(lambda x: layer(x, training=True), reduce_retracing=True)
with recurrence.compiled():
    [step(tf.ones((2, n, 3))) for n in (5, 6)]
net, failed = model(layers.RNN("ugrnn", units=37)), []
def serve(n):
    try:
        net.predict_on_batch(batch(n)[0])
    except Exception as error:
        failed.append(error)
threads = [threading.Thread(target=serve, args=(n,)) for n in (5, 6, 7)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not failed, failed
"""


def test_a_second_length_in_a_fresh_process():
    """The first trace of a short sequence takes the loop, the second, of any length, the programs,
    which are made then, in a graph that may make no variables."""
    done = subprocess.run([sys.executable, "-c", SECOND_LENGTHS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_under_two_replicas(on_two_devices):
    on_two_devices("""
        import test_programs as t

        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(16, t.STEPS, t.FEATURES)), rng.normal(size=(16, 1))
        alone = t.model(t.layers)
        with strategy.scope():
            both = t.model(t.layers)
        for net in (alone, both):
            t.program._PROGRAMS.clear()
            net.compile(t.keras.optimizers.SGD(0.1), "mse")
            net.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        for mine, other in zip(both.get_weights(), alone.get_weights()):
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)
        assert t.program._PROGRAMS
    """)


def test_a_jacobian_of_parts_of_a_known_size(random_weights, take_path):
    """Each core has a row, as the graph knows; in a loop over gradients TensorFlow forgets it."""
    layer = layers.RNN("nas", units=3, use_bias=False, return_sequences=True, go_backwards=True)
    layer.build((2, 2, 1))
    random_weights(layer)
    mask = tf.constant([[False, True], [True, True]])

    def jacobian(x):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = layer(x, mask=mask)
        return tape.jacobian(y, [x, *layer.trainable_weights], experimental_use_pfor=False)

    x = tf.constant([[[0.3], [-1.2]], [[0.7], [0.4]]])
    take_path("programs")
    fast = tf.function(jacobian, autograph=False)(x)
    take_path("loop")
    assert_same(fast, jacobian(x))


@pytest.mark.parametrize("rows", [[False, True], [False, False]])
def test_a_jacobian_of_rows_that_are_masked_throughout(rows, random_weights, take_path):
    layer = layers.RNN("indrnn", units=2, return_sequences=True)
    layer.build((2, 3, 1))
    random_weights(layer)
    mask = tf.constant([[row] * 3 for row in rows])

    def jacobian(x):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = layer(x, mask=mask)
        return [tape.batch_jacobian(y, x), *tape.jacobian(y, [v.value for v in layer.weights])]

    x = tf.constant([[[0.3], [-1.2], [0.5]], [[0.7], [0.4], [-0.1]]])
    take_path("programs")
    fast = tf.function(jacobian, autograph=False)(x)
    take_path("loop")
    assert_same(fast, jacobian(x))
    assert [np.any(of_row) for of_row in fast[0]] == rows
