"""Direct connections around layers of any kind: short ways for the gradient."""

import inspect
import math
import re
import warnings

import keras
from keras import ops, tree

from kerasrnn.arguments import boolean, real_number
from kerasrnn.inside import layers_directly_in
from kerasrnn.layers.recurrent import RNN, Marks, checked_reset, nested_shapes
from kerasrnn.recurrence import borders


def state_structure(layer):
    """The sizes of a layer's states, nested as it takes them."""
    if hasattr(layer, "forward_layer"):
        return state_structure(layer.forward_layer) + state_structure(layer.backward_layer)
    sizes = list(getattr(layer, "state_size", []))
    # Keras's ConvLSTM says so of its two states, whose size depends on the input.
    return sizes * 2 if sizes == [-1] else sizes


def state_sizes(layer):
    """The sizes of a layer's states, in the order in which it takes and returns them."""
    return tree.flatten(state_structure(layer))


def recurrent_layers(layer):
    """The recurrent layers in a layer, Keras's too, however deep, in the order of the layers."""
    wraps = isinstance(layer, Connected | keras.layers.Bidirectional)
    if hasattr(layer, "stateful") and not wraps:
        return [layer]
    found = [part for one in layers_directly_in(layer) for part in recurrent_layers(one)]
    # A Sequential also holds the model that it makes of its layers.
    return list({id(part): part for part in found}.values())


def take_states_as_given(wrapper):
    """Keeps a layer from rounding the states that it hands on to a linear recurrence inside."""
    wrapper.autocast = all(part.autocast for part in recurrent_layers(wrapper))


def reset_state(layer, rows=None):
    """Sets the states in a layer back; `rows` as in `kerasrnn.layers.RNN.reset_state`."""
    for part in recurrent_layers(layer):
        if part.stateful and isinstance(part, keras.layers.RNN):
            # Keras's own know no rows, and fail where cells are stacked.
            RNN.reset_state(part, rows)
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


class Connected(keras.layers.Layer):
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
        take_states_as_given(self)

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
        if isinstance(mask, Marks):
            mask, reset = mask
        if reset is not None:
            reset = checked_reset(reset, inputs)
            for layer in self.layers:
                check_reset(layer)
        given = None if initial_state is None else self._states(initial_state)
        if self.go_backwards:
            inputs = ops.flip(inputs, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)
            reset = None if reset is None else ops.flip(borders(reset), axis=1)
        states = []

        def run(layer, x):
            options = {"mask": mask, "training": training, "reset": reset}
            if given is not None:
                own = [given.pop(0) for _ in state_sizes(layer)]
                nested = tree.pack_sequence_as(state_structure(layer), own)
                options["initial_state"] = nested or None
            known = inspect.signature(layer.call).parameters
            given_to = {k: v for k, v in options.items() if v is not None and k in known}
            with warnings.catch_warnings():
                # The mask is not lost with a layer that does not pass it on.
                warnings.filterwarnings("ignore", f"Layer {re.escape(repr(layer.name))} .* masking")
                y = layer(x, **given_to)
            if getattr(layer, "return_state", False):
                y, *own = y
                states.extend(tree.flatten(own))
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
        masks = self.layers[-1].compute_mask(inputs, mask)
        if not self.return_state:
            return masks
        returning = [layer for layer in self.layers if getattr(layer, "return_state", False)]
        count = sum(len(state_sizes(layer)) for layer in returning)
        return [tree.flatten(masks)[0], *[None] * count]

    def compute_output_shape(self, input_shape):
        states = []
        for layer, shape in self.shapes(tuple(input_shape)):
            y, own = self.output_shapes(layer, shape)
            states.extend(own)
        return (y, *states) if self.return_state else y


class _Connection(Connected):
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


class _Around(_Connection):
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


@keras.saving.register_keras_serializable("kerasrnn")
class Normalized(_Around):
    """Normalizes what a layer sees (Xiong et al., 2020, section 3: pre-LN).

    y = f(LN(x))
    """

    def build(self, input_shape):
        if input_shape[-1] == 1:
            raise ValueError(
                "Layer normalization needs two features or more: of a single one it leaves "
                f"nothing. Received: an input of the shape {tuple(input_shape)}"
            )
        super().build(input_shape)
        self.norm = keras.layers.LayerNormalization(dtype=self.dtype_policy, name="norm")
        self.norm.build(input_shape)

    def connect(self, x, run, mask):
        return run(self.layer, self.norm(x))


class _Shortcut(_Around):
    """A connection that needs x in the shape of f(x)."""

    def __init__(self, layer, project=False, **kwargs):
        super().__init__(layer, **kwargs)
        self.project = boolean("project", project)
        self.projection = None

    def build(self, input_shape):
        super().build(input_shape)
        input_shape = tuple(input_shape)
        output_shape = self.fitting_shape(self.layer, input_shape)
        if output_shape[-1] == input_shape[-1]:
            return
        if not self.project:
            raise ValueError(
                f"{type(self).__name__} needs a layer whose output has the width of its input; "
                "pass project=True to fit it with a learned matrix. Received: "
                f"layer={self.layer.name}, which turns {input_shape} into {output_shape}"
            )
        self.projection = keras.layers.Dense(
            output_shape[-1], use_bias=False, dtype=self.dtype_policy, name="projection"
        )
        self.projection.build(input_shape)

    def shortcut(self, x):
        return x if self.projection is None else self.projection(x)

    def get_config(self):
        return super().get_config() | {"project": self.project}


@keras.saving.register_keras_serializable("kerasrnn")
class Residual(_Shortcut):
    """Adds a layer's input to its output (He et al., 2016, section 3.2).

        y = x + f(x)          or, where `project=True` and the widths differ,
        y = P x + f(x)

    The gradient reaches x undiminished by way of the sum, however deep the stack.

    Args:
        layer: Any layer of one input whose output has the shape of its input: a recurrent one
            therefore with `return_sequences=True`, a convolution with `padding="same"`, attention
            of a sequence to itself as a `keras.Model`. Of one without `compute_output_shape` Keras
            finds the shape by tracing its `call`.
        project: Whether a learned matrix P (features, units) fits x where the last axes differ.
        go_backwards: Whether to run from the last step to the first; the outputs come in that
            order too. What a Bidirectional around this layer sets.

    Call arguments: `inputs`, and what the layer takes of `initial_state`, `mask`, `training` and
    `reset`. The states of recurrent layers inside a model inside are that model's own affair, but
    `reset_state` sets them back, too.

    Returns:
        A tensor of the shape of the layer's output, then the layer's states where it has
        `return_state`; the layer's mask passes through.

    Raises:
        ValueError: `layer` is no layer, needs several inputs or runs backward in time; `reset` for
            states that it does not reach; or, at build, the shapes differ and `project` cannot help
            or was not asked for (the message gives both).

    Example:

    >>> layer = kerasrnn.layers.Residual(kerasrnn.layers.LSTM(3, return_sequences=True))
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 3])
    """

    def connect(self, x, run, mask):
        return self.shortcut(x) + run(self.layer, x)


@keras.saving.register_keras_serializable("kerasrnn")
class Highway(_Shortcut):
    """Lets a gate choose, number by number, between a layer's input and its output (Srivastava et
    al., 2015, section 2).

        t = σ(W_t x + b_t)                  transform gate
        y = t ∘ f(x) + (1 - t) ∘ x          or, where `project=True` and the widths differ,
        y = t ∘ f(x) + (1 - t) ∘ P x

    With b_t below 0 the layer carries its input at the start, and learns where to change it.

    Args:
        layer, project, go_backwards: As in `Residual`.
        gate_bias: Number below 0, the initial value of b_t; lower for deeper nets. Default: -1.

    Call arguments, what it returns and raises: as in `Residual`. The gate is a
    `keras.layers.Dense`, the attribute `gate`: W_t (features, units), b_t (units,).

    Example:

    >>> layer = kerasrnn.layers.Highway(keras.layers.Dense(3, "relu"))
    >>> layer(np.ones((2, 3), "float32")).shape
    TensorShape([2, 3])
    """

    def __init__(self, layer, project=False, gate_bias=-1.0, **kwargs):
        super().__init__(layer, project, **kwargs)
        self.gate_bias = real_number(
            "gate_bias",
            gate_bias,
            "be a finite number below 0, so that the layer carries its input at first",
            lambda value: -math.inf < value < 0,
        )

    def build(self, input_shape):
        super().build(input_shape)
        self.gate = keras.layers.Dense(
            self.output_shapes(self.layer, tuple(input_shape))[0][-1],
            activation="sigmoid",
            bias_initializer=keras.initializers.Constant(self.gate_bias),
            dtype=self.dtype_policy,
            name="gate",
        )
        self.gate.build(input_shape)

    def connect(self, x, run, mask):
        t = self.gate(x)
        return t * run(self.layer, x) + (1 - t) * self.shortcut(x)

    def get_config(self):
        return super().get_config() | {"gate_bias": self.gate_bias}


@keras.saving.register_keras_serializable("kerasrnn")
class DenselyConnected(_Connection):
    """Shows every layer the concatenation of all that came before (Huang et al., 2017, section 3).

        x_l = f_l([x_0; x_1; ...; x_{l-1}]),  l = 1 ... L          x_0 = x, y = x_L

    Args:
        layers: List of layers of any kind, each another one, that keep all axes but the last; the
            last one may do as it likes, as a recurrent one with `return_sequences=False`.
        go_backwards: As in `Residual`.

    Call arguments: `inputs`, and what the layers take of `initial_state` (their states, layer by
    layer), `mask`, `training` and `reset`.

    Returns:
        The output of the last layer, then the states of those layers that have `return_state`,
        layer by layer.

    Raises:
        ValueError: `layers` is empty, or holds a layer twice, or what is no layer, needs several
            inputs or runs backward in time; or, at build, the shapes cannot be concatenated (the
            message gives both).

    Example:

    >>> layer = kerasrnn.layers.DenselyConnected([keras.layers.Dense(4) for _ in range(3)])
    >>> layer(np.ones((2, 5), "float32")).shape
    TensorShape([2, 4])
    >>> [part.kernel.shape[0] for part in layer.layers]
    [5, 9, 13]
    """

    def __init__(self, layers, **kwargs):
        if not isinstance(layers, list | tuple) or not layers:
            raise ValueError(f"`layers` must be a list of one or more. Received: layers={layers!r}")
        if len({id(layer) for layer in layers}) < len(layers):
            raise ValueError(
                "`layers` must be different ones: what each is shown is wider than what the one "
                f"before was. Received: layers={layers!r}, with one of them twice"
            )
        super().__init__(layers, **kwargs)

    def connect(self, x, run, mask):
        *inner, last = self.layers
        for layer in inner:
            x = ops.concatenate([x, run(layer, x)], axis=-1)
        return run(last, x)

    def shapes(self, input_shape):
        *inner, last = self.layers
        for layer in inner:
            yield layer, input_shape
            shape = self.fitting_shape(layer, input_shape)
            input_shape = (*input_shape[:-1], input_shape[-1] + shape[-1])
        yield last, input_shape
