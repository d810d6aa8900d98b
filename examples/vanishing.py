"""Which recurrent net learns what lies far back, and the gradient through time that shows it.

    python examples/vanishing.py            # about a minute; writes vanishing.png

Five nets learn the adding problem: the sum of two marked numbers, one of them in the first half of
the sequence. For each, the half-life of the gradient through time, the steps in which it falls to
half on its way back, before and after training, beside the error that the net comes to.

The picture: the gradient over the steps back before training; the half-life and the error, epoch
by epoch. LSTM, GRU and minGRU start with a gradient that is gone within a few steps and learn as
its half-life grows to about the length of the task; the SimpleRNN's goes up and down, and the net
stays at chance. The IRNN (Le, Jaitly & Hinton, 2015), a SimpleRNN with ReLU that starts from the
identity, has a long one from the start.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gallery
import keras
import numpy as np
from matplotlib.figure import Figure

from kerasrnn.callbacks import GradientFlowMonitor
from kerasrnn.diagnostics import gradient_flow
from kerasrnn.layers import GRU, LSTM, MinGRU, SimpleRNN
from kerasrnn.tasks import adding_problem

NETS = {
    "SimpleRNN": SimpleRNN,
    "IRNN": lambda units, **options: SimpleRNN(
        units, activation="relu", recurrent_initializer="identity", **options
    ),
    "LSTM": LSTM,
    "GRU": GRU,
    "minGRU": MinGRU,
}
STYLES = ("k", ":", "s"), ("tab:orange", "-", "v"), ("tab:blue", "--", "o"), ("tab:red", "-.", "^")
STYLES = (*STYLES, ("tab:green", "-", "D"))
CHANCE = 1 / 6
# A tenth of the error of always answering 1.
LEARNED = 0.1 * CHANCE
MEASURED = 64  # sequences
LONGEST = 1000  # half-life in the picture, in steps


def main(argv=None):
    flags = gallery.parser(__doc__, "vanishing.png")
    flags.add_argument("--length", type=gallery.at_least(2), default=60, help="of a sequence")
    flags.add_argument("--samples", type=gallery.at_least(1), default=6400, help="of an epoch")
    flags.add_argument("--epochs", type=gallery.at_least(1), default=10)
    flags.add_argument("--units", type=gallery.at_least(1), default=32)
    arguments = flags.parse_args(argv)
    settings = {name: value for name, value in vars(arguments).items() if name != "out"}

    print(f"The adding problem over {arguments.length} steps; chance: an error of {CHANCE:.4f}\n")
    results = {}
    for name in NETS:
        results[name] = result(name, **settings)
        print(f"{name}: trained", flush=True)
    rows = [
        [
            name,
            *(f"{one[when]:.1f}" for when in ("before", "longest", "after")),
            f"{one['error']:.4f}",
            "learned" if one["learned"] else "not learned",
        ]
        for name, one in results.items()
    ]
    head = ["half-life, steps:", "before training", "longest later", "at last", "test error", ""]
    print(f"\n{gallery.table(head, rows)}")
    draw(results, arguments.length).savefig(arguments.out, dpi=90)
    print(f"\nWritten: {arguments.out}")
    print("Next: python examples/vanishing.py --length 120; which nets learn it then?")


def result(kind="GRU", seed=0, epochs=10, length=60, samples=6400, units=32):
    """Trains one of `NETS` on the adding problem.

    Returns:
        A dictionary: "before", "after" and "longest", the half-life of the gradient through time
        in steps, before and after training and the longest at the end of an epoch, infinite where
        the gradient does not fall; "error", the mean squared test error after training, and
        "learned", whether that is below a tenth of chance. For the picture, "profile", the gradient
        before training by steps back; "half_lives" and "errors", before training and after each
        epoch.
    """
    keras.utils.set_random_seed(seed)
    x, y = adding_problem(samples, length, seed=2 * seed)
    test = adding_problem(1000, length, seed=2 * seed + 1)
    batch = [part[:MEASURED] for part in test]

    layers = [keras.Input((length, 2)), NETS[kind](units, name="rnn"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.Adam(3e-3, global_clipnorm=1.0), "mse")
    start, error = gradient_flow(model, *batch), model.evaluate(*test, verbose=0)
    monitor = GradientFlowMonitor(*batch)
    training = {"batch_size": 32, "epochs": epochs, "validation_data": test, "verbose": 0}
    errors = model.fit(x, y, callbacks=[monitor], **training).history["val_loss"]

    half_lives = [flow.half_life["rnn"] for flow in (start, *monitor.history)]
    return {
        "before": half_lives[0],
        "after": half_lives[-1],
        "longest": max(half_lives[1:]),
        "error": errors[-1],
        "learned": errors[-1] < LEARNED,
        "profile": start.profile["rnn"].tolist(),
        "half_lives": half_lives,
        "errors": [error, *errors],
    }


def draw(results, length):
    figure = Figure(figsize=(9.6, 4), layout="constrained")
    flow, half_life, error = figure.subplots(1, 3)
    for (name, one), (color, line, marker) in zip(results.items(), STYLES, strict=True):
        style = {"color": color, "linestyle": line, "marker": marker, "markersize": 5}
        flow.plot(one["profile"], label=name, markevery=max(1, length // 10), **style)
        epochs = np.arange(len(one["errors"]))
        half_life.plot(epochs, np.minimum(one["half_lives"], LONGEST), **style)
        error.plot(epochs, one["errors"], **style)
    flow.set(xlabel="steps back from the last, k", ylabel="‖∂J/∂h(T-k)‖ / ‖∂J/∂h(T)‖")
    flow.set(yscale="log", ylim=(1e-9, 30), title="Gradient before training")
    half_life.set(yscale="log", ylim=(0.8, 1.25 * LONGEST), xlabel="epoch", ylabel="steps")
    half_life.set_title(f"Its half-life ({LONGEST}: that or more)")
    half_life.axhline(length, color="0.6", linewidth=1, zorder=0)
    half_life.text(0, 1.08 * length, f"{length} steps", color="0.35", fontsize=9)
    error.set(
        yscale="log", xlabel="epoch", ylabel="mean squared test error", title="What it learns"
    )
    error.axhline(CHANCE, color="0.6", linewidth=1, zorder=0)
    error.text(epochs[-1], 1.12 * CHANCE, "chance", color="0.35", fontsize=9, ha="right")
    for axis in (flow, half_life, error):
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(results), handlelength=4)
    return figure


if __name__ == "__main__":
    main()
