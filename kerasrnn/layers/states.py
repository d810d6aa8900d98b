"""The states of recurrent layers: their sizes, their way back to the start, and their file."""

import os

import keras
import numpy as np
from keras import ops, tree

from kerasrnn.backends import BACKEND

_FILE = "states.npz"


def state_structure(layer):
    """The sizes of a layer's states, nested as it takes them."""
    if hasattr(layer, "forward_layer"):
        return state_structure(layer.forward_layer) + state_structure(layer.backward_layer)
    if _shows_states(layer) and not isinstance(layer.cell, keras.layers.StackedRNNCells):
        return tree.map_structure(lambda s: s.shape[-1], layer.get_initial_state(1))
    sizes = _plain(list(getattr(layer, "state_size", [])))
    # Keras's ConvLSTM says so of its two states, whose size depends on the input.
    return sizes * 2 if sizes == [-1] else sizes


def _plain(sizes):
    """Lists in the place of those that Keras makes of a layer's attributes: JAX takes states that
    are nested in such a list for a value."""
    return [*map(_plain, sizes)] if isinstance(sizes, list | tuple) else sizes


def state_sizes(layer):
    """The sizes of a layer's states, in the order in which it takes and returns them."""
    return tree.flatten(state_structure(layer))


def state_shapes(layer):
    """The shapes of a recurrent layer's states, without the batch, in a flat list."""
    if _shows_states(layer):
        return [tuple(state.shape[1:]) for state in tree.flatten(layer.get_initial_state(1))]
    return [(size,) for size in tree.flatten(layer.state_size)]


def _shows_states(layer):
    """Whether the initial values of a layer's states tell more of them than the sizes that its
    cells declare: a user's may keep a matrix for every sample, and declare one size or two."""
    # Before it is built, a cell may not have its initial values yet.
    if not (isinstance(layer, keras.layers.RNN) and getattr(layer.cell, "built", True)):
        return False
    for cell in getattr(layer.cell, "cells", [layer.cell]):
        made_by = getattr(cell, "get_initial_state", None)
        if made_by is not None and not made_by.__module__.startswith(("keras.", "kerasrnn.")):
            return True
    return False


def reset_states(layer, rows=None):
    """Sets the states that a stateful recurrent layer keeps back to their initial values.

    Args:
        layer: A recurrent layer, of this package or of Keras.
        rows: Which samples of the batch, as indices or as a boolean per sample; all by default.

    Raises:
        ValueError: `rows` names a sample that the batch does not have, or the layer has no states.
        RuntimeError: Keras's JAX trainer holds the states, as it does between two batches.
    """
    if layer.states is None:
        if rows is None:
            return
        raise ValueError(
            "`rows` needs a layer with states: stateful=True, and built. "
            f"Received: rows={rows!r} for layer {layer.name}"
        )
    states = tree.flatten(layer.states)
    _require_values(layer, states)
    size = states[0].shape[0]
    chosen = np.ones(size, bool) if rows is None else _chosen(rows, size)
    for state, initial in zip(states, tree.flatten(layer.get_initial_state(size)), strict=True):
        of_rows = chosen.reshape(-1, *[1] * (len(state.shape) - 1))
        state.assign(ops.where(of_rows, initial, state.value))


def _require_values(layer, states):
    if BACKEND != "jax":
        return
    try:
        for state in states:
            ops.convert_to_tensor(state)
    except TypeError as error:
        raise RuntimeError(
            "Between two batches Keras's JAX trainer holds the states of a stateful layer. A "
            "callback that resets them calls `self.model.jax_state_sync()` first. "
            f"Layer: {layer.name}"
        ) from error


def _chosen(rows, size):
    """Whether `rows` names it, for each of `size` samples."""
    # NumPy takes an empty list for floats.
    named = np.asarray(rows) if np.size(rows) else np.zeros(0, int)
    indices = named.dtype.kind in "iu" and named.ndim < 2 and np.isin(named, range(size)).all()
    if not indices and (named.dtype, named.shape) != (bool, (size,)):
        raise ValueError(
            f"`rows` must index the {size} samples of the batch, from 0 to {size - 1}, or be a "
            f"boolean for each. Received: rows={rows!r}"
        )
    chosen = np.zeros(size, bool)
    chosen[named] = True
    return chosen


def save_states(layer, directory):
    """Writes the states that a stateful layer keeps into a file of their own: a file of weights
    serves layers of any batch size, and Keras's."""
    if layer.states is not None:
        # NumPy does not know all those of half precision.
        values = [
            ops.cast(state, keras.backend.result_type(state.dtype, "float32"))
            for state in tree.flatten(layer.states)
        ]
        np.savez(os.path.join(directory, _FILE), *map(ops.convert_to_numpy, values))


def load_states(layer, directory):
    """Takes up what `save_states` has written, where it has.

    Raises:
        ValueError: those states have other shapes than the layer's.
    """
    # Keras gives no directory where the file holds assets of other layers only.
    if directory is None or layer.states is None:
        return
    path = os.path.join(directory, _FILE)
    if not os.path.exists(path):
        return
    with np.load(path) as file:
        values = list(file.values())
    states = tree.flatten(layer.states)
    stored, expected = ([tuple(v.shape) for v in vs] for vs in (values, states))
    if stored != expected:
        raise ValueError(
            "A stateful layer takes stored states of its own shapes, the batch size included; "
            f"a file of weights alone (save_weights) serves any. Layer: {layer.name}, with "
            f"states of the shapes {expected}. Received: stored states of the shapes {stored}"
        )
    for state, value in zip(states, values, strict=True):
        state.assign(value)
