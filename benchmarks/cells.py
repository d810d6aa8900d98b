"""Every registered cell beside this package's own GRU or LSTM of the same size, and the linear
recurrences beside keras.layers.GRU on a long sequence, beside themselves on a longer one, and eight
layers deep.

    python benchmarks/cells.py [--pairs 5]

As in `recurrent_layers.py`, a layer with `return_sequences=True` is trained by `fit`, and a ratio
is the median over the pairs of runs of one's median step over the other's.
"""

import argparse
import functools

import keras
from recurrent_layers import Net, compare

from kerasrnn import cells, layers

SHAPE = (32, 100, 64, 128)
LONG = (16, 1024, 128, 128)
# Of a size whose batches fit into memory at the greatest length.
TIMES = [(4, time, 16, 128) for time in (1024, 4096, 16384)]
LINEAR = {name: {} for name in cells.CELLS if cells.get(name)(1).linear}
LINEAR |= {"sru": {"peephole": False}}


def net(name, shape, kind=layers.RNN, **options):
    def layer(units, **further):
        return kind(name, units=units, **options, **further)

    return Net(argparse.Namespace(**{name: layer}), name, {}, shape)


def products(shape):
    """What a minGRU multiplies, and no recurrence: the least it can take."""

    def dense(units, return_sequences):
        return keras.layers.Dense(2 * units)

    return Net(argparse.Namespace(dense=dense), "dense", {}, shape)


def title(name, options):
    return ", ".join([name, *(f"{key}={value}" for key, value in options.items())])


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
    print("| layer | step | / keras.layers.GRU |")
    print("|---|---|---|")
    theirs = Net(keras.layers, "GRU", {}, LONG)
    rows = {title(name, o): functools.partial(net, name, **o) for name, o in LINEAR.items()}
    stack = {"kind": layers.RNNStack, "depth": 8, "connection": "residual"}
    rows["mingru's products alone, a Dense(2 units)"] = products
    rows["mingru, a residual stack of 8"] = functools.partial(net, "mingru", **stack)
    for row, ours in rows.items():
        ms, ratio = compare(ours(LONG), theirs, None, "fit", pairs)
        print(f"| {row} | {ms:.1f} ms | {ratio:.2f} |", flush=True)


def over_time(pairs):
    shortest, *longer = TIMES
    print(f"\n### Time per time step of long sequences / at {shortest}, fit\n")
    print("| cell | (batch, time, features, units) | step of fit | per time step |")
    print("|---|---|---|---|")
    for name, options in LINEAR.items():
        for shape in longer:
            both = [net(name, s, **options) for s in (shape, shortest)]
            ms, ratio = compare(*both, None, "fit", pairs)
            per_step = ratio * shortest[1] / shape[1]
            row = f"| {title(name, options)} | {shape} | {ms:.1f} ms | {per_step:.2f} |"
            print(row, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    gated(pairs)
    linear(pairs)
    over_time(pairs)


if __name__ == "__main__":
    main()
