"""Each cell's equations once more, in NumPy, written from the papers.

A twin takes the weights, a batch of inputs x and the states of the step before, and gives the new
states; where the output is none of them, a `Shown` of both. Where the code of a cell and its twin
agree on random weights, the code says what the paper says.
"""

from typing import NamedTuple

import numpy as np


class Shown(NamedTuple):
    output: np.ndarray
    states: tuple


def output_and_states(result):
    """What a twin gives, as `cell(x, states)` does."""
    return result if isinstance(result, Shown) else Shown(result[0], result)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def gates(weight, count):
    return np.split(weight, count, axis=-1)


def simple_rnn(weights, x, states):
    """Elman (1990): h_t = tanh(W x_t + U h_{t-1} + b)."""
    W, U, b = weights
    (h,) = states
    return (np.tanh(x @ W + h @ U + b),)


def lstm(weights, x, states):
    """Gers, Schmidhuber & Cummins (2000), section 3, as in CS224N 2019, lecture 7."""
    h, c = states
    (Wi, Wf, Wg, Wo), (Ui, Uf, Ug, Uo), (bi, bf, bg, bo) = (gates(w, 4) for w in weights)
    i = sigmoid(x @ Wi + h @ Ui + bi)
    f = sigmoid(x @ Wf + h @ Uf + bf)
    o = sigmoid(x @ Wo + h @ Uo + bo)
    candidate = np.tanh(x @ Wg + h @ Ug + bg)
    c = f * c + i * candidate
    return o * np.tanh(c), c


def gru(weights, x, states):
    """Keras's default, with the reset gate after the product and a bias of its own there."""
    W, U, b = weights
    (h,) = states
    (Wz, Wr, Wg), (Uz, Ur, Ug) = gates(W, 3), gates(U, 3)
    (bz, br, bg), (cz, cr, cg) = gates(b[0], 3), gates(b[1], 3)
    z = sigmoid(x @ Wz + bz + h @ Uz + cz)
    r = sigmoid(x @ Wr + br + h @ Ur + cr)
    candidate = np.tanh(x @ Wg + bg + r * (h @ Ug + cg))
    return (z * h + (1 - z) * candidate,)


def gru_reset_before(weights, x, states):
    """Cho et al. (2014), equations 5 to 8."""
    (h,) = states
    (Wz, Wr, Wg), (Uz, Ur, Ug), (bz, br, bg) = (gates(w, 3) for w in weights)
    z = sigmoid(x @ Wz + h @ Uz + bz)
    r = sigmoid(x @ Wr + h @ Ur + br)
    candidate = np.tanh(x @ Wg + (r * h) @ Ug + bg)
    return (z * h + (1 - z) * candidate,)


def gru_of_the_lecture(weights, x, states):
    """CS224N 2019, lecture 7, which calls z u, U the weights of x and W those of h."""
    (h,) = states
    (Uu, Ur, Uh), (Wu, Wr, Wh), (bu, br, bh) = (gates(w, 3) for w in weights)
    u = sigmoid(h @ Wu + x @ Uu + bu)
    r = sigmoid(h @ Wr + x @ Ur + br)
    candidate = np.tanh((r * h) @ Wh + x @ Uh + bh)
    return ((1 - u) * h + u * candidate,)


def peephole(weights, x, states):
    """Gers & Schmidhuber (2000); the tanh of Graves (2013), equations 7 to 11."""
    h, c = states
    W, U, b, p = weights
    (Wi, Wf, Wg, Wo), (Ui, Uf, Ug, Uo), (bi, bf, bg, bo) = (gates(w, 4) for w in (W, U, b))
    pi, pf, po = gates(p, 3)
    i = sigmoid(x @ Wi + h @ Ui + pi * c + bi)
    f = sigmoid(x @ Wf + h @ Uf + pf * c + bf)
    c = f * c + i * np.tanh(x @ Wg + h @ Ug + bg)
    o = sigmoid(x @ Wo + h @ Uo + po * c + bo)
    return o * np.tanh(c), c


def layer_norm(a, gain, bias=0.0):
    """Ba et al. (2016), equations 15 and 16, with the epsilon of their code."""
    mean = a.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(((a - mean) ** 2).mean(axis=-1, keepdims=True) + 1e-5)
    return gain / deviation * (a - mean) + bias


def lstm_layer_norm(weights, x, states):
    """Ba et al. (2016), equations 20 to 22."""
    h, c = states
    W, U, b, gain_x, gain_h, gain_c, bias_c = weights
    i, f, g, o = gates(layer_norm(h @ U, gain_h) + layer_norm(x @ W, gain_x) + b, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(layer_norm(c, gain_c, bias_c)), c


def lstm_normalized(weights, x, states):
    """The same without LN on c."""
    h, c = states
    W, U, b, gain_x, gain_h = weights
    i, f, g, o = gates(layer_norm(h @ U, gain_h) + layer_norm(x @ W, gain_x) + b, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_layer_norm(weights, x, states):
    """Ba et al. (2016), equations 26 to 28; b and b' for the biases of their LN."""
    (h,) = states
    W, U, (b, b2), gain_x, gain_h = weights
    n = 2 * h.shape[-1]
    xs = layer_norm(x @ W[:, :n], gain_x[:n]) + b[:n]
    hs = layer_norm(h @ U[:, :n], gain_h[:n]) + b2[:n]
    z, r = gates(sigmoid(xs + hs), 2)
    candidate = np.tanh(
        layer_norm(x @ W[:, n:], gain_x[n:])
        + b[n:]
        + r * (layer_norm(h @ U[:, n:], gain_h[n:]) + b2[n:])
    )
    return ((1 - z) * h + z * candidate,)


def indrnn(weights, x, states):
    """Li et al. (2018)."""
    W, b, u = weights
    (h,) = states
    return (np.maximum(x @ W + u * h + b, 0),)


def mgu(weights, x, states):
    """Zhou et al. (2016)."""
    (h,) = states
    (Wf, Wh), (Uf, Uh), (bf, bh) = (gates(w, 2) for w in weights)
    f = sigmoid(h @ Uf + x @ Wf + bf)
    candidate = np.tanh((f * h) @ Uh + x @ Wh + bh)
    return ((1 - f) * h + f * candidate,)


def mgu_normalized(weights, x, states):
    """Ba et al. (2016), equation 20, each gate by itself: the two see the state in two ways."""
    (h,) = states
    (Wf, Wh), (Uf, Uh), (bf, bh), (af, ah), (cf, ch) = (gates(w, 2) for w in weights)
    f = sigmoid(layer_norm(h @ Uf, cf) + layer_norm(x @ Wf, af) + bf)
    candidate = np.tanh(layer_norm((f * h) @ Uh, ch) + layer_norm(x @ Wh, ah) + bh)
    return ((1 - f) * h + f * candidate,)


def ugrnn(weights, x, states):
    """Collins et al. (2017)."""
    (h,) = states
    (Wc, Wg), (Uc, Ug), (bc, bg) = (gates(w, 2) for w in weights)
    c = np.tanh(h @ Uc + x @ Wc + bc)
    g = sigmoid(h @ Ug + x @ Wg + bg)
    return (g * h + (1 - g) * c,)


def rhn(weights, x, states):
    """Zilly et al. (2017), equations 6 to 8, with c = 1 - t."""
    W, R, b = weights
    (s,) = states
    WH, WT = gates(W, 2)
    depth = R.shape[1] // (2 * R.shape[0])
    for level, (R_l, b_l) in enumerate(zip(gates(R, depth), gates(b, depth), strict=True)):
        (RH, RT), (bH, bT) = gates(R_l, 2), gates(b_l, 2)
        first = 1.0 if level == 0 else 0.0
        candidate = np.tanh(x @ WH * first + s @ RH + bH)
        t = sigmoid(x @ WT * first + s @ RT + bT)
        s = candidate * t + s * (1 - t)
    return (s,)


def rhn_normalized(weights, x, states):
    """Ba et al. (2016), equation 20, for both gates of a depth together; twice as deep."""
    W, R, b, gain_x, gain_r = weights
    (s,) = states
    xs = layer_norm(x @ W, gain_x)
    for R_l, b_l, gain in zip(gates(R, 2), gates(b, 2), gates(gain_r, 2), strict=True):
        candidate, t = gates(layer_norm(s @ R_l, gain) + b_l + xs, 2)
        s = np.tanh(candidate) * sigmoid(t) + s * (1 - sigmoid(t))
        xs = 0
    return (s,)


def janet(weights, x, states):
    """van der Westhuizen & Lasenby (2018), with β = 1."""
    (h,) = states
    (Wf, Wc), (Uf, Uc), (bf, bc) = (gates(w, 2) for w in weights)
    s = h @ Uf + x @ Wf + bf
    candidate = np.tanh(h @ Uc + x @ Wc + bc)
    return (sigmoid(s) * h + (1 - sigmoid(s - 1)) * candidate,)


def ran(weights, x, states):
    """Lee et al. (2017)."""
    h, c = states
    W, U, b = weights
    (Wc, Wi, Wf), (Ui, Uf), (bc, bi, bf) = gates(W, 3), gates(U, 2), gates(b, 3)
    i = sigmoid(h @ Ui + x @ Wi + bi)
    f = sigmoid(h @ Uf + x @ Wf + bf)
    c = i * (x @ Wc + bc) + f * c
    return np.tanh(c), c


def ran_normalized(weights, x, states):
    """Ba et al. (2016), equation 20, for the two gates together; the candidate sees no state."""
    h, c = states
    W, U, b, gain_x, gain_h = weights
    n = h.shape[-1]
    candidate = layer_norm(x @ W[:, :n], gain_x[:n]) + b[:n]
    i, f = gates(layer_norm(h @ U, gain_h) + layer_norm(x @ W[:, n:], gain_x[n:]) + b[n:], 2)
    c = sigmoid(i) * candidate + sigmoid(f) * c
    return np.tanh(c), c


def nas(weights, x, states):
    """Zoph & Le (2017), figure 8, in the order of TensorFlow Addons' NASCell."""
    W, U, b = weights
    m, c = states
    x, m = gates(x @ W, 8), gates(m @ U + b, 8)
    first = [
        sigmoid(x[0] + m[0]),
        np.maximum(x[1] + m[1], 0),
        sigmoid(x[2] + m[2]),
        np.maximum(x[3] * m[3], 0),
        np.tanh(x[4] + m[4]),
        sigmoid(x[5] + m[5]),
        np.tanh(x[6] + m[6]),
        sigmoid(x[7] + m[7]),
    ]
    second = [
        np.tanh(first[0] * first[1]),
        np.tanh(first[2] + first[3]),
        np.tanh(first[4] * first[5]),
        sigmoid(first[6] + first[7]),
    ]
    c = np.tanh(second[0] + c) * second[1]
    return np.tanh(c * np.tanh(second[2] + second[3])), c


def sru(weights, x, states):
    """Lei et al. (2018)."""
    _, c = states
    W, b, v = weights
    (W, Wf, Wr, Wx), (b, bf, br, bx), (vf, vr) = gates(W, 4), gates(b, 4), gates(v, 2)
    f = sigmoid(x @ Wf + vf * c + bf)
    r = sigmoid(x @ Wr + vr * c + br)
    c = f * c + (1 - f) * (x @ W + b)
    return r * c + (1 - r) * (x @ Wx + bx), c


def sru_of_2017(weights, x, states):
    """Lei & Zhang (2017), arXiv 1709.02755v2, with tanh for the activation of c."""
    (c,) = states
    (W, Wf, Wr, Wx), (b, bf, br, bx) = (gates(w, 4) for w in weights)
    f, r = sigmoid(x @ Wf + bf), sigmoid(x @ Wr + br)
    c = f * c + (1 - f) * (x @ W + b)
    return Shown(r * np.tanh(c) + (1 - r) * (x @ Wx + bx), (c,))


def qrnn(weights, x, states):
    """Bradbury et al. (2017), fo-pooling, for k = 1."""
    (c,) = states
    (Wz, Wf, Wo), (bz, bf, bo) = (gates(w, 3) for w in weights)
    z, f, o = np.tanh(x @ Wz + bz), sigmoid(x @ Wf + bf), sigmoid(x @ Wo + bo)
    c = f * c + (1 - f) * z
    return Shown(o * c, (c,))


def mingru(weights, x, states):
    """Feng et al. (2024), section 3.1."""
    (h,) = states
    (Wz, Wh), (bz, bh) = (gates(w, 2) for w in weights)
    z = sigmoid(x @ Wz + bz)
    return ((1 - z) * h + z * (x @ Wh + bh),)


def minlstm(weights, x, states):
    """Feng et al. (2024), section 3.2."""
    (h,) = states
    (Wf, Wi, Wh), (bf, bi, bh) = (gates(w, 3) for w in weights)
    f, i = sigmoid(x @ Wf + bf), sigmoid(x @ Wi + bi)
    return (f / (f + i) * h + i / (f + i) * (x @ Wh + bh),)


def lru(weights, x, states):
    """Orvieto et al. (2023), section 3, in complex numbers."""
    W, nu_log, theta_log, gamma_log, C_re, C_im = weights
    B_re, B_im, D = gates(W, 3)
    re, im = states
    decay = np.exp(-np.exp(nu_log) + 1j * np.exp(theta_log))
    h = decay * (re + 1j * im) + np.exp(gamma_log) * (x @ (B_re + 1j * B_im))
    return Shown((h @ (C_re + 1j * C_im)).real + x @ D, (h.real, h.imag))


def rg_lru(weights, x, states):
    """De et al. (2024), equations 1 to 4."""
    (h,) = states
    W, b, recurrence = weights
    (Wv, Wa, Wx), (bv, ba, bx) = gates(W, 3), gates(b, 3)
    r, i = sigmoid(x @ Wa + ba), sigmoid(x @ Wx + bx)
    a = sigmoid(recurrence) ** (8 * r)
    return (a * h + np.sqrt(1 - a**2) * (i * (x @ Wv + bv)),)


def slstm(forget):
    def slstm(weights, x, states):
        """Beck et al. (2024), equations 8 to 14, of states without the stabilizer's factor."""
        h, c, n, m = states
        (Wi, Wf, Wz, Wo), (Ui, Uf, Uz, Uo), (bi, bf, bz, bo) = (gates(w, 4) for w in weights)
        c, n = c * np.exp(m), n * np.exp(m)
        i, f = np.exp(x @ Wi + h @ Ui + bi), forget(x @ Wf + h @ Uf + bf)
        z, o = np.tanh(x @ Wz + h @ Uz + bz), sigmoid(x @ Wo + h @ Uo + bo)
        c, n, m = f * c + i * z, f * n + i, np.where(n == 0, i, np.maximum(f * np.exp(m), i))
        return o * c / n, c / m, n / m, np.log(m)

    return slstm


# A registered cell's twins, by the arguments that change its equations.
TWINS = {
    "simple_rnn": [({}, simple_rnn)],
    "lstm": [({}, lstm), ({"normalization": "layer"}, lstm_normalized)],
    "gru": [
        ({}, gru),
        ({"reset_after": False}, gru_reset_before),
        ({"reset_after": False, "update_gate": "write"}, gru_of_the_lecture),
    ],
    "lstm_peephole": [({}, peephole)],
    "lstm_layer_norm": [({}, lstm_layer_norm)],
    "gru_layer_norm": [({}, gru_layer_norm)],
    "indrnn": [({}, indrnn)],
    "mgu": [({}, mgu), ({"normalization": "layer"}, mgu_normalized)],
    "ugrnn": [({}, ugrnn)],
    "rhn": [
        ({}, rhn),
        ({"depth": 1}, rhn),
        ({"depth": 2, "normalization": "layer"}, rhn_normalized),
    ],
    "janet": [({}, janet)],
    "ran": [({}, ran), ({"normalization": "layer"}, ran_normalized)],
    "nas": [({}, nas)],
    "sru": [({}, sru), ({"peephole": False, "activation": "tanh"}, sru_of_2017)],
    "qrnn": [({}, qrnn)],
    "mingru": [({}, mingru)],
    "minlstm": [({}, minlstm)],
    "lru": [({}, lru)],
    "rg_lru": [({}, rg_lru)],
    "slstm": [
        ({}, slstm(sigmoid)),
        ({"forget_gate": "exponential"}, slstm(np.exp)),
    ],
}


def run(twin, weights, sequences, states):
    """The outputs, (batch, time, units), and the final states."""
    outputs = []
    for t in range(sequences.shape[1]):
        output, states = output_and_states(twin(weights, sequences[:, t], states))
        outputs.append(output)
    return np.stack(outputs, axis=1), states
