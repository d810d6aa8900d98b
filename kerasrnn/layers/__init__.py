"""Recurrent layers, their two directions, and the connections that let deep stacks train."""

from kerasrnn.layers.bidirectional import Bidirectional
from kerasrnn.layers.connections import DenselyConnected, Highway, Residual
from kerasrnn.layers.convert.arrays import from_onnx, from_tf1
from kerasrnn.layers.convert.keras_models import from_keras, to_keras
from kerasrnn.layers.convert.torch_nn import from_torch, to_torch
from kerasrnn.layers.named import GRU, LRU, LSTM, MinGRU, MinLSTM, SimpleRNN
from kerasrnn.layers.rnn import RNN
from kerasrnn.layers.stack import RNNStack

__all__ = [
    "GRU",
    "LRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "DenselyConnected",
    "Highway",
    "MinGRU",
    "MinLSTM",
    "RNNStack",
    "Residual",
    "SimpleRNN",
    "from_keras",
    "from_onnx",
    "from_tf1",
    "from_torch",
    "to_keras",
    "to_torch",
]
