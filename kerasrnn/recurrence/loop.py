"""The plain loop in TensorFlow's own operations, as they are best vectorized, exported and undone:
one step after the other, for any cell; what runs in eager calls and in what is exported."""

import tensorflow as tf
from keras import tree

from kerasrnn.recurrence import stepping


def refuses(sequence_pass):
    """`None`: it takes every pass."""
    return None


def run(sequence_pass):
    """Runs the pass; returns what `kerasrnn.recurrence.run` does."""
    return stepping.run(sequence_pass, _while)


def _while(advance, steps, output, states, count, return_sequences):
    """As `kerasrnn.recurrence.stepping.unrolled`."""

    def array(size, dtype, shape):
        return tf.TensorArray(dtype, size, element_shape=shape)

    arrays = tf.nest.map_structure(lambda v: array(count, v.dtype, v.shape[1:]).unstack(v), steps)
    # What is returned is read from arrays. A value that is carried, returned, and read by no step,
    # as an output mostly is, TensorFlow cannot vectorize the gradient of a loop with respect to.
    outputs = array(count if return_sequences else 1, output.dtype, output.shape)
    finals = tree.map_structure(lambda state: array(1, state.dtype, state.shape), states)

    def body(t, outputs, finals, output, states):
        now = tf.nest.map_structure(lambda array: array.read(t), arrays)
        output, states = advance(now, output, states)
        outputs = outputs.write(t if return_sequences else 0, output)
        finals = tree.map_structure(lambda array, state: array.write(0, state), finals, states)
        return t + 1, outputs, finals, output, states

    _, outputs, finals, _, _ = tf.while_loop(
        lambda t, *_: t < count,
        body,
        (tf.constant(0), outputs, finals, output, states),
        maximum_iterations=count,
        parallel_iterations=32,
        swap_memory=True,
    )
    outputs = outputs.stack()
    return outputs[-1], outputs, tree.map_structure(lambda array: array.read(0), finals)
