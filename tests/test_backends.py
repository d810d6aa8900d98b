"""Keras's other backends, in processes of their own, where they are installed, as for
`make test-backends`: a share of the generic tests, as a slow test all of them; and files that are
written under one and read under another."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from kerasrnn import cells, layers

ROOT = pathlib.Path(__file__).parents[1]
OTHERS = ["jax", "torch"]
GENERIC = [
    f"tests/test_{name}.py"
    for name in (
        *("cells", "cell_options", "portable", "recurrence", "loop", "rnn", "states", "checks"),
        *("bidirectional", "connections", "group", "stack", "initializers", "losses"),
        *("bptt", "blocks", "linear_scan", "torch_kernels", "torch_gru"),
        *("callbacks_everywhere", "gradients", "derivatives"),
    )
]
# Every cell under masks and resets, backwards, states from batch to batch, the way back, the hook.
SHARE = [
    "tests/test_portable.py",
    "tests/test_losses.py",
    "tests/test_states.py::test_single_rows_are_reset",
    "tests/test_states.py::test_fit_evaluate_and_predict_go_on_where_the_batch_before_ended",
    "tests/test_torch_kernels.py",
    "tests/test_torch_gru.py",
    "tests/test_gradients.py",
    "tests/test_callbacks_everywhere.py::test_imports_no_tensorflow",
    "tests/test_callbacks_everywhere.py::test_norms_and_losses_are_those_of_the_steps",
]
OF_ONE = {"jax": ["tests/test_bptt.py::test_a_fit_is_that_of_the_plain_loop"], "torch": []}


def under(backend, *arguments):
    """What a fresh process under a backend printed."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.tensorflow
@pytest.mark.parametrize("backend", OTHERS)
def test_a_share_of_the_generic_tests(backend):
    quiet = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    assert " passed" in under(
        backend, "-m", "pytest", *quiet, "-m", "not slow", *SHARE, *OF_ONE[backend]
    )


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
def test_the_generic_tests(backend):
    quiet = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    assert " passed" in under(backend, "-m", "pytest", *quiet, *GENERIC)


# A part of it is run under the backend that reads, where importing TensorFlow is an error.
READ = """
import pathlib, sys
sys.modules["tensorflow"] = None
import keras
import numpy as np
import kerasrnn
from kerasrnn import activations, cells, initializers, layers, losses, recurrence, tasks
from kerasrnn.backends import BACKEND, tf

folder = pathlib.Path(sys.argv[1])
assert tf is None and keras.backend.backend() == BACKEND
data = np.load(folder / "data.npz")
for file in sorted(folder.glob("*.keras")):
    model = keras.models.load_model(file)
    y = model.predict(data["x"], batch_size=len(data["x"]), verbose=0)
    np.testing.assert_allclose(y, data[file.stem], rtol=0, atol=1e-5, err_msg=file.stem)
    # As it was read, without what a stateful layer has gone through since.
    model = keras.models.load_model(file)
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


@pytest.mark.tensorflow
@pytest.mark.slow
def test_files_are_read_under_any_backend(tmp_path, random_weights):
    """With equal numbers, the states of a stateful layer among them, and back."""
    outputs = {}
    for name, model in nets():
        random_weights(model)
        if name == "stateful":
            model(X)
        model.save(tmp_path / f"{name}.keras")
        outputs[name] = model.predict(X, batch_size=3, verbose=0)
    np.savez(tmp_path / "data.npz", x=X, **outputs)
    for backend in OTHERS:
        (tmp_path / backend).mkdir()
        assert f"read {len(outputs)}" in under(backend, "-c", READ, str(tmp_path))
        for name, y in outputs.items():
            model = keras.models.load_model(tmp_path / backend / f"{name}.keras")
            again = model.predict(X, batch_size=3, verbose=0)
            np.testing.assert_allclose(again, y, rtol=0, atol=1e-6, err_msg=name)
