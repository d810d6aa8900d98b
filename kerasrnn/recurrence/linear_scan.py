"""All states of a diagonal linear recurrence, h_t = a_t ∘ h_{t-1} + b_t, under JAX.

On a CPU a step in a loop costs little: one state after the other. On a GPU it costs more than what
it computes: all states by `jax.lax.associative_scan` (Blelloch 1990, "Prefix Sums and Their
Applications"; Martin & Cundy 2018, section 2.2).

The derivatives of all modes and orders are JAX's own. In blocks of steps, as
`kerasrnn.recurrence.blocks` has them, what they keep of each step stays in a cache, and equations
written out for the gradient were no faster.
"""

import jax
from jax import lax
from jax import numpy as jnp


def scan(a, b, initial):
    """All states of h_t = a_t ∘ h_{t-1} + b_t; differentiable, any number of times.

    Args:
        a: Like `b`, or each (units,) if it is the same at all steps of all rows. A 0 leaves nothing
            of h_{t-1}, an Inf or NaN neither.
        b: A list of the real part and, for complex states, the imaginary part, each (time, batch,
            units).
        initial: h_0, a list of parts, each (batch, units).

    Returns:
        h_1, h_2, ...: like `b`.
    """
    a = [jnp.broadcast_to(v, b[0].shape) for v in a]
    if jax.default_backend() == "gpu":
        from_initial = _times([v[0] for v in a], initial)
        b = [v.at[0].add(first) for v, first in zip(b, from_initial, strict=True)]
        return _associative(a, b)

    def turn(h, now):
        h = step(now[0], h, now[1])
        return h, h

    return lax.scan(turn, list(initial), (a, list(b)))[1]


def _associative(a, b):
    """All states from h_0 = 0."""

    def after(first, second):
        (a, b), (c, d) = first, second
        return _times(c, a), step(c, b, d)

    return lax.associative_scan(after, (a, b))[1]


def step(a, h, b):
    """a ∘ h + b, of lists: the real parts, and the imaginary ones if there are."""
    return [u + v for u, v in zip(_times(a, h), b, strict=True)]


def _times(u, v):
    """u ∘ v, where a 0 in u leaves nothing of v, an Inf or NaN neither: so a state is reset."""
    if len(u) == 1:
        return [_multiply(u[0], v[0])]
    (a, b), (c, d) = u, v
    return [_multiply(a, c) - _multiply(b, d), _multiply(a, d) + _multiply(b, c)]


def _multiply(u, v):
    return jnp.where(u == 0, 0, u * v)
