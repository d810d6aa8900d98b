"""What connections do for deep stacks: 8 layers, plain and connected, and what they cost.

    python benchmarks/depth.py            # trains; about an hour on two cores, and can be resumed
    python benchmarks/depth.py --cost     # times a step of training; two minutes

Prints tables in Markdown. Every finished run is a line of runs/depth.jsonl, with all that it was
told; what stands there so told is not run again. Delete the file when the layers have changed.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from turns import seconds, take_turns

from kerasrnn import tasks
from kerasrnn.layers import RNN, RNNStack

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import deep_stacks  # noqa: E402
from deep_stacks import CONNECTIONS, SETTINGS, compiled, losses_of  # noqa: E402
from language_model import cross_entropy, plays  # noqa: E402

RUNS = ROOT / "runs" / "depth.jsonl"
# All that is the same in every run.
COMMON = dict(SETTINGS)
STACKS = {
    **CONNECTIONS,
    "plain, bidirectional": {"bidirectional": True},
    "residual, bidirectional": {**CONNECTIONS["residual"], "bidirectional": True},
}
# The loss that counts as learned: about half of chance; for the letters, less than the entropy of
# single ones.
THRESHOLDS = {"adding": 0.08, "order": 0.69, "letters": 2.8}


@functools.cache
def text():
    return plays()


def chance(task):
    """The loss of whoever knows how often each answer occurs, and nothing of the input."""
    if task == "adding":
        return 1 / 6
    if task == "order":
        return np.log(4)
    shares = np.bincount(text()[1]) / len(text()[1])
    return -(shares * np.log(shares)).sum()


def data(run, samples, seed):
    length = run["length"]
    if run["task"] == "adding":
        return tasks.adding_problem(samples, length, seed)
    if run["task"] == "order":
        return tasks.temporal_order(samples, length, seed)
    _, letters = text()
    starts = np.random.default_rng(seed).integers(0, len(letters) - length, samples)
    steps = starts[:, None] + np.arange(length)
    return letters[steps], letters[steps + 1]


def build(run, stack_of=None):
    """The compiled model and its stack, made by `stack_of(run, cell, options)`."""
    length, units = run["length"], run["units"]
    inputs, outputs = {"adding": ((length, 2), 1), "order": ((length, 8), 4)}.get(
        run["task"], ((length,), len(text()[0]))
    )
    sequences = run["task"] == "letters"
    stack = (stack_of or deep_stacks.stack_of)(
        run, run["cell"], {"return_sequences": sequences, **run["options"]}
    )
    x = inputs = keras.Input(inputs)
    if sequences:
        x = keras.layers.Embedding(outputs, units)(x)
    loss = "mse" if run["task"] == "adding" else cross_entropy()
    return compiled(run, inputs, stack(x), outputs, loss), stack


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


def train(run):
    """The mean loss of every chunk of updates, and the gradient ratio before and after."""
    seed, batch = run["seed"], run["batch"]
    # What the run before has left.
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model, stack = build(run)
    fixed = data(run, batch, 1000 + seed)
    before = gradient_ratio(model, stack, *fixed)
    x, y = data(run, run["steps"] * batch, seed)
    losses = losses_of(run, model, x, y)
    return {"losses": losses, "before": before, "after": gradient_ratio(model, stack, *fixed)}


def wanted(seeds, steps):
    """Every run, as all that determines it."""
    return [
        {
            "task": task,
            "cell": cell,
            "options": options,
            "seed": seed,
            "steps": steps,
            **COMMON,
        }
        for task in THRESHOLDS
        for cell in ("lstm", "gru")
        for options in STACKS.values()
        # A net that sees the letters to come has none to guess.
        if not (task == "letters" and options.get("bidirectional"))
        for seed in range(seeds)
    ]


def key(run):
    return json.dumps(run, sort_keys=True)


def finished():
    if not RUNS.exists():
        return {}
    rows = map(json.loads, RUNS.read_text().splitlines())
    return {key(row["run"]): row["found"] for row in rows}


def run_all(runs):
    done = finished()
    RUNS.parent.mkdir(exist_ok=True)
    for number, run in enumerate(runs, 1):
        if key(run) in done:
            continue
        start = time.time()
        done[key(run)] = train(run)
        with RUNS.open("a") as file:
            file.write(json.dumps({"run": run, "found": done[key(run)]}) + "\n")
        took = time.time() - start
        print(f"{number}/{len(runs)} {key(run)} {took:.0f} s", file=sys.stderr)
    return done


def table(runs, done):
    steps, seeds = runs[0]["steps"], len({run["seed"] for run in runs})
    tail = 2 * COMMON["chunk"]
    print(
        f"Stacks of {COMMON['depth']} layers, {COMMON['units']} wide (both directions together "
        f"where there are two), {steps} updates on batches of {COMMON['batch']} sequences of "
        f"{COMMON['length']} steps, Adam at "
        f"{COMMON['learning_rate']}, global_clipnorm={COMMON['global_clipnorm']}; {seeds} seeds.\n"
        f"Final loss: the mean of the last {tail} updates. Steps to threshold: the first "
        f"{COMMON['chunk']} updates with a mean loss below it, `-` where there are none. Gradient "
        "ratio: the norm of the loss's gradient with respect to the biases of layer 1 over that of "
        f"layer {COMMON['depth']}, on a batch of its own before and after training; the median of "
        "the seeds.\n"
    )
    print("| task | loss by chance | threshold |\n|---|---|---|")
    for task, threshold in THRESHOLDS.items():
        print(f"| {task} | {chance(task):.3f} | {threshold} |")
    print(
        "\n| task | cell | stack | final loss | steps to threshold | ratio before | ratio after |"
    )
    print("|---|---|---|---|---|---|---|")
    names = {key(options): name for name, options in STACKS.items()}
    groups = {}
    for run in runs:
        group = run["task"], run["cell"], names[key(run["options"])]
        groups.setdefault(group, []).append(done[key(run)])
    for (task, cell, name), found in groups.items():
        losses = ", ".join(f"{np.mean(one['losses'][-2:]):.3f}" for one in found)
        reached = ", ".join(steps_to(THRESHOLDS[task], one["losses"]) for one in found)
        ratios = (f"{np.median([one[when] for one in found]):.2g}" for when in ("before", "after"))
        print(f"| {task} | {cell} | {name} | {losses} | {reached} | {' | '.join(ratios)} |")


def steps_to(threshold, losses):
    below = np.flatnonzero(np.array(losses) < threshold)
    return str(COMMON["chunk"] * (below[0] + 1)) if below.size else "-"


def cost():
    """Times of a step of training, in turn, as ratios of medians."""
    x = np.random.default_rng(0).normal(size=(32, 100, 128)).astype("float32")
    stacks = {
        "one layer": (1, None),
        "plain": (4, None),
        "residual": (4, "residual"),
        "highway": (4, "highway"),
        "dense": (4, "dense"),
    }
    print("| cell | stack of 4, 128 units, (32, 100, 128) | ms | ratio to plain | to one layer |")
    print("|---|---|---|---|---|")
    for cell in ("lstm", "gru"):
        steps = []
        for depth, connection in stacks.values():
            stack = RNNStack(cell, 128, depth, connection, return_sequences=True)
            model = keras.Sequential([keras.Input(x.shape[1:]), stack])
            model.compile("sgd", "mse")
            steps.append(functools.partial(seconds, model.train_on_batch, x, x))
        turns = take_turns(steps, 15)
        ms = {name: turns.ms(i) for i, name in enumerate(stacks)}
        for name, one in ms.items():
            ratios = f"{one / ms['plain']:.2f}x | {one / ms['one layer']:.2f}x"
            print(f"| {cell} | {name} | {one:.0f} | {ratios} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cost", action="store_true", help="time a step of training instead")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400, help="updates per run")
    arguments = parser.parse_args()
    if arguments.cost:
        cost()
    else:
        runs = wanted(arguments.seeds, arguments.steps)
        table(runs, run_all(runs))


if __name__ == "__main__":
    main()
