"""Syntactic against sequential recency: which number of the verb a language model expects where
other nouns stand between the verb and its subject (Linzen, Dupoux & Goldberg, 2016).

The sentences are generated, or real ones from a file. Generated, the nets are language models, and
the verb's form is that which is expected more; of real ones they predict the number from the words
before the verb, as in section 3 there.
"""

import csv

import keras
import numpy as np

from claims import Row, grouped, nets, table
from kerasrnn import tasks

CELLS = "simple_rnn", "lstm", "gru"
UNITS, UPDATES, TESTED, NOUNS = 64, 1500, 4000, 4
SINGULAR, PLURAL = 36, 37  # "is" and "are", behind the words of the task
COLUMNS = "sentence", "verb_index", "verb_pos", "n_intervening", "n_diff_intervening"
WORDS, LONGEST = 10_000, 50


def wanted(seeds, sentences=None):
    return [
        {
            "cell": cell,
            "seed": seed,
            "units": UNITS,
            "updates": UPDATES,
            "library": "kerasrnn",
            "sentences": None if sentences is None else str(sentences),
        }
        for cell in CELLS
        for seed in range(seeds)
    ]


def in_keras(run):
    return run | {"library": "keras"}


def train(run):
    """How often the verb's number was right, by the number of attractors, nouns of the other number
    behind the subject; and where the last noun has the other number, and has not."""
    nets.fresh(run["seed"])
    way = _on_generated if run["sentences"] is None else _on_real
    right, attractors, last_differs = way(run)
    by_attractors = {
        str(count): float(right[attractors == count].mean()) for count in np.unique(attractors)
    }
    return {
        "right": by_attractors,
        "last_agrees": float(right[~last_differs].mean()),
        "last_differs": float(right[last_differs].mean()),
    }


def generated(samples, seed):
    """Sentences with one to `NOUNS` nouns behind the subject, and their verbs.

    Returns:
        words (samples, longest), padded by 0, the verb last; the numbers of the subject, 1 for
        plural; how many nouns behind it have the other; and whether the last has.
    """
    longest = 3 * (1 + NOUNS)
    parts = []
    for nouns in range(1, NOUNS + 1):
        count = samples // NOUNS
        x, plural = tasks.number_agreement(count, nouns, seed * NOUNS + nouns)
        words = np.zeros((count, longest), "int32")
        words[:, : x.shape[1]] = x
        words[:, x.shape[1]] = np.where(plural == 1, PLURAL, SINGULAR)
        others = (x[:, 4::3] >= 16) != (plural == 1)[:, None]
        parts.append((words, plural, others.sum(axis=1), others[:, -1]))
    order = np.random.default_rng(seed).permutation(samples // NOUNS * NOUNS)
    return [np.concatenate(each)[order] for each in zip(*parts, strict=True)]


def language_model(run):
    words = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(PLURAL + 1, 32, mask_zero=True)(words)
    x = nets.layer(run["cell"], run["units"], library=run["library"], return_sequences=True)(x)
    model = keras.Model(words, keras.layers.Dense(PLURAL + 1)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(nets.RATE, global_clipnorm=nets.CLIP), loss)
    return model


def _on_generated(run):
    words, *_ = generated(run["updates"] * nets.BATCH, run["seed"])
    model = language_model(run)
    model.fit(words[:, :-1], words[:, 1:], batch_size=nets.BATCH, shuffle=False, verbose=0)
    words, plural, attractors, last_differs = generated(TESTED, 1000 + run["seed"])
    logits = model.predict(words[:, :-1], batch_size=100, verbose=0)
    before_verb = (words != 0).sum(axis=1) - 2
    expected = logits[np.arange(len(words)), before_verb]
    right = (expected[:, PLURAL] > expected[:, SINGULAR]) == (plural == 1)
    return right, attractors, last_differs


def check(path):
    """Raises a `SystemExit` that says which column a file of sentences lacks."""
    if not path.is_file():
        raise SystemExit(f"--sentences must be a file. Received: {path}")
    with path.open(newline="", encoding="utf-8") as file:
        columns = csv.DictReader(file, delimiter="\t").fieldnames or []
    if missing := [name for name in COLUMNS if name not in columns]:
        raise SystemExit(
            f"--sentences must have the columns {', '.join(COLUMNS)}, with tabs between them. "
            f"Missing in {path}: {', '.join(missing)}"
        )


def real(path):
    """The words before the verb, by their ranks from 2 on and padded at the front, the numbers of
    the verbs, the attractors, and whether the nouns between are of the other number; of sentences
    in which these nouns agree with each other."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    rows = [
        row
        for row in rows
        if row["n_intervening"] == row["n_diff_intervening"] or row["n_diff_intervening"] == "0"
    ]
    texts = [row["sentence"].lower().split()[: int(row["verb_index"]) - 1] for row in rows]
    counts = {}
    for text in texts:
        for word in text:
            counts[word] = counts.get(word, 0) + 1
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[:WORDS]
    number = {word: rank for rank, word in enumerate(ranked, 2)}
    words = keras.utils.pad_sequences(
        [[number.get(word, 1) for word in text] for text in texts], LONGEST
    )
    plural = np.array([row["verb_pos"] == "VBP" for row in rows]).astype(int)
    attractors = np.array([int(row["n_diff_intervening"]) for row in rows])
    return words, plural, attractors, attractors > 0


def _on_real(run):
    words, plural, attractors, last_differs = real(run["sentences"])
    order = np.random.default_rng(run["seed"]).permutation(len(words))
    # A tenth to train on, as there.
    taught, tested = np.split(order, [max(1, len(order) // 10)])
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(WORDS + 2, 50, mask_zero=True)(inputs)
    x = nets.layer(run["cell"], run["units"], library=run["library"])(x)
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(nets.RATE, global_clipnorm=nets.CLIP), loss)
    epochs = max(1, round(run["updates"] * nets.BATCH / len(taught)))
    model.fit(words[taught], plural[taught], batch_size=nets.BATCH, epochs=epochs, verbose=0)
    right = (model.predict(words[tested], verbose=0)[:, 0] > 0) == (plural[tested] == 1)
    return right, attractors[tested], last_differs[tested]


def rows(runs, found):
    by = {cell: some for (cell,), some in grouped(runs, found, "cell").items()}

    def errors(cell, name):
        return 100 * (1 - np.mean([one[name] for one in by[cell]]))

    told = ", ".join(
        f"{cell} {errors(cell, 'last_agrees'):.2g}% and {errors(cell, 'last_differs'):.2g}%"
        for cell in CELLS
    )
    misled = [c for c in CELLS if errors(c, "last_differs") > 2 * errors(c, "last_agrees") + 0.5]
    yield Row(
        "Language models learn sequential recency better than syntactic",
        f"errors where the last noun agrees with the subject, and where it does not: {told}",
        "yes" if len(misled) == len(CELLS) else f"for {', '.join(misled)}" if misled else "no",
    )


def tables(runs, found):
    counts = sorted({count for one in found for count in one["right"]}, key=int)
    lines = [
        [cell, *(_error([one["right"].get(count) for one in some]) for count in counts)]
        for (cell,), some in grouped(runs, found, "cell").items()
    ]
    yield (
        f"Errors in the number of the verb, in percent, by attractors; {UNITS} units, {UPDATES} "
        f"updates of {nets.BATCH} sentences; the mean of the seeds."
    )
    yield table(("cell", *(f"{count} attractors" for count in counts)), lines)


def _error(shares):
    shares = [share for share in shares if share is not None]
    return f"{100 * (1 - np.mean(shares)):.2f}" if shares else "-"
