import pickle

import keras
import pytest

from kerasrnn.updates.clip_in_force import MODES, ClipInForce
from kerasrnn.updates.clips import CLIPS


@pytest.mark.parametrize(
    ("argument", "mode"),
    [("clipnorm", "norm"), ("global_clipnorm", "global_norm"), ("clipvalue", "value")],
)
def test_that_of_an_optimizer(argument, mode):
    clip = ClipInForce.of(keras.optimizers.SGD(0.1, **{argument: 2}))
    assert clip == (argument, 2.0)
    assert (clip.mode, clip.of_optimizer, clip.rule) == (mode, True, CLIPS[mode])
    assert (str(clip), clip.numbers) == (f"{argument}=2", {argument: 2.0})
    assert pickle.loads(pickle.dumps(clip)).mode == mode


def test_an_optimizer_without():
    assert ClipInForce.of(keras.optimizers.SGD(0.1)) is None


@pytest.mark.parametrize("mode", CLIPS)
def test_that_of_a_callback(mode):
    clip = ClipInForce(mode, 0.25)
    assert clip == (mode, 0.25)
    assert (clip.mode, clip.of_optimizer, clip.rule) == (mode, False, CLIPS[mode])
    assert str(clip) == f'GradientClipping("{mode}", 0.25)'
    assert clip.numbers == {"mode": mode, "value": 0.25}


def test_the_names_of_arguments_and_of_modes_are_apart():
    assert not MODES.keys() & CLIPS.keys()
    assert set(MODES.values()) <= CLIPS.keys()
