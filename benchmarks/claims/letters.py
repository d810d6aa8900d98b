"""The letters of Shakespeare's plays, for the claims about depth and gates."""

import functools

import keras
import numpy as np
from language_model import plays

from claims import nets

LENGTH = 30


@functools.cache
def text():
    """The letters that there are, and the plays as their numbers."""
    return plays()


def count():
    """How many letters there are."""
    return len(text()[0])


def chance():
    """The loss of whoever knows how often each letter occurs, and nothing of what is before it."""
    shares = np.bincount(text()[1]) / len(text()[1])
    return float(-(shares * np.log(shares)).sum())


def stretches(samples, length, seed, tested=False):
    """Stretches of text, and the same one letter on; of its last twentieth those to test on."""
    letters = text()[1]
    last = len(letters) // 20
    letters = letters[-last:] if tested else letters[:-last]
    starts = np.random.default_rng(seed).integers(0, len(letters) - length, samples)
    steps = starts[:, None] + np.arange(length)
    return letters[steps], letters[steps + 1]


def model(recurrent, width, length=None):
    """A language model with a recurrent layer or stack that returns its sequence, compiled."""
    inputs = keras.Input((length,))
    x = recurrent(keras.layers.Embedding(count(), width)(inputs))
    made = keras.Model(inputs, keras.layers.Dense(count())(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.Adam(nets.RATE, global_clipnorm=nets.CLIP), loss)
    return made
