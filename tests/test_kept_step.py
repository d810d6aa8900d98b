"""A step that was traced for a `fit` with callbacks is run again by the next, and only where it is
right: each training here is also made with every step traced anew."""

import copy
import gc
import pickle
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow import slow_but
from small import BATCH, LABELS, SGD, TOKENS, At, assert_same, fit

from kerasrnn import layers
from kerasrnn.callbacks import (
    DivergenceGuard,
    GradientClipping,
    GradientFlowMonitor,
    GradientNormMonitor,
)
from kerasrnn.updates.hook import METHODS

LAST = LABELS * 2 + 1


class Scale(keras.layers.Layer):
    """Times a number of its own; counts how often it is traced, as a user would."""

    def __init__(self, **options):
        super().__init__(**options)
        self.factor = 1.0
        self.traces = 0

    def call(self, x):
        self.traces += 1
        return x * self.factor


def net(optimizer=None, built=True, rnn=False, **options):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((7,))] if built else [])
    if rnn:
        model.add(keras.layers.Reshape((7, 1)))
        model.add(layers.SimpleRNN(3, name="rnn"))
    model.add(keras.layers.Dense(5, "tanh", name="first"))
    model.add(Scale(name="scale"))
    model.add(keras.layers.Dense(1))
    model.compile(optimizer or SGD(1e-3, momentum=0.5), "mse", **options)
    return model


def traces(model):
    return model.get_layer("scale").traces


def numbers(monitor):
    history = monitor.history
    return np.hstack([history[name].reshape(len(history["loss"]), -1) for name in sorted(history)])


SETS = {
    "monitor": lambda: [GradientNormMonitor(batch_size=BATCH)],
    "clip": lambda: [GradientClipping("percentile", 20)],
    "guard": lambda: [DivergenceGuard(every=2)],
    "all": lambda: [
        GradientNormMonitor(),
        DivergenceGuard(),
        GradientClipping("zscore"),
        GradientNormMonitor(batch_size=BATCH),
    ],
    "flow": lambda: [GradientFlowMonitor(TOKENS[:2], LABELS[:2]), GradientNormMonitor()],
}
MODELS = {
    "plain": dict,
    "built in its first step": lambda: {"built": False},
    "executions": lambda: {"steps_per_execution": 2},
    "XLA": lambda: {"jit_compile": True},
    "accumulated": lambda: {"optimizer": SGD(1e-3, gradient_accumulation_steps=4)},
    "loss scale": lambda: {"optimizer": keras.optimizers.LossScaleOptimizer(SGD(1e-3))},
}
CASES = [
    *(("plain", name) for name in SETS),
    *((name, "all") for name in MODELS if name != "plain"),
]


@pytest.mark.parametrize(("model", "callbacks"), slow_but([("plain", "all")], CASES))
def test_the_same_callbacks_are_traced_once(model, callbacks):
    """Epoch by epoch, with fits without callbacks in between; the last labels are others."""

    def train(anew):
        one, kept = net(rnn=callbacks == "flow", **MODELS[model]()), SETS[callbacks]()
        counts = []
        for labels, present in (
            (LABELS, kept),
            (LABELS, kept),
            (LABELS, []),
            (LAST, kept),
            (LAST, []),
        ):
            if anew:
                one.make_train_function(force=True)
            before = traces(one)
            fit(one, *present, labels=labels, epochs=1)
            counts.append(traces(one) - before)
            assert not set(METHODS) & set(vars(one.optimizer))
            assert "compute_loss" not in vars(one)
        monitors = [c for c in kept if isinstance(c, GradientNormMonitor)]
        flows = [c.history[-1].norms["rnn"] for c in kept if hasattr(c, "epochs")]
        noise = [m.noise_scale for m in monitors if m.batch_size]
        return one, counts, [*map(numbers, monitors), *flows, *noise]

    one, (first, again, without, *last), records = train(anew=False)
    assert first > 0
    assert without > 0
    assert (again, *last) == (0, 0, 0)
    twin, counts, expected = train(anew=True)
    assert all(counts)
    assert_same(one, twin.get_weights(), rtol=0, atol=0)
    for mine, other in zip(records, expected, strict=True):
        np.testing.assert_array_equal(mine, other)


def freeze(model, callbacks):
    model.get_layer("first").trainable = False


def freeze_a_variable(model, callbacks):
    # The last of those that are trained, so that all together stay in their order.
    model.trainable_variables[-1].trainable = False


def scale(model, callbacks):
    model.get_layer("scale").factor = 3.0


def compile_again(model, callbacks):
    model.compile(model.optimizer, "mae")


def other_optimizer(model, callbacks):
    model.optimizer = keras.optimizers.Adam(0.01)


def momentum(model, callbacks):
    model.optimizer.momentum = 0.9


def schedule(model, callbacks):
    model.optimizer.learning_rate = keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5)


def clipnorm(model, callbacks):
    model.optimizer.clipnorm = 1


def eager(model, callbacks):
    model.run_eagerly = True


def executions(model, callbacks):
    model.steps_per_execution = 3


def xla(model, callbacks):
    model.jit_compile = True


def train_step(model, callbacks):
    def twice(data, step=model.train_step):
        step(data)
        return step(data)

    model.train_step = twice


def compute_loss(model, callbacks):
    model.compute_loss = lambda *a, loss=model.compute_loss, **k: 2 * loss(*a, **k)


def another_layer(model, callbacks):
    last = Scale(name="last")
    last.factor = 2.0
    model.add(last)


def another_monitor(model, callbacks):
    callbacks[:] = [GradientNormMonitor()]


def a_clip_more(model, callbacks):
    callbacks.append(GradientClipping("norm", 0.1))


def products(model, callbacks):
    callbacks[0].batch_size = BATCH


def nothing(model, callbacks):
    pass


CHANGES = [
    *(freeze, freeze_a_variable, scale, compile_again, other_optimizer, momentum, schedule),
    *(clipnorm, eager, executions, xla, train_step, compute_loss, another_layer),
    *(another_monitor, a_clip_more, products, nothing),
]


@pytest.mark.parametrize(
    "change",
    slow_but([nothing, freeze_a_variable, compile_again, schedule, another_monitor], CHANGES),
)
def test_what_was_changed_counts_from_the_next_fit_on(change):
    """With the callbacks, and after it without them, and as if nothing had been kept."""

    def train(anew):
        model, callbacks = net(), [GradientNormMonitor()]
        for change_now, present in (
            (None, True),
            (None, False),
            (change, True),
            (None, False),
            (None, True),
        ):
            if change_now:
                change_now(model, callbacks)
            if anew:
                model.make_train_function(force=True)
            fit(model, *(callbacks if present else ()), epochs=1)
        return model, callbacks[0]

    (mine, monitor), (twin, other) = train(anew=False), train(anew=True)
    assert_same(mine, twin.get_weights(), rtol=0, atol=0)
    np.testing.assert_array_equal(numbers(monitor), numbers(other))
    assert monitor.clip == other.clip
    if monitor.batch_size:
        assert not np.isnan(monitor.noise_scale)
        assert monitor.noise_scale == other.noise_scale


class Unfreeze(keras.callbacks.Callback):
    """At the first epoch, which is after the start of the monitor."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.get_layer("first").trainable = True


def test_a_change_at_the_first_epoch_counts_too():
    def train(anew):
        model, monitor = net(), GradientNormMonitor()
        model.optimizer.build(model.trainable_variables)
        freeze(model, None)
        fit(model, monitor, epochs=1)
        if anew:
            model.make_train_function(force=True)
        fit(model, monitor, Unfreeze(), epochs=1)
        return model, monitor

    (mine, monitor), (twin, other) = train(anew=False), train(anew=True)
    assert_same(mine, twin.get_weights(), rtol=0, atol=0)
    assert monitor.history["variable_norms"].shape == (6, 4)
    np.testing.assert_array_equal(numbers(monitor), numbers(other))


def test_a_change_in_the_middle_of_a_fit_counts_in_the_next():
    def train(anew):
        model, monitor = net(), GradientNormMonitor()
        for callbacks in (
            [monitor],
            [],
            [monitor, At(1, lambda: freeze(model, None))],
            [],
            [monitor],
        ):
            if anew:
                model.make_train_function(force=True)
            fit(model, *callbacks, epochs=1)
        return model, monitor

    (mine, monitor), (twin, other) = train(anew=False), train(anew=True)
    assert_same(mine, twin.get_weights(), rtol=0, atol=0)
    np.testing.assert_array_equal(numbers(monitor), numbers(other))
    assert monitor.history["variable_norms"].shape == (6, 2)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_after_an_interrupted_one(error):
    def interrupt():
        raise error

    def train(anew):
        model = net()
        callbacks = [GradientNormMonitor(), GradientClipping("norm", 0.1), DivergenceGuard()]
        fit(model, *callbacks, epochs=1)
        with pytest.raises(error):
            fit(model, *callbacks, At(1, interrupt))
        for present in (False, True, True):
            if anew:
                model.make_train_function(force=True)
            fit(model, *(callbacks if present else ()), epochs=1)
        assert not set(METHODS) & set(vars(model.optimizer))
        return model, callbacks[0]

    (mine, monitor), (twin, other) = train(anew=False), train(anew=True)
    assert_same(mine, twin.get_weights(), rtol=0, atol=0)
    np.testing.assert_array_equal(numbers(monitor), numbers(other))


def test_a_guard_begins_anew():
    """Its counts, and the states that it goes back to."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(1).normal(size=(12, 5, 2)).astype("float32")
    y = np.ones((12, 1), "float32")
    model = keras.Sequential(
        [keras.Input((5, 2), batch_size=4), layers.GRU(3, stateful=True), keras.layers.Dense(1)]
    )
    model.compile(SGD(0.01), "mse")
    guard, monitor = DivergenceGuard(), GradientNormMonitor()
    rnn = model.layers[0]

    def train(x):
        model.fit(x, y, 4, shuffle=False, verbose=0, callbacks=[guard, monitor])

    ill = x.copy()
    ill[4:8] = np.nan
    for _ in range(2):
        with pytest.warns(UserWarning, match="skipped 1 batches"):
            train(ill)
        assert (guard.skipped, guard.first_nonfinite[0]) == (1, 1)
        assert monitor.gradient_record().skipped == 1
    train(x)
    assert (guard.skipped, guard.first_nonfinite) == (0, None)
    # What the first batch of a fit finds is none of the states before.
    rnn.states[0].assign(np.full((4, 3), np.nan))
    with pytest.warns(UserWarning, match="skipped 1 batches"):
        model.fit(x[:4], y[:4], 4, verbose=0, callbacks=[guard, monitor])
    np.testing.assert_array_equal(rnn.states[0], np.zeros((4, 3)))


def test_the_loss_of_batches_that_a_fit_has_left_over_is_not_counted():
    """Of six batches two wait for the first update of the next fit."""

    def losses(anew):
        model = net(SGD(1e-3, gradient_accumulation_steps=4))
        monitor = GradientNormMonitor()
        fit(model, monitor, epochs=1)
        if anew:
            model.make_train_function(force=True)
        before = traces(model)
        fit(model, monitor, labels=LAST, epochs=1, steps_per_epoch=2)
        return monitor.history["loss"], traces(model) - before

    (mine, none), (anew, _) = losses(anew=False), losses(anew=True)
    assert none == 0
    np.testing.assert_array_equal(mine, anew)


def test_models_and_callbacks_are_freed():
    model, monitor, clipping = net(), GradientNormMonitor(), GradientClipping()
    fit(model, monitor, clipping, epochs=1)
    of_callback = weakref.ref(monitor)
    step = weakref.ref(kept(model).function)
    del monitor
    gc.collect()
    assert of_callback() is None
    # With it the graph goes, and what is captured there.
    assert step() is None
    before = traces(model)
    fit(model, clipping, epochs=1)
    assert traces(model) > before

    of_model = weakref.ref(model)
    step = weakref.ref(kept(model).function)
    del clipping, model
    gc.collect()
    assert (of_model(), step()) == (None, None)


def kept(model):
    return model.train_function._kerasrnn_kept_step


def test_compile_drops_the_step():
    model, monitor = net(), GradientNormMonitor()
    fit(model, monitor, epochs=1)
    step = weakref.ref(kept(model).function)
    model.compile(SGD(0.1), "mse")
    gc.collect()
    assert step() is None


@pytest.mark.slow
@pytest.mark.parametrize("same", [True, False])
def test_memory_does_not_grow(same):
    """Neither with the same callbacks nor with new ones that are all kept."""

    def alive():
        gc.collect()
        # TensorFlow lets go of some of the graphs of a new trace, whoever makes it, and not of all.
        kinds = (tf.Variable, tf.Graph) if same else tf.Variable
        return sum(isinstance(one, kinds) for one in gc.get_objects())

    model, monitors = net(), [GradientNormMonitor(batch_size=BATCH)]
    counts = []
    for _ in range(6):
        if not same:
            monitors.append(GradientNormMonitor(batch_size=BATCH))
        fit(model, monitors[-1], epochs=1)
        fit(model, epochs=1)
        counts.append(alive())
    assert counts[2:] == [counts[2]] * 4


def test_a_model_is_saved_and_copied_as_ever(tmp_path):
    model, monitor = net(), GradientNormMonitor()
    copies = []

    class Copies(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            copies.append(keras.models.clone_model(model))
            model.save_weights(tmp_path / "during.weights.h5")

    with keras.utils.custom_object_scope({"Scale": Scale}):
        for _ in range(2):
            fit(model, monitor, Copies(), epochs=1)
        model.save(tmp_path / "model.keras")
        copies += [
            keras.models.load_model(tmp_path / "model.keras"),
            pickle.loads(pickle.dumps(model)),
            copy.deepcopy(model),
        ]
    expected = model.predict(TOKENS, verbose=0)
    for one in copies[2:]:
        np.testing.assert_allclose(one.predict(TOKENS, verbose=0), expected, rtol=1e-6)
    copies[0].compile(SGD(0.1), "mse")
    for one in (copies[0], *copies[2:]):
        scale = one.layers[1]
        before = scale.traces
        fit(one, monitor, epochs=1)
        assert scale.traces > before
    model.export(tmp_path / "exported", verbose=False)


def test_a_train_function_that_is_a_method_is_traced_each_time():
    """Whatever it keeps would be kept for its class."""

    class Own(keras.Sequential):
        def make_train_function(self, force=False):
            super().make_train_function(force)
            if self.train_function != self.run:
                self.inner, self.train_function = self.train_function, self.run

        def run(self, data):
            return self.inner(data)

    def train(*callbacks):
        keras.utils.set_random_seed(3)
        model = Own([keras.Input((7,)), Scale(name="scale"), keras.layers.Dense(1)])
        model.compile(SGD(1e-3), "mse")
        for _ in range(2):
            fit(model, *callbacks, epochs=1)
        return model

    monitor = GradientNormMonitor()
    assert_same(train(monitor), train().get_weights(), rtol=0, atol=0)
    assert len(monitor.history["loss"]) == 6
    assert not vars(Own.run)


@pytest.mark.slow
def test_on_two_replicas(on_two_devices):
    printed = on_two_devices("""
        import keras
        import small
        import test_kept_step as t

        def train(anew):
            with strategy.scope():
                model = t.net()
            callbacks = t.SETS["all"]()
            counts = []
            for _ in range(3):
                if anew:
                    model.make_train_function(force=True)
                before = t.traces(model)
                small.fit(model, *callbacks, epochs=1)
                counts.append(t.traces(model) - before)
            return model, counts, callbacks

        mine, counts, callbacks = train(False)
        twin, anew, others = train(True)
        print("traces", counts[0] > 0, counts[1:], all(anew))
        small.assert_same(mine, twin.get_weights(), rtol=0, atol=0)
        for one, other in zip(callbacks[::3], others[::3]):
            np.testing.assert_array_equal(t.numbers(one), t.numbers(other))
            print(t.numbers(one).shape)
    """)
    assert "traces True [0, 0] True" in printed
    assert printed.count("(6, ") == 2
