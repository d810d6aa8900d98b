"""What the monitor records, against a training loop of its own with a GradientTape."""

import copy
import csv
import pickle

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from kerasrnn import layers
from kerasrnn.callbacks import GradientNormMonitor
from kerasrnn.callbacks.gradient_hook import GradientHook

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


def expected_norms(optimizer, epochs=2, accumulate=1, sparse=False, dtype=None, scale=1.0):
    """Trains by hand and gives the norms per variable, before and after clipping, per update."""
    model = build(sparse, dtype)
    loss_function = keras.losses.BinaryCrossentropy(from_logits=True)
    config = optimizer.get_config() | {"gradient_accumulation_steps": None}
    optimizer = type(optimizer).from_config(config)
    rows, pending = [], []
    for _ in range(epochs):
        for start in range(0, len(TOKENS), BATCH):
            batch = slice(start, start + BATCH)
            with tf.GradientTape() as tape:
                predictions = model(TOKENS[batch], training=True)
                loss = loss_function(LABELS[batch], predictions) * scale
            variables = model.trainable_variables
            gradients = tape.gradient(loss, [v.value for v in variables])
            pending.append([tf.convert_to_tensor(g) / scale for g in gradients])
            if len(pending) == accumulate:
                mean = [sum(parts) / accumulate for parts in zip(*pending, strict=True)]
                before = np.array([np.linalg.norm(g) for g in mean])
                after = clipped_by_hand(config, mean, before)
                rows.append((before, after))
                # Keras's optimizers treat a sparse gradient in a way of their own.
                step = gradients if sparse else mean
                optimizer.apply_gradients(zip(step, variables, strict=True))
                pending = []
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
    "accumulation": (lambda: SGD(0.5, clipnorm=0.2, gradient_accumulation_steps=3), {}),
}
over_modes = pytest.mark.parametrize("mode", MODES)


@over_modes
def test_norms_are_those_of_an_independent_tape(mode):
    optimizer, options = MODES[mode]
    monitor = GradientNormMonitor()
    fit(compiled(optimizer(), **options), monitor)

    steps = optimizer().gradient_accumulation_steps or 1
    before, after = expected_norms(optimizer(), accumulate=steps)
    history = monitor.history
    np.testing.assert_allclose(history["variable_norms"], before, rtol=1e-5)
    np.testing.assert_allclose(history["clipped_variable_norms"], after, rtol=1e-5)
    np.testing.assert_allclose(history["global_norm"], np.linalg.norm(before, axis=1), rtol=1e-5)
    np.testing.assert_allclose(history["clipped_norm"], np.linalg.norm(after, axis=1), rtol=1e-5)
    fired = (after < before * (1 - 1e-5)).any(axis=1)
    assert monitor.clip_rate == pytest.approx(fired.mean())
    config = optimizer().get_config()
    clips = [(name, config[name]) for name in ("clipnorm", "global_clipnorm", "clipvalue")]
    assert monitor.clip == next(((name, value) for name, value in clips if value), None)


def test_loss_scaling():
    monitor = GradientNormMonitor()
    optimizer = keras.optimizers.LossScaleOptimizer(SGD(0.5), initial_scale=128.0)
    fit(compiled(optimizer, dtype="mixed_float16"), monitor)
    before, _ = expected_norms(SGD(0.5), dtype="mixed_float16", scale=128.0)
    # Half precision inside the net: what has to be right is the scale, not the seventh digit.
    np.testing.assert_allclose(monitor.history["variable_norms"], before, rtol=2e-2)


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


@pytest.mark.parametrize("mode", ["plain", "adam", "eager", "jit_compile", "steps_per_execution"])
def test_sparse_gradients(mode):
    optimizer, options = MODES[mode]
    optimizer = type(optimizer())(0.01)
    before, _ = expected_norms(optimizer, sparse=True)
    monitor = GradientNormMonitor()
    fit(compiled(type(optimizer)(0.01), sparse=True, **options), monitor)
    np.testing.assert_allclose(monitor.history["variable_norms"], before, rtol=1e-5)


@over_modes
def test_training_is_the_same_to_the_bit(mode):
    optimizer, options = MODES[mode]
    watched, plain = (compiled(optimizer(), sparse=True, **options) for _ in range(2))
    fit(watched, GradientNormMonitor())
    fit(plain)
    for mine, other in zip(
        watched.weights + watched.optimizer.variables,
        plain.weights + plain.optimizer.variables,
        strict=True,
    ):
        np.testing.assert_array_equal(mine, other)


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
    assert f"gradients/{monitor.variables[0]}" in events.Tags()["tensors"]


def test_leaves_the_model_as_it_was(tmp_path, monkeypatch):
    hooks = []
    attach = GradientHook.attach
    monkeypatch.setattr(GradientHook, "attach", lambda self: hooks.append(self) or attach(self))
    model = compiled(SGD(0.5, momentum=0.9))
    monitor = GradientNormMonitor()
    fit(model, monitor, keras.callbacks.ModelCheckpoint(tmp_path / "during.keras"))
    assert not {"_clip_gradients", "_backend_apply_gradients"} & set(vars(model.optimizer))
    recorded = rows(monitor)
    updates = hooks[0].count()
    fit(model)
    assert hooks[0].count() == updates == 12
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


def test_under_two_replicas(on_two_devices):
    printed = on_two_devices("""
        import test_gradient_norm_monitor as t

        alone, both = t.GradientNormMonitor(), t.GradientNormMonitor()
        t.fit(t.compiled(t.SGD(0.5)), alone)
        with strategy.scope():
            model = t.compiled(t.SGD(0.5))
        t.fit(model, both)
        np.testing.assert_allclose(t.rows(both), t.rows(alone), rtol=1e-5)
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


def test_nothing_recorded_yet():
    for method in ("suggest_clipnorm", "verdict", "plot"):
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


def test_norms_of_huge_gradients_do_not_overflow():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(SGD(0.0), "mse")
    monitor = GradientNormMonitor()
    x = np.array([[3e12, 4e12]])
    model.fit(x, np.array([[-1e13]]), callbacks=[monitor], verbose=0)
    (kernel,) = model.get_weights()
    gradient = 2 * (x @ kernel + 1e13) * x
    norm = np.linalg.norm(gradient.astype("float64"))
    assert norm > 1e24
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
