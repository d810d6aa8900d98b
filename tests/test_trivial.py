"""What a predictor scores that does not look at its input, against NumPy."""

import keras
import numpy as np
import pytest

from kerasrnn.diagnostics.health.trivial import same_targets, trivial_predictor

rng = np.random.default_rng(0)
X = rng.normal(size=(12, 5, 3)).astype("float32")
CLASSES = rng.integers(0, 3, 12)
NUMBERS = rng.normal(2, 3, (12, 3)).astype("float32")
SHARE = np.bincount(CLASSES, minlength=3) / 12
ENTROPY = -np.sum(SHARE * np.log(SHARE))
ONE_HOT = np.eye(3, dtype="float32")[CLASSES]
BITS = (rng.random((12, 3)) < 0.5).astype("float32")
P = BITS.mean(axis=0)
BINARY = -np.mean(P * np.log(P) + (1 - P) * np.log(1 - P))
LOSSES = keras.losses


def scored(loss, y, model=None):
    if model is None:
        model = keras.Sequential([keras.Input((5, 3)), keras.layers.GRU(4), keras.layers.Dense(3)])
    model.compile("sgd", loss)
    x, y = map(keras.ops.convert_to_tensor, (X, y))
    return trivial_predictor(model, x, y, model(x))


@pytest.mark.parametrize(
    ("loss", "y", "expected"),
    [
        ("mse", NUMBERS, NUMBERS.var(axis=0).mean()),
        ("mae", NUMBERS, np.abs(NUMBERS - np.median(NUMBERS, axis=0)).mean()),
        ("sparse_categorical_crossentropy", CLASSES, ENTROPY),
        (LOSSES.SparseCategoricalCrossentropy(from_logits=True), CLASSES, ENTROPY),
        (LOSSES.CategoricalCrossentropy(), ONE_HOT, ENTROPY),
        (LOSSES.CategoricalCrossentropy(from_logits=True), ONE_HOT, ENTROPY),
        ("binary_crossentropy", BITS, BINARY),
        (LOSSES.BinaryCrossentropy(from_logits=True), BITS, BINARY),
    ],
    ids=lambda value: getattr(value, "name", value if isinstance(value, str) else ""),
)
def test_the_score(loss, y, expected):
    found = scored(loss, y)
    assert found.loss == pytest.approx(expected, rel=1e-4)
    of_numbers = "the median of `y`" if loss == "mae" else "the mean of `y`"
    assert found.what == (of_numbers if y is NUMBERS else "the class frequencies in `y`")


def test_at_every_step_and_without_regularizers():
    dense = keras.layers.Dense(3, kernel_regularizer="l2")
    gru = keras.layers.GRU(4, return_sequences=True)
    y = rng.normal(size=(12, 5, 3)).astype("float32")
    found = scored("mse", y, keras.Sequential([keras.Input((5, 3)), gru, dense]))
    assert found.loss == pytest.approx(y.reshape(-1, 3).var(axis=0).mean(), rel=1e-4)
    labels = rng.integers(0, 3, (12, 5))
    share = np.bincount(labels.ravel(), minlength=3) / 60
    logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found = scored(logits, labels, keras.Sequential([keras.Input((5, 3)), gru, dense]))
    assert found.loss == pytest.approx(-np.sum(share * np.log(share)), rel=1e-4)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
@pytest.mark.parametrize("loss", ["MeanSquaredError", "SparseCategoricalCrossentropy"])
def test_steps_that_are_masked_do_not_count(loss, reduction):
    """As Keras's loss of the same constant does not count them."""
    x, valid = X.copy(), rng.random((12, 5)) < 0.6
    x[~valid] = 0
    labels = loss.startswith("Sparse")
    y = rng.integers(0, 3, (12, 5)) if labels else rng.normal(size=(12, 5, 3)).astype("float32")
    parts = [keras.layers.Masking(), keras.layers.Dense(3, "softmax" if labels else None)]
    model = keras.Sequential([keras.Input((5, 3)), *parts])
    model.compile("sgd", getattr(LOSSES, loss)(reduction=reduction))
    tensors = map(keras.ops.convert_to_tensor, (x, y))
    found = trivial_predictor(model, *tensors, model(x))
    kernel, bias = np.zeros((3, 3)), y[valid].mean(axis=0)
    if labels:
        bias = np.log(np.bincount(y[valid], minlength=3))
    model.set_weights([kernel, bias])
    assert found.loss == pytest.approx(model.evaluate(x, y, 12, verbose=0), rel=1e-4)


@pytest.mark.parametrize("loss", ["mse", "binary_crossentropy"])
def test_targets_without_the_last_axis_of_the_output(loss):
    y = (rng.random((12, 5)) < 0.4).astype("float32")
    parts = [keras.layers.GRU(4, return_sequences=True), keras.layers.Dense(1, "sigmoid")]
    found = scored(loss, y, keras.Sequential([keras.Input((5, 3)), *parts]))
    p = y.mean()
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    assert found.loss == pytest.approx(y.var() if loss == "mse" else entropy, rel=1e-4)


def test_labels_that_a_loss_ignores_do_not_count():
    labels = np.where(rng.random((12, 5)) < 0.5, rng.integers(0, 3, (12, 5)), -1)
    parts = [keras.layers.GRU(4, return_sequences=True), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((5, 3)), *parts])
    loss = LOSSES.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    found = scored(loss, labels, model)
    counts = np.bincount(labels[labels >= 0], minlength=3)
    model.layers[-1].set_weights([np.zeros((4, 3)), np.log(counts)])
    assert found.loss == pytest.approx(model.evaluate(X, labels, 12, verbose=0), rel=1e-4)


def test_targets_that_are_all_the_same():
    dense = keras.Sequential([keras.Input((5, 3)), keras.layers.Dense(3)])
    per_step = np.tile([[0, 1, 2, 1, 0]], (12, 1))
    for loss, y, same in (
        ("mse", np.ones((12, 3), "float32"), True),
        ("mse", NUMBERS, False),
        ("sparse_categorical_crossentropy", np.ones(12, "int64"), True),
        ("sparse_categorical_crossentropy", per_step, False),
        ("sparse_categorical_crossentropy", np.ones((12, 5), "int64"), True),
        ("categorical_crossentropy", np.tile(ONE_HOT[:1], (12, 1)), True),
    ):
        dense.compile("sgd", loss)
        assert same_targets(dense, keras.ops.convert_to_tensor(y)) == same
    assert scored("mse", np.ones((12, 3), "float32")) is None


def test_where_there_is_none():
    assert scored("mse", NUMBERS[:1]) is None
    # Of a loss that is not one of these no constant is known to be the best.
    assert scored(lambda y, p: keras.ops.mean((y - p) ** 2), NUMBERS) is None
    for loss in ("cosine_similarity", "poisson", LOSSES.KLDivergence()):
        assert scored(loss, np.abs(NUMBERS)) is None
    assert scored("mse", np.concatenate([NUMBERS, NUMBERS], axis=1)) is None
    # Labels that are no classes of the output.
    assert scored("sparse_categorical_crossentropy", CLASSES + 1) is None
    # A mask of steps, and targets without any.
    masked = [keras.Input((5, 3)), keras.layers.Masking(), keras.layers.Dense(3)]
    assert scored("mse", NUMBERS, keras.Sequential(masked)) is None

    class Model(keras.Sequential):
        def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
            return keras.ops.mean(y_pred)

    assert scored("mse", NUMBERS, Model([keras.Input((5, 3)), keras.layers.GRU(3)])) is None
