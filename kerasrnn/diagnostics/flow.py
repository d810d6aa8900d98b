"""How the gradient flows back through the time steps of a model."""

import contextlib
import dataclasses
import functools
import reprlib

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from kerasrnn.cells import Cell
from kerasrnn.inside import kept_states, layers_directly_in, layers_in
from kerasrnn.layers.checks import MaskAndReset
from kerasrnn.layers.rnn import RNN
from kerasrnn.recurrence import sequence

# Below, float32 has no digits left to tell how fast a norm falls.
_TINY = 1e-30
# What a loss is multiplied by where float16 might lose its gradient; powers of two round nothing.
_SCALES = (2.0**10, 2.0**20)


class NoRecurrentLayer(ValueError):
    """There is none that takes part in the model's output."""


class _ByPath(dict):
    """Also finds a layer by the end of its path, where that is unique, and by Keras's `.path`."""

    def __missing__(self, path):
        near = [key for key in self if f"/{key}".endswith(f"/{path}") or path.endswith(f"/{key}")]
        if len(near) != 1:
            raise KeyError(f"`layer` must be one of {', '.join(self)}. Received: layer={path!r}")
        return self[near[0]]


@dataclasses.dataclass(frozen=True)
class GradientFlow:
    """What `gradient_flow` found. All but `loss` are dictionaries with the paths of the recurrent
    layers for keys, in the order in which they ran.

    Attributes:
        loss: J.
        per_state: For each state of the layer by name (an LSTM has h and c), (batch, time): the L2
            norm over the units of J's gradient with respect to this state after step t, while the
            other states are held.
        per_sample: (batch, time): that of h, or of all states of a cell that has no h.
        norms: (time,): its mean over the batch.
        profile: (lags,): ‖∂J/∂h_{s-k}‖ / ‖∂J/∂h_s‖ for each lag k, where J reads the layer's output
            at a single step s; the geometric mean over the batch. Lags too long to have a gradient
            above 1e-30 are left out. All NaN where a gradient of any sample is NaN or infinite.
        slope: What one step further back adds to log ‖∂J/∂h‖: the slope of the log of the profile,
            fitted to all samples. For a cell that keeps more than h, as an LSTM, from lag 1 on if
            there are three lags or more: at lag 0 h is read, and c is not. -inf where no gradient
            gets back a step, NaN without two steps or where the profile is NaN.
        half_life: The steps in which the gradient falls to half, -log 2 / slope; infinite where it
            does not fall, NaN where the slope is.
        steps: The number of steps of the longest sample, masked ones left out.

    Example:

    >>> norms = {"rnn": np.array([0.25, 0.5, 1.0])}
    >>> slope, half_life = {"rnn": np.log(0.5)}, {"rnn": 1.0}
    >>> steps = {"rnn": 3}
    >>> flow = kerasrnn.diagnostics.GradientFlow(0.0, {}, {}, norms, {}, slope, half_life, steps)
    >>> flow.plot().axes[0].get_yscale()
    'log'
    """

    loss: float
    per_state: dict
    per_sample: dict
    norms: dict
    profile: dict
    slope: dict
    half_life: dict
    steps: dict

    def plot(self):
        """Draws the norms over the time steps, a line per layer, on a logarithmic axis.

        Returns:
            A `matplotlib.figure.Figure`; `.savefig("flow.png")` writes it. A step without any
            gradient has no point.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4 + 0.2 * len(self.norms)), layout="constrained")
        axis = figure.subplots()
        lines = [(line, "os^vD"[i % 5]) for i, line in enumerate(("-", "--", "-.", ":") * 5)]
        for i, (path, norms) in enumerate(self.norms.items()):
            line, marker = lines[i % len(lines)]
            axis.plot(
                np.where(norms > 0, norms, np.nan),
                linestyle=line,
                marker=marker,
                markersize=4,
                markevery=max(1, len(norms) // 12),
                label=f"{path}: slope {self.slope[path]:+.3f} per step back, "
                f"half-life {self.half_life[path]:.3g} steps",
            )
        axis.set_yscale("log")
        axis.set_xlabel("time step t of the input")
        axis.set_ylabel("‖∂J/∂h_t‖, mean over the batch")
        axis.set_title("Gradients through time")
        figure.legend(loc="outside lower center")
        return figure


def gradient_flow(model, x, y=None, sample_weight=None):
    """Measures the gradient that reaches every state of every recurrent layer, for all time steps
    in one backward pass.

        h_t = f(x_t, h_{t-1}) + e_t,  e_t = 0:       ∂J/∂h_t = ∂J/∂e_t

    J is the compiled loss of the model at (x, y), as in inference (no dropout). The layers may be
    those of this package or of Keras, wrapped, stacked, inside models of any kind, masked. At a
    masked step, which leaves state and output as they are, both are those of h_t all the same.

    Where a layer is read at every step, the sum over all of them says nothing of how far back each
    one reaches. So the profile over the lags, its slope and the half-life come from a second
    backward pass, in which the outputs of a layer pass on the gradient of the last step that has
    one, and of no other. Lags count steps that are not masked.

    Args:
        model: A compiled Keras model.
        x, y: A batch, as for `fit`; so is `sample_weight`. It is left as it was: what
            running it changes (states of stateful layers, metrics) is set back.

    Returns:
        A `GradientFlow`. Its keys are the names on the way from the model to the layer, as
        "encoder/lstm", with "forward" and "backward" for the layers of a Bidirectional, the cells'
        names behind that of an RNN of several, and "#2" for a layer's second call. Time is that of
        the layer's input; backward layers too are shown along it.

    Raises:
        ValueError: The model is not compiled or has no recurrent layer, of (batch, time, features),
            that takes part; or a part of the batch is none of arrays, has other samples than x or
            none, or is missing: y, where the loss needs it.

    Steps are run one by one, without the fast paths of training, which `GradientFlowMonitor` takes
    where nothing is masked. What a cell of the user's own
    gives as output beside its states is not seen: ∂J/∂h_t counts the output where it is a state.

    Source: Pascanu, Mikolov & Bengio (2013), section 1.1: the product of Jacobians measured here.

    Example:

    >>> model = keras.Sequential([kerasrnn.layers.SimpleRNN(4, name="rnn"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> flow = kerasrnn.diagnostics.gradient_flow(model, np.ones((8, 5, 3)), np.ones((8, 1)))
    >>> flow.norms["rnn"].shape
    (5,)
    """
    return Measurement(model, trace=False)(x, y, sample_weight)


class Measurement:
    """`gradient_flow` of one model. Tracing takes longer than measuring one short sequence; it pays
    for who measures batches of one shape again and again.

    Args:
        model: As for `gradient_flow`.
        trace: Whether to trace.
        watch: `watch(run)` is told of every `Run` before its first step.
    """

    def __init__(self, model, trace, watch=None):
        check_compiled(model)
        self.model = model
        self.watch = watch
        trace = trace and not model.run_eagerly
        self.run = tf.function(self._run, autograph=False) if trace else self._run

    def __call__(self, x, y=None, sample_weight=None):
        x, y, sample_weight = as_batch(self.model, x=x, y=y, sample_weight=sample_weight)
        if not self.model.built:
            self.model(x)
        with left_as_it_was(self.model):
            loss, runs = self.run(x, y, sample_weight)
        runs = tree.map_structure(np.array, runs)

        per_state, per_sample, norms, profile = (_ByPath() for _ in range(4))
        slope, half_life, steps = (_ByPath() for _ in range(3))
        for path, (whole, single, valid, flipped) in runs.items():
            along = slice(None, None, -1 if flipped else 1)
            per_state[path] = {name: of_state[:, along] for name, of_state in whole.items()}
            per_sample[path] = _of_h(per_state[path])
            norms[path] = per_sample[path].mean(axis=0)
            profile[path], slope[path] = _profile(single, valid)
            grows = slope[path] >= 0
            half_life[path] = np.inf if grows else float(-np.log(2) / slope[path])
            steps[path] = int(valid.sum(axis=1).max())
        return GradientFlow(
            float(loss), per_state, per_sample, norms, profile, slope, half_life, steps
        )

    def _run(self, x, y, sample_weight):
        layers = list(recurrent_layers(self.model))
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            probe = _Probe(tape, self.watch)
            with _shadowed(layers, probe):
                prediction = self.model(x, training=False)
            loss = self.model.compute_loss(x, y, prediction, sample_weight, training=False)
        if not probe.runs:
            raise NoRecurrentLayer(
                "`model` must have a recurrent layer that takes part in its output. "
                f"Received: model={self.model.name}, with "
                f"{', '.join(path for path, *_ in layers) or 'no recurrent layer'}"
            )

        def norms():
            taps = [run.taps for run in probe.runs]
            found = gradients(self.model, tape, loss, taps)
            return [run.norms(of_taps) for run, of_taps in zip(probe.runs, found, strict=True)]

        whole = single = norms()
        if probe.reads_steps:
            probe.single = True
            single = norms()
        return loss, {
            run.path: (of_whole, of_single, run.valid, run.flipped)
            for run, of_whole, of_single in zip(probe.runs, whole, single, strict=True)
        }


@dataclasses.dataclass(frozen=True)
class Run:
    """One cell, run once.

    Attributes:
        path: Its path, with the number of the call.
        layer, cell: The layer, and that of its cells which runs.
        sequences: The layer's input, (batch, time, features).
        states: Those it starts from.
        valid: (batch, time), in the order of the steps, false where masked.
        flipped: Whether that order is against the time of the model's input.
        taps: What is added to each state after each step, (time, batch, size).
    """

    path: str
    layer: keras.layers.Layer
    cell: keras.layers.Layer
    sequences: tf.Tensor
    states: list
    valid: tf.Tensor
    flipped: bool
    taps: list

    @property
    def names(self):
        """Those of the states."""
        if isinstance(self.cell, Cell):
            return self.cell.states
        if isinstance(self.cell, keras.layers.LSTMCell):
            return ("h", "c")
        return ("h", *(f"state_{i}" for i in range(2, len(self.taps) + 1)))

    def norms(self, gradients):
        """(batch, time) for each state, in the order of the steps."""
        return {
            name: tf.transpose(tf.norm(gradient, axis=-1))
            for name, gradient in zip(self.names, gradients, strict=True)
        }


class _Probe:
    """Hands out the taps and keeps them; with `single`, lets a layer be read at one step only."""

    def __init__(self, tape, watch):
        self.tape = tape
        self.watch = watch
        self.runs = []
        self.single = self.reads_steps = False

    def inner_loop(self, original, layer, path, flipped, sequences, initial_state, mask, **options):
        if len(sequences.shape) != 3:
            return original(sequences, initial_state, mask, **options)
        steps = mask.mask if isinstance(mask, MaskAndReset) else mask
        valid = tf.ones(_shape(sequences)[:2], "bool")
        if steps is not None:
            valid &= tf.reshape(tf.cast(tree.flatten(steps)[0], "bool"), [-1, tf.shape(valid)[1]])
        if layer.go_backwards:
            valid = tf.reverse(valid, [1])
        tap = functools.partial(self._tap, layer, path, flipped, sequences, valid)
        with sequence.tapped(tap):
            last, outputs, states = RNN.inner_loop(layer, sequences, initial_state, mask, **options)
        if layer.return_sequences:
            outputs = self._read(outputs)
        return last, outputs, states

    def _tap(self, layer, path, flipped, sequences, valid, cell, states, steps):
        if cell is not layer.cell:
            path = f"{path}/{cell.name}"
        calls = sum(run.path.split("#")[0] == path for run in self.runs)
        path = f"{path}#{calls + 1}" if calls else path
        taps = tree.map_structure(lambda s: tf.zeros([steps, *_shape(s)], s.dtype), states)
        flat = tree.flatten(taps)
        self.tape.watch(flat)
        run = Run(path, layer, cell, sequences, states, valid, flipped, flat)
        self.runs.append(run)
        if self.watch:
            self.watch(run)
        return taps

    def _read(self, outputs):
        """The outputs; in the second backward pass only the last step that the loss depends on
        passes its gradient on."""
        self.reads_steps = True

        def gradient(g):
            if not self.single:
                return g
            time = tf.shape(g)[1]
            steps = tf.range(time)
            arrives = tf.cast(tf.reduce_any(g != 0, axis=-1), steps.dtype)
            last = tf.reduce_max(steps * arrives, axis=1)
            return g * tf.one_hot(last, time, dtype=g.dtype)[:, :, None]

        @tf.custom_gradient
        def read(outputs):
            return tf.identity(outputs), gradient

        return read(outputs)


def gradients(model, tape, loss, sources):
    """The gradient of a model's loss with respect to each source, in float64, or the squares of
    small ones would be none; of a sparse one the rows.

    Where a layer computes in float16, it is taken of the loss times several factors, as training
    scales it, and counts for the largest by which everything stays finite.

    Args:
        model, loss: The model, and its loss.
        tape: The persistent tape on which it was run.
        sources: A structure of tensors.
    """

    def scaled(scale):
        found = tape.gradient(
            loss,
            sources,
            output_gradients=tf.cast(scale, loss.dtype),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return tree.map_structure(
            lambda g: tf.cast(getattr(g, "values", g), "float64") / scale, found
        )

    found = scaled(1.0)
    if all(layer.compute_dtype != "float16" for layer in layers_in(model)):
        return found
    for scale in _SCALES:
        larger = scaled(scale)
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in tree.flatten(larger)])
        found = tree.map_structure(functools.partial(tf.where, finite), larger, found)
    return found


def check_compiled(model):
    """Raises a `ValueError` unless the model has a loss."""
    if not getattr(model, "compiled", False):
        raise ValueError(
            "`model` must be a compiled Keras model, whose loss the gradients are of. "
            f"Received: model={model!r}"
        )


def as_batch(model, **parts):
    """Each of a batch's parts by its name, x, y or weights, with tensors for its arrays.

    Raises:
        ValueError: A part has something else than arrays, they differ in their samples or have
            none, or the model has a loss of targets that are missing.
    """
    arrays = [
        (name, array)
        for name, part in parts.items()
        for array in tree.flatten(part)
        # A model may have no targets, or inputs that may be left out.
        if array is not None or (name == "x" and part is None)
    ]
    for name, array in arrays:
        if not len(getattr(array, "shape", ())):
            raise ValueError(
                f"`{name}` must be an array, (batch, ...), or a structure of them as `fit` takes "
                "it; np.array makes one of lists of numbers, and a dataset yields them. "
                f"Received: {name}={reprlib.repr(parts[name])}"
            )
    samples = arrays[0][1].shape[0]
    for name, array in arrays:
        if array.shape[0] != samples:
            raise ValueError(
                f"`{name}` must hold as many samples as `x`, {samples}. Received: an array of the "
                f"shape {tuple(array.shape)}"
            )
    if not samples:
        raise ValueError("`x` must hold at least one sample. Received: an empty batch")
    # A model may take its loss from its layers, or compute it in its own way.
    of_targets = model.loss is not None and type(model).compute_loss is keras.Model.compute_loss
    if of_targets and parts["y"] is None:
        raise ValueError(
            "`y` must hold the targets, which the loss the model is compiled with needs. "
            "Received: y=None"
        )
    return [
        tree.map_structure(lambda v: None if v is None else tf.convert_to_tensor(v), part)
        for part in parts.values()
    ]


def _shape(tensor):
    return [n or tf.shape(tensor)[i] for i, n in enumerate(tensor.shape)]


def recurrent_layers(layer, path=(), flipped=False):
    """The path of each recurrent layer, the layer, and whether it runs against its input."""
    for part in layers_directly_in(layer):
        name = part.name
        if isinstance(layer, keras.layers.Bidirectional):
            name = {id(layer.forward_layer): "forward", id(layer.backward_layer): "backward"}.get(
                id(part), name
            )
        against = flipped != getattr(part, "go_backwards", False)
        if isinstance(part, keras.layers.RNN):
            yield "/".join((*path, name)), part, against
        else:
            yield from recurrent_layers(part, (*path, name), against)


@contextlib.contextmanager
def _shadowed(layers, probe):
    """Lets the layers, Keras's own too, run in this package's loop, under the probe."""
    shadowed = {id(layer): (path, layer, flipped) for path, layer, flipped in reversed(layers)}
    for path, layer, flipped in shadowed.values():
        original = layer.inner_loop
        layer.inner_loop = functools.partial(probe.inner_loop, original, layer, path, flipped)
    try:
        yield
    finally:
        for _, layer, _ in shadowed.values():
            del layer.inner_loop


@contextlib.contextmanager
def left_as_it_was(model):
    """Sets back what running a model, or a layer, changes."""
    metrics = getattr(model, "metrics_variables", [])
    kept = [*model.non_trainable_variables, *metrics, *kept_states(model)]
    values = [tf.identity(variable) for variable in kept]
    try:
        yield
    finally:
        for variable, value in zip(kept, values, strict=True):
            variable.assign(value)


def _of_h(norms):
    return norms["h"] if "h" in norms else np.sqrt(sum(n**2 for n in norms.values()))


def _lags(norms, valid):
    """log ‖∂J/∂h_{s-k}‖ - log ‖∂J/∂h_s‖ per sample, (batch, lags), from norms in the order of the
    steps; NaN where there is no such step, -inf where no gradient reaches it."""
    lags = np.full(norms.shape, np.nan)
    for sample, steps, lag in zip(norms, valid, lags, strict=True):
        back = sample[steps][::-1]
        reached = np.flatnonzero(back > _TINY)
        if reached.size:
            back = back[reached[0] :]
            n = np.argmin([*(back > _TINY), False])
            lag[:n], lag[n : len(back)] = np.log(back[:n] / back[0]), -np.inf
    return lags


def _profile(states, valid):
    """The mean of the lags over the batch, and the slope, from the norms of each state."""
    norms = _of_h(states)
    if not np.isfinite(norms).all():
        return np.full(norms.shape[1], np.nan), np.nan
    lags = _lags(norms, valid)
    some = np.isfinite(lags)
    counts = some.sum(axis=0)
    length = np.flatnonzero(counts)[-1] + 1 if counts.any() else 0
    profile = np.exp(np.where(some, lags, 0).sum(axis=0)[:length] / counts[:length])
    if length < 2:
        no_way_back = np.isneginf(lags).any() or not length
        return profile, -np.inf if no_way_back else np.nan
    # The loss reads h; what is kept beside it carries gradients from step to step, and does so from
    # the first step back on.
    if length > 2 and "h" in states and len(states) > 1:
        some[:, 0] = False
    _, k = np.nonzero(some)
    return profile, float(np.polyfit(k, lags[some], 1)[0])
