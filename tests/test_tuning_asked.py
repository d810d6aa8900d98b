"""What would fail trial after trial is an error before the first."""

import keras
import keras_tuner
import numpy as np
import pytest

from kerasrnn import tuning
from kerasrnn.callbacks import GradientNormMonitor

X, Y = np.ones((8, 3)), np.ones((8, 1))
KINDS = {
    "RandomSearch": {"max_trials": 1},
    "BayesianOptimization": {"max_trials": 1},
    "Hyperband": {"max_epochs": 2},
    "GridSearch": {"max_trials": 1},
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:getName:DeprecationWarning"),
]


def build(hp):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(hp.Choice("rate", [0.1, 0.2])), "mse", run_eagerly=True)
    return model


def make(directory, kind="RandomSearch", hypermodel=build, objective="loss", **settings):
    settings = {"directory": str(directory), **KINDS[kind], **settings}
    return getattr(tuning, kind)(hypermodel, objective, **settings)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("RandomSearch", {"max_trials": 0}, "`max_trials`.*max_trials=0"),
        ("GridSearch", {"max_trials": -1}, "`max_trials`.*max_trials=-1"),
        ("BayesianOptimization", {"max_trials": "3"}, "`max_trials`.*max_trials='3'"),
        ("RandomSearch", {"executions_per_trial": 0}, "executions_per_trial=0"),
        ("RandomSearch", {"seed": -1}, "`seed`.*seed=-1"),
        ("RandomSearch", {"seed": 1.5}, "`seed`.*seed=1.5"),
        ("RandomSearch", {"seed": "a"}, "`seed`.*seed='a'"),
        ("RandomSearch", {"max_retries_per_trial": -1}, "max_retries_per_trial=-1"),
        ("RandomSearch", {"max_consecutive_failed_trials": 0}, "failed_trials=0"),
        ("BayesianOptimization", {"alpha": -1}, "`alpha`.*alpha=-1"),
        ("BayesianOptimization", {"beta": "x"}, "`beta`.*beta='x'"),
        ("BayesianOptimization", {"num_initial_points": -2}, "num_initial_points=-2"),
        ("Hyperband", {"max_epochs": -1}, "`max_epochs`.*max_epochs=-1"),
        ("Hyperband", {"factor": 1}, "`factor` must be an integer, 2 or more.*factor=1"),
        ("Hyperband", {"hyperband_iterations": 0}, "hyperband_iterations=0"),
        ("RandomSearch", {"objective": None}, "`objective` must.*objective=None"),
        ("RandomSearch", {"objective": []}, r"`objective` must.*objective=\[\]"),
        (
            "RandomSearch",
            {"objective": ["loss", keras_tuner.Objective("mae", "up")]},
            "`objective` must.*'min' or 'max'.*'mae'.*'up'",
        ),
        ("RandomSearch", {"hypermodel": tuning.RNNHyperModel}, "the class RNNHyperModel"),
        (
            "RandomSearch",
            {"hypermodel": keras.Sequential(name="net")},
            "`hypermodel` must be an instance.*the model net",
        ),
    ],
)
def test_arguments(kind, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, kind, **settings)


def test_a_seed_of_numpy(tmp_path):
    make(tmp_path, seed=np.int64(3)).search(X, Y, verbose=0)
    assert len(make(tmp_path, seed=3).trials_table()) == 1


def test_a_folder_that_cannot_be(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match=r"`directory` must be a directory, but.*file"):
        make(file)
    with pytest.raises(FileExistsError, match=r"`project_name` must name a folder, but.*is a file"):
        make(tmp_path, project_name="file")
    with pytest.raises(ValueError, match=r"`directory` must be a path or None.*directory=3"):
        tuning.RandomSearch(build, "loss", directory=3)
    with pytest.raises(OSError, match="`directory` must be one that can be made"):
        make("/proc/search")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epoch": 2}, TypeError, "keras.Model.fit: .*'epoch'"),
        ({"epochs": 0}, ValueError, "`epochs`.*epochs=0"),
        ({"epochs": "2"}, ValueError, "`epochs`.*epochs='2'"),
        ({"batch_size": 0}, ValueError, "`batch_size`.*batch_size=0"),
        ({"initial_epoch": -1}, ValueError, "`initial_epoch`.*initial_epoch=-1"),
        ({"validation_split": 1.5}, ValueError, "`validation_split`.*=1.5"),
        ({"verbose": "loud"}, ValueError, "`verbose`.*verbose='loud'"),
        ({"y": Y[:5]}, ValueError, "`y` must have as many samples as `x`.*5 for `y`, 8 for `x`"),
        ({"callbacks": [GradientNormMonitor]}, TypeError, "`callbacks` must be instances.*class"),
        ({"callbacks": ["stop"]}, TypeError, "`callbacks` must be instances.*'stop'"),
    ],
)
def test_arguments_of_fit(arguments, error, message, tmp_path):
    make(tmp_path).search(X, Y, verbose=0)
    before = [path.read_bytes() for path in sorted(tmp_path.rglob("*.json"))]
    search = make(tmp_path, overwrite=True)
    with pytest.raises(error, match=message):
        search.search(**{"x": X, "y": Y, "verbose": 0, **arguments})
    assert [path.read_bytes() for path in sorted(tmp_path.rglob("*.json"))] == before


@pytest.mark.parametrize(
    "callbacks",
    [None, GradientNormMonitor(), (GradientNormMonitor(),)],
    ids=["none", "one", "tuple"],
)
def test_callbacks_need_not_be_in_a_list(callbacks, tmp_path):
    search = make(tmp_path)
    search.search(X, Y, callbacks=callbacks, verbose=0)
    verdict = search.trials_table()[0]["verdict"]
    assert bool(verdict) == (callbacks is not None)


def test_arguments_of_fit_by_their_place(tmp_path):
    search = make(tmp_path)
    search.search(X, Y, 4, 3, 0)
    assert search.trials_table()[0]["epochs"] == 3


def test_hyperband_says_that_it_sets_the_epochs(tmp_path):
    search = make(tmp_path, "Hyperband")
    with pytest.warns(UserWarning, match="Hyperband sets `epochs`"):
        search.search(X, Y, epochs=9, verbose=0)
    assert max(row["epochs"] for row in search.trials_table()) == 2
