import numpy as np
import pytest

from kerasrnn import tasks

TASKS = [
    tasks.adding_problem,
    tasks.temporal_order,
    tasks.copy_memory,
    tasks.number_agreement,
]


@pytest.mark.parametrize("task", TASKS)
def test_a_seed_is_a_data_set(task):
    for one, other in zip(task(50, 12, seed=3), task(50, 12, seed=3), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(task(50, 12, seed=3)[0], task(50, 12, seed=4)[0])
    with pytest.raises(ValueError, match=r"`samples` must be a positive integer.*samples=0"):
        task(0)


def test_adding_problem():
    x, y = tasks.adding_problem(20_000, length=9)
    assert (x.shape, y.shape, x.dtype, y.dtype) == ((20_000, 9, 2), (20_000, 1), "f4", "f4")
    marks = x[..., 1]
    assert (marks[:, :4].sum(1) == 1).all()
    assert (marks[:, 4:].sum(1) == 1).all()
    # Every place is marked.
    assert (marks.sum(0) > 0).all()
    expected = [row[row[:, 1] == 1, 0].sum() for row in x]
    np.testing.assert_allclose(y[:, 0], expected, rtol=1e-6)
    assert np.mean((y - 1) ** 2) == pytest.approx(1 / 6, rel=0.03)
    with pytest.raises(ValueError, match=r"`length` must be at least 2.*length=1"):
        tasks.adding_problem(3, length=1)


def test_temporal_order():
    x, y = tasks.temporal_order(5_000, length=40)
    assert (x.shape, x.dtype) == ((5_000, 40, 8), "f4")
    assert (x.sum(-1) == 1).all()
    symbols = x.argmax(-1)
    assert (symbols[:, 0] == 0).all()
    assert (symbols[:, -1] == 1).all()
    for row, label in zip(symbols, y, strict=True):
        (first, second) = np.flatnonzero(row >= 6)
        assert 4 <= first <= 8
        assert 20 <= second <= 24
        assert label == 2 * (row[first] == 7) + (row[second] == 7)
        assert set(np.delete(row[1:-1], [first - 1, second - 1])) <= {2, 3, 4, 5}
    np.testing.assert_allclose(np.bincount(y) / len(y), 1 / 4, atol=0.03)
    with pytest.raises(ValueError, match=r"`length` must be at least 10.*length=9"):
        tasks.temporal_order(3, length=9)


def test_copy_memory():
    x, y = tasks.copy_memory(1_000, delay=5)
    assert x.shape == y.shape == (1_000, 25)
    assert (x[:, :10] < 8).all()
    assert (x[:, 10:14] == 8).all()
    assert (x[:, 14] == 9).all()
    assert (x[:, 15:] == 8).all()
    assert (y[:, :15] == 8).all()
    np.testing.assert_array_equal(y[:, 15:], x[:, :10])
    # Chance: certain of the blanks, undecided between eight symbols.
    guess = np.where((y == 8)[..., None], np.eye(10)[8], np.r_[np.full(8, 1 / 8), 0, 0])
    loss = -np.log(np.take_along_axis(guess, y[..., None], -1)).mean()
    assert loss == pytest.approx(10 * np.log(8) / 25)


def test_number_agreement():
    x, y = tasks.number_agreement(5_000, distractors=2)
    assert x.shape == (5_000, 8)
    the, preposition, noun = (x == 1), (x >= 2) & (x < 6), (x >= 6) & (x < 26)
    for kind, places in ((the, [0, 3, 6]), (noun, [1, 4, 7]), (preposition, [2, 5])):
        expected = np.isin(np.arange(8), places)
        assert (kind == expected).all()
    np.testing.assert_array_equal(y, x[:, 1] >= 16)
    assert np.mean(y == (x[:, -1] >= 16)) == pytest.approx(1 / 2, abs=0.03)
