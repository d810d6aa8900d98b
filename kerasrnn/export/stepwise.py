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
from kerasrnn.export.interface import convertible, unique
from kerasrnn.inside import layers_in, recurrent_paths, stateful_layers
from kerasrnn.keras_cells import declarations
from kerasrnn.layers import RNNStack
from kerasrnn.layers.group import Connected
from kerasrnn.recurrence import loop

# What treats each step by itself, along the last axis alone.
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
_BY_LAST_AXIS = (
    keras.layers.BatchNormalization,
    keras.layers.Concatenate,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
    keras.layers.Softmax,
    keras.layers.UnitNormalization,
)
# Operations of `keras.ops` that go number by number, by the names of their classes.
_NUMBER_BY_NUMBER = {
    *("Absolute", "Add", "Cast", "Divide", "Elu", "Equal"),
    *("Exp", "Gelu", "Greater", "GreaterEqual", "LeakyRelu", "Less"),
    *("LessEqual", "Log", "LogicalAnd", "LogicalNot", "LogicalOr", "Maximum"),
    *("Minimum", "Multiply", "Negative", "NotEqual", "Relu", "Relu6"),
    *("Sigmoid", "Silu", "Softplus", "Softsign", "Sqrt", "Square"),
    *("Subtract", "Tanh", "TrueDivide"),
}


def check_steps(model):
    """Raises a `ValueError` that names the first layer of a model that cannot run step by step."""
    for layer, reason in _refusals(model):
        raise ValueError(
            "`model` must be causal and made of layers whose step needs no other step but through "
            "their states: recurrent ones forward in time, stacks and connections of them, causal "
            "Conv1D, Dense, Embedding, normalization of the last axis, dropout, activations. "
            f"Received: {layer.name} ({type(layer).__name__}), {reason}"
        )


def _refusals(layer):
    """Pairs of a layer, in a layer, and why it has no step."""
    if isinstance(layer, keras.Model):
        parts = getattr(layer, "operations", None) or layer.layers
        if not getattr(layer, "inputs", None):
            yield layer, "a model of a class of its own"
        for part in parts:
            yield from _refusals(part)
    elif isinstance(layer, keras.layers.Bidirectional) or getattr(layer, "go_backwards", False):
        yield layer, "which runs against the time of its input"
    elif isinstance(layer, Connected):
        for part in layer.layers:
            yield from _refusals(part)
    elif isinstance(layer, keras.layers.Conv1D):
        if layer.padding != "causal" or layer.strides != (1,):
            yield layer, f"with padding={layer.padding!r} and strides={layer.strides}"
    elif isinstance(layer, _BY_LAST_AXIS):
        axis = tree.flatten(layer.axis)
        if not set(axis) <= {-1, 2}:
            yield layer, f"with axis={layer.axis}"
    elif isinstance(
        layer, keras.layers.ConvLSTM1D | keras.layers.ConvLSTM2D | keras.layers.ConvLSTM3D
    ):
        yield layer, "whose states are as large as its input"
    elif isinstance(layer, keras.layers.Layer):
        if not isinstance(layer, keras.layers.RNN | _union(_BY_STEP)):
            yield layer, "which may look at other steps"
    elif type(layer).__name__ not in _NUMBER_BY_NUMBER:
        yield layer, "an operation that may look at other steps"


def _union(classes):
    union = classes[0]
    for one in classes[1:]:
        union |= one
    return union


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


class Stepwise:
    """A model's step.

    Attributes:
        batch: The number of rows; `None` for any.
        inputs: The `tf.TensorSpec`s of one step of the inputs, (batch, ...), by their names.
        states: Those of the states, (batch, ...), by their names: the name of the layer, or its
            path where several have the name, and that of the state, as "lstm_h".
        outputs: The names of the outputs.

    Args:
        interface: The model's `Interface`.
        batch: The number of rows; `None` for any.

    Raises:
        ValueError: a layer is not causal, or has no step; an input has no time.
    """

    def __init__(self, interface, batch=None):
        self.interface, self.batch = interface, batch
        model = interface.model
        check_steps(model)
        self.outputs = interface.outputs
        self.inputs = {
            name: tf.TensorSpec([batch, *part.shape[2:]], part.dtype, name)
            for name, part in self._with_time(model).items()
        }
        self._names = _names_of_cells(model)
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

    def _with_time(self, model):
        tokens = [
            layer.input
            for layer in model.layers
            if isinstance(layer, keras.layers.Embedding) and hasattr(layer, "input")
        ]
        for name, part in self.interface.inputs.items():
            of_steps = "int" in part.dtype or part.dtype == "bool" or part.shape[1:2] == (None,)
            if len(part.shape) < 3 and not (
                len(part.shape) == 2 and (of_steps or any(part is one for one in tokens))
            ):
                raise ValueError(
                    "`model` must have inputs with time, (batch, time, ...), to run step by step. "
                    f"Received: {model.name}, whose input {name!r} has the shape {part.shape}"
                )
        return self.interface.inputs

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
            # TensorFlow leaves out such a reshape with all that it waits for, so that the value waits
            # for itself; LiteRT and ONNX have no assertions.
            with tf.control_dependencies([equal]):
                value = tf.identity(value)
            checked[name] = tf.reshape(value, [batch, *value.shape[1:]])
        return checked

    def _run(self, inputs, calls):
        model = self.interface.model
        parts = layers_in(model)
        convolutions = [part for part in parts if isinstance(part, keras.layers.Conv1D)]
        stacks = [part for part in parts if isinstance(part, RNNStack)]
        layers = [part for part in parts if isinstance(part, keras.layers.RNN)]
        with (
            recurrence.through(calls.run),
            convertible(model),
            stateless(model),
            shadowed("call", [(layer, _without_states(layer)) for layer in layers]),
            shadowed("call", [(layer, calls.convolution(layer)) for layer in convolutions]),
            shadowed("last", [(layer, calls.last(layer)) for layer in stacks]),
        ):
            outputs = self.interface.call(
                {name: tf.expand_dims(value, 1) for name, value in inputs.items()}
            )
        # A sequence of outputs is of one step.
        return {name: tf.squeeze(y, 1) if len(y.shape) > 2 else y for name, y in outputs.items()}


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


def _without_states(layer):
    def call(original, *args, **kwargs):
        if len(args) > 1 or kwargs.get("initial_state") is not None:
            raise ValueError(
                "`model` must let its recurrent layers start from their own initial states to run "
                f"step by step. Received: {layer.name}, which is called with an initial_state"
            )
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
    states = tree.flatten(cell.get_initial_state(batch_size=batch))
    return [ops.cast(s, cell.state_dtype) for s in states] if isinstance(cell, Cell) else states
