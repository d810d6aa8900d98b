"""What the checks of a health report go by, measured once."""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from keras import tree

from kerasrnn.backends import tf
from kerasrnn.diagnostics.causality import is_causal
from kerasrnn.diagnostics.flow import GradientFlow, Measurement
from kerasrnn.diagnostics.gates import GateRecorder
from kerasrnn.diagnostics.health.cause import Cause, cause_at
from kerasrnn.diagnostics.health.memory import Exchanges
from kerasrnn.diagnostics.health.settings import LayerSettings, Settings, of_model, of_training
from kerasrnn.diagnostics.health.trivial import (
    TrivialPredictor,
    same_targets,
    trivial_predictor,
)
from kerasrnn.diagnostics.probe import NoRecurrentLayer
from kerasrnn.diagnostics.reach import gradient_reach
from kerasrnn.diagnostics.spectrum import gradient_bound, lyapunov_exponent, recurrent_matrices
from kerasrnn.inside import recurrent_paths
from kerasrnn.recurrence.explanation import choices
from kerasrnn.recurrence.sequence import TOO_FEW
from kerasrnn.updates.record import GradientRecord

# The loss of a model that has learned, in those of the trivial predictor.
_FAR_BETTER = 0.5
# Of one that has nothing left to learn, and of one that does better than that predictor.
WELL, _BETTER = 0.05, 0.9
# Whose Lyapunov exponent is taken; a Jacobian costs as much as a step for each of its rows.
_SAMPLES = 4


class LayerHealth(NamedTuple):
    """What was measured of a recurrent layer.

    Attributes:
        kind: The class of its cell.
        steps: T, the steps of the longest sample, masked ones left out.
        slope, half_life: As in `GradientFlow`; NaN where no gradient comes to the layer at all.
        gates: For each gate by its name a `kerasrnn.diagnostics.gates.Gate`.
        eigenvalues: For each gate the eigenvalues of its recurrent matrix.
        lyapunov: λ, natural log per step, of a layer with one recurrent matrix W_h; else `None`.
        bound: (T,), by lag, what can be left of a gradient; `None` where no such bound is known.
        bound_over_time: (time,), what can have arrived at h_t, where the output is read at one step
            only and a gradient comes to it; else `None`.
        settings: The `LayerSettings` of its cell.
        trainable: Whether it has weights that are trained.
    """

    kind: str
    steps: int
    slope: float
    half_life: float
    gates: dict
    eigenvalues: dict
    lyapunov: float | None
    bound: Any
    bound_over_time: Any
    settings: LayerSettings
    trainable: bool = True

    @property
    def log_radius(self):
        """log ρ(W_h), for a layer with one recurrent matrix."""
        if len(self.eigenvalues) != 1:
            return None
        (values,) = self.eigenvalues.values()
        radius = np.abs(values).max()
        return float(np.log(radius)) if radius > 0 else -math.inf


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured of a training, of a model at a batch, or of both.

    Attributes:
        record: The `GradientRecord` of the training, or `None`.
        loss: J at the batch; `None` without one.
        penalties: The part of it that regularizers and `add_loss` add.
        cause: The `Cause` of what is not finite at the batch; `None` where all is. Where it is not,
            nothing more can be told from the gradients.
        reach: The `Reach` of each layer with weights, by its path.
        flow: The `GradientFlow`; `None` without recurrent layers.
        layers: The `LayerHealth` of each recurrent layer, by its path.
        slow: The one reason why a recurrent layer, by its path, trains in the plain loop.
        settings: The `Settings` of the model, or what the record shows of them.
        trivial: The `TrivialPredictor` at the batch, or `None` where none can be scored.
        samples: How many the batch has.
        same_targets: Whether all targets in it are the same.
        updates: How many the model's optimizer has made; `None` without one.
        rates: The learning rates that earlier reports found too low and too high.
        leak: Where `y` is `x` one step later and the model sees that step: the leaking layer, a
            step of its output, and the step of the input it depends on; else `None`.
        out_of_reach: Where the last layer's activation does not reach all targets: the layer, the
            activation, the least and the greatest target; else `None`.
        restored: Whether weights are not those that the training of the record ended with.
        exchanges: The `Exchanges` of the recurrent layers; `None` without any.
    """

    record: GradientRecord | None = None
    loss: float | None = None
    penalties: float = 0.0
    cause: Cause | None = None
    reach: dict = dataclasses.field(default_factory=dict)
    flow: GradientFlow | None = None
    layers: dict = dataclasses.field(default_factory=dict)
    slow: dict = dataclasses.field(default_factory=dict)
    settings: Settings | None = None
    trivial: TrivialPredictor | None = None
    samples: int | None = None
    same_targets: bool = False
    updates: int | None = None
    rates: tuple = (0.0, math.inf)
    leak: tuple | None = None
    out_of_reach: tuple | None = None
    restored: bool = False
    exchanges: Exchanges | None = None

    def __post_init__(self):
        if self.settings is None:
            object.__setattr__(self, "settings", of_training(self.record))

    @property
    def of_data(self):
        """J at the batch without its penalties, as that of the trivial predictor is."""
        return self.loss - self.penalties

    def _under(self, share):
        """Whether J at the batch is under a share of the trivial predictor's. Where that cannot be
        scored, half of what the training began with stands for it, where that is known."""
        if self.loss is None or (self.trivial is None and self.record is None):
            return False
        if self.trivial is not None:
            return self.of_data < share * self.trivial.loss
        trend = self.record.trend
        return trend is not None and 0 < self.loss < share * trend[0] / 2

    @property
    def better(self):
        """Whether the model does better at the batch than the trivial predictor."""
        return self._under(_BETTER)

    @property
    def well(self):
        """Whether the model has, beside the trivial predictor, hardly any loss left."""
        return self._under(WELL)

    @property
    def falls(self):
        """Whether the loss still fell when the training ended, as far as that is known."""
        return self.record is not None and self.record.falling is not None

    @property
    def learns(self):
        """Whether it has learned; or does better than that predictor and its loss still falls, by
        an optimizer whose steps do not shrink with the gradients."""
        adaptive = self.settings.optimizer not in ("SGD", None)
        return self.learned or (self.better and self.falls and adaptive)

    @property
    def settled(self):
        """Whether it has learned, or does better than that predictor and its loss stands: what a
        net does without whose loss still falls, it may yet need."""
        return self.learned or (self.better and not self.falls)

    @property
    def learned(self):
        """Whether the model does far better at the batch than the trivial predictor."""
        return self._under(_FAR_BETTER)


def measure(model, x, y, record=None):
    """What is measured of a model at a batch, as in inference, beside the record of its training.

    Args:
        model: A compiled and built Keras model.
        x, y: The batch, as tensors.
        record: A `GradientRecord`, or `None`.

    Raises:
        ValueError: the batch is masked throughout in a recurrent layer.
    """
    loss, penalties, prediction, reach = gradient_reach(model, x, y)
    known = {
        "settings": of_model(model, x, y, record),
        "samples": len(tree.flatten(x)[0]),
        "updates": _updates(model),
        "restored": record is not None and _restored(model, record),
        "penalties": penalties,
        "same_targets": same_targets(model, y),
    }
    if broken := cause_at(model, x, y, loss, reach):
        return Measured(record, loss, cause=broken, **known)
    known["leak"] = _leak(model, x, y)
    known["out_of_reach"] = _out_of_reach(model, y)
    known["trivial"] = trivial = trivial_predictor(model, x, y, prediction)
    # Tracing clears what layers added to the loss; the passes over the batch fill it again.
    slow = _in_the_plain_loop(model, x)
    flow, layers, runs = _through_time(model, x, y)
    known["exchanges"] = runs and Exchanges(model, x, y, prediction, runs, trivial)
    known |= {"reach": reach, "flow": flow, "layers": layers, "slow": slow}
    return Measured(record, loss, **known)


# Of so many samples and steps `is_causal` is asked: it runs the model twice per step.
_OF_BATCH = 2, 12


# Numbers that are another's, scaled and shifted, have that correlation with them.
_THE_SAME = 1 - 1e-6


def _leak(model, x, y):
    """Where a model that predicts the next step sees it."""
    if not (tf.is_tensor(x) and tf.is_tensor(y) and x.shape.rank >= 2 and y.shape.rank >= 2):
        return None
    x, y = np.asarray(x), np.asarray(y)
    if x.shape[:2] != y.shape[:2] or x.shape[1] < 3 or not _is_next_step(x, y):
        return None
    samples, steps = _OF_BATCH
    for batch in (x[:samples, :steps], x[:samples]):
        try:
            return is_causal(model, batch).leak
        except (ValueError, tf.errors.InvalidArgumentError):
            # A model of one length, or an output that keeps no step with its input.
            continue
    return None


def _is_next_step(x, y):
    """Whether one of the targets is one of the inputs a step later: tokens, but for padding of the
    targets, or numbers, scaled and shifted or not."""
    inputs, targets = (_columns(part) for part in (x[:, 1:], y[:, :-1]))
    for target in targets:
        # Labels that a loss ignores are under zero, as -1 or -100.
        kept = target >= 0 if np.issubdtype(target.dtype, np.integer) else slice(None)
        if any(_is_the_same(one[kept], target[kept]) for one in inputs):
            return True
    return False


def _columns(part):
    """The features over all samples and steps, one array each; of one-hot tokens their numbers."""
    if part.ndim == 2:
        return [part.ravel()]
    rows = part.reshape(-1, math.prod(part.shape[2:]))
    one_hot = rows.shape[1] > 1 and ((rows == 0) | (rows == 1)).all() and (rows.sum(1) == 1).all()
    return [rows.argmax(1)] if one_hot else list(rows.T)


def _is_the_same(one, other):
    if len(one) < 2 or np.array_equal(one, other):
        return len(one) >= 2
    if np.ptp(one) == 0 or np.ptp(other) == 0 or np.issubdtype(other.dtype, np.integer):
        return False
    return abs(np.corrcoef(one, other)[0, 1]) > _THE_SAME


# What activations give lies between these.
_RANGES = {
    "sigmoid": (0, 1),
    "hard_sigmoid": (0, 1),
    "softmax": (0, 1),
    "tanh": (-1, 1),
    "softsign": (-1, 1),
    "relu": (0, math.inf),
    "softplus": (0, math.inf),
}


def _out_of_reach(model, y):
    """Numbers to be predicted that the last layer of a model cannot give."""
    layers = getattr(model, "layers", [])
    activation = (
        getattr(getattr(layers[-1], "activation", None), "__name__", None) if layers else ""
    )
    if activation not in _RANGES or not (tf.is_tensor(y) and y.dtype.is_floating):
        return None
    least, most = float(tf.reduce_min(y)), float(tf.reduce_max(y))
    low, high = _RANGES[activation]
    if low <= least and most <= high:
        return None
    return layers[-1].name, activation, least, most


def _updates(model):
    optimizer = getattr(model, "optimizer", None)
    return None if optimizer is None else int(optimizer.iterations)


# Of norms in float32.
_ROUNDING = 1e-4


def _restored(model, record):
    """Whether the norm of a variable lies further from that before the last update than the update
    moved it."""
    weights = {variable.path: variable for variable in model.variables}
    for path, norm, change in zip(
        record.variables, record.weights[-1], record.changes[-1], strict=True
    ):
        now = float(tf.norm(tf.cast(weights[path].value, "float32")))
        moved = abs(now - norm) - change
        if math.isfinite(moved) and moved > _ROUNDING * max(now, norm):
            return True
    return False


def _in_the_plain_loop(model, x):
    """Why each recurrent layer that trains step by step does not take the path made for this
    machine, but for those for which step by step is best."""
    # Who has a model run eagerly has chosen so, and it may be one that cannot be traced.
    if model.run_eagerly or not recurrent_paths(model):
        return {}
    fast = "cudnn" if tf.config.list_logical_devices("GPU") else "programs"
    return {
        path: choice.passed_over[fast]
        for path, choice in choices(model, x, "fit").items()
        if choice.path == "loop" and not choice.passed_over[fast].endswith(TOO_FEW)
    }


def _through_time(model, x, y):
    """The gradient flow, a `LayerHealth` and a `Run` of each recurrent layer, if there are any."""
    runs, recorder = [], GateRecorder()

    def watch(run):
        if not np.any(run.valid):
            raise ValueError(
                "`x` must hold a step that is not masked. Received: a batch whose steps are all "
                f"masked in {run.path}"
            )
        runs.append(run)
        recorder.begin(run)

    try:
        with recorder:
            flow = Measurement(model, trace=False, watch=watch)(x, y)
    except NoRecurrentLayer:
        return None, {}, None
    layers = {run.path: _layer_health(flow, run, recorder.gates(run.path)) for run in runs}
    return flow, layers, runs


def _layer_health(flow, run, gates):
    arrives = flow.norms[run.path].any()
    eigenvalues = {g: np.linalg.eigvals(w) for g, w in recurrent_matrices(run.cell).items()}
    try:
        bound = gradient_bound(run.cell, np.arange(flow.steps[run.path]))
    except ValueError:
        # Theory has one for a SimpleRNN only.
        bound = None
    return LayerHealth(
        type(run.cell).__name__.removesuffix("Cell"),
        flow.steps[run.path],
        flow.slope[run.path] if arrives else math.nan,
        flow.half_life[run.path] if arrives else math.nan,
        gates,
        eigenvalues,
        _exponent(run) if list(eigenvalues) == ["h"] else None,
        bound,
        None if bound is None else _over_time(flow, run, bound),
        LayerSettings.of(run.cell),
        bool(run.cell.trainable_variables),
    )


def _exponent(run):
    """The Lyapunov exponent over samples without masked steps, if their input is known."""
    complete = np.flatnonzero(np.asarray(run.valid).all(axis=1))[:_SAMPLES]
    if run.cell is not run.layer.cell or run.valid.shape[1] < 2 or not len(complete):
        return None
    x, *states = (tf.gather(part, complete) for part in (run.sequences, *run.states))
    return lyapunov_exponent(run.layer, x, states)


def _over_time(flow, run, bound):
    """The bound along the input, if a gradient comes to the last step and from nowhere else."""
    at_every_step = run.cell is not run.layer.cell or run.layer.return_sequences
    norms = flow.norms[run.path]
    last = norms[0] if run.flipped else norms[-1]
    if at_every_step or not np.all(run.valid) or not last:
        return None
    with np.errstate(over="ignore"):
        return last * (bound if run.flipped else bound[::-1])
