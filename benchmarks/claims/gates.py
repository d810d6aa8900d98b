"""LSTM against GRU at as many parameters: score and time on four tasks."""

import time

import numpy as np

from claims import Row, grouped, letters, nets, span, table

UPDATES, TESTED, LAG = 1500, 1000, 45
# The GRU's are chosen for as many parameters of the recurrent layer as near as can be.
LSTM_UNITS = 48
TASKS = *nets.CHANCE, "letters"
FEATURES = {"adding": 2, "order": 8, "agreement": 16, "letters": 64}


def parameters(cell, units, features):
    """Of a layer: kernel, recurrent kernel and bias of each gate; a GRU of Keras has two biases."""
    gates, biases = {"lstm": (4, 1), "gru": (3, 2)}[cell]
    return gates * units * (features + units + biases)


def units_of(cell, task):
    wanted = parameters("lstm", LSTM_UNITS, FEATURES[task])
    sizes = range(1, 2 * LSTM_UNITS)
    return min(sizes, key=lambda units: abs(parameters(cell, units, FEATURES[task]) - wanted))


def wanted(seeds):
    return [
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
    return run | {"library": "keras"}


def train(run):
    """The skill on data that it was not trained with, and the milliseconds of a later update."""
    nets.fresh(run["seed"])
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
        x, y = nets.data(task, LAG, samples, seed)
        tested = nets.data(task, LAG, TESTED, 1000 + seed)
        model, chance = nets.model(task, recurrent, x.shape[1]), nets.CHANCE[task]
    tenth = len(x) // 10
    model.fit(x[:tenth], y[:tenth], batch_size=nets.BATCH, shuffle=False, verbose=0)
    began = time.perf_counter()
    model.fit(x[tenth:], y[tenth:], batch_size=nets.BATCH, shuffle=False, verbose=0)
    took = time.perf_counter() - began
    loss = model.evaluate(*tested, batch_size=100, verbose=0)
    return {
        "skill": max(0.0, float(1 - loss / chance)),
        "ms": 1e3 * took / max(1, (len(x) - tenth) // nets.BATCH),
        "parameters": recurrent.count_params(),
    }


def rows(runs, found):
    by = grouped(runs, found, "task", "cell")
    better = {"lstm": [], "gru": []}
    for task in TASKS:
        lstm, gru = ([one["skill"] for one in by[task, cell]] for cell in ("lstm", "gru"))
        # Not only by chance of the seeds: all of one are above all of the other.
        if min(lstm) > max(gru) + 0.01:
            better["lstm"].append(task)
        if min(gru) > max(lstm) + 0.01:
            better["gru"].append(task)
    told = "; ".join(
        f"{cell} is better on {', '.join(tasks) or 'none'}" for cell, tasks in better.items()
    )
    clear = (not better["lstm"]) != (not better["gru"])
    yield Row(
        "No conclusive evidence that one of LSTM and GRU is better",
        f"at equal parameters, with every seed of one above every of the other: {told}",
        "no" if clear else "yes",
    )
    ratio = np.exp(
        np.mean(
            [
                np.log(np.median([o["ms"] for o in by[t, "gru"]]))
                - np.log(np.median([o["ms"] for o in by[t, "lstm"]]))
                for t in TASKS
            ]
        )
    )
    yield Row(
        "GRU is quicker to compute",
        f"an update of a GRU of as many parameters takes {ratio:.2f} of that of an LSTM",
        "yes" if ratio < 0.95 else "no",
    )


def tables(runs, found):
    yield (
        f"LSTM of {LSTM_UNITS} units and GRU of as many parameters, {UPDATES} updates of "
        f"{nets.BATCH} sequences, what counts {LAG} steps back, letters in stretches of "
        f"{letters.LENGTH}. Skill: 1 - loss / loss by chance on unseen data, the mean of the "
        "seeds, in brackets the least and the greatest; an update's time, the median of the seeds, "
        "with other runs beside it."
    )
    lines = [
        [
            *group,
            some[0]["parameters"],
            span([one["skill"] for one in some]),
            f"{np.median([one['ms'] for one in some]):.1f}",
        ]
        for group, some in grouped(runs, found, "task", "cell").items()
    ]
    yield table(("task", "cell", "parameters", "skill", "ms per update"), lines)
