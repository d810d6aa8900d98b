"""Losses beside `keras.losses`."""

import keras
from keras import ops

from kerasrnn.arguments import real_number


@keras.saving.register_keras_serializable("kerasrnn")
class QuantileLoss(keras.losses.Loss):
    """The quantile or pinball loss (Koenker & Bassett, 1978), least where q_τ is the τ-quantile of
    y, averaged over the quantiles τ.

        L_τ = τ (y - q_τ)          where y >= q_τ
        L_τ = (1 - τ) (q_τ - y)    elsewhere

    For labels (batch, ...), predictions are (batch, ..., quantiles); labels may also have a last
    axis of length 1.

    Args:
        quantiles: The τ, a number or several that rise, each above 0 and below 1.
        **kwargs: As in `keras.losses.Loss`.

    Raises:
        ValueError: `quantiles` are none; or, when called, the shapes of labels and predictions do
            not belong together.

    Example:

    >>> loss = kerasrnn.losses.QuantileLoss((0.1, 0.9))
    >>> round(float(loss(np.array([1.0]), np.array([[0.0, 3.0]]))), 2)
    0.15
    """

    def __init__(self, quantiles=(0.1, 0.5, 0.9), name="quantile_loss", **kwargs):
        super().__init__(name=name, **kwargs)
        several = quantiles if isinstance(quantiles, list | tuple) else (quantiles,)
        rule = "be numbers above 0 and below 1"
        self.quantiles = tuple(
            real_number("quantiles", one, rule, lambda v: 0 < v < 1) for one in several
        )
        if not several or list(self.quantiles) != sorted(set(self.quantiles)):
            raise ValueError(
                "`quantiles` must be one or more, each above the one before. "
                f"Received: quantiles={quantiles!r}"
            )

    def call(self, y_true, y_pred):
        wanted = (*y_pred.shape[:-1], 1)
        y = ops.expand_dims(y_true, -1) if len(y_true.shape) == len(wanted) - 1 else y_true
        fits = len(y.shape) == len(wanted) and all(
            a == b for a, b in zip(y.shape, wanted, strict=True) if None not in (a, b)
        )
        if not fits or y_pred.shape[-1] != len(self.quantiles):
            raise ValueError(
                f"Predictions must be (batch, ..., {len(self.quantiles)}), a number per quantile, "
                "for labels (batch, ...). Received: predictions of the shape "
                f"{tuple(y_pred.shape)}, labels of the shape {tuple(y_true.shape)}"
            )
        tau = ops.convert_to_tensor(self.quantiles, dtype=y_pred.dtype)
        above = y - y_pred
        return ops.mean(ops.maximum(tau * above, (tau - 1) * above), axis=-1)

    def get_config(self):
        return super().get_config() | {"quantiles": self.quantiles}


__all__ = ["QuantileLoss"]
