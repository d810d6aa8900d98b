import keras
import keras_tuner
import numpy as np
import pytest

from kerasrnn.layers import RNNStack
from kerasrnn.tuning import RNNHyperModel


def fixed(**values):
    hp = keras_tuner.HyperParameters()
    for name, value in values.items():
        hp.Fixed(name, value)
    return hp


def test_builds_what_the_hyperparameters_say():
    hypermodel = RNNHyperModel("binary", vocabulary_size=20)
    model = hypermodel.build(
        fixed(cell="gru", units=64, depth=3, dropout=0.2, learning_rate=0.002, clipnorm=0.7)
    )
    (stack,) = (layer for layer in model.layers if isinstance(layer, RNNStack))
    assert (stack.cell, stack.units, stack.depth, stack.dropout) == ("gru", 64, 3, 0.2)
    assert (stack.connection, stack.bidirectional) == ("residual", True)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.002)
    assert model.optimizer.clipnorm == 0.7
    (embedding,) = (part for part in model.layers if isinstance(part, keras.layers.Embedding))
    assert (embedding.input_dim, embedding.output_dim, embedding.mask_zero) == (20, 128, True)


def test_a_single_value_is_no_choice():
    hp = keras_tuner.HyperParameters()
    RNNHyperModel("binary", features=3, cells="gru", units=8, depths=1, dropouts=0.1).build(hp)
    assert [hp.get(name) for name in ("cell", "units", "depth", "dropout")] == ["gru", 8, 1, 0.1]


def test_asks_for_the_six_that_matter():
    hp = keras_tuner.HyperParameters()
    RNNHyperModel("binary", features=3, cells=("lstm", "gru"), units=(8, 16)).build(hp)
    space = {p.name: p for p in hp.space}
    assert set(space) == {"cell", "units", "depth", "dropout", "learning_rate", "clipnorm"}
    assert list(space["cell"].values) == ["lstm", "gru"]
    assert list(space["units"].values) == [8, 16]


@pytest.mark.parametrize(
    ("task", "outputs", "labels"),
    [
        ("binary", 1, np.array([0, 1, 1, 0])),
        ("multiclass", 3, np.array([0, 1, 2, 0])),
        ("regression", 2, np.ones((4, 2))),
    ],
)
def test_every_task_trains(task, outputs, labels, rng):
    hypermodel = RNNHyperModel(task, features=3, outputs=outputs, units=(4,), depths=(1,))
    model = hypermodel.build(keras_tuner.HyperParameters())
    x = rng.normal(size=(4, 6, 3))
    history = model.fit(x, labels, epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert model(x).shape == (4, outputs)
    if task == "multiclass":
        np.testing.assert_allclose(np.sum(model(x), axis=1), 1, rtol=1e-5)


def test_a_search(tmp_path, rng, quiet_tuner):
    # Small, for what is traced three times a trial.
    small = {"cells": "gru", "depths": 1, "bidirectional": False, "connection": None}
    hypermodel = RNNHyperModel("binary", vocabulary_size=9, units=(4, 8), **small)
    tuner = keras_tuner.BayesianOptimization(
        hypermodel, "loss", max_trials=2, num_initial_points=1, directory=tmp_path, seed=0
    )
    x, y = rng.integers(0, 9, (16, 5)), rng.integers(0, 2, 16)
    tuner.search(x, y, verbose=0)
    assert isinstance(hypermodel.build(tuner.get_best_hyperparameters()[0]), keras.Model)
    assert len(tuner.oracle.trials) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "ranking", "features": 3}, "one of binary, multiclass, regression.*'ranking'"),
        ({}, "Pass `vocabulary_size`.*or `features`.*None.*None"),
        ({"vocabulary_size": 9, "features": 3}, "vocabulary_size=9, features=3"),
        ({"task": "multiclass", "features": 3}, "number of classes.*outputs=1"),
        ({"vocabulary_size": 0}, "`vocabulary_size` must be a positive integer.*0"),
        ({"features": 3, "connection": "dens"}, "must be None, 'residual'.*'dens'"),
        ({"features": 3, "clipnorms": (1.0,)}, r"`clipnorms` must be a lower and.*\(1.0,\)"),
        ({"features": 3, "learning_rates": (1.0, 0.1)}, r"`learning_rates`.*\(1.0, 0.1\)"),
        ({"features": 3, "cells": ("gru", "grru")}, r"simple_rnn, lstm, gru.*\['grru'\]"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        RNNHyperModel(**arguments)
