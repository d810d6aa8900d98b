"""The recurrence as XLA programs, with one backward loop for all cells.

    forward     s_t = step(p_t, s_{t-1}), keeping s_t and the value of each `product` in the step
    backward    at each t, from the last: the step once more under a tape, with the kept values in
                the place of the products, each plus a zero tensor, its *tap*. The state gradient
                that the loop carries back is ∂J/∂s_t; a tap's gradient is that of its product.
    after it    every weight's gradient, from all taps of all steps, in one large product

A cell brings `step` and nothing else. Compare Appleyard et al. (2016), section 3, for taking what
does not depend on the state out of the loop.
"""

import concurrent.futures
import functools

import keras
import tensorflow as tf

from kerasrnn.recurrence import sequence
from kerasrnn.recurrence.prefix_scan import identity, length
from kerasrnn.recurrence.structure import observed, pattern, position, step_key


def run(cell, x, states, steps, episode_start, noise, start, stop, history, keep, state_taps=()):
    """Runs the steps from `start` to before `stop`; differentiable.

    Args:
        cell: A `Cell` of a registered class.
        x: The projected inputs, (time, batch, gates * units).
        states: The initial states, each (batch, units).
        steps: What else a step is told, over time: "mask" and "reset", (time, batch, 1) booleans,
            and "zones", a dictionary; those there are.
        episode_start: The states that a reset sets back to, or an empty list.
        noise: The cell's `Noise`, of which `zones` are among the `steps`.
        start, stop: Scalar integers.
        history: Of how many states, from the first, to return the values at every step.
        keep: Whether to keep what a gradient needs; without it, one that is asked for all the same
            runs the loop again.
        state_taps: For each state zeros, (time, batch, units), whose gradient is that of the state
            after each step; or nothing.

    Returns:
        The final states, and a list: the first states over time, (time, batch, units), of which the
        rows from `start` to before `stop` count, as many as asked for and the first where all are
        kept.
    """
    program = _program_for(cell)
    weights = [tf.convert_to_tensor(cell.weights[i].value) for i in program.structure.used]
    dropped = [mask for mask in noise.products if mask is not None]
    candidate = [] if noise.candidate is None else [noise.candidate]
    constants = _constant({"steps": steps, "dropped": dropped, "candidate": candidate})
    calls = program.structure.calls
    blocks = [cell.recurrent_blocks(gates, noise.products) for gates, _ in calls]

    # The same program for layers with and without: what is kept is there anyway.
    history = max(history, 1) if keep else history

    @tf.custom_gradient
    def loop(x, states, weights, episode_start, state_taps):
        # A tape that watches for a second gradient would want a derivative of the programs.
        inputs = _constant((x, states, weights, episode_start, blocks))
        final, histories, kept = _constant(
            program.forward(*inputs, constants, start, stop, keep=keep, history=history)
        )

        @tf.custom_gradient
        def gradients(x, states, weights, episode_start, d_final, d_output):
            # A gradient of this function sees what is in its graph, and not in that of the loop.
            among = identity((constants, start, stop))
            befores, values = histories, kept
            if not keep:
                _, befores, values = _constant(program.forward(*inputs, constants, start, stop))
            # Blocks in the order in which the product reads them make it twice as fast; see where
            # they are turned back.
            turned = tf.nest.map_structure(tf.transpose, blocks)
            # Where the kept sums stand for the projected inputs, these need not be kept as well.
            of_steps = [] if program.structure.summed else [x]
            d_xs, d_states, d_start, d_taps, d_inner, d_after = program.backward(
                *_constant((of_steps, weights, episode_start, turned, d_final, d_output)),
                *(constants, start, stop, befores, values),
                tapped=bool(state_taps),
            )
            d_x = d_xs[0] if d_xs else program.in_order(d_taps)
            now = _steps(slice(start, stop), [steps, befores, values, d_taps])
            d_weights = program.weight_gradients(weights, episode_start, dropped, *now, d_inner)

            def second(*d_gradients):
                inputs = [x, states, weights, episode_start, d_final, d_output]
                first = d_gradients[: len(d_gradients) - len(state_taps)]
                return program.second_gradients(inputs, *among, first)

            return (d_x, *d_states, *d_weights, *d_start, *d_after), second

        def gradient(*d):
            d_final, d_output = list(d[: len(final)]), list(d[len(final) :])
            inputs = identity((x, states, weights, episode_start, d_final, d_output))
            flat = gradients(*inputs)
            return tf.nest.pack_sequence_as([x, states, weights, episode_start, state_taps], flat)

        return (*final, *(h[1:] for h in histories[:history])), gradient

    results = loop(*identity((x, list(states), weights, episode_start, list(state_taps))))
    return list(results[: len(states)]), list(results[len(states) :])


_PROGRAMS = {}


def _program_for(cell):
    """The one program of all cells that take the same step."""
    key = step_key(cell)
    if key not in _PROGRAMS:
        _PROGRAMS[key] = where_nothing_is_traced(_made_for, cell)
    return _PROGRAMS[key]


def _made_for(cell):
    return Program(pattern(cell), observed(pattern(cell, dtype="float64")))


def where_nothing_is_traced(make, *args, **kwargs):
    # TensorFlow counts variables that are made in this thread among those of the function that is
    # being traced, even under `init_scope`, and raises where that is traced for a second length.
    with concurrent.futures.ThreadPoolExecutor(1) as other_thread:
        return other_thread.submit(make, *args, **kwargs).result()


def keep_from_export():
    """Keeps the function that is being traced out of every SavedModel, which has to run where there
    is no XLA: TensorFlow refuses to save one that reads a variable of no object that is saved."""
    variable = _of_no_object()
    # Not by the variable's methods, by which a graph, and then Keras, would come to know it.
    tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)


@functools.cache
def _of_no_object():
    # TensorFlow's message names it.
    name = "XLA_programs_cannot_be_exported/trace_again_without_kerasrnn.recurrence.compiled"
    return where_nothing_is_traced(tf.Variable, 0.0, trainable=False, name=name)


class Program:
    """The two loops of one kind of cell.

    Args:
        cell: A built cell; its weights' values take no part, those of the cell that runs come in.
        structure: The `StepStructure` of its step.
    """

    def __init__(self, cell, structure):
        self.cell = cell
        self.structure = structure
        self.forward = tf.function(self._forward, jit_compile=True, autograph=False)
        self.backward = tf.function(self._backward, jit_compile=True, autograph=False)

    def _with(self, weights):
        """A scope in which the cell's weights have the values `weights`."""
        mine = [self.cell.weights[i] for i in self.structure.used]
        return keras.StatelessScope(state_mapping=list(zip(mine, weights, strict=True)))

    def _forward(
        self,
        x,
        states,
        weights,
        episode_start,
        blocks,
        constants,
        start,
        stop,
        keep=True,
        history=1,
    ):
        steps, cell = length(x), self.cell
        masks = tuple(constants["dropped"]) or (None,)
        shown = states if keep else states[:history]
        histories = [_writer(steps + 1, s).write(start, s) for s in shown]
        kept = [_writer(steps, states[0], size) for size in self._kept_sizes() if keep]

        def body(t, row, carried):
            states, histories, kept = carried
            x_t, now = row
            before = sequence.start_states(now, episode_start, states)
            values, block = [], iter(blocks)

            def product(gates, v):
                value = cell.product(gates, v, masks, next(block))
                values.append(
                    value + x_t[:, cell.columns(gates)] if self.structure.summed else value
                )
                if position(v, before) is None:
                    values.append(v)
                return value

            with self._with(weights):
                new = self._advance(x_t, before, product, now, constants)
            new = sequence.unless_masked(now, new, list(before))
            histories = [a.write(t + 1, n) for a, n in zip(histories, new, strict=False)]
            kept = [a.write(t, v) for a, v in zip(kept, values, strict=False)]
            return new, histories, kept

        carried = (list(states), histories, kept)
        final, histories, kept = _loop(start, stop, 1, [x, constants["steps"]], carried, body)
        return final, [a.stack() for a in histories], [a.stack() for a in kept]

    def _advance(self, x, states, product, now, constants):
        (candidate,) = constants["candidate"] or [None]
        return list(self.cell.advance(x, states, product, now.get("zones"), candidate))

    def _kept_sizes(self):
        units = self.cell.units
        for gates, number in self.structure.calls:
            yield len(gates) * units
            if number is None:
                yield units

    def _backward(
        self,
        xs,
        weights,
        episode_start,
        turned,
        d_final,
        d_output,
        constants,
        start,
        stop,
        befores,
        kept,
        tapped=False,
    ):
        steps, cell = length(befores[0]) - 1, self.cell
        masks = tuple(constants["dropped"]) or (None,)
        inner = [weights[i] for i in self.structure.inner]
        # Without projected inputs, for which the kept sums stand, their gradient is the taps'.
        d_xs = [_writer(steps, d_final[0], x.shape[-1]) for x in xs]
        columns = len(cell.gates) * cell.units
        no_x = tf.zeros([tf.shape(d_final[0])[0], columns], d_final[0].dtype)
        d_taps = [
            _writer(steps, d_final[0], len(gates) * cell.units) for gates, _ in self.structure.calls
        ]
        d_after = [_writer(steps, d) for d in d_final if tapped]

        def body(t, row, carried):
            d_states, d_start, d_xs, d_taps, d_inner, d_after = carried
            x_t, now, states, values, d_output = row
            x_t = x_t[0] if x_t else no_x
            states = sequence.start_states(now, episode_start, states)
            d_new = [d + o for d, o in zip(d_states, d_output, strict=False)]
            d_new += d_states[len(d_new) :]
            d_after = [a.write(t, d) for a, d in zip(d_after, d_new, strict=False)]
            nothing = [tf.zeros_like(d) for d in d_new]
            d_step = sequence.unless_masked(now, d_new, nothing)

            # Turned back inside of the loop, where XLA sees that it need not be done.
            values, block = iter(values), iter(tf.nest.map_structure(tf.transpose, turned))
            taps = []
            with tf.GradientTape() as tape:
                # Before the scope, which casts the weights.
                tape.watch([x_t, *states, *inner])

                def product(gates, v):
                    value = next(values)
                    if position(v, states) is None:
                        next(values)
                    taps.append(tf.zeros_like(value))
                    tape.watch(taps[-1])
                    return self._tapped(gates, v, masks, next(block), weights, value, taps[-1])

                with self._with(weights):
                    new = self._advance(x_t, states, product, now, constants)
            of = {"x": [x_t], "states": states, "taps": taps, "inner": inner}
            gradients = _gradients(tape, new, of, d_step, of | {"states": d_step})
            d_states = sequence.unless_masked(now, gradients["states"], d_new)
            if "reset" in now:
                of_start = sequence.start_states(now, d_states, nothing)
                d_start = [d + s for d, s in zip(d_start, of_start, strict=True)]
                d_states = sequence.start_states(now, nothing, d_states)
            d_xs = [a.write(t, d) for a, d in zip(d_xs, gradients["x"], strict=False)]
            d_taps = [a.write(t, d) for a, d in zip(d_taps, gradients["taps"], strict=True)]
            d_inner = [a + d for a, d in zip(d_inner, gradients["inner"], strict=True)]
            return d_states, d_start, d_xs, d_taps, d_inner, d_after

        none_yet = [[tf.zeros_like(v) for v in vs] for vs in (episode_start, inner)]
        d_states, d_start, d_xs, d_taps, d_inner, d_after = _loop(
            stop - 1,
            start - 1,
            -1,
            [xs, constants["steps"], befores, kept, d_output],
            (d_final, none_yet[0], d_xs, d_taps, none_yet[1], d_after),
            body,
        )
        d_xs, d_taps, d_after = ([a.stack() for a in arrays] for arrays in (d_xs, d_taps, d_after))
        return d_xs, d_states, d_start, d_taps, d_inner, d_after

    def in_order(self, d_taps):
        """The taps' gradients side by side as their gates are in the kernels."""
        first = [self.cell.columns(gates).start for gates, _ in self.structure.calls]
        ordered = [d for _, d in sorted(zip(first, d_taps, strict=True), key=lambda pair: pair[0])]
        return tf.concat(ordered, -1) if len(ordered) > 1 else ordered[0]

    def _tapped(self, gates, v, masks, block, weights, value, tap):
        @tf.custom_gradient
        def tapped(v, tap):
            def gradient(d):
                with tf.GradientTape() as tape, self._with(weights):
                    tape.watch(v)
                    product = self.cell.product(gates, v, masks, block)
                return tape.gradient(product, v, d), d

            return value + tap, gradient

        return tapped(v, tap)

    def second_gradients(self, inputs, constants, start, stop, d_gradients):
        """The gradients of the first gradients, by TensorFlow's own way through the loop."""
        x, states, weights, episode_start, d_final, d_output = inputs
        of = [x, states, weights, episode_start]
        with tf.GradientTape() as second:
            second.watch(inputs)
            with tf.GradientTape() as first:
                first.watch(of)
                with self._with(weights):
                    masks = tuple(constants["dropped"]) or (None,)
                    blocks = [
                        self.cell.recurrent_blocks(gates, masks)
                        for gates, _ in self.structure.calls
                    ]
                final, histories, _ = self._forward(
                    *of, blocks, constants, start, stop, keep=False, history=len(d_output)
                )
                results = [*final, *(h[1:] for h in histories)]
            flat = tf.nest.flatten(of)
            gradients = _gradients(first, results, flat, [*d_final, *d_output], flat)
        return _gradients(second, gradients, inputs, list(d_gradients), inputs)

    def weight_gradients(self, weights, episode_start, dropped, now, before, kept, d_taps, d_inner):
        """The gradients of a step's weights, for all steps at once."""
        before, kept = sequence.start_states(now, episode_start, before), iter(kept)
        with tf.GradientTape() as tape:
            # Before the scope, which casts them.
            tape.watch(weights)
            products = []
            with self._with(weights):
                for gates, number in self.structure.calls:
                    next(kept)
                    v = next(kept) if number is None else before[number]
                    spread = [_rows(tf.broadcast_to(m, tf.shape(v))) for m in dropped]
                    masks = tuple(spread) or (None,)
                    products.append(self.cell.product(gates, _rows(v), masks))
        gradients = [tf.zeros_like(w) for w in weights]
        if products:
            gradients = _gradients(tape, products, weights, [_rows(d) for d in d_taps], weights)
        for i, d in zip(self.structure.inner, d_inner, strict=True):
            gradients[i] += d
        return gradients


def _gradients(tape, of, by, d, like):
    """A tape's gradients, in the structure of `by`, with zeros where there are none.

    The zeros come of `like`, and so of what a loop carries: where that is to be vectorized,
    TensorFlow cannot have a constant carried on in its place, as of a state that no step reads.

    Raises:
        NotImplementedError: there are none at all, since while TensorFlow computes a forward-mode
            derivative it lets no tape see anything.
    """
    gradients = tape.gradient(of, by, output_gradients=d)
    if all(gradient is None for gradient in tf.nest.flatten(gradients)):
        raise NotImplementedError(
            "The XLA programs have no forward-mode derivative, as tf.autodiff.ForwardAccumulator "
            "takes it: take it of an eager call, or of a tf.function outside of Keras's fit, "
            "evaluate and predict and of kerasrnn.recurrence.compiled."
        )

    def or_zero(gradient, like):
        return tf.math.multiply_no_nan(like, tf.zeros_like(like)) if gradient is None else gradient

    return tf.nest.map_structure(or_zero, gradients, like)


def _constant(tensors):
    return tf.nest.map_structure(tf.stop_gradient, tensors)


def _steps(which, values):
    return tf.nest.map_structure(lambda v: v[which], values)


def _rows(tensor):
    return tf.reshape(tensor, [-1, tensor.shape[-1]])


def _loop(first, end, by, reads, carried, body):
    """Calls `carried = body(t, row, carried)` for t from `first` to before `end`, where `row` are
    the rows t of the tensors in `reads`."""

    def row(t):
        def one(tensor):
            return tf.gather(tensor, tf.clip_by_value(t, 0, length(tensor) - 1))

        return tf.nest.map_structure(one, reads)

    # A row read the turn before is a tensor of its own. One read where it is used XLA makes part of
    # that computation, and looks its place up for every element instead of running on vectors.
    def turn(t, row_t, carried):
        new = body(t, row_t, carried)
        for now, before in zip(*map(tf.nest.flatten, (new, carried)), strict=True):
            # In a loop over gradients the size of a batch, known before, may have been forgotten.
            if tf.is_tensor(now):
                now.set_shape(before.shape)
        return t + by, row(t + by), new

    return tf.while_loop(lambda t, *_: t != end, turn, (first, row(first), carried))[2]


def _writer(steps, like, size=None):
    """An array of tensors of the shape of `like`, or of another `size` of the last axis."""
    shape = like.shape[:-1].concatenate(like.shape[-1] if size is None else size)
    array = tf.TensorArray(like.dtype, steps, element_shape=shape)
    # Where all steps are masked nothing else is written, of which TensorFlow knows no shape where
    # it vectorizes a gradient.
    return array.write(0, tf.zeros(tf.concat([tf.shape(like)[:-1], shape[-1:]], 0), like.dtype))
