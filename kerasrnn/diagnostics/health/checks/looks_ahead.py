"""A model of the next step that sees it."""

from kerasrnn.diagnostics.health import advice
from kerasrnn.diagnostics.health.verdict import Verdict, severity


@severity("sick")
def looks_ahead(measured):
    """A target is an input one step later, and the model sees that step when it predicts it."""
    if measured.leak is None:
        return []
    layer, at, seen = measured.leak
    meaning = (
        f"the model is to predict the next step, and {layer} sees it: its output at step {at} "
        f"depends on step {seen} of the input. Its loss is worth nothing where the next step is "
        "not known yet."
    )
    numbers = {"step": at, "seen": seen}
    return [Verdict.of("LOOKS_AHEAD", layer, numbers, meaning, advice.of_a_leak(measured, layer))]
