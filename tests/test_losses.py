import keras
import numpy as np
import pytest

from kerasrnn.losses import QuantileLoss

QUANTILES = (0.1, 0.5, 0.8)


def pinball(y, q):
    """Koenker & Bassett (1978): an error above weighs 1 - τ, one below τ."""
    losses = [
        np.where(y < q[..., i], (1 - tau) * (q[..., i] - y), tau * (y - q[..., i]))
        for i, tau in enumerate(QUANTILES)
    ]
    return np.mean(losses, axis=0)


@pytest.mark.parametrize("axes", [(), (4,), (4, 2)])
def test_is_that_of_the_paper(rng, axes):
    y, q = rng.normal(size=(6, *axes)), rng.normal(size=(6, *axes, 3))
    loss = QuantileLoss(QUANTILES, reduction=None)
    np.testing.assert_allclose(loss(y, q), pinball(y, q), rtol=1e-5)
    np.testing.assert_allclose(loss(y[..., None], q), pinball(y, q), rtol=1e-5)
    np.testing.assert_allclose(QuantileLoss(QUANTILES)(y, q), pinball(y, q).mean(), rtol=1e-5)


@pytest.mark.parametrize("tau", [0.1, 0.75])
def test_is_least_at_the_quantile(rng, tau):
    y = rng.normal(size=401)
    guesses = np.sort(y)
    loss = [float(QuantileLoss(tau)(y, np.full((401, 1), guess))) for guess in guesses]
    assert guesses[np.argmin(loss)] == pytest.approx(np.quantile(y, tau), abs=1e-6)


def test_saves():
    loss = QuantileLoss(QUANTILES)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.quantiles == QUANTILES


@pytest.mark.parametrize(
    ("quantiles", "message"),
    [
        ((0.5, 1.0), "above 0 and below 1.*quantiles=1.0"),
        ((0.0,), "above 0 and below 1.*quantiles=0.0"),
        ("median", "above 0 and below 1.*'median'"),
        ((0.9, 0.1), r"each above the one before.*\(0.9, 0.1\)"),
        ((0.5, 0.5), r"each above the one before.*\(0.5, 0.5\)"),
        ((), r"one or more.*\(\)"),
    ],
)
def test_bad_quantiles(quantiles, message):
    with pytest.raises(ValueError, match=message):
        QuantileLoss(quantiles)


@pytest.mark.parametrize(("y", "q"), [((6, 4), (6, 4, 2)), ((6, 3), (6, 4, 3)), ((6,), (6, 4, 3))])
def test_bad_shapes(y, q):
    with pytest.raises(ValueError, match=r"\(batch, ..., 3\), a number per quantile"):
        QuantileLoss(QUANTILES)(np.zeros(y), np.zeros(q))
