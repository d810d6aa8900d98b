"""Which tensors have gradients."""

import keras
from keras import ops, tree


def is_float(part):
    """Whether it is a tensor of floats."""
    return ops.is_tensor(part) and keras.backend.is_float_dtype(
        keras.backend.standardize_dtype(part.dtype)
    )


def floats_in(structure):
    """The tensors of floats in it, as a list."""
    return [part for part in tree.flatten(structure) if is_float(part)]
