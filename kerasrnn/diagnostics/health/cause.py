"""Where an Inf or NaN at a batch comes from."""

import math
from typing import NamedTuple

import numpy as np
from keras import tree

from kerasrnn.backends import tf
from kerasrnn.diagnostics.flow import Measurement
from kerasrnn.diagnostics.probe import NoRecurrentLayer
from kerasrnn.diagnostics.reach import HUGE


class Cause(NamedTuple):
    """Why something is not finite at a batch.

    Attributes:
        kind: "x", "y", "weights", "states" or "backward" (a recurrence whose states, or the
            gradient on its way back through it, have grown out of all bounds), "gradient" or
            "loss": the first of these that explains it.
        place: The first sample of x or y; the path of the first variable that holds an Inf or NaN,
            or whose gradient does; the path of the layer with the recurrence; `None` for a loss.
        loss: J.
        weights, gradients: How many variables, and how many gradients, hold an Inf or NaN.
        largest: The largest number of a recurrence that explodes, if it is one.
        steps: The steps that its gradient goes back, if it is the gradient.
    """

    kind: str
    place: int | str | None
    loss: float
    weights: int
    gradients: int
    largest: float | None = None
    steps: int | None = None

    @property
    def explodes(self):
        """Whether it is a recurrence that explodes."""
        return self.kind in ("states", "backward")


def cause_at(model, x, y, loss, reach):
    """The `Cause` at (x, y), or `None` where all is finite.

    Args:
        model: A compiled and built Keras model.
        x, y: A batch, as tensors.
        loss, reach: What `gradient_reach` gives.
    """
    gradients = [
        variable
        for of_layer in reach.values()
        for variable, norm in of_layer.gradients.items()
        if not math.isfinite(norm)
    ]
    broken = gradients or not math.isfinite(loss)
    weights = [v.path for v in model.variables if not _finite(v.value)]
    counts = loss, len(weights), len(gradients)
    in_x, in_y = _sample_not_finite(x), _sample_not_finite(y)
    if in_x is not None:
        return Cause("x", in_x, *counts)
    if broken and in_y is not None:
        return Cause("y", in_y, *counts)
    if weights:
        return Cause("weights", weights[0], *counts)
    if not broken:
        return None
    if explosion := _states_that_explode(reach):
        place, largest = explosion
        return Cause("states", place, *counts, largest)
    if explosion := _gradient_that_explodes(model, x, y):
        place, largest, steps = explosion
        return Cause("backward", place, *counts, largest, steps)
    if math.isfinite(loss):
        return Cause("gradient", gradients[0], *counts)
    # A gradient of a loss that is none says nothing of its layer.
    return Cause("loss", None, *counts)


def _states_that_explode(reach):
    """The first layer whose states grow out of all bounds, and the largest of them."""
    path = next((path for path, of_layer in reach.items() if of_layer.explodes), None)
    return path and (path, reach[path].gave)


def _gradient_that_explodes(model, x, y):
    """The layer in which the gradient grows out of all bounds on its way back, the largest finite
    norm, and the steps of that way."""
    runs = []
    try:
        flow = Measurement(model, trace=False, watch=runs.append)(x, y)
    except NoRecurrentLayer:
        return None
    finite = {p: np.where(np.isfinite(n), n, 0) for p, n in flow.per_sample.items()}
    peaks = {run.path: finite[run.path].max() for run in runs}
    # What comes from the loss is not of the recurrence's making.
    came = {run.path: finite[run.path][:, 0 if run.flipped else -1].max() for run in runs}
    huge = [path for path, peak in peaks.items() if peak > HUGE * max(1, came[path])]
    if not huge:
        return None
    # The others get theirs from the one that lies nearest to the loss.
    path = huge[-1]
    return path, float(peaks[path]), flow.steps[path]


def _finite(tensor):
    floats = tensor.dtype.is_floating
    return not floats or bool(tf.reduce_all(tf.math.is_finite(tensor)))


def _sample_not_finite(batch):
    """The first sample that holds an Inf or NaN, if any."""
    parts = [part for part in tree.flatten(batch) if part is not None and not _finite(part)]
    samples = [np.argwhere(~np.isfinite(np.array(part)))[0, 0] for part in parts]
    return int(min(samples)) if samples else None
