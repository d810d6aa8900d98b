"""How many programs a layer compiles that sees many lengths and batch sizes, and what it takes.

    python benchmarks/lengths.py

One layer is trained on batches of twenty lengths and five sizes, neither of which the graph knows
beforehand, in a process of its own: the XLA programs compiled, forward and backward, and the
processor seconds of the first pass over the batches and of the second, which compiles nothing;
beside them those of keras.layers.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SIZES = {"up to 32": (32, 31, 24, 16, 7), "up to 128": (128, 100, 90, 80, 70)}
FEATURES, UNITS = 16, 64


def child(side, sizes):
    import keras
    import numpy as np
    import tensorflow as tf

    from kerasrnn import layers

    rng = np.random.default_rng(0)
    lengths = rng.choice(np.arange(20, 200), 20, replace=False)
    layer = (layers if side == "ours" else keras.layers).LSTM(UNITS)
    net = keras.Sequential([keras.Input((None, FEATURES)), layer, keras.layers.Dense(1)])
    net.compile("sgd", "mse")

    def batches():
        for size in SIZES[sizes]:
            for steps in lengths:
                x = rng.normal(size=(size, steps, FEATURES)).astype("float32")
                yield x, np.zeros((size, 1), "float32")

    kinds = tf.TensorSpec((None, None, FEATURES)), tf.TensorSpec((None, 1))
    data = tf.data.Dataset.from_generator(batches, output_signature=kinds)
    seconds = []
    for _ in range(2):
        began = time.process_time()
        net.fit(data, verbose=0)
        seconds.append(time.process_time() - began)
    print(json.dumps(seconds))


def main():
    if len(sys.argv) == 3:
        child(*sys.argv[1:])
        return
    print("| batch sizes | programs | first pass | second pass | keras.layers | second pass |")
    print("|---|---|---|---|---|---|")
    for sizes in SIZES:
        cells = []
        for side in ("ours", "keras"):
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, pathlib.Path(__file__).resolve(), side, sizes]
                flags = {"XLA_FLAGS": f"--xla_dump_to={folder}"}
                done = subprocess.run(
                    command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | flags
                )
                dumped = [one.name for one in pathlib.Path(folder).glob("*before_optim*.txt")]
            if side == "ours":
                cells.append(str(sum("forward" in n or "backward" in n for n in dumped)))
            cells += [f"{s:.1f} s" for s in json.loads(done.stdout.splitlines()[-1])]
        print(f"| {sizes} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
