"""Each cell's equations once more, in NumPy, written from the papers.

A twin takes the weights (W, U, b), a batch of inputs x and the states of the step before, and gives
the new states. Where the code of a cell and its twin agree on random weights, the code says what
the paper says.
"""

import numpy as np


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
    """Gers, Schmidhuber & Cummins (2000), section 2, as in CS224N 2019, lecture 7."""
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


# A registered cell's twins, by the arguments that change its equations.
TWINS = {
    "simple_rnn": [({}, simple_rnn)],
    "lstm": [({}, lstm)],
    "gru": [
        ({}, gru),
        ({"reset_after": False}, gru_reset_before),
        ({"reset_after": False, "update_gate": "write"}, gru_of_the_lecture),
    ],
}


def run(twin, weights, sequences, states):
    """All states over time, each (batch, time, units)."""
    history = []
    for t in range(sequences.shape[1]):
        states = twin(weights, sequences[:, t], states)
        history.append(states)
    return [np.stack(steps, axis=1) for steps in zip(*history, strict=True)]
