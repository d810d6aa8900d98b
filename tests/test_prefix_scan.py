"""Linear recurrences against their equation in NumPy and TensorFlow's gradients through it."""

import numpy as np
import pytest
import tensorflow as tf
from slow import slow_but

from kerasrnn.recurrence import all_steps, prefix_scan

MODES = {
    "eager": lambda f: f,
    "graph": lambda f: tf.function(f, autograph=False),
    "jit": lambda f: tf.function(f, jit_compile=True, autograph=False),
}
kinds = pytest.mark.parametrize("imaginary", [False, True], ids=["real", "complex"])


def draw(rng, *shape, imaginary=False):
    return rng.normal(size=shape) + (1j * rng.normal(size=shape) if imaginary else 0)


def problem(rng, steps, imaginary=False, constant=False, batch=3, units=4):
    """a with |a_t| < 1, b, initial, and the weights of the states in the loss."""
    shape = steps, batch, units
    a = draw(rng, *([units] if constant else shape), imaginary=imaginary)
    a *= rng.uniform(size=a.shape) / np.abs(a)
    return a, *(draw(rng, *s, imaginary=imaginary) for s in (shape, shape[1:], shape))


def by_equation(a, b, h, stack=np.stack):
    states = []
    for t in range(b.shape[0]):
        h = (a if len(a.shape) == 1 else a[t]) * h + b[t]
        states.append(h)
    return stack(states)


def paired(v):
    return (tf.constant(v.real), tf.constant(v.imag)) if np.iscomplexobj(v) else tf.constant(v)


def unpaired(v):
    return v[0].numpy() + 1j * v[1].numpy() if isinstance(v, (tuple, list)) else v.numpy()


def gradients(states, a, b, initial, weights):
    """By TensorFlow of a complex tensor, or of a pair: both are ∂J/∂re + i ∂J/∂im."""
    with tf.GradientTape() as tape:
        tape.watch([a, b, initial])
        h = states(a, b, initial)
        pairs = zip(tf.nest.flatten(h), tf.nest.flatten(weights), strict=True)
        loss = sum(tf.reduce_sum(tf.math.real(w * v + v * tf.math.conj(v))) for v, w in pairs)
    return h, tape.gradient(loss, [a, b, initial])


@kinds
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
@pytest.mark.parametrize("steps", [1, 33])
def test_states_and_gradients(rng, steps, constant, mode, imaginary):
    a, b, initial, w = problem(rng, steps, imaginary, constant)

    def run(a, b, initial, w):
        return gradients(lambda *v: prefix_scan.scan(*v), a, b, initial, w)

    h, found = MODES[mode](run)(*(paired(v) for v in (a, b, initial, w)))
    tensors = [tf.constant(v) for v in (a, b, initial, w.conj())]
    _, expected = gradients(lambda *v: by_equation(*v, tf.stack), *tensors)
    np.testing.assert_allclose(unpaired(h), by_equation(a, b, initial), atol=1e-12)
    for d, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(unpaired(d), e.numpy(), rtol=1e-10, atol=1e-12)


@kinds
def test_gradients_are_finite_differences(rng, imaginary):
    a, b, initial, w = problem(rng, 40, imaginary)
    _, found = gradients(lambda *v: prefix_scan.scan(*v), *map(paired, (a, b, initial, w)))

    def loss(values):
        h = by_equation(*values)
        return np.sum(w.real * h.real + w.imag * h.imag + np.abs(h) ** 2)

    for i, d in enumerate(found):
        direction = draw(rng, *(a, b, initial)[i].shape, imaginary=imaginary)
        moved = [
            [v + (s * 1e-6 * direction if j == i else 0) for j, v in enumerate((a, b, initial))]
            for s in (1, -1)
        ]
        slope = (loss(moved[0]) - loss(moved[1])) / 2e-6
        np.testing.assert_allclose(np.sum(unpaired(d) * direction.conj()).real, slope, rtol=1e-6)


@kinds
@pytest.mark.parametrize("mode", slow_but(["eager"], MODES))
@pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
def test_second_gradients(rng, mode, constant, imaginary):
    a, b, initial, w = problem(rng, 6, imaginary, constant, batch=2, units=2)

    def run(states, *given):
        with tf.GradientTape() as tape:
            tape.watch(given)
            _, first = gradients(states, *given)
            first = tf.nest.flatten(first)
            loss = sum(tf.reduce_sum(tf.math.real(d * tf.math.conj(d))) for d in first)
        return tape.gradient(loss, given[:3])

    scan = MODES[mode](lambda *v: run(lambda *u: prefix_scan.scan(*u), *v))
    found = scan(*(paired(v) for v in (a, b, initial, w)))
    expected = run(
        lambda *u: by_equation(*u, tf.stack), *map(tf.constant, (a, b, initial, w.conj()))
    )
    for d, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(unpaired(d), e.numpy(), rtol=1e-9, atol=1e-10)


def moved(a, b, h, u_a, u_b, u_h):
    """The derivative of the states in the direction u, by the product rule."""
    tangents = []
    for t in range(b.shape[0]):
        a_t, u_t = (v if len(v.shape) == 1 else v[t] for v in (a, u_a))
        h, u_h = a_t * h + b[t], u_t * h + a_t * u_h + u_b[t]
        tangents.append(u_h)
    return np.stack(tangents)


def jvp(function, at, direction):
    with tf.autodiff.ForwardAccumulator(at, direction) as accumulator:
        result = function(*at)
    return accumulator.jvp(result)


FORWARD = {
    "eager": lambda at, direction: jvp(prefix_scan.scan, at, direction),
    "around a function": lambda at, direction: jvp(
        tf.function(lambda *v: prefix_scan.scan(*v), autograph=False), at, direction
    ),
}


@kinds
@pytest.mark.parametrize("mode", FORWARD)
@pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
def test_forward_mode(rng, constant, mode, imaginary):
    at, direction = (problem(rng, 35, imaginary, constant)[:3] for _ in range(2))
    found = FORWARD[mode]([paired(v) for v in at], [paired(v) for v in direction])
    np.testing.assert_allclose(unpaired(found), moved(*at, *direction), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("which", range(3))
def test_forward_mode_inside_a_graph_is_an_error(rng, which):
    at = [tf.constant(v) for v in problem(rng, 3)[:3]]

    def run(followed):
        others = [at[:which], at[which + 1 :]]
        return jvp(
            lambda v: prefix_scan.scan(*others[0], v, *others[1]),
            [followed],
            [tf.ones_like(followed)],
        )

    with pytest.raises(NotImplementedError, match=r"ForwardAccumulator around the tf\.function"):
        tf.function(run, autograph=False)(at[which])


@kinds
def test_forward_over_reverse(rng, imaginary):
    """A product with the Hessian is a finite difference of gradients."""
    at, direction = (problem(rng, 6, imaginary, batch=2, units=2) for _ in range(2))
    weights = paired(at[3])

    def gradient(*v):
        return tf.nest.flatten(gradients(lambda *u: prefix_scan.scan(*u), *v, weights)[1])

    found = jvp(gradient, [paired(v) for v in at[:3]], [paired(v) for v in direction[:3]])
    ends = [
        gradient(*(paired(v + s * 1e-6 * u) for v, u in zip(at[:3], direction, strict=False)))
        for s in (1, -1)
    ]
    for d, plus, minus in zip(found, *ends, strict=True):
        np.testing.assert_allclose(d, (plus - minus) / 2e-6, rtol=1e-6, atol=1e-7)


NEAR = {
    "zero": lambda rng, shape: rng.choice([0.0, 1e-45, 1e-30, 1e-7], shape),
    "one": lambda rng, shape: 1 - rng.choice([0.0, 1e-7, 1e-5], shape),
    "both": lambda rng, shape: rng.choice([0.0, 1e-30, 0.5, 1 - 1e-6, 1.0], shape),
    "sigmoid": lambda rng, shape: 1 / (1 + np.exp(-8 * rng.normal(size=shape))),
    "minus_one": lambda rng, shape: -1 + rng.choice([0.0, 1e-6], shape),
}


@pytest.mark.parametrize("near", NEAR)
@pytest.mark.parametrize("constant", [False, True], ids=["varying", "constant"])
def test_long_sequences_in_single_precision(rng, constant, near):
    shape = 16384, 2, 3
    a = NEAR[near](rng, shape[2:] if constant else shape).astype("float32")
    b, w = (rng.normal(size=shape).astype("float32") for _ in range(2))
    initial = rng.normal(size=shape[1:]).astype("float32")
    given = [tf.constant(v) for v in (a, b, initial)]
    with tf.GradientTape() as tape:
        tape.watch(given)
        h = prefix_scan.scan(*given)
        loss = tf.reduce_sum(h * w)
    d_a, d_b, d_initial = tape.gradient(loss, given)

    a, b, initial, w = (v.astype("float64") for v in (a, b, initial, w))
    expected = by_equation(a, b, initial)
    a_t = np.broadcast_to(a, shape)
    delta = np.zeros(shape)
    later = np.zeros(shape[1:])
    for t in reversed(range(shape[0])):
        delta[t] = w[t] + later
        later = a_t[t] * delta[t]
    by_a = delta * np.concatenate([initial[None], expected[:-1]])
    by_a = by_a.sum((0, 1)) if constant else by_a
    pairs = [(h, expected), (d_a, by_a), (d_b, delta), (d_initial, later)]
    for found, value in pairs:
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5 * np.abs(value).max())


def test_both_ways_start_exactly_like_single_steps(rng):
    """Streaming one step at a time gives what the whole does."""
    a, b, initial, _ = (v.astype("float32") for v in problem(rng, 32))
    h, states = tf.constant(initial), []
    for t in range(32):
        h = prefix_scan.scan(a[t : t + 1], b[t : t + 1], h)[0]
        states.append(h)
    whole = prefix_scan.scan(a, b, initial)
    np.testing.assert_allclose(whole, tf.stack(states), rtol=1e-6, atol=1e-6)


def test_what_a_masked_step_repeats(rng):
    y, mask = rng.normal(size=(6, 3, 2)), rng.random((6, 3, 1)) < 0.5
    mask[0, 0], expected, last = False, [], np.zeros((3, 2))
    for y_t, mask_t in zip(y, mask, strict=True):
        last = np.where(mask_t, y_t, last)
        expected.append(last)
    shown = all_steps.shown(tf.constant(y), tf.constant(mask), zero_output_for_mask=False)
    np.testing.assert_array_equal(shown, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_rounded_once(rng, dtype):
    a, b, initial, _ = (tf.cast(v, dtype) for v in problem(rng, 300))
    given = [tf.cast(v, "float64").numpy() for v in (a, b, initial)]
    with tf.GradientTape() as tape:
        tape.watch([a, b, initial])
        h = prefix_scan.scan(a, b, initial)
    assert [d.dtype for d in tape.gradient(h, [a, b, initial])] == [tf.as_dtype(dtype)] * 3
    assert h.dtype == dtype
    expected = tf.cast(by_equation(*given), dtype)
    # The last bit may differ: one of 11 or 8.
    bit = {"float16": 2**-10, "bfloat16": 2**-7}[dtype]
    np.testing.assert_allclose(*(tf.cast(v, "float32") for v in (h, expected)), rtol=bit, atol=1e-6)


@kinds
@pytest.mark.parametrize("mode", ["graph", "jit"])
def test_unknown_batch_and_time(rng, mode, imaginary):
    part = tf.TensorSpec([None, None, 4], "float64")
    first = tf.TensorSpec([None, 4], "float64")
    signature = [(v, v) if imaginary else v for v in (part, part, first, part)]

    def run(a, b, initial, w):
        h, found = gradients(lambda *v: prefix_scan.scan(*v), a, b, initial, w)
        assert tf.nest.flatten(h)[0].shape.as_list() == [None, None, 4]
        return h, found

    run = tf.function(run, input_signature=signature, autograph=False, jit_compile=mode == "jit")
    for steps, batch in ((1, 3), (40, 2)):
        a, b, initial, w = problem(rng, steps, imaginary, batch=batch)
        h, found = run(*map(paired, (a, b, initial, w)))
        tensors = [tf.constant(v) for v in (a, b, initial, w.conj())]
        expected, slopes = gradients(lambda *v: by_equation(*v, tf.stack), *tensors)
        np.testing.assert_allclose(unpaired(h), expected, atol=1e-12)
        for d, e in zip(found, slopes, strict=True):
            np.testing.assert_allclose(unpaired(d), e.numpy(), rtol=1e-10, atol=1e-12)


def test_plain_operations_can_be_exported(rng, tmp_path):
    module = tf.Module()
    part = tf.TensorSpec([None, None, 4], "float64")
    module.scan = tf.function(
        lambda a, b, initial: prefix_scan.scan(a, b, initial),
        input_signature=[part, part, tf.TensorSpec([None, 4], "float64")],
    )
    tf.saved_model.save(module, tmp_path)
    assert b"_XlaMustCompile" not in (tmp_path / "saved_model.pb").read_bytes()
    *given, _ = problem(rng, 50)
    h = tf.saved_model.load(tmp_path).scan(*map(tf.constant, given))
    np.testing.assert_allclose(h, by_equation(*given), atol=1e-12)


def test_a_tape_records_the_whole_as_one(rng):
    """And none of its steps, which it would hold on to."""
    given = [tf.constant(v) for v in problem(rng, 64)[:3]]
    kept = []
    record = prefix_scan._steps

    def watched(*args, **options):
        kept.append(record(*args, **options))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_scan, "_steps", watched)
        with tf.GradientTape() as tape:
            tape.watch(given)
            prefix_scan.scan(*given)
    assert len(kept) == 2
    assert tape.gradient(kept, given) == [None] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": (5, 3, 3)}, r"`a` must be .* Received: a of shape \(5, 3, 3\), b of shape"),
        ({"a": (3, 4)}, "`a` must be"),
        ({"a": (5,)}, "`a` must be"),
        ({"initial": (4, 4)}, r"`initial` must be \(batch, units\)"),
        ({"initial": (4,)}, "`initial` must be"),
    ],
)
def test_wrong_shapes(change, message):
    shapes = {"a": (5, 3, 4), "b": (5, 3, 4), "initial": (3, 4)} | change
    with pytest.raises(ValueError, match=message):
        prefix_scan.scan(**{k: np.zeros(v) for k, v in shapes.items()})


def test_pairs_must_be_pairs_throughout():
    b, initial = np.zeros((5, 3, 4)), np.zeros((3, 4))
    with pytest.raises(ValueError, match="a pair if `b` is one"):
        prefix_scan.scan(b, (b, b), (initial, initial))
    with pytest.raises(ValueError, match="a pair if `b` is one"):
        prefix_scan.scan(b, b, (initial, initial))
