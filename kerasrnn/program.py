"""The recurrence as XLA programs, with one backward loop for all cells.

    forward     s_t = step(p_t, s_{t-1}), keeping s_t and the value of each `product` in the step
    backward    at each t, from the last: the step once more under a tape, with the kept values in
                the place of the products, each plus a zero tensor, its *tap*. The state gradient
                that the loop carries back is ∂J/∂s_t; a tap's gradient is that of its product.
    after it    every weight's gradient, from all taps of all steps, in one large product

A cell brings `step` and nothing else. Compare Appleyard et al. (2016), section 3, for taking what
does not depend on the state out of the loop.
"""

import keras
import tensorflow as tf

# What has no part in a step, so that cells which differ in it share a program.
_NOT_IN_THE_STEP = ("initializer", "regularizer", "constraint", "dropout", "seed", "name")
_NOT_IN_THE_STEP += ("recurrent_dropout_form", "initial_state", "vanishing_gradient_regularization")


def run(cell, x, states, rows, fresh, noise, start, stop, history, keep, probes=()):
    """Runs the steps from `start` to before `stop`; differentiable.

    Args:
        cell: A `Cell` of a registered class.
        x: The projected inputs, (time, batch, gates * units).
        states: The initial states, each (batch, units).
        rows: What else a step is told, over time: "mask" and "reset", (time, batch, 1) booleans,
            and "zones", a dictionary; those there are.
        fresh: The states that a reset sets back to, or an empty list.
        noise: The cell's `Noise`, of which `zones` are among the rows.
        start, stop: Scalar integers.
        history: Of how many states, from the first, to return the values at every step.
        keep: Whether to keep what a gradient needs; without it, one that is asked for all the same
            runs the loop again.
        probes: For each state zeros, (time, batch, units), whose gradient is that of the state
            after each step; or nothing.

    Returns:
        The final states, and a list: the first states over time, (time, batch, units), of which the
        rows from `start` to before `stop` count, as many as asked for and the first where all are
        kept.
    """
    program = _program_for(cell)
    weights = [tf.convert_to_tensor(cell.weights[i].value) for i in program.used]
    dropped = [mask for mask in noise.products if mask is not None]
    around = _apart({"rows": rows, "dropped": dropped, "candidate": _some(noise.candidate)})
    blocks = [cell.recurrent_blocks(gates, noise.products) for gates, _ in program.calls]

    # The same program for layers with and without: what is kept is there anyway.
    history = max(history, 1) if keep else history

    @tf.custom_gradient
    def loop(x, states, weights, fresh, probes):
        # A tape that watches for a second gradient would want a derivative of the programs.
        given = _apart((x, states, weights, fresh, blocks))
        final, histories, kept = program.forward(
            *given, around, start, stop, keep=keep, history=history
        )

        @tf.custom_gradient
        def gradients(x, states, weights, fresh, d_final, d_output):
            befores, values = histories, kept
            if not keep:
                _, befores, values = program.forward(*given, around, start, stop)
            # Blocks in the order in which the product reads them make it twice as fast; see where
            # they are turned back.
            turned = tf.nest.map_structure(tf.transpose, blocks)
            d_xs, d_states, d_fresh, d_taps, d_inner, d_after = program.backward(
                *_apart((x, weights, fresh, turned, d_final, d_output)),
                *(around, start, stop, befores, values),
                probed=bool(probes),
            )
            d_x = d_xs[0] if d_xs else program.in_order(d_taps)
            steps = _steps(slice(start, stop), [rows, befores, values, d_taps])
            d_weights = program.weight_gradients(weights, fresh, dropped, *steps, d_inner)

            def second(*d_gradients):
                given = [x, states, weights, fresh, d_final, d_output]
                first = d_gradients[: len(d_gradients) - len(probes)]
                return program.second_gradients(given, around, start, stop, first)

            return (d_x, *d_states, *d_weights, *d_fresh, *d_after), second

        def gradient(*d):
            d_final, d_output = list(d[: len(final)]), list(d[len(final) :])
            flat = gradients(x, states, weights, fresh, d_final, d_output)
            return tf.nest.pack_sequence_as([x, states, weights, fresh, probes], flat)

        return (*final, *(h[1:] for h in histories[:history])), gradient

    results = loop(x, list(states), weights, fresh, list(probes))
    return list(results[: len(states)]), list(results[len(states) :])


_PROGRAMS = {}


def _program_for(cell):
    """The one program of all cells that take the same step."""
    config = cell.get_config()
    taken = {k: v for k, v in config.items() if not k.endswith(_NOT_IN_THE_STEP)}
    key = type(cell), cell.compute_dtype, repr(taken)
    if key not in _PROGRAMS:
        with tf.init_scope():
            _PROGRAMS[key] = Program(
                *(_built(cell, config | d) for d in ({}, {"dtype": "float64"}))
            )
    return _PROGRAMS[key]


def _built(cell, config):
    # Whether a program is there already must not show in what a user draws at random.
    for name in config:
        kind = name.rpartition("_")[2]
        config[name] = {"initializer": "zeros", "seed": 0}.get(kind, config[name])
    pattern = type(cell).from_config(config)
    pattern.build((None, 1))
    return pattern


class Program:
    """The two loops of one kind of cell.

    Args:
        cell: A built cell; its weights' values take no part, those of the cell that runs come in.
        precise: The same in float64, to look at.

    Attributes:
        calls: For each `product` in a step the gates it names and the number of the state it
            multiplies, or `None` where it multiplies something else.
        used: Which of the cell's weights a step uses.
        inner: Which of these it uses outside of products.
        summed: Whether a step sees each gate's projected input only in a sum with its product, so
            that the sum stands for both.
    """

    def __init__(self, cell, precise):
        self.cell = cell
        self._look(precise)
        self.forward = tf.function(self._forward, jit_compile=True, autograph=False)
        self.backward = tf.function(self._backward, jit_compile=True, autograph=False)

    def _look(self, cell):
        """Takes one step on random numbers to see what it does."""
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            draw = tf.random.stateless_normal
            weights = [draw(w.shape, (0, i), dtype=w.dtype) for i, w in enumerate(cell.weights)]
            # As many rows as show each side of an activation that is flat on one.
            states = [
                draw((64, cell.units), (1, i), dtype="float64") for i, _ in enumerate(cell.states)
            ]
            x = draw((64, len(cell.gates) * cell.units), (2, 0), dtype="float64")
            calls, results = [], []

            def product(gates, v):
                calls.append((gates, _position(v, states)))
                results.append(cell.product(gates, v))
                return tf.stop_gradient(results[-1])

            def sum_for_both(gates, v):
                return cell.product(gates, v) + x[:, cell.columns(gates)]

            mapping = list(zip(cell.weights, weights, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                new_states = cell.advance(x, states, product)
                of_step = tf.gradients(new_states, weights)
                of_products = tf.gradients(results, weights) if results else of_step
                one_each = sorted(g for gates, _ in calls for g in gates) == sorted(cell.gates)
                self.summed = False
                if one_each:
                    again = cell.advance(tf.zeros_like(x), states, sum_for_both)
                    differences = [
                        tf.reduce_max(tf.abs(a - b)) for a, b in zip(again, new_states, strict=True)
                    ]
                    self.summed = max(session.run(differences)) < 1e-9

        pairs = list(zip(of_step, of_products, strict=True))
        self.calls = calls
        self.used = [i for i, pair in enumerate(pairs) if pair != (None, None)]
        self.inner = [k for k, i in enumerate(self.used) if of_step[i] is not None]

    def _with(self, weights):
        """A scope in which the cell's weights have the values given."""
        mine = [self.cell.weights[i] for i in self.used]
        return keras.StatelessScope(state_mapping=list(zip(mine, weights, strict=True)))

    def _forward(
        self, x, states, weights, fresh, blocks, around, start, stop, keep=True, history=1
    ):
        steps, cell = _length(x), self.cell
        masks = tuple(around["dropped"]) or (None,)
        shown = states if keep else states[:history]
        histories = [_writer(steps + 1, s).write(start, s) for s in shown]
        kept = [_writer(steps, states[0], size) for size in self._kept_sizes() if keep]

        def body(t, row, carried):
            states, histories, kept = carried
            x_t, at = row
            before = set_back(at, fresh, states)
            values, block = [], iter(blocks)

            def product(gates, v):
                value = cell.product(gates, v, masks, next(block))
                values.append(value + x_t[:, cell.columns(gates)] if self.summed else value)
                if _position(v, before) is None:
                    values.append(v)
                return value

            with self._with(weights):
                new = self._advance(x_t, before, product, at, around)
            if "mask" in at:
                new = [tf.where(at["mask"], n, s) for n, s in zip(new, before, strict=True)]
            histories = [a.write(t + 1, n) for a, n in zip(histories, new, strict=False)]
            kept = [a.write(t, v) for a, v in zip(kept, values, strict=False)]
            return new, histories, kept

        carried = (list(states), histories, kept)
        final, histories, kept = _loop(start, stop, 1, [x, around["rows"]], carried, body)
        return final, [a.stack() for a in histories], [a.stack() for a in kept]

    def _advance(self, x, states, product, at, around):
        (candidate,) = around["candidate"] or [None]
        return list(self.cell.advance(x, states, product, at.get("zones"), candidate))

    def _kept_sizes(self):
        units = self.cell.units
        for gates, position in self.calls:
            yield len(gates) * units
            if position is None:
                yield units

    def _backward(
        self,
        x,
        weights,
        fresh,
        turned,
        d_final,
        d_output,
        around,
        start,
        stop,
        befores,
        kept,
        probed=False,
    ):
        steps, cell = _length(x), self.cell
        masks = tuple(around["dropped"]) or (None,)
        inner = [weights[i] for i in self.inner]
        # Where the kept sums stand for the projected inputs, their gradient is that of the taps.
        xs = [] if self.summed else [x]
        d_xs = [_writer(steps, d_final[0], x.shape[-1]) for _ in xs]
        d_taps = [_writer(steps, d_final[0], len(gates) * cell.units) for gates, _ in self.calls]
        d_after = [_writer(steps, d) for d in d_final if probed]

        def body(t, row, carried):
            d_states, d_fresh, d_xs, d_taps, d_inner, d_after = carried
            x_t, at, states, values, d_output = row
            x_t = x_t[0] if x_t else tf.zeros_like(x[0])
            states = set_back(at, fresh, states)
            d_new = [d + o for d, o in zip(d_states, d_output, strict=False)]
            d_new += d_states[len(d_new) :]
            d_after = [a.write(t, d) for a, d in zip(d_after, d_new, strict=False)]
            d_step = d_new
            if "mask" in at:
                d_step = [tf.where(at["mask"], d, tf.zeros_like(d)) for d in d_new]

            # Turned back inside of the loop, where XLA sees that it need not be done.
            values, block = iter(values), iter(tf.nest.map_structure(tf.transpose, turned))
            taps = []
            with tf.GradientTape() as tape:
                # Before the scope, which casts the weights.
                tape.watch([x_t, *states, *inner])

                def product(gates, v):
                    value = next(values)
                    if _position(v, states) is None:
                        next(values)
                    taps.append(tf.zeros_like(value))
                    tape.watch(taps[-1])
                    return self._tapped(gates, v, masks, next(block), weights, value, taps[-1])

                with self._with(weights):
                    new = self._advance(x_t, states, product, at, around)
            gradients = tape.gradient(
                new,
                {"x": [x_t], "states": states, "taps": taps, "inner": inner},
                output_gradients=d_step,
                unconnected_gradients="zero",
            )
            d_states = gradients["states"]
            if "mask" in at:
                pairs = zip(d_states, d_new, strict=True)
                d_states = [tf.where(at["mask"], d, passed) for d, passed in pairs]
            if "reset" in at:
                zeros = [tf.zeros_like(d) for d in d_states]
                of_fresh = set_back(at, d_states, zeros)
                d_fresh = [d + f for d, f in zip(d_fresh, of_fresh, strict=True)]
                d_states = set_back(at, zeros, d_states)
            d_xs = [a.write(t, d) for a, d in zip(d_xs, gradients["x"], strict=False)]
            d_taps = [a.write(t, d) for a, d in zip(d_taps, gradients["taps"], strict=True)]
            d_inner = [a + d for a, d in zip(d_inner, gradients["inner"], strict=True)]
            return d_states, d_fresh, d_xs, d_taps, d_inner, d_after

        none_yet = [[tf.zeros_like(v) for v in vs] for vs in (fresh, inner)]
        d_states, d_fresh, d_xs, d_taps, d_inner, d_after = _loop(
            stop - 1,
            start - 1,
            -1,
            [xs, around["rows"], befores, kept, d_output],
            (d_final, none_yet[0], d_xs, d_taps, none_yet[1], d_after),
            body,
        )
        d_xs, d_taps, d_after = ([a.stack() for a in arrays] for arrays in (d_xs, d_taps, d_after))
        return d_xs, d_states, d_fresh, d_taps, d_inner, d_after

    def in_order(self, d_taps):
        """The taps' gradients side by side as their gates are in the kernels."""
        first = [self.cell.columns(gates).start for gates, _ in self.calls]
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

    def second_gradients(self, given, around, start, stop, d_gradients):
        """The gradients of the first gradients, by TensorFlow's own way through the loop."""
        x, states, weights, fresh, d_final, d_output = given
        of = [x, states, weights, fresh]
        with tf.GradientTape() as second:
            second.watch(given)
            with tf.GradientTape() as first:
                first.watch(of)
                with self._with(weights):
                    masks = tuple(around["dropped"]) or (None,)
                    blocks = [self.cell.recurrent_blocks(gates, masks) for gates, _ in self.calls]
                final, histories, _ = self._forward(
                    *of, blocks, around, start, stop, keep=False, history=len(d_output)
                )
                results = [*final, *(h[1:] for h in histories)]
            gradients = first.gradient(
                results,
                tf.nest.flatten(of),
                output_gradients=[*d_final, *d_output],
                unconnected_gradients="zero",
            )
        return second.gradient(
            gradients, given, output_gradients=list(d_gradients), unconnected_gradients="zero"
        )

    def weight_gradients(self, weights, fresh, dropped, rows, before, kept, d_taps, d_inner):
        """The gradients of a step's weights, for all steps at once."""
        before, kept = set_back(rows, fresh, before), iter(kept)
        with tf.GradientTape() as tape:
            # Before the scope, which casts them.
            tape.watch(weights)
            products = []
            with self._with(weights):
                for gates, position in self.calls:
                    next(kept)
                    v = next(kept) if position is None else before[position]
                    spread = [_rows(tf.broadcast_to(m, tf.shape(v))) for m in dropped]
                    masks = tuple(spread) or (None,)
                    products.append(self.cell.product(gates, _rows(v), masks))
        gradients = [tf.zeros_like(w) for w in weights]
        if products:
            gradients = tape.gradient(
                products,
                weights,
                output_gradients=[_rows(d) for d in d_taps],
                unconnected_gradients="zero",
            )
        for i, d in zip(self.inner, d_inner, strict=True):
            gradients[i] += d
        return gradients


def _some(value):
    """A structure of tensors, which `None` is none of."""
    return [] if value is None else [value]


def _apart(tensors):
    return tf.nest.map_structure(tf.stop_gradient, tensors)


def set_back(at, fresh, states):
    """The states a step starts from: `fresh` ones where `at` says that an episode begins."""
    if "reset" not in at:
        return states
    return tf.nest.map_structure(lambda f, s: tf.where(at["reset"], f, s), fresh, states)


def _steps(which, values):
    return tf.nest.map_structure(lambda v: v[which], values)


def _position(v, states):
    """Which of the states `v` is; comparing tensors by value would run them."""
    return next((i for i, state in enumerate(states) if state is v), None)


def _length(tensor):
    return tensor.shape[0] if tensor.shape[0] is not None else tf.shape(tensor)[0]


def _rows(tensor):
    return tf.reshape(tensor, [-1, tensor.shape[-1]])


def _loop(first, end, by, reads, carried, body):
    """Calls `carried = body(t, row, carried)` for t from `first` to before `end`, where `row` are
    the rows t of the tensors in `reads`."""

    def row(t):
        def one(tensor):
            return tf.gather(tensor, tf.clip_by_value(t, 0, _length(tensor) - 1))

        return tf.nest.map_structure(one, reads)

    # A row read the turn before is a tensor of its own. One read where it is used XLA makes part of
    # that computation, and looks its place up for every element instead of running on vectors.
    def turn(t, row_t, carried):
        return t + by, row(t + by), body(t, row_t, carried)

    return tf.while_loop(lambda t, *_: t != end, turn, (first, row(first), carried))[2]


def _writer(steps, like, size=None):
    """An array of tensors of the shape of `like`, or of another `size` of the last axis."""
    shape = like.shape[:-1].concatenate(like.shape[-1] if size is None else size)
    return tf.TensorArray(like.dtype, steps, element_shape=shape)
