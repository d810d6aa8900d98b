"""All states of a diagonal linear recurrence at once, without a step of a cell in the loop.

    forward     h_t = a_t ∘ h_{t-1} + b_t
    backward    δ_t = g_t + conj(a_{t+1}) ∘ δ_{t+1}     g_t: what reaches h_t from outside
                ∂J/∂b_t = δ_t,   ∂J/∂a_t = δ_t ∘ conj(h_{t-1}),   ∂J/∂h_0 = conj(a_1) ∘ δ_1

    second      with u, what reaches the first gradients from outside:
                k_t = a_t ∘ k_{t-1} + u_a,t ∘ h_{t-1} + u_b,t,   k_0 = u_0          by g: k
                ε_t = conj(u_a,t+1) ∘ δ_{t+1} + conj(a_{t+1}) ∘ ε_{t+1}             by b: ε
                by a: δ_t ∘ conj(k_{t-1}) + ε_t ∘ conj(h_{t-1})
                by h_0: conj(a_1) ∘ ε_1 + conj(u_a,1) ∘ δ_1

The gradient is a linear recurrence too, run backwards (Martin & Cundy 2018, "Parallelizing Linear
Recurrent Neural Nets Over Sequence Length", section 2.2), and so is its own gradient; k is also the
forward-mode derivative of h in the direction u.

Outside of XLA programs, as in eager calls and in what is exported, a step in a loop costs more than
what it computes: so blocks of time run side by side, each from the state that those before it lead
to (Algorithm 1 there, after Blelloch 1990, "Prefix Sums and Their Applications"). It only
multiplies and adds: there is no logarithm for an a_t near 0 to break, and no quotient.

In the XLA programs of `kerasrnn.recurrence.program` a step costs little, and a linear recurrence's
has no product in it.
"""

import tensorflow as tf
from tensorflow.python.eager import forwardprop_util

# Steps to a block.
_BLOCK = 32

_multiply = tf.math.multiply_no_nan


def scan(a, b, initial):
    """All states of h_t = a_t ∘ h_{t-1} + b_t; differentiable, any number of times.

    Half precision is computed in float32.

    Args:
        a: Like `b`, or (units,) if it is the same at all steps of all rows. |a_t| ≤ 1 is stable,
            and 0 leaves nothing of h_{t-1}, an Inf or NaN neither.
        b: (time, batch, units), at least one step. Real tensors, or a pair (real part, imaginary
            part) of them; so `a` and `initial`.
        initial: h_0, (batch, units).

    Returns:
        h_1, h_2, ...: like `b`.

    Raises:
        ValueError: If `a`, `b` and `initial` do not fit each other.

    >>> from kerasrnn.recurrence.prefix_scan import scan
    >>> a, b = np.full((3, 1, 1), 0.5), np.ones((3, 1, 1))
    >>> scan(a, b, np.zeros((1, 1))).numpy().ravel().tolist()
    [1.0, 1.5, 1.75]
    """
    paired = isinstance(b, (tuple, list))
    parts = [list(v) if isinstance(v, (tuple, list)) else [v] for v in (a, b, initial)]
    parts = tf.nest.map_structure(tf.convert_to_tensor, parts)
    _check(*parts)
    dtype = parts[1][0].dtype
    precise = tf.float32 if dtype.size < 4 else dtype
    states = _scan(*tf.nest.map_structure(lambda v: tf.cast(v, precise), parts))
    states = tuple(tf.cast(h, dtype) for h in states)
    return states if paired else states[0]


def _check(a, b, initial):
    shape = b[0].shape
    rules = {
        "a": (a, [shape, shape[2:]], "the shape of `b` or (units,)"),
        "initial": (initial, [shape[1:]], "(batch, units)"),
    }
    for name, (parts, expected, rule) in rules.items():
        received = [v.shape for v in parts]
        fits = all(any(s.is_compatible_with(e) for e in expected) for s in received)
        if len(parts) != len(b) or not fits:
            raise ValueError(
                f"`{name}` must be {rule}, and a pair if `b` is one. Received: "
                f"{name} of shape {_shown(received)}, b of shape {_shown([v.shape for v in b])}"
            )


def _shown(shapes):
    return " and ".join(str(tuple(shape)) for shape in shapes)


def _scan(a, b, initial):
    """The states, as lists; differentiable in both modes, any number of times."""

    @tf.custom_gradient
    def states(a, b, initial):
        h = _in_blocks(*_constant((a, b, initial)))

        def gradient(*g):
            return _gradients(a, b, initial, h, list(g))

        return h, gradient

    return states(*identity((a, b, initial)))


def _gradients(a, b, initial, h, g):
    """The gradients by a, b and initial, flat; differentiable."""

    @tf.custom_gradient
    def first(a, b, initial, g):
        values = _by_equations(*_constant((a, initial, h, g)))

        def second(*u):
            return _second_gradients(a, b, initial, g, list(u))

        return values, second

    return first(*identity((a, b, initial, g)))


def _by_equations(a, initial, h, g):
    """The gradients as the equations say."""
    delta = _backward(a, g)
    d_a, d_initial = _of_products(a, initial, h, delta)
    return [*d_a, *delta, *d_initial]


def _second_gradients(a, b, initial, g, u):
    """The gradients of the sum of u ∘ the first gradients, as the equations say. A tape cannot take
    them: while TensorFlow computes a forward-mode derivative, no tape inside sees anything."""
    h, delta = _scan(a, b, initial), _backward(a, g)
    count = len(h)
    u_a, u_b, u_initial = u[:count], u[count : 2 * count], u[2 * count :]
    before = _before(initial, h)
    tangent = _scan(a, [p + q for p, q in zip(_times(u_a, before), u_b, strict=True)], u_initial)
    by_before = _times(_conj(u_a), delta)
    ahead = [tf.concat([v[1:], tf.zeros_like(v[:1])], 0) for v in by_before]
    epsilon = _backward(a, ahead)
    d_a, _ = _of_products(a, u_initial, tangent, delta)
    more, d_initial = _of_products(a, initial, h, epsilon)
    d_a = [p + q for p, q in zip(d_a, more, strict=True)]
    d_initial = [p + v[0] for p, v in zip(d_initial, by_before, strict=True)]
    return d_a, epsilon, d_initial, tangent


def _backward(a, g):
    """δ, the backward recurrence as a forward one."""
    ahead = a if _same(a) else [tf.reverse(tf.roll(v, -1, 0), [0]) for v in a]
    reverse = [tf.reverse(v, [0]) for v in g]
    # No δ comes after the last: what was rolled to its step has no effect.
    delta = _scan(_conj(ahead), reverse, [tf.zeros_like(v[0]) for v in g])
    return [tf.reverse(v, [0]) for v in delta]


def _of_products(a, initial, h, delta):
    """∂J/∂a_t and ∂J/∂h_0 of a recurrence of which δ_t is what reaches h_t."""
    d_a = _times(delta, _conj(_before(initial, h)))
    if _same(a):
        d_a = [tf.reduce_sum(v, [0, 1]) for v in d_a]
    return d_a, _times(_conj(_at(a, 0)), [v[0] for v in delta])


def _steps(a, b, initial):
    """One state after the other."""
    count = length(b[0])
    arrays = [tf.TensorArray(v.dtype, count, element_shape=v.shape) for v in initial]

    def turn(t, h, arrays):
        h = step(_at(a, t), h, _at(b, t))
        return t + 1, h, [array.write(t, v) for array, v in zip(arrays, h, strict=True)]

    _, _, arrays = tf.while_loop(lambda t, *_: t < count, turn, (0, initial, arrays))
    return [array.stack() for array in arrays]


def _in_blocks(a, b, initial):
    """The states by Algorithm 1: step k of all blocks at once."""
    steps = tf.shape(b[0])[0]
    size = tf.minimum(steps, _BLOCK)
    blocks = (steps + size - 1) // size

    def cut(v):
        v = tf.pad(v, [[0, blocks * size - steps], [0, 0], [0, 0]])
        shape = tf.concat([[blocks, size], tf.shape(v)[1:]], 0)
        in_blocks = tf.reshape(v, shape)
        in_blocks.set_shape([None, None, *v.shape[1:]])
        return tf.transpose(in_blocks, [1, 0, 2, 3])

    b = [cut(v) for v in b]
    a = a if _same(a) else [cut(v) for v in a]

    # The state at the end of a block is P ∘ the state at its start + R.
    def turn(k, P, R):
        a_k = _at(a, k)
        return k + 1, _times(a_k, P), step(a_k, R, _at(b, k))

    zeros = [tf.zeros_like(v[0]) for v in b]
    ones = [tf.ones_like(zeros[0]), *zeros[1:]]
    _, P, R = tf.while_loop(lambda k, *_: k < size, turn, (0, ones, zeros))
    starts = _before(initial, _steps(P, R, initial))

    def joined(v, like):
        whole = tf.reshape(tf.transpose(v, [1, 0, 2, 3]), tf.concat([[-1], tf.shape(like)], 0))
        return whole[:steps]

    return [joined(v, h) for v, h in zip(_steps(a, b, starts), initial, strict=True)]


def _before(initial, h):
    """h_{t-1} for all t."""
    return [tf.concat([v[None], vs[:-1]], 0) for v, vs in zip(initial, h, strict=True)]


def length(v):
    """The size of the first axis, a number where it is known."""
    return v.shape[0] if v.shape[0] is not None else tf.shape(v)[0]


def _constant(values):
    """What a tape has no part in: it would keep every step.

    Raises:
        NotImplementedError: a `tf.autodiff.ForwardAccumulator` follows one of them in a graph,
            where it goes by what is inside a custom gradient, and would find constants.
    """
    # The seam of test_forward_accumulators_tell_what_they_follow.
    followed = forwardprop_util.pack_tangents(tf.nest.flatten(values)).indices
    if any(followed) and not tf.executing_eagerly():
        raise NotImplementedError(
            "A linear recurrence has no forward-mode derivative inside a graph: put the "
            "tf.autodiff.ForwardAccumulator around the tf.function, for tensors that it is called "
            "with, or take it of an eager call."
        )
    return tf.nest.map_structure(tf.stop_gradient, values)


def identity(values):
    """The arguments of a custom gradient as tensors of the graph in which it is called, without
    which TensorFlow fails to take the forward-mode derivative of a function around it."""
    return tf.nest.map_structure(tf.identity, values)


def _same(a):
    """Whether a_t is the same for all t."""
    return len(a[0].shape) == 1


def _at(values, t):
    return values if _same(values) else [tf.gather(v, t) for v in values]


def step(a, h, b):
    """a ∘ h + b, of lists: the real parts, and the imaginary ones if there are."""
    return [u + v for u, v in zip(_times(a, h), b, strict=True)]


def _conj(v):
    return [v[0], *(-imaginary for imaginary in v[1:])]


def _times(u, v):
    """u ∘ v, where a 0 in u leaves nothing of v, an Inf or NaN neither: so a state is reset."""
    if len(u) == 1:
        return [_multiply(v[0], u[0])]
    (a, b), (c, d) = u, v
    return [
        _multiply(c, a) - _multiply(d, b),
        _multiply(d, a) + _multiply(c, b),
    ]
