"""Arithmetic of gradients that may be sparse."""

from keras import ops

from kerasrnn.backends import BACKEND, framework, tf

# A norm from here on comes from squares that have lost nothing that counts to float32's least
# number, 1e-38.
_LEAST_NORM = 1e-12


def has_rows(gradient):
    """Whether a gradient is a `tf.IndexedSlices`, as TensorFlow has that of an embedding."""
    return tf is not None and isinstance(gradient, tf.IndexedSlices)


def norm(gradient, axis=None):
    """The L2 norm, over all entries or over the axes `axis`, which then stay with length 1; in a
    form that does not overflow where the gradient itself does not."""
    values = ops.cast(sum_rows(gradient), "float32")
    keepdims = axis is not None
    largest = ops.max(ops.abs(values), axis, keepdims)
    scale = ops.where((largest > 0) & ops.isfinite(largest), largest, 1.0)
    return scale * ops.sqrt(ops.sum(ops.square(values / scale), axis, keepdims))


def norms(tensors, least=_LEAST_NORM):
    """The L2 norms of tensors without rows, (tensors,), which neither overflow nor vanish where the
    tensors themselves do not, but for norms that `least` lets go."""

    def scaled():
        return ops.stack([norm(t) for t in tensors])

    plain = _plain_norms(tensors)
    safe = (plain >= least) & ops.isfinite(plain)
    if BACKEND == "torch":
        # `ops.cond` takes longer there than what it chooses from.
        return plain if safe.all() else scaled()
    return ops.cond(ops.all(safe), lambda: plain, scaled)


def _plain_norms(tensors):
    """The L2 norms from squares, which may overflow and vanish."""
    if BACKEND == "torch":
        float32, norm_of = framework.float32, framework.linalg.vector_norm
        return framework.stack([norm_of(t, dtype=float32) for t in tensors])
    return ops.sqrt(ops.stack([_square(ops.cast(t, "float32")) for t in tensors]))


def _square(tensor):
    # One kernel of TensorFlow, where a sum of squares is two.
    return ops.sum(ops.square(tensor)) if tf is None else 2 * tf.nn.l2_loss(tensor)


def nonfinite(tensors):
    """Which tensors hold an Inf or NaN, booleans (tensors,)."""
    if BACKEND == "torch":
        # Its norm is one kernel, its `isfinite` are several of ten times the time.
        flags = ~framework.isfinite(_plain_norms(tensors))
        if not flags.any():
            return flags
    return ops.stack([ops.any(~ops.isfinite(t)) for t in tensors])


def global_norm(gradients):
    """The L2 norm of all gradients together."""
    if BACKEND == "torch":
        return norms([norms(gradients)])[0]
    return norm(ops.stack([norm(g) for g in gradients]))


def scale(gradient, factor):
    """The gradient times a factor; rows stay rows."""
    if has_rows(gradient):
        values = scale(gradient.values, factor)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return gradient * ops.cast(factor, gradient.dtype)


def zeros_like(gradient):
    """Zeros in its place; rows stay rows."""
    if has_rows(gradient):
        values = tf.zeros_like(gradient.values)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return ops.zeros_like(gradient)


def dense(gradient):
    """The gradient as one tensor, with all rows."""
    return tf.convert_to_tensor(gradient) if has_rows(gradient) else gradient


def sum_rows(gradient):
    """The gradient; of an `IndexedSlices` its values, with rows of the same index summed."""
    if not has_rows(gradient):
        return gradient
    return unique_rows(gradient).values


def unique_rows(gradient):
    """An `IndexedSlices` with rows of the same index summed into one; rows of zeros fill it up.

    By sorting, since `tf.unique` has no static shape and so no XLA.
    """
    indices = tf.reshape(gradient.indices, [-1])
    order = tf.argsort(indices)
    sorted_indices = tf.gather(indices, order)
    starts = tf.cast(sorted_indices[1:] != sorted_indices[:-1], "int32")
    segments = tf.concat([[0], tf.cumsum(starts)], axis=0)
    count = tf.size(indices)
    values = tf.math.unsorted_segment_sum(tf.gather(gradient.values, order), segments, count)
    # A segment without rows would get the least integer there is.
    indices = tf.maximum(tf.math.unsorted_segment_max(sorted_indices, segments, count), 0)
    return tf.IndexedSlices(values, indices, gradient.dense_shape)
