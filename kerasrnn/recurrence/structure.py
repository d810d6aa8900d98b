"""What the step of a cell does with its products: what the XLA programs have to know of it."""

from typing import NamedTuple

import keras
import tensorflow as tf


class StepStructure(NamedTuple):
    """The part of a step that the backward loop rests on.

    A step is Python code with any equations in it, and a cell's author states them once. The
    backward loop of `kerasrnn.recurrence.program` puts kept values in the place of the products and
    takes all weight gradients after the loop, so it has to know which product multiplies which
    state, which weights a step uses outside of products, and whether the projected input could be
    left out because it only ever occurs in a sum with a product. A declaration of all that, beside
    the step, could disagree with it, and then gradients would be wrong without an error. So it is
    not declared but observed: one step is taken on random numbers, with a `product` that takes
    notes, and the graph of that step is asked for its gradients.

    Attributes:
        calls: For each `product` of a step the gates it names and the number of the state it
            multiplies, or `None` where it multiplies something else.
        used: Which of the cell's weights a step uses.
        inner: Which of these it uses outside of products.
        summed: Whether a step sees each gate's projected input only in a sum with its product, so
            that the sum stands for both.
    """

    calls: list
    used: list
    inner: list
    summed: bool


def observed(cell):
    """The `StepStructure` of a built cell.

    Args:
        cell: A `Cell` in float64, so that sums that are equal differ by less than 1e-9.
    """
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        draw = tf.random.stateless_normal
        weights = [draw(w.shape, (0, i), dtype=w.dtype) for i, w in enumerate(cell.weights)]
        # As many rows as show each side of an activation that is flat on one.
        states = [
            draw((64, cell.units), (1, i), dtype="float64") for i, _ in enumerate(cell.states)
        ]
        x = draw((64, len(cell.gates) * cell.units), (2, 0), dtype="float64")
        calls, products = [], []

        def product(gates, v):
            calls.append((gates, position(v, states)))
            products.append(cell.product(gates, v))
            return tf.stop_gradient(products[-1])

        def sum_for_both(gates, v):
            return cell.product(gates, v) + x[:, cell.columns(gates)]

        mapping = list(zip(cell.weights, weights, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            new_states = cell.advance(x, states, product)
            of_step = tf.gradients(new_states, weights)
            of_products = tf.gradients(products, weights) if products else of_step
            one_product_per_gate = sorted(g for gates, _ in calls for g in gates) == sorted(
                cell.gates
            )
            summed = False
            if one_product_per_gate:
                again = cell.advance(tf.zeros_like(x), states, sum_for_both)
                differences = [
                    tf.reduce_max(tf.abs(a - b)) for a, b in zip(again, new_states, strict=True)
                ]
                summed = max(session.run(differences)) < 1e-9

    gradients = list(zip(of_step, of_products, strict=True))
    used = [i for i, pair in enumerate(gradients) if pair != (None, None)]
    inner = [k for k, i in enumerate(used) if of_step[i] is not None]
    return StepStructure(calls, used, inner, summed)


def position(v, states):
    """Which of the states `v` is; comparing tensors by value would run them."""
    return next((i for i, state in enumerate(states) if state is v), None)


def step_key(cell):
    """What cells have in common whose steps compute the same from the same weights: their class,
    their precision and all arguments but those that are declared to lie `outside_step`."""
    arguments = {k: v for k, v in cell.get_config().items() if k not in cell.outside_step}
    return type(cell), cell.compute_dtype, repr(arguments)


def pattern(cell, features=1, **changes):
    """A cell that takes the same step, built for so many features, with weights of no account."""
    config = cell.get_config() | changes
    for name in config:
        # Whether a pattern is there already must not show in what a user draws at random; and a
        # class of the user's may be known by its name in the scope of the caller's thread alone.
        option = getattr(cell, name, None)
        if isinstance(option, keras.initializers.Initializer):
            config[name] = "zeros"
        elif isinstance(option, keras.regularizers.Regularizer | keras.constraints.Constraint):
            config[name] = None
    if "seed" in cell.outside_step:
        config["seed"] = 0
    made = type(cell).from_config(config)
    made.build((None, features))
    return made
