"""What a user waits for: the first step, an epoch, a short job, the first prediction; and memory.

    python benchmarks/whole_job.py [--parts demo lstm gru memory] [--pairs 5]

This package and keras.layers in processes of their own, in turns; a ratio is the median over the
pairs. Processor seconds are those of the whole process, compilation and tracing in other threads
included. `demo` is a two-layer bidirectional LSTM on as many masked sentences as the demo has, the
other two are one layer of 64 units on (32, 60, 32). `memory` is the peak of one training step above
what the process held before it; `long` the same for 8 rows of 20,000 steps, for which Keras takes
minutes. After an interruption the pairs so far are in the table.
"""

import argparse
import itertools
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SIDES = ("ours", "keras")
JOBS = ("demo", "lstm", "gru")
MEMORY = {"memory": (32, 2000, 64, 128), "long": (8, 20000, 64, 128)}
EPOCHS = 6
SENTENCES, VALIDATION, WORDS, LENGTH = 6824, 853, 10_000, 51


class Spent:
    """Wall clock and processor seconds since it was made."""

    def __init__(self):
        self.began = self._now()

    def __call__(self):
        return [now - began for now, began in zip(self._now(), self.began, strict=True)]

    def _now(self):
        return time.perf_counter(), time.process_time()


def demo(module):
    import keras
    import numpy as np

    rng = np.random.default_rng(0)

    def sentences(count):
        x = rng.integers(1, WORDS, (count, LENGTH))
        lengths = rng.integers(4, LENGTH + 1, count)
        return np.where(np.arange(LENGTH) < lengths[:, None], x, 0), rng.integers(0, 2, count)

    net = keras.Sequential(
        [
            keras.Input((None,), dtype="int64"),
            keras.layers.Embedding(WORDS, 64, mask_zero=True),
            keras.layers.Dropout(0.5),
            module.Bidirectional(module.LSTM(16, return_sequences=True)),
            module.Bidirectional(module.LSTM(16)),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    net.compile(keras.optimizers.Adam(clipnorm=1.0), "binary_crossentropy", metrics=["accuracy"])
    x, y = sentences(SENTENCES)
    return net, {"x": x, "y": y, "validation_data": sentences(VALIDATION)}


def one_layer(module, kind, steps=200):
    import keras
    import numpy as np

    rng = np.random.default_rng(0)
    net = keras.Sequential(
        [keras.Input((60, 32)), getattr(module, kind)(64), keras.layers.Dense(1)]
    )
    net.compile("adam", "mse")
    x = rng.normal(size=(32 * steps, 60, 32)).astype("float32")
    return net, {"x": x, "y": rng.normal(size=(32 * steps, 1))}


def job(name, module):
    """Wall clock and processor seconds of each part of a job."""
    import keras

    from kerasrnn.callbacks import GradientNormMonitor

    keras.utils.set_random_seed(0)
    net, data = demo(module) if name == "demo" else one_layer(module, name.upper())
    found, epochs = {}, []

    def first_step(batch, logs):
        found.setdefault("first step", spent())

    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=first_step, on_epoch_end=lambda epoch, logs: epochs.append(spent())
    )
    spent = Spent()
    net.fit(**data, epochs=EPOCHS, verbose=0, callbacks=[watch])
    found["epoch 1"], found["six epochs"] = epochs[0], epochs[-1]
    later = [[b - a for a, b in zip(*pair, strict=True)] for pair in itertools.pairwise(epochs)]
    found["a later epoch"] = [statistics.median(column) for column in zip(*later, strict=True)]

    def timed(part, run):
        spent = Spent()
        run()
        found[part] = spent()

    timed("first predict", lambda: net.predict(data["x"][:64], verbose=0))
    monitor = GradientNormMonitor()
    for part, callbacks in (
        ("fit again", []),
        ("fit with a new monitor", [monitor]),
        ("fit with the same monitor", [monitor]),
    ):
        timed(part, lambda callbacks=callbacks: net.fit(**data, verbose=0, callbacks=callbacks))
    return found


def peak(module, kind, shape):
    """Megabytes by which a training step's peak lies above what was held before."""
    import keras
    import numpy as np

    batch, steps, features, units = shape
    layer = getattr(module, kind)(units, return_sequences=True)
    net = keras.Sequential([keras.Input((None, features)), layer])
    net.compile(keras.optimizers.SGD(1e-3), "mse")
    x = np.ones((batch, steps, features), "float32")
    y = np.ones((batch, steps, units), "float32")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    net.train_on_batch(x, y)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def child(part, side):
    """Prints what one side takes."""
    import keras

    from kerasrnn import layers

    module = layers if side == "ours" else keras.layers
    if part in JOBS:
        found = job(part, module)
    else:
        name, kind = part.split()
        found = {"peak": peak(module, kind, MEMORY[name])}
    print(json.dumps(found))


def measured(part, side):
    command = [sys.executable, pathlib.Path(__file__).resolve(), "--child", part, side]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{part}, {side}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def pairs_of(part, count):
    """Per pair what ours and Keras took; an interruption ends them."""
    pairs = []
    try:
        for _ in range(count):
            pairs.append([measured(part, side) for side in SIDES])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    return pairs


def ratio(pairs, value):
    return statistics.median(value(ours) / value(theirs) for ours, theirs in pairs)


def median(pairs, value, side=0):
    return statistics.median(value(pair[side]) for pair in pairs)


def rows_of_job(name, pairs):
    for part in pairs[0][0]:
        cells = []
        for which in (0, 1):

            def value(found, part=part, which=which):
                return found[part][which]

            cells += [f"{median(pairs, value):.1f} s", f"{ratio(pairs, value):.2f}"]
        print(f"| {name} | {part} | {' | '.join(cells)} |", flush=True)

    def again(found):
        return found["fit with the same monitor"][1] / found["fit again"][1]

    print(f"| {name} | fit with the same monitor / fit again | | | {median(pairs, again):.2f} | |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = [*JOBS, *MEMORY]
    parser.add_argument("--parts", nargs="+", choices=parts, default=[*JOBS, "memory"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    jobs = [part for part in arguments.parts if part in JOBS]
    if jobs:
        print("\n### Whole jobs\n")
        print("| job | part | wall clock | / keras | processor | / keras |")
        print("|---|---|---|---|---|---|", flush=True)
    for part in jobs:
        if pairs := pairs_of(part, arguments.pairs):
            rows_of_job(part, pairs)
    for part in arguments.parts:
        if part in MEMORY:
            print(f"\n### Peak memory of a training step, {MEMORY[part]}\n")
            print("| layer | peak above the start | / keras |")
            print("|---|---|---|", flush=True)
            for kind in ("LSTM", "GRU"):
                if pairs := pairs_of(f"{part} {kind}", arguments.pairs):
                    mb = median(pairs, lambda found: found["peak"])
                    to_keras = ratio(pairs, lambda found: found["peak"])
                    print(f"| {kind} | {mb:.0f} MB | {to_keras:.2f} |", flush=True)


if __name__ == "__main__":
    main()
