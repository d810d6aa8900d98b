"""What is inside a layer or a model."""

import keras
from keras import tree


def layers_directly_in(layer):
    """The layers directly inside a layer."""
    return layer._flatten_layers(include_self=False, recursive=False)


def layers_in(layer):
    """A layer and all that are inside it, however deep."""
    return layer._flatten_layers()


def stateful_layers(layer):
    """The recurrent layers, Keras's too, that keep their states from batch to batch."""
    rnns = (one for one in layers_in(layer) if isinstance(one, keras.layers.RNN))
    return [rnn for rnn in rnns if rnn.stateful]


def kept_states(layer):
    """The variables in which those layers keep them, as far as they are built. Keras has them in
    none of its lists of variables."""
    return [state for rnn in stateful_layers(layer) for state in tree.flatten(rnn.states or [])]
