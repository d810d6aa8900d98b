import itertools

import keras_tuner
import pytest
from slow import slow_but

from kerasrnn.cells import CELLS
from kerasrnn.tuning import RNNHyperModel
from kerasrnn.tuning.size import largest_units


def hyperparameters(**values):
    hp = keras_tuner.HyperParameters()
    for name, value in values.items():
        hp.Fixed(name, value)
    return hp


def sizes(hypermodel, most, **choices):
    """The parameters of the model within `most`, and of the one with a unit more."""
    arguments = {"dropouts": 0.0, "clips": None} | hypermodel
    model = RNNHyperModel(**arguments, max_parameters=most).build(hyperparameters(**choices))
    stack = next(layer for layer in model.layers if layer.name.startswith("rnn_stack"))
    larger = RNNHyperModel(**arguments, units=stack.units + 1)
    return model.count_params(), larger.build(hyperparameters(**choices)).count_params()


@pytest.mark.parametrize("cell", CELLS)
def test_holds_as_many_units_as_fit(cell):
    hypermodel = {"task": "binary", "features": 5, "cells": cell, "depths": 2}
    fits, exceeds = sizes(hypermodel, 3000)
    assert fits <= 3000 < exceeds


@pytest.mark.parametrize("connection", [None, "residual", "highway", "dense"])
@pytest.mark.parametrize("bidirectional", slow_but([False], [False, True]))
@pytest.mark.parametrize("normalization", [None, "layer", "cell"])
def test_counts_what_is_beside_the_cells(connection, bidirectional, normalization):
    choices = {"connection": connection, "normalization": normalization, "depths": 2}
    hypermodel = {"features": 5, "cells": "gru", "bidirectional": bidirectional, **choices}
    fits, exceeds = sizes(hypermodel, 2500)
    assert fits <= 2500 < exceeds


@pytest.mark.parametrize(
    "task",
    [
        {"task": "language", "vocabulary_size": 30},
        {"task": "forecasting", "features": 2, "horizon": 4, "quantiles": (0.1, 0.9)},
    ],
)
def test_counts_what_the_task_adds(task):
    fits, exceeds = sizes({**task, "cells": "mgu"}, 4000, depth=1)
    assert fits <= 4000 < exceeds


@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_input_as_wide_as_the_layers_needs_no_projection(bidirectional):
    """So that a model whose layers are that wide may be smaller than the one before."""
    width = 2 if bidirectional else 1
    arguments = {"cells": "simple_rnn", "depths": 1, "bidirectional": bidirectional}
    features = 6 * width
    six = RNNHyperModel(features=features, units=6, **arguments).build(hyperparameters())
    hypermodel = RNNHyperModel(features=features, max_parameters=six.count_params(), **arguments)
    assert hypermodel.build(hyperparameters()).count_params() == six.count_params()


def test_the_largest_where_a_number_is_special():
    def count(units):
        return 10 + 3 * units + 2 * units**2 - (50 if units == special else 0)

    for smallest, special in itertools.product((1, 2), range(1, 9)):
        for most in range(count(smallest), 200):
            fit = [units for units in range(smallest, 20) if count(units) <= most]
            assert largest_units(count, most, smallest, special) == max(fit)


def test_depth_and_cell_change_the_units():
    hypermodel = RNNHyperModel(features=3, max_parameters=20_000)
    counts = {
        (cell, depth): hypermodel.build(hyperparameters(cell=cell, depth=depth)).count_params()
        for cell in ("lstm", "gru")
        for depth in (1, 3)
    }
    assert all(17_000 < count <= 20_000 for count in counts.values())


def test_where_one_unit_is_too_many():
    with pytest.raises(ValueError, match=r"must be at least 1.*cell='gru', depth=3"):
        RNNHyperModel(features=3, cells="gru", max_parameters=100)
    # Of a single unit the normalization of layers would leave nothing.
    layer = {"cells": "gru", "normalization": "layer", "bidirectional": False}
    with pytest.raises(ValueError, match=r"must be at least 1.*2 units has where cell='gru'"):
        RNNHyperModel(features=3, **layer, max_parameters=100)
    with pytest.raises(ValueError, match=r"one of the two.*units=8, max_parameters=100"):
        RNNHyperModel(features=3, units=8, max_parameters=100)
    with pytest.raises(ValueError, match="`max_parameters` must be a positive integer"):
        RNNHyperModel(features=3, max_parameters=0)
