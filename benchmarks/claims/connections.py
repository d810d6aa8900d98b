"""Deep stacks: what connections do for 8 layers, and how deep a plain stack is best."""

import depth
import keras
import numpy as np
from deep_stacks import CONNECTIONS, SETTINGS, losses_of

from claims import Row, grouped, nets, table

UPDATES, DEEP, DEPTHS = 400, SETTINGS["depth"], (1, 2, 3, 4, 6)
TASKS = "adding", "letters"


def wanted(seeds):
    deep = [
        {"task": task, "cell": cell, "connection": connection, "depth": DEEP, "seed": seed}
        for task in TASKS
        for cell in ("lstm", "gru")
        for connection in CONNECTIONS
        for seed in range(seeds)
    ]
    by_depth = [
        {"task": "letters", "cell": "lstm", "connection": connection, "depth": layers, "seed": seed}
        for connection in ("plain", "residual")
        for layers in DEPTHS
        for seed in range(seeds)
    ]
    common = {"updates": UPDATES, "library": "kerasrnn"}
    return [SETTINGS | run | common for run in deep + by_depth]


def in_keras(run):
    """Keras has no connections between recurrent layers."""
    return run | {"library": "keras"} if run["connection"] == "plain" else None


def train(run):
    """The mean loss of every chunk of updates, and the gradient ratio before and after."""
    nets.fresh(run["seed"])
    run = run | {"options": CONNECTIONS[run["connection"]]}
    model, stack = depth.build(run, None if run["library"] == "kerasrnn" else _plain_in_keras)
    x, y = depth.data(run, run["updates"] * run["batch"], run["seed"])
    if run["library"] == "keras":
        return {"losses": losses_of(run, model, x, y)}
    fixed = depth.data(run, run["batch"], 1000 + run["seed"])
    before = depth.gradient_ratio(model, stack, *fixed)
    losses = losses_of(run, model, x, y)
    after = depth.gradient_ratio(model, stack, *fixed)
    return {"losses": losses, "before": before, "after": after}


def _plain_in_keras(run, cell, options):
    every = [True] * (run["depth"] - 1) + [options["return_sequences"]]
    return keras.Sequential(
        [nets.layer(cell, run["units"], library="keras", return_sequences=one) for one in every]
    )


def _final(one):
    """The mean loss of the last two chunks."""
    return float(np.mean(one["losses"][-2:]))


def rows(runs, found):
    by = grouped(runs, found, "task", "cell", "connection", "depth")

    def learned(connection):
        return [
            _final(one) < depth.THRESHOLDS[task]
            for task in TASKS
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
        layers: np.mean([_final(one) for one in by["letters", "lstm", "plain", layers]])
        for layers in (*DEPTHS, DEEP)
    }
    best = min(plain, key=plain.get)
    told = ", ".join(f"{layers}: {loss:.3f}" for layers, loss in plain.items())
    yield Row(
        "A plain stack is best with 2 to 4 layers (Britz et al., 2017)",
        f"loss on letters after {runs[0]['updates']} updates by depth: {told}",
        "yes" if 2 <= best <= 4 else f"no, {best}",
    )


def tables(runs, found):
    yield (
        f"LSTMs and GRUs of {SETTINGS['units']} units, {UPDATES} updates of {SETTINGS['batch']} "
        f"sequences of {SETTINGS['length']} steps, Adam at {SETTINGS['learning_rate']}, "
        f"`global_clipnorm={SETTINGS['global_clipnorm']}`. Final loss: the mean of the last "
        f"{2 * SETTINGS['chunk']} updates, by seeds. Steps to threshold: the first "
        f"{SETTINGS['chunk']} updates with a "
        "mean loss below it, `-` where there are none. Gradient ratio: the norm of the loss's "
        "gradient with respect to the bias of the first layer over that of the last, on a batch of "
        "its own before and after training; the median of the seeds."
    )
    yield table(
        ("task", "loss by chance", "threshold"),
        [[task, f"{depth.chance(task):.3f}", depth.THRESHOLDS[task]] for task in TASKS],
    )
    lines = []
    names = "task", "cell", "depth", "connection"
    for (task, *rest), some in grouped(runs, found, *names).items():
        losses = ", ".join(f"{_final(one):.3f}" for one in some)
        reached = ", ".join(depth.steps_to(depth.THRESHOLDS[task], one["losses"]) for one in some)
        ratios = (f"{np.median([one[when] for one in some]):.2g}" for when in ("before", "after"))
        lines.append([task, *rest, losses, reached, *ratios])
    yield table((*names, "final loss", "steps to threshold", "ratio before", "ratio after"), lines)
