"""Derivatives by Keras's backend, in one form for all of the diagnostics.

A module per backend, each with the functions that are handed on here:

    WayBack             runs a function, and goes back from its outputs to what it meets on its way
    depends             whether a gradient leads from what a function gives to what it takes
    change_gradient     a tensor, whose gradient is changed on the way back
    norms               of gradients, over the units
    where_finite        of two lists of gradients the first, if that is finite
    REJECTIONS          the errors of a model that does not take an input of this shape

Gradients are in float64, in which the squares of small ones are not yet zero: tensors under
TensorFlow, where they may be a part of a graph, elsewhere arrays of NumPy.
"""

import importlib

from kerasrnn.backends import BACKEND

_module = importlib.import_module(f"{__name__}.{BACKEND}")
REJECTIONS = _module.REJECTIONS
WayBack = _module.WayBack
change_gradient = _module.change_gradient
depends = _module.depends
norms = _module.norms
where_finite = _module.where_finite

__all__ = ["REJECTIONS", "WayBack", "change_gradient", "depends", "norms", "where_finite"]
