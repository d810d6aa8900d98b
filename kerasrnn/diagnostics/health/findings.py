"""The checks of a health report: CHECKS, one function per verdict.

A check takes a `Measured` and gives a list of `Verdict`s, those of the training before those of the
batch, layer by layer. Its docstring is its entry in that of `health_report`; its threshold and how
grave it is stand beside it. A further verdict is a further check and its line in CHECKS, what to do
about it in `advice`; docs/tables.py writes its row in docs/verdicts.md.
"""

import dataclasses
import inspect
import math
import textwrap

import numpy as np

from kerasrnn.diagnostics.health import advice
from kerasrnn.diagnostics.health.advice import Advice, listed
from kerasrnn.diagnostics.health.measured import Measured
from kerasrnn.diagnostics.health.verdict import SEVERITIES, Verdict, severity
from kerasrnn.diagnostics.reach import HUGE
from kerasrnn.updates.record import percent


def _verdict(code, layer, numbers, meaning, steps=()):
    return Verdict(code, layer, numbers, meaning).advised(list(steps))


# The ratio of update to weight, ‖Δw‖/‖w‖, that Karpathy's notes want: "somewhere around 1e-3".
_RATIO = 1e-3
# A rate is too high if an update moves a layer by more than so many times its weights: a first step
# of Adam, at a rate that is right, may be as large as those of an embedding, which start at 0.03,
_LARGEST = 2
# or half of the updates by more than that share of them,
_HIGH = 0.3
# or one by that share right before the loss jumps to that many times its first and last value,
_JUMPS, _JUMP = 0.1, 10
# or if the loss ends over that many times its first value while layers move by ten times _RATIO.
_ENDS = 2
# A rate that is lowered is to move the layer that moved most by that.
_TARGET = 1e-2
# It is too low if layers move by less than a tenth of _RATIO while the loss falls by less than that
# share and gradients stay, over at least so many updates.
_FALLS, _UPDATES = 0.1, 20


@severity("sick")
def learning_rate(measured):
    """The learning rate is too high: gradient norms or the loss climb over a hundredfold, for good,
    up to the first Inf or NaN or the end; or an update changes a layer by more than twice its
    weights, or half of the updates by over 30% of them; or one by over 10% right before the loss
    jumps to over ten times its first and last value; or the loss ends over twice its first value
    while half of the updates change a layer by over 1%. Or it is too low: in 20 updates or more the
    loss falls by less than 10% while gradients stay, and half of the updates change no layer by
    over 1e-4 of its weights. A ratio of update to weight of about 1e-3 is healthy (Karpathy,
    CS231n, "Ratio of weights:updates")."""
    record = measured.record
    if record is None or not record.stable.any() or _explodes_at_once(record):
        return []
    return _too_high(measured, record) or _too_low(measured, record)


def _at_rate_of(measured, record, pick):
    """The same with the learning rate that did it, where a schedule has changed it since."""
    known = record.rate[np.isfinite(record.rate)]
    if not len(known):
        return measured
    settings = measured.settings._replace(rate=float(f"{pick(known):.6g}"))
    return dataclasses.replace(measured, settings=settings)


def _too_high(measured, record):
    measured = _at_rate_of(measured, record, np.max)
    ratios = _largest_ratios(record)
    losses = record.loss[~np.isnan(record.loss)].astype("float64")
    said, ratio = _why_too_high(record, ratios, losses)
    if said is None:
        return []
    factor = min(0.1, _TARGET / ratio) if ratio else 0.1
    why = f"an update that changes a layer by {_RATIO:g} to {_TARGET:g} of its weights is healthy, "
    why += f"not one by {ratio:.2g}"
    numbers = {"too": "high", "update_ratio": ratio, "rate": measured.settings.rate}
    if len(losses):
        numbers |= {"first_loss": float(losses[0]), "last_loss": _last(losses)}
    steps = advice.of_a_high_rate(measured, factor, why, not record.finite.all())
    return [_verdict("LEARNING_RATE", None, numbers, f"it is too high: {said}.", steps)]


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
    if rose and typical > 10 * _RATIO:
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
    stay = np.median(norms[-third:]) > max(_VANISHED, np.median(norms[:third]) / 2)
    learned = measured.learned
    if ratio >= _RATIO / 10 or abs(first - last) > _FALLS * abs(first) or not stay or learned:
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
        f"where about {_RATIO:g} is healthy."
    )
    why = f"this brings the ratio of update to weight to about {_RATIO:g}"
    factor = _RATIO / ratio if ratio else 1e3
    steps = advice.of_a_low_rate(measured, factor, why)
    return [_verdict("LEARNING_RATE", None, numbers, meaning, steps)]


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


def _typical_ratio(record):
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
    if not len(bad) or _explodes_at_once(record):
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
        steps = _too_high(measured, record)[0].steps[:1]
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
    return [_verdict("NON_FINITE", variable, numbers, meaning, steps)]


def _non_finite_at_batch(measured):
    cause, settings = measured.cause, measured.settings
    if cause is None or cause.explodes:
        return []
    if cause.kind == "weights" and measured.record and _explodes_at_once(measured.record):
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
    return [_verdict("NON_FINITE", layer, numbers, meaning, listed(*steps))]


@severity("sick")
def dead(measured):
    """No weight of a layer gets a gradient."""
    reach, paths = measured.reach, _dead_layers(measured)
    starved = [path for path, of_layer in reach.items() if of_layer.starved]
    others = [path for path in starved if path not in paths]
    cut_off = f"; nor do those behind it get any: {', '.join(others)}" if others else ""
    verdicts = []
    for path in paths:
        why, steps = _why_dead(measured, path)
        numbers = {"variables": len(reach[path].gradients), "layers_without_gradient": len(starved)}
        meaning = f"{path} is dead: {why}{cut_off}."
        verdicts.append(_verdict("DEAD", path, numbers, meaning, steps))
    return verdicts


# Weights that training has blown up: none that are initialized, or learned, come near it.
_BLOWN_UP = 1e3


def _why_dead(measured, path):
    """Why no gradient gets to a layer, and what to do."""
    reach, settings = measured.reach, measured.settings
    largest = max(reach, key=lambda one: reach[one].weights)
    if reach[largest].weights > _BLOWN_UP:
        why = (
            f"the weights have blown up, those of {largest} to {reach[largest].weights:.3g}, and "
            "with numbers of that size its activations are flat"
        )
        return why, advice.of_weights_blown_up(measured)
    if reach[path].silent:
        of = "the only sample of `x`" if measured.samples == 1 else "all of `x`"
        why = f"every one of its outputs is zero for {of}, so that its weights get no gradient"
        return why, advice.of_dead_silence(measured, path)
    zero = next((one for one, of_layer in reach.items() if of_layer.zero), None)
    if zero:
        why = f"no gradient comes back to it, for the weights of {zero} are zero"
        return why, advice.of_weights_of_zero(zero)
    flat = next((one for one, of_layer in reach.items() if of_layer.flat), None)
    if flat:
        why = f"no gradient comes back to it, for all outputs of {flat} lie where it is flat"
        return why, advice.of_a_flat_activation(flat, settings)
    why = "no gradient comes back to it, so that its weights never change"
    return why, advice.of_a_cut_way(settings)


def _dead_layers(measured):
    """The layers without a gradient that give nothing but zeros; where none does, all of them."""
    starved = {path: of_layer for path, of_layer in measured.reach.items() if of_layer.starved}
    return [path for path, of_layer in starved.items() if of_layer.silent] or list(starved)


# A gradient through time explodes if it grows more than that much over the sequence: growth by less
# may be noise of the fit, and does no harm.
_GROWTH = 10
# The norms of a training explode if one in a hundred is over that many medians of those before it,
# of so many: norms may fall for good, as the loss does.
_MEDIANS, _BEFORE = 100, 100


def explodes(layer, per_step):
    """Whether a gradient explodes over the steps of a layer, a `LayerHealth`, that adds `per_step`
    to its natural log with every step back."""
    return per_step * (layer.steps - 1) > math.log(_GROWTH)


@severity("sick")
def exploding(measured):
    """The gradient through time grows more than tenfold over the T steps of the sequences: a slope
    over 0, by log 10 / (T - 1) for noise; in a net that has learned, which the loss of the best
    constant prediction shows, that is a note. Or in training: one gradient norm in a hundred is
    over 100 times the median of the 100 before it; or it is over 1e9 at the first update, before an
    Inf or NaN. Or the states, or the gradient through time, grow over 1e9, and the loss or its
    gradient overflows."""
    dead_layers = _dead_layers(measured)
    return [
        *_exploding_in_training(measured),
        *_overflowing(measured),
        *(
            _exploding_layer(path, layer, measured.settings)
            for path, layer in measured.layers.items()
            if path not in dead_layers and explodes(layer, layer.slope) and not measured.learned
        ),
    ]


def _explodes_at_once(record):
    """Whether the gradients overflow, and are huge before any update was made."""
    return not record.finite.all() and bool(record.finite[0]) and record.global_norm[0] > HUGE


def _exploding_in_training(measured):
    record, settings = measured.record, measured.settings
    if record is None:
        return []
    if _explodes_at_once(record):
        norm, update = float(record.global_norm[0]), int(np.argmin(record.finite))
        meaning = (
            f"the gradient norm is {norm:.3g} at the first update already, and Inf or NaN from "
            f"update {update} on: it grows on its way back through the net as it starts."
        )
        numbers = {"first_norm": norm, "update": update}
        return [_verdict("EXPLODING", None, numbers, meaning, advice.of_an_overflow(settings))]
    if not record.finite.all() or record.divergence or _vanished(record):
        return []
    times = float(np.percentile(_jumps(record.global_norm), 99))
    if times <= _MEDIANS:
        return []
    median, top = _median_and_top(record)
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
    return [_verdict("EXPLODING", None, numbers, meaning, steps)]


def _jumps(norms):
    """(updates,), each norm in medians of those before it."""
    usual = [np.median(norms[max(0, t - _BEFORE) : t]) for t in range(1, len(norms))]
    with np.errstate(divide="ignore", invalid="ignore"):
        jumps = np.r_[1, norms[1:] / usual]
    return np.nan_to_num(jumps, nan=1)


def _median_and_top(record):
    """The median and the 99th percentile of the global norms."""
    return tuple(float(norm) for norm in np.percentile(record.global_norm, [50, 99]))


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
    return [_verdict("EXPLODING", cause.place, numbers, meaning, steps)]


def _exploding_layer(path, layer, settings):
    growth = layer.slope * (layer.steps - 1) / math.log(10)
    numbers = _flow_numbers(layer) | {"growth": 10.0**growth if growth < 300 else math.inf}
    meaning = (
        f"in {path} the gradient grows on its way back through the steps, so that the earliest of "
        f"them drown the others: by 10^{growth:.1f} over {layer.steps} steps, a factor of "
        f"{math.exp(layer.slope):.3g} at each."
    )
    steps = advice.of_a_layer_that_explodes(layer.settings, settings)
    return _verdict("EXPLODING", path, numbers, meaning, steps)


def _flow_numbers(layer):
    return {"slope": layer.slope, "half_life": layer.half_life, "steps": layer.steps}


@severity("sick")
def looks_ahead(measured):
    """`y` is `x` one step later, and the model sees that step when it predicts it."""
    if measured.leak is None:
        return []
    layer, at, seen = measured.leak
    meaning = (
        f"the model is to predict the next step, and {layer} sees it: its output at step {at} "
        f"depends on step {seen} of the input. Its loss is worth nothing where the next step is "
        "not known yet."
    )
    numbers = {"step": at, "seen": seen}
    return [_verdict("LOOKS_AHEAD", layer, numbers, meaning, advice.of_a_leak(layer))]


# A gradient through time vanishes if it falls to half more often than that over the sequence.
_HALF_LIVES = 10
# The norms of a training vanish if their median is under that: below the epsilon of Keras's Adam
# even a rescaled step is lost.
_VANISHED = 1e-7


def vanishes(layer, per_step):
    """Whether such a gradient vanishes."""
    return per_step < -math.log(2) / (layer.steps / _HALF_LIVES)


@severity("attention")
def vanishing(measured):
    """The half-life of the gradient through time is under T/10, so that over the sequence less than
    a thousandth of it is left. Or in training: the median norm is under 1e-7."""
    dead_layers = _dead_layers(measured)
    return _vanishing_in_training(measured.record) + [
        _vanishing_layer(measured, path, layer)
        for path, layer in measured.layers.items()
        if path not in dead_layers and vanishes(layer, layer.slope)
        if not harmless(measured, path)
    ]


def _vanished(record):
    return record.finite.all() and _median_and_top(record)[0] < _VANISHED


def _vanishing_in_training(record):
    if record is None or not _vanished(record):
        return []
    median, top = _median_and_top(record)
    meaning = (
        f"half of the updates have a gradient norm under {_VANISHED:g}, with a median of "
        f"{median:.3g}: hardly anything reaches the weights."
    )
    step = Advice(
        "Look for a loss that does not depend on the weights, saturated or dead units, or labels "
        "that are masked out."
    )
    return [_verdict("VANISHING", None, {"median_norm": median, "p99_norm": top}, meaning, [step])]


# Of a gradient a thousandth is left after ten half-lives.
_THOUSANDTH = 10


def _back(layer):
    """The steps after which a thousandth of the gradient is left, or those there are."""
    return min(math.ceil(_THOUSANDTH * layer.half_life), layer.steps - 1)


def exchange(measured, path):
    """The `Exchange` of a layer beyond the steps over which its gradient vanishes; `None` where it
    does not vanish, or nothing can be told."""
    layer = measured.layers[path]
    if measured.exchanges is None or not vanishes(layer, layer.slope):
        return None
    return measured.exchanges(path, _back(layer))


def harmless(measured, path):
    """Whether a gradient vanishes in a layer, and the model does well without what lies there."""
    told = exchange(measured, path)
    return told is not None and told.stays and measured.better


def _vanishing_layer(measured, path, layer):
    numbers, told = _flow_numbers(layer), exchange(measured, path)
    if layer.half_life:
        back = _back(layer)
        where = f"more than {back} steps back" if back > 1 else "more than a single step back"
        meaning = (
            f"{path} learns hardly anything from what lies {where}, of {layer.steps} steps: on its "
            "way there the gradient has shrunk to a thousandth (its half-life is "
            f"{layer.half_life:.3g} steps)."
        )
    else:
        meaning = (
            f"{path} learns nothing from earlier steps than the one that is read, of "
            f"{layer.steps}: no gradient gets back a single step."
        )
    if told:
        numbers |= {"vanishes": told.back, "matters": told.rise}
        meaning += f" {_on_exchange(measured, told)}"
    steps = advice.of_a_layer_that_vanishes(measured, layer, told)
    return _verdict("VANISHING", path, numbers, meaning, steps)


def _on_exchange(measured, told):
    """Whether what lies beyond matters, in a sentence."""
    went = "Where what lies there is another sample's, the loss goes from "
    went += f"{told.loss:.3g} to {told.exchanged:.3g}"
    if told.matters:
        return f"{went}: it matters."
    if measured.learned:
        return f"{went}, give or take {told.error:.2g}: too little to tell whether it matters."
    return f"{went}: so far the net makes nothing of it."


# A gate is saturated if more of its values are.
_SATURATED = 0.5


@severity("attention")
def saturated(measured):
    """More than half of the values of a gate are under 0.05 or over 0.95, but for those by which a
    cell remembers."""
    of_layers = []
    for path, layer in measured.layers.items():
        shares = {n: g.saturated for n, g in layer.gates.items() if g.saturated > _SATURATED}
        if not shares:
            continue
        listed = " and ".join(f"{s:.0%} of the values of {name}" for name, s in shares.items())
        meaning = (
            f"in {path} {listed} are under 0.05 or over 0.95, where a sigmoid is flat, so that the "
            "gate hardly learns."
        )
        steps = advice.of_saturated_gates(layer.settings, measured.settings)
        of_layers.append(_verdict("SATURATED", path, shares, meaning, steps))
    return of_layers


@severity("attention")
def clip_too_tight(measured):
    """A clip with a fixed threshold cut more than half of the updates; in a net that has learned,
    that is a note."""
    record = measured.record
    if record is None or not record.finite.all() or not record.clips_too_often:
        return []
    if measured.learned:
        return []
    cut = f"cut {percent(record.fired)} of the updates"
    if _too_high(measured, record):
        step = Advice(
            "Lower the learning rate first; then see whether the clip still fires that often.",
            "learning rate",
        )
        return [
            _of_clip("CLIP_TOO_TIGHT", record, f"{cut}, of a training that was not stable.", step)
        ]
    step = advice.clip_by_norms(record, measured.settings)
    return [_of_clip("CLIP_TOO_TIGHT", record, f"{cut}.", step)]


# A model has learned nothing if after so many updates its loss is over that share of the trivial
# predictor's.
_MANY, _NO_BETTER = 100, 0.9
# Layers that move by less than three times _RATIO may move faster, but not by more than tenfold.
_SLOW, _FASTER = 3 * _RATIO, 10


@severity("attention")
def not_learning(measured):
    """After 100 updates or more the loss is over 90% of what the best constant prediction has, and
    nothing else is wrong."""
    record, trivial = measured.record, measured.trivial
    updates = (measured.updates or 0) if record is None else len(record)
    if trivial is None or updates < _MANY or (record and not record.finite.all()):
        return []
    if measured.loss < _NO_BETTER * trivial.loss:
        return []
    if any(check(measured) for check in (learning_rate, dead, exploding, vanishing, saturated)):
        return []
    if clip_too_tight(measured):
        return []
    ratio = _typical_ratio(record) if record else None
    meaning = (
        f"after {updates} updates the loss at this batch is {measured.loss:.3g}, and "
        f"{trivial.loss:.3g} if {trivial.what} is predicted for every sample: nothing is learned "
        "yet, though gradients arrive."
    )
    numbers = {"loss": measured.loss, "trivial_loss": trivial.loss, "update_ratio": ratio}
    # Without a monitor nothing is known of the rate.
    faster, why = 1, ""
    if ratio is not None:
        faster = min(_FASTER, _SLOW / ratio) if ratio else _FASTER
        why = f"an update changes a layer by {ratio:.1g} of its weights, and may by more"
    steps = advice.of_no_progress(measured, faster, why)
    return [_verdict("NOT_LEARNING", None, numbers, meaning, steps)]


@severity("healthy")
def clip_idle(measured):
    """A clip cut none of the updates, and nothing else is wrong with them: harmless."""
    record = measured.record
    if record is None or record.clip is None or record.fired.any():
        return []
    of_training = Measured(record=record)
    checks = learning_rate, non_finite, exploding, vanishing
    ill = any(check(of_training) for check in checks)
    if ill or len(record) <= record.clip.rule.warmup:
        return []
    never = "never fired, so training ran as if without it."
    step = Advice("That does no harm; to have it cut the largest steps, lower it.", "clip")
    return [_of_clip("CLIP_IDLE", record, never, step)]


def _of_clip(code, record, meaning, step):
    numbers = {"clip_rate": record.clip_rate} | record.clip.numbers
    return _verdict(code, None, numbers, f"{record.clip} {meaning}", [step])


@severity("healthy")
def healthy(measured):
    """None of these."""
    numbers, said = {}, []
    layers, record = measured.layers, measured.record
    reached = {path: one for path, one in layers.items() if not math.isnan(one.half_life)}
    if reached and not any(vanishes(one, one.slope) for one in reached.values()):
        path = min(reached, key=lambda path: reached[path].half_life)
        layer = reached[path]
        numbers = {"half_life": layer.half_life, "steps": layer.steps}
        said.append(
            "gradients come back through all recurrent layers"
            + (
                " and do not shrink on the way"
                if math.isinf(layer.half_life)
                else f", with a half-life of {layer.half_life:.3g} steps in {path}; over "
                f"{layer.steps} steps it should be {layer.steps / _HALF_LIVES:.3g} or more"
            )
        )
    if record is not None:
        median, top = _median_and_top(record)
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
    return [_verdict("HEALTHY", None, numbers, meaning, [step] if of_norms_alone else [])]


# Causes before what comes of them, the gravest first; the last speaks where no other does.
CHECKS = {
    "LEARNING_RATE": learning_rate,
    "NON_FINITE": non_finite,
    "DEAD": dead,
    "EXPLODING": exploding,
    "LOOKS_AHEAD": looks_ahead,
    "VANISHING": vanishing,
    "SATURATED": saturated,
    "CLIP_TOO_TIGHT": clip_too_tight,
    "NOT_LEARNING": not_learning,
    "CLIP_IDLE": clip_idle,
    "HEALTHY": healthy,
}


def verdicts(measured):
    """What the checks find, a list of `Verdict`s, the gravest first."""
    *ill, well = CHECKS.values()
    said = [verdict for check in ill for verdict in check(measured)]
    said = [v._replace(severity=CHECKS[v.code].severity) for v in said]
    if all(v.severity == SEVERITIES[0] for v in said):
        said += [v._replace(severity=SEVERITIES[0]) for v in well(measured)]
    scaled = not measured.learned and advice.scale_targets(measured.settings)
    return [_with_targets_scaled(v, scaled) if scaled else v for v in said]


def _with_targets_scaled(verdict, step):
    """Numbers that are out of scale come before all else that may be done, but for the inputs'."""
    if verdict.severity == SEVERITIES[0] or step in verdict.steps:
        return verdict
    steps = list(verdict.steps)
    first = bool(steps) and steps[0].startswith("Scale the inputs")
    return verdict.advised([*steps[:first], step, *steps[first:]])


def described():
    """What every verdict rests on, as it stands in the docstring of `health_report`."""
    entries = (f"- {code}: {inspect.getdoc(check)}" for code, check in CHECKS.items())
    margins = {"width": 100, "initial_indent": 4 * " ", "subsequent_indent": 8 * " "}
    return "\n".join(textwrap.fill(entry, **margins) for entry in entries).lstrip()
