"""Syntactic against sequential recency: which number of the verb a language model expects where
other nouns stand between the verb and its subject (Linzen, Dupoux & Goldberg, 2016), and when in
its training.

The sentences are generated, or real ones from a file. Generated, the nets are language models, and
the verb's form is that which is expected more; nouns of another number than the subject's,
attractors, are rare in training, as in text, and in the test as frequent as others. Of real ones
they predict the number from the words before the verb, as in section 3 there.
"""

import csv

import keras
import numpy as np

from claims import Row, grouped, nets, table
from kerasrnn import tasks

CELLS = "simple_rnn", "lstm", "gru"
UNITS, UPDATES, TESTED = 64, 600, 2000
# The training in so many parts, each followed by a look at the errors; those that the table shows.
LOOKS, SHOWN = 12, (2, 3, 4, 6, 12)
LEARNED = 0.05
# Nouns behind the subject, at most; phrases before it; adjectives of each noun.
NOUNS, BEFORE, ADJECTIVES = 4, (0, 1), 1
PHRASE = 3 + ADJECTIVES
# By what each further attractor divides the number of training sentences.
RARER = 10
SINGULAR, PLURAL = 36, 37  # "is" and "are", behind the words of the task
COLUMNS = "sentence", "verb_index", "verb_pos", "n_intervening", "n_diff_intervening"
# Verbs in the plural and in the singular, by their tags in the Penn Treebank.
VERBS = "VBP", "VBZ"
# Of a file: the fewest sentences of use, and the most to train and to test on.
FEWEST, MOST = 20, 50_000
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
    """For each look, how often the verb's number was right, by the number of attractors; and where
    the last noun has the number of the subject, and has not."""
    nets.fresh(run["seed"])
    way = _generated if run["sentences"] is None else _real
    model, x, y, right_of, attractors, last_differs = way(run)
    looks = []
    for part in np.array_split(np.arange(len(x)), LOOKS):
        model.fit(x[part], y[part], batch_size=nets.BATCH, shuffle=False, verbose=0)
        if "timed" in run:
            continue
        right = right_of(model)
        looks.append(
            {
                "right": {
                    str(n): float(right[attractors == n].mean()) for n in np.unique(attractors)
                },
                "last_agrees": float(right[~last_differs].mean()),
                "last_differs": float(right[last_differs].mean()),
            }
        )
    return {"looks": looks}


def generated(samples, seed, rarer=1):
    """Sentences with up to one phrase before the subject and one to `NOUNS` nouns behind it, and
    their verbs.

    Args:
        samples: How many.
        seed: Of NumPy's generator.
        rarer: By what each further attractor divides the number of sentences.

    Returns:
        words (samples, longest), padded by 0, the verb last; the numbers of the subject, 1 for
        plural; the attractors; and whether the last noun is one.
    """
    rng = np.random.default_rng(seed)
    longest = PHRASE * (max(BEFORE) + 1 + NOUNS)
    kinds = [(before, nouns) for before in BEFORE for nouns in range(1, NOUNS + 1)]
    count, parts = samples // len(kinds), []
    for before, nouns in kinds:
        kept = ((1 + 1 / rarer) / 2) ** nouns
        drawn = count if rarer == 1 else int(1.2 * count / kept) + 1000
        x, plural = tasks.number_agreement(drawn, nouns, (seed, before, nouns), before, ADJECTIVES)
        behind = x[:, PHRASE * (before + 2) - 2 :: PHRASE]
        others = (behind >= 16) != (plural == 1)[:, None]
        attractors = others.sum(axis=1)
        taken = np.flatnonzero(rng.random(drawn) < (1 / rarer) ** attractors)[:count]
        words = np.zeros((count, longest), "int32")
        words[:, : x.shape[1]] = x[taken]
        words[:, x.shape[1]] = np.where(plural[taken] == 1, PLURAL, SINGULAR)
        parts.append((words, plural[taken], attractors[taken], others[taken, -1]))
    order = rng.permutation(count * len(kinds))
    return [np.concatenate(each)[order] for each in zip(*parts, strict=True)]


def language_model(run):
    words = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(PLURAL + 1, 32, mask_zero=True)(words)
    x = nets.layer(run["cell"], run["units"], library=run["library"], return_sequences=True)(x)
    model = keras.Model(words, keras.layers.Dense(PLURAL + 1)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(nets.RATE, global_clipnorm=nets.CLIP), loss)
    return model


def _generated(run):
    taught, *_ = generated(run["updates"] * nets.BATCH, run["seed"], RARER)
    words, plural, attractors, last_differs = generated(TESTED, 1000 + run["seed"])
    before_verb = (words != 0).sum(axis=1) - 2

    def right_of(model):
        logits = model.predict(words[:, :-1], batch_size=100, verbose=0)
        expected = logits[np.arange(len(words)), before_verb]
        return (expected[:, PLURAL] > expected[:, SINGULAR]) == (plural == 1)

    return language_model(run), taught[:, :-1], taught[:, 1:], right_of, attractors, last_differs


def check(path):
    """Raises a `SystemExit` that says which column a file of sentences lacks, or which line and
    column has what it cannot have."""
    if not path.is_file():
        raise SystemExit(f"--sentences must be a file. Received: {path}")
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t")
        if missing := [name for name in COLUMNS if name not in (rows.fieldnames or [])]:
            raise SystemExit(
                f"--sentences must have the columns {', '.join(COLUMNS)}, with tabs between them. "
                f"Missing in {path}: {', '.join(missing)}"
            )
        kept = 0
        for row in rows:
            _check_row(f"{path}, line {rows.line_num}", row)
            kept += _of_one_number(row)
    if kept < FEWEST:
        raise SystemExit(
            f"--sentences must have at least {FEWEST} sentences in which the nouns between subject "
            f"and verb have one number. In {path} there are {kept}"
        )


def _check_row(where, row):
    for name in ("verb_index", "n_intervening", "n_diff_intervening"):
        if not (row[name] or "").isdecimal():
            raise SystemExit(f"{where}: {name} must be a whole number. Received: {row[name]!r}")
    if row["verb_pos"] not in VERBS:
        raise SystemExit(
            f"{where}: verb_pos must be one of {', '.join(VERBS)}. Received: {row['verb_pos']!r}"
        )


def _of_one_number(row):
    """Whether the nouns between are all of the subject's number or all of the other."""
    return row["n_diff_intervening"] in ("0", row["n_intervening"])


def real(path):
    """The words before the verb, by their ranks from 2 on and padded at the front, the numbers of
    the verbs, the attractors, and whether the nouns between are of the other number; of sentences
    in which these nouns agree with each other."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if _of_one_number(row)]
    if len(rows) > MOST:
        chosen = np.random.default_rng(0).choice(len(rows), MOST, replace=False)
        rows = [rows[n] for n in chosen]
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
    plural = np.array([row["verb_pos"] == VERBS[0] for row in rows]).astype(int)
    attractors = np.array([int(row["n_diff_intervening"]) for row in rows])
    return words, plural, attractors, attractors > 0


def _real(run):
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
    again = np.resize(taught, run["updates"] * nets.BATCH)

    def right_of(model):
        return (model.predict(words[tested], verbose=0)[:, 0] > 0) == (plural[tested] == 1)

    of_tested = attractors[tested], last_differs[tested]
    return model, words[again], plural[again], right_of, *of_tested


def updates_to(looks, name, updates):
    """After how many updates the errors were below `LEARNED`, infinite if never."""
    below = (1 - look[name] < LEARNED for look in looks)
    return next((updates * (n + 1) // LOOKS for n, one in enumerate(below) if one), np.inf)


def rows(runs, found):
    updates = runs[0]["updates"]
    times = {
        cell: [
            np.median([updates_to(one["looks"], name, updates) for one in some])
            for name in ("last_agrees", "last_differs")
        ]
        for (cell,), some in grouped(runs, found, "cell").items()
    }
    told = ", ".join(
        f"{cell} {' and '.join('never' if np.isinf(t) else f'{t:.0f}' for t in both)}"
        for cell, both in times.items()
    )
    later = [cell for cell, (agrees, differs) in times.items() if differs > agrees]
    yield Row(
        "Language models learn sequential recency better than syntactic",
        f"updates until errors are below {LEARNED:.0%} where the last noun has the subject's "
        f"number, and where it has not: {told}",
        "yes" if len(later) == len(CELLS) else f"for {', '.join(later)}" if later else "no",
    )


def tables(runs, found):
    counts = sorted({n for one in found for look in one["looks"] for n in look["right"]}, key=int)
    yield (
        f"Errors in the number of the verb, in percent, by attractors; {UNITS} units, batches of "
        f"{nets.BATCH} sentences, generated ones with each further attractor {RARER} times fewer; "
        "the mean of the seeds."
    )
    lines = []
    for (cell,), some in grouped(runs, found, "cell").items():
        for look in SHOWN:
            rights = [one["looks"][look - 1]["right"] for one in some]
            errors = [_error([right.get(n) for right in rights]) for n in counts]
            lines.append([cell, runs[0]["updates"] * look // LOOKS, *errors])
    yield table(("cell", "updates", *(f"{n} attractors" for n in counts)), lines)


def _error(shares):
    shares = [share for share in shares if share is not None]
    return f"{100 * (1 - np.mean(shares)):.1f}" if shares else "-"
