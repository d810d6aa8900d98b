"""Which layers would go to cuDNN on a GPU, and how. No GPU is needed to see it; none was used."""

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from slow import slow_but

from kerasrnn import cells, layers, recurrence, tuning
from kerasrnn.diagnostics import gradient_flow
from kerasrnn.layers.group import recurrent_layers
from kerasrnn.recurrence import cudnn

X = np.random.default_rng(1).normal(size=(3, 5, 4)).astype("float32")


def lstm(inputs, h, c, mask, kernel, recurrent_kernel, bias, **options):
    def step(x, h, c):
        i, f, g, o = tf.split(x @ kernel + h @ recurrent_kernel + bias, 4, axis=-1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return tf.sigmoid(o) * tf.tanh(c), c

    return over_time(step, inputs, [h, c], **options)


def gru(inputs, h, mask, kernel, recurrent_kernel, bias, reset_after, **options):
    def step(x, h):
        x_z, x_r, x_g = tf.split(x @ kernel + bias[0], 3, axis=-1)
        u_z, u_r, u_g = tf.split(h @ recurrent_kernel + bias[1], 3, axis=-1)
        z, r = tf.sigmoid(x_z + u_z), tf.sigmoid(x_r + u_r)
        return (z * h + (1 - z) * tf.tanh(x_g + r * u_g),)

    return over_time(step, inputs, [h], **options)


def over_time(step, inputs, states, return_sequences, go_backwards, **options):
    outputs = []
    for x in tf.unstack(inputs, axis=1)[:: -1 if go_backwards else 1]:
        states = step(x, *states)
        outputs.append(states[0])
    return states[0], tf.stack(outputs if return_sequences else outputs[-1:], 1), list(states)


@pytest.fixture
def kernel(monkeypatch):
    """Pretends that there is a GPU, with a stand-in for cuDNN's kernels that computes their
    equations; lists the recurrent kernels that it was given."""
    seen = []

    def kept(stand_in):
        def run(*args, **options):
            *_, mask = args
            assert mask is None
            seen.append(options["recurrent_kernel"])
            return stand_in(*args, **{k: getattr(v, "value", v) for k, v in options.items()})

        return run

    monkeypatch.setattr(keras.src.backend, "lstm", kept(lstm))
    monkeypatch.setattr(keras.src.backend, "gru", kept(gru))
    gpu = {"GPU": ["GPU:0"]}
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: gpu.get(kind, []))
    cudnn._has_kernels.cache_clear()
    # Asked in a graph, as the first layer of a model asks.
    assert tf.function(lambda: tf.constant(cudnn._has_kernels()))()
    seen.clear()
    yield seen
    cudnn._has_kernels.cache_clear()


# Layers and stacks around LSTM and GRU cells, and how many such cells each has.
QUALIFY = {
    "LSTM": (lambda: layers.LSTM(6), 1),
    "GRU": (lambda: layers.GRU(6), 1),
    "backwards": (lambda: layers.LSTM(6, go_backwards=True), 1),
    "sequences": (lambda: layers.GRU(6, return_sequences=True, return_state=True), 1),
    "learned": (lambda: layers.GRU(6, initial_state="learned"), 1),
    "by name": (lambda: layers.RNN("lstm", units=6), 1),
    "around a cell": (lambda: layers.RNN(cells.GRUCell(6)), 1),
    "around a list": (lambda: layers.RNN([cells.GRUCell(6), cells.LSTMCell(5)]), 2),
    "stack": (lambda: layers.RNNStack("gru", 6, 3), 3),
    "connected": (lambda: layers.RNNStack("lstm", 4, 2, connection="highway"), 2),
    "both directions": (lambda: layers.RNNStack("lstm", 6, 2, bidirectional=True), 4),
    "bidirectional": (lambda: layers.Bidirectional(layers.GRU(6), merge_mode="gate"), 2),
    "residual": (lambda: layers.Residual(layers.LSTM(4, return_sequences=True)), 1),
}


@pytest.mark.parametrize("name", QUALIFY)
def test_what_qualifies_reaches_it(name, kernel, take_path, random_weights):
    make, count = QUALIFY[name]
    layer = make()
    layer.build(X.shape)
    random_weights(layer)
    y = layer(X)
    inside = [part.cell for part in recurrent_layers(layer)]
    inside = [one for cell in inside for one in getattr(cell, "cells", [cell])]
    assert list(map(id, kernel)) == [id(cell.recurrent_kernel) for cell in inside]
    assert len(kernel) == count
    # Which cuDNN's kernels cannot be compiled into.
    model = keras.Sequential([layer])
    model.compile("sgd", "mse")
    assert model.jit_compile is False

    take_path("loop")
    for mine, other in zip(*map(tf.nest.flatten, (y, layer(X))), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", slow_but(["gru"], ["lstm", "gru"]))
def test_a_searched_model_trains_on_it(cell, kernel):
    hypermodel = tuning.RNNHyperModel("regression", features=4, cells=cell, units=4, depths=2)
    model = hypermodel.build(keras_tuner.HyperParameters())
    kernel.clear()
    model.train_on_batch(X, np.ones((3, 1)))
    assert len({id(one) for one in kernel}) == 4


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_states_go_in_and_out_with_their_gradients(
    kind, go_backwards, return_sequences, kernel, take_path, random_weights, rng
):
    layer = getattr(layers, kind)(
        6, return_state=True, return_sequences=return_sequences, go_backwards=go_backwards
    )
    layer.build(X.shape)
    random_weights(layer)
    states = [rng.normal(size=(3, 6)).astype("float32") for _ in layer.get_initial_state(3)]
    values = [tf.constant(v) for v in (X, *states)]

    def outputs_and_gradients():
        with tf.GradientTape() as tape:
            tape.watch(values)
            x, *start = values
            results = layer(x, initial_state=start)
            # Each counts for something else.
            loss = sum((k + 1) * tf.reduce_sum(tf.sin(v)) for k, v in enumerate(results))
        return results, tape.gradient(loss, [*values, *layer.trainable_weights])

    mine = outputs_and_gradients()
    assert len(kernel) == 1
    take_path("loop")
    for one, other in zip(*map(tf.nest.flatten, (mine, outputs_and_gradients())), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


MIXED = {
    "layer": lambda: layers.LSTM(6, dtype="mixed_float16"),
    "cell": lambda: layers.RNN(cells.LSTMCell(6, dtype="mixed_float16")),
    "cell in full": lambda: layers.RNN(cells.LSTMCell(6, dtype="float32"), dtype="mixed_float16"),
    "list": lambda: layers.RNN([cells.GRUCell(6, dtype="mixed_float16"), cells.LSTMCell(5)]),
}


@pytest.mark.parametrize("name", MIXED)
def test_in_the_precision_of_the_cell(name, kernel, take_path, random_weights):
    layer = MIXED[name]()
    layer.build(X.shape)
    random_weights(layer)
    y = layer(X)
    assert len(kernel) == (2 if name == "list" else 1)
    take_path("loop")
    other = layer(X)
    assert y.dtype == other.dtype
    np.testing.assert_allclose(y, other, rtol=5e-3, atol=5e-3)


def test_what_dropout_leaves(kernel, monkeypatch, random_weights, rng):
    """As in the plain loop, with the same inputs dropped."""
    layer = layers.LSTM(6, dropout=0.5)
    layer.build(X.shape)
    random_weights(layer)
    mask = tf.constant(rng.integers(0, 2, (3, 1, 4)) * 2.0, "float32")
    masks = {True: (mask,), False: (None,)}
    monkeypatch.setattr(layer.cell, "noise", lambda *args: cells.base.Noise(masks[args[-1]]))
    np.testing.assert_allclose(layer(X, training=True), layer(X * mask), rtol=1e-5, atol=1e-6)
    assert len(kernel) == 2


def test_the_gradient_through_time_is_measured_elsewhere(kernel):
    """There are no states in between to be seen in a kernel."""
    model = keras.Sequential([keras.Input((5, 4)), layers.LSTM(6), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    flow = gradient_flow(model, X, np.ones((3, 1)))
    kernel.clear()
    assert np.all(next(iter(flow.norms.values())) > 0)


def test_it_is_explained(kernel):
    stack = layers.RNNStack("lstm", 6, 2, name="stack")
    model = keras.Sequential([keras.Input((5, 4)), stack, keras.layers.Dense(1)])
    explanation = recurrence.explain(model)
    assert list(explanation) == ["stack/lstm_1", "stack/lstm_2"]
    for choices in explanation.values():
        paths = {use: choice.path for use, choice in choices.items()}
        assert paths == {"fit": "cudnn", "predict": "cudnn", "export": "loop"}
        reason = choices["export"].passed_over["cudnn"]
        assert reason == "what is exported has to run where there is no GPU"


def test_dropout_still_applies(kernel):
    layer = layers.LSTM(6, dropout=0.5)
    assert not np.allclose(layer(X, training=True), layer(X, training=True))
    np.testing.assert_array_equal(layer(X), layer(X))


REFUSED = [
    ({"use_cudnn": False}, "use_cudnn=False"),
    ({"activation": "relu"}, "activation=relu"),
    ({"recurrent_activation": "tanh"}, "recurrent_activation=tanh"),
    ({"use_bias": False}, "use_bias=False"),
    ({"unroll": True}, "unroll=True"),
    ({"recurrent_dropout": 0.1}, "recurrent_dropout=0.1"),
    ({"zoneout": {"h": 0.1}}, "zoneout={'h': 0.1}"),
    ({"normalization": "layer"}, "normalization='layer'"),
    ({"vanishing_gradient_regularization": 0.1}, "vanishing_gradient_regularization=0.1"),
    ({"dropout": 0.1, "implementation": 1}, "dropout with implementation=1, a mask per gate"),
    ({"reset_after": False}, "reset_after=False"),
    ({"update_gate": "write"}, "update_gate='write'"),
]


@pytest.mark.parametrize(("options", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_cudnn_does_not_compute_stays(options, reason, kernel):
    layer = layers.GRU(6, name="gru", **options)
    layer(X)
    assert kernel == []
    assert layer.supports_jit
    assert recurrence.explain(layer)["gru"]["predict"].passed_over["cudnn"] == reason
    if "use_cudnn" not in options:
        with pytest.raises(ValueError) as error:  # noqa: PT011
            layers.GRU(6, use_cudnn=True, **options)(X)
        assert f"use_cudnn=True cannot be met here: {reason}. use_cudnn='auto'" in str(error.value)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ({"mask": np.ones((3, 5), bool)}, "a mask"),
        ({"reset": np.zeros((3, 5), bool)}, "a reset"),
    ],
)
def test_what_is_said_of_a_call(call, reason, kernel):
    layer = layers.LSTM(6, use_cudnn=True, name="enc")
    with pytest.raises(ValueError, match=rf"here: {reason}\. .*use_cudnn=True for enc/lstm_cell"):
        layer(X, **call)
    layers.LSTM(6)(X, **call)
    assert kernel == []


def test_another_cell_does_not_qualify(kernel):
    class Subclass(cells.LSTMCell):
        """May take a step of its own."""

    for cell, kind in (
        (Subclass(6), f"{__name__}.Subclass"),
        (cells.MGUCell(6), "MGUCell"),
        (keras.layers.LSTMCell(6), "keras.layers.LSTMCell"),
    ):
        layer = layers.RNN(cell)
        layer(X)
        choice = recurrence.explain(layer)[layer.name]["fit"]
        reason = f"{kind} is neither kerasrnn.cells.LSTMCell nor GRUCell"
        assert choice.passed_over["cudnn"] == reason
    assert kernel == []


def test_masks_keep_to_one_rule(kernel):
    layer = layers.LSTM(6, return_sequences=True)
    y = layer(X, mask=np.arange(5)[None] < [[3], [5], [2]])
    assert kernel == []
    # A masked step repeats the output of the step before.
    np.testing.assert_array_equal(y[0, 3:], np.repeat(y[0, 2:3], 2, axis=0))


def test_a_gpu_without_kernels(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["GPU:0"])
    cudnn._has_kernels.cache_clear()
    layer = layers.LSTM(6, name="lstm")
    layer(X)
    choice = recurrence.explain(layer)["lstm"]["fit"]
    assert choice.passed_over["cudnn"] == "cuDNN's kernels do not run on this GPU"
    cudnn._has_kernels.cache_clear()


def test_without_a_gpu_it_is_an_error():
    with pytest.raises(ValueError, match="use_cudnn=True cannot be met here: no GPU is visible"):
        layers.LSTM(6, use_cudnn=True)(X)


def test_the_names_of_the_user_s_layers_go_on_counting(kernel):
    before = keras.layers.LSTM(2).name
    layers.LSTM(2)(X)
    number = int(before.partition("_")[2] or 0)
    assert keras.layers.LSTM(2).name == f"lstm_{number + 2}"


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU])
def test_another_number_of_features_is_an_error(kind, kernel):
    layer = kind(4, use_cudnn=True)
    layer.build(X.shape)
    with pytest.raises(ValueError, match=r"for 4 features.*of 3 features"):
        layer(X[:, :, :3])
    assert not kernel
