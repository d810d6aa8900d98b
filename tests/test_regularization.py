"""Ω against NumPy: the way back through each step by hand, and central differences over U."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow import slow_but

from kerasrnn import layers
from kerasrnn.cells import CELLS
from kerasrnn.diagnostics import gradient_flow
from kerasrnn.diagnostics.flow import left_as_it_was
from kerasrnn.recurrence import programs

BATCH, TIME, FEATURES, UNITS = 3, 6, 4, 5
LAMBDA = 0.7
REGULARIZED = {"vanishing_gradient_regularization": LAMBDA}
rng = np.random.default_rng(0)
X = rng.normal(size=(BATCH, TIME, FEATURES))
# J is the sum of the outputs with these weights; the first sample's last steps are not read.
C = rng.normal(size=(BATCH, TIME, UNITS))
C[0, -2:] = 0
MASK = np.array([[1, 1, 0, 1, 1, 1], [0, 1, 1, 1, 0, 0], [1] * TIME], bool)
RESET = np.array([[0, 0, 0, 1, 0, 0], [0] * TIME, [0, 0, 1, 0, 1, 0]], bool)


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


class Simple:
    def step(self, weights, x, states):
        w, u, b = weights
        (h,) = states
        h = np.tanh(x @ w + h @ u + b)
        return [h], h

    def back(self, u, g, kept):
        (g_h,) = g
        return [(g_h * (1 - kept**2)) @ u.T]


class LSTM:
    def step(self, weights, x, states):
        w, u, b = weights
        h, c = states
        i, f, z, o = np.split(x @ w + h @ u + b, 4, axis=1)
        i, f, z, o = sigmoid(i), sigmoid(f), np.tanh(z), sigmoid(o)
        new_c = f * c + i * z
        return [o * np.tanh(new_c), new_c], (i, f, z, o, c, np.tanh(new_c))

    def back(self, u, g, kept):
        (g_h, g_c), (i, f, z, o, c, tanh_c) = g, kept
        g_c = g_c + g_h * o * (1 - tanh_c**2)
        gates = [g_c * z * i * (1 - i), g_c * c * f * (1 - f), g_c * i * (1 - z**2)]
        return [np.hstack([*gates, g_h * tanh_c * o * (1 - o)]) @ u.T, g_c * f]


def norm(states):
    return np.sqrt(sum((s**2).sum(axis=1) for s in states))


def expected(twin, weights, x, mask, reset):
    """∂⁺Ω/∂U."""
    weights = [w.astype("float64") for w in weights]
    u = weights[1]
    zeros = [np.zeros((BATCH, UNITS))] * (2 if isinstance(twin, LSTM) else 1)
    states, kept = zeros, []
    for t in range(TIME):
        states = [np.where(reset[:, t, None], 0, s) for s in states]
        new, values = twin.step(weights, x[:, t], states)
        kept.append(values)
        states = [np.where(mask[:, t, None], n, s) for n, s in zip(new, states, strict=True)]

    g, arrives = [None] * TIME, [None] * TIME
    d = zeros
    for t in range(TIME)[::-1]:
        d = [d[0] + C[:, t] * mask[:, t, None], *d[1:]]
        g[t] = d
        arrives[t] = mask[:, t] & ~reset[:, t] & (norm(d) > 0)
        back = twin.back(u, d, kept[t])
        d = [np.where(mask[:, t, None], b, s) for b, s in zip(back, d, strict=True)]
        d = [np.where(reset[:, t, None], 0, s) for s in d]

    def omega(u):
        ratios = [
            (norm(twin.back(u, g[t], kept[t]))[arrives[t]] / norm(g[t])[arrives[t]] - 1) ** 2
            for t in range(TIME)
        ]
        return np.concatenate(ratios).sum() / BATCH

    slopes, eps = np.zeros_like(u), 1e-5
    for index in np.ndindex(*u.shape):
        step = np.zeros_like(u)
        step[index] = eps
        slopes[index] = (omega(u + step) - omega(u - step)) / (2 * eps)
    return slopes


def pair(kind, random_weights, **options):
    """The same layer without and with Ω."""
    nets = []
    for more in ({}, REGULARIZED):
        layer = layers.RNN(
            kind, units=UNITS, return_sequences=True, dtype="float64", **options, **more
        )
        layer.build((BATCH, TIME, FEATURES))
        nets.append(layer)
    random_weights(nets[0])
    nets[1].set_weights(nets[0].get_weights())
    return nets


def gradients(layer, x=X, c=C, mask=None, reset=None):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(c * layer(x, mask=mask, reset=reset, training=True))
    return tape.gradient(loss, [x, *layer.trainable_variables])


@pytest.mark.parametrize("how", ["eager", "graph", "unrolled"])
@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("twin", [Simple(), LSTM()], ids=["simple_rnn", "lstm"])
def test_the_gradient_against_numpy(twin, marked, how, random_weights):
    kind = "lstm" if isinstance(twin, LSTM) else "simple_rnn"
    plain, regularized = pair(kind, random_weights, unroll=how == "unrolled")
    every = np.ones((BATCH, TIME), bool)
    marks = {"mask": MASK, "reset": RESET} if marked else {}
    # Where the mask skips a step, its output is that of the step before.
    c = C * MASK[:, :, None] if marked else C
    run = tf.function(gradients, autograph=False) if how == "graph" else gradients
    x, w, u, b = gradients(plain, c=c, **marks)
    actual = run(regularized, c=c, **marks)
    marks = marks or {"mask": every, "reset": ~every}
    more = expected(twin, plain.get_weights(), X, **marks)
    assert np.abs(more).max() > 0.01
    np.testing.assert_allclose(actual[2] - u, LAMBDA * more, rtol=1e-6, atol=1e-8)
    for one, other in zip((x, w, b), (*actual[:2], actual[3]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_backwards(random_weights):
    plain, regularized = pair("simple_rnn", random_weights, go_backwards=True)
    more = gradients(regularized)[2] - gradients(plain)[2]
    every = np.ones((BATCH, TIME), bool)
    np.testing.assert_allclose(
        more,
        LAMBDA * expected(Simple(), plain.get_weights(), X[:, ::-1], every, ~every),
        rtol=1e-6,
        atol=1e-8,
    )


@pytest.mark.parametrize("kind", slow_but(["lstm", "gru", "rhn", "slstm"], CELLS))
def test_every_cell(kind, random_weights):
    """All that Ω changes is the gradient of the recurrent kernel, in a graph as without one."""
    if "vanishing_gradient_regularization" in CELLS[kind].lacks:
        with pytest.raises(ValueError, match=f"{CELLS[kind].__name__} has no `vanishing_grad"):
            layers.RNN(kind, units=UNITS, **REGULARIZED)
        return
    options = {"recurrent_dropout": 0.5, "zoneout": {"h": 0.2}, "seed": 1}
    plain, regularized = pair(kind, random_weights, **options)
    before = gradients(plain, X[:, :3], C[:, :3])
    run = tf.function(gradients, autograph=False)
    # With the same noise, which goes on from run to run.
    with left_as_it_was(regularized):
        after = gradients(regularized, X[:, :3], C[:, :3])
    for one, other in zip(run(regularized, X[:, :3], C[:, :3]), after, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    assert np.isfinite(after[2]).all()
    assert np.abs(after[2] - before[2]).max() > 0.01
    for i in {*range(len(before))} - {2}:
        np.testing.assert_allclose(after[i], before[i], rtol=1e-9, atol=1e-12)


def test_a_gru_trains_with_it():
    """Its recurrent bias, which a step reads by the side of U, in the graph of a `fit`."""
    trained = []
    for eagerly in (True, False):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([layers.GRU(UNITS, return_sequences=True, **REGULARIZED)])
        model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=eagerly, jit_compile=False)
        model.fit(X, C, epochs=2, verbose=0)
        trained.append(model.get_weights())
    for one, other in zip(*trained, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_no_matter_how_small_a_gradient_is(random_weights):
    """Of which the square is none in float32."""
    layer = layers.SimpleRNN(UNITS, return_sequences=True, **REGULARIZED)
    layer.build(X.shape)
    random_weights(layer)
    small = gradients(layer, X.astype("float32"), 1e-30 * C.astype("float32"))[2]
    every = np.ones((BATCH, TIME), bool)
    more = LAMBDA * expected(Simple(), layer.get_weights(), X, every, ~every)
    np.testing.assert_allclose(small, more, rtol=1e-3, atol=1e-5)


def test_nothing_to_carry_back(random_weights):
    _, layer = pair("simple_rnn", random_weights)
    assert not any(np.any(g) for g in gradients(layer, c=0 * C))
    w, u, b = layer.get_weights()
    layer.set_weights([w, 0 * u, b])
    assert all(np.isfinite(g).all() for g in gradients(layer))


def net(units=8, **options):
    keras.utils.set_random_seed(1)
    orthogonal = keras.initializers.Orthogonal(0.4)
    layer = layers.SimpleRNN(units, recurrent_initializer=orthogonal, name="rnn", **options)
    model = keras.Sequential([keras.Input((16, 3)), layer, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05, global_clipnorm=1.0), "mse")
    return model


def test_it_lengthens_the_half_life():
    x, y = rng.normal(size=(16, 16, 3)), rng.normal(size=(16, 1))
    half_lives = []
    for options in ({}, REGULARIZED):
        model = net(**options)
        half_lives.append(gradient_flow(model, x, y).half_life["rnn"])
        model.fit(np.tile(x, (60, 1, 1)), np.tile(y, (60, 1)), 16, shuffle=False, verbose=0)
        half_lives.append(gradient_flow(model, x, y).half_life["rnn"])
    before, without, same, regularized = half_lives
    assert before == same
    assert regularized > 3 * max(before, without)


def test_only_training_with_it_leaves_the_fast_path(monkeypatch):
    runs, original = [], programs.run
    monkeypatch.setattr(programs, "run", lambda p: runs.append(1) or original(p))
    x, y = rng.normal(size=(2, 16, 3)), rng.normal(size=(2, 1))
    fast = {}
    for weight in (0.0, LAMBDA):
        model = net(128, vanishing_gradient_regularization=weight)
        for task, data in {"train": (x, y), "test": (x, y), "predict": (x,)}.items():
            runs.clear()
            getattr(model, f"{task}_on_batch")(*data)
            fast[weight, task] = bool(runs)
    assert [key for key, ran in fast.items() if not ran] == [(LAMBDA, "train")]


def test_replicas_share_one_penalty(on_two_devices):
    """Their gradients are summed."""
    printed = on_two_devices(
        """
        import test_regularization as t
        layer = t.layers.SimpleRNN(t.UNITS, return_sequences=True, dtype="float64", **t.REGULARIZED)
        with strategy.scope():
            layer.build(t.X.shape)
        one = t.gradients(layer)[2]
        of_two = strategy.experimental_local_results(strategy.run(lambda: t.gradients(layer)[2]))
        layer.cell.vanishing_gradient_regularization = 0.0
        plain = t.gradients(layer)[2]
        print(*(np.abs(of_one - (one + plain) / 2).max() < 1e-12 for of_one in of_two))
        print(np.abs(one - plain).max() > 0.01)
        """
    )
    assert printed.split()[-3:] == ["True"] * 3


@pytest.mark.parametrize("scaling", ["wrapped", "factor"])
def test_a_scaled_loss_leaves_it_as_it_is(scaling):
    """The optimizer divides all gradients by the scale, this one too."""

    def trained(optimizer, **options):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([layers.SimpleRNN(UNITS, return_sequences=True, **options)])
        model.compile(optimizer, "mse", jit_compile=False)
        model.fit(X, C, epochs=2, verbose=0)
        return model.get_weights()[1]

    sgd = keras.optimizers.SGD
    if scaling == "wrapped":
        optimizer = keras.optimizers.LossScaleOptimizer(sgd(0.1), initial_scale=256.0)
    else:
        optimizer = sgd(0.1, loss_scale_factor=256.0)
    scaled, unscaled = trained(optimizer, **REGULARIZED), trained(sgd(0.1), **REGULARIZED)
    np.testing.assert_allclose(scaled, unscaled, atol=1e-6)
    assert np.abs(unscaled - trained(sgd(0.1))).max() > 1e-3


def test_it_is_kept_in_the_configuration():
    for layer in (
        layers.GRU(3, **REGULARIZED),
        layers.RNNStack("lstm", 3, 2, **REGULARIZED),
        layers.RNN(CELLS["mgu"](3, **REGULARIZED)),
    ):
        again = type(layer).from_config(layer.get_config())
        again.build((None, None, 3))
        rnns = [r for r in again._flatten_layers() if isinstance(r, layers.RNN)]
        assert {r.cell.vanishing_gradient_regularization for r in rnns} == {LAMBDA}


def test_errors():
    for weight in (-1.0, np.inf, np.nan, "much"):
        with pytest.raises(ValueError, match="finite number, 0 or more"):
            layers.SimpleRNN(3, vanishing_gradient_regularization=weight)
    with pytest.raises(ValueError, match="take bfloat16"):
        layers.GRU(3, dtype="mixed_float16", **REGULARIZED)
    layer = keras.layers.RNN(CELLS["gru"](3, **REGULARIZED))
    layer(X)
    with pytest.raises(ValueError, match="needs a layer of this package"):
        layer(X, training=True)
