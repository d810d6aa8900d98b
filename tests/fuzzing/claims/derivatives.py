"""Derivatives of derivatives, and calls inside what TensorFlow maps and recomputes."""

import contextlib

import keras
import tensorflow as tf

from fuzzing import random_layers
from fuzzing.compare import Skip, assert_same, trainable_values
from fuzzing.reference import cell_by_steps
from kerasrnn import layers, recurrence


def same_derivatives(draw):
    """A layer around a cell of this package, and the cell called step by step: second derivatives,
    Jacobians by weights and input, with pfor or a loop, a call in `tf.vectorized_map`, and the
    gradients of one in `tf.recompute_grad`, in an eager call, in a graph and compiled."""
    batch, time, features = (
        draw.choice("B", 1, 2, 3),
        draw.choice("T", 1, 2, 4),
        draw.choice("F", 1, 2),
    )
    dtype = draw.choice("dtype", "float64", "float64", "float32")
    cell = random_layers.cell(draw, dtype)
    cell.build((batch, features))
    draw.perturb(cell)
    flags = draw.flags("return_sequences", "go_backwards")
    mask = draw.mask(batch, time) if draw.maybe(0.4) else None
    x = draw.normal(batch, time, features, dtype=dtype)
    what = draw.choice(
        "what",
        *("second", "second", "jacobian", "jacobian", "batch_jacobian"),
        *("vectorized_map", "recompute_grad"),
    )
    pfor = draw.choice("pfor", True, True, False)
    mode = draw.choice("mode", "eager", "plain", "compiled", "compiled")
    variables = trainable_values(cell)

    def by_steps(x, mask=mask):
        outputs, _ = cell_by_steps(cell, x, None, mask, None, flags["go_backwards"])
        return tf.stack(outputs, 1) if flags["return_sequences"] else outputs[-1]

    def derivatives_of(layer):
        def call(x, mask=mask):
            return layer(x, mask=mask)

        def step(x):
            called = tf.recompute_grad(call) if what == "recompute_grad" else call
            return _derivatives(what, called, x, variables, pfor)

        if mode == "eager":
            return step(x)
        with recurrence.compiled() if mode == "compiled" else contextlib.nullcontext():
            return tf.function(step, autograph=False)(x)

    try:
        expected = _derivatives(what, by_steps, x, variables, pfor=False)
    except Exception as error:
        # TensorFlow knows no such derivative.
        raise Skip from error
    try:
        actual = derivatives_of(layers.RNN(cell, dtype=dtype, **flags))
        assert_same(f"{what} {mode}", actual, expected, dtype)
    except Exception:
        # Where Keras's loop fails, too, its error is the one shown: it names Keras's layer.
        derivatives_of(keras.layers.RNN(cell, dtype=dtype, **flags))
        raise


def _derivatives(what, call, x, variables, pfor):
    """What is compared, of the function `call` at x."""
    if what == "vectorized_map":
        return [_mapped(call, x, pfor)]
    sources = [x, *variables]
    with tf.GradientTape(persistent=True) as outer:
        outer.watch(x)
        with tf.GradientTape(persistent=True) as inner:
            inner.watch(x)
            y = call(x)
            loss = tf.reduce_sum(tf.sin(y))
        if what == "second":
            first = inner.gradient(loss, sources, unconnected_gradients="zero")
            again = tf.add_n([tf.reduce_sum(tf.cos(3 * g)) for g in first])
    if what == "second":
        return first + outer.gradient(again, sources, unconnected_gradients="zero")
    if what == "recompute_grad":
        return inner.gradient(loss, sources, unconnected_gradients="zero")
    options = {"experimental_use_pfor": pfor}
    if what == "jacobian":
        return inner.jacobian(y, sources, unconnected_gradients="zero", **options)
    return [inner.batch_jacobian(y, x, **options)]


def _mapped(call, x, pfor):
    """The call for each row by itself, without a mask."""

    def of_row(row):
        return call(row[None], mask=None)[0]

    return tf.vectorized_map(of_row, x) if pfor else tf.map_fn(of_row, x)
