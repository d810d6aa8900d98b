"""A differential fuzzer: layers of random configurations against independent computations of the
same numbers, until the time is up.

    python tests/fuzz.py [--seed 1] [--minutes 5] [--claims abd]
    python tests/fuzz.py --case CLAIM:SEED:INDEX

The claims, each a function in `fuzzing/claims/`, whose docstring says what is compared with what:

    a   a layer of keras.layers and its namesake here
    b   a layer, in each of its ways of being called, and its cell called step by step
    c   `predict` and `fit` of a model, and its cell called step by step
    d   RNNStack, and its equations written out
    e   Residual, Highway and DenselyConnected around layers of all kinds, and their equations
    f   a model from its configuration, its file or its weights, and the model itself
    g   gradient_flow, and the gradients by zeros added to the states
    h   GradientClipping and GradientNormMonitor in `fit`, and a loop of steps with NumPy's clips
    i   second derivatives, Jacobians and mapped calls, and those of the cell called step by step

A case is drawn from its claim, its seed and its index alone. Of one that fails a line is printed,

    FAIL --case CLAIM:SEED:INDEX error | configuration

and the second command runs it by itself, with the traceback. A failure that does not come back
there depends on what the process had compiled before: `--claims CLAIM --seed SEED` runs the same
cases in the same order.

At the end stand the numbers of cases per claim and how many passes took the XLA programs. The exit
status is 1 if a case failed, of a timed run as of a single case. A run also ends when the process
has grown to 6 GB.
"""

import argparse
import collections
import gc
import os
import resource
import sys
import time
import traceback
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from fuzzing.claims import CLAIMS
from fuzzing.compare import Skip, set_precision
from fuzzing.draw import Draw

from kerasrnn.recurrence import program, programs

OUTCOMES = ("ok", "skipped", "failed")
# In kB, as Linux counts.
MOST_MEMORY = 6e6
# After so many cases what Keras and the programs keep is let go.
CASES_KEPT = 60


def run_case(claim, seed, index, verbose=False):
    """Runs one case of a claim, a key of `CLAIMS`; returns one of `OUTCOMES`."""
    draw = Draw(claim, seed, index)
    keras.utils.set_random_seed(index)
    # Every pass takes the path that a user's would, but for the limit of size: what a fuzzer can
    # afford is too small for the programs.
    programs.WORTH_COMPILING = 0
    try:
        CLAIMS[claim].check(draw)
        outcome = "ok"
    except Skip:
        outcome = "skipped"
    except Exception as error:
        outcome = "failed"
        text = " ".join(str(error).split())[:300]
        line = f"FAIL --case {claim}:{seed}:{index} {type(error).__name__}: {text}"
        print(f"{line} | {draw.configuration}", flush=True)
        if verbose:
            traceback.print_exc()
    set_precision("float32")
    if verbose:
        print(outcome, draw.configuration)
    return outcome


def run_for(minutes, seed, claims):
    """Runs cases of the `claims`, each for its share of the time, and prints the counts.

    Returns:
        How many failed.
    """
    ran = counted_passes()
    began, spent, counts = time.time(), collections.Counter(), collections.Counter()
    while time.time() - began < 60 * minutes and memory() < MOST_MEMORY:
        claim = min(claims, key=lambda claim: spent[claim] / CLAIMS[claim].share)
        index = sum(counts[claim, outcome] for outcome in OUTCOMES)
        start = time.time()
        counts[claim, run_case(claim, seed, index)] += 1
        spent[claim] += time.time() - start
        if counts.total() % CASES_KEPT == 0:
            program._PROGRAMS.clear()
            keras.utils.clear_session(free_memory=False)
            gc.collect()
    for claim in claims:
        outcomes = {outcome: counts[claim, outcome] for outcome in OUTCOMES}
        print(claim, outcomes, f"{spent[claim]:.0f} s")
    print(dict(ran))
    totals = {outcome: sum(counts[claim, outcome] for claim in CLAIMS) for outcome in OUTCOMES}
    print(f"{totals['ok'] + totals['failed']} cases, {totals['failed']} failures")
    return totals["failed"]


def counted_passes():
    """A counter, from now on, of the passes that take the XLA programs: a run in which none did has
    not tried them."""
    ran, run = collections.Counter(), programs.run

    def counted(sequence_pass):
        ran["compiled passes"] += 1
        return run(sequence_pass)

    programs.run = counted
    return ran


def memory():
    """The most that the process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--claims", default="".join(CLAIMS), help="their letters, in one word")
    parser.add_argument("--case", help="CLAIM:SEED:INDEX, of a line that starts with FAIL")
    args = parser.parse_args()
    if unknown := set(args.case[:1] if args.case else args.claims) - set(CLAIMS):
        parser.error(f"the claims are {', '.join(CLAIMS)}. Received: {''.join(sorted(unknown))}")
    warnings.filterwarnings("ignore")
    if args.case:
        claim, seed, index = args.case.split(":")
        return run_case(claim, int(seed), int(index), verbose=True) == "failed"
    return run_for(args.minutes, args.seed, args.claims) > 0


if __name__ == "__main__":
    sys.exit(main())
