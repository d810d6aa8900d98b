"""What connections do for deep stacks: 8 layers, plain and connected, and what they cost.

    python benchmarks/depth.py            # trains; under an hour on two cores, and can be resumed
    python benchmarks/depth.py --cost     # times a step of training; two minutes

Prints the tables of benchmarks/RESULTS.md. Every finished run is a line of runs/depth.jsonl; what
stands there is not run again.
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

from kerasrnn import tasks
from kerasrnn.layers import RNNStack
from kerasrnn.layers.recurrent import RNN

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from language_model import plays  # noqa: E402

RUNS = ROOT / "runs" / "depth.jsonl"
DEPTH, UNITS, LENGTH, BATCH = 8, 32, 30, 32
# Updates between two looks at the loss.
CHUNK = 25
STACKS = {
    "plain": {},
    "residual": {"connection": "residual"},
    "highway": {"connection": "highway"},
    "dense": {"connection": "dense"},
    "plain, bidirectional": {"bidirectional": True},
    "residual, bidirectional": {"connection": "residual", "bidirectional": True},
}
# The loss that counts as learned: about half of chance; for the letters, less than the entropy of
# single ones.
THRESHOLDS = {"adding": 0.08, "order": 0.69, "letters": 2.8}


@functools.cache
def text():
    return plays()


def data(task, samples, seed):
    if task == "adding":
        return tasks.adding_problem(samples, LENGTH, seed)
    if task == "order":
        return tasks.temporal_order(samples, LENGTH, seed)
    _, letters = text()
    starts = np.random.default_rng(seed).integers(0, len(letters) - LENGTH - 1, samples)
    steps = starts[:, None] + np.arange(LENGTH)
    return letters[steps], letters[steps + 1]


def build(task, cell, options, depth=DEPTH):
    units = UNITS // 2 if options.get("bidirectional") else UNITS
    outputs, inputs = {"adding": (1, (LENGTH, 2)), "order": (4, (LENGTH, 8))}.get(
        task, (len(text()[0]), (LENGTH,))
    )
    x = inputs = keras.Input(inputs)
    if task == "letters":
        x = keras.layers.Embedding(outputs, UNITS)(x)
    sequences = task == "letters"
    stack = RNNStack(cell, units, depth, project=True, return_sequences=sequences, **options)
    model = keras.Model(inputs, keras.layers.Dense(outputs)(stack(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.Adam(3e-3, global_clipnorm=1.0), "mse" if task == "adding" else loss
    )
    return model, stack


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
    directions = len(variables) // DEPTH
    norms = map(tf.linalg.global_norm, (gradients[:directions], gradients[-directions:]))
    return float(next(norms) / next(norms))


def train(task, cell, name, seed, steps):
    keras.utils.set_random_seed(seed)
    model, stack = build(task, cell, STACKS[name])
    fixed = data(task, BATCH, 1000 + seed)
    before = gradient_ratio(model, stack, *fixed)
    x, y = data(task, steps * BATCH, seed)
    losses = []
    for start in range(0, len(x), CHUNK * BATCH):
        part = slice(start, start + CHUNK * BATCH)
        fit = model.fit(x[part], y[part], batch_size=BATCH, shuffle=False, verbose=0)
        losses.append(fit.history["loss"][0])
    reached = np.flatnonzero(np.array(losses) < THRESHOLDS[task])
    return {
        "loss": float(np.mean(losses[-2:])),
        "steps": int(CHUNK * (reached[0] + 1)) if reached.size else None,
        "before": before,
        "after": gradient_ratio(model, stack, *fixed),
    }


def finished():
    if not RUNS.exists():
        return {}
    rows = map(json.loads, RUNS.read_text().splitlines())
    return {tuple(row["run"]): row for row in rows}


def run_all(seeds, steps):
    wanted = [
        (task, cell, name, seed, steps)
        for task in THRESHOLDS
        for cell in ("lstm", "gru")
        for name in STACKS
        # A net that sees the letters to come has none to guess.
        if not (task == "letters" and "bidirectional" in name)
        for seed in range(seeds)
    ]
    done = finished()
    RUNS.parent.mkdir(exist_ok=True)
    for number, run in enumerate(wanted, 1):
        if run not in done:
            start = time.time()
            row = {"run": run, **train(*run)}
            with RUNS.open("a") as file:
                file.write(json.dumps(row) + "\n")
            done[run] = row
            keras.backend.clear_session()
            seconds = time.time() - start
            print(
                f"{number}/{len(wanted)} {run} {row['loss']:.3f} {seconds:.0f} s", file=sys.stderr
            )
    return done


def table(done, seeds, steps):
    print("| task | cell | stack | final loss | steps to threshold | ratio before | after |")
    print("|---|---|---|---|---|---|---|")
    for task, cell, name in dict.fromkeys(run[:3] for run in done):
        rows = [done.get((task, cell, name, seed, steps)) for seed in range(seeds)]
        rows = [row for row in rows if row]
        if not rows:
            continue
        losses = ", ".join(f"{row['loss']:.3f}" for row in rows)
        reached = ", ".join(str(row["steps"] or "-") for row in rows)
        ratios = [f"{np.median([row[when] for row in rows]):.2g}" for when in ("before", "after")]
        print(f"| {task} | {cell} | {name} | {losses} | {reached} | {' | '.join(ratios)} |")


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
        models, times = {}, {name: [] for name in stacks}
        for name, (depth, connection) in stacks.items():
            stack = RNNStack(cell, 128, depth, connection, return_sequences=True)
            models[name] = keras.Sequential([keras.Input(x.shape[1:]), stack])
            models[name].compile("sgd", "mse")
            models[name].train_on_batch(x, x)
        for _ in range(15):
            for name, model in models.items():
                start = time.perf_counter()
                model.train_on_batch(x, x)
                times[name].append(time.perf_counter() - start)
        ms = {name: 1e3 * np.median(taken) for name, taken in times.items()}
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
        done = run_all(arguments.seeds, arguments.steps)
        table(done, arguments.seeds, arguments.steps)


if __name__ == "__main__":
    main()
