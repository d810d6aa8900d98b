"""What a predictor scores that does not look at its input."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kerasrnn.diagnostics.looking import left_as_it_was

_EPSILON = 1e-7


class TrivialPredictor(NamedTuple):
    """The best constant prediction of a kind, scored by the compiled loss.

    Attributes:
        loss: J of it, regularizers left out.
        what: What it predicts, "the mean of `y`" or "the class frequencies in `y`".
    """

    loss: float
    what: str


def trivial_predictor(model, x, y, output):
    """The `TrivialPredictor` of a compiled model at a batch: the mean of the targets for a
    regression, the frequencies of the classes for a classification.

    `output` is what the model gives for x. `None` where it cannot be told: targets or outputs of
    several parts, a `compute_loss` of the user's own, or one sample, which every constant fits.
    """
    if not (tf.is_tensor(y) and type(model).compute_loss is keras.Model.compute_loss):
        return None
    loss = keras.losses.get(model.loss) if isinstance(model.loss, str) else model.loss
    if len(y) < 2 or not callable(loss):
        return None
    if not tf.is_tensor(output) or getattr(output, "_keras_mask", None) is not None:
        return None
    constant, what = _constant(loss, np.asarray(y, "float64"), output.shape[-1])
    if constant is None:
        return None
    prediction = tf.broadcast_to(tf.cast(constant, output.dtype), tf.shape(output))
    with left_as_it_was(model):
        try:
            score = model.compute_loss(x, y, prediction, training=False)
        except (ValueError, tf.errors.InvalidArgumentError):
            # Of shapes that the model's loss brings together in a way of its own.
            return None
        score = float(score - sum(model.losses))
    return TrivialPredictor(score, what) if np.isfinite(score) else None


def _constant(loss, y, outputs):
    """What is predicted for every sample and step, (outputs,), and its name."""
    name = getattr(loss, "__name__", type(loss).__name__).replace("_", "").lower()
    config = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
    if name == "sparsecategoricalcrossentropy":
        labels = y.astype("int64").ravel()
        if config.get("ignore_class") is not None or labels.min() < 0 or labels.max() >= outputs:
            return None, None
        share = np.bincount(labels, minlength=outputs) / len(labels)
    else:
        share = np.mean(y.reshape(-1, y.shape[-1] if y.ndim > 1 else 1), axis=0)
    if "crossentropy" not in name:
        return share, "the mean of `y`"
    share = np.clip(share, _EPSILON, 1 - _EPSILON)
    if config.get("from_logits"):
        odds = 1 - share if name.startswith("binary") else 1.0
        share = np.log(share / odds)
    return share, "the class frequencies in `y`"
