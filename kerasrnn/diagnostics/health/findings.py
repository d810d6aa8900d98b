"""The checks of a health report: CHECKS, one function per verdict.

A check takes a `Measured` and gives a list of `Verdict`s, those of the training before those of the
batch, layer by layer. Its docstring is its entry in that of `health_report`; its threshold stands
beside it. A further verdict is a further check, its line in CHECKS, and its row in the README.
"""

import inspect
import math
import textwrap

import numpy as np

from kerasrnn.diagnostics.health.measured import Measured
from kerasrnn.diagnostics.health.verdict import Verdict
from kerasrnn.updates.clip_in_force import written
from kerasrnn.updates.record import percent
from kerasrnn.updates.suggestion import suggest_clipnorm

# What remedies name where no norms are at hand.
_CLIP = f"kerasrnn.callbacks.{written('global_norm', '1.0')}"
_ORTHOGONAL = 'recurrent_initializer="orthogonal"'
_GUARD = "`kerasrnn.callbacks.DivergenceGuard()` lets no update through that holds one."


def non_finite(measured):
    """There is an Inf or NaN in the gradients, during training or at (x, y), and no recurrence that
    explodes is its cause."""
    # What happened first says more.
    return _non_finite_in_training(measured.record) or _non_finite_at_batch(measured.cause)


def _non_finite_in_training(record):
    bad = [] if record is None else np.argwhere(~np.isfinite(record.before))
    if not len(bad):
        return []
    update, column = bad[0]
    variable, updates = record.variables[column], len(np.unique(bad[:, 0]))
    clip = "clip to less" if record.clip else f"clip, `{_CLIP}`"
    if record.skipped is None:
        guard = (
            "Where the weights hold one now, go back to an earlier checkpoint. "
            "`kerasrnn.callbacks.DivergenceGuard()` has such a batch cost one step and not a "
            "run"
        )
    else:
        guard = f"DivergenceGuard skipped {record.skipped} updates, which cost no more than that"
    return [
        Verdict(
            "NON_FINITE",
            variable,
            {"update": int(update), "variable": variable, "updates": updates},
            f"update {update} was the first of {updates} with an Inf or NaN in its gradients, "
            f"in {variable}.",
            f"Look for one in the inputs and labels of that batch first. {guard}; if the norms "
            f"rose before it came, {clip}, or lower the learning rate.",
        )
    ]


def _non_finite_at_batch(cause):
    if cause is None or cause.explodes:
        return []
    layer = cause.place if cause.kind in ("weights", "gradient") else None
    what = {
        "x": f"`x` holds an Inf or NaN, first in sample {cause.place},",
        "y": f"`y` holds an Inf or NaN, first in sample {cause.place},",
        "weights": f"{cause.place} holds an Inf or NaN",
        "gradient": f"the gradient of {cause.place} has an Inf or NaN",
        "loss": f"the loss is {cause.loss}",
    }[cause.kind]
    remedy = {
        "x": f"Clean or mask the data. {_GUARD}",
        "y": f"Clean the data. {_GUARD}",
        "weights": "Go back to an earlier checkpoint; then clip the gradients, "
        f"`{_CLIP}`, or lower the learning rate. {_GUARD}",
    }.get(
        cause.kind,
        "`x`, `y` and the weights have none, nor does a recurrence explode. Look for a "
        "logarithm, root or division of zero in the model and its loss, and for numbers too "
        "large to be squared.",
    )
    numbers = {"loss": cause.loss, "weights": cause.weights, "gradients": cause.gradients}
    meaning = f"{what} at this batch, so that no update can be told from it."
    return [Verdict("NON_FINITE", layer, numbers, meaning, remedy)]


def dead(measured):
    """No weight of a layer gets a gradient."""
    reach, paths = measured.reach, _dead_layers(measured)
    starved = [path for path, of_layer in reach.items() if of_layer.starved]
    silent = any(reach[path].silent for path in paths)
    if silent:
        why = "every one of its outputs is zero for all of `x`, so that its weights get no gradient"
        remedy = (
            "Lower the learning rate and start it anew, from biases that are not negative; or take "
            'an activation that is not flat below zero: "leaky_relu", or "tanh" in a recurrent '
            "layer."
        )
    else:
        why = "no gradient comes back to it, so that its weights never change"
        remedy = (
            "Look at what lies between it and the loss: an output that is not used, weights of "
            "zero, an activation at its limit. A connection, `kerasrnn.layers.Residual` or "
            '`RNNStack(connection="residual")`, leads around.'
        )
    others = [path for path in starved if path not in paths]
    cut_off = f"; nor do those behind it get any: {', '.join(others)}" if others else ""
    return [
        Verdict(
            "DEAD",
            path,
            {"variables": len(reach[path].gradients), "layers_without_gradient": len(starved)},
            f"{path} is dead: {why}{cut_off}.",
            remedy,
        )
        for path in paths
    ]


def _dead_layers(measured):
    """The layers without a gradient that give nothing but zeros; where none does, all of them."""
    starved = {path: of_layer for path, of_layer in measured.reach.items() if of_layer.starved}
    return [path for path, of_layer in starved.items() if of_layer.silent] or list(starved)


# A gradient through time explodes if it grows more than that much over the sequence: growth by less
# may be noise of the fit, and does no harm.
_GROWTH = 10
# The norms of a training explode if their 99th percentile is over that many medians.
_MEDIANS = 100


def explodes(layer, per_step):
    """Whether a gradient explodes over the steps of a layer, a `LayerHealth`, that adds `per_step`
    to its natural log with every step back."""
    return per_step * (layer.steps - 1) > math.log(_GROWTH)


def exploding(measured):
    """The gradient through time grows more than tenfold over the T steps of the sequences: a slope
    over 0, by log 10 / (T - 1) for noise. Or in training: the 99th percentile of the gradient norm
    is over 100 times the median. Or the states, or the gradient through time, grow over 1e9, and
    the loss or its gradient overflows."""
    dead_layers = _dead_layers(measured)
    return [
        *_exploding_in_training(measured.record),
        *_overflowing(measured.cause),
        *(
            _exploding_layer(path, layer)
            for path, layer in measured.layers.items()
            if path not in dead_layers and explodes(layer, layer.slope)
        ),
    ]


def _exploding_in_training(record):
    if record is None or not record.finite.all() or _vanished(record):
        return []
    median, top = _median_and_top(record)
    if top <= _MEDIANS * median:
        return []
    if record.clip and record.fired.any():
        remedy = (
            f"These are the norms before {record.clip}, which cut "
            f"{percent(record.fired)} of the updates."
        )
    else:
        idle = f"{record.clip} never fired. " if record.clip else ""
        remedy = f"{idle}Clip the gradients: {_suggestion(record)}."
    return [
        Verdict(
            "EXPLODING",
            None,
            {"median_norm": median, "p99_norm": top},
            f"one update in a hundred has a gradient norm over {top:.3g}, "
            f"{top / median:.0f} times the median of {median:.3g}.",
            remedy,
        )
    ]


def _median_and_top(record):
    """The median and the 99th percentile of the global norms."""
    return tuple(float(norm) for norm in np.percentile(record.global_norm, [50, 99]))


def _suggestion(record):
    """A clip, in the terms of the one that was set."""
    return suggest_clipnorm(record).instead_of(record.clip)


def _overflowing(cause):
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
    remedy = (
        f"Start anew from smaller recurrent weights, {_ORTHOGONAL} and an activation that is "
        f'bounded, "tanh", and clip, `{_CLIP}`; or take a cell with gates, `kerasrnn.layers.LSTM` '
        "or `GRU`."
    )
    numbers = {"largest": cause.largest, "loss": cause.loss}
    return [Verdict("EXPLODING", cause.place, numbers, meaning, remedy)]


def _exploding_layer(path, layer):
    growth = layer.slope * (layer.steps - 1) / math.log(10)
    numbers = _flow_numbers(layer) | {"growth": 10.0**growth if growth < 300 else math.inf}
    meaning = (
        f"in {path} the gradient grows by a factor of {math.exp(layer.slope):.3g} per step "
        f"back, of 10^{growth:.1f} over {layer.steps} steps, so that the earliest steps drown "
        "the others."
    )
    remedy = (
        f"{_start_smaller(layer)}, and clip, `{_CLIP}`; "
        "`GradientNormMonitor.suggest_clipnorm()` finds the threshold."
    )
    return Verdict("EXPLODING", path, numbers, meaning, remedy)


def _flow_numbers(layer):
    return {"slope": layer.slope, "half_life": layer.half_life, "steps": layer.steps}


def _start_smaller(layer):
    if layer.gain is None:
        return f"Start from {_ORTHOGONAL}"
    if layer.gain > 1:
        return f"Start from {_ORTHOGONAL}, whose gain is 1 and not {layer.gain:.3g}"
    gates = "" if layer.remembers else "a cell with gates, `kerasrnn.layers.LSTM` or `GRU`, or "
    return f"Take {gates}smaller recurrent weights"


# A gradient through time vanishes if it falls to half more often than that over the sequence.
_HALF_LIVES = 10
# The norms of a training vanish if their median is under that: below the epsilon of Keras's Adam
# even a rescaled step is lost.
_VANISHED = 1e-7


def vanishes(layer, per_step):
    """Whether such a gradient vanishes."""
    return per_step < -math.log(2) / (layer.steps / _HALF_LIVES)


def vanishing(measured):
    """The half-life of the gradient through time is under T/10, so that over the sequence less than
    a thousandth of it is left. Or in training: the median norm is under 1e-7."""
    dead_layers = _dead_layers(measured)
    return _vanishing_in_training(measured.record) + [
        _vanishing_layer(path, layer)
        for path, layer in measured.layers.items()
        if path not in dead_layers and vanishes(layer, layer.slope)
    ]


def _vanished(record):
    return record.finite.all() and _median_and_top(record)[0] < _VANISHED


def _vanishing_in_training(record):
    if record is None or not _vanished(record):
        return []
    median, top = _median_and_top(record)
    return [
        Verdict(
            "VANISHING",
            None,
            {"median_norm": median, "p99_norm": top},
            f"half of the updates have a gradient norm under {_VANISHED:g}, with a median "
            f"of {median:.3g}: hardly anything reaches the weights.",
            "Look for a loss that does not depend on them, saturated or dead units, or "
            "labels that are masked out.",
        )
    ]


def _vanishing_layer(path, layer):
    falls = (
        f"the gradient falls to half every {layer.half_life:.3g} steps of {layer.steps}"
        if layer.half_life
        else "no gradient gets back a single step"
    )
    meaning = f"in {path} {falls}: hardly anything is learned of what lies further back."
    bias = f"bias_initializer=kerasrnn.initializers.Chrono(T_max={layer.steps})"
    if layer.remembers:
        remedy = f"Start its gates so that they keep: {bias}, in a layer of kerasrnn.layers."
    else:
        start = "" if layer.gain and layer.gain >= 1 else f"{_ORTHOGONAL} and "
        remedy = (
            "Take a cell with gates that keep its state, `kerasrnn.layers.LSTM` or `GRU`, with "
            f"{bias}; a SimpleRNN reaches further with {start}small inputs."
        )
    return Verdict("VANISHING", path, _flow_numbers(layer), meaning, remedy)


# A gate is saturated if more of its values are.
_SATURATED = 0.5


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
        remedy = (
            "Scale the inputs to a variance of one, start from smaller weights and biases, or take "
            'normalization="layer", in a layer of kerasrnn.layers.'
        )
        of_layers.append(Verdict("SATURATED", path, shares, meaning, remedy))
    return of_layers


def clip_too_tight(measured):
    """A clip with a fixed threshold cut more than half of the updates."""
    record = measured.record
    if record is None or not record.finite.all() or not record.clips_too_often:
        return []
    cut = f"cut {percent(record.fired)} of the updates."
    return [_of_clip("CLIP_TOO_TIGHT", record, cut, f"Try {_suggestion(record)}.")]


def clip_idle(measured):
    """A clip cut none of the updates, and nothing else is wrong with them: harmless."""
    record = measured.record
    if record is None or record.clip is None or record.fired.any():
        return []
    of_training = Measured(record=record)
    ill = non_finite(of_training) or exploding(of_training) or vanishing(of_training)
    if ill or len(record) <= record.clip.rule.warmup:
        return []
    never = "never fired, so training ran as if without it."
    remedy = "That does no harm; to have it cut the largest steps, lower it."
    return [_of_clip("CLIP_IDLE", record, never, remedy)]


def _of_clip(code, record, meaning, remedy):
    numbers = {"clip_rate": record.clip_rate} | record.clip.numbers
    return Verdict(code, None, numbers, f"{record.clip} {meaning}", remedy)


def healthy(measured):
    """None of these."""
    numbers, said = {}, []
    layers, record = measured.layers, measured.record
    reached = {path: one for path, one in layers.items() if not math.isnan(one.half_life)}
    if reached:
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
    if measured.loss is not None:
        return [Verdict("HEALTHY", None, numbers, meaning)]
    remedy = "Of gradients through time it says nothing: see kerasrnn.diagnostics.health_report."
    return [Verdict("HEALTHY", None, numbers, meaning, remedy)]


# The gravest first; the last speaks where none of the others does.
CHECKS = {
    "NON_FINITE": non_finite,
    "DEAD": dead,
    "EXPLODING": exploding,
    "VANISHING": vanishing,
    "SATURATED": saturated,
    "CLIP_TOO_TIGHT": clip_too_tight,
    "CLIP_IDLE": clip_idle,
    "HEALTHY": healthy,
}


def verdicts(measured):
    """What the checks find, a list of `Verdict`s, the gravest first."""
    *ill, well = CHECKS.values()
    return [verdict for check in ill for verdict in check(measured)] or well(measured)


def described():
    """What every verdict rests on, as it stands in the docstring of `health_report`."""
    entries = (f"{code}: {inspect.getdoc(check)}" for code, check in CHECKS.items())
    margins = {"width": 100, "initial_indent": 4 * " ", "subsequent_indent": 8 * " "}
    return "\n".join(textwrap.fill(entry, **margins) for entry in entries).lstrip()
