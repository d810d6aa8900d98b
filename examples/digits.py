"""Digits drawn with one line, read from left to right: what a SimpleRNN forgets and a GRU keeps.

    python examples/digits.py               # about a minute; writes digits.png

MNIST-1D (Greydanus & Kobak, 2020): ten shapes of 12 points, each stretched, scaled, shifted, bent
and blurred at random, in rows of 40 numbers; 4000 to learn from and 1000 to test. Published test
accuracies: logistic regression 0.32, MLP 0.68, GRU 0.91, CNN 0.94, a human 0.96.
"""

import functools
import os
import random

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gallery
import keras
import numpy as np
from matplotlib.figure import Figure

from kerasrnn.layers import GRU, Bidirectional, SimpleRNN

STEPS, DIGITS = 40, 10
# The layer, whether it reads in both directions, and its learning rate: with that of the GRU a
# SimpleRNN stays at chance.
NETS = {
    "SimpleRNN": (SimpleRNN, False, 3e-3),
    "GRU": (GRU, False, 1e-2),
    "GRU, both directions": (GRU, True, 1e-2),
}
STYLES = ("k:", "k--", "k-")
PUBLISHED = {"GRU": 0.91, "CNN": 0.94, "a human": 0.96}
BATCH = 64
# Kept back from the 4000: by these alone the settings were chosen.
VALIDATION = 500


def main(argv=None):
    flags = gallery.parser(__doc__, "digits.png")
    flags.add_argument("--epochs", type=gallery.at_least(1), default=30)
    flags.add_argument("--units", type=gallery.at_least(1), default=64, help="of each direction")
    arguments = flags.parse_args(argv)

    results = {}
    for net in NETS:
        print(f"training: {net}", flush=True)
        results[net] = result(net, arguments.seed, arguments.epochs, arguments.units)
    rows = [
        (net, found["parameters"], f"{found['accuracy']:.3f}") for net, found in results.items()
    ]
    rows += [(f"published: {name}", "", f"{one:.2f}") for name, one in PUBLISHED.items()]
    print("\n" + gallery.table(("", "weights", "test accuracy"), rows) + "\n")
    draw(results, *digits()[0]).savefig(arguments.out, dpi=80)
    print(f"Written: {arguments.out}")
    print(f"Next: python examples/digits.py --epochs {3 * arguments.epochs}")


def result(net, seed=0, epochs=30, units=64):
    """Trains a net and tests it.

    Returns:
        A dictionary: the "accuracy" on the test digits, that on digits kept back after each epoch,
        "validation", and "parameters", the number of weights.
    """
    keras.utils.set_random_seed(seed)
    train, validation, test = digits()
    model = reader(net, units, epochs * -(-len(train[0]) // BATCH))
    history = model.fit(
        *train, batch_size=BATCH, epochs=epochs, validation_data=validation, verbose=0
    ).history
    _, accuracy = model.evaluate(*test, verbose=0)
    return {
        "accuracy": accuracy,
        "validation": history["val_accuracy"],
        "parameters": model.count_params(),
    }


def reader(net, units, updates):
    layer, both, rate = NETS[net]
    layer = Bidirectional(layer(units)) if both else layer(units)
    inputs = keras.Input((STEPS, 1))
    outputs = keras.layers.Dense(DIGITS, activation="softmax")(layer(inputs))
    model = keras.Model(inputs, outputs)
    falling = keras.optimizers.schedules.CosineDecay(rate, updates)
    optimizer = keras.optimizers.Adam(falling, global_clipnorm=1.0)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@functools.cache
def digits():
    """Digits (digits, steps, 1) and which they are: to learn from, to validate and to test."""
    gallery.require("mnist1d")
    from mnist1d.data import get_dataset_args, make_dataset

    # It sets the seeds of `random` and NumPy for all, and that of these digits is its default.
    chance = random.getstate(), np.random.get_state()
    made = make_dataset(get_dataset_args())
    random.setstate(chance[0])
    np.random.set_state(chance[1])
    end = len(made["x"]) - VALIDATION
    parts = (
        (made["x"][:end], made["y"][:end]),
        (made["x"][end:], made["y"][end:]),
        (made["x_test"], made["y_test"]),
    )
    return [(x.astype("float32")[..., None], y) for x, y in parts]


def draw(results, x, y):
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    shapes, error = figure.subplots(1, 2, width_ratios=[2, 3])
    for digit in range(DIGITS):
        shapes.plot(x[y == digit][0, :, 0] / 5 + digit, "k-", linewidth=1)
    shapes.set(xlabel="step", ylabel="digit", yticks=range(DIGITS))
    shapes.set_title("One of each digit", loc="left")

    for style, (net, found) in zip(STYLES, results.items(), strict=True):
        epochs = np.arange(len(found["validation"])) + 1
        label = f"{net}: {1 - found['accuracy']:.3f} in the test"
        error.semilogy(epochs, 1 - np.array(found["validation"]), style, label=label)
    for name, one in PUBLISHED.items():
        error.axhline(1 - one, color="0.6", linewidth=1, zorder=0)
        error.annotate(
            f"{name}, published: {1 - one:.2f}",
            (1, 1 - one),
            (0, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            color="0.35",
            fontsize=8,
        )
    error.set(xlabel="epoch", ylabel="share of errors on digits kept back", ylim=(0.008, 1.1))
    error.set_title("Which digit is it?", loc="left")
    # Not among the lines, which are everywhere.
    figure.legend(loc="outside lower right", ncols=len(results), handlelength=3)
    error.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
