"""How the gradient flows back through the time steps of a model."""

import dataclasses

import numpy as np
from keras import ops, tree

from kerasrnn.backends import tf
from kerasrnn.diagnostics import plots
from kerasrnn.diagnostics.derivatives import WayBack
from kerasrnn.diagnostics.looking import as_batch, check_compiled, gradients, left_as_it_was
from kerasrnn.diagnostics.probe import NoRecurrentLayer, Probe
from kerasrnn.inside import recurrent_paths

# Below, float32 has no digits left to tell how fast a norm falls.
_TINY = 1e-30


class _ByPath(dict):
    """Also finds a layer by the end of its path, where that is unique, and by Keras's `.path`."""

    def __missing__(self, path):
        near = [key for key in self if f"/{key}".endswith(f"/{path}") or path.endswith(f"/{key}")]
        if len(near) != 1:
            raise KeyError(f"`layer` must be one of {', '.join(self)}. Received: layer={path!r}")
        return self[near[0]]


@dataclasses.dataclass(frozen=True)
class GradientFlow:
    """The gradient flow of a model at a batch. All but `loss` are dictionaries with the paths of
    the recurrent layers for keys, in the order in which they ran.

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
        return plots.gradient_flow(self)


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
    where nothing is masked. What a user's cell gives as output beside its states is not seen:
    ∂J/∂h_t counts the output where it is a state. Of a subclass of a cell of this package whose
    `call` leaves the states as they are, all of the output counts.

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
        trace: Whether to trace, where TensorFlow is the backend.
        watch: `watch(run)` is told of every `Run` before its first step.
    """

    def __init__(self, model, trace, watch=None):
        check_compiled(model)
        self.model = model
        self.watch = watch
        trace = trace and tf is not None and not model.run_eagerly
        self.run = tf.function(self._run, autograph=False) if trace else self._run

    def __call__(self, x, y=None, sample_weight=None):
        x, y, sample_weight = as_batch(self.model, x=x, y=y, sample_weight=sample_weight)
        if not self.model.built:
            self.model(x)
        with left_as_it_was(self.model):
            measured = self.run(x, y, sample_weight)
        loss, runs = tree.map_structure(_array, measured)

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
        layers = recurrent_paths(self.model)
        single = False

        def loss_and_probe(source):
            probe = Probe(source, self.watch, lambda: single)
            with probe.on(layers):
                prediction = self.model(x, training=False)
            loss = self.model.compute_loss(x, y, prediction, sample_weight, training=False)
            return [loss], probe

        way = WayBack(loss_and_probe, self.model.trainable_variables)
        (loss,), probe = way.outputs, way.others
        if not probe.runs:
            raise NoRecurrentLayer(
                "`model` must have a recurrent layer that takes part in its output. "
                f"Received: model={self.model.name}, with "
                f"{', '.join(path for path, *_ in layers) or 'no recurrent layer'}"
            )

        def norms():
            arrived = iter(gradients(self.model, way.back))
            return [run.norms([next(arrived) for _ in run.taps]) for run in probe.runs]

        whole = only_last = norms()
        if probe.reads_steps:
            single = True
            only_last = norms()
        return loss, {
            run.path: (of_whole, of_last, run.valid, run.flipped)
            for run, of_whole, of_last in zip(probe.runs, whole, only_last, strict=True)
        }


def _array(value):
    return np.array(ops.convert_to_numpy(value) if ops.is_tensor(value) else value)


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
