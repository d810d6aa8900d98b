"""Gradients that vanish, through time or in training."""

import math

from kerasrnn.diagnostics.health import advice
from kerasrnn.diagnostics.health.advice import Advice
from kerasrnn.diagnostics.health.checks.dead import dead_layers
from kerasrnn.diagnostics.health.verdict import Verdict, severity

# A gradient through time vanishes if it falls to half more often than that over the sequence.
HALF_LIVES = 10
# The norms of a training vanish if their median is under that: below the epsilon of Keras's Adam
# even a rescaled step is lost.
VANISHED = 1e-7


def vanishes(steps, per_step):
    """Whether a gradient vanishes that changes by so much per step, natural log, over so many."""
    return per_step < -math.log(2) / (steps / HALF_LIVES)


@severity("attention")
def vanishing(measured):
    """The half-life of the gradient through time is under T/10, so that over the sequence less than
    a thousandth of it is left. Or in training: the median norm is under 1e-7."""
    dead = dead_layers(measured)
    return _vanishing_in_training(measured.record) + [
        _vanishing_layer(measured, path, layer)
        for path, layer in measured.layers.items()
        if path not in dead and layer.trainable and vanishes(layer.steps, layer.slope)
        if not harmless(measured, path)
    ]


def flow_numbers(layer):
    """What a verdict on the gradient through time of a `LayerHealth` rests on."""
    return {"slope": layer.slope, "half_life": layer.half_life, "steps": layer.steps}


def vanished(record):
    """Whether the gradient norms of a training have."""
    return record.finite.all() and record.median_norm < VANISHED


def _vanishing_in_training(record):
    if record is None or not vanished(record):
        return []
    median, top = record.median_norm, record.p99_norm
    meaning = (
        f"half of the updates have a gradient norm under {VANISHED:g}, with a median of "
        f"{median:.3g}: hardly anything reaches the weights."
    )
    step = Advice(
        "Look for a loss that does not depend on the weights, saturated or dead units, or labels "
        "that are masked out."
    )
    return [
        Verdict.of("VANISHING", None, {"median_norm": median, "p99_norm": top}, meaning, [step])
    ]


# Of a gradient a thousandth is left after ten half-lives.
_THOUSANDTH = 10


def back(layer):
    """The steps after which a thousandth of the gradient is left, or those there are."""
    return min(math.ceil(_THOUSANDTH * layer.half_life), layer.steps - 1)


def exchange(measured, path):
    """The `Exchange` of a layer beyond the steps over which its gradient vanishes; `None` where it
    does not vanish, or nothing can be told, as of a model that does no better than a constant."""
    layer = measured.layers[path]
    if measured.exchanges is None or not vanishes(layer.steps, layer.slope):
        return None
    if measured.trivial is not None and not measured.better:
        return None
    return measured.exchanges(path, back(layer))


def harmless(measured, path):
    """Whether a gradient vanishes in a layer, and the model does well all the same, or without
    what lies there."""
    layer = measured.layers[path]
    if measured.well:
        return vanishes(layer.steps, layer.slope)
    told = exchange(measured, path)
    return told is not None and told.stays and measured.settled


def _vanishing_layer(measured, path, layer):
    numbers, told = flow_numbers(layer), exchange(measured, path)
    if layer.half_life:
        far = back(layer)
        where = f"more than {far} steps back" if far > 1 else "more than a single step back"
        meaning = (
            f"{path} learns hardly anything from what lies {where}, of {layer.steps} steps: on its "
            "way there the gradient has shrunk to a thousandth (its half-life is "
            f"{layer.half_life:.3g} steps)."
        )
        numbers["vanishes"] = far
    else:
        meaning = (
            f"{path} learns nothing from earlier steps than the one that is read, of "
            f"{layer.steps}: no gradient gets back a single step."
        )
    if told:
        numbers["matters"] = told.rise
        meaning += f" {_on_exchange(measured, told)}"
    steps = advice.of_a_layer_that_vanishes(measured, layer, told)
    return Verdict.of("VANISHING", path, numbers, meaning, steps)


def _on_exchange(measured, told):
    """Whether what lies beyond matters, in a sentence."""
    went = f"Where what lies there is another sample's, {told.what} goes from "
    went += f"{told.loss:.3g} to {told.exchanged:.3g}"
    if told.matters:
        return f"{went}: it matters."
    if told.stays:
        return f"{went}: so far the net makes nothing of it."
    return f"{went}, give or take {told.error:.2g}: too little to tell whether it matters."
