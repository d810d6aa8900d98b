"""The ONNX files of LSTM and GRU beside those that torch writes of the same weights, in onnxruntime
on one thread, in turns.

    pip install torch onnxscript
    python benchmarks/onnx_speed.py [--python PATH]
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import onnxruntime
from turns import seconds, take_turns

from kerasrnn.export import export_onnx
from kerasrnn.layers import from_torch

SHAPE = BATCH, TIME, FEATURES, UNITS = 32, 200, 64, 128
TURNS = 41


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def beside_torch(kind, folder):
    """The `Turns` of our file and of torch's, whose outputs are equal."""
    with np.load(folder / f"{kind}.npz") as file:
        layer = from_torch(dict(file), return_sequences=True)
    model = keras.Sequential([keras.Input((None, FEATURES), name="x"), layer])
    ours = session(export_onnx(model, folder / f"{kind}.onnx"))
    theirs = session(folder / f"{kind}.torch.onnx")
    x = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES)).astype("float32")
    (y,), (want, *_) = (one.run(None, {"x": x}) for one in (ours, theirs))
    np.testing.assert_allclose(y, want, atol=1e-5)
    runs = [lambda one=one: seconds(one.run, None, {"x": x}) for one in (ours, theirs)]
    return take_turns(runs, TURNS)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has torch")
    python = parser.parse_args().python
    script = pathlib.Path(__file__).with_name("torch_onnx.py")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        command = [python, script, folder, *map(str, SHAPE)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        print(f"| {SHAPE}, one thread | ms, file of torch | ms, ours | of torch's |")
        print("|---|---|---|---|")
        for kind in ("LSTM", "GRU"):
            turns = beside_torch(kind, folder)
            times = f"{turns.ms(1):.1f} | {turns.ms(0):.1f} | {turns.ratio(0, 1):.3f}"
            print(f"| {kind} | {times} |", flush=True)


if __name__ == "__main__":
    main()
