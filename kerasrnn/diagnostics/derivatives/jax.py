"""Derivatives under JAX, where a function is run again to be derived."""

import keras
import numpy as np
from keras import tree

from kerasrnn.backends import framework as jax
from kerasrnn.diagnostics.derivatives.arrays import norms, plus_tap, where_finite
from kerasrnn.diagnostics.derivatives.floats import floats_in, is_float

REJECTIONS = (ValueError, TypeError)


class WayBack:
    """As under TensorFlow. A source is what a tap, zeros added to the tensor, stands for; what the
    function writes to variables is forgotten, since it may be no more than a tracer."""

    def __init__(self, function, variables=()):
        self._function, self._variables = function, variables
        self._taps, self._pullbacks = [], {}
        with _writing_nothing(variables):
            self.outputs, self.others = function(self._source)

    def _source(self, tensor):
        self._taps.append(jax.numpy.zeros_like(tensor))
        return tensor

    def back(self, gradient, output=0):
        """As under TensorFlow."""
        if output not in self._pullbacks:
            # Compiled as a whole it would keep what `change_gradient` did the first time.
            self._pullbacks[output] = jax.vjp(self._tapped(output), *self._taps)[1]
        return [_float64(g) for g in self._pullbacks[output](self._like(gradient, output))]

    def back_each(self, gradients, output=0):
        """As under TensorFlow, all at once."""
        stack = jax.numpy.stack([self._like(gradient, output) for gradient in gradients])
        _, pullback = jax.vjp(jax.jit(self._tapped(output)), *self._taps)
        stacks = [_float64(g) for g in jax.vmap(pullback)(stack)]
        return zip(*stacks, strict=True)

    def _tapped(self, output):
        """An output as a function of the taps."""

        def tapped(*taps):
            taps = iter(taps)
            with _writing_nothing(self._variables):
                outputs, _ = self._function(lambda tensor: plus_tap(tensor, next(taps)))
            return outputs[output]

        return tapped

    def _like(self, gradient, output):
        return jax.numpy.asarray(gradient, self.outputs[output].dtype)


def depends(function, arguments):
    """As under TensorFlow."""
    flat = tree.flatten(arguments)
    places = [i for i, part in enumerate(flat) if is_float(part)]
    if not places:
        return False
    reached = []

    @jax.custom_jvp
    def heard(y):
        return y

    def of_tangent(primals, tangents):
        reached.append(not isinstance(tangents[0], jax.custom_derivatives.SymbolicZero))
        return primals[0], tangents[0]

    heard.defjvp(of_tangent, symbolic_zeros=True)

    def floats(*taken):
        parts = list(flat)
        for i, part in zip(places, taken, strict=True):
            parts[i] = part
        with _writing_nothing():
            outputs = function(*tree.pack_sequence_as(arguments, parts))
        return [heard(y) for y in floats_in(outputs)]

    # Of the values nothing is needed, and so they are not computed.
    taken = [flat[i] for i in places]
    jax.eval_shape(lambda *taken: jax.jvp(floats, taken, taken), *taken)
    return any(reached)


def change_gradient(tensor, change):
    """As under TensorFlow."""

    @jax.custom_vjp
    def same(tensor):
        return tensor

    same.defvjp(lambda tensor: (tensor, None), lambda _, g: (change(g),))
    return same(tensor)


def _writing_nothing(variables=()):
    values = [(variable, variable.value) for variable in variables]
    return keras.StatelessScope(values, collect_losses=True)


def _float64(gradient):
    return np.asarray(gradient).astype("float64")


__all__ = ["REJECTIONS", "WayBack", "change_gradient", "depends", "norms", "where_finite"]
