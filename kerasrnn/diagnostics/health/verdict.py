"""The words in which everything in this package says how a training fares."""

from typing import NamedTuple


class Verdict(NamedTuple):
    """One finding, with what it rests on and what to do about it; printed, it is these sentences.

    Attributes:
        code: The finding, as "VANISHING"; `kerasrnn.diagnostics.health_report` lists all.
        layer: Path of the layer or variable it is about; `None` for the training as a whole.
        numbers: What was measured, by name.
        meaning: One sentence.
        remedy: What to change or look at next; empty where there is nothing to.

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

    @property
    def words(self):
        """The code as it is written in a text."""
        return "NON-FINITE" if self.code == "NON_FINITE" else self.code.replace("_", " ")

    def __str__(self):
        return f"{self.words}: {self.meaning} {self.remedy}".rstrip()
