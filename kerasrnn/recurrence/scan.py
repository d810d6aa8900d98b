"""Linear recurrences, h_t = a_t ∘ h_{t-1} + b_t: all steps at once, from their coefficients.

Masks, resets and zoneout become part of the coefficients:

    zoneout     a <- z + (1 - z) ∘ a,   b <- (1 - z) ∘ b
    masked      a <- 1,                 b <- 0
    reset       a <- 0,                 b <- a ∘ h_0 + b
"""

from keras import ops

from kerasrnn.backends import tf
from kerasrnn.cells.base import Cell
from kerasrnn.recurrence import sequence

if tf:
    from kerasrnn.recurrence import all_steps, prefix_scan
else:
    from kerasrnn.recurrence import blocks as all_steps
    from kerasrnn.recurrence import linear_scan as prefix_scan


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
    steps = sequence.time_major(sequence.values_over_time(sequence_pass, noise.zones))
    every = sequence_pass.return_sequences or sequence_pass.mask is not None

    def part(states, steps):
        xs = all_steps.project(cell, steps["x"], noise.inputs)
        a, b = _coefficients(cell, xs, noise.candidate, steps.get("zones"))
        a, b = _masked_and_reset(a, b, steps, sequence_pass.episode_start)
        history = prefix_scan.scan(a, b, states)
        outputs = cell.output(xs, history) if every else None
        final = [v[-1] for v in history]
        return final, outputs if every else cell.output(xs[-1:], [v[None] for v in final])

    final, outputs = all_steps.in_parts(part, sequence_pass.states, steps)
    if sequence_pass.mask is not None:
        outputs = all_steps.shown(outputs, steps["mask"], sequence_pass.zero_output_for_mask)
    if not sequence_pass.return_sequences:
        return outputs[-1], outputs[-1][:, None], final
    return outputs[-1], sequence.time_first(outputs), final


def _coefficients(cell, xs, candidate, zones):
    """a_t and b_t as lists, with the dropout of the candidate and with zoneout."""
    a, b = (list(v) if isinstance(v, tuple | list) else [v] for v in cell.coefficients(xs))
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
        a = [ops.broadcast_to(v, ops.shape(b[0])) for v in a]
    if mask is not None:
        one = [ops.ones_like(a[0]), *(ops.zeros_like(v) for v in a[1:])]
        a, b = sequence.where(mask, a, one), [ops.where(mask, v, ops.zeros_like(v)) for v in b]
    if reset is not None:
        b = sequence.where(reset, prefix_scan.step(a, episode_start, b), b)
        a = [ops.where(reset, ops.zeros_like(v), v) for v in a]
    return a, b
