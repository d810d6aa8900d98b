"""What clips gradients in the graph: one class per rule, a mode of `GradientClipping`.

Most rules shrink a gradient g, or all of them together, to a threshold θ (Pascanu, Mikolov &
Bengio, 2013, Algorithm 1), the value that was set or one that is drawn from the norms:

    if ‖g‖ ≥ θ:  g ← θ/‖g‖ g
"""

import inspect
import math
import textwrap

import numpy as np
from keras import ops

from kerasrnn.backends import tf
from kerasrnn.updates import gradients
from kerasrnn.updates.replicas import on_first_replica, several, total
from kerasrnn.updates.variables import StepVariable, step_variable, value_of

# Norms that a percentile is taken of.
_WINDOW = 1000
# Of ZClip: decay of the averages, and what keeps z finite.
_DECAY, _TINY = 0.97, 1e-6
# Of AGC: the least norm of a unit's weights, so that weights of zero can leave it.
_LEAST_NORM = 1e-3


def shrink_factor(norm, threshold):
    """What Algorithm 1 multiplies a gradient of this norm by."""
    return ops.where((norm >= threshold) & ops.isfinite(norm), threshold / norm, 1.0)


class ClipRule:
    """A clip of gradients that come from one replica or several, as `UpdateHook` calls it.

    Class attributes:
        default: The value where none is set.
        limits: The least and the largest value. The graph holds it in float32, in which it must be
            neither zero nor infinite.
        fixed: Whether the threshold stays where it was set, so that a clip that fires on most
            updates is too tight. Others follow the norms or the weights, and may be meant to:
            AutoClip at the 10th percentile fires on 90% of the updates.
        warmup: The first updates, which are not clipped.

    Attributes:
        value: The `StepVariable` of the value; assigned to, it counts from the next update on.
        latest_threshold: θ of the last update.
    """

    limits = float(np.finfo("float32").tiny), float(np.finfo("float32").max)
    fixed = True
    warmup = 0

    def __init__(self, value):
        self.value = step_variable(value)

    @property
    def latest_threshold(self):
        return self.value.numpy()

    def fit_state(self):
        """Its value and what it knows of earlier updates, for `go_on_from`."""
        return {name: variable.numpy() for name, variable in self._variables()}

    def go_on_from(self, state):
        """Takes up the `fit_state` of a rule of the same class."""
        for name, variable in self._variables():
            variable.assign(state[name])

    def _variables(self):
        return [(name, one) for name, one in vars(self).items() if isinstance(one, StepVariable)]

    def __call__(self, variables, grads):
        if several() is None:
            return self.clip(variables, grads)
        clipped = self.clip(variables, total(list(grads)))
        # The optimizer sums what the replicas hand it, but Adam squares the rows of an embedding's
        # gradient before: in parts they would come to less.
        return clipped if on_first_replica() else [gradients.zeros_like(g) for g in clipped]


class GlobalNorm(ClipRule):
    """All gradients together, θ = value, a norm in the gradient's unit. Keeps the direction of the
    step; what the literature means by clipping.

    Source: Pascanu, Mikolov & Bengio (2013), Algorithm 1.
    """

    default = 1.0

    def clip(self, variables, grads):
        factor = shrink_factor(gradients.global_norm(grads), self.value.value)
        return [gradients.scale(g, factor) for g in grads]


class Norm(ClipRule):
    """Each variable's gradient by itself, θ = value, a norm in the gradient's unit.

    Source: Pascanu, Mikolov & Bengio (2013), Algorithm 1, variable by variable.
    """

    default = 1.0

    def clip(self, variables, grads):
        threshold = self.value.value
        return [gradients.scale(g, shrink_factor(gradients.norm(g), threshold)) for g in grads]


class Value(ClipRule):
    """Each entry by itself, to value, in the gradient's unit, which turns the step:

        g ← min(max(g, -value), value)

    Source: `clipvalue` of Keras's optimizers.
    """

    default = 0.5

    def clip(self, variables, grads):
        return [self._clip_entries(g) for g in grads]

    def _clip_entries(self, gradient):
        if gradients.has_rows(gradient):
            rows = gradients.unique_rows(gradient)
            values = self._clip_entries(rows.values)
            return tf.IndexedSlices(values, rows.indices, rows.dense_shape)
        limit = ops.cast(self.value.value, gradient.dtype)
        clipped = ops.clip(gradient, -limit, limit)
        return ops.where(ops.all(ops.isfinite(gradient)), clipped, gradient)


class FromHistory(ClipRule):
    """Shrinks the global norm to a threshold that depends on earlier ones."""

    fixed = False

    def __init__(self, value):
        super().__init__(value)
        self._latest = step_variable(math.nan)

    @property
    def latest_threshold(self):
        return self._latest.numpy()

    def clip(self, variables, grads):
        norm = gradients.global_norm(grads)
        # One replica looks at the history while it writes on; the others are told.
        factor = self._factor(norm) if on_first_replica() else 0.0
        factor = total(ops.convert_to_tensor(factor))
        return [gradients.scale(g, factor) for g in grads]

    def _factor(self, norm):
        threshold = self.threshold(norm)
        self._latest.assign(threshold)
        return shrink_factor(norm, threshold)


class Percentile(FromHistory):
    """All gradients together, θ = the percentile `value`, up to 100, of the global norms
    n_1 ... n_t of the updates so far; of the last 1000, where the paper keeps all.

    Source: Seetharaman, Wichern, Pardo & Le Roux (2020), AutoClip.
    """

    default = 10.0
    limits = ClipRule.limits[0], 100.0

    def __init__(self, value):
        super().__init__(value)
        self.count = step_variable(0, "int32")
        # Infinity sorts behind all norms that are there.
        self.norms = step_variable(np.full(_WINDOW, math.inf))

    def threshold(self, norm):
        finite = ops.isfinite(norm)
        place = self.count.value % _WINDOW
        # Gathered, not sliced: XLA would compile a slice anew for every place.
        kept = ops.where(finite, norm, ops.take(self.norms.value, place))
        self.norms.write(place, kept)
        self.count.assign(self.count.value + ops.cast(finite, "int32"))

        ordered = ops.sort(self.norms.value)
        last = ops.cast(ops.clip(self.count.value, 1, _WINDOW) - 1, "float32")
        rank = self.value.value / 100 * last
        below = ops.floor(rank)
        low, high = (ops.take(ordered, ops.cast(r, "int32")) for r in (below, ops.ceil(rank)))
        return ops.where(low < high, low + (rank - below) * (high - low), low)


class ZScore(FromHistory):
    """All gradients together, where their global norm n lies more than `value` standard deviations
    over the mean:

        z = (n - μ)/σ > value:  θ = μ + σ value²/z
        n' = min(n, θ)
        μ ← 0.97 μ + 0.03 n';  σ² ← 0.97 σ² + 0.03 (n' - μ)²

    The first 25 updates are not clipped; their mean and variance are the first μ and σ².

    Source: Kumar, Owen, Chowdhury & Güra (2025), ZClip.
    """

    default = 2.5
    warmup = 25

    def __init__(self, value):
        super().__init__(value)
        self.count, self.mean, self.variance = (step_variable(0.0) for _ in range(3))

    def threshold(self, norm):
        value, mean, deviation = self.value.value, self.mean.value, ops.sqrt(self.variance.value)
        z = (norm - mean) / (deviation + _TINY)
        warm = self.count.value >= self.warmup
        spike = warm & (z > value)
        threshold = ops.where(spike, mean + value**2 / z * deviation, math.inf)
        self._take_in(norm, ops.minimum(norm, threshold), warm)
        return threshold

    def _take_in(self, norm, clipped, warm):
        # The mean and variance of all norms so far, then those that decay.
        count, before, variance = self.count.value, self.mean.value, self.variance.value
        weight = ops.where(warm, 1 - _DECAY, 1 / (count + 1))
        mean = before + weight * (clipped - before)
        towards = ops.where(warm, mean, before)
        change = (clipped - mean) * (clipped - towards)
        variance = variance + weight * (change - variance)
        new = (self.mean, mean), (self.variance, variance), (self.count, count + 1)
        for variable, value in new:
            variable.assign(ops.where(ops.isfinite(norm), value, variable.value))


class Adaptive(ClipRule):
    """Each unit i by itself, whose weights W_i lead into one output: all of a vector, and of other
    weights what leads to one index of the last axis. The value is a share of their norm:

        θ = value max(‖W_i‖, 0.001)

    Source: Brock, De, Smith & Simonyan (2021), adaptive gradient clipping (AGC), equation 3.
    """

    default = 0.01
    fixed = False

    def clip(self, variables, grads):
        return [self._clip_units(v, g) for v, g in zip(variables, grads, strict=True)]

    def _clip_units(self, variable, gradient):
        weights = value_of(variable)
        fan_in = list(range(max(1, len(weights.shape) - 1))) if len(weights.shape) else None
        norm_w = ops.maximum(gradients.norm(weights, fan_in), _LEAST_NORM)
        factor = shrink_factor(gradients.norm(gradient, fan_in), self.value.value * norm_w)
        return gradients.scale(gradient, factor)


CLIPS = {
    "global_norm": GlobalNorm,
    "norm": Norm,
    "value": Value,
    "percentile": Percentile,
    "zscore": ZScore,
    "adaptive": Adaptive,
}


def described():
    """What every rule says of itself, under its mode and default, as it stands in the docstring of
    `GradientClipping`."""
    parts = []
    for mode, rule in CLIPS.items():
        text = textwrap.indent(inspect.cleandoc(rule.__doc__), 8 * " ")
        parts.append(f'"{mode}" (default: {rule.default:g})\n{text}')
    return "\n\n    ".join(parts)
