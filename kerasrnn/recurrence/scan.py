"""Linear recurrences, h_t = a_t ∘ h_{t-1} + b_t: all steps at once, from their coefficients.

Masks, resets and zoneout become part of the coefficients:

    zoneout     a <- z + (1 - z) ∘ a,   b <- (1 - z) ∘ b
    masked      a <- 1,                 b <- 0
    reset       a <- 0,                 b <- a ∘ h_0 + b
"""

import tensorflow as tf

from kerasrnn.cells.base import Cell
from kerasrnn.recurrence import all_steps, prefix_scan, sequence


def refuses(sequence_pass):
    """Why the pass cannot take this path, or `None`."""
    cell = sequence_pass.cell
    if reason := sequence.overridden(cell):
        return reason
    if not isinstance(cell, Cell) or not cell.linear:
        condition = getattr(cell, "linear_if", "no")
        linear = "no linear recurrence" if condition == "no" else f"linear only {condition}"
        return f"{type(cell).__name__} is {linear}"
    if method := _not_in_coefficients(type(cell)):
        return f"{type(cell).__name__} overrides `{method}` and leaves `coefficients` as it is"
    if sequence_pass.unroll:
        return "unroll=True"
    if sequence_pass.tap:
        return "the gradient by each state is measured"
    return None


def _not_in_coefficients(cell_class):
    """A method whose step is not that of the coefficients, which a class above has; or `None`."""
    for above in cell_class.__mro__:
        if "coefficients" in vars(above):
            return None
        for method in ("step", "advance"):
            if method in vars(above):
                return method
    return None


def run(sequence_pass):
    """Runs the pass; returns what `kerasrnn.recurrence.run` does."""
    cell = sequence_pass.cell
    noise = cell.noise(sequence_pass.sequences, sequence_pass.states, sequence_pass.training)
    steps = sequence.values_over_time(sequence_pass, noise.zones)
    xs = all_steps.project(cell, steps.pop("x"), noise.inputs)
    steps = sequence.time_major(steps)
    mask = steps.get("mask")
    a, b = _coefficients(cell, xs, noise.candidate, steps.get("zones"))
    a, b = _masked_and_reset(a, b, steps, sequence_pass.episode_start)

    history = prefix_scan.scan(a, b, sequence_pass.states)
    outputs = cell.output(xs, history)
    if mask is not None:
        outputs = all_steps.shown(outputs, mask, sequence_pass.zero_output_for_mask)
    final = [v[-1] for v in history]
    if not sequence_pass.return_sequences:
        return outputs[-1], outputs[-1][:, None], final
    return outputs[-1], sequence.time_first(outputs), final


def _coefficients(cell, xs, candidate, zones):
    """a_t and b_t as lists, with the dropout of the candidate and with zoneout."""
    a, b = ([v] if tf.is_tensor(v) else list(v) for v in cell.coefficients(xs))
    if candidate is not None:
        b = [v * candidate for v in b]
    for zoned, rate in cell.zone_rates.items():
        z = rate if zones is None else zones[zoned]
        # z ∘ h + (1 - z) ∘ (a ∘ h + b)
        a, b = ([(1 - z) * v for v in vs] for vs in (a, b))
        a[0] += z
    return a, b


def _masked_and_reset(a, b, steps, episode_start):
    mask, reset = steps.get("mask"), steps.get("reset")
    if mask is not None or reset is not None:
        a = [tf.broadcast_to(v, tf.shape(b[0])) for v in a]
    if mask is not None:
        one = [tf.ones_like(a[0]), *(tf.zeros_like(v) for v in a[1:])]
        a, b = sequence.where(mask, a, one), [tf.where(mask, v, tf.zeros_like(v)) for v in b]
    if reset is not None:
        b = sequence.where(reset, prefix_scan.step(a, episode_start, b), b)
        a = [tf.where(reset, tf.zeros_like(v), v) for v in a]
    return a, b
