"""What the callbacks that look at updates cost: steps of a `fit` with one beside steps without.

    python benchmarks/monitor.py [--steps 200]

It runs under the backend that Keras has. Two language models of the same kind, one with the
callback and one without, take turns in one process, step by step; the ratio is the median over the
pairs of steps. A step is all that `fit` does from the beginning of a batch to its end, callbacks
included. The first steps, which compile, are left out.
"""

import argparse
import os
import pathlib
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from turns import take_turns_by_step

from kerasrnn import layers
from kerasrnn.callbacks import DivergenceGuard, GradientClipping, GradientNormMonitor

# (batch, time, words, units)
SIZES = [(32, 100, 2000, 128), (32, 20, 500, 64)]
FIRST = 10


def net(clip, size):
    _, time, words, units = size
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((time,), dtype="int32"),
            keras.layers.Embedding(words, units),
            layers.LSTM(units, return_sequences=True),
            layers.LSTM(units, return_sequences=True),
            keras.layers.Dense(words),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(global_clipnorm=clip), loss)
    return model


def compare(clip, callback, steps, size):
    """Milliseconds of a step without the callback, and the ratio of one with it."""
    batch, time, words, _ = size
    rng = np.random.default_rng(0)
    x = rng.integers(0, words, (batch * (FIRST + steps), time + 1))

    def plain(*callbacks):
        net(clip, size).fit(x[:, :-1], x[:, 1:], batch, verbose=0, callbacks=callbacks)

    def watched(begins, ends):
        plain(begins, callback, ends)

    turns = take_turns_by_step(watched, plain, FIRST)
    return turns.ms(1), turns.ratio(0, 1)


def kinds(csv, batch):
    """Each callback by what the table calls it, with the clips to measure it beside."""
    yield "GradientNormMonitor", GradientNormMonitor, (None, 1.0)
    yield "GradientNormMonitor, csv", lambda: GradientNormMonitor(csv=csv), (None, 1.0)
    yield (
        "GradientNormMonitor, batch_size",
        lambda: GradientNormMonitor(batch_size=batch),
        (None, 1.0),
    )
    # It takes the place of a clip of the optimizer's.
    yield "GradientClipping", GradientClipping, (None,)
    yield "DivergenceGuard", DivergenceGuard, (None, 1.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    for size in SIZES:
        batch, time, words, units = size
        print(
            f"\n### Callbacks under {keras.backend.backend()}: two LSTM({units}), {words} words, "
            f"batches {batch, time}\n"
        )
        print("| clip | callback | step without | step with / without |")
        print("|---|---|---|---|")
        with tempfile.TemporaryDirectory() as folder:
            for name, make, clips in kinds(pathlib.Path(folder) / "norms.csv", batch):
                for clip in clips:
                    ms, ratio = compare(clip, make(), steps, size)
                    print(f"| {clip} | {name} | {ms:.1f} ms | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    main()
