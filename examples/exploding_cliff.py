"""What clipping is for: the cliff in the loss of a recurrent net, met with a clip and without.

    python examples/exploding_cliff.py      # a few seconds; writes exploding_cliff.png

A net of one unit without input, x_0 = 0, runs for 50 steps and is to end at a certain value:

    x_t = σ(w x_{t-1} + b)        E = (σ(x_50) - 0.7)²

For a large w the unit ends in one of two states; on the line in (w, b) between them E has a cliff.
Gradient descent comes to its foot, where the gradient explodes: the step throws the weights far
away, onto a plain. With a clip it is a step like the others, and the valley is found.

After Pascanu, Mikolov & Bengio (2013), section 2.3 and figure 6; their unit, equation 8, is
x_t = w σ(x_{t-1}) + b with x_0 = 0.5.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gallery
import keras
import numpy as np
from matplotlib.figure import Figure

from kerasrnn.callbacks import GradientClipping
from kerasrnn.layers import SimpleRNN

STEPS, TARGET = 50, 0.7
START, RATE, THRESHOLD = (5.5, -1.8), 20.0, 0.02


def main(argv=None):
    flags = gallery.parser(__doc__, "exploding_cliff.png", seeded=False)
    flags.add_argument("--updates", type=gallery.at_least(1), default=150)
    arguments = flags.parse_args(argv)

    free = descend(arguments.updates)
    clipped = descend(arguments.updates, GradientClipping("global_norm", THRESHOLD))
    ends = {"the start": START, "without a clip": free[-1], "with a clip": clipped[-1]}
    rows = [(name, f"{w:.2f}", f"{b:.2f}", f"{error(w, b):.1e}") for name, (w, b) in ends.items()]
    print(gallery.table((f"after {arguments.updates} updates", "w", "b", "E"), rows))
    draw(free, clipped).savefig(arguments.out, dpi=90)
    print(f"\nWritten: {arguments.out}")
    print(
        f"Next: python examples/exploding_cliff.py --updates {4 * arguments.updates}; does the net "
        "without a clip come back from the plain?"
    )


def descend(updates, *callbacks):
    """The weights (updates + 1, 2) that gradient descent passes through, w and b."""
    unit = SimpleRNN(1, activation="sigmoid")
    model = keras.Sequential([keras.Input((STEPS, 1)), unit, keras.layers.Activation("sigmoid")])
    w, b = START
    weights_of_input = np.zeros((1, 1))  # which meet nothing but zeros
    unit.set_weights([weights_of_input, np.array([[w]]), np.array([b])])
    model.compile(keras.optimizers.SGD(RATE), "mse")

    path = [START]

    def note(batch, logs):
        _, w, b = unit.get_weights()
        path.append((w.item(), b.item()))

    noting = keras.callbacks.LambdaCallback(on_train_batch_end=note)
    nothing, target = np.zeros((updates, STEPS, 1)), np.full((updates, 1), TARGET)
    model.fit(nothing, target, batch_size=1, verbose=0, callbacks=[noting, *callbacks])
    return np.array(path)


def error(w, b):
    """E, for arrays too."""
    x = 0.0
    for _ in range(STEPS):
        x = sigmoid(w * x + b)
    return (sigmoid(x) - TARGET) ** 2


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def draw(free, clipped):
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    surface, losses = figure.subplots(1, 2)

    w, b = np.meshgrid(np.linspace(4.4, 5.7, 400), np.linspace(-2.7, -1.5, 400))
    levels = np.arange(-6, -1.25, 0.25)
    heights = surface.contourf(
        w, b, np.log10(error(w, b)), levels, cmap="Greys", extend="min", alpha=0.75
    )
    figure.colorbar(heights, ax=surface, label="log10 E")
    surface.plot(*free.T, "k--x", markersize=5, label="without a clip")
    surface.plot(*clipped.T, "w-o", markersize=4, markeredgecolor="k", label="with a clip")
    surface.plot(*START, "k*", markersize=14, label="start")
    surface.text(5.25, -2.55, "the cliff", color="w", fontsize=12)
    surface.text(5.24, -1.56, "to w = {:.1f}, b = {:.1f}".format(*free[-1]))
    surface.set(xlim=(4.4, 5.7), ylim=(-2.7, -1.5), xlabel="w", ylabel="b")
    surface.set_title("The loss E(w, b) and two paths of gradient descent")
    surface.legend(loc="upper left", facecolor="0.85")

    losses.semilogy(error(*free.T), "k--", label="without a clip")
    losses.semilogy(error(*clipped.T), "k-", label="with a clip")
    losses.set(xlabel="update", ylabel="E", ylim=(1e-12, 1e-1), title="The loss on the way")
    losses.legend()
    return figure


if __name__ == "__main__":
    main()
