"""Where the weights of each registered cell start, from the papers and their authors' code and not
from ours: a distribution, or the numbers themselves, per block of columns.

d features, n units.
"""

import numpy as np
from scipy import stats

ORTHOGONAL = "orthogonal"


def uniform(limit):
    return stats.uniform(-limit, 2 * limit)


def glorot(rows, columns):
    """Glorot & Bengio (2010), equation 16."""
    return uniform(np.sqrt(6 / (rows + columns)))


def keras(gates, recurrent=True):
    """Keras's: each matrix as a whole, with zeros for the bias."""

    def start(d, n):
        parts = {"kernel": [glorot(d, gates * n)], "bias": [0.0]}
        return parts | ({"recurrent_kernel": [ORTHOGONAL]} if recurrent else {})

    return start


def lstm(d, n):
    """Keras's, with unit_forget_bias=True."""
    return keras(4)(d, n) | {"bias": [0.0, 1.0, 0.0, 0.0]}


def peephole(d, n):
    return lstm(d, n) | {"peephole": [0.0]}


def lstm_layer_norm(d, n):
    """ryankiros/layer-norm, layers.py, param_init_lnlstm: scale_mul = 1, scale_add = 0."""
    gains = {"kernel_gain": [1.0], "recurrent_gain": [1.0], "c_gain": [1.0], "c_bias": [0.0]}
    return lstm(d, n) | gains


def gru_layer_norm(d, n):
    """The same, param_init_lngru."""
    return keras(3)(d, n) | {"kernel_gain": [1.0], "recurrent_gain": [1.0]}


def indrnn(d, n):
    """Li et al. (2018): u from U[0, 1]; Sunnydreamrain/IndRNN_pytorch: b = 0."""
    return keras(1)(d, n) | {"recurrent_kernel": [stats.uniform(0, 1)]}


def sru(peephole):
    def start(d, n):
        """taolei87/sru, sru/modules.py, reset_parameters: a variance of 1 / d, half of that for the
        gates but for v1, scale_x = (1 + 2 exp(0))^½, weight_c from U[-√3, √3] / √2."""
        limit = np.sqrt(3 / d)
        gate = uniform(limit * np.sqrt(0.5)) if peephole else uniform(limit)
        highway = np.sqrt(3) * np.eye(n) if d == n else uniform(limit * np.sqrt(3))
        parts = {"kernel": [uniform(limit), gate, gate, highway], "bias": [0.0]}
        if peephole:
            parts["peephole"] = [uniform(np.sqrt(3) * np.sqrt(0.5))] * 2
        return parts

    return start


def lru(d, n):
    """Orvieto et al. (2023), appendix A, init_lru_parameters; a full D that makes D x as large as
    their diagonal one, of variance 1, does."""
    part, out = stats.norm(0, 1 / np.sqrt(2 * d)), stats.norm(0, 1 / np.sqrt(n))
    return {
        "kernel": [part, part, stats.norm(0, 1 / np.sqrt(d))],
        "output_kernel_re": [out],
        "output_kernel_im": [out],
        # |λ|² is even in [0, 1], the phase in [0, 2π].
        "nu_log": [(lambda nu: np.exp(-2 * np.exp(nu)), stats.uniform(0, 1))],
        "theta_log": [(np.exp, stats.uniform(0, 2 * np.pi))],
        "gamma_log": [(lambda gamma: 1 - np.exp(2 * gamma), stats.uniform(0, 1))],
    }


def rg_lru(d, n):
    """google-deepmind/recurrentgemma, torch/layers.py and modules.py: W from N(0, 1 / width),
    b = 0; De et al. (2024), section 2.4: a^c even in [0.9, 0.999]."""

    def power(recurrence):
        return (1 / (1 + np.exp(-recurrence))) ** 8

    even = stats.uniform(0.9, 0.099)
    normal = stats.norm(0, 1 / np.sqrt(d))
    return {"kernel": [normal] * 3, "bias": [0.0], "recurrence": [(power, even)]}


def slstm(d, n):
    """NX-AI/xlstm: small_init_init_ of components/init.py for W; blocks/slstm/cell.py,
    recurrent_weight_init="zeros" and bias_init="powerlaw_blockdependent" of the first block."""
    forget = -(-5.0 + 12.0 * (np.arange(n) / (n - 1)) ** 0.3)
    return {
        "kernel": [stats.norm(0, np.sqrt(2 / (5 * d)))] * 4,
        "recurrent_kernel": [0.0],
        "bias": [0.0, forget, 0.0, 0.0],
    }


def slstm_exponential(d, n):
    """f = exp(b_f) is what σ makes of the bias above."""
    parts = slstm(d, n)
    parts["bias"][1] = -np.log1p(np.exp(-parts["bias"][1]))
    return parts


# By the arguments that change where a cell starts. Keras's, where an authors' code has what its
# framework or its experiment has: the docstrings say what that is.
STARTS = {
    "simple_rnn": [({}, keras(1))],
    "lstm": [({}, lstm)],
    "gru": [({}, keras(3))],
    "lstm_peephole": [({}, peephole)],
    "lstm_layer_norm": [({}, lstm_layer_norm)],
    "gru_layer_norm": [({}, gru_layer_norm)],
    "indrnn": [({}, indrnn)],
    "mgu": [({}, keras(2))],
    "ugrnn": [({}, keras(2))],
    "rhn": [({}, keras(2))],
    "janet": [({}, keras(2))],
    "ran": [({}, keras(3))],
    "nas": [({}, keras(8))],
    "sru": [({}, sru(True)), ({"peephole": False}, sru(False))],
    "qrnn": [({}, keras(3, recurrent=False))],
    "mingru": [({}, keras(2, recurrent=False))],
    "minlstm": [({}, keras(3, recurrent=False))],
    "lru": [({}, lru)],
    "rg_lru": [({}, rg_lru)],
    "slstm": [({}, slstm), ({"forget_gate": "exponential"}, slstm_exponential)],
}


def assert_starts(values, start):
    """The values of a block are those of `start`, or a sample of it by standard deviation, mean and
    quantiles."""
    transform = None
    if isinstance(start, tuple):
        transform, start = start
    if start is ORTHOGONAL:
        np.testing.assert_allclose(values @ values.T, np.eye(len(values)), atol=1e-5)
    elif isinstance(start, float | np.ndarray):
        np.testing.assert_allclose(
            values, np.broadcast_to(start, values.shape), rtol=1e-4, atol=1e-6
        )
    else:
        sample = transform(values) if transform else values
        sample = np.sort(sample, axis=None)
        size = sample.size
        # Beyond which one sample in 100,000 lies; Kolmogorov's for the quantiles.
        assert abs(sample.mean() - start.mean()) < 4.4 * start.std() / np.sqrt(size)
        spread = np.sqrt((start.stats("k") + 2) / 4 / size)
        assert abs(sample.std() / start.std() - 1) < 4.4 * spread
        even = (np.arange(size) + 0.5) / size
        assert np.abs(start.cdf(sample) - even).max() < 2.5 / np.sqrt(size)
