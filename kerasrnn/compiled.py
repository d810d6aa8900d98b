"""A batch through the XLA programs: what is done around their loops, for the whole sequence.

rows in parts, one per core     XLA on a CPU runs a program's small operations on one core
rows by their length            a part runs from its first unmasked step to its last
p_t = W x_t + b                 for all steps of a part in one product
"""

import math
import os
from typing import Any, NamedTuple

import tensorflow as tf
from keras import ops

from kerasrnn import linear, program
from kerasrnn.cells.base import Cell

# Where parts get too small for their products.
_MOST_PARTS = 4


class Pass(NamedTuple):
    """One pass of a cell over a sequence: what `kerasrnn.recurrence.run` was asked for.

    Attributes:
        cell, sequences, training, go_backwards, zero_output_for_mask, return_sequences, unroll: As
            there.
        states: A list of the initial states.
        mask: (batch, time, 1) booleans, or `None`.
        reset: (batch, time, 1) booleans, as the cell sees it from its side, or `None`.
        fresh: What a reset sets the states back to; an empty list without one.
        taps: For each state zeros, (batch, time, units), as the cell sees time from its side, whose
            gradient is that of the state after each step; an empty list without them.
    """

    cell: Any
    sequences: Any
    states: list
    mask: Any
    training: Any
    go_backwards: bool
    zero_output_for_mask: bool
    return_sequences: bool
    unroll: bool
    reset: Any
    fresh: list
    taps: list


def run(given):
    """Runs a `Pass` of a registered cell; returns what `kerasrnn.recurrence.run` does."""
    cell, mask, keep = given.cell, given.mask, given.training or bool(given.taps)
    sequences = ops.cast(given.sequences, cell.compute_dtype)
    noise = cell.noise(sequences, given.states, given.training)
    over_time = {"x": sequences, "mask": mask, "reset": given.reset, "zones": noise.zones}
    per_row = {"states": given.states, "fresh": given.fresh, "noise": noise._replace(zones=None)}
    if given.go_backwards:
        over_time = _each(lambda v: tf.reverse(v, [1]), over_time)
    over_time["taps"] = given.taps
    if mask is not None:
        start, stop = _unmasked(_seen(over_time), [2])
        order = tf.argsort(stop - start, direction="DESCENDING")
        over_time, per_row = _each(lambda v: _reordered(v, order), (over_time, per_row))

    size, steps = (n or tf.shape(sequences)[i] for i, n in enumerate(sequences.shape[:2]))
    parts, rows = _cut(sequences.shape[0], size, mask is not None, keep)
    # A program is compiled per length: rounded up, batches of many lengths share a few.
    length = steps if sequences.shape[1] else rounded_up(steps)
    fits = sequences.shape[0] == parts * rows and sequences.shape[1] is not None
    if not fits:
        more = [0, parts * rows - size]
        over_time = _each(lambda v: _padded(v, more, [0, length - steps]), over_time)
        per_row = _each(lambda v: _padded(v, more), per_row)

    results = []
    for k, part in enumerate(_in_parts((over_time, per_row), parts)):
        # A part without a row of the batch has nothing to do.
        stop = steps if fits else tf.where(k * rows < size, steps, 0)
        results.append(_run_part(given, *part, stop, keep))
    whole = tf.nest.map_structure(lambda *values: tf.concat(values, 0), *results)
    if not fits:
        whole = _each(lambda v: _first(v, size, steps), whole)
    if mask is not None:
        back = tf.argsort(order)
        whole = _each(lambda v: _reordered(v, back), whole)
    output, final = whole
    if not given.return_sequences:
        return output, output[:, None], final
    return output[:, -1], output, final


def _seen(over_time):
    """The steps that do something to the state: a reset does where the mask says skip, too."""
    mask, reset = over_time["mask"], over_time["reset"]
    return mask if reset is None else tf.logical_or(mask, reset)


def _each(function, values):
    """Applies `function` to each tensor in `values`."""
    return tf.nest.map_structure(lambda v: None if v is None else function(v), values)


def _in_parts(values, parts):
    """The structure `values` once per part of the rows."""
    flat = [[None] * parts if v is None else tf.split(v, parts) for v in tf.nest.flatten(values)]
    return [tf.nest.pack_sequence_as(values, part) for part in zip(*flat, strict=True)]


def _first(v, size, steps):
    """`v[:size, :steps]`, with a gradient that is faster than a strided slice's."""
    shape = [size, steps, v.shape[-1]] if len(v.shape) == 3 else [size, v.shape[-1]]
    return tf.slice(v, [0] * len(shape), shape)


@tf.custom_gradient
def _reordered(v, order):
    """The rows of `v` in another order; TensorFlow takes the gradient of a gather for sparse."""
    return tf.gather(v, order), lambda d: (tf.gather(d, tf.argsort(order)), None)


def _padded(v, rows, steps=(0, 0)):
    more = [rows, steps, [0, 0]]
    # None more, unless how many is for the running graph to know.
    time = v.shape[1] if isinstance(steps[1], int) else None
    shape = [None, time, v.shape[-1]] if len(v.shape) == 3 else [None, v.shape[-1]]
    return tf.ensure_shape(tf.pad(v, more[: len(v.shape)]), shape)


def _cut(known, size, masked, keep):
    """How many parts to cut a batch of `size` into, and how many rows each has."""
    parts = min(_cores(), _MOST_PARTS)
    if masked:
        # More than there are cores: who has done with short rows goes on with others.
        parts *= 2
    # XLA makes loops of its own out of a single row's products: fast ones forward, slow ones back.
    least = 2 if keep else 1
    if known:
        parts = min(parts, -(-known // least))
        return parts, max(-(-known // parts), least)
    return parts, tf.maximum(-(-size // parts), least)


def _cores():
    """How many this process may use; not every system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _run_part(given, over_time, per_row, stop, keep):
    """The output, (batch, time, units) or (batch, units), and the final states."""
    cell, return_sequences = given.cell, given.return_sequences
    sequences, noise = over_time["x"], per_row["noise"]
    start, end = tf.constant(0), stop
    masked = over_time["mask"] is not None
    if masked:
        length = sequences.shape[1] or tf.shape(sequences)[1]
        start, stop = _unmasked(_seen(over_time), [0, 2])
        unmasked = tf.slice(
            sequences, [0, start, 0], [tf.shape(sequences)[0], stop - start, sequences.shape[2]]
        )
        xs = project(cell, unmasked, noise.inputs)
        xs = tf.pad(xs, [[start, length - stop], [0, 0], [0, 0]])
    else:
        xs = project(cell, sequences, noise.inputs)

    rows = {name: v for name, v in over_time.items() if name != "x" and v is not None}
    rows = tf.nest.map_structure(lambda v: tf.transpose(v, [1, 0, 2]), rows)
    taps = rows.pop("taps")
    # A masked step that is reset shows what the step before it showed, and no state.
    own_output = type(cell).output is not Cell.output
    own = own_output or (masked and "reset" in rows)
    history = len(cell.states) if own_output else int(return_sequences or own)
    final, outputs = program.run(
        *(cell, xs, per_row["states"], rows, per_row["fresh"], noise),
        *(start, tf.convert_to_tensor(stop), history, keep, taps),
    )
    if not (return_sequences or own):
        output = final[0]
        if masked:
            mask = over_time["mask"]
            shown = mask[:, end - 1] if given.zero_output_for_mask else tf.reduce_any(mask, 1)
            output = tf.where(shown, output, tf.zeros_like(output))
        return output, final
    output = outputs[0]
    if own_output:
        output = cell.output(xs, outputs)
    if masked:
        shown = rows["mask"]
        if own and not given.zero_output_for_mask:
            output = linear.repeated(output, shown)
        else:
            if not given.zero_output_for_mask:
                shown = tf.cumsum(tf.cast(shown, "int32")) > 0
                output = tf.where(tf.range(length)[:, None, None] < stop, output, final[0])
            output = tf.where(shown, output, tf.zeros_like(output))
    if not return_sequences:
        return output[end - 1], final
    return tf.transpose(output, [1, 0, 2]), final


def _unmasked(mask, together):
    """The first step, along axis 1, that `mask` has unmasked anywhere on the axes `together`, and
    the one after the last."""
    some = tf.reduce_any(mask, together)
    steps = tf.range(tf.shape(mask)[1])
    stop = tf.reduce_max(tf.where(some, steps + 1, 0), -1, keepdims=True)
    start = tf.reduce_min(tf.where(some, steps, stop), -1)
    return start, stop[..., 0]


def project(cell, sequences, masks):
    """The projection, (time, batch, columns), as one product of two matrices: as a product of a
    batch of matrices its gradient would be one per step first, and their sum then."""
    inputs = tf.transpose(sequences, [1, 0, 2])
    features = inputs.shape[2]
    if masks != (None,):
        masks = [
            tf.reshape(
                tf.broadcast_to(tf.transpose(mask, [1, 0, 2]), tf.shape(inputs)), [-1, features]
            )
            for mask in masks
        ]
    projected = cell.project(tf.reshape(inputs, [-1, features]), masks)
    xs = tf.reshape(projected, [*tf.unstack(tf.shape(inputs)[:2]), projected.shape[1]])
    return tf.ensure_shape(xs, [*inputs.shape[:2], projected.shape[1]])


def rounded_up(steps):
    """To the next multiple of an eighth of the power of two below, and of 8."""
    power = tf.cast(tf.math.log(tf.cast(steps, "float64")) / math.log(2.0), "int32")
    unit = tf.bitwise.left_shift(1, tf.maximum(power - 3, 3))
    return (steps + unit - 1) // unit * unit
