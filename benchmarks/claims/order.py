"""Temporal order by a vanilla RNN that is trained on 50 to 200 steps with a clip and the vanishing
gradient regularization Ω, and tested on more (Pascanu, Mikolov & Bengio, 2013, section 4).

Other than there, the nets see a hundred thousand sequences, the optimizer is Adam, the recurrent
kernel starts from the identity and the input's near 0.
"""

import itertools

import keras
import numpy as np

from claims import Row, grouped, nets, span, table
from kerasrnn import tasks

SHORTEST, LONGEST = 50, 200
TESTED, LENGTHS = 500, (50, 100, 200, 1000, 5000)
UNITS, UPDATES, RATE = 50, 3000, 2e-4
SOLVED = 0.01
# λ of Ω, which is a sum over the steps.
WEIGHTS = 0.0, 0.02


def wanted(seeds):
    return [
        {
            "omega": weight,
            "seed": seed,
            "units": UNITS,
            "updates": UPDATES,
            "library": "kerasrnn",
        }
        for weight in WEIGHTS
        for seed in range(seeds)
    ]


def in_keras(run):
    """Keras has no Ω."""
    return None if run["omega"] else run | {"library": "keras"}


class Sequences(keras.utils.PyDataset):
    """Batches of temporal order, each of a length of its own."""

    def __init__(self, updates, seed):
        super().__init__()
        self.updates, self.seed = updates, seed

    def __len__(self):
        return self.updates

    def __getitem__(self, batch):
        seed = self.seed, batch
        length = np.random.default_rng(seed).integers(SHORTEST, LONGEST, endpoint=True)
        return tasks.temporal_order(nets.BATCH, length, seed)


def train(run):
    """The share of errors by length."""
    nets.fresh(run["seed"])
    # Inputs that fill tanh would drown what is remembered, before any of it is learned.
    small = keras.initializers.RandomNormal(stddev=1e-3, seed=run["seed"])
    options = {"kernel_initializer": small, "recurrent_initializer": "identity"}
    if run["omega"]:
        options["vanishing_gradient_regularization"] = run["omega"]
    recurrent = nets.layer("simple_rnn", run["units"], library=run["library"], **options)
    rate = keras.optimizers.schedules.CosineDecay(RATE, run["updates"])
    model = nets.model("order", recurrent, None, rate)
    model.fit(Sequences(run["updates"], run["seed"]), verbose=0)
    if "timed" in run:
        return {}
    return {"errors": {str(length): errors(model, length, run["seed"]) for length in LENGTHS}}


def errors(model, length, seed):
    x, y = tasks.temporal_order(TESTED, length, 1000 + seed)
    return float((model.predict(x, batch_size=100, verbose=0).argmax(axis=1) != y).mean())


def rows(runs, found):
    by = {weight: some for (weight,), some in grouped(runs, found, "omega").items()}

    def mean(weight, length):
        return np.mean([one["errors"][str(length)] for one in by[weight]])

    told = "; ".join(
        f"{'with' if weight else 'without'} Ω "
        + ", ".join(f"{100 * mean(weight, length):.1f}% at {length}" for length in LENGTHS[1:])
        for weight in WEIGHTS
    )
    errs = (mean(max(WEIGHTS), length) > SOLVED for length in LENGTHS)
    solved = list(itertools.takewhile(lambda _: not next(errs), LENGTHS))
    yield Row(
        f"With a clip and Ω, a vanilla RNN that has seen {SHORTEST} to {LONGEST} steps errs in at "
        f"most {SOLVED:.0%} of up to {max(LENGTHS)} (Pascanu et al., 2013)",
        f"errors in temporal order, {told}",
        "yes" if len(solved) == len(LENGTHS) else f"up to {solved[-1]} steps" if solved else "no",
    )


def tables(runs, found):
    yield (
        f"Errors in temporal order, in percent, by length; chance 75. A SimpleRNN of {UNITS} units "
        f"that starts from the identity, {runs[0]['updates']} updates of {nets.BATCH} sequences of "
        f"{SHORTEST} to {LONGEST} steps, Adam, `global_clipnorm={nets.CLIP}`; λ: "
        "`vanishing_gradient_regularization`; the mean of the seeds, in brackets the least and "
        "the greatest."
    )
    lines = [
        [
            weight,
            *(span([100 * one["errors"][str(length)] for one in some], 1) for length in LENGTHS),
        ]
        for (weight,), some in grouped(runs, found, "omega").items()
    ]
    yield table(("λ", *(f"{length} steps" for length in LENGTHS)), lines)
