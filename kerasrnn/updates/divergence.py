"""Where a training diverged."""

from typing import NamedTuple

import numpy as np

# A norm or a loss has left for good where it stays above that many medians of what was before.
_RISE = 10
# It has diverged if it came to that many of them.
_DIVERGED = 100
# A loss that ends finite has to stay up for as many updates.
_LASTING = 3
# What comes after an Inf or NaN has recovered if the loss ends below that many first ones.
_RECOVERED = 2


class Divergence(NamedTuple):
    """A training that diverged.

    Attributes:
        onset: The first update of the rise.
        until: The first update that is not finite, or how many there are.
        low, high: The median of the global norms before the rise, and the largest finite one in it.
        of_loss: Whether the loss rose, too, or alone.
    """

    onset: int
    until: int
    low: float
    high: float
    of_loss: bool


def divergence(norms, losses):
    """The `Divergence`, or `None` where there is none, or the training has recovered from it.

    Norms or losses rise for good from an update on if each one from there to the first that is not
    finite is over 10 times the median of all before it; they have diverged if the largest is over
    100 times that median. Where nothing is Inf or NaN, the losses alone count, and have to stay up.

    Args:
        norms: (updates,), global norms.
        losses: (updates,), NaN where they are not known.
    """
    bad = np.flatnonzero(~np.isfinite(norms))
    until = int(bad[0]) if len(bad) else len(norms)
    if not until or (len(bad) and _recovered(norms, losses)):
        return None
    of_loss, of_norm = _onset(losses[:until]), None
    if len(bad):
        of_norm = _onset(norms[:until])
    elif of_loss and until - of_loss < _LASTING:
        of_loss = None
    onsets = [onset for onset in (of_loss, of_norm) if onset]
    if not onsets:
        return None
    onset = min(onsets)
    low, high = float(np.median(norms[:onset])), float(norms[onset:until].max())
    return Divergence(onset, until, low, high, of_loss is not None)


def _recovered(norms, losses):
    last = slice(-max(1, len(norms) // 10), None)
    if not np.isfinite(norms[last]).all():
        return False
    first = losses[0]
    return not np.isfinite(first) or np.median(losses[last]) <= first + (_RECOVERED - 1) * abs(
        first
    )


def _onset(values):
    """The first index of the rise for good; `None` without one, or where values are not known or
    not positive."""
    if np.isnan(values).any() or not (values > 0).all():
        return None
    onset = len(values)
    while onset > 1 and values[onset - 1] > _RISE * np.median(values[: onset - 1]):
        onset -= 1
    if onset == len(values) or values[onset:].max() <= _DIVERGED * np.median(values[:onset]):
        return None
    return onset
