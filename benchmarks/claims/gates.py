"""LSTM against GRU: the score at as many parameters on four tasks, and the time of an update."""

import functools

import keras
import numpy as np
from turns import seconds, take_turns

from claims import Row, grouped, letters, nets, span, table

UPDATES, TESTED = 1500, 1000
# The steps back of what counts; of agreement so few that not all nets stay at chance.
LAGS = {"adding": 45, "order": 45, "agreement": 15}
# The GRU's are chosen for as many parameters of the recurrent layer as near as can be.
LSTM_UNITS = 48
TASKS = *nets.CHANCE, "letters"
PAIRS = ("lstm", "gru"), ("gru", "lstm")
FEATURES = {"adding": 2, "order": 8, "agreement": 16, "letters": 64}
# A winner has all seeds above all of the other's by this much.
MARGIN = 0.01
# Updates of (BATCH, 60, 64), in turns.
TURNS = 60


def parameters(cell, units, features):
    """Of a layer: kernel, recurrent kernel and bias of each gate; a GRU of Keras has two biases."""
    gates, biases = {"lstm": (4, 1), "gru": (3, 2)}[cell]
    return gates * units * (features + units + biases)


def units_of(cell, task):
    wanted = parameters("lstm", LSTM_UNITS, FEATURES[task])
    sizes = range(1, 2 * LSTM_UNITS)
    return min(sizes, key=lambda units: abs(parameters(cell, units, FEATURES[task]) - wanted))


def wanted(seeds):
    timed = [
        {"task": "time", "seed": 0, "units": LSTM_UNITS, "updates": TURNS, "library": "kerasrnn"}
    ]
    return timed + [
        {
            "task": task,
            "cell": cell,
            "seed": seed,
            "units": units_of(cell, task),
            "updates": UPDATES,
            "library": "kerasrnn",
        }
        for task in TASKS
        for cell in ("lstm", "gru")
        for seed in range(seeds)
    ]


def in_keras(run):
    return None if run["task"] == "time" else run | {"library": "keras"}


def train(run):
    """The skill on data that it was not trained with; of the time, what an update of a GRU takes
    of one of an LSTM, with as many units and with as many parameters."""
    nets.fresh(run["seed"])
    if run["task"] == "time":
        return _times(run)
    task, seed, samples = run["task"], run["seed"], run["updates"] * nets.BATCH
    of_letters = task == "letters"
    recurrent = nets.layer(
        run["cell"], run["units"], library=run["library"], return_sequences=of_letters
    )
    if of_letters:
        x, y = letters.stretches(samples, letters.LENGTH, seed)
        tested = letters.stretches(TESTED, letters.LENGTH, 1000 + seed, tested=True)
        model, chance = letters.model(recurrent, FEATURES[task], x.shape[1]), letters.chance()
    else:
        x, y = nets.data(task, LAGS[task], samples, seed)
        tested = nets.data(task, LAGS[task], TESTED, 1000 + seed)
        model, chance = nets.model(task, recurrent, x.shape[1]), nets.CHANCE[task]
    model.fit(x, y, batch_size=nets.BATCH, shuffle=False, verbose=0)
    if "timed" in run:
        return {}
    loss = model.evaluate(*tested, batch_size=100, verbose=0)
    return {"skill": nets.skill(loss, chance), "parameters": recurrent.count_params()}


def _times(run):
    rng = np.random.default_rng(run["seed"])
    x = rng.normal(size=(nets.BATCH, 60, FEATURES["letters"])).astype("float32")
    y = rng.normal(size=(nets.BATCH, 1)).astype("float32")
    steps = []
    for cell, units in (
        ("lstm", run["units"]),
        ("gru", run["units"]),
        ("gru", units_of("gru", "letters")),
    ):
        made = [keras.Input(x.shape[1:]), nets.layer(cell, units), keras.layers.Dense(1)]
        model = keras.Sequential(made)
        model.compile(keras.optimizers.Adam(nets.RATE, global_clipnorm=nets.CLIP), "mse")
        steps.append(functools.partial(seconds, model.train_on_batch, x, y))
    turns = take_turns(steps, run["updates"])
    return {"units": turns.ratio(1, 0), "parameters": turns.ratio(2, 0)}


def rows(runs, found):
    by = grouped(runs, found, "task")
    (times,) = by.pop(("time",))
    won = {"lstm": [], "gru": [], "neither": []}
    for (task,), some in by.items():
        of_task = [run for run in runs if run["task"] == task]
        skills = {
            cell: [one["skill"] for one in ones]
            for (cell,), ones in grouped(of_task, some, "cell").items()
        }
        lead = {cell: min(skills[cell]) - max(skills[other]) for cell, other in PAIRS}
        won[max(lead, key=lead.get) if max(lead.values()) > MARGIN else "neither"].append(task)
    told = "; ".join(f"{cell} {', '.join(tasks) or 'on none'}" for cell, tasks in won.items())
    yield Row(
        "No conclusive evidence that one of LSTM and GRU is better",
        f"at equal parameters every seed of one is above every of the other, on tasks: {told}",
        "no" if (not won["lstm"]) != (not won["gru"]) else "yes",
    )
    yield Row(
        "GRU is quicker to compute",
        f"an update of a GRU takes {times['units']:.2f} of that of an LSTM of as many units, "
        f"{times['parameters']:.2f} of one of as many parameters",
        "yes" if times["units"] < 0.95 else "no",
    )


def tables(runs, found):
    yield (
        f"LSTM of {LSTM_UNITS} units and GRU of as many parameters, {runs[-1]['updates']} updates "
        f"of {nets.BATCH} sequences, what counts "
        + ", ".join(f"{lag} steps back in {task}" for task, lag in LAGS.items())
        + f", letters in stretches of {letters.LENGTH}. Skill: 1 - loss / loss by chance on unseen "
        "data, the mean of the seeds, in brackets the least and the greatest."
    )
    kept = [pair for pair in zip(runs, found, strict=True) if pair[0]["task"] != "time"]
    lines = [
        [
            *group,
            some[0]["parameters"],
            span([one["skill"] for one in some]),
        ]
        for group, some in grouped(*zip(*kept, strict=True), "task", "cell").items()
    ]
    yield table(("task", "cell", "parameters", "skill"), lines)
