"""The recurrence as XLA programs, with one backward loop for all cells.

    forward     s_t = step(p_t, s_{t-1}), keeping s_t and the value of each `product` in the step
    backward    at each t, from the last: the step once more under a tape, with the kept values in
                the place of the products, each plus a zero tensor, its *tap*. The state gradient
                that the loop carries back is ∂J/∂s_t; a tap's gradient is that of its product.
    after it    every weight's gradient, from all taps of all steps, in one large product

A cell brings `step` and nothing else. Compare Appleyard et al. (2016), section 3, for taking what
does not depend on the state out of the loop.
"""

import os

import keras
import tensorflow as tf

_MOST_PARTS = 4
# What has no part in a step, so that cells which differ in it share a program.
_NOT_IN_THE_STEP = ("initializer", "regularizer", "constraint", "dropout", "seed", "name")


def run(cell, x, states, mask, state_masks):
    """All states over time, differentiable.

    Args:
        cell: A `Cell` of a registered class.
        x: The projected inputs, (time, batch, gates * units).
        states: The initial states, each (batch, units).
        mask: (time, batch, 1) booleans, or `None`.
        state_masks: The dropout masks for `product`.

    Returns:
        A list of tensors (time, batch, units), one per state.
    """
    program = _program_for(cell)
    weights = [tf.convert_to_tensor(cell.weights[i].value) for i in program.used]
    dropped = [] if state_masks == (None,) else list(state_masks)
    # XLA on a CPU runs a program's small operations on one core: a part of the batch per core
    # keeps all of them busy, up to where the parts get too small for their products.
    parts = min(os.cpu_count(), _MOST_PARTS, x.shape[1] or _MOST_PARTS)
    size = tf.shape(x)[1]
    cuts = [size * k // parts for k in range(parts + 1)]

    def part(tensor, k, axis=0):
        index = (slice(None),) * axis + (slice(cuts[k], cuts[k + 1]),)
        return None if tensor is None else tensor[index]

    @tf.custom_gradient
    def loop(x, states, weights, dropped):
        runs = []
        for k in range(parts):
            inputs = (
                part(x, k, 1),
                [part(s, k) for s in states],
                part(mask, k, 1),
                weights,
                [part(m, k) for m in dropped],
            )
            runs.append((inputs, *program.forward(*inputs)))
        histories = _join([history for _, history, _ in runs], axis=1)
        kept = _join([kept for _, _, kept in runs], axis=1)

        def gradient(*d_histories):
            back = [
                program.backward(*inputs, history, kept, [part(d, k, 1) for d in d_histories])
                for k, (inputs, history, kept) in enumerate(runs)
            ]
            d_x, d_taps = (_join([b[name] for b in back], axis=1) for name in ("x", "taps"))
            d_states = _join([b["states"] for b in back], axis=0)
            d_inner = [sum(d) for d in zip(*(b["weights"] for b in back), strict=True)]
            before = _before(states, histories)
            d_weights = program.weight_gradients(weights, dropped, before, kept, d_taps, d_inner)
            return d_x[0], d_states, d_weights, [tf.zeros_like(m) for m in dropped]

        return histories, gradient

    return loop(x, list(states), weights, dropped)


def _join(parts, axis):
    """Puts the parts of a batch together again, tensor by tensor."""
    return [
        tf.concat(tensors, axis) if len(tensors) > 1 else tensors[0]
        for tensors in zip(*parts, strict=True)
    ]


def _before(states, histories):
    """The states that each step started from."""
    return [tf.concat([s[None], h[:-1]], 0) for s, h in zip(states, histories, strict=True)]


_PROGRAMS = {}


def _program_for(cell):
    """The one program of all cells that take the same step."""
    config = cell.get_config()
    taken = {k: v for k, v in config.items() if k.rpartition("_")[2] not in _NOT_IN_THE_STEP}
    key = type(cell), cell.compute_dtype, repr(taken)
    if key not in _PROGRAMS:
        with tf.init_scope():
            pattern = type(cell).from_config(config)
            pattern.build((None, 1))
        _PROGRAMS[key] = Program(pattern)
    return _PROGRAMS[key]


class Program:
    """The two loops of one kind of cell.

    Args:
        cell: A built cell; its weights' values take no part, those of the cell that runs come in.

    Attributes:
        calls: For each `product` in a step the gates it names and the number of the state it
            multiplies, or `None` where it multiplies something else.
        used: Which of the cell's weights a step uses.
        inner: Which of these it uses outside of products.
    """

    def __init__(self, cell):
        self.cell = cell
        self.calls, self.used, self.inner = self._look()
        self.forward = tf.function(self._forward, jit_compile=True, autograph=False)
        self.backward = tf.function(self._backward, jit_compile=True, autograph=False)

    def _look(self):
        """Takes one step on zeros to see what it does."""
        cell, calls, results = self.cell, [], []
        with tf.Graph().as_default(), tf.GradientTape(persistent=True) as tape:
            weights = [tf.zeros(w.shape, w.dtype) for w in cell.weights]
            states = [tf.zeros((1, cell.units), cell.compute_dtype) for _ in cell.states]
            tape.watch(weights)

            def product(gates, v):
                calls.append((gates, _position(v, states)))
                results.append(cell.product(gates, v))
                return tf.zeros_like(results[-1])

            x = tf.zeros((1, len(cell.gates) * cell.units), cell.compute_dtype)
            with keras.StatelessScope(state_mapping=list(zip(cell.weights, weights, strict=True))):
                new_states = list(cell.step(x, states, product))
            of_step, of_products = (tape.gradient(y, weights) for y in (new_states, results))
        used = [
            i for i, d in enumerate(zip(of_step, of_products, strict=True)) if d != (None, None)
        ]
        return calls, used, [k for k, i in enumerate(used) if of_step[i] is not None]

    def _with(self, weights):
        """A scope in which the cell's weights have the values given."""
        mine = [self.cell.weights[i] for i in self.used]
        return keras.StatelessScope(state_mapping=list(zip(mine, weights, strict=True)))

    def _forward(self, x, states, mask, weights, dropped):
        steps, cell = _steps(x), self.cell
        x, mask = _reader(x), _reader(mask)
        masks = tuple(dropped) or (None,)
        histories = [_writer(steps, s) for s in states]
        kept = [_writer(steps, states[0], size) for size in self._kept_sizes()]

        def body(t, states, histories, kept):
            values = []

            def product(gates, v):
                value = cell.product(gates, v, masks)
                values.append(value)
                if _position(v, states) is None:
                    values.append(v)
                return value

            with self._with(weights):
                new = list(cell.step(x(t), states, product))
            if mask(t) is not None:
                new = [tf.where(mask(t), n, s) for n, s in zip(new, states, strict=True)]
            histories = [a.write(t, n) for a, n in zip(histories, new, strict=True)]
            kept = [a.write(t, v) for a, v in zip(kept, values, strict=True)]
            return t + 1, new, histories, kept

        _, _, histories, kept = tf.while_loop(
            lambda t, *_: t < steps,
            body,
            (0, list(states), histories, kept),
            maximum_iterations=steps,
        )
        return [a.stack() for a in histories], [a.stack() for a in kept]

    def _kept_sizes(self):
        units = self.cell.units
        for gates, position in self.calls:
            yield len(gates) * units
            if position is None:
                yield units

    def _backward(self, x, states, mask, weights, dropped, histories, kept, d_histories):
        steps, cell = _steps(x), self.cell
        masks = tuple(dropped) or (None,)
        before = [_reader(s) for s in _before(states, histories)]
        kept, d_histories = [_reader(k) for k in kept], [_reader(d) for d in d_histories]
        inner = [weights[i] for i in self.inner]
        d_x = _writer(steps, states[0], x.shape[2])
        x, mask = _reader(x), _reader(mask)
        d_taps = [_writer(steps, states[0], len(gates) * cell.units) for gates, _ in self.calls]

        def body(t, d_states, d_x, d_taps, d_inner):
            t = t - 1
            d_new = [d + history(t) for d, history in zip(d_states, d_histories, strict=True)]
            d_step = d_new
            if mask(t) is not None:
                d_step = [tf.where(mask(t), d, tf.zeros_like(d)) for d in d_new]

            x_t, states = x(t), [s(t) for s in before]
            values = iter([k(t) for k in kept])
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
                    return self._tapped(gates, v, masks, weights, value, taps[-1])

                with self._with(weights):
                    new = list(cell.step(x_t, states, product))
            gradients = tape.gradient(
                new,
                {"x": x_t, "states": states, "taps": taps, "inner": inner},
                output_gradients=d_step,
                unconnected_gradients="zero",
            )
            d_states = gradients["states"]
            if mask(t) is not None:
                pairs = zip(d_states, d_new, strict=True)
                d_states = [tf.where(mask(t), d, passed) for d, passed in pairs]
            d_x = d_x.write(t, gradients["x"])
            d_taps = [a.write(t, d) for a, d in zip(d_taps, gradients["taps"], strict=True)]
            d_inner = [a + d for a, d in zip(d_inner, gradients["inner"], strict=True)]
            return t, d_states, d_x, d_taps, d_inner

        none_yet = (
            [tf.zeros_like(s) for s in states],
            d_x,
            d_taps,
            [tf.zeros_like(w) for w in inner],
        )
        _, d_states, d_x, d_taps, d_inner = tf.while_loop(
            lambda t, *_: t > 0, body, (steps, *none_yet), maximum_iterations=steps
        )
        taps = [a.stack() for a in d_taps]
        return {"x": [d_x.stack()], "states": d_states, "taps": taps, "weights": d_inner}

    def _tapped(self, gates, v, masks, weights, value, tap):
        @tf.custom_gradient
        def tapped(v, tap):
            def gradient(d):
                with tf.GradientTape() as tape, self._with(weights):
                    tape.watch(v)
                    product = self.cell.product(gates, v, masks)
                return tape.gradient(product, v, d), d

            return value + tap, gradient

        return tapped(v, tap)

    def weight_gradients(self, weights, dropped, before, kept, d_taps, d_inner):
        """The gradients of a step's weights, for all steps at once."""
        kept = iter(kept)
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
        gradients = tape.gradient(
            products,
            weights,
            output_gradients=[_rows(d) for d in d_taps],
            unconnected_gradients="zero",
        )
        for i, d in zip(self.inner, d_inner, strict=True):
            gradients[i] += d
        return gradients


def _position(v, states):
    """Which of the states `v` is; comparing tensors by value would run them."""
    return next((i for i, state in enumerate(states) if state is v), None)


def _rows(tensor):
    return tf.reshape(tensor, [-1, tensor.shape[-1]])


def _steps(x):
    return x.shape[0] if x.shape[0] is not None else tf.shape(x)[0]


def _reader(tensor):
    """Reads a tensor step by step."""
    if tensor is None:
        return lambda t: None
    array = tf.TensorArray(
        tensor.dtype, _steps(tensor), element_shape=tensor.shape[1:], clear_after_read=False
    )
    return array.unstack(tensor).read


def _writer(steps, like, size=None):
    """An array of tensors of the shape of `like`, or of another `size` of the last axis."""
    shape = like.shape[:-1].concatenate(like.shape[-1] if size is None else size)
    return tf.TensorArray(like.dtype, steps, element_shape=shape)
