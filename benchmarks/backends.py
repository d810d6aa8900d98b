"""Recurrent layers beside those of keras.layers, under the backend that Keras has.

    KERAS_BACKEND=jax python benchmarks/backends.py [--pairs 5]

The shapes and the way to time are those of benchmarks/recurrent_layers.py: one layer with
`return_sequences=True`, by `fit` and `predict`, in turns; a ratio is the median over the turns of
one's median step over the other's. A linear recurrence stands beside Keras's GRU of its size.
"""

import argparse

import keras
from recurrent_layers import SHAPES, Net, geometric_mean
from turns import take_turns

from kerasrnn import layers
from kerasrnn.recurrence import explain

LINEAR = (16, 1024, 64, 128)
TASKS = "fit", "predict"


def row(kind, rival, shape, pairs):
    """Prints a line for a layer and a shape; returns the ratios."""
    nets = [
        Net(*of, {}, shape, jit_compile="auto") for of in ((layers, kind), (keras.layers, rival))
    ]
    found = []
    for task in TASKS:
        turns = take_turns([getattr(net, task) for net in nets], pairs)
        found.append((turns.ms(0), turns.ms(1), turns.ratio(0, 1)))
    ((_, choices),) = explain(nets[0].model).items()
    cells = [f"{ours:.1f} | {theirs:.1f} | {ratio:.2f}" for ours, theirs, ratio in found]
    print(
        f"| {kind} / {rival} | {shape} | {choices['fit'].path} | {' | '.join(cells)} |", flush=True
    )
    return [ratio for _, _, ratio in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    print(f"\n### Milliseconds of a step under {keras.backend.backend()}\n")
    print(
        "| layer / of Keras | (batch, time, features, units) | path | fit | Keras's | ratio "
        "| predict | Keras's | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for kind in ("LSTM", "GRU"):
        ratios = [row(kind, kind, shape, pairs) for shape in SHAPES]
        fit, predict = (f"**{geometric_mean(column):.2f}**" for column in zip(*ratios, strict=True))
        print(f"| {kind} | geometric mean | | | | {fit} | | | {predict} |", flush=True)
    for kind in ("MinGRU", "MinLSTM", "LRU"):
        row(kind, "GRU", LINEAR, pairs)


if __name__ == "__main__":
    main()
