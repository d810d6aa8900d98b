"""Models saved by release 0.1, before its modules were moved, load and give the same numbers; and
all that is registered does so in a process that has made none of it."""

import inspect
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import kerasrnn
from kerasrnn import cells, initializers, layers

FOLDER = pathlib.Path(__file__).parent / "saved"


@pytest.mark.parametrize("name", ["connections", "cells"])
def test_a_saved_model_gives_the_numbers_it_gave(name):
    """The first holds stacks, directions, connections, initializers and a schedule; the second
    every registered cell, with states that a stateful layer has kept."""
    model = keras.models.load_model(FOLDER / f"{name}.keras")
    with np.load(FOLDER / f"{name}.npz") as file:
        x, y = file["x"], file["y"]
        rate = float(file["lr"]) if "lr" in file else None
    np.testing.assert_allclose(model(x), y, rtol=1e-5, atol=1e-6)
    if rate is not None:
        np.testing.assert_allclose(float(model.optimizer.learning_rate), rate, rtol=1e-6)


# Arguments, for each layer, that its constructor cannot do without.
LAYERS = {
    "Bidirectional": lambda: layers.Bidirectional(
        layers.GRU(3, return_sequences=True), merge_mode="gate"
    ),
    "DenselyConnected": lambda: layers.DenselyConnected(
        [layers.GRU(3, return_sequences=True), keras.layers.GRU(2)]
    ),
    "GRU": lambda: layers.GRU(3, update_gate="write", use_cudnn=False),
    "Highway": lambda: layers.Highway(layers.Bidirectional(sequence("lstm")), project=True),
    "LRU": lambda: layers.LRU(3, go_backwards=True, initial_state="learned"),
    "LSTM": lambda: layers.LSTM(3, zoneout={"h": 0.1, "c": 0.2}, normalization="layer"),
    "MinGRU": lambda: layers.MinGRU(3, zoneout=0.2),
    "MinLSTM": lambda: layers.MinLSTM(3, bias_initializer=initializers.PowerLaw(2.0)),
    "RNN": lambda: layers.RNN([cells.MGUCell(3), keras.layers.LSTMCell(2)], unroll=True),
    "RNNStack": lambda: layers.RNNStack(
        "lstm", [3, 3], connection="dense", bidirectional=True, normalization="layer"
    ),
    "Residual": lambda: layers.Residual(
        keras.layers.TimeDistributed(keras.layers.Dense(3)), project=True
    ),
    "SimpleRNN": lambda: layers.SimpleRNN(3, bias_regularizer="l2", kernel_constraint="max_norm"),
}


def sequence(cell):
    return layers.RNN(cell, units=3, return_sequences=True)


def everything(names):
    """A model with every public layer, with these cells, by themselves, in a stack and in both
    directions, and with all that a call can take."""
    x = keras.Input((5, 4), name="x")
    reset = keras.Input((5,), dtype="bool", name="reset")
    masked = keras.layers.Masking()(x)
    outputs = [make()(masked) for make in LAYERS.values()]
    outputs += [keras.layers.Concatenate()([outputs[0], outputs[0]])]
    for name in names:
        y = sequence(name)(masked, reset=reset)
        outputs.append(layers.Bidirectional(layers.RNN(name, units=2))(y))
        outputs.append(layers.RNNStack(name, 3, 2, connection="residual", project=True)(x))
    for chrono in (initializers.Chrono(9), initializers.ForgetBias(2.0)):
        y, h = layers.GRU(3, bias_initializer=chrono, return_state=True)(x, mask=False)
        outputs += [y, layers.MinGRU(3)(masked, initial_state=h, mask=False)]
    outputs.append(
        layers.RNNStack(lambda units, **rates: cells.GRUCell(units, **rates), 3, 2, dropout=0.1)(x)
    )
    model = keras.Model([x, reset], outputs)
    model.compile("sgd", "mse")
    return model


LOAD = """
import sys
import keras
import numpy as np
import kerasrnn

model = keras.models.load_model(sys.argv[1], safe_mode=True)
with np.load(sys.argv[2]) as file:
    y = model([file["x"], file["reset"]])
    for i, one in enumerate(y):
        np.testing.assert_allclose(one, file[str(i)], rtol=1e-5, atol=1e-6)
kinds = {type(layer).__name__ for layer in model._flatten_layers()}
print(*sorted(kinds))
"""


@pytest.mark.parametrize(
    "names", [["lru", "slstm"], pytest.param([*cells.CELLS], marks=pytest.mark.slow)]
)
def test_what_one_process_saves_another_loads(names, tmp_path, random_weights):
    assert {name for name in layers.__all__ if inspect.isclass(getattr(layers, name))} == {*LAYERS}
    model = everything(names)
    random_weights(model)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 4)).astype("float32")
    x[0, 3:] = 0
    reset = rng.random((2, 5)) < 0.3
    y = {str(i): one for i, one in enumerate(model([x, reset]))}
    np.savez(tmp_path / "data.npz", x=x, reset=reset, **y)
    model.save(tmp_path / "model.keras")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path / "model.keras", tmp_path / "data.npz"],
        cwd=pathlib.Path(kerasrnn.__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    classes = {cells.CELLS[name].__name__ for name in names} | {*LAYERS}
    assert classes <= {*done.stdout.split()}
