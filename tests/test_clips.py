"""The rules of clipping on single gradients, against the papers' equations in NumPy; in `fit` they
are tested in test_gradient_clipping.py."""

import numpy as np
import pytest
import tensorflow as tf
from clips_by_hand import BY_HAND, AutoClip, ZClip

from kerasrnn.updates import clips


def test_algorithm_1_to_the_letter():
    """At the threshold too; below it g is not touched by a bit."""
    clip = clips.CLIPS["global_norm"](5.0)
    for scale in (0.5, 1.0, 2.0, 1e30):
        g = np.float32([3.0, 4.0]) * np.float32(scale)
        (clipped,) = clip([None], [tf.constant(g)])
        if scale <= 1:
            np.testing.assert_array_equal(clipped, g)
        else:
            np.testing.assert_allclose(clipped, [3.0, 4.0], rtol=1e-6)
    (clipped,) = clip([None], [tf.zeros(2)])
    np.testing.assert_array_equal(clipped, [0.0, 0.0])


@pytest.mark.parametrize(("mode", "by_hand"), [("percentile", AutoClip), ("zscore", ZClip)])
def test_a_long_history(mode, by_hand, monkeypatch):
    """Over the papers' warm-up, past the window, and with an Inf and a NaN among the norms."""
    monkeypatch.setattr(clips, "_WINDOW", 50)
    value = {"percentile": 30.0, "zscore": 1.0}[mode]
    clip, paper = clips.CLIPS[mode](value), by_hand(value)
    step = tf.function(lambda g: clip([None], [g])[0], jit_compile=True)
    norms = np.random.default_rng(0).gamma(2.0, size=120)
    fired = 0
    for i, norm in enumerate(norms):
        if i in (0, 10, 60):
            for bad in (np.inf, np.nan):
                np.testing.assert_array_equal(step(tf.constant([bad, 1.0])), [bad, 1.0])
        g = np.array([0.6, 0.8]) * norm
        (wanted,) = paper(None, [g])
        np.testing.assert_allclose(step(tf.constant(g, "float32")), wanted, rtol=1e-4)
        fired += np.linalg.norm(wanted) < norm
        if mode == "percentile":
            paper.norms = paper.norms[-49:]
    assert 5 < fired < 110


@pytest.mark.parametrize("mode", BY_HAND)
def test_an_inf_and_a_nan_pass_as_they_are(mode):
    clip = clips.CLIPS[mode](0.1)
    for bad in (np.inf, -np.inf, np.nan):
        g = np.float32([[bad], [3.0], [-2.0]])
        rows = tf.IndexedSlices(tf.constant(g), tf.constant([2, 0, 1]), tf.constant([4, 1]))
        variables = [tf.Variable(tf.ones((n, 1))) for n in (3, 4)]
        dense, sparse = clip(variables, [tf.constant(g), rows])
        np.testing.assert_array_equal(dense, g)
        np.testing.assert_array_equal(tf.convert_to_tensor(sparse)[:3], g[[1, 2, 0]])


def test_every_rule_says_its_equation_default_and_limits():
    described = clips.described()
    for mode, rule in clips.CLIPS.items():
        least, most = rule.limits
        assert least <= rule.default <= most
        assert f'"{mode}" (default: {rule.default:g})' in described
        assert "Source: " in rule.__doc__
        for line in rule.__doc__.splitlines():
            assert line.strip() in described
        assert described.count(rule.__doc__.splitlines()[0]) == 1
