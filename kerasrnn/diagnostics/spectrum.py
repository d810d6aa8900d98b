"""What a recurrent layer's weights say of the gradient that will flow back through it."""

import keras
import numpy as np
from keras import ops, tree

from kerasrnn.arguments import real_number
from kerasrnn.cells import Cell, SimpleRNNCell
from kerasrnn.diagnostics.derivatives import WayBack
from kerasrnn.keras_cells import KERAS_CELLS, declarations

# The largest slopes of the activations.
_GAMMAS = {"linear": 1.0, "relu": 1.0, "tanh": 1.0, "sigmoid": 0.25}


def recurrent_jacobian(layer, x, states=None):
    """The Jacobian of one step, ∂s_t/∂s_{t-1}, s the state or all states of the cell side by side.

        h_t = σ(W_x x_t + W_h h_{t-1} + b):    ∂h_t/∂h_{t-1} = diag(σ') W_h     for a SimpleRNN

    Args:
        layer: A built recurrent layer with one cell, or a built cell, of this package or of Keras.
        x: Input of one step, (batch, features).
        states: States before it, each (batch, size), a single one or in the cell's order (h, c for
            an LSTM). Default: the cell's initial ones.

    Returns:
        (batch, n, n), n the sum of the states' sizes; row i is the gradient of new state i.

    Raises:
        ValueError: `layer` is no built cell or layer with one, `x` has not two axes or not the
            layer's features, or `states` are not those of the cell.

    Source: Pascanu, Mikolov & Bengio (2013), equation 5, where σ stands before W.

    Example:

    >>> layer = kerasrnn.layers.SimpleRNN(4)
    >>> layer.build((None, None, 3))
    >>> kerasrnn.diagnostics.recurrent_jacobian(layer, np.zeros((2, 3), "float32")).shape
    (2, 4, 4)
    """
    cell = _cell(layer)
    x = ops.convert_to_tensor(x, cell.compute_dtype)
    if len(x.shape) != 2:
        raise ValueError(
            "`x` must be the input of one step, (batch, features). "
            f"Received: x.shape={tuple(x.shape)}"
        )
    _check_features(cell, x)
    states = _precise(cell, states, x.shape[0])
    return _step(cell, x, states)[0]


def lyapunov_exponent(layer, x, states=None, warmup=None):
    """The largest Lyapunov exponent of a layer driven by x: what each step adds, on average, to the
    log of a small difference between two states, and each step back to that of a gradient.

        λ = lim 1/T log ‖J_T J_{T-1} ... J_1 v‖,  J_t = ∂s_t/∂s_{t-1}

    λ < 0: gradients vanish; λ > 0: they explode. Unlike the spectral radius it sees what saturation
    does to the Jacobians along the way.

    Args:
        layer: As for `recurrent_jacobian`.
        x: (batch, time, features), long enough for an average.
        states: The states before the first step, as for `recurrent_jacobian`.
        warmup: Number of steps that are run without counting, so that v has turned to where the
            growth is largest. Default: a quarter of them.

    Returns:
        λ, in natural log per step, the mean over the batch.

    Raises:
        ValueError: `layer` is no built cell or layer with one, `x` has not three axes, no time step
            or not the layer's features, or `warmup` is no whole number from 0 to time - 1, or
            `states` are not those of the cell.

    Source: Vogt, Puelma Touzel, Shlizerman & Lajoie (2020), "On Lyapunov exponents for RNNs"; of
    their spectrum this is the first.

    Example:

    >>> layer = kerasrnn.layers.SimpleRNN(4, "linear", recurrent_initializer="identity")
    >>> layer.build((None, None, 3))
    >>> round(kerasrnn.diagnostics.lyapunov_exponent(layer, np.zeros((2, 20, 3), "float32")), 3)
    0.0
    """
    cell = _cell(layer)
    x = ops.convert_to_tensor(x, cell.compute_dtype)
    if len(x.shape) != 3:
        raise ValueError(
            f"`x` must have rank 3, (batch, time, features). Received: x.shape={tuple(x.shape)}"
        )
    _check_features(cell, x)
    batch, time, _ = x.shape
    if not time:
        raise ValueError(f"`x` must have a time step or more. Received: x.shape={tuple(x.shape)}")
    warmup = time // 4 if warmup is None else warmup
    rule = f"leave a step to count, as a whole number from 0 to {time - 1}"
    warmup = real_number("warmup", warmup, rule, range(time).__contains__)
    states = _precise(cell, states, batch)
    v = np.random.default_rng(0).normal(size=(batch, sum(s.shape[1] for s in states), 1))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    growth = np.zeros(batch)
    for t in range(time)[:: -1 if getattr(layer, "go_backwards", False) else 1]:
        jacobian, states = _step(cell, x[:, t], states)
        v = jacobian @ v
        norm = np.linalg.norm(v, axis=1, keepdims=True)
        # Where nothing is left, nothing comes back.
        v = np.divide(v, norm, out=np.zeros_like(v), where=norm > 0)
        warmup -= 1
        if warmup < 0:
            with np.errstate(divide="ignore"):
                growth += np.log(norm[:, 0, 0])
    return float(np.mean(growth) / -warmup)


def spectral_radius(layer, gate=None):
    """The largest absolute eigenvalue ρ of a recurrent matrix.

    In a linear net gradients vanish for ρ < 1 and explode for ρ > 1. Elsewhere ρ decides neither,
    since σ' shrinks them on the way: `lyapunov_exponent` counts that.

    Args:
        layer: As for `recurrent_jacobian`, with a recurrent kernel.
        gate: Which gate's matrix, for a cell with several: one of its `recurrent_gates` (i, f, g, o
            for an LSTM; z, r, g for a GRU).

    Returns:
        A float.

    Raises:
        ValueError: The cell has no recurrent kernel or is the user's, or `gate` is none of its
            gates.

    Source: Pascanu, Mikolov & Bengio (2013), section 2.1.

    Example:

    >>> layer = kerasrnn.layers.SimpleRNN(4, recurrent_initializer="orthogonal")
    >>> layer.build((None, None, 3))
    >>> round(kerasrnn.diagnostics.spectral_radius(layer), 3)
    1.0
    """
    return float(np.abs(np.linalg.eigvals(_recurrent_matrix(_cell(layer), gate))).max())


def gradient_bound(layer, lag):
    """The most that can be left of a SimpleRNN's gradient `lag` steps back, as a factor.

        ‖∂h_t/∂h_{t-k}‖ <= (‖W_h‖ γ)^k

    ‖W_h‖ is the largest singular value, γ the largest slope of the activation: 1 for tanh, relu and
    linear, 1/4 for sigmoid. ‖W_h‖ < 1/γ is sufficient for gradients to vanish, the contrary
    necessary for them to explode.

    Args:
        layer: A built SimpleRNN, of this package or of Keras, or its cell.
        lag: k, or an array of them.

    Returns:
        A float, or an array like `lag`; infinite where the bound is larger than any float.

    Raises:
        ValueError: `layer` is no built SimpleRNN, has options that change the step (zoneout,
            normalization) or an activation with another slope; or `lag` is no number of 0 or more.

    Source: Pascanu, Mikolov & Bengio (2013), section 2.1.

    Example:

    >>> layer = kerasrnn.layers.SimpleRNN(4, "sigmoid", recurrent_initializer="orthogonal")
    >>> layer.build((None, None, 3))
    >>> round(kerasrnn.diagnostics.gradient_bound(layer, 2), 4)
    0.0625
    """
    cell = _cell(layer)
    # A subclass may have another step.
    simple = type(cell) in (SimpleRNNCell, keras.layers.SimpleRNNCell)
    if not simple or getattr(cell, "zoneout", 0) or getattr(cell, "normalization", None):
        raise ValueError(
            "`layer` must be a SimpleRNN without zoneout and normalization: the bound is that of "
            f"its step. Received: layer={layer!r}"
        )
    activation = getattr(cell.activation, "__name__", repr(cell.activation))
    if activation not in _GAMMAS:
        raise ValueError(
            f"The activation must be one of {', '.join(_GAMMAS)}, whose largest slope is known. "
            f"Received: activation={activation}"
        )
    if np.asarray(lag).dtype.kind not in "iuf" or not np.all(np.asarray(lag) >= 0):
        raise ValueError(
            f"`lag` must be a number, 0 or more, or an array of them. Received: lag={lag!r}"
        )
    factor = np.linalg.norm(_recurrent_matrix(cell), 2) * _GAMMAS[activation]
    with np.errstate(over="ignore"):
        bound = factor ** np.asarray(lag)
    return bound if np.ndim(lag) else float(bound)


def _cell(layer):
    cell = layer.cell if isinstance(layer, keras.layers.RNN) else layer
    if not hasattr(cell, "state_size") or hasattr(cell, "cells") or not cell.built:
        raise ValueError(
            "`layer` must be a recurrent layer with one cell, or a cell, and built. "
            f"Received: layer={layer!r}"
        )
    return cell


def _check_features(cell, x):
    # What the weights of a user's cell are, only that cell knows.
    if isinstance(cell, (Cell, *KERAS_CELLS)) and x.shape[-1] != cell.kernel.shape[0]:
        raise ValueError(
            f"`x` must have the {cell.kernel.shape[0]} features that `layer` was built for, as its "
            f"last axis. Received: x.shape={tuple(x.shape)}"
        )


def _precise(cell, states, batch):
    """The states, or the initial ones for `None`, in the dtype in which the cell keeps them."""
    states = cell.get_initial_state(batch) if states is None else states
    states = list(states) if isinstance(states, list | tuple) else [states]
    expected = [(batch, size) for size in tree.flatten(cell.state_size)]
    shapes = [tuple(np.shape(state)) for state in states]
    if shapes != expected:
        raise ValueError(
            f"`states` must be those of the cell, {', '.join(map(str, expected))}. "
            f"Received: states of the shapes {', '.join(map(str, shapes)) or 'none'}"
        )
    dtype = getattr(cell, "state_dtype", cell.compute_dtype)
    return [ops.convert_to_tensor(state, dtype) for state in states]


def _step(cell, x, states):
    """The Jacobians of a step, (batch, n, n), and the new states."""
    n, batch = sum(s.shape[1] for s in states), x.shape[0]
    # A copy of each sample for each row of its Jacobian.
    copied = [ops.repeat(v, n, axis=0) for v in (x, *states)]

    def step(source):
        x, *copies = copied
        copies = [source(state) for state in copies]
        _, new = cell(x, tree.pack_sequence_as(cell.state_size, copies))
        new = tree.flatten(new)
        return [ops.concatenate(new, axis=1)], new

    way = WayBack(step)
    rows = way.back(np.tile(np.eye(n), (batch, 1)))
    jacobians = np.concatenate([np.array(g) for g in rows], axis=1).reshape(batch, n, n)
    return jacobians, [s[::n] for s in way.others]


def recurrent_matrices(layer):
    """W_h of each gate by its name, as it multiplies a column h; none where the state is multiplied
    by no matrix. If a cell of the user's has a square `recurrent_kernel`, it is that of "h"."""
    cell = _cell(layer)
    kernel, known = getattr(cell, "recurrent_kernel", None), isinstance(cell, (Cell, *KERAS_CELLS))
    gates = declarations(cell).recurrent_gates if known else ("h",)
    if kernel is None or not gates or kernel.shape[1:] != (len(gates) * kernel.shape[0],):
        return {}
    kernel = np.array(keras.ops.convert_to_numpy(kernel), "float64")
    return {
        gate: matrix.T
        for gate, matrix in zip(gates, np.split(kernel, len(gates), axis=1), strict=True)
    }


def _recurrent_matrix(cell, gate=None):
    matrices = recurrent_matrices(cell)
    if not matrices:
        raise ValueError(
            "`layer` must have a recurrent kernel, (units, units) for each gate. "
            f"Received: a {cell.__class__.__name__}"
        )
    if gate is None and len(matrices) == 1:
        (gate,) = matrices
    if gate not in matrices:
        raise ValueError(
            f"`gate` must be one of {', '.join(matrices)}, the gates of a "
            f"{cell.__class__.__name__}. Received: gate={gate!r}"
        )
    return matrices[gate]
