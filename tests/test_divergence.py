"""Where norms and losses that are known diverge, and where they do not."""

import numpy as np
import pytest

from kerasrnn.updates.divergence import divergence

RNG = np.random.default_rng(0)
USUAL = RNG.lognormal(0, 0.3, 50)
NAN = np.nan


def onset(norms, losses=None):
    losses = np.full(len(norms), NAN) if losses is None else np.asarray(losses, "float64")
    found = divergence(np.asarray(norms, "float64"), losses)
    return found and found.onset


@pytest.mark.parametrize(("peak", "diverges"), [(101, True), (99, False)])
def test_how_far_it_has_to_rise(peak, diverges):
    median = np.median(USUAL)
    norms = [*USUAL, 30 * median, peak * median, NAN]
    assert onset(norms) == (50 if diverges else None)


def test_what_comes_back_has_not_risen_for_good():
    assert onset([*USUAL, 1e6, 1e6, *USUAL[:3], NAN]) is None
    assert onset([*USUAL, 1e6, *USUAL[:3], 1e6, NAN]) == 54


def test_an_inf_or_nan_out_of_nowhere_is_none():
    assert onset([*USUAL, NAN, NAN]) is None
    assert onset([NAN, NAN]) is None
    assert onset([1e22, NAN, NAN]) is None


def test_from_the_second_update_on():
    found = divergence(np.array([2.0, 1e3, 1e9, NAN]), np.array([1.0, 1e5, 1e20, NAN]))
    assert found == (1, 3, 2.0, 1e9, True)


def test_norms_that_are_finite_to_the_end_do_not_diverge_but_losses_do():
    """A gradient that grows may be one that begins to learn."""
    high = [1e5] * 3
    assert onset([*USUAL, *high], [*USUAL, *USUAL[:3]]) is None
    assert onset([*USUAL, *USUAL[:3]], [*USUAL, *high]) == 50
    # A batch or two may be odd.
    assert onset([*USUAL, *USUAL[:2]], [*USUAL, *high[:2]]) is None
    # Of losses that are no sizes nothing is known.
    assert onset([*USUAL, *USUAL[:3]], [*-USUAL, *high]) is None


def test_a_guard_may_have_saved_it():
    climb, after = [1e3, 1e6, NAN], list(USUAL)
    assert onset([*USUAL, *climb, *after], [*USUAL, *climb, *after]) is None
    assert onset([*USUAL, *climb, *after], [*USUAL, *climb, *(1e4 * USUAL)]) == 50
