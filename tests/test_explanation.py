"""The paths of all recurrent layers of a model, and why no other."""

import keras
import numpy as np
import pytest

from kerasrnn import cells, layers, recurrence
from kerasrnn.diagnostics import health_report
from kerasrnn.inside import recurrent_paths
from kerasrnn.recurrence import PATHS, explain

USES = "fit", "predict", "export"
STEPS = 40
X = np.random.default_rng(0).normal(size=(4, STEPS, 3)).astype("float32")
NO_XLA = "what may be exported has to run where there is no XLA"

# What the report on a model says that was not trained, and nothing else.
UNTRAINED = (
    "the model's optimizer has made no update: this is the net as it starts, or as it was compiled "
    "anew."
)


def paths(explanation):
    return {
        layer: tuple(choices[use].path for use in USES) for layer, choices in explanation.items()
    }


def many():
    """Recurrent layers in all places where there may be some, and what they are to take."""
    inner = keras.Sequential([layers.LSTM(16, return_sequences=True, name="deep")], name="inner")
    listed = [cells.GRUCell(2, name="small"), cells.LRUCell(2, name="linear")]
    parts = [
        layers.RNNStack("lstm", 16, 1, bidirectional=True, return_sequences=True, name="stack"),
        inner,
        layers.Residual(
            layers.MinGRU(30, return_sequences=True, name="linear"), project=True, name="connected"
        ),
        layers.RNN(listed, return_sequences=True, name="listed"),
        keras.layers.GRU(4, return_sequences=True, name="theirs"),
        layers.LSTM(16, vanishing_gradient_regularization=0.1, name="last"),
    ]
    directions = ["stack/bidirectional_1/forward", "stack/bidirectional_1/backward"]
    return keras.Sequential([keras.Input((STEPS, 3)), *parts]), {
        **dict.fromkeys(directions, ("programs", "programs", "loop")),
        "inner/deep": ("programs", "programs", "loop"),
        "connected/linear": ("programs", "programs", "scan"),
        "listed/small": ("loop", "loop", "loop"),
        "listed/linear": ("scan", "scan", "scan"),
        "theirs": ("keras", "keras", "keras"),
        "last": ("loop", "programs", "loop"),
    }


def test_every_recurrent_layer_of_a_model():
    model, expected = many()
    explanation = explain(model)
    assert list(explanation) == list(expected)
    assert paths(explanation) == expected


def test_it_is_what_happens(tmp_path, monkeypatch):
    """In a fit, a prediction and an export, as the paths themselves see it."""
    model, _ = many()
    explanation = explain(model, X)
    names = {}
    for path, layer, _ in recurrent_paths(model):
        stacked = getattr(layer.cell, "cells", None)
        names |= {id(cell): f"{path}/{cell.name}" for cell in stacked or ()}
        names.setdefault(id(layer.cell), path)
    seen = {}

    def watched(name, run):
        def watch(sequence_pass):
            seen.setdefault(names[id(sequence_pass.cell)], set()).add(name)
            return run(sequence_pass)

        return watch

    for name, path in PATHS.items():
        monkeypatch.setattr(path, "run", watched(name, path.run))
    model.compile("sgd", "mse")
    actions = {
        "fit": lambda: model.fit(X, np.zeros((4, 16)), verbose=0),
        "predict": lambda: model.predict(X, verbose=0),
        "export": lambda: model.export(tmp_path / "artifact", verbose=False),
    }
    for use, act in actions.items():
        seen.clear()
        act()
        chosen = {layer: {choices[use].path} for layer, choices in explanation.items()}
        assert seen == {layer: path for layer, path in chosen.items() if path != {"keras"}}


def reasons(layer, use="fit", x=X):
    explanation = explain(layer, x)
    assert len(explanation) == 1
    return explanation[layer.name][use].passed_over


class Scaled(cells.SimpleRNNCell):
    """A cell of the user's."""


def doubled(v):
    return 2 * v


@pytest.mark.parametrize(
    ("layer", "use", "path", "reason"),
    [
        (lambda: layers.LSTM(16), "fit", "cudnn", "no GPU is visible"),
        # What holds on a GPU, too, is said first.
        (lambda: layers.LSTM(16, activation="relu"), "fit", "cudnn", "activation=relu"),
        (
            lambda: layers.RNN("mgu", units=4),
            "fit",
            "cudnn",
            "MGUCell is neither kerasrnn.cells.LSTMCell nor GRUCell",
        ),
        (
            lambda: layers.LSTM(16, activation=doubled),
            "fit",
            "programs",
            "activation=doubled is not one of Keras's",
        ),
        (lambda: layers.LSTM(16, unroll=True), "predict", "programs", "unroll=True"),
        (
            lambda: layers.LSTM(12),
            "fit",
            "programs",
            "40 steps of 48 columns are too few for compiling to pay",
        ),
        (
            lambda: layers.SimpleRNN(60, vanishing_gradient_regularization=0.1),
            "fit",
            "programs",
            "vanishing_gradient_regularization, whose gradient is taken at every step",
        ),
        (
            lambda: layers.RNN(keras.layers.GRUCell(30)),
            "predict",
            "programs",
            "keras.layers.GRUCell is no kerasrnn.cells.Cell",
        ),
        (
            lambda: layers.RNN(Scaled(30)),
            "fit",
            "programs",
            f"{__name__}.Scaled is not registered in kerasrnn.cells.CELLS",
        ),
        (lambda: layers.GRU(20), "export", "programs", NO_XLA),
        (lambda: layers.GRU(20), "export", "scan", "GRUCell is no linear recurrence"),
        (
            lambda: layers.RNN("sru", units=4),
            "fit",
            "scan",
            "SRUCell is linear only with peephole=False",
        ),
        (lambda: layers.MinGRU(4, unroll=True), "fit", "scan", "unroll=True"),
    ],
)
def test_the_one_reason(layer, use, path, reason):
    assert reasons(layer(), use)[path] == reason


def test_a_mask_is_seen():
    """It closes cuDNN's path alone."""
    model = keras.Sequential([keras.layers.Masking(), layers.LSTM(16, name="lstm")])
    choice = explain(model, X)["lstm"]["fit"]
    assert choice.path == "programs"


def test_a_path_that_was_asked_for_and_cannot_be():
    layer = layers.LSTM(4, use_cudnn=True, name="lstm")
    layer.build((None, None, 3))
    explanation = explain(layer)
    for choice in explanation["lstm"].values():
        assert choice == recurrence.Choice(None, {"cudnn": "no GPU is visible"})
    assert "lstm  | error | error   | error" in repr(explanation)


def test_a_layer_called_twice():
    layer, x = layers.GRU(20, return_sequences=True, name="gru"), keras.Input((STEPS, 20))
    model = keras.Model(x, layer(layer(x)))
    assert list(explain(model)) == ["gru", "gru#2"]


def test_symbolic_inputs_and_their_lengths():
    """Of an unknown length, a sequence counts as one of 64 steps."""
    layer = layers.LSTM(8, name="lstm")
    assert explain(layer, keras.Input((None, 3)))["lstm"]["fit"].path == "programs"
    assert explain(layer, keras.Input((STEPS, 3)))["lstm"]["fit"].path == "loop"
    assert explain(layer)["lstm"]["fit"].path == "programs"


def test_a_mask_over_steps_of_an_unknown_number():
    words = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(20, 8, mask_zero=True)(words)
    x = layers.Bidirectional(layers.GRU(32, return_sequences=True), name="both")(x)
    x = layers.RNNStack("mgu", 32, 1, recurrent_dropout=0.1, name="stack")(x)
    explained = explain(keras.Model(words, x))
    assert [name.partition("/")[0] for name in explained] == ["both", "both", "stack"]
    assert [choices["fit"].path for choices in explained.values()] == ["programs"] * 3


def test_several_inputs():
    x, reset = keras.Input((STEPS, 3)), keras.Input((STEPS,), dtype="bool")
    model = keras.Model([x, reset], layers.LSTM(16, name="lstm")(x, reset=reset))
    for batch in (None, [X, np.zeros((4, STEPS), bool)]):
        assert explain(model, batch)["lstm"]["predict"].path == "programs"


def test_a_model_that_runs_eagerly():
    model = keras.Sequential([keras.Input((STEPS, 3)), layers.LSTM(16, name="lstm")])
    model.compile("sgd", "mse", run_eagerly=True)
    explanation = explain(model)["lstm"]
    assert explanation["fit"].passed_over["programs"] == "an eager call"
    assert explanation["export"].passed_over["programs"] == NO_XLA


def test_nothing_is_run():
    """States and what is random stay as they were."""
    layer = layers.LSTM(3, stateful=True, dropout=0.5, seed=1)
    layer.build(X.shape)
    layer(X)
    before = [np.array(v) for v in (*layer.states, *layer.variables)]
    explain(layer, X)
    for variable, value in zip((*layer.states, *layer.variables), before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_batch_for_a_layer_that_is_not_built_is_not_run_either():
    layer = layers.LSTM(3, stateful=True)
    explain(layer, X)
    for state in layer.states:
        np.testing.assert_array_equal(state, np.zeros((4, 3)))


def test_what_layers_add_to_the_loss_is_no_symbol():
    model = keras.Sequential(
        [keras.Input((STEPS, 3)), layers.LSTM(3, activity_regularizer="l2", name="lstm")]
    )
    model.compile("sgd", "mse")
    report = health_report(model, X, np.linspace(-0.9, 0.9, 12).reshape(4, 3))
    assert report.notes == [UNTRAINED]
    assert float(model.losses[0]) > 0
    explain(model)
    assert model.losses == []


def hidden(layer):
    """A function that keeps a layer where Keras does not look."""
    return keras.layers.Lambda(lambda v: layer(v))


@pytest.mark.parametrize("place", ["Lambda", "run"])
def test_a_cell_that_no_layer_is_known_to_have(place):
    """It goes by its name."""

    @keras.saving.register_keras_serializable()
    class Alone(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.cell = cells.GRUCell(4, name="mine")

        def build(self, shape):
            self.cell.build((shape[0], shape[2]))

        def call(self, v):
            states = self.cell.get_initial_state(keras.ops.shape(v)[0])
            return recurrence.run(self.cell, v, states)[0]

    layer = layers.RNN(cells.GRUCell(4, name="mine"))
    layer.build(X.shape)
    part = Alone() if place == "run" else hidden(layer)
    x = keras.Input((STEPS, 3))
    model = keras.Model(x, [part(x), layers.LSTM(3, name="known")(x)])
    assert set(explain(model)) == {"mine", "known"}


def test_a_layer_that_is_in_two_places():
    """It has the first, and a number for each further call."""
    shared, x = layers.GRU(20, return_sequences=True, name="shared"), keras.Input((STEPS, 20))
    inner = keras.Sequential([keras.Input((STEPS, 20)), shared], name="inner")
    explanation = explain(keras.Model(x, shared(inner(x))))
    assert list(explanation) == ["inner/shared", "inner/shared#2"]
    assert paths(explanation)["inner/shared#2"] == ("programs", "programs", "loop")


class Sometimes(keras.Model):
    """A layer for training alone, one that nothing calls, and one with a loop of its own."""

    def __init__(self):
        super().__init__()
        self.main = layers.GRU(20, name="main")
        self.aside = layers.GRU(20, name="aside")
        self.never = layers.GRU(20, name="never")
        self.never.build(X.shape)
        self.loop = OwnLoop(2, name="loop")

    def call(self, v, training=False):
        if training:
            self.aside(v)
        return self.main(v) + self.loop(v)[:, :1]


class OwnLoop(layers.GRU):
    def inner_loop(self, sequences, initial_state, mask, training=False):
        return sequences[:, 0, :2], sequences[:, :, :2], initial_state


OwnLoop.inner_loop.__module__ = "theirs"


def test_layers_that_are_called_in_some_uses_or_in_none():
    model = Sometimes()
    model(X, training=True)
    explanation = explain(model, X)
    assert paths(explanation) == {
        "main": ("programs", "programs", "loop"),
        "aside": ("programs", "not run", "not run"),
        "never": ("not run",) * 3,
        "loop": ("other",) * 3,
    }
    table = repr(explanation)
    assert "the model does not call it" in table
    assert "a layer with an `inner_loop` of its own" in table


class Untraceable(keras.Model):
    def __init__(self):
        super().__init__()
        self.lstm = layers.LSTM(1, name="lstm")

    def call(self, v):
        return self.lstm(v) * float(np.array(v).mean() > 0)


def test_a_model_that_cannot_be_traced():
    """It has a report, where it runs eagerly."""
    model = Untraceable()
    model.compile("sgd", "mse", run_eagerly=True)
    model(X)
    with pytest.raises(ValueError, match=r"cannot be traced on `x`.*one by one"):
        explain(model, X)
    assert health_report(model, X, np.linspace(-0.9, 0.9, 4)[:, None]).notes == [UNTRAINED]


def test_a_table_for_a_prompt():
    """Layers of which the same is to be said share it."""
    model = keras.Sequential([keras.Input((None, 8)), layers.RNNStack("lstm", 16, 2, name="stack")])
    assert repr(explain(model)).splitlines() == [
        "layer        | fit      | predict  | export | why",
        "-------------+----------+----------+--------+----",
        "stack/lstm_1 | programs | programs | loop   | 1",
        "stack/lstm_2 | programs | programs | loop   | 1",
        "",
        "1  cudnn: no GPU is visible",
        f"   programs (export): {NO_XLA}",
        "   scan (export): LSTMCell is no linear recurrence",
    ]


class Pair(keras.Model):
    """Was built for two inputs."""

    def __init__(self):
        super().__init__()
        self.lstm = layers.LSTM(1)
        self([X, X])

    def call(self, both):
        return self.lstm(both[0] + both[1])


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (Pair(), None, "`x` must show the shape of the input"),
        (np.ones(3), None, "`model_or_layer` must be a Keras model or layer.*array"),
        (layers.LSTM(3), None, "`x` must show the shape of the input"),
        (keras.Sequential([keras.Input((5, 3)), layers.LSTM(3)]), [[1.0]], "`x` must be an array"),
        (keras.layers.Dense(3), X, "`model_or_layer` must have a recurrent layer.*without any"),
    ],
)
def test_what_cannot_be_explained(model, x, message):
    with pytest.raises(ValueError, match=message):
        explain(model, x)
