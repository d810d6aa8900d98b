"""How many calls a chief of a search answers: trials that do nothing, with 1, 2, 4 and 8 workers,
each a process of its own on this machine that runs a search of `kerasrnn.tuning`.

    python benchmarks/chief.py

Prints the table of docs/devices.md. The time runs from the first trial's begin to the last one's
end, without the start of the processes.
"""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from kerasrnn import tuning

# What keras-tuner's loop and ours ask for in each trial, beside one sign of life per second.
CALLS_PER_TRIAL = 6
TRIALS = 200


class Nothing(tuning.RandomSearch):
    """Trials that do nothing, and say when they begin and end."""

    def on_trial_begin(self, trial):
        print(time.time(), flush=True)
        super().on_trial_begin(trial)

    def run_trial(self, trial, verbose):
        return trial.hyperparameters.Float("learning_rate", 1e-4, 1e-1, sampling="log")

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        print(time.time(), flush=True)


def take_part(folder):
    """One process of a search, whose part is in keras-tuner's variables."""
    search = Nothing(max_trials=TRIALS, seed=0, directory=folder, overwrite=True)
    search.search(verbose=0)


def measure(workers):
    with socket.socket() as one, tempfile.TemporaryDirectory() as folder:
        one.bind(("127.0.0.1", 0))
        where = {"KERASTUNER_ORACLE_IP": "127.0.0.1"}
        where["KERASTUNER_ORACLE_PORT"] = str(one.getsockname()[1])
        one.close()
        command = [sys.executable, "-W", "ignore", __file__, folder]
        chief, *others = (
            subprocess.Popen(
                command,
                env={**os.environ, **where, "KERASTUNER_TUNER_ID": name},
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in ("chief", *(f"worker-{number}" for number in range(workers)))
        )
        times = []
        for worker in others:
            printed, _ = worker.communicate()
            if worker.returncode:
                sys.exit("A worker ended with an error.")
            times += map(float, printed.split())
        # It stays for up to 20 seconds.
        chief.kill()
        chief.wait()
        (state,) = pathlib.Path(folder).rglob("oracle.json")
        written = state.stat().st_size
    seconds = max(times) - min(times)
    print(
        f"| {workers} | {TRIALS / seconds:.0f} | {CALLS_PER_TRIAL * TRIALS / seconds:.0f} "
        f"| {1000 * workers * seconds / TRIALS:.0f} | {written / 1000:.0f} |",
        flush=True,
    )


def main():
    print("| workers | trials/s | calls/s | ms per trial and worker | kB of oracle.json |")
    print("|---|---|---|---|---|")
    for workers in (1, 2, 4, 8):
        measure(workers)


if __name__ == "__main__":
    take_part(sys.argv[1]) if len(sys.argv) > 1 else main()
