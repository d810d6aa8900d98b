"""Keras's own tests, run on our classes; tests/keras_suite/plugin.py puts them in."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent / "keras_suite"
MODULES = [
    f"keras.src.layers.rnn.{name}_test"
    for name in (
        "gru",
        "lstm",
        "simple_rnn",
        "bidirectional",
        "stacked_rnn_cells",
        "dropout_rnn_cell",
        "rnn",
        "time_distributed",
    )
]
# These ask Keras's Bidirectional, by its private methods, whether it would fuse its two directions
# into one cuDNN kernel. That is for layers of Keras's own class alone.
LEFT_OUT = ["test_fused_lstm_eligibility", "test_fused_gru_eligibility"]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(MODULES[0]) is None, reason="this release of Keras ships no tests"
)


def run(*options, modules=MODULES, **environment):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    # Not under this project's own settings: Keras's tests warn.
    command += ["-c", os.devnull, "--rootdir", str(FOLDER)]
    path = [str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [*command, "--pyargs", *modules],
        capture_output=True,
        text=True,
        cwd=FOLDER,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)} | environment,
    )
    counts = {
        kind: int(n) for n, kind in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)
    }
    return counts, done.stdout


def test_keras_s_own_tests_pass():
    options = "-k", f"not ({' or '.join(LEFT_OUT)})"
    ours, printed = run(*options, "-p", "plugin")
    if ours.keys() - {"passed", "skipped"}:
        # Some releases of Keras do not pass them themselves.
        theirs, _ = run(*options)
        assert ours == theirs, printed
    assert ours["passed"] >= 60
    assert ours.get("skipped", 0) <= 2
    made = dict(re.findall(r"'(\w+)': (\d+)", printed))
    assert set(made) >= {"LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "LSTMCell", "GRUCell"}


@pytest.mark.slow
def test_a_gru_with_its_gates_exchanged_fails():
    counts, printed = run(
        "-k", "correctness", "-p", "plugin", modules=MODULES[:1], KERAS_SUITE_SWAP="1"
    )
    assert counts["failed"] >= 1, printed
