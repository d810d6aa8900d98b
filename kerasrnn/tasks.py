"""Tasks with a known answer, which show whether a net carries information over many steps."""

import numbers

import numpy as np

from kerasrnn.arguments import positive_integer


def _at_least(name, value, least):
    """`value` as an `int`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(
            f"`{name}` must be at least {least}, an integer. Received: {name}={value!r}"
        )
    return int(value)


def adding_problem(samples, length=50, seed=0):
    """The sum of the two numbers of a sequence that are marked (Hochreiter & Schmidhuber, 1997,
    section 5.4; in the form of Arjovsky et al., 2016).

    The numbers are uniform in [0, 1); one mark is in the first half, one in the second.

    Chance: a mean squared error of 1/6 = 0.1667, the variance of the sum, for always answering 1.

    Args:
        samples: Positive integer, number of sequences.
        length: Steps of each, 2 or more.
        seed: Seed of NumPy's generator.

    Returns:
        x (samples, length, 2), the numbers and the marks; y (samples, 1). Both float32.

    Raises:
        ValueError: a size that is none, or too small.

    Example:

    >>> x, y = kerasrnn.tasks.adding_problem(4, length=6)
    >>> bool(np.allclose((x[..., 0] * x[..., 1]).sum(1), y[:, 0]))
    True
    """
    samples, length = positive_integer("samples", samples), _at_least("length", length, 2)
    rng = np.random.default_rng(seed)
    numbers, marks = rng.random((samples, length)), np.zeros((samples, length))
    rows, half = np.arange(samples), length // 2
    marks[rows, rng.integers(0, half, samples)] = 1
    marks[rows, rng.integers(half, length, samples)] = 1
    y = (numbers * marks).sum(axis=1, keepdims=True)
    return np.stack([numbers, marks], axis=-1).astype("float32"), y.astype("float32")


def temporal_order(samples, length=100, seed=0):
    """Which of X and Y came first and second, among distractors (Hochreiter & Schmidhuber, 1997,
    section 5.6, task 6a, at a fixed length).

    The symbols, one-hot in this order: start, end, the distractors a, b, c, d, and X and Y. The
    first X or Y stands between 10% and 20% of the length, the second between 50% and 60%. The
    classes: 0 for X, X; 1 for X, Y; 2 for Y, X; 3 for Y, Y.

    Chance: an accuracy of 1/4, a cross-entropy of ln 4 = 1.386.

    Args:
        samples: Positive integer, number of sequences.
        length: Steps of each, 10 or more.
        seed: Seed of NumPy's generator.

    Returns:
        x (samples, length, 8), float32; y (samples,), the classes.

    Raises:
        ValueError: a size that is none, or too small.

    Example:

    >>> x, y = kerasrnn.tasks.temporal_order(4, length=10)
    >>> x.shape, y.shape
    ((4, 10, 8), (4,))
    """
    samples, length = positive_integer("samples", samples), _at_least("length", length, 10)
    rng = np.random.default_rng(seed)
    symbols = rng.integers(2, 6, (samples, length))
    symbols[:, 0], symbols[:, -1] = 0, 1
    y, rows = rng.integers(0, 4, samples), np.arange(samples)
    for which, start in ((y // 2, 0.1), (y % 2, 0.5)):
        ends = int(start * length), int((start + 0.1) * length)
        symbols[rows, rng.integers(*ends, samples, endpoint=True)] = 6 + which
    return np.eye(8, dtype="float32")[symbols], y


def copy_memory(samples, delay=50, seed=0):
    """Ten symbols, to be repeated after a delay (Hochreiter & Schmidhuber, 1997; in the form of
    Arjovsky et al., 2016).

    The input: ten of the symbols 0 to 7, `delay` - 1 blanks (8), a delimiter (9), ten blanks. The
    output: `delay` + 10 blanks, then the ten symbols.

    Chance: a mean cross-entropy of 10 ln 8 / (delay + 20), for blanks where they belong and no
    memory of the symbols.

    Args:
        samples: Positive integer, number of sequences.
        delay: Positive integer, steps between the symbols and their repetition.
        seed: Seed of NumPy's generator.

    Returns:
        x and y, each (samples, delay + 20) integers; `np.eye(10)[x]` is one-hot.

    Raises:
        ValueError: a size that is none.

    Example:

    >>> x, y = kerasrnn.tasks.copy_memory(2, delay=3)
    >>> bool((x[:, :10] == y[:, -10:]).all())
    True
    """
    samples, delay = positive_integer("samples", samples), positive_integer("delay", delay)
    symbols = np.random.default_rng(seed).integers(0, 8, (samples, 10))
    x = np.full((samples, delay + 20), 8)
    y = x.copy()
    x[:, :10] = y[:, -10:] = symbols
    x[:, delay + 9] = 9
    return x, y


def number_agreement(samples, distractors=3, seed=0, before=0, adjectives=0):
    """Whether a verb is singular or plural: the number of its subject, not of the other nouns
    (after Linzen et al., 2016): "the keys to the cabinet near the doors" (are).

    A sequence is `before` phrases, then "the" and the subject, then `distractors` phrases. A phrase
    is a preposition, "the" and a noun, singular or plural by itself. Each noun, the subject too,
    has `adjectives` adjectives: "behind the old doors the small key near the red cabinets" (is).

    Chance: an accuracy of 1/2, and no more for the number of the last noun or of most nouns but the
    subject. What tells the subject from other nouns stands before its "the": with two distractors
    or more, a bag of n-grams needs those of length 3 + `adjectives`.

    Args:
        samples: Positive integer, number of sequences.
        distractors: Positive integer, nouns between the subject and its verb.
        seed: Seed of NumPy's generator.
        before: Integer, 0 or more, phrases before the subject.
        adjectives: Integer, 0 or more, adjectives of each noun.

    Returns:
        x, tokens (samples, (3 + adjectives) (before + 1 + distractors) - 1), with 1 for "the", 2
        to 5 prepositions, 6 to 15 singular nouns, 16 to 25 the same in the plural, 26 to 35
        adjectives (0 is free for padding); y (samples,): 1 for plural.

    Raises:
        ValueError: a size that is none.

    Example:

    >>> x, y = kerasrnn.tasks.number_agreement(100)
    >>> bool(((x[:, 1] >= 16) == y).all())
    True
    """
    samples = positive_integer("samples", samples)
    distractors = positive_integer("distractors", distractors)
    before = _at_least("before", before, 0)
    adjectives = _at_least("adjectives", adjectives, 0)
    rng = np.random.default_rng(seed)
    plural = rng.integers(0, 2, (samples, before + 1 + distractors))
    nouns = 6 + rng.integers(0, 10, plural.shape) + 10 * plural
    prepositions = rng.integers(2, 6, plural.shape)
    of_nouns = rng.integers(26, 36, (*plural.shape, adjectives))
    words = [prepositions, np.ones_like(nouns), *np.moveaxis(of_nouns, -1, 0), nouns]
    phrases = np.stack(words, axis=-1)
    # The subject has no preposition.
    x = np.delete(phrases.reshape(samples, -1), before * len(words), axis=1)
    return x, plural[:, before]
