"""What every cell can be asked for: zoneout, dropout of the candidate, learned initial states, and
states that are set back where an episode begins."""

import json

import keras
import numpy as np
import pytest
import twins
from any_backend import compiled, gradients, outputs_and_gradients
from keras import ops
from slow import slow_but

from kerasrnn import cells, layers
from kerasrnn.backends import tf

X = np.random.default_rng(1).normal(size=(3, 6, 4)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [1, 0, 1, 1, 1, 0]], bool)
# An episode may begin anywhere, at a masked step too.
RESET = np.array([[0, 0, 1, 0, 0, 1], [1, 0, 0, 1, 1, 0], [0, 1, 0, 0, 0, 0]], bool)


def by_hand(weights, x, states, zones):
    """An LSTM with zoneout: Krueger et al. (2017), in which h_t sees the c_t before zoneout."""
    outputs = []
    for t in range(x.shape[1]):
        new = twins.lstm(weights, x[:, t], states)
        states = [
            z[:, t] * s + (1 - z[:, t]) * n for z, s, n in zip(zones, states, new, strict=True)
        ]
        outputs.append(states[0])
    return np.stack(outputs, axis=1)


@pytest.fixture
def lstm(random_weights):
    def lstm(**options):
        layer = layers.LSTM(5, return_sequences=True, dtype="float64", **options)
        layer.build(X.shape)
        random_weights(layer)
        return layer

    return lstm


ZEROS = [np.zeros((3, 5))] * 2


@pytest.mark.parametrize("unroll", [False, True])
def test_zoneout_keeps_what_its_masks_say(unroll, lstm, rng, monkeypatch):
    layer = lstm(zoneout={"h": 0.3, "c": 0.6}, unroll=unroll)
    zones = {name: rng.integers(0, 2, (3, 6, 5)).astype("float64") for name in "hc"}
    monkeypatch.setattr(type(layer.cell), "noise", lambda *_: cells.base.Noise(zones=zones))
    expected = by_hand(layer.get_weights(), X, ZEROS, zones.values())
    np.testing.assert_allclose(layer(X, training=True), expected, rtol=1e-12)
    turned = by_hand(layer.get_weights(), X[:, ::-1], ZEROS, [z[:, ::-1] for z in zones.values()])
    layer.go_backwards = True
    np.testing.assert_allclose(layer(X, training=True), turned, rtol=1e-12)


def test_zoneout_of_one_state(lstm, rng):
    layer = lstm(zoneout={"c": 0.6})
    noise = layer.cell.noise(ops.ones((3, 6, 4)), [ops.ones((3, 5))] * 2, training=True)
    assert noise.zones.keys() == {"c"}
    zones = [np.zeros((3, 6, 5)), np.full((3, 6, 5), 0.6)]
    expected = by_hand(layer.get_weights(), X, ZEROS, zones)
    np.testing.assert_allclose(layer(X), expected, rtol=1e-12)


def complex_unit(weights, x, states):
    """The twin of the LRU, with one complex state."""
    (h,) = states
    output, (re, im) = twins.lru(weights, x, (h.real, h.imag))
    return twins.Shown(output, (re + 1j * im,))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize(("name", "twin"), [("mingru", twins.mingru), ("lru", complex_unit)])
def test_zoneout_of_a_linear_recurrence(
    name, twin, go_backwards, training, rng, random_weights, monkeypatch, take_path
):
    """All steps at once, and both parts of a complex state kept together."""
    layer = layers.RNN(name, units=5, return_sequences=True, dtype="float64", zoneout=0.3)
    layer.build(X.shape)
    random_weights(layer)
    layer.go_backwards = go_backwards
    states = [ops.zeros((3, 5), "float64")]
    drawn = np.array(layer.cell.noise(ops.convert_to_tensor(X), states, training=True).zones["h"])
    assert 0.1 < drawn.mean() < 0.5
    noise = cells.base.Noise(zones={"h": drawn} if training else None)
    monkeypatch.setattr(type(layer.cell), "noise", lambda *_: noise)
    if tf:
        take_path("scan")
    y = layer(X, training=training)

    z = drawn if training else np.full((3, 6, 5), 0.3)
    h, expected = np.zeros((3, 5)), []
    weights = layer.get_weights()
    for t in reversed(range(6)) if go_backwards else range(6):
        new = twins.output_and_states(twin(weights, X[:, t].astype("float64"), (h,))).states[0]
        h = z[:, t] * h + (1 - z[:, t]) * new
        expected.append(h)
    if name == "lru":
        x = X[:, ::-1] if go_backwards else X
        (_, _, D), C = np.split(weights[0], 3, axis=1), weights[4] + 1j * weights[5]
        expected = [(h @ C).real + x[:, t] @ D for t, h in enumerate(expected)]
    np.testing.assert_allclose(y, np.stack(expected, axis=1), rtol=1e-10, atol=1e-12)


DROPPING = {
    "lstm": lambda: layers.LSTM(4, dropout=0.5, recurrent_dropout=0.5, zoneout=0.2, seed=1),
    "Keras": lambda: layers.RNN(
        [keras.layers.LSTMCell(4, dropout=0.5, recurrent_dropout=0.5, seed=n) for n in (1, 2)]
    ),
    "stack": lambda: layers.RNNStack("mingru", 4, 2, bidirectional=True, dropout=0.5, seed=1),
}


@pytest.mark.parametrize("kind", DROPPING)
def test_inference_draws_nothing(kind):
    """So that neither validation nor a prediction changes what training draws."""
    losses = []
    for validates in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((6, 4)), DROPPING[kind](), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        validation = (X, X[:, 0, :1]) if validates else None
        fit = {"epochs": 2, "validation_data": validation, "shuffle": False, "verbose": 0}
        if validates:
            model.predict(X, verbose=0)
            model(X)
        losses.append(model.fit(X, X[:, 0, :1], **fit).history["loss"])
    np.testing.assert_array_equal(*losses)


def test_zoneout_draws_per_step_and_unit_at_its_rate():
    cell = cells.LSTMCell(50, zoneout={"h": 0.1, "c": 0.5})
    noise = cell.noise(ops.ones((20, 30, 4)), [ops.ones((20, 50))] * 2, training=True)
    for name, rate in cell.zoneout.items():
        z = np.array(noise.zones[name])
        assert z.shape == (20, 30, 50)
        assert set(np.unique(z)) == {0.0, 1.0}
        # Within five standard deviations, over all axes and over each of them.
        for axis in range(3):
            means = z.mean(axis=axis)
            count = z.shape[axis]
            assert np.abs(means - rate).max() < 5 * np.sqrt(rate * (1 - rate) / count)
        assert z.mean() == pytest.approx(rate, abs=0.02)
    assert not np.array_equal(noise.zones["h"], noise.zones["c"])


def test_without_training_zoneout_is_its_expectation():
    """For a cell whose new state does not depend on the old one."""

    class Constant(cells.Cell):
        gates = ("h",)

        def step(self, x, states, product):
            return (x + 0 * product("h", states[0]),)

    cell = Constant(1, zoneout=0.3, use_bias=False, kernel_initializer="ones")
    cell.build((None, 1))
    x, h = np.full((40_000, 1), 5.0, "float32"), np.full((40_000, 1), 1.0, "float32")
    drawn = np.array(cell(x, [h], training=True)[0])
    assert set(np.unique(drawn)) == {1.0, 5.0}
    np.testing.assert_allclose(cell(x, [h])[0], 0.3 * h + 0.7 * x, rtol=1e-6)
    np.testing.assert_allclose(drawn.mean(), 0.3 + 0.7 * 5, rtol=0.01)


@pytest.mark.parametrize("name", ["lstm", "gru", "mingru"])
def test_dropout_of_the_candidate(name, rng, random_weights, monkeypatch):
    """Semeniuta et al. (2016), equations 6 (of an LSTM's candidate) and 10 (of a GRU's)."""
    cell = cells.get(name)(5, recurrent_dropout=0.5, recurrent_dropout_form="candidate")
    layer = layers.RNN(cell, return_sequences=True, dtype="float64")
    layer.build(X.shape)
    random_weights(layer)
    mask = rng.integers(0, 2, (3, 5)) * 2.0
    noise = cells.base.Noise(candidate=ops.convert_to_tensor(mask, "float32"))
    monkeypatch.setattr(type(cell), "noise", lambda *_: noise)

    def dropped(weights, x, states):
        sigmoid, gates = twins.sigmoid, twins.gates
        h = states[0]
        if name == "lstm":
            c = states[1]
            W, U, b = weights
            i, f, g, o = gates(x @ W + h @ U + b, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g) * mask
            return sigmoid(o) * np.tanh(c), c
        if name == "gru":
            W, U, (b, b2) = weights
            (xz, xr, xg), (hz, hr, hg) = gates(x @ W + b, 3), gates(h @ U + b2, 3)
            z, r = sigmoid(xz + hz), sigmoid(xr + hr)
            return (z * h + (1 - z) * mask * np.tanh(xg + r * hg),)
        W, b = weights
        z, g = gates(x @ W + b, 2)
        return ((1 - sigmoid(z)) * h + sigmoid(z) * mask * g,)

    zeros = [np.zeros((3, 5))] * len(cell.states)
    expected, _ = twins.run(dropped, layer.get_weights(), X, zeros)
    np.testing.assert_allclose(layer(X, training=True), expected, rtol=1e-4, atol=1e-5)


def test_the_candidate_s_mask_is_one_for_all_steps_and_keeps_the_mean():
    cell = cells.LSTMCell(200, recurrent_dropout=0.25, recurrent_dropout_form="candidate")
    noise = cell.noise(ops.ones((50, 7, 4)), [ops.ones((50, 200))] * 2, training=True)
    assert noise.products == (None,)
    assert noise.candidate.shape == (50, 200)
    np.testing.assert_allclose(np.unique(noise.candidate), [0, 4 / 3], rtol=1e-6)
    assert np.mean(np.array(noise.candidate)) == pytest.approx(1, abs=0.05)
    noise = cell.noise(ops.ones((5, 7, 4)), [ops.ones((5, 200))] * 2, training=False)
    assert noise.candidate is None


LEARNED = {
    "layer": lambda: layers.LSTM(5, initial_state="learned"),
    "name": lambda: layers.RNN("mgu", units=5, initial_state="learned"),
    "complex": lambda: layers.LRU(5, initial_state="learned"),
    "Keras": lambda: keras.layers.RNN(cells.GRUCell(5, initial_state="learned")),
    "list": lambda: layers.RNN(
        [cells.GRUCell(5, initial_state="learned"), cells.LSTMCell(5, initial_state="learned")]
    ),
    "Bidirectional": lambda: layers.Bidirectional(layers.GRU(5, initial_state="learned")),
    "RNNStack": lambda: layers.RNNStack("lstm", 5, 2, initial_state="learned"),
}


@pytest.mark.parametrize("kind", LEARNED)
def test_learned_initial_states(kind, rng, random_weights):
    layer = LEARNED[kind]()
    layer.build(X.shape)
    learned = [w for w in layer.trainable_weights if w.name.startswith("initial_")]
    assert learned
    assert not any(w.numpy().any() for w in learned)
    before = layer(X)
    random_weights(layer)
    after = layer(X)
    assert not np.allclose(before, after)
    _, found = gradients(lambda: (None, ops.sum(ops.sin(layer(X)))), [], learned)
    for weight, gradient in zip(learned, found, strict=True):
        value, direction = weight.numpy(), rng.normal(size=5)
        losses = []
        for shift in (1e-2, -1e-2):
            weight.assign(value + shift * direction)
            losses.append(np.sin(np.array(layer(X))).sum())
        weight.assign(value)
        slope = (losses[0] - losses[1]) / 2e-2
        np.testing.assert_allclose(np.dot(gradient, direction), slope, atol=2e-3)


def test_a_learned_state_is_that_passed_in(lstm):
    layer = lstm(initial_state="learned")
    *weights, h, c = layer.get_weights()
    plain = lstm()
    plain.set_weights(weights)
    states = [np.tile(state, (3, 1)) for state in (h, c)]
    np.testing.assert_allclose(layer(X), plain(X, initial_state=states), rtol=1e-12)
    np.testing.assert_allclose(layer(X, initial_state=ZEROS), plain(X), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "learned"), [("slstm", {"h"}), ("sru", {"c"}), ("lstm", {"h", "c"})]
)
def test_which_states_are_learned(name, learned):
    """No sLSTM's normalizer, which has to stay above 0; no state that a step does not look at."""
    cell = cells.get(name)(3, initial_state="learned")
    cell.build((None, 2))
    names = {w.name for w in cell.trainable_weights if w.name.startswith("initial_")}
    assert names == {f"initial_{state}" for state in learned}


def test_the_layers_of_a_stack_draw_for_themselves():
    normal = keras.initializers.RandomNormal()
    stack = layers.RNNStack("gru", 4, 2, kernel_initializer=normal, seed=3, dropout=0.5)
    stack.build((None, None, 4))
    first, second = (layer.cell for layer in stack.layers)
    assert not np.allclose(first.kernel, second.kernel)
    assert (first.seed, second.seed) == (3, 4)


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", [layers.GRU, layers.MinGRU])
@pytest.mark.parametrize("steps", [3, 7])
def test_a_reset_of_a_length_seen_only_in_the_running_graph(kind, steps):
    layer = kind(4)
    signature = [tf.TensorSpec((None, None, 3)), tf.TensorSpec((None, None), tf.bool)]
    call = tf.function(lambda x, reset: layer(x, reset=reset), input_signature=signature)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"[Ii]ncompatible shapes"):
        call(ops.ones((4, 5, 3)), ops.zeros((4, steps), tf.bool))


@pytest.mark.parametrize("rows", [3, 1])
def test_a_stateful_layer_starts_from_what_was_learned(rows, random_weights):
    """Which is not overwritten by the states that follow."""
    layer = layers.GRU(5, stateful=True, initial_state="learned")
    layer.build((rows, 6, 4))
    random_weights(layer)
    layer.reset_state()
    learned = layer.get_weights()[-1].copy()
    np.testing.assert_array_equal(layer.states[0], np.tile(learned, (rows, 1)))
    layer(X[:rows])
    assert not np.allclose(layer.states[0], np.tile(learned, (rows, 1)))
    np.testing.assert_array_equal(layer.get_weights()[-1], learned)


def test_a_reset_trains_what_a_stateful_layer_starts_from(random_weights):
    """The states it keeps from the batch before are numbers, which no gradient goes through."""
    layer = layers.GRU(5, stateful=True, initial_state="learned")
    layer.build(X.shape)
    random_weights(layer)
    plain = layers.GRU(5, initial_state="learned")
    plain.build(X.shape)
    plain.set_weights(layer.get_weights())
    first = np.zeros(X.shape[:2], bool)
    first[:, 0] = True

    def gradient(layer, **call):
        learned = [layer.cell.initial_states["h"]]
        kept = layer.states or ()
        _, (of,) = gradients(lambda: (None, ops.sum(layer(X, **call))), [], learned, kept)
        return np.array(of)

    assert not gradient(layer).any()
    np.testing.assert_allclose(gradient(layer, reset=first), gradient(plain), rtol=1e-4)


def episodes(layer, x, reset, mask=None):
    """The outputs of one row, each episode run by itself."""
    starts = sorted({0, *np.flatnonzero(reset)})
    outputs = []
    for start, stop in zip(starts, [*starts[1:], len(x)], strict=True):
        part = None if mask is None else mask[None, start:stop]
        outputs.append(np.array(layer(x[None, start:stop], mask=part))[0])
    return np.concatenate(outputs[::-1] if layer.go_backwards else outputs)


RESETTING = {
    "lstm": lambda **o: layers.LSTM(5, return_sequences=True, **o),
    "learned": lambda **o: layers.GRU(5, return_sequences=True, initial_state="learned", **o),
    "output": lambda **o: layers.RNN("qrnn", units=5, return_sequences=True, **o),
    "Keras": lambda **o: layers.RNN(keras.layers.LSTMCell(5), return_sequences=True, **o),
    "unroll": lambda **o: layers.LSTM(5, return_sequences=True, unroll=True, **o),
    "list": lambda **o: layers.RNN(
        [cells.GRUCell(5), cells.LSTMCell(3)], return_sequences=True, **o
    ),
}


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("kind", RESETTING)
def test_episodes_are_run_apart(kind, go_backwards, random_weights):
    layer = RESETTING[kind](go_backwards=go_backwards)
    layer.build(X.shape)
    random_weights(layer)
    expected = [episodes(layer, x, r) for x, r in zip(X, RESET, strict=True)]
    np.testing.assert_allclose(layer(X, reset=RESET), expected, rtol=1e-5, atol=1e-6)
    graph = compiled(lambda: layer(X, reset=RESET))()
    np.testing.assert_allclose(graph, expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(layer(X), expected, atol=1e-3)


@pytest.mark.parametrize("go_backwards", [False, True])
def test_masked_steps_of_episodes(go_backwards, random_weights):
    layer = layers.GRU(5, return_sequences=True, zero_output_for_mask=True)
    layer.build((None, None, 4))
    random_weights(layer)
    layer.go_backwards = go_backwards
    rows = zip(X, RESET, MASK, strict=True)
    expected = [episodes(layer, *row) for row in rows]
    actual = layer(X, reset=RESET, mask=ops.convert_to_tensor(MASK))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_episodes_in_both_directions(random_weights):
    layer = layers.Bidirectional(layers.LSTM(5, return_sequences=True))
    layer.build(X.shape)
    random_weights(layer)
    expected = np.concatenate(
        [
            [episodes(layer.forward_layer, x, r) for x, r in zip(X, RESET, strict=True)],
            [episodes(layer.backward_layer, x, r)[::-1] for x, r in zip(X, RESET, strict=True)],
        ],
        axis=-1,
    )
    np.testing.assert_allclose(layer(X, reset=RESET), expected, rtol=1e-5, atol=1e-6)


def test_a_state_passed_in_lives_until_the_first_reset(random_weights):
    layer = layers.GRU(5, return_sequences=True)
    layer.build(X.shape)
    random_weights(layer)
    state = np.ones((3, 5), "float32")
    one = np.zeros((3, 6), bool)
    one[:, 2] = True
    y = layer(X, initial_state=[state], reset=one)
    np.testing.assert_allclose(y[:, :2], layer(X, initial_state=[state])[:, :2], rtol=1e-5)
    np.testing.assert_allclose(y[:, 2:], layer(X[:, 2:]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["lstm", "unroll", "output", "list"])
def test_backwards_a_state_passed_in_lives_until_the_episode_of_the_last_step_begins(
    kind, random_weights
):
    """An episode that begins at the first step is not followed by another one."""
    layer = RESETTING[kind](go_backwards=True)
    layer.build(X.shape)
    random_weights(layer)
    states = keras.tree.map_structure(np.ones_like, layer.get_initial_state(3))
    reset = np.zeros((3, 6), bool)
    reset[:, [0, 2]] = True
    y = layer(X, states, reset=reset)
    np.testing.assert_allclose(y[:, :4], layer(X, states)[:, :4], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y[:, 4:], layer(X[:, :2]), rtol=1e-5, atol=1e-6)
    only_first = np.arange(6) == np.zeros((3, 1))
    # Under PyTorch a reset takes another path, which rounds otherwise.
    y = layer(X, states, reset=only_first)
    np.testing.assert_allclose(y, layer(X, states), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in cells.CELLS if cells.get(name)(1).linear])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nothing_passes_a_reset_not_even_a_nan(name, value, random_weights):
    """Nor an Inf, from before it in the sequence or in the initial state."""
    layer = layers.RNN(name, units=5, return_sequences=True)
    layer.build(X.shape)
    random_weights(layer)
    x, reset = X.copy(), np.zeros((3, 6), bool)
    x[:, 1], reset[:, 3] = value, True
    y = layer(x, reset=reset)
    np.testing.assert_allclose(y[:, 3:], layer(X[:, 3:]), rtol=1e-5, atol=1e-6)
    states = [np.full((3, 5), value)] * len(layer.cell.states)
    reset = np.arange(6) == np.zeros((3, 1))
    np.testing.assert_allclose(layer(X, states, reset=reset), layer(X), rtol=1e-5, atol=1e-6)


def test_no_gradient_passes_a_reset(random_weights):
    layer = layers.LSTM(5)
    layer.build(X.shape)
    random_weights(layer)
    _, (gradient,) = gradients(
        lambda x: (None, ops.sum(layer(x, reset=RESET))), [ops.convert_to_tensor(X)]
    )
    gradient = np.abs(np.array(gradient)).max(axis=-1)
    first = [5, 4, 1]
    np.testing.assert_array_equal(gradient > 0, np.arange(6) >= np.array(first)[:, None])


@pytest.mark.parametrize("shape", [(3,), (3, 5), (2, 6), (3, 6, 1)])
def test_a_reset_of_another_shape(shape):
    for layer in (layers.LSTM(5), layers.Bidirectional(layers.LSTM(5))):
        with pytest.raises(
            ValueError, match=r"`reset` must have the shape \(batch, time\).*\(3, 6\)"
        ):
            layer(X, reset=np.zeros(shape, bool))


@pytest.mark.parametrize("dtype", ["int32", "float32", "uint8"])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.LSTM(5),
        lambda: layers.RNN([cells.GRUCell(5)]),
        lambda: layers.Bidirectional(layers.GRU(5)),
        lambda: layers.Bidirectional(layers.Residual(layers.GRU(4, return_sequences=True))),
        lambda: layers.RNNStack("gru", 5, 2, go_backwards=True),
    ],
    ids=["layer", "list", "Bidirectional", "connection", "stack"],
)
def test_a_reset_that_is_not_boolean(layer, dtype):
    with pytest.raises(ValueError, match=rf"`reset` must be boolean.*reset.dtype={dtype}"):
        layer()(X, reset=RESET.astype(dtype))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.RNNStack("gru", 4, 2, go_backwards=True),
        lambda: layers.Bidirectional(layers.RNNStack("gru", 4, 2)),
        lambda: layers.Residual(keras.layers.Dense(4)),
    ],
    ids=["backward", "Bidirectional", "no states"],
)
def test_a_reset_of_another_shape_for_a_connection(layer):
    with pytest.raises(ValueError, match=r"`reset` must have the shape .*reset.shape=\(2,\)"):
        layer()(X, reset=np.zeros(2, bool))


def test_a_reset_for_a_layer_of_keras():
    layer = layers.Bidirectional(keras.layers.LSTM(5))
    with pytest.raises(ValueError, match=r"`reset` reaches layers of this package.* \(LSTM\)"):
        layer(X, reset=RESET)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("gru", {"zoneout": {"c": 0.1}}, r"`zoneout` of GRUCell can act on the states h\..*'c'"),
        ("lstm", {"zoneout": {"h": 1.0}}, r"`zoneout` must lie in \[0, 1\).*zoneout=1.0"),
        ("lstm", {"zoneout": None}, r"`zoneout` must lie in \[0, 1\).*zoneout=None"),
        ("slstm", {"zoneout": {"n": 0.1}}, r"can act on the states h\..*'n'"),
        ("lru", {"zoneout": {"re": 0.1}}, r"`zoneout` of LRUCell can act on the states h\..*'re'"),
        ("lstm", {"normalization": "batch"}, r"must be None or 'layer'.*normalization='batch'"),
        ("lstm_layer_norm", {"normalization": None}, r"must be 'layer'\..*normalization=None"),
        ("gru_layer_norm", {"normalization": None}, r"must be 'layer'\..*normalization=None"),
        ("mingru", {"normalization": "layer"}, r"`normalization` needs a product with the state"),
        ("lstm", {"initial_state": "ones"}, r"must be 'zeros' or 'learned'.*initial_state='ones'"),
        ("lstm", {"recurrent_dropout_form": "g"}, r"must be 'state' or 'candidate'.*form='g'"),
        (
            "qrnn",
            {"recurrent_dropout": 0.1},
            r"needs a product.*take .*form='candidate'",
        ),
        ("indrnn", {"recurrent_dropout": 0.1}, r"`recurrent_dropout` needs a product"),
        (
            "simple_rnn",
            {"recurrent_dropout": 0.1, "recurrent_dropout_form": "candidate"},
            r"needs a candidate apart from the state",
        ),
        ("simple_rnn", {"recurrent_activation": "relu"}, r"SimpleRNNCell has no `recurrent_act"),
        ("nas", {"activation": "relu"}, r"^NASCell has no `activation`.*activation='relu'"),
        ("nas", {"activation": "linear"}, r"^NASCell has no `activation`.*activation='linear'"),
        ("nas", {"activation": "tanh"}, r"^NASCell has no `activation`.*activation='tanh'"),
        ("rg_lru", {"activation": "tanh"}, r"^RGLRUCell has no `activation`.*activation='tanh'"),
        ("qrnn", {"recurrent_initializer": "orthogonal"}, r"has no `recurrent_initializer`"),
        ("lru", {"activation": "tanh"}, r"^LRUCell has no `activation`.*activation='tanh'"),
        ("mingru", {"recurrent_initializer": "zeros"}, r"has no `recurrent_initializer`"),
        ("mingru", {"recurrent_initializer": "orthogonal"}, r"has no `recurrent_initializer`"),
        ("rhn", {"depth": 0}, r"`depth` must be a positive integer.*depth=0"),
        ("lru", {"r_min": 0.9, "r_max": 0.5}, r"`r_min` and `r_max`.*r_min=0.9, r_max=0.5"),
        ("lru", {"r_max": 1.5}, r"`r_min` and `r_max` must be.*<= 1\..*r_max=1.5"),
        ("lru", {"r_min": "0"}, r"`r_min` must be a finite number.*r_min='0'"),
        ("lru", {"r_max": None}, r"`r_max` must be a finite number.*r_max=None"),
        ("lru", {"max_phase": -1.0}, r"`max_phase` must lie in \(0, 2π\].*max_phase=-1.0"),
        ("lru", {"max_phase": 6.3}, r"`max_phase` must lie in \(0, 2π\].*max_phase=6.3"),
        ("lru", {"max_phase": "1"}, r"`max_phase` must lie in \(0, 2π\].*max_phase='1'"),
        ("janet", {"beta": "1"}, r"`beta` must be a finite number.*beta='1'"),
        ("janet", {"beta": float("nan")}, r"`beta` must be a finite number.*beta=nan"),
        ("gru", {"zonout": 0.1}, r"has no argument `zonout`; did you mean `zoneout`\?.*zonout=0.1"),
        ("mgu", {"dropot": 0.1}, r"has no argument `dropot`; did you mean `dropout`\?"),
        ("slstm", {"forget_gate": "tanh"}, r"'sigmoid' or 'exponential'.*forget_gate='tanh'"),
    ],
)
def test_what_a_cell_cannot_have(name, options, match):
    with pytest.raises(ValueError, match=match):
        cells.get(name)(3, **options)
    with pytest.raises(ValueError, match=match):
        layers.RNN(name, units=3, **options)


@pytest.mark.parametrize("value", [None, "linear"])
@pytest.mark.parametrize("name", ["lru", "rg_lru"])
def test_no_activation_is_the_identity(name, value):
    assert "activation" not in cells.get(name)(3, activation=value).get_config()


def test_a_cell_that_lacks_an_argument_needs_no_constructor():
    class Own(cells.Cell):
        gates = ("h",)
        lacks = ("recurrent_activation",)

    assert "recurrent_activation" not in Own(3, activation="relu").get_config()
    with pytest.raises(ValueError, match=r"^Own has no `recurrent_activation`"):
        Own(3, recurrent_activation="relu")


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.LSTM(4, zoneout={"h": 0.1, "c": 0.2}, initial_state="learned"),
        lambda: layers.GRU(4, normalization="layer", recurrent_dropout_form="candidate"),
        lambda: layers.RNN("rhn", units=4, depth=2, zoneout=0.1),
        lambda: layers.LRU(4, r_min=0.9),
        lambda: layers.MinGRU(4, activation="tanh"),
        lambda: layers.RNNStack("sru", 4, 2, peephole=False, initial_state="learned"),
        lambda: layers.RNNStack(
            "lstm", 4, 2, bias_initializer=keras.initializers.Constant(0.5), zoneout={"c": 0.1}
        ),
    ],
)
def test_options_survive_a_file(make, tmp_path, random_weights):
    layer = make()
    model = keras.Sequential([keras.Input((6, 4)), layer])
    random_weights(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    # As a file has them: without a difference between lists and tuples.
    mine, other = (json.dumps(one.get_config()) for one in (layer, loaded.layers[0]))
    assert other == mine
    np.testing.assert_array_equal(loaded(X), model(X))


@pytest.mark.parametrize("name", slow_but(["gru", "slstm", "sru", "mingru"], cells.CELLS))
def test_every_cell_trains_in_a_graph_with_a_mask(name, take_path):
    """Without the programs, which have tests of their own."""
    layer = layers.RNN(name, units=5, return_sequences=True, initial_state="learned")
    layer.build(X.shape)
    take_path(("scan" if layer.cell.linear else "loop") if tf else None)
    step = compiled(lambda x, mask: outputs_and_gradients(layer, x, mask=mask, training=True))
    y, found = step(*map(ops.convert_to_tensor, (X, MASK)))
    assert all(np.isfinite(np.array(g)).all() for g in found)
    y = np.array(y)
    for t in range(1, 6):
        skipped = ~MASK[:, t]
        np.testing.assert_array_equal(y[skipped, t], y[skipped, t - 1])


def test_normalized_states_do_not_depend_on_the_scale_of_the_kernels(random_weights):
    layer = layers.RNN("lstm_layer_norm", units=5)
    layer.build(X.shape)
    random_weights(layer)
    before = np.array(layer(X))
    W, U, *rest = layer.get_weights()
    layer.set_weights([100 * W, 100 * U, *rest])
    np.testing.assert_allclose(layer(X), before, atol=1e-3)
