"""A model that has learned nothing, by nothing that shows in its gradients."""

from kerasrnn.diagnostics.health import advice
from kerasrnn.diagnostics.health.checks.learning_rate import RATIO, typical_ratio
from kerasrnn.diagnostics.health.verdict import Verdict, severity

# A model has learned nothing if after so many updates its loss is over that share of the trivial
# predictor's.
_MANY, _NO_BETTER = 100, 0.95
# Layers that move by less than three times RATIO may move faster, but not by more than tenfold.
_SLOW, _FASTER = 3 * RATIO, 10


@severity("attention", alone=True)
def not_learning(measured):
    """After 100 updates or more the loss is over 95% of what the best constant prediction has, and
    nothing else is wrong."""
    record, trivial = measured.record, measured.trivial
    updates = (measured.updates or 0) if record is None else len(record)
    if trivial is None or updates < _MANY or (record and not record.finite.all()):
        return []
    if measured.of_data < _NO_BETTER * trivial.loss:
        return []
    ratio = typical_ratio(record) if record else None
    meaning = (
        f"after {updates} updates the loss at this batch is {measured.of_data:.3g}, and "
        f"{trivial.loss:.3g} if {trivial.what} is predicted for every sample: hardly "
        "anything is learned yet, though gradients arrive."
    )
    numbers = {"loss": measured.of_data, "trivial_loss": trivial.loss, "update_ratio": ratio}
    # Without a monitor nothing is known of the rate.
    faster, why = 1, ""
    if ratio is not None:
        faster = min(_FASTER, _SLOW / ratio) if ratio else _FASTER
        why = f"an update changes a layer by {ratio:.1g} of its weights, and may by more"
    steps = advice.of_no_progress(measured, faster, why)
    return [Verdict.of("NOT_LEARNING", None, numbers, meaning, steps)]
