"""Taps on the states of all recurrent layers of a model while it runs: the gradient with respect to
a tap, zeros added to a state after every step, is that with respect to the state."""

import dataclasses
import functools
import math
from typing import Any

import keras
from keras import ops, tree

from kerasrnn.diagnostics import derivatives
from kerasrnn.diagnostics.looking import shadowed
from kerasrnn.keras_cells import declarations
from kerasrnn.layers.checks import MaskAndReset
from kerasrnn.layers.rnn import RNN
from kerasrnn.recurrence import sequence


class NoRecurrentLayer(ValueError):
    """There is none that takes part in the model's output."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One cell, run once.

    Attributes:
        path: Its path, with the number of the call.
        layer, cell: The layer, and that of its cells which runs.
        sequences: The layer's input, (batch, time, features).
        states: Those it starts from.
        valid: (batch, time), in the order of the steps, false where masked.
        flipped: Whether that order is against the time of the model's input.
        taps: What is added to each state after each step, (time, batch, ...).
    """

    path: str
    layer: keras.layers.Layer
    cell: keras.layers.Layer
    sequences: Any
    states: list
    valid: Any
    flipped: bool
    taps: list

    @property
    def names(self):
        """Those of the states."""
        unknown = ("h", *(f"state_{i}" for i in range(2, len(self.taps) + 1)))
        return declarations(self.cell).states or unknown

    def norms(self, gradients):
        """(batch, time) for each state, in the order of the steps."""
        return {
            name: derivatives.norms(gradient)
            for name, gradient in zip(self.names, gradients, strict=True)
        }


class Probe:
    """Runs a model with taps, and keeps them.

    Args:
        source: That of the function that a `derivatives.WayBack` runs; takes the taps.
        watch: `watch(run)` is told of every `Run` before its first step; or `None`.
        single: `single()` says, in a backward pass, whether each sample passes on the gradient of
            the last step of a layer's output that has one, and of no other.

    Attributes:
        runs: The list of the `Run`s, in order.
        reads_steps: Whether there is a layer that is read at every step.
    """

    def __init__(self, source, watch, single):
        self.source = source
        self.watch = watch
        self.single = single
        self.runs = []
        self.reads_steps = False

    def on(self, layers):
        """Lets recurrent layers, Keras's too, run in this package's loop with taps.

        Args:
            layers: As `kerasrnn.inside.recurrent_paths` gives them; one that has several paths
                goes by the first.

        Returns:
            A context.
        """
        once = {id(layer): (path, layer, flipped) for path, layer, flipped in reversed(layers)}
        loops = [
            (layer, functools.partial(self._inner_loop, layer, path, flipped))
            for path, layer, flipped in once.values()
        ]
        return shadowed("inner_loop", loops)

    def _inner_loop(
        self, layer, path, flipped, original, sequences, initial_state, mask, **options
    ):
        if len(sequences.shape) != 3:
            return original(sequences, initial_state, mask, **options)
        steps = mask.mask if isinstance(mask, MaskAndReset) else mask
        valid = ops.ones(ops.shape(sequences)[:2], "bool")
        if steps is not None:
            steps = ops.cast(tree.flatten(steps)[0], "bool")
            valid = valid & ops.reshape(steps, (-1, ops.shape(valid)[1]))
        if layer.go_backwards:
            valid = ops.flip(valid, 1)
        tap = functools.partial(self._tap, layer, path, flipped, sequences, valid)
        with sequence.tapped(tap):
            last, outputs, states = RNN.inner_loop(layer, sequences, initial_state, mask, **options)
        if layer.return_sequences:
            outputs = self._read(outputs)
        return last, outputs, states

    def _tap(self, layer, path, flipped, sequences, valid, cell, states, steps):
        if cell is not layer.cell:
            path = f"{path}/{cell.name}"
        calls = sum(run.path.split("#")[0] == path for run in self.runs)
        path = f"{path}#{calls + 1}" if calls else path
        taps = tree.map_structure(
            lambda s: self.source(ops.zeros((steps, *ops.shape(s)), ops.dtype(s))), states
        )
        run = Run(path, layer, cell, sequences, states, valid, flipped, tree.flatten(taps))
        self.runs.append(run)
        if self.watch:
            self.watch(run)
        return taps

    def _read(self, outputs):
        """The outputs; in the second backward pass only the last step that the loss depends on
        passes its gradient on."""
        self.reads_steps = True

        def change(g):
            if not self.single():
                return g
            steps = ops.arange(ops.shape(g)[1])
            flat = ops.reshape(g, (*ops.shape(g)[:2], math.prod(g.shape[2:])))
            arrives = ops.cast(ops.any(flat != 0, axis=-1), steps.dtype)
            last = ops.max(steps * arrives, axis=1, keepdims=True)
            only_last = ops.cast(steps == last, g.dtype)
            return g * ops.reshape(only_last, (*ops.shape(only_last), *[1] * (len(g.shape) - 2)))

        return derivatives.change_gradient(outputs, change)
