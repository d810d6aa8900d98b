import collections

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


def test_number_agreement_is_what_it_was():
    """The numbers of a seed, drawn in this order, are in users' results."""
    x, y = tasks.number_agreement(7, 2, seed=5)
    rng = np.random.default_rng(5)
    plural = rng.integers(0, 2, (7, 3))
    nouns = 6 + rng.integers(0, 10, (7, 3)) + 10 * plural
    prepositions = rng.integers(2, 6, (7, 3))
    np.testing.assert_array_equal(y, plural[:, 0])
    for place, expected in ((1, nouns[:, 0]), (2, prepositions[:, 1]), (7, nouns[:, 2])):
        np.testing.assert_array_equal(x[:, place], expected)


def test_number_agreement_with_phrases_before_and_adjectives():
    x, y = tasks.number_agreement(5_000, distractors=2, before=1, adjectives=2)
    #   preposition the adjective adjective noun | the adjective adjective subject | ...
    assert x.shape == (5_000, 5 * 4 - 1)
    kinds = np.digitize(x, [1, 2, 6, 26, 36])
    the, preposition, noun, adjective = 1, 2, 3, 4
    phrase = [preposition, the, adjective, adjective, noun]
    assert (kinds == [*phrase, *phrase[1:], *phrase, *phrase]).all()
    np.testing.assert_array_equal(y, x[:, 8] >= 16)
    for other in (4, 13, 18):
        assert np.mean(y == (x[:, other] >= 16)) == pytest.approx(1 / 2, abs=0.03)
    assert {*x[:, 2]} == {*range(26, 36)}
    for name in ("before", "adjectives"):
        for bad in (-1, 1.5, True):
            with pytest.raises(ValueError, match=rf"`{name}` must be at least 0.*{name}={bad}"):
                tasks.number_agreement(3, **{name: bad})


@pytest.mark.parametrize(("before", "adjectives"), [(0, 0), (1, 0), (1, 1), (2, 2)])
def test_short_ngrams_cannot_tell_the_subject(before, adjectives):
    """The subject and a noun between others change places: no n-gram under 3 + adjectives sees it,
    where the words between are alike."""
    (sentence,), _ = tasks.number_agreement(1, distractors=2, before=before, adjectives=adjectives)
    sentence[sentence >= 26] = 26
    sentence[(sentence >= 2) & (sentence < 6)] = 2
    subject, between = (np.flatnonzero((sentence >= 6) & (sentence < 26)))[before : before + 2]
    changed = sentence.copy()
    sentence[[subject, between]] = changed[[between, subject]] = 6, 16

    def ngrams(words, n):
        return collections.Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    for n in range(1, 3 + adjectives):
        assert ngrams(sentence, n) == ngrams(changed, n)
    assert ngrams(sentence, 3 + adjectives) != ngrams(changed, 3 + adjectives)
