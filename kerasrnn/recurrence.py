"""The time loop: the one place that runs a cell over a sequence."""

import contextlib
import contextvars
import inspect

import keras
import tensorflow as tf
from keras import ops, tree

from kerasrnn import compiled, linear, program, regularization
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
_TAP = contextvars.ContextVar("tap", default=None)


@contextlib.contextmanager
def tapped(tap):
    """Inside, taps are added to the states of every cell after each step: what depends on a state
    depends on its tap in the same way, a repeated output too. Cells run in the plain loop, or,
    where a graph is traced and nothing is masked, in the XLA programs.

    Args:
        tap: `tap(cell, states, steps)`, called before the first step, gives the taps of one cell,
            zeros, nested like its states, each (steps, batch, size), in the order of the steps.
    """
    token = _TAP.set(tap)
    try:
        yield
    finally:
        _TAP.reset(token)


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
        `return_sequences`; the final states, those of a linear recurrence in float32 where the
        outputs are in half precision.
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

    if sequences.shape[1] is None:
        sequences = _some_steps(sequences)
    shape = [n or tf.shape(sequences)[i] for i, n in enumerate(sequences.shape[:2])]
    if mask is not None:
        mask = ops.cast(mask, "bool")
        mask = mask if len(mask.shape) == 3 else mask[:, :, None]
        # One row may stand for all.
        mask = tf.broadcast_to(mask, [*shape, 1])
    states, fresh = list(states), []
    if reset is not None:
        reset = tf.broadcast_to(reset, shape)
        reset = (borders(reset) if go_backwards else reset)[:, :, None]
        fresh = _initial_states(cell, sequences)
    if isinstance(cell, Cell):
        states, fresh = ([ops.cast(v, cell.state_dtype) for v in vs] for vs in (states, fresh))
    given = compiled.Pass(
        cell,
        sequences,
        states,
        mask,
        training,
        go_backwards,
        zero_output_for_mask,
        return_sequences,
        unroll,
        reset,
        fresh,
        [],
    )
    if _compiles(given):
        if tap := _TAP.get():
            taps = tap(cell, given.states, shape[1])
            given = given._replace(taps=[tf.transpose(t, [1, 0, 2]) for t in tree.flatten(taps)])
        output, outputs, final = compiled.run(given)
    elif isinstance(cell, Cell) and cell.linear and not unroll and not _TAP.get():
        output, outputs, final = _run_linear(given)
    else:
        output, outputs, final = _run_loop(given)
    dtype = getattr(cell, "compute_dtype", output.dtype)
    return ops.cast(output, dtype), ops.cast(outputs, dtype), final


def _run_loop(given):
    cell, states = given.cell, given.states
    xs, zones, step = _prepare(given)
    rows = {"x": xs, "zones": zones, "mask": given.mask, "reset": given.reset}
    rows = {name: _time_major(row) for name, row in rows.items() if row is not None}
    xs = rows["x"]
    steps = xs.shape[0] if xs.shape[0] is not None else tf.shape(xs)[0]
    if given.go_backwards:
        rows = tf.nest.map_structure(lambda row: tf.reverse(row, [0]), rows)

    def advance(row, output, states):
        states = program.set_back(row, given.fresh, states)
        new_output, new_states = step(row, states)
        if "mask" not in row:
            return new_output, new_states
        skipped = tf.zeros_like(output) if given.zero_output_for_mask else output
        if (taps := row.get("taps")) is not None:
            states = _plus(states, taps)
            if not given.zero_output_for_mask:
                skipped = skipped + _of_the_same(new_output, new_states, taps, default=0)
        new_output = tf.where(row["mask"], new_output, skipped)
        return new_output, _where(row["mask"], new_states, states)

    output = _first_output(cell, xs, states, step)
    # After that, so that who watches a cell from its taps on sees the steps and nothing else.
    if tap := _TAP.get():
        rows["taps"] = tap(cell, states, steps)
    loop = _unrolled if given.unroll else _while
    output, outputs, states = loop(advance, rows, output, states, steps, given.return_sequences)
    if not given.return_sequences:
        return output, output[:, None], states
    return output, tf.transpose(outputs, [1, 0, 2]), states


def _where(condition, new, old):
    return tree.map_structure(lambda n, o: tf.where(condition, n, o), new, old)


def _plus(states, taps):
    return states if taps is None else tree.map_structure(tf.add, states, taps)


def _of_the_same(output, states, others, default):
    """What stands in `others` where `states` holds the output itself, or `default`."""
    pairs = zip(tree.flatten(states), tree.flatten(others), strict=True)
    return next((other for state, other in pairs if state is output), default)


def borders(reset):
    """Where the states are set back on the way from the last step to the first: an episode that
    begins at t is left, backwards, at t, so that the one before it begins, backwards, at t - 1."""
    return tf.concat([reset[:, 1:], tf.zeros_like(reset[:, :1])], 1)


def _initial_states(cell, sequences):
    """The states an episode begins with."""
    fresh = cell.get_initial_state(batch_size=tf.shape(sequences)[0])
    return list(fresh) if tree.is_nested(fresh) else [fresh]


def _compiles(given):
    """Whether the XLA programs serve: in the graph of a step of training, evaluation or prediction,
    on a CPU, for cells whose configuration says all about their step."""
    cell = given.cell
    return (
        not given.unroll
        # A batch of no rows cannot be cut.
        and given.sequences.shape[0] != 0
        # The programs pass over steps that are masked in all rows, which a tap is to see, too.
        and not (_TAP.get() and given.mask is not None)
        and not _regularizes(given)
        and not tf.executing_eagerly()
        and (_TAP.get() or _in_a_step(given.training))
        and type(cell) in CELLS.values()
        and _ACTIVATIONS.issuperset(_activations(cell))
        and (given.sequences.shape[1] or 64) * len(cell.gates) * cell.units >= WORTH_COMPILING
        and not any(tf.config.list_logical_devices(kind) for kind in ("GPU", "TPU"))
    )


def _regularizes(given):
    return given.training and getattr(given.cell, "vanishing_gradient_regularization", 0)


def _activations(cell):
    return [value for name, value in vars(cell).items() if name.endswith("activation")]


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


def _time_major(row):
    return tf.nest.map_structure(lambda value: tf.transpose(value, [1, 0, 2]), row)


def _run_linear(given):
    """Runs a linear recurrence from its coefficients, all steps at once."""
    cell = given.cell
    sequences = ops.cast(given.sequences, cell.compute_dtype)
    noise = cell.noise(sequences, given.states, given.training)
    rows = {"x": sequences, "zones": noise.zones, "mask": given.mask, "reset": given.reset}
    rows = {name: row for name, row in rows.items() if row is not None}
    if given.go_backwards:
        rows = tf.nest.map_structure(lambda row: tf.reverse(row, [1]), rows)
    xs = compiled.project(cell, rows.pop("x"), noise.inputs)
    rows = _time_major(rows)
    mask, reset = rows.get("mask"), rows.get("reset")
    a, b = ([v] if tf.is_tensor(v) else list(v) for v in cell.coefficients(xs))
    if noise.candidate is not None:
        b = [v * noise.candidate for v in b]
    for zoned, rate in cell.zone_rates.items():
        z = rows["zones"][zoned] if "zones" in rows else rate
        # z ∘ h + (1 - z) ∘ (a ∘ h + b)
        a, b = ([(1 - z) * v for v in vs] for vs in (a, b))
        a[0] += z
    if mask is not None or reset is not None:
        a = [tf.broadcast_to(v, tf.shape(b[0])) for v in a]
    if mask is not None:
        one = [tf.ones_like(a[0]), *(tf.zeros_like(v) for v in a[1:])]
        a, b = _where(mask, a, one), [tf.where(mask, v, tf.zeros_like(v)) for v in b]
    if reset is not None:
        b = _where(reset, linear.step(a, given.fresh, b), b)
        a = [tf.where(reset, tf.zeros_like(v), v) for v in a]

    history = linear.scan(a, b, given.states)
    outputs = cell.output(xs, history)
    if mask is not None and given.zero_output_for_mask:
        outputs = tf.where(mask, outputs, tf.zeros_like(outputs))
    elif mask is not None:
        outputs = linear.repeated(outputs, mask)
    final = [v[-1] for v in history]
    if not given.return_sequences:
        return outputs[-1], outputs[-1][:, None], final
    return outputs[-1], tf.transpose(outputs, [1, 0, 2]), final


def _first_output(cell, xs, states, step):
    """What a masked first step repeats: zeros like an output."""
    if isinstance(cell, Cell):
        return tf.zeros_like(cell.output(xs[0], states))
    # Keras asks cells for their state's size, not for their output's: this one step, of which
    # only the shape is used, shows it.
    return tf.zeros_like(step({"x": xs[0]}, states)[0])


def _prepare(given):
    """The tensor to step through, what else is random per step, and the step."""
    cell, sequences = given.cell, given.sequences
    sequences = ops.cast(sequences, getattr(cell, "compute_dtype", sequences.dtype))
    if isinstance(cell, Cell):
        noise = cell.noise(sequences, given.states, given.training)
        regularized = regularization.regularizer(cell, noise) if _regularizes(given) else None

        def product(gates, v):
            return cell.product(gates, v, noise.products)

        def step(row, states):
            x, zones = row["x"], row.get("zones")
            new_states = cell.advance(x, states, product, zones, noise.candidate)
            if regularized:
                new_states = regularized(x, zones, row.get("reset"), states, new_states)
            new_states = _plus(new_states, row.get("taps"))
            return cell.output(x, new_states), new_states

        return cell.project(sequences, noise.inputs), noise.zones, step

    def keras_step(row, states):
        output, new_states = cell(row["x"], states)
        new_states = list(new_states) if tree.is_nested(new_states) else [new_states]
        tapped = _plus(new_states, row.get("taps"))
        return _of_the_same(output, new_states, tapped, default=output), tapped

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
            reset = None if reset is None else tf.reverse(borders(reset), [1])
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
    out_arrays = []
    if return_sequences:
        out_arrays = [tf.TensorArray(output.dtype, steps, element_shape=output.shape)]

    def body(t, out_arrays, output, states):
        row = tf.nest.map_structure(lambda array: array.read(t), arrays)
        output, states = advance(row, output, states)
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
