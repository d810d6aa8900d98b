"""Loops over time in blocks under JAX, beside one `lax.scan`."""

import numpy as np
import pytest

from kerasrnn.backends import BACKEND

if BACKEND != "jax":
    pytest.skip("needs Keras's JAX backend", allow_module_level=True)

import jax
from jax import lax
from jax import numpy as jnp

from kerasrnn.recurrence import blocks


def turn(carry, row):
    carry = jnp.tanh(carry + row["x"])
    return carry, {"state": carry, "product": carry * row["x"]}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("time", [1, 4, 7, 12])
def test_in_blocks_as_at_once(time, reverse, monkeypatch):
    monkeypatch.setattr(blocks, "block_size", lambda time, batch: min(4, time))
    x = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(time, 2, 3)), "float32")}

    def block(carry, rows):
        return blocks.over_steps(turn, carry, rows, reverse=reverse)

    def total(over, x):
        carry, results = over(x)
        return jnp.sum(carry) + jnp.sum(jnp.sin(results["product"])), results["state"]

    def in_blocks(x):
        return blocks.over_blocks(block, jnp.zeros((2, 3)), x, reverse=reverse)

    def at_once(x):
        return lax.scan(turn, jnp.zeros((2, 3)), x, reverse=reverse)

    got, expected = (
        jax.value_and_grad(lambda x, f=f: total(f, x), has_aux=True)(x)
        for f in (in_blocks, at_once)
    )
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, 1e-5, 1e-6)


@pytest.mark.parametrize(("time", "batch"), [(200, 32), (784, 16), (997, 16), (40, 128), (3, 1)])
def test_a_block_has_enough_rows_and_divides_the_steps_where_it_can(time, batch):
    size = blocks.block_size(time, batch)
    assert size == time or size * batch >= blocks._ROWS
    assert size <= time
    assert time % size == 0 or time == 997


@pytest.mark.parametrize("time", [5, 1200])
def test_an_empty_batch(time):
    """In one block and in several."""

    def block(carry, rows):
        return blocks.over_steps(turn, carry, rows)

    def loss(x):
        carry, results = blocks.over_blocks(block, jnp.zeros((0, 3)), {"x": x})
        assert results["state"].shape == (time, 0, 3)
        return jnp.sum(carry) + jnp.sum(results["state"])

    assert jax.grad(loss)(jnp.zeros((time, 0, 3))).shape == (time, 0, 3)
    assert blocks.block_size(1200, 0) < 1200
