"""Deep stacks: what connections do for 8 layers, and how deep a plain stack is best."""

import keras
import numpy as np
import tensorflow as tf

from claims import Row, grouped, letters, nets, table
from kerasrnn.layers import RNN, RNNStack

UNITS, LENGTH, UPDATES, CHUNK = 32, 30, 400, 25
DEEP, DEPTHS = 8, (1, 2, 3, 4, 6)
CONNECTIONS = {
    "plain": {},
    "residual": {"connection": "residual", "project": True},
    "highway": {"connection": "highway", "project": True},
    "dense": {"connection": "dense"},
}
# The loss that counts as learned: about half of chance; for the letters, less than the entropy of
# single ones.
THRESHOLDS = {"adding": 0.08, "letters": 2.8}


def wanted(seeds):
    common = {"units": UNITS, "length": LENGTH, "updates": UPDATES, "chunk": CHUNK}
    deep = [
        {"task": task, "cell": cell, "connection": connection, "depth": DEEP, "seed": seed}
        for task in THRESHOLDS
        for cell in ("lstm", "gru")
        for connection in CONNECTIONS
        for seed in range(seeds)
    ]
    by_depth = [
        {"task": "letters", "cell": "lstm", "connection": connection, "depth": depth, "seed": seed}
        for connection in ("plain", "residual")
        for depth in DEPTHS
        for seed in range(seeds)
    ]
    return [run | common | {"library": "kerasrnn"} for run in deep + by_depth]


def in_keras(run):
    """Keras has no connections between layers that are recurrent."""
    return run | {"library": "keras"} if run["connection"] == "plain" else None


def train(run):
    """The mean loss of every chunk of updates, and the gradient ratio before and after."""
    nets.fresh(run["seed"])
    model, stack = build(run)
    fixed = data(run, nets.BATCH, 1000 + run["seed"])
    ours = run["library"] == "kerasrnn"
    found = {"before": gradient_ratio(model, stack, *fixed)} if ours else {}
    x, y = data(run, run["updates"] * nets.BATCH, run["seed"])
    losses = []
    for start in range(0, len(x), run["chunk"] * nets.BATCH):
        part = slice(start, start + run["chunk"] * nets.BATCH)
        fit = model.fit(x[part], y[part], batch_size=nets.BATCH, shuffle=False, verbose=0)
        losses.append(fit.history["loss"][0])
    if ours:
        found["after"] = gradient_ratio(model, stack, *fixed)
    return found | {"losses": losses}


def data(run, samples, seed):
    if run["task"] == "letters":
        return letters.stretches(samples, run["length"], seed)
    return nets.data("adding", 0.75 * run["length"], samples, seed)


def build(run):
    """The compiled model and its stack."""
    of_letters, depth = run["task"] == "letters", run["depth"]
    if run["library"] == "kerasrnn":
        options = CONNECTIONS[run["connection"]]
        stack = RNNStack(run["cell"], run["units"], depth, return_sequences=of_letters, **options)
    else:
        stack = keras.Sequential(
            [
                nets.layer(run["cell"], run["units"], library="keras", return_sequences=every)
                for every in [True] * (depth - 1) + [of_letters]
            ]
        )
    if not of_letters:
        return nets.model("adding", stack, run["length"]), stack
    model = letters.model(stack, run["units"], run["length"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(nets.RATE, global_clipnorm=nets.CLIP), loss)
    return model, stack


def biases(layer):
    """The bias of every layer, bottom to top."""
    if isinstance(layer, RNN):
        return [layer.cell.bias.value]
    return [bias for part in layer.layers for bias in biases(part)]


def gradient_ratio(model, stack, x, y):
    """The norm of the gradient of the bias at the first layer, over that at the last: unlike a
    kernel's it does not grow with what the layer is given."""
    ends = biases(stack)[0], biases(stack)[-1]
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True))
    first, last = map(tf.norm, tape.gradient(loss, ends))
    return float(first / last)


def _final(one):
    """The mean loss of the last two chunks."""
    return float(np.mean(one["losses"][-2:]))


def rows(runs, found):
    by = grouped(runs, found, "task", "cell", "connection", "depth")

    def learned(connection):
        return [
            _final(one) < THRESHOLDS[task]
            for task in THRESHOLDS
            for cell in ("lstm", "gru")
            for one in by[task, cell, connection, DEEP]
        ]

    counts = {name: sum(learned(name)) for name in CONNECTIONS}
    runs_each = len(learned("plain"))
    told = ", ".join(f"{name} {count}" for name, count in counts.items())
    helped = [name for name, count in counts.items() if count > counts["plain"]]
    yield Row(
        f"Skip connections make stacks of {DEEP} layers trainable",
        f"runs of {runs_each} that come below the threshold: {told}",
        "yes" if len(helped) == 3 else f"for {', '.join(helped)}" if helped else "no",
    )
    plain = {
        depth: np.mean([_final(one) for one in by["letters", "lstm", "plain", depth]])
        for depth in (*DEPTHS, DEEP)
    }
    best = min(plain, key=plain.get)
    told = ", ".join(f"{depth}: {loss:.3f}" for depth, loss in plain.items())
    yield Row(
        "A plain stack is best with 2 to 4 layers (Britz et al., 2017)",
        f"loss on letters after {runs[0]['updates']} updates by depth: {told}",
        "yes" if 2 <= best <= 4 else f"no, {best}",
    )


def tables(runs, found):
    yield (
        f"LSTMs and GRUs of {UNITS} units, {UPDATES} updates of {nets.BATCH} sequences of {LENGTH} "
        f"steps, Adam at {nets.RATE}, `global_clipnorm={nets.CLIP}`. Final loss: the mean of the "
        f"last {2 * CHUNK} updates, by seeds. Steps to threshold: the first {CHUNK} updates with a "
        "mean loss below it, `-` where there are none. Gradient ratio: the norm of the loss's "
        "gradient with respect to the bias of the first layer over that of the last, on a batch of "
        "its own before and after training; the median of the seeds."
    )
    chances = {"adding": nets.CHANCE["adding"], "letters": letters.chance()}
    yield table(
        ("task", "loss by chance", "threshold"),
        [[task, f"{chances[task]:.3f}", THRESHOLDS[task]] for task in THRESHOLDS],
    )
    lines = []
    names = "task", "cell", "depth", "connection"
    for (task, *rest), some in grouped(runs, found, *names).items():
        losses = ", ".join(f"{_final(one):.3f}" for one in some)
        reached = ", ".join(_steps_to(THRESHOLDS[task], one["losses"]) for one in some)
        ratios = (f"{np.median([one[when] for one in some]):.2g}" for when in ("before", "after"))
        lines.append([task, *rest, losses, reached, *ratios])
    yield table((*names, "final loss", "steps to threshold", "ratio before", "ratio after"), lines)


def _steps_to(threshold, losses):
    below = np.flatnonzero(np.array(losses) < threshold)
    return str(CHUNK * (below[0] + 1)) if below.size else "-"
