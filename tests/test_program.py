"""The XLA programs against the loop they stand in for, and against Keras."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow import slow_but
from two_paths import (
    KINDS,
    MASK,
    RESET,
    Peephole,
    X,
    assert_same,
    build,
    gradients_of,
    outputs_and_gradients,
)

from kerasrnn import cells, layers


@pytest.fixture
def both_ways(take_path):
    """What the programs give, and what the plain loop does, in which eager calls run."""

    def run(layer, x, function=outputs_and_gradients, **call):
        take_path("programs")
        fast = tf.function(function)(layer, tf.constant(x), **call)
        take_path("loop")
        return fast, function(layer, tf.constant(x), **call)

    return run


@pytest.mark.parametrize("kind", slow_but(["lstm", "gru_reset_before"], KINDS))
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_sequences": True, "go_backwards": True},
        {"return_sequences": True, "zero_output_for_mask": True},
    ],
)
def test_same_as_the_loop(kind, mask, options, random_weights, both_ways):
    layer = build(kind, random_weights, return_state=True, dtype="float64", **options)
    assert_same(*both_ways(layer, X, mask=mask), tolerance=1e-12)


@pytest.mark.parametrize("implementation", [1, 2])
@pytest.mark.parametrize("kind", slow_but(["gru"], ["lstm", "gru", "gru_reset_before"]))
def test_dropout(kind, implementation, random_weights, monkeypatch, both_ways):
    layer = build(
        kind, random_weights, dropout=0.4, recurrent_dropout=0.4, implementation=implementation
    )
    noise = layer.cell.noise(tf.constant(X, "float32"), [tf.ones((3, 5))], training=True)
    monkeypatch.setattr(type(layer.cell), "noise", lambda *_: noise)
    assert any((m.numpy() == 0).any() for m in noise.products)
    assert_same(*both_ways(layer, X.astype("float32")))


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", slow_but(["lstm"], ["lstm", "gru_reset_before"]))
def test_mixed_precision(kind, dtype, random_weights, both_ways):
    layer = build(kind, random_weights, return_sequences=True, dtype=dtype)
    fast, slow = both_ways(layer, X.astype("float32"), mask=MASK)
    assert_same(fast, slow, tolerance=2e-2 if dtype == "mixed_float16" else 2e-1)
    assert all(w.dtype == "float32" for w in fast[1][-3:])


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_inside_an_xla_program_of_the_users(kind, random_weights, take_path):
    layer = build(kind, random_weights, return_sequences=True)
    x = tf.constant(X, "float32")
    take_path("programs")
    fast = tf.function(outputs_and_gradients, jit_compile=True)(layer, x)
    take_path("loop")
    assert_same(fast, outputs_and_gradients(layer, x))


def outputs_and_all_gradients(layer, x, mask, reset):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True, mask=mask, reset=reset)
        loss = sum(tf.reduce_sum(tf.sin(3.0 * part)) for part in tf.nest.flatten(y))
    gradients = tape.gradient(
        loss, [x, *layer.trainable_weights], unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return y, gradients


OPTIONS = {
    "plain": {},
    # Everything at once that a cell can be asked for.
    "all": {
        "initial_state": "learned",
        "normalization": "layer",
        "zoneout": 0.3,
        "recurrent_dropout": 0.4,
        "recurrent_dropout_form": "candidate",
        "dropout": 0.2,
    },
}


def with_what_it_can_have(name, options):
    """A layer with those of the options that its cell does not refuse."""
    accepted = {}
    for option, value in options.items():
        try:
            cells.get(name)(5, **accepted, **{option: value})
        except ValueError:
            continue
        accepted[option] = value
    return layers.RNN(
        name, units=5, return_sequences=True, return_state=True, dtype="float64", **accepted
    )


# Zones make an LRU's coefficients depend on the step, so linear recurrences come without, too.
CASES = [(name, "all") for name in cells.CELLS]
CASES += [(name, "plain") for name, kind in cells.CELLS.items() if kind(1).linear]


@pytest.mark.parametrize("compiled", slow_but([True], [False, True]))
@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_cell_with_all_it_can_have(
    name, options, compiled, random_weights, monkeypatch, take_path
):
    """Masks and episodes too, in the programs, in the scan, in the loop, and step by step; the
    programs as they are compiled, and as TensorFlow runs them without XLA, which takes less time to
    begin with."""
    layer = with_what_it_can_have(name, OPTIONS[options])
    layer.build((3, 6, 4))
    random_weights(layer)
    x = tf.constant(X)
    states = [tf.zeros((3, 5), "float64") for _ in layer.cell.states]
    noise = layer.cell.noise(x, states, training=True)
    monkeypatch.setattr(type(layer.cell), "noise", lambda *_: noise)
    layer.go_backwards = options == "all"
    take_path("programs")
    with contextlib.ExitStack() as stack:
        if not compiled:
            tf.config.run_functions_eagerly(True)
            stack.callback(tf.config.run_functions_eagerly, False)
        fast = tf.function(outputs_and_all_gradients)(layer, x, MASK, RESET)
    for path in ("scan", "loop") if layer.cell.linear else ("loop",):
        take_path(path)
        assert_same(fast, outputs_and_all_gradients(layer, x, MASK, RESET), tolerance=1e-12)
    layer.unroll = True
    assert_same(fast, outputs_and_all_gradients(layer, x, MASK, RESET), tolerance=1e-12)


def test_a_complex_state_shows_both_its_parts(random_weights, both_ways):
    """Without a mask, the last step alone: an LRU reads out of all that its programs return."""
    layer = layers.LRU(5, dtype="float64")
    layer.build((3, 6, 4))
    random_weights(layer)
    assert_same(*both_ways(layer, X), tolerance=1e-12)


class Multiplicative(cells.SimpleRNNCell):
    """Does not add W x + b and U h (Wu et al., 2016, equation 2, multiplies them)."""

    def step(self, x, states, product):
        return (keras.ops.tanh(x * product("h", states[0])),)


def test_a_cell_that_does_not_sum(random_weights, monkeypatch, both_ways):
    monkeypatch.setitem(cells.CELLS, "multiplicative", Multiplicative)
    layer = layers.RNN("multiplicative", units=5, dtype="float64", return_sequences=True)
    layer.build((3, 6, 4))
    random_weights(layer)
    assert_same(*both_ways(layer, X, mask=MASK), tolerance=1e-12)


@pytest.mark.parametrize("kind", ["gru", "lstm", "simple_rnn"])
def test_a_single_unit_with_a_flat_side(kind, random_weights, both_ways):
    cls, _ = KINDS[kind]
    layer = cls(1, activation="relu", return_sequences=True, dtype="float64")
    layer.build((3, 6, 4))
    random_weights(layer)
    assert_same(*both_ways(layer, X, gradients_of), tolerance=1e-12)


def test_a_weight_outside_of_products(random_weights, monkeypatch, both_ways):
    monkeypatch.setitem(cells.CELLS, "peephole", Peephole)
    layer = layers.RNN("peephole", units=5, dtype="float64", return_sequences=True)
    layer.build((3, 6, 4))
    random_weights(layer)
    fast, slow = both_ways(layer, X, mask=MASK)
    assert_same(fast, slow, tolerance=1e-12)
    assert np.abs(fast[1][-1]).max() > 1e-3


def test_a_gradient_of_what_was_not_to_need_one(random_weights, both_ways):
    """A user's `test_step` may take one."""
    layer = build("lstm", random_weights, return_sequences=True)

    def gradient(layer, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, mask=MASK, training=False)
            loss = tf.reduce_sum(tf.sin(3.0 * y))
        return y, tape.gradient(loss, [x, *layer.trainable_weights])

    assert_same(*both_ways(layer, X.astype("float32"), gradient))


@pytest.mark.parametrize(
    ("kind", "mask", "options"),
    [("lstm", None, {}), ("gru_reset_before", MASK, {"return_sequences": True})],
)
def test_a_gradient_of_gradients(kind, mask, options, random_weights, both_ways):
    layer = build(kind, random_weights, return_state=True, dtype="float64", **options)

    def second(layer, x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            _, gradients = gradients_of(layer, x, mask)
            penalty = sum(tf.reduce_sum(g**2) for g in gradients)
        return penalty, outer.gradient(penalty, [x, *layer.trainable_weights])

    assert_same(*both_ways(layer, X, second), tolerance=1e-12)
