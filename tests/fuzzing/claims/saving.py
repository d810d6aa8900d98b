"""Models that are taken apart and put together again."""

import os
import re
import tempfile

import keras
from keras import tree

from fuzzing import random_layers
from fuzzing.compare import assert_same, set_precision

# A part of the configuration that a layer has once it is built.
BUILT_FROM = re.compile(r"'build_\w+': (None|\{.*?\}|[\[(].*?[\])])")


def same_after_saving(draw):
    """A model around any layer, and one from its configuration, its clone, its file, its weights in
    a file, or its layer's configuration and weights: outputs, and the layers' configurations."""
    (batch, time, features), dtype = draw.shape(), draw.dtype()
    set_precision(dtype)
    flags = draw.flags("return_sequences", "return_state")
    layer = random_layers.any_layer(draw, dtype, features, **flags)
    inputs = keras.Input((time, features))
    model = keras.Model(inputs, layer(inputs))
    draw.perturb(model)
    x = draw.normal(batch, time, features, dtype=inputs.dtype)
    way = draw.choice("way", "from_config", "clone_model", "save", "weights", "layer")
    expected = tree.flatten(model(x))
    again = _layer_again(layer, x) if way == "layer" else _model_again(way, model)
    assert_same(way, tree.flatten(again(x)), expected, dtype)
    ours, other = (
        BUILT_FROM.sub("", str(one.get_config()))
        for one in (again if way == "layer" else again.layers[1], layer)
    )
    if ours != other:
        pairs = zip(ours.split(", "), other.split(", "), strict=False)
        different = [pair for pair in pairs if pair[0] != pair[1]]
        raise AssertionError(f"{way}: get_config differs: {different[:4]}")


def _layer_again(layer, x):
    again = type(layer).from_config(layer.get_config())
    again(x)
    again.set_weights(layer.get_weights())
    return again


def _model_again(way, model):
    with tempfile.TemporaryDirectory() as folder:
        if way == "save":
            path = os.path.join(folder, "model.keras")
            model.save(path)
            return keras.models.load_model(path)
        if way == "from_config":
            again = keras.Model.from_config(model.get_config())
        else:
            again = keras.models.clone_model(model)
        if way == "weights":
            path = os.path.join(folder, "model.weights.h5")
            model.save_weights(path)
            again.load_weights(path)
        else:
            again.set_weights(model.get_weights())
        return again
