"""What is advised, and that nothing is that is set already."""

import math
import re

import keras
import numpy as np
import pytest
from records import norms, recorded

from kerasrnn import layers
from kerasrnn.diagnostics.health import advice
from kerasrnn.diagnostics.health.measured import LayerHealth, Measured
from kerasrnn.diagnostics.health.settings import LayerSettings, Settings
from kerasrnn.diagnostics.reach import Reach
from kerasrnn.initializers import Chrono
from kerasrnn.updates.clip_in_force import ClipInForce

T = 100


def layer_health(layer):
    return LayerHealth("", T, -1.0, 0.7, {}, {}, None, None, None, LayerSettings.of(layer.cell))


def vanishing(layer, **settings):
    measured = Measured(settings=Settings(**settings))
    return advice.of_a_layer_that_vanishes(measured, layer_health(layer))


def in_words(steps):
    return " | ".join(steps)


@pytest.mark.parametrize(
    ("layer", "settings", "advised", "not_advised"),
    [
        (layers.SimpleRNN(2), {}, "LSTM", "orthogonal"),
        (layers.SimpleRNN(2, recurrent_initializer="glorot_uniform"), {}, "orthogonal", "LRU"),
        (layers.SimpleRNN(2), {"scale_of_inputs": 0.5}, "to a tenth", "variance"),
        (layers.SimpleRNN(2), {"scale_of_inputs": 0.05}, "LSTM", "cale the inputs"),
        (layers.SimpleRNN(2, "relu"), {"scale_of_inputs": 0.5}, "LSTM", "to a tenth"),
        (layers.SimpleRNN(2), {"scale_of_inputs": 50.0}, "variance of one", "Chrono("),
        (layers.LSTM(2), {}, "Chrono(T_max=100)", "LSTM"),
        (layers.LSTM(2, bias_initializer=Chrono(50)), {}, "Chrono(T_max=100)", "LSTM"),
        (layers.LSTM(2, bias_initializer=Chrono(100)), {}, "LRU", "Chrono"),
        (layers.LRU(2), {}, "Shorten", "`kerasrnn.layers.LRU`"),
    ],
)
def test_of_a_layer_that_vanishes(layer, settings, advised, not_advised):
    steps = vanishing(layer, **settings)
    assert advised in in_words(steps)
    # Only what is far from set comes before the cell.
    where = steps[0] if not_advised == "Chrono(" else in_words(steps)
    assert not_advised not in where


CLIP = ClipInForce("clipnorm", 1.0)


@pytest.mark.parametrize(
    ("layer", "clip", "advised", "not_advised"),
    [
        (layers.SimpleRNN(2, "relu"), None, ["GradientClipping", "LSTM", "tanh"], ["orthogonal"]),
        (layers.SimpleRNN(2), CLIP, ["LSTM"], ["GradientClipping", "orthogonal", "tanh"]),
        (layers.GRU(2), CLIP, ["smaller"], ["GradientClipping", "orthogonal", "LSTM", "tanh"]),
        (
            layers.GRU(2, recurrent_initializer="glorot_uniform"),
            None,
            ["GradientClipping", "orthogonal"],
            ["LSTM"],
        ),
    ],
)
def test_of_what_explodes(layer, clip, advised, not_advised):
    of_layer = LayerSettings.of(layer.cell)
    settings = Settings(clip=clip, layers={"rnn": of_layer})
    overflow = advice.of_an_overflow(settings)
    grows = advice.of_a_layer_that_explodes(of_layer, settings)
    for step in advised:
        assert step in in_words(overflow)
    for step in not_advised:
        assert step not in in_words(overflow)
        assert step not in in_words(grows)
    assert ("GradientClipping" in in_words(grows)) == (clip is None)


def test_of_saturated_gates():
    plain, normalized = (
        LayerSettings.of(layers.LSTM(2, normalization=n).cell) for n in (None, "layer")
    )
    for scale, of_layer, first in (
        (None, plain, "Scale the inputs to a mean of zero and a variance of one."),
        (50.0, plain, "Scale the inputs to a mean of zero and a variance of one: their"),
        (1.0, plain, 'Take normalization="layer"'),
        (1.0, normalized, "Start anew from smaller"),
    ):
        steps = advice.of_saturated_gates(of_layer, Settings(scale_of_inputs=scale))
        assert steps[0].startswith(first)
        assert ("normalization" in in_words(steps)) == (of_layer is plain)


def test_of_a_high_rate():
    def steps(non_finite=True, **settings):
        measured = Measured(settings=Settings(**settings), rates=(0.0, math.inf))
        return advice.of_a_high_rate(measured, 0.1, "why", non_finite)

    bare = steps(optimizer="SGD", rate=1.0)
    assert [re.sub(r"[ ,:].*", "", step) for step in bare] == ["Lower", "Clip", "Take", "Put"]
    assert "from 1 to 0.1: why." in bare[0]
    full = steps(optimizer="Adam", rate=1.0, clip=CLIP, guard=True)
    assert [step.split()[0] for step in full] == ["Lower"]
    assert "DivergenceGuard" not in in_words(steps(non_finite=False))
    assert "0.1 of what it is" in steps()[0]
    assert steps(scale_of_targets=1e3)[0].startswith("Divide the targets by 1e+03")
    assert steps(scale_of_inputs=1e3)[0].startswith("Scale the inputs")


def test_numbers_out_of_scale():
    def scaled(which, scale, mean=None):
        settings = Settings(**{f"scale_of_{which}": scale, f"mean_of_{which}": mean})
        return getattr(advice, f"scale_{which}")(settings)

    assert not scaled("targets", 9.9)
    assert scaled("targets", 500.0, 0.0).startswith("Divide the targets by 500, the root")
    # Numbers around another one than zero.
    told = scaled("targets", math.hypot(400, 2), 400.0)
    assert told.startswith("Subtract 400 from the targets, their mean: a loss")
    told = scaled("targets", math.hypot(400, 20), 400.0)
    assert told.startswith(
        "Subtract 400 from the targets, their mean, and divide them by 20, their"
    )
    assert not scaled("inputs", 9.9)
    assert not scaled("inputs", 0.01)
    assert "mean is 1e+03, the root of their mean square 1e+03" in scaled("inputs", 1e3, 1e3)
    assert "mean square 0.0001" in scaled("inputs", 1e-4)


def dead_silence(layer, **measured):
    layer.build((None, 3))
    reach = {"dense": Reach(layer, {"dense/kernel": 0.0}, 1.0, 0.0)}
    return advice.of_dead_silence(Measured(reach=reach, **measured), "dense")


def test_of_dead_silence():
    """A learning rate is named where it may have been the cause, a bias where there is one."""
    alive, born = norms(), norms() * [1, 0]
    for bias, measured, first in (
        (True, {"record": recorded(alive)}, ["Lower", "Take"]),
        (True, {"record": recorded(born)}, ["Start", "Take"]),
        (False, {"record": recorded(alive)}, ["Start", "Take", "Lower"]),
        (False, {"record": recorded(born)}, ["Start", "Take"]),
        (True, {"updates": 1}, ["Lower", "Take"]),
        (True, {"updates": 0}, ["Start", "Take"]),
        (True, {"samples": 1}, ["Report", "Lower", "Take"]),
    ):
        steps = dead_silence(keras.layers.Dense(2, use_bias=bias), **measured)
        assert [step.split()[0] for step in steps] == first
        assert ("biases" in in_words(steps)) == bias


def test_of_a_deep_stack():
    """As advised, it fits inputs of any width."""
    many = {str(n): layer_health(layers.LSTM(2)) for n in range(5)}
    step = advice.connect(Measured(layers=many))
    options = re.search(r"RNNStack\((.*)\)`", step)[1]
    stack = eval(f"layers.RNNStack(units=4, depth=2, {options})", {"layers": layers})
    assert stack(np.ones((2, 5, 3), "float32")).shape == (2, 4)
    assert "project=True" in in_words(advice.of_a_cut_way(Settings()))


def test_every_setting_that_is_named_is_one():
    names = set(Settings().by_name)
    measured = Measured(record=recorded(norms()), settings=Settings(rate=0.1, optimizer="SGD"))
    every = [
        *vanishing(layers.SimpleRNN(2, recurrent_initializer="zeros"), scale_of_inputs=50.0),
        *vanishing(layers.LSTM(2)),
        *advice.of_an_overflow(Settings()),
        *advice.of_a_high_rate(measured, 0.1, "", True),
        *advice.of_weights_blown_up(measured),
        *advice.of_a_cut_way(Settings()),
        *dead_silence(keras.layers.Dense(2), record=measured.record),
        *advice.of_saturated_gates(LayerSettings.of(layers.LSTM(2).cell), Settings()),
        advice.clip_by_norms(measured.record, Settings()),
        advice.raise_rate(measured, 2, ""),
    ]
    assert {step.setting for step in every} - {None} <= names
    assert len({step.setting for step in every}) > 7
