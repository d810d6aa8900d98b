"""The letters of Shakespeare's plays, for the claims about depth and gates."""

import functools

import keras
import numpy as np
from language_model import plays

LENGTH = 30


@functools.cache
def text():
    return plays()


def count():
    """How many letters there are."""
    return len(text()[0])


def chance():
    """The cross-entropy of whoever knows how often each letter occurs."""
    shares = np.bincount(text()[1]) / len(text()[1])
    return -(shares * np.log(shares)).sum()


def stretches(samples, length, seed, tested=False):
    """Stretches of text, and the same one letter on; the last twentieth of it is tested on."""
    _, letters = text()
    end = int(0.95 * len(letters))
    letters = letters[end:] if tested else letters[:end]
    starts = np.random.default_rng(seed).integers(0, len(letters) - length, samples)
    steps = starts[:, None] + np.arange(length)
    return letters[steps], letters[steps + 1]


def model(recurrent, width, length=None):
    """A language model with a recurrent layer or stack that returns its sequence."""
    inputs = keras.Input((length,))
    x = recurrent(keras.layers.Embedding(count(), width)(inputs))
    return keras.Model(inputs, keras.layers.Dense(count())(x))
