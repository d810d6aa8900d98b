"""benchmarks/turns.py, with runs of a known length."""

import importlib.util
import pathlib
import time

import keras
import numpy as np
import pytest

PATH = pathlib.Path(__file__).parents[1] / "benchmarks" / "turns.py"
spec = importlib.util.spec_from_file_location("turns", PATH)
turns = importlib.util.module_from_spec(spec)
spec.loader.exec_module(turns)


def test_runs_take_turns_and_the_first_does_not_count():
    took = {"a": iter([9.0, 1.0, 2.0, 6.0]), "b": iter([0.5, 1.0, 4.0, 2.0])}
    order = []

    def run(name):
        order.append(name)
        return next(took[name])

    measured = turns.take_turns([lambda: run("a"), lambda: run("b")], 3)
    assert order == ["a", "b"] * 4
    assert [measured.ms(0), measured.ms(1)] == [2000.0, 2000.0]
    # The median of 1, 1/2 and 3.
    assert measured.ratio(0, 1) == 1.0
    assert turns.Turns([(1.0, 2.0), (6.0, 2.0), (8.0, 2.0)]).ratio(0, 1) == 3.0


def test_seconds():
    assert 0.02 <= turns.seconds(time.sleep, 0.02) < 2


def test_fits_take_turns_by_step():
    order = []

    def fit(name):
        def train(begins, ends):
            model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            model.compile("sgd", "mse", run_eagerly=True)
            note = keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: order.append(name)
            )
            x = np.ones((10, 2))
            model.fit(x, x[:, :1], 2, verbose=0, callbacks=[begins, note, ends])

        return train

    measured = turns.take_turns_by_step(fit("watched"), fit("plain"), first=2)
    assert order == ["watched", "plain"] * 5
    assert np.shape(measured.seconds) == (3, 2)
    assert measured.ratio(0, 1) == pytest.approx(
        np.median([mine / other for mine, other in measured.seconds])
    )
