"""Loops over time under JAX, in blocks of steps.

What is computed for all steps at once, as the product with the inputs, is computed for a block of
steps at once: enough rows for a fast product, and so few that they stay in a cache. Of all steps
together XLA would take fresh memory from the system at every call, and on a CPU that costs as much
as the computation.
"""

import jax
from jax import lax
from jax import numpy as jnp

# Rows, steps times batch, that a block has at least, and its fewest steps.
_ROWS, _STEPS = 512, 4


def over_blocks(function, carry, values, reverse=False):
    """Runs a function from block to block.

    Args:
        function: `function(carry, values)`, of the values of one block of steps, gives the carry
            for the next block, and results: for each step, (steps, ...).
        carry: For the first block.
        values: A structure of (time, batch, ...).
        reverse: Whether to go from the last block to the first.

    Returns:
        The carry after the last block, and the results of all steps, (time, ...).
    """
    time, batch = jax.tree.leaves(values)[0].shape[:2]
    size = block_size(time, batch)
    if size == time:
        return function(carry, values)
    # What does not fill a block comes first.
    rest = time % size
    first = jax.tree.map(lambda v: v[:rest], values)
    count = time // size
    in_blocks = jax.tree.map(lambda v: v[rest:].reshape(count, size, *v.shape[1:]), values)
    results = []
    if rest and not reverse:
        carry, of_rest = function(carry, first)
        results.append(of_rest)
    carry, of_blocks = lax.scan(function, carry, in_blocks, reverse=reverse)
    results.append(jax.tree.map(lambda v: v.reshape(count * size, *v.shape[2:]), of_blocks))
    if rest and reverse:
        carry, of_rest = function(carry, first)
        results.insert(0, of_rest)
    return carry, jax.tree.map(lambda *parts: _joined(parts), *results)


def _joined(parts):
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def block_size(time, batch):
    """How many steps a block has: a divisor of their number where one is near; all where their
    number is a symbol, as in `jax.export`."""
    if not isinstance(time, int):
        return time
    # Of a batch that is a symbol no more is known than that it has rows.
    rows = max(batch, 1) if isinstance(batch, int) else 1
    least = min(max(_STEPS, -(-_ROWS // rows)), time)
    near = [size for size in range(least, min(2 * least, time) + 1) if time % size == 0]
    return near[0] if near else least


def over_steps(function, carry, values, reverse=False):
    """As `lax.scan`, for loops on a CPU: each step's values are read the turn before, and are
    arrays of their own. What is read where it is used XLA makes part of that computation, and looks
    its place up for every element instead of running on vectors."""
    time = jax.tree.leaves(values)[0].shape[0]

    def row(t):
        t = jnp.clip(t, 0, time - 1)
        return jax.tree.map(lambda v: lax.dynamic_index_in_dim(v, t, keepdims=False), values)

    def turn(carried, t):
        carry, now = carried
        carry, result = function(carry, now)
        return (carry, row(t - 1 if reverse else t + 1)), result

    first = row(time - 1 if reverse else 0)
    (carry, _), results = lax.scan(turn, (carry, first), jnp.arange(time), reverse=reverse)
    return carry, results


def shown(outputs, mask, zero_output_for_mask):
    """The outputs as masked steps show them: that of the last step that is not masked, zeros where
    there is none before, or zeros at all of them.

    Args:
        outputs: (time, batch, units), or with further axes.
        mask: (time, batch, 1) booleans.
        zero_output_for_mask: Whether they are zeros.
    """
    further = range(2, outputs.ndim)
    mask = jnp.expand_dims(mask[:, :, 0], further)
    outputs = jnp.where(mask, outputs, 0)
    if zero_output_for_mask:
        return outputs
    steps = jnp.expand_dims(jnp.arange(len(mask)), (1, *further))
    last = lax.cummax(jnp.where(mask, steps, 0))
    return jnp.take_along_axis(outputs, last, axis=0)


def project(cell, inputs, masks):
    """The projection, (time, batch, columns).

    Args:
        cell: A `Cell`.
        inputs: (time, batch, features).
        masks: The dropout masks, each (batch, 1, features), or `None`.
    """
    return cell.project(inputs, [mask if mask is None else mask[:, 0] for mask in masks])


def in_parts(function, carry, values):
    """As `over_blocks`, where a gradient computes a block once more rather than keep what is inside
    of it; on a GPU all steps at once."""
    if jax.default_backend() == "gpu":
        return function(carry, values)
    return over_blocks(jax.checkpoint(function), carry, values)
