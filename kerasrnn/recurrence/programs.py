"""The XLA programs on a CPU: what is done for a whole batch before and after their loops.

rows in parts, one per core     XLA on a CPU runs a program's small operations on one core
rows by their length            a part runs from its first unmasked step to its last
p_t = W x_t + b                 for all steps of a part in one product
"""

import inspect
import math
import os

import keras
import tensorflow as tf
from keras import tree

from kerasrnn import activations
from kerasrnn.cells.base import Cell
from kerasrnn.recurrence import all_steps, program, sequence
from kerasrnn.recurrence.structure import pattern, step_key

# Steps times columns of the kernels from which on compiling pays; a sequence of unknown length
# counts as one of 64 steps.
WORTH_COMPILING = 2048
# Where parts get too small for their products.
_MOST_PARTS = 4
# Columns of the kernels up to which a step takes hardly longer for 16 rows than for one.
_SMALL = 128
# Steps to which a shorter sequence of unknown length is filled up, and those from which on it costs
# too much to fill one up to a power of two.
_LEAST_STEPS, _LONG = 32, 128
# Rows of a part from which on it is not filled up to share a program; below it costs little.
_FULL = 16
# A function of the user's own has no name by which a program of its own could be kept.
_ACTIVATIONS = {
    f
    for module in (keras.activations, activations)
    for f in vars(module).values()
    if inspect.isfunction(f)
}


def refuses(sequence_pass):
    """Why the pass cannot take this path, or does not unless it is asked to; or `None`."""
    reason = _impossible(sequence_pass)
    return reason if reason or sequence_pass.path == "programs" else _unwise(sequence_pass)


def _impossible(sequence_pass):
    cell = sequence_pass.cell
    if reason := sequence.unregistered(cell):
        return reason
    if sequence_pass.unroll:
        return "unroll=True"
    for name, value in vars(cell).items():
        if name.endswith("activation") and value not in _ACTIVATIONS:
            return f"{name}={getattr(value, '__name__', repr(value))} is not one of Keras's"
    if sequence_pass.regularizes:
        return "vanishing_gradient_regularization, whose gradient is taken at every step"
    if sequence_pass.sequences.shape[0] == 0:
        # A batch is cut into parts, an empty one cannot be.
        return "a batch without rows"
    if sequence_pass.tap and sequence_pass.mask is not None:
        # Steps that are masked in all rows are passed over, where a tap is to be seen, too.
        return "the gradient by each state is measured, under a mask"
    return None


def _unwise(sequence_pass):
    cell, steps = sequence_pass.cell, sequence_pass.sequences.shape[1] or 64
    columns = len(cell.gates) * cell.units
    if any(tf.config.list_logical_devices(kind) for kind in ("GPU", "TPU")):
        return "a GPU or TPU is visible, and the programs are made for a CPU"
    if sequence_pass.stage == "eager":
        return "an eager call"
    if sequence_pass.stage != "step" and not sequence_pass.tap:
        return "what may be exported has to run where there is no XLA"
    if steps * columns < WORTH_COMPILING:
        return f"{steps} steps of {columns} columns are {sequence.TOO_FEW}"
    return None


def run(sequence_pass):
    """Runs the pass of a registered cell; returns what `kerasrnn.recurrence.run` does."""
    cell, sequences = sequence_pass.cell, sequence_pass.sequences
    if not tf.executing_eagerly():
        program.keep_from_export()
    steps = sequences.shape[1] or tf.shape(sequences)[1]
    noise = cell.noise(sequences, sequence_pass.states, sequence_pass.training)
    over_time = sequence.values_over_time(sequence_pass, noise.zones)
    over_time["taps"] = _taps(sequence_pass, steps)
    per_row = {
        "states": sequence_pass.states,
        "episode_start": sequence_pass.episode_start,
        "noise": noise._replace(zones=None),
    }
    output, final = _batch_for(cell).run(
        [tf.convert_to_tensor(weight.value) for weight in cell.weights],
        over_time,
        per_row,
        keep=bool(sequence_pass.training or sequence_pass.tap),
        return_sequences=sequence_pass.return_sequences,
        zero_output=sequence_pass.zero_output_for_mask,
        cores=min(_cores(), _MOST_PARTS),
    )
    if not sequence_pass.return_sequences:
        return output, output[:, None], final
    return output[:, -1], output, final


_BATCHES = {}


def _batch_for(cell):
    """The one `_Batch` of all cells that compute the same from the same weights."""
    key = step_key(cell), tuple((weight.name, tuple(weight.shape)) for weight in cell.weights)
    if key not in _BATCHES:
        _BATCHES[key] = _Batch(program.where_nothing_is_traced(pattern, cell, cell.kernel.shape[0]))
    return _BATCHES[key]


class _Batch:
    """What is done for a batch, and for a part of its rows, each written once into a graph of its
    own: the same for both directions of a layer, for like layers of a model, for all parts, and
    for each time that Keras traces a step, which is twice for the first.

    Args:
        cell: A built cell; its weights' values take no part, those of the cell that runs come in.
    """

    def __init__(self, cell):
        self.cell = cell
        self.run = tf.function(self._run, autograph=False)
        self.run_part = tf.function(self._run_part, autograph=False)

    def _run(self, weights, over_time, per_row, keep, return_sequences, zero_output, cores):
        """Runs all rows.

        Args:
            weights: The values of the cell's weights.
            over_time: What differs from step to step, by name, (batch, time, ...).
            per_row: What does not, (batch, ...).
            keep: Whether a gradient will be asked for.
            return_sequences, zero_output: As in `SequencePass`.
            cores: How many parts to run at the same time.

        Returns:
            The output, (batch, time, units) or (batch, units), and the final states.
        """
        sequences, mask = over_time["x"], over_time.get("mask")
        size, steps = (n or tf.shape(sequences)[i] for i, n in enumerate(sequences.shape[:2]))
        if mask is not None:
            start, stop = _unmasked(_effective(over_time), [2])
            order = tf.argsort(stop - start, direction="DESCENDING")
            over_time, per_row = _each(lambda v: _reordered(v, order), (over_time, per_row))

        columns = len(self.cell.gates) * self.cell.units
        parts, rows = _cut(sequences.shape[0], size, mask is not None, keep, cores, columns)
        # A program is compiled per length: rounded up, batches of many lengths share a few. Its
        # loops run no step more for that; what is done for all steps at once is done for more.
        length = steps if sequences.shape[1] else rounded_up(steps)
        fits = sequences.shape[0] == parts * rows and sequences.shape[1] is not None
        if not fits:
            more = [0, parts * rows - size]
            over_time = _each(lambda v: _padded(v, more, [0, length - steps]), over_time)
            per_row = _each(lambda v: _padded(v, more), per_row)

        results = []
        for k, part in enumerate(_in_parts((over_time, per_row), parts)):
            # A part without a row of the batch has nothing to do.
            end = tf.convert_to_tensor(steps if fits else tf.where(k * rows < size, steps, 0))
            results.append(
                self.run_part(
                    *(weights, *part, end),
                    keep=keep,
                    return_sequences=return_sequences,
                    zero_output=zero_output,
                )
            )
        whole = tf.nest.map_structure(lambda *values: tf.concat(values, 0), *results)
        if not fits:
            whole = _each(lambda v: _first(v, size, steps), whole)
        if mask is not None:
            back = tf.argsort(order)
            whole = _each(lambda v: _reordered(v, back), whole)
        return whole

    def _run_part(self, weights, over_time, per_row, end, keep, return_sequences, zero_output):
        """Runs the rows of one part.

        Args:
            weights, keep, return_sequences, zero_output: As for `_run`.
            over_time, per_row: The part's share of what `_run` has put together.
            end: The number of steps, without those added to round it up.

        Returns:
            As `_run`.
        """
        cell, over_time = self.cell, dict(over_time)
        with keras.StatelessScope(state_mapping=list(zip(cell.weights, weights, strict=True))):
            return _run_part(cell, over_time, per_row, end, keep, return_sequences, zero_output)


def _taps(sequence_pass, steps):
    """For each state zeros, (batch, time, units); an empty list where nothing is tapped."""
    if not sequence_pass.tap:
        return []
    taps = sequence_pass.tap(sequence_pass.cell, sequence_pass.states, steps)
    return [tf.transpose(t, [1, 0, 2]) for t in tree.flatten(taps)]


def _effective(over_time):
    """The steps that do something to the state: a reset does where the mask says skip, too."""
    mask, reset = over_time["mask"], over_time.get("reset")
    return mask if reset is None else tf.logical_or(mask, reset)


def _each(function, values):
    """The structure `values` with `function` applied to each tensor in it."""
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
    return tf.gather(v, order), lambda d: (_reordered(d, tf.argsort(order)), None)


def _padded(v, rows, steps=(0, 0)):
    more = [rows, steps, [0, 0]]
    # None more, unless how many is for the running graph to know.
    time = v.shape[1] if isinstance(steps[1], int) else None
    shape = [None, time, v.shape[-1]] if len(v.shape) == 3 else [None, v.shape[-1]]
    return tf.ensure_shape(tf.pad(v, more[: len(v.shape)]), shape)


def _cut(known, size, masked, keep, cores, columns):
    """How many parts to cut a batch of `size` into, and how many rows each has."""
    small = columns <= _SMALL
    # More than there are cores: who has done with short rows goes on with others.
    parts = 2 * cores if masked and not small else cores
    # XLA makes loops of its own out of a single row's products: fast ones forward, slow ones back.
    single = 2 if keep else 1
    if known:
        parts = min(parts, -(-known // single))
        return parts, max(-(-known // parts), single)
    # The last batch of an epoch shares its programs with the others more often than not.
    least = 16 if small else 8 if masked else 4
    least = tf.where(size <= 2, single, least)
    rows = tf.maximum(-(-size // parts), least)
    return parts, tf.where(rows < _FULL, power_of_two(rows), rows)


def _cores():
    """How many this process may use; not every system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _run_part(cell, over_time, per_row, end, keep, return_sequences, zero_output):
    noise = per_row["noise"]
    sequences, mask = over_time.pop("x"), over_time.get("mask")
    if mask is None:
        start, stop = tf.constant(0), end
        xs = all_steps.project(cell, sequence.time_first(sequences), noise.inputs)
    else:
        start, stop = _unmasked(_effective(over_time), [0, 2])
        xs = _projected_between(start, stop, cell, sequences, noise.inputs)

    steps = sequence.time_major(over_time)
    taps = steps.pop("taps")
    has_output = type(cell).output is not Cell.output
    # A masked step that is reset shows what the step before it showed, and no state.
    apart = has_output or (mask is not None and "reset" in steps)
    final, outputs = program.run(
        *(cell, xs, per_row["states"], steps, per_row["episode_start"], noise),
        *(start, stop, len(cell.states) if has_output else int(return_sequences or apart)),
        *(keep, taps),
    )
    if not (return_sequences or apart):
        output = final[0]
        if mask is not None:
            shows = mask[:, end - 1] if zero_output else tf.reduce_any(mask, 1)
            output = tf.where(shows, output, tf.zeros_like(output))
        return output, final
    output = cell.output(xs, outputs) if has_output else outputs[0]
    if mask is not None:
        if not (apart or zero_output):
            output = _state_shown(output, final[0], steps["mask"], stop)
        else:
            output = all_steps.shown(output, steps["mask"], zero_output)
    if not return_sequences:
        return output[end - 1], final
    return tf.transpose(output, [1, 0, 2]), final


def _projected_between(start, stop, cell, sequences, masks):
    """The projection, zeros before `start` and from `stop` on, which no step reads."""
    size, steps = tf.shape(sequences)[0], sequences.shape[1] or tf.shape(sequences)[1]
    # Of no steps at all TensorFlow loses the shape where it vectorizes a gradient.
    stop = tf.minimum(tf.maximum(stop, start + 1), steps)
    unmasked = tf.slice(sequences, [0, start, 0], [size, stop - start, sequences.shape[2]])
    xs = all_steps.project(cell, sequence.time_first(unmasked), masks)
    return tf.pad(xs, [[start, steps - stop], [0, 0], [0, 0]])


def _state_shown(states, final, mask, stop):
    """What `all_steps.shown` gives, at no cost: at a masked step a state stays as it is, and so
    does an output that is one. Before the first step that is not masked there are zeros to show,
    and from `stop` on no states."""
    steps = tf.range(tf.shape(states)[0])
    states = tf.where(steps[:, None, None] < stop, states, final)
    shows = tf.cumsum(tf.cast(mask, "int32")) > 0
    return tf.where(shows, states, tf.zeros_like(states))


def _unmasked(mask, together):
    """The first step, along axis 1, that `mask` has unmasked anywhere on the axes `together`, and
    the one after the last."""
    some = tf.reduce_any(mask, together)
    steps = tf.range(tf.shape(mask)[1])
    stop = tf.reduce_max(tf.where(some, steps + 1, 0), -1, keepdims=True)
    start = tf.reduce_min(tf.where(some, steps, stop), -1)
    return start, stop[..., 0]


def rounded_up(steps):
    """To the next power of two, from `_LONG` on to the next quarter of the one below."""
    power = power_of_two(tf.maximum(steps, _LEAST_STEPS))
    quarter = power // 8
    return tf.where(power > _LONG, (steps + quarter - 1) // quarter * quarter, power)


def power_of_two(n):
    """The least that is not below `n`, of a positive integer."""
    bits = tf.math.ceil(tf.math.log(tf.cast(n, "float64")) / math.log(2.0) - 1e-9)
    return tf.bitwise.left_shift(1, tf.cast(bits, "int32"))
