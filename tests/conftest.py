import os
import threading

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def random_weights(rng):
    """Gives every weight of a layer a random value, biases too, so that no two gates look alike."""

    def randomize(layer, scale=0.5):
        layer.set_weights([rng.normal(0, scale, w.shape) for w in layer.weights])

    return randomize


@pytest.fixture
def quiet_tuner(monkeypatch):
    """keras-tuner 1.4 asks for the thread by a name that Python has deprecated."""
    monkeypatch.setattr(threading, "currentThread", threading.current_thread)
    monkeypatch.setattr(threading.Thread, "getName", lambda self: self.name)
