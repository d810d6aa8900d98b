"""Which layers the gradient of the loss reaches, and which are dead."""

import contextlib
import functools
from typing import NamedTuple

import keras
import tensorflow as tf
from keras import tree

from kerasrnn.diagnostics.flow import gradients, left_as_it_was
from kerasrnn.layers.inside import layers_directly_in


class Reach(NamedTuple):
    """What arrives at the weights of one layer.

    Attributes:
        gradients: The L2 norm of the gradient of each trainable variable, by its path.
        silent: Whether the layer gave nothing but zeros though it was given something else.
    """

    gradients: dict
    silent: bool

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
        The loss, and a `Reach` for each layer by its path.
    """
    layers = {}
    for path, layer, own in _with_weights(model):
        layers.setdefault(id(layer), (path, layer, own))
    given, gave = set(), set()

    def heard(path, original):
        @functools.wraps(original)
        def call(*args, **kwargs):
            outputs = original(*args, **kwargs)
            given.update([path] * _any(args))
            gave.update([path] * _any(outputs))
            return outputs

        return call

    tape = tf.GradientTape(persistent=True)
    with left_as_it_was(model), _shadowed(layers.values(), heard), tape:
        prediction = model(x, training=False)
        loss = model.compute_loss(x, y, prediction, training=False)
        # A regularizer moves a dead weight, too.
        of_data = loss - sum(model.losses)
    variables = {path: own for path, _, own in layers.values()}
    values = {path: [v.value for v in own] for path, own in variables.items()}
    found = gradients(model, tape, of_data, values)
    return float(loss), {
        path: Reach(
            {v.path: float(tf.norm(g)) for v, g in zip(own, found[path], strict=True)},
            path in given - gave,
        )
        for path, own in variables.items()
    }


def _with_weights(layer, path=()):
    """The path of each layer with trainable weights of its own, the layer, and these; a recurrent
    one has its cell's."""
    for part in layers_directly_in(layer):
        here = (*path, part.name)
        inside = [] if isinstance(part, keras.layers.RNN) else list(_with_weights(part, here))
        theirs = {id(v) for _, _, variables in inside for v in variables}
        own = [v for v in part.trainable_variables if id(v) not in theirs]
        if own:
            yield "/".join(here), part, own
        yield from inside


def _any(structure):
    """Whether any number in it is not zero, as far as it has numbers here and not in a graph."""
    tensors = [t for t in tree.flatten(structure) if tf.is_tensor(t) and t.dtype != tf.bool]
    return any(tf.is_symbolic_tensor(t) or bool(tf.reduce_any(t != 0)) for t in tensors)


@contextlib.contextmanager
def _shadowed(layers, heard):
    """Lets `heard(path, original)` stand for the call of each layer."""
    for path, layer, _ in layers:
        layer.call = heard(path, layer.call)
    try:
        yield
    finally:
        for _, layer, _ in layers:
            del layer.call
