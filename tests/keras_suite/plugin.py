"""A pytest plugin that puts our classes in the place of Keras's own, so that Keras's test suite
tests them: its tests look a class up when they run."""

import collections
import os

import pytest
from keras import ops
from keras.src import layers as keras_layers
from keras.src import testing

from kerasrnn import cells, layers

OURS = [layers.RNN, layers.SimpleRNN, layers.LSTM, layers.GRU, layers.Bidirectional]
OURS += [cells.SimpleRNNCell, cells.LSTMCell, cells.GRUCell]

made = collections.Counter()


class SwappedGates(cells.GRUCell):
    """A GRU with z and r exchanged: the control, which must not pass."""

    def step(self, x, states, product):
        def swap(gates):
            z, r, g = self.split(gates, "z", "r", "g")
            return ops.concatenate([r, z, g], axis=-1)

        return super().step(swap(x), states, lambda gates, v: swap(product(gates, v)))


@pytest.fixture(autouse=True)
def ours(monkeypatch):
    for cls in OURS:
        monkeypatch.setattr(keras_layers, cls.__name__, cls)
        new = cls.__new__

        def counting(cls, *args, new=new, **kwargs):
            made[cls.__name__] += 1
            return new(cls, *args, **kwargs)

        monkeypatch.setattr(cls, "__new__", counting)
    run_layer_test = testing.TestCase.run_layer_test

    def hands_masks_on(self, layer_cls, *args, **expected):
        # From 3.16 on Keras's own do not, and its tests expect that.
        if layer_cls in OURS and "supports_masking" in expected:
            expected["supports_masking"] = True
        return run_layer_test(self, layer_cls, *args, **expected)

    monkeypatch.setattr(testing.TestCase, "run_layer_test", hands_masks_on)
    if os.environ.get("KERAS_SUITE_SWAP"):
        monkeypatch.setitem(cells.CELLS, "gru", SwappedGates)


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"made: {dict(made)}")
