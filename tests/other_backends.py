"""Keras's other backends, in processes of their own and an environment of their own, which `make`
makes in .venv-backends: where JAX is installed TensorFlow imports it, in every process."""

import os
import pathlib
import subprocess

import pytest

OTHERS = ["jax", "torch"]
ROOT = pathlib.Path(__file__).parents[1]
PYTHON = ROOT / ".venv-backends" / "bin" / "python"


def under(backend, *arguments):
    """What a fresh process of Python with these arguments printed under a backend."""
    if not PYTHON.exists():
        pytest.skip("the other backends are not there: `make .venv-backends/installed`")
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    done = subprocess.run(
        [PYTHON, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout
