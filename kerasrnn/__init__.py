"""Recurrent nets for Keras, with their gradients in view."""

import importlib

import keras

if keras.backend.backend() not in ("tensorflow", "jax", "torch"):
    raise ImportError(
        "kerasrnn runs on Keras's backends tensorflow, jax, torch: set KERAS_BACKEND to one of "
        f"them before keras is imported. Received: the backend {keras.backend.backend()!r}"
    )

from kerasrnn import activations, cells, initializers, layers, losses, recurrence

__version__ = "0.1.0"

# What imports keras-tuner, Matplotlib and the like, for which a program that only trains should not
# wait.
_ON_DEMAND = ("callbacks", "diagnostics", "export", "tasks", "tuning")


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
