"""LiteRT, formerly TensorFlow Lite: its builtin operations alone, sequences of any length."""

import collections
import contextlib
import pathlib
import re
import reprlib
import tempfile
import warnings

import numpy as np
import tensorflow as tf
from keras import tree

# The seam of test_a_saved_model_holds_its_functions.
from tensorflow.core.protobuf import saved_model_pb2

from kerasrnn import recurrence
from kerasrnn.arguments import one_of, positive_integer
from kerasrnn.export.artifact import (
    Report,
    file_for,
    file_in_place,
    left_open,
    needed,
    reported,
)
from kerasrnn.export.check import ExportError, cases, checked, converting, loaded
from kerasrnn.export.interface import (
    BOUND,
    SAVE_OPTIONS,
    SIGNATURE,
    Interface,
    as_module,
    check_stateless,
    convertible,
    input_structure,
)
from kerasrnn.recurrence import carried, loop, stepping

# Of `data`, below which they say little of the ranges.
_ROWS = 100
# The largest difference let through, by `quantize`.
BOUNDS = {None: BOUND, "float16": 1e-2, "dynamic": 0.1, "int8": 0.2}


def export_litert(model, path, length=None, batch=None, quantize=None, data=None, overwrite=False):
    """Writes a model as a LiteRT file with the signature `serving_default`, in which inputs have
    the names of the model's `Input`s and outputs those of the layers they come from.

    The file needs no Flex operations: recurrences of every cell run as a loop of builtin ones, in
    both directions, with masks, for any batch and length unless the model or an argument fixes
    them. Before it takes its place, LiteRT's interpreter runs it on random inputs of two batches
    and lengths; what it gives may differ from what the model gives, divided by the largest output
    where that is above 1, by 1e-5, with `quantize="float16"` by 1e-2, with "dynamic" by 0.1, and
    with "int8" by 0.2 on the first rows of `data`: `report.difference` is what it costs.

    LiteRT's converter takes wrong ranges of what is inside a loop, or ends the process, so that
    with "int8" the steps are written one after the other, for one length alone.

    Args:
        model: A built functional or Sequential model that computes in float32.
        path: The file to write, its name ends in ".tflite"; or an address that `tf.io.gfile` knows.
        length, batch: Positive integers, the one number of time steps and of rows that the file is
            to take, where the model leaves them open: some accelerators want them. Default: any.
        quantize: `None`; "float16", the weights in half the bytes; "dynamic", weights of products
            and embeddings in int8, those of 1024 numbers or more; or "int8", what goes into the
            products, too, in the ranges that `data` shows, which needs a `length`, unless the model
            fixes it.
        data: Inputs as `fit` takes them, an array (batch, time, ...), a list or a dictionary of
            them, of that length and of a hundred rows or more: "int8" needs them.
        overwrite: Whether to replace a file that is there.

    Returns:
        The file, an `Artifact` (a `pathlib.Path`), or a `RemoteArtifact` (a string) where `path` is
        an address. Its `report` says what is in there.

    Raises:
        ImportError: ai-edge-litert is not installed; the message has the line for pip.
        FileExistsError: `path` exists, and `overwrite` is `False`.
        ValueError: the model is not built, stateful (`export_streaming` gives the states a way in
            and out), of a class of the user's own, takes strings or does not compute in float32; an
            argument is outside its range.
        ExportError: the converter refuses the model, or the file does not run or does not give
            what the model gives.

    Warns:
        UserWarning: "dynamic" has quantized nothing; `data` has fewer than a hundred rows.

    Source: LiteRT, "Convert RNN" and "Post-training quantization" of its documentation;
    `minimum_elements_for_weights` in the converter's quantize_weights.h.

    Example:

    >>> inputs = keras.Input((None, 3), name="x")
    >>> model = keras.Model(inputs, kerasrnn.layers.GRU(4, name="y")(inputs))
    >>> path = kerasrnn.export.export_litert(model, "net.tflite")
    >>> path.report.dynamic
    ('batch', 'time')
    """
    needed("ai_edge_litert.interpreter", "litert")
    one_of(BOUNDS, "quantize", quantize)
    place = file_for(path, ".tflite", overwrite)
    interface = Interface(model, "litert")
    check_stateless(model)
    for name, value in (("length", length), ("batch", batch)):
        if value is not None:
            positive_integer(name, value)
    specs = interface.specs(batch, length)
    calibration = _calibration(interface, specs, quantize, data)
    rows = sum(len(next(iter(arrays.values()))) for arrays in calibration)
    if quantize == "int8" and rows < _ROWS:
        warnings.warn(
            f"quantize='int8' sets its ranges by `data`, of which {_ROWS} rows or more show what "
            "the model meets; of fewer it cuts off what they do not show. "
            f"Received: {rows} rows",
            stacklevel=2,
        )

    run_pass = _step_by_step if quantize == "int8" else carried.run
    with recurrence.through(run_pass), convertible(model):
        module = as_module({SIGNATURE: (interface.call, specs)})
    content = converted(model, module, [SIGNATURE], quantize, calibration)
    runner = Runner(content)
    if quantize == "dynamic" and not runner.has_int8():
        warnings.warn(
            "quantize='dynamic' has quantized nothing: LiteRT's converter leaves weights of fewer "
            f"than 1024 numbers in float32, and {model.name} has no larger ones in a product or an "
            "embedding. quantize='float16' halves small ones, too; quantize='int8' takes all.",
            stacklevel=2,
        )
    if quantize == "int8":
        # What it costs is asked on what it was made for.
        pairs = [(x, interface.of_arrays(x)) for x in calibration[:8]]
    else:
        pairs = cases(model, specs, interface.of_arrays)
        if quantize:
            # Gates go over with rounded weights: of large inputs it has to be finite alone.
            pairs = [case._replace(slack=np.inf) if case.slack else case for case in pairs]
    bound = BOUNDS[quantize]
    inputs_are = "rows of `data`" if quantize == "int8" else "random inputs"
    difference = checked(
        "litert", pairs, lambda arrays: runner.run(SIGNATURE, arrays), bound, inputs_are
    )
    with file_in_place(place) as file:
        file.write(content)
    of_file = runner.operations(), len(content), difference, bound
    return reported(place, Report.of("litert", *of_file, specs))


def converted(model, module, names, quantize=None, calibration=()):
    """The bytes of a LiteRT file.

    Args:
        model: The Keras model, for messages.
        module: A `tf.Module`.
        names: Those of its concrete functions that are to be signatures.
        quantize, calibration: As `export_litert` has them.

    Raises:
        ExportError: the converter refuses one.
    """
    with tempfile.TemporaryDirectory() as folder:
        signatures = {name: getattr(module, name) for name in names}
        module.stand_ins = _stand_ins()
        tf.saved_model.save(module, folder, signatures, SAVE_OPTIONS)
        _replace_operations(pathlib.Path(folder, "saved_model.pb"), module.stand_ins)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=names)
        if quantize:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantize == "int8":
            converter.representative_dataset = lambda: calibration
        with converting(model, "litert"), _named_operations(model), warnings.catch_warnings():
            # The converter's own, of what it calls itself.
            warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter")
            return converter.convert()


def _softplus(x):
    return tf.nn.relu(x) + _log1p(tf.exp(-tf.abs(x)))


def _log1p(x):
    """log(1 + x) = 2 artanh(s) with s = x / (2 + x), as a series where s is small."""
    s = x / (2 + x)
    series = tf.zeros_like(x)
    # Up to s^17, which is below what float32 has at s = -1/3.
    for n in range(17, 0, -2):
        series = series * s * s + 1 / n
    return tf.where(tf.abs(x) < 0.5, 2 * s * series, tf.math.log(1 + x))


def _expm1(x):
    """exp(x) - 1 = 2t / (1 - t) with t = tanh(x / 2), where exp(x) is near 1."""
    t = tf.tanh(x / 2)
    return tf.where(x < 1, 2 * t / (1 - t), tf.exp(x) - 1)


# What stands for operations that LiteRT's converter writes as log(1 + exp(x)), log(1 + x) and
# exp(x) - 1.
_STABLE = {"Softplus": _softplus, "Log1p": _log1p, "Expm1": _expm1}


def _stand_ins():
    """For each operation in `_STABLE`, by its name, a function of the same numbers."""
    spec = tf.TensorSpec(None, tf.float32)
    return {
        kind: tf.function(function, autograph=False).get_concrete_function(spec)
        for kind, function in _STABLE.items()
    }


def _replace_operations(path, stand_ins):
    """Has the functions of a SavedModel call others in the place of operations in float32.

    Args:
        path: The file of its graphs.
        stand_ins: Those that are called, functions of the same SavedModel, by the names of the
            operations.
    """
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    dtype = tf.float32.as_datatype_enum
    for function in saved.meta_graphs[0].graph_def.library.function:
        renamed = {}
        for node in function.node_def:
            if node.op not in stand_ins or node.attr["T"].type != dtype:
                continue
            output = "activations" if node.op == "Softplus" else "y"
            renamed[f"{node.name}:{output}:0"] = f"{node.name}:output:0"
            node.attr["f"].func.name = stand_ins[node.op].name.decode()
            node.op = "PartitionedCall"
            del node.attr["T"]
            for name in ("Tin", "Tout"):
                node.attr[name].list.type.append(dtype)
        for node in function.node_def:
            node.input[:] = [renamed.get(name, name) for name in node.input]
        for name, value in function.ret.items():
            function.ret[name] = renamed.get(value, value)
    path.write_bytes(saved.SerializeToString())


@contextlib.contextmanager
def _named_operations(model):
    """Has the converter's errors say which operations they are of."""
    try:
        yield
    except Exception as error:
        named = re.findall(r"'tf\.(\w+)' op|TF Select ops: (.*)", str(error))
        # Where it found no other words.
        named = named or re.findall(r'error: loc\(callsite\(fused\["((\w+)):', str(error))
        operations = ", ".join(dict.fromkeys(a or b for a, b in named)) or str(error)[:500]
        operations = operations or "the converter's own error, which says nothing more"
        raise ExportError(
            f"LiteRT has no builtin operations for all that {model.name} does; nothing was "
            f"written. Received: {operations}"
        ) from error


class Runner:
    """LiteRT's interpreter with a file.

    Args:
        content: The file's bytes.
    """

    def __init__(self, content):
        self.content = content
        module = needed("ai_edge_litert.interpreter", "litert")
        self.interpreter = loaded("litert", lambda: module.Interpreter(model_content=content))

    def run(self, signature, arrays):
        return self.interpreter.get_signature_runner(signature)(**arrays)

    def operations(self):
        """The operations of all signatures and of the loops in them, counted, by name."""
        schema = needed("ai_edge_litert.schema_py_generated", "litert")
        content = self._content()
        names = {
            code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()
        }
        counts = collections.Counter(
            names[content.operatorCodes[one.opcodeIndex].builtinCode]
            for graph in content.subgraphs
            for one in graph.operators
        )
        return dict(sorted(counts.items()))

    def has_int8(self):
        """Whether there is a tensor of int8."""
        int8 = needed("ai_edge_litert.schema_py_generated", "litert").TensorType.INT8
        return any(one.type == int8 for graph in self._content().subgraphs for one in graph.tensors)

    def _content(self):
        schema = needed("ai_edge_litert.schema_py_generated", "litert")
        return schema.ModelT.InitFromPackedBuf(self.content)


def _step_by_step(sequence_pass):
    """Takes a pass without a loop, as `kerasrnn.recurrence.through` has it.

    A masked step is s_{t-1} + m_t ∘ (s_t - s_{t-1}) with m_t = 0: where booleans choose between
    numbers in int8, LiteRT's converter or interpreter gives up.
    """
    if sequence_pass.mask is None:
        return loop.run(sequence_pass._replace(unroll=True))
    mask = tf.cast(sequence_pass.mask, sequence_pass.sequences.dtype)
    masks = tf.unstack(tf.reverse(mask, [1]) if sequence_pass.go_backwards else mask, axis=1)

    def unrolled(advance, steps, output, states, count, return_sequences):
        outputs = []
        values = [tf.unstack(value) for value in tree.flatten(steps)]
        for m, *now in zip(masks, *values, strict=True):
            new = advance(tree.pack_sequence_as(steps, now), output, states)
            old = tf.zeros_like(output) if sequence_pass.zero_output_for_mask else output
            output, states = tree.map_structure(
                lambda new, old, m=m: old + m * (new - old), tuple(new), (old, states)
            )
            outputs.append(output)
        return output, tf.stack(outputs), states

    return stepping.run(sequence_pass._replace(mask=None), unrolled)


def _by_name(model, data):
    """What `fit` takes, as arrays by the names of the inputs: a dictionary by its keys, which are
    those of the model's own dictionary where it has one, else the names; all else in order."""
    taken = input_structure(model)
    if isinstance(data, dict) and not any(map(tree.is_nested, data.values())):
        named = taken if isinstance(taken, dict) else {v.name: v for v in tree.flatten(taken)}
        keys, arrays = list(named), [data.get(key) for key in named]
        names = [part.name for part in named.values()]
        fits = data.keys() == named.keys()
    else:
        keys = names = [part.name for part in tree.flatten(taken)]
        arrays = tree.flatten(data)
        fits = len(arrays) == len(names)
    if not fits or any(not hasattr(v, "shape") for v in arrays):
        # In full, since that is what differs.
        received = f"the keys {[*data]}" if isinstance(data, dict) else reprlib.repr(data)
        raise ValueError(
            "`data` must hold an array for each of the model's inputs with quantize='int8': "
            f"{', '.join(map(str, keys))}. Received: data={received}"
        )
    return dict(zip(names, map(np.asarray, arrays), strict=True))


def _calibration(interface, specs, quantize, data):
    """`data` as dictionaries of arrays, each of as many rows as the file takes at once."""
    if quantize != "int8":
        if data is not None:
            raise ValueError(
                "`data` is for quantize='int8', which sets its ranges by it. "
                f"Received: data with quantize={quantize!r}"
            )
        return ()
    if "time" in left_open(specs):
        raise ValueError(
            "`length` must be a number of time steps with quantize='int8', for which the steps are "
            f"written one after the other. Received: length=None, for {interface.model.name}"
        )
    arrays = _by_name(interface.model, data)
    for name, v in arrays.items():
        if v.dtype.kind not in "fiub" or not np.isfinite(v).all():
            raise ValueError(
                f"`data` must hold finite numbers. Received: {name} with {reprlib.repr(v)}"
            )
        if v.shape[1:] != tuple(specs[name].shape[1:]) or not len(v):
            raise ValueError(
                f"`data` must have the shape of what the file takes, here {specs[name].shape} of "
                f"{name}. Received: an array of the shape {v.shape}"
            )
    rows = next(iter(specs.values())).shape[0] or 1
    lengths = set(map(len, arrays.values()))
    if len(lengths) > 1 or min(lengths) < rows:
        raise ValueError(
            f"`data` must hold at least as many rows as the file takes at once, {rows}, and as "
            "many for each input. "
            f"Received: {', '.join(f'{n}: {len(v)}' for n, v in arrays.items())}"
        )
    count = min(map(len, arrays.values())) // rows
    return [
        {
            name: v[rows * i : rows * (i + 1)].astype(interface.inputs[name].dtype)
            for name, v in arrays.items()
        }
        for i in range(count)
    ]
