"""Clips inside `fit`, against the papers' equations in NumPy and gradients of a GradientTape."""

import copy
import functools
import pickle

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from small import BATCH, LABELS, SGD, TOKENS, assert_same, build, compiled, descend, fit, gradients

from kerasrnn.callbacks import DivergenceGuard, GradientClipping, GradientNormMonitor, clips
from kerasrnn.callbacks.update_hook import METHODS


def norm_of(grads):
    return np.sqrt(sum(np.sum(g**2) for g in grads))


def algorithm_1(g, threshold):
    """Pascanu et al. (2013), Algorithm 1."""
    norm = np.linalg.norm(g)
    if norm >= threshold:
        g = threshold / norm * g
    return g


class GlobalNorm:
    def __init__(self, value):
        self.value = value

    def __call__(self, weights, grads):
        flat = algorithm_1(np.concatenate([g.ravel() for g in grads]), self.threshold(grads))
        parts = np.split(flat, np.cumsum([g.size for g in grads])[:-1])
        return [part.reshape(g.shape) for part, g in zip(parts, grads, strict=True)]

    def threshold(self, grads):
        return self.value


class Norm(GlobalNorm):
    def __call__(self, weights, grads):
        return [algorithm_1(g, self.value) for g in grads]


class Value(GlobalNorm):
    def __call__(self, weights, grads):
        return [np.clip(g, -self.value, self.value) for g in grads]


class AutoClip(GlobalNorm):
    """Seetharaman et al. (2020): the percentile of all norms up to and with this one."""

    def __init__(self, value):
        super().__init__(value)
        self.norms = []

    def threshold(self, grads):
        self.norms.append(norm_of(grads))
        return np.percentile(self.norms, self.value)


class ZClip(GlobalNorm):
    """Kumar et al. (2025), with a reciprocal clip."""

    def __init__(self, value, warmup=25):
        super().__init__(value)
        self.warmup, self.seen = warmup, []

    def threshold(self, grads):
        g = norm_of(grads)
        if len(self.seen) < self.warmup:
            self.seen.append(g)
            self.mean, self.variance = np.mean(self.seen), np.var(self.seen)
            return np.inf
        sigma = np.sqrt(self.variance)
        z = (g - self.mean) / sigma
        threshold = self.mean + self.value**2 / z * sigma if z > self.value else np.inf
        g = min(g, threshold)
        self.mean = 0.97 * self.mean + 0.03 * g
        self.variance = 0.97 * self.variance + 0.03 * (g - self.mean) ** 2
        return threshold


class AGC(GlobalNorm):
    """Brock et al. (2021), equation 3: unit by unit, here column by column."""

    def __call__(self, weights, grads):
        clipped = []
        for w, g in zip(weights, grads, strict=True):
            g = g.copy()
            for i in range(g.shape[1]) if g.ndim == 2 else [slice(None)]:
                most = max(np.linalg.norm(w[..., i]), 1e-3)
                ratio = np.linalg.norm(g[..., i]) / most
                if ratio > self.value:
                    g[..., i] *= self.value * most / np.linalg.norm(g[..., i])
            clipped.append(g)
        return clipped


# Thresholds that some of the updates, variables, entries or units stay below.
BY_HAND = {
    "global_norm": (GlobalNorm, 1.0),
    "norm": (Norm, 0.5),
    "value": (Value, 0.1),
    "percentile": (AutoClip, 40.0),
    "zscore": (ZClip, 1.0),
    "adaptive": (AGC, 0.3),
}


@pytest.fixture(autouse=True)
def _short_warmup(monkeypatch):
    monkeypatch.setattr(clips, "WARMUP", 4)


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


def test_algorithm_1_to_the_letter():
    """At the threshold too; below it g is not touched by a bit."""
    clip = clips.CLIPS["global_norm"](5.0)
    for scale in (0.5, 1.0, 2.0, 1e30):
        g = np.float32([3.0, 4.0]) * np.float32(scale)
        (clipped,) = clip([None], [tf.constant(g)])
        if scale <= 1:
            np.testing.assert_array_equal(clipped, g)
        else:
            np.testing.assert_allclose(clipped, [3.0, 4.0], rtol=1e-6)
    (clipped,) = clip([None], [tf.zeros(2)])
    np.testing.assert_array_equal(clipped, [0.0, 0.0])


@pytest.mark.parametrize(("mode", "by_hand"), [("percentile", AutoClip), ("zscore", ZClip)])
def test_a_long_history(mode, by_hand, monkeypatch):
    """Over the papers' warm-up, past the window, and with an Inf and a NaN among the norms."""
    monkeypatch.undo()
    monkeypatch.setattr(clips, "_WINDOW", 50)
    value = {"percentile": 30.0, "zscore": 1.0}[mode]
    clip, paper = clips.CLIPS[mode](value), by_hand(value)
    step = tf.function(lambda g: clip([None], [g])[0], jit_compile=True)
    norms = np.random.default_rng(0).gamma(2.0, size=120)
    fired = 0
    for i, norm in enumerate(norms):
        if i in (0, 10, 60):
            for bad in (np.inf, np.nan):
                np.testing.assert_array_equal(step(tf.constant([bad, 1.0])), [bad, 1.0])
        g = np.array([0.6, 0.8]) * norm
        (wanted,) = paper(None, [g])
        np.testing.assert_allclose(step(tf.constant(g, "float32")), wanted, rtol=1e-4)
        fired += np.linalg.norm(wanted) < norm
        if mode == "percentile":
            paper.norms = paper.norms[-49:]
    assert 5 < fired < 110


@pytest.mark.parametrize("mode", BY_HAND)
def test_an_inf_and_a_nan_pass_as_they_are(mode):
    clip = clips.CLIPS[mode](0.1)
    for bad in (np.inf, -np.inf, np.nan):
        g = np.float32([[bad], [3.0], [-2.0]])
        rows = tf.IndexedSlices(tf.constant(g), tf.constant([2, 0, 1]), tf.constant([4, 1]))
        variables = [tf.Variable(tf.ones((n, 1))) for n in (3, 4)]
        dense, sparse = clip(variables, [tf.constant(g), rows])
        np.testing.assert_array_equal(dense, g)
        np.testing.assert_array_equal(tf.convert_to_tensor(sparse)[:3], g[[1, 2, 0]])


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


class At(keras.callbacks.Callback):
    """Calls a function at the end of one batch of the first epoch."""

    def __init__(self, batch, function):
        super().__init__()
        self.batch, self.function = batch, function

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.batch:
            self.function()


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


def test_a_clip_of_the_optimizer_s_own():
    with pytest.raises(ValueError, match=r"optimizer's own clip.*Received: clipvalue=0.5"):
        fit(compiled(SGD(0.5, clipvalue=0.5)), GradientClipping())


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
