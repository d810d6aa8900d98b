"""The backward loop under JAX, and linear recurrences in blocks there, beside the plain loop, whose
gradient is JAX's own."""

import numpy as np
import pytest

from kerasrnn.backends import BACKEND

if BACKEND != "jax":
    pytest.skip("needs Keras's JAX backend", allow_module_level=True)

import jax
import keras
from jax import numpy as jnp

from kerasrnn import layers, recurrence
from kerasrnn.cells import CELLS, Cell
from kerasrnn.recurrence import blocks, sequence

BATCH, TIME, FEATURES, UNITS = 2, 7, 3, 4
FAST = "scan", "bptt"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    # One of a single step, which does not fill a block, and three of two.
    monkeypatch.setattr(blocks, "block_size", lambda time, batch: min(2, time))


def built(name, dtype="float32", **options):
    rng = np.random.default_rng(1)
    cell = CELLS[name](UNITS, dtype=dtype, **options)
    cell.build((None, FEATURES))
    for weight in cell.weights:
        weight.assign(0.5 * rng.normal(size=weight.shape))
    return cell


def drawn(cell, masked=False, reset=False):
    """Values to run a cell on, and the mask and the resets."""
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.normal(size=(BATCH, TIME, FEATURES)), "float32")
    states = [jnp.asarray(rng.normal(size=(BATCH, UNITS)), "float32") for _ in cell.states]
    mask = jnp.asarray(rng.random((BATCH, TIME)) < 0.6).at[0, :3].set(False) if masked else None
    resets = jnp.asarray(rng.random((BATCH, TIME)) < 0.3) if reset else None
    values = {"x": x, "states": states, "weights": [w.value for w in cell.weights]}
    return values, {"mask": mask, "reset": resets}


def loss_of(cell, path, **options):
    """A loss in which all that a pass gives has another weight, as a function of the values."""

    def loss(values, tap=None):
        weights = zip(cell.weights, values["weights"], strict=True)
        seed = cell.seed_generator.state
        mapping = [*weights, (seed, jnp.asarray([3, 4], seed.dtype))]
        with keras.StatelessScope(state_mapping=mapping), sequence.tapped(tap):
            results = recurrence.run(cell, values["x"], values["states"], path=path, **options)
        rng = np.random.default_rng(3)
        total = 0.0
        for result in jax.tree.leaves(results):
            # In float32: of half precision a sum would round.
            result = result.astype("float32")
            total += jnp.sum(jnp.asarray(rng.normal(size=result.shape), "float32") * result)
            total += jnp.sum(result**2)
        return total

    return loss


def taken(cell, options):
    """The paths beside the plain one that take the cell."""
    return [path for path in FAST if path != "scan" or (cell.linear and not options.get("unroll"))]


def assert_like_plain(cell, values, rtol=1e-4, atol=2e-5, **options):
    expected = jax.jit(jax.value_and_grad(loss_of(cell, "portable", **options)))(values)
    for path in taken(cell, options):
        got = jax.jit(jax.value_and_grad(loss_of(cell, path, **options)))(values)
        for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
            assert one.dtype == other.dtype
            scale = 1 + float(jnp.max(jnp.abs(other)))
            np.testing.assert_allclose(one, other, rtol, atol * scale, err_msg=path)


def some(names, quick):
    """Cells, of which those that are not `quick` are left to the slow tests."""
    slow = pytest.mark.slow
    return [name if name in quick else pytest.param(name, marks=slow) for name in names]


@pytest.mark.parametrize("name", some(CELLS, ("lstm", "lstm_peephole", "gru", "sru", "mingru")))
def test_masks_resets_and_noise_of_every_cell(name):
    cell = built(name, dropout=0.3, zoneout=0.2, initial_state="learned")
    values, steps = drawn(cell, masked=True, reset=True)
    assert_like_plain(cell, values, **steps, training=True, go_backwards=True)


@pytest.mark.parametrize(
    "name", some(("lstm_peephole", "gru", "rhn", "sru", "lru"), ("gru", "sru"))
)
@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("zero_output_for_mask", [True, False])
def test_a_mask_and_what_is_shown(name, return_sequences, zero_output_for_mask):
    cell = built(name)
    values, steps = drawn(cell, masked=True)
    assert_like_plain(
        *(cell, values),
        **steps,
        return_sequences=return_sequences,
        zero_output_for_mask=zero_output_for_mask,
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lstm", {"recurrent_dropout": 0.4, "implementation": 1}),
        ("gru", {"recurrent_dropout": 0.4, "recurrent_dropout_form": "candidate"}),
        ("gru", {"reset_after": False, "normalization": "layer", "recurrent_dropout": 0.4}),
        ("lstm", {"normalization": "layer", "dropout": 0.4, "implementation": 1}),
        ("mingru", {"recurrent_dropout": 0.4, "recurrent_dropout_form": "candidate"}),
    ],
)
def test_dropout_of_either_form_and_normalization(name, options):
    cell = built(name, **options)
    values, steps = drawn(cell, reset=True)
    assert_like_plain(cell, values, **steps, training=True, return_sequences=False)


@pytest.mark.parametrize("name", some(("lstm", "mingru", "gru_layer_norm"), ("lstm", "mingru")))
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(name, dtype):
    cell = built(name, dtype=dtype)
    values, steps = drawn(cell, masked=True)
    assert_like_plain(cell, values, 0.05, 0.05, **steps)


@pytest.mark.parametrize("name", ["lstm", "sru", "lru"])
def test_the_gradient_by_each_state(name):
    cell = built(name)
    values, steps = drawn(cell, reset=True)
    taps = [jnp.zeros((TIME, BATCH, UNITS), "float32") for _ in cell.states]

    def gradient(path):
        loss = loss_of(cell, path, **steps)
        return jax.grad(lambda taps: loss(values, lambda cell, states, steps: taps))(taps)

    for one, other in zip(gradient("bptt"), gradient("portable"), strict=True):
        np.testing.assert_allclose(one, other, 1e-4, 1e-4)


@pytest.mark.parametrize(("name", "path"), [("lstm_peephole", "bptt"), ("mingru", "scan")])
def test_derivatives_of_the_gradient(name, path):
    cell = built(name)
    values, steps = drawn(cell, masked=True, reset=True)
    rng = np.random.default_rng(4)
    direction = jax.tree.map(lambda v: jnp.asarray(rng.normal(size=v.shape), "float32"), values)

    def second(path):
        gradient = jax.grad(loss_of(cell, path, **steps))

        def along(values):
            products = jax.tree.map(jnp.vdot, gradient(values), direction)
            return sum(jax.tree.leaves(products))

        # Reverse over reverse, and forward over reverse.
        return jax.jit(lambda v: (jax.grad(along)(v), jax.jvp(gradient, (v,), (direction,))[1]))(
            values
        )

    expected = second("portable")
    for one, other in zip(jax.tree.leaves(second(path)), jax.tree.leaves(expected), strict=True):
        scale = 1 + float(jnp.max(jnp.abs(other)))
        np.testing.assert_allclose(one, other, 1e-3, 1e-4 * scale)


def test_the_gradient_is_that_of_finite_differences():
    cell = built("gru")
    values, steps = drawn(cell, masked=True, reset=True)
    loss = loss_of(cell, "bptt", **steps)
    rng = np.random.default_rng(4)
    direction = jax.tree.map(lambda v: jnp.asarray(rng.normal(size=v.shape), "float32"), values)

    def moved(by):
        return loss(jax.tree.map(lambda v, d: v + by * d, values, direction))

    products = jax.tree.map(jnp.vdot, jax.grad(loss)(values), direction)
    np.testing.assert_allclose(
        sum(jax.tree.leaves(products)), (moved(3e-3) - moved(-3e-3)) / 6e-3, 2e-3
    )


def test_forward_mode_is_refused_and_the_plain_loop_has_it():
    cell = built("gru")
    values, _ = drawn(cell)

    def last(x):
        return recurrence.run(cell, x, values["states"])[0]

    with pytest.raises(TypeError, match="forward-mode"):
        jax.jacfwd(last)(values["x"])
    with recurrence.through(recurrence.PATHS["portable"].run):
        forward = jax.jacfwd(last)(values["x"])
    np.testing.assert_allclose(forward, jax.jacrev(last)(values["x"]), 1e-4, 1e-6)


def test_forward_mode_of_a_linear_recurrence():
    cell = built("mingru")
    values, _ = drawn(cell)

    def last(x):
        return recurrence.run(cell, x, values["states"], path="scan")[0]

    jacobians = jax.jacfwd(last)(values["x"]), jax.jacrev(last)(values["x"])
    np.testing.assert_allclose(*jacobians, 1e-4, 1e-6)


def test_a_fit_is_that_of_the_plain_loop():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(8, TIME, FEATURES)), rng.normal(size=(8, TIME, UNITS))

    def weights():
        keras.utils.set_random_seed(0)
        layer = layers.LSTM(UNITS, return_sequences=True, dropout=0.2)
        model = keras.Sequential([keras.Input((TIME, FEATURES)), layer])
        model.compile(keras.optimizers.SGD(0.5), "mse")
        model.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0)
        return model.get_weights()

    with recurrence.through(recurrence.PATHS["portable"].run):
        expected = weights()
    for one, other in zip(weights(), expected, strict=True):
        np.testing.assert_allclose(one, other, 1e-5, 1e-6)


def test_an_activation_that_may_have_weights_is_left_to_the_plain_loop():
    cell = CELLS["lstm"](UNITS, activation=keras.layers.PReLU())
    cell.build((None, FEATURES))
    x = np.ones((BATCH, TIME, FEATURES), "float32")
    with pytest.raises(ValueError, match="is a layer, which may have weights"):
        recurrence.run(cell, x, cell.get_initial_state(BATCH), path="bptt")


def test_other_cells_are_left_to_the_plain_loop():
    class Mine(Cell):
        gates = ("x",)
        recurrent_gates = ("x",)

        def step(self, x, states, product):
            return (keras.ops.tanh(x + product("x", states[0])),)

    reasons = {
        Mine(UNITS): "not registered",
        keras.layers.LSTMCell(UNITS): "is no kerasrnn.cells.Cell",
    }
    for cell, reason in reasons.items():
        layer = layers.RNN(cell)
        layer.build((None, TIME, FEATURES))
        ((_, choices),) = recurrence.explain(layer).items()
        assert choices["fit"].path == "portable"
        assert reason in choices["fit"].passed_over["bptt"]


def test_explain_shows_the_paths():
    for layer, path in ((layers.LSTM(4), "bptt"), (layers.MinGRU(4), "scan")):
        layer.build((None, TIME, FEATURES))
        ((_, choices),) = recurrence.explain(layer).items()
        assert {choice.path for choice in choices.values()} == {path}
    layer = layers.LSTM(4, unroll=True)
    layer.build((None, TIME, FEATURES))
    ((_, choices),) = recurrence.explain(layer).items()
    assert choices["fit"].passed_over["bptt"] == "unroll=True"


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU, layers.MinGRU])
def test_a_function_is_exported_for_any_size_of_the_batch(kind, monkeypatch):
    monkeypatch.undo()
    layer = kind(3, return_sequences=True)
    x = np.random.default_rng(0).normal(size=(5, 600, 2)).astype("float32")
    expected = layer(x)
    (batch,) = jax.export.symbolic_shape("batch")
    of_any = jax.ShapeDtypeStruct((batch, *x.shape[1:]), "float32")
    exported = jax.export.export(jax.jit(lambda x: layer(x)))(of_any)
    np.testing.assert_allclose(exported.call(x), expected, rtol=0, atol=1e-6)
