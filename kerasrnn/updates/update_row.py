"""One update as a row of numbers."""

import itertools

import keras
import numpy as np
from keras import ops

from kerasrnn.inside import layers_in
from kerasrnn.keras_cells import declarations
from kerasrnn.updates import gradients
from kerasrnn.updates.variables import step_variable


class UpdateRow:
    """Computes the row of an update in the graph.

        ‖g_v‖_2     per variable v, before clipping
        ‖g_v‖_2     the same after clipping
        ‖g_vk‖_2    per gate k of a recurrent kernel v, before clipping: k's columns of v
        ‖Δw_v‖_2    per variable v, its change by the update, weight decay included
        ‖w_v‖_2     per variable v, before the update
        J, lr       the loss and the learning rate
        g · g'      with the gradients g' of the update before, where `products` asks for it

    Args:
        model: The model in training.
        variables: The variables that may be updated.
        products: Whether to keep a copy of all gradients until the next update.

    Attributes:
        gates: For the number of each recurrent kernel in `variables`, the names of its gates.
        width: Numbers per row.
    """

    def __init__(self, model, variables, products):
        gates = {id(kernel): names for kernel, names in _recurrent_kernels(model)}
        self.gates = {i: gates[id(v)] for i, v in enumerate(variables) if id(v) in gates}
        ends = itertools.accumulate(map(len, self.gates.values()), initial=2 * len(variables))
        *starts, end = ends
        self._starts = dict(zip(self.gates, starts, strict=True))
        self._variables = len(variables)
        self._changes, self._scalars = end, end + 2 * len(variables)
        # NaN, since the first update has none before it.
        self._previous = [
            step_variable(np.full(v.shape, np.nan)) for v in (variables if products else ())
        ]
        self.width = self._scalars + 2 + bool(self._previous)

    def begin(self):
        """Forgets the update before."""
        for previous in self._previous:
            previous.assign(np.full(previous.value.shape, np.nan))

    def __call__(self, columns, grads, before, after, update):
        """Computes the row.

        Args:
            columns: The number of each variable that is updated.
            grads: Their gradients.
            before, after: The same before and after clipping, without rows that occur twice; one
                list where nothing clips.
            update: The `Update`, for all else.
        """
        gated = [(i, g) for i, g in zip(columns, before, strict=True) if i in self.gates]
        blocks = [b for i, g in gated for b in ops.split(g, len(self.gates[i]), axis=-1)]
        places = [*columns, *(self._variables + i for i in columns)]
        places += [self._starts[i] + k for i, _ in gated for k in range(len(self.gates[i]))]
        if after is before:
            numbers = gradients.norms([*before, *blocks])
            numbers = ops.concatenate([numbers[: len(before)], numbers])
        else:
            numbers = gradients.norms([*before, *after, *blocks])
        places += [self._changes + i for i in columns]
        places += [self._changes + self._variables + i for i in columns]
        scalars = [ops.cast(v, "float32") for v in (update.loss, update.rate)]
        if self._previous:
            scalars.append(self._product(columns, grads))
        places += range(self._scalars, self.width)
        # The zero at the end is that of variables that are not updated.
        scalars.append(ops.zeros((), "float32"))
        numbers = ops.concatenate([numbers, _changes_and_weights(update), ops.stack(scalars)])
        sources = np.full(self.width, len(places), "int32")
        sources[places] = np.arange(len(places))
        return ops.take(numbers, sources)

    def _product(self, columns, grads):
        products = []
        for i, gradient in zip(columns, grads, strict=True):
            gradient = ops.cast(gradients.dense(gradient), "float32")
            products.append(ops.sum(self._previous[i].value * gradient))
            self._previous[i].assign(gradient)
        return sum(products)


def _recurrent_kernels(model):
    """Each recurrent kernel in the model whose columns belong to gates, and their names."""
    for layer in layers_in(model):
        names = declarations(layer).recurrent_gates
        if names and layer.built:
            yield layer.recurrent_kernel, names


def _changes_and_weights(update):
    """‖Δw_v‖ and ‖w_v‖. Weights of zero are common, and none of float64's matter."""
    pairs = zip(update.weights, update.after, strict=True)
    changes = [_single(after) - _single(before) for before, after in pairs]
    return gradients.norms([*changes, *update.weights], least=0.0)


def _single(tensor):
    single = keras.backend.standardize_dtype(tensor.dtype) == "float32"
    return tensor if single else ops.cast(tensor, "float32")
