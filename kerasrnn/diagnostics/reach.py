"""Which layers the gradient of the loss reaches, which are dead, and which give huge numbers."""

import collections
import functools
import math
from typing import NamedTuple

import keras
import numpy as np
from keras import tree

from kerasrnn.backends import tf
from kerasrnn.diagnostics.looking import gradients, left_as_it_was, shadowed
from kerasrnn.inside import layers_directly_in

if tf:
    from kerasrnn.diagnostics.derivatives.tensorflow import back_on

# No data that are scaled come near it: what is larger has grown.
HUGE = 1e9


class Reach(NamedTuple):
    """What arrives at the weights of one layer, and at the layer.

    Attributes:
        layer: The layer.
        gradients: The L2 norm of the gradient of each trainable variable, by its path.
        took, gave: The largest absolute value of its inputs and of its outputs, infinite where one
            is no finite number.
        weights: The largest absolute value of its trainable variables.
        zero: Whether its kernels, all that are no vectors, are zero.
        flat: Whether all of its outputs lie where its tanh or sigmoid has no slope left.
    """

    layer: keras.layers.Layer
    gradients: dict
    took: float
    gave: float
    weights: float = 1.0
    zero: bool = False
    flat: bool = False

    @property
    def silent(self):
        """Whether the layer gave nothing but zeros though it took something else."""
        return self.took > 0 and not self.gave

    @property
    def explodes(self):
        """Whether its recurrence made huge numbers of others."""
        return isinstance(self.layer, keras.layers.RNN) and self.gave > HUGE * max(1, self.took)

    @property
    def starved(self):
        """Whether no weight gets any gradient."""
        return not any(self.gradients.values())


def gradient_reach(model, x, y):
    """The gradient of the compiled loss at (x, y), regularizers left out, for each layer with
    trainable weights, as in inference.

    Args:
        model: A compiled and built Keras model.
        x, y: A batch, as tensors.

    Returns:
        The loss, which part of it regularizers and `add_loss` add, what the model predicts, and a
        `Reach` for each layer by its path.
    """
    layers = {}
    for path, layer, weights in _with_weights(model):
        if trained := [v for v in weights if any(v is one for one in layer.trainable_variables)]:
            layers.setdefault(id(layer), (path, layer, trained))
    took, gave = collections.Counter(), collections.Counter()
    flat = {}

    def heard(path, layer):
        def call(original, *args, **kwargs):
            outputs = original(*args, **kwargs)
            took[path] = max(took[path], _largest(args))
            gave[path] = max(gave[path], _largest(outputs))
            flat[path] = flat.get(path, True) and _flat(layer, outputs)
            return outputs

        return call

    calls = [(layer, heard(path, layer)) for path, layer, _ in layers.values()]
    tape = tf.GradientTape(persistent=True)
    with left_as_it_was(model), shadowed("call", calls), tape:
        prediction = model(x, training=False)
        loss = model.compute_loss(x, y, prediction, training=False)
        # A regularizer moves a dead weight, too.
        penalties = sum(model.losses)
        of_data = loss - penalties
    values = {path: [v.value for v in trained] for path, _, trained in layers.values()}
    back = functools.partial(back_on, tape, of_data, tree.flatten(values))
    arrived = tree.pack_sequence_as(values, gradients(model, back))
    return (
        float(loss),
        float(penalties),
        prediction,
        {
            path: Reach(
                layer,
                {v.path: float(tf.norm(g)) for v, g in zip(trained, arrived[path], strict=True)},
                took[path],
                gave[path],
                _largest([v.value for v in trained]),
                _zero(trained),
                flat.get(path, False),
            )
            for path, layer, trained in layers.values()
        },
    )


def layer_paths(model):
    """The path of the layer that each variable of the model is of, by the variable's path."""
    return {v.path: path for path, _, weights in _with_weights(model) for v in weights}


def _with_weights(layer, path=()):
    """The path of each layer with weights that no layer inside it has, the layer, and these
    weights; a recurrent one has its cell's."""
    for part in layers_directly_in(layer):
        here = (*path, part.name)
        inside = [] if isinstance(part, keras.layers.RNN) else list(_with_weights(part, here))
        theirs = {id(v) for _, _, variables in inside for v in variables}
        weights = [v for v in part.variables if id(v) not in theirs]
        if weights:
            yield "/".join(here), part, weights
        yield from inside


def _largest(structure):
    """The largest absolute value in it; 1 for what has its numbers in a graph and not here."""
    largest = 0.0
    for tensor in tree.flatten(structure):
        if tf.is_symbolic_tensor(tensor):
            largest = max(largest, 1.0)
        elif tf.is_tensor(tensor) and tensor.dtype != tf.bool:
            values = np.abs(np.array(tensor)).astype("float64")
            largest = max(largest, values.max(initial=0) if np.isfinite(values).all() else math.inf)
    return float(largest)


def _zero(variables):
    kernels = [v.value for v in variables if len(v.shape) > 1]
    return bool(kernels) and not _largest(kernels)


# Of a tanh or sigmoid that is that near to its limits, the slope is no more than that.
_NO_SLOPE = 1e-6


def _flat(layer, outputs):
    """Whether all outputs of a layer lie at the limits of its tanh or sigmoid."""
    activation = getattr(getattr(layer, "cell", layer), "activation", None)
    values = [np.asarray(v, "float64") for v in tree.flatten(outputs) if tf.is_tensor(v)]
    if any(map(tf.is_symbolic_tensor, tree.flatten(outputs))) or not values:
        return False
    if activation is keras.activations.tanh:
        return all((1 - np.abs(v) < _NO_SLOPE).all() for v in values)
    if activation is keras.activations.sigmoid:
        return all((np.minimum(v, 1 - v) < _NO_SLOPE).all() for v in values)
    return False
