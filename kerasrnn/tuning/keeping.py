"""What goes on disk of a training after each of its epochs, and how it goes on from there."""

import io
import math
import pickle
import random
import time
from typing import Protocol, runtime_checkable

import keras
import keras_tuner
import numpy as np

from kerasrnn.backends import Tensor, tf
from kerasrnn.inside import kept_states

# Of the models and of the search they belong to, callbacks have no copies of their own.
_SHARED = (
    keras.layers.Layer,
    keras.optimizers.Optimizer,
    keras.Variable,
    Tensor,
    *(() if tf is None else (tf.Variable,)),
    keras_tuner.engine.base_tuner.BaseTuner,
    keras_tuner.engine.trial.Trial,
)
# What monitors and Keras add to the logs of an epoch alone.
_OF_EPOCHS = {"grad_norm", "clip_rate", "noise_scale", "learning_rate"}


@runtime_checkable
class Resumable(Protocol):
    """A callback that says itself what a `fit` that goes on in another process needs to know."""

    def fit_state(self):
        """Of the `fit` so far, what `pickle` can write."""

    def go_on_from(self, state):
        """To be called after `on_train_begin` of the `fit` that goes on."""


class TrialLost(Exception):
    """A training whose weights or objective are not finite; it says which."""


class NotHandedOn(Exception):
    """`HyperModel.fit` did not begin with the epoch it was told."""


class EpochKeeper(keras.callbacks.Callback):
    """Keeps a training in a file after every epoch, and goes on from it. To be put last.

    It holds the weights, the states of random and of stateful layers, the optimizer's variables,
    the logs, and what other callbacks have changed of themselves since the training began. Each
    epoch has random numbers of its own.

    Args:
        file: A `StateFile`.
        seed: That of the training, a list of integers.
        objective: `keras_tuner.Objective`.
        callbacks: Those before it, of whose attributes all are kept that `pickle` can write; those
            of this package that are `Resumable`.
        promoted: The state of another training whose weights and optimizer this one goes on from,
            or `None`.
        plain_fit: Whether `fit` is called as `search` was, so that the objective must be in its
            logs.

    Attributes:
        logs: Those of all epochs, a list of dictionaries.
        epochs: Their numbers.
        lost: Why the training can no longer win, a sentence, or `None`.
    """

    def __init__(self, file, seed, objective, callbacks, promoted=None, plain_fit=True):
        super().__init__()
        self._file, self._seed, self._objective = file, seed, objective
        self._callbacks = _by_kind(one for one in callbacks if _may_be_kept(one))
        self._promoted, self._plain_fit = promoted, plain_fit
        self._known = all(type(one).__module__.split(".")[0] in _KNOWN for one in callbacks)
        self._state = file.read() or {"epochs": [], "logs": [], "seconds": 0.0, "lost": None}
        self.epochs, self.logs = self._state["epochs"], self._state["logs"]
        self.lost = self._state["lost"]
        self._since, self._fits, self._named = time.monotonic(), 0, False

    @property
    def seconds(self):
        """How long it took, in all processes, but for epochs that were not finished."""
        return self._state["seconds"] + time.monotonic() - self._since

    def first_epoch(self, first, epochs):
        """The epoch to go on with in a training from `first` to before `epochs`."""
        if self.lost or self._state.get("stopped"):
            return max(first, epochs)
        return self.epochs[-1] + 1 if self.epochs else first

    def give_up(self, reason):
        """Ends the training as one that is lost."""
        self.lost = self.lost or reason
        self.model.stop_training = True

    def on_train_begin(self, logs=None):
        self._fits += 1
        if self._fits > 1:
            # A second fit of the same trial has epochs of the same numbers: it has to begin anew.
            self._file.remove()
            return
        if self.epochs:
            self._take_up(self._state)
        elif self._promoted:
            self._take_up(self._promoted)
        self._at_first = {kind: _changed(one, {}) for kind, one in self._callbacks.items()}
        kept = self._state.get("callbacks", {})
        for kind in kept.keys() & self._callbacks.keys():
            callback = self._callbacks[kind]
            if isinstance(callback, Resumable):
                callback.go_on_from(kept[kind])
            else:
                vars(callback).update({k: pickle.loads(v) for k, v in kept[kind].items()})

    def on_epoch_begin(self, epoch, logs=None):
        if self._fits == 1 and self.epochs and epoch != self.epochs[-1] + 1:
            raise NotHandedOn
        # Not TensorFlow's, which would instantiate every function anew; random layers keep a state.
        seed = seed_of([*self._seed, epoch])
        random.seed(seed)
        np.random.seed(seed)

    def on_train_batch_end(self, batch, logs=None):
        if self._named or not self._plain_fit:
            return
        self._named = True
        names = {*logs, *(f"val_{name}" for name in logs)}
        if self._known:
            require_objective(self._objective, names, _OF_EPOCHS)

    def on_epoch_end(self, epoch, logs=None):
        logs = {name: np.asarray(value).tolist() for name, value in (logs or {}).items()}
        self.epochs.append(epoch)
        self.logs.append(logs)
        if self._plain_fit and len(self.epochs) == 1:
            require_objective(self._objective, logs)
        values = [variable.numpy() for variable in self._variables()]
        self.lost = self.lost or self._what_is_not_finite(epoch, logs)
        if self.lost:
            self.model.stop_training = True
        if self._fits == 1:
            self._file.write(
                {
                    "epochs": self.epochs,
                    "logs": self.logs,
                    "seconds": self.seconds,
                    "lost": self.lost,
                    "stopped": self.model.stop_training,
                    "variables": values,
                    "built": self.model.get_build_config(),
                    "callbacks": {
                        kind: one.fit_state()
                        if isinstance(one, Resumable)
                        else _changed(one, self._at_first[kind])
                        for kind, one in self._callbacks.items()
                    },
                }
            )

    def on_train_end(self, logs=None):
        if self._fits > 1 or not self.epochs:
            return
        # That of Keras has the epochs of this process alone.
        history = self.model.history
        history.epoch, history.history = list(self.epochs), {}
        for of_epoch in self.logs:
            for name, value in of_epoch.items():
                history.history.setdefault(name, []).append(value)

    def _variables(self):
        optimizer = getattr(self.model, "optimizer", None)
        of_optimizer = optimizer.variables if optimizer else []
        return [*self.model.variables, *kept_states(self.model), *of_optimizer]

    def _take_up(self, state):
        if not self.model.built:
            self.model.build_from_config(state["built"])
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer and not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        variables, values = self._variables(), state["variables"]
        if [tuple(one.shape) for one in variables] != [value.shape for value in values]:
            raise keras_tuner.errors.FatalValueError(
                f"{self._file.path} holds the state of another model or optimizer. Build the same "
                "from the same hyperparameters, or begin anew with `overwrite=True`."
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def _what_is_not_finite(self, epoch, logs):
        if self._objective.has_value(logs):
            value = self._objective.get_value(logs)
            if not math.isfinite(value):
                return f"{self._objective.name} was {value} after epoch {epoch + 1}"
        for weight in self.model.weights:
            if not np.isfinite(weight.numpy()).all():
                return f"{weight.path} held an Inf or NaN after epoch {epoch + 1}"
        return None


# Of others than these, nobody knows what they add to the logs.
_KNOWN = ("keras", "kerasrnn", "keras_tuner")


def _may_be_kept(callback):
    foreign = type(callback).__module__.split(".")[0] != "kerasrnn"
    return foreign or isinstance(callback, Resumable)


def _by_kind(callbacks):
    """Callbacks by their class and which of its kind each is: others may have come between."""
    kinds = {}
    for callback in callbacks:
        name, number = f"{type(callback).__module__}.{type(callback).__qualname__}", 0
        while (name, number) in kinds:
            number += 1
        kinds[name, number] = callback
    return kinds


def require_objective(objective, names, further=()):
    """Raises a `FatalValueError`, which ends a search, unless each name the objective is made of is
    among those of the metrics or may come later."""
    wanted = getattr(objective, "name_to_direction", [objective.name])
    missing = [name for name in wanted if name not in names and name not in further]
    if missing:
        raise keras_tuner.errors.FatalValueError(
            f"`objective` must be what a metric gives: {', '.join(sorted(names))}. "
            f"Received: objective={missing[0]!r}"
        )


def seed_of(numbers):
    """A seed from a list of integers; from another list another one."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _changed(callback, before):
    """The attributes that are not as they were, pickled, by name."""
    pickled = {}
    for name, value in vars(callback).items():
        if name in ("params", "model", "_model"):
            continue
        content = io.BytesIO()
        try:
            _Pickler(content).dump(value)
        # What cannot be kept says so in all ways there are.
        except Exception:
            continue
        if before.get(name) != content.getvalue():
            pickled[name] = content.getvalue()
    return pickled


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, _SHARED):
            raise pickle.PicklingError(f"{type(obj)} is shared")
