"""From the weights of another library's recurrent layer to a layer of this package.

What differs is the order of the gates (`ORDERS`), which side of a product the weights stand on, and
where the biases are; `torch_nn` and `arrays` have a function for each library that says so.
"""

import reprlib

import keras
import numpy as np

from kerasrnn import cells
from kerasrnn.arguments import one_of
from kerasrnn.layers.bidirectional import Bidirectional
from kerasrnn.layers.named import GRU, LSTM, SimpleRNN
from kerasrnn.layers.stack import RNNStack

# The gates of a library's kernels in their order, in the letters of the cells here.
ORDERS = {
    # i, f, g, o and r, z, n
    "torch": {"simple_rnn": "h", "lstm": "ifgo", "gru": "rzg"},
    # i, o, f, c and z, r, h
    "onnx": {"simple_rnn": "h", "lstm": "iofg", "gru": "zrg"},
    # i, j, f, o
    "tf1": {"lstm": "igfo"},
}
_LAYERS = {"simple_rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}
NONLINEARITIES = ("tanh", "relu")
# What the weights say of a layer, by themselves or as those of the other library.
_SAID = {
    *("units", "depth", "bidirectional", "use_bias", "reset_after", "update_gate"),
    *("activation", "recurrent_activation"),
}


def gates_of(kind):
    return "".join(cells.CELLS[kind].gates)


def reordered(array, order, wanted):
    """An array whose last axis has a block per gate, in another order of them."""
    blocks = dict(zip(order, np.split(array, len(order), axis=-1), strict=True))
    return np.concatenate([blocks[gate] for gate in wanted], axis=-1)


def layer_with(kind, levels, order, said, options):
    """A built layer with these weights, which returns every step unless it is told otherwise.

    Args:
        kind: The name of the cell.
        levels: For each layer from the first, for each direction, the kernel (features, gates
            units), the recurrent kernel (units, gates units) and the biases, each (gates units,).
        order: The gates in the order of the blocks.
        said: Arguments of the layer that the other library says.
        options: Arguments of the layer that the user says.

    Raises:
        ValueError: one of `options` is for the weights or the other library to say, or brings
            weights that the other library has not; or `dtype` is none of real numbers, or variables
            would be in bfloat16.
    """
    for name in sorted(options.keys() & _SAID):
        raise ValueError(
            f"`{name}` must be left out: the weights, or the library they come from, say it. "
            f"Received: {name}={options[name]!r}"
        )
    both = len(levels[0]) == 2
    _check_options(options, both)
    policy = keras.dtype_policies.get(options.get("dtype") or keras.config.dtype_policy())
    if not keras.backend.is_float_dtype(policy.compute_dtype or ""):
        raise ValueError(
            f"`dtype` must be one of real numbers. Received: dtype={options.get('dtype')!r}"
        )
    # TensorFlow has no QR in it.
    if policy.variable_dtype == "bfloat16" and "recurrent_initializer" not in options:
        raise ValueError(
            "`dtype` must be 'mixed_bfloat16' for a layer in bfloat16, with variables in float32, "
            "or a recurrent_initializer be chosen: the default one, which is orthogonal, does not "
            f"exist in bfloat16. Received: dtype={policy.name!r}"
        )
    kernel, recurrent, biases = levels[0][0]
    units = recurrent.shape[0]
    named = options
    options = {"return_sequences": True, "use_bias": bool(biases), **said, **options}
    # That of both directions, and of no other layer.
    options.pop("merge_mode", None)
    name = {"name": options.pop("name")} if "name" in options else {}
    if len(levels) > 1:
        layer = RNNStack(kind, units, len(levels), bidirectional=both, **options, **name)
    elif both:
        layer = Bidirectional(_LAYERS[kind](units, **options), **name)
    else:
        layer = _LAYERS[kind](units, **options, **name)
    layer.build((None, None, kernel.shape[0]))
    two = kind == "gru" and options.get("reset_after", True)
    weights = []
    for kernel, recurrent, biases in (one for directions in levels for one in directions):
        weights += [reordered(array, order, gates_of(kind)) for array in (kernel, recurrent)]
        if biases:
            biases = [reordered(bias, order, gates_of(kind)) for bias in biases]
            weights.append(np.stack(biases) if two else sum(biases))
    if [tuple(w.shape) for w in layer.weights] != [w.shape for w in weights]:
        raise ValueError(
            "The options must bring no weights beside those that are there, as `normalization`, a "
            "learned `initial_state` and a connection do; build such a layer and give its cells "
            f"these weights. Received: {', '.join(f'{k}={v!r}' for k, v in named.items())}"
        )
    layer.set_weights(weights)
    return layer


def _check_options(options, both):
    """Raises a `ValueError` for options that a layer with another library's weights cannot have."""
    refused = {
        "stateful": "make a stateful layer, whose batch has to be known, and give it set_weights("
        "layer.get_weights())"
    }
    if both:
        refused["go_backwards"] = "of both directions one runs backward already"
    for name, why in refused.items():
        if options.get(name):
            raise ValueError(f"`{name}` must be False: {why}. Received: {name}={options[name]!r}")
    if options.get("merge_mode", "concat") != "concat":
        raise ValueError(
            "`merge_mode` must be left out: both directions are concatenated there. "
            f"Received: merge_mode={options['merge_mode']!r}"
        )


def activation_options(kind, nonlinearity):
    """The options that say which activation a plain RNN has."""
    if kind == "simple_rnn":
        return {"activation": one_of(NONLINEARITIES, "nonlinearity", nonlinearity)}
    if nonlinearity is not None:
        raise ValueError(
            "`nonlinearity` is that of a plain RNN alone. "
            f"Received: nonlinearity={nonlinearity!r} for the weights of a {kind}"
        )
    return {}


def as_array(name, value):
    """An array in double precision of a tensor of torch, or of what NumPy takes.

    Raises:
        ValueError: it holds no real numbers.
    """
    try:
        if hasattr(value, "detach"):
            # NumPy knows no bfloat16.
            value = value.detach().cpu().double()
        array = np.asarray(value)
        # "V" is that of bfloat16 and its like, where a package has brought them to NumPy.
        if array.dtype.kind not in "fiuV":
            raise TypeError(f"an array of {array.dtype}")
        return array.astype("float64")
    # Those of torch's tensors that are quantized, or on no device.
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"`{name}` must be an array or a tensor of real numbers; of a quantized layer those "
            f"before it was quantized. Received: {reprlib.repr(value)}: {error}"
        ) from error


def refuse_options(options, library, names):
    """Raises a `ValueError` for what a cell of the other library does beside its weights, and no
    layer here does.

    Args:
        options: What the user says, from which those that say nothing are taken out.
        library: Its name, for messages.
        names: For each the values that say nothing.
    """
    for name in options.keys() & names.keys():
        value = options.pop(name)
        if not any(np.array_equal(value, nothing) for nothing in names[name]):
            raise ValueError(
                f"`{name}` of {library} has no counterpart in the layers here. "
                f"Received: {name}={reprlib.repr(value)}"
            )


def check_array(name, array, shape):
    if array.shape != shape:
        raise ValueError(
            f"`{name}` must have the shape ({', '.join(map(str, shape))}). "
            f"Received: {name}.shape={array.shape}"
        )


def kind_of(name, recurrent):
    """The name of the cell, and its units, of a recurrent kernel (gates units, units)."""
    rows, units = recurrent.shape if recurrent.ndim == 2 else (1, 0)
    gates = rows / units if units else 0
    for kind in _LAYERS:
        if gates == len(gates_of(kind)):
            return kind, units
    raise ValueError(
        f"`{name}` must have 4 rows per column for an LSTM, 3 for a GRU and 1 for an RNN. "
        f"Received: {name}.shape={recurrent.shape}"
    )
