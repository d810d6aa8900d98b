"""Whether the advice of a health report cures: nets that were made sick on purpose are trained,
reported on, changed as the first advice says, and trained anew, up to three times. Where a report
says no more than that the loss still falls, it is trained twice as long.

    python benchmarks/treatment.py                        # all; an hour on one core
    python benchmarks/treatment.py --tasks adding --seeds 0

Every finished patient is a line of runs/treatment.jsonl; what stands there is not run again, so
that it can be interrupted. Delete the file when package or patients have changed. Prints tables in
Markdown. Thresholds of the report were chosen with these patients in view.
"""

import argparse
import collections
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from kerasrnn import tasks
from kerasrnn.callbacks import DivergenceGuard, GradientClipping, GradientNormMonitor
from kerasrnn.diagnostics import health_report
from kerasrnn.initializers import Chrono, ForgetBias
from kerasrnn.layers import RNN, RNNStack

RUNS = pathlib.Path(__file__).parents[1] / "runs" / "treatment.jsonl"
BATCH, STEPS, CURED = 32, 3, 0.9


@dataclasses.dataclass(frozen=True)
class Net:
    """All that is set in a net, its data and its training."""

    cell: str = "lstm"
    units: int = 32
    depth: int = 1
    connection: str | None = None
    bidirectional: bool = False
    bias: str = "chrono"
    gain: float = 1.0
    kernel_scale: float = 1.0
    normalization: str | None = None
    activation: str | None = None
    pooled: bool = False
    dense: str | None = None
    dense_bias: float = 0.0
    optimizer: str = "Adam"
    rate: float = 3e-3
    clip: tuple | None = ("global_clipnorm", 1.0)
    guard: bool = False
    inputs_times: float = 1.0
    targets_times: float = 1.0
    targets_minus: float = 0.0
    targets_over: float = 1.0
    bad_samples: int = 0
    updates: int = 1000


# What is changed in a healthy net, and what has to be said of it first: a verdict, or a word of the
# advice.
SICK = {
    "rate too high": (
        {"rate": 1.0, "optimizer": "SGD", "clip": None, "cell": "simple_rnn"},
        "LEARNING_RATE",
    ),
    "Adam's rate too high": ({"rate": 1.0}, "LEARNING_RATE"),
    "rate too low": ({"rate": 1e-7}, "LEARNING_RATE"),
    "exploding SimpleRNN": (
        {"cell": "simple_rnn", "gain": 2.5, "activation": "relu", "clip": None},
        "EXPLODING",
    ),
    "vanishing SimpleRNN": ({"cell": "simple_rnn", "gain": 0.5}, "VANISHING"),
    "deep plain stack": ({"depth": 12, "bias": "zeros"}, "VANISHING|DEAD"),
    "saturated gates": ({"kernel_scale": 300.0}, "SATURATED"),
    "clip too tight": (
        {"optimizer": "SGD", "rate": 0.1, "clip": ("global_clipnorm", 1e-4)},
        "CLIP_TOO_TIGHT",
    ),
    "dead units": ({"dense": "relu", "dense_bias": -30.0}, "DEAD"),
    "NaN in the inputs": ({"bad_samples": 5}, "NON_FINITE"),
    "unscaled inputs": ({"inputs_times": 1e3}, "Scale the inputs"),
    "unscaled targets": ({"targets_times": 1e3}, "(Divide|from) the targets"),
    "forget bias 0": ({"bias": "forget 0"}, "VANISHING"),
    "sees its next word": ({"bidirectional": True}, "LOOKS_AHEAD"),
}
HEALTHY = {
    "lstm": {},
    "gru": {"cell": "gru"},
    "lstm, bidirectional": {"bidirectional": True},
}


class Task:
    """Data, a head, and a score: 0 for the best constant, 1 for no error."""

    def __init__(self, train, test, outputs, loss):
        self.train, self.test, self.outputs, self.loss = train, test, outputs, loss

    @property
    def classes(self):
        return self.loss != "mse"

    def treats(self, kind):
        """Whether a kind of net is one for this task."""
        return kind != "sees its next word" and not (self.classes and kind == "unscaled targets")

    def score(self, model, net):
        x, y = self.test
        predicted = model.predict(x * np.float32(net.inputs_times), verbose=0)
        if not np.isfinite(predicted).all():
            return 0.0
        if self.classes:
            frequent = np.bincount(y.ravel()).max() / y.size
            right = np.mean(predicted.argmax(-1) == y.ravel())
            return float(max(0.0, (right - frequent) / (1 - frequent)))
        predicted = (predicted * net.targets_over + net.targets_minus) / net.targets_times
        error = np.mean((predicted - y) ** 2)
        return float(max(0.0, 1 - error / y.var()))


class LanguageModel(Task):
    """The next word of each step, scored as it is used: from the words before it alone.

    The score is 1 - H/H_0, with H the cross-entropy of the model, H_0 that of the words' shares.
    """

    tokens = 38

    def __init__(self, *sentences):
        of_next = [(s[:, :-1], s[:, 1:]) for s in sentences]
        super().__init__(*of_next, self.tokens, "sparse_categorical_crossentropy")

    def treats(self, kind):
        return kind in ("lstm", "gru", "sees its next word")

    def score(self, model, net):
        x, y = self.test
        shares = np.bincount(self.train[1].ravel(), minlength=self.tokens) / self.train[1].size
        entropies = []
        for steps in range(2, x.shape[1] + 1, 3):
            p = model.predict(x[:, :steps], verbose=0)[:, -1]
            right = y[:, steps - 1]
            entropies.append(
                [np.log(p[np.arange(len(p)), right] + 1e-9).mean(), np.log(shares[right]).mean()]
            )
        mine, of_shares = np.mean(entropies, axis=0)
        return float(max(0.0, 1 - mine / of_shares))


def language():
    """Sentences of nouns, and a verb that agrees with the first of them."""

    def sentences(samples, seed):
        x, y = tasks.number_agreement(samples, seed=seed)
        return np.concatenate([x, 36 + y[:, None]], axis=1)

    return LanguageModel(sentences(3200, 0), sentences(500, 1))


def adding():
    data = [tasks.adding_problem(n, length=40, seed=seed) for n, seed in ((3200, 0), (500, 1))]
    return Task(*data, 1, "mse")


def order():
    data = [tasks.temporal_order(n, length=40, seed=seed) for n, seed in ((3200, 0), (500, 1))]
    return Task(*data, 4, "sparse_categorical_crossentropy")


def digits():
    """Handwritten digits of scikit-learn, a row of eight pixels per step."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 32, 2) / 16).astype("float32")
    mixed = np.random.default_rng(0).permutation(len(x))
    x, y = x[mixed], y[mixed]
    return Task((x[:1400], y[:1400]), (x[1400:], y[1400:]), 10, "sparse_categorical_crossentropy")


def co2():
    """Weekly CO2 at Mauna Loa (statsmodels): four weeks ahead from 52, both less the last one."""
    from statsmodels.datasets import co2

    series = co2.load_pandas().data["co2"].interpolate().to_numpy()
    windows = np.lib.stride_tricks.sliding_window_view(series, 56)
    x, y = windows[:, :52, None] - windows[:, 51:52, None], windows[:, 55:] - windows[:, 51:52]
    x, y = (x / 2).astype("float32"), y.astype("float32")
    return Task((x[:1700], y[:1700]), (x[1800:], y[1800:]), 1, "mse")


class Noise(Task):
    """For healthy nets alone: most of its targets nobody can predict."""

    def treats(self, kind):
        return kind in HEALTHY


def noise():
    """The next value of an autoregression, x_t = 0.5 x_{t-1} + ε, of which 1/4 is to be known."""

    def series(samples, seed):
        steps = np.random.default_rng(seed).normal(size=(samples, 41)).astype("float32")
        for t in range(1, 41):
            steps[:, t] += 0.5 * steps[:, t - 1]
        return steps[:, :40, None], steps[:, 40:]

    return Noise(series(3200, 0), series(500, 1), 1, "mse")


TASKS = {
    "adding": adding,
    "order": order,
    "digits": digits,
    "co2": co2,
    "language": language,
    "noise": noise,
}


def built(net, task):
    x, _ = task.train
    bias = {
        "chrono": lambda: Chrono(T_max=x.shape[1]),
        "zeros": lambda: "zeros",
        "forget 0": lambda: ForgetBias(0.0),
    }[net.bias if net.cell != "simple_rnn" else "zeros"]
    options = {"bias_initializer": bias()}
    if net.cell != "lru":
        options["recurrent_initializer"] = keras.initializers.Orthogonal(net.gain)
        if net.kernel_scale != 1:
            options["kernel_initializer"] = keras.initializers.VarianceScaling(net.kernel_scale**2)
    else:
        options = {}
    if net.activation and net.cell == "simple_rnn":
        options["activation"] = net.activation
    if net.normalization and net.cell != "lru":
        options["normalization"] = net.normalization
    of_tokens = isinstance(task, LanguageModel)
    sequences = net.pooled or of_tokens
    layers = [keras.Input((None,) if of_tokens else x.shape[1:])]
    if of_tokens:
        layers.append(keras.layers.Embedding(task.tokens, 32))
    if net.depth == 1 and not net.bidirectional:
        layers.append(RNN(net.cell, units=net.units, return_sequences=sequences, **options))
    else:
        connection = {"connection": net.connection, "project": net.connection is not None}
        if net.connection is None:
            connection = {}
        layers.append(
            RNNStack(
                net.cell,
                net.units,
                net.depth,
                bidirectional=net.bidirectional,
                return_sequences=sequences,
                **connection,
                **options,
            )
        )
    if net.pooled:
        layers.append(keras.layers.GlobalAveragePooling1D())
    if net.dense:
        bias = keras.initializers.Constant(net.dense_bias)
        layers.append(keras.layers.Dense(32, net.dense, bias_initializer=bias))
    layers.append(keras.layers.Dense(task.outputs, "softmax" if task.classes else None))
    model = keras.Sequential(layers)
    clip, clipping = {}, []
    if net.clip and net.clip[0] in ("clipnorm", "clipvalue", "global_clipnorm"):
        clip = {net.clip[0]: net.clip[1]}
    elif net.clip:
        clipping = [GradientClipping(*net.clip)]
    optimizer = getattr(keras.optimizers, net.optimizer)(net.rate, **clip)
    model.compile(optimizer, task.loss)
    return model, clipping


def trained(net, task, seed, previous=None, callbacks=None):
    """The score, and the report; without one where `callbacks` stand in for it."""
    keras.utils.set_random_seed(seed)
    model, clipping = built(net, task)
    x, y = task.train
    if net.inputs_times != 1:
        x = x * np.float32(net.inputs_times)
    if net.bad_samples:
        x = x.copy()
        x[np.random.default_rng(seed).choice(len(x), net.bad_samples, replace=False), 3] = np.nan
    if not task.classes:
        y = (y * np.float32(net.targets_times) - np.float32(net.targets_minus)) / np.float32(
            net.targets_over
        )
    monitor = GradientNormMonitor()
    watching = [monitor, *clipping] if callbacks is None else [*callbacks, *clipping]
    if net.guard:
        watching.append(DivergenceGuard())
    with warnings.catch_warnings(), contextlib.suppress(RuntimeError):
        warnings.simplefilter("ignore")
        epochs = round(net.updates * BATCH / len(x))
        model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=watching)
    score = task.score(model, net)
    if callbacks is not None:
        return score, None
    return score, health_report(model, x[:200], y[:200], monitor, previous=previous)


_NUMBER = r"([\d.]+(?:e[+-]?\d+)?)"


def followed(advice, net, task):
    """The net as the advice wants it; `None` where a script cannot do what it says."""

    def number(pattern):
        match = re.search(pattern.replace("#", _NUMBER), advice)
        return match and float(match[1].rstrip("."))

    if rate := number(r"earning rate from \S+ to #"):
        return dataclasses.replace(net, rate=rate)
    if "Scale the inputs" in advice:
        return None if net.inputs_times == 1 else dataclasses.replace(net, inputs_times=1.0)
    if mean := number(r"Subtract # from the targets"):
        over = number(r"divide them by #") or 1.0
        return dataclasses.replace(net, targets_minus=mean, targets_over=over)
    if divisor := number(r"Divide the targets by #"):
        return dataclasses.replace(net, targets_over=divisor)
    for mode in ("global_clipnorm", "clipnorm", "clipvalue"):
        if threshold := number(rf"\b{mode}=#"):
            return dataclasses.replace(net, clip=(mode, threshold))
    if match := re.search(rf"GradientClipping\(.(\w+)., (?:value=)?{_NUMBER}\)", advice):
        return dataclasses.replace(net, clip=(match[1], float(match[2])))
    if "cell with gates" in advice:
        return dataclasses.replace(net, cell="lstm", bias="chrono", activation=None)
    if "Chrono" in advice:
        return dataclasses.replace(net, bias="chrono")
    if "orthogonal" in advice or "smaller recurrent weights" in advice:
        activation = None if "tanh" in advice else net.activation
        return dataclasses.replace(net, gain=1.0, activation=activation)
    if "Adam(" in advice:
        return dataclasses.replace(net, optimizer="Adam", rate=1e-3)
    if "smaller weights" in advice:
        return dataclasses.replace(net, kernel_scale=1.0, rate=net.rate / 10)
    if "biases that are not negative" in advice:
        rate = net.rate / 3 if "learning rate" in advice else net.rate
        return dataclasses.replace(net, dense_bias=0.0, rate=rate)
    if "leaky_relu" in advice:
        return dataclasses.replace(net, dense=net.dense and "leaky_relu")
    if "Residual" in advice or "connection" in advice:
        return dataclasses.replace(net, connection="residual")
    if "normalization" in advice:
        return dataclasses.replace(net, normalization="layer")
    if "LRU" in advice:
        return dataclasses.replace(net, cell="lru")
    if "average over the outputs" in advice:
        return dataclasses.replace(net, pooled=True)
    if "Clean" in advice or "Look for an Inf or NaN" in advice:
        return dataclasses.replace(net, bad_samples=0)
    if "in one direction" in advice:
        return dataclasses.replace(net, bidirectional=False)
    if "rain on" in advice:
        return dataclasses.replace(net, updates=2 * net.updates)
    if "DivergenceGuard" in advice:
        return dataclasses.replace(net, guard=True)
    return None


def treated(net, task, seed, healthy):
    """The history of a patient: verdicts, advice and score of every training."""
    history, previous = [], None
    for _ in range(STEPS + 1):
        score, report = trained(net, task, seed, previous)
        worst = next((v for v in report.verdicts if v.severity == report.status), None)
        advice = worst.remedy if worst and report.status != "healthy" else ""
        if not advice:
            advice = next((note for note in report.notes if "train on" in note), "")
        history.append(
            {
                "score": score,
                "status": report.status,
                "verdicts": [v.code for v in report.verdicts],
                "advice": advice,
            }
        )
        if score >= CURED * healthy or not advice:
            break
        net, previous = followed(advice, net, task), report
        if net is None:
            break
    return history


def without_the_package(net, task, seed):
    """What Keras alone does for it."""
    callbacks = [
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=1),
    ]
    return trained(net, task, seed, callbacks=callbacks)[0]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--kinds", nargs="+", choices=[*SICK, *HEALTHY], default=[*HEALTHY, *SICK])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=pathlib.Path, default=RUNS, help="the file of the runs")
    arguments = parser.parse_args(argv)
    arguments.runs.parent.mkdir(parents=True, exist_ok=True)
    done = {}
    if arguments.runs.exists():
        for line in arguments.runs.read_text().splitlines():
            run = json.loads(line)
            done[run["task"], run["kind"], run["seed"]] = run
    task_of = functools.cache(lambda name: TASKS[name]())

    def run_of(name, kind, seed, healthy=None):
        if (name, kind, seed) in done:
            return done[name, kind, seed]
        changes = HEALTHY[kind] if kind in HEALTHY else SICK[kind][0]
        net, task = Net(**changes), task_of(name)
        run = {"task": name, "kind": kind, "seed": seed}
        if kind in HEALTHY:
            score, report = trained(net, task, seed)
            verdicts = [v.code for v in report.verdicts]
            run |= {"score": score, "status": report.status, "verdicts": verdicts}
        else:
            run["history"] = treated(net, task, seed, healthy)
            run["alone"] = without_the_package(net, task, seed)
        with arguments.runs.open("a") as file:
            file.write(json.dumps(run) + "\n")
        done[name, kind, seed] = run
        shown = run.get("verdicts") or [
            (h["verdicts"][0], round(h["score"], 2)) for h in run["history"]
        ]
        print(f"{name}, {kind}, seed {seed}: {shown}", flush=True)
        return run

    runs = []
    for name in arguments.tasks:
        for seed in arguments.seeds:
            healthy = run_of(name, "lstm", seed)["score"]
            for kind in arguments.kinds:
                if not task_of(name).treats(kind):
                    continue
                runs.append(run_of(name, kind, seed, healthy) | {"healthy": healthy})
    print_tables(runs)


def print_tables(runs):
    rows = collections.defaultdict(list)
    for run in runs:
        rows[run["kind"]].append(run)
    print(f"\n| planted | {' | '.join(COUNTED)} |")
    print(f"|{'---|' * (1 + len(COUNTED))}")
    total = np.zeros(len(COUNTED))
    for kind, of_kind in rows.items():
        if kind not in HEALTHY:
            counts = np.sum([counted(run) for run in of_kind], axis=0)
            total += counts
            print(f"| {kind} | " + " | ".join(map(str, counts)) + " |")
    print("| all | " + " | ".join(f"**{count:.0f}**" for count in total) + " |")
    shares = total[2:] / max(1, total[1])
    shown = ", ".join(
        f"{name} {share:.0%}" for name, share in zip(COUNTED[2:], shares, strict=True)
    )
    print(f"\nOf the sick ones: {shown}.")
    well = [run for run in runs if run["kind"] in HEALTHY]
    alarms = sum(run["status"] != "healthy" for run in well)
    print(f"\nFalse alarms: {alarms} of {len(well)} healthy nets.")
    print("\n| healthy net | scores, by seed | verdicts |")
    print("|---|---|---|")
    by_net = collections.defaultdict(list)
    for run in well:
        by_net[f"{run['task']}, {run['kind']}"].append(run)
    for name, of_net in by_net.items():
        scores = ", ".join(f"{run['score']:.2f}" for run in of_net)
        found = dict.fromkeys(code for run in of_net for code in run["verdicts"])
        print(f"| {name} | {scores} | {', '.join(found)} |")


COUNTED = "nets", "sick", "named first", "cured in 1", "2", "3", "circles", "Keras alone"


def counted(run):
    """One for each of `COUNTED` that is so. A net that learns in spite of it is not sick."""
    history, aim = run["history"], CURED * run["healthy"]
    if history[0]["score"] >= aim:
        return np.array([1, *[0] * (len(COUNTED) - 1)])
    named = re.search(SICK[run["kind"]][1], f"{history[0]['verdicts'][0]} {history[0]['advice']}")
    cured = [any(h["score"] >= aim for h in history[1 : n + 1]) for n in (1, 2, 3)]
    # A circle comes back to an advice after another one, whatever its numbers.
    advice = [" ".join(h["advice"].split()[:3]) for h in history if h["advice"]]
    changed = [now for now, before in zip(advice, ["", *advice], strict=False) if now != before]
    circles = len(changed) != len(set(changed))
    return np.array([1, 1, bool(named), *cured, circles, run["alone"] >= aim])


if __name__ == "__main__":
    main()
