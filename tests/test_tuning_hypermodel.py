import copy
import functools
import pathlib
import subprocess
import sys

import keras
import keras_tuner
import numpy as np
import pytest
from keras_tuner.errors import FatalValueError

from kerasrnn.callbacks import GradientClipping
from kerasrnn.diagnostics import is_causal
from kerasrnn.layers import RNNStack
from kerasrnn.recurrence.structure import step_key
from kerasrnn.tuning import RNNHyperModel

# What is built and traced in no time.
SMALL = {"cells": "mgu", "units": 3, "depths": 1, "bidirectional": False, "dropouts": 0.0}
TOKENS = np.array([[3, 1, 4, 2, 0, 0], [2, 4, 1, 0, 0, 0], [1, 2, 3, 4, 3, 1], [4, 4, 0, 0, 0, 0]])


def fixed(**values):
    hp = keras_tuner.HyperParameters()
    for name, value in values.items():
        hp.Fixed(name, value)
    return hp


def default(*arguments, **choices):
    """The model of the first of all choices."""
    return RNNHyperModel(*arguments, **choices).build(keras_tuner.HyperParameters())


def stack_of(model):
    (stack,) = (layer for layer in model.layers if isinstance(layer, RNNStack))
    return stack


def cell_of(model):
    """Of its first recurrent layer."""
    layer = stack_of(model).layers[0]
    while not hasattr(layer, "cell"):
        layer = layer.layer
    return layer.cell


def test_builds_what_the_hyperparameters_say():
    hypermodel = RNNHyperModel("binary", vocabulary_size=20)
    model = hypermodel.build(
        fixed(cell="gru", units=64, depth=3, dropout=0.2, learning_rate=0.002, clipnorm=0.7)
    )
    stack = stack_of(model)
    assert (stack.cell, stack.units, stack.depth, stack.dropout) == ("gru", 64, 3, 0.2)
    assert (stack.connection, stack.bidirectional) == ("residual", True)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.002)
    assert model.optimizer.clipnorm == 0.7
    (embedding,) = (part for part in model.layers if isinstance(part, keras.layers.Embedding))
    assert (embedding.input_dim, embedding.output_dim, embedding.mask_zero) == (20, 128, True)


def test_builds_what_the_arguments_fix():
    model = default(
        features=3,
        cells="gru",
        units=8,
        depths=2,
        dropouts=0.1,
        recurrent_dropouts=0.2,
        zoneouts=0.3,
        connection="highway",
        bidirectional=False,
        normalization="layer",
        optimizers="sgd",
        learning_rates=0.5,
        clips="global_clipnorm",
        clipnorms=2,
    )
    stack = stack_of(model)
    assert (stack.cell, stack.units, stack.depth) == ("gru", 8, 2)
    assert (stack.dropout, stack.recurrent_dropout, stack.zoneout) == (0.1, 0.2, 0.3)
    assert (stack.connection, stack.bidirectional) == ("highway", False)
    assert stack.normalization == "layer"
    optimizer = model.optimizer
    assert (type(optimizer), optimizer.momentum) == (keras.optimizers.SGD, 0.9)
    assert float(optimizer.learning_rate) == 0.5
    assert (optimizer.clipnorm, optimizer.global_clipnorm) == (None, 2.0)


def test_a_single_value_is_no_choice():
    hp = keras_tuner.HyperParameters()
    arguments = {"cells": "gru", "units": 8, "depths": 1, "dropouts": 0.1, "clips": None}
    RNNHyperModel(features=3, **arguments, learning_rates=0.1, batch_sizes=16).build(hp)
    assert hp.space == []


def test_asks_for_those_that_matter():
    hp = keras_tuner.HyperParameters()
    RNNHyperModel("binary", features=3, cells=("lstm", "gru"), units=(8, 16)).build(hp)
    space = {p.name: p for p in hp.space}
    asked = {"cell", "units", "depth", "dropout", "learning_rate", "clip", "clipnorm"}
    assert set(space) == asked
    assert list(space["cell"].values) == ["lstm", "gru"]
    assert list(space["units"].values) == [8, 16]
    assert space["clip"].values == ["clipnorm", "global_clipnorm", "none"]


def test_the_same_hyperparameters_give_the_same_model():
    """Though the first of the two counts parameters to find the units."""
    hypermodel = RNNHyperModel(features=3, cells="gru", depths=1, max_parameters=400)
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        models.append(hypermodel.build(keras_tuner.HyperParameters()))
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)


def test_trials_share_programs():
    """Which rates there are, and where weights start, is nothing that a program depends on."""

    def key(**choices):
        model = default(features=3, cells="gru", units=4, depths=1, bidirectional=False, **choices)
        return step_key(cell_of(model))

    alike = [
        {},
        {"dropouts": 0.3},
        {"recurrent_dropouts": 0.3},
        {"initializers": "chrono", "T_max": 9},
        {"normalization": "layer", "clips": None, "optimizers": "sgd", "warmup_steps": 5},
    ]
    assert len({key(**choices) for choices in alike}) == 1
    assert key(zoneouts=0.3) != key()


CLASSES = np.array([0, 1, 2, 0])
# Arguments, labels, the shape of what the model gives.
TASKS = {
    "binary": ({}, np.array([0, 1, 1, 0]), (4, 1)),
    "multiclass": ({"outputs": 3}, CLASSES, (4, 3)),
    "multilabel": ({"outputs": 3}, np.eye(3)[CLASSES], (4, 3)),
    "regression": ({"outputs": 2}, np.ones((4, 2)), (4, 2)),
    "tagging": ({"outputs": 3}, TOKENS % 3, (4, 6, 3)),
    "forecasting": ({"horizon": 5}, np.ones((4, 5)), (4, 5)),
    "quantiles": ({"horizon": 5, "quantiles": (0.1, 0.9)}, np.ones((4, 5)), (4, 5, 2)),
    "series": (
        {"horizon": 5, "outputs": 3, "quantiles": (0.1, 0.9)},
        np.ones((4, 5, 3)),
        (4, 5, 3, 2),
    ),
    "language": ({}, np.roll(TOKENS, -1, axis=1), (4, 6, 5)),
}


@functools.cache
def trained(name):
    """A model of each task, its losses in training, and what it gives."""
    arguments, labels, _ = TASKS[name]
    task = "forecasting" if name in ("quantiles", "series") else name
    hypermodel = RNNHyperModel(
        task, vocabulary_size=5, learning_rates=0.03, clips=None, **SMALL, **arguments
    )
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    history = hypermodel.fit(hp, model, TOKENS, labels, epochs=6, verbose=0).history
    return model, history, model.predict(TOKENS, verbose=0)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_trains(name):
    _, history, y = trained(name)
    assert history["loss"][-1] < history["loss"][0]
    assert y.shape == TASKS[name][2]
    if name in ("multiclass", "tagging"):
        np.testing.assert_allclose(np.sum(y, axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_every_model_saves(name, tmp_path):
    model, _, y = trained(name)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(TOKENS), y, rtol=1e-5, atol=1e-6)
    labels = TASKS[name][1]
    assert float(again.loss(labels, y)) == float(model.loss(labels, y))


def test_a_process_that_tunes_nothing_loads_the_model(tmp_path):
    model, _, _ = trained("quantiles")
    model.save(tmp_path / "model.keras")
    code = "import sys, keras, kerasrnn; keras.saving.load_model(sys.argv[1])"
    root = pathlib.Path(__file__).parents[1]
    command = [sys.executable, "-c", code, tmp_path / "model.keras"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def cross_entropy(labels, probabilities):
    return -np.log(np.take_along_axis(probabilities, labels[..., None], -1)[..., 0])


def by_hand(name, y, labels):
    """The loss and the metric, in NumPy."""
    there = TOKENS > 0
    if name in ("binary", "multilabel"):
        p = y[:, 0] if name == "binary" else y
        loss = -np.where(labels, np.log(p), np.log(1 - p)).mean()
        return loss, ((p > 0.5) == labels).mean()
    if name == "multiclass":
        return cross_entropy(labels, y).mean(), (y.argmax(-1) == labels).mean()
    if name == "tagging":
        return cross_entropy(labels, y)[there].mean(), (y.argmax(-1) == labels)[there].mean()
    if name == "language":
        p = np.exp(y) / np.exp(y).sum(-1, keepdims=True)
        return (cross_entropy(labels, p)[there & (labels > 0)].mean(),)
    if name in ("quantiles", "series"):
        above = labels[..., None] - y
        tau = np.array([0.1, 0.9])
        return (np.where(above >= 0, tau * above, (tau - 1) * above).mean(),)
    return ((labels - y) ** 2).mean(), np.abs(labels - y).mean()


@pytest.mark.parametrize("name", TASKS)
def test_losses_and_metrics_are_those_of_numpy(name):
    """Masked steps left out."""
    model, _, y = trained(name)
    labels = TASKS[name][1]
    expected = by_hand(name, y, labels)
    np.testing.assert_allclose(
        model.evaluate(TOKENS, labels, verbose=0), np.squeeze(expected), rtol=1e-4
    )


@pytest.mark.parametrize("name", ["binary", "multiclass", "tagging", "forecasting", "quantiles"])
def test_labels_may_have_a_last_axis_of_one(name):
    model, _, y = trained(name)
    labels = TASKS[name][1]
    losses = (float(model.loss(one, y)) for one in (labels, labels[..., None]))
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_weights_are_loaded_with_the_optimizers_state(tmp_path):
    """As by a tuner that goes on with a trial."""
    model, _, _ = trained("binary")
    model.save_weights(tmp_path / "trial.weights.h5")
    again = default("binary", vocabulary_size=5, clips=None, **SMALL)
    again.load_weights(tmp_path / "trial.weights.h5")
    for a, b in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        if a.name != "learning_rate":
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("connection", ["residual", "dense"])
def test_a_language_model_never_sees_the_next_token(connection):
    arguments = {"depths": 2, "connection": connection, "normalization": "layer"}
    assert is_causal(default("language", vocabulary_size=5, units=3, **arguments), TOKENS[2:3])


def test_the_padding_of_vectors_is_masked(rng):
    """Whatever stands for it."""
    x = rng.normal(size=(4, 6, 3))
    padding = TOKENS == 0
    labels = TOKENS % 3
    evaluated, predicted = [], []
    for value in (-1.0, 77.0):
        keras.utils.set_random_seed(0)
        model = default("tagging", features=3, outputs=3, mask_value=value, **SMALL)
        padded = np.where(padding[..., None], value, x)
        predicted.append(model.predict(padded, verbose=0))
        evaluated.append(model.evaluate(padded, labels, verbose=0))
    np.testing.assert_array_equal(*predicted)
    np.testing.assert_array_equal(*evaluated)
    loss = cross_entropy(labels, predicted[0])[~padding].mean()
    assert evaluated[0][0] == pytest.approx(loss, rel=1e-5)


def test_the_learning_rate_warms_up():
    rate = default(features=3, **SMALL, learning_rates=0.2, warmup_steps=5).optimizer._learning_rate
    expected = [0.2 * min(1, (step + 1) / 5) for step in range(9)]
    np.testing.assert_allclose([rate(step) for step in range(9)], expected, rtol=1e-6)
    for steps in (0, 1):
        model = default(features=3, **SMALL, learning_rates=0.2, warmup_steps=steps)
        assert float(model.optimizer.learning_rate) == pytest.approx(0.2)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd"])
def test_every_optimizer(name):
    optimizer = default(features=3, **SMALL, optimizers=name).optimizer
    assert type(optimizer).__name__.lower() == name


def test_the_batch_size_is_a_choice(rng, monkeypatch):
    hypermodel = RNNHyperModel(features=3, **SMALL, batch_sizes=(16, 4))
    hp = fixed(batch_size=4)
    model = hypermodel.build(hp)
    x, y = rng.normal(size=(8, 5, 3)), np.ones(8)
    hypermodel.fit(hp, model, x, y, verbose=0)
    assert int(model.optimizer.iterations) == 2
    with pytest.raises(FatalValueError, match=r"`batch_sizes`.*batch_size=8"):
        hypermodel.fit(hp, model, x, y, batch_size=8)
    with pytest.raises(FatalValueError, match=r"`batch_sizes`.*x of list"):
        hypermodel.fit(hp, model, [x], y)


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


def test_a_search_beside_gradient_clipping(tmp_path, rng, quiet_tuner):
    hypermodel = RNNHyperModel(features=3, **(SMALL | {"units": (2, 3)}), clips=None)
    tuner = keras_tuner.RandomSearch(hypermodel, "loss", max_trials=2, directory=tmp_path)
    x, y = rng.normal(size=(8, 5, 3)), np.ones(8)
    tuner.search(x, y, callbacks=[GradientClipping("global_norm", 1.0)], verbose=0)
    assert {trial.status for trial in tuner.oracle.trials.values()} == {"COMPLETED"}
    tuner.get_best_models()


def test_a_search_over_clips_has_no_place_for_another(tmp_path, rng, quiet_tuner):
    hypermodel = RNNHyperModel(features=3, **SMALL)
    tuner = keras_tuner.RandomSearch(hypermodel, "loss", max_trials=2, directory=tmp_path)
    x, y = rng.normal(size=(8, 5, 3)), np.ones(8)
    with pytest.raises(FatalValueError, match=r"`clips` must be None.*GradientClipping"):
        tuner.search(x, y, callbacks=[GradientClipping()], verbose=0)


def test_a_hypermodel_can_be_copied():
    hypermodel = RNNHyperModel(features=3, **SMALL, initializers=("default",))
    assert copy.deepcopy(hypermodel).cells == ("mgu",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "ranking", "features": 3}, "`task` must be 'binary',.*or 'language'.*'ranking'"),
        ({}, "Pass `vocabulary_size`.*or `features`.*None.*None"),
        ({"vocabulary_size": 9, "features": 3}, "vocabulary_size=9, features=3"),
        ({"task": "binary", "features": 3, "outputs": 2}, "`outputs` must be 1.*multilabel.*2"),
        ({"task": "multiclass", "features": 3}, "number of classes.*outputs=1"),
        ({"task": "multilabel", "features": 3}, "number of labels.*outputs=1"),
        ({"task": "tagging", "features": 3}, "number of classes for task='tagging'.*outputs=1"),
        ({"task": "regression", "features": 3, "outputs": 0}, "`outputs` must be a positive.*0"),
        ({"task": "forecasting", "features": 3}, "`horizon` must be a positive integer.*None"),
        (
            {"task": "forecasting", "features": 3, "horizon": 2, "quantiles": (0.9, 0.1)},
            r"`quantiles`.*\(0.9, 0.1\)",
        ),
        ({"features": 3, "horizon": 2}, "`horizon` is for task='forecasting'.*'binary'"),
        ({"features": 3, "quantiles": (0.5,)}, "`quantiles` is for task='forecasting'"),
        ({"task": "language", "features": 3}, "`vocabulary_size` must be.*'language'.*None"),
        ({"task": "language", "vocabulary_size": 3, "outputs": 3}, "`outputs` follows.*outputs=3"),
        (
            {"task": "language", "vocabulary_size": 3, "bidirectional": (False, True)},
            "`bidirectional` must be False for task='language'",
        ),
        ({"vocabulary_size": 0}, "`vocabulary_size` must be a positive integer.*0"),
        ({"vocabulary_size": 9, "mask_value": 0.0}, "`mask_value` is for sequences of vectors"),
        ({"features": 3, "mask_value": float("nan")}, "`mask_value` must be a finite.*nan"),
        ({"features": 3, "units": 0}, "`units` must be a positive integer.*0"),
        ({"features": 3, "units": ()}, r"`units` must be one value or several.*\(\)"),
        ({"features": 3, "depths": (1, 1)}, r"`depths` must be one value or several.*\(1, 1\)"),
        ({"features": 3, "dropouts": (0.0, 1.0)}, r"`dropouts` must lie in \[0, 1\).*1.0"),
        ({"features": 3, "zoneouts": -0.1}, r"`zoneouts` must lie in \[0, 1\).*-0.1"),
        ({"features": 3, "connection": "dens"}, "must be None, 'residual'.*'dens'"),
        ({"features": 3, "normalization": "batch"}, "must be None, 'layer' or 'cell'.*'batch'"),
        ({"features": 1, "normalization": (None, "layer")}, "must not hold 'layer' for a single"),
        ({"features": 3, "bidirectional": "yes"}, "`bidirectional` must be True or False.*'yes'"),
        ({"features": 3, "clips": "value"}, "must be None, 'clipnorm' or.*clips='value'"),
        ({"features": 3, "clipnorms": (1.0,)}, r"`clipnorms` must be a lower and.*\(1.0,\)"),
        ({"features": 3, "clipnorms": -1.0}, r"`clipnorms` must be a lower and.*-1.0"),
        ({"features": 3, "learning_rates": (1.0, 0.1)}, r"`learning_rates`.*\(1.0, 0.1\)"),
        ({"features": 3, "learning_rates": ("a", 0.1)}, r"`learning_rates`.*\('a', 0.1\)"),
        ({"features": 3, "optimizers": "adm"}, "`optimizers` must be 'adam', .*'adm'"),
        ({"features": 3, "warmup_steps": -1}, "`warmup_steps` must be a positive integer.*-1"),
        ({"features": 3, "batch_sizes": 0}, "`batch_sizes` must be a positive integer.*0"),
        ({"features": 3, "cells": ("gru", "grru")}, r"simple_rnn, lstm, gru.*'grru'"),
        ({"features": 3, "initializers": "chrono"}, "`T_max` is the longest memory.*T_max=None"),
        ({"features": 3, "T_max": 9}, "`T_max` is the longest memory.*T_max=9"),
        ({"features": 3, "initializers": "chrono", "T_max": 1}, "`T_max` must be at least 2.*1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        RNNHyperModel(**arguments)
