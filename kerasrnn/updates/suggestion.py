"""A clip threshold from the norms of a training."""

import numpy as np

from kerasrnn.updates.clip_in_force import MODES, written
from kerasrnn.updates.record import percent


class Suggestion(float):
    """A clip threshold, usable as the number it is, with the reason for it.

    Attributes:
        argument: The optimizer's argument it is meant for, `"clipnorm"` or `"global_clipnorm"`.
        mode: The mode of `GradientClipping` it is meant for, `"norm"` or `"global_norm"`.
        reason: One sentence.
    """

    def __new__(cls, value, argument, reason):
        self = super().__new__(cls, value)
        self.argument = argument
        self.reason = reason
        return self

    @property
    def mode(self):
        return MODES[self.argument]

    def __reduce__(self):
        return type(self), (float(self), self.argument, self.reason)

    def __str__(self):
        return f"{self.argument}={float(self):.3g}: {self.reason}"

    def instead_of(self, clip):
        """The suggestion in a text, in the terms of the `ClipInForce`, or `None`, that it is to
        replace."""
        if clip and clip.of_optimizer:
            return str(self)
        return f"kerasrnn.callbacks.{written(self.mode, f'{self:.3g}')}: {self.reason}"


# Of a training that diverged, how many updates before that are enough to go by.
_ENOUGH = 5


def nothing_to_suggest_from(record):
    """Why a training that diverged shows no threshold, or `None` where it shows one."""
    diverged, stable = record.divergence, int(record.stable.sum())
    if not diverged or stable >= _ENOUGH:
        return None
    return (
        f"the training diverged from update {diverged.onset} on, where the gradient norm climbed "
        f"from {diverged.low:.3g} to {diverged.high:.3g}, and {stable} updates before that are too "
        "few to tell a threshold from"
    )


def suggest_clipnorm(record, window=None):
    """The `Suggestion` from a `GradientRecord`, or from the last `window` updates in it, as
    `GradientNormMonitor.suggest_clipnorm` describes it."""
    clip = record.clip
    if why := nothing_to_suggest_from(record):
        raise ValueError(
            "suggest_clipnorm() needs a training that was stable: lower the learning rate first, "
            f"as verdict() says, and train anew. Received: {len(record)} recorded updates; {why}"
        )
    by_variable = clip is not None and clip.mode == "norm"
    norms = record.largest_norms[0] if by_variable else record.global_norm
    last = slice(None if window is None else -window, None)
    norms = norms[last][(record.stable & (norms > 0))[last]]
    if not len(norms):
        raise ValueError(
            "suggest_clipnorm() needs an update with gradients that are finite, not all zero and "
            f"of a training that has not diverged. Received: {len(record.finite[last])} recorded "
            f"updates, {record.finite[last].sum()} of them finite. {record.absence}".rstrip(". ")
        )
    median, high = np.percentile(norms, [50, 90])
    value = float(min(high, 10 * median))
    what = "the largest variable's" if by_variable else "the global"
    before = " before the training diverged" if record.divergence else ""
    reason = (
        f"{what} gradient norm had a median of {median:.3g} and a 90th percentile of "
        f"{high:.3g} over {len(norms)} updates{before}; {percent(norms > value)} of them lie above "
        "this threshold"
    )
    if clip and clip.mode not in ("norm", "global_norm"):
        reason += f" (to be set in the place of {clip})"
    if record.clips_too_often:
        reason += (
            f"; {clip} fired on {percent(record.fired)} of the updates, which is a "
            "lower learning rate in disguise"
        )
    return Suggestion(value, "clipnorm" if by_variable else "global_clipnorm", reason)
