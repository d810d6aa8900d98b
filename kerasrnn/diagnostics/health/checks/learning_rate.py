"""A learning rate that is too high or too low."""

import dataclasses
import math

import numpy as np

from kerasrnn.diagnostics.health import advice
from kerasrnn.diagnostics.health.checks.exploding import explodes_at_once
from kerasrnn.diagnostics.health.checks.vanishing import VANISHED
from kerasrnn.diagnostics.health.verdict import Verdict, severity

# The ratio of update to weight, ‖Δw‖/‖w‖, that Karpathy's notes want: "somewhere around 1e-3".
RATIO = 1e-3
# A rate is too high if an update moves a layer by more than so many times its weights: a first step
# of Adam, at a rate that is right, may be as large as those of an embedding, which start at 0.03,
_LARGEST = 2
# or half of the updates by more than that share of them,
_HIGH = 0.3
# or one by that share right before the loss jumps to that many times its first and last value,
_JUMPS, _JUMP = 0.1, 10
# or if the loss ends over that many times its first value while layers move by ten times RATIO.
_ENDS = 1.2
# A rate that is lowered is to move the layer that moved most by that.
_TARGET = 1e-2
# But to no less than that share: what an update changes of a net that has blown up is no measure.
_LOWEST = 1e-3
# It is too low if layers move by less than a tenth of RATIO while the loss falls by less than that
# share and gradients stay, over at least so many updates.
_FALLS, _UPDATES = 0.1, 20


@severity("sick")
def learning_rate(measured):
    """The learning rate is too high: gradient norms or the loss climb over a hundredfold, for good,
    up to the first Inf or NaN or the end; or an update changes a layer by more than twice its
    weights, or half of the updates by over 30% of them; or one by over 10% right before the loss
    jumps to over ten times its first and last value; or the loss ends over 1.2 times its first
    value while half of the updates change a layer by over 1%. Or it is too low: in 20 updates or
    more the loss falls by less than 10%, and not to under 90% of that of the best constant, while
    gradients stay, and half of the updates change no layer by over 1e-4 of its weights. A ratio of
    update to weight of about 1e-3 is healthy (Karpathy, CS231n, "Ratio of weights:updates")."""
    record = measured.record
    if record is None or not record.stable.any() or explodes_at_once(record):
        return []
    return too_high(measured, record) or _too_low(measured, record)


def _at_rate_of(measured, record, pick):
    """The same with the learning rate that did it, where a schedule has changed it since."""
    known = record.rate[np.isfinite(record.rate)]
    if not len(known):
        return measured
    settings = measured.settings._replace(rate=float(f"{pick(known):.6g}"))
    return dataclasses.replace(measured, settings=settings)


def too_high(measured, record):
    measured = _at_rate_of(measured, record, np.max)
    ratios = _largest_ratios(record)
    losses = record.loss[~np.isnan(record.loss)].astype("float64")
    said, ratio = _why_too_high(record, ratios, losses)
    if said is None:
        return []
    factor = min(0.1, max(_LOWEST, _TARGET / ratio)) if ratio else 0.1
    why = f"an update that changes a layer by {RATIO:g} to {_TARGET:g} of its weights is healthy, "
    why += f"not one by {ratio:.2g}"
    numbers = {"too": "high", "update_ratio": ratio, "rate": measured.settings.rate}
    if len(losses):
        numbers |= {"first_loss": float(losses[0]), "last_loss": _last(losses)}
    steps = advice.of_a_high_rate(measured, factor, why, not record.finite.all())
    return [Verdict.of("LEARNING_RATE", None, numbers, f"it is too high: {said}.", steps)]


def _why_too_high(record, ratios, losses):
    """A sentence, and the ratio of update to weight to bring down; `None` where it is not."""
    stable = ratios[record.stable]
    typical, large = float(np.median(stable)), float(np.percentile(stable, 90))
    largest, ends = float(stable.max()), _last(losses)
    if diverged := record.divergence:
        what = "the gradient norm" + (" and the loss" if diverged.of_loss else "")
        end = "the first Inf or NaN" if diverged.until < len(record) else "the end"
        return (
            f"{what} climbed from update {diverged.onset} on, the norm from {diverged.low:.3g} to "
            f"{diverged.high:.3g} before {end}, update {diverged.until}"
        ), large
    if largest > _LARGEST:
        update = int(np.flatnonzero(record.stable)[np.argmax(stable)])
        return f"update {update} changed a layer by {largest:.2g} times its weights", largest
    if len(stable) >= _UPDATES and typical > _HIGH:
        return f"half of the updates changed a layer by over {typical:.0%} of its weights", large
    if (jump := _jump(ratios, losses)) is not None:
        before = _before(ratios, jump)
        return (
            f"the loss jumped from {losses[0]:.3g} to {losses[jump]:.3g} at update {jump}, after "
            f"an update that changed a layer by {before:.0%} of its weights"
        ), before
    rose = len(losses) >= _UPDATES and ends > losses[0] + (_ENDS - 1) * abs(losses[0])
    if rose and typical > 10 * RATIO:
        return (
            f"the loss began at {losses[0]:.3g} and ended at {ends:.3g}, while half of the updates "
            f"changed a layer by over {typical:.1%} of its weights"
        ), large
    return None, None


def _too_low(measured, record):
    losses = record.loss.astype("float64")
    # Updates that a clip makes small are no matter of the rate, but where their length is that of
    # the rate alone.
    by_clip = record.clips_too_often and measured.settings.optimizer in ("SGD", None)
    if (
        by_clip
        or len(record) < _UPDATES
        or not np.isfinite(losses).all()
        or not record.finite.all()
    ):
        return []
    measured = _at_rate_of(measured, record, np.median)
    third = len(losses) // 3
    first, last = float(np.mean(losses[:third])), float(np.mean(losses[-third:]))
    # Of the layer that moves most: in others gradients may vanish, which is no matter of the rate.
    ratio, norms = float(np.median(_largest_ratios(record))), record.global_norm
    stay = np.median(norms[-third:]) > max(VANISHED, np.median(norms[:third]) / 2)
    if ratio >= RATIO / 10 or abs(first - last) > _FALLS * abs(first) or not stay:
        return []
    if measured.better:
        return []
    numbers = {
        "too": "low",
        "update_ratio": ratio,
        "rate": measured.settings.rate,
        "first_loss": first,
        "last_loss": last,
    }
    meaning = (
        f"it is too low: over {len(record)} updates the loss went from {first:.3g} to {last:.3g}, "
        f"while the gradients stayed; an update changes a layer by {ratio:.1g} of its weights, "
        f"where about {RATIO:g} is healthy."
    )
    # By how much to raise a rate that moves nothing is not known; it becomes a usual one.
    factor = RATIO / ratio if ratio else math.inf
    why = f"this brings the ratio of update to weight to about {RATIO:g}"
    decay = decay_of(record)
    steps = advice.of_a_low_rate(measured, factor, why if ratio else "so far nothing moves", decay)
    return [Verdict.of("LEARNING_RATE", None, numbers, meaning, steps)]


# A schedule has lowered a rate far if its highest is so many times the median.
_DECAYED = 100


def decay_of(record):
    """The highest and the last learning rate of a training whose schedule had lowered it far by
    half of the updates; else `None`."""
    known = record.rate[np.isfinite(record.rate)]
    if not len(known) or known.max() <= _DECAYED * np.median(known):
        return None
    return float(known.max()), float(known[-1])


# Weights that started at zero have a ratio of their own until they are that share of usual.
_STARTED = 0.1


def _largest_ratios(record):
    """(updates,), of the layer that moved most; one that starts from zero does not count yet."""
    largest = np.zeros(len(record))
    for layer, ratios in record.layer_ratios.items():
        weights = record.layer_weights[layer]
        usual = np.median(weights[record.stable])
        started = (weights[0] > 0) | (weights >= _STARTED * usual)
        largest = np.fmax(largest, np.where(started & np.isfinite(ratios), ratios, 0))
    return largest


def typical_ratio(record):
    """The geometric mean, over the layers that move, of the median over the updates."""
    medians = [float(np.median(ratios)) for ratios in record.layer_ratios.values()]
    moving = [median for median in medians if 0 < median < math.inf]
    return float(np.exp(np.mean(np.log(moving)))) if moving else 0.0


def _last(values):
    """The median of the last tenth."""
    return float(np.median(values[-max(1, len(values) // 10) :])) if len(values) else math.nan


def _jump(ratios, losses):
    """The update at which the loss stood highest, if it jumped there behind too long an update."""
    if len(losses) < len(ratios) or not (np.isfinite(losses) & (losses > 0)).all():
        return None
    highest = int(np.argmax(losses))
    jumped = losses[highest] > _JUMP * max(losses[0], _last(losses))
    return highest if jumped and _before(ratios, highest) > _JUMPS else None


def _before(ratios, update):
    return float(ratios[max(0, update - 3) : update].max(initial=0))
