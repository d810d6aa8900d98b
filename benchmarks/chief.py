"""How many calls a chief of a search answers: a trivial trial with 1, 2, 4 and 8 workers, which are
threads that ask it over the loopback as a worker of `kerasrnn.tuning` does.

    python benchmarks/chief.py [first of five free ports]
"""

import os
import pathlib
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERASTUNER_TUNER_ID"] = "chief"
os.environ["KERASTUNER_ORACLE_IP"] = "127.0.0.1"

import keras_tuner
from keras_tuner.src.distribute import oracle_chief, oracle_client

from kerasrnn.tuning.oracles import RandomSearchOracle

CALLS_PER_TRIAL = 6
TRIALS = 200


def worker(number, spans):
    client = oracle_client.OracleClient(keras_tuner.oracles.RandomSearchOracle("loss"))
    while True:
        since = time.perf_counter()
        trial = client.create_trial(f"worker-{number}")
        if trial.status == "STOPPED":
            return
        if trial.status != "RUNNING":
            continue
        # What keras-tuner's loop and ours ask for in each trial, beside one sign per second.
        client.get_trial(trial.trial_id)
        client.update_trial(trial.trial_id, {"loss": 1.0})
        trial.status = "COMPLETED"
        client.end_trial(trial)
        client.get_trial(trial.trial_id)
        client.get_best_trials(1)
        spans.append(time.perf_counter() - since)


def served(port, folder):
    """The oracle of a chief that listens there."""
    os.environ["KERASTUNER_ORACLE_PORT"] = str(port)
    oracle = RandomSearchOracle(objective=keras_tuner.Objective("loss", "min"), max_trials=TRIALS)
    space = keras_tuner.HyperParameters()
    space.Float("learning_rate", 1e-4, 1e-1, sampling="log")
    oracle.update_space(space)
    oracle.keep_in(pathlib.Path(folder))
    oracle.search = {}
    threading.Thread(target=oracle_chief.start_server, args=(oracle,), daemon=True).start()


def measure(workers, port):
    with tempfile.TemporaryDirectory() as folder:
        served(port, folder)
        spans, since = [], time.perf_counter()
        with ThreadPoolExecutor(workers) as threads:
            for number in range(workers):
                threads.submit(worker, number, spans)
        seconds = time.perf_counter() - since
        written = (pathlib.Path(folder) / "oracle.json").stat().st_size
    trials = len(spans)
    mean = 1000 * sum(spans) / trials
    print(
        f"| {workers} | {trials / seconds:.0f} | {CALLS_PER_TRIAL * trials / seconds:.0f} "
        f"| {mean:.0f} | {written / 1000:.0f} |",
        flush=True,
    )


def signs(port):
    """Signs of life that a chief answers in a second."""
    with tempfile.TemporaryDirectory() as folder:
        served(port, folder)
        client = oracle_client.OracleClient(keras_tuner.oracles.RandomSearchOracle("loss"))
        trial = client.create_trial("worker-0")
        since = time.perf_counter()
        for _ in range(1000):
            client.get_trial(trial.trial_id)
        return 1000 / (time.perf_counter() - since)


def main():
    threading.currentThread = threading.current_thread
    print("| workers | trials/s | calls/s | ms of calls per trial | kB of oracle.json |")
    print("|---|---|---|---|---|")
    first = int(sys.argv[1]) if len(sys.argv) > 1 else 41300
    for index, workers in enumerate((1, 2, 4, 8)):
        measure(workers, first + index)
    print(f"signs of life: {signs(first + 4):.0f} calls/s")


if __name__ == "__main__":
    main()
