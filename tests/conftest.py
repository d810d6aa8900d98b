import functools
import gc
import os
import pathlib
import subprocess
import sys
import textwrap
import threading

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest

from kerasrnn import recurrence
from kerasrnn.backends import BACKEND

# TensorFlow's modules and graphs are many objects that stay; looking through them all again and
# again took a fifteenth of the time.
gc.freeze()
gc.set_threshold(200_000, 100, 100)

if BACKEND != "tensorflow":
    from keras.src.backend.common import dtypes

    # Keras makes single precision of double there, which would hide what a test can find. The seam
    # of test_double_precision_becomes_single_by_a_table.
    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
if BACKEND == "jax":
    import jax

    # Where JAX has no double precision.
    jax.config.update("jax_enable_x64", True)
    # The tests compile much and run it once.
    jax.config.update("jax_disable_most_optimizations", True)
if BACKEND == "torch":
    import torch

    # A tensor that a gradient may be taken of, or of bfloat16, keeps its numbers from NumPy there
    # alone.
    to_array = torch.Tensor.__array__

    def array(v, *args, **options):
        v = v.detach()
        return to_array(v.float() if v.dtype == torch.bfloat16 else v, *args, **options)

    torch.Tensor.__array__ = array


def pytest_collection_modifyitems(items):
    for item in items:
        if BACKEND != "tensorflow" and item.get_closest_marker("tensorflow"):
            item.add_marker(pytest.mark.skip(reason="it is about Keras's TensorFlow backend"))


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def random_weights(rng):
    """Gives every weight of a layer a random value, biases too, so that no two gates look alike."""

    def randomize(layer, scale=0.5):
        layer.set_weights([rng.normal(0, scale, w.shape) for w in layer.weights])

    return randomize


@pytest.fixture
def take_path(monkeypatch):
    """Has every pass from then on take one path, or with `None` the first that does not refuse."""
    run = recurrence.run

    def take(path):
        if path not in (None, *recurrence.PATHS):
            pytest.skip(f"under Keras's {BACKEND} backend there is no path {path!r}")
        monkeypatch.setattr(recurrence, "run", functools.partial(run, path=path))

    return take


@pytest.fixture
def assert_stateful(random_weights):
    """A stateful layer goes on where the batch before ended, until it is told to reset all rows of
    the batch or one of them."""

    def check(layer, x):
        layer.build(x.shape)
        random_weights(layer)
        halves = np.concatenate([layer(x[:, :3]), layer(x[:, 3:])], axis=1)
        layer.reset_state()
        np.testing.assert_allclose(layer(x), halves, rtol=1e-5, atol=1e-6)
        layer.reset_state(rows=[1])
        again = np.array(layer(x))
        np.testing.assert_allclose(again[1], halves[1], rtol=1e-5, atol=1e-6)
        assert not np.allclose(again[0], halves[0])

    return check


@pytest.fixture
def quiet_tuner(monkeypatch):
    """keras-tuner 1.4 asks for the thread by a name that Python has deprecated."""
    monkeypatch.setattr(threading, "currentThread", threading.current_thread)
    monkeypatch.setattr(threading.Thread, "getName", lambda self: self.name)


TWO_DEVICES = """
import sys
sys.path.insert(0, "tests")
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
halves = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, halves)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
"""


@pytest.fixture
def on_two_devices():
    """Runs code that finds a `strategy` of two replicas, in a process of its own, since the devices
    have to be split before TensorFlow starts; gives what it printed."""

    def run(code):
        done = subprocess.run(
            [sys.executable, "-c", TWO_DEVICES + textwrap.dedent(code)],
            cwd=pathlib.Path(__file__).parents[1],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


_SEARCHING = ("test_tuning", "test_seams", "test_folders", "test_docs", "test_callbacks_everywhere")


@pytest.fixture(autouse=True, scope="module")
def quick_collections(request):
    """A search collects garbage after each trial, which takes seconds where a process has run
    thousands of tests: what they left is not looked at again."""
    if not request.module.__name__.startswith(_SEARCHING):
        yield
        return
    gc.freeze()
    yield
    gc.unfreeze()
