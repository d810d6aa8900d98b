"""Weights of torch.nn's recurrent layers as layers of this package, and back."""

import re

import keras
import numpy as np

from kerasrnn import cells
from kerasrnn.layers.convert.weights import (
    NONLINEARITIES,
    ORDERS,
    activation_options,
    as_array,
    check_array,
    gates_of,
    kind_of,
    layer_with,
    reordered,
)
from kerasrnn.layers.stack import RNNStack

_CELLS = {
    cells.SimpleRNNCell: "simple_rnn",
    cells.LSTMCell: "lstm",
    cells.GRUCell: "gru",
    keras.layers.SimpleRNNCell: "simple_rnn",
    keras.layers.LSTMCell: "lstm",
    keras.layers.GRUCell: "gru",
}
# What a cell has to be to be one of torch's.
_TORCH_S = {
    "recurrent_activation": keras.activations.sigmoid,
    "reset_after": True,
    "update_gate": "keep",
    "normalization": None,
    "zoneout": 0.0,
    "initial_state": "zeros",
}
_KEY = re.compile(r"(weight|bias)_(ih|hh)(?:_l(\d+)(_reverse)?)?")


def from_torch(state_dict_or_module, prefix="", nonlinearity=None, **options):
    """A layer with the weights of a `torch.nn.RNN`, `LSTM` or `GRU`, of any depth and of one
    direction or both, or of an `RNNCell`, `LSTMCell` or `GRUCell`.

    The shapes say which of them it is: 4, 3 or 1 blocks of rows. torch's gates i, f, g, o stand
    here in the same order, r, z, n as z, r, g, with n = g and `reset_after=True`. Its two biases
    are one here, their sum, but for a GRU, which has both. `batch_first=True` is what a layer
    here always does. Dropout between torch's layers is no weight; `dropout` of an `RNNStack` drops
    of each layer's input.

    Args:
        state_dict_or_module: A torch module; or a dictionary of arrays or tensors, for which torch
            need not be installed.
        prefix: The path of the layer in them, as "encoder.rnn".
        nonlinearity: `"tanh"` or `"relu"` of a `torch.nn.RNN` or `RNNCell`, which a dictionary does
            not say; a module does.
        **options: Arguments of the layer that is made, as `return_state`, `dropout` or `name`.
            Every step is returned, as in torch, unless `return_sequences=False` is among them.

    Returns:
        A built `SimpleRNN`, `LSTM` or `GRU`; for both directions a `Bidirectional` of one; for
        several layers an `RNNStack`, with states in the order of torch's h_n.

    Raises:
        TypeError: it is neither a module nor such a dictionary.
        ValueError: the keys, under `prefix`, are not those of one such layer, or are not all there;
            they have a projection (`proj_size`), which these layers have not; what is there is no
            real numbers, or quantized; shapes do not fit together; `nonlinearity` is missing for an
            RNN, is another than the module's or has no meaning for what is there; `options` hold
            what the weights say, as `units`, or what torch's layers have not, as `normalization`,
            another `merge_mode`, `stateful`, or `go_backwards` of both directions; or `dtype` is
            "bfloat16" ("mixed_bfloat16" is not) or none of real numbers.

    Source: the equations in the documentation of torch.nn 2.13.

    Example:

    >>> state = {"weight_ih_l0": np.ones((20, 3)), "weight_hh_l0": np.ones((20, 5))}
    >>> layer = kerasrnn.layers.from_torch(state)
    >>> type(layer).__name__, layer.units, layer.use_bias
    ('LSTM', 5, False)
    """
    if not isinstance(prefix, str):
        raise ValueError(f"`prefix` must be a string, '' for none. Received: prefix={prefix!r}")
    prefix = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
    state, is_module = state_dict_or_module, hasattr(state_dict_or_module, "state_dict")
    if is_module:
        state = state_dict_or_module.state_dict()
    if not hasattr(state, "items") or any(not isinstance(key, str) for key in state):
        raise TypeError(
            "`state_dict_or_module` must be a torch module, or a dictionary of arrays or tensors "
            "by their names. "
            f"Received: state_dict_or_module={state!r}"
        )
    kind, levels = _torch_levels(state, prefix)
    if is_module:
        module = state_dict_or_module.get_submodule(prefix.removesuffix("."))
        said = getattr(module, "nonlinearity", nonlinearity)
        if nonlinearity not in (None, said):
            raise ValueError(
                f"`nonlinearity` must be that of the module, {said!r}, or be left out. "
                f"Received: nonlinearity={nonlinearity!r}"
            )
        nonlinearity = said
    said = activation_options(kind, nonlinearity)
    return layer_with(kind, levels, ORDERS["torch"][kind], said, options)


def to_torch(layer):
    """The state dictionary of the `torch.nn.RNN`, `LSTM` or `GRU` with the weights of a layer.

    Args:
        layer: A built `SimpleRNN`, `LSTM`, `GRU` or `RNN` of this package or of Keras, a
            `Bidirectional` of one, or an `RNNStack` without connections.

    Returns:
        A dictionary of NumPy arrays by torch's names, for
        `module.load_state_dict({name: torch.from_numpy(v) for name, v in state.items()})`. Of the
        two biases of an RNN or LSTM `bias_ih` is the layer's, `bias_hh` zeros.

    Raises:
        ValueError: the layer is not built, or torch has none like it; the message names what it
            lacks.

    Example:

    >>> layer = kerasrnn.layers.GRU(5)
    >>> layer.build((None, None, 3))
    >>> {name: array.shape for name, array in kerasrnn.layers.to_torch(layer).items()}
    {'weight_ih_l0': (15, 3), 'weight_hh_l0': (15, 5), 'bias_ih_l0': (15,), 'bias_hh_l0': (15,)}
    """
    levels = _levels_of(layer)
    first = levels[0][0]
    state = {}
    for level, directions in enumerate(levels):
        for cell, suffix in zip(directions, ("", "_reverse"), strict=False):
            _check_like_torch_s(cell, first)
            kind = _CELLS[type(cell)]
            gates, order = gates_of(kind), ORDERS["torch"][kind]
            kernel, recurrent, *biases = cell.get_weights()
            arrays = {"weight_ih": kernel, "weight_hh": recurrent}
            if biases:
                (bias,) = biases
                two = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
                arrays |= dict(zip(("bias_ih", "bias_hh"), two, strict=True))
            for name, array in arrays.items():
                array = np.ascontiguousarray(reordered(array, gates, order).T)
                state[f"{name}_l{level}{suffix}"] = array
    return state


def _torch_levels(state, prefix):
    """The name of the cell, and the `levels` as in `_layer`, of a state dictionary of torch."""
    found = {}
    odd = []
    for key, value in state.items():
        if key.startswith(prefix):
            match = _KEY.fullmatch(key.removeprefix(prefix))
            if match:
                part, product, level, reverse = match.groups()
                found[int(level or 0), bool(reverse), f"{part}_{product}"] = (
                    key,
                    as_array(key, value),
                )
            else:
                odd.append(key)
    if any(key.removeprefix(prefix).startswith("weight_hr") for key in odd):
        raise ValueError(
            "`state_dict_or_module` must be of a layer without a projection: an LSTM with "
            f"`proj_size` has no counterpart here. Received: {', '.join(odd)}"
        )
    if odd or not found:
        places = [re.match(r"(.*\.)?weight_ih(?:_l0)?$", key) for key in state]
        places = sorted({repr(place[1] or "") for place in places if place})
        raise ValueError(
            "`prefix` must lead to the weights of one RNN, LSTM or GRU and to nothing else; here "
            f"{', '.join(places) or 'nothing'} does. Received: prefix={prefix!r}, where there is "
            f"{', '.join(odd[:5]) or 'nothing'}"
        )
    depth = 1 + max(level for level, _, _ in found)
    directions = sorted({reverse for _, reverse, _ in found} | {False})
    parts = [f"{part}_{product}" for part in ("weight", "bias") for product in ("ih", "hh")]
    parts = parts if any("bias" in part for _, _, part in found) else parts[:2]
    expected = [(level, r, part) for level in range(depth) for r in directions for part in parts]
    if missing := [one for one in expected if one not in found]:
        names = [f"{prefix}{part}_l{level}{'_reverse' * r}" for level, r, part in missing]
        raise ValueError(
            "`state_dict_or_module` must have all weights of the layer. Missing: "
            f"{', '.join(names)}. Received: {', '.join(key for key, _ in found.values())}"
        )
    kind, units = kind_of(*found[0, False, "weight_hh"])
    height = len(gates_of(kind)) * units
    kernel = found[0, False, "weight_ih"][1]
    for (level, _, part), (key, array) in found.items():
        width = kernel.shape[-1] if level == 0 else units * len(directions)
        shapes = {"weight_ih": (height, width), "weight_hh": (height, units)}
        check_array(key, array, shapes.get(part, (height,)))

    def one(level, reverse):
        kernel, recurrent, *biases = (found[level, reverse, part][1] for part in parts)
        return kernel.T, recurrent.T, biases

    return kind, [[one(level, r) for r in directions] for level in range(depth)]


def _levels_of(layer):
    """The cells of a layer or stack, for each level from the first one per direction."""
    if isinstance(layer, RNNStack):
        for name in ("connection", "normalization"):
            if value := getattr(layer, name):
                _refuse_for_torch(layer, f"{name}={value!r}")
        return [level for part in layer.layers for level in _levels_of(part)]
    if isinstance(layer, keras.layers.Bidirectional):
        merge_mode = layer.get_config()["merge_mode"]
        if merge_mode != "concat":
            _refuse_for_torch(
                layer, f"merge_mode={merge_mode!r}; torch has both directions as 'concat' does"
            )
        (forward,), (backward,) = (
            _cells_of(one, backward)
            for one, backward in ((layer.forward_layer, False), (layer.backward_layer, True))
        )
        return [[forward, backward]]
    return [[cell] for cell in _cells_of(layer, False)]


def _cells_of(layer, go_backwards):
    """The cells of a recurrent layer that is like one of torch's in this direction."""
    if not isinstance(layer, keras.layers.RNN):
        raise ValueError(
            "`layer` must be a SimpleRNN, LSTM, GRU or RNN, a Bidirectional of one, or an "
            f"RNNStack. Received: layer={layer!r}"
        )
    if layer.go_backwards != go_backwards:
        _refuse_for_torch(layer, f"go_backwards={layer.go_backwards}")
    stacked = getattr(layer.cell, "cells", [layer.cell])
    if go_backwards and len(stacked) > 1:
        _refuse_for_torch(layer, "stacked cells within one direction")
    return stacked


def _check_like_torch_s(cell, first):
    """Raises a `ValueError` unless torch has the cell, in a layer that begins with another."""
    kind = _CELLS.get(type(cell))
    if kind is None:
        _refuse_for_torch(cell, "equations that torch does not have")
    if not cell.built:
        raise ValueError(f"`layer` must be built: call it once. Received: {cell.name}, not built")
    names = NONLINEARITIES if kind == "simple_rnn" else ("tanh",)
    if cell.activation not in map(keras.activations.get, names):
        _refuse_for_torch(cell, f"activation={cell.activation!r}")
    for name, value in _TORCH_S.items():
        if getattr(cell, name, value) != value:
            _refuse_for_torch(cell, f"{name}={getattr(cell, name)!r}")
    for name in ("units", "use_bias", "activation"):
        if getattr(cell, name) != getattr(first, name):
            _refuse_for_torch(cell, f"another {name} than {first.name}")
    if type(cell) is not type(first):
        _refuse_for_torch(cell, f"another cell than {first.name}")


def _refuse_for_torch(layer, what):
    raise ValueError(
        f"`layer` must be one that torch.nn.RNN, LSTM or GRU can be. Received: {layer.name} "
        f"({type(layer).__name__}) with {what}"
    )
