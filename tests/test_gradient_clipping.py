"""Clips inside `fit`, against the papers' equations in NumPy and gradients of a GradientTape."""

import copy
import functools
import pickle

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from clips_by_hand import BY_HAND, ZClip
from small import (
    BATCH,
    LABELS,
    SGD,
    TOKENS,
    At,
    assert_same,
    build,
    compiled,
    descend,
    fit,
    gradients,
)

from kerasrnn.callbacks import GradientClipping, GradientNormMonitor
from kerasrnn.updates.clips import CLIPS, ZScore
from kerasrnn.updates.hook import METHODS


@pytest.fixture(autouse=True)
def _short_warmup(monkeypatch):
    monkeypatch.setattr(ZScore, "warmup", 4)


def expected(mode, **options):
    kind, value = BY_HAND[mode]
    clip = kind(value, warmup=4) if kind is ZClip else kind(value)
    return descend(clip, 0.5, **options)


@functools.cache
def unclipped():
    return descend(lambda weights, grads: grads, 0.5, sparse=True)


class Kinds(SGD):
    """Notes which gradients reach the weights as rows."""

    def update_step(self, gradient, variable, learning_rate):
        self.sparse = getattr(self, "sparse", False) or isinstance(gradient, tf.IndexedSlices)
        super().update_step(gradient, variable, learning_rate)


@pytest.mark.parametrize("mode", BY_HAND)
def test_sparse_and_dense_gradients_are_clipped_as_in_the_paper(mode):
    optimizer = Kinds(0.5)
    model = compiled(optimizer, sparse=True)
    fit(model, GradientClipping(mode, BY_HAND[mode][1]))
    weights = expected(mode, sparse=True)
    assert_same(model, weights)
    assert optimizer.sparse
    plain = unclipped()
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(weights, plain, strict=True))


MODES = {
    "eager": ("value", SGD(0.5), {"run_eagerly": True}, 1),
    "xla and percentile": ("percentile", SGD(0.5), {"jit_compile": True}, 1),
    "xla and zscore": ("zscore", SGD(0.5), {"jit_compile": True}, 1),
    "xla and adaptive": ("adaptive", SGD(0.5), {"jit_compile": True}, 1),
    "steps_per_execution": ("zscore", SGD(0.5), {"steps_per_execution": 4}, 1),
    "accumulation": ("percentile", SGD(0.5, gradient_accumulation_steps=3), {}, 3),
    "scaled": ("norm", keras.optimizers.LossScaleOptimizer(SGD(0.5), initial_scale=1024.0), {}, 1),
}


@pytest.mark.parametrize("name", MODES)
def test_in_every_mode_of_training(name):
    mode, optimizer, options, accumulate = MODES[name]
    optimizer = type(optimizer).from_config(optimizer.get_config())
    model = compiled(optimizer, **options)
    fit(model, GradientClipping(mode, BY_HAND[mode][1]))
    assert_same(model, expected(mode, accumulate=accumulate))


def test_half_precision():
    optimizer = keras.optimizers.LossScaleOptimizer(SGD(0.5), initial_scale=128.0)
    model = compiled(optimizer, dtype="mixed_float16", sparse=True)
    fit(model, GradientClipping("global_norm", 1.0))
    assert_same(model, expected("global_norm", sparse=True), rtol=0.02, atol=5e-3)


def test_sparse_rows_under_xla():
    model = compiled(SGD(0.5), sparse=True, jit_compile=True)
    fit(model, GradientClipping("value", 0.1))
    assert_same(model, expected("value", sparse=True))


@pytest.mark.parametrize("mode", ["percentile", "zscore"])
def test_the_history_goes_on_in_the_next_fit(mode):
    model, clipping = compiled(SGD(0.5), sparse=True), GradientClipping(mode, BY_HAND[mode][1])
    assert np.isnan(clipping.threshold)
    for _ in range(2):
        fit(model, clipping, epochs=1)
    assert_same(model, expected(mode, sparse=True))

    clipping.value = 30.0
    again, fresh = compiled(SGD(0.5)), compiled(SGD(0.5))
    fit(again, clipping, epochs=1)
    fit(fresh, GradientClipping(mode, 30.0), epochs=1)
    assert_same(again, fresh.get_weights(), rtol=0, atol=0)


@pytest.mark.parametrize("mode", BY_HAND)
def test_threshold(mode):
    kind, value = BY_HAND[mode]
    clipping, monitor = GradientClipping(mode, value), GradientNormMonitor()
    fit(compiled(SGD(0.5)), clipping, monitor, epochs=1)
    paper = kind(value, warmup=4) if kind is ZClip else kind(value)
    thresholds = [paper.threshold([norm]) for norm in monitor.history["global_norm"]]
    assert clipping.threshold == pytest.approx(thresholds[-1], rel=1e-4)


def test_clipnorm_is_per_variable():
    """Keras's `clipnorm=1` leaves a global norm of more than 1; "global_norm" does not."""
    theirs, ours = GradientNormMonitor(), GradientNormMonitor()
    labels = 10 * LABELS
    fit(compiled(SGD(0.01, clipnorm=1.0)), theirs, labels=labels)
    fit(compiled(SGD(0.01)), ours, GradientClipping("global_norm", 1.0), labels=labels)
    assert (theirs.history["clipped_norm"] > 1.1).all()
    np.testing.assert_allclose(ours.history["clipped_norm"], 1.0, rtol=1e-5)
    assert ours.clip_rate == 1.0


def test_a_value_changed_in_fit_counts_from_the_next_update():
    """Keras's own is fixed where the step is traced."""
    theirs, ours = GradientNormMonitor(), GradientNormMonitor()
    optimizer = SGD(0.01, global_clipnorm=1.0)
    change = At(2, lambda: setattr(optimizer, "global_clipnorm", 0.25))
    fit(compiled(optimizer), theirs, change, labels=10 * LABELS, epochs=1)
    np.testing.assert_allclose(theirs.history["clipped_norm"], [1.0] * 6, rtol=1e-5)

    clipping = GradientClipping("global_norm", 1.0)
    change = At(2, lambda: setattr(clipping, "value", 0.25))
    fit(compiled(SGD(0.01)), clipping, ours, change, labels=10 * LABELS, epochs=1)
    np.testing.assert_allclose(ours.history["clipped_norm"], [1.0] * 3 + [0.25] * 3, rtol=1e-5)
    assert clipping.value == 0.25


def test_global_clipnorm_makes_an_embedding_dense():
    theirs = Kinds(0.5, global_clipnorm=1.0)
    fit(compiled(theirs, sparse=True), epochs=1)
    assert not theirs.sparse


@pytest.mark.slow
def test_on_two_replicas(on_two_devices):
    """With a threshold of 1 and a rate of 1 the step has the length 1; Keras's own has not."""
    printed = on_two_devices("""
        import small
        from kerasrnn.callbacks import GradientClipping, GradientNormMonitor

        def steps(optimizer, *callbacks, sparse=False):
            with strategy.scope():
                model = small.compiled(optimizer(), sparse=sparse)
            start = model.get_weights()
            small.fit(model, *callbacks, epochs=1, labels=10 * small.LABELS, batch_size=48)
            return np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(start, model.get_weights())))

        print(f"theirs {steps(lambda: small.SGD(1.0, global_clipnorm=1.0)):.4f}")
        for sparse in (False, True):
            monitor = GradientNormMonitor()
            length = steps(lambda: small.SGD(1.0), monitor, GradientClipping(), sparse=sparse)
            print(f"ours {length:.4f} {monitor.history['clipped_norm'][0]:.4f}")

        for mode, value in [("percentile", 40.0), ("value", 0.1), ("adaptive", 0.3)]:
            alone = small.compiled(small.SGD(0.5), sparse=True)
            small.fit(alone, GradientClipping(mode, value))
            with strategy.scope():
                both = small.compiled(small.SGD(0.5), sparse=True)
            small.fit(both, GradientClipping(mode, value))
            small.assert_same(both, alone.get_weights())
            print("same")
    """)
    (theirs,) = [float(line.split()[1]) for line in printed.splitlines() if "theirs" in line]
    assert theirs > 1.1
    assert printed.count("ours 1.0000 1.0000") == 2
    assert printed.count("same") == 3


def test_the_order_of_the_callbacks_does_not_matter():
    results = []
    for place in (0, 1):
        monitor = GradientNormMonitor()
        callbacks = [monitor]
        callbacks.insert(place, GradientClipping("percentile", 40.0))
        model = compiled(SGD(0.5))
        fit(model, *callbacks)
        results.append([*model.get_weights(), *monitor.history.values()])
        assert 0 < monitor.clip_rate < 1
        assert monitor.clip == ("percentile", 40.0)
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_clip_that_never_fires_changes_no_bit():
    clipped, plain = compiled(SGD(0.5), sparse=True), compiled(SGD(0.5), sparse=True)
    fit(clipped, GradientClipping("global_norm", 1e6))
    fit(plain)
    assert_same(clipped, plain.get_weights(), rtol=0, atol=0)


def test_a_suggestion_can_be_given_as_it_is():
    monitor = GradientNormMonitor()
    fit(compiled(SGD(0.1)), monitor)
    clipping = GradientClipping("global_norm", monitor.suggest_clipnorm())
    assert clipping.value == float(monitor.suggest_clipnorm())


def test_leaves_the_model_as_it_was():
    model, plain = compiled(SGD(0.5)), compiled(SGD(0.5))
    fit(model, GradientClipping("global_norm", 1e-3))
    assert not set(METHODS) & set(vars(model.optimizer))
    model.set_weights(plain.get_weights())
    fit(model)
    fit(plain)
    assert_same(model, plain.get_weights(), rtol=0, atol=0)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_in_fit_and_outside(copier):
    clipping, copies = GradientClipping("zscore", 2.0), []
    fit(compiled(SGD(0.5)), clipping, At(1, lambda: copies.append(copier(clipping))))
    for copied in (*copies, copier(clipping)):
        assert (copied.mode, copied.value, copied.model) == ("zscore", 2.0, None)
        fit(compiled(SGD(0.5)), copied, epochs=1)


def test_inside_keras_tuner(tmp_path, quiet_tuner):
    tuner = keras_tuner.RandomSearch(
        lambda hp: compiled(SGD(hp.Float("lr", 0.1, 1.0))), "loss", 2, directory=tmp_path
    )
    tuner.search(TOKENS, LABELS, epochs=1, verbose=0, callbacks=[GradientClipping()])
    assert len(tuner.oracle.trials) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["norms"], r"`mode` must be 'global_norm', .* Received: mode='norms'"),
        (["norm", 0], r"must be a number from 1.* to 3.4e\+38 in mode 'norm'. Received: value=0"),
        (["value", 1e-50], "Received: value=1e-50"),
        (["adaptive", 1e39], r"Received: value=1e\+39"),
        (["value", True], "Received: value=True"),
        (["norm", float("nan")], "Received: value=nan"),
        (["norm", "1"], "Received: value='1'"),
        (["percentile", 101], "to 100 in mode 'percentile'. Received: value=101"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        GradientClipping(*arguments)


def test_defaults():
    found = {mode: GradientClipping(mode).value for mode in BY_HAND}
    assert found["global_norm"] == GradientClipping().value == 1.0
    # Of the papers.
    assert (found["percentile"], found["zscore"], found["adaptive"]) == (10.0, 2.5, 0.01)


def test_the_docstring_lists_every_mode_with_its_default():
    for mode, rule in CLIPS.items():
        entry = f'    "{mode}" (default: {rule.default:g})\n        {rule.__doc__.splitlines()[0]}'
        assert GradientClipping.__doc__.count(entry) == 1
    assert max(map(len, GradientClipping.__doc__.splitlines())) <= 100


def test_a_clip_of_the_optimizer_s_own():
    with pytest.raises(ValueError, match=r"optimizer's own clip.*Received: clipvalue=0.5"):
        fit(compiled(SGD(0.5, clipvalue=0.5)), GradientClipping())


def test_two_clips():
    with pytest.raises(ValueError, match="One fit takes one GradientClipping"):
        fit(compiled(SGD(0.5)), GradientClipping(), GradientClipping("value"))


def test_needs_an_optimizer():
    callbacks = keras.callbacks.CallbackList([GradientClipping()], model=build())
    with pytest.raises(ValueError, match="GradientClipping needs a model compiled with"):
        callbacks.on_train_begin()


def test_the_gradients_by_hand_are_those_of_fit():
    """What all of the above rests on."""
    model = compiled(SGD(1.0))
    start, grads = model.get_weights(), gradients(model, slice(0, BATCH))
    fit(model, epochs=1, steps_per_epoch=1)
    assert_same(model, [w - g for w, g in zip(start, grads, strict=True)])
