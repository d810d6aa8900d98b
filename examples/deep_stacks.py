"""What connections do for a deep stack: 8 LSTMs on each other, plain and with three connections.

    python examples/deep_stacks.py          # under two minutes; writes deep_stacks.png

Before training, how much of the gradient gets to each layer and each time step; then the loss of a
short training, on the adding problem (the sum of two marked numbers among 30). The plain stack, in
which hardly anything gets through eight layers, stays where it was; connected ones learn.

The serious version, with more tasks and seeds: `python benchmarks/evidence.py connections`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gallery
import keras
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from kerasrnn.cells import CELLS
from kerasrnn.diagnostics import gradient_flow
from kerasrnn.layers import RNNStack
from kerasrnn.tasks import adding_problem

# The arguments of an `RNNStack`.
CONNECTIONS = {
    "plain": {},
    "residual": {"connection": "residual", "project": True},
    "highway": {"connection": "highway", "project": True},
    "dense": {"connection": "dense"},
}
STYLES = ("k:", "k-", "k--", "k-.")
SETTINGS = {
    "depth": 8,
    "units": 32,
    "batch": 32,
    "learning_rate": 3e-3,
    "global_clipnorm": 1.0,
    "chunk": 25,  # updates between two looks at the loss
    "length": 30,
}
# The loss of whoever always says 1, the mean of the sum.
CHANCE = 1 / 6


def main(argv=None):
    flags = gallery.parser(__doc__, "deep_stacks.png")
    flags.add_argument("--updates", type=gallery.at_least(1), default=450)
    flags.add_argument("--depth", type=gallery.at_least(1), default=SETTINGS["depth"])
    flags.add_argument("--cell", choices=CELLS, default="lstm")
    arguments = flags.parse_args(argv)

    results = {}
    for name in CONNECTIONS:
        print(f"training: {name}", flush=True)
        results[name] = result(
            name, arguments.seed, arguments.cell, arguments.depth, arguments.updates
        )
    rows = [
        (name, f"{found['arrives']:.2g}", f"{found['loss']:.4f}") for name, found in results.items()
    ]
    head = (f"{arguments.depth} layers", f"gradient at layer 1 / at {arguments.depth}", "loss")
    print("\n" + gallery.table(head, [*rows, ("always 1", "", f"{CHANCE:.4f}")]) + "\n")
    draw(results).savefig(arguments.out, dpi=90)
    print(f"Written: {arguments.out}")
    print(f"Next: python examples/deep_stacks.py --cell gru --depth {2 * arguments.depth}")


def result(connection, seed=0, cell="lstm", depth=8, updates=450):
    """Measures the gradients of a stack before training, and trains it.

    Returns:
        A dictionary: "gradient", ‖∂J/∂h_t‖ of each layer, the lowest first, at each time step;
        "arrives", that of the first layer over that of the last, over all steps; "losses", the mean
        of each `chunk` updates; "loss", the mean of the last two of them.
    """
    keras.utils.set_random_seed(seed)
    run = SETTINGS | {"depth": depth}
    stack = stack_of(run, cell, CONNECTIONS[connection])
    inputs = keras.Input((run["length"], 2))
    model = compiled(run, inputs, stack(inputs), 1, "mse")
    flow = gradient_flow(model, *adding_problem(run["batch"], run["length"], seed + 1000))
    gradient = np.array(list(flow.norms.values()))
    of_layers = np.linalg.norm(gradient, axis=1)

    x, y = adding_problem(updates * run["batch"], run["length"], seed)
    losses = losses_of(run, model, x, y)
    return {
        "gradient": gradient.tolist(),
        "arrives": float(of_layers[0] / of_layers[-1]),
        "losses": losses,
        "loss": float(np.mean(losses[-2:])),
    }


def stack_of(run, cell, options):
    # As wide as one direction.
    each = run["units"] // 2 if options.get("bidirectional") else run["units"]
    return RNNStack(cell, each, run["depth"], **options)


def compiled(run, inputs, features, outputs, loss):
    """A model with a Dense on top, ready to train."""
    model = keras.Model(inputs, keras.layers.Dense(outputs)(features))
    optimizer = keras.optimizers.Adam(run["learning_rate"], global_clipnorm=run["global_clipnorm"])
    model.compile(optimizer, loss)
    return model


def losses_of(run, model, x, y):
    """Trains a model; the mean loss of each chunk of updates."""
    losses = []
    for start in range(0, len(x), run["chunk"] * run["batch"]):
        part = slice(start, start + run["chunk"] * run["batch"])
        fit = model.fit(x[part], y[part], batch_size=run["batch"], shuffle=False, verbose=0)
        losses.append(fit.history["loss"][0])
    return losses


def draw(results):
    figure = Figure(figsize=(10, 5.6), layout="constrained")
    axes = figure.subplot_mosaic([list(results), ["losses"] * len(results)])
    gradients = np.array([found["gradient"] for found in results.values()])
    largest = gradients.max()
    for name, gradient in zip(results, gradients, strict=True):
        depth, steps = gradient.shape
        image = axes[name].imshow(
            np.maximum(gradient, 1e-6 * largest),
            cmap="Greys_r",
            norm=LogNorm(1e-6 * largest, largest),
            origin="lower",
            aspect="auto",
            extent=(0.5, steps + 0.5, 0.5, depth + 0.5),
        )
        axes[name].set(title=name, xlabel="time step t")
    axes["plain"].set_ylabel("layer")
    shown = [axes[name] for name in results]
    figure.colorbar(image, ax=shown, label=r"$\Vert\partial J/\partial h_t\Vert$ before training")

    losses = axes["losses"]
    for style, (name, found) in zip(STYLES, results.items(), strict=True):
        updates = SETTINGS["chunk"] * (np.arange(len(found["losses"])) + 1)
        losses.semilogy(updates, found["losses"], style, label=name)
    losses.axhline(CHANCE, color="0.6", linewidth=1, zorder=0)
    losses.annotate(
        "always 1",
        (1, CHANCE),
        (-2, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        color="0.35",
    )
    losses.set(xlabel="update", ylabel="mean squared error")
    losses.legend(handlelength=4, loc="lower left")
    losses.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
