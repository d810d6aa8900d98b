"""Weights that come as arrays, of TensorFlow 1's LSTM cells and of ONNX nodes, as layers of this
package."""

import numpy as np

from kerasrnn.arguments import one_of, real_number
from kerasrnn.layers.convert.weights import (
    ORDERS,
    activation_options,
    as_array,
    check_array,
    kind_of,
    layer_with,
    refuse_options,
)

# What a cell of TensorFlow 1 and a node of ONNX may have beside their weights, with the values that
# say nothing.
_TF1 = {
    **dict.fromkeys(("num_proj", "proj_clip", "cell_clip"), (None,)),
    "use_peepholes": (False, None),
}
_ONNX = {
    "p": (None,),
    "clip": (None,),
    "input_forget": (0, None),
    # Which of batch and time comes first does not change the weights.
    "layout": (0, 1),
    "activation_alpha": ([], None),
    "activation_beta": ([], None),
}
_ONNX_ACTIVATIONS = {
    "simple_rnn": ["Tanh"],
    "gru": ["Sigmoid", "Tanh"],
    "lstm": ["Sigmoid", "Tanh", "Tanh"],
}


def from_tf1(kernel, bias=None, forget_bias=1.0, activation=None, **options):
    """An LSTM with the weights of TensorFlow 1's `LSTMCell`, `BasicLSTMCell` or `LSTMBlockCell`, as
    in a checkpoint.

    Their one kernel multiplies [x_t; h_{t-1}], with the gates in the order i, j, f, o, where j is
    the candidate; and they add `forget_bias` within σ at every step, which here is in the bias.

    Args:
        kernel: (features + units, 4 units), the checkpoint's `.../kernel`.
        bias: (4 units,), its `.../bias`, or `None` for zeros.
        forget_bias: What the cell was made with, finite. Default: 1, TensorFlow's.
        activation: What the cell was made with, of which the weights say nothing: that of the
            candidate and of the output. Default: `None` for tanh, as in TensorFlow.
        **options: As in `from_torch`. A cell that was made with `num_proj`, in whose checkpoint
            there is a `.../projection/kernel`, with `use_peepholes`, which has `.../w_f_diag`, or
            with `cell_clip` has no counterpart here; the kernel does not say so.

    Returns:
        A built `LSTM`.

    Raises:
        ValueError: the arrays do not have those shapes; or `num_proj`, `use_peepholes` or
            `cell_clip` is among the `options`.

    Example:

    >>> layer = kerasrnn.layers.from_tf1(np.ones((3 + 5, 20)), np.zeros(20))
    >>> layer(np.ones((2, 7, 3), "float32")).shape
    TensorShape([2, 7, 5])
    """
    forget_bias = real_number("forget_bias", forget_bias)
    refuse_options(options, "TensorFlow 1's LSTMCell", _TF1)
    kernel = as_array("kernel", kernel)
    units, rest = divmod(kernel.shape[-1], 4) if kernel.ndim == 2 else (0, 1)
    if rest or not 0 < units < kernel.shape[0]:
        raise ValueError(
            "`kernel` must have the shape (features + units, 4 units); that of a cell with "
            "`num_proj` has no counterpart here. "
            f"Received: kernel.shape={kernel.shape}"
        )
    bias = np.zeros(4 * units) if bias is None else as_array("bias", bias)
    check_array("bias", bias, (4 * units,))
    order = ORDERS["tf1"]["lstm"]
    bias = bias + np.repeat([forget_bias if gate == "f" else 0.0 for gate in order], units)
    features = kernel.shape[0] - units
    levels = [[(kernel[:features], kernel[features:], (bias,))]]
    said = {} if activation is None else {"activation": activation}
    return layer_with("lstm", levels, order, said, options)


def from_onnx(w, r, b=None, linear_before_reset=None, nonlinearity=None, **options):
    """A layer with the weights of an ONNX node `RNN`, `LSTM` or `GRU` of the default activations,
    without peepholes, `clip` and `input_forget`.

    Args:
        w, r, b: The node's inputs W (directions, gates units, features), R (directions,
            gates units, units) and B (directions, 2 gates units), `None` for zeros.
        linear_before_reset: The attribute of a GRU, 0 where the node does not have it: whether the
            reset gate acts after the product, `reset_after` here.
        nonlinearity: `"tanh"` or `"relu"` for a node `RNN`.
        **options: As in `from_torch`; and the node's other attributes, and its input P as `p`, for
            which there is no counterpart unless they have their default values.

    Returns:
        A built `SimpleRNN`, `LSTM` or `GRU`, for two directions a `Bidirectional` of one. A node
        with `direction="reverse"` is a layer with `go_backwards=True` whose outputs stand in
        the order from the last step to the first.

    Raises:
        ValueError: the arrays do not have those shapes, an argument is missing for, or has no
            meaning for, what they are, or an attribute has no counterpart here.

    Source: the operators' documentation, https://onnx.ai/onnx/operators.

    Example:

    >>> layer = kerasrnn.layers.from_onnx(np.ones((2, 20, 3)), np.ones((2, 20, 5)))
    >>> layer(np.ones((2, 7, 3), "float32")).shape
    TensorShape([2, 7, 10])
    """
    w, r = as_array("w", w), as_array("r", r)
    if r.ndim != 3:
        raise ValueError(
            f"`r` must have the shape (directions, gates units, units). Received: r.shape={r.shape}"
        )
    kind, _ = kind_of("r", r[0])
    height = r.shape[1]
    directions = one_of((1, 2), "r.shape[0]", r.shape[0])
    features = w.shape[-1] if w.ndim == 3 else "features"
    check_array("w", w, (directions, height, features))
    b = np.zeros((directions, 2 * height)) if b is None else as_array("b", b)
    check_array("b", b, (directions, 2 * height))
    if (kind == "gru") != (linear_before_reset is not None):
        raise ValueError(
            "`linear_before_reset` must be the attribute of a GRU, 0 where the node does not have "
            f"it, and left out for others. Received: linear_before_reset={linear_before_reset!r} "
            f"for {kind}"
        )
    _check_attributes(kind, directions, r.shape[2], nonlinearity, options)
    said = activation_options(kind, nonlinearity)
    if kind == "gru":
        said["reset_after"] = bool(one_of((0, 1), "linear_before_reset", linear_before_reset))
    levels = [[(w[d].T, r[d].T, np.split(b[d], 2)) for d in range(directions)]]
    return layer_with(kind, levels, ORDERS["onnx"][kind], said, options)


def _check_attributes(kind, directions, units, nonlinearity, options):
    """Takes a node's attributes out of `options`, after a check that the layer is what they say."""
    refuse_options(options, "an ONNX node", _ONNX)
    activations = _ONNX_ACTIVATIONS[kind]
    if kind == "simple_rnn" and nonlinearity == "relu":
        activations = ["Relu"]
    way = "reverse" if options.get("go_backwards") else "forward"
    expected = {
        "activations": activations * directions,
        "direction": "bidirectional" if directions == 2 else way,
        "hidden_size": units,
    }
    for name in options.keys() & expected.keys():
        value, wanted = options.pop(name), expected[name]
        texts = [v.decode() if isinstance(v, bytes) else v for v in np.atleast_1d(value).tolist()]
        if texts != np.atleast_1d(wanted).tolist():
            raise ValueError(
                f"`{name}` of an ONNX node must be {wanted!r} here, as the weights, `nonlinearity` "
                f"and `go_backwards` say. Received: {name}={value!r}"
            )
