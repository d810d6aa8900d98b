"""Direct connections around layers of any kind: short ways for the gradient."""

import math

import keras
from keras import ops

from kerasrnn.arguments import boolean, real_number
from kerasrnn.layers.group import Connection, Wrapping


@keras.saving.register_keras_serializable("kerasrnn")
class Normalized(Wrapping):
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


class _Shortcut(Wrapping):
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
            order too, and their mask with them. What a Bidirectional around this layer sets.

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
class DenselyConnected(Connection):
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
