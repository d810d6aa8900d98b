"""Both directions: what a net gains that may look ahead, where the whole input is there."""

import keras
import numpy as np
import reviews

from claims import Row, grouped, nets, span, table
from kerasrnn import tasks
from kerasrnn.layers import Bidirectional

CELLS = "lstm", "gru"
UNITS, UPDATES, TESTED = 32, 600, 1000
WORDS, LENGTH, SENTENCES = 5000, 48, 8000


def wanted(seeds):
    return [
        {
            "task": task,
            "cell": cell,
            "directions": directions,
            "seed": seed,
            "units": UNITS,
            "updates": UPDATES,
            "library": "kerasrnn",
        }
        for task in ("tagging", "sentiment")
        for cell in CELLS
        for directions in (1, 2)
        for seed in range(seeds)
    ]


def in_keras(run):
    return run | {"library": "keras"}


def train(run):
    """The accuracy on words or sentences that were not trained with."""
    nets.fresh(run["seed"])
    model, tested = _TASKS[run["task"]](run)
    if "timed" in run:
        return {}
    x, y, *weight = tested
    weighted = {"sample_weight": weight[0]} if weight else {}
    return {"accuracy": float(model.evaluate(x, y, batch_size=100, verbose=0, **weighted)[1])}


def _recurrent(run, **options):
    """As wide in both directions together as in one."""
    units = run["units"] // run["directions"]
    layer = nets.layer(run["cell"], units, library=run["library"], **options)
    if run["directions"] == 1:
        return layer
    both = Bidirectional if run["library"] == "kerasrnn" else keras.layers.Bidirectional
    return both(layer)


def _trained(model, taught, epochs):
    accuracy = [keras.metrics.BinaryAccuracy(threshold=0.0)]
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(nets.RATE, global_clipnorm=nets.CLIP)
    model.compile(optimizer, loss, weighted_metrics=accuracy)
    x, y, *weight = taught
    weighted = {"sample_weight": weight[0]} if weight else {}
    model.fit(x, y, batch_size=nets.BATCH, epochs=epochs, verbose=0, **weighted)
    return model


def tagged(samples, seed):
    """Sentences, for each word a tag, and which words count: at every "the", whether the noun that
    it belongs to, two words on, is plural."""
    x, _ = tasks.number_agreement(samples, 3, seed, before=1, adjectives=1)
    the = x == 1
    tags = np.zeros_like(x)
    tags[:, :-2] = x[:, 2:] >= 16
    return x, (tags * the)[..., None], the.astype("float32")


def _tagging(run):
    words = keras.Input((None,), dtype="int32")
    x = _recurrent(run, return_sequences=True)(keras.layers.Embedding(36, 16)(words))
    model = keras.Model(words, keras.layers.Dense(1)(x))
    taught = tagged(run["updates"] * nets.BATCH, run["seed"])
    return _trained(model, taught, epochs=1), tagged(TESTED, 1000 + run["seed"])


def _sentiment(run):
    texts, labels = reviews.sentences()
    numbering = keras.layers.TextVectorization(WORDS, output_sequence_length=LENGTH)
    numbering.adapt(texts[:SENTENCES])
    words = keras.ops.convert_to_numpy(numbering(texts))
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(WORDS, 32, mask_zero=True)(inputs)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.Dropout(0.5)(_recurrent(run)(x))
    model = keras.Model(inputs, keras.layers.Dense(1)(x))
    labels = labels[:, None]
    taught = words[:SENTENCES], labels[:SENTENCES]
    epochs = max(1, round(run["updates"] * nets.BATCH / SENTENCES))
    return _trained(model, taught, epochs), (words[SENTENCES:], labels[SENTENCES:])


_TASKS = {"tagging": _tagging, "sentiment": _sentiment}


def rows(runs, found):
    by = {
        group: [one["accuracy"] for one in some]
        for group, some in grouped(runs, found, "task", "cell", "directions").items()
    }
    for task, what in (
        ("tagging", "Tags that depend on later words need both directions"),
        ("sentiment", "Both directions do better where the whole sentence is there"),
    ):
        # Not only by chance of the seeds: all in both directions are above all in one.
        better = [cell for cell in CELLS if min(by[task, cell, 2]) > max(by[task, cell, 1])]
        told = "; ".join(
            f"{cell} {span(by[task, cell, 1])} and {span(by[task, cell, 2])}" for cell in CELLS
        )
        yield Row(
            what,
            f"accuracy in one direction and in both: {told}",
            "yes" if len(better) == len(CELLS) else f"for {', '.join(better)}" if better else "no",
        )


def tables(runs, found):
    yield (
        f"Accuracy on unseen words or sentences: {UNITS} units, both directions together as wide "
        "as one; the mean of the seeds, in brackets the least and the greatest. Tagging: for every "
        '"the" of a generated sentence, whether its noun, two words on, is plural; chance 0.5. '
        "Sentiment: sentences of film reviews (Pang & Lee, 2005), without word vectors."
    )
    lines = [
        [*group, span([one["accuracy"] for one in some])]
        for group, some in grouped(runs, found, "task", "cell", "directions").items()
    ]
    yield table(("task", "cell", "directions", "accuracy"), lines)
