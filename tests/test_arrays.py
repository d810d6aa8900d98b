"""Weights of TensorFlow 1 and of ONNX give here what they give there."""

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from onnx import helper

from kerasrnn import layers
from kerasrnn.layers import from_onnx, from_tf1

RNG = np.random.default_rng(0)
FEATURES, UNITS = 3, 5
X = RNG.normal(size=(2, 7, FEATURES)).astype("float32")
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
OURS = {"LSTM": layers.LSTM, "GRU": layers.GRU, "RNN": layers.SimpleRNN}


@pytest.mark.parametrize("forget_bias", [1.0, 0.0, -0.5])
def test_weights_of_tensorflow_1(forget_bias):
    """Against the operation of its LSTMBlockCell."""
    kernel, bias = RNG.normal(0, 0.5, (FEATURES + UNITS, 4 * UNITS)), RNG.normal(size=4 * UNITS)
    zeros = np.zeros((2, UNITS))
    result = tf.raw_ops.BlockLSTM(
        seq_len_max=7,
        x=X.swapaxes(0, 1),
        cs_prev=tf.cast(zeros, "float32"),
        h_prev=tf.cast(zeros, "float32"),
        w=tf.cast(kernel, "float32"),
        wci=tf.zeros(UNITS),
        wcf=tf.zeros(UNITS),
        wco=tf.zeros(UNITS),
        b=tf.cast(bias, "float32"),
        forget_bias=forget_bias,
        cell_clip=-1.0,
        use_peephole=False,
    )
    layer = from_tf1(kernel, bias, forget_bias=forget_bias, return_state=True)
    y, _, c = layer(X)
    np.testing.assert_allclose(y, tf.transpose(result.h, [1, 0, 2]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(c, result.cs[-1], rtol=1e-5, atol=1e-5)
    assert from_tf1(kernel).get_weights()[2].tolist() == [0.0] * 5 + [1.0] * 5 + [0.0] * 10


def test_another_activation_of_tensorflow_1():
    """j and the output, in NumPy, as its LSTMCell has them."""
    kernel, bias = RNG.normal(0, 0.5, (FEATURES + UNITS, 4 * UNITS)), RNG.normal(size=4 * UNITS)
    h = c = np.zeros((2, UNITS))
    for t in range(7):
        i, j, f, o = np.split(np.concatenate([X[:, t], h], -1) @ kernel + bias, 4, -1)
        i, f, o = (1 / (1 + np.exp(-v)) for v in (i, f + 1, o))
        c = f * c + i * np.maximum(j, 0)
        h = o * np.maximum(c, 0)
    layer = from_tf1(kernel, bias, activation="relu", return_sequences=False)
    np.testing.assert_allclose(layer(X), h, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"`recurrent_activation` must be left out.*'relu'"):
        from_tf1(kernel, bias, recurrent_activation="relu")


def onnx_run(kind, arrays, **attributes):
    """The outputs of an ONNX node, (batch, time, directions units)."""
    directions = len(arrays["w"])
    options = {"direction": "bidirectional"} if directions == 2 else {}
    node = helper.make_node(kind, ["x", *arrays], ["y"], hidden_size=UNITS, **options, **attributes)
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [7, 2, FEATURES])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [7, directions, 2, UNITS])],
        [onnx.numpy_helper.from_array(v.astype("float32"), name) for name, v in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (y,) = session.run(None, {"x": X.swapaxes(0, 1)})
    return y.transpose(2, 0, 1, 3).reshape(2, 7, -1)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("case", ["LSTM", "before", "after", "Tanh", "Relu", "no bias"])
def test_weights_of_onnx(case, directions):
    """Against onnxruntime."""
    kind = {"before": "GRU", "after": "GRU", "Tanh": "RNN", "Relu": "RNN"}.get(case, "LSTM")
    rows = GATES[kind] * UNITS
    shapes = {"w": (rows, FEATURES), "r": (rows, UNITS), "b": (2 * rows,)}
    arrays = {name: RNG.normal(0, 0.5, (directions, *shape)) for name, shape in shapes.items()}
    options, attributes = {}, {}
    if kind == "GRU":
        options = attributes = {"linear_before_reset": int(case == "after")}
    elif kind == "RNN":
        options = {"nonlinearity": case.lower()}
        attributes = {"activations": [case] * directions}
    if case == "no bias":
        del arrays["b"]
    layer = from_onnx(*arrays.values(), **options)
    expected = onnx_run(kind, arrays, **attributes)
    np.testing.assert_allclose(layer(X), expected, rtol=1e-5, atol=1e-5)
    assert type(layer) is (layers.Bidirectional if directions == 2 else OURS[kind])


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_all_attributes_of_a_node(kind):
    """As `{one.name: helper.get_attribute_value(one) for one in node.attribute}` gives them."""
    activations = {"LSTM": [b"Sigmoid", b"Tanh", b"Tanh"], "GRU": [b"Sigmoid", b"Tanh"]}
    attributes = {
        "activations": activations.get(kind, [b"Relu"]),
        "direction": b"reverse",
        "hidden_size": UNITS,
        "layout": 1,
    }
    if kind == "GRU":
        attributes["linear_before_reset"] = 1
    if kind == "RNN":
        attributes["nonlinearity"] = "relu"
    rows = GATES[kind] * UNITS
    w, r = RNG.normal(size=(1, rows, FEATURES)), RNG.normal(size=(1, rows, UNITS))
    layer = from_onnx(w, r, go_backwards=True, **attributes)
    assert type(layer) is OURS[kind]
    assert layer.go_backwards


def node(kind="LSTM", directions=1, **attributes):
    rows = GATES[kind] * UNITS
    w, r = np.ones((directions, rows, FEATURES)), np.ones((directions, rows, UNITS))
    return lambda: from_onnx(w, r, **attributes)


NO_COUNTERPART = {
    "peepholes": (node(p=np.ones((1, 3 * UNITS))), "`p` of an ONNX node has no counterpart"),
    "clip": (node(clip=3.0), "`clip` of an ONNX node has no counterpart.*clip=3.0"),
    "input_forget": (node(input_forget=1), "`input_forget` .* no counterpart.*input_forget=1"),
    "alpha": (node(activation_alpha=[0.1]), "`activation_alpha` .* no counterpart"),
    "activations": (
        node(activations=["HardSigmoid", "Tanh", "Tanh"]),
        r"`activations` of an ONNX node must be \['Sigmoid', 'Tanh', 'Tanh'\].*HardSigmoid",
    ),
    "too few": (
        node(activations=["Sigmoid", "Tanh", "Tanh"], directions=2),
        r"`activations` .* must be \[('Sigmoid', 'Tanh', 'Tanh'(, )?){2}\] here",
    ),
    "of both": (
        node("RNN", 2, activations=["Tanh", "Relu"], nonlinearity="tanh"),
        r"`activations` .* must be \['Tanh', 'Tanh'\] here",
    ),
    "reverse": (node(direction="reverse"), "`direction` .* must be 'forward' here"),
    "hidden_size": (node(hidden_size=4), "`hidden_size` of an ONNX node must be 5 here"),
    "num_proj": (
        lambda: from_tf1(np.ones((8, 20)), num_proj=2),
        "`num_proj` of TensorFlow 1's LSTMCell has no counterpart.*num_proj=2",
    ),
    "use_peepholes": (
        lambda: from_tf1(np.ones((8, 20)), use_peepholes=True, num_proj=None),
        "`use_peepholes` of TensorFlow 1's LSTMCell has no counterpart",
    ),
    "of a projection": (lambda: from_tf1(np.ones((5, 20))), "with `num_proj` has no counterpart"),
    "numbers": (
        lambda: from_onnx(np.ones((1, 20, 3)), np.ones((1, 20, 5), complex)),
        "`r` must be an array or a tensor of real numbers",
    ),
}


@pytest.mark.parametrize("case", NO_COUNTERPART)
def test_what_has_no_counterpart_is_named(case):
    call, message = NO_COUNTERPART[case]
    with pytest.raises(ValueError, match=message):
        call()


ODD = {
    "kernel": (
        lambda: from_tf1(np.ones((4, 20))),
        r"`kernel` must have the shape \(features \+ units, 4 units\).*\(4, 20\)",
    ),
    "bias": (
        lambda: from_tf1(np.ones((8, 20)), np.ones(5)),
        r"`bias` must have the shape \(20\).*\(5,\)",
    ),
    "forget_bias": (
        lambda: from_tf1(np.ones((8, 20)), forget_bias="one"),
        "`forget_bias` must be a finite number.*'one'",
    ),
    "r": (lambda: from_onnx(np.ones((20, 3)), np.ones((20, 5))), r"`r` must have .*\(20, 5\)"),
    "w": (
        lambda: from_onnx(np.ones((1, 20, 3)), np.ones((2, 20, 5))),
        r"`w` must have the shape \(2, 20, 3\).*\(1, 20, 3\)",
    ),
    "b": (
        lambda: from_onnx(np.ones((1, 20, 3)), np.ones((1, 20, 5)), np.ones((1, 20))),
        r"`b` must have the shape \(1, 40\)",
    ),
    "linear_before_reset": (
        lambda: from_onnx(np.ones((1, 15, 3)), np.ones((1, 15, 5))),
        "`linear_before_reset` must be .*linear_before_reset=None for gru",
    ),
    "no linear_before_reset": (
        lambda: from_onnx(np.ones((1, 20, 3)), np.ones((1, 20, 5)), linear_before_reset=0),
        "linear_before_reset=0 for lstm",
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_arrays_that_are_no_layer_s(case):
    call, message = ODD[case]
    with pytest.raises(ValueError, match=message):
        call()
