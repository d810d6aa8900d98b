"""The one place that updates pass: its order, and that it goes when its `fit` does."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small import BATCH, SGD, At, assert_same, compiled, fit, gradients

from kerasrnn.callbacks import DivergenceGuard, GradientClipping, GradientNormMonitor
from kerasrnn.updates.hook import METHODS, UpdateHook


def fit_again(model):
    fit(model, epochs=1)


def compile_again(model):
    model.compile(model.optimizer, "mse")
    fit(model, epochs=1)


def apply_by_hand(model):
    grads = [tf.constant(g, "float32") for g in gradients(model, slice(0, BATCH))]
    model.optimizer.apply(grads, model.trainable_variables)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("train", [fit_again, compile_again, apply_by_hand])
def test_what_an_interrupted_fit_left_is_taken_off(train, eager):
    def interrupt():
        raise KeyboardInterrupt

    model, plain = (compiled(SGD(0.5), run_eagerly=eager) for _ in range(2))
    with pytest.raises(KeyboardInterrupt):
        fit(model, GradientClipping("global_norm", 1e-3), At(1, interrupt))
    model.set_weights(plain.get_weights())
    train(model)
    train(plain)
    assert_same(model, plain.get_weights(), rtol=0, atol=0)
    assert not set(METHODS) & set(vars(model.optimizer))


class Refuses(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        raise ValueError("no")


@pytest.mark.parametrize(
    ("clipnorm", "refusing"),
    [
        (1.0, [GradientClipping()]),
        (None, [GradientClipping(), GradientClipping("value")]),
        (None, [DivergenceGuard(), DivergenceGuard()]),
        (None, [GradientClipping(), Refuses()]),
    ],
)
def test_a_fit_that_is_refused_leaves_nothing_on_the_optimizer(clipnorm, refusing):
    model = compiled(SGD(0.5, clipnorm=clipnorm))
    model.make_train_function()
    step = model.train_function
    with pytest.raises(ValueError, match=r"own clip|One fit takes one|^no$"):
        fit(model, GradientNormMonitor(), *refusing)
    assert not set(METHODS) & set(vars(model.optimizer))
    assert model.train_function is step


class Parts(keras.callbacks.Callback):
    """Puts an observer, a clip and a filter of its own into the hook, in this order, and notes what
    happens to each update of an eager `fit`; the filter skips the updates in `skips`."""

    def __init__(self, skips=()):
        super().__init__()
        self.skips, self.updates, self.skipped = skips, 0, 0
        self.events = []

    def on_train_begin(self, logs=None):
        self.hook = UpdateHook.of(self)
        self.hook.observe(Observer(self))
        self.hook.clip_by(self.clip, "norm", 0.5)
        self.hook.filter_by(self)

    def on_train_batch_begin(self, batch, logs=None):
        self.hook.announce()

    def clip(self, variables, grads):
        self.events.append("clip")
        return [g / 2 for g in grads]

    def expect(self, variables):
        pass

    def flags(self, grads):
        self.events.append("filter")
        self.updates += 1
        return tf.fill([len(grads)], self.updates - 1 in self.skips)

    def let_through(self, variables):
        self.events.append("let through")

    def skip(self, variables, flags):
        self.events.append("skip")

    def record(self, update):
        self.events.append("filter observes")


class Observer:
    def __init__(self, parts):
        self.parts = parts

    def expect(self, variables):
        pass

    def record(self, update):
        self.parts.events.append("observer")
        skipped = self.parts.updates - 1 in self.parts.skips
        rate = 0 if skipped else update.rate
        for variable, before, after, weights in zip(*update[:4], strict=True):
            np.testing.assert_allclose(after, before / (1 if skipped else 2))
            # It is made by now.
            np.testing.assert_allclose(variable, weights - rate * after, rtol=1e-5, atol=1e-7)


def test_filter_clip_and_observers_in_this_order():
    model, plain = compiled(SGD(0.5), run_eagerly=True), compiled(SGD(0.25))
    parts = Parts()
    fit(model, parts, epochs=1, steps_per_epoch=2)
    assert parts.events == ["filter", "clip", "observer", "filter observes", "let through"] * 2
    assert parts.hook.clip == ("norm", 0.5)
    assert parts.hook.filter is parts
    # With half the gradients.
    fit(plain, epochs=1, steps_per_epoch=2)
    assert_same(model, plain.get_weights())


def test_a_user_s_own_loss_stays_on_the_model():
    model = compiled(SGD(0.5))
    own, plain = (lambda *a, **k: 2 * plain(*a, **k)), model.compute_loss
    model.compute_loss = own
    monitor = GradientNormMonitor()
    loss = fit(model, monitor, epochs=1).history["loss"]
    assert model.compute_loss is own
    np.testing.assert_allclose(monitor.history["loss"].mean(), loss[0], rtol=1e-5)
    del model.compute_loss
    fit(model, monitor)
    assert "compute_loss" not in vars(model)


class LeavesAtTheFirstEpoch(keras.callbacks.Callback):
    """Takes its observer off in the middle of a `fit`."""

    def on_train_begin(self, logs=None):
        self.count = tf.Variable(0)
        self.hook = UpdateHook.of(self)
        self.hook.observe(self)

    def expect(self, variables):
        pass

    def record(self, update):
        self.count.assign_add(1)

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.hook.release(self)


def test_what_was_taken_off_sees_no_more_updates():
    model, callback, monitor = compiled(SGD(0.5)), LeavesAtTheFirstEpoch(), GradientNormMonitor()
    for _ in range(2):
        fit(model, monitor, callback)
        assert int(callback.count) == 6
        assert len(monitor.history["loss"]) == 12


def test_what_is_skipped_is_observed_as_it_came():
    model, parts = compiled(SGD(0.5), run_eagerly=True), Parts(skips={0, 1})
    start = model.get_weights()
    fit(model, parts, epochs=1, steps_per_epoch=2)
    assert parts.events == ["filter", "skip", "observer", "filter observes"] * 2
    assert_same(model, start, rtol=0, atol=0)
    assert int(model.optimizer.iterations) == 0
