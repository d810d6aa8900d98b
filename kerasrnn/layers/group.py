"""Layers that run as one: their masks, states and resets, and the base of the connections."""

import contextlib
import inspect
import re
import warnings

import keras
from keras import ops, tree

from kerasrnn.arguments import boolean
from kerasrnn.inside import layers_directly_in
from kerasrnn.layers.checks import (
    MaskAndReset,
    checked_reset,
    dense_with_mask,
    handed_on,
    nested_shapes,
    turned_mask,
)
from kerasrnn.layers.quantized import KeepsQuantization
from kerasrnn.layers.states import reset_states, state_sizes, state_structure
from kerasrnn.recurrence.sequence import turned_resets


def recurrent_layers(layer):
    """The recurrent layers in a layer, Keras's too, however deep, in the order of the layers."""
    wraps = isinstance(layer, Connected | keras.layers.Bidirectional)
    if hasattr(layer, "stateful") and not wraps:
        return [layer]
    parts = [part for one in layers_directly_in(layer) for part in recurrent_layers(one)]
    # A Sequential also holds the model that it makes of its layers.
    return list({id(part): part for part in parts}.values())


def take_states_unrounded(wrapper):
    """Keeps a layer from rounding the states that it hands on to a linear recurrence inside."""
    wrapper.autocast = all(part.autocast for part in recurrent_layers(wrapper))


def reset_state(layer, rows=None):
    """Sets the states in a layer back; `rows` as in `kerasrnn.layers.RNN.reset_state`."""
    for part in recurrent_layers(layer):
        if part.stateful and isinstance(part, keras.layers.RNN):
            # Keras's own know no rows, and fail where cells are stacked.
            reset_states(part, rows)
        elif part.stateful:
            part.reset_state(*() if rows is None else (rows,))


def check_reset(layer):
    """Raises a `ValueError` if a layer has states and cannot be told where an episode begins."""
    has_states = state_sizes(layer) or recurrent_layers(layer)
    if has_states and "reset" not in inspect.signature(layer.call).parameters:
        raise ValueError(
            "`reset` reaches layers of this package, by themselves or in its stacks, connections "
            "and Bidirectional, but not inside a model. "
            f"Received: a reset for {layer.name} ({type(layer).__name__})"
        )


@contextlib.contextmanager
def mask_handed_on(*layers):
    """Keeps Keras from warning that a mask is lost at these layers: the one around hands it on."""
    # Of Keras's own, the recurrent ones from 3.16 on.
    silent = [re.escape(repr(layer.name)) for layer in layers if not layer.supports_masking]
    if not silent:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f"Layer ({'|'.join(silent)}) .* masking")
        yield


class Connected(KeepsQuantization, keras.layers.Layer):
    """Layers that run as one: the base of the connections and of `RNNStack`.

    A subclass says in `connect` how they are connected. They get the mask, `training` and their
    share of `initial_state`, and give their states where they have `return_state`; inside a
    Bidirectional they run backward in time, over the sequence turned around.
    """

    def __init__(self, go_backwards=False, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.go_backwards = boolean("go_backwards", go_backwards)

    def contain(self, layers):
        """Takes the layers in; their attributes say what this one returns."""
        self.layers = list(layers)
        self.return_state = any(getattr(layer, "return_state", False) for layer in layers)
        self.stateful = any(part.stateful for layer in layers for part in recurrent_layers(layer))
        if hasattr(layers[-1], "return_sequences"):
            self.return_sequences = layers[-1].return_sequences
        take_states_unrounded(self)

    def connect(self, x, run, mask):
        """The equation of the connection.

        Args:
            x: The input, in the order in which the layers run over it.
            run: `run(layer, x)`, the output of a layer on x.
            mask: (batch, time), in the same order, or `None`; `run` has it already.

        Returns:
            The output.
        """
        raise NotImplementedError

    def shapes(self, input_shape):
        """Pairs of a layer and the shape of its input."""
        for layer in self.layers:
            yield layer, input_shape
            input_shape, _ = self.output_shapes(layer, input_shape)

    def output_shapes(self, layer, input_shape):
        """The shape of a layer's output, and those of the states it returns."""
        try:
            shapes = layer.compute_output_shape(input_shape)
        except NotImplementedError:
            x = keras.KerasTensor(input_shape, dtype=self.compute_dtype)
            shapes = tree.map_structure(lambda y: y.shape, layer.compute_output_spec(x))
        shape, *states = shapes if getattr(layer, "return_state", False) else [shapes]
        if isinstance(shape, dict) or any(isinstance(part, list | tuple) for part in shape):
            raise ValueError(
                f"{type(self).__name__} needs layers with one output each. "
                f"Received: layer={layer.name}, with outputs of the shapes {shape}"
            )
        return tuple(shape), nested_shapes(states) if states else []

    def build(self, input_shape):
        for layer, shape in self.shapes(tuple(input_shape)):
            if layer.built:
                continue
            if type(layer).build is keras.layers.Layer.build:
                # Keras builds what is inside by a call.
                layer(keras.KerasTensor(shape, dtype=self.compute_dtype))
            else:
                layer.build(shape)

    @property
    def state_size(self):
        return [size for layer in self.layers for size in state_sizes(layer)]

    @property
    def states(self):
        """The kept states of a stateful one, which Keras's Bidirectional asks for."""
        parts = [part for layer in self.layers for part in recurrent_layers(layer)]
        kept = tree.flatten([getattr(part, "states", None) for part in parts])
        return [state for state in kept if state is not None] or None

    def reset_state(self, rows=None):
        """Sets the states of the layers back; `rows` as in `kerasrnn.layers.RNN`."""
        for layer in self.layers:
            reset_state(layer, rows)

    def call(self, inputs, initial_state=None, mask=None, training=None, reset=None):
        if isinstance(mask, MaskAndReset):
            mask, reset = mask
        inputs, mask = dense_with_mask(inputs, mask)
        if reset is not None:
            reset = checked_reset(reset, inputs)
            for layer in self.layers:
                check_reset(layer)
        initial_states = None if initial_state is None else self._states(initial_state)
        if self.go_backwards:
            inputs = ops.flip(inputs, axis=1)
            mask = turned_mask(mask)
            reset = None if reset is None else ops.flip(turned_resets(reset), axis=1)
        states = []

        def run(layer, x):
            options = {"mask": mask, "training": training, "reset": reset}
            if initial_states is not None:
                its_states = [initial_states.pop(0) for _ in state_sizes(layer)]
                nested = tree.pack_sequence_as(state_structure(layer), its_states)
                options["initial_state"] = nested or None
            known = inspect.signature(layer.call).parameters
            options = {k: v for k, v in options.items() if v is not None and k in known}
            with mask_handed_on(layer):
                y = layer(x, **options)
            if getattr(layer, "return_state", False):
                y, *its_states = y
                states.extend(tree.flatten(its_states))
            return ops.cast(y, self.compute_dtype)

        y = self.connect(ops.cast(inputs, self.compute_dtype), run, mask)
        return (y, *states) if self.return_state else y

    def _states(self, initial_state):
        # In one list, or in parts per layer, and perhaps per direction.
        states, sizes = tree.flatten(initial_state), self.state_size
        if len(states) != len(sizes):
            raise ValueError(
                f"`initial_state` of {self.name} must hold its {len(sizes)} states, of the sizes "
                f"{sizes}: layer by layer from the first, in a bidirectional one forward before "
                f"backward. Received: {len(states)} of them"
            )
        return states

    def compute_mask(self, inputs, mask=None):
        if isinstance(mask, MaskAndReset):
            mask, _ = mask
        inputs, mask = dense_with_mask(inputs, handed_on(mask))
        if self.go_backwards:
            mask = turned_mask(mask)
        masks = self.layers[-1].compute_mask(inputs, mask)
        if not self.return_state:
            return masks
        returning = [layer for layer in self.layers if getattr(layer, "return_state", False)]
        count = sum(len(state_sizes(layer)) for layer in returning)
        return [tree.flatten(masks)[0], *[None] * count]

    def compute_output_shape(self, input_shape):
        states = []
        for layer, shape in self.shapes(tuple(input_shape)):
            y, state_shapes = self.output_shapes(layer, shape)
            states.extend(state_shapes)
        return (y, *states) if self.return_state else y


class Connection(Connected):
    """Takes the layers it connects from outside."""

    def __init__(self, layers, **kwargs):
        for layer in layers:
            if not isinstance(layer, keras.layers.Layer):
                raise ValueError(
                    f"{type(self).__name__} connects Keras layers. Received: layer={layer!r}"
                )
            if getattr(layer, "go_backwards", False):
                raise ValueError(
                    f"{type(self).__name__} needs a layer whose outputs stand in the order of its "
                    "inputs, which go_backwards=True turns around; run backward inside a "
                    f"Bidirectional. Received: layer={layer.name}"
                )
            if len(inputs := _inputs(layer)) > 1:
                raise ValueError(
                    f"{type(self).__name__} needs layers of one input; a keras.Model of one input "
                    "around it says what the others are (for attention, the same). "
                    f"Received: layer={layer.name}, which takes {', '.join(inputs)}"
                )
        kwargs.setdefault("dtype", layers[0].dtype_policy)
        super().__init__(**kwargs)
        self.contain(layers)

    def fitting_shape(self, layer, input_shape):
        """The shape of a layer's output, if it differs from that of its input in the last axis
        alone."""
        shape, _ = self.output_shapes(layer, input_shape)
        axes = zip(input_shape[1:-1], shape[1:-1], strict=False)
        if len(shape) != len(input_shape) or any(
            None not in pair and len({*pair}) > 1 for pair in axes
        ):
            raise ValueError(
                f"{type(self).__name__} needs a layer that keeps all axes but the last (recurrent: "
                "return_sequences=True; a convolution: padding='same' or 'causal', no strides). "
                f"Received: layer={layer.name}, which turns {input_shape} into {shape}"
            )
        return shape

    def get_config(self):
        layers = [keras.saving.serialize_keras_object(layer) for layer in self.layers]
        return super().get_config() | {"layers": layers, "go_backwards": self.go_backwards}

    @classmethod
    def from_config(cls, config):
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config["layers"]]
        return cls(**(config | {"layers": layers}))


def _inputs(layer):
    """The names of what a layer cannot be called without."""
    if len(inputs := getattr(layer, "inputs", None) or []) > 1:
        return [one.name for one in inputs]
    named = inspect.signature(layer.call).parameters.values()
    return [p.name for p in named if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]


class Wrapping(Connection):
    """A connection around one layer."""

    def __init__(self, layer, **kwargs):
        super().__init__([layer], **kwargs)

    @property
    def layer(self):
        return self.layers[0]

    def get_config(self):
        config = super().get_config()
        (layer,) = config.pop("layers")
        return config | {"layer": layer}

    @classmethod
    def from_config(cls, config):
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**(config | {"layer": layer}))
