"""Backpropagation through time under JAX, with one backward loop for all cells.

    forward     s_t = step(p_t, s_{t-1}), keeping s_t
    backward    for each block of steps, from the last:
        before      p_t and the value of each `product` of all its steps, which the kept states tell
        loop        at each t, from the last: `jax.vjp` of the step, with these values in the place
                    of the products, each plus a zero array, its *tap*. The state gradient that the
                    loop carries back is ∂J/∂s_t; a tap's gradient is that of its product.
        after       every weight's gradient, from all taps, in one product

`lax.scan`'s own gradient adds a product to the recurrent kernel's gradient at every step, and keeps
every value inside of a step, for which XLA takes fresh memory from the system at every call.

JAX has no forward-mode derivative of what has a `jax.custom_vjp`, and says so with a TypeError; of
its gradient it has one, and gradients of any order. The plain loop has all of them:

    with kerasrnn.recurrence.through(kerasrnn.recurrence.PATHS["portable"].run):
        jacobian = jax.jacfwd(function)(x)
"""

import jax
import keras
from jax import numpy as jnp
from keras import ops

from kerasrnn.cells.base import Cell
from kerasrnn.recurrence import blocks, portable, sequence


def refuses(sequence_pass):
    """Why the pass cannot take this path, or `None`."""
    cell = sequence_pass.cell
    if reason := sequence.unregistered(cell):
        return reason
    for name, value in vars(cell).items():
        if name.endswith("activation") and isinstance(value, keras.layers.Layer):
            return f"{name}={value.name} is a layer, which may have weights"
    if sequence_pass.unroll:
        return "unroll=True"
    if sequence_pass.tap and sequence_pass.mask is not None:
        return "the gradient by each state is measured, under a mask"
    return portable.refuses(sequence_pass)


def run(sequence_pass):
    """Runs the pass; returns what `kerasrnn.recurrence.run` does."""
    cell, states = sequence_pass.cell, list(sequence_pass.states)
    noise = cell.noise(sequence_pass.sequences, states, sequence_pass.training)
    # The masks of the inputs are (batch, 1, features).
    noise = noise._replace(inputs=tuple(m if m is None else m[:, 0] for m in noise.inputs))
    steps = sequence.time_major(sequence.values_over_time(sequence_pass, noise.zones))
    x, mask = steps.pop("x"), steps.get("mask")
    # At a masked step a state stays as it is, and so does an output that is one, unless the step is
    # reset.
    stays = type(cell).output is Cell.output and "reset" not in steps
    every = sequence_pass.return_sequences or (mask is not None and not stays)
    over_time = {"x": x, "taps": []}
    if sequence_pass.tap:
        over_time["taps"] = list(sequence_pass.tap(cell, states, x.shape[0]))
    # In full precision, in which gradients are summed.
    weights = [ops.cast(weight.value, weight.dtype) for weight in cell.weights]
    constants = steps, noise._replace(zones=None)
    final, output = _loop_of(cell, every)(
        over_time, states, weights, list(sequence_pass.episode_start), constants
    )
    if not every:
        output = cell.output(cell.project(x[-1:], noise.inputs), [state[None] for state in final])
    if mask is not None:
        output = _shown(output, mask, stays, every, sequence_pass.zero_output_for_mask)
    if not sequence_pass.return_sequences:
        return output[-1], output[-1][:, None], final
    return output[-1], sequence.time_first(output), final


def _shown(output, mask, stays, every, zero_output):
    """The outputs, of all steps or of the last alone, as masked steps show them."""
    if not stays:
        return blocks.shown(output, mask, zero_output)
    shows = mask if zero_output else jnp.cumsum(mask, axis=0) > 0
    return jnp.where(shows if every else shows[-1:], output, 0)


class _Weights(keras.StatelessScope):
    """A scope in which the weights of a cell have the `values`, and which notes those read."""

    def __init__(self, cell, values):
        super().__init__(state_mapping=list(zip(cell.weights, values, strict=True)))
        self.read = set()

    def get_current_value(self, variable):
        self.read.add(id(variable))
        return super().get_current_value(variable)


def _loop_of(cell, every):
    """The loop of one pass.

    Args:
        cell: A built `Cell`.
        every: Whether the outputs of all steps are asked for.

    Returns:
        `loop(over_time, states, weights, episode_start, constants)`, which gives the final states
        and the outputs, (time, batch, units), or `None`. It is differentiable by all but the
        constants: what else a step is told over time, and the `Noise` without its zones.
        `over_time` are the input "x", (time, batch, features), and "taps", for each state zeros
        that are added after each step, (time, batch, units), or an empty list.
    """
    # The numbers of the weights that a step reads outside of products, once it has been traced.
    inner = set()

    def project(x, weights, noise):
        with _Weights(cell, weights):
            return cell.project(x, noise.inputs)

    def multiply(gates, v, weights, noise):
        with _Weights(cell, weights):
            return cell.product(gates, v, noise.products)

    def step(x, states, taps, weights, episode_start, product, now, noise):
        """The output and the new states."""
        states = list(sequence.start_states(now, episode_start, states))
        with _Weights(cell, weights) as scope:
            new = cell.advance(x, states, product, now.get("zones"), noise.candidate)
            new = sequence.unless_masked(now, list(new), states)
            new = [state + tap for state, tap in zip(new, taps, strict=True)] if taps else new
            output = cell.output(x, new) if every else None
        inner.update(i for i, weight in enumerate(cell.weights) if id(weight) in scope.read)
        return output, new

    def forward(over_time, states, weights, episode_start, constants, keep=True):
        steps, noise = constants

        def block(states, of_block):
            of_block, now = of_block
            xs = project(of_block["x"], weights, noise)

            def product(gates, v):
                return multiply(gates, v, weights, noise)

            def turn(states, row):
                x, taps, now = row
                output, new = step(x, states, taps, weights, episode_start, product, now, noise)
                return new, (output, states if keep else None)

            return blocks.over_steps(turn, states, (xs, of_block["taps"], now))

        final, (outputs, kept) = blocks.over_blocks(block, states, (over_time, steps))
        return (final, outputs), (over_time, weights, episode_start, constants, kept)

    def products_of(xs, before, weights, episode_start, now, noise):
        """The products in the steps of a block, all steps at once, each with its pullback to the
        weights."""
        steps = xs.shape[0]
        pulls, values = [], []

        def of_rows(values):
            return jax.tree.map(lambda v: _rows(jnp.broadcast_to(v, (steps, *v.shape))), values)

        noise, episode_start = of_rows((noise, episode_start))

        def product(gates, v):
            value, pull = jax.vjp(lambda weights: multiply(gates, v, weights, noise), weights)
            pulls.append(pull)
            values.append(value.reshape(steps, -1, value.shape[-1]))
            return value

        xs, before, now = jax.tree.map(_rows, (xs, before, now))
        step(xs, before, [], weights, episode_start, product, now, noise)
        return values, pulls

    def backward(residuals, d_results):
        over_time, weights, episode_start, (steps, noise), kept = residuals
        d_final, d_outputs = d_results
        of_inner = sorted(inner)

        def block(carry, of_block):
            d_states, d_weights, d_start = carry
            of_block, now, before, d_outputs = of_block
            xs, pull_projection = jax.vjp(
                lambda x, weights: project(x, weights, noise), of_block["x"], weights
            )
            values, pull_products = products_of(xs, before, weights, episode_start, now, noise)

            def turn(carry, row):
                x, taps, now, before, values, d_output = row
                d_states, *sums = carry

                def again(x, before, taps, inner_weights, episode_start, product_taps):
                    kept = iter(zip(values, product_taps, strict=True))
                    mine = list(weights)
                    for i, weight in zip(of_inner, inner_weights, strict=True):
                        mine[i] = weight

                    def product(gates, v):
                        return _tapped(*next(kept), v, lambda v: multiply(gates, v, weights, noise))

                    return step(x, before, taps, mine, episode_start, product, now, noise)

                of = x, before, taps, [weights[i] for i in of_inner], episode_start
                _, pull = jax.vjp(again, *of, [jnp.zeros_like(value) for value in values])
                d_x, d_states, d_taps, *more, d_products = pull((d_output, d_states))
                return (d_states, *_sum(sums, more)), (d_x, d_taps, d_products)

            zeros = [jnp.zeros_like(weights[i]) for i in of_inner]
            rows = xs, of_block["taps"], now, before, values, d_outputs
            (d_states, d_inner, d_start), (d_xs, d_taps, d_products) = blocks.over_steps(
                turn, (d_states, zeros, d_start), rows, reverse=True
            )
            d_x, of_projection = pull_projection(d_xs)
            d_weights = _sum(d_weights, of_projection)
            for i, d in zip(of_inner, d_inner, strict=True):
                d_weights[i] += d
            for pull, d in zip(pull_products, d_products, strict=True):
                d_weights = _sum(d_weights, *pull(_rows(d)))
            return (d_states, d_weights, d_start), {"x": d_x, "taps": d_taps}

        none = jax.tree.map(jnp.zeros_like, (weights, episode_start))
        (d_states, d_weights, d_start), d_over_time = blocks.over_blocks(
            block, (d_final, *none), (over_time, steps, kept, d_outputs), reverse=True
        )
        return d_over_time, d_states, d_weights, d_start, None

    @jax.custom_vjp
    def loop(*arguments):
        return forward(*arguments, keep=False)[0]

    loop.defvjp(forward, backward)
    return loop


def _tapped(value, tap, v, multiply):
    """The kept `value` of a product of `v` plus its tap, with the product's derivative by v."""

    @jax.custom_vjp
    def tapped(value, tap, v):
        return value + tap

    def gradient(v, d):
        _, pull = jax.vjp(multiply, v)
        return None, d, *pull(d)

    tapped.defvjp(lambda value, tap, v: (value + tap, v), gradient)
    return tapped(value, tap, v)


def _rows(v):
    """(steps, batch, ...) as (rows, ...)."""
    return v.reshape(-1, *v.shape[2:])


def _sum(some, others):
    return jax.tree.map(jnp.add, some, others)
