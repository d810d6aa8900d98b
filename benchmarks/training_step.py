"""A training step of a recurrent layer as a ratio to that of keras.layers: medians of paired runs.

    python benchmarks/training_step.py

Both layers hold the same weights and are trained through `train_on_batch`, in Keras's default mode
(its graph mode; on a CPU Keras does not use XLA by itself).
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from kerasrnn import layers

# (batch, time, features, units)
SHAPES = [(32, 200, 64, 128), (64, 100, 128, 256), (16, 784, 1, 128), (128, 400, 32, 64)]
KINDS = [("LSTM", {}), ("GRU", {}), ("GRU", {"reset_after": False})]
PAIRS = 15


def trainer(module, kind, options, shape):
    keras.utils.set_random_seed(0)
    _, _, features, units = shape
    layer = getattr(module, kind)(units, return_sequences=True, **options)
    model = keras.Sequential([keras.Input((None, features)), layer])
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    return model


def seconds(model, x, y):
    start = time.perf_counter()
    model.train_on_batch(x, y)
    return time.perf_counter() - start


def main():
    rng = np.random.default_rng(0)
    print("| layer | (batch, time, features, units) | ratio | ours | keras | our first step |")
    print("|---|---|---|---|---|---|")
    for kind, options in KINDS:
        for shape in SHAPES:
            batch, steps, features, units = shape
            x = rng.normal(size=(batch, steps, features)).astype("float32")
            y = rng.normal(size=(batch, steps, units)).astype("float32")
            models = [trainer(module, kind, options, shape) for module in (layers, keras.layers)]
            first, _ = (seconds(model, x, y) for model in models)
            pairs = [[seconds(model, x, y) for model in models] for _ in range(PAIRS)]
            ratio = statistics.median(ours / theirs for ours, theirs in pairs)
            ours, theirs = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
            name = ", ".join([kind, *(f"{k}={v}" for k, v in options.items())])
            row = f"| {name} | {shape} | {ratio:.2f}x | {ours:.0f} ms | {theirs:.0f} ms |"
            print(f"{row} {first:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
