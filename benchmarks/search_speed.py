"""Seconds of a search of short trials, with the layers of this package in the model and with those
of keras.layers.

    python benchmarks/search_speed.py [--pairs 3] [--trials 12]

The model is that of the demo, over sentences of film reviews of one length; cell, units, depth,
dropout and learning rate are searched, by `kerasrnn.tuning.RandomSearch` on both sides, in
processes of their own, in turns. A third side is keras-tuner's own search with keras.layers.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SIDES = ("ours", "keras.layers", "keras.layers, keras-tuner")
SENTENCES, LENGTH, WORDS, EPOCHS = 6824, 51, 10_000, 2


def build(module, hp):
    import keras

    cell = {"lstm": module.LSTM, "gru": module.GRU}[hp.Choice("cell", ["lstm", "gru"])]
    units, rate = hp.Choice("units", [16, 32]), hp.Choice("dropout", [0.2, 0.5])
    net = keras.Sequential(
        [
            keras.Input((LENGTH,), dtype="int64"),
            keras.layers.Embedding(WORDS, 64, mask_zero=True),
            keras.layers.Dropout(rate),
        ]
    )
    for _ in range(hp.Choice("depth", [1, 2]) - 1):
        net.add(module.Bidirectional(cell(units, return_sequences=True)))
    net.add(module.Bidirectional(cell(units)))
    net.add(keras.layers.Dense(1, activation="sigmoid"))
    optimizer = keras.optimizers.Adam(hp.Float("rate", 3e-4, 1e-2, sampling="log"), clipnorm=1.0)
    net.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
    return net


def child(side, trials):
    """Prints what a search takes."""
    import keras
    import keras_tuner
    import numpy as np

    from kerasrnn import layers, tuning

    rng = np.random.default_rng(0)
    lengths = rng.integers(4, LENGTH + 1, SENTENCES)
    x = rng.integers(1, WORDS, (SENTENCES, LENGTH))
    x = np.where(np.arange(LENGTH) < lengths[:, None], x, 0)
    y = rng.integers(0, 2, SENTENCES)
    module = layers if side == "ours" else keras.layers
    searches = keras_tuner if side.endswith("keras-tuner") else tuning
    with tempfile.TemporaryDirectory() as folder:
        search = searches.RandomSearch(
            lambda hp: build(module, hp), "val_loss", max_trials=trials, seed=0, directory=folder
        )
        began = time.perf_counter()
        search.search(x, y, validation_split=0.1, epochs=EPOCHS, verbose=0)
        print(json.dumps(time.perf_counter() - began))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.trials)
        return
    turns = []
    for _ in range(arguments.pairs):
        command = [sys.executable, pathlib.Path(__file__).resolve()]
        command += ["--trials", str(arguments.trials), "--child"]
        turns.append(
            [
                json.loads(
                    subprocess.run(
                        [*command, side], stdout=subprocess.PIPE, text=True, check=True
                    ).stdout.splitlines()[-1]
                )
                for side in SIDES
            ]
        )
        print(*(f"{side}: {s:.1f} s" for side, s in zip(SIDES, turns[-1], strict=True)), sep=", ")
    print("\n| model's layers, search | seconds | ours / it |")
    print("|---|---|---|")
    for k, side in enumerate(SIDES):
        ratio = statistics.median(turn[0] / turn[k] for turn in turns)
        print(f"| {side} | {statistics.median(turn[k] for turn in turns):.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
