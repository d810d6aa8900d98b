"""Optimizers beside the one that a model was compiled with."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrnn.callbacks import DivergenceGuard, GradientClipping, GradientNormMonitor
from kerasrnn.updates.optimizers import innermost

Adam = keras.optimizers.Adam


class Two(keras.Model):
    """A generator, trained by `optimizer`, and a discriminator, trained by what holds its own."""

    def __init__(self, place, scaled=False):
        super().__init__()
        self.generator = keras.layers.Dense(3)
        self.discriminator = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        self.place, self.idle = place, Adam()
        optimizer, other = Adam(), Adam()
        if scaled:
            optimizer, other = map(keras.optimizers.LossScaleOptimizer, (optimizer, other))
        # As a user's attribute may, beside the one in a wrapper.
        self.again = innermost(optimizer)
        if place == "optimizers":
            self.optimizers = {"discriminator": other}
        elif place == "two_optimizer":
            self.two_optimizer = [other]
        elif place == "discriminator.optimizer":
            self.discriminator.name = "discriminator"
            self.discriminator.compile(other)
        self.other = lambda: other
        self.compile(optimizer, run_eagerly=True)

    def call(self, x):
        return self.discriminator(self.generator(x))

    def train_step(self, data):
        x, y = data
        trained = [(self.generator, self.optimizer)]
        if self.place:
            trained.append((self.discriminator, self.other()))
        if self.place == "late":
            self.late = self.other()
        for part, optimizer in trained:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(x) - y) ** 2)
            variables = part.trainable_variables
            optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


def fit(model, *callbacks):
    model.fit(np.ones((8, 2)), np.ones((8, 1)), 2, verbose=0, callbacks=list(callbacks))


@pytest.mark.parametrize(
    ("place", "scaled"),
    [
        ("optimizers", False),
        ("two_optimizer", True),
        ("discriminator.optimizer", False),
        ("late", False),
    ],
)
def test_says_once_that_it_trains_by_another_one(place, scaled):
    model = Two(place, scaled)
    model(np.ones((1, 2)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, GradientNormMonitor(), GradientClipping(), DivergenceGuard())
    (message,) = (str(one.message) for one in caught if "trains by" in str(one.message))
    assert f"trains by {place}, too." in message
    assert f"those of {place} are neither recorded nor clipped" in message


def test_one_that_makes_no_update_is_not_spoken_of():
    """Warnings are errors."""
    model = Two(None, scaled=True)
    fit(model, GradientNormMonitor())
    assert int(model.optimizer.iterations) == 4
