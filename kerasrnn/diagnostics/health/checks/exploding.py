"""Gradients that explode, through time or in training."""

import math

import numpy as np

from kerasrnn.diagnostics.health import advice
from kerasrnn.diagnostics.health.advice import Advice, listed
from kerasrnn.diagnostics.health.checks.dead import dead_layers
from kerasrnn.diagnostics.health.checks.vanishing import flow_numbers, vanished
from kerasrnn.diagnostics.health.verdict import Verdict, severity
from kerasrnn.diagnostics.reach import HUGE
from kerasrnn.updates.record import percent

# A gradient through time explodes if it grows more than that much over the sequence: growth by less
# may be noise of the fit, and does no harm; in a net that does better than a constant, by more.
_GROWTH, _GROWTH_OF_BETTER = 10, 1000
# The norms of a training explode if one in a hundred is over that many medians of those before it,
# of so many: norms may fall for good, as the loss does.
_MEDIANS, _BEFORE = 100, 100


def explodes(layer, per_step, growth=_GROWTH):
    """Whether a gradient explodes over the steps of a layer, a `LayerHealth`, that adds `per_step`
    to its natural log with every step back."""
    return per_step * (layer.steps - 1) > math.log(growth)


def harmful(measured, layer):
    """Whether it explodes in a layer of a net that has not learned all the same."""
    growth = _GROWTH_OF_BETTER if measured.better else _GROWTH
    return explodes(layer, layer.slope, growth) and not measured.learned


@severity("sick")
def exploding(measured):
    """The gradient through time grows more than tenfold over the T steps of the sequences: a slope
    over 0, by log 10 / (T - 1) for noise; or more than a thousandfold where the loss is under 90%
    of that of the best constant prediction. Or in training: one gradient norm in a hundred is over
    100 times the median of the 100 before it. Where the loss is under half of that of the constant,
    these are notes. Or a norm is over 1e9 at the first update, before an Inf or NaN. Or the states,
    or the gradient through time, grow over 1e9, and the loss or its gradient overflows."""
    dead = dead_layers(measured)
    return [
        *_exploding_in_training(measured),
        *_overflowing(measured),
        *(
            _exploding_layer(path, layer, measured.settings)
            for path, layer in measured.layers.items()
            if path not in dead and harmful(measured, layer)
        ),
    ]


def explodes_at_once(record):
    """Whether the gradients overflow, and are huge before any update was made."""
    return not record.finite.all() and bool(record.finite[0]) and record.global_norm[0] > HUGE


def _exploding_in_training(measured):
    record, settings = measured.record, measured.settings
    if record is None:
        return []
    if explodes_at_once(record):
        norm, update = float(record.global_norm[0]), int(np.argmin(record.finite))
        meaning = (
            f"the gradient norm is {norm:.3g} at the first update already, and Inf or NaN from "
            f"update {update} on: it grows on its way back through the net as it starts."
        )
        numbers = {"first_norm": norm, "update": update}
        return [Verdict.of("EXPLODING", None, numbers, meaning, advice.of_an_overflow(settings))]
    if not record.finite.all() or record.divergence or vanished(record):
        return []
    times = jump(record)
    if times is None or measured.learned:
        return []
    median, top = record.median_norm, record.p99_norm
    meaning = (
        f"one update in a hundred has a gradient norm over {times:.0f} times the median of those "
        f"before it, with a median of {median:.3g} and a 99th percentile of {top:.3g} over all"
    )
    if record.clip and record.fired.any():
        meaning += f", before {record.clip}, which cut {percent(record.fired)} of the updates."
        steps = [
            Advice("See whether the loss fell all the same: then the clip does what it is for.")
        ]
    else:
        meaning += f"; {record.clip} never fired." if record.clip else "."
        steps = listed(
            advice.scale_inputs(settings),
            advice.scale_targets(settings),
            advice.clip_by_norms(record, settings),
        )
    numbers = {"median_norm": median, "p99_norm": top, "jump": times}
    return [Verdict.of("EXPLODING", None, numbers, meaning, steps)]


def jump(record):
    """Over how many medians of those before it one norm in a hundred lies, where that is a sign of
    an explosion; else `None`."""
    times = float(np.percentile(_jumps(record.global_norm), 99))
    return times if times > _MEDIANS else None


def _jumps(norms):
    """(updates,), each norm in medians of those before it."""
    usual = [np.median(norms[max(0, t - _BEFORE) : t]) for t in range(1, len(norms))]
    with np.errstate(divide="ignore", invalid="ignore"):
        jumps = np.r_[1, norms[1:] / usual]
    return np.nan_to_num(jumps, nan=1)


def _overflowing(measured):
    cause = measured.cause
    if cause is None or not cause.explodes:
        return []
    if cause.kind == "states":
        largest = cause.largest
        upto = f"up to {largest:.3g}" if math.isfinite(largest) else "beyond all numbers"
        meaning = (
            f"in {cause.place} the states grow {upto}, so that the loss or its gradient overflows."
        )
    else:
        meaning = (
            f"in {cause.place} the gradient grows beyond {cause.largest:.3g} on its way back over "
            f"{cause.steps} steps, until it overflows."
        )
    numbers = {"largest": cause.largest, "loss": cause.loss}
    steps = advice.of_an_overflow(measured.settings)
    return [Verdict.of("EXPLODING", cause.place, numbers, meaning, steps)]


def _exploding_layer(path, layer, settings):
    growth = layer.slope * (layer.steps - 1) / math.log(10)
    numbers = flow_numbers(layer) | {"growth": 10.0**growth if growth < 300 else math.inf}
    meaning = (
        f"in {path} the gradient grows on its way back through the steps, so that the earliest of "
        f"them drown the others: by 10^{growth:.1f} over {layer.steps} steps, a factor of "
        f"{math.exp(layer.slope):.3g} at each."
    )
    steps = advice.of_a_layer_that_explodes(layer.settings, settings)
    return Verdict.of("EXPLODING", path, numbers, meaning, steps)
