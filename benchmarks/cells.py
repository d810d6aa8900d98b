"""Every registered cell beside this package's own GRU or LSTM of the same size, and the linear
recurrences beside keras.layers.GRU on a long sequence.

    python benchmarks/cells.py [--pairs 5]

As in `recurrent_layers.py`, a layer with `return_sequences=True` is trained by `fit`, and a ratio
is the median over the pairs of runs of one's median step over the other's.
"""

import argparse

import keras
from recurrent_layers import Net, compare

from kerasrnn import cells, layers

SHAPE = (32, 100, 64, 128)
LONG = (16, 1024, 128, 128)


def net(name, shape):
    def layer(units, **options):
        return layers.RNN(name, units=units, **options)

    return Net(argparse.Namespace(**{name: layer}), name, {}, shape)


def gated(pairs):
    print(f"\n### Cells at {SHAPE}, fit\n")
    print("| cell | step | / the package's own | of the same number of states |")
    print("|---|---|---|---|")
    own = {1: "gru", 2: "lstm"}
    rivals = {states: net(name, SHAPE) for states, name in own.items()}
    for name in cells.CELLS:
        states = min(len(cells.get(name)(1).states), 2)
        ms, ratio = compare(net(name, SHAPE), rivals[states], None, "fit", pairs)
        print(f"| {name} | {ms:.1f} ms | {ratio:.2f} | {own[states]} |", flush=True)


def linear(pairs):
    print(f"\n### Linear recurrences at {LONG}, fit\n")
    print("| cell | step | / keras.layers.GRU |")
    print("|---|---|---|")
    theirs = Net(keras.layers, "GRU", {}, LONG)
    for name in cells.CELLS:
        if cells.get(name)(1).linear:
            ms, ratio = compare(net(name, LONG), theirs, None, "fit", pairs)
            print(f"| {name} | {ms:.1f} ms | {ratio:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    gated(pairs)
    linear(pairs)


if __name__ == "__main__":
    main()
