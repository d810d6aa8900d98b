"""What GradientNormMonitor costs: steps of a `fit` with it beside steps without.

    python benchmarks/monitor.py [--steps 200]

Two language models of the same kind, one watched and one not, take turns in one process, step by
step; the ratio is the median over the pairs of steps. A step is all that `fit` does from the
beginning of a batch to its end, callbacks included. The first steps, which compile, are left out.
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
from kerasrnn.callbacks import GradientNormMonitor

BATCH, TIME, WORDS, UNITS = 32, 100, 2000, 128
FIRST = 10


def net(clip):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((TIME,), dtype="int32"),
            keras.layers.Embedding(WORDS, UNITS),
            layers.LSTM(UNITS, return_sequences=True),
            layers.LSTM(UNITS, return_sequences=True),
            keras.layers.Dense(WORDS),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(global_clipnorm=clip), loss)
    return model


def compare(clip, monitor, steps):
    """Milliseconds of a step without the monitor, and the ratio of one with it."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, WORDS, (BATCH * (FIRST + steps), TIME + 1))

    def plain(*callbacks):
        net(clip).fit(x[:, :-1], x[:, 1:], BATCH, verbose=0, callbacks=callbacks)

    def watched(begins, ends):
        plain(begins, monitor, ends)

    turns = take_turns_by_step(watched, plain, FIRST)
    return turns.ms(1), turns.ratio(0, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    print(f"\n### GradientNormMonitor: two LSTM({UNITS}), {WORDS} words, batches {BATCH, TIME}\n")
    print("| clip | monitor | step without | step with / without |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        options = [{}, {"csv": pathlib.Path(folder) / "norms.csv"}, {"batch_size": BATCH}]
        for clip in (None, 1.0):
            for option in options:
                ms, ratio = compare(clip, GradientNormMonitor(**option), steps)
                name = next(iter(option), "plain")
                print(f"| {clip} | {name} | {ms:.1f} ms | {ratio:.3f} |", flush=True)


if __name__ == "__main__":
    main()
