"""What is inside a layer or a model, and what Keras has attached to a tensor."""

import keras
from keras import tree
from keras.src import backend


def attached_mask(v):
    """The mask that Keras has attached to a tensor, or `None`. An array that JAX traces takes no
    attribute, so that Keras keeps its mask elsewhere."""
    # The seam of test_keras_attaches_masks_to_tensors.
    return backend.get_keras_mask(v)


def attach_mask(v, mask):
    """Attaches a mask to a tensor, as Keras does."""
    # The seam of test_keras_attaches_masks_to_tensors.
    backend.set_keras_mask(v, mask)


def layers_directly_in(layer):
    """The layers directly inside a layer."""
    return layer._flatten_layers(include_self=False, recursive=False)


def layers_in(layer):
    """A layer and all that are inside it, however deep."""
    return layer._flatten_layers()


def recurrent_paths(layer):
    """Each recurrent layer in a layer or model, Keras's too: its path, the layer, and whether it
    runs against the time of the model's input.

    A path is the names on the way to the layer, as "encoder/lstm", with "forward" and "backward"
    for the layers of a Bidirectional.
    """
    if isinstance(layer, keras.layers.RNN):
        return [(layer.name, layer, layer.go_backwards)]
    return list(_recurrent_layers(layer, (), getattr(layer, "go_backwards", False)))


def _recurrent_layers(layer, path, flipped):
    for part in layers_directly_in(layer):
        name = part.name
        if isinstance(layer, keras.layers.Bidirectional):
            name = {id(layer.forward_layer): "forward", id(layer.backward_layer): "backward"}.get(
                id(part), name
            )
        against = flipped != getattr(part, "go_backwards", False)
        if isinstance(part, keras.layers.RNN):
            yield "/".join((*path, name)), part, against
        else:
            yield from _recurrent_layers(part, (*path, name), against)


def stateful_layers(layer):
    """The recurrent layers, Keras's too, that keep their states from batch to batch."""
    rnns = (one for one in layers_in(layer) if isinstance(one, keras.layers.RNN))
    return [rnn for rnn in rnns if rnn.stateful]


def kept_states(layer):
    """The variables in which those layers keep them, as far as they are built. Keras has them in
    none of its lists of variables."""
    return [state for rnn in stateful_layers(layer) for state in tree.flatten(rnn.states or [])]
