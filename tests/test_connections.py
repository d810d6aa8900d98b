import keras
import numpy as np
import pytest
from any_backend import gradients
from keras import ops
from keras_masks import keras_hands_on
from slow import slow_but

from kerasrnn import layers
from kerasrnn.backends import tf
from kerasrnn.layers.connections import Normalized

RNG = np.random.default_rng(1)
X = RNG.normal(size=(3, 6, 4)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [1, 0, 1, 1, 1, 0]], bool)


@keras.saving.register_keras_serializable("test_connections")
class Untold(keras.layers.Layer):
    """Says nothing of the shape of its output, and leaves what is in it to its call to build."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.dense = units, keras.layers.Dense(units)

    def call(self, x):
        return ops.tanh(self.dense(x))

    def get_config(self):
        return super().get_config() | {"units": self.units}


INNER = {
    "ours": lambda: layers.LSTM(4, return_sequences=True),
    "keras": lambda: keras.layers.GRU(4, return_sequences=True),
    "bidirectional": lambda: layers.Bidirectional(layers.GRU(2, return_sequences=True)),
    "stack": lambda: layers.RNNStack("gru", 4, 2, return_sequences=True),
    "dense": lambda: keras.layers.Dense(4, "tanh"),
    "conv": lambda: keras.layers.Conv1D(4, 3, padding="same"),
    "model": lambda: keras.Sequential([keras.layers.Dense(7, "relu"), keras.layers.Dense(4)]),
    "untold": lambda: Untold(4),
}
RECURRENT = ["ours", "keras", "bidirectional", "stack"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def expected(layer, x, **options):
    """The connection's equation, in NumPy around the layers inside."""
    if isinstance(layer, layers.DenselyConnected):
        *inner, last = layer.layers
        for part in inner:
            x = np.concatenate([x, part(x, **options)], axis=-1)
        return np.array(last(x, **options))
    f = np.array(keras_hands_on(layer.layer)(x, **options))
    shortcut = x if layer.projection is None else x @ layer.projection.kernel.numpy()
    if isinstance(layer, layers.Residual):
        return shortcut + f
    t = sigmoid(x @ layer.gate.kernel.numpy() + layer.gate.bias.numpy())
    return t * f + (1 - t) * shortcut


def connect(kind, inner, **options):
    if kind is layers.DenselyConnected:
        return kind([keras.layers.Dense(2), inner(), inner()], **options)
    return kind(inner(), **options)


KINDS = [layers.Residual, layers.Highway, layers.DenselyConnected]
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("inner", INNER)
def test_is_its_equation(kind, inner, random_weights):
    layer = connect(kind, INNER[inner])
    layer(X)
    random_weights(layer)
    np.testing.assert_allclose(layer(X), expected(layer, X), rtol=1e-5, atol=1e-6)
    assert layer.compute_output_shape(X.shape) == layer(X).shape


@pytest.mark.parametrize("kind", [layers.Residual, layers.Highway])
def test_projects_where_asked(kind, random_weights):
    layer = kind(layers.GRU(5, return_sequences=True), project=True)
    layer.build(X.shape)
    random_weights(layer)
    np.testing.assert_allclose(layer(X), expected(layer, X), rtol=1e-5, atol=1e-6)
    assert layer.projection.kernel.shape == (4, 5)
    # Where the widths agree there is nothing to learn.
    same = kind(layers.GRU(4, return_sequences=True), project=True)
    same(X)
    assert same.projection is None


def test_a_layer_that_says_nothing_of_its_shape():
    layer = layers.Residual(Untold(5), project=True)
    assert layer(X).shape == (3, 6, 5)
    with pytest.raises(ValueError, match=r"project=True.*\(3, 6, 4\) into \(3, 6, 5\)"):
        layers.Residual(Untold(5))(X)


def test_attention_to_itself_is_a_model(random_weights):
    attention = keras.layers.MultiHeadAttention(2, 3, name="attend")
    with pytest.raises(ValueError, match=r"one input.*attend, which takes query, value"):
        layers.Residual(attention)
    a, b = (keras.Input((6, 4), name=name) for name in "ab")
    with pytest.raises(ValueError, match=r"one input.*two, which takes a, b"):
        layers.DenselyConnected([keras.Model([a, b], attention(a, b), name="two")])
    layer = layers.Residual(keras.Model(a, attention(a, a)))
    layer.build(X.shape)
    random_weights(layer)
    np.testing.assert_allclose(layer(X), X + np.array(attention(X, X)), rtol=1e-5, atol=1e-6)


def test_a_highway_carries_at_the_start():
    layer = layers.Highway(keras.layers.Dense(4), gate_bias=-4.0)
    layer(X[0])
    np.testing.assert_array_equal(layer.gate.bias, np.full(4, -4))
    assert layer.gate.kernel.shape == (4, 4)
    assert not any(layer.gate.kernel is w for w in layer.layer.weights)


@every_kind
@pytest.mark.parametrize("inner", RECURRENT)
def test_mask_reaches_the_layer_and_passes_on(kind, inner, random_weights):
    layer = connect(kind, INNER[inner])
    layer.build(X.shape)
    random_weights(layer)
    if kind is not layers.DenselyConnected:
        np.testing.assert_allclose(
            layer(X, mask=MASK), expected(layer, X, mask=MASK), rtol=1e-5, atol=1e-6
        )
    changed = np.where(MASK[..., None], X, 9.0).astype("float32")
    y, z = (np.array(layer(x, mask=MASK)) for x in (X, changed))
    np.testing.assert_allclose(y[MASK], z[MASK], rtol=1e-5, atol=1e-6)
    tokens = np.array([[3, 1, 0, 0], [2, 0, 0, 0]])
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(tokens)
    assert (np.array(layer(embedded)._keras_mask) == (tokens != 0)).all()


def test_training_reaches_the_layer():
    ones = np.ones((50, 4))
    layer = layers.Residual(keras.layers.Dropout(0.5))
    assert set(np.unique(layer(ones, training=True))) == {1.0, 3.0}
    assert (np.array(layer(ones, training=False)) == 2).all()
    dense = layers.DenselyConnected([keras.layers.Dropout(0.5), keras.layers.Dropout(0.5)])
    assert set(np.unique(dense(ones, training=True))) == {0.0, 2.0, 4.0}
    assert (np.array(dense(ones, training=False)) == 1).all()


def numpy_gru(layer, x, h):
    """The final state of a GRU (Cho et al., 2014; Keras's form with the reset after)."""
    kernel, recurrent, (b, c) = (w.numpy() for w in layer.weights)
    for t in range(x.shape[1]):
        z, r, g = np.split(x[:, t] @ kernel + b, 3, axis=-1)
        uz, ur, ug = np.split(h @ recurrent + c, 3, axis=-1)
        z, r = sigmoid(z + uz), sigmoid(r + ur)
        h = z * h + (1 - z) * np.tanh(g + r * ug)
    return h


@pytest.mark.parametrize("kind", [layers.Residual, layers.Highway])
def test_states_in_and_out(kind, random_weights):
    layer = kind(layers.GRU(4, return_sequences=True, return_state=True))
    layer.build(X.shape)
    random_weights(layer)
    h0 = RNG.normal(size=(3, 4)).astype("float32")
    y, h = layer(X, initial_state=[h0])
    np.testing.assert_allclose(h, numpy_gru(layer.layer, X, h0), rtol=1e-4, atol=1e-5)
    # The second half goes on where the first ended.
    first, h = layer(X[:, :2], initial_state=[h0])
    second, _ = layer(X[:, 2:], initial_state=h)
    np.testing.assert_allclose(np.concatenate([first, second], 1), y, rtol=1e-5, atol=1e-6)
    assert layer.compute_output_shape((3, 6, 4)) == ((3, 6, 4), (3, 4))


def test_a_dense_block_takes_its_states_layer_by_layer(random_weights):
    options = {"return_sequences": True, "return_state": True}
    inner = [layers.LSTM(2, **options), keras.layers.Dense(3), layers.GRU(5, **options)]
    block = layers.DenselyConnected([*inner, layers.LSTM(4, return_state=True)])
    block.build(X.shape)
    random_weights(block)
    y, *states = block(X)
    assert [s.shape[1] for s in states] == block.state_size == [2, 2, 5, 4, 4]
    assert [tuple(y.shape), *(tuple(s.shape) for s in states)] == list(
        block.compute_output_shape(X.shape)
    )
    *_, last = block(X, initial_state=states)
    lstm, _, gru, top = block.layers
    a, *_ = lstm(X, initial_state=states[:2])
    x = np.concatenate([X, a], -1)
    x = np.concatenate([x, block.layers[1](x)], -1)
    b, *_ = gru(x, initial_state=states[2:3])
    _, _, c = top(np.concatenate([x, b], -1), initial_state=states[3:])
    np.testing.assert_allclose(last, c, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"must hold its 5 states.*Received: 2 of them"):
        block(X, initial_state=states[:2])


def test_an_encoder_s_states_start_a_decoder(random_weights):
    def layer():
        return layers.Residual(layers.LSTM(4, return_sequences=True, return_state=True))

    a, b = keras.Input((6, 4)), keras.Input((None, 4))
    _, *states = layer()(a)
    y, *_ = layer()(b, initial_state=states)
    model = keras.Model([a, b], y)
    random_weights(model)
    one, two = (part for part in model.layers if isinstance(part, layers.Residual))
    _, *states = one.layer(X)
    z = X[:, :2]
    expected, *_ = two.layer(z, initial_state=states)
    np.testing.assert_allclose(model([X, z]), z + np.array(expected), rtol=1e-5, atol=1e-6)


def stacked(module, **options):
    cells = [module.LSTMCell(4), module.GRUCell(4)]
    return keras.layers.RNN(cells, return_sequences=True, **options)


STATEFUL = {
    "gru": lambda **options: layers.GRU(4, return_sequences=True, **options),
    "cells": lambda **options: stacked(keras.layers, **options),
    "model": lambda **options: keras.Sequential(
        [
            keras.Input((None, 4), batch_size=3),
            keras.layers.Dense(5),
            keras.layers.LSTM(3, return_sequences=True, **options),
            layers.Residual(layers.GRU(3, return_sequences=True, **options)),
            keras.layers.Dense(4),
        ]
    ),
}


@pytest.mark.parametrize("kind", [layers.Residual, layers.Highway])
@pytest.mark.parametrize("inner", STATEFUL)
def test_stateful(inner, kind, assert_stateful):
    layer = kind(STATEFUL[inner](stateful=True))
    assert layer.stateful
    assert not kind(STATEFUL[inner]()).stateful
    assert_stateful(layer, X)
    assert [state.shape[1] for state in layer.states] == {
        "gru": [4],
        "cells": [4, 4, 4],
        "model": [3, 3, 3],
    }[inner]


def test_states_of_stacked_cells_in_both_directions(random_weights):
    inner = layers.Bidirectional(stacked(keras.layers, return_state=True), "sum")
    layer = layers.Residual(inner)
    layer.build(X.shape)
    random_weights(layer)
    _, *states = layer(X)
    assert len(states) == 6
    again, *_ = layer(X, initial_state=states)
    (h, c, g), backward = states[:3], states[3:]
    backward = [backward[:2], backward[2]]
    inside, *_ = inner(X, initial_state=[[h, c], g, *backward])
    np.testing.assert_allclose(again, X + np.array(inside), rtol=1e-5, atol=1e-6)


def test_states_of_stacked_cells(random_weights):
    """In one list, in the order of the cells."""
    layer = layers.Residual(stacked(keras.layers, return_state=True))
    layer.build(X.shape)
    random_weights(layer)
    _, *expected = layer.layer(X)
    h, c, g = keras.tree.flatten(expected)
    y, *states = layer(X)
    for one, other in zip(states, (h, c, g), strict=True):
        np.testing.assert_array_equal(one, other)
    again, *_ = layer(X, initial_state=states)
    inside, *_ = layer.layer(X, initial_state=[[h, c], g])
    np.testing.assert_allclose(again, X + np.array(inside), rtol=1e-5, atol=1e-6)
    shapes = [tuple(part.shape) for part in (y, *states)]
    assert shapes == list(layer.compute_output_shape(X.shape))


@pytest.mark.parametrize("stateful", [False, True])
def test_states_with_axes_of_their_own(stateful, random_weights):
    options = {"padding": "same", "return_sequences": True, "return_state": True}
    layer = layers.Residual(keras.layers.ConvLSTM1D(4, 3, stateful=stateful, **options))
    x = RNG.normal(size=(3, 6, 5, 4)).astype("float32")
    layer.build(x.shape)
    random_weights(layer)
    y, *states = layer(x)
    assert [tuple(part.shape) for part in (y, *states)] == list(layer.compute_output_shape(x.shape))
    again, *_ = layer(x, initial_state=states)
    inside, *_ = layer.layer(x, initial_state=states)
    np.testing.assert_allclose(again, x + np.array(inside), rtol=1e-5, atol=1e-6)
    if stateful:
        layer.reset_state(rows=[2])
        after = np.array(layer(x)[0])
        np.testing.assert_allclose(after[2], y[2], rtol=1e-5, atol=1e-6)
        assert not np.allclose(after[0], y[0])


def test_a_reset_that_does_not_reach_all_states():
    """In a model no layer can be told; it is not passed over in silence, however deep."""
    inner = keras.Sequential([layers.GRU(4, return_sequences=True)], name="net")
    for layer in (layers.Residual(inner), layers.Residual(layers.Highway(inner))):
        with pytest.raises(ValueError, match=r"not inside a model.*for net .Sequential."):
            layer(X, reset=MASK)
    # What has no states needs none.
    dense = layers.Residual(keras.Sequential([keras.layers.Dense(4)]))
    np.testing.assert_array_equal(dense(X, reset=MASK), dense(X))


@pytest.mark.parametrize("wrapper", [layers.Bidirectional, keras.layers.Bidirectional])
@pytest.mark.parametrize("mask", [None, MASK])
@every_kind
def test_inside_bidirectional(kind, mask, wrapper, random_weights):
    """Backward, a connection is itself on the sequence turned around."""
    options = {"return_sequences": True, "return_state": True}
    both = keras_hands_on(wrapper(connect(kind, lambda: layers.LSTM(4, **options))))
    both.build(X.shape)
    random_weights(both)
    y, *states = both(X, mask=mask)
    flipped = None if mask is None else mask[:, ::-1]
    forward, *_ = both.forward_layer(X, mask=mask)
    straight = kind.from_config(both.backward_layer.get_config() | {"go_backwards": False})
    straight.build(X.shape)
    straight.set_weights(both.backward_layer.get_weights())
    backward, *back_states = straight(X[:, ::-1], mask=flipped)
    expected = np.concatenate([forward, np.array(backward)[:, ::-1]], -1)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(states[len(states) // 2 :], back_states, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
@every_kind
def test_precision(kind, policy):
    inner = lambda: layers.GRU(4, return_sequences=True, dtype=policy)  # noqa: E731
    layer = kind([inner(), inner()]) if kind is layers.DenselyConnected else kind(inner())
    policy = keras.dtype_policies.get(policy)
    assert ops.dtype(layer(X)) == policy.compute_dtype
    assert {w.dtype for w in layer.weights} == {policy.variable_dtype}


@every_kind
@pytest.mark.parametrize(
    "inner", slow_but(["ours", "model"], ["ours", "bidirectional", "conv", "model"])
)
def test_saved_and_loaded(kind, inner, random_weights, tmp_path):
    model = keras.Sequential([keras.Input((6, 4)), connect(kind, INNER[inner])])
    random_weights(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), model(X))
    if tf:
        model.export(str(tmp_path / "served"), verbose=False)
        artifact = tf.saved_model.load(str(tmp_path / "served"))
        np.testing.assert_allclose(artifact.serve(X), model(X), rtol=1e-5, atol=1e-6)


@every_kind
def test_the_gradient_is_that_of_finite_differences(kind, random_weights):
    layer = connect(kind, lambda: layers.GRU(3, return_sequences=True, dtype="float64"))
    if kind is layers.DenselyConnected:
        layer = kind([layers.GRU(3, return_sequences=True, dtype="float64") for _ in range(2)])
    x = ops.convert_to_tensor(RNG.normal(size=(2, 4, 3)))
    layer.build(x.shape)
    random_weights(layer)
    d = ops.convert_to_tensor(RNG.normal(size=x.shape))
    _, (gradient,) = gradients(lambda x: (None, ops.sum(ops.sin(layer(x)))), [x])
    slope = ops.sum(gradient * d)
    high, low = (ops.sum(ops.sin(layer(x + e * d))) for e in (1e-5, -1e-5))
    np.testing.assert_allclose(slope, (high - low) / 2e-5, rtol=1e-6)


@every_kind
def test_shapes_that_do_not_fit(kind):
    inner = layers.LSTM(4)
    others = [inner, keras.layers.Dense(4)]
    layer = kind(others) if kind is layers.DenselyConnected else kind(inner, project=True)
    with pytest.raises(ValueError, match=r"return_sequences=True.*\(3, 6, 4\) into \(3, 4\)"):
        layer(X)
    inner = keras.layers.Conv1D(4, 3)
    layer = kind([inner, keras.layers.Dense(4)]) if kind is layers.DenselyConnected else kind(inner)
    with pytest.raises(ValueError, match=r"padding='same'.*\(3, 6, 4\) into \(3, 4, 4\)"):
        layer(X)
    if kind is not layers.DenselyConnected:
        with pytest.raises(ValueError, match=r"project=True.*\(3, 6, 4\) into \(3, 6, 5\)"):
            kind(layers.LSTM(5, return_sequences=True))(X)
        two = layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode=None)
        with pytest.raises(ValueError, match=r"one output each.*layer=bidirectional"):
            kind(two)(X)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Residual("lstm"), "connects Keras layers.*layer='lstm'"),
        (lambda: layers.Residual(keras.layers.Dense(4), project=2), "`project` must be.*project=2"),
        (lambda: layers.Highway(keras.layers.Dense(4), gate_bias=1), "below 0.*gate_bias=1"),
        (lambda: layers.Highway(keras.layers.Dense(4), gate_bias=-np.inf), "finite.*bias=-inf"),
        (lambda: layers.DenselyConnected([]), r"list of one or more.*layers=\[\]"),
        (lambda: layers.DenselyConnected(keras.layers.Dense(4)), "list of one or more.*Dense"),
        (lambda: layers.DenselyConnected([keras.layers.Dense(4)] * 2), "different.*one of them tw"),
        (lambda: Normalized(keras.layers.Dense(4))(X[..., :1]), r"two features or more.*\(3, 6, 1"),
        (
            lambda: layers.Bidirectional(layers.Residual(keras.layers.Dense(4))),
            "must be a recurrent layer.*Residual",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@every_kind
def test_a_layer_that_turns_time_around_is_refused(kind):
    inner = layers.LSTM(4, return_sequences=True, go_backwards=True, name="lstm")
    with pytest.raises(ValueError, match=r"go_backwards=True.*layer=lstm"):
        kind([inner] if kind is layers.DenselyConnected else inner)


def test_states_where_there_are_none():
    with pytest.raises(ValueError, match=r"must hold its 0 states.*Received: 1"):
        layers.Residual(keras.layers.Dense(4))(X, initial_state=[X[:, 0]])


def test_no_warning_that_a_mask_is_lost_which_is_not(recwarn):
    masked = keras.layers.Masking()(X)
    y = layers.Highway(keras.layers.Conv1D(4, 3, padding="causal"))(masked)
    assert y._keras_mask is not None
    assert not [w for w in recwarn if "mask" in str(w.message)]


DEPTH = 50
DEEP = {
    "plain": lambda dense: dense,
    "residual": lambda dense: map(layers.Residual, dense),
    # Of 50 gates at -1 so little is carried as of 50 plain layers: (1 - σ(-1))^50 < 1e-6.
    "highway": lambda dense: (layers.Highway(one, gate_bias=-4.0) for one in dense),
    "dense": lambda dense: [layers.DenselyConnected(list(dense))],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", DEEP)
def test_a_50_layer_dense_net_trains_with_connections_only(kind):
    """Even a task without depth: 50 plain layers do not pass its gradient on."""
    x = RNG.uniform(-1, 1, (512, 8)).astype("float32")
    y = (x.sum(axis=1) > 0).astype("float32")
    small = (keras.initializers.RandomNormal(stddev=0.1, seed=seed) for seed in range(DEPTH))
    # Side by side they grow wide by themselves.
    units = 2 if kind == "dense" else 8
    dense = [keras.layers.Dense(units, "tanh", kernel_initializer=one) for one in small]
    net = [keras.Input((8,)), *DEEP[kind](dense), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential(net)
    # Whatever else there is to trace or compile for so many layers takes longer than the training.
    adam = keras.optimizers.Adam(0.02)
    model.compile(adam, "binary_crossentropy", metrics=["accuracy"], jit_compile=False)
    history = model.fit(x, y, batch_size=128, epochs=25, verbose=0).history
    # At this rate the last epoch is not the best one in every order of the batches.
    accuracy = max(history["accuracy"])
    assert accuracy < 0.65 if kind == "plain" else accuracy > 0.9
