"""Recurrent layers, their two directions, and the connections that let deep stacks train."""

from kerasrnn.layers.bidirectional import Bidirectional
from kerasrnn.layers.connections import DenselyConnected, Highway, Residual
from kerasrnn.layers.recurrent import GRU, LSTM, RNN, SimpleRNN
from kerasrnn.layers.stack import RNNStack

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "DenselyConnected",
    "Highway",
    "RNNStack",
    "Residual",
    "SimpleRNN",
]
