import itertools

import keras_tuner
import pytest

from kerasrnn import layers
from kerasrnn.cells import CELLS
from kerasrnn.initializers import Chrono, ForgetBias
from kerasrnn.tuning import RNNHyperModel
from kerasrnn.tuning.space import OfCell, rate

# The cells that an option is for, by their equations.
NO_PRODUCT = {"indrnn", "sru", "qrnn", "mingru", "minlstm", "lru", "rg_lru"}
NO_GATE_FOR_MEMORY = {"simple_rnn", "indrnn", "nas", "lru"}
ALWAYS_NORMALIZED = {"lstm_layer_norm", "gru_layer_norm"}


def active_for(hyperparameter):
    """The values of its parent for which a hyperparameter is active."""
    (condition,) = hyperparameter.conditions
    return condition.name, set(condition.values)


@pytest.fixture
def build():
    def build(**arguments):
        hypermodel = RNNHyperModel(features=3, units=2, depths=1, bidirectional=False, **arguments)
        return hypermodel.build(keras_tuner.HyperParameters())

    return build


def cell_of(model):
    """Of its first recurrent layer."""
    layer = next(layer for layer in model.layers if isinstance(layer, layers.RNNStack)).layers[0]
    while not hasattr(layer, "cell"):
        layer = layer.layer
    return layer.cell


def test_every_cell_chooses_among_what_it_can_have():
    """No two hyperparameters have one name, and each is for the cells that have its values."""
    arguments = {
        "cells": "all",
        "connection": "residual",
        "normalization": (None, "cell"),
        "recurrent_dropouts": (0.0, 0.1),
        "zoneouts": (0.0, 0.1),
        "initializers": ("default", "chrono", "forget_bias", "identity"),
        "T_max": 9,
        "clips": None,
    }
    hypermodel = RNNHyperModel(features=3, units=2, depths=1, bidirectional=False, **arguments)
    hp = keras_tuner.HyperParameters()
    hypermodel.build(hp)
    space = {p.name: p for p in hp.space}
    assert len(space) == len(hp.space)
    products = set(CELLS) - NO_PRODUCT
    assert active_for(space["normalization"]) == ("cell", products - ALWAYS_NORMALIZED)
    assert active_for(space["recurrent_dropout"]) == ("cell", products)
    assert space["zoneout"].conditions == []
    assert active_for(space["initializer"]) == ("cell", set(CELLS) - NO_GATE_FOR_MEMORY)
    assert space["initializer"].values == ["default", "chrono", "forget_bias"]
    assert active_for(space["initializer_simple_rnn"]) == ("cell", {"simple_rnn"})
    assert space["initializer_simple_rnn"].values == ["default", "identity"]


def test_a_threshold_is_for_a_clip():
    def space(clips):
        hp = keras_tuner.HyperParameters()
        RNNHyperModel(features=3, cells="mgu", units=2, depths=1, clips=clips).build(hp)
        return {p.name: p for p in hp.space}

    assert active_for(space((None, "clipnorm"))["clipnorm"]) == ("clip", {"clipnorm"})
    assert space(("clipnorm", "global_clipnorm"))["clipnorm"].conditions == []
    assert {"clip", "clipnorm"} & space("global_clipnorm").keys() == {"clipnorm"}
    assert not {"clip", "clipnorm"} & space(None).keys()


def test_the_threshold_reaches_the_optimizer():
    def clip_of(**hyperparameters):
        hp = keras_tuner.HyperParameters()
        for name, value in hyperparameters.items():
            hp.Fixed(name, value)
        hypermodel = RNNHyperModel(features=3, cells="mgu", units=2, depths=1)
        optimizer = hypermodel.build(hp).optimizer
        return optimizer.clipnorm, optimizer.global_clipnorm

    assert clip_of(clip="clipnorm", clipnorm=0.5) == (0.5, None)
    assert clip_of(clip="global_clipnorm", clipnorm=0.5) == (None, 0.5)
    assert clip_of(clip="none") == (None, None)


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_builds_with_all_that_it_can_have(cell, build):
    arguments = {"normalization": "layer" if cell in NO_PRODUCT else "cell", "zoneouts": 0.1}
    if cell not in NO_PRODUCT:
        arguments["recurrent_dropouts"] = 0.1
    if cell in ALWAYS_NORMALIZED:
        arguments["normalization"] = None
    if cell not in NO_GATE_FOR_MEMORY:
        arguments |= {"initializers": "chrono", "T_max": 9}
    made = cell_of(build(cells=cell, connection=None, **arguments))
    assert isinstance(made, CELLS[cell])
    assert made.zoneout == 0.1


def test_where_the_weights_start(build):
    gru = cell_of(build(cells="gru", connection=None, initializers="forget_bias"))
    assert isinstance(gru.bias_initializer, ForgetBias)
    assert gru.bias.numpy().tolist()[0] == [2, 2, 0, 0, 0, 0]
    lstm = cell_of(build(cells="lstm", connection=None, initializers="chrono", T_max=5))
    assert isinstance(lstm.bias_initializer, Chrono)
    irnn = cell_of(build(cells="simple_rnn", connection=None, initializers="identity"))
    assert irnn.recurrent_kernel.numpy().tolist() == [[1, 0], [0, 1]]
    assert irnn.activation.__name__ == "relu"


def test_normalization_of_cells_and_of_layers(build):
    inside = build(cells="gru", connection=None, normalization="cell")
    assert cell_of(inside).normalization == "layer"
    model = build(cells="gru", connection=None, normalization="layer")
    (stack,) = (layer for layer in model.layers if isinstance(layer, layers.RNNStack))
    assert stack.normalization == "layer"
    assert cell_of(model).normalization is None


@pytest.mark.parametrize("tuner", [keras_tuner.GridSearch, keras_tuner.RandomSearch])
def test_tuners_walk_the_conditions(tuner, tmp_path, quiet_tuner):
    """Without training; a grid has each combination once."""
    hypermodel = RNNHyperModel(
        features=3,
        cells=("simple_rnn", "gru", "mingru"),
        units=2,
        depths=1,
        dropouts=0.0,
        bidirectional=False,
        initializers=("default", "identity", "forget_bias"),
        recurrent_dropouts=(0.0, 0.1),
        learning_rates=0.1,
        clips=None,
    )
    search = tuner(hypermodel, keras_tuner.Objective("loss", "min"), 20, directory=tmp_path)
    oracle = search.oracle
    seen = []
    while True:
        trial = oracle.create_trial("tuner0")
        if trial.status == "STOPPED":
            break
        hypermodel.build(trial.hyperparameters)
        oracle.update_trial(trial.trial_id, {"loss": 1.0})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        seen.append(tuple(sorted(trial.hyperparameters.values.items())))
    rates = [("recurrent_dropout", 0.0), ("recurrent_dropout", 0.1)]
    possible = [
        (("cell", "simple_rnn"), ("initializer_simple_rnn", i), r)
        for i, r in itertools.product(("default", "identity"), rates)
    ]
    possible += [
        (("cell", "gru"), ("initializer", i), r)
        for i, r in itertools.product(("default", "forget_bias"), rates)
    ]
    possible += [(("cell", "mingru"), ("initializer", i)) for i in ("default", "forget_bias")]
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(possible)
    if tuner is keras_tuner.GridSearch:
        assert len(seen) == len(possible)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalization": "cell"}, "`normalization` must hold.*for mingru.*normalization="),
        ({"recurrent_dropouts": (0.1, 0.2)}, "`recurrent_dropouts` must hold.*for mingru"),
        ({"initializers": "identity"}, "`initializers` must hold.*for gru"),
    ],
)
def test_a_cell_that_can_have_none_of_the_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        RNNHyperModel(features=3, cells=("gru", "mingru"), **arguments)


def test_a_cell_that_is_none_of_the_choices():
    option = OfCell("zoneout", "zoneouts", (0.0, 0.1), ("gru", "lstm"), rate("zoneout"))
    with pytest.raises(KeyError):
        option.choose(keras_tuner.HyperParameters(), "mgu")
