"""Recurrent nets for Keras, with their gradients in view."""

import importlib

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "kerasrnn runs on Keras's TensorFlow backend alone: set KERAS_BACKEND=tensorflow before "
        f"keras is imported. Received: the backend {keras.backend.backend()!r}"
    )

from kerasrnn import (
    activations,
    callbacks,
    cells,
    diagnostics,
    initializers,
    layers,
    losses,
    recurrence,
)

__version__ = "0.1.0"

# Some import keras-tuner and the like, which a program that only trains should not wait for.
_ON_DEMAND = ("export", "tasks", "tuning")


def __getattr__(name):
    if name in _ON_DEMAND:
        return importlib.import_module(f"kerasrnn.{name}")
    raise AttributeError(f"module 'kerasrnn' has no attribute {name!r}")


__all__ = [
    "activations",
    "callbacks",
    "cells",
    "diagnostics",
    "export",
    "initializers",
    "layers",
    "losses",
    "recurrence",
    "tasks",
    "tuning",
]
