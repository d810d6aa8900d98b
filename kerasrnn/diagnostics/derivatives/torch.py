"""Derivatives under PyTorch, by its graph of what was run."""

import numpy as np
from keras import ops, tree

from kerasrnn.backends import framework as torch
from kerasrnn.diagnostics.derivatives.arrays import norms, plus_tap, where_finite
from kerasrnn.diagnostics.derivatives.floats import floats_in, is_float

REJECTIONS = (ValueError, RuntimeError)


class WayBack:
    """As under TensorFlow. A source is what a tap, zeros added to the tensor, stands for."""

    def __init__(self, function, variables=()):
        self._taps = []
        with torch.enable_grad():
            self.outputs, self.others = function(self._source)

    def _source(self, tensor):
        tap = torch.zeros_like(tensor, requires_grad=True)
        self._taps.append(tap)
        return plus_tap(tensor, tap)

    def back(self, gradient, output=0):
        """As under TensorFlow."""
        y = self.outputs[output]
        # Where no way leads back at all there is no graph.
        arrived = [None] * len(self._taps)
        if y.requires_grad and self._taps:
            gradient = ops.convert_to_tensor(gradient, y.dtype)
            arrived = torch.autograd.grad(
                y, self._taps, gradient, retain_graph=True, allow_unused=True
            )
        return [
            np.zeros(tap.shape) if g is None else ops.convert_to_numpy(g).astype("float64")
            for tap, g in zip(self._taps, arrived, strict=True)
        ]

    def back_each(self, gradients, output=0):
        """As under TensorFlow."""
        for gradient in gradients:
            yield self.back(gradient, output)


def depends(function, arguments):
    """As under TensorFlow."""
    taken = []

    def watched(part):
        if not is_float(part):
            return part
        taken.append(part.detach().requires_grad_())
        return taken[-1]

    with torch.enable_grad():
        outputs = floats_in(function(*tree.map_structure(watched, arguments)))
    reached = [y.sum() for y in outputs if y.requires_grad]
    if not reached or not taken:
        return False
    return any(g is not None for g in torch.autograd.grad(sum(reached), taken, allow_unused=True))


def change_gradient(tensor, change):
    """As under TensorFlow."""
    same = tensor.clone()
    if same.requires_grad:
        same.register_hook(change)
    return same


__all__ = ["REJECTIONS", "WayBack", "change_gradient", "depends", "norms", "where_finite"]
