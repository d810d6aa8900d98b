"""The contract of a recurrent cell: a projection of the input, and a step of the state."""

import inspect
import numbers

import keras
import numpy as np
from keras import ops

_RESOLVERS = {
    "activation": keras.activations,
    "initializer": keras.initializers,
    "regularizer": keras.regularizers,
    "constraint": keras.constraints,
}


def parameters(cls):
    """The arguments `cls` names in its constructor, in order."""
    named = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return [p.name for p in named if p.kind is not p.VAR_KEYWORD]


def positive_integer(name, value):
    """`value` as an `int`, or an error that names the argument."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
    return int(value)


def one_of(choices, name, value):
    """The one of `choices` that equals `value`, or an error that names the argument."""
    # An array compares by entries.
    if isinstance(value, str | numbers.Number | np.bool_):
        for choice in choices:
            if choice == value:
                return choice
    *others, last = map(repr, choices)
    raise ValueError(f"`{name}` must be {', '.join(others)} or {last}. Received: {name}={value!r}")


def boolean(name, value):
    """`value` as a `bool`, or an error that names the argument."""
    return one_of((True, False), name, value)


def _rate(name, value):
    if not (isinstance(value, numbers.Real) and 0 <= value < 1):
        raise ValueError(f"`{name}` must lie in [0, 1). Received: {name}={value!r}")
    return float(value)


def _resolved(name, value):
    """What stands for `value` in the module of Keras that `name` speaks of, if any."""
    kind = name.rpartition("_")[2]
    if kind not in _RESOLVERS:
        return value
    try:
        return _RESOLVERS[kind].get(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be what keras.{kind}s.get takes: a name, a configuration or a "
            f"callable. Received: {name}={value!r}"
        ) from error


class Cell(keras.layers.Layer):
    """One step of a recurrence, in two parts.

        p_t = W x_t + b                  projection: needs no state, so one product serves all steps
        s_t = step(p_t, s_{t-1})         step: everything that does need the state

    A further cell is a subclass with `gates`, `states` and `step`; this class gives it weights,
    dropout, masks of all sorts, a configuration, and Keras's own cell protocol, so it also runs
    inside `keras.layers.RNN` (which, unlike the layers of this package, then draws new dropout
    masks at every step).

    Class attributes:
        gates: one letter per block of `units` columns of the kernels, in the order of the weights.
        states: the names of the states; the first is also the output.

    Weights: `kernel` W (features, gates * units), `recurrent_kernel` U (units, gates * units),
    `bias` b (gates * units).

    Args:
        units: Positive integer, size of each state.
        activation: Activation of the candidate. Default: `"tanh"`.
        recurrent_activation: Activation of the gates. Default: `"sigmoid"`.
        use_bias: Whether to add biases.
        kernel_initializer, recurrent_initializer, bias_initializer: Initializers of the weights.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: Regularizers of the weights.
        kernel_constraint, recurrent_constraint, bias_constraint: Constraints on the weights.
        dropout: Fraction of the inputs to drop, in [0, 1), the same ones at all steps
            (Gal & Ghahramani, 2016, section 4).
        recurrent_dropout: Fraction of the previous state to drop, likewise.
        seed: Seed of the dropout masks.
        implementation: As in Keras: 2 (and 0) shares one mask of the inputs among all gates, 1 (and
            any `recurrent_dropout`) draws a mask per gate.

    Raises:
        ValueError: where an argument is outside its range.
    """

    gates = ()
    states = ("h",)

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        seed=None,
        implementation=2,
        **kwargs,
    ):
        self._configure(__class__, locals())

    def _configure(self, cls, arguments):
        """Sets what the constructor of `cls` was called with: one line per constructor, not one per
        argument.

        `arguments` is the constructor's `locals()`, as it stands at its first line.
        """
        super().__init__(**arguments["kwargs"])
        self._parameters = tuple(parameters(cls))
        defaults = inspect.signature(cls.__init__).parameters
        for name in self._parameters:
            value = _resolved(name, arguments[name])
            if isinstance(defaults[name].default, bool):
                value = boolean(name, value)
            setattr(self, name, value)

        self.units = positive_integer("units", self.units)
        self.dropout = _rate("dropout", self.dropout)
        self.recurrent_dropout = _rate("recurrent_dropout", self.recurrent_dropout)
        self.implementation = one_of((0, 1, 2), "implementation", self.implementation)

        self.state_size = self.units if len(self.states) == 1 else [self.units] * len(self.states)
        self.output_size = self.units
        self.seed_generator = keras.random.SeedGenerator(self.seed)

    def build(self, input_shape):
        if input_shape[-1] is None:
            raise ValueError(
                "A cell's weights need to know the number of features, the last axis of its "
                f"input. Received: input_shape={tuple(input_shape)}"
            )
        width = len(self.gates) * self.units
        self.kernel = self._add("kernel", (input_shape[-1], width), self.kernel_initializer)
        self.recurrent_kernel = self._add(
            "recurrent_kernel", (self.units, width), self.recurrent_initializer
        )
        self.bias = self._add("bias", self.bias_shape, self.initial_bias) if self.use_bias else None

    def _add(self, name, shape, initializer):
        role = name.removesuffix("_kernel")
        return self.add_weight(
            shape=shape,
            name=name,
            initializer=initializer,
            regularizer=getattr(self, f"{role}_regularizer"),
            constraint=getattr(self, f"{role}_constraint"),
        )

    @property
    def bias_shape(self):
        return (len(self.gates) * self.units,)

    def initial_bias(self, shape, dtype=None):
        return self.bias_initializer(shape, dtype=dtype)

    def input_bias(self):
        """The bias that belongs to the projection."""
        return self.bias

    def recurrent_bias(self):
        """The bias that belongs to the products with the state; most cells have none."""
        return None

    def project(self, x, masks=(None,)):
        """Computes W x + b for all gates.

        Args:
            x: (batch, features) or (batch, time, features).
            masks: The dropout masks of `x`: one, or one per gate.

        Returns:
            (batch, [time,] gates * units).

        Raises:
            ValueError: `x` has another number of features than the weights were built for.
        """
        if x.shape[-1] not in (None, self.kernel.shape[0]):
            raise ValueError(
                f"The weights of {self.name} were built for {self.kernel.shape[0]} features, the "
                f"last axis of its input. Received: an input of {x.shape[-1]} features"
            )
        gates = "".join(self.gates)
        blocks = self._blocks(self.kernel, gates, masks)
        return self._multiply(x, blocks, gates, masks, self.input_bias())

    def product(self, gates, v, masks=(None,), blocks=None):
        """Computes U v for the gates named, with their recurrent bias where the cell has one.

        Args:
            gates: Letters of neighbouring gates, as "zr".
            v: (batch, units).
            masks: The dropout masks of `v`: one, or one per gate of the cell.
            blocks: What `recurrent_blocks` gives, from whoever has it already.

        Returns:
            (batch, len(gates) * units).
        """
        blocks = blocks or self.recurrent_blocks(gates, masks)
        return self._multiply(v, blocks, gates, masks, self.recurrent_bias())

    def recurrent_blocks(self, gates, masks=(None,)):
        """The matrices that `product` multiplies by: U's columns for the gates named, in one, or
        one per gate where each has a mask of its own."""
        return self._blocks(self.recurrent_kernel, gates, masks)

    def _blocks(self, kernel, gates, masks):
        kernel = ops.cast(kernel, self.compute_dtype)
        if len(masks) > 1:
            return [kernel[:, self.columns(gate)] for gate in gates]
        return [kernel if gates == "".join(self.gates) else kernel[:, self.columns(gates)]]

    def _multiply(self, v, blocks, gates, masks, bias):
        if len(masks) > 1:
            masks = [masks[self.gates.index(gate)] for gate in gates]
        products = [
            ops.matmul(v if mask is None else v * mask, block)
            for mask, block in zip(masks, blocks, strict=True)
        ]
        out = products[0] if len(products) == 1 else ops.concatenate(products, axis=-1)
        if bias is None:
            return out
        return out + ops.cast(bias, self.compute_dtype)[self.columns(gates)]

    def columns(self, gates):
        """The columns of neighbouring `gates` in the kernels."""
        first = self.gates.index(gates[0])
        return slice(first * self.units, (first + len(gates)) * self.units)

    def split(self, x, *groups):
        """Splits the last axis into groups of gates, as `split(x, "zr", "g")`."""
        ends = [sum(map(len, groups[: i + 1])) * self.units for i in range(len(groups) - 1)]
        return ops.split(x, ends, axis=-1)

    def step(self, x, states, product):
        """One step.

        Args:
            x: This step's projected input, (batch, gates * units).
            states: The states of the step before, each (batch, units), in the order of `states`.
            product: `product(gates, v)`, the only way to a recurrent weight.

        Returns:
            The new states, in the same order.
        """
        raise NotImplementedError

    def dropout_masks(self, x, states, training):
        """Draws the masks for one pass over a sequence.

        Args:
            x: (batch, [time,] features).
            states: The initial states.
            training: Whether dropout applies.

        Returns:
            The masks for `project` and those for `product`.
        """
        per_gate = self.implementation == 1 or self.recurrent_dropout > 0
        count = len(self.gates) if per_gate else 1

        def draw(v, rate):
            if not (training and rate):
                return (None,)
            return tuple(
                keras.random.dropout(ops.ones_like(v), rate, seed=self.seed_generator)
                for _ in range(count)
            )

        one_step = x[:, :1] if len(x.shape) == 3 else x
        return draw(one_step, self.dropout), draw(states[0], self.recurrent_dropout)

    def call(self, inputs, states, training=False):
        nested = isinstance(states, (list, tuple))
        states = list(states) if nested else [states]
        if len(inputs.shape) != 2:
            raise ValueError(
                "`inputs` must have rank 2, (batch, features): a cell takes one step. "
                f"Received: inputs.shape={tuple(inputs.shape)}"
            )
        if len(states) != len(self.states):
            raise ValueError(
                f"`states` must hold {len(self.states)}, each (batch, {self.units}): "
                f"{', '.join(self.states)}. Received: {len(states)} of them"
            )
        input_masks, state_masks = self.dropout_masks(inputs, states, training)

        def product(gates, v):
            return self.product(gates, v, state_masks)

        new_states = self.step(self.project(inputs, input_masks), states, product)
        return new_states[0], list(new_states) if nested else new_states[0]

    def get_initial_state(self, batch_size=None):
        return [ops.zeros((batch_size, self.units), dtype=self.compute_dtype) for _ in self.states]

    def get_config(self):
        config = super().get_config()
        for name in self._parameters:
            resolver = _RESOLVERS.get(name.rpartition("_")[2])
            value = getattr(self, name)
            config[name] = resolver.serialize(value) if resolver else value
        return config
