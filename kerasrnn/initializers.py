"""Initializers for long memory, beside `keras.initializers`."""

import math

import keras
from keras import ops

from kerasrnn.arguments import real_number, resolved


class GateBias(keras.initializers.Initializer):
    """A bias for the gates that keep a cell's state; a cell of this package given one as its
    `bias_initializer` uses it for these gates, and zeros for the others.

    Called by itself, it gives the bias of a keeping gate; a layer of Keras does not know which of
    its gates that is, and would start all alike.
    """

    # Whether a gate that writes is started against one that keeps where the cell has both.
    opposes = False

    def pair(self, units, keeps, dtype=None):
        """The biases of a gate that keeps and of one that writes, for a cell that `keeps` by a gate
        of its own, or only as it does not write (1 - σ(b) = σ(-b))."""
        keep = self((units,), dtype=dtype)
        return keep, -keep if self.opposes or not keeps else ops.zeros_like(keep)


@keras.saving.register_keras_serializable("kerasrnn")
class Chrono(GateBias):
    """Biases for memories of up to `T_max` steps (Tallec & Ollivier, 2018).

        b_f ~ log U[1, T_max - 1],    b_i = -b_f

    A gate f = σ(b_f) keeps for about 1 / (1 - f) = 1 + exp(b_f) steps. A cell with one gate for
    both, as the GRU, has b_f where the gate keeps, and -b_f where it writes.

    For cells and layers of this package: those of Keras would give all their gates b_f.

    Args:
        T_max: The longest memory the task needs, in steps; at least 2, and finite.
        seed: As in `keras.initializers.RandomUniform`.

    Raises:
        ValueError: `T_max` is not a finite number of at least 2.

    Example:

    >>> chrono = kerasrnn.initializers.Chrono(T_max=100)
    >>> layer = kerasrnn.layers.LSTM(8, bias_initializer=chrono)
    """

    opposes = True

    def __init__(self, T_max, seed=None):
        self.T_max = real_number(
            "T_max", T_max, "be at least 2 steps, and finite", lambda v: 2 <= v < math.inf
        )
        self.seed = seed
        self.uniform = keras.initializers.RandomUniform(1.0, self.T_max - 1.0, seed=seed)

    def __call__(self, shape, dtype=None):
        return ops.log(self.uniform(shape, dtype=dtype))

    def get_config(self):
        return {"T_max": self.T_max, "seed": self.seed}


@keras.saving.register_keras_serializable("kerasrnn")
class ForgetBias(GateBias):
    """A constant bias for the gates that keep (Gers, Schmidhuber & Cummins, 2000;
    Jozefowicz et al., 2015), its negative for those that write in a cell where
    nothing else keeps.

    Args:
        value: The constant. Default: 1, which `unit_forget_bias=True` gives an LSTM as well.

    Raises:
        ValueError: `value` is not a finite number.

    Example:

    >>> bias = kerasrnn.initializers.ForgetBias(2.0)
    >>> layer = kerasrnn.layers.GRU(8, bias_initializer=bias)
    """

    def __init__(self, value=1.0):
        self.value = real_number("value", value)

    def __call__(self, shape, dtype=None):
        return ops.full(shape, self.value, dtype=dtype)

    def get_config(self):
        return {"value": self.value}


@keras.saving.register_keras_serializable("kerasrnn")
class PerGate(keras.initializers.Initializer):
    """Starts the block of each gate in a recurrent kernel by itself.

    `keras.initializers.Orthogonal` makes the (units, gates * units) kernel orthogonal as a whole,
    so that no gate's block is; `PerGate("orthogonal")` makes each of them so. The same holds for
    `"identity"`, which for a `SimpleRNN` with `activation="relu"` is the IRNN of Le et al. (2015).

    Args:
        initializer: What `keras.initializers.get` takes. Default: `"orthogonal"`.

    Raises:
        ValueError: `initializer` is none; or, when called, the matrix is not made of squares.

    Example:

    >>> orthogonal = kerasrnn.initializers.PerGate("orthogonal")
    >>> layer = kerasrnn.layers.GRU(8, recurrent_initializer=orthogonal)
    """

    def __init__(self, initializer="orthogonal"):
        self.initializer = resolved("initializer", initializer)
        if not callable(self.initializer):
            raise ValueError(
                "`initializer` must be an initializer of square matrices. "
                f"Received: initializer={initializer!r}"
            )

    def __call__(self, shape, dtype=None):
        if len(shape) != 2 or shape[1] % shape[0]:
            raise ValueError(
                "`PerGate` is for recurrent kernels, (units, gates * units). "
                f"Received: shape={tuple(shape)}"
            )
        units, width = shape
        each = [numbered(self.initializer, k) for k in range(width // units)]
        blocks = [initializer((units, units), dtype=dtype) for initializer in each]
        return ops.concatenate(blocks, axis=1)

    def get_config(self):
        return {"initializer": keras.initializers.serialize(self.initializer)}


def numbered(initializer, k):
    """The k-th of several alike: one and the same with a seed gives the same numbers every time."""
    seed = getattr(initializer, "seed", None)
    if not isinstance(seed, int):
        return initializer
    return type(initializer).from_config(initializer.get_config() | {"seed": seed + k})


__all__ = ["Chrono", "ForgetBias", "GateBias", "PerGate"]
