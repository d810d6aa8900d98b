"""The callbacks that go through the hook, and searches, under whatever backend the tests run."""

import keras
import keras_tuner
import numpy as np
import pytest

import kerasrnn
from kerasrnn.backends import BACKEND
from kerasrnn.callbacks import (
    DivergenceGuard,
    GradientClipping,
    GradientFlowMonitor,
    GradientNormMonitor,
)
from kerasrnn.tuning import HealthyObjective, RandomSearch, RNNHyperModel
from kerasrnn.updates.kept_step import KeptStep

# Under TensorFlow each callback has tests of its own.
pytestmark = [pytest.mark.slow] if BACKEND == "tensorflow" else []
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5, 3)).astype("float32")
Y = RNG.normal(size=(24, 1)).astype("float32")
without_tensorflow = pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow has it")


def adam(**options):
    return keras.optimizers.Adam(0.01, **options)


def sgd(rate=0.1, **options):
    return keras.optimizers.SGD(rate, **options)


def compiled(optimizer, **options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((5, 3)),
            kerasrnn.layers.GRU(4),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer, "mse", **options)
    return model


def fit(model, *callbacks, y=Y, epochs=2, batch_size=4):
    # PyTorch's generator is one for all models.
    keras.utils.set_random_seed(2)
    return model.fit(
        X, y, batch_size, epochs, verbose=0, shuffle=False, callbacks=list(callbacks)
    ).history


class WeightChanges(keras.callbacks.Callback):
    """How far each batch moved the weights."""

    def on_train_begin(self, logs=None):
        self.norms, self._before = [], self.model.get_weights()

    def on_train_batch_end(self, batch, logs=None):
        if BACKEND == "jax":
            self.model.jax_state_sync()
        now = [np.array(w) for w in self.model.get_weights()]
        changes = [np.sum((a - b) ** 2) for a, b in zip(now, self._before, strict=True)]
        self.norms.append(np.sqrt(sum(changes)))
        self._before = now


def assert_same_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (lambda: adam(), {}),
        (
            lambda: adam(global_clipnorm=0.1),
            {} if BACKEND == "torch" else {"steps_per_execution": 2},
        ),
        (lambda: sgd(momentum=0.9, clipnorm=0.1, gradient_accumulation_steps=2), {}),
    ],
)
def test_the_monitor_does_not_change_a_bit(optimizer, options):
    watched, alone = compiled(optimizer(), **options), compiled(optimizer(), **options)
    monitor = GradientNormMonitor()
    history = fit(watched, monitor)
    assert fit(alone)["loss"] == history["loss"]
    # As its docstring has it, TensorFlow's graph optimizer rounds a clip's product otherwise.
    if BACKEND != "tensorflow":
        assert_same_weights(watched, alone)
    updates = 12 // (watched.optimizer.gradient_accumulation_steps or 1)
    assert monitor.history["global_norm"].shape == (updates,)


def test_norms_and_losses_are_those_of_the_steps():
    monitor, changes = GradientNormMonitor(), WeightChanges()
    history = fit(compiled(sgd(0.5)), monitor, changes)
    np.testing.assert_allclose(
        monitor.history["global_norm"], np.array(changes.norms) / 0.5, rtol=1e-4
    )
    np.testing.assert_allclose(monitor.history["loss"][6:].mean(), history["loss"][1], rtol=1e-5)
    assert np.isfinite(monitor.history["update_ratio"][:, 0]).all()


def test_clips_as_the_optimizer_does_and_by_the_history():
    ours, keras_own = compiled(sgd()), compiled(sgd(global_clipnorm=0.1))
    fit(ours, GradientClipping("global_norm", 0.1))
    fit(keras_own)
    for a, b in zip(ours.get_weights(), keras_own.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)

    monitor, clipping = GradientNormMonitor(), GradientClipping("percentile", 30)
    fit(compiled(sgd()), clipping, monitor)
    norms = monitor.history["global_norm"]
    np.testing.assert_allclose(clipping.threshold, np.percentile(norms, 30), rtol=1e-5)
    thresholds = [np.percentile(norms[: i + 1], 30) for i in range(len(norms))]
    np.testing.assert_allclose(
        monitor.history["clipped_norm"], np.minimum(norms, thresholds), rtol=1e-5
    )


@pytest.mark.parametrize("mode", ["norm", "value", "zscore", "adaptive"])
def test_every_clip_runs_and_none_makes_a_step_longer(mode):
    monitor = GradientNormMonitor()
    fit(compiled(sgd()), monitor, GradientClipping(mode))
    before, after = monitor.history["global_norm"], monitor.history["clipped_norm"]
    assert (after <= before * (1 + 1e-6)).all()
    assert np.isfinite(after).all()


def test_a_value_counts_from_the_next_update_on():
    clipping, monitor = GradientClipping("global_norm", 0.1), GradientNormMonitor()

    def lower(epoch, logs):
        clipping.value = 0.01

    fit(compiled(sgd()), clipping, monitor, keras.callbacks.LambdaCallback(on_epoch_end=lower))
    np.testing.assert_allclose(monitor.history["clipped_norm"], 6 * [0.1] + 6 * [0.01], rtol=1e-5)


@pytest.mark.parametrize("accumulate", [None, 2])
def test_the_guard_leaves_a_bad_batch_out(accumulate):
    y = Y.copy()
    y[5] = np.nan
    guard, monitor = DivergenceGuard(), GradientNormMonitor()
    model = compiled(adam(gradient_accumulation_steps=accumulate))
    with pytest.warns(UserWarning, match="skipped 1 batches"):
        history = fit(model, guard, monitor, y=y, epochs=1)
    assert (guard.skipped, guard.first_nonfinite[0], guard.rollbacks) == (
        1,
        1 if accumulate is None else 0,
        0,
    )
    assert np.isfinite(history["loss"]).all()
    assert all(np.isfinite(w).all() for w in model.get_weights())
    assert int(model.optimizer._iterations) == 5
    assert np.isnan(monitor.history["global_norm"]).sum() == 1


def test_the_guard_goes_back():
    y = Y.copy()
    y[8:] = np.nan
    model, guard = compiled(sgd()), DivergenceGuard(max_skips=4, every=1)
    with pytest.warns(UserWarning, match="skipped 4"), pytest.warns(UserWarning, match="went back"):
        fit(model, guard, y=y, epochs=1)
    assert guard.rollbacks == 1
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05)
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.parametrize("options", [{}, {"clipnorm": 0.5}, {"global_clipnorm": 0.1}])
def test_the_guard_does_not_change_a_bit(options):
    guarded, alone = compiled(adam(**options)), compiled(adam(**options))
    losses = fit(guarded, DivergenceGuard(), epochs=6)["loss"], fit(alone, epochs=6)["loss"]
    # TensorFlow's graph optimizer rounds a clip's product otherwise.
    if BACKEND != "tensorflow" or not options:
        assert losses[0] == losses[1]
        assert_same_weights(guarded, alone)


def test_a_second_fit_begins_a_new_record_and_one_without_is_as_ever():
    model, alone, monitor = compiled(adam()), compiled(adam()), GradientNormMonitor()
    for _ in range(2):
        fit(model, monitor)
        fit(alone)
        assert len(monitor.history["global_norm"]) == 12
    assert fit(model) == fit(alone)
    assert_same_weights(model, alone)


def test_a_second_fit_runs_the_step_that_was_traced_for_the_first():
    model, monitor = compiled(adam()), GradientNormMonitor()
    functions = []
    for _ in range(2):
        fit(model, monitor)
        functions.append(KeptStep.of(model).function)
    assert functions[0] is functions[1]


def test_a_second_fit_with_batches_of_another_size_is_recorded():
    model, alone, monitor = compiled(adam()), compiled(adam()), GradientNormMonitor()
    fit(model, monitor)
    fit(alone)
    history = fit(model, monitor, batch_size=8, epochs=1)
    assert history["loss"] == fit(alone, batch_size=8, epochs=1)["loss"]
    assert_same_weights(model, alone)
    assert np.mean(monitor.history["loss"]) == pytest.approx(history["loss"][0], rel=1e-6)
    assert history["grad_norm"][0] == np.median(monitor.history["global_norm"])


def test_an_interrupted_fit_leaves_nothing_behind():
    model, monitor = compiled(adam()), GradientNormMonitor()

    def interrupt(batch, logs):
        if batch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, monitor, keras.callbacks.LambdaCallback(on_train_batch_end=interrupt))
    assert np.isfinite(fit(model)["loss"]).all()
    assert len(monitor.history["global_norm"]) == 3
    assert "_clip_gradients" not in vars(model.optimizer)


# keras-tuner's own.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("tuner", [keras_tuner.RandomSearch, RandomSearch])
def test_a_search_of_two_trials(tuner, tmp_path):
    hypermodel = RNNHyperModel(
        "regression", features=3, cells="mgu", units=4, depths=1, bidirectional=False
    )
    search = tuner(hypermodel, "val_loss", max_trials=2, directory=tmp_path, seed=1)
    search.search(X, Y, validation_split=0.25, verbose=0)
    assert all(np.isfinite(t.score) for t in search.oracle.get_best_trials(2))
    assert search.get_best_models()[0].predict(X[:2], verbose=0).shape == (2, 1)


@without_tensorflow
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: GradientFlowMonitor(X, Y), "GradientFlowMonitor"),
        (lambda: HealthyObjective("loss"), "HealthyObjective"),
        (lambda: GradientNormMonitor(log_dir="logs"), "log_dir"),
        (lambda: GradientNormMonitor(csv="gs://bucket/norms.csv"), "gs://bucket/norms.csv"),
    ],
)
def test_says_what_needs_tensorflow(make, name):
    with pytest.raises(RuntimeError, match="needs Keras's TensorFlow backend") as error:
        make()
    assert name in str(error.value)
    assert BACKEND in str(error.value)


@pytest.mark.skipif(BACKEND != "jax", reason="a limit of JAX's trainer")
def test_says_what_it_does_not_see():
    scaled = compiled(keras.optimizers.LossScaleOptimizer(adam()))
    with pytest.raises(ValueError, match="mixed_bfloat16"):
        fit(scaled, GradientNormMonitor())
    keras.utils.set_random_seed(1)
    stateful = keras.Sequential(
        [keras.Input((5, 3), 4), kerasrnn.layers.GRU(4, stateful=True), keras.layers.Dense(1)]
    )
    stateful.compile(adam(), "mse")
    with pytest.raises(ValueError, match="states of stateful layers"):
        fit(stateful, DivergenceGuard())
