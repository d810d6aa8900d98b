"""Trials that their gradients say are lost, and how they are given up."""

import inspect
import math

import keras
import keras_tuner
import numpy as np
from keras import tree

from kerasrnn.arguments import one_of, positive_integer
from kerasrnn.backends import require_tensorflow
from kerasrnn.diagnostics.flow import gradient_flow
from kerasrnn.diagnostics.health.checks.vanishing import vanishes
from kerasrnn.diagnostics.health.findings import verdicts
from kerasrnn.diagnostics.health.measured import Measured, measure
from kerasrnn.diagnostics.health.verdict import SEVERITIES
from kerasrnn.diagnostics.looking import as_batch
from kerasrnn.diagnostics.probe import NoRecurrentLayer
from kerasrnn.tuning.data import first_of

# The norms are looked at after so many updates, and whenever that many times as many were made.
_FIRST, _GROWTH = 20, 1.5
# Before so many updates nobody can tell that nothing is learned.
_MANY = 100


class HealthyObjective(keras_tuner.Objective):
    """The objective of a search that gives up trials whose gradients say that they are lost.

    For the searches of `kerasrnn.tuning`, where Keras's backend is TensorFlow. A trial is given up,
    ranks behind all others whatever its metrics are, and has its verdict in the table of trials,
    where

    - at the start the gradient through time at a batch of the data holds an Inf or NaN;
    - in the training the norms that a `GradientNormMonitor` records are sick, as
      `kerasrnn.diagnostics.health_report` has it: NON-FINITE, EXPLODING, or a LEARNING RATE that is
      too high. They are looked at after 20 updates, whenever half as many more were made, and after
      every epoch;
    - after `patience` epochs and 100 updates the gradient through time vanishes, as it did at the
      start, and the model does no better at the batch than the best constant prediction. One that
      does better has no need of what lies further back.

    Args:
        name: The name of a metric as it is in the logs, as "val_accuracy".
        direction: "min" or "max"; `None` where keras-tuner knows it of the metric.
        patience: After how many epochs a net whose gradient vanishes has to have learned something.
        samples: How many samples, the first of the training data, are the batch. A generator, which
            would lose them, has none: of its trials the norms alone are looked at.

    Raises:
        ValueError: `direction` is neither, or is `None` and keras-tuner does not know that of the
            metric, or `patience` or `samples` is no positive integer.
        RuntimeError: Keras's backend is another.

    Example:

    >>> hypermodel = kerasrnn.tuning.RNNHyperModel("regression", features=3, units=4, depths=1)
    >>> search = kerasrnn.tuning.RandomSearch(
    ...     hypermodel,
    ...     kerasrnn.tuning.HealthyObjective("loss"),
    ...     max_trials=1,
    ...     directory="search",
    ...     overwrite=True,
    ... )
    >>> search.search(np.ones((8, 5, 3)), np.ones((8, 1)), verbose=0)
    """

    def __init__(self, name, direction=None, patience=3, samples=64):
        require_tensorflow(
            "kerasrnn.tuning.HealthyObjective",
            f"pass `objective={name!r}`, and keras.callbacks.TerminateOnNaN among the callbacks",
        )
        one_of((None, "min", "max"), "direction", direction)
        if direction is None:
            # An oracle knows the directions of Keras's metrics, and says so of one it does not.
            direction = keras_tuner.oracles.RandomSearchOracle(objective=name).objective.direction
        super().__init__(name, direction)
        self.patience = positive_integer("patience", patience)
        self.samples = positive_integer("samples", samples)

    def __str__(self):
        return f"Healthy{super().__str__()[:-1]}, patience={self.patience}, samples={self.samples})"


def healthy_part(objective):
    """The `HealthyObjective` among those that an objective is made of, or `None`."""
    parts = getattr(objective, "objectives", [objective])
    return next((part for part in parts if isinstance(part, HealthyObjective)), None)


class HealthWatch(keras.callbacks.Callback):
    """Gives a training up when it is lost, as `HealthyObjective` says. To be put behind the
    monitor.

    Args:
        objective: The `HealthyObjective`.
        monitor: The `GradientNormMonitor` of the training.
        batch: `x` and `y`, or `None`.
        give_up: `give_up(reason)` is called where it is lost, with a sentence.

    Attributes:
        verdict: Why it is lost, as "EXPLODING", or `None`.
    """

    def __init__(self, objective, monitor, batch, give_up):
        super().__init__()
        self._patience, self._monitor = objective.patience, monitor
        self._batch, self._give_up = batch, give_up
        self.verdict = None

    def on_train_begin(self, logs=None):
        self._look_at, self._updates = _FIRST, 0
        self._vanishes = None

    def fit_state(self):
        return self._look_at, self._updates, self._vanishes, self.verdict

    def go_on_from(self, state):
        self._look_at, self._updates, self._vanishes, self.verdict = state

    def on_train_batch_begin(self, batch, logs=None):
        # By now a model is built that its first batch builds.
        if self._vanishes is None:
            self._vanishes = self._batch is not None and self._vanishes_at_start()

    def on_train_batch_end(self, batch, logs=None):
        self._updates += 1
        if self._updates >= self._look_at:
            self._look_at = math.ceil(_GROWTH * self._updates)
            self._look_at_norms()

    def on_epoch_end(self, epoch, logs=None):
        self._look_at_norms()
        if self._vanishes and epoch + 1 >= self._patience and self._updates >= _MANY:
            self._vanishes = False
            self._look_through_time()

    def _vanishes_at_start(self):
        try:
            flow = gradient_flow(self.model, *self._batch)
        except NoRecurrentLayer:
            return False
        if not all(np.isfinite(norms).all() for norms in flow.norms.values()):
            self._lose("NON-FINITE", "the gradient through time held an Inf or NaN at the start")
        return any(vanishes(flow.steps[path], slope) for path, slope in flow.slope.items())

    def _look_at_norms(self):
        record = self._monitor.gradient_record()
        if not len(record):
            return
        for verdict in verdicts(Measured(record)):
            # A rate that is low may yet get somewhere, and one that is warmed up will.
            too_low = verdict.numbers.get("too") == "low"
            if verdict.severity == SEVERITIES[-1] and not too_low:
                self._lose(verdict.words, f"after {len(record)} updates: {verdict.meaning}")

    def _look_through_time(self):
        measured = measure(self.model, *as_batch(self.model, x=self._batch[0], y=self._batch[1]))
        if measured.trivial is None or measured.better:
            return
        for verdict in verdicts(measured):
            if verdict.code == "VANISHING":
                self._lose(verdict.words, verdict.meaning)

    def _lose(self, verdict, reason):
        if self.verdict is None:
            self.verdict = verdict
            self._give_up(f"{verdict}: {reason}")


def first_batch(args, kwargs, samples):
    """The first samples, `x` and `y`, of what `fit` is called with; `None` where they cannot be had
    without losing them."""
    received = inspect.signature(keras.Model.fit).bind_partial(None, *args, **kwargs).arguments
    data = received.get("x"), received.get("y")
    if batch := first_of(data[0]):
        data = batch
    elif not all(hasattr(part, "shape") for part in tree.flatten(data)):
        return None
    return tree.map_structure(lambda v: v if v is None else v[:samples], data)
