"""What the monitor records, against a training loop of its own with a GradientTape."""

import copy
import csv
import functools
import itertools
import pathlib
import pickle
import re
import warnings

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from slow import slow_but

from kerasrnn import layers
from kerasrnn.callbacks import DivergenceGuard, GradientNormMonitor
from kerasrnn.diagnostics import health_report
from kerasrnn.updates.hook import UpdateHook

RNG = np.random.default_rng(2)
TOKENS = RNG.integers(0, 12, (48, 7))
LABELS = RNG.integers(0, 2, (48, 1)).astype("float32")
BATCH = 8


def build(sparse=False, dtype=None):
    """A small net; `sparse` gives it what is hard: an embedding's gradients, and a mask."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((None,), dtype="int64")
    if sparse:
        x = keras.layers.Embedding(12, 6, mask_zero=True, dtype=dtype)(inputs)
    else:
        x = keras.layers.Dense(6, use_bias=False, dtype=dtype)(keras.ops.one_hot(inputs, 12))
    x = layers.LSTM(5, dtype=dtype)(x)
    return keras.Model(inputs, keras.layers.Dense(1, dtype=dtype)(x))


def compiled(optimizer, sparse=False, dtype=None, **options):
    model = build(sparse, dtype)
    model.compile(optimizer, keras.losses.BinaryCrossentropy(from_logits=True), **options)
    return model


def fit(model, *callbacks, **options):
    options = {"batch_size": BATCH, "epochs": 2, "shuffle": False, "verbose": 0} | options
    return model.fit(TOKENS, LABELS, callbacks=list(callbacks), **options)


def rows(monitor):
    history = monitor.history
    return np.hstack([history["variable_norms"], history["clipped_variable_norms"]])


def expected_norms(optimizer, sparse=False):
    """Trains by hand and gives the norms per variable, before and after clipping, per update."""
    return expected(optimizer, sparse)[:2]


def expected(optimizer, sparse=False):
    """These, the loss of each update and the ratio of update to weight per variable."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    config = inner.get_config()
    accumulate = config.pop("gradient_accumulation_steps") or 1
    return trained_by_hand(type(inner), tuple(config.items()), accumulate, sparse)


@functools.cache
def trained_by_hand(kind, config, accumulate, sparse):
    model = build(sparse)
    loss_function = keras.losses.BinaryCrossentropy(from_logits=True)
    optimizer = kind.from_config(dict(config))
    rows, pending, losses = [], [], []

    @tf.function
    def gradients_of(tokens, labels):
        with tf.GradientTape() as tape:
            loss = loss_function(labels, model(tokens, training=True))
        return loss, tape.gradient(loss, [v.value for v in model.trainable_variables])

    for start in [*range(0, len(TOKENS), BATCH)] * 2:
        batch = slice(start, start + BATCH)
        loss, gradients = gradients_of(TOKENS[batch], LABELS[batch])
        losses.append(loss)
        pending.append([tf.convert_to_tensor(g) for g in gradients])
        if len(pending) == accumulate:
            mean = [sum(parts) / accumulate for parts in zip(*pending, strict=True)]
            before = np.array([np.linalg.norm(g) for g in mean])
            clipped, loss = clipped_by_hand(dict(config), mean, before), np.mean(losses)
            weights = [v.numpy() for v in model.trainable_variables]
            # Keras's optimizers treat a sparse gradient in a way of their own.
            step = gradients if sparse else mean
            optimizer.apply_gradients(zip(step, model.trainable_variables, strict=True))
            with np.errstate(divide="ignore"):
                ratio = [
                    np.linalg.norm(v.numpy() - w) / np.linalg.norm(w)
                    for v, w in zip(model.trainable_variables, weights, strict=True)
                ]
            rows.append((before, clipped, loss, ratio))
            pending, losses = [], []
    return [np.array(part) for part in zip(*rows, strict=True)]


def clipped_by_hand(config, gradients, norms):
    if config["clipnorm"]:
        return np.minimum(norms, config["clipnorm"])
    if config["global_clipnorm"]:
        return norms * min(1, config["global_clipnorm"] / np.linalg.norm(norms))
    if config["clipvalue"]:
        limit = config["clipvalue"]
        return np.array([np.linalg.norm(np.clip(g, -limit, limit)) for g in gradients])
    return norms


SGD = keras.optimizers.SGD
MODES = {
    "plain": (lambda: SGD(0.5), {}),
    "adam": (lambda: keras.optimizers.Adam(0.01), {}),
    "global_clipnorm": (lambda: SGD(0.5, global_clipnorm=0.2), {}),
    "clipvalue": (lambda: SGD(0.5, clipvalue=0.02), {}),
    "eager": (lambda: SGD(0.5, global_clipnorm=0.2), {"run_eagerly": True}),
    "jit_compile": (lambda: SGD(0.5, global_clipnorm=0.2), {"jit_compile": True}),
    "steps_per_execution": (lambda: SGD(0.5, global_clipnorm=0.2), {"steps_per_execution": 4}),
    "clipnorm": (lambda: SGD(0.5, clipnorm=0.1), {}),
    "accumulation": (lambda: SGD(0.5, clipnorm=0.2, gradient_accumulation_steps=3), {}),
    "loss_scaling": (
        lambda: keras.optimizers.LossScaleOptimizer(SGD(0.5, clipnorm=0.1), initial_scale=128.0),
        {},
    ),
}
FEW_MODES = ["adam", "global_clipnorm", "accumulation", "loss_scaling"]
over_modes = pytest.mark.parametrize("mode", slow_but(FEW_MODES, MODES))


@functools.cache
def watched(mode, sparse=False):
    """A model and its monitor after a fit, which several tests look at."""
    optimizer, options = MODES[mode]
    model, monitor = compiled(optimizer(), sparse, **options), GradientNormMonitor()
    fit(model, monitor)
    return model, monitor


@over_modes
def test_norms_are_those_of_an_independent_tape(mode):
    optimizer = MODES[mode][0]()
    before, after, loss, ratio = expected(optimizer)
    _, monitor = watched(mode)
    history = monitor.history
    np.testing.assert_allclose(history["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(history["update_ratio"], ratio, rtol=1e-3)
    rate = getattr(optimizer, "inner_optimizer", optimizer).learning_rate
    np.testing.assert_allclose(monitor.gradient_record().rate, float(rate))
    np.testing.assert_allclose(history["variable_norms"], before, rtol=1e-5)
    np.testing.assert_allclose(history["clipped_variable_norms"], after, rtol=1e-5)
    np.testing.assert_allclose(history["global_norm"], np.linalg.norm(before, axis=1), rtol=1e-5)
    np.testing.assert_allclose(history["clipped_norm"], np.linalg.norm(after, axis=1), rtol=1e-5)
    fired = (after < before * (1 - 1e-5)).any(axis=1)
    assert monitor.clip_rate == pytest.approx(fired.mean())
    config = getattr(optimizer, "inner_optimizer", optimizer).get_config()
    clips = [(name, config[name]) for name in ("clipnorm", "global_clipnorm", "clipvalue")]
    assert monitor.clip == next(((name, value) for name, value in clips if value), None)


def test_mixed_precision():
    """With layers that compute the same in `fit` and outside, down to the last bit of a float16."""
    x = keras.ops.one_hot(TOKENS, 12).numpy()

    def net():
        keras.utils.set_random_seed(3)
        return keras.Sequential(
            [
                keras.Input((7, 12)),
                keras.layers.Dense(6, "tanh", dtype="mixed_float16"),
                keras.layers.Flatten(dtype="mixed_float16"),
                keras.layers.Dense(1, dtype="mixed_float16"),
            ]
        )

    def optimizer():
        return keras.optimizers.LossScaleOptimizer(SGD(0.5, clipnorm=0.3), initial_scale=256.0)

    by_hand, monitor, norms = net(), GradientNormMonitor(), []
    sgd = optimizer().inner_optimizer

    @tf.function
    def gradients_of(x, y):
        with tf.GradientTape() as tape:
            loss = 256.0 * keras.losses.MeanSquaredError()(y, by_hand(x, training=True))
        return tape.gradient(loss, [v.value for v in by_hand.trainable_variables])

    for start in range(0, len(x), BATCH):
        batch = slice(start, start + BATCH)
        gradients = [g / 256.0 for g in gradients_of(x[batch], LABELS[batch])]
        norms.append([np.linalg.norm(g) for g in gradients])
        sgd.apply_gradients(zip(gradients, by_hand.trainable_variables, strict=True))
    watched, plain = net(), net()
    for model, callbacks in ((watched, [monitor]), (plain, [])):
        model.compile(optimizer(), "mse")
        model.fit(x, LABELS, BATCH, shuffle=False, verbose=0, callbacks=callbacks)
    np.testing.assert_allclose(monitor.history["variable_norms"], norms, rtol=1e-5)
    for mine, other in zip(watched.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_duplicate_embedding_rows_are_summed_before_the_norm():
    """Keras clips an embedding's gradient by the norm of its rows with duplicates counted apart, so
    what is applied may be larger or smaller than the threshold; the monitor shows what is."""
    monitor = GradientNormMonitor()
    model = compiled(SGD(0.5, clipnorm=0.02), sparse=True)
    start = model.layers[1].embeddings.numpy()
    fit(model, monitor, epochs=1, batch_size=len(TOKENS))
    step = (start - model.layers[1].embeddings.numpy()) / 0.5
    applied = monitor.history["clipped_variable_norms"][0, 0]
    np.testing.assert_allclose(applied, np.linalg.norm(step), rtol=1e-4)
    assert abs(applied - 0.02) > 1e-4


# With accumulation Keras's clips and steps see an embedding's gradient in the dense form.
@pytest.mark.parametrize(
    "mode",
    slow_but(
        ["adam", "clipnorm", "steps_per_execution"],
        [mode for mode in MODES if mode != "accumulation"],
    ),
)
def test_sparse_gradients(mode):
    before, _ = expected_norms(MODES[mode][0](), sparse=True)
    _, monitor = watched(mode, sparse=True)
    np.testing.assert_allclose(monitor.history["variable_norms"], before, rtol=1e-5)


@over_modes
def test_training_is_the_same_to_the_bit(mode):
    optimizer, options = MODES[mode]
    model, _ = watched(mode, sparse=True)
    plain = compiled(optimizer(), sparse=True, **options)
    fit(plain)
    for mine, other in zip(
        model.weights + model.optimizer.variables,
        plain.weights + plain.optimizer.variables,
        strict=True,
    ):
        np.testing.assert_array_equal(mine, other)


def test_gate_norms():
    """Of our cells and of Keras's, in directions and stacks, against a tape's gradients, whose
    columns are cut here in the order that each cell documents."""
    inputs = keras.Input((None, 3))
    parts = [
        layers.Bidirectional(layers.GRU(2, name="ours"), name="both"),
        layers.RNNStack("lstm", units=2, depth=2, name="deep"),
        layers.RNN("ran", units=2, name="ran"),
        layers.RNN("indrnn", units=2, name="indrnn"),
        keras.layers.Bidirectional(keras.layers.LSTM(2, name="theirs"), name="of_keras"),
        keras.layers.RNN([keras.layers.GRUCell(2), keras.layers.SimpleRNNCell(2)], name="cells"),
    ]
    outputs = keras.layers.Dense(1)(keras.layers.Concatenate()([part(inputs) for part in parts]))
    model = keras.Model(inputs, outputs)
    model.compile(SGD(0.0), "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 4, 3)).astype("float32"), np.ones((16, 1), "float32")
    monitor = GradientNormMonitor()
    model.fit(x, y, BATCH, shuffle=False, verbose=0, callbacks=[monitor])

    kernels = [v for v in model.trainable_variables if v.path.endswith("/recurrent_kernel")]
    kernels = [v for v in kernels if "indrnn" not in v.path]
    assert set(monitor.gate_norms) == {v.path for v in kernels}
    gates = {"both": "zrg", "deep": "ifgo", "ran": "if", "of_keras": "ifgo"}
    gates |= {"gru_cell": "zrg", "simple_rnn_cell": "h"}
    for update in range(2):
        batch = slice(update * BATCH, (update + 1) * BATCH)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x[batch]) - y[batch]) ** 2)
        for kernel, gradient in zip(
            kernels, tape.gradient(loss, [v.value for v in kernels]), strict=True
        ):
            names = next(gates[part] for part in gates if part in kernel.path)
            expected = [np.linalg.norm(gradient[:, 2 * k : 2 * k + 2]) for k in range(len(names))]
            norms = monitor.gate_norms[kernel.path]
            assert list(norms) == list(names)
            found = np.array([norms[gate][update] for gate in names])
            np.testing.assert_allclose(found, expected, rtol=1e-5)
            whole = monitor.history["variable_norms"][:, monitor.variables.index(kernel.path)]
            np.testing.assert_allclose(np.sum(found**2), whole[update] ** 2, rtol=1e-5)


@pytest.mark.parametrize(("batch_size", "jit_compile"), [(1, False), (2, True)])
def test_noise_scale_is_that_of_a_known_problem(batch_size, jit_compile):
    """The weights stay, and each of all possible batches is followed once by each: so the means
    over the updates are the expectations, and tr(Σ) / |G|² comes out exactly."""
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int64"),
            keras.layers.Embedding(4, 2),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(SGD(0.0), "mse", jit_compile=jit_compile)
    tokens = np.array([[0, 0, 1], [2, 1, 0], [3, 3, 3], [1, 2, 2], [0, 3, 1]])
    y = np.array([[1.0], [2.0], [1.5], [3.0], [0.5]], "float32")

    gradients = []
    for sample in range(len(y)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(tokens[[sample]]) - y[[sample]]) ** 2)
        found = tape.gradient(loss, [v.value for v in model.trainable_variables])
        gradients.append(np.concatenate([np.ravel(tf.convert_to_tensor(g)) for g in found]))
    mean = np.mean(gradients, axis=0)
    trace = np.mean(np.sum((gradients - mean) ** 2, axis=1))

    batches = list(itertools.product(range(len(y)), repeat=batch_size))
    order = []
    for i, batch in enumerate(batches):
        order += [batch, *(one for later in batches[i + 1 :] for one in (batch, later))]
    order = np.ravel([*order, batches[0]])
    monitor = GradientNormMonitor(batch_size=batch_size)
    history = model.fit(
        tokens[order], y[order], batch_size, shuffle=False, verbose=0, callbacks=[monitor]
    )
    assert monitor.noise_scale == pytest.approx(trace / np.sum(mean**2), rel=1e-4)
    assert history.history["noise_scale"] == [monitor.noise_scale]


def test_noise_scale_has_to_be_asked_for():
    with pytest.raises(ValueError, match=r"GradientNormMonitor\(batch_size=32\)"):
        _ = GradientNormMonitor().noise_scale
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
        GradientNormMonitor(batch_size=0)
    assert np.isnan(GradientNormMonitor(batch_size=4).noise_scale)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"csv": 3}, "`csv` must be a path or None. Received: csv=3"),
        ({"csv": ""}, "`csv` must be a path or None. Received: csv=''"),
        (
            {"csv": f"{__file__}/norms.csv"},
            r"`csv` must lie in a directory, but '.*\.py' is a file",
        ),
        ({"csv": pathlib.Path("gs://x/y.csv")}, "`csv` must have two slashes in an address"),
        ({"log_dir": pathlib.Path("gs://x")}, "`log_dir` must have two slashes in an address"),
        ({"csv": "abc://x/y.csv"}, r"`csv` must lie on this machine or .* csv='abc://x/y\.csv'"),
        ({"log_dir": 3}, "`log_dir` must be a path or None. Received: log_dir=3"),
        ({"log_dir": __file__}, r"`log_dir` must be a directory, but '.*\.py' is a file. Received"),
    ],
)
def test_wrong_paths(arguments, message):
    with pytest.raises(ValueError, match=message):
        GradientNormMonitor(**arguments)


def test_a_variable_without_gradient_counts_as_zero():
    inputs = keras.Input((3,))
    used, unused = keras.layers.Dense(1), keras.layers.Dense(1)
    model = keras.Model(inputs, [used(inputs), unused(inputs)])
    model.compile(SGD(), [keras.losses.MeanSquaredError(), None])
    monitor = GradientNormMonitor()
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        model.fit(np.ones((4, 3)), [np.ones((4, 1))] * 2, callbacks=[monitor], verbose=0)
    norms = dict(zip(monitor.variables, monitor.history["variable_norms"][0], strict=True))
    assert [norms[v.path] > 0 for v in (used.kernel, unused.kernel)] == [True, False]


def test_a_model_that_is_built_in_its_first_step():
    model = keras.Sequential([layers.GRU(3), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    monitor = GradientNormMonitor()
    model.fit(np.ones((4, 5, 2)), np.ones((4, 1)), callbacks=[monitor], verbose=0)
    assert monitor.variables == [v.path for v in model.trainable_variables]
    assert monitor.history["variable_norms"].shape == (1, 5)


def test_appears_in_logs_and_on_the_progress_bar(capsys):
    seen = {}

    class After(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen[epoch] = dict(logs)

    monitor = GradientNormMonitor()
    history = fit(compiled(SGD(0.5, global_clipnorm=0.2)), monitor, After(), verbose=2).history
    norms = monitor.history["global_norm"].reshape(2, -1)
    np.testing.assert_allclose(history["grad_norm"], np.median(norms, axis=1), rtol=1e-6)
    np.testing.assert_allclose(history["clip_rate"], (norms > 0.2).mean(axis=1))
    assert seen[1]["grad_norm"] == history["grad_norm"][1]
    lines = [line for line in capsys.readouterr().out.splitlines() if "loss:" in line]
    assert all("grad_norm:" in line and "clip_rate:" in line for line in lines)
    assert len(lines) == 2


def test_more_updates_than_the_buffer_holds(monkeypatch):
    monkeypatch.setattr("kerasrnn.callbacks.gradient_norm_monitor._CAPACITY", 5)
    few = GradientNormMonitor()
    fit(compiled(SGD(0.5)), few, epochs=4)
    monkeypatch.undo()
    many = GradientNormMonitor()
    fit(compiled(SGD(0.5)), many, epochs=4)
    assert rows(few).shape == (24, 12)
    np.testing.assert_array_equal(rows(few), rows(many))


def test_csv(tmp_path):
    path = tmp_path / "new" / "norms.csv"
    monitor = GradientNormMonitor(csv=path)
    model = compiled(SGD(0.5, global_clipnorm=0.2))
    fit(model, monitor)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["update"]) for row in rows] == list(range(12))
    for column in ("global_norm", "clipped_norm"):
        np.testing.assert_allclose(
            [float(row[column]) for row in rows], monitor.history[column], rtol=1e-6
        )
    assert np.mean([int(row["clipped"]) for row in rows]) == monitor.clip_rate
    kernel = monitor.variables[1]
    np.testing.assert_allclose(
        [float(row[kernel]) for row in rows], monitor.history["variable_norms"][:, 1], rtol=1e-6
    )
    (of_gates,) = monitor.gate_norms.values()
    for gate, norms in of_gates.items():
        column = f"{monitor.variables[2]}/{gate}"
        np.testing.assert_allclose([float(row[column]) for row in rows], norms, rtol=1e-6)


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monitor = GradientNormMonitor(log_dir=tmp_path)
    fit(compiled(SGD(0.5)), monitor)
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    logged = [
        float(tf.make_ndarray(event.tensor_proto))
        for event in events.Tensors("gradients/global_norm")
    ]
    np.testing.assert_allclose(logged, monitor.history["global_norm"], rtol=1e-6)
    tags = {f"gradients/{path}" for path in monitor.variables}
    tags |= {f"gradients/{monitor.variables[2]}/{gate}" for gate in "ifgo"}
    assert tags <= set(events.Tags()["tensors"])


def test_leaves_the_model_as_it_was(tmp_path, monkeypatch):
    recorders = []
    observe = UpdateHook.observe
    monkeypatch.setattr(
        UpdateHook, "observe", lambda self, one: recorders.append(one) or observe(self, one)
    )
    model = compiled(SGD(0.5, momentum=0.9))
    monitor = GradientNormMonitor()
    fit(model, monitor, keras.callbacks.ModelCheckpoint(tmp_path / "during.keras"))
    assert not {"_clip_gradients", "_backend_apply_gradients"} & set(vars(model.optimizer))
    recorded = rows(monitor)
    updates = recorders[0].count()
    fit(model)
    assert recorders[0].count() == updates == 12
    np.testing.assert_array_equal(rows(monitor), recorded)

    loaded = keras.models.load_model(tmp_path / "during.keras")
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
    assert int(loaded.optimizer.iterations) == 12
    assert np.abs(loaded.optimizer.variables[2]).max() > 0


def test_an_interrupted_fit():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                raise KeyboardInterrupt

    model = compiled(SGD(0.5))
    interrupted = GradientNormMonitor()
    with pytest.raises(KeyboardInterrupt):
        fit(model, interrupted, Interrupt())
    assert interrupted.history["global_norm"].shape == (4,)

    # Neither a plain fit nor one with another monitor adds to the old record.
    fit(model)
    again = GradientNormMonitor()
    fit(model, again)
    assert again.history["global_norm"].shape == (12,)
    assert interrupted.history["global_norm"].shape == (4,)


def test_fitting_again_starts_a_new_record():
    model = compiled(SGD(0.5))
    monitor = GradientNormMonitor()
    fit(model, monitor)
    first = rows(monitor)
    fit(model, monitor, epochs=1)
    assert rows(monitor).shape == (6, 12)
    assert not np.array_equal(rows(monitor), first[:6])


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_hooked_or_not(copier, tmp_path):
    class Copy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.copied = copier(monitor)

    monitor, during = GradientNormMonitor(csv=tmp_path / "norms.csv"), Copy()
    fit(compiled(SGD(0.5, clipnorm=0.1)), monitor, during)
    for copied in (during.copied, copier(monitor)):
        np.testing.assert_array_equal(rows(copied), rows(monitor))
        assert (copied.csv, copied.clip, copied.variables) == (
            monitor.csv,
            ("clipnorm", 0.1),
            monitor.variables,
        )
        fit(compiled(SGD(0.5)), copied, epochs=1)
    # Each fit of a copy has a file of its own.
    assert [len(path.read_text().splitlines()) for path in sorted(tmp_path.rglob("*.csv"))] == [
        7,
        7,
        13,
    ]


def flat():
    model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(1)])
    model.compile(SGD(1e-3), "mse", run_eagerly=True)
    return model


def test_another_model_has_files_of_its_own(tmp_path):
    """A second fit of the first model replaces its record, as ever."""
    monitor = GradientNormMonitor(csv=tmp_path / "norms.csv", log_dir=tmp_path)
    first, second = flat(), flat()
    for model, epochs in ((first, 2), (second, 1), (first, 3)):
        fit(model, monitor, epochs=epochs)
    lines = {
        str(path.relative_to(tmp_path)): len(path.read_text().splitlines())
        for path in tmp_path.rglob("*.csv")
    }
    assert lines == {"norms.csv": 1 + 18, "fit-1/norms.csv": 1 + 6}
    assert len(list(tmp_path.glob("events.*"))) == 2
    assert len(list((tmp_path / "fit-1").glob("events.*"))) == 1


def test_files_at_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = f"ram:/{tmp_path}"
    monitor = GradientNormMonitor(csv=f"{place}/new/norms.csv", log_dir=f"{place}/logs")
    here = GradientNormMonitor(csv="norms.csv")
    first, second = flat(), flat()
    for model, epochs in ((first, 2), (second, 1), (first, 1)):
        fit(model, here, monitor, epochs=epochs)
    for name in ("norms.csv", "fit-1/norms.csv"):
        with tf.io.gfile.GFile(f"{place}/new/{name}", "rb") as file:
            assert file.read() == (tmp_path / name).read_bytes()
    assert len(tf.io.gfile.glob(f"{place}/logs/events*")) == 2
    assert len(tf.io.gfile.glob(f"{place}/logs/fit-1/events*")) == 1
    with tf.io.gfile.GFile(f"{place}/mine.csv", "w") as file:
        file.write("year,yield")
    with pytest.raises(FileExistsError, match=r"`csv` must name a new file.*ram://.*mine.csv"):
        fit(first, GradientNormMonitor(csv=f"{place}/mine.csv"))
    assert sorted(part.name for part in tmp_path.iterdir()) == ["fit-1", "norms.csv"]


@pytest.mark.slow
def test_inside_keras_tuner(tmp_path, quiet_tuner):
    tuner = keras_tuner.RandomSearch(
        lambda hp: compiled(SGD(hp.Float("lr", 0.1, 1.0))),
        "loss",
        max_trials=2,
        directory=tmp_path,
    )
    tuner.search(
        TOKENS,
        LABELS,
        epochs=1,
        verbose=0,
        callbacks=[GradientNormMonitor(log_dir=tmp_path / "logs")],
    )
    scores = [trial.metrics.get_best_value("grad_norm") for trial in tuner.oracle.trials.values()]
    assert len(scores) == 2
    assert all(np.isfinite(scores))


@pytest.mark.slow
def test_under_two_replicas(on_two_devices):
    printed = on_two_devices("""
        import test_gradient_norm_monitor as t

        alone, both = (t.GradientNormMonitor(batch_size=8) for _ in range(2))
        plain = t.compiled(t.SGD(0.5))
        t.fit(plain, alone)
        models = []
        for callbacks in ([both], []):
            with strategy.scope():
                models.append(t.compiled(t.SGD(0.5)))
            t.fit(models[-1], *callbacks)
        before, _ = t.expected_norms(t.SGD(0.5))
        np.testing.assert_allclose(both.history["variable_norms"], before, rtol=1e-5)
        np.testing.assert_allclose(both.noise_scale, alone.noise_scale, rtol=1e-4)
        np.testing.assert_allclose(both.history["loss"], alone.history["loss"], rtol=1e-5)
        np.testing.assert_allclose(
            both.history["update_ratio"], alone.history["update_ratio"], rtol=1e-3
        )
        for mine, other in zip(*(model.get_weights() for model in models)):
            np.testing.assert_array_equal(mine, other)
        print(t.rows(both).shape)
    """)
    assert "(12, 12)" in printed


def test_a_nan_in_training_is_named():
    model = compiled(SGD(0.5))
    labels = LABELS.copy()
    labels[20] = np.nan
    monitor = GradientNormMonitor()
    model.fit(TOKENS, labels, BATCH, shuffle=False, verbose=0, callbacks=[monitor])
    assert "NON-FINITE: update 2 was the first of 4" in monitor.verdict()
    assert model.history.history["grad_norm"] == [np.inf]


def test_a_median_bears_a_few_nans():
    labels = LABELS.copy()
    labels[20] = np.nan
    monitor, guard = GradientNormMonitor(), DivergenceGuard()
    model = compiled(SGD(0.5))
    with pytest.warns(UserWarning, match="skipped"):
        fit = model.fit(TOKENS, labels, BATCH, verbose=0, callbacks=[monitor, guard])
    norms = monitor.history["global_norm"]
    assert np.isnan(norms).sum() == 1
    assert fit.history["grad_norm"] == [
        pytest.approx(np.median([*norms[np.isfinite(norms)], np.inf]))
    ]


@pytest.mark.parametrize("eager", [False, True])
def test_the_loss_of_an_update_is_none_of_a_validation(eager):
    losses = []
    for data in ({}, {"validation_data": (TOKENS, 1 - LABELS), "validation_freq": 1}):
        monitor = GradientNormMonitor()
        fit(compiled(SGD(0.5), run_eagerly=eager), monitor, **data)
        losses.append(monitor.history["loss"])
    assert np.isfinite(losses[0]).all()
    np.testing.assert_array_equal(*losses)


def test_a_skipped_update_moves_nothing():
    labels = LABELS.copy()
    labels[20] = np.nan
    monitor = GradientNormMonitor()
    with pytest.warns(UserWarning, match="skipped"):
        compiled(SGD(0.5)).fit(
            TOKENS, labels, BATCH, shuffle=False, verbose=0, callbacks=[monitor, DivergenceGuard()]
        )
    ratios, losses = monitor.history["update_ratio"], monitor.history["loss"]
    assert (ratios > 0).any(axis=1).tolist() == [True, True, False, True, True, True]
    assert np.isnan(losses).tolist() == np.isnan(monitor.gradient_record().rate).tolist()
    assert np.flatnonzero(np.isnan(losses)) == [2]


def test_nothing_recorded_yet():
    for method in ("suggest_clipnorm", "verdict", "verdicts", "plot"):
        with pytest.raises(ValueError, match=r"after fit|0 recorded updates"):
            getattr(GradientNormMonitor(), method)()


def test_a_train_step_of_the_users_own(monkeypatch):
    """It updates three times per batch, a variable that is not the model's among them, hands over
    the tf.Variable inside the Keras one, and keeps the signature Keras documents."""

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)
            self.built = True

        def call(self, x):
            return self.dense(x)

        def make_train_function(self):
            super().make_train_function()

        def train_step(self, data):
            x, y = data
            for _ in range(3):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean((self(x) * outside - y) ** 2)
                variables = [v.value for v in self.trainable_variables] + [outside]
                gradients = tape.gradient(loss, variables)
                self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return {"loss": loss}

    def train(*callbacks):
        keras.utils.set_random_seed(0)
        model = Model()
        model.compile(SGD(0.01))
        x = np.linspace(-1, 1, 120).reshape(40, 3)
        model.fit(x, x[:, :1], 4, verbose=0, shuffle=False, callbacks=list(callbacks))
        return model.get_weights()

    monkeypatch.setattr("kerasrnn.callbacks.gradient_norm_monitor._CAPACITY", 8)
    outside = tf.Variable(2.0, name="outside")
    monitor = GradientNormMonitor()
    watched = train(monitor)
    assert monitor.history["variable_norms"].shape == (30, 3)
    # A loss of its own is not seen; what became of the weights is.
    assert np.isnan(monitor.history["loss"]).all()
    assert (monitor.history["update_ratio"][:, 2] > 0).all()
    assert [name.split("/")[-1] for name in monitor.variables] == ["kernel", "bias", "outside:0"]
    assert len(np.unique(rows(monitor), axis=0)) == 30
    outside.assign(2.0)
    for mine, plain in zip(watched, train(), strict=True):
        np.testing.assert_array_equal(mine, plain)


def test_two_monitors_in_one_fit():
    first, second = GradientNormMonitor(), GradientNormMonitor()
    model = compiled(SGD(0.5))
    fit(model, first, second)
    assert rows(first).shape == (12, 12)
    np.testing.assert_array_equal(rows(first), rows(second))
    assert not {"_clip_gradients", "_backend_apply_gradients"} & set(vars(model.optimizer))


def test_a_subclass_with_a_constructor_of_its_own_is_copied():
    class Mine(GradientNormMonitor):
        def __init__(self, label):
            super().__init__()
            self.label = label

    monitor = Mine("a")
    fit(compiled(SGD(0.5)), monitor)
    copied = copy.deepcopy(monitor)
    assert (copied.label, copied.model) == ("a", None)
    np.testing.assert_array_equal(rows(copied), rows(monitor))


@pytest.mark.parametrize(("x", "y"), [([[3e12, 4e12]], [[-1e13]]), ([[3e-25, 4e-25]], [[-1.0]])])
def test_norms_of_huge_and_of_tiny_gradients(x, y):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(SGD(0.0), "mse")
    monitor = GradientNormMonitor()
    x, y = np.array(x), np.array(y)
    model.fit(x, y, callbacks=[monitor], verbose=0)
    (kernel,) = model.get_weights()
    norm = np.linalg.norm(2 * (x @ kernel - y) * x)
    # Its square is none of float32's numbers.
    assert norm > 1e20 or norm < 1e-22
    np.testing.assert_allclose(monitor.history["global_norm"], [norm], rtol=1e-5)


def test_a_file_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("year,yield\n2026,3\n")
    model = compiled(SGD(0.5))
    with pytest.raises(FileExistsError, match=r"`csv` must name a new file.*mine.csv"):
        fit(model, GradientNormMonitor(csv=path))
    with pytest.raises(FileExistsError, match="`csv`"):
        fit(model, GradientNormMonitor(csv=tmp_path))
    assert path.read_text() == "year,yield\n2026,3\n"
    assert not {"_clip_gradients", "_backend_apply_gradients"} & set(vars(model.optimizer))


def test_a_fit_without_updates_says_so():
    model = compiled(SGD(0.5, gradient_accumulation_steps=100))
    with pytest.warns(UserWarning, match="recorded nothing"):
        fit(model, GradientNormMonitor())


def warned_in(model, *callbacks, labels):
    """Of a fit that goes wrong: each warning, and after how many batches it came."""
    said, batches = [], Batches()

    def noted(message, *args, **kwargs):
        said.append((batches.ended, str(message)))

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = noted
        options = {"batch_size": 2, "epochs": 2, "shuffle": False, "verbose": 0}
        model.fit(TOKENS, labels, callbacks=[batches, *callbacks], **options)
    return said


class Batches(keras.callbacks.Callback):
    ended = 0

    def on_train_batch_end(self, batch, logs=None):
        self.ended += 1


def test_a_training_that_goes_wrong_is_told_while_it_does():
    """Once, in one line, and not where a guard stands by."""
    labels = LABELS.copy()
    labels[10:] = np.nan
    monitor = GradientNormMonitor()
    ((batch, said),) = warned_in(compiled(SGD(0.5)), monitor, labels=labels)
    # Update 5 is the first without a number; the batch that ends is counted first.
    assert batch == 5 + 10
    assert "10 updates in a row, 5 to 14, hold an Inf or NaN" in said
    assert "DivergenceGuard()" in said
    assert "\n" not in said
    guard = DivergenceGuard(max_skips=100)
    others = warned_in(compiled(SGD(0.5)), monitor, guard, labels=labels)
    assert not any("GradientNormMonitor" in said for _, said in others)


def test_a_norm_that_grows_a_thousandfold_is_told():
    labels = LABELS.copy()
    labels[40:] *= 0
    labels[40:] += 1e5
    model = build()
    model.compile(SGD(1e-6), "mse", steps_per_execution=4)
    monitor = GradientNormMonitor()
    ((batch, said),) = warned_in(model, monitor, labels=labels)
    norms = monitor.history["global_norm"]
    assert batch == 20 // 4 + 1
    usual = np.median(norms[:20])
    assert f"grown to {norms[20]:.3g} at update 20" in said
    assert f"1000 times its running median, {usual:.3g}" in said


def test_a_monitor_without_a_record_names_those_of_its_copies(tmp_path):
    def asked(monitor, expected):
        expected = re.escape(expected)
        for ask in (monitor.verdict, monitor.plot, monitor.suggest_clipnorm):
            with pytest.raises(ValueError, match=expected):
                ask()
        with pytest.raises(ValueError, match=expected):
            health_report(compiled("sgd"), TOKENS, LABELS, monitor)
        for name in ("history", "clip_rate", "gate_norms"):
            with pytest.warns(UserWarning, match=expected):
                getattr(monitor, name)

    monitor = GradientNormMonitor(csv=tmp_path / "a" / "norms.csv", log_dir=tmp_path / "logs")
    with pytest.raises(ValueError, match=r"call it after fit\.$"):
        monitor.verdict()
    assert len(monitor.history["loss"]) == 0
    for _ in range(2):
        fit(compiled(SGD(0.5)), copy.deepcopy(monitor), epochs=1)
    (tmp_path / "a" / "fit-3").mkdir()
    places = [tmp_path / "a" / f"fit-{n}" / "norms.csv" for n in (1, 2)]
    places += [tmp_path / "logs" / f"fit-{n}" for n in (1, 2)]
    assert all(place.exists() for place in places)
    asked(monitor, f"copies: they are in {', '.join(map(str, places))}")
    # One that is in no file, and a copy by itself.
    bare = GradientNormMonitor()
    one = copy.deepcopy(bare)
    asked(bare, "with a `csv` or a `log_dir`")
    with pytest.raises(ValueError, match=r"call it after fit\.$"):
        one.verdict()


@pytest.mark.parametrize("arithmetic", [True, False])
def test_a_clip_by_a_factor_is_the_same_but_for_its_rounding(arithmetic):
    """Which the graph optimizer's arithmetic alone brings about. A rate of 0.5 would hide it."""
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": arithmetic})
    try:
        watched, plain = (compiled(SGD(0.3, global_clipnorm=0.2)) for _ in range(2))
        fit(watched, GradientNormMonitor())
        fit(plain)
    finally:
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True})
    for mine, other in zip(watched.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-6 * arithmetic)


def test_ema_and_weight_decay_are_the_same_to_the_bit():
    def optimizer():
        return keras.optimizers.AdamW(0.01, use_ema=True, ema_overwrite_frequency=4, clipnorm=0.1)

    watched, plain = compiled(optimizer()), compiled(optimizer())
    fit(watched, GradientNormMonitor())
    fit(plain)
    for mine, other in zip(watched.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_needs_an_optimizer():
    callbacks = keras.callbacks.CallbackList([GradientNormMonitor()], model=build())
    with pytest.raises(ValueError, match="compiled with an optimizer"):
        callbacks.on_train_begin()


def test_labels_of_the_wrong_length_lose_nothing():
    model = compiled(SGD(0.5))
    monitor = GradientNormMonitor()
    fit(model, monitor)
    with pytest.raises(ValueError, match=r"same number of samples(.|\n)*48(.|\n)*40"):
        model.fit(TOKENS, LABELS[:40], callbacks=[monitor], verbose=0)
    assert monitor.history["global_norm"].shape == (12,)
