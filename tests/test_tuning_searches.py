"""Searches that go on where their process died, and in which no lost trial wins."""

import inspect
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading

import h5py
import keras
import keras_tuner
import numpy as np
import pytest
from killed import Moments
from slow import slow_but

from kerasrnn import tuning
from kerasrnn.callbacks import GradientNormMonitor
from kerasrnn.tuning.oracles import is_healthy

ROOT = pathlib.Path(__file__).parents[1]
X = np.random.default_rng(0).normal(size=(32, 3))
Y = X.sum(1, keepdims=True)
KINDS = {
    "RandomSearch": {"max_trials": 3},
    "BayesianOptimization": {"max_trials": 3, "num_initial_points": 2},
    "Hyperband": {"max_epochs": 3, "factor": 3},
    "GridSearch": {"max_trials": 3},
}
# keras-tuner 1.4 asks for the thread by a name that Python has deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:getName:DeprecationWarning"),
]


def build(hp):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(hp.Choice("units", [4, 8])),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(1),
        ]
    )
    rate = hp.Choice("learning_rate", [0.001, 0.01, 0.1])
    # Nothing is traced, which takes longer than these trainings.
    model.compile(keras.optimizers.Adam(rate), "mse", metrics=["mae"], run_eagerly=True)
    return model


class Killer(keras.callbacks.Callback):
    """Ends the process when a batch of that number begins, counted over all trials."""

    # Of the class: what an instance knows goes on in another process.
    begun = 0

    def __init__(self, batch):
        super().__init__()
        self.batch = batch
        Killer.begun = 0

    def __deepcopy__(self, memo):
        return self

    def on_train_batch_begin(self, batch, logs=None):
        Killer.begun += 1
        if Killer.begun == self.batch:
            os.kill(os.getpid(), signal.SIGKILL)


def make(kind, directory, **kwargs):
    settings = {"seed": 0, "directory": str(directory), **KINDS[kind], **kwargs}
    return getattr(tuning, kind)(build, "val_loss", **settings)


def run(search, *callbacks):
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=0.05)
    search.search(
        X,
        Y,
        validation_split=0.25,
        batch_size=12,
        callbacks=[GradientNormMonitor(), stopping, *callbacks],
        verbose=0,
        **({} if search.sets_epochs else {"epochs": 3}),
    )
    return search


def outcome(search):
    return [
        [trial.trial_id, trial.hyperparameters.values, trial.score, trial.best_step, trial.status]
        for trial in search.oracle.trials.values()
    ]


def records(directory):
    return {
        path.relative_to(directory): path.read_bytes()
        for path in sorted(pathlib.Path(directory).rglob("gradient_norms*.csv"))
    }


def in_another_process(kind, directory, *batches):
    """Runs a search in one process after the other, each killed when its batch of that number
    begins; `None` to the end. Gives the batches that the last one ran, and the outcome."""
    for batch in batches:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, kind, str(directory), str(batch or 0)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == (-signal.SIGKILL if batch else 0), done.stderr
    begun, ended = done.stdout.splitlines()[-2:]
    return int(begun), json.loads(ended)


# Two batches in an epoch: before the first trial's end, and in the second batch of an epoch, whose
# first is lost.
@pytest.mark.parametrize("kind", slow_but(["GridSearch"], KINDS))
def test_a_killed_search_has_the_outcome_of_one_that_was_not(kind, tmp_path):
    kills = (1, 6) if kind == "RandomSearch" else (10,)
    whole = Killer(0)
    undisturbed = run(make(kind, tmp_path / "whole"), whole)
    in_all = whole.begun
    begun, ended = in_another_process(kind, tmp_path / "killed", *kills, None)
    assert ended == json.loads(json.dumps(outcome(undisturbed)))
    assert records(tmp_path / "killed") == records(tmp_path / "whole") != {}
    # What each process did, but for the batches of the epoch in which it was killed.
    kept = sum((batch - 1) // 2 * 2 for batch in kills)
    assert begun + kept == in_all


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kills", [(2,), (3, 1, 2), (5, 3, 8), (13,)])
def test_wherever_it_is_killed(kind, kills, tmp_path):
    undisturbed = run(make(kind, tmp_path / "whole"))
    _, ended = in_another_process(kind, tmp_path / "killed", *kills, None)
    assert ended == json.loads(json.dumps(outcome(undisturbed)))
    assert records(tmp_path / "killed") == records(tmp_path / "whole")


def weights_of(search):
    return [model.get_weights() for model in search.get_best_models(9)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "settings", "every"),
    [
        ("GridSearch", {"max_trials": 2}, 29),
        ("RandomSearch", {"max_trials": 2, "executions_per_trial": 2}, 7),
        ("Hyperband", {}, 11),
    ],
)
def test_killed_between_any_two_operations_on_files(kind, settings, every, tmp_path, monkeypatch):
    moments = Moments(tmp_path / "whole", tmp_path / "copies")
    with moments.watched(monkeypatch):
        whole = run(make(kind, tmp_path / "whole", **settings))
    ended, norms, weights = outcome(whole), records(tmp_path / "whole"), weights_of(whole)
    assert len(moments.copied) > 40
    for copy in moments.copied[::every]:
        # A file of weights is whole at every moment, whatever comes after it.
        for file in copy.rglob("trial_*/checkpoint.weights.h5"):
            h5py.File(file).close()
        search = run(make(kind, copy, **settings))
        assert outcome(search) == ended, copy
        assert records(copy) == norms
        for one, other in zip(weights_of(search), weights, strict=True):
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(a, b)


class Interrupt(keras.callbacks.Callback):
    """Raises what Ctrl-C raises when an epoch of that number begins, counted over all trials."""

    left = 0

    def __init__(self, epoch):
        super().__init__()
        Interrupt.left = epoch

    def __deepcopy__(self, memo):
        return self

    def on_epoch_begin(self, epoch, logs=None):
        Interrupt.left -= 1
        if Interrupt.left == 0:
            raise KeyboardInterrupt


def interrupted(directory):
    """A search that was broken off in the third epoch of its second trial."""
    search = make("RandomSearch", directory)
    with pytest.raises(KeyboardInterrupt):
        run(search, Interrupt(5))
    return search


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The outcome of that search if nothing disturbs it."""
    return outcome(run(make("RandomSearch", tmp_path_factory.mktemp("whole"))))


@pytest.mark.slow
def test_a_search_goes_on_after_ctrl_c(tmp_path, whole, capsys):
    search = interrupted(tmp_path / "same")
    assert outcome(run(search)) == whole
    interrupted(tmp_path / "new")
    search = make("RandomSearch", tmp_path / "new")
    capsys.readouterr()
    search.search(X, Y, validation_split=0.25, batch_size=12, epochs=3)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "The search goes on after 1 of 3 trials."
    assert [line.split(":")[0] for line in printed[1:]] == ["trial 2 of 3", "trial 3 of 3"]
    assert "; best " in printed[1]
    assert printed[1].endswith("left")
    assert not printed[2].endswith("left")


@pytest.mark.parametrize(
    "name",
    slow_but([], ["oracle.json", "trial_1/state-0.pickle", "trial_1/trial.json"]),
)
def test_a_file_that_was_half_written_has_a_backup(name, tmp_path, whole):
    for part in (0.5, 0):
        interrupted(tmp_path / str(part))
        file = tmp_path / str(part) / "untitled_project" / name
        content = file.read_bytes()
        file.write_bytes(content[: int(part * len(content))])
        assert outcome(run(make("RandomSearch", tmp_path / str(part)))) == whole


def test_files_without_a_backup_are_named(tmp_path):
    interrupted(tmp_path)
    folder = tmp_path / "untitled_project"
    for name in ("oracle.json", "oracle.json.backup"):
        (folder / name).write_text('{"trials": [')
    with pytest.raises(ValueError, match=r"oracle\.json and .*oracle\.json\.backup cannot be read"):
        make("RandomSearch", tmp_path)
    assert (folder / "oracle.json").read_text() == '{"trials": ['


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "its seed is 0, not 1"),
        ({"objective": "loss"}, "its objective is .*val_loss.*, not .*loss"),
        ({"kind": "GridSearch"}, "its tuner is 'RandomSearch', not 'GridSearch'"),
        ({"hypermodel": tuning.RNNHyperModel(features=3)}, "its space has other units, learning"),
        ({"executions_per_trial": 2}, "its executions_per_trial is 1, not 2"),
    ],
)
def test_another_search_is_not_gone_on_with(change, message, tmp_path):
    run(make("RandomSearch", tmp_path, max_trials=1))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    asked = {"kind": "RandomSearch", "hypermodel": build, "objective": "val_loss", **change}
    kind = getattr(tuning, asked.pop("kind"))
    with pytest.raises(ValueError, match=f"overwrite=False.*{message}.*overwrite=True"):
        kind(**{"max_trials": 1, "seed": 0, "directory": str(tmp_path), **asked})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_search_of_keras_tuner_s_own_is_not_gone_on_with(tmp_path, capsys):
    theirs = keras_tuner.RandomSearch(build, "loss", max_trials=1, directory=str(tmp_path))
    theirs.search(X, Y, verbose=0)
    with pytest.raises(ValueError, match=r"none of kerasrnn\.tuning"):
        make("RandomSearch", tmp_path)
    assert len(outcome(run(make("RandomSearch", tmp_path, overwrite=True, max_trials=2)))) == 2


def test_what_is_no_search_is_not_removed(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("all of it")
    search = make("RandomSearch", tmp_path, project_name="thesis", overwrite=True)
    with pytest.raises(FileExistsError, match=r"holds something else: thesis\.tex.*'thesis'"):
        run(search)
    assert (tmp_path / "thesis" / "thesis.tex").exists()


def test_nothing_is_removed_before_a_search_begins(tmp_path):
    run(make("RandomSearch", tmp_path, max_trials=1))
    search = make("RandomSearch", tmp_path, max_trials=1, overwrite=True)
    with pytest.raises(ValueError, match=r"`validation_data` or `validation_split`.*'val_loss'"):
        search.search(X, Y, verbose=0)
    assert [*tmp_path.rglob("oracle.json")]
    # It is removed once, not again by a second `search` of the same tuner.
    for _ in range(2):
        run(search)
        assert len(outcome(search)) == 1


def contents(directory):
    files = [path for path in pathlib.Path(directory).rglob("*") if path.is_file()]
    return {path.relative_to(directory): path.read_bytes() for path in files}


def fails(hp):
    model = build(hp)
    model.compile("adam", lambda y, p: y @ p)
    return model


@pytest.mark.parametrize(
    ("hypermodel", "objective", "error"),
    [
        (build, keras_tuner.Objective("val_acuracy", "max"), "`objective` must be"),
        (fails, "loss", "No trial of 2"),
    ],
)
def test_what_was_to_be_replaced_comes_back_where_all_fails(hypermodel, objective, error, tmp_path):
    run(make("RandomSearch", tmp_path, max_trials=1))
    before = contents(tmp_path)
    search = tuning.RandomSearch(
        hypermodel, objective, max_trials=2, directory=str(tmp_path), overwrite=True
    )
    with pytest.raises(Exception, match=error) as raised:
        run(search)
    assert "as it was" in raised.value.__notes__[0]
    assert contents(tmp_path) == before


@pytest.mark.filterwarnings("ignore:.*interrupted")
def test_what_is_replaced_goes_after_the_first_trial(tmp_path):
    run(make("RandomSearch", tmp_path, max_trials=1))
    before = contents(tmp_path / "untitled_project")
    with pytest.raises(KeyboardInterrupt):
        run(make("RandomSearch", tmp_path, max_trials=1, overwrite=True), Interrupt(2))
    assert contents(tmp_path / "untitled_project.replaced") == before
    run(make("RandomSearch", tmp_path, max_trials=1))
    assert [path.name for path in tmp_path.iterdir()] == ["untitled_project"]


def test_a_model_that_is_gone_is_named(tmp_path):
    search = run(make("RandomSearch", tmp_path, max_trials=1))
    message = r"The model of trial 1 is not in .*trial_0 any more"
    (place,) = tmp_path.rglob("checkpoint.weights.h5")
    place.write_bytes(place.read_bytes()[:20])
    with pytest.raises(FileNotFoundError, match=message):
        search.get_best_models()
    shutil.rmtree(place.parent)
    with pytest.raises(FileNotFoundError, match=message):
        search.get_best_models()
    with pytest.raises(ValueError, match=r"`num_models`.*num_models=0"):
        search.get_best_models(0)


def test_more_trials_extend_a_search(tmp_path, whole):
    run(make("RandomSearch", tmp_path / "parts", max_trials=2))
    assert outcome(run(make("RandomSearch", tmp_path / "parts", seed=None))) == whole


def test_an_objective_that_no_metric_gives_ends_the_search_in_its_first_batch(tmp_path):
    batches = Counting()
    search = tuning.RandomSearch(
        build, keras_tuner.Objective("val_acuracy", "max"), max_trials=2, directory=str(tmp_path)
    )
    message = r"`objective` must be.*: loss, mae, val_loss, val_mae\. .*objective='val_acuracy'"
    with pytest.raises(keras_tuner.errors.FatalValueError, match=message):
        search.search(X, Y, validation_split=0.25, callbacks=[batches], verbose=0)


class Counting(keras.callbacks.EarlyStopping):
    def __init__(self):
        super().__init__("loss")


def lost(hp):
    """Trial 0 is healthy; of others the objective or the weights are not finite."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="head")])
    rate = hp.Choice("learning_rate", [0.01, 1e30, 1e31, 1e32, 1e33, 1e34])
    model.compile(keras.optimizers.SGD(rate), "mse", metrics=["accuracy"], run_eagerly=True)
    return model


@pytest.mark.parametrize(
    "objective",
    slow_but(["val_accuracy"], ["loss", "val_accuracy", ["val_loss", "val_accuracy"]]),
)
@pytest.mark.parametrize("kind", slow_but(["GridSearch"], ["GridSearch", "BayesianOptimization"]))
@pytest.mark.filterwarnings("ignore:.*close to the specified:sklearn.exceptions.ConvergenceWarning")
def test_a_lost_trial_never_wins_and_ends_nothing(kind, objective, tmp_path):
    settings = {"num_initial_points": 4} if kind == "BayesianOptimization" else {}
    search = getattr(tuning, kind)(
        lost, objective, max_trials=6, seed=3, directory=str(tmp_path), **settings
    )
    search.search(X, (Y > 0) * 1.0, validation_split=0.25, epochs=4, verbose=0)
    trials = list(search.oracle.trials.values())
    healthy = [one for one in trials if one.hyperparameters.get("learning_rate") < 1]
    assert [one for one in trials if is_healthy(one)] == healthy
    assert len(trials) == 6
    assert 1 <= len(healthy) < 4
    assert search.get_best_hyperparameters(9)[0].get("learning_rate") == 0.01
    assert len(search.get_best_models(9)) == len(healthy)
    for trial in trials:
        if trial not in healthy:
            assert "after epoch" in trial.message
    verdicts = [row["verdict"] for row in search.trials_table()]
    assert verdicts == [""] * len(healthy) + ["NON-FINITE"] * (6 - len(healthy))
    # They stop where they are lost.
    assert {row["epochs"] for row in search.trials_table()[len(healthy) :]} <= {1, 2}


def test_a_run_trial_of_one_s_own_may_end_in_nan(tmp_path):
    class Search(tuning.RandomSearch):
        def run_trial(self, trial):
            x = trial.hyperparameters.Int("x", 0, 9)
            return float("nan") if x > 2 else float(x)

    search = Search(seed=1, max_trials=9, directory=str(tmp_path))
    search.search()
    assert len(search.oracle.trials) == 9
    assert search.get_best_hyperparameters()[0].get("x") == 0
    assert "default_objective was nan" in {one.message for one in search.oracle.trials.values()}


def test_a_search_without_a_winner_says_why(tmp_path):
    search = tuning.RandomSearch(lost, "loss", max_trials=4, directory=str(tmp_path), seed=1)
    with pytest.raises(RuntimeError, match="call search"):
        search.get_best_models()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="No trial of 4 came to a finite score: loss was"):
            search.search(X, Y * np.inf, epochs=2, verbose=0)
    with pytest.raises(RuntimeError, match="No trial of 4"):
        search.get_best_models()

    search = tuning.RandomSearch(
        fails, "loss", max_trials=2, directory=str(tmp_path), project_name="failed"
    )
    with pytest.raises(RuntimeError, match=r"No trial of 2 came to a finite score: .*Error"):
        search.search(X, Y, verbose=0)


def test_a_promoted_trial_goes_on_with_its_optimizer(tmp_path):
    """From the state after the last epoch of the other one, not from that of its best."""
    begun = []

    class Looking(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            begun.append((epoch, int(self.model.optimizer.iterations)))

    search = make("Hyperband", tmp_path)
    search.search(X, Y, validation_split=0.25, batch_size=12, callbacks=[Looking()], verbose=0)
    assert begun[-1][0] == 2
    assert all(iterations == 2 * epoch for epoch, iterations in begun)
    promoted = [t for t in outcome(search) if t[1]["tuner/initial_epoch"]]
    assert promoted
    assert search.oracle.planned == 6


def test_each_execution_and_trial_has_seeds_of_its_own(tmp_path):
    firsts = []

    class Looking(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            firsts.append(self.model.get_weights()[0])

    search = make("GridSearch", tmp_path, max_trials=2, executions_per_trial=2)
    search.search(X, Y, validation_split=0.25, callbacks=[Looking()], verbose=0)
    assert len(firsts) == 4
    assert len({first.tobytes() for first in firsts}) == 4


def test_a_fit_of_one_s_own_goes_on_if_it_hands_on_what_it_gets(tmp_path):
    class Model(keras_tuner.HyperModel):
        def build(self, hp):
            return build(hp)

        def fit(self, hp, model, x, callbacks=None, **kwargs):
            kwargs = kwargs if self.hands_on else {"verbose": 0}
            history = model.fit(x, Y, epochs=3, batch_size=16, callbacks=callbacks, **kwargs)
            return min(history.history["loss"])

    hypermodel = Model()
    hypermodel.hands_on = True

    def begin(name):
        search = tuning.RandomSearch(
            hypermodel, "loss", seed=5, max_trials=1, directory=str(tmp_path), project_name=name
        )
        return search

    whole = begin("whole")
    whole.search(X, verbose=0)
    broken = begin("broken")
    with pytest.raises(KeyboardInterrupt):
        broken.search(X, callbacks=[Interrupt(3)], verbose=0)
    epochs = Interrupt(0)
    broken.search(X, callbacks=[epochs], verbose=0)
    assert epochs.left == -1
    assert outcome(broken) == outcome(whole)

    hypermodel.hands_on = False
    broken = begin("anew")
    with pytest.raises(KeyboardInterrupt):
        broken.search(X, callbacks=[Interrupt(3)], verbose=0)
    with pytest.warns(UserWarning, match="hand `initial_epoch` on to model.fit.*trial 0 begins"):
        broken.search(X, verbose=0)
    assert outcome(broken) == outcome(whole)


def test_table(tmp_path):
    search = run(make("GridSearch", tmp_path, max_trials=3))
    table = search.trials_table()
    assert [row["score"] for row in table] == sorted(row["score"] for row in table)
    assert {row["trial"] for row in table} == {1, 2, 3}
    assert table[0]["hyperparameters"].keys() == {"units", "learning_rate"}
    for row in table:
        units = row["hyperparameters"]["units"]
        assert row["parameters"] == 4 * units + units + 1
        assert 1 <= row["epochs"] <= 3
        assert row["seconds"] > 0
        assert row["verdict"]
    lines = str(table).splitlines()
    names = "trial | units | learning_rate | score | epochs | parameters | seconds | verdict"
    assert lines[0] == f"| {names} |"
    assert len(lines) == 5
    (axis,) = search.plot().axes
    assert [label.get_text() for label in axis.get_xticklabels()][-1] == "val_loss"
    # The record of a trial that has ended is there for a new process, too.
    again = make("GridSearch", tmp_path, max_trials=3).trials_table()
    assert again == table


def test_a_tuner_needs_a_model(tmp_path):
    for kind in KINDS:
        with pytest.raises(ValueError, match=r"`hypermodel` must be.*hypermodel=None"):
            getattr(tuning, kind)(objective="loss", directory=str(tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_takes_the_arguments_of_keras_tuner(kind):
    theirs = inspect.signature(getattr(keras_tuner, kind).__init__)
    assert inspect.signature(getattr(tuning, kind).__init__) == theirs


if __name__ == "__main__":
    threading.currentThread = threading.current_thread
    killer = Killer(int(sys.argv[3]))
    done = run(make(sys.argv[1], sys.argv[2]), killer)
    print(killer.begun)
    print(json.dumps(outcome(done)))
