"""Each operation as TensorFlow has it and as onnxruntime has it."""

import numpy as np
import pytest
import tensorflow as tf

from kerasrnn.export import onnx
from kerasrnn.export.check import ExportError
from kerasrnn.export.onnx_graph import OPERATIONS

RNG = np.random.default_rng(0)
X = RNG.uniform(0.2, 0.9, (3, 4, 5)).astype("float32")
Y = RNG.uniform(0.2, 0.9, (3, 4, 5)).astype("float32")
IMAGE = RNG.normal(size=(2, 7, 6, 4)).astype("float32")
WINDOW = RNG.normal(size=(3, 2, 4, 5)).astype("float32")
TAPS = RNG.normal(size=(3, 4, 2)).astype("float32")

raw, nn = tf.raw_ops, tf.nn
FUNCTIONS = {
    "arithmetic": lambda x, y: (x + y) * (x - y) / (x + 1.0) - tf.square(y) + x**2.0,
    "elementwise": lambda x, y: tf.exp(x) + tf.math.log(y) + tf.sqrt(x) + tf.math.rsqrt(y),
    "log1p": lambda x, y: tf.math.log1p(x) + tf.math.expm1(y),
    "trigonometric": lambda x, y: tf.sin(x) + tf.cos(y) + tf.tanh(x) + tf.sigmoid(y),
    "rounded": lambda x, y: tf.floor(9 * x) + tf.math.ceil(9 * y) + tf.round(9 * x) + tf.sign(-y),
    "activations": lambda x, y: nn.relu(x - 0.5) + nn.relu6(9 * y) + nn.elu(x - 0.5) + nn.selu(-y),
    "more activations": lambda x, y: nn.softplus(x) + nn.softsign(y) + nn.leaky_relu(x - 0.5, 0.3),
    "softmax": lambda x, y: nn.softmax(x) + nn.log_softmax(y),
    "errors": lambda x, y: tf.math.erf(x) + tf.math.erfc(y) + tf.abs(-x),
    "extremes": lambda x, y: tf.maximum(x, y) * tf.minimum(x, y) + tf.math.squared_difference(x, y),
    "divided": lambda x, y: x // (0.1 * y) + tf.math.floormod(x, 0.3) + tf.math.reciprocal(y),
    "no nan": lambda x, y: tf.math.multiply_no_nan(x / 0.0, tf.where(y > 2, y, 0.0)) + x,
    "chosen": lambda x, y: tf.where((x > y) & ~(x >= 0.8) | (y <= 0.3), x, y),
    "compared": lambda x, y: tf.cast(tf.equal(x, x) & tf.not_equal(x, y) & (x < 2), tf.float32),
    "finite": lambda x, y: tf.math.is_finite(x / (x - x)) | tf.math.is_nan(x / 0.0),
    "products": lambda x, y: tf.matmul(x, y, transpose_b=True),
    "products of int8": lambda x, y: raw.BatchMatMulV3(
        x=tf.cast(99 * x, tf.int8), y=tf.cast(99 * y[:, :1, :, None], tf.int8)[:, 0], Tout=tf.int32
    ),
    "products by the third": lambda x, y: raw.BatchMatMulV3(x=x, y=y, Tout=tf.float32, adj_y=True),
    "transposed": lambda x, y: tf.matmul(x[0], y[0], transpose_a=True),
    "einsum": lambda x, y: tf.einsum("btf,bsf->bts", x, y),
    "bias": lambda x, y: nn.bias_add(x, y[0, 0]),
    "pieces": lambda x, y: tf.concat(tf.split(x, [1, 3], axis=1), 1),
    "parts": lambda x, y: tf.concat(tf.split(x, 5, axis=2), 1),
    "stacked": lambda x, y: tf.stack([x, tf.stack(tf.unstack(y, axis=1), 1)], axis=-2),
    "slices": lambda x, y: x[:, 1:3, ::2],
    "backwards": lambda x, y: x[:, ::-1] + tf.reverse(y, [1, 2]),
    "picked": lambda x, y: x[..., -1] + y[:, :, 2],
    "new axes": lambda x, y: x[:, None, ..., 1:] + y[0, None, None, :, -4:],
    "slice": lambda x, y: tf.slice(x, [0, 1, 2], [-1, 2, 3]),
    "dynamic slice": lambda x, y: x[:, : tf.shape(y)[1] - 1],
    "gathered": lambda x, y: tf.gather(x, [2, 0, 1], axis=1) + tf.gather(y[0], [[0], [1], [2]]),
    "by batch": lambda x, y: tf.gather(x, [[1, 0], [2, 2], [3, 1]], batch_dims=1),
    "by index": lambda x, y: tf.gather_nd(x, [[0, 1], [2, 3]]),
    "shapes": lambda x, y: tf.reshape(x, [tf.shape(y)[0], -1]) + tf.reshape(y, [3, 20]),
    "squeezed": lambda x, y: tf.squeeze(tf.expand_dims(x, 1), 1) + tf.squeeze(y[None], [0]),
    "axes": lambda x, y: tf.transpose(x, [2, 0, 1]) + tf.transpose(y, [2, 0, 1]),
    "tiled": lambda x, y: tf.tile(x, [1, 2, 1]) + tf.broadcast_to(y[:, :1], [3, 8, 5]),
    "filled": lambda x, y: tf.fill(tf.shape(x), 2.0) + tf.zeros_like(x) + tf.ones_like(y) * y,
    "summed": lambda x, y: tf.reduce_sum(x, 1) + tf.reduce_mean(y, [1]) + tf.reduce_max(x, 1),
    "kept": lambda x, y: tf.reduce_min(x, -1, keepdims=True) + tf.reduce_prod(y, 2, keepdims=True),
    "whether": lambda x, y: tf.reduce_any(x > 0.8, 1) | tf.reduce_all(y > 0.3, 1),
    "where": lambda x, y: tf.argmax(x, 2) + tf.argmin(y, 2),
    "running": lambda x, y: tf.cumsum(x, 1) + tf.cumsum(y, 2, exclusive=True, reverse=True),
    "one hot": lambda x, y: tf.one_hot(tf.argmax(x, 2), 5, 2.0, -1.0),
    "numbers": lambda x, y: x + tf.cast(tf.range(tf.shape(y)[2]), tf.float32),
    "padded": lambda x, y: (
        tf.pad(x, [[0, 0], [1, 2], [0, 1]])
        + tf.pad(y, [[0, 0], [2, 1], [1, 0]], constant_values=3.0)
    ),
    "added": lambda x, y: raw.Add(x=tf.add_n([x, y, x]), y=tf.negative(y)),
    "integers": lambda x, y: tf.shape(x)[1] // 3 + tf.shape(y)[2] % 3,
    "negative integers": lambda x, y: (
        tf.cast(9 * x - 5, tf.int32) // tf.constant([2, -2, 3, -3, 4])
        + 100 * (tf.cast(9 * y - 5, tf.int32) % tf.constant([2, -2, 3, -3, 4]))
    ),
    "negative long integers": lambda x, y: tf.cast(9 * x - 5, tf.int64) // 2,
    "one hot of negative ones": lambda x, y: tf.one_hot(tf.cast(9 * x - 4, tf.int32), 3, 2.0, -1.0),
    "convolution": lambda x, y: nn.conv2d(IMAGE + x[0, 0, 0], WINDOW, [1, 2], "SAME"),
    "by channel": lambda x, y: nn.depthwise_conv2d(IMAGE + x[0, 0, 0], WINDOW, [1] * 4, "SAME"),
    "valid": lambda x, y: nn.conv2d(IMAGE + x[0, 0, 0], WINDOW, 1, "VALID"),
    "dilated": lambda x, y: nn.convolution(x[:, :, :4], TAPS, padding="SAME", dilations=2),
    "pooled": lambda x, y: nn.max_pool1d(x, 2, 2, "VALID") + nn.avg_pool1d(y, 2, 2, "SAME"),
    "checked": lambda x, y: tf.ensure_shape(tf.stop_gradient(x), [None, 4, 5]) + tf.identity(y),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_is_the_same(name):
    specs = {k: tf.TensorSpec((None, None, 5), tf.float32, k) for k in ("x", "y")}
    if name in ("pieces", "stacked", "shapes", "checked", "tiled", "dilated"):
        specs = {k: tf.TensorSpec((None, 4, 5), tf.float32, k) for k in ("x", "y")}

    def function(tensors):
        return {"z": FUNCTIONS[name](tensors["x"], tensors["y"])}

    proto, _ = onnx.written(_NoModel(), function, specs)
    (z,) = onnx.Runner(proto.SerializeToString()).run({"x": X, "y": Y}).values()
    expected = FUNCTIONS[name](tf.constant(X), tf.constant(Y))
    assert z.dtype == expected.dtype.as_numpy_dtype
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "expected"), [(tf.math.log1p, np.log1p), (tf.math.expm1, np.expm1)]
)
def test_small_numbers_keep_their_digits(function, expected):
    sizes = np.logspace(-9, -0.01, 200)
    x = np.concatenate([sizes, -sizes, [0, 1, 5, 80, np.inf, -1]]).astype("float32")
    specs = {"x": tf.TensorSpec((None,), tf.float32, "x")}
    proto, _ = onnx.written(_NoModel(), lambda t: {"z": function(t["x"])}, specs)
    (z,) = onnx.Runner(proto.SerializeToString()).run({"x": x}).values()
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(z, expected(x.astype("float64")).astype("float32"), rtol=1e-6)


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_sizes_are_within_their_type(dtype):
    """OpenVINO computes with the bounds of sizes that are open."""
    specs = {"x": tf.TensorSpec((None, None, 5), tf.float32, "x")}
    proto, _ = onnx.written(_NoModel(), lambda t: {"z": tf.shape(t["x"], dtype)}, specs)
    kinds = [node.op_type for node in proto.graph.node if node.op_type != "Identity"]
    assert kinds == ["Shape", *(["Min"] if dtype == tf.int32 else []), "Cast"]
    (z,) = onnx.Runner(proto.SerializeToString()).run({"x": X}).values()
    assert z.tolist() == [3, 4, 5]


class _NoModel:
    name = "none"

    def _flatten_layers(self):
        return []


def test_every_operation_was_met():
    """So that none of the table goes untried."""
    seen = set()
    for function in FUNCTIONS.values():
        shape = (None, 4, 5)
        traced = tf.function(function).get_concrete_function(
            *(tf.TensorSpec(shape, tf.float32) for _ in range(2))
        )
        seen |= {operation.type for operation in traced.graph.get_operations()}
    # The first is refused; the rest come with layers, and with variables.
    others = {"Placeholder", "ReadVariableOp", "IdentityN", "PreventGradient", "BroadcastTo"}
    assert OPERATIONS.keys() - seen - others == set()


def test_what_is_computed_where_it_has_to_be_known():
    specs = {"x": tf.TensorSpec((None, 5), tf.float32, "x")}

    def function(tensors):
        return {"z": tf.reduce_sum(tensors["x"], tf.cast(tensors["x"][0, 0], tf.int32))}

    with pytest.raises(ExportError, match="axes that is known when they are written"):
        onnx.written(_NoModel(), function, specs)
