"""What is known of Keras's cells, in the words in which the cells of this package declare it."""

import contextlib
from typing import NamedTuple

import keras

from kerasrnn.cells import Cell


class Declarations(NamedTuple):
    """What a cell says of itself; each attribute is that of `kerasrnn.cells.Cell`.

    Attributes:
        states: The names of its states.
        recurrent_gates: A name per block of columns of its recurrent kernel, in order.
        gated: The gates that a step takes `recurrent_activation` of, in that order.
        keeps, writes: The gates that, open, keep the state and that write it.
    """

    states: tuple = ()
    recurrent_gates: tuple = ()
    gated: tuple = ()
    keeps: tuple = ()
    writes: tuple = ()


# The candidates, c of Keras's LSTM and h of its GRU, are called g as in this package, where c and h
# are states.
KERAS_CELLS = {
    keras.layers.SimpleRNNCell: Declarations(states=("h",), recurrent_gates=("h",)),
    keras.layers.LSTMCell: Declarations(
        states=("h", "c"),
        recurrent_gates=("i", "f", "g", "o"),
        gated=("i", "f", "o"),
        keeps=("f",),
        writes=("i",),
    ),
    keras.layers.GRUCell: Declarations(
        states=("h",),
        recurrent_gates=("z", "r", "g"),
        gated=("z", "r"),
        keeps=("z",),
    ),
}
_UNKNOWN = Declarations()


def declarations(cell):
    """The names of a cell's states and gates, as attributes.

    Args:
        cell: Any layer.

    Returns:
        A cell of this package itself, which declares them; for one of Keras's, or a subclass of it,
        its `Declarations`; for any other layer, of which nothing is known, empty ones.
    """
    if isinstance(cell, Cell):
        return cell
    known = (table for kind, table in KERAS_CELLS.items() if isinstance(cell, kind))
    return next(known, _UNKNOWN)


@contextlib.contextmanager
def nothing_dropped(cell):
    """Keeps Keras's cells, inside, from drawing the masks of their dropout: they draw them where
    they do not train, too, so that a validation would change what is drawn in training.

    Args:
        cell: Any cell, or `keras.layers.StackedRNNCells` of them.
    """
    kept = [
        (one, name, getattr(one, name))
        for one in getattr(cell, "cells", [cell])
        if hasattr(one, "get_dropout_mask")
        for name in ("dropout", "recurrent_dropout")
    ]
    for one, name, _ in kept:
        setattr(one, name, 0.0)
    try:
        yield
    finally:
        for one, name, rate in kept:
            setattr(one, name, rate)
