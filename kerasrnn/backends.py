"""Keras's backends, as far as the package has to tell them apart.

Attributes:
    BACKEND: The name of the one that runs.
    tf: TensorFlow where that is Keras's backend, otherwise `None`: it is not imported then.
"""

import importlib

import keras

BACKEND = keras.backend.backend()
tf = importlib.import_module("tensorflow") if BACKEND == "tensorflow" else None
