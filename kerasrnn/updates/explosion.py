"""When a loss explodes."""

import collections
import inspect
import math
import statistics
import textwrap

# How many losses say what is usual, how many of them do so for sure, how often all may be dropped
# before, and how much larger than one that is known a loss may be.
_RECENT, _SURE, _DROPS, _KNOWN = 100, 4, 2, 2
# What one loss in ten exceeds is usual: batches with hardly any weight may be in between.
_LARGE = 0.9


class ExplosionRule:
    """The loss l of a batch explodes where it is far above those of the batches before it:

        l > m + max((explosion - 1) s, 2 (top - m))

        h    the last 100 losses other than 0 that were finite and did not explode
        m    median(h), the lower one of two
        s    the 90th percentile of |h|, the higher one of two
        top  the largest of all such losses

    The newer half of h counts for m alone, since an explosion may have begun there. The first rise
    leads to `explosion` times what is usual, which one loss in ten exceeds, so that most of the
    batches may have hardly any weight; |h| makes it large enough where losses are negative or
    change their sign. The second rise leaves alone what is large and not new, as in a net that has
    converged.

    Fewer than 4 losses may all be those of batches with hardly any weight: where l is more than
    `explosion` times each of them, they are dropped, and it is the first of h. It explodes where
    that comes a third time before there are 4. After a rollback h begins anew, since older weights
    have other losses; until there are 4 again, l has to pass the limit of before as well. Four
    batches of hardly any weight at the very start are taken for what is usual, and so is what a few
    losses show by chance: then raise `explosion`, or shuffle.

    Args:
        explosion: Number over 1.
    """

    def __init__(self, explosion):
        self.explosion = explosion
        self._limit_before = None
        self._begin()

    def _begin(self, drops=0):
        self._recent = collections.deque(maxlen=_RECENT)
        self._largest = -math.inf
        self._drops = drops

    def rose_from(self, loss):
        """m, where the loss of the next batch explodes; else `None`, and h takes it in."""
        if not math.isfinite(loss) or loss == 0:
            return None
        if self._recent and self._explodes(loss):
            return statistics.median_low(self._recent)
        if len(self._recent) == _RECENT:
            self._largest = max(self._largest, self._recent[0])
        self._recent.append(loss)
        return None

    def renew(self):
        """To be called after a rollback."""
        if self._recent:
            limits = [self._limit]
            if len(self._recent) < _SURE and self._limit_before is not None:
                limits.append(self._limit_before)
            self._limit_before = max(limits)
        self._begin()

    @property
    def _limit(self):
        usual = statistics.median_low(self._recent)
        older = list(self._recent)[: len(self._recent) - len(self._recent) // 2]
        size = sorted(map(abs, older))[math.ceil(_LARGE * (len(older) - 1))]
        top = max(self._largest, *older)
        return usual + max((self.explosion - 1) * size, _KNOWN * (top - usual))

    def _explodes(self, loss):
        if loss <= self._limit:
            return False
        if len(self._recent) >= _SURE:
            return True
        if self._limit_before is not None:
            return loss > self._limit_before
        if self._drops == _DROPS or loss <= self.explosion * max(map(abs, self._recent)):
            return True
        self._begin(self._drops + 1)
        return False


def described():
    """What the rule says of itself, as it stands in the docstring of `DivergenceGuard`."""
    text = inspect.cleandoc(ExplosionRule.__doc__).partition("\n\nArgs:")[0]
    return textwrap.indent(text, 4 * " ").strip()
