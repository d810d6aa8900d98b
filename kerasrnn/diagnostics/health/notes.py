"""What a health report says beside its verdicts: what might mislead, and what trains slowly."""

import math

from kerasrnn.diagnostics.health.advice import raise_rate
from kerasrnn.diagnostics.health.checks.exploding import explodes, harmful, jump
from kerasrnn.diagnostics.health.checks.learning_rate import RATIO, decay_of, typical_ratio
from kerasrnn.diagnostics.health.checks.vanishing import back, exchange, harmless, vanishes
from kerasrnn.diagnostics.health.measured import WELL
from kerasrnn.updates.record import percent

# A clip that cuts a larger share of the updates is worth a word.
_OFTEN = 0.1
# Layers that move by less than that share of RATIO move slowly.
_SLOW = 1 / 3


def notes(measured):
    """Sentences on what might mislead: the state of the net, the batch, the monitor, a clip that
    cuts often, a gradient that vanishes and need not reach further, the eigenvalues of a recurrent
    matrix; and on layers that train step by step. From a `Measured`."""
    on_eigenvalues = [
        note
        for path, layer in measured.layers.items()
        if layer.lyapunov is not None and (note := _on_eigenvalues(path, layer))
    ]
    whole = (
        _on_training,
        _on_frozen_layers,
        _on_the_range,
        _on_the_batch,
        _on_the_monitor,
        _on_the_clip,
        _on_the_schedule,
        _on_the_end,
    )
    on_growth = [
        note
        for path, layer in measured.layers.items()
        if (note := _on_growth(measured, path, layer))
    ]
    on_the_whole = [note for one in whole if (note := one(measured))]
    on_memory = [_on_memory(measured, path) for path in measured.layers if harmless(measured, path)]
    on_growth = [*_on_jumps(measured), *on_growth]
    return on_the_whole + on_memory + on_growth + on_eigenvalues + _on_slow_layers(measured.slow)


def _on_training(measured):
    if measured.updates == 0 and measured.record is None:
        return (
            "the model's optimizer has made no update: this is the net as it starts, or as it was "
            "compiled anew."
        )
    return None


def _on_frozen_layers(measured):
    frozen = [path for path, layer in measured.layers.items() if not layer.trainable]
    if not frozen:
        return None
    return f"{', '.join(frozen)} {'are' if frozen[1:] else 'is'} frozen (trainable=False)."


def _on_the_range(measured):
    if measured.out_of_reach is None:
        return None
    layer, activation, least, most = measured.out_of_reach
    return (
        f"the targets reach from {least:.3g} to {most:.3g}, and the output of {layer}, by its "
        f"activation {activation!r}, does not: scale them into its range, or take an activation "
        "that reaches them."
    )


def _on_the_batch(measured):
    if measured.same_targets and measured.samples > 1:
        return (
            "`y` is the same for all of `x`, which any constant predicts: such a batch does not "
            "show what the net has learned. Report on one whose targets differ."
        )
    if measured.samples == 1:
        return (
            "`x` holds one sample, which may stand for no other: what is said of dead units, gates "
            "and gradients is said of it alone, and no trivial predictor is scored."
        )
    return None


def _on_the_monitor(measured):
    if measured.restored:
        return (
            "the weights are not those that the training of `monitor` ended with: restored, "
            "trained further, or of another model. What is said of training is said of that one."
        )
    return None


def _on_the_clip(measured):
    record = measured.record
    if record is None or record.clip is None or not record.clip.rule.fixed:
        return None
    by_verdict = record.clips_too_often and not measured.learns
    if by_verdict or record.clip_rate < _OFTEN:
        return None
    return f"{record.clip} fired on {percent(record.fired)} of the updates, each a shorter step."


def _on_the_schedule(measured):
    decay = measured.record and decay_of(measured.record)
    if not decay:
        return None
    return (
        f"the schedule took the learning rate from {decay[0]:.3g} to {decay[1]:.3g}; for half of "
        "the updates it was under a hundredth of its highest, by which a net hardly learns."
    )


def _on_the_end(measured):
    record, trivial = measured.record, measured.trivial
    if record is None or trivial is None or record.falling is None:
        return None
    before, last = record.falling
    last_of_data = last - measured.penalties
    if last_of_data < WELL * trivial.loss or last_of_data > trivial.loss:
        return None
    ratio = typical_ratio(record)
    why = f"an update changes a layer by {ratio:.1g} of its weights, and {RATIO:g} is healthy"
    slow = 0 < ratio < _SLOW * RATIO
    faster = slow and measured.settings.rate and raise_rate(measured, RATIO / ratio, why)
    return (
        f"the loss still fell when the training ended, from {before:.3g} to {last:.3g} over the "
        f"last fifth of the updates: train on.{f' {faster}' if faster else ''}"
    )


def _on_growth(measured, path, layer):
    if harmful(measured, layer) or not (measured.better and explodes(layer, layer.slope)):
        return None
    growth = layer.slope * (layer.steps - 1) / math.log(10)
    return (
        f"in {path} the gradient grows on its way back, by 10^{growth:.1f} over {layer.steps} "
        "steps; the net learns all the same."
    )


def _on_jumps(measured):
    record = measured.record
    if record is None or not record.finite.all() or not (measured.learned and jump(record)):
        return []
    return [
        f"one update in a hundred had a gradient norm over {jump(record):.0f} times the median of "
        "those before it; the net has learned all the same."
    ]


def _on_memory(measured, path):
    told = exchange(measured, path)
    if told is None or not told.stays:
        said = (
            f"in {path} the gradient vanishes after {back(measured.layers[path])} steps; the net "
        )
        if told is None or not told.matters:
            return f"{said}does well all the same."
        return (
            f"{said}does well all the same, and with what lies further back: where that is "
            f"another sample's, {told.what} goes from {told.loss:.3g} to {told.exchanged:.3g}."
        )
    beside = ""
    if measured.trivial and not told.at_last:
        beside = (
            f", while always predicting {measured.trivial.what} has {measured.trivial.loss:.3g}"
        )
    return (
        f"in {path} the gradient vanishes after {told.back} steps, and the net does well without "
        f"what lies further back: where that is another sample's, {told.what} goes from "
        f"{told.loss:.3g} to {told.exchanged:.3g}{beside}. What a longer memory might add, this "
        "does not show."
    )


def _on_slow_layers(slow):
    """One sentence for all layers with the same reason."""
    layers = {}
    for path, reason in slow.items():
        layers.setdefault(reason, []).append(path)
    return [
        f"{', '.join(paths)} {'train' if paths[1:] else 'trains'} in the plain loop, one step "
        f"after the other: {reason}. `kerasrnn.recurrence.explain(model)` shows which way each "
        "layer goes."
        for reason, paths in layers.items()
    ]


def _on_eigenvalues(path, layer):
    by_radius, by_exponent = _trend(layer, layer.log_radius), _trend(layer, layer.lyapunov)
    if by_radius == by_exponent or not math.isfinite(layer.slope):
        return None
    return (
        f"in {path}, do not go by the eigenvalues of the recurrent matrix, as textbooks do. By "
        f"them gradients would {by_radius} over {layer.steps} steps (log of the spectral radius, "
        f"log ρ(W_h) = {layer.log_radius:+.3f}); with what the activation does on the way they "
        f"{by_exponent} (Lyapunov exponent λ = {layer.lyapunov:+.3f} per step; measured here: "
        f"{layer.slope:+.3f})."
    )


def _trend(layer, per_step):
    if vanishes(layer.steps, per_step):
        return "vanish"
    return "explode" if explodes(layer, per_step) else "neither vanish nor explode"
