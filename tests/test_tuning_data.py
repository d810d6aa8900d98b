import functools

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from keras_tuner.errors import FatalValueError

from kerasrnn.tuning import RNNHyperModel

SMALL = {"cells": "mgu", "units": 2, "depths": 1, "bidirectional": False, "clips": None}
X = np.zeros((8, 5, 3))
TOKENS = np.ones((8, 5), "int64")
# A hypermodel, and labels that fit.
TASKS = {
    "binary": ({"features": 3}, np.ones(8)),
    "multiclass": ({"features": 3, "outputs": 3}, np.full(8, 2)),
    "multilabel": ({"features": 3, "outputs": 3}, np.ones((8, 3))),
    "regression": ({"features": 3, "outputs": 2}, np.ones((8, 2))),
    "tagging": ({"vocabulary_size": 4, "outputs": 3}, np.full((8, 5), 2)),
    "forecasting": ({"features": 3, "horizon": 4}, np.ones((8, 4))),
    "language": ({"vocabulary_size": 4}, np.full((8, 5), 3)),
}


@functools.cache
def built(task):
    hypermodel = RNNHyperModel(task, **SMALL, **TASKS[task][0])
    hp = keras_tuner.HyperParameters()
    return hypermodel, hp, hypermodel.build(hp)


def fit(task, x, y, **options):
    hypermodel, hp, model = built(task)
    return hypermodel.fit(hp, model, x, y, verbose=0, **options)


@pytest.mark.parametrize(
    ("task", "y", "message"),
    [
        (
            "binary",
            np.full(8, 2),
            r"\(samples, 1\) or \(samples,\), numbers from 0 to 1",
        ),
        ("binary", np.ones((8, 2)), r"task='binary'. Received: an array of the shape \(8, 2\)"),
        ("multiclass", np.full(8, 3), "whole numbers from 0 to 2.*from 3 to 3"),
        ("multiclass", np.full(8, -1), "whole numbers from 0 to 2.*from -1 to -1"),
        ("multiclass", np.full(8, 0.5), "whole numbers from 0 to 2.*from 0.5 to 0.5"),
        ("multiclass", np.eye(3)[np.zeros(8, int)], r"\(samples, 1\) or.*\(8, 3\)"),
        ("multilabel", np.ones((8, 2)), r"`y` must be \(samples, 3\).*\(8, 2\)"),
        ("multilabel", np.ones(8), r"`y` must be \(samples, 3\).*\(8,\)"),
        ("regression", np.ones(8), r"`y` must be \(samples, 2\), finite numbers.*\(8,\)"),
        ("regression", np.full((8, 2), np.nan), "finite numbers.*from nan to nan"),
        ("tagging", np.ones(8), r"\(samples, time, 1\) or \(samples, time\).*\(8,\)"),
        ("tagging", np.ones((8, 4)), r"\(8, 4\), from 1.0 to 1.0 for inputs of the shape \(8, 5\)"),
        ("tagging", np.full((8, 5), -1), "whole numbers from 0 to 2"),
        ("forecasting", np.ones((8, 5)), r"\(samples, 4, 1\) or \(samples, 4\).*\(8, 5\)"),
        ("language", np.full((8, 5), 4), "whole numbers from 0 to 3.*task='language'"),
        ("language", np.ones(8), r"\(samples, time\).*\(8,\)"),
        ("binary", np.full(8, "good"), r"`y` must be.*numbers from 0 to 1.*dtype <U4"),
        ("binary", np.full(8, None), r"`y` must be.*numbers from 0 to 1.*dtype object"),
        ("regression", None, r"`y` must be the labels for task='regression'. Received: None"),
    ],
)
def test_labels_that_do_not_fit(task, y, message):
    x = X if "features" in TASKS[task][0] else TOKENS
    with pytest.raises(FatalValueError, match=message):
        fit(task, x, y)


@pytest.mark.parametrize(
    ("task", "x", "message"),
    [
        ("binary", X[..., :2], r"`x` must be \(samples, time, 3\) for features=3.*\(8, 5, 2\)"),
        ("binary", X[..., 0], r"`x` must be \(samples, time, 3\) for features=3.*\(8, 5\)"),
        ("language", X, r"`x` must be \(samples, time\), whole numbers from 0 to 3.*\(8, 5, 3\)"),
        ("language", 4 * TOKENS, "whole numbers from 0 to 3.*from 4 to 4"),
        ("language", 0.5 * TOKENS, "whole numbers from 0 to 3.*from 0.5"),
        ("binary", X * np.nan, "finite numbers. Received.*from nan to nan"),
        ("binary", np.full(X.shape, "a"), r"features=3.*\(8, 5, 3\) and dtype <U1"),
        ("language", np.full((8, 5), "a"), "whole numbers from 0 to 3.*dtype <U1"),
    ],
)
def test_inputs_that_do_not_fit(task, x, message):
    with pytest.raises(FatalValueError, match=message):
        fit(task, x, TASKS[task][1])


def test_validation_data_that_do_not_fit():
    with pytest.raises(FatalValueError, match=r"`validation_data\[1\]` must be.*\(4, 2\)"):
        fit("binary", X, np.ones(8), validation_data=(X[:4], np.ones((4, 2))))
    with pytest.raises(FatalValueError, match=r"`validation_data\[0\]` must be.*\(4, 5, 1\)"):
        fit("binary", X, np.ones(8), validation_data=(X[:4, :, :1], np.ones(4)))


def test_a_search_ends_with_the_first_trial(tmp_path, quiet_tuner):
    hypermodel = RNNHyperModel(features=3, **SMALL)
    tuner = keras_tuner.RandomSearch(hypermodel, "loss", max_trials=2, directory=tmp_path)
    with pytest.raises(FatalValueError, match="`y` must be"):
        tuner.search(X, np.full(8, 7.0), verbose=0)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.x, self.y


def as_dataset(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(4)


@pytest.mark.parametrize("made", [as_dataset, Batches])
def test_of_data_sets_the_first_batch_has_to_fit(made):
    """Keras spreads the label of a sample over all that there should be, in silence."""
    with pytest.raises(FatalValueError, match=r"`the first y` must be.*\(., 5\)"):
        fit("binary", made(X, np.ones((8, 5))), None)
    with pytest.raises(FatalValueError, match=r"`the first x` must be.*from 4 to 4"):
        fit("language", made(4 * TOKENS, TOKENS), None)
    with pytest.raises(FatalValueError, match=r"the first y of validation_data.*\(., 2\)"):
        fit("binary", X, np.ones(8), validation_data=made(X, np.ones((8, 2))))
    assert len(fit("binary", made(X, np.ones(8)), None, shuffle=False).epoch) == 1


def test_what_is_no_array_passes():
    pairs = tf.data.Dataset.from_tensor_slices((X, np.ones(8))).batch(4)
    assert len(fit("binary", pairs, None, shuffle=False).epoch) == 1
    assert len(fit("binary", tf.constant(X), tf.ones(8)).epoch) == 1
