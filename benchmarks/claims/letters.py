"""The letters of Shakespeare's plays, for the claims about depth and gates."""

import depth
import keras
import numpy as np

LENGTH = 30


def count():
    """How many letters there are."""
    return len(depth.text()[0])


def stretches(samples, length, seed, tested=False):
    """Stretches of text, and the same one letter on; of its last twentieth those to test on."""
    letters = depth.text()[1]
    last = len(letters) // 20
    letters = letters[-last:] if tested else letters[:-last]
    starts = np.random.default_rng(seed).integers(0, len(letters) - length, samples)
    steps = starts[:, None] + np.arange(length)
    return letters[steps], letters[steps + 1]


def model(recurrent, width, length=None):
    """A language model with a recurrent layer or stack that returns its sequence."""
    inputs = keras.Input((length,))
    x = recurrent(keras.layers.Embedding(count(), width)(inputs))
    return keras.Model(inputs, keras.layers.Dense(count())(x))
