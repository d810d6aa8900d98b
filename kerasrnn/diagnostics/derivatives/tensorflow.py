"""Derivatives under TensorFlow, by tapes."""

import math

from keras import ops

from kerasrnn.backends import tf
from kerasrnn.diagnostics.derivatives.floats import floats_in

REJECTIONS = (ValueError, tf.errors.InvalidArgumentError)


class WayBack:
    """Runs a function, and remembers the way back through it.

    Args:
        function: `function(source)` gives the outputs, a list of tensors, and whatever else is
            wanted. It calls `source(tensor)`, always in the same order, for each tensor to which
            gradients are to go back, and goes on with what that returns. JAX has to run it again
            for each output.
        variables: Those with regularizers, where it asks for the losses of a model. JAX has to know
            them.

    Attributes:
        outputs, others: What the function gave, with values in all tensors.
    """

    def __init__(self, function, variables=()):
        self._sources = []
        self._tape = tf.GradientTape(persistent=True, watch_accessed_variables=False)
        with self._tape:
            self.outputs, self.others = function(self._source)

    def _source(self, tensor):
        self._tape.watch(tensor)
        self._sources.append(tensor)
        return tensor

    def back(self, gradient, output=0):
        """The gradient of each source, zeros where no way leads to it, from that of an output."""
        return back_on(self._tape, self.outputs[output], self._sources, gradient)

    def back_each(self, gradients, output=0):
        """As `back`, from several gradients of an output, one after the other."""
        for gradient in gradients:
            yield self.back(gradient, output)


def back_on(tape, output, sources, gradient):
    """As `WayBack.back`, on a persistent tape; of a sparse gradient the rows."""
    arrived = tape.gradient(
        output,
        sources,
        output_gradients=tf.cast(gradient, output.dtype),
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return [tf.cast(getattr(g, "values", g), "float64") for g in arrived]


def depends(function, arguments):
    """Whether a gradient leads from a float in `function(*arguments)` to one in the structure
    `arguments`, by what the operations on the way are, and not by the values there."""
    taken = floats_in(arguments)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(taken)
        outputs = floats_in(function(*arguments))
    gradients = tape.gradient(outputs, taken) if outputs and taken else []
    return any(gradient is not None for gradient in gradients)


def change_gradient(tensor, change):
    """The tensor; on each way back, its gradient g becomes `change(g)`."""

    @tf.custom_gradient
    def same(tensor):
        return tf.identity(tensor), change

    return same(tensor)


def norms(gradient):
    """(b, a), the L2 norms of a gradient (a, b, ...) over all further axes."""
    a, b = ops.shape(gradient)[:2]
    flat = tf.reshape(gradient, [a, b, math.prod(gradient.shape[2:])])
    return tf.transpose(tf.norm(flat, axis=-1))


def where_finite(gradients, others):
    """`gradients` if all of them are finite, or else `others`."""
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
    return [tf.where(finite, g, other) for g, other in zip(gradients, others, strict=True)]
