"""Keras's recurrent layers under a mask, which they hand on up to Keras 3.15; from 3.16 on they
warn that they do not."""

from kerasrnn.inside import layers_in


def keras_hands_on(layer):
    """The layer, in which those of Keras's own classes hand their masks on."""
    for one in layers_in(layer):
        if type(one).__module__.startswith("keras."):
            one.supports_masking = True
    return layer
