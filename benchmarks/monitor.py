"""What GradientNormMonitor costs: steps of a `fit` with it beside steps without.

    python benchmarks/monitor.py [--steps 200]

Two language models of the same kind, one watched and one not, take turns in one process, step by
step; the ratio is the median over the pairs of steps. A step is all that `fit` does from the
beginning of a batch to its end, callbacks included. The first steps, which compile, are left out.
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from kerasrnn import layers
from kerasrnn.callbacks import GradientNormMonitor

BATCH, TIME, WORDS, UNITS = 32, 100, 2000, 128
FIRST = 10


class Turns(keras.callbacks.Callback):
    """Waits for its side's turn before a step; `ended`, which stands last among the callbacks,
    takes the time and passes the turn on."""

    def __init__(self, mine, other):
        super().__init__()
        self.mine, self.other = mine, other
        self.seconds = []
        self.ended = keras.callbacks.LambdaCallback(on_train_batch_end=self._end)

    def on_train_batch_begin(self, batch, logs=None):
        self.mine.acquire()
        self.began = time.perf_counter()

    def _end(self, batch, logs):
        self.seconds.append(time.perf_counter() - self.began)
        self.other.release()


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
    locks = threading.Semaphore(1), threading.Semaphore(0)
    watched, plain = Turns(*locks), Turns(*locks[::-1])

    def fit(turns, *callbacks):
        callbacks = [turns, *callbacks, turns.ended]
        net(clip).fit(x[:, :-1], x[:, 1:], BATCH, verbose=0, callbacks=callbacks)

    beside = threading.Thread(target=fit, args=(plain,), daemon=True)
    beside.start()
    fit(watched, monitor)
    beside.join()
    pairs = list(zip(watched.seconds, plain.seconds, strict=True))[FIRST:]
    return 1e3 * statistics.median(b for _, b in pairs), statistics.median(a / b for a, b in pairs)


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
