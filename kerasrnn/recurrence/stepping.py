"""One step after the other, for any cell, in `keras.ops`; what repeats the step is the path's.

s_t, y_t = advance(x_t, s_{t-1}, y_{t-1})       with mask, reset and taps
"""

import inspect

from keras import ops, tree

from kerasrnn.backends import tf
from kerasrnn.cells.base import Cell, overrides_call
from kerasrnn.cells.step_of_pass import StepOfPass, handed
from kerasrnn.recurrence import sequence

if tf:
    from kerasrnn.recurrence.regularization import regularizer


def run(sequence_pass, repeat):
    """Runs a pass; returns what `kerasrnn.recurrence.run` does.

    Args:
        sequence_pass: The `SequencePass`.
        repeat: What repeats the step where it is not to be unrolled, with the arguments of
            `unrolled`.
    """
    zero_output, return_sequences = (
        sequence_pass.zero_output_for_mask,
        sequence_pass.return_sequences,
    )
    steps, step = _prepared(sequence_pass)

    def advance(now, output, states):
        states = sequence.start_states(now, sequence_pass.episode_start, states)
        new_output, new_states = step(now, states)
        if "mask" not in now:
            return new_output, new_states
        skipped = ops.zeros_like(output) if zero_output else output
        if "taps" in now:
            states = _plus(states, now)
            if not zero_output:
                skipped = skipped + _beside(new_output, new_states, now["taps"], default=0)
        new_output = sequence.where(now["mask"], new_output, skipped)
        return new_output, sequence.unless_masked(now, new_states, states)

    states = sequence_pass.states
    output = _zero_output(sequence_pass.cell, steps["x"], states, step)
    # After that, so that who watches a cell from its taps on sees the steps and nothing else.
    count = ops.shape(steps["x"])[0]
    if sequence_pass.tap:
        steps["taps"] = sequence_pass.tap(sequence_pass.cell, states, count)
    repeat = unrolled if sequence_pass.unroll else repeat
    output, outputs, states = repeat(advance, steps, output, states, count, return_sequences)
    if not return_sequences:
        return output, output[:, None], states
    return output, sequence.time_first(outputs), states


def _prepared(sequence_pass):
    """What differs from step to step, time-major, and the step: `step(now, states)` gives the
    output and the new states."""
    cell, states, training = sequence_pass.cell, sequence_pass.states, sequence_pass.training
    if _is_called(cell):
        return _prepared_calls(sequence_pass)
    noise = cell.noise(sequence_pass.sequences, states, training)
    steps = sequence.values_over_time(sequence_pass, noise.zones)
    steps["x"] = cell.project(steps["x"], noise.inputs)
    regularized = regularizer(cell, noise) if sequence_pass.regularizes else None

    def product(gates, v):
        return cell.product(gates, v, noise.products)

    def step(now, states):
        x, zones = now["x"], now.get("zones")
        new_states = cell.advance(x, states, product, zones, noise.candidate)
        if regularized:
            new_states = regularized(x, zones, now.get("reset"), states, new_states)
        new_states = _plus(new_states, now)
        return cell.output(x, new_states), new_states

    return sequence.time_major(steps), step


def _is_called(cell):
    """Whether of a step no more is known than that it is a call of the cell."""
    return not isinstance(cell, Cell) or overrides_call(cell)


def _prepared_calls(sequence_pass):
    """As `_prepared`, of a cell that is called."""
    cell = sequence_pass.cell
    if not isinstance(cell, Cell):

        def step(now, states):
            return _tapped_outside(*_called(cell, now, states), now)

        return sequence.time_major(sequence.values_over_time(sequence_pass)), step

    noise = cell.noise(sequence_pass.sequences, sequence_pass.states, sequence_pass.training)
    of_one_step = tuple(None if mask is None else mask[:, 0] for mask in noise.inputs)
    options = {"training": sequence_pass.training}
    if "training" not in inspect.signature(cell.call).parameters:
        options = {}

    def call(now, states, tap=None):
        of_step = noise._replace(inputs=of_one_step, zones=now.get("zones"))
        with handed(cell, StepOfPass(of_step, tap)):
            return _called(cell, now, states, **options)

    def step(now, states):
        if "taps" not in now:
            return call(now, states)
        tapped = []

        def tap(new_states):
            tapped[:] = _plus(list(new_states), now)
            return list(tapped)

        # Between `Cell.step` and `Cell.output`, so that the output has the taps, too; unless what
        # overrides `call` makes other states of these.
        output, new_states = call(now, states, tap)
        pairs = zip(new_states, tapped, strict=False)
        if len(tapped) == len(new_states) and all(new is one for new, one in pairs):
            return output, new_states
        return _tapped_outside(*call(now, states), now)

    return sequence.time_major(sequence.values_over_time(sequence_pass, noise.zones)), step


def _called(cell, now, states, **options):
    output, new_states = cell(now["x"], states, **options)
    return output, list(new_states) if tree.is_nested(new_states) else [new_states]


def _tapped_outside(output, states, now):
    """The states after a call plus their taps, and the output, which has them where it is one."""
    tapped = _plus(states, now)
    return _beside(output, states, tapped, default=output), tapped


def _plus(states, now):
    """The states plus their taps, where there are any."""
    return tree.map_structure(ops.add, states, now["taps"]) if "taps" in now else states


def _beside(output, states, others, default):
    """What stands in `others` where `states` holds the output itself, or `default`."""
    pairs = zip(tree.flatten(states), tree.flatten(others), strict=True)
    return next((other for state, other in pairs if state is output), default)


def _zero_output(cell, xs, states, step):
    """What a masked first step repeats: zeros like an output."""
    if not _is_called(cell):
        return ops.zeros_like(cell.output(xs[0], states))
    # Keras asks cells for their state's size, not for their output's: this one step, of which
    # only the shape is used, shows it.
    return ops.zeros_like(step({"x": xs[0]}, states)[0])


def unrolled(advance, steps, output, states, count, return_sequences):
    """One copy of the step after the other.

    Args:
        advance: `advance(now, output, states)` gives the output and the states after a step, from
            its values and the output and states before.
        steps: The values of all steps, by name, (time, batch, ...).
        output: Of the step before the first.
        states: The initial states.
        count: The number of steps.
        return_sequences: Whether the outputs of all steps are asked for.

    Returns:
        The last output, the outputs of all steps, (time, batch, ...), and the final states.
    """
    outputs = []
    unstacked = [ops.unstack(value) for value in tree.flatten(steps)]
    for now in zip(*unstacked, strict=True):
        output, states = advance(tree.pack_sequence_as(steps, now), output, states)
        outputs.append(output)
    return output, ops.stack(outputs) if return_sequences else None, states
