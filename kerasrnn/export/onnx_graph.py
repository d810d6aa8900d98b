"""TensorFlow graphs as ONNX graphs: each operation in a line or a few, those that are not here are
refused by name.
"""

import graphlib
import itertools

import numpy as np
import tensorflow as tf

from kerasrnn.export.artifact import needed
from kerasrnn.export.check import ExportError

OPSET = 17
# TensorFlow has int32 where ONNX wants int64.
_LARGEST = np.iinfo("int64").max


class Graph:
    """An ONNX graph that grows.

    Args:
        special: For operations by their names in the TensorFlow graph that are to be written in
            another way, `write(graph, inputs)`, which gives the names of the outputs.
        reserved: Names that no tensor in here gets, those of inputs and outputs.
        numbers: What numbers the names, of a graph in another those of that one.
    """

    def __init__(self, special=None, reserved=(), numbers=None):
        self.helper = needed("onnx.helper", "onnx")
        self.numpy_helper = needed("onnx.numpy_helper", "onnx")
        self.special = special or {}
        self.reserved = frozenset(reserved)
        self.numbers = numbers or itertools.count()
        self.nodes, self.initializers = [], {}

    def inner(self):
        """A graph for a node of this one; it may use what has a name here."""
        return Graph(reserved=self.reserved, numbers=self.numbers)

    def name(self, what):
        names = (f"{what}_{number}" for number in self.numbers)
        return next(name for name in names if name not in self.reserved)

    def add(self, kind, *inputs, outputs=1, **attributes):
        """Adds a node; returns the name of its output, or a list of several."""
        names = [self.name(kind) for _ in range(outputs)]
        node = self.helper.make_node(kind, list(inputs), names, self.name(kind), **attributes)
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def proto(self, name, inputs, outputs):
        """The graph, of inputs and outputs as `value_info` gives them."""
        used = set(_used(self.nodes))
        constants = [one for one in self.initializers.values() if one.name in used]
        return self.helper.make_graph(self.nodes, name, inputs, outputs, constants)

    def constant(self, value, dtype=None):
        """The name of a constant."""
        value = np.asarray(value, dtype)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self.initializers:
            self.initializers[key] = self.numpy_helper.from_array(value, self.name("constant"))
        return self.initializers[key].name

    def cast(self, x, dtype):
        kind = self.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.add("Cast", x, to=kind)

    def longs(self, values):
        """A constant of int64."""
        return self.constant(values, "int64")

    def shape_part(self, x, axis):
        """The size of one axis, (1,) of int64."""
        return self.add("Gather", self.add("Shape", x), self.longs([axis]))

    def reversed(self, x, axis):
        options = ([-1], [-_LARGEST], [axis], [-1])
        return self.add("Slice", x, *map(self.longs, options))

    def value_info(self, name, dtype, shape):
        kind = self.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.helper.make_tensor_value_info(name, kind, shape)

    def include(self, function, names, inputs):
        """Adds all that a frozen TensorFlow function does.

        Args:
            function: A `tf.types.experimental.ConcreteFunction`.
            names: Those of its outputs, in order.
            inputs: The names here of what it takes, by the names there; for a variable that of its
                value.

        Returns:
            The names here of its outputs, by their names.

        Raises:
            ExportError: it has an operation that is not in `OPERATIONS`.
        """
        named = {t.name: inputs[t.op.name] for t in function.inputs}
        for operation in _needed_in_order(function.outputs):
            if operation.outputs and all(t.name in named for t in operation.outputs):
                continue
            taken = [named[t.name] for t in operation.inputs]
            if operation.name in self.special:
                made = self.special[operation.name](self, taken)
            elif operation.type in OPERATIONS:
                made = OPERATIONS[operation.type](self, operation, *taken)
            else:
                _refuse(operation)
            made = [made] if isinstance(made, str) else made
            named |= {t.name: name for t, name in zip(operation.outputs, made, strict=True)}
        return {name: named[t.name] for name, t in zip(names, function.outputs, strict=True)}


def _refuse(operation):
    raise ExportError(
        "ONNX files are written of the operations of recurrent, dense, embedding, normalization, "
        "convolution, pooling and elementwise layers alone; nothing was written. Received: "
        f"{operation.type}, of {operation.name}"
    )


def _used(nodes):
    """The names that nodes, and the graphs in them, take."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _used(attribute.g.node)
                yield from (output.name for output in attribute.g.output)


def _needed_in_order(outputs):
    """The operations that outputs depend on, each after those that it takes something of."""
    before, waiting = {}, [t.op for t in outputs]
    while waiting:
        operation = waiting.pop()
        if operation.name not in before:
            before[operation.name] = operation, [t.op.name for t in operation.inputs]
            waiting += [t.op for t in operation.inputs]
    order = graphlib.TopologicalSorter({name: names for name, (_, names) in before.items()})
    return [before[name][0] for name in order.static_order()]


def _constant_of(tensor, what):
    value = tf.get_static_value(tensor)
    if value is None:
        raise ExportError(
            f"ONNX files need {what} that is known when they are written; nothing was written. "
            f"Received: {tensor.op.name}, which is computed"
        )
    return value


def _as(kind, **attributes):
    """An operation with a namesake."""
    return lambda graph, operation, *inputs: graph.add(kind, *inputs, **attributes)


def _same(graph, operation, x, *_):
    return graph.add("Identity", x)


def _each_same(graph, operation, *inputs):
    return [graph.add("Identity", x) for x in inputs]


def _const(graph, operation):
    return graph.constant(tf.make_ndarray(operation.get_attr("value")))


def _placeholder(graph, operation):
    raise ExportError(f"An input is missing: {operation.name}")


def _cast(graph, operation, x):
    return graph.cast(x, operation.outputs[0].dtype.as_numpy_dtype)


def _where_zero_counts(graph, operation, x, y):
    zero = graph.constant(0, operation.inputs[1].dtype.as_numpy_dtype)
    product = graph.add("Mul", x, y)
    return graph.add("Where", graph.add("Equal", y, zero), zero, product)


def _squared_difference(graph, operation, x, y):
    d = graph.add("Sub", x, y)
    return graph.add("Mul", d, d)


def _relu6(graph, operation, x):
    return graph.add("Clip", x, graph.constant(0, "float32"), graph.constant(6, "float32"))


def _leaky_relu(graph, operation, x):
    return graph.add("LeakyRelu", x, alpha=operation.get_attr("alpha"))


def _softmax(kind):
    return lambda graph, operation, x: graph.add(kind, x, axis=-1)


def _floor_div(graph, operation, x, y):
    # ONNX rounds quotients of integers towards 0.
    if operation.outputs[0].dtype.is_integer:
        return graph.add("Div", graph.add("Sub", x, graph.add("Mod", x, y)), y)
    return graph.add("Floor", graph.add("Div", x, y))


def _floor_mod(graph, operation, x, y):
    if operation.outputs[0].dtype.is_integer:
        return graph.add("Mod", x, y)
    return graph.add("Sub", x, graph.add("Mul", y, _floor_div(graph, operation, x, y)))


def _erfc(graph, operation, x):
    (one,) = _numbers(graph, operation, 1)
    return graph.add("Sub", one, graph.add("Erf", x))


def _matmul(graph, operation, x, y):
    names = ("transpose_a", "transpose_b") if operation.type == "MatMul" else ("adj_x", "adj_y")
    parts = []
    for value, tensor, name in zip((x, y), operation.inputs, names, strict=True):
        if operation.get_attr(name):
            rank = len(tensor.shape)
            axes = [*range(rank - 2), rank - 1, rank - 2]
            value = graph.add("Transpose", value, perm=axes)
        parts.append(value)
    return graph.add("MatMul", *parts)


def _matmul_of_types(graph, operation, x, y):
    """A product whose type may be wider than that of its factors, as Keras's quantized layers have
    it."""
    types = [operation.get_attr(name) for name in ("Ta", "Tb", "Tout")]
    adjoint = operation.get_attr("adj_x") or operation.get_attr("adj_y")
    if types == [tf.int8, tf.int8, tf.int32] and not adjoint:
        return graph.add("MatMulInteger", x, y)
    if len(set(types)) > 1:
        _refuse(operation)
    return _matmul(graph, operation, x, y)


def _einsum(graph, operation, *inputs):
    return graph.add("Einsum", *inputs, equation=operation.get_attr("equation").decode())


def _concat(graph, operation, *inputs):
    axis = int(_constant_of(operation.inputs[-1], "an axis"))
    return graph.add("Concat", *inputs[:-1], axis=axis)


def _split(graph, operation, axis, x):
    axis = int(_constant_of(operation.inputs[0], "an axis"))
    return _parts(graph, operation, x, axis, None)


def _split_v(graph, operation, x, sizes, axis):
    axis = int(_constant_of(operation.inputs[2], "an axis"))
    sizes = [part.shape[axis] for part in operation.outputs]
    if None in sizes:
        raise ExportError(
            "ONNX files need splits into parts of known sizes; nothing was written. Received: "
            f"{operation.name}"
        )
    return _parts(graph, operation, x, axis, sizes)


def _parts(graph, operation, x, axis, sizes):
    count = len(operation.outputs)
    if count == 1:
        return graph.add("Identity", x)
    options = [] if sizes is None else [graph.longs(sizes)]
    return graph.add("Split", x, *options, outputs=count, axis=axis)


def _pack(graph, operation, *inputs):
    axis = operation.get_attr("axis")
    parts = [graph.add("Unsqueeze", x, graph.longs([axis])) for x in inputs]
    return graph.add("Concat", *parts, axis=axis)


def _unpack(graph, operation, x):
    axis, count = operation.get_attr("axis"), len(operation.outputs)
    parts = [x] if count == 1 else graph.add("Split", x, outputs=count, axis=axis)
    return [graph.add("Squeeze", part, graph.longs([axis])) for part in parts]


def _strided_slice(graph, operation, x, begin, end, strides):
    """Axis by axis, as the masks say."""
    masks = {
        name: operation.get_attr(f"{name}_mask")
        for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    count = operation.inputs[1].shape[0]
    steps = _constant_of(operation.inputs[3], "strides")
    entries = [tf.get_static_value(t, partial=True) for t in operation.inputs[1:3]]
    rank = len(operation.inputs[0].shape)
    fresh, dropped, starts, ends, axes, jumps = [], [], [], [], [], []
    axis = made = 0

    def bound(which, i, name):
        values = entries[which]
        known = None if values is None else values[i]
        if known is not None:
            return graph.longs([int(known)])
        return graph.cast(graph.add("Gather", name, graph.longs([i])), "int64")

    for i in range(count):
        bit = 1 << i
        if masks["new_axis"] & bit:
            fresh.append(made)
            made += 1
            continue
        if masks["ellipsis"] & bit:
            later = sum(not masks["new_axis"] & (1 << j) for j in range(i + 1, count))
            made += rank - later - axis
            axis = rank - later
            continue
        step = int(steps[i])
        if masks["shrink_axis"] & bit:
            start = bound(0, i, begin)
            # The end of the last is the end.
            static = None if entries[0] is None else entries[0][i]
            if static is not None:
                stop = graph.longs([int(static) + 1 if static != -1 else _LARGEST])
            else:
                stop = graph.add("Add", start, graph.longs([1]))
            entry = (start, stop, axis, 1)
            dropped.append(axis)
        else:
            start = (
                graph.longs([0 if step > 0 else -1]) if masks["begin"] & bit else bound(0, i, begin)
            )
            stop = (
                graph.longs([_LARGEST if step > 0 else -_LARGEST])
                if masks["end"] & bit
                else bound(1, i, end)
            )
            entry = (start, stop, axis, step)
            made += 1
            if masks["begin"] & bit and masks["end"] & bit and step == 1:
                axis += 1
                continue
        for values, value in zip((starts, ends, axes, jumps), entry, strict=True):
            values.append(value)
        axis += 1
    y = x
    if axes:
        start, stop = (
            parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=0)
            for parts in (starts, ends)
        )
        y = graph.add("Slice", y, start, stop, graph.longs(axes), graph.longs(jumps))
    if dropped:
        y = graph.add("Squeeze", y, graph.longs(dropped))
    if fresh:
        y = graph.add("Unsqueeze", y, graph.longs(fresh))
    return y if axes or dropped or fresh else graph.add("Identity", y)


def _slice(graph, operation, x, begin, size):
    sizes = _constant_of(operation.inputs[2], "sizes")
    starts = _constant_of(operation.inputs[1], "starts")
    ends = [_LARGEST if n == -1 else s + n for s, n in zip(starts, sizes, strict=True)]
    axes = list(range(len(sizes)))
    return graph.add("Slice", x, graph.longs(starts), graph.longs(ends), graph.longs(axes))


def _gather(graph, operation, x, indices, axis):
    axis, batch = (
        int(_constant_of(operation.inputs[2], "an axis")),
        operation.get_attr("batch_dims"),
    )
    if not batch:
        return graph.add("Gather", x, indices, axis=axis)
    if axis != batch:
        raise ExportError(
            "ONNX files need gathers along the first axis after the batch's; nothing was written. "
            f"Received: {operation.name}, axis={axis}, batch_dims={batch}"
        )
    indices = graph.add("Unsqueeze", graph.cast(indices, "int64"), graph.longs([-1]))
    return graph.add("GatherND", x, indices, batch_dims=batch)


def _gather_nd(graph, operation, x, indices):
    return graph.add("GatherND", x, graph.cast(indices, "int64"))


def _reshape(graph, operation, x, shape):
    return graph.add("Reshape", x, graph.cast(shape, "int64"), allowzero=1)


def _expand_dims(graph, operation, x, axis):
    axis = np.reshape(_constant_of(operation.inputs[1], "an axis"), [1])
    return graph.add("Unsqueeze", x, graph.longs(axis))


def _squeeze(graph, operation, x):
    axes = operation.get_attr("squeeze_dims")
    return graph.add("Squeeze", x, *([graph.longs(list(axes))] if axes else []))


def _transpose(graph, operation, x, axes):
    axes = _constant_of(operation.inputs[1], "axes").tolist()
    return graph.add("Transpose", x, perm=axes)


def _tile(graph, operation, x, repeats):
    return graph.add("Tile", x, graph.cast(repeats, "int64"))


def _broadcast_to(graph, operation, x, shape):
    return graph.add("Expand", x, graph.cast(shape, "int64"))


def _fill(graph, operation, shape, value):
    return graph.add("Expand", value, graph.cast(shape, "int64"))


def _filled_like(value):
    def write(graph, operation, x):
        one = graph.constant(value, operation.outputs[0].dtype.as_numpy_dtype)
        return graph.add("Expand", one, graph.add("Shape", x))

    return write


def _shape(graph, operation, x):
    shape, dtype = graph.add("Shape", x), operation.outputs[0].dtype
    if dtype == tf.int32:
        # OpenVINO takes a size that nobody knows for up to the largest int64, which as an int32 is
        # -1, and then reads no file in which something has that shape.
        shape = graph.add("Min", shape, graph.longs(tf.int32.max))
    return graph.cast(shape, dtype.as_numpy_dtype)


def _not_equal(graph, operation, x, y):
    return graph.add("Not", graph.add("Equal", x, y))


def _reduction(kind):
    def write(graph, operation, x, axes):
        axes = np.reshape(_constant_of(operation.inputs[1], "axes"), [-1]).tolist()
        keep = int(operation.get_attr("keep_dims"))
        if not axes and len(operation.inputs[1].shape):
            return graph.add("Identity", x)
        # The one whose axes are an input in this opset.
        if kind == "ReduceSum":
            return graph.add(kind, x, graph.longs(axes), keepdims=keep)
        return graph.add(kind, x, axes=axes, keepdims=keep)

    return write


def _of_booleans(kind):
    reduce = _reduction(kind)

    def write(graph, operation, x, axes):
        return graph.cast(reduce(graph, operation, graph.cast(x, "int32"), axes), "bool")

    return write


def _arg(kind):
    def write(graph, operation, x, axis):
        axis = int(_constant_of(operation.inputs[1], "an axis"))
        y = graph.add(kind, x, axis=axis, keepdims=0)
        return graph.cast(y, operation.outputs[0].dtype.as_numpy_dtype)

    return write


def _reverse(graph, operation, x, axes):
    for axis in _constant_of(operation.inputs[1], "axes").tolist():
        x = graph.reversed(x, axis)
    return x


def _cumsum(graph, operation, x, axis):
    names = "exclusive", "reverse"
    options = {name: int(operation.get_attr(name)) for name in names}
    return graph.add("CumSum", x, axis, **options)


def _one_hot(graph, operation, indices, depth, on, off):
    values = graph.add(
        "Concat", *(graph.add("Unsqueeze", v, graph.longs([0])) for v in (off, on)), axis=0
    )
    # ONNX counts those below 0 from the end.
    dtype = operation.inputs[0].dtype.as_numpy_dtype
    is_below = graph.add("Less", indices, graph.constant(0, dtype))
    indices = graph.add("Where", is_below, graph.cast(depth, dtype), indices)
    return graph.add("OneHot", indices, depth, values, axis=operation.get_attr("axis"))


def _pad(graph, operation, x, paddings, *value):
    pads = _constant_of(operation.inputs[1], "paddings").T.reshape(-1)
    return graph.add("Pad", x, graph.longs(pads), *value)


_TO_CHANNELS_FIRST, _TO_CHANNELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


def _windows(operation):
    if operation.get_attr("data_format") != b"NHWC" or operation.get_attr("padding") == b"EXPLICIT":
        raise ExportError(
            "ONNX files are written of convolutions and pooling with channels last; nothing was "
            f"written. Received: {operation.name}"
        )
    same = operation.get_attr("padding") == b"SAME"
    strides = list(operation.get_attr("strides"))[1:3]
    return {"auto_pad": "SAME_UPPER" if same else "VALID", "strides": strides}


def _conv2d(graph, operation, x, kernel):
    kernel = graph.add("Transpose", kernel, perm=[3, 2, 0, 1])
    channels, of_group = operation.inputs[0].shape[3], operation.inputs[1].shape[2]
    return _convolved(graph, operation, x, kernel, channels // of_group)


def _depthwise_conv2d(graph, operation, x, kernel):
    """Each channel is a group, and has several channels come out side by side."""
    *sizes, channels, multiplier = operation.inputs[1].shape
    kernel = graph.add("Transpose", kernel, perm=[2, 3, 0, 1])
    kernel = graph.add("Reshape", kernel, graph.longs([channels * multiplier, 1, *sizes]))
    return _convolved(graph, operation, x, kernel, channels)


def _convolved(graph, operation, x, kernel, groups):
    options = _windows(operation) | {"dilations": list(operation.get_attr("dilations"))[1:3]}
    x = graph.add("Transpose", x, perm=_TO_CHANNELS_FIRST)
    y = graph.add("Conv", x, kernel, group=groups, **options)
    return graph.add("Transpose", y, perm=_TO_CHANNELS_LAST)


def _pool(kind):
    def write(graph, operation, x):
        size = list(operation.get_attr("ksize"))[1:3]
        x = graph.add("Transpose", x, perm=_TO_CHANNELS_FIRST)
        y = graph.add(kind, x, kernel_shape=size, **_windows(operation))
        return graph.add("Transpose", y, perm=_TO_CHANNELS_LAST)

    return write


def _space_to_batch(graph, operation, x, blocks, paddings):
    """Every n-th step of (batch, time, ...) as a row of its own, after zeros at both ends."""
    n = _one_block(operation)
    rest = operation.inputs[0].shape[2:].as_list()
    axes = range(3, 3 + len(rest))
    pads = graph.add("Reshape", graph.cast(paddings, "int64"), graph.longs([2]))
    before, after = graph.add("Split", pads, outputs=2, axis=0)
    one, others = graph.longs([0]), graph.longs([0] * len(rest))
    x = graph.add("Pad", x, graph.add("Concat", one, before, others, one, after, others, axis=0))
    batch = graph.shape_part(x, 0)
    time = graph.add("Div", graph.shape_part(x, 1), graph.longs([n]))
    apart = graph.add("Concat", batch, time, graph.longs([n, *rest]), axis=0)
    x = graph.add("Transpose", graph.add("Reshape", x, apart), perm=[2, 0, 1, *axes])
    rows = graph.add("Mul", batch, graph.longs([n]))
    return graph.add("Reshape", x, graph.add("Concat", rows, time, graph.longs(rest), axis=0))


def _batch_to_space(graph, operation, x, blocks, crops):
    n = _one_block(operation)
    rank = len(operation.inputs[0].shape)
    batch = graph.add("Div", graph.shape_part(x, 0), graph.longs([n]))
    others = graph.add("Slice", graph.add("Shape", x), graph.longs([1]), graph.longs([_LARGEST]))
    x = graph.add("Reshape", x, graph.add("Concat", graph.longs([n]), batch, others, axis=0))
    x = graph.add("Transpose", x, perm=[1, 2, 0, *range(3, rank + 1)])
    time = graph.add("Mul", graph.shape_part(x, 1), graph.longs([n]))
    others = graph.add("Slice", graph.add("Shape", x), graph.longs([3]), graph.longs([_LARGEST]))
    x = graph.add("Reshape", x, graph.add("Concat", batch, time, others, axis=0))
    ends = graph.add("Reshape", graph.cast(crops, "int64"), graph.longs([2]))
    first, last = graph.add("Split", ends, outputs=2, axis=0)
    return graph.add("Slice", x, first, graph.add("Sub", time, last), graph.longs([1]))


def _one_block(operation):
    blocks = _constant_of(operation.inputs[1], "a dilation")
    if blocks.shape != (1,):
        raise ExportError(
            "ONNX files are written of dilations along time alone; nothing was written. Received: "
            f"{operation.name}, of {blocks.tolist()}"
        )
    return int(blocks[0])


def _range(graph, operation, start, limit, delta):
    return graph.add("Range", start, limit, delta)


def _rsqrt(graph, operation, x):
    return graph.add("Reciprocal", graph.add("Sqrt", x))


def _log1p(graph, operation, x):
    """log(1 + x) = 2 artanh(x / (2 + x)), where 1 + x would lose what x has."""
    one, two, half = _numbers(graph, operation, 1, 2, 0.5)
    near = graph.add("Atanh", graph.add("Div", x, graph.add("Add", x, two)))
    is_small = graph.add("Less", graph.add("Abs", x), half)
    far = graph.add("Log", graph.add("Add", x, one))
    return graph.add("Where", is_small, graph.add("Mul", near, two), far)


def _expm1(graph, operation, x):
    """exp(x) - 1 = 2t / (1 - t) with t = tanh(x / 2), where exp(x) is near 1."""
    one, two = _numbers(graph, operation, 1, 2)
    t = graph.add("Tanh", graph.add("Div", x, two))
    near = graph.add("Div", graph.add("Mul", t, two), graph.add("Sub", one, t))
    far = graph.add("Sub", graph.add("Exp", x), one)
    return graph.add("Where", graph.add("Less", x, one), near, far)


def _numbers(graph, operation, *values):
    """Constants of what an operation gives."""
    dtype = operation.outputs[0].dtype.as_numpy_dtype
    return [graph.constant(value, dtype) for value in values]


def _square(graph, operation, x):
    return graph.add("Mul", x, x)


def _add_n(graph, operation, *inputs):
    return graph.add("Sum", *inputs)


def _not_infinite(graph, operation, x):
    either = graph.add("Or", graph.add("IsInf", x), graph.add("IsNaN", x))
    return graph.add("Not", either)


_NAMESAKES = {
    "Abs": "Abs",
    "Add": "Add",
    "AddV2": "Add",
    "BiasAdd": "Add",
    "Ceil": "Ceil",
    "Cos": "Cos",
    "Elu": "Elu",
    "Equal": "Equal",
    "Erf": "Erf",
    "Exp": "Exp",
    "Floor": "Floor",
    "Greater": "Greater",
    "GreaterEqual": "GreaterOrEqual",
    "IsNan": "IsNaN",
    "Less": "Less",
    "LessEqual": "LessOrEqual",
    "Log": "Log",
    "LogicalAnd": "And",
    "LogicalNot": "Not",
    "LogicalOr": "Or",
    "Maximum": "Max",
    "Minimum": "Min",
    "Mul": "Mul",
    "Neg": "Neg",
    "Pow": "Pow",
    "RealDiv": "Div",
    "Reciprocal": "Reciprocal",
    "Relu": "Relu",
    "Round": "Round",
    "SelectV2": "Where",
    "Selu": "Selu",
    "Sigmoid": "Sigmoid",
    "Sign": "Sign",
    "Sin": "Sin",
    "Softplus": "Softplus",
    "Softsign": "Softsign",
    "Sqrt": "Sqrt",
    "Sub": "Sub",
    "Tanh": "Tanh",
}
OPERATIONS = {
    **{name: _as(kind) for name, kind in _NAMESAKES.items()},
    **dict.fromkeys(
        ("EnsureShape", "Identity", "PreventGradient", "ReadVariableOp", "StopGradient"), _same
    ),
    "IdentityN": _each_same,
    "AddN": _add_n,
    "All": _of_booleans("ReduceMin"),
    "Any": _of_booleans("ReduceMax"),
    "ArgMax": _arg("ArgMax"),
    "ArgMin": _arg("ArgMin"),
    "AvgPool": _pool("AveragePool"),
    "BatchMatMulV2": _matmul,
    "BatchMatMulV3": _matmul_of_types,
    "BatchToSpaceND": _batch_to_space,
    "BroadcastTo": _broadcast_to,
    "Cast": _cast,
    "ConcatV2": _concat,
    "Const": _const,
    "Conv2D": _conv2d,
    "Cumsum": _cumsum,
    "DepthwiseConv2dNative": _depthwise_conv2d,
    "Einsum": _einsum,
    "Erfc": _erfc,
    "ExpandDims": _expand_dims,
    "Expm1": _expm1,
    "Fill": _fill,
    "FloorDiv": _floor_div,
    "FloorMod": _floor_mod,
    "GatherNd": _gather_nd,
    "GatherV2": _gather,
    "IsFinite": _not_infinite,
    "LeakyRelu": _leaky_relu,
    "Log1p": _log1p,
    "LogSoftmax": _softmax("LogSoftmax"),
    "MatMul": _matmul,
    "Max": _reduction("ReduceMax"),
    "MaxPool": _pool("MaxPool"),
    "Mean": _reduction("ReduceMean"),
    "Min": _reduction("ReduceMin"),
    "MulNoNan": _where_zero_counts,
    "NotEqual": _not_equal,
    "OneHot": _one_hot,
    "OnesLike": _filled_like(1),
    "Pack": _pack,
    "Pad": _pad,
    "PadV2": _pad,
    "Placeholder": _placeholder,
    "Prod": _reduction("ReduceProd"),
    "Range": _range,
    "Relu6": _relu6,
    "Reshape": _reshape,
    "ReverseV2": _reverse,
    "Rsqrt": _rsqrt,
    "Shape": _shape,
    "Slice": _slice,
    "Softmax": _softmax("Softmax"),
    "SpaceToBatchND": _space_to_batch,
    "Split": _split,
    "SplitV": _split_v,
    "Square": _square,
    "SquaredDifference": _squared_difference,
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "Sum": _reduction("ReduceSum"),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unpack": _unpack,
    "ZerosLike": _filled_like(0),
}
