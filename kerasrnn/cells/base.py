"""The contract of a recurrent cell: a projection of the input, and a step of the state."""

import math

import keras
from keras import ops

from kerasrnn.arguments import fraction, one_of, positive_integer, real_number
from kerasrnn.cells import options
from kerasrnn.cells.configured import Configured
from kerasrnn.cells.noise import Noise, draw
from kerasrnn.cells.step_of_pass import step_of_pass
from kerasrnn.initializers import GateBias

# What a cell without a recurrent kernel lacks.
NO_RECURRENT_KERNEL = (
    "recurrent_initializer",
    "recurrent_regularizer",
    "recurrent_constraint",
    "vanishing_gradient_regularization",
)


def overrides_call(cell):
    """Whether a `Cell`, by its class or by itself, takes its steps in a `call` that is not
    `Cell.call`."""
    return any(
        name in vars(cell) or getattr(type(cell), name) is not getattr(Cell, name)
        for name in ("call", "__call__")
    )


class _Product:
    """The `product` of a step: the path's, with the cell's normalization and dropout after it.

    A path may put kept values in the place of its products, so that nothing with a gradient of its
    own may hide in there.
    """

    def __init__(self, cell, product, candidate):
        self.cell = cell
        self.product = product
        self.candidate = candidate

    def __call__(self, gates, v):
        return self.cell.normalized_product(gates, self.product(gates, v))

    def drop(self, g):
        return g if self.candidate is None else g * self.candidate


class Cell(Configured):
    """One step of a recurrence, in two parts, and what is shown of it.

        p_t = W x_t + b                  projection: needs no state, so one product serves all steps
        s_t = step(p_t, s_{t-1})         step: everything that does need the state
        y_t = output(p_t, s_t)           output: needs this step only, so all can be had at once

    A further cell is a subclass with `gates`, `states` and `step`; this class gives it weights,
    dropout, zoneout, normalization, masks of all sorts, a configuration, and Keras's own cell
    protocol, so it also runs inside `keras.layers.RNN` (which, unlike the layers of this package,
    then draws new dropout masks at every step). A linear recurrence is a `LinearCell`. A subclass
    that overrides `call` is called at every step, in the plain loop alone; what is random in
    `Cell.call` is then drawn once for all steps, too.

    Weights start as Keras's do, glorot_uniform over all blocks of W at once, U orthogonal, b at
    zero, unless a start of its own belongs to a cell; then it is its authors'. The docstring of any
    other cell says what its authors' code starts from where that is not the same: the default of a
    framework, a range set by experiment, or a bias for long memory, which depends on the task and
    is left to `bias_initializer`.

    Class attributes:
        gates: A name per block of `units` columns of W and p, in the order of the weights. Here and
            wherever gates are named, "zr" is short for ("z", "r").
        recurrent_gates: The same for U; empty for a cell without U. Default: `gates`.
        bias_gates: The same for b. Default: `gates`.
        states: The names of the states; the first is also the output, unless `output` says else.
        candidate: The gate that `product.drop` marks, `None` if there is none.
        keeps, writes: The gates that, open, keep the state, and those that, open, write it. Three
            readers go by them: an initializer for long memory starts the ones open and the others
            closed; the health report does not call a gate SATURATED for values by which the cell
            remembers, near 1 of a gate that keeps and near 0 of one that writes; and against a
            gradient that vanishes it advises such an initializer for a cell with a gate of either
            kind, and a cell with such gates for another. A cell with gates names one of them.
        gated: The gates that a step takes `recurrent_activation` of, in that order, which
            diagnostics watch. Default: all but the candidate.
        zoned: The states that zoneout may act on. Default: `states`. A linear recurrence has one,
            of which `states` are the parts.
        linear: Whether the cell, as configured, is a linear recurrence.
        normalized_together: The groups of gates that share a mean and a variance. Default: all.
        normalizations: What `normalization` may be.
        learnable: The states whose initial value may be learned. Default: `states`.
        outside_step: The arguments that a step depends on by nothing but the weights, masks and
            states that it is handed; cells that differ in no other share their XLA programs.
        lacks, identity: As in `Configured`.
        paper: Author and year.
        linear_if: When the cell is a linear recurrence if not always.

    Weights: `kernel` W (features, gates * units), `recurrent_kernel` U (units, recurrent_gates *
    units), `bias` b (gates * units); with normalization `kernel_gain`, `recurrent_gain`, one per
    column; the cell's own; with `initial_state="learned"` one (units,) per state.

    Args:
        units: Positive integer, size of each state.
        activation: Activation of the candidate.
        recurrent_activation: Activation of the gates.
        use_bias: Whether to add biases.
        kernel_initializer, recurrent_initializer, bias_initializer: Initializers of the weights;
            `kerasrnn.initializers` has some for long memory. Default: `"glorot_uniform"`,
            `"orthogonal"` and `"zeros"`, if the cell does not say else.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: Regularizers of the weights.
        kernel_constraint, recurrent_constraint, bias_constraint: Constraints on the weights.
        dropout: Fraction of the inputs to drop, in [0, 1), the same ones at all steps
            (Gal & Ghahramani, 2016).
        recurrent_dropout: Fraction to drop on the way from state to state, likewise; where a cell
            has no product with the state, with `recurrent_dropout_form="candidate"` alone.
        seed: Seed of all that is random.
        implementation: As in Keras: 2 (and 0) shares one mask of the inputs among all gates, 1 (and
            `recurrent_dropout` of the previous state) draws a mask per gate.
        zoneout: Probability, in [0, 1), that a unit keeps its old value at a step; for all states,
            or as `{"h": 0.05, "c": 0.5}`. Without training, the expectation is taken (Krueger et
            al., 2017).
        normalization: `"layer"` normalizes W x and each product with the state by themselves, with
            a gain and before the bias is added (Ba et al., 2016, equation 20), or `None`. Gates
            that see the state in the same way share a mean and a variance, in W x as in the
            products: all gates of most cells; z and r of a GRU, apart from g (equations 26, 27), f
            and g of an MGU each alone, i and f of a RAN apart from g, the two of each depth of an
            RHN.
        recurrent_dropout_form: `"state"` drops of what the products see of the previous state (Gal
            & Ghahramani, 2016), `"candidate"` of what is to be written (Semeniuta et al., 2016).
        initial_state: `"zeros"`, or `"learned"`: a weight per state, at first zero.
        vanishing_gradient_regularization: λ of Ω, which prefers U that carry ∂J/∂h_t back in time
            neither shrunk nor grown (Pascanu et al., 2013, section 3.3): λ ∂⁺Ω/∂U is added to U's
            gradient, not to the loss, when a layer of this package trains (the equations are in
            `kerasrnn.recurrence.regularization`). Clip the gradients beside it. Training then runs
            in the plain loop. Where the loss is scaled, λ is with it, by the optimizer that the
            model was compiled with; in a training loop of your own around a model that is not
            compiled, scale λ yourself.

    Raises:
        ValueError: where an argument is outside its range, or the cell cannot have it.
    """

    gates = ()
    states = ("h",)
    candidate = None
    keeps = writes = ()
    normalizations = (None, "layer")
    paper = ""
    linear, linear_if = False, "no"
    outside_step = frozenset(
        {
            *("kernel_initializer", "recurrent_initializer", "bias_initializer"),
            *("kernel_regularizer", "recurrent_regularizer", "bias_regularizer"),
            *("kernel_constraint", "recurrent_constraint", "bias_constraint"),
            *("dropout", "recurrent_dropout", "recurrent_dropout_form", "implementation"),
            *("initial_state", "vanishing_gradient_regularization", "seed", "name"),
        }
    )
    # The value of cells that lack the argument.
    vanishing_gradient_regularization = 0.0

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
        zoneout=0.0,
        normalization=None,
        recurrent_dropout_form="state",
        initial_state="zeros",
        vanishing_gradient_regularization=0.0,
        **kwargs,
    ):
        self._configure(__class__, locals())

    def _configure(self, cls, arguments):
        super()._configure(cls, arguments)
        self.units = positive_integer("units", self.units)
        self.dropout = fraction("dropout", self.dropout)
        self.recurrent_dropout = fraction("recurrent_dropout", self.recurrent_dropout)
        self.vanishing_gradient_regularization = real_number(
            "vanishing_gradient_regularization",
            self.vanishing_gradient_regularization,
            "be a finite number, 0 or more",
            lambda value: 0 <= value < math.inf,
        )
        self.implementation = one_of((0, 1, 2), "implementation", self.implementation)
        one_of(self.normalizations, "normalization", self.normalization)
        one_of(("state", "candidate"), "recurrent_dropout_form", self.recurrent_dropout_form)
        one_of(("zeros", "learned"), "initial_state", self.initial_state)
        self._check_options()
        self.zone_rates = options.zone_rates(self)

        self.state_size = self.units if len(self.states) == 1 else [self.units] * len(self.states)
        self.output_size = self.units
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        if self.linear:
            # Which would round the states that come in.
            self.autocast = False

    def _check_options(self):
        """Raises a `ValueError` for an option that the cell cannot have."""
        options.check(self)
        if self.vanishing_gradient_regularization and overrides_call(self):
            raise ValueError(
                "`vanishing_gradient_regularization` needs a cell that leaves `call` as it is and "
                "overrides `step`, whose gradient it takes. Received: "
                "vanishing_gradient_regularization="
                f"{self.vanishing_gradient_regularization} for {type(self).__name__}, which "
                "overrides `call`"
            )

    @property
    def recurrent_gates(self):
        return self.gates

    @property
    def bias_gates(self):
        return self.gates

    @property
    def gated(self):
        if "recurrent_activation" in self.lacks:
            return ()
        return tuple(gate for gate in self.gates if gate != self.candidate)

    @property
    def zoned(self):
        return self.states

    @property
    def learnable(self):
        return self.states

    @property
    def state_dtype(self):
        """What the cell computes in after the product with the input, the states among it."""
        return self.compute_dtype

    def build(self, input_shape):
        if input_shape[-1] is None:
            raise ValueError(
                "A cell's weights need to know the number of features, the last axis of its "
                f"input. Received: input_shape={tuple(input_shape)}"
            )
        width, recurrent = (len(g) * self.units for g in (self.gates, self.recurrent_gates))
        self.kernel = self._add("kernel", (input_shape[-1], width), self.kernel_initializer)
        if recurrent:
            self.recurrent_kernel = self._add(
                "recurrent_kernel", (self.units, recurrent), self.recurrent_initializer
            )
        self.bias = None
        if self.use_bias:
            self.bias = self._add(
                "bias", self.bias_shape, self.initial_bias, autocast=not self.linear
            )
        if self.normalization:
            self.kernel_gain = self.add_weight((width,), "ones", name="kernel_gain")
            self.recurrent_gain = self.add_weight((recurrent,), "ones", name="recurrent_gain")
        self.build_own(input_shape)
        if self.initial_state == "learned":
            self.initial_states = {
                s: self.add_weight(
                    (self.units,), "zeros", name=f"initial_{s}", autocast=not self.linear
                )
                for s in self.learnable
            }

    def build_own(self, input_shape):
        """Adds the weights that only this cell has."""

    def cast(self, weight):
        """A weight, as a step computes with it. One that is to be exact where that is not half
        precision is added with `autocast=False`."""
        return ops.cast(weight, self.state_dtype)

    def _add(self, name, shape, initializer, autocast=True):
        role = name.removesuffix("_kernel")
        return self.add_weight(
            shape=shape,
            name=name,
            initializer=initializer,
            regularizer=getattr(self, f"{role}_regularizer"),
            constraint=getattr(self, f"{role}_constraint"),
            autocast=autocast,
        )

    @property
    def bias_shape(self):
        return (len(self.bias_gates) * self.units,)

    def initial_bias(self, shape, dtype=None):
        """The bias at first; an initializer that speaks of gates is told which keep and write."""
        if not isinstance(self.bias_initializer, GateBias):
            return self.bias_initializer(shape, dtype=dtype)
        keep, write = self.bias_initializer.pair(self.units, bool(self.keeps), dtype)
        of = dict.fromkeys(self.keeps, keep) | dict.fromkeys(self.writes, write)
        zeros = ops.zeros_like(keep)
        return ops.concatenate([of.get(gate, zeros) for gate in self.bias_gates])

    def input_bias(self):
        """The bias that belongs to the projection."""
        return self.bias

    def recurrent_bias(self):
        """The bias that belongs to the products with the state; most cells have none."""
        return None

    def check_features(self, x):
        """Raises a `ValueError` where x, (..., features), has another number of features than the
        weights were built for: kernels that do not ask read past the end of them."""
        if x.shape[-1] not in (None, self.kernel.shape[0]):
            raise ValueError(
                f"The weights of {self.name} were built for {self.kernel.shape[0]} features, the "
                f"last axis of its input. Received: an input of {x.shape[-1]} features"
            )

    def project(self, x, masks=(None,)):
        """Computes W x + b for all gates.

        Args:
            x: (batch, features) or (batch, time, features).
            masks: The dropout masks of `x`: one, or one per gate.

        Returns:
            (batch, [time,] gates * units), in `state_dtype`.

        Raises:
            ValueError: `x` has another number of features than the weights were built for.
        """
        self.check_features(x)
        blocks = self._blocks(self.kernel, self.gates, masks, self.gates)
        y = self._multiply(x, blocks, masks)
        if self.normalization:
            y = options.normalized(self, y, self.gates, self.gates, self.kernel_gain)
        return self._plus(ops.cast(y, self.state_dtype), self.input_bias(), slice(None))

    def product(self, gates, v, masks=(None,), blocks=None):
        """Computes U v for the gates named, with their recurrent bias where the cell has one.

        With normalization the bias comes later, in `advance`.

        Args:
            gates: Neighbouring recurrent gates, as "zr".
            v: (batch, units).
            masks: The dropout masks of `v`: one, or one per recurrent gate of the cell.
            blocks: What `recurrent_blocks` gives, from whoever has it already.

        Returns:
            (batch, len(gates) * units).
        """
        if len(masks) > 1:
            masks = [masks[self.recurrent_gates.index(gate)] for gate in gates]
        y = self._multiply(v, blocks or self.recurrent_blocks(gates, masks), masks)
        return y if self.normalization else self._plus_recurrent_bias(y, gates)

    def recurrent_blocks(self, gates, masks=(None,)):
        """The matrices that `product` multiplies by: U's columns for the gates named, in one, or
        one per gate where each has a mask of its own."""
        return self._blocks(self.recurrent_kernel, gates, masks, self.recurrent_gates)

    def normalized_product(self, gates, y):
        """What the runner's `product(gates, v)`, y, is to the step."""
        if not self.normalization:
            return y
        y = options.normalized(self, y, gates, self.recurrent_gates, self.recurrent_gain)
        return self._plus_recurrent_bias(y, gates)

    def _blocks(self, kernel, gates, masks, among):
        kernel = ops.cast(kernel, self.compute_dtype)
        if len(masks) > 1:
            return [kernel[:, self.columns((gate,), among)] for gate in gates]
        return [kernel if tuple(gates) == tuple(among) else kernel[:, self.columns(gates, among)]]

    def _multiply(self, v, blocks, masks):
        products = [
            ops.matmul(v if mask is None else v * mask, block)
            for mask, block in zip(masks, blocks, strict=True)
        ]
        return products[0] if len(products) == 1 else ops.concatenate(products, axis=-1)

    def _plus(self, y, bias, columns):
        return y if bias is None else y + self.cast(bias)[columns]

    def _plus_recurrent_bias(self, y, gates):
        return self._plus(y, self.recurrent_bias(), self.columns(gates, self.recurrent_gates))

    @property
    def normalized_together(self):
        """The groups of gates whose columns share a mean and a variance, in W x as in U v."""
        return (self.gates,)

    def columns(self, gates, among=None):
        """The columns of neighbouring `gates` in the kernel, or in what has the gates `among`."""
        first = (among or self.gates).index(gates[0])
        return slice(first * self.units, (first + len(gates)) * self.units)

    def split(self, x, *groups):
        """Splits the last axis into groups of gates, as `split(x, "zr", "g")`."""
        lengths = [len(group) for group in groups]
        # Into equal parts: by indices Keras computes each part's size with a dozen operations.
        equal = math.gcd(*lengths)
        parts = iter(ops.split(x, sum(lengths) // equal, axis=-1))
        joined = ([next(parts) for _ in range(length // equal)] for length in lengths)
        return [some[0] if len(some) == 1 else ops.concatenate(some, axis=-1) for some in joined]

    def step(self, x, states, product):
        """One step of the equations, without the cell's options.

        Args:
            x: This step's projected input, (batch, gates * units).
            states: The states of the step before, each (batch, units), in the order of `states`.
            product: `product(gates, v)`, the only way to a recurrent weight;
                `product.drop(g)` gives the candidate as dropout leaves it.

        Returns:
            The new states, in the same order.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must have a `step`, or derive from kerasrnn.cells.LinearCell "
            "where it has `coefficients` in its place"
        )

    def advance(self, x, states, product, zones=None, candidate=None):
        """One step with zoneout, normalization and dropout: what the paths call.

        Args:
            x, states, product: As for `step`.
            zones: This step's part of `Noise.zones`, or `None` without training.
            candidate: As in `Noise`.

        Returns:
            The new states.
        """
        new = self.step(x, states, _Product(self, product, candidate))
        return options.zoned_out(self, zones, states, new)

    def output(self, x, states):
        """What the cell shows after a step.

        Args:
            x: The projected input of one step or of many, (..., gates * units).
            states: The states after the same steps, each (..., units).

        Returns:
            (..., units).
        """
        return states[0]

    def noise(self, x, states, training):
        """Draws all that is random in one pass over a sequence.

        Args:
            x: (batch, [time,] features).
            states: The initial states.
            training: Whether anything is to be random.

        Returns:
            A `Noise`.
        """
        if not training:
            return Noise()
        return draw(self, x, states)

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
        if training and self.vanishing_gradient_regularization:
            raise ValueError(
                "`vanishing_gradient_regularization` needs a layer of this package around the "
                "cell, as kerasrnn.layers.RNN(cell). Received: vanishing_gradient_regularization="
                f"{self.vanishing_gradient_regularization} for {self.name}, called by itself"
            )
        # Keras's loop needs its states back in the compute dtype, in which it gives them.
        dtypes = [
            self.compute_dtype if state.dtype == self.compute_dtype else self.state_dtype
            for state in states
        ]
        inputs = ops.cast(inputs, self.compute_dtype)
        states = [ops.cast(state, self.state_dtype) for state in states]
        of_pass = step_of_pass(self)
        noise = of_pass.noise if of_pass else self.noise(inputs, states, training)

        def product(gates, v):
            return self.product(gates, v, noise.products)

        x = self.project(inputs, noise.inputs)
        new = self.advance(x, states, product, noise.zones, noise.candidate)
        if of_pass and of_pass.tap:
            new = of_pass.tap(new)
        output = ops.cast(self.output(x, new), self.compute_dtype)
        new = [ops.cast(v, dtype) for v, dtype in zip(new, dtypes, strict=True)]
        return output, new if nested else new[0]

    def get_initial_state(self, batch_size=None):
        shape = (batch_size, self.units)
        learned = self.initial_states if self.initial_state == "learned" else {}
        return [
            ops.broadcast_to(self.cast(learned[state]), shape)
            if state in learned
            else ops.zeros(shape, dtype=self.state_dtype)
            for state in self.states
        ]

    def get_config(self):
        config = super().get_config()
        config["zoneout"] = dict(self.zoneout) if isinstance(self.zoneout, dict) else self.zoneout
        return config
