"""Deep stacks: what connections do for 8 layers, and how deep a plain stack is best."""

import keras
import numpy as np
import tensorflow as tf
from deep_stacks import CONNECTIONS, SETTINGS, losses_of, stack_of

from claims import Row, grouped, letters, nets, table
from kerasrnn import tasks
from kerasrnn.layers import RNN

UPDATES, DEEP = 400, SETTINGS["depth"]
# Longer: a stack that starts slower may come to more.
DEPTHS, UPDATES_BY_DEPTH = (1, 2, 3, 4), 800
CELLS = "lstm", "gru"
BIDIRECTIONAL = {
    "plain, bidirectional": {"bidirectional": True},
    "residual, bidirectional": {**CONNECTIONS["residual"], "bidirectional": True},
}
STACKS = CONNECTIONS | BIDIRECTIONAL
# A net that sees the letters to come has none to guess.
OF_TASK = {"adding": STACKS, "letters": CONNECTIONS}
# The loss that counts as learned: about half of chance; for the letters, less than the entropy of
# single ones.
THRESHOLDS = {"adding": 0.08, "letters": 2.8}


def wanted(seeds):
    deep = [
        {"task": task, "cell": cell, "connection": connection, "depth": DEEP, "seed": seed}
        for task, connections in OF_TASK.items()
        for cell in CELLS
        for connection in connections
        for seed in range(seeds)
    ]
    by_depth = [
        {"task": "letters", "cell": "lstm", "connection": connection, "depth": layers, "seed": seed}
        for connection in ("plain", "residual")
        for layers in DEPTHS
        for seed in range(seeds)
    ]
    deep = [run | {"updates": UPDATES} for run in deep]
    by_depth = [run | {"updates": UPDATES_BY_DEPTH} for run in by_depth]
    return [SETTINGS | run | {"library": "kerasrnn"} for run in deep + by_depth]


def in_keras(run):
    """Keras has no connections between recurrent layers."""
    return run | {"library": "keras"} if run["connection"] == "plain" else None


def train(run):
    """The mean loss of every chunk of updates, and the gradient ratio before and after."""
    nets.fresh(run["seed"])
    model, stack = build(run)
    x, y = data(run, run["updates"] * run["batch"], run["seed"])
    if "timed" in run:
        return {"losses": losses_of(run, model, x, y)}
    fixed = data(run, run["batch"], 1000 + run["seed"])
    before = gradient_ratio(model, stack, *fixed)
    losses = losses_of(run, model, x, y)
    return {"losses": losses, "before": before, "after": gradient_ratio(model, stack, *fixed)}


def data(run, samples, seed):
    if run["task"] == "adding":
        return tasks.adding_problem(samples, run["length"], seed)
    return letters.stretches(samples, run["length"], seed)


def build(run):
    """The compiled model and its stack."""
    of_letters = run["task"] == "letters"
    if run["library"] == "keras":
        stack = _plain_in_keras(run, of_letters)
    else:
        options = {"return_sequences": of_letters, **STACKS[run["connection"]]}
        stack = stack_of(run, run["cell"], options)
    if of_letters:
        return letters.model(stack, run["units"], run["length"]), stack
    return nets.model(run["task"], stack, run["length"]), stack


def _plain_in_keras(run, return_sequences):
    every = [True] * (run["depth"] - 1) + [return_sequences]
    return keras.Sequential(
        [nets.layer(run["cell"], run["units"], library="keras", return_sequences=s) for s in every]
    )


def biases(layer):
    """The bias of every direction of every layer, bottom to top."""
    if isinstance(layer, RNN):
        return [layer.cell.bias.value]
    parts = getattr(layer, "layers", None) or [layer.forward_layer, layer.backward_layer]
    return [bias for part in parts for bias in biases(part)]


def gradient_ratio(model, stack, x, y):
    """The norm of the gradient of the bias at the first layer, over that at the last: unlike a
    kernel's it does not grow with what the layer is given."""
    variables = biases(stack)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True))
    gradients = tape.gradient(loss, variables)
    directions = len(variables) // stack.depth
    norms = map(tf.linalg.global_norm, (gradients[:directions], gradients[-directions:]))
    return float(next(norms) / next(norms))


def final(one):
    """The mean loss of the last two chunks."""
    return float(np.mean(one["losses"][-2:]))


def steps_to(threshold, losses):
    """The updates until a chunk's loss is below the threshold, "-" if none is."""
    below = np.flatnonzero(np.array(losses) < threshold)
    return str(SETTINGS["chunk"] * (below[0] + 1)) if below.size else "-"


def rows(runs, found):
    by = grouped(runs, found, "task", "cell", "connection", "depth")

    def learned(connection):
        return [
            final(one) < THRESHOLDS[task]
            for task in OF_TASK
            for cell in CELLS
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
        layers: np.mean([final(one) for one in by["letters", "lstm", "plain", layers]])
        for layers in DEPTHS
    }
    best = min(plain, key=plain.get)
    told = ", ".join(f"{layers}: {loss:.3f}" for layers, loss in plain.items())
    yield Row(
        "A plain stack is best with 2 to 4 layers (Britz et al., 2017)",
        f"loss of LSTMs on letters after {runs[-1]['updates']} updates by depth: {told}",
        "yes" if 2 <= best <= 4 else f"no, {best}",
    )


def tables(runs, found):
    yield (
        f"LSTMs and GRUs of {SETTINGS['units']} units, both directions together as wide, {UPDATES} "
        f"updates ({UPDATES_BY_DEPTH} of less than {DEEP} layers) of {SETTINGS['batch']} sequences "
        f"of {SETTINGS['length']} steps, Adam at {nets.RATE}, `global_clipnorm={nets.CLIP}`. Final "
        f"loss: the mean of the last {2 * SETTINGS['chunk']} updates, by seeds. Steps to "
        f"threshold: the first {SETTINGS['chunk']} updates with a mean loss below it, `-` where "
        "there are none. Gradient ratio: the norm of the loss's gradient with respect to the bias "
        "of the first layer over that of the last, on a batch of its own before and after "
        "training; the median of the seeds."
    )
    chances = {"adding": nets.CHANCE["adding"], "letters": letters.chance()}
    yield table(
        ("task", "loss by chance", "threshold"),
        [[task, f"{chances[task]:.3f}", threshold] for task, threshold in THRESHOLDS.items()],
    )
    lines = []
    names = "task", "cell", "depth", "connection"
    for (task, *rest), some in grouped(runs, found, *names).items():
        losses = ", ".join(f"{final(one):.3f}" for one in some)
        reached = ", ".join(steps_to(THRESHOLDS[task], one["losses"]) for one in some)
        ratios = (f"{np.median([one[when] for one in some]):.2g}" for when in ("before", "after"))
        lines.append([task, *rest, losses, reached, *ratios])
    yield table((*names, "final loss", "steps to threshold", "ratio before", "ratio after"), lines)
