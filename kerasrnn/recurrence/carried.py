"""The plain loop without lists of tensors: what a converter can turn into the operations of a
runtime that has none, as LiteRT's, with sequences of any length.

The outputs are carried from step to step in one tensor, of which a step writes a row. Some runtimes
copy what a step carries, so that the rows of a block are written into a small tensor first, and a
block at once into that of all.
"""

import tensorflow as tf

from kerasrnn.recurrence import stepping

# Steps to a block.
_BLOCK = 32


def run(sequence_pass):
    """Runs the pass; returns what `kerasrnn.recurrence.run` does."""
    return stepping.run(sequence_pass, _carried)


def _carried(advance, steps, output, states, count, return_sequences):
    def turn(t, output, states):
        now = tf.nest.map_structure(lambda value: tf.gather(value, t), steps)
        return advance(now, output, states)

    if not return_sequences:

        def body(t, output, states):
            return t + 1, *turn(t, output, states)

        _, output, states = tf.while_loop(
            lambda t, *_: t < count, body, (tf.constant(0), output, states)
        )
        return output, output[None], states

    size = tf.minimum(count, _BLOCK)
    blocks = (count + size - 1) // size

    def block(k, outputs, output, states):
        start = k * size

        def body(t, rows, output, states):
            output, states = turn(start + t, output, states)
            return t + 1, _written(rows, t, output), output, states

        _, rows, output, states = tf.while_loop(
            lambda t, *_: t < tf.minimum(size, count - start),
            body,
            (tf.constant(0), _empty(size, output), output, states),
        )
        return k + 1, _written(outputs, k, rows), output, states

    outputs = _empty(blocks, tf.broadcast_to(output, tf.concat([[size], tf.shape(output)], 0)))
    _, outputs, output, states = tf.while_loop(
        lambda k, *_: k < blocks, block, (tf.constant(0), outputs, output, states)
    )
    whole = tf.concat([[blocks * size], tf.shape(output)], 0)
    outputs = tf.reshape(outputs, whole)[:count]
    outputs.set_shape([steps["x"].shape[0], *output.shape])
    return output, outputs, states


def _empty(count, row):
    """Zeros of the shape (count, *row.shape)."""
    rows = tf.zeros(tf.concat([[count], tf.shape(row)], 0), row.dtype)
    rows.set_shape([None, *row.shape])
    return rows


def _written(rows, t, row):
    return tf.tensor_scatter_nd_update(rows, [[t]], row[None])
