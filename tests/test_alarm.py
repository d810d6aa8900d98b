"""What a training is warned of, from norms whose trouble is known."""

import numpy as np
import pytest

from kerasrnn.updates.alarm import Alarm

NAN, INF = np.nan, np.inf
USUAL = np.random.default_rng(0).lognormal(0, 0.3, 300)


def heard(norms, at_once=1):
    """At which update an alarm is raised, and what it says."""
    alarm = Alarm()
    for start in range(0, len(norms), at_once):
        if wrong := alarm.hear(start, norms[start : start + at_once]):
            return start, wrong
    return None


@pytest.mark.parametrize("at_once", [1, 7])
def test_ten_updates_in_a_row_that_are_not_finite(at_once):
    start, wrong = heard([*USUAL[:20], *[NAN, INF] * 5, NAN], at_once)
    assert start == 29 // at_once * at_once
    assert "10 updates in a row, 20 to 29," in wrong
    assert heard([NAN] * 9) is None
    assert heard([*[NAN] * 9, 1.0] * 5) is None


@pytest.mark.parametrize("before", [5, 99, 300])
def test_a_norm_over_a_thousand_running_medians(before):
    norms = USUAL[:before]
    median = np.median(norms[-100:])
    assert heard([*norms, 990 * median]) is None
    at, wrong = heard([*norms, 1010 * median])
    assert at == before
    assert f"grown to {1010 * median:.3g} at update {before}," in wrong
    assert f"median, {median:.3g}" in wrong


def test_what_is_usual_changes():
    # A hundredfold, for good, and then a hundredfold again.
    assert heard([*USUAL, *100 * USUAL, *1e4 * USUAL]) is None
    assert heard([*USUAL, *100 * USUAL, *2e5 * USUAL])[0] == 600
    # Those that are not finite are none of the usual ones, nor do a few of them show what is usual.
    assert heard([*USUAL, NAN, *USUAL, 5e3])[0] == 601
    assert heard([*USUAL[:4], 1e9]) is None
    # Nothing is a thousand times nothing.
    assert heard([*np.zeros(50), 1.0]) is None
