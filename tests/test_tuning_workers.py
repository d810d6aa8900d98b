"""A chief and workers, as real processes on this machine."""

import collections
import contextlib
import json
import os
import re
import sys
import threading
import time

import keras
import numpy as np
import pytest
from several_processes import ROOT, Started, free_ports

from kerasrnn import tuning

X = np.random.default_rng(0).normal(size=(16, 3))
Y = X.sum(1, keepdims=True)
TRIALS = 4


def build(hp):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(hp.Choice("units", [2, 4]))])
    rate = hp.Float("learning_rate", 0.001, 0.1)
    model.compile(keras.optimizers.SGD(rate), os.environ.get("LOSS", "mse"), run_eagerly=True)
    return model


class Slow(keras.callbacks.Callback):
    """Leaves time to be killed in, and says which process is in which epoch."""

    def on_epoch_end(self, epoch, logs=None):
        print(f"epoch {epoch}.", flush=True)
        time.sleep(float(os.environ["SLOW"]))


class Loud:
    """A search that says which trial it begins and ends."""

    def on_trial_begin(self, trial):
        print(f"begun {trial.trial_id}.", flush=True)
        super().on_trial_begin(trial)

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        print(f"ended {trial.trial_id}.", flush=True)


KINDS = {
    "RandomSearch": {"max_trials": TRIALS},
    "BayesianOptimization": {"max_trials": TRIALS, "num_initial_points": 2},
    "GridSearch": {"max_trials": TRIALS},
    "Hyperband": {"max_epochs": 4, "factor": 2},
}


def make(kind, folder, **timeouts):
    loud = type(kind, (Loud, getattr(tuning, kind)), {})
    return loud(build, "loss", seed=3, directory=str(folder), **KINDS[kind], **timeouts)


def main(folder, kind):
    threading.currentThread = threading.current_thread
    seconds = float(os.environ["CHIEF_TIMEOUT"])
    search = make(kind, folder, worker_timeout=3.0, chief_timeout=seconds)
    print("ready", flush=True)
    epochs = {} if kind == "Hyperband" else {"epochs": 4}
    search.search(X, Y, callbacks=[Slow()], verbose=0, **epochs)


class Cluster:
    """Processes of one search."""

    def __init__(self, place, stack, slow, kind="RandomSearch", trials=TRIALS):
        (self.port,) = free_ports(1)
        self.place, self._stack, self._slow = place, stack, slow
        self._started = collections.Counter()
        self._kind, self._trials = kind, trials

    def start(self, name, chief_timeout=30, loss="mse"):
        self._started[name] += 1
        process = Started(
            self.place / f"{name}-{self._started[name]}.txt",
            __file__,
            self.place / "search",
            self._kind,
            KERASTUNER_TUNER_ID=name,
            KERASTUNER_ORACLE_IP="127.0.0.1",
            KERASTUNER_ORACLE_PORT=str(self.port),
            SLOW=str(self._slow),
            CHIEF_TIMEOUT=str(chief_timeout),
            LOSS=loss,
        )
        return self._stack.enter_context(process)

    def state(self):
        return json.loads((self.place / "search" / "untitled_project" / "oracle.json").read_text())

    def require_all_trials(self, *workers):
        """All ended in a score, and each was ended once."""
        state = self.state()
        assert [trial["status"] for trial in state["trials"]] == ["COMPLETED"] * self._trials
        assert sorted(state["end_order"]) == [trial["trial_id"] for trial in state["trials"]]
        assert state["ongoing_trials"] == {}
        assert set(state["run_times"].values()) == {1}
        printed = "".join(worker.printed() for worker in workers)
        for trial in state["trials"]:
            assert printed.count(f"ended {trial['trial_id']}.") == 1


@pytest.fixture
def cluster(tmp_path, request):
    with contextlib.ExitStack() as stack:
        yield Cluster(tmp_path, stack, getattr(request, "param", 0.1))


@pytest.mark.slow
def test_a_worker_that_is_killed_and_never_comes_back(cluster):
    chief, lost, other = map(cluster.start, ("chief", "lost", "other"))
    lost.wait_for("epoch 0.")
    lost.kill()
    assert other.wait() == 0, other.printed()
    cluster.require_all_trials(other)
    assert "Worker lost was not heard of for 3 seconds: trial" in chief.printed()


@pytest.mark.slow
def test_the_example(tmp_path):
    """A chief and two workers, which the example starts itself."""
    place = ROOT / "examples" / "tune_distributed.py"
    options = ["--workers", 2, "--trials", 3, "--epochs", 1, "--folder", tmp_path / "search"]
    options += ["--out", tmp_path / "x.png"]
    with Started(tmp_path / "printed.txt", place, *options) as example:
        assert example.wait(300) == 0, example.printed()
        trials = re.findall(r"^\| (\d) \|", example.printed(), re.M)
        assert sorted(trials) == ["1", "2", "3"], example.printed()
        assert example.printed().splitlines()[-1].startswith("Next: "), example.printed()
    assert (tmp_path / "x.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "RandomSearch"])
def test_a_lost_worker_of_every_other_search(kind, tmp_path):
    trials = make(kind, tmp_path / "plan").oracle.planned
    with contextlib.ExitStack() as stack:
        cluster = Cluster(tmp_path, stack, 0.1, kind, trials)
        _, lost, other = map(cluster.start, ("chief", "lost", "other"))
        lost.wait_for("epoch 0.")
        lost.kill()
        assert other.wait(300) == 0, other.printed()
        cluster.require_all_trials(other)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [0.5], indirect=True)
def test_a_worker_that_is_killed_and_comes_back(cluster):
    chief, one, other = map(cluster.start, ("chief", "one", "other"))
    one.wait_for("epoch 1.")
    mine = one.printed().rpartition("begun ")[2].partition(".")[0]
    one.kill()
    again = cluster.start("one")
    for worker in (again, other):
        assert worker.wait() == 0, worker.printed()
    cluster.require_all_trials(one, again, other)
    if "was not heard of" not in chief.printed():
        # It went on with its trial, from its last epoch.
        assert f"begun {mine}." in again.printed()
    assert chief.wait(60) == 0, chief.printed()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [0.5], indirect=True)
def test_a_chief_that_is_killed_and_comes_back(cluster):
    chief, one, other = map(cluster.start, ("chief", "one", "other"))
    other.wait_for("epoch 1.")
    chief.kill()
    again = cluster.start("chief")
    for worker in (one, other):
        assert worker.wait() == 0, worker.printed()
    cluster.require_all_trials(one, other)
    assert again.wait(60) == 0, again.printed()


@pytest.mark.slow
def test_a_chief_that_does_not_come_back(cluster):
    """Its worker says so, and not that the trial has failed."""
    chief, worker = (cluster.start(name, chief_timeout=2) for name in ("chief", "worker"))
    worker.wait_for("epoch 1.")
    chief.kill()
    assert worker.wait() == 1, worker.printed()
    assert "none has answered for 2 seconds (`chief_timeout`)" in worker.printed()
    cluster.start("chief")
    again = cluster.start("worker")
    assert again.wait() == 0, again.printed()
    cluster.require_all_trials(worker, again)


@pytest.mark.slow
def test_a_chief_whose_trials_all_fail(cluster):
    """It ends with the reason, and its workers end."""
    chief, one, other = (cluster.start(name, loss="no_loss") for name in ("chief", "one", "other"))
    for worker in (one, other):
        assert worker.wait() == 0, worker.printed()
    assert chief.wait(60) == 1, chief.printed()
    assert "Number of consecutive failures exceeded" in chief.printed()
    assert "no_loss" in chief.printed().rpartition("exceeded")[2]


def test_a_chief_hands_out_nothing_after_too_many_failures(tmp_path, monkeypatch, quiet_tuner):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")
    search = tuning.RandomSearch(build, "loss", max_trials=9, directory=str(tmp_path))
    oracle = search.oracle
    first, second = oracle.create_trial("one"), oracle.create_trial("other")
    for trial in (first, second, oracle.create_trial("third")):
        assert oracle.failure is None
        trial.status = "INVALID"
        oracle.end_trial(trial)
    assert "consecutive failures" in str(oracle.failure)
    assert oracle.ongoing_trials == {}
    for worker in ("one", "other", "third"):
        assert oracle.create_trial(worker).status == "STOPPED"
    assert oracle.tuner_ids == set()


def test_a_worker_without_a_chief(tmp_path, monkeypatch):
    (port,) = free_ports(1)
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker-0")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(port))
    with pytest.raises(ConnectionError, match=f"'worker-0' and the address 127.0.0.1:{port}"):
        tuning.RandomSearch(build, "loss", directory=str(tmp_path), chief_timeout=0.5)


@pytest.mark.parametrize("name", ["worker_timeout", "chief_timeout"])
def test_a_timeout_of_no_seconds(name, tmp_path):
    with pytest.raises(ValueError, match=f"`{name}` must be above 0 seconds. Received: {name}=0"):
        tuning.RandomSearch(build, "loss", directory=str(tmp_path), **{name: 0})


if __name__ == "__main__":
    main(*sys.argv[1:])
