"""An Inf or NaN in the gradients."""

import numpy as np

from kerasrnn.diagnostics.health import advice
from kerasrnn.diagnostics.health.advice import Advice, listed
from kerasrnn.diagnostics.health.checks.exploding import explodes_at_once
from kerasrnn.diagnostics.health.checks.learning_rate import too_high
from kerasrnn.diagnostics.health.verdict import Verdict, severity


@severity("sick")
def non_finite(measured):
    """There is an Inf or NaN in the gradients, during training or at (x, y), and no recurrence that
    explodes is its cause."""
    at_batch = _non_finite_at_batch(measured)
    # What happened first says more, but for data that hold one.
    if measured.cause and measured.cause.kind in ("x", "y"):
        return at_batch
    return _non_finite_in_training(measured) or at_batch


def _non_finite_in_training(measured):
    record, settings = measured.record, measured.settings
    bad = [] if record is None else np.argwhere(~np.isfinite(record.before))
    if not len(bad) or explodes_at_once(record):
        return []
    update, column = bad[0]
    variable, updates = record.variables[column], len(np.unique(bad[:, 0]))
    meaning = f"update {update} was the first of {updates} with an Inf or NaN in its gradients, "
    meaning += f"in {variable}"
    if record.skipped:
        meaning += (
            f"; DivergenceGuard skipped {record.skipped} updates, which cost no more than that"
        )
    if diverged := record.divergence:
        meaning += (
            f". The training had diverged by then: the gradient norm climbed from "
            f"{diverged.low:.3g} to {diverged.high:.3g} from update {diverged.onset} on."
        )
        steps = too_high(measured, record)[0].steps[:1]
    else:
        meaning += "; the norms before it were as ever." if update else "."
        steps = listed(
            Advice(
                "Look for an Inf or NaN in the inputs and labels of that batch, and for a "
                "logarithm, root or division of zero in the model and its loss."
            ),
            advice.guard(settings),
            advice.clip(settings),
            Advice("Where the weights hold one now, go back to an earlier checkpoint."),
        )
    numbers = {"update": int(update), "variable": variable, "updates": updates}
    return [Verdict.of("NON_FINITE", variable, numbers, meaning, steps)]


def _non_finite_at_batch(measured):
    cause, settings = measured.cause, measured.settings
    if cause is None or cause.explodes:
        return []
    if cause.kind == "weights" and measured.record and explodes_at_once(measured.record):
        return []
    layer = cause.place if cause.kind in ("weights", "gradient") else None
    what = {
        "x": f"`x` holds an Inf or NaN, first in sample {cause.place},",
        "y": f"`y` holds an Inf or NaN, first in sample {cause.place},",
        "weights": f"{cause.place} holds an Inf or NaN",
        "gradient": f"the gradient of {cause.place} has an Inf or NaN",
        "loss": f"the loss is {cause.loss}",
    }[cause.kind]
    steps = {
        "x": [Advice("Clean or mask the data."), advice.guard(settings)],
        "y": [Advice("Clean the data."), advice.guard(settings)],
        "weights": [
            Advice("Go back to an earlier checkpoint, or start anew, with a lower learning rate."),
            advice.clip(settings),
            advice.guard(settings),
        ],
    }.get(
        cause.kind,
        [
            Advice(
                "`x`, `y` and the weights have none, nor does a recurrence explode. Look for a "
                "logarithm, root or division of zero in the model and its loss, and for numbers "
                "too large to be squared."
            )
        ],
    )
    numbers = {"loss": cause.loss, "weights": cause.weights, "gradients": cause.gradients}
    meaning = f"{what} at this batch, so that no update can be told from it."
    return [Verdict.of("NON_FINITE", layer, numbers, meaning, listed(*steps))]
