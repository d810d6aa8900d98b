"""Copies of what a model is made of: its layers, and what they keep."""

import tempfile

import keras
from keras import tree

from kerasrnn.inside import layers_in
from kerasrnn.layers.rnn import RNN
from kerasrnn.layers.stack import RNNStack


def bring_over(model, new):
    """Gives a model all that another keeps: weights, states, vocabularies, and what is frozen.

    Args:
        model: The other.
        new: A model of the same layers, of this package's for Keras's or the other way round.
    """
    for old_part, new_part in zip(_parts(model), _parts(new), strict=True):
        _bring_over_part(old_part, new_part)


def _parts(model):
    """A model and all that is inside it and keeps something, but for the layers of an `RNNStack`,
    which keeps their states as one, as the layer of stacked cells that stands for it."""
    parts = layers_in(model)
    stacked = {id(layer) for stack in parts if type(stack) is RNNStack for layer in stack.layers}
    return [
        part
        for part in parts
        if type(part) is not keras.layers.StackedRNNCells
        and not (type(part) is RNN and id(part) in stacked)
    ]


def _bring_over_part(old, new):
    """Gives a layer what another of the same kind keeps, but for the layers inside."""
    if new is old:
        return
    if old.built and not new.built:
        new.build_from_config(old.get_build_config())
    # Parents come first, and set that of their parts.
    new.trainable = old.trainable
    kept = {}
    old.save_own_variables(kept)
    new.load_own_variables(kept)
    if isinstance(old, keras.layers.RNN | RNNStack):
        states = (tree.flatten(layer.states or []) for layer in (old, new))
        for of_old, of_new in zip(*states, strict=True):
            of_new.assign(of_old)
    elif hasattr(old, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def check_compiled(model):
    """Raises a `ValueError` if a model cannot be compiled once more in the same way."""
    if not model.compiled:
        return
    try:
        keras.saving.deserialize_keras_object(model.get_compile_config())
    except (TypeError, ValueError) as error:
        raise ValueError(
            "`model` must be compiled with what Keras can make again: register functions and "
            "classes with @keras.saving.register_keras_serializable(), or convert "
            "keras.Model(model.inputs, model.outputs), which is not compiled. "
            f"Received: {model.name}, compiled with {model.get_compile_config()}"
        ) from error


def copied(layer):
    """A layer, or an operation, made again from its configuration."""
    try:
        return type(layer).from_config(layer.get_config())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            "`model` must have layers that Keras can make again from their configuration: give a "
            "class a `get_config`, and register functions with "
            "@keras.saving.register_keras_serializable(). "
            f"Received: {layer.name} ({type(layer).__name__})"
        ) from error
