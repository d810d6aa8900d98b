"""The time loop: the one place that runs a cell over a sequence."""

import re

import keras
import tensorflow as tf
from keras import ops, tree

from kerasrnn import compiled
from kerasrnn.cells import CELLS
from kerasrnn.cells.base import Cell

# Steps times columns of the kernels from which on compiling pays; a sequence of unknown length
# counts as one of 64 steps.
WORTH_COMPILING = 2048
# What Keras's trainer calls the functions it traces.
_KERAS_STEP = re.compile("(one|multi)_step_on_(data|data_distributed|iterator)")


def run(
    cell,
    sequences,
    states,
    mask=None,
    training=False,
    go_backwards=False,
    unroll=False,
    zero_output_for_mask=False,
    return_sequences=True,
    reset=None,
):
    """Runs `cell` over the time steps of `sequences`.

    A masked step leaves the states as they are; its output is that of the step before (zeros at
    the start), or zeros with `zero_output_for_mask`.

    Args:
        cell: A `Cell`, any Keras cell, or `keras.layers.StackedRNNCells` of either.
        sequences: (batch, time, features).
        states: The initial states, nested like the cell's `state_size`; each (batch, size).
        mask: (batch, time) booleans, `False` where a step is to be skipped, or `None`.
        training: Whether dropout applies.
        go_backwards: Run from the last step to the first; the outputs come in that order too.
        unroll: Write one copy of the step per time step into the graph instead of a loop.
        zero_output_for_mask: See above.
        return_sequences: Keep the output of every step.
        reset: (batch, time) booleans, `True` where an episode begins: before that step the states
            are set to the cell's initial ones. Backwards, where the episode after has been passed.

    Returns:
        The last output (batch, size); the outputs (batch, time, size), or (batch, 1, size) without
        `return_sequences`; the final states.
    """
    # A subclass may connect its cells in a way of its own.
    if type(cell) is keras.layers.StackedRNNCells:
        return _run_stacked(
            cell.cells,
            sequences,
            states,
            mask,
            go_backwards,
            reset,
            {"training": training, "unroll": unroll, "zero_output_for_mask": zero_output_for_mask},
        )

    if reset is None and _compiles(cell, sequences, training, unroll):
        return compiled.run(
            cell,
            sequences,
            states,
            mask,
            training,
            go_backwards,
            zero_output_for_mask,
            return_sequences,
        )

    xs, zones, step = _prepare(cell, sequences, states, training)
    if reset is not None:
        reset = _as_seen(reset, go_backwards)
    mask = None if mask is None else ops.cast(mask, "bool")
    rows = {"x": xs, "zones": zones, "mask": mask, "reset": reset}
    rows = {name: _time_major(row) for name, row in rows.items() if row is not None}
    xs = rows["x"]
    steps = xs.shape[0] if xs.shape[0] is not None else tf.shape(xs)[0]
    if go_backwards:
        rows = tf.nest.map_structure(lambda row: tf.reverse(row, [0]), rows)
    fresh = None if reset is None else _initial_states(cell, sequences)

    def advance(row, output, states):
        if "reset" in row:
            states = _where(row["reset"], fresh, states)
        new_output, new_states = step(row["x"], states, row.get("zones"))
        if "mask" not in row:
            return new_output, new_states
        skipped = tf.zeros_like(output) if zero_output_for_mask else output
        new_output = tf.where(row["mask"], new_output, skipped)
        return new_output, _where(row["mask"], new_states, states)

    output = _first_output(cell, xs, states, step)
    loop = _unrolled if unroll else _while
    output, outputs, states = loop(advance, rows, output, list(states), steps, return_sequences)
    if not return_sequences:
        return output, output[:, None], states
    return output, tf.transpose(outputs, [1, 0, 2]), states


def _where(condition, new, old):
    return tree.map_structure(lambda n, o: tf.where(condition, n, o), new, old)


def _as_seen(reset, go_backwards):
    """Where the states are set back: an episode that begins at t begins, seen backwards, where it
    ends, so that the one before it ends (and begins, backwards) at t - 1."""
    reset = ops.cast(reset, "bool")
    if not go_backwards:
        return reset
    return tf.concat([reset[:, 1:], tf.zeros_like(reset[:, :1])], 1)


def _initial_states(cell, sequences):
    """The states an episode begins with."""
    fresh = cell.get_initial_state(batch_size=tf.shape(sequences)[0])
    return list(fresh) if tree.is_nested(fresh) else [fresh]


def _compiles(cell, sequences, training, unroll):
    """Whether the XLA programs serve: in the graph of a step of training, evaluation or prediction,
    on a CPU, for cells whose configuration says all about their step."""
    return (
        not unroll
        and not tf.executing_eagerly()
        and (training is True or _in_a_step_of_keras())
        and type(cell) in CELLS.values()
        and (sequences.shape[1] or 64) * len(cell.gates) * cell.units >= WORTH_COMPILING
        and not tf.config.list_logical_devices("GPU")
    )


def _in_a_step_of_keras():
    """Whether what is traced is a step of `fit`, `evaluate` or `predict`: any other graph may be
    exported, and has to run where there is no XLA."""
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        if _KERAS_STEP.fullmatch(getattr(graph, "name", "")):
            return True
        graph = getattr(graph, "outer_graph", None)
    return False


def _time_major(row):
    """Per step what is given per row: sequences, structures of them, and booleans."""

    def one(value):
        if len(value.shape) == 2:
            value = value[:, :, None]
        return tf.transpose(value, [1, 0, 2])

    return tf.nest.map_structure(one, row)


def _first_output(cell, xs, states, step):
    """What a masked first step repeats: zeros like an output."""
    if isinstance(cell, Cell):
        return tf.zeros_like(cell.output(xs[0], states))
    # Keras asks cells for their state's size, not for their output's: this one step, of which
    # only the shape is used, shows it.
    return tf.zeros_like(step(xs[0], states)[0])


def _prepare(cell, sequences, states, training):
    """The tensor to step through, what else is random per step, and the step."""
    sequences = ops.cast(sequences, getattr(cell, "compute_dtype", sequences.dtype))
    if isinstance(cell, Cell):
        noise = cell.noise(sequences, states, training)

        def product(gates, v):
            return cell.product(gates, v, noise.products)

        def step(x, states, zones):
            new_states = cell.advance(x, states, product, zones, noise.candidate)
            return cell.output(x, new_states), new_states

        return cell.project(sequences, noise.inputs), noise.zones, step

    def keras_step(x, states, zones=None):
        output, new_states = cell(x, states)
        return output, list(new_states) if tree.is_nested(new_states) else [new_states]

    return sequences, None, keras_step


def _run_stacked(cells, sequences, states, mask, go_backwards, reset, options):
    """Runs each cell over the whole sequence before the next: the same numbers as all cells at
    every step, since no cell of a stack looks at a later one."""
    last, final_states = None, []
    for cell, cell_states in zip(cells, states, strict=True):
        nested = tree.is_nested(cell_states)
        last, sequences, final = run(
            cell,
            sequences,
            cell_states if nested else [cell_states],
            mask=mask,
            go_backwards=go_backwards,
            reset=reset,
            **options,
        )
        final_states.append(final if nested else final[0])
        if go_backwards:
            mask = None if mask is None else tf.reverse(mask, [1])
            reset = None if reset is None else tf.reverse(_as_seen(reset, True), [1])
            go_backwards = False
    return last, sequences, final_states


def _unrolled(advance, rows, output, states, steps, return_sequences):
    outputs = []
    unstacked = [tf.unstack(value) for value in tf.nest.flatten(rows)]
    for row in zip(*unstacked, strict=True):
        output, states = advance(tf.nest.pack_sequence_as(rows, row), output, states)
        outputs.append(output)
    return output, tf.stack(outputs) if return_sequences else None, states


def _while(advance, rows, output, states, steps, return_sequences):
    def array(value):
        return tf.TensorArray(value.dtype, steps, element_shape=value.shape[1:]).unstack(value)

    arrays = tf.nest.map_structure(array, rows)
    # Without sequences a length of 0 keeps the loop's signature the same and stores nothing.
    out_array = tf.TensorArray(
        output.dtype, steps if return_sequences else 0, element_shape=output.shape
    )

    def body(t, out_array, output, states):
        row = tf.nest.map_structure(lambda array: array.read(t), arrays)
        output, states = advance(row, output, states)
        if return_sequences:
            out_array = out_array.write(t, output)
        return t + 1, out_array, output, states

    _, out_array, output, states = tf.while_loop(
        lambda t, *_: t < steps,
        body,
        (tf.constant(0), out_array, output, states),
        maximum_iterations=steps,
        parallel_iterations=32,
        swap_memory=True,
    )
    return output, out_array.stack() if return_sequences else None, states
