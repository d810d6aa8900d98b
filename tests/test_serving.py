"""benchmarks/serving.py, as it is run by hand."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
def test_each_answer_is_that_to_its_request():
    pytest.importorskip("tensorflow_serving", reason="pip install --no-deps tensorflow-serving-api")
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "serving.py"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "1000 answers to 1000 requests" in done.stdout
