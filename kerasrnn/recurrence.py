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
            {"training": training, "unroll": unroll, "zero_output_for_mask": zero_output_for_mask},
        )

    if _compiles(cell, sequences, training, unroll):
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

    xs, step = _prepare(cell, sequences, states, training)
    xs = tf.transpose(xs, [1, 0, 2])
    steps = xs.shape[0] if xs.shape[0] is not None else tf.shape(xs)[0]
    if mask is not None:
        mask = _time_major(mask)
    if go_backwards:
        xs = tf.reverse(xs, [0])
        mask = None if mask is None else tf.reverse(mask, [0])

    def advance(t_x, t_mask, output, states):
        new_output, new_states = step(t_x, states)
        if t_mask is None:
            return new_output, new_states
        skipped = tf.zeros_like(output) if zero_output_for_mask else output
        kept = tree.map_structure(lambda new, old: tf.where(t_mask, new, old), new_states, states)
        return tf.where(t_mask, new_output, skipped), kept

    output = _first_output(cell, xs, states, step)
    loop = _unrolled if unroll else _while
    output, outputs, states = loop(advance, xs, mask, output, list(states), steps, return_sequences)
    if not return_sequences:
        return output, output[:, None], states
    return output, tf.transpose(outputs, [1, 0, 2]), states


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


def _time_major(mask):
    mask = ops.cast(mask, "bool")
    return tf.transpose(mask if len(mask.shape) == 3 else mask[:, :, None], [1, 0, 2])


def _first_output(cell, xs, states, step):
    """What a masked first step repeats: zeros like an output."""
    if isinstance(cell, Cell):
        return tf.zeros_like(states[0])
    # Keras asks cells for their state's size, not for their output's: this one step, of which
    # only the shape is used, shows it.
    return tf.zeros_like(step(xs[0], states)[0])


def _prepare(cell, sequences, states, training):
    """The tensor to step through, and the step."""
    sequences = ops.cast(sequences, getattr(cell, "compute_dtype", sequences.dtype))
    if isinstance(cell, Cell):
        input_masks, state_masks = cell.dropout_masks(sequences, states, training)

        def product(gates, v):
            return cell.product(gates, v, state_masks)

        def step(x, states):
            new_states = list(cell.step(x, states, product))
            return new_states[0], new_states

        return cell.project(sequences, input_masks), step

    def keras_step(x, states):
        output, new_states = cell(x, states)
        return output, list(new_states) if tree.is_nested(new_states) else [new_states]

    return sequences, keras_step


def _run_stacked(cells, sequences, states, mask, go_backwards, options):
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
            **options,
        )
        final_states.append(final if nested else final[0])
        if go_backwards:
            mask = None if mask is None else tf.reverse(mask, [1])
            go_backwards = False
    return last, sequences, final_states


def _unrolled(advance, xs, mask, output, states, steps, return_sequences):
    masks = [None] * steps if mask is None else tf.unstack(mask)
    outputs = []
    for t_x, t_mask in zip(tf.unstack(xs), masks, strict=True):
        output, states = advance(t_x, t_mask, output, states)
        outputs.append(output)
    return output, tf.stack(outputs) if return_sequences else None, states


def _while(advance, xs, mask, output, states, steps, return_sequences):
    def array(value):
        return tf.TensorArray(value.dtype, steps, element_shape=value.shape[1:]).unstack(value)

    x_array = array(xs)
    mask_array = None if mask is None else array(mask)
    # Without sequences a length of 0 keeps the loop's signature the same and stores nothing.
    out_array = tf.TensorArray(
        output.dtype, steps if return_sequences else 0, element_shape=output.shape
    )

    def body(t, out_array, output, states):
        t_mask = None if mask_array is None else mask_array.read(t)
        output, states = advance(x_array.read(t), t_mask, output, states)
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
