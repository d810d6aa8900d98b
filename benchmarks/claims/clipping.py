"""Exploding gradients: the cliff of `examples/exploding_cliff.py`, and a net of many units that is
trained at a large learning rate, with a clip and without."""

import exploding_cliff
import keras
import numpy as np

from claims import Row, grouped, nets, table
from kerasrnn.callbacks import GradientClipping

CLIPS = {"none": None, "global_norm": exploding_cliff.THRESHOLD}
UPDATES, LAG, UNITS, RATES, TESTED = 400, 30, 32, (0.03, 0.3), 1000
# Orthogonal weights times √2 keep the gradient's norm where relu is 0 for half of the units.
GAIN = 2.0
IN_THE_VALLEY = 1e-6


def wanted(seeds):
    cliff = [{"net": "cliff", "clip": clip, "updates": 150, "seed": 0} for clip in CLIPS]
    return cliff + [
        {
            "net": "units",
            "clip": clip,
            "rate": rate,
            "seed": seed,
            "units": UNITS,
            "lag": LAG,
            "updates": UPDATES,
            "library": "kerasrnn",
        }
        for clip in CLIPS
        for rate in RATES
        for seed in range(seeds)
    ]


def in_keras(run):
    return run | {"library": "keras"} if run["net"] == "units" else None


def train(run):
    """The loss in the end, infinite where it is not a number."""
    nets.fresh(run["seed"])
    if run["net"] == "cliff":
        clip = [] if run["clip"] == "none" else [GradientClipping(run["clip"], CLIPS[run["clip"]])]
        path = exploding_cliff.descend(run["updates"], *clip)
        return {"loss": float(exploding_cliff.error(*path[-1]))}
    x, y = nets.data("adding", run["lag"], run["updates"] * nets.BATCH, run["seed"])
    start = keras.initializers.Orthogonal(GAIN, seed=run["seed"])
    recurrent = nets.layer(
        "simple_rnn",
        run["units"],
        library=run["library"],
        recurrent_initializer=start,
        activation="relu",
    )
    model = nets.model("adding", recurrent, x.shape[1])
    clip = None if run["clip"] == "none" else nets.CLIP
    model.compile(keras.optimizers.SGD(run["rate"], global_clipnorm=clip), "mse")
    model.fit(x, y, batch_size=nets.BATCH, shuffle=False, verbose=0)
    if "timed" in run:
        return {}
    tested = nets.data("adding", run["lag"], TESTED, 1000 + run["seed"])
    loss = model.evaluate(*tested, batch_size=100, verbose=0)
    return {"loss": float(loss) if np.isfinite(loss) else None}


def rows(runs, found):
    by = grouped(runs, found, "net", "clip")
    free, clipped = (by["cliff", clip][0]["loss"] for clip in CLIPS)
    yield Row(
        "A step at a cliff throws the weights away; with a clip the valley is found",
        f"E after {runs[0]['updates']} updates: {free:.1e} without, {clipped:.1e} with",
        "yes" if clipped < IN_THE_VALLEY < free else "no",
    )
    lost = {clip: [one["loss"] is None for one in by["units", clip]] for clip in CLIPS}
    yield Row(
        "Exploding gradients end in Inf or NaN",
        ", ".join(f"clip {clip}: {sum(some)} of {len(some)} runs" for clip, some in lost.items()),
        "yes" if any(lost["none"]) and not any(lost["global_norm"]) else "no",
    )


def tables(runs, found):
    yield (
        f"The cliff, and a SimpleRNN of {UNITS} units with relu and an orthogonal recurrent kernel "
        f"times {GAIN} (times √2 it would keep the gradient's norm), on the adding problem, SGD, "
        f"`global_clipnorm={nets.CLIP}`; loss in the end, by seeds; `-`: not a number."
    )
    groups = {}
    for run, one in zip(runs, found, strict=True):
        group = run["net"], run.get("rate", exploding_cliff.RATE), run["clip"]
        groups.setdefault(group, []).append(one["loss"])
    lines = [
        [*group, ", ".join("-" if loss is None else f"{loss:.2g}" for loss in losses)]
        for group, losses in groups.items()
    ]
    yield table(("net", "learning rate", "clip", "loss"), lines)
