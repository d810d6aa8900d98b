"""What is set in a model, read off it."""

import keras
import numpy as np
import pytest
from known_nets import FEATURES, TIME, X, Y, compiled, trained

from kerasrnn import layers
from kerasrnn.callbacks import DivergenceGuard, GradientClipping
from kerasrnn.diagnostics import health_report
from kerasrnn.diagnostics.health.settings import LayerSettings
from kerasrnn.initializers import Chrono


@pytest.mark.parametrize(
    ("cell", "settings"),
    [
        (
            layers.LSTM(2, bias_initializer=Chrono(50), normalization="layer").cell,
            ("LSTM", True, False, 50, 1.0, "tanh", True, False),
        ),
        (
            layers.SimpleRNN(2, recurrent_initializer=keras.initializers.Orthogonal(0.5)).cell,
            ("SimpleRNN", False, False, None, 0.5, "tanh", False, False),
        ),
        (
            keras.layers.GRU(2, "relu", recurrent_initializer="glorot_uniform").cell,
            ("GRU", True, False, None, None, "relu", False, True),
        ),
        (layers.LRU(2).cell, ("LRU", False, True, None, None, None, False, False)),
    ],
)
def test_of_a_cell(cell, settings):
    assert LayerSettings.of(cell) == settings


def test_of_a_model_and_its_training():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    stack = layers.RNNStack("lstm", units=FEATURES, depth=2, connection="residual")
    model = compiled(stack, optimizer=keras.optimizers.SGD(schedule))
    clipping = GradientClipping("norm", 0.5)
    monitor = trained(model, clipping, DivergenceGuard(), epochs=2)
    settings = health_report(model, X, 30 * Y, monitor).settings
    assert (settings.optimizer, settings.guard, settings.clip) == ("SGD", True, ("norm", 0.5))
    # Of the fourth and last update.
    assert settings.rate == pytest.approx(0.1 * 0.5**3)
    assert (settings.inputs, settings.targets) == (((TIME, FEATURES),), ((1,),))
    assert settings.scale_of_inputs == pytest.approx(np.sqrt(np.mean(X**2)))
    assert settings.scale_of_targets == pytest.approx(30 * np.sqrt(np.mean(Y**2)))
    assert (settings.of_cells("cell"), settings.loss) == (("LSTM", "LSTM"), "mse")
    assert settings.connected > 0
    alone = health_report(model, X, Y).settings
    assert (alone.guard, alone.clip) == (None, None)
    assert alone.rate == pytest.approx(0.1 * 0.5**4)
    assert set(alone.by_name) == set(settings.by_name)


def test_whether_a_layer_brings_the_inputs_to_a_scale():
    """Then no advice says to scale them, however large they are."""
    large = 1e3 * X
    for first, normalized in (
        (keras.layers.BatchNormalization(), True),
        (keras.layers.Rescaling(1e-3), True),
        (keras.layers.Masking(), False),
        (keras.layers.Dense(FEATURES, "tanh"), False),
        (keras.layers.Bidirectional(keras.layers.LSTM(2, return_sequences=True)), False),
    ):
        model = compiled(first, layers.GRU(3, name="rnn"))
        report = health_report(model, large, Y)
        assert report.settings.normalized == normalized
        advised = any("Scale the inputs" in step for v in report.verdicts for step in v.steps)
        assert not (advised and normalized)
    behind = keras.Sequential([keras.layers.Dense(2), keras.layers.LayerNormalization()])
    assert not health_report(compiled(behind, layers.GRU(3)), large, Y).settings.normalized
    inside = keras.Sequential([keras.layers.LayerNormalization(), keras.layers.Dense(2)])
    assert health_report(compiled(inside, layers.GRU(3)), large, Y).settings.normalized


def test_tokens_are_not_to_be_scaled():
    tokens = np.arange(80).reshape(8, 10) % 7
    embed = keras.layers.Embedding(7, 4, embeddings_initializer=keras.initializers.Constant(30.0))
    rnn = layers.SimpleRNN(3, recurrent_initializer="zeros", name="rnn")
    gates = layers.GRU(3, kernel_initializer=keras.initializers.RandomNormal(stddev=30, seed=0))
    for layer in (rnn, gates):
        model = keras.Sequential([keras.Input((10,)), embed, layer, keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        report = health_report(model, tokens, np.arange(8.0)[:, None])
        assert report.settings.scale_of_inputs is None
        assert report.status != "healthy"
        assert "Scale the inputs" not in report.text


def test_the_places_of_layers_whatever_their_names():
    def places(rnn):
        both = layers.Bidirectional(rnn, name="both")
        model = compiled(keras.layers.Dense(4), both, layers.GRU(2), keras.layers.Dense(2))
        names = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Dense)]
        places = health_report(model, X, Y).settings.places
        return [places[name] for name in names], places

    dense, first = places(layers.SimpleRNN(3, return_sequences=True, name="rnn"))
    again, second = places(layers.LSTM(3, return_sequences=True, name="lstm"))
    assert dense == again == [("Dense", 0), ("Dense", 1), ("Dense", 2)]
    forward = ("recurrent", 0)
    assert first["both/forward"] == first["both/forward_rnn"] == forward
    assert second["both/forward"] == second["both/forward_lstm"] == forward
    assert second["both/backward"] == ("recurrent", 1)
