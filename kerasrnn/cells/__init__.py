"""Recurrent cells: one file each, its equations in the docstring, in the letters of the code."""

from kerasrnn.cells.base import Cell
from kerasrnn.cells.gru import GRUCell, flip_update_gate
from kerasrnn.cells.lstm import LSTMCell
from kerasrnn.cells.simple_rnn import SimpleRNNCell

CELLS = {
    "simple_rnn": SimpleRNNCell,
    "lstm": LSTMCell,
    "gru": GRUCell,
}


def get(name):
    """The class of a registered cell.

    Args:
        name: A key of `CELLS`.

    Raises:
        ValueError: `name` is not registered; the message lists what is.
    """
    if not isinstance(name, str) or name not in CELLS:
        raise ValueError(
            f"Unknown cell. `cell` must be one of {', '.join(CELLS)}. Received: cell={name!r}"
        )
    return CELLS[name]


__all__ = ["CELLS", "Cell", "GRUCell", "LSTMCell", "SimpleRNNCell", "flip_update_gate", "get"]
