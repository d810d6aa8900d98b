"""Small layers whose numbers on one path are compared with those on another."""

import keras
import numpy as np
import tensorflow as tf

from kerasrnn import cells, layers

KINDS = {
    "simple_rnn": (layers.SimpleRNN, {}),
    "lstm": (layers.LSTM, {}),
    "gru": (layers.GRU, {}),
    "gru_reset_before": (layers.GRU, {"reset_after": False}),
    "gru_of_the_lecture": (layers.GRU, {"reset_after": False, "update_gate": "write"}),
    "lstm_without_bias": (layers.LSTM, {"use_bias": False}),
    "gru_without_bias": (layers.GRU, {"use_bias": False}),
}
MASK = np.array([[1, 0, 1, 1, 0, 1], [0, 1, 0, 0, 1, 0], [1, 1, 1, 0, 0, 0]], bool)
RESET = np.array([[0, 0, 1, 0, 0, 1], [1, 0, 0, 1, 1, 0], [0, 1, 0, 0, 0, 0]], bool)
X = np.random.default_rng(1).normal(size=(3, 6, 4))


def build(kind, random_weights, **options):
    cls, fixed = KINDS[kind]
    layer = cls(5, **fixed, **options)
    layer.build((3, 6, 4))
    random_weights(layer)
    return layer


def outputs_and_gradients(layer, x, **call):
    x = tf.convert_to_tensor(x)
    states = [tf.ones((x.shape[0] or 3, 5), x.dtype) * 0.3 for _ in layer.cell.states]
    with tf.GradientTape() as tape:
        tape.watch([x, *states])
        y = layer(x, initial_state=states, training=True, **call)
        loss = sum(tf.reduce_sum(tf.sin(3.0 * part)) for part in tf.nest.flatten(y))
    return y, tape.gradient(loss, [x, *states, *layer.trainable_weights])


def assert_same(ours, theirs, tolerance=1e-5):
    for mine, other in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
        mine, other = (
            keras.ops.convert_to_numpy(keras.ops.cast(v, "float64")) for v in (mine, other)
        )
        np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance * np.abs(other).max())


def gradients_of(layer, x, mask=None):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, mask=mask, training=True)
        loss = sum(tf.reduce_sum(tf.sin(3.0 * part)) for part in tf.nest.flatten(y))
    return y, tape.gradient(loss, [x, *layer.trainable_weights])


class Peephole(cells.LSTMCell):
    """Uses a weight outside of products: p in o_t = σ(... + p ∘ c_t)."""

    def build(self, input_shape):
        super().build(input_shape)
        self.peephole = self.add_weight(shape=(self.units,), name="peephole")

    def step(self, x, states, product):
        h, c = super().step(x, states, product)
        return h * keras.ops.sigmoid(self.peephole * c), c
