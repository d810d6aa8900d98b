"""Kneser-Ney's n-grams, beside their equations computed with dictionaries, letter by letter."""

import collections
import doctest

import ngrams
import numpy as np
import pytest


def slowly(train, test, letters, order):
    """-log2 p of each letter of `test`."""
    train, text = list(train), [*train, *test]

    def grams(n):
        return [tuple(train[i : i + n]) for i in range(len(train) - n + 1)]

    counts = {}
    for n in range(1, order):
        before = collections.defaultdict(set)
        for gram in grams(n + 1):
            before[gram[1:]].add(gram[0])
        counts[n] = {gram: len(different) for gram, different in before.items()}
    counts[order] = collections.Counter(grams(order))

    def p(word, history):
        n = len(history) + 1
        c = counts[n]
        total = sum(c.get((*history, w), 0) for w in range(letters))
        lower = p(word, history[1:]) if history else 1 / letters
        if total == 0:
            return lower
        ones, twos = ([*c.values()].count(times) for times in (1, 2))
        discount = ones / (ones + 2 * twos) if ones and twos else 0.5
        kinds = sum((*history, w) in c for w in range(letters))
        own = max(c.get((*history, word), 0) - discount, 0)
        return (own + discount * kinds * lower) / total

    places = range(len(train), len(text))
    assert sum(p(w, tuple(text[-order + 1 :])) for w in range(letters)) == pytest.approx(1)
    return [-np.log2(p(text[i], tuple(text[i - order + 1 : i]))) for i in places]


@pytest.mark.parametrize("order", [2, 3, 4])
def test_the_bits_are_those_of_the_equations(order, rng):
    # Not all letters of the second occur in the first, nor all pairs.
    train, test = rng.binomial(5, 0.4, 120), rng.binomial(6, 0.5, 60)
    found = ngrams.bits(train, test, 7, order)
    assert len(found) == order
    for n in range(2, order + 1):
        assert found[n - 1] == pytest.approx(np.mean(slowly(train, test, 7, n)))


def test_single_letters():
    train = np.repeat([0, 1, 2, 3], [5, 2, 1, 1])
    (bits,) = ngrams.bits(train, np.array([0, 2, 4]), 5, 1)
    # D = 2 / (2 + 2 * 1) and four kinds of letters of five.
    lower = 0.5 * 4 / 5
    p = np.array([4.5 + lower, 0.5 + lower, lower]) / 9
    assert bits == pytest.approx(-np.log2(p).mean())


def test_numbers_that_are_too_large():
    text = np.arange(20)
    with pytest.raises(ValueError, match="Received: order=15 with letters=20"):
        ngrams.bits(text, text, 20, 15)
    with pytest.raises(ValueError, match="20 letters to train on"):
        ngrams.bits(text, text, 2, 21)


def test_the_example():
    assert doctest.testmod(ngrams).attempted == 3
    assert doctest.testmod(ngrams).failed == 0
