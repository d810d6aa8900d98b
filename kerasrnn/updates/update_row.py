"""One update as a row of numbers."""

import itertools

import tensorflow as tf

from kerasrnn.inside import layers_in
from kerasrnn.keras_cells import declarations

# A sum of squares from here on has lost nothing that counts to float32's least number, 1e-38.
_LEAST_SQUARES = 1e-24


class UpdateRow:
    """Computes the row of an update in the graph.

        ‖g_v‖_2     per variable v, before clipping
        ‖g_v‖_2     the same after clipping
        ‖g_vk‖_2    per gate k of a recurrent kernel v, before clipping: k's columns of v
        g · g'      with the gradients g' of the update before, where `products` asks for it

    Args:
        model: The model in training.
        variables: The variables that may be updated.
        products: Whether to keep a copy of all gradients until the next update.

    Attributes:
        gates: For the number of each recurrent kernel in `variables`, the names of its gates.
        width: Numbers per row.
    """

    def __init__(self, model, variables, products):
        gates = {id(kernel): names for kernel, names in _recurrent_kernels(model)}
        self.gates = {i: gates[id(v)] for i, v in enumerate(variables) if id(v) in gates}
        ends = itertools.accumulate(map(len, self.gates.values()), initial=2 * len(variables))
        *starts, end = ends
        self._starts = dict(zip(self.gates, starts, strict=True))
        self._variables = len(variables)
        # NaN, since the first update has none before it.
        self._previous = [
            tf.Variable(tf.fill(v.shape, float("nan")), trainable=False)
            for v in (variables if products else ())
        ]
        self.width = end + bool(self._previous)

    def __call__(self, columns, grads, before, after):
        """Computes the row.

        Args:
            columns: The number of each variable that is updated.
            grads: Their gradients.
            before, after: The same before and after clipping, without rows that occur twice; one
                list where nothing clips.
        """
        gated = [(i, g) for i, g in zip(columns, before, strict=True) if i in self.gates]
        blocks = [b for i, g in gated for b in tf.split(g, len(self.gates[i]), axis=-1)]
        places = [*columns, *(self._variables + i for i in columns)]
        places += [self._starts[i] + k for i, _ in gated for k in range(len(self.gates[i]))]
        if after is before:
            numbers = _norms([*before, *blocks])
            numbers = tf.concat([numbers[: len(before)], numbers], axis=0)
        else:
            numbers = _norms([*before, *after, *blocks])
        if self._previous:
            places.append(self.width - 1)
            numbers = tf.concat([numbers, [self._product(columns, grads)]], axis=0)
        return tf.scatter_nd([[place] for place in places], numbers, [self.width])

    def _product(self, columns, grads):
        products = []
        for i, gradient in zip(columns, grads, strict=True):
            gradient = tf.cast(tf.convert_to_tensor(gradient), "float32")
            products.append(tf.reduce_sum(self._previous[i] * gradient))
            self._previous[i].assign(gradient)
        return tf.add_n(products)


def _recurrent_kernels(model):
    """Each recurrent kernel in the model whose columns belong to gates, and their names."""
    for layer in layers_in(model):
        names = declarations(layer).recurrent_gates
        if names and layer.built:
            yield layer.recurrent_kernel, names


def _norms(tensors):
    """The L2 norms, which neither overflow nor vanish where the tensors themselves do not."""
    tensors = [tf.cast(t, "float32") for t in tensors]
    squares = _squares(tensors)
    safe = tf.reduce_all((squares >= _LEAST_SQUARES) & tf.math.is_finite(squares))

    def in_float64():
        return tf.cast(tf.sqrt(_squares([tf.cast(t, "float64") for t in tensors])), "float32")

    return tf.cond(safe, lambda: tf.sqrt(squares), in_float64)


def _squares(tensors):
    return 2 * tf.stack([tf.nn.l2_loss(t) for t in tensors])
