"""What a predictor scores that does not look at its input."""

from typing import NamedTuple

import keras
import numpy as np

from kerasrnn.backends import tf
from kerasrnn.diagnostics.looking import left_as_it_was, mask_weights

_EPSILON = 1e-7


class TrivialPredictor(NamedTuple):
    """The best constant prediction of a kind, scored by the compiled loss.

    Attributes:
        loss: J of it, without what regularizers and `add_loss` add.
        what: What it predicts, "the mean of `y`", "the median of `y`" or "the class frequencies in
            `y`".
    """

    loss: float
    what: str


def trivial_predictor(model, x, y, output):
    """The `TrivialPredictor` of a compiled model at a batch: of a regression the mean or the median
    of the targets, whichever has the lower loss, of a classification the frequencies of the
    classes.

    `output` is what the model gives for x; steps that it masks and labels that the loss ignores do
    not count. `None` where it cannot be told: targets or outputs of several parts, a loss or
    `compute_loss` of the user's own or of another kind, or targets that are all the same, which
    every constant fits.
    """
    if not (tf.is_tensor(y) and type(model).compute_loss is keras.Model.compute_loss):
        return None
    loss = _loss_of(model)
    if not (callable(loss) and tf.is_tensor(output)) or same_targets(model, y):
        return None
    weights = mask_weights(model, output)
    targets = np.asarray(y, "float64")
    if (*targets.shape, 1) == tuple(output.shape) and not _is_sparse(loss):
        # As Keras's losses take them.
        targets = targets[..., None]
    if weights is not None:
        if targets.shape[: len(weights.shape)] != tuple(weights.shape):
            return None
        targets = targets[np.asarray(weights) > 0]
    scores = []
    for constant, what in _constants(loss, targets, output.shape[-1]):
        with left_as_it_was(model):
            try:
                prediction = tf.broadcast_to(tf.cast(constant, output.dtype), tf.shape(output))
                score = model.compute_loss(x, y, prediction, weights, training=False)
            except (ValueError, tf.errors.InvalidArgumentError):
                # Of shapes that the model's loss brings together in a way of its own.
                return None
            score = float(score - sum(model.losses))
        scores += [TrivialPredictor(score, what)] if np.isfinite(score) else []
    return min(scores, default=None)


def same_targets(model, y):
    """Whether all targets of a batch are one and the same, which every constant fits."""
    if not tf.is_tensor(y) or not tf.size(y):
        return False
    rows = _rows(_loss_of(model), np.asarray(y))
    return bool((rows == rows[0]).all())


def _loss_of(model):
    return keras.losses.get(model.loss) if isinstance(model.loss, str) else model.loss


# Losses that the mean or the median of the targets makes least, or the frequencies of the classes.
_OF_NUMBERS = ["meansquarederror", "meanabsoluteerror", "huber", "logcosh"]
_OF_CLASSES = ["binarycrossentropy", "categoricalcrossentropy", "sparsecategoricalcrossentropy"]


def _name(loss):
    """Of one of Keras's; of any other its class or function says nothing."""
    kind = loss if hasattr(loss, "__name__") else type(loss)
    of_keras = kind.__module__.startswith("keras.")
    return kind.__name__.replace("_", "").lower() if of_keras else ""


def _is_sparse(loss):
    return _name(loss).startswith("sparse")


def _rows(loss, y):
    """The targets of all samples and steps, one per row; labels are one number each."""
    return y.reshape(-1, 1 if y.ndim == 1 or _is_sparse(loss) else y.shape[-1])


def _constants(loss, y, outputs):
    """What may be predicted for every sample and step, (outputs,), each with its name."""
    name, rows = _name(loss), _rows(loss, y)
    config = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
    if name in _OF_NUMBERS:
        mean, median = np.mean(rows, axis=0), np.median(rows, axis=0)
        return [(mean, "the mean of `y`"), (median, "the median of `y`")]
    if name not in _OF_CLASSES:
        return []
    share = np.mean(rows, axis=0)
    if _is_sparse(loss):
        labels = rows.astype("int64").ravel()
        labels = labels[labels != config.get("ignore_class")]
        if not len(labels) or labels.min() < 0 or labels.max() >= outputs:
            return []
        share = np.bincount(labels, minlength=outputs) / len(labels)
    share = np.clip(share, _EPSILON, 1 - _EPSILON)
    if config.get("from_logits"):
        odds = 1 - share if name.startswith("binary") else 1.0
        share = np.log(share / odds)
    return [(share, "the class frequencies in `y`")]
