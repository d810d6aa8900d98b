"""One page on how a model fares: what is wrong, what it means, what to change."""

import dataclasses
import math
import os
import pathlib
import tempfile
import textwrap
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from kerasrnn.callbacks.gradient_norm_monitor import GradientNormMonitor
from kerasrnn.callbacks.gradient_record import CLIP
from kerasrnn.diagnostics import page
from kerasrnn.diagnostics.flow import (
    GradientFlow,
    Measurement,
    NoRecurrentLayer,
    as_batch,
    check_compiled,
)
from kerasrnn.diagnostics.gates import GateRecorder, known_gates
from kerasrnn.diagnostics.reach import HUGE, gradient_reach, layer_paths
from kerasrnn.diagnostics.spectrum import gradient_bound, lyapunov_exponent, recurrent_matrices
from kerasrnn.verdict import CODES, Verdict

# A gradient explodes if it grows more than that much over the sequence: growth by less may be noise
# of the fit, and does no harm.
GROWTH = 10
# A gate is saturated if more of its values are.
SATURATED = 0.5
_ORTHOGONAL = 'recurrent_initializer="orthogonal"'
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
        remembers: Whether its cell has a gate that keeps or writes its state.
        gain: That of the orthogonal initializer its recurrent weights came from; `None` with
            another.
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
    remembers: bool
    gain: float | None

    @property
    def log_radius(self):
        """log ρ(W_h), for a layer with one recurrent matrix."""
        if len(self.eigenvalues) != 1:
            return None
        (values,) = self.eigenvalues.values()
        radius = np.abs(values).max()
        return float(np.log(radius)) if radius > 0 else -math.inf

    def trend(self, per_step):
        """What a gradient does that changes that much per step, in natural log: VANISHING if its
        half-life is under T/10, EXPLODING if it grows more than tenfold over the sequence."""
        if per_step < -math.log(2) / (self.steps / 10):
            return "VANISHING"
        return "EXPLODING" if per_step * (self.steps - 1) > math.log(GROWTH) else None


@dataclasses.dataclass(frozen=True, repr=False)
class HealthReport:
    """What `health_report` found. Printed, it is its text; in a notebook it shows its page.

    Attributes:
        verdicts: A list of `kerasrnn.verdict.Verdict`, (code, layer, numbers, meaning, remedy), the
            gravest first.
        notes: Sentences on what might mislead.
        layers: For each recurrent layer by its path a `LayerHealth`.
        flow: The `GradientFlow`, or `None` without recurrent layers or a finite gradient.
        name: The model's name.
        norms: The figure of the gradient norms over the updates, or `None` without a monitor.
    """

    verdicts: list
    notes: list
    layers: dict
    flow: GradientFlow | None
    name: str
    norms: Any

    @property
    def text(self):
        """The report for a terminal."""
        parts = [textwrap.fill(str(verdict), 96) for verdict in self.verdicts]
        parts += [textwrap.fill(f"Note: {note}", 96) for note in self.notes]
        if self.layers:
            rows = page.table(self)
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            lines = (
                "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
                for row in rows
            )
            parts += ["\n".join(lines), textwrap.fill(page.KEY, 96)]
        return "\n\n".join([f"Health of {self.name}", *parts])

    def __str__(self):
        return self.text

    def save(self, path):
        """Writes the page as one HTML file that needs nothing else; it replaces what stood there.

        Args:
            path: Path of the file, in a folder that is there.

        Raises:
            TypeError: `path` is no path.
            IsADirectoryError: `path` is that of a folder.
            FileNotFoundError: the folder is missing.
        """
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"`path` must be the path of a file. Received: path={path!r}")
        path = pathlib.Path(path)
        if path.is_dir():
            raise IsADirectoryError(
                f"`path` must name a file. Received: path={str(path)!r}, which is a folder"
            )
        if not path.parent.is_dir():
            raise FileNotFoundError(
                "`path` must name a file in a folder that exists. "
                f"Received: path={str(path)!r}, without {str(path.parent)!r}"
            )
        html = page.document(self)
        # A folder of its own takes no name of the user's, and a file in it has the usual rights.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            unfinished = pathlib.Path(folder, path.name)
            unfinished.write_text(html, encoding="utf-8")
            os.replace(unfinished, path)

    def _repr_html_(self):
        return page.fragment(self)


def health_report(model, x, y, monitor=None):
    """Says what is wrong with the gradients of a model, and what to change.

    NON_FINITE: There is an Inf or NaN in the gradients, during training or at (x, y), and no
        recurrence that explodes is its cause.
    DEAD: No weight of a layer gets a gradient.
    EXPLODING: The gradient through time grows more than tenfold over the T steps of the sequences:
        a slope over 0, by log 10 / (T - 1) for noise. Or in training: the 99th percentile of the
        gradient norm is over 100 times the median. Or the states, or the gradient through time,
        grow over 1e9, and the loss or its gradient overflows.
    VANISHING: The half-life of the gradient through time is under T/10, so that over the sequence
        less than a thousandth of it is left. Or in training: the median norm is under 1e-7.
    SATURATED: More than half of the values of a gate are under 0.05 or over 0.95.
    CLIP_TOO_TIGHT, CLIP_IDLE: The clip cut more than half of the updates, or none.
    HEALTHY: None of these.

    What comes from training needs the `monitor`. Where no gradient comes to a recurrent layer at
    all, it is not said to vanish in it.

    Gates are what a cell takes its `recurrent_activation` of, where that lies in [0, 1]. Their
    values are not counted on the side on which they leave the state as it is (f over 0.95 and i
    under 0.05 in an LSTM, z over 0.95 in a GRU): so a cell remembers, and so
    `kerasrnn.initializers.Chrono` starts it.

    A layer dies as a unit does (Lu et al., 2020): it gives 0 for any input, and so stays as it is.
    One that gives something else and gets no gradient is named where no such layer explains it.

    Args:
        model: A compiled Keras model.
        x, y: A batch, as for `fit`; large enough to stand for the data, and small enough to be run
            step by step. It is measured as in inference, and the model is left as it was.
        monitor: The `GradientNormMonitor` of its training, for what is said of norms and clips.

    Returns:
        A `HealthReport`: `.verdicts`, `.text` for a terminal, `.save("page.html")`.

    Raises:
        ValueError: The model is not compiled, the batch is empty, all masked or none of arrays, x
            and y differ in their samples, y is missing though the loss needs it, `monitor` has
            recorded nothing or another model.
        TypeError: `monitor` is no `GradientNormMonitor`.

    Source: Pascanu, Mikolov & Bengio (2013), section 2.1, for gradients that vanish and explode;
    Vogt et al. (2020) for the Lyapunov exponent that is set against the spectral radius; Lu, Shin,
    Su & Karniadakis (2020), "Dying ReLU and initialization".

    Example:

    >>> model = keras.Sequential([kerasrnn.layers.SimpleRNN(4, name="rnn"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> model.build((None, 40, 3))
    >>> model.get_layer("rnn").set_weights([np.ones((3, 4)), 0.1 * np.eye(4), np.zeros(4)])
    >>> x = np.random.default_rng(0).normal(size=(8, 40, 3))
    >>> report = kerasrnn.diagnostics.health_report(model, x, np.ones((8, 1)))
    >>> [(verdict.code, verdict.layer) for verdict in report.verdicts]
    [('VANISHING', 'rnn')]
    """
    check_compiled(model)
    x, y = as_batch(model, x=x, y=y)
    findings = _of_training(model, monitor)
    if not model.built:
        model(x)

    flow, layers = None, {}
    loss, reach = gradient_reach(model, x, y)
    if broken := _non_finite(model, x, y, loss, reach):
        # What happened first says more.
        known = any(finding.code == "NON_FINITE" for finding in findings)
        findings += [f for f in broken if not (known and f.code == "NON_FINITE")]
    else:
        dead = _dead(reach)
        flow, layers = _through_time(model, x, y)
        findings += dead
        for path, layer in layers.items():
            if path not in {finding.layer for finding in dead}:
                findings += _of_flow(path, layer)
            findings += _of_gates(path, layer)
    notes = [note for path, layer in layers.items() for note in _of_spectrum(path, layer)]
    paths = layer_paths(model)
    findings = [f._replace(layer=paths.get(f.layer, f.layer)) for f in findings]
    findings.sort(key=lambda finding: CODES.index(finding.code))
    norms = None if monitor is None else page.narrowed(monitor.plot())
    verdicts = findings or [_healthy(layers, monitor)]
    return HealthReport(verdicts, notes, layers, flow, model.name, norms)


def _of_training(model, monitor):
    """What the norms of the updates say, but for good."""
    if monitor is None:
        return []
    if not isinstance(monitor, GradientNormMonitor):
        raise TypeError(
            "`monitor` must be the GradientNormMonitor of the model's fit, or None. "
            f"Received: monitor={monitor!r}"
        )
    if not len(monitor.history["global_norm"]):
        raise ValueError(
            "`monitor` must have recorded updates: pass it to fit as a callback first. "
            "Received: a GradientNormMonitor without any"
        )
    # Not the other way round: a layer may have been frozen then.
    known = {variable.path for variable in model.variables}
    if missing := [path for path in monitor.variables if path not in known]:
        raise ValueError(
            "`monitor` must have watched this model. Received: a record of "
            f"{', '.join(missing)}, which the model, {model.name}, does not have"
        )
    return [verdict for verdict in monitor.verdicts() if verdict.code != "HEALTHY"]


def _non_finite(model, x, y, loss, reach):
    """What is not finite at (x, y), or where that comes from: the data, the weights, a recurrence
    that explodes, or else the loss or a gradient."""
    bad = [
        variable
        for of_layer in reach.values()
        for variable, norm in of_layer.gradients.items()
        if not math.isfinite(norm)
    ]
    broken = bad or not math.isfinite(loss)
    weights = [v.path for v in model.variables if not _finite(v.value)]
    guard = "`kerasrnn.callbacks.DivergenceGuard()` lets no update through that holds one."
    in_x, in_y = _sample_not_finite(x), _sample_not_finite(y)
    numbers = {"loss": loss, "weights": len(weights), "gradients": len(bad)}
    layer = None
    if in_x is not None:
        what = f"`x` holds an Inf or NaN, first in sample {in_x},"
        remedy = f"Clean or mask the data. {guard}"
    elif broken and in_y is not None:
        what = f"`y` holds an Inf or NaN, first in sample {in_y},"
        remedy = f"Clean the data. {guard}"
    elif weights:
        layer = weights[0]
        what = f"{weights[0]} holds an Inf or NaN"
        remedy = (
            "Go back to an earlier checkpoint; then clip the gradients, "
            f"`{CLIP}`, or lower the learning rate. {guard}"
        )
    elif not broken:
        return []
    elif overflow := _overflow(model, x, y, loss, reach):
        return [overflow]
    else:
        # A gradient of a loss that is none says nothing of its layer.
        layer = bad[0] if math.isfinite(loss) else None
        what = f"the gradient of {layer} has an Inf or NaN" if layer else f"the loss is {loss}"
        remedy = (
            "`x`, `y` and the weights have none, nor does a recurrence explode. Look for a "
            "logarithm, root or division of zero in the model and its loss, and for numbers too "
            "large to be squared."
        )
    meaning = f"{what} at this batch, so that no update can be told from it."
    return [Verdict("NON_FINITE", layer, numbers, meaning, remedy)]


def _overflow(model, x, y, loss, reach):
    """The recurrence whose states, or the gradient on its way back through it, have grown out of
    all bounds, if there is one."""
    found = next((path for path, of_layer in reach.items() if of_layer.explodes), None)
    if found:
        largest = reach[found].gave
        upto = f"up to {largest:.3g}" if math.isfinite(largest) else "beyond all numbers"
        meaning = f"in {found} the states grow {upto}, so that the loss or its gradient overflows."
    else:
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
        found, largest = huge[-1], float(peaks[huge[-1]])
        meaning = (
            f"in {found} the gradient grows beyond {largest:.3g} on its way back over "
            f"{flow.steps[found]} steps, until it overflows."
        )
    remedy = (
        f"Start anew from smaller recurrent weights, {_ORTHOGONAL} and an activation that is "
        f'bounded, "tanh", and clip, `{CLIP}`; or take a cell with gates, `kerasrnn.layers.LSTM` '
        "or `GRU`."
    )
    return Verdict("EXPLODING", found, {"largest": largest, "loss": loss}, meaning, remedy)


def _finite(tensor):
    floats = tensor.dtype.is_floating
    return not floats or bool(tf.reduce_all(tf.math.is_finite(tensor)))


def _sample_not_finite(batch):
    """The first sample that holds an Inf or NaN, if any."""
    parts = [part for part in tree.flatten(batch) if part is not None and not _finite(part)]
    samples = [np.argwhere(~np.isfinite(np.array(part)))[0, 0] for part in parts]
    return int(min(samples)) if samples else None


def _dead(reach):
    starved = [path for path, of_layer in reach.items() if of_layer.starved]
    silent = [path for path in starved if reach[path].silent]
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
    others = [path for path in starved if path not in silent]
    cut_off = f"; nor do those behind it get any: {', '.join(others)}" if silent and others else ""
    return [
        Verdict(
            "DEAD",
            path,
            {"variables": len(reach[path].gradients), "layers_without_gradient": len(starved)},
            f"{path} is dead: {why}{cut_off}.",
            remedy,
        )
        for path in silent or starved
    ]


def _through_time(model, x, y):
    """The gradient flow and a `LayerHealth` for each recurrent layer, if there are any."""
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
        return None, {}
    return flow, {run.path: _layer_health(flow, run, recorder.gates(run.path)) for run in runs}


def _layer_health(flow, run, gates):
    _, keeps, writes = known_gates(run.cell)
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
        bool(keeps or writes),
        _gain(run.cell),
    )


def _gain(cell):
    initializer = getattr(cell, "recurrent_initializer", None)
    orthogonal = isinstance(initializer, keras.initializers.Orthogonal)
    return initializer.gain if orthogonal else None


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


def _of_flow(path, layer):
    trend = layer.trend(layer.slope)
    numbers = {"slope": layer.slope, "half_life": layer.half_life, "steps": layer.steps}
    if trend == "VANISHING":
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
    elif trend == "EXPLODING":
        growth = layer.slope * (layer.steps - 1) / math.log(10)
        numbers["growth"] = 10.0**growth if growth < 300 else math.inf
        meaning = (
            f"in {path} the gradient grows by a factor of {math.exp(layer.slope):.3g} per step "
            f"back, of 10^{growth:.1f} over {layer.steps} steps, so that the earliest steps drown "
            "the others."
        )
        remedy = (
            f"{_start_smaller(layer)}, and clip, `{CLIP}`; "
            "`GradientNormMonitor.suggest_clipnorm()` finds the threshold."
        )
    else:
        return []
    return [Verdict(trend, path, numbers, meaning, remedy)]


def _start_smaller(layer):
    if layer.gain is None:
        return f"Start from {_ORTHOGONAL}"
    if layer.gain > 1:
        return f"Start from {_ORTHOGONAL}, whose gain is 1 and not {layer.gain:.3g}"
    gates = "" if layer.remembers else "a cell with gates, `kerasrnn.layers.LSTM` or `GRU`, or "
    return f"Take {gates}smaller recurrent weights"


def _of_gates(path, layer):
    shares = {n: gate.saturated for n, gate in layer.gates.items() if gate.saturated > SATURATED}
    if not shares:
        return []
    listed = " and ".join(f"{share:.0%} of the values of {name}" for name, share in shares.items())
    return [
        Verdict(
            "SATURATED",
            path,
            shares,
            f"in {path} {listed} are under 0.05 or over 0.95, where a sigmoid is flat, so that the "
            "gate hardly learns.",
            "Scale the inputs to a variance of one, start from smaller weights and biases, or take "
            'normalization="layer", in a layer of kerasrnn.layers.',
        )
    ]


_SAYS = {"VANISHING": "vanish", "EXPLODING": "explode", None: "neither vanish nor explode"}


def _of_spectrum(path, layer):
    """Where the eigenvalues alone mislead."""
    if layer.lyapunov is None:
        return
    by_radius, by_exponent = layer.trend(layer.log_radius), layer.trend(layer.lyapunov)
    if by_radius != by_exponent:
        yield (
            f"the eigenvalues alone mislead about {path}. By its spectral radius, log ρ(W_h) = "
            f"{layer.log_radius:+.3f}, gradients would {_SAYS[by_radius]} over {layer.steps} "
            f"steps. By its Lyapunov exponent, λ = {layer.lyapunov:+.3f} per step, which counts "
            f"what the activation does on the way, they {_SAYS[by_exponent]}; the slope that was "
            f"measured is {layer.slope:+.3f}."
        )


def _healthy(layers, monitor):
    numbers, said = {}, []
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
                f"{layer.steps} steps it should be {layer.steps / 10:.3g} or more"
            )
        )
    if monitor is not None:
        (of_training,) = monitor.verdicts()
        numbers |= of_training.numbers
        said.append(of_training.meaning.removesuffix("."))
    said = said or ["the gradient of the loss is finite and reaches every layer"]
    return Verdict("HEALTHY", None, numbers, f"{'; '.join(said)}.")
