import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrnn import activations, cells, layers, recurrence

X = np.concatenate([np.linspace(-6, 6, 41), [-1e4, -700.0, 0.3, 1e4]])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.logaddexp(0, x)


def g(x):
    """Feng et al. (2024), appendix B."""
    with np.errstate(over="ignore"):
        return np.where(x >= 0, x + 0.5, sigmoid(x))


def log_g(x):
    return np.where(x >= 0, np.log(np.maximum(x, 0) + 0.5), -softplus(-x))


@pytest.mark.parametrize(("function", "by_hand"), [("g", g), ("log_g", log_g)])
def test_values_and_slopes(function, by_hand):
    function = getattr(activations, function)
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    np.testing.assert_allclose(y, by_hand(X), rtol=1e-12)
    slope = tape.gradient(y, x).numpy()
    # Its corner at 0 has the slope from the right.
    step = np.where(X == 0, 1e-6, 0.5e-6)
    left = np.where(X == 0, X, X - step)
    np.testing.assert_allclose(slope, (by_hand(X + step) - by_hand(left)) / 1e-6, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_extremes_stay_finite(dtype):
    x = tf.cast([-3e4, -1.0, 0.0, 1.0, 3e4], dtype)
    for function in (activations.g, activations.log_g):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        assert y.dtype == x.dtype
        assert np.isfinite(tf.cast([y, tape.gradient(y, x)], "float32")).all()


@pytest.mark.parametrize("name", ["g", "kerasrnn>g", activations.g])
def test_a_cell_takes_it_by_name(name):
    layer = layers.MinGRU(3, activation=name)
    assert layer.cell.activation is activations.g
    copy = layers.MinGRU.from_config(layer.get_config())
    assert copy.cell.activation is activations.g
    assert layers.RNN("minlstm", units=3, activation=name).cell.activation is activations.g


def test_what_a_user_has_registered_goes_by_its_name_too():
    @keras.saving.register_keras_serializable("test_activations")
    def doubled(x):
        return 2 * x

    assert cells.MinGRUCell(3, activation="test_activations>doubled").activation is doubled
    # No class, and nothing of Keras's, is shadowed.
    with pytest.raises(ValueError, match=r"`activation` must be .*activation='MinGRUCell'"):
        cells.MinGRUCell(3, activation="MinGRUCell")
    with keras.saving.custom_object_scope({"tanh": doubled}):
        assert cells.MinGRUCell(3, activation="tanh").activation is keras.activations.tanh


def test_a_model_with_it_is_saved(tmp_path, rng):
    """In layers of Keras, as an object."""
    dense = keras.layers.Dense(3, activation=activations.log_g)
    model = keras.Sequential([keras.Input((5, 2)), layers.MinGRU(4, activation="g"), dense])
    model.save(tmp_path / "model.keras")
    x = rng.normal(size=(2, 5, 2)).astype("float32")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(x), model(x))


def log_scan(log_a, log_b, log_start):
    """Heinsen (2023), as in Feng et al. (2024), appendix B.2: log h_t of
    h_t = a_t ∘ h_{t-1} + b_t, by cumulative sums, time first."""
    a_star = np.cumsum(np.concatenate([np.zeros_like(log_a[:1]), log_a]), axis=0)
    log_values = np.concatenate([log_start[None], log_b])
    return (a_star + np.logaddexp.accumulate(log_values - a_star, axis=0))[1:]


def mingru_in_logarithms(weights, x, h_0):
    """Feng et al. (2024), appendix B.3."""
    (W_z, W_h), (b_z, b_h) = (np.split(w, 2, axis=-1) for w in weights)
    k = x @ W_z + b_z
    log_b = -softplus(-k) + log_g(x @ W_h + b_h)
    return np.exp(log_scan(-softplus(k), log_b, np.log(h_0)))


def minlstm_in_logarithms(weights, x, h_0):
    (W_f, W_i, W_h), (b_f, b_i, b_h) = (np.split(w, 3, axis=-1) for w in weights)
    difference = softplus(-(x @ W_f + b_f)) - softplus(-(x @ W_i + b_i))
    log_b = -softplus(-difference) + log_g(x @ W_h + b_h)
    return np.exp(log_scan(-softplus(difference), log_b, np.log(h_0)))


@pytest.mark.parametrize("path", ["programs", "scan", "loop"])
@pytest.mark.parametrize(
    ("name", "in_logarithms"),
    [("mingru", mingru_in_logarithms), ("minlstm", minlstm_in_logarithms)],
)
def test_the_recurrence_is_that_of_the_papers_logarithms(
    name, in_logarithms, path, rng, random_weights
):
    cell = cells.get(name)(4, activation="g", dtype="float64")
    cell.build((None, 3))
    random_weights(cell, scale=2)
    x, h_0 = rng.normal(size=(2, 40, 3)), g(rng.normal(size=(2, 4)))
    expected = in_logarithms(cell.get_weights(), x.transpose(1, 0, 2), h_0)
    _, outputs, _ = recurrence.run(cell, tf.constant(x), [tf.constant(h_0)], path=path)
    np.testing.assert_allclose(outputs, expected.transpose(1, 0, 2), rtol=1e-9)
    assert np.min(outputs) > 0


@pytest.mark.parametrize("path", ["programs", "scan"])
def test_gradients_are_those_of_the_plain_loop(path, rng, random_weights):
    cell = cells.MinGRUCell(4, activation="g", dtype="float64")
    cell.build((None, 3))
    random_weights(cell)
    x, h_0 = tf.constant(rng.normal(size=(2, 7, 3))), tf.ones((2, 4), "float64")

    def gradients(path):
        with tf.GradientTape() as tape:
            _, outputs, _ = recurrence.run(cell, x, [h_0], training=True, path=path)
            loss = tf.reduce_sum(tf.sin(outputs))
        return tape.gradient(loss, cell.trainable_weights)

    for gradient, expected in zip(gradients(path), gradients("loop"), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-10)
