"""The options of cells around a step: what each cell refuses, zoneout, and layer normalization.

Dropout and the random part of zoneout are drawn in `kerasrnn.cells.noise`.
"""

import keras
from keras import ops

from kerasrnn.arguments import fraction, resolved
from kerasrnn.cells.configured import parameters
from kerasrnn.initializers import GateBias

# Of layer normalization's variance, as in the code of Ba et al. (2016).
_EPSILON = 1e-5


def check(cell):
    """Raises a `ValueError` for an option that a cell, as it is, cannot have."""
    name = type(cell).__name__
    if cell.normalization and not cell.recurrent_gates:
        raise ValueError(
            f"`normalization` needs a product with the state, which {name} does not have; "
            "its input can be normalized by a layer before it. "
            f"Received: normalization={cell.normalization!r}"
        )
    _check_initializers(cell, name)
    if cell.vanishing_gradient_regularization and cell.compute_dtype == "float16":
        raise ValueError(
            "`vanishing_gradient_regularization` cannot go with float16, whose range the scale "
            "of the loss may leave; take bfloat16, or float32 for this layer. Received: "
            f"vanishing_gradient_regularization={cell.vanishing_gradient_regularization}"
        )
    if cell.recurrent_dropout:
        _check_recurrent_dropout(cell, name)


def _check_initializers(cell, name):
    for option in cell._argument_names:
        value = getattr(cell, option)
        if option != "bias_initializer" and isinstance(value, GateBias):
            raise ValueError(
                f"A {type(value).__name__} is for `bias_initializer`: it speaks of the gates' "
                f"biases. Received: {option}={value!r}"
            )
    if isinstance(cell.bias_initializer, GateBias) and not (
        cell.use_bias and (cell.keeps or cell.writes)
    ):
        default = resolved("bias_initializer", parameters(type(cell))["bias_initializer"].default)
        # A default may be left without its bias, as LSTM's unit_forget_bias=True is.
        if type(cell.bias_initializer) is not type(default):
            raise ValueError(
                f"{name} with use_bias={cell.use_bias} has no bias of a gate that keeps or writes "
                "its state. "
                f"Received: bias_initializer={type(cell.bias_initializer).__name__}"
            )


def _check_recurrent_dropout(cell, name):
    if cell.recurrent_dropout_form == "candidate" and not cell.candidate:
        raise ValueError(
            "recurrent_dropout_form='candidate' needs a candidate apart from the state, which "
            f"{name} does not have. Received: recurrent_dropout={cell.recurrent_dropout}"
        )
    if cell.recurrent_dropout_form == "state" and not cell.recurrent_gates:
        raise ValueError(
            f"`recurrent_dropout` needs a product with the state, which {name} does not have"
            + ("; take recurrent_dropout_form='candidate'" * bool(cell.candidate))
            + f". Received: recurrent_dropout={cell.recurrent_dropout}"
        )


def zone_rates(cell):
    """The rates of a cell's `zoneout` that are not 0, by the names of the states."""
    zoneout = cell.zoneout
    if not isinstance(zoneout, dict):
        zoneout = dict.fromkeys(cell.zoned, fraction("zoneout", zoneout))
    for state in zoneout:
        if state not in cell.zoned:
            raise ValueError(
                f"`zoneout` of {type(cell).__name__} can act on the states "
                f"{', '.join(cell.zoned)}. Received: a zoneout of {state!r}"
            )
    rates = {state: fraction("zoneout", rate) for state, rate in zoneout.items()}
    return {state: rate for state, rate in rates.items() if rate}


def zoned_out(cell, zones, old, new):
    """The states after a step with zoneout, z ∘ old + (1 - z) ∘ new.

    Args:
        cell: A `Cell`.
        zones: z by the names of states, or `None` for its expectation.
        old, new: The states before and after the step.
    """
    new = list(new)
    for zoned, rate in cell.zone_rates.items():
        z = rate if zones is None else zones[zoned]
        for i, state in enumerate(cell.states):
            # The states of a linear recurrence are the parts of one.
            if cell.linear or state == zoned:
                new[i] = z * old[i] + (1 - z) * new[i]
    return new


def normalized(cell, y, gates, among, gain):
    """LN(y) with a mean and a variance per group of gates in `normalized_together`.

    Args:
        cell: A `Cell`.
        y: (batch, len(gates) * units).
        gates: The gates whose columns y has.
        among: Those whose columns `gain` has.
        gain: A factor per column.
    """
    groups = [tuple(g for g in group if g in gates) for group in cell.normalized_together]
    groups = [group for group in groups if group]
    parts = [
        layer_norm(part, gain[cell.columns(group, among)])
        for group, part in zip(groups, cell.split(y, *groups), strict=True)
    ]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)


def layer_norm(y, gain):
    """LN(y): mean 0 and variance 1 over the last axis, times `gain`."""
    wide = ops.cast(y, keras.backend.result_type(y.dtype, "float32"))
    mean, variance = ops.moments(wide, axes=-1, keepdims=True)
    y = ops.cast((wide - mean) * ops.rsqrt(variance + _EPSILON), y.dtype)
    return y * ops.cast(gain, y.dtype)
