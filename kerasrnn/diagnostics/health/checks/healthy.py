"""Of a model that is well, what it is known by."""

import math

from kerasrnn.diagnostics.health.advice import Advice
from kerasrnn.diagnostics.health.checks.vanishing import HALF_LIVES, vanishes
from kerasrnn.diagnostics.health.verdict import Verdict, severity
from kerasrnn.updates.record import percent


@severity("healthy", alone=True)
def healthy(measured):
    """None of these."""
    numbers, said = {}, []
    layers, record = measured.layers, measured.record
    reached = {path: one for path, one in layers.items() if not math.isnan(one.half_life)}
    if reached and not any(vanishes(one.steps, one.slope) for one in reached.values()):
        path = min(reached, key=lambda path: reached[path].half_life)
        layer = reached[path]
        numbers = {"half_life": layer.half_life, "steps": layer.steps}
        said.append(
            "gradients come back through all recurrent layers"
            + (
                " and do not shrink on the way"
                if math.isinf(layer.half_life)
                else f", with a half-life of {layer.half_life:.3g} steps in {path}; over "
                f"{layer.steps} steps it should be {layer.steps / HALF_LIVES:.3g} or more"
            )
        )
    if record is not None:
        median, top = record.median_norm, record.p99_norm
        numbers |= {"median_norm": median, "p99_norm": top, "clip_rate": record.clip_rate}
        fired = f"; the clip fired on {percent(record.fired)} of them" if record.clip else ""
        said.append(
            f"over {len(record)} updates the gradient norm stayed finite, with a median of "
            f"{median:.3g} and a 99th percentile of {top:.3g}{fired}"
        )
    said = said or ["the gradient of the loss is finite and reaches every layer"]
    meaning = f"{'; '.join(said)}."
    step = Advice(
        "Of gradients through time it says nothing: see kerasrnn.diagnostics.health_report."
    )
    of_norms_alone = measured.loss is None
    return [Verdict.of("HEALTHY", None, numbers, meaning, [step] if of_norms_alone else [])]
