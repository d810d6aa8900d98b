"""All that is random in a cell: dropout of inputs, of the state or the candidate, and zoneout."""

from typing import Any, NamedTuple

import keras
from keras import ops


class Noise(NamedTuple):
    """All that is random in one pass over a sequence; `None` where nothing is.

    Attributes:
        inputs: The dropout masks for `project`: one, or one per gate.
        products: The dropout masks for `product`: one, or one per recurrent gate.
        candidate: The dropout mask of the candidate, (batch, units).
        zones: By the names of states zoneout's z, (batch, [time,] units): 1 where a unit keeps its
            old value.
    """

    inputs: tuple = (None,)
    products: tuple = (None,)
    candidate: Any = None
    zones: dict | None = None


def draw(cell, x, states):
    """The `Noise` of one pass of a cell, in training.

    Args:
        cell: A `Cell`.
        x: (batch, [time,] features).
        states: The initial states.
    """
    of_state = cell.recurrent_dropout if cell.recurrent_dropout_form == "state" else 0.0
    per_gate = cell.implementation == 1 or of_state > 0

    def masks(v, rate, gates):
        if not rate:
            return (None,)
        return tuple(
            keras.random.dropout(ops.ones_like(v), rate, seed=cell.seed_generator)
            for _ in range(len(gates) if per_gate else 1)
        )

    def zone(rate):
        shape = (*ops.shape(x)[:-1], cell.units)
        uniform = keras.random.uniform(shape, dtype="float32", seed=cell.seed_generator)
        return ops.cast(uniform < rate, cell.state_dtype)

    one_step = x[:, :1] if len(x.shape) == 3 else x
    inputs = masks(one_step, cell.dropout, cell.gates)
    products = masks(states[0], of_state, cell.recurrent_gates)
    candidate = None
    if cell.recurrent_dropout and not of_state:
        (candidate,) = masks(states[0], cell.recurrent_dropout, "g")
    zones = {state: zone(rate) for state, rate in cell.zone_rates.items()}
    return Noise(inputs, products, candidate, zones or None)
