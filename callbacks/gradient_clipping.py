import math

import keras
import numpy as np

from kerasrnn.arguments import one_of, real_number
from kerasrnn.callbacks.clips import CLIPS
from kerasrnn.callbacks.update_hook import UpdateHook, copied_without


class GradientClipping(keras.callbacks.Callback):
    """Clips the gradients of every update of a `fit`, in the graph, in the place of the optimizer's
    own clip.

    Most modes shrink a gradient g, or all of them together, to a threshold θ (Pascanu et al., 2013,
    Algorithm 1); n is the global norm, over all gradients, at update t:

        if ‖g‖ ≥ θ:  g ← θ/‖g‖ g

        "global_norm"  all gradients together, θ = value. Keeps the direction of the step; what
                       the literature means by clipping.
        "norm"         each variable by itself, θ = value
        "value"        g ← min(max(g, -value), value), each entry
        "percentile"   all together, θ = the percentile `value` of n_1 ... n_t   (AutoClip)
        "zscore"       all together, where z = (n - μ)/σ > value, θ = μ + σ value²/z   (ZClip)
                           n' = min(n, θ)
                           μ ← 0.97 μ + 0.03 n';  σ² ← 0.97 σ² + 0.03 (n' - μ)²
        "adaptive"     each unit i, the weights W_i into one output, by itself,
                       θ = value max(‖W_i‖, 0.001)   (AGC)

    What Keras's own clips do otherwise: `clipnorm` is "norm", not "global_norm", and takes the norm
    of an embedding's gradient before rows of the same token are summed; `global_clipnorm` makes the
    sparse gradient of an embedding dense, while here it stays sparse in every mode; a value that is
    changed later has no effect once the step is traced; several replicas clip each its own part, so
    that a step with `global_clipnorm=1` can be as long as there are replicas. Here gradients are
    clipped after they were summed over the replicas and over accumulated batches, without loss
    scale.

    Gradients with an Inf or NaN pass as they are, and no average takes them in: they are the
    matter of `DivergenceGuard`. The place among the callbacks does not matter. After an interrupted
    `fit` the clip is taken off at the start of the next one.

    Args:
        mode: One of the above.
        value: Positive number in the range of float32; a norm in "global_norm" (1) and "norm" (1),
            in the gradient's unit; the largest entry in "value" (0.5); a percentile up to 100 in
            "percentile" (10); a number of standard deviations in "zscore" (2.5); a share of the
            weights' norm in "adaptive" (0.01). In brackets the default, for the last three the
            papers'.

    Attributes:
        value: As given; setting it takes effect from the next update on, in a running `fit` too.
        threshold: Of the last update, a float: θ where the mode draws it from a history, infinite
            where "zscore" left the update as it was, and NaN before the first; else `value`.

    "percentile" looks back over the last 1000 updates, where the paper keeps all. "zscore" starts
    with 25 updates that are not clipped, whose mean and variance are the first μ and σ². Their
    history goes on from one `fit` of a model to the next with the same callback; a copy, another
    model or another process begins a new one. A unit of "adaptive" is all of a vector, and of other
    weights what leads to one index of the last axis.

    Raises:
        ValueError: `mode` is none of the above, or `value` is out of its range; at the start of
            `fit`, where the optimizer has a clip of its own or none is there, or where a second
            GradientClipping is.

    Source: Pascanu, Mikolov & Bengio (2013), Algorithm 1; Seetharaman, Wichern, Pardo & Le Roux
    (2020), AutoClip; Kumar, Owen, Chowdhury & Güra (2025), ZClip; Brock, De, Smith & Simonyan
    (2021), adaptive gradient clipping.

    Example:

    >>> model = keras.Sequential([kerasrnn.layers.GRU(4), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> clipping = kerasrnn.callbacks.GradientClipping("percentile", 50)
    >>> history = model.fit(np.ones((8, 5, 3)), np.ones((8, 1)), callbacks=[clipping], verbose=0)
    >>> clipping.value
    50.0
    """

    def __init__(self, mode="global_norm", value=None):
        super().__init__()
        self.mode = one_of(tuple(CLIPS), "mode", mode)
        self._clip = self._hook = None
        self.value = CLIPS[mode].default if value is None else value

    @property
    def value(self):
        return self._value

    @value.setter
    def value(self, value):
        # The graph holds it in float32, in which it must be neither zero nor infinite.
        least, most = float(np.finfo("float32").tiny), float(np.finfo("float32").max)
        if self.mode == "percentile":
            most = 100.0
        rule = f"be a number from {least:.3g} to {most:.3g} in mode {self.mode!r}"
        self._value = real_number("value", value, rule, lambda v: least <= v <= most)
        if self._clip is not None:
            self._clip.value.assign(self._value)

    @property
    def threshold(self):
        return math.nan if self._clip is None else float(self._clip.latest_threshold)

    def __getstate__(self):
        return copied_without(self, self._clip, self._hook)

    def set_model(self, model):
        # Norms of another model's gradients say nothing of this one's.
        if model is not self.model:
            self._clip = None
        super().set_model(model)

    def on_train_begin(self, logs=None):
        self._hook = UpdateHook.of(self)
        if self._clip is None:
            self._clip = CLIPS[self.mode](self._value)
        self._hook.clip_by(self._clip, self.mode, self._value)

    def on_train_batch_begin(self, batch, logs=None):
        self._hook.announce()

    def on_train_end(self, logs=None):
        self._hook.release(self._clip)
        self._hook = None
