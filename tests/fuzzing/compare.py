"""How two computations of the same numbers are compared."""

import contextlib

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from fuzzing.draw import is_half
from kerasrnn import recurrence

# Of the largest value, plus one.
TOLERANCE = {"float64": 1e-8, "float32": 5e-4, "float16": 6e-2, "bfloat16": 0.25}


class Skip(Exception):
    """The case has nothing to compare with."""


@contextlib.contextmanager
def skip_where_refused(rule):
    """Skips a case that a `ValueError` refuses whose message has this `rule`."""
    try:
        yield
    except ValueError as error:
        if rule in str(error):
            raise Skip from error
        raise


def set_precision(dtype):
    """Makes a dtype policy the default of what is built from then on."""
    keras.config.set_floatx("float64" if dtype == "float64" else "float32")
    keras.config.set_dtype_policy(dtype)


def trainable_values(layer):
    return [v.value for v in layer.trainable_variables]


def assert_close(what, actual, expected, dtype):
    """Raises an `AssertionError` that begins with `what` if two tensors differ.

    Raises:
        Skip: the expected values are too large to be compared, or no numbers.
    """
    actual, expected = (np.asarray(tf.cast(v, "float64")) for v in (actual, expected))
    if actual.shape != expected.shape:
        raise AssertionError(f"{what}: shape {actual.shape}, expected {expected.shape}")
    if not np.all(np.abs(expected) <= (1e4 if is_half(dtype) else 1e6)):
        raise Skip
    differences = np.abs(actual - expected)
    error = np.max(differences, initial=0.0) / (1 + np.max(np.abs(expected), initial=0.0))
    if error <= TOLERANCE[dtype.removeprefix("mixed_")]:
        return
    largest = 0 if np.isnan(actual).all() else np.nanargmax(differences)
    index = tuple(map(int, np.unravel_index(largest, actual.shape)))
    raise AssertionError(
        f"{what}: {actual[index]:.8g}, expected {expected[index]:.8g} "
        f"at {index} of {actual.shape}, error {error:.2g}"
    )


def assert_same(what, actual, expected, dtype):
    """`assert_close` for two lists of tensors."""
    if len(actual) != len(expected):
        raise AssertionError(f"{what}: {len(actual)} results, expected {len(expected)}")
    for i, (one, other) in enumerate(zip(actual, expected, strict=True)):
        assert_close(f"{what} result {i}", one, other, dtype)


def results(call, variables, arguments, mode="eager", unknown=False, gradients=True):
    """The outputs of a call, and the gradients of a random weighted sum of them.

    Args:
        call: A function of `arguments`.
        variables: What the gradients are taken by, besides the input and the initial states.
        arguments: "x" and, each a tensor or `None`, "mask" and "reset"; the list "states" or
            `None`.
        mode: "eager"; "plain", in a `tf.function`; "compiled", in one with the XLA programs.
        unknown: Whether the function is traced for any batch size and length.
        gradients: Whether gradients are taken.
    """
    arguments = {name: value for name, value in arguments.items() if value is not None}

    def step(*values):
        current = dict(zip(arguments, values, strict=True))
        sources = [current["x"], *current.get("states", [])]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            outputs = [tf.convert_to_tensor(y) for y in tree.flatten(call(**current))]
            loss = tf.add_n([_weighted_sum(i, y, outputs[0]) for i, y in enumerate(outputs)])
        if not gradients:
            return outputs, []
        sources = [*variables, *sources]
        return outputs, tape.gradient(loss, sources, unconnected_gradients="zero")

    values = list(arguments.values())
    if mode != "eager":
        signature = tf.nest.map_structure(_of_any_size, values) if unknown else None
        step = tf.function(step, input_signature=signature, autograph=False)
    with recurrence.compiled() if mode == "compiled" else contextlib.nullcontext():
        outputs, of_sources = step(*values)
    return [*outputs, *of_sources]


def _weighted_sum(i, output, first):
    dtype = tf.float64 if first.dtype == tf.float64 else tf.float32
    weights = tf.random.stateless_normal(tf.shape(output), (i, 3), dtype=dtype)
    return tf.reduce_sum(tf.cast(output, dtype) * weights)


def _of_any_size(value):
    """The signature of an argument of any batch size and, but for a state, any length."""
    is_state = len(value.shape) == 2 and value.dtype != tf.bool
    unknown = 1 if is_state else 2
    return tf.TensorSpec([None] * unknown + value.shape[unknown:], value.dtype)
