"""A batch through the XLA programs: what is done around their loops, for the whole sequence.

rows in parts, one per core     XLA on a CPU runs a program's small operations on one core
rows by their length            a part runs from its first unmasked step to its last
p_t = W x_t + b                 for all steps of a part in one product
"""

import math
import os

import tensorflow as tf
from keras import ops

from kerasrnn import program

# Where parts get too small for their products.
_MOST_PARTS = 4


def run(
    cell,
    sequences,
    states,
    mask,
    training,
    go_backwards,
    zero_output_for_mask,
    return_sequences,
):
    """As `kerasrnn.recurrence.run`, for a cell of a registered class."""
    sequences = ops.cast(sequences, cell.compute_dtype)
    input_masks, state_masks = cell.dropout_masks(sequences, states, training)
    if mask is not None:
        mask = ops.cast(mask, "bool")
        mask = mask if len(mask.shape) == 3 else mask[:, :, None]
    if go_backwards:
        sequences, mask = (v if v is None else tf.reverse(v, [1]) for v in (sequences, mask))

    batch = sequences, mask, tuple(states), input_masks, state_masks
    size = sequences.shape[0]
    count = min(os.cpu_count(), _MOST_PARTS)
    if mask is not None:
        # More than there are cores, so that short rows need not wait for long ones.
        count *= 2
        lengths = tf.reduce_sum(tf.cast(mask, "int32"), [1, 2])
        order = tf.argsort(lengths, direction="DESCENDING")
        batch = _each(lambda v: _reordered(v, order), batch)
    count = min(count, size or count)
    size = size or tf.shape(sequences)[0]
    rows = -(-size // count)
    if sequences.shape[0] is None or size % count:
        batch = _each(lambda v: _with_more_rows(v, rows * count - size), batch)
    results = [
        _run_part(
            cell,
            *_each(lambda v, k=k: v[k * rows : (k + 1) * rows], batch),
            zero_output_for_mask,
            return_sequences,
            keep=training,
        )
        for k in range(count)
    ]
    whole = tf.nest.map_structure(lambda *parts: tf.concat(parts, 0)[:size], *results)
    if mask is not None:
        back = tf.argsort(order)
        whole = _each(lambda v: _reordered(v, back), whole)
    final, (output,) = whole
    last = output[:, -1] if return_sequences else output
    return last, output if return_sequences else output[:, None], final


def _each(function, batch):
    """Applies `function` to each tensor in `batch`."""
    return tf.nest.map_structure(lambda v: None if v is None else function(v), batch)


@tf.custom_gradient
def _reordered(v, order):
    """The rows of `v` in another order; TensorFlow takes the gradient of a gather for sparse."""
    return tf.gather(v, order), lambda d: (tf.gather(d, tf.argsort(order)), None)


def _with_more_rows(v, count):
    return tf.pad(v, [[0, count], *([0, 0] for _ in v.shape[1:])])


def _run_part(
    cell,
    sequences,
    mask,
    states,
    input_masks,
    state_masks,
    zero_output_for_mask,
    return_sequences,
    keep,
):
    known = sequences.shape[1]
    steps = known or tf.shape(sequences)[1]
    # A program is compiled per length: rounded up, batches of many lengths share a few.
    length = known or _rounded_up(steps)
    start, stop = (0, steps) if mask is None else _unmasked(mask)
    xs = _project(cell, sequences[:, start:stop], input_masks)
    by_time = None
    if mask is not None or not known:
        xs = tf.pad(xs, [[start, length - stop], [0, 0], [0, 0]])
    if mask is not None:
        by_time = tf.pad(tf.transpose(mask, [1, 0, 2]), [[0, length - steps], [0, 0], [0, 0]])

    final, outputs = program.run(
        *(cell, xs, states, by_time, state_masks),
        *(tf.convert_to_tensor(start), tf.convert_to_tensor(stop)),
        return_sequences,
        keep,
    )
    if not return_sequences:
        last = final[0]
        if mask is not None:
            shown = mask[:, -1] if zero_output_for_mask else tf.reduce_any(mask, 1)
            last = tf.where(shown, last, tf.zeros_like(last))
        return final, [last]
    (output,) = outputs
    if mask is not None:
        if zero_output_for_mask:
            shown = by_time
        else:
            shown = tf.cumsum(tf.cast(by_time, "int32")) > 0
            output = tf.where(tf.range(length)[:, None, None] < stop, output, final[0])
        output = tf.where(shown, output, tf.zeros_like(output))
    return final, [tf.transpose(output[:steps], [1, 0, 2])]


def _unmasked(mask):
    """The first step that not every row masks, and the one after the last."""
    some = tf.reduce_any(mask, [0, 2])
    steps = tf.range(tf.size(some))
    stop = tf.reduce_max(tf.where(some, steps + 1, 0))
    return tf.reduce_min(tf.where(some, steps, stop)), stop


def _project(cell, sequences, masks):
    """The projection, (time, batch, columns), as one product of two matrices: as a product of a
    batch of matrices its gradient would be one per step first, and their sum then."""
    inputs = tf.transpose(sequences, [1, 0, 2])
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
    return tf.ensure_shape(xs, [*inputs.shape[:2], projected.shape[1]])


def _rounded_up(steps):
    """To the next multiple of an eighth of the power of two below, and of 8."""
    power = tf.cast(tf.math.log(tf.cast(steps, "float64")) / math.log(2.0), "int32")
    unit = tf.bitwise.left_shift(1, tf.maximum(power - 3, 3))
    return (steps + unit - 1) // unit * unit
