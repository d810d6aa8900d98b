"""The time loop: the one place that runs a cell over a sequence."""

import inspect

import keras
import tensorflow as tf
from keras import ops, tree

from kerasrnn import compiled
from kerasrnn.cells import CELLS
from kerasrnn.cells.base import Cell

# Steps times columns of the kernels from which on compiling pays; a sequence of unknown length
# counts as one of 64 steps.
WORTH_COMPILING = 2048
# What Keras's trainer calls the functions it traces, and what those are called that it or
# TensorFlow trace to save a model.
_KERAS_STEPS = {
    "one_step_on_data",
    "one_step_on_data_distributed",
    "multi_step_on_data",
    "multi_step_on_iterator",
}
_KERAS_EXPORTS = {"__call__", "serving_default"}
# A function of the user's own has no name to find it by in a program of its own.
_ACTIVATIONS = {f for f in vars(keras.activations).values() if inspect.isfunction(f)}


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

    if sequences.shape[1] is None:
        sequences = _some_steps(sequences)
    if mask is not None:
        mask = ops.cast(mask, "bool")
        mask = mask if len(mask.shape) == 3 else mask[:, :, None]
        # One row may stand for all.
        shape = [n or tf.shape(sequences)[i] for i, n in enumerate(sequences.shape[:2])]
        mask = tf.broadcast_to(mask, [*shape, 1])
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
        mask = tf.transpose(mask, [1, 0, 2])
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
        and _in_a_step(training)
        and type(cell) in CELLS.values()
        and _ACTIVATIONS.issuperset(_activations(cell))
        and (sequences.shape[1] or 64) * len(cell.gates) * cell.units >= WORTH_COMPILING
        and not any(tf.config.list_logical_devices(kind) for kind in ("GPU", "TPU"))
    )


def _activations(cell):
    return cell.activation, getattr(cell, "recurrent_activation", keras.activations.sigmoid)


def _in_a_step(training):
    """Whether what is traced is a step of `fit`, `evaluate` or `predict`, or of a training loop of
    the user's own: any other graph may be exported, and has to run where there is no XLA."""
    names, graph = set(), tf.compat.v1.get_default_graph()
    while graph is not None:
        names.add(getattr(graph, "name", None))
        graph = getattr(graph, "outer_graph", None)
    return bool(names & _KERAS_STEPS) or (training is True and not names & _KERAS_EXPORTS)


def _some_steps(sequences):
    least_one = tf.debugging.assert_positive(
        tf.shape(sequences)[1], "`sequences` must have at least one time step"
    )
    with tf.control_dependencies([least_one]):
        return tf.identity(sequences)


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
    out_arrays = []
    if return_sequences:
        out_arrays = [tf.TensorArray(output.dtype, steps, element_shape=output.shape)]

    def body(t, out_arrays, output, states):
        t_mask = None if mask_array is None else mask_array.read(t)
        output, states = advance(x_array.read(t), t_mask, output, states)
        return t + 1, [array.write(t, output) for array in out_arrays], output, states

    _, out_arrays, output, states = tf.while_loop(
        lambda t, *_: t < steps,
        body,
        (tf.constant(0), out_arrays, output, states),
        maximum_iterations=steps,
        parallel_iterations=32,
        swap_memory=True,
    )
    return output, out_arrays[0].stack() if return_sequences else None, states
