"""The time loop itself, by what gates promise: information can be kept for as long as one likes."""

import numpy as np
import tensorflow as tf

from kerasrnn import cells, recurrence

STEPS = 10_000


def test_a_gru_that_never_writes_keeps_its_state(rng, random_weights):
    cell = cells.GRUCell(3, update_gate="write", reset_after=False)
    cell.build((None, 2))
    random_weights(cell)
    kernel, recurrent, bias = cell.get_weights()
    # u = σ(-1000 + ...) is 0 to the last bit.
    bias[:3] = -1000
    cell.set_weights([kernel, recurrent, bias])
    h = rng.normal(size=(1, 3)).astype("float32")
    x = tf.constant(rng.normal(size=(1, STEPS, 2)), "float32")
    run = tf.function(lambda: recurrence.run(cell, x, [tf.constant(h)], return_sequences=False))
    _, _, (final,) = run()
    np.testing.assert_array_equal(final, h)


def test_an_lstm_that_forgets_nothing_and_writes_nothing_keeps_its_cell(rng, random_weights):
    cell = cells.LSTMCell(3)
    cell.build((None, 2))
    random_weights(cell)
    kernel, recurrent, bias = cell.get_weights()
    bias[:3], bias[3:6] = -1000, 1000
    cell.set_weights([kernel, recurrent, bias])
    h, c = rng.normal(size=(2, 1, 3)).astype("float32")
    x = tf.constant(rng.normal(size=(1, STEPS, 2)), "float32")
    run = tf.function(
        lambda: recurrence.run(cell, x, [tf.constant(h), tf.constant(c)], return_sequences=False)
    )
    _, _, (_, final) = run()
    np.testing.assert_array_equal(final, c)
