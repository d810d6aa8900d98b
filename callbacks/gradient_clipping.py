import math

import keras

from kerasrnn.arguments import one_of, real_number
from kerasrnn.copying import copied_without
from kerasrnn.updates.clips import CLIPS, described
from kerasrnn.updates.hook import UpdateHook


class GradientClipping(keras.callbacks.Callback):
    """Clips the gradients of every update of a `fit`, in the graph, in the place of the optimizer's
    own clip.

    Most modes shrink a gradient g, or all of them together, to a threshold θ (Pascanu et al., 2013,
    Algorithm 1):

        if ‖g‖ ≥ θ:  g ← θ/‖g‖ g

    The modes, with the default of `value`, the papers' for the last three:

    {modes}

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
        value: Positive number in the range of float32, or the default of its mode; a percentile
            is at most 100.

    Attributes:
        value: A float; setting it takes effect from the next update on, in a running `fit` too.
        threshold: Of the last update, a float: θ where the mode draws it from a history, infinite
            where "zscore" left the update as it was, and NaN before the first; else `value`.

    The history of "percentile" and "zscore" goes on from one `fit` of a model to the next with the
    same callback; a copy, another model or another process begins a new one, but for a trial of
    `kerasrnn.tuning` that goes on.

    Raises:
        ValueError: `mode` is none of the above, or `value` is out of its range; at the start of
            `fit`, where the optimizer has a clip of its own or none is there, where a second
            GradientClipping is, or under JAX a loss scaling or a `keras.distribution`.

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
        self.value = CLIPS[self.mode].default if value is None else value

    @property
    def value(self):
        return self._value

    @value.setter
    def value(self, value):
        least, most = CLIPS[self.mode].limits
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

    def fit_state(self):
        """What the clip knows of the updates so far, for `go_on_from`."""
        return self._value, self._clip.fit_state()

    def go_on_from(self, state):
        """Has a `fit` that has begun go on as the one of which a `fit_state` is."""
        self._value, of_clip = state
        self._clip.go_on_from(of_clip)

    def on_train_batch_begin(self, batch, logs=None):
        self._hook.announce()

    def on_train_end(self, logs=None):
        self._hook.release(self._clip)
        self._hook = None


GradientClipping.__doc__ = GradientClipping.__doc__.replace("{modes}", described())
