"""Activations beside `keras.activations`, by the names of their papers."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasrnn")
def g(x):
    """The activation that keeps the candidates of minGRU and minLSTM above zero (Feng et al., 2024,
    appendix B), so that they have a logarithm.

        g(x) = x + 0.5    where x >= 0
               σ(x)       elsewhere

    It is continuous and grows everywhere; its slope at 0 is 1, that from the right.

    Args:
        x: Tensor of any shape.

    Returns:
        A tensor of the shape of `x`.

    Example:

    >>> kerasrnn.activations.g(np.array([-2.0, 0.0, 2.0])).numpy().round(4).tolist()
    [0.1192, 0.5, 2.5]
    >>> layer = kerasrnn.layers.MinGRU(8, activation="g")
    """
    return ops.where(x >= 0, x + 0.5, ops.sigmoid(x))


@keras.saving.register_keras_serializable("kerasrnn")
def log_g(x):
    """log g(x), which is finite and has a slope where g(x) itself is too small a number (Feng et
    al., 2024, appendix B).

        log g(x) = log(x + 0.5)    where x >= 0
                   log σ(x)        elsewhere

    Args:
        x: Tensor of any shape.

    Returns:
        A tensor of the shape of `x`.

    Example:

    >>> kerasrnn.activations.log_g(np.array([-1000.0, 0.5])).numpy().tolist()
    [-1000.0, 0.0]
    """
    right = x >= 0
    # The logarithm of a negative number makes the gradient NaN even where it is not chosen.
    return ops.where(right, ops.log(ops.where(right, x, 0) + 0.5), ops.log_sigmoid(x))


__all__ = ["g", "log_g"]
