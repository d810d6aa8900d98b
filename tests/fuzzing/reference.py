"""Cells called step by step, and layers by their equations."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from kerasrnn import layers
from kerasrnn.layers.connections import DenselyConnected, Highway, Normalized, Residual
from kerasrnn.layers.group import Connected

# keras.layers.LayerNormalization's.
EPSILON = 1e-3


class TappedPass(NamedTuple):
    """The taps of one cell in one pass, a list per step, in the order of the steps, of one per
    state."""

    taps: list
    go_backwards: bool


class Taps:
    """Zeros that are added to the states of cells after each step: the gradient by a tap is that
    by the state, whatever depends on it.

    Attributes:
        passes: A `TappedPass` per call of `cell_by_steps`, in the order of the calls.
    """

    def __init__(self, tape):
        self.tape, self.passes = tape, []

    def of_pass(self, states, steps, go_backwards):
        taps = [[tf.zeros_like(s) for s in states] for _ in range(steps)]
        self.tape.watch(tree.flatten(taps))
        self.passes.append(TappedPass(taps, go_backwards))
        return taps


def cell_by_steps(
    cell,
    x,
    states=None,
    mask=None,
    reset=None,
    go_backwards=False,
    zero_output_for_mask=False,
    taps=None,
):
    """Calls a cell once per step.

    Args: as of `kerasrnn.recurrence.run`; `states` is flat, and `taps` a `Taps`.

    Returns:
        A list of the outputs in the order of the steps, and a list of the final states.
    """
    batch, time = x.shape[:2]
    dtype = getattr(cell, "state_dtype", None) or cell.compute_dtype
    initial = tree.flatten(cell.get_initial_state(batch_size=batch))
    initial = [tf.cast(s, dtype) for s in initial]
    states = [tf.cast(s, dtype) for s in states] if states else initial
    tapped = taps.of_pass(states, time, go_backwards) if taps else None
    if mask is not None:
        mask = tf.broadcast_to(mask, (batch, time))
    outputs = []
    for step, t in enumerate(reversed(range(time)) if go_backwards else range(time)):
        # Backwards the states are set back once the first step of an episode is done.
        begins = t + 1 if go_backwards else t
        if reset is not None and begins < time:
            states = _where(reset[:, begins], initial, states)
        output, new_states = _called(cell, x[:, t], states)
        repeated = outputs[-1] if outputs else tf.zeros_like(output)
        if taps:
            shows_state = output is new_states[0]
            new_states = _plus(new_states, tapped[step])
            if mask is not None:
                states = _plus(states, tapped[step])
            # What a repeated output gets with the states: where it is one, the tap of that.
            of_output = tapped[step][0] if shows_state else 0
            output = new_states[0] if shows_state else _output(cell, x[:, t], new_states, output)
            repeated = repeated + of_output
        if mask is not None:
            if zero_output_for_mask:
                repeated = tf.zeros_like(output)
            (output,) = _where(mask[:, t], [output], [repeated])
            new_states = _where(mask[:, t], new_states, states)
        outputs.append(output)
        states = new_states
    return outputs, states


def _called(cell, x, states):
    """The output of one step, and a flat list of the new states."""
    if isinstance(cell, keras.layers.StackedRNNCells):
        states = tree.pack_sequence_as(list(cell.state_size), states)
    output, new_states = cell(tf.cast(x, cell.compute_dtype), states)
    return output, tree.flatten(new_states)


def _output(cell, x, states, like):
    return tf.cast(cell.output(cell.project(x), states), like.dtype)


def _plus(states, taps):
    return [s + tap for s, tap in zip(states, taps, strict=True)]


def _where(rows, new, old):
    return [tf.where(rows[:, None], n, o) for n, o in zip(new, old, strict=True)]


def layer_by_hand(layer, x, states=None, mask=None, reset=None, taps=None):
    """A layer by its equations, with the weights that it has.

    Args: as of the layer's call; `states` is a list, from which layers take theirs off the front,
        and `taps` a `Taps`.

    Returns:
        The output, and a list of the final states of all recurrent layers in it.
    """
    x = tf.cast(x, layer.compute_dtype)
    if isinstance(layer, keras.layers.RNN):
        if states is not None:
            states = [states.pop(0) for _ in tree.flatten(layer.cell.state_size)]
        outputs, final = cell_by_steps(
            *(layer.cell, x, states, mask, reset),
            *(layer.go_backwards, layer.zero_output_for_mask, taps),
        )
        return (tf.stack(outputs, 1) if layer.return_sequences else outputs[-1]), final
    if isinstance(layer, Connected) and layer.go_backwards:
        x, mask = _turned(x), _turned(mask)
        if reset is not None:
            # An episode that begins at t ends, backwards, at t: the one before it begins at t - 1.
            reset = _turned(tf.concat([reset[:, 1:], tf.zeros_like(reset[:, :1])], 1))

    final = []

    def run(layer, x):
        y, of_layer = layer_by_hand(layer, x, states, mask, reset, taps)
        final.extend(of_layer)
        return y

    if isinstance(layer, keras.layers.Bidirectional):
        return _both_directions(layer, x, run), final
    if isinstance(layer, Connected):
        y = _connected(layer, x, run)
        if isinstance(layer, layers.RNNStack) and not layer.return_sequences:
            y = _last_outputs(layer, y, mask)
        return y, final
    return (layer(x, mask=mask) if isinstance(layer, keras.Model) else layer(x)), []


def _turned(v):
    return None if v is None else tf.reverse(v, [1])


def _both_directions(layer, x, run):
    forward, backward = run(layer.forward_layer, x), run(layer.backward_layer, x)
    if layer.return_sequences:
        backward = _turned(backward)
    if getattr(layer, "gated", False):
        g = tf.sigmoid(_dense(layer.gate, tf.concat([forward, backward], -1)))
        return g * forward + (1 - g) * backward
    if layer.merge_mode == "concat":
        return tf.concat([forward, backward], -1)
    if layer.merge_mode == "mul":
        return forward * backward
    total = forward + backward
    return total / 2 if layer.merge_mode == "ave" else total


def _connected(group, x, run):
    """The equation of a connection, or of a stack one layer after the other."""
    if isinstance(group, DenselyConnected):
        parts = [x]
        for layer in group.layers:
            parts.append(run(layer, tf.concat(parts, -1)))
        return parts[-1]
    if isinstance(group, Normalized):
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        normalized = (x - mean) / tf.sqrt(variance + EPSILON)
        return run(group.layer, normalized * group.norm.gamma.value + group.norm.beta.value)
    if isinstance(group, Residual | Highway):
        y = run(group.layer, x)
        shortcut = x if group.projection is None else x @ group.projection.kernel.value
        if isinstance(group, Residual):
            return shortcut + y
        t = tf.sigmoid(_dense(group.gate, x))
        return t * y + (1 - t) * shortcut
    for layer in group.layers:
        x = run(layer, x)
    return x


def _dense(layer, x):
    return x @ layer.kernel.value + layer.bias.value


def _last_outputs(stack, y, mask):
    """The output of each row's last step that is not masked, of the backward direction of its
    first; zeros for a row without one."""
    unmasked = np.ones(y.shape[:2], bool)
    if mask is not None:
        unmasked = np.broadcast_to(mask, y.shape[:2])
    steps = [np.flatnonzero(row) for row in unmasked]
    last = [max(row, default=None) for row in steps]
    if not stack.bidirectional:
        return _at(y, last)
    first = [min(row, default=None) for row in steps]
    forward, backward = tf.split(y, 2, -1)
    return tf.concat([_at(forward, last), _at(backward, first)], -1)


def _at(y, steps):
    """One step per row, or zeros where `steps` has `None`."""
    rows = zip(tf.unstack(y), steps, strict=True)
    return tf.stack([tf.zeros_like(row[0]) if t is None else row[t] for row, t in rows])
