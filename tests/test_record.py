"""Numbers from recorded norms."""

import numpy as np
import pytest
from records import recorded


def test_noise_scale():
    before = np.array([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0], [np.inf, 0.0], [0.0, 1.0]])
    products = [np.nan, 0.5, 1.5, np.nan, np.nan]
    # <|g|²> = (1 + 4) / 2 over the updates that have a product, of which the mean is 1.
    assert recorded(before, products=products).noise_scale(8) == pytest.approx(8 * 1.5)
    assert recorded(before, products=np.full(5, -0.5)).noise_scale(8) == np.inf
    assert np.isnan(recorded(before, products=np.full(5, np.nan)).noise_scale(8))
    assert np.isnan(recorded(np.zeros((0, 2)), products=[]).noise_scale(8))


def test_fired_is_told_per_variable():
    before = np.array([[1.0, 1e-4], [1.0, 1e-4], [1.0, 1e-4], [0.5, 0.5]])
    after = before.copy()
    after[1, 1] = 0.5e-4
    after[2] *= 1 - 1e-6
    np.testing.assert_array_equal(recorded(before, after).fired, [False, True, False, False])
