"""The words in which everything in this package says how a training fares."""

from typing import NamedTuple

# How grave a finding is, the least first: what `HealthReport.status` can be.
SEVERITIES = ("healthy", "attention", "sick")


class Advice(str):
    """One thing to change or look at, as a sentence.

    Attributes:
        setting: The name in `Settings.by_name` of what it changes; `None` where no setting shows
            whether it was followed.
        key: What it is known by in another report, where its numbers and names may differ. Default:
            the text.
    """

    def __new__(cls, text, setting=None, key=None):
        self = super().__new__(cls, text)
        self.setting = setting
        self.key = key or text
        return self

    def __getnewargs__(self):
        return str(self), self.setting, self.key


class Verdict(NamedTuple):
    """One finding, with what it rests on and what to do about it; printed, it is these sentences.

    Attributes:
        code: The finding, as "VANISHING"; `kerasrnn.diagnostics.health_report` lists all.
        layer: Path of the layer or variable it is about; `None` for the training as a whole.
        numbers: What was measured, by name.
        meaning: One sentence.
        remedy: The next step: what to change or look at first; empty where there is nothing to.
        further: A tuple of what else there is to change, the best first.
        severity: "healthy" (a note, harmless), "attention" or "sick".

    Example:

    >>> Verdict = kerasrnn.diagnostics.Verdict
    >>> print(Verdict("CLIP_TOO_TIGHT", None, {}, "It cut 100%.", "Raise it."))
    CLIP TOO TIGHT: It cut 100%. Raise it.
    """

    code: str
    layer: str | None
    numbers: dict
    meaning: str
    remedy: str = ""
    further: tuple = ()
    severity: str = "attention"

    @classmethod
    def of(cls, code, layer, numbers, meaning, steps=()):
        """One with all there is to do about it, the next step first."""
        return cls(code, layer, numbers, meaning).advised(list(steps))

    @property
    def words(self):
        """The code as it is written in a text."""
        return "NON-FINITE" if self.code == "NON_FINITE" else self.code.replace("_", " ")

    @property
    def steps(self):
        """All there is to do about it, the next step first."""
        return (self.remedy, *self.further) if self.remedy else ()

    def advised(self, steps):
        """The same with other steps, the next first."""
        remedy, *further = steps or [""]
        return self._replace(remedy=remedy, further=tuple(further))

    def __str__(self):
        further = f" If that does not help: {' '.join(self.further)}" if self.further else ""
        return f"{self.words}: {self.meaning} {self.remedy}{further}".rstrip()


def grouped(verdicts):
    """The verdicts as they are shown: those of several layers that want the same steps once.

    Returns:
        A list of pairs, a verdict and a tuple of those that are the same in other layers.
    """
    groups = {}
    for number, verdict in enumerate(verdicts):
        keys = tuple(getattr(step, "key", step) for step in verdict.steps)
        # One that is about the whole stands for itself.
        place = number if verdict.layer is None else None
        groups.setdefault((verdict.code, keys, place), []).append(verdict)
    return [(first, tuple(others)) for first, *others in groups.values()]


def short(value):
    """A number of a verdict in a text."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def in_other_layers(others):
    """A sentence on the verdicts that are the same in other layers, with their numbers."""
    layers = (
        f"{v.layer} ({', '.join(f'{name} {short(n)}' for name, n in v.numbers.items())})"
        for v in others
    )
    return f"The same in {', '.join(layers)}."


def gravest(verdicts):
    """The first of the gravest verdicts, whose remedy is the step to take."""
    return max(verdicts, key=lambda verdict: SEVERITIES.index(verdict.severity))


def severity(level, alone=False):
    """Declares, on a check, how grave what it finds is, one of `SEVERITIES`, and whether it is only
    asked where those before it find nothing that is graver than the least."""

    def declared(check):
        check.severity, check.alone = level, alone
        return check

    return declared
