"""Which models run step by step: those whose layers and operations need no other step but through
their states."""

import contextlib
import re

import keras
import tensorflow as tf
from keras import tree

from kerasrnn import recurrence
from kerasrnn.diagnostics.looking import shadowed
from kerasrnn.export.interface import convertible
from kerasrnn.inside import recurrent_paths, stateful_layers
from kerasrnn.layers.group import Connected
from kerasrnn.recurrence import loop

# A number of steps that is no other size: an axis of that size is time.
_LENGTH = 1_000_003

# What treats each step by itself.
_BY_STEP = (
    keras.layers.InputLayer,
    keras.layers.Activation,
    keras.layers.ActivityRegularization,
    keras.layers.AlphaDropout,
    keras.layers.Dense,
    keras.layers.Dropout,
    keras.layers.ELU,
    keras.layers.Embedding,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.LeakyReLU,
    keras.layers.Masking,
    keras.layers.ReLU,
    keras.layers.Rescaling,
    keras.layers.SpatialDropout1D,
    keras.layers.TimeDistributed,
    *(keras.layers.Add, keras.layers.Average, keras.layers.Maximum, keras.layers.Minimum),
    *(keras.layers.Multiply, keras.layers.Subtract),
)
# The same where `axis` says so.
_BY_AXIS = (
    keras.layers.BatchNormalization,
    keras.layers.Concatenate,
    keras.layers.LayerNormalization,
    keras.layers.Normalization,
    keras.layers.RMSNormalization,
    keras.layers.Softmax,
    keras.layers.UnitNormalization,
)
# Operations of `keras.ops`, by the names of their classes: what a functional model has of
# arithmetic, and of the masks that its layers make and join.
_NUMBER_BY_NUMBER = {
    *("Abs", "Absolute", "Add", "Cast", "Clip", "Divide", "Elu", "Equal"),
    *("Exp", "Gelu", "Greater", "GreaterEqual", "LeakyRelu", "Less"),
    *("LessEqual", "Log", "LogicalAnd", "LogicalNot", "LogicalOr", "LogicalXor", "Maximum"),
    *("Minimum", "Multiply", "Negative", "NotEqual", "OnesLike", "Power", "Relu", "Relu6"),
    *("Sigmoid", "Silu", "Softplus", "Softsign", "Sqrt", "Square", "StopGradient"),
    *("Subtract", "Tanh", "TrueDivide", "Where", "ZerosLike"),
}
_OPERATIONS_BY_AXIS = {
    *("All", "Amax", "Amin", "Any", "Argmax", "Argmin", "Argsort", "Average", "Concatenate"),
    *("CountNonzero", "Cumprod", "Cumsum", "LogSoftmax", "Logsumexp", "Max", "Mean", "Median"),
    *("Min", "Prod", "Softmax", "Sort", "Squeeze", "Std", "Sum", "Var"),
}
# Whose axes are those of the result.
_NEW_AXES = {"ExpandDims", "Stack"}


def sequences_of(interface):
    """The names of the outputs of a model that have time; the others are those of the last step.

    Args:
        interface: The model's `Interface`.

    Raises:
        ValueError: the model cannot run step by step; it names the first layer or operation that
            cannot.
    """
    parts = parts_over_time(interface.model)
    for part in parts:
        if reason := _refused(part):
            raise _refusal(part, reason)
    refusals = []
    specs = {
        name: tf.TensorSpec([None, _LENGTH, *part.shape[2:]], part.dtype)
        for name, part in interface.inputs.items()
    }
    watched = [
        (part, _watcher(part, refusals))
        for part in parts
        if not isinstance(part, keras.layers.InputLayer)
    ]
    with running(interface.model, _over_time), shadowed("call", watched):
        try:
            outputs = tf.function(interface.call, autograph=False).get_concrete_function(specs)
        except Exception as error:
            if not refusals:
                raise _refusal(interface.model, _of_length(error)) from error
    if refusals:
        raise _refusal(*refusals[0])
    outputs = outputs.structured_outputs
    return {name for name, y in outputs.items() if _has_time(y)}


def parts_over_time(layer):
    """A layer, and the layers and operations in it that run over its time, each once; not those
    that a TimeDistributed runs at each step."""
    within = ()
    if isinstance(layer, keras.Model):
        within = getattr(layer, "operations", None) or layer.layers
    elif isinstance(layer, Connected):
        within = layer.layers
    parts = [layer, *(part for one in within for part in parts_over_time(one))]
    return list({id(part): part for part in parts}.values())


@contextlib.contextmanager
def running(model, run_pass):
    """Has a model, inside, take sequences of any length, its passes through `run_pass`, without the
    states that stateful layers keep."""
    with recurrence.through(run_pass), convertible(model), stateless(model), _any_length(model):
        yield


@contextlib.contextmanager
def stateless(model):
    """Has the stateful layers of a model, inside, start from their initial states and keep none."""
    layers = stateful_layers(model)
    for layer in layers:
        layer.stateful = False
    try:
        yield
    finally:
        for layer in layers:
            layer.stateful = True


@contextlib.contextmanager
def _any_length(model):
    """Has no functional model in a model insist on the length of its Input, inside."""
    models = [
        part
        for part in parts_over_time(model)
        if isinstance(part, keras.Model) and not isinstance(part, keras.Sequential)
    ]
    specs = [part.input_spec for part in models]
    for part in models:
        part.input_spec = None
    try:
        yield
    finally:
        for part, spec in zip(models, specs, strict=True):
            part.input_spec = spec


def _over_time(sequence_pass):
    last, outputs, states = loop.run(sequence_pass._replace(unroll=False))
    if sequence_pass.return_sequences:
        # The loop does not tell how many its outputs are.
        outputs.set_shape([None, sequence_pass.sequences.shape[1], *outputs.shape[2:]])
    return last, outputs, states


def _refusal(part, reason):
    return ValueError(
        "`model` must be causal and made of layers whose step needs no other step but through "
        "their states: recurrent ones forward in time, stacks and connections of them, causal "
        "Conv1D, Dense and EinsumDense, Embedding, normalization of the last axis, dropout, "
        "activations. "
        f"Received: {part.name} ({type(part).__name__}), {reason}"
    )


def _of_length(error):
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    # Keras has a line before TensorFlow's or its own message, which says where.
    message = next((line for line in lines if "Exception encountered" not in line), lines[0])
    return f"which does not run over another number of steps: {message.strip()[:300]}"


def _refused(part):
    """Why a layer or an operation has no step, whatever it is called on, or `None`."""
    if isinstance(part, keras.Model):
        return None if getattr(part, "inputs", None) else "a model of a class of its own"
    if isinstance(part, keras.layers.Bidirectional) or getattr(part, "go_backwards", False):
        return "which runs against the time of its input"
    if isinstance(part, keras.layers.Conv1D):
        of_one_step = part.padding == "causal" or part.kernel_size == (1,)
        if of_one_step and part.strides == (1,):
            return None
        return f"with padding={part.padding!r} and strides={part.strides}"
    if isinstance(part, keras.layers.PReLU):
        # Those of the axes behind the batch.
        time, *features = part.alpha.shape
        if features and time != 1:
            return "with a weight for each time step; shared_axes=[1] has one for all"
        return None
    if isinstance(
        part, keras.layers.ConvLSTM1D | keras.layers.ConvLSTM2D | keras.layers.ConvLSTM3D
    ):
        return "whose states are as large as its input"
    if isinstance(part, keras.layers.Layer):
        known = (keras.layers.RNN, keras.layers.EinsumDense, Connected, *_BY_STEP, *_BY_AXIS)
        return None if isinstance(part, known) else "which may look at other steps"
    known = _NUMBER_BY_NUMBER | _OPERATIONS_BY_AXIS | _NEW_AXES | {"GetItem"}
    return None if type(part).__name__ in known else "an operation that may look at other steps"


def _watcher(part, refusals):
    """Notes in `refusals` a pair of the part and why it has no step, where it is called on what
    tells."""

    def call(original, *args, **kwargs):
        tensors = [v for v in tree.flatten((args, kwargs)) if isinstance(v, tf.Tensor)]
        sequences = [v for v in tensors if _has_time(v)]
        if sequences and (reason := _refused_on(part, sequences, tensors, args, kwargs)):
            refusals.append((part, reason))
        try:
            if isinstance(part, keras.layers.TimeDistributed) and recurrent_paths(part):
                with recurrence.through(_at_each_step(part, refusals)):
                    return original(*args, **kwargs)
            return original(*args, **kwargs)
        except Exception as error:
            refusals.append((part, _of_length(error)))
            raise

    return call


def _has_time(tensor):
    return len(tensor.shape) > 1 and tensor.shape[1] == _LENGTH


def _at_each_step(part, refusals):
    def run(sequence_pass):
        if sequence_pass.sequences.shape[1] is None:
            reason = "with a recurrent layer over an open length, which takes a loop; its Input "
            refusals.append((part, reason + "must fix the length of what goes in at each step"))
        return _over_time(sequence_pass)

    return run


def _refused_on(part, sequences, tensors, args, kwargs):
    """Why a layer or operation has no step where it is called on sequences, or `None`."""
    kind = type(part).__name__
    is_operation = not isinstance(part, keras.layers.Layer)
    rank = max(len(v.shape) for v in sequences)
    if isinstance(part, keras.layers.RNN | Connected):
        has_states = len(args) > 1 or kwargs.get("initial_state") is not None
        return "which is called with an initial_state" if has_states else None
    # Without a batch it is a constant.
    if not isinstance(part, keras.Model) and any(
        v.shape[:1] == (None,) and not _has_time(v) for v in tensors
    ):
        return "which brings what the whole sequence gave back to each of its steps"
    if is_operation and kind == "GetItem":
        key = args[1] if len(args) > 1 else kwargs["key"]
        return None if _keeps_time(key, rank) else f"an operation that takes some steps: {key}"
    if isinstance(part, keras.layers.EinsumDense):
        by_step = _is_by_step(part.equation, part.bias_axes or "", rank)
        return None if by_step else f"with the equation {part.equation} over other axes, too"
    if isinstance(part, _BY_AXIS) or (is_operation and kind in _OPERATIONS_BY_AXIS | _NEW_AXES):
        rank += kind in _NEW_AXES and len(tree.flatten(part.axis))
        axes = range(rank) if part.axis is None else tree.flatten(part.axis)
        if {axis % rank for axis in axes} & {0, 1}:
            return f"with axis={part.axis} of {rank}"
    return None


def _is_by_step(equation, bias_axes, rank):
    """Whether an EinsumDense leaves batch and time as they are and has weights for neither."""
    x, kernel, y = re.split(",|->", equation.replace(" ", ""))
    # Labels that no equation has, for the axes that its dots stand for.
    dots = "".join(map(str, range(rank - len(x.replace("...", "")))))
    x, y = (part.replace("...", dots) for part in (x, y))
    return x[:2] == y[:2] and not {*x[:2]} & {*kernel, *bias_axes}


def _keeps_time(key, rank):
    """Whether an index of a tensor takes all steps, or the last one, of all rows."""
    key = [*key] if isinstance(key, tuple | list) else [key]
    missing = [slice(None)] * (rank - sum(k is not None and k is not Ellipsis for k in key))
    at = next((i for i, k in enumerate(key) if k is Ellipsis), len(key))
    rows, steps, *_ = key[:at] + missing + key[at + 1 :]
    if isinstance(steps, int):
        return rows == slice(None) and steps == -1
    return rows == steps == slice(None)
