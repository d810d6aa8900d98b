"""All states of a linear recurrence under JAX, beside a loop in NumPy and on what a GPU runs."""

import numpy as np
import pytest

from kerasrnn.backends import BACKEND

if BACKEND != "jax":
    pytest.skip("needs Keras's JAX backend", allow_module_level=True)

import jax
from jax import numpy as jnp

from kerasrnn.recurrence import linear_scan

SHAPE = 6, 2, 3


def drawn(parts):
    rng = np.random.default_rng(0)

    def draw(shape):
        return [jnp.asarray(rng.normal(size=shape), "float32") for _ in range(parts)]

    return draw(SHAPE), draw(SHAPE), draw(SHAPE[1:])


def whole(parts):
    """A list of the real part and, if there is one, the imaginary part as one array."""
    return np.asarray(parts[0]) + (1j * np.asarray(parts[1]) if len(parts) > 1 else 0)


@pytest.fixture(params=["cpu", "gpu"])
def device(request, monkeypatch):
    # The CPU runs the GPU's way, too.
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)


@pytest.mark.parametrize("parts", [1, 2])
def test_states_and_gradients(parts, device):
    a, b, initial = drawn(parts)
    h = whole(initial)
    expected = []
    for a_t, b_t in zip(whole(a), whole(b), strict=True):
        h = a_t * h + b_t
        expected.append(h)
    states = linear_scan.scan(a, b, initial)
    np.testing.assert_allclose(whole(states), np.stack(expected), 1e-4, 1e-5)

    g = [jnp.cos(v) for v in b]

    def plain(a, b, initial):
        h, total = initial, 0.0
        for t in range(SHAPE[0]):
            h = [
                u + v for u, v in zip(product([v[t] for v in a], h), [v[t] for v in b], strict=True)
            ]
            total += sum(jnp.vdot(u, v[t]) for u, v in zip(h, g, strict=True))
        return total

    def ours(a, b, initial):
        pairs = zip(linear_scan.scan(a, b, initial), g, strict=True)
        return sum(jnp.vdot(u, v) for u, v in pairs)

    def product(u, v):
        if parts == 1:
            return [u[0] * v[0]]
        return [u[0] * v[0] - u[1] * v[1], u[0] * v[1] + u[1] * v[0]]

    by = (0, 1, 2)
    got, expected = (jax.grad(f, by)(a, b, initial) for f in (ours, plain))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, 1e-4, 1e-4)


def test_coefficients_of_all_steps_alike(device):
    a, b, initial = drawn(2)
    a = [v[0, 0] for v in a]

    def total(a):
        return sum(jnp.sum(jnp.sin(v)) for v in linear_scan.scan(a, b, initial))

    spread = [jnp.broadcast_to(v, SHAPE) for v in a]
    for one, other in zip(jax.grad(total)(a), jax.grad(total)(spread), strict=True):
        np.testing.assert_allclose(one, jnp.sum(other, (0, 1)), 1e-4, 1e-4)


def test_a_zero_leaves_nothing_of_an_infinite_state(device):
    a, b, _ = drawn(1)
    a = [a[0].at[0].set(0.0)]

    def total(initial):
        return jnp.sum(linear_scan.scan(a, b, [initial])[0])

    value, gradient = jax.value_and_grad(total)(jnp.full(SHAPE[1:], np.inf))
    assert np.isfinite(value)
    np.testing.assert_array_equal(gradient, 0)
