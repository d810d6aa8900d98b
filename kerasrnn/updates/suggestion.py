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


def suggest_clipnorm(record):
    """The `Suggestion` from a `GradientRecord`, as `GradientNormMonitor.suggest_clipnorm` describes
    it."""
    clip = record.clip
    by_variable = clip is not None and clip.mode == "norm"
    norms = record.largest_norms[0] if by_variable else record.global_norm
    norms = norms[record.finite & (norms > 0)]
    if not len(norms):
        raise ValueError(
            "suggest_clipnorm() needs an update with gradients that are finite and not all "
            f"zero. Received: {len(record)} recorded updates, {record.finite.sum()} of them finite"
        )
    median, high = np.percentile(norms, [50, 90])
    value = float(min(high, 10 * median))
    what = "the largest variable's" if by_variable else "the global"
    reason = (
        f"{what} gradient norm had a median of {median:.3g} and a 90th percentile of "
        f"{high:.3g} over {len(norms)} updates; {percent(norms > value)} of them lie above "
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
