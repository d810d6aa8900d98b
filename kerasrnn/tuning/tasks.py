"""What a task asks of a model: its last layer, its loss, and the labels that fit."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from kerasrnn.arguments import one_of, positive_integer
from kerasrnn.losses import QuantileLoss


class Labels(NamedTuple):
    """The labels of a task.

    Attributes:
        shape: The axes behind the batch's, "time" for as many as the input has steps. Where the
            last is 1, labels may be without it.
        rule: What their values are, in words.
        hold: Whether an array's values are.
    """

    shape: tuple
    rule: str
    hold: Callable


class Task(NamedTuple):
    """What a task asks of a model.

    Attributes:
        width: The size of the last Dense layer.
        activation: Its activation.
        loss: Makes the loss.
        metrics: Makes the metrics.
        labels: The `Labels`.
        shape: What the last layer's output is reshaped to, without the batch's axis, if at all.
        per_step: Whether there is an output per step.
    """

    width: int
    activation: str
    loss: Callable
    metrics: Callable
    labels: Labels
    shape: tuple | None = None
    per_step: bool = False


def _probability(shape):
    return Labels(shape, "numbers from 0 to 1", lambda y: np.all((y >= 0) & (y <= 1)))


def _number(shape):
    return Labels(shape, "finite numbers", lambda y: np.all(np.isfinite(y)))


def _class(count, *axes):
    return Labels((*axes, 1), f"whole numbers from 0 to {count - 1}", whole_below(count))


def whole_below(count):
    """Whether an array holds whole numbers from 0 to below `count` alone."""
    return lambda y: np.all((y >= 0) & (y < count) & (y == np.floor(y)))


def _binary_accuracy():
    return [keras.metrics.BinaryAccuracy(name="accuracy")]


def _class_accuracy():
    return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]


def _binary(outputs):
    if outputs != 1:
        raise ValueError(
            "`outputs` must be 1 for task='binary'; several labels of 0 or 1 are 'multilabel', "
            f"several classes 'multiclass'. Received: outputs={outputs}"
        )
    loss = keras.losses.BinaryCrossentropy
    return Task(1, "sigmoid", loss, _binary_accuracy, _probability((1,)))


def _multilabel(outputs):
    _at_least_two("multilabel", "labels", outputs)
    loss = keras.losses.BinaryCrossentropy
    return Task(outputs, "sigmoid", loss, _binary_accuracy, _probability((outputs,)))


def _multiclass(outputs):
    _at_least_two("multiclass", "classes", outputs)
    loss = keras.losses.SparseCategoricalCrossentropy
    return Task(outputs, "softmax", loss, _class_accuracy, _class(outputs))


def _tagging(outputs):
    _at_least_two("tagging", "classes", outputs)
    return _multiclass(outputs)._replace(labels=_class(outputs, "time"), per_step=True)


def _regression(outputs):
    return Task(outputs, "linear", _squared, _absolute, _number((outputs,)))


def _forecasting(outputs, horizon, quantiles):
    positive_integer("horizon", horizon)
    shape = (horizon, outputs) if outputs > 1 else (horizon,)
    labels = _number((horizon, outputs))
    width = horizon * outputs
    if quantiles is None:
        return Task(width, "linear", _squared, _absolute, labels, shape)
    # What the loss has against them, now.
    quantiles = QuantileLoss(quantiles).quantiles
    width, shape = width * len(quantiles), (*shape, len(quantiles))
    return Task(width, "linear", lambda: QuantileLoss(quantiles), list, labels, shape)


def _language(vocabulary_size, outputs):
    if vocabulary_size is None:
        raise ValueError(
            "`vocabulary_size` must be the number of tokens for task='language'. "
            f"Received: vocabulary_size={vocabulary_size}"
        )
    if outputs != 1:
        raise ValueError(
            "`outputs` follows from `vocabulary_size` for task='language'; leave it out. "
            f"Received: outputs={outputs}"
        )

    def loss():
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)

    labels = _class(vocabulary_size, "time")
    return Task(vocabulary_size, "linear", loss, list, labels, per_step=True)


def _squared():
    return keras.losses.MeanSquaredError()


def _absolute():
    return [keras.metrics.MeanAbsoluteError(name="mean_absolute_error")]


def _at_least_two(task, what, outputs):
    if outputs < 2:
        raise ValueError(
            f"`outputs` must be the number of {what} for task={task!r}, 2 or more. "
            f"Received: outputs={outputs}"
        )


# What each makes its task of.
TASKS = {
    "binary": (_binary, "outputs"),
    "multiclass": (_multiclass, "outputs"),
    "multilabel": (_multilabel, "outputs"),
    "regression": (_regression, "outputs"),
    "tagging": (_tagging, "outputs"),
    "forecasting": (_forecasting, "outputs", "horizon", "quantiles"),
    "language": (_language, "vocabulary_size", "outputs"),
}


def task_of(name, outputs, vocabulary_size, horizon, quantiles):
    """The `Task` of a name, or an error for an argument that it cannot have."""
    make, *wanted = TASKS[one_of(tuple(TASKS), "task", name)]
    values = {"horizon": horizon, "quantiles": quantiles}
    for argument, value in values.items():
        if value is not None and argument not in wanted:
            raise ValueError(
                f"`{argument}` is for task='forecasting'. "
                f"Received: {argument}={value!r}, task={name!r}"
            )
    values |= {"outputs": positive_integer("outputs", outputs), "vocabulary_size": vocabulary_size}
    return make(**{argument: values[argument] for argument in wanted})
