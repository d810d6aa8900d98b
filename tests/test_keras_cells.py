"""What is known of Keras's cells is what their namesakes here, with the same weights, declare."""

import keras
import numpy as np
import pytest

from kerasrnn import cells
from kerasrnn.keras_cells import KERAS_CELLS, Declarations, declarations

OURS = {
    keras.layers.SimpleRNNCell: cells.SimpleRNNCell,
    keras.layers.LSTMCell: cells.LSTMCell,
    keras.layers.GRUCell: cells.GRUCell,
}


@pytest.mark.parametrize("kind", KERAS_CELLS)
def test_keras_s_cells_and_ours_declare_the_same(kind, random_weights):
    ours, theirs = OURS[kind](3), kind(3)
    for cell in (ours, theirs):
        cell.build((None, 2))
    random_weights(ours)
    theirs.set_weights(ours.get_weights())
    assert declarations(ours) is ours
    for name in Declarations._fields:
        assert getattr(declarations(theirs), name) == tuple(getattr(ours, name)), name
    # In the same order, since the step gives the same.
    x, states = np.ones((1, 2), "float32"), ours.get_initial_state(1)
    for mine, other in zip(ours(x, states)[1], theirs(x, states)[1], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_a_subclass_of_keras_s_is_known_and_a_namesake_is_not():
    class Mine(keras.layers.LSTMCell):
        pass

    class LSTMCell(keras.layers.Layer):
        state_size = 3

    assert declarations(Mine(3)) == KERAS_CELLS[keras.layers.LSTMCell]
    for layer in (LSTMCell(), keras.layers.Dense(3)):
        assert declarations(layer) == ((),) * len(Declarations._fields)
