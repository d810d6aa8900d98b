"""What connections of deep stacks cost: a step of training, plain and connected.

    python benchmarks/depth.py      # two minutes

What they are worth is `python benchmarks/evidence.py connections`.
"""

import functools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from turns import seconds, take_turns

from kerasrnn.layers import RNNStack

STACKS = {
    "one layer": (1, None),
    "plain": (4, None),
    "residual": (4, "residual"),
    "highway": (4, "highway"),
    "dense": (4, "dense"),
}


def main():
    x = np.random.default_rng(0).normal(size=(32, 100, 128)).astype("float32")
    print("| cell | stack of 4, 128 units, (32, 100, 128) | ms | ratio to plain | to one layer |")
    print("|---|---|---|---|---|")
    for cell in ("lstm", "gru"):
        steps = []
        for depth, connection in STACKS.values():
            stack = RNNStack(cell, 128, depth, connection, return_sequences=True)
            model = keras.Sequential([keras.Input(x.shape[1:]), stack])
            model.compile("sgd", "mse")
            steps.append(functools.partial(seconds, model.train_on_batch, x, x))
        turns = take_turns(steps, 15)
        ms = {name: turns.ms(i) for i, name in enumerate(STACKS)}
        for name, one in ms.items():
            ratios = f"{one / ms['plain']:.2f}x | {one / ms['one layer']:.2f}x"
            print(f"| {cell} | {name} | {one:.0f} | {ratios} |")


if __name__ == "__main__":
    main()
