"""The folders of trainings that one callback is told one place for."""

import pathlib

import keras
import keras_tuner
import pytest
from small import LABELS, SGD, TOKENS

from kerasrnn.callbacks import DivergenceGuard, GradientNormMonitor
from kerasrnn.files import located
from kerasrnn.updates.folders import Folders


def model():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


@pytest.fixture(params=["here", "behind an address"])
def place(request, tmp_path):
    return tmp_path if request.param == "here" else located("directory", f"ram:/{tmp_path}/place")


def test_the_place_is_that_of_the_first_model_that_wrote_there(place):
    folders, first, second = Folders(), model(), model()
    # One that wrote nothing is none.
    assert folders.of_fit(second)(place) == place
    for _ in range(2):
        assert folders.of_fit(first)(place) == place
        folders.written(first)
    for n in (1, 2):
        folder = folders.of_fit(second)
        folders.written(second)
        assert folder(place) == folder(place) == place / f"fit-{n}"
        assert folder(place).is_dir()
    assert folders.of_fit(first)(place) == place


def test_a_model_that_is_gone_keeps_its_place(place):
    folders = Folders()
    folders.written(model())
    assert folders.of_fit(model())(place) == place / "fit-1"


def test_every_fit_of_a_copy_has_a_folder(place):
    first = model()
    assert [Folders(copied=True).of_fit(first)(place) for _ in "ab"] == [
        place / "fit-1",
        place / "fit-2",
    ]
    folders = Folders(copied=True)
    folders.written(first)
    (place / "fit-10").mkdir()
    (place / "fit-x").mkdir()
    assert folders.of_fit(first)(place) == place / "fit-11"


def test_one_that_another_process_makes_meanwhile_is_left_to_it(tmp_path, monkeypatch):
    mkdir = pathlib.Path.mkdir

    def later(path, **options):
        monkeypatch.setattr(pathlib.Path, "mkdir", mkdir)
        path.mkdir()
        path.mkdir(**options)

    monkeypatch.setattr(pathlib.Path, "mkdir", later)
    assert Folders(copied=True).of_fit(model())(tmp_path) == tmp_path / "fit-2"


class Fits(keras.callbacks.Callback):
    """Notes at which iteration the fits of a search begin, and breaks some off in their fourth
    batch."""

    began, broken = [], {}

    def on_train_batch_begin(self, batch, logs=None):
        if not batch:
            self.began.append(int(self.model.optimizer.iterations))

    def on_train_batch_end(self, batch, logs=None):
        if batch == 3 and len(self.began) in self.broken:
            raise self.broken.pop(len(self.began))


@pytest.mark.slow
@pytest.mark.parametrize("units", [[4], [4, 5, 6]])
def test_every_fit_of_a_search_has_files_of_its_own(units, tmp_path, quiet_tuner, monkeypatch):
    """Of the same shapes, too; also where a fit has failed, and where the search was interrupted
    and goes on in another process."""

    def build(hp):
        inputs = keras.Input((7,))
        hidden = keras.layers.Dense(hp.Choice("units", units))(inputs)
        model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
        model.compile(SGD(hp.Float("rate", 1e-5, 1e-4)), "mse", run_eagerly=True)
        return model

    def search():
        tuner = keras_tuner.RandomSearch(
            build,
            keras_tuner.Objective("loss", "min"),
            max_trials=3,
            executions_per_trial=2,
            directory=tmp_path / "search",
            seed=0,
        )
        callbacks = [
            GradientNormMonitor(csv=tmp_path / "norms.csv", log_dir=tmp_path / "logs"),
            DivergenceGuard(every=1, directory=tmp_path / "guard"),
            Fits(),
        ]
        options = {"batch_size": 8, "verbose": 0, "callbacks": callbacks}
        tuner.search(TOKENS.astype("float32"), LABELS, **options)
        return tuner

    monkeypatch.setattr(Fits, "began", [])
    # Of the first trial the first fit fails, the second trial is interrupted in its second.
    monkeypatch.setattr(Fits, "broken", {1: RuntimeError("no"), 3: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        search()
    statuses = {name: trial.status for name, trial in search().oracle.trials.items()}
    assert statuses == {"0": "FAILED", "1": "COMPLETED", "2": "COMPLETED"}
    assert Fits.began == [0] * 7

    numbers = [f"fit-{n}" for n in range(1, 8)]
    files = {path.parent.name: path for path in tmp_path.glob("*/norms.csv")}
    assert sorted(files) == numbers
    rows = [len(files[n].read_text().splitlines()) - 1 for n in numbers]
    # What a fit that was broken off had not yet written is lost, as ever.
    assert [n for n, row in zip(numbers, rows, strict=True) if row == 6] == [
        n for n in numbers if n not in ("fit-1", "fit-3")
    ]
    logs = [path.parent.name for path in (tmp_path / "logs").rglob("events*")]
    assert sorted(logs) == numbers
    left = {str(path.relative_to(tmp_path / "guard")) for path in tmp_path.rglob("*.npz")}
    assert left == {"fit-1/good_state.npz", "fit-2/good_state.npz"}
