"""All states of a diagonal linear recurrence, h_t = a_t ∘ h_{t-1} + b_t, under JAX.

    backward    δ_t = g_t + conj(a_{t+1}) ∘ δ_{t+1}     g_t: what reaches h_t from outside
                ∂J/∂b_t = δ_t,   ∂J/∂a_t = δ_t ∘ conj(h_{t-1}),   ∂J/∂h_0 = conj(a_1) ∘ δ_1

On a CPU a step in a loop costs little: one state after the other. On a GPU it costs more than what
it computes: all states by `jax.lax.associative_scan` (Blelloch 1990, "Prefix Sums and Their
Applications"; Martin & Cundy 2018, section 2.2).
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
    return _states(a, list(b), list(initial))


@jax.custom_vjp
def _states(a, b, initial):
    if jax.default_backend() == "gpu":
        b = [v.at[0].add(u) for v, u in zip(b, _times(_at(a, 0), initial), strict=True)]
        return _associative(a, b)

    def turn(h, now):
        h = step(now[0], h, now[1])
        return h, h

    return lax.scan(turn, initial, (a, b))[1]


def _forward(a, b, initial):
    h = _states(a, b, initial)
    return h, (a, initial, h)


def _backward(residuals, g):
    a, initial, h = residuals
    delta, d_initial = _deltas(_conj(a), g)
    before = [jnp.concatenate([v[None], vs[:-1]]) for v, vs in zip(initial, h, strict=True)]
    return _times(_conj(before), delta), delta, d_initial


_states.defvjp(_forward, _backward)


def _deltas(a, g):
    """δ of all steps, and a_1 ∘ δ_1, where `a` are the conjugates."""
    if jax.default_backend() == "gpu":
        ahead = [jnp.concatenate([v[1:], jnp.zeros_like(v[:1])]) for v in a]
        delta = _associative(ahead, g, reverse=True)
        return delta, _times(_at(a, 0), _at(delta, 0))

    def turn(ahead, now):
        a, g = now
        delta = [u + v for u, v in zip(g, ahead, strict=True)]
        return _times(a, delta), delta

    first, delta = lax.scan(turn, [jnp.zeros_like(v[0]) for v in g], (a, g), reverse=True)
    return delta, first


def _associative(a, b, reverse=False):
    """All states from h_0 = 0."""

    def after(first, second):
        (a, b), (c, d) = first, second
        return _times(c, a), step(c, b, d)

    return lax.associative_scan(after, (a, b), reverse=reverse)[1]


def _at(values, t):
    return [v[t] for v in values]


def step(a, h, b):
    """a ∘ h + b, of lists: the real parts, and the imaginary ones if there are."""
    return [u + v for u, v in zip(_times(a, h), b, strict=True)]


def _conj(v):
    return [v[0], *(-imaginary for imaginary in v[1:])]


def _times(u, v):
    """u ∘ v, where a 0 in u leaves nothing of v, an Inf or NaN neither: so a state is reset."""
    if len(u) == 1:
        return [_multiply(u[0], v[0])]
    (a, b), (c, d) = u, v
    return [_multiply(a, c) - _multiply(b, d), _multiply(a, d) + _multiply(b, c)]


def _multiply(u, v):
    return jnp.where(u == 0, 0, u * v)
