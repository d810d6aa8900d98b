import traceback

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrnn.tuning.reasons import reason_of


def fails(act):
    try:
        act()
    except Exception:
        return traceback.format_exc()
    raise AssertionError


def of_a_node():
    @tf.function
    def gather():
        return tf.gather(tf.zeros((4, 2)), tf.constant([7]))

    gather()


def of_a_layer():
    keras.layers.GRU(2)(np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (None, "no reason was recorded"),
        ("loss was nan after epoch 1", "loss was nan after epoch 1"),
        ("EXPLODING: after 20 updates: it grows", "EXPLODING: after 20 updates: it grows"),
        (fails(lambda: int("x")), "ValueError: invalid literal for int() with base 10: 'x'"),
    ],
)
def test_one_line(message, reason):
    assert reason_of(message) == reason


@pytest.mark.parametrize(("act", "says"), [(of_a_node, "7 is not in"), (of_a_layer, "ndim=3")])
def test_of_several_lines_those_that_say_why(act, says):
    reason = reason_of(fails(act))
    assert "Error: " in reason
    assert says in reason
    assert "[[" not in reason
    assert "kwargs" not in reason


def test_a_long_one_is_cut():
    assert len(reason_of("word " * 999)) < 400
