"""Recurrent nets for Keras, with their gradients in view."""

import importlib

# First, to say which backend cannot be had.
import kerasrnn.backends as _backends  # noqa: F401
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
