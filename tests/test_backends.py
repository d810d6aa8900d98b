"""Keras's other backends: a share of the generic tests, as a slow test all of them; files that are
written under one and read under another; and the benchmark for a GPU, on what is there."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from other_backends import OTHERS, ROOT, under

from kerasrnn import cells, layers

GENERIC = (
    *("cells", "cell_options", "portable", "recurrence", "loop", "rnn", "states", "checks"),
    *("bidirectional", "connections", "group", "stack", "initializers", "losses"),
    *("callbacks_everywhere", "derivatives", "gradients", "seams"),
)
OF_BACKEND = {"jax": ("bptt", "blocks", "linear_scan"), "torch": ("torch_kernels", "torch_gru")}
# Every cell under masks and resets, backwards, and its gradient; states from batch to batch; the
# callbacks; the diagnostics; the path that a backend has of its own.
SHARE = [
    *(f"tests/test_portable.py::test_is_the_twin[{name}-backwards]" for name in cells.CELLS),
    *(
        f"tests/test_portable.py::test_the_gradient_is_that_of_finite_differences[{name}-backwards]"
        for name in cells.CELLS
    ),
    "tests/test_states.py::test_fit_evaluate_and_predict_go_on_where_the_batch_before_ended[LSTM]",
    "tests/test_callbacks_everywhere.py::test_norms_and_losses_are_those_of_the_steps",
    "tests/test_callbacks_everywhere.py::test_the_guard_leaves_a_bad_batch_out[None]",
    "tests/test_derivatives.py::test_gradient_flow[True-ours]",
]
SHARE_OF = {
    "jax": ["tests/test_bptt.py::test_a_fit_is_that_of_the_plain_loop"],
    "torch": [
        "tests/test_torch_kernels.py::test_values_and_gradients_are_those_of_the_loop",
        "tests/test_torch_gru.py",
    ],
}
QUIET = ("-m", "pytest", "-q", "-p", "no:cacheprovider")


@pytest.mark.tensorflow
@pytest.mark.parametrize("backend", OTHERS)
def test_a_share_of_the_generic_tests(backend):
    assert " passed" in under(backend, *QUIET, *SHARE, *SHARE_OF[backend])


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "name"), [(b, name) for b in OTHERS for name in (*GENERIC, *OF_BACKEND[b])]
)
def test_the_generic_tests(backend, name):
    assert " passed" in under(backend, *QUIET, f"tests/test_{name}.py")


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", *OTHERS])
def test_the_benchmark_for_a_gpu(backend, tmp_path):
    """It fails where a layer is not right or fails."""
    small = ["benchmarks/gpu.py", "--small", "--backends", backend, "--out", tmp_path / "gpu.json"]
    if backend in OTHERS:
        printed = under(backend, *small)
    else:
        done = subprocess.run(
            [sys.executable, *map(str, small)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        printed = done.stdout
    assert f"## {backend}: no GPU" in printed


# A part of it is run under the backend that reads, where importing TensorFlow is an error.
READ = """
import pathlib, sys
sys.modules["tensorflow"] = None
import keras
import numpy as np
import kerasrnn
from kerasrnn import activations, callbacks, cells, diagnostics, export, initializers, layers
from kerasrnn import losses, recurrence, tasks, tuning
from kerasrnn.backends import BACKEND, tf
from kerasrnn.diagnostics import plots

folder = pathlib.Path(sys.argv[1])
assert tf is None and keras.backend.backend() == BACKEND
data = np.load(folder / "data.npz")
for file in sorted(folder.glob("*.keras")):
    # The optimizers of some backends are classes that no other has.
    model = keras.models.load_model(file, compile=False)
    y = model.predict(data["x"], batch_size=len(data["x"]), verbose=0)
    np.testing.assert_allclose(y, data[file.stem], rtol=0, atol=1e-5, err_msg=file.stem)
    # As it was read, without what a stateful layer has gone through since.
    model = keras.models.load_model(file, compile=False)
    model.compile("sgd", "mse")
    model.save(folder / BACKEND / file.name)
print("read", len(list(folder.glob("*.keras"))))
"""
X = np.random.default_rng(1).normal(size=(3, 6, 4)).astype("float32")
X[0, 4:] = X[1, :2] = X[2, 1] = 0


def nets():
    """A model of every kind, by name."""
    options = {"return_sequences": True, "initial_state": "learned"}
    made = {f"cell_{name}": layers.RNN(name, units=3, **options) for name in cells.CELLS}
    made |= {
        "options": layers.LSTM(3, zoneout={"h": 0.1, "c": 0.2}, normalization="layer"),
        "unrolled": layers.GRU(3, unroll=True, go_backwards=True, return_sequences=True),
        "zeros": layers.GRU(3, zero_output_for_mask=True, return_sequences=True),
        "list": layers.RNN([cells.GRUCell(3), keras.layers.LSTMCell(2)]),
        "both": layers.Bidirectional(layers.LSTM(3, return_sequences=True), "gate"),
        "dense": layers.RNNStack("gru", 3, 2, "dense", True, "layer", return_sequences=True),
        "highway": layers.RNNStack("lstm", 3, 2, "highway", project=True),
        "residual": layers.Residual(layers.MinGRU(4, return_sequences=True)),
        "stateful": layers.LSTM(3, stateful=True),
    }
    for name, layer in made.items():
        inputs = keras.Input((6, 4), batch_size=3 if name == "stateful" else None)
        yield name, keras.Model(inputs, layer(keras.layers.Masking()(inputs)))


FEW = ("cell_lstm", "both", "dense", "stateful")


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "names", [FEW, pytest.param(None, marks=pytest.mark.slow)], ids=["few", "all"]
)
@pytest.mark.parametrize("backend", OTHERS)
def test_files_are_read_under_another_backend(backend, names, tmp_path, random_weights):
    """With equal numbers, the states of a stateful layer among them, and back."""
    outputs = {}
    for name, model in nets():
        if names and name not in names:
            continue
        random_weights(model)
        if name == "stateful":
            model(X)
        model.compile("adam", "mse")
        model.save(tmp_path / f"{name}.keras")
        outputs[name] = model.predict(X, batch_size=3, verbose=0)
    np.savez(tmp_path / "data.npz", x=X, **outputs)
    (tmp_path / backend).mkdir()
    assert f"read {len(outputs)}" in under(backend, "-c", READ, tmp_path)
    for name, y in outputs.items():
        path = tmp_path / backend / f"{name}.keras"
        model = keras.models.load_model(path, compile=False)
        again = model.predict(X, batch_size=3, verbose=0)
        np.testing.assert_allclose(again, y, rtol=0, atol=1e-6, err_msg=name)
