"""A search of which several processes run trials side by side, on one machine or on many.

    python examples/tune_distributed.py     # a minute or two; writes tune_distributed.png

So it starts a chief, which hands out the trials and runs none, and two workers on this machine. By
hand, on any machines that see the folder, one process each:

    export KERASTUNER_ORACLE_IP=192.0.2.1 KERASTUNER_ORACLE_PORT=8000
    KERASTUNER_TUNER_ID=chief python examples/tune_distributed.py --folder /shared/search
    KERASTUNER_TUNER_ID=worker-0 CUDA_VISIBLE_DEVICES=0 python examples/tune_distributed.py ...

Any of them may be killed and started again, and the same command goes on with a search that is in
the folder. The picture: the score of each trial when it ended, the best so far, and who ran it.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gallery
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import kerasrnn

MARKERS = "osD^v*"


def main(argv=None):
    flags = gallery.parser(__doc__, "tune_distributed.png")
    flags.add_argument(
        "--folder", default="runs/tune_distributed", help="of searches, the same for all processes"
    )
    flags.add_argument(
        "--workers", type=gallery.at_least(1), default=2, help="to start here, beside a chief"
    )
    flags.add_argument("--trials", type=gallery.at_least(1), default=8)
    flags.add_argument("--epochs", type=gallery.at_least(1), default=4)
    arguments = flags.parse_args(argv)
    if "KERASTUNER_TUNER_ID" not in os.environ:
        start(arguments)
        return

    search = run(arguments.folder, arguments.seed, arguments.trials, arguments.epochs)
    if os.environ["KERASTUNER_TUNER_ID"] == "chief":
        print(f"\n{search.trials_table()}\n")
        draw(runs(search)).savefig(arguments.out, dpi=90)
        print(f"Written: {arguments.out}")
        print(
            f"Next: the same with --trials {2 * arguments.trials}, which goes on with this search; "
            "kill a worker meanwhile"
        )


def start(arguments):
    """The same command for a chief and so many workers, to their end."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    command = [sys.executable, __file__]
    for name in ("folder", "seed", "trials", "epochs", "out"):
        command += [f"--{name}", str(getattr(arguments, name))]
    where = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    names = ["chief", *(f"worker-{number}" for number in range(arguments.workers))]
    processes = [
        subprocess.Popen(command, env={**os.environ, **where, "KERASTUNER_TUNER_ID": name})
        for name in names
    ]
    codes = [process.wait() for process in processes]
    if any(codes):
        sys.exit("A process of the search failed; the same command goes on with it.")


class NotedSearch(kerasrnn.tuning.RandomSearch):
    """A search that keeps which process ran a trial, and when."""

    def on_trial_begin(self, trial):
        super().on_trial_begin(trial)
        self.begun = time.time()

    def on_trial_end(self, trial):
        # Before the chief hears of the end: that of the last trial has it draw.
        note = {"worker": self.tuner_id, "begun": self.begun, "ended": time.time()}
        self.note_of(int(trial.trial_id) + 1).write_text(json.dumps(note), encoding="utf-8")
        super().on_trial_end(trial)

    def note_of(self, number):
        return pathlib.Path(self.project_dir, f"run-{number}.json")


def run(folder, seed=0, trials=8, epochs=4, samples=2048, length=30):
    """This process's part in the search, which it returns at the end."""
    # Not all of a GPU's memory at once, for several workers on one.
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    x, y = kerasrnn.tasks.adding_problem(samples, length, seed)
    hypermodel = kerasrnn.tuning.RNNHyperModel(
        "regression", features=2, cells=("gru", "lstm"), units=(16, 32), depths=1
    )
    search = NotedSearch(
        hypermodel,
        "val_loss",
        max_trials=trials,
        seed=seed,
        directory=folder,
        # Another seed is another search.
        project_name=f"seed-{seed}",
    )
    search.search(x, y, validation_split=0.25, epochs=epochs)
    return search


def runs(search):
    """The trials that have a score, in the order in which they ended.

    Returns:
        A list of dictionaries: "trial", its number, "score", "worker", and "begun" and "ended", in
        seconds since the first of them began.
    """
    found = [
        {"trial": row["trial"], "score": row["score"]}
        | json.loads(search.note_of(row["trial"]).read_text(encoding="utf-8"))
        for row in search.trials_table()
        if row["score"] is not None
    ]
    first = min((one["begun"] for one in found), default=0)
    for one in found:
        one.update(begun=one["begun"] - first, ended=one["ended"] - first)
    return sorted(found, key=lambda one: one["ended"])


def draw(found):
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    scores, rows = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    best = np.minimum.accumulate([one["score"] for one in found])
    ended = [one["ended"] for one in found]
    scores.step(ended, best, "k-", where="post", linewidth=1, label="best so far", zorder=0)
    workers = sorted({one["worker"] for one in found})
    for place, worker in enumerate(workers):
        mine = [one for one in found if one["worker"] == worker]
        style = {"color": f"C{place % 10}", "marker": MARKERS[place % len(MARKERS)]}
        at = [one["ended"] for one in mine]
        scores.plot(at, [one["score"] for one in mine], linestyle="", label=worker, **style)
        for one in mine:
            begun, length = one["begun"], one["ended"] - one["begun"]
            rows.barh(place, length, left=begun, color=style["color"], edgecolor="w", alpha=0.6)
            rows.text(begun + length / 2, place, one["trial"], ha="center", va="center")
    scores.set(ylabel="validation loss", title="The score of each trial, at its end")
    figure.legend(loc="outside right upper")
    rows.set(xlabel="seconds since the first trial began", title="Which worker ran which trial")
    rows.set_yticks(range(len(workers)), workers)
    rows.invert_yaxis()
    for axis in (scores, rows):
        axis.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
