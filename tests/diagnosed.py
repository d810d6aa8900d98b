"""Nets whose diagnosis has the same numbers under all of Keras's backends; as a script: diagnoses
those in a folder, where importing TensorFlow is an error, and writes the numbers beside them."""

import pathlib
import sys

if __name__ == "__main__":
    sys.modules["tensorflow"] = None

import keras
import numpy as np

from kerasrnn import diagnostics, layers
from kerasrnn.diagnostics.spectrum import recurrent_matrices
from kerasrnn.inside import recurrent_paths

BATCH, TIME, FEATURES = 3, 7, 4
_rng = np.random.default_rng(3)
# Gaps inside, padding before and after.
MASK = np.array([[0, 1, 1, 0, 1, 1, 1], [1, 1, 0, 1, 1, 0, 0], [1] * TIME], bool)
X = (_rng.normal(size=(BATCH, TIME, FEATURES)) * MASK[:, :, None]).astype("float32")
TOKENS = (_rng.integers(1, 9, (BATCH, TIME)) * MASK).astype("int32")


def nets():
    """The layers of each net, by name."""
    sequences = {"return_sequences": True}
    masking, head = keras.layers.Masking(), keras.layers.Dense(2, name="head")
    return {
        "lstm": [masking, layers.LSTM(5, **sequences), head],
        "theirs": [masking, keras.layers.GRU(5, **sequences), head],
        "both": [
            layers.Bidirectional(layers.GRU(4, kernel_regularizer="l2", **sequences)),
            keras.layers.ActivityRegularization(l2=0.1),
            head,
        ],
        "stack": [masking, layers.RNNStack("slstm", 4, 2, "residual", project=True, **sequences)],
        "linear": [masking, layers.MinGRU(5, **sequences), layers.SimpleRNN(3, unroll=True)],
        "stateful": [layers.LSTM(5, stateful=True, go_backwards=True, **sequences), head],
        "tokens": [keras.layers.Embedding(9, 4, mask_zero=True), layers.GRU(5, **sequences), head],
    }


def net(name):
    """The compiled net of that name, and its input."""
    x = TOKENS if name == "tokens" else X
    model = keras.Sequential([keras.Input(x.shape[1:], BATCH, dtype=x.dtype.name), *nets()[name]])
    model.compile("sgd", "mse")
    return model, x


def diagnosis(model, x):
    """The numbers of the diagnostics, by name."""
    y = np.random.default_rng(4).normal(size=model.output_shape).astype("float32")
    flow = diagnostics.gradient_flow(model, x, y)
    numbers = {"loss": flow.loss}
    for path, layer, _ in recurrent_paths(model):
        numbers |= {f"{path} {state}": norms for state, norms in flow.per_state[path].items()}
        numbers[f"{path} profile"] = flow.profile[path]
        numbers[f"{path} slope"] = flow.slope[path]
        inputs = np.random.default_rng(5).normal(size=(2, 9, layer.cell.kernel.shape[0]))
        numbers[f"{path} Jacobian"] = diagnostics.recurrent_jacobian(layer, inputs[:, 0])
        numbers[f"{path} exponent"] = diagnostics.lyapunov_exponent(layer, inputs)
        for gate in recurrent_matrices(layer):
            numbers[f"{path} {gate} radius"] = diagnostics.spectral_radius(layer, gate)
    if len(model.output_shape) == 3:
        leak = diagnostics.is_causal(model, x).leak
        numbers["leak"] = (-1, -1) if leak is None else leak[1:]
    return {name: np.asarray(value) for name, value in numbers.items()}


if __name__ == "__main__":
    for file in pathlib.Path(sys.argv[1]).glob("*.keras"):
        model = keras.models.load_model(file)
        x = TOKENS if file.stem == "tokens" else X
        np.savez(file.with_suffix(".npz"), **diagnosis(model, x))
