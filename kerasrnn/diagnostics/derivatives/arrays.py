"""Gradients as arrays of NumPy, and taps as the way to a source."""

import numpy as np

from kerasrnn.inside import attach_mask, attached_mask


def plus_tap(tensor, tap):
    """What a function goes on with in the place of the tensor, with the mask that Keras has
    attached to it."""
    tapped = tensor + tap
    mask = attached_mask(tensor)
    if mask is not None:
        attach_mask(tapped, mask)
    return tapped


def norms(gradient):
    """As under TensorFlow."""
    return np.linalg.norm(gradient.reshape(*gradient.shape[:2], -1), axis=-1).T


def where_finite(gradients, others):
    """As under TensorFlow."""
    return gradients if all(np.isfinite(g).all() for g in gradients) else others
