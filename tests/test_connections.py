import keras
import numpy as np
import pytest

from kerasrnn import layers

X = np.random.default_rng(1).normal(size=(3, 6, 4)).astype("float32")
MASK = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [1, 0, 1, 1, 1, 0]], bool)


@pytest.mark.parametrize(
    "inner",
    [
        lambda: layers.LSTM(4, return_sequences=True),
        lambda: keras.layers.GRU(4, return_sequences=True),
        lambda: layers.Bidirectional(layers.GRU(2, return_sequences=True)),
        lambda: keras.layers.Dense(4, "tanh"),
        lambda: keras.layers.Conv1D(4, 3, padding="same"),
        lambda: keras.Sequential([keras.layers.Dense(7, "relu"), keras.layers.Dense(4)]),
    ],
)
def test_adds_the_input(inner):
    inner = inner()
    layer = layers.Residual(inner)
    np.testing.assert_allclose(layer(X), X + inner(X), rtol=1e-6)
    assert len(layer.weights) == len(inner.weights)
    assert layer.compute_output_shape(X.shape) == X.shape


def test_projects_where_asked(random_weights):
    inner = layers.GRU(5, return_sequences=True)
    layer = layers.Residual(inner, project=True)
    layer.build(X.shape)
    random_weights(layer)
    np.testing.assert_allclose(
        layer(X), X @ layer.projection.kernel.numpy() + inner(X), rtol=1e-5, atol=1e-6
    )
    # Where the widths agree there is nothing to learn.
    same = layers.Residual(layers.GRU(4, return_sequences=True), project=True)
    same(X)
    assert same.projection is None


def test_mask_reaches_the_layer_and_passes_on(random_weights):
    inner = layers.LSTM(4, return_sequences=True)
    layer = layers.Residual(inner)
    layer.build(X.shape)
    random_weights(layer)
    np.testing.assert_allclose(layer(X, mask=MASK), X + inner(X, mask=MASK), rtol=1e-6)
    tokens = np.array([[3, 1, 0, 0], [2, 0, 0, 0]])
    embedded = keras.layers.Embedding(5, 4, mask_zero=True)(tokens)
    assert (layer(embedded)._keras_mask.numpy() == (tokens != 0)).all()


def test_training_reaches_the_layer():
    layer = layers.Residual(keras.layers.Dropout(0.5))
    assert set(np.unique(layer(np.ones((50, 4)), training=True))) == {1.0, 3.0}
    assert (layer(np.ones((50, 4)), training=False).numpy() == 2).all()


@pytest.mark.parametrize("project", [False, True])
def test_saved_and_loaded(project, tmp_path):
    inner = layers.LSTM(5 if project else 4, return_sequences=True)
    model = keras.Sequential([keras.Input((6, 4)), layers.Residual(inner, project=project)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(X), model(X))


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"project=True.*\(3, 6, 4\) into \(3, 6, 5\)"):
        layers.Residual(layers.LSTM(5, return_sequences=True))(X)
    for project in (False, True):
        with pytest.raises(ValueError, match=r"return_sequences=True.*\(3, 6, 4\) into \(3, 4\)"):
            layers.Residual(layers.LSTM(4), project=project)(X)


def test_a_layer_that_turns_time_around_is_refused():
    with pytest.raises(ValueError, match=r"go_backwards=True.*layer=lstm"):
        layers.Residual(layers.LSTM(4, return_sequences=True, go_backwards=True, name="lstm"))


def test_precision_reaches_the_projection():
    inner = layers.GRU(5, return_sequences=True, dtype="float64")
    layer = layers.Residual(inner, project=True, dtype="float64")
    assert layer(X).dtype == "float64"
    assert {w.dtype for w in layer.weights} == {"float64"}
