"""Recurrences in ONNX: as one node where ONNX has the cell, else as a Scan over its step.

LSTM    gates in the order i, o, f, c; Keras's i, f, c, o
GRU     z, r, h as in Keras; linear_before_reset for `reset_after`
RNN
"""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from kerasrnn import cells
from kerasrnn.recurrence import loop, stepping

_ACTIVATIONS = {
    keras.activations.tanh: "Tanh",
    keras.activations.sigmoid: "Sigmoid",
    keras.activations.relu: "Relu",
    keras.activations.hard_sigmoid: "HardSigmoid",
}
# Those of hard_sigmoid; of ONNX's names here no other has any.
_ALPHA, _BETA = 1 / 6, 0.5
_KINDS = {
    cells.SimpleRNNCell: "RNN",
    cells.LSTMCell: "LSTM",
    cells.GRUCell: "GRU",
    keras.layers.SimpleRNNCell: "RNN",
    keras.layers.LSTMCell: "LSTM",
    keras.layers.GRUCell: "GRU",
}


class Recurrences:
    """The recurrences of a model that is traced, each one operation of the traced graph that stands
    for it.

    Attributes:
        written: For each such operation by its name `write(graph, inputs)`, as `Graph` takes them.
    """

    def __init__(self):
        self.written = {}

    def run(self, sequence_pass):
        """Takes a pass, as `kerasrnn.recurrence.through` has it."""
        node = _node_of(sequence_pass)
        if node is None:
            return stepping.run(sequence_pass, self._scan)
        x, mask = sequence_pass.sequences, sequence_pass.mask
        inputs = [x, *sequence_pass.states] + ([] if mask is None else [mask])
        units = sequence_pass.states[0].shape[-1]
        time = [x.shape[0], x.shape[1], units]
        shapes = [[x.shape[0], units], time, *(state.shape for state in sequence_pass.states)]
        options = {
            "go_backwards": sequence_pass.go_backwards,
            "zero_output": sequence_pass.zero_output_for_mask,
            "step": None if mask is None else _masked_step(sequence_pass),
        }

        def write(graph, inputs):
            return _written_node(graph, node, inputs, mask is not None, **options)

        last, outputs, *states = self._stand_in(inputs, shapes, [x.dtype] * len(shapes), write)
        if not sequence_pass.return_sequences:
            outputs = tf.expand_dims(last, 1)
        return last, outputs, states

    def _scan(self, advance, steps, output, states, count, return_sequences):
        carried = [output, *tree.flatten(states)]

        def one(now, output, flat):
            return advance(now, output, tree.pack_sequence_as(states, flat))

        now = {name: value[0] for name, value in steps.items()}
        step = _Step.traced(one, now, carried)
        shapes = [v.shape for v in carried]
        dtypes = [v.dtype for v in carried]
        if return_sequences:
            shapes.append([steps["x"].shape[0], *output.shape])
            dtypes.append(output.dtype)

        def write(graph, inputs):
            inputs = iter(inputs)
            before = [next(inputs) for _ in carried]
            scanned = {name: next(inputs) for name in steps}
            outside = dict(zip(step.outside, inputs, strict=True))
            return step.write(graph, before, scanned, outside, return_sequences)

        inputs = [*carried, *steps.values(), *step.outside.values()]
        made = self._stand_in(inputs, shapes, dtypes, write)
        last = made[0]
        outputs = made[-1] if return_sequences else tf.expand_dims(last, 0)
        return last, outputs, tree.pack_sequence_as(states, made[1 : len(carried)])

    def _stand_in(self, inputs, shapes, dtypes, write):
        """The outputs of one operation that is to be written by `write`."""

        def never_runs(*_):
            raise NotImplementedError

        outputs = tf.numpy_function(never_runs, inputs, dtypes, stateful=False)
        self.written[outputs[0].op.name] = write
        # Not by set_shape, which is no part of the graph.
        return [tf.ensure_shape(y, shape) for y, shape in zip(outputs, shapes, strict=True)]


class _Step(NamedTuple):
    """One step of a recurrence as a traced TensorFlow function.

    Attributes:
        function: A `ConcreteFunction` of what is carried and what differs from step to step.
        carried, scanned: The `tf.TensorSpec`s of both, by name; the function gives what is carried.
        constants: The values of the variables that it reads, by the names of their placeholders.
        outside: Tensors from outside that it uses, by the names of their placeholders.
    """

    function: Any
    carried: dict
    scanned: dict
    constants: dict
    outside: dict

    @classmethod
    def traced(cls, step, now, carried):
        """A step.

        Args:
            step: `step(now, output, states)` gives the output and the states.
            now: What differs from step to step, of one step, by name.
            carried: The output and the states before.
        """
        specs = {f"carried_{i}": tf.TensorSpec(v.shape, v.dtype) for i, v in enumerate(carried)}
        scanned = {name: tf.TensorSpec(v.shape, v.dtype) for name, v in now.items()}

        def function(**tensors):
            output, *states = (tensors[name] for name in specs)
            output, states = step({name: tensors[name] for name in now}, output, states)
            return [tf.identity(v) for v in (output, *tree.flatten(states))]

        named = {
            name: tf.TensorSpec(spec.shape, spec.dtype, name)
            for name, spec in (specs | scanned).items()
        }
        function = tf.function(function, autograph=False).get_concrete_function(**named)
        captured = function.captured_inputs
        inside = function.inputs[len(function.inputs) - len(captured) :]
        constants, outside = {}, {}
        for tensor, placeholder in zip(captured, inside, strict=True):
            origin = _origin(tensor)
            if not hasattr(origin, "numpy"):
                outside[placeholder.op.name] = origin
            elif origin.dtype == tf.resource:
                constants[placeholder.op.name] = _value_of(origin, placeholder)
            else:
                constants[placeholder.op.name] = origin
        return cls(function, specs, scanned, constants, outside)

    def write(self, graph, carried, scanned, outside, collect):
        """Writes a Scan; gives the names of what was carried to the end and, with `collect`, of
        the outputs of all steps."""
        body = graph.inner()
        names = {name: body.name(name) for name in (*self.carried, *self.scanned)}
        constants = {name: body.constant(np.asarray(v)) for name, v in self.constants.items()}
        made = body.include(self.function, self.carried, names | constants | outside)
        ends = [body.add("Identity", name) for name in made.values()]
        collected = [body.add("Identity", made["carried_0"])] if collect else []

        def info(name, spec):
            return graph.value_info(name, spec.dtype.as_numpy_dtype, list(spec.shape))

        inputs = [info(names[k], v) for k, v in (self.carried | self.scanned).items()]
        outputs = [info(k, v) for k, v in zip(ends, self.carried.values(), strict=True)]
        outputs += [info(name, self.carried["carried_0"]) for name in collected]
        order = [scanned[name] for name in self.scanned]
        results = graph.add(
            "Scan",
            *carried,
            *order,
            outputs=len(ends) + collect,
            num_scan_inputs=len(order),
            body=body.proto(graph.name("step"), inputs, outputs),
        )
        return [results] if isinstance(results, str) else results


def _value_of(handle, placeholder):
    """The value of a variable, whose handle a function has as a placeholder."""
    dtype = placeholder.consumers()[0].get_attr("dtype")
    with tf.init_scope():
        return tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)


def _origin(tensor):
    """What a tensor of a graph stands for, outside of all graphs that have captured it."""
    # The seam of test_functions_say_what_they_have_captured.
    while not hasattr(tensor, "numpy"):
        captures = getattr(tensor.graph, "captures", ())
        outer = next((outer for outer, inner in captures if inner is tensor), None)
        if outer is None:
            return tensor
        tensor = outer
    return tensor


def _masked_step(sequence_pass):
    """One step of the input, with its mask."""
    x, mask = sequence_pass.sequences, sequence_pass.mask

    def step(now, output, states):
        one = sequence_pass._replace(
            sequences=tf.expand_dims(now["x"], 1),
            mask=tf.expand_dims(now["mask"], 1),
            states=states,
            unroll=True,
            go_backwards=False,
        )
        y, _, states = loop.run(one)
        skipped = tf.zeros_like(output) if sequence_pass.zero_output_for_mask else output
        return tf.where(now["mask"], y, skipped), states

    carried = [sequence_pass.states[0], *sequence_pass.states]
    return _Step.traced(step, {"x": x[:, 0], "mask": mask[:, 0]}, carried)


class _Node(NamedTuple):
    """A node that ONNX has for a cell: its name, W, R, B as the node wants them, attributes."""

    kind: str
    weights: tuple
    attributes: dict


def _node_of(sequence_pass):
    """The node for a pass, or `None` where ONNX has none."""
    cell = sequence_pass.cell
    kind = _KINDS.get(type(cell))
    activations = [getattr(cell, "activation", None)]
    if kind in ("LSTM", "GRU"):
        activations.insert(0, cell.recurrent_activation)
    if kind == "LSTM":
        activations.append(cell.activation)
    has_options = (
        sequence_pass.reset is not None
        or getattr(cell, "normalization", None)
        or getattr(cell, "zone_rates", None)
    )
    if kind is None or has_options or any(one not in _ACTIVATIONS for one in activations):
        return None
    writes = getattr(cell, "update_gate", "keep") == "write"
    if writes and cell.recurrent_activation is not keras.activations.sigmoid:
        return None
    names = [_ACTIVATIONS[one] for one in activations]
    units = cell.units
    attributes = {"hidden_size": units, "activations": names}
    # Taken in turn by those activations alone that have such a parameter.
    if count := names.count("HardSigmoid"):
        attributes |= {"activation_alpha": [_ALPHA] * count, "activation_beta": [_BETA] * count}
    if kind == "GRU":
        attributes["linear_before_reset"] = int(cell.reset_after)
    weights = [cell.kernel, cell.recurrent_kernel]
    weights += [] if cell.bias is None else [cell.bias]
    with tf.init_scope():
        weights = [np.asarray(weight) for weight in weights]
    if writes:
        weights = cells.flip_update_gate(weights)
    kernel, recurrent, *bias = weights
    width = kernel.shape[1]
    bias = bias[0] if bias else np.zeros(width, kernel.dtype)
    both = bias if bias.ndim == 2 else np.stack([bias, np.zeros_like(bias)])

    def ordered(v):
        if kind != "LSTM":
            return v
        i, f, c, o = np.split(v, 4, axis=-1)
        return np.concatenate([i, o, f, c], axis=-1)

    arrays = (ordered(kernel).T, ordered(recurrent).T, ordered(both).reshape(-1))
    return _Node(kind, tuple(v[None] for v in arrays), attributes)


def _written_node(graph, node, inputs, masked, go_backwards, zero_output, step):
    """The last output, those of all steps (batch, time, units) and the states."""
    x, *states = inputs[:-1] if masked else inputs
    x = graph.add("Transpose", x, perm=[1, 0, 2])
    if not masked:
        outputs, finals = _run_node(graph, node, x, states, "", go_backwards)
        outputs = graph.add("Transpose", outputs, perm=[1, 0, 2])
        return [finals[0], outputs, *finals]

    mask = graph.add("Transpose", inputs[-1], perm=[1, 0, 2])
    lengths, fits = _right_padded(graph, mask)
    branches = []
    for padded in (True, False):
        inner = graph.inner()
        if padded:
            last, outputs, others = _run_padded(
                inner, node, x, states, mask, lengths, go_backwards, zero_output
            )
            made = [last, outputs, last, *others]
        else:
            scanned = {"x": x, "mask": mask}
            if go_backwards:
                scanned = {name: inner.reversed(value, 0) for name, value in scanned.items()}
            zeros = inner.add("Sub", states[0], states[0])
            last, *finals, outputs = step.write(inner, [zeros, *states], scanned, {}, True)
            made = [last, outputs, *finals]
        made = [inner.add("Identity", name) for name in made]
        ranks = [2, 3, *(2 for _ in states)]
        infos = [
            graph.value_info(name, "float32", [None] * rank)
            for name, rank in zip(made, ranks, strict=True)
        ]
        branches.append(inner.proto(graph.name("branch"), [], infos))
    last, outputs, *finals = graph.add(
        "If", fits, outputs=2 + len(states), then_branch=branches[0], else_branch=branches[1]
    )
    return [last, graph.add("Transpose", outputs, perm=[1, 0, 2]), *finals]


def _run_padded(graph, node, x, states, mask, lengths, go_backwards, zero_output):
    """The last output, all outputs in the order of the steps taken and the states but for the
    first, of rows that are padded on the right.

    No output is read behind a row's length, and no row is reversed by the node: OpenVINO runs on
    over the padding.
    """

    def turned(v):
        return graph.add("ReverseSequence", v, long_lengths, time_axis=0, batch_axis=1)

    long_lengths = graph.cast(lengths, "int64")
    x = turned(x) if go_backwards else x
    outputs, (_, *others) = _run_node(graph, node, x, states, lengths, go_backwards=False)
    ends = graph.add("Sub", long_lengths, graph.longs([1]))
    last = graph.add(
        "GatherND",
        graph.add("Transpose", outputs, perm=[1, 0, 2]),
        graph.add("Unsqueeze", ends, graph.longs([1])),
        batch_dims=1,
    )
    zero = graph.constant(0, "float32")
    repeats = not (go_backwards or zero_output)
    behind = graph.add("Unsqueeze", last, graph.longs([0])) if repeats else zero
    outputs = graph.add("Where", mask, outputs, behind)
    if go_backwards:
        outputs = graph.reversed(turned(outputs), 0)
    return last, outputs, others


def _right_padded(graph, mask):
    """The lengths of rows that are padded on the right, and whether that is what all rows are, of
    one step or more: of a mask (time, batch, 1)."""
    flat = graph.add("Squeeze", mask, graph.longs([2]))
    counted = graph.cast(flat, "int32")
    lengths = graph.add("ReduceSum", counted, graph.longs([0]), keepdims=0)
    time = graph.add("Squeeze", graph.shape_part(mask, 0), graph.longs([0]))
    zero, one = graph.constant(0, "int64"), graph.constant(1, "int64")
    steps = graph.add("Unsqueeze", graph.add("Range", zero, time, one), graph.longs([1]))
    padded = graph.add("Less", graph.cast(steps, "int32"), lengths)
    same = graph.cast(graph.add("Equal", graph.cast(padded, "int32"), counted), "int32")
    all_same = graph.add("ReduceMin", same, keepdims=0)
    shortest = graph.add("ReduceMin", lengths, keepdims=0)
    some = graph.add("Greater", shortest, graph.constant(0, "int32"))
    return lengths, graph.add("And", graph.cast(all_same, "bool"), some)


def _run_node(graph, node, x, states, lengths, go_backwards):
    """The outputs (time, batch, units), in the order of the steps taken, and the states."""
    first = [graph.add("Unsqueeze", state, graph.longs([0])) for state in states]
    y, *finals = graph.add(
        node.kind,
        x,
        *map(graph.constant, node.weights),
        lengths,
        *first,
        outputs=1 + len(states),
        direction="reverse" if go_backwards else "forward",
        **node.attributes,
    )
    y = graph.add("Squeeze", y, graph.longs([1]))
    finals = [graph.add("Squeeze", state, graph.longs([0])) for state in finals]
    return (graph.reversed(y, 0) if go_backwards else y), finals
