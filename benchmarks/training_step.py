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


def seconds(step):
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main():
    rng = np.random.default_rng(0)
    print("layer                      (batch, time, features, units)  ratio   ours    keras  first step")
    for kind, options in KINDS:
        for shape in SHAPES:
            batch, steps, features, units = shape
            x = rng.normal(size=(batch, steps, features)).astype("float32")
            y = rng.normal(size=(batch, steps, units)).astype("float32")
            ours, theirs = (trainer(m, kind, options, shape) for m in (layers, keras.layers))
            first = seconds(lambda model=ours: model.train_on_batch(x, y))
            theirs.train_on_batch(x, y)
            pairs = [
                [seconds(lambda model=model: model.train_on_batch(x, y)) for model in (ours, theirs)]
                for _ in range(PAIRS)
            ]
            ratio = statistics.median(a / b for a, b in pairs)
            mine, other = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
            name = f"{kind}({', '.join(f'{k}={v}' for k, v in options.items())})"
            print(
                f"{name:26s} {shape!s:31s} {ratio:5.2f}x {mine:4.0f} ms {other:4.0f} ms {first:6.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
