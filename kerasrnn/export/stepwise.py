"""One time step of a model as a function, the states in and out by name.

The model itself runs, on a sequence of one step: each recurrence takes the states that came in,
each causal convolution the inputs before, and what a masked step repeats came in, too.
"""

import contextlib

import keras
import tensorflow as tf
from keras import ops, tree

from kerasrnn import recurrence
from kerasrnn.cells.base import Cell
from kerasrnn.diagnostics.looking import shadowed
from kerasrnn.export.interface import unique
from kerasrnn.export.step_rules import parts_over_time, running, sequences_of
from kerasrnn.inside import recurrent_paths
from kerasrnn.keras_cells import declarations
from kerasrnn.layers import RNNStack
from kerasrnn.recurrence import loop


class Stepwise:
    """A model's step.

    Attributes:
        batch: The number of rows; `None` for any.
        inputs: The `tf.TensorSpec`s of one step of the inputs, (batch, ...), by their names.
        states: Those of the states, (batch, ...), by their names: the name of the layer, or its
            path where several have the name, and that of the state, as "lstm_h".
        outputs: The names of the outputs.
        sequences: Those of them that have time; of the others a step gives what they would be if
            the sequence ended there.

    Args:
        interface: The model's `Interface`.
        batch: The number of rows; `None` for any.

    Raises:
        ValueError: a layer is not causal, or has no step; an input has no time.
    """

    def __init__(self, interface, batch=None):
        self.interface, self.batch = interface, batch
        _check_time(interface)
        self.outputs, self.sequences = interface.outputs, sequences_of(interface)
        self.inputs = {
            name: tf.TensorSpec([batch, *part.shape[2:]], part.dtype, name)
            for name, part in interface.inputs.items()
        }
        self._parts = parts_over_time(interface.model)
        self._names = _names_of_cells(interface.model)
        calls = _Calls(self)

        @tf.function(autograph=False)
        def look(tensors):
            self._run(tensors, calls)
            return calls.after

        after = look.get_concrete_function(self.inputs).structured_outputs
        self._initial = calls.initial
        self.states = {
            name: tf.TensorSpec([batch, *state.shape[1:]], state.dtype, name)
            for name, state in after.items()
        }

    def initial_state(self, tensors):
        """The states at the start, by name, for a dictionary of `batch`, their number of rows."""
        states = {name: make(tensors["batch"]) for name, make in self._initial.items()}
        return {name: tf.identity(state) for name, state in states.items()}

    def step(self, tensors):
        """The outputs and the new states by name, for one step of the inputs and the states."""
        tensors = self._of_one_batch(tensors)
        calls = _Calls(self, {name: tensors[name] for name in self.states})
        outputs = self._run({name: tensors[name] for name in self.inputs}, calls)
        return outputs | {name: tf.identity(state) for name, state in calls.after.items()}

    def _of_one_batch(self, tensors):
        """The tensors, or where the step runs an error if one has other rows than the first input:
        a state of one row would serve all rows, and in silence."""
        first = next(iter(self.inputs))
        batch = tf.shape(tensors[first])[0]
        checked = {first: tensors[first]}
        for name, value in tensors.items():
            if name == first:
                continue
            rule = f"`{name}` must have as many rows as `{first}`. Received: rows of both"
            equal = tf.debugging.assert_equal(tf.shape(value)[0], batch, rule)
            # TensorFlow leaves out such a reshape with all that it waits for, so that the value
            # waits for itself; LiteRT and ONNX have no assertions.
            with tf.control_dependencies([equal]):
                value = tf.identity(value)
            checked[name] = tf.reshape(value, [batch, *value.shape[1:]])
        return checked

    def _run(self, inputs, calls):
        shadows = [
            ("call", keras.layers.Conv1D, calls.convolution),
            ("call", keras.layers.TimeDistributed, _at_each_step),
            ("last", RNNStack, calls.last),
        ]
        with contextlib.ExitStack() as stack:
            stack.enter_context(running(self.interface.model, calls.run))
            for name, kind, stand_in in shadows:
                layers = [part for part in self._parts if isinstance(part, kind)]
                stack.enter_context(shadowed(name, [(part, stand_in(part)) for part in layers]))
            outputs = self.interface.call(
                {name: tf.expand_dims(value, 1) for name, value in inputs.items()}
            )
        # A sequence of outputs is of one step.
        return {
            name: tf.squeeze(y, 1) if name in self.sequences else y for name, y in outputs.items()
        }


def _check_time(interface):
    """Raises a `ValueError` unless all inputs of a model have time."""
    tokens = [
        layer.input
        for layer in interface.model.layers
        if isinstance(layer, keras.layers.Embedding) and hasattr(layer, "input")
    ]
    for name, part in interface.inputs.items():
        of_steps = "int" in part.dtype or part.dtype == "bool" or part.shape[1:2] == (None,)
        if len(part.shape) < 3 and not (
            len(part.shape) == 2 and (of_steps or any(part is one for one in tokens))
        ):
            raise ValueError(
                "`model` must have inputs with time, (batch, time, ...), to run step by step. "
                f"Received: {interface.model.name}, whose input {name!r} has the shape {part.shape}"
            )


def _names_of_cells(model):
    """The name of each cell of a model by its id."""
    paths = recurrent_paths(model)
    names = [layer.name for _, layer, _ in paths]
    named = {}
    for path, layer, _ in paths:
        name = layer.name if names.count(layer.name) == 1 else path.replace("/", "_")
        cells = getattr(layer.cell, "cells", None)
        for i, cell in enumerate(cells or [layer.cell]):
            named[id(cell)] = f"{name}_{i}" if cells else name
    return named


def _at_each_step(layer):
    """The sequence that a TimeDistributed has at each step has no state from step to step."""

    def call(original, *args, **kwargs):
        with recurrence.through(lambda one: loop.run(one._replace(unroll=True))):
            return original(*args, **kwargs)

    return call


class _Calls:
    """What the parts of a model do in one step, in the order of their calls: they take states, and
    leave the new ones.

    Attributes:
        after: The new states by name.
        initial: For each state by name `make(batch)`, which gives it at the start.

    Args:
        stepwise: The `Stepwise`.
        before: The states by name; `None` for the initial ones.
    """

    def __init__(self, stepwise, before=None):
        self.stepwise, self.before = stepwise, before
        self.after, self.initial = {}, {}
        self._taken = {name.lower() for name in (*stepwise.inputs, *stepwise.outputs)}

    def take(self, name, make, batch):
        """A state before the step, and the name that it has."""
        name = unique(name, self._taken)
        self.initial[name] = make
        return name, make(batch) if self.before is None else self.before[name]

    def run(self, sequence_pass):
        """Takes a pass of one step, as `kerasrnn.recurrence.through` has it."""
        cell, batch = sequence_pass.cell, tf.shape(sequence_pass.sequences)[0]
        name = self.stepwise._names[id(cell)]
        count = len(tree.flatten(sequence_pass.states))
        parts = declarations(cell).states
        if len(parts) != count:
            parts = ["state"] if count == 1 else [f"state_{i}" for i in range(count)]

        def maker(i):
            return lambda batch: _initial_states(cell, batch)[i]

        taken = [self.take(f"{name}_{part}", maker(i), batch) for i, part in enumerate(parts)]
        states = tree.pack_sequence_as(sequence_pass.states, [state for _, state in taken])
        one_step = sequence_pass._replace(states=states, unroll=True)
        last, outputs, new = loop.run(one_step)
        for (state, _), value in zip(taken, tree.flatten(new), strict=True):
            self.after[state] = value
        if sequence_pass.mask is not None and not sequence_pass.zero_output_for_mask:
            last = self._unless(sequence_pass.mask[:, 0, 0], last, f"{name}_output")
            outputs = tf.expand_dims(last, 1)
        return last, outputs, new

    def _unless(self, seen, y, name):
        """The output y where the step is `seen`, else that of the last step that was."""
        shape = list(y.shape[1:])
        name, kept = self.take(
            name, lambda batch: tf.zeros([batch, *shape], y.dtype), tf.shape(y)[0]
        )
        y = tf.where(tf.reshape(seen, [-1, *[1] * len(shape)]), y, kept)
        self.after[name] = y
        return y

    def last(self, stack):
        def last(original, y, mask):
            if mask is None:
                return y[:, 0]
            return self._unless(ops.cast(mask, "bool")[:, 0], y[:, 0], f"{stack.name}_output")

        return last

    def convolution(self, layer):
        (size,), (rate,) = layer.kernel_size, layer.dilation_rate
        reach = (size - 1) * rate

        def call(original, x):
            if not reach:
                return original(x)
            shape = [reach, x.shape[2]]
            name, before = self.take(
                f"{layer.name}_x",
                lambda batch: tf.zeros([batch, *shape], x.dtype),
                tf.shape(x)[0],
            )
            window = tf.concat([before, x], 1)
            self.after[name] = window[:, 1:]
            y = ops.conv(window[:, ::rate], layer.kernel, padding="valid")
            y = y if layer.bias is None else y + layer.bias
            return layer.activation(y)

        return call


def _initial_states(cell, batch):
    if not hasattr(cell, "get_initial_state"):
        # As keras.layers.RNN has it, which asks a cell for its `state_size` alone.
        sizes = tree.flatten(cell.state_size)
        return [tf.zeros([batch, size], cell.compute_dtype) for size in sizes]
    states = tree.flatten(cell.get_initial_state(batch_size=batch))
    return [ops.cast(s, cell.state_dtype) for s in states] if isinstance(cell, Cell) else states
