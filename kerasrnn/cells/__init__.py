"""Recurrent cells: one file each, its equations in the docstring, in the letters of the code."""

from kerasrnn.arguments import positive_integer
from kerasrnn.cells.base import Cell
from kerasrnn.cells.gru import GRUCell, flip_update_gate
from kerasrnn.cells.gru_layer_norm import LayerNormGRUCell
from kerasrnn.cells.indrnn import IndRNNCell
from kerasrnn.cells.janet import JANETCell
from kerasrnn.cells.linear import LinearCell
from kerasrnn.cells.lru import LRUCell
from kerasrnn.cells.lstm import LSTMCell
from kerasrnn.cells.lstm_layer_norm import LayerNormLSTMCell
from kerasrnn.cells.lstm_peephole import PeepholeLSTMCell
from kerasrnn.cells.mgu import MGUCell
from kerasrnn.cells.mingru import MinGRUCell
from kerasrnn.cells.minlstm import MinLSTMCell
from kerasrnn.cells.nas import NASCell
from kerasrnn.cells.qrnn import QRNNCell
from kerasrnn.cells.ran import RANCell
from kerasrnn.cells.rg_lru import RGLRUCell
from kerasrnn.cells.rhn import RHNCell
from kerasrnn.cells.simple_rnn import SimpleRNNCell
from kerasrnn.cells.slstm import SLSTMCell
from kerasrnn.cells.sru import SRUCell
from kerasrnn.cells.ugrnn import UGRNNCell

CELLS = {
    "simple_rnn": SimpleRNNCell,
    "lstm": LSTMCell,
    "gru": GRUCell,
    "lstm_peephole": PeepholeLSTMCell,
    "lstm_layer_norm": LayerNormLSTMCell,
    "gru_layer_norm": LayerNormGRUCell,
    "indrnn": IndRNNCell,
    "mgu": MGUCell,
    "ugrnn": UGRNNCell,
    "rhn": RHNCell,
    "janet": JANETCell,
    "ran": RANCell,
    "nas": NASCell,
    "sru": SRUCell,
    "qrnn": QRNNCell,
    "mingru": MinGRUCell,
    "minlstm": MinLSTMCell,
    "lru": LRUCell,
    "rg_lru": RGLRUCell,
    "slstm": SLSTMCell,
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


class _Table(str):
    """Text that a Python prompt shows as it is."""

    __repr__ = str.__str__


def describe(features=64, units=128):
    """The registered cells as a table in Markdown: paper, states, number of parameters, and whether
    the cell is a linear recurrence.

    Args:
        features: Positive integer, number of features of the input.
        units: Positive integer, size of each state.

    Raises:
        ValueError: one of the two is no positive integer.

    Example:

    >>> print(kerasrnn.cells.describe(features=3, units=4)[:32])
    | cell | paper | states | parame
    """
    features, units = positive_integer("features", features), positive_integer("units", units)
    rows = [f"| cell | paper | states | parameters at ({features}, {units}) | linear |"]
    rows.append("|---|---|---|---|---|")
    for name, cell_class in CELLS.items():
        cell = cell_class(units)
        cell.build((None, features))
        linear = "yes" if cell.linear else cell.linear_if
        states = ", ".join(cell.states)
        rows.append(f"| `{name}` | {cell.paper} | {states} | {cell.count_params():,} | {linear} |")
    return _Table("\n".join(rows))


__all__ = [
    "CELLS",
    "Cell",
    "LinearCell",
    "describe",
    "flip_update_gate",
    "get",
    *(cell_class.__name__ for cell_class in CELLS.values()),
]
