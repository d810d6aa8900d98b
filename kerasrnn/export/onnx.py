"""ONNX: recurrent layers as the nodes of that name, or as a Scan over a cell's step."""

import collections

import tensorflow as tf

from kerasrnn import recurrence
from kerasrnn.export.artifact import Report, file_for, file_in_place, needed, reported
from kerasrnn.export.check import cases, checked, converting, loaded
from kerasrnn.export.interface import (
    BOUND,
    Interface,
    check_stateless,
    convertible,
    frozen,
)
from kerasrnn.export.onnx_graph import OPSET, Graph
from kerasrnn.export.onnx_recurrence import Recurrences

# What stands behind the name of a state that comes out.
NEXT = "_next"


def export_onnx(model, path, overwrite=False):
    """Writes a model as an ONNX file, in which inputs have the names of the model's `Input`s and
    outputs those of the layers they come from.

    LSTM, GRU (in both forms and with either update gate) and SimpleRNN of this package and of
    Keras, in one or both directions, become the nodes LSTM, GRU and RNN, unless an option asks for
    what these have not: normalization, zoneout, a reset, or other activations than tanh, sigmoid,
    relu and hard_sigmoid. Every other cell becomes a Scan over its step. Where a mask comes in, the
    node runs with `sequence_lens` if the batch is padded on the right, which the graph finds out,
    and a Scan where it is not. Batch and time stay open where the model leaves them open.

    Before it takes its place, onnxruntime runs the file on random inputs of two batches and
    lengths; what it gives may differ from what the model gives by 1e-5, divided by the largest
    output where that is above 1.

    Args:
        model: A built functional or Sequential model that computes in float32.
        path: The file to write, its name ends in ".onnx"; or an address that `tf.io.gfile` knows.
        overwrite: Whether to replace a file that is there.

    Returns:
        The file, an `Artifact` (a `pathlib.Path`), or a `RemoteArtifact` (a string) where `path` is
        an address. Its `report` says what is in there.

    Raises:
        ImportError: onnx or onnxruntime is not installed; the message has the line for pip.
        FileExistsError: `path` exists, and `overwrite` is `False`.
        ValueError: the model is not built, stateful (`export_streaming` gives the states a way in
            and out), of a class of the user's own, takes strings or does not compute in float32.
        ExportError: the model has an operation that is not written to ONNX, or the file does not
            run or does not give what the model gives.

    Source: ONNX, operators LSTM, GRU, RNN and Scan of operator set 17.

    Example:

    >>> inputs = keras.Input((None, 3), name="x")
    >>> model = keras.Model(inputs, kerasrnn.layers.GRU(4, name="y")(inputs))
    >>> path = kerasrnn.export.export_onnx(model, "net.onnx")
    >>> path.report.operations["GRU"]
    1
    """
    check_runtime()
    place = file_for(path, ".onnx", overwrite)
    interface = Interface(model, "onnx")
    check_stateless(model)
    specs = interface.specs()
    proto, _ = written(model, interface.call, specs)
    content = proto.SerializeToString()
    runner = Runner(content)
    pairs = cases(model, specs, interface.of_arrays)
    difference = checked("onnx", pairs, runner.run, BOUND)
    with file_in_place(place) as file:
        file.write(content)
    of_file = operations_of(proto), len(content), difference, BOUND
    return reported(place, Report.of("onnx", *of_file, specs))


def check_runtime():
    """Raises an `ImportError` unless all that writes and runs ONNX files is there."""
    needed("onnx", "onnx")
    needed("onnxruntime", "onnx")


def written(model, function, specs):
    """A function as an `onnx.ModelProto`, and the `tf.TensorSpec`s of its outputs by name.

    Args:
        model: The Keras model that the function calls.
        function: From named tensors to named tensors.
        specs: The `tf.TensorSpec`s of what it takes, by name.

    Raises:
        ValueError: two of the names would be one.
        ExportError: it has an operation that is not written to ONNX.
    """
    recurrences = Recurrences()
    with recurrence.through(recurrences.run), convertible(model):
        function, names = frozen(function, specs)
    # In ONNX nothing that comes out has the name of what goes in.
    results = [f"{name}{NEXT}" if name in specs else name for name in names]
    _check_names(model, [*specs, *results])
    tensors = dict(zip(results, function.outputs, strict=True))
    with converting(model, "onnx"):
        graph = Graph(recurrences.written, reserved=[*specs, *results])
        outputs = graph.include(function, names, {name: name for name in specs})
        for name, value in zip(results, outputs.values(), strict=True):
            graph.nodes.append(graph.helper.make_node("Identity", [value], [name]))
        taken = [
            graph.value_info(name, spec.dtype.as_numpy_dtype, _named_sizes(name, spec.shape))
            for name, spec in specs.items()
        ]
        given = [
            graph.value_info(name, t.dtype.as_numpy_dtype, list(t.shape))
            for name, t in tensors.items()
        ]
        opset = graph.helper.make_opsetid("", OPSET)
        # The version that runtimes of that operator set read.
        proto = graph.helper.make_model(
            graph.proto(model.name, taken, given),
            opset_imports=[opset],
            ir_version=8,
            producer_name="kerasrnn",
        )
        needed("onnx.checker", "onnx").check_model(proto, full_check=True)
    return proto, {name: tf.TensorSpec(t.shape, t.dtype, name) for name, t in tensors.items()}


def _check_names(model, names):
    twice = sorted(name for name, count in collections.Counter(names).items() if count > 1)
    if twice:
        raise ValueError(
            f"`model` must have no input, output or state that is called as a state with {NEXT!r} "
            "behind it, as it comes out of an ONNX file: name the layer, the Input or the key of "
            f"the output otherwise. Received: {model.name}, with {', '.join(map(repr, twice))} "
            "twice"
        )


def _named_sizes(name, shape):
    """The shape of an input, with a name for each size that is open.

    A name stands for one size wherever it is, and runtimes share memory by it: of what the inputs
    have in common the batch alone is sure, and of the outputs nothing.
    """
    names = ["batch", f"{name}_time"]
    names += [f"{name}_axis_{axis}" for axis in range(2, len(shape))]
    return [open_ if n is None else n for n, open_ in zip(shape, names, strict=False)]


def operations_of(proto):
    """The operations of a model and of the graphs in its nodes, counted, by name."""
    counts = {}

    def count(graph):
        for node in graph.node:
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    count(attribute.g)

    count(proto.graph)
    return dict(sorted(counts.items()))


class Runner:
    """onnxruntime with a file.

    Args:
        content: The file's bytes.
        states: The names of what comes out with `NEXT` behind them, and is called without here.
    """

    def __init__(self, content, states=()):
        runtime = needed("onnxruntime", "onnx")
        options = {"providers": ["CPUExecutionProvider"]}
        self.session = loaded("onnx", lambda: runtime.InferenceSession(content, **options))
        self.states = {f"{name}{NEXT}": name for name in states}

    def run(self, arrays):
        names = [output.name for output in self.session.get_outputs()]
        # What the graph does not depend on is no input of the session.
        taken = {one.name for one in self.session.get_inputs()}
        arrays = {name: value for name, value in arrays.items() if name in taken}
        values = self.session.run(names, arrays)
        return {self.states.get(name, name): v for name, v in zip(names, values, strict=True)}
