"""What is done for all steps of a pass at once, before and after the loop, under TensorFlow."""

import math

import tensorflow as tf

from kerasrnn.recurrence import prefix_scan
from kerasrnn.recurrence.sequence import where


def project(cell, inputs, masks):
    """The projection, (time, batch, columns), as one product of two matrices: as a product of a
    batch of matrices its gradient would be one per step first, and their sum then.

    Args:
        cell: A `Cell`.
        inputs: (time, batch, features).
        masks: The dropout masks, each (batch, 1, features), or `None`.
    """
    features = inputs.shape[2]
    if masks != (None,):
        masks = [
            tf.reshape(
                tf.broadcast_to(tf.transpose(mask, [1, 0, 2]), tf.shape(inputs)), [-1, features]
            )
            for mask in masks
        ]
    projected = cell.project(tf.reshape(inputs, [-1, features]), masks)
    xs = tf.reshape(projected, [*tf.unstack(tf.shape(inputs)[:2]), projected.shape[1]])
    # Not by tf.ensure_shape, through which TensorFlow has no forward-mode derivative in a graph.
    xs.set_shape([*inputs.shape[:2], projected.shape[1]])
    return xs


def in_parts(function, carry, values):
    """`function(carry, values)`, of all steps in one part."""
    return function(carry, values)


def shown(outputs, mask, zero_output_for_mask):
    """The outputs as masked steps show them: that of the last step that is not masked, zeros where
    there is none before, or zeros at all of them.

    Args:
        outputs: (time, batch, units), or with further axes.
        mask: (time, batch, 1) booleans.
        zero_output_for_mask: Whether they are zeros.
    """
    zeros = tf.zeros_like(outputs)
    unmasked = where(mask, outputs, zeros)
    if zero_output_for_mask:
        return unmasked
    # y_t = 1 ∘ y_{t-1} at a masked step.
    keep = where(mask, zeros, tf.ones_like(outputs))
    if len(outputs.shape) == 3:
        return prefix_scan.scan(keep, unmasked, zeros[0])
    shape = [*tf.unstack(tf.shape(outputs)[:2]), math.prod(outputs.shape[2:])]
    keep, unmasked = (tf.reshape(v, shape) for v in (keep, unmasked))
    repeated = prefix_scan.scan(keep, unmasked, tf.zeros_like(unmasked[0]))
    return tf.reshape(repeated, tf.shape(outputs))
