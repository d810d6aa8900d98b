"""Deep stacks: what connections do for 8 layers, and how deep a plain stack is best."""

import keras
import numpy as np
import tensorflow as tf
from deep_stacks import CONNECTIONS, SETTINGS, losses_of, stack_of

from claims import Row, grouped, letters, nets, span, table
from kerasrnn import tasks
from kerasrnn.layers import RNN

UPDATES, DEEP = 400, SETTINGS["depth"]
# Longer: a stack that starts slower may come to more.
DEPTHS, UPDATES_BY_DEPTH = (1, 2, 4, DEEP), 800
CELLS_OF = {"adding": ("lstm", "gru"), "order": ("lstm",), "letters": ("lstm", "gru")}
# The loss that counts as learned: about half of chance; for the letters, less than the entropy of
# single ones.
THRESHOLDS = {"adding": 0.08, "order": 0.69, "letters": 2.8}


def wanted(seeds):
    deep = [
        {"task": task, "cell": cell, "connection": connection, "depth": DEEP, "seed": seed}
        for task, cells in CELLS_OF.items()
        for cell in cells
        for connection in CONNECTIONS
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
        losses_of(run, model, x, y)
        return {}
    fixed = data(run, run["batch"], 1000 + run["seed"])
    before = gradient_ratio(model, stack, *fixed)
    losses = losses_of(run, model, x, y)
    return {"losses": losses, "before": before, "after": gradient_ratio(model, stack, *fixed)}


def data(run, samples, seed):
    of_task = {"adding": tasks.adding_problem, "order": tasks.temporal_order}
    return of_task.get(run["task"], letters.stretches)(samples, run["length"], seed)


def build(run):
    """The compiled model and its stack."""
    of_letters = run["task"] == "letters"
    if run["library"] == "keras":
        stack = _plain_in_keras(run, of_letters)
    else:
        options = {"return_sequences": of_letters, **CONNECTIONS[run["connection"]]}
        stack = stack_of(run, run["cell"], options)
    if of_letters:
        return letters.model(stack, run["units"], run["length"]), stack
    return nets.model(run["task"], stack, run["length"]), stack


def _plain_in_keras(run, return_sequences):
    every = [True] * (run["depth"] - 1) + [return_sequences]
    return keras.Sequential(
        [nets.layer(run["cell"], run["units"], library="keras", return_sequences=s) for s in every]
    )


def gradient_ratio(model, stack, x, y):
    """The norm of the gradient of the bias at the first layer, over that at the last: unlike a
    kernel's it does not grow with what the layer is given."""
    layers = _recurrent_layers(stack)
    ends = [layer.cell.bias.value for layer in (layers[0], layers[-1])]
    with tf.GradientTape() as tape:
        loss = model.compute_loss(x, y, model(x, training=True))
    first, last = map(tf.norm, tape.gradient(loss, ends))
    return float(first / last)


def _recurrent_layers(layer):
    """Those inside it, bottom to top."""
    if isinstance(layer, RNN):
        return [layer]
    return [each for part in layer.layers for each in _recurrent_layers(part)]


def final(one):
    """The mean loss of the last two chunks."""
    return float(np.mean(one["losses"][-2:]))


def steps_to(threshold, losses):
    """The updates until a chunk's loss is below the threshold, "-" if none is."""
    below = np.flatnonzero(np.array(losses) < threshold)
    return str(SETTINGS["chunk"] * (below[0] + 1)) if below.size else "-"


def rows(runs, found):
    by = grouped(runs, found, "task", "cell", "connection", "depth", "updates")
    deep = {
        name: {
            (task, cell): [
                final(one) < THRESHOLDS[task]
                for one in by[task, cell, name, DEEP, runs[0]["updates"]]
            ]
            for task, cells in CELLS_OF.items()
            for cell in cells
        }
        for name in CONNECTIONS
    }
    fails = [kind for kind, learned in deep["plain"].items() if not any(learned)]
    told = "; ".join(
        f"{task}, {cell}: "
        + ", ".join(f"{name} {sum(deep[name][task, cell])}" for name in CONNECTIONS)
        for task, cell in deep["plain"]
    )
    # A connection helps that has most seeds learn wherever all plain ones fail.
    helps = [
        name
        for name in list(CONNECTIONS)[1:]
        if fails and all(np.mean(deep[name][kind]) > 0.5 for kind in fails)
    ]
    needed = f" where plain ones fail, {len(fails)} of {len(deep['plain'])}"
    holds = "yes" if len(helps) == 3 else f"for {', '.join(helps)}"
    yield Row(
        f"Skip connections make stacks of {DEEP} layers trainable",
        f"seeds of {len(next(iter(deep['plain'].values())))} that come below the threshold: {told}",
        f"{holds}{needed}" if helps else "no",
    )
    updates = runs[-1]["updates"]
    plain = {
        layers: [final(one) for one in by["letters", "lstm", "plain", layers, updates]]
        for layers in DEPTHS
    }
    best = min(plain, key=lambda layers: np.mean(plain[layers]))
    told = ", ".join(f"{layers}: {span(losses)}" for layers, losses in plain.items())
    yield Row(
        "A plain stack is best with 2 to 4 layers (Britz et al., 2017)",
        f"loss of LSTMs on letters after {updates} updates by depth: {told}",
        "yes" if 2 <= best <= 4 else f"no, {best}",
    )


def tables(runs, found):
    yield (
        f"LSTMs and GRUs of {SETTINGS['units']} units on {SETTINGS['batch']} sequences of "
        f"{SETTINGS['length']} steps an update, Adam at {nets.RATE}, "
        f"`global_clipnorm={nets.CLIP}`. Final loss: the mean of the last "
        f"{2 * SETTINGS['chunk']} updates, by seeds. Steps to threshold: the first "
        f"{SETTINGS['chunk']} updates with a mean loss below it, `-` where there are none. "
        "Gradient ratio: the norm of the loss's gradient with respect to the bias of the first "
        "layer over that of the last, on a batch of its own before and after training; the median "
        "of the seeds."
    )
    chances = nets.CHANCE | {"letters": letters.chance()}
    yield table(
        ("task", "loss by chance", "threshold"),
        [[task, f"{chances[task]:.3f}", threshold] for task, threshold in THRESHOLDS.items()],
    )
    lines = []
    names = "task", "cell", "depth", "updates", "connection"
    for (task, *rest), some in grouped(runs, found, *names).items():
        losses = ", ".join(f"{final(one):.3f}" for one in some)
        reached = ", ".join(steps_to(THRESHOLDS[task], one["losses"]) for one in some)
        ratios = (f"{np.median([one[when] for one in some]):.2g}" for when in ("before", "after"))
        lines.append([task, *rest, losses, reached, *ratios])
    yield table((*names, "final loss", "steps to threshold", "ratio before", "ratio after"), lines)
