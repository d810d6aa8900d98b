"""Initializers beside `keras.initializers`: for long memory, and those of cells' authors."""

import math

import keras
from keras import ops

from kerasrnn.arguments import boolean, real_number, resolved


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
class PowerLaw(GateBias):
    """Biases from a power law over the units, from 5 down to -7, with which the forget gates of an
    sLSTM start (the `powerlaw_blockdependent` of the code of Beck et al., 2024): some units keep
    for long, most let go soon.

        b_j = 5 - 12 (j / (units - 1))^p,    j = 0 ... units - 1

    In block l of L in a row, l = 0 ... L - 1, its authors have p = 0.3 + 1.3 l / (L - 1): the later
    a block, the more of its units keep.

    Args:
        exponent: p, a finite number above 0. Default: 0.3, as in the first or only block.

    Raises:
        ValueError: `exponent` is none; or, when called, what is to start is no vector.

    Example:

    >>> kerasrnn.initializers.PowerLaw(exponent=1.0)((4,)).numpy().tolist()
    [5.0, 1.0, -3.0, -7.0]
    >>> last = kerasrnn.initializers.PowerLaw(exponent=1.6)
    >>> layer = kerasrnn.layers.RNN("slstm", units=8, bias_initializer=last)
    """

    def __init__(self, exponent=0.3):
        self.exponent = real_number(
            "exponent", exponent, "be a finite number above 0", lambda v: 0 < v < math.inf
        )

    def __call__(self, shape, dtype=None):
        if len(shape) != 1:
            raise ValueError(f"`PowerLaw` is for a bias, (units,). Received: shape={tuple(shape)}")
        return 5 - 12 * ops.linspace(0.0, 1.0, shape[0], dtype=dtype) ** self.exponent

    def get_config(self):
        return {"exponent": self.exponent}


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


class _Blocks(keras.initializers.Initializer):
    """Starts each block of columns of a kernel by itself, with the variance scale / features.

    Args:
        scales: A scale per block.
        distribution, seed: As in `keras.initializers.VarianceScaling`.
    """

    def __init__(self, scales, distribution, seed):
        self.seed = seed
        self.initializers = [
            numbered(keras.initializers.VarianceScaling(scale, "fan_in", distribution, seed), k)
            for k, scale in enumerate(scales)
        ]

    def __call__(self, shape, dtype=None):
        count = len(self.initializers)
        if len(shape) != 2 or shape[1] % count:
            raise ValueError(
                f"`{type(self).__name__}` is for kernels, (features, {count} * units). "
                f"Received: shape={tuple(shape)}"
            )
        block = (shape[0], shape[1] // count)
        return ops.concatenate(self.blocks(block, dtype), axis=1)

    def blocks(self, shape, dtype):
        return [initializer(shape, dtype=dtype) for initializer in self.initializers]

    def get_config(self):
        return {"seed": self.seed}


@keras.saving.register_keras_serializable("kerasrnn")
class SRUKernel(_Blocks):
    """The kernel of an SRU as its authors start it (`reset_parameters` of the code of Lei et al.,
    2018), for d features, with blocks in the order g, f, r, x:

        W_g      ~ U[-√(3/d), √(3/d)]          of variance 1/d
        W_f, W_r ~ √½ U[-√(3/d), √(3/d)]       v ∘ c has the other half of the gates' variance
        W_x      ~ √3 U[-√(3/d), √(3/d)],  or √3 I where units = d

    With √3 the output, which the highway's gate halves, stays as large as the input.

    Args:
        peephole: Whether the cell has v; without it W_f and W_r start as W_g. Default: `True`.
        seed: As in `keras.initializers.VarianceScaling`.

    Raises:
        ValueError: `peephole` is no boolean; or, when called, the matrix is not (d, 4 units).

    Example:

    >>> kernel = kerasrnn.initializers.SRUKernel()((100, 4 * 128))
    >>> [round(float(np.std(block)), 2) for block in np.split(kernel, 4, axis=1)]
    [0.1, 0.07, 0.07, 0.17]
    """

    def __init__(self, peephole=True, seed=None):
        self.peephole = boolean("peephole", peephole)
        gate = 0.5 if peephole else 1.0
        super().__init__((1.0, gate, gate, 3.0), "uniform", seed)

    def blocks(self, shape, dtype):
        features, units = shape
        g, f, r, x = super().blocks(shape, dtype)
        if features == units:
            x = math.sqrt(3) * ops.eye(units, dtype=dtype)
        return [g, f, r, x]

    def get_config(self):
        return super().get_config() | {"peephole": self.peephole}


@keras.saving.register_keras_serializable("kerasrnn")
class LRUKernel(_Blocks):
    """The kernel of an LRU as its authors start it (Orvieto et al., 2023, appendix A), for d
    features, with blocks in the order Re B, Im B, D:

        Re B, Im B ~ N(0, 1 / 2d)
        D          ~ N(0, 1 / d)

    Their D is diagonal and starts from N(0, 1): so a full one gives D x the same variance.

    Args:
        seed: As in `keras.initializers.VarianceScaling`.

    Raises:
        ValueError: when called, the matrix is not (d, 3 units).

    Example:

    >>> kernel = kerasrnn.initializers.LRUKernel()((100, 3 * 128))
    >>> [round(float(np.std(block)), 2) for block in np.split(kernel, 3, axis=1)]
    [0.07, 0.07, 0.1]
    """

    def __init__(self, seed=None):
        super().__init__((0.5, 0.5, 1.0), "untruncated_normal", seed)


def normal(scale):
    """The configuration of N(0, scale / features), whose tails Keras's `"lecun_normal"` has not."""
    config = {"scale": scale, "mode": "fan_in", "distribution": "untruncated_normal"}
    return {"class_name": "VarianceScaling", "config": config}


__all__ = ["Chrono", "ForgetBias", "GateBias", "LRUKernel", "PerGate", "PowerLaw", "SRUKernel"]
