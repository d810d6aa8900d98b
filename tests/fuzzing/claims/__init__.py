"""What is compared with what: one function per claim, which draws a case and raises if its two
sides differ."""

from collections.abc import Callable
from typing import NamedTuple

from fuzzing.claims import (
    cells,
    connections,
    derivatives,
    gradient_flow,
    keras_layers,
    saving,
    training,
)


class Claim(NamedTuple):
    """A claim, and its share of the time; the shares add up to 100."""

    check: Callable
    share: int


CLAIMS = {
    "a": Claim(keras_layers.same_as_keras, 14),
    "b": Claim(cells.same_in_every_way, 30),
    "c": Claim(cells.same_in_predict_and_fit, 8),
    "d": Claim(connections.same_as_the_equations_of_a_stack, 12),
    "e": Claim(connections.same_as_the_equations_of_a_connection, 8),
    "f": Claim(saving.same_after_saving, 6),
    "g": Claim(gradient_flow.same_as_gradients_of_taps, 8),
    "h": Claim(training.same_as_steps_by_hand, 5),
    "i": Claim(derivatives.same_derivatives, 9),
}
