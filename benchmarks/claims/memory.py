"""Vanishing gradients: what a net has learned of what lies far back, beside the half-life of its
gradient through time before and during training."""

import numpy as np
from scipy.stats import pearsonr, rankdata

from claims import Row, grouped, nets, span, table

CELLS = "simple_rnn", "irnn", "lstm", "chrono", "gru", "mingru"
LAGS = 15, 30, 60
UNITS, UPDATES, TESTED = 32, 1500, 1000
LEARNED = 0.5


def wanted(seeds):
    return [
        {
            "cell": cell,
            "task": task,
            "lag": lag,
            "seed": seed,
            "units": UNITS,
            "updates": UPDATES,
            "library": "kerasrnn",
        }
        for task in nets.CHANCE
        for lag in LAGS
        for cell in CELLS
        for seed in range(seeds)
    ]


def train(run):
    """The half-lives before the first update and after a quarter of them, and the skill at last."""
    nets.fresh(run["seed"])
    task, lag, measured = run["task"], run["lag"], "timed" not in run
    x, y = nets.data(task, lag, run["updates"] * nets.BATCH, run["seed"])
    tested = nets.data(task, lag, TESTED, 1000 + run["seed"])
    look = [part[:64] for part in tested]
    recurrent = nets.layer(run["cell"], run["units"], x.shape[1], run["library"])
    model = nets.model(task, recurrent, x.shape[1])
    found = {"before": nets.half_life(model, *look)} if measured else {}
    quarter = len(x) // 4
    for part in (slice(quarter), slice(quarter, None)):
        model.fit(x[part], y[part], batch_size=nets.BATCH, shuffle=False, verbose=0)
        if measured and part.stop:
            found["during"] = nets.half_life(model, *look)
    if not measured:
        return {}
    loss = model.evaluate(*tested, batch_size=100, verbose=0)
    return found | {"skill": nets.skill(loss, nets.CHANCE[task])}


def in_keras(run):
    """The same run with the layer of Keras, or `None` where it has none."""
    return None if run["cell"] == "mingru" else run | {"library": "keras"}


def rows(runs, found):
    by = grouped(runs, found, "cell", "lag")
    far = max(LAGS)

    def mean(cell, lag):
        return np.mean([one["skill"] for one in by[cell, lag]])

    of_task = grouped(runs, found, "cell", "task", "lag")
    plain = {
        task: [np.mean([one["skill"] for one in of_task["simple_rnn", task, lag]]) for lag in LAGS]
        for task in nets.CHANCE
    }
    forgets = [task for task, (at_near, *_, at_far) in plain.items() if at_near > LEARNED > at_far]
    told = "; ".join(
        f"{task} {', '.join(f'{skill:.2f}' for skill in skills)}" for task, skills in plain.items()
    )
    yield Row(
        "A vanilla RNN learns near effects, not far ones",
        f"SimpleRNN: skill at {', '.join(map(str, LAGS))} steps: {told}",
        "yes" if len(forgets) == len(plain) else f"for {', '.join(forgets)}" if forgets else "no",
    )
    plain_far = mean("simple_rnn", far)
    gated = {cell: mean(cell, far) for cell in ("lstm", "gru", "mingru")}
    told = ", ".join(f"{cell} {value:.2f}" for cell, value in gated.items())
    better = [cell for cell, value in gated.items() if value > plain_far + 0.1]
    yield Row(
        "Gates make it easier to keep information over many steps",
        f"skill at {far} steps: SimpleRNN {plain_far:.2f}, {told}",
        "yes" if len(better) == 3 else f"for {', '.join(better)}" if better else "no",
    )
    said, holds = [], []
    for when in ("before", "during"):
        rank, p = correlation(runs, found, when)
        said.append(f"{when} training ρ = {rank:+.2f} (p = {p:.1g})")
        holds.append(rank > 0 and p < 0.01)
    yield Row(
        "How far the gradient reaches tells which cell learns",
        f"rank correlation of half-life with skill among the {len(CELLS)} cells of each task and "
        f"lag, {len(nets.CHANCE) * len(LAGS)} of them: " + ", ".join(said),
        "yes" if all(holds) else "during training alone" if holds[1] else "no",
    )


def correlation(runs, found, when):
    """The correlation, with its p, of the ranks that half-life and skill, means over the seeds,
    have among the cells of one task and lag: across lags both would fall with the lag alone."""
    ranks = []
    for some in grouped(runs, list(zip(runs, found, strict=True)), "task", "lag").values():
        of_cell = grouped(*zip(*some, strict=True), "cell").values()
        reach = [np.median([one[when] for one in seeds]) for seeds in of_cell]
        skill = [np.mean([one["skill"] for one in seeds]) for seeds in of_cell]
        ranks.append([rankdata(reach), rankdata(np.round(skill, 2))])
    reach, skill = np.concatenate(ranks, axis=1)
    if min(np.ptp(reach), np.ptp(skill)) == 0:
        return 0.0, 1.0
    found = pearsonr(reach, skill)
    return float(found.statistic), float(found.pvalue)


def tables(runs, found):
    lines = [
        [cell, task, lag]
        + [span([one["skill"] for one in some], 2)]
        + [f"{np.median([one[when] for one in some]):.3g}" for when in ("before", "during")]
        for (cell, task, lag), some in grouped(runs, found, "cell", "task", "lag").items()
    ]
    head = "cell", "task", "steps back", "skill", "half-life before", "half-life during"
    yield (
        f"Nets of {UNITS} units, {runs[0]['updates']} updates of {nets.BATCH} sequences, Adam at "
        f"{nets.RATE}, `global_clipnorm={nets.CLIP}`. Skill: 1 - loss / loss by chance on "
        f"{TESTED} further sequences, the mean of the seeds, in brackets the least and the "
        "greatest. Half-life, in steps, of the gradient by h_t: before the first update and after "
        "a quarter of them, the median of the seeds; inf where it does not fall."
    )
    yield table(head, lines)
