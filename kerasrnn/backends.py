"""Keras's backends, as far as the package has to tell them apart.

Attributes:
    BACKEND: The name of the one that runs.
    framework: Its module, as `jax`.
    tf: TensorFlow where that is Keras's backend, otherwise `None`: it is not imported then.
"""

import importlib

import keras

BACKEND = keras.backend.backend()
framework = importlib.import_module(BACKEND)
tf = framework if BACKEND == "tensorflow" else None


def sees_gpu():
    """Whether the backend would run on a GPU."""
    if BACKEND == "jax":
        return framework.default_backend() == "gpu"
    if BACKEND == "torch":
        return framework.cuda.is_available()
    return bool(tf.config.list_logical_devices("GPU"))
