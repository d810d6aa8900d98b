"""Keras's path to cuDNN, for any layer or stack around an LSTM or GRU cell that its kernels know.

cuDNN computes a whole sequence in one kernel: with tanh and sigmoid, biases, and a GRU's reset gate
after the product. Passes with masks and resets take another path, where a masked step shows what it
shows on a CPU.
"""

import contextlib
import functools
import types

import keras
from keras import ops

from kerasrnn.backends import BACKEND, framework, sees_gpu
from kerasrnn.cells import GRUCell, LSTMCell
from kerasrnn.recurrence import sequence

# A subclass may take a step of its own.
_LAYERS = {LSTMCell: keras.layers.LSTM, GRUCell: keras.layers.GRU}
# What cuDNN computes, by the argument of a cell, where it has it.
_COMPUTES = {
    "activation": keras.activations.tanh,
    "recurrent_activation": keras.activations.sigmoid,
    "use_bias": True,
    "reset_after": True,
    "update_gate": "keep",
    "normalization": None,
    "recurrent_dropout": 0,
    "zoneout": 0,
    "vanishing_gradient_regularization": 0,
}


def refuses(sequence_pass):
    """Why the pass cannot take this path, or `None`; what would stand against it on a GPU, too,
    comes first."""
    if reason := _unsuited(sequence_pass.cell, sequence_pass.unroll, sequence_pass.use_cudnn):
        return reason
    if sequence_pass.mask is not None:
        return "a mask"
    if sequence_pass.reset is not None:
        return "a reset"
    if sequence_pass.tap:
        return "the gradient by each state is measured"
    if reason := _missing(type(sequence_pass.cell)):
        return reason
    if sequence_pass.stage == "export" and sequence_pass.path != "cudnn":
        return "what is exported has to run where there is no GPU"
    return None


def refuses_layer(cell, unroll, use_cudnn):
    """Why no pass of a layer can take this path, or `None` where some can."""
    return _unsuited(cell, unroll, use_cudnn) or _missing(type(cell))


def _unsuited(cell, unroll, use_cudnn):
    return unsuited(cell, unroll) or ("use_cudnn=False" if use_cudnn is False else None)


def unsuited(cell, unroll):
    """Why no kernel for a whole sequence computes what a layer around this cell does, or `None`."""
    if reason := sequence.overridden(cell):
        return reason
    if type(cell) not in _LAYERS:
        return f"{sequence.kind_of(cell)} is neither kerasrnn.cells.LSTMCell nor GRUCell"
    if unroll:
        return "unroll=True"
    for name, computed in _COMPUTES.items():
        value = getattr(cell, name, computed)
        if value is not computed and (callable(computed) or value != computed):
            return f"{name}={getattr(value, '__name__', repr(value))}"
    if cell.dropout and cell.implementation == 1:
        return "dropout with implementation=1, a mask per gate"
    return None


def _missing(kind):
    if not sees_gpu():
        return "no GPU is visible"
    if BACKEND == "jax" and kind is GRUCell:
        return "Keras has no way to cuDNN's GRU under JAX"
    if not _has_kernels():
        return "cuDNN's kernels do not run on this GPU"
    return None


def run(sequence_pass):
    """Runs the pass; returns what `kerasrnn.recurrence.run` does."""
    cell, states, sequences = sequence_pass.cell, sequence_pass.states, sequence_pass.sequences
    cell.check_features(sequences)
    (mask,) = cell.noise(sequences, states, sequence_pass.training).inputs
    if mask is not None:
        sequences = sequences * mask
    # The layer's precision may be another than its cell's.
    weights = {
        name: getattr(cell, name)
        if getattr(cell, name).dtype == cell.compute_dtype
        else ops.cast(getattr(cell, name), cell.compute_dtype)
        for name in ("kernel", "recurrent_kernel", "bias")
    }
    arguments = {name: getattr(cell, name) for name in _COMPUTES if hasattr(cell, name)}
    go_backwards = sequence_pass.go_backwards
    if go_backwards and BACKEND == "jax":
        # Keras would turn the outputs back there.
        sequences, go_backwards = ops.flip(sequences, axis=1), False
    return _run_kernel(
        _LAYERS[type(cell)],
        types.SimpleNamespace(**weights, **arguments),
        sequences,
        states,
        sequence_pass.return_sequences,
        go_backwards,
    )


def _run_kernel(kind, cell, sequences, states, return_sequences=False, go_backwards=False):
    """Calls the `inner_loop` of a Keras layer, on all that it asks its layer for: a layer itself
    would come with variables, which cannot be made in a graph that is traced again."""
    layer = types.SimpleNamespace(
        cell=cell,
        # So that it does not take another way in silence.
        use_cudnn=True,
        dropout=0.0,
        recurrent_dropout=0.0,
        return_sequences=return_sequences,
        go_backwards=go_backwards,
        unroll=False,
    )
    return kind.inner_loop(layer, sequences, states, mask=None)


@functools.cache
def _has_kernels():
    """Whether a kernel is there behind Keras's path: it is asked for one step of one number."""
    with _outside_of_traces():
        cell = types.SimpleNamespace(
            kernel=ops.ones((1, 4)),
            recurrent_kernel=ops.ones((1, 4)),
            bias=ops.zeros(4),
            activation=keras.activations.tanh,
            recurrent_activation=keras.activations.sigmoid,
        )
        try:
            _run_kernel(keras.layers.LSTM, cell, ops.ones((1, 1, 1)), [ops.zeros((1, 1))] * 2)
        # What Keras says where it would not take them, and a backend where there are none.
        except _REFUSALS:
            return False
    return True


def _outside_of_traces():
    """What runs inside at once, where a graph or program may be under way that first asks."""
    if BACKEND == "tensorflow":
        return framework.init_scope()
    return framework.ensure_compile_time_eval() if BACKEND == "jax" else contextlib.nullcontext()


_REFUSALS = (ValueError, RuntimeError)
if BACKEND == "tensorflow":
    _REFUSALS = (ValueError, framework.errors.UnimplementedError, framework.errors.NotFoundError)
