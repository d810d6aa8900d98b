"""Arithmetic of gradients beside NumPy in double precision, whatever the size of their entries."""

import numpy as np
import pytest
from keras import ops

from kerasrnn.updates import gradients

SHAPES = (4, 5), (7,), ()


def drawn(rng, scales, dtype="float32"):
    arrays = [
        (scale * rng.normal(size=shape)).astype(dtype)
        for scale, shape in zip(scales, SHAPES, strict=True)
    ]
    return arrays, [ops.convert_to_tensor(a) for a in arrays]


# Squares of the larger overflow in float32, those of the smaller vanish.
@pytest.mark.parametrize("scales", [(1, 1, 1), (1e30, 1, 1), (1, 1e-30, 1), (1e30, 1e-30, 0)])
def test_norms_neither_overflow_nor_vanish(scales, rng):
    arrays, tensors = drawn(rng, scales)
    expected = [np.linalg.norm(a.astype("float64")) for a in arrays]
    norms = ops.convert_to_numpy(gradients.norms(tensors))
    np.testing.assert_allclose(norms, expected, rtol=1e-5)
    together = ops.convert_to_numpy(gradients.global_norm(tensors))
    np.testing.assert_allclose(together, np.linalg.norm(expected), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_norms_show_what_is_not_finite(bad, rng):
    arrays, _ = drawn(rng, (1, 1, 1))
    arrays[1][3] = bad
    tensors = [ops.convert_to_tensor(a) for a in arrays]
    finite = np.isfinite(ops.convert_to_numpy(gradients.norms(tensors)))
    np.testing.assert_array_equal(finite, [True, False, True])
    assert not np.isfinite(ops.convert_to_numpy(gradients.global_norm(tensors)))


@pytest.mark.parametrize(("dtype", "large"), [("float32", 3e38), ("float16", 6e4)])
@pytest.mark.parametrize("bad", [1, np.nan, np.inf, -np.inf])
def test_large_entries_are_not_taken_for_infinite_ones(dtype, large, bad, rng):
    arrays, _ = drawn(rng, (1, 1, 1), dtype)
    arrays[0][:] = large
    arrays[1][3] = bad
    flags = gradients.nonfinite([ops.convert_to_tensor(a) for a in arrays])
    np.testing.assert_array_equal(ops.convert_to_numpy(flags), [False, not np.isfinite(bad), False])
