"""What `gradient_flow` costs beside a forward and a backward pass of the same model and batch.

    python benchmarks/gradient_flow.py [--pairs 9]

The plain pass gives the gradients of all weights. Both run eagerly, as `gradient_flow` does, and
compiled, as in `GradientFlowMonitor`; the compiled plain pass takes the fast paths of training. The
two take turns; a ratio is the median over the turns of one's time over the other's.
"""

import argparse
import functools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from turns import seconds, take_turns

from kerasrnn import layers, recurrence
from kerasrnn.diagnostics.flow import Measurement

# (batch, time, features, units)
SHAPES = [(32, 100, 64, 128), (16, 50, 32, 64)]
NETS = {
    "SimpleRNN": (layers, "SimpleRNN", 1),
    "LSTM": (layers, "LSTM", 1),
    "GRU, two layers": (layers, "GRU", 2),
    "Keras's LSTM": (keras.layers, "LSTM", 1),
}


def net(module, kind, depth, shape):
    keras.utils.set_random_seed(0)
    _, steps, features, units = shape
    recurrent = getattr(module, kind)
    stack = [recurrent(units, return_sequences=i < depth - 1) for i in range(depth)]
    model = keras.Sequential([keras.Input((steps, features)), *stack, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def plain(model):
    """A forward and a backward pass."""

    def run(x, y):
        with recurrence.compiled(), tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        return tape.gradient(loss, model.trainable_variables)

    return run


def finished(run, *batch):
    """Runs, and waits for the result: what was compiled may still be running."""
    result = run(*batch)
    if isinstance(result, list):
        [np.array(value) for value in result]


def compare(measure, pass_, batch, pairs):
    """Milliseconds of a measurement and of a pass, and their ratio."""
    runs = [functools.partial(seconds, finished, run, *batch) for run in (measure, pass_)]
    turns = take_turns(runs, pairs)
    return turns.ms(0), turns.ms(1), turns.ratio(0, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    pairs = parser.parse_args().pairs
    print("| layer | (batch, time, features, units) | | measurement | pass | ratio |")
    print("|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for name, of in NETS.items():
        for shape in SHAPES:
            model = net(*of, shape)
            x = tf.constant(rng.normal(size=shape[:3]), "float32")
            batch = x, tf.constant(rng.normal(size=(shape[0], 1)), "float32")
            runs = {
                "eager": (Measurement(model, trace=False), plain(model)),
                "compiled": (Measurement(model, trace=True), tf.function(plain(model))),
            }
            for how, two in runs.items():
                measured, passed, ratio = compare(*two, batch, pairs)
                row = f"{how} | {measured:.1f} ms | {passed:.1f} ms | {ratio:.2f}"
                print(f"| {name} | {shape} | {row} |", flush=True)


if __name__ == "__main__":
    main()
