"""Counts of letters in a row: the model of a text that a net has to beat.

Used by `language_model.py`.
"""

import numpy as np


def bits(train, test, letters, order):
    """Bits per character of n-gram models with interpolated Kneser-Ney smoothing.

        p_k(w|h) = (max(c(hw) - D, 0) + D N(h·) p_{k-1}(w|h')) / c(h·),    p_0(w) = 1 / V

    h is the k - 1 letters before w, h' the same without the first of them, c(h·) = Σ_w c(hw), and
    N(h·) the number of letters w with c(hw) > 0. Where h never occurred, p_k = p_{k-1}. At the
    highest order c counts how often hw occurred; below it, how many different letters stood before
    hw. Each order has its own D = n_1 / (n_1 + 2 n_2), from the numbers of hw that count 1 and 2;
    0.5 where there are none of these or of those.

    Chen & Goodman (1999), "An empirical study of smoothing techniques for language modeling",
    section 2.7; to interpolate is from Jelinek & Mercer (1980).

    Args:
        train, test: Texts as whole numbers from 0 to V - 1. `test` goes on where `train` ends, and
            its first letters are predicted from the last ones there.
        letters: V.
        order: The highest n.

    Returns:
        -log2 p_n, the mean over the letters of `test`, for each n from 1 to `order`.

    Raises:
        ValueError: The texts are shorter than `order`, or V**order is too large for 64 bits.

    Example:

    >>> text = np.tile([0, 1, 2], 100)
    >>> one, two = bits(text, text, letters=3, order=2)
    >>> bool(two < 0.02 < 1.58 < one)
    True
    """
    if letters**order >= 2**63 or order > len(train):
        raise ValueError(
            "`order` must be at most the length of `train`, and letters**order below 2**63. "
            f"Received: order={order} with letters={letters} and {len(train)} letters to train on"
        )
    both = np.concatenate([train[len(train) - order :], test])
    lower, found = np.full(len(test), 1 / letters), []
    rows = np.unique(numbers_of(train, 1, letters), return_counts=True)
    for n in range(1, order + 1):
        asked = numbers_of(both, n, letters)[-len(test) :]
        found.append(-np.log2(interpolated(*rows, asked, letters, lower)).mean())
        if n < order:
            # Each of these once, without its first letter: what stood before the rest of it.
            longer = np.unique(numbers_of(train, n + 1, letters), return_counts=True)
            continued = np.unique(longer[0] % letters**n, return_counts=True)
            lower, rows = interpolated(*continued, asked, letters, lower), longer
    return found


def numbers_of(text, n, letters):
    """Each n letters in a row as the digits of one number."""
    numbers = np.zeros(len(text) - n + 1, "int64")
    for digit in range(n):
        numbers = letters * numbers + text[digit : digit + len(numbers)]
    return numbers


def interpolated(rows, counts, asked, letters, lower):
    """p_k of rows of letters, from the rows that occurred, in order, with their counts c(hw), and
    from p_{k-1}."""
    ones, twos = (counts == 1).sum(), (counts == 2).sum()
    discount = ones / (ones + 2 * twos) if ones and twos else 0.5
    before, place = np.unique(rows // letters, return_inverse=True)
    total, kinds = np.bincount(place, counts), np.bincount(place)
    (c,) = looked_up(rows, asked, counts)
    of_all, n = looked_up(before, asked // letters, total, kinds)
    p = (np.maximum(c - discount, 0) + discount * n * lower) / np.maximum(of_all, 1)
    return np.where(of_all > 0, p, lower)


def looked_up(known, asked, *values):
    """The values of those of `asked` that are in `known`, which is sorted, and 0 of the others."""
    place = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return [np.where(known[place] == asked, value[place], 0) for value in values]
