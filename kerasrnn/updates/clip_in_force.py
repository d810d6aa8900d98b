"""The clip that the updates of a `fit` pass, whoever set it."""

from typing import NamedTuple

from kerasrnn.updates.clips import CLIPS

# For each argument by which Keras's optimizers clip, the mode of `GradientClipping` of its kind.
MODES = {"clipnorm": "norm", "global_clipnorm": "global_norm", "clipvalue": "value"}


def written(mode, value):
    """A `GradientClipping` as it is written in a text."""
    return f'GradientClipping("{mode}", {value})'


class ClipInForce(NamedTuple):
    """A clip as it was set, equal to a plain tuple, as `("clipnorm", 1.0)`; printed, it is what a
    user writes to set it.

    Attributes:
        name: The optimizer's argument, or the mode of a `GradientClipping`.
        value: The number it was set to.
    """

    name: str
    value: float

    @classmethod
    def of(cls, optimizer):
        """That of an optimizer, or `None`."""
        for argument in MODES:
            value = getattr(optimizer, argument, None)
            if value and value > 0:
                return cls(argument, float(value))
        return None

    @property
    def of_optimizer(self):
        """Whether it is the optimizer's own."""
        return self.name in MODES

    @property
    def mode(self):
        """The mode of `GradientClipping` of its kind."""
        return MODES.get(self.name, self.name)

    @property
    def rule(self):
        """The class of `kerasrnn.updates.clips` that says how it clips."""
        return CLIPS[self.mode]

    @property
    def numbers(self):
        """What it was set to, by name, for a verdict."""
        if self.of_optimizer:
            return {self.name: self.value}
        return {"mode": self.name, "value": self.value}

    def __str__(self):
        value = f"{self.value:g}"
        return f"{self.name}={value}" if self.of_optimizer else written(self.name, value)
