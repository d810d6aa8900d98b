"""What a training is warned of while it runs."""

import collections
import math
import statistics

# So many updates in a row with an Inf or NaN are no accident.
_IN_A_ROW = 10
# A norm has run away if it is over so many of its running median, over at most so many updates
# before it, and at least so many.
_RISE, _MOST, _LEAST = 1000, 100, 5


class Alarm:
    """Looks at the global gradient norms of a training as they come.

    It is raised, once, where ten updates in a row hold an Inf or NaN, or where a norm is over a
    thousand times its running median, that of the last hundred finite ones before it.
    """

    def __init__(self):
        self._bad = 0
        self._usual = collections.deque(maxlen=_MOST)

    def hear(self, first, norms):
        """Takes in the next norms, of the updates from number `first` on.

        Returns:
            What is wrong, a sentence without its full stop, or `None`.
        """
        heard = (self._hear(update, float(norm)) for update, norm in enumerate(norms, first))
        return next(filter(None, heard), None)

    def _hear(self, update, norm):
        if not math.isfinite(norm):
            self._bad += 1
            if self._bad < _IN_A_ROW:
                return None
            return (
                f"the gradients of {_IN_A_ROW} updates in a row, {update - _IN_A_ROW + 1} to "
                f"{update}, hold an Inf or NaN"
            )
        self._bad = 0
        # A median takes longer than the least.
        if len(self._usual) >= _LEAST and norm > _RISE * min(self._usual):
            usual = statistics.median(self._usual)
            if norm > _RISE * usual > 0:
                return (
                    f"the gradient norm has grown to {norm:.3g} at update {update}, over "
                    f"{_RISE} times its running median, {usual:.3g}"
                )
        self._usual.append(norm)
        return None
