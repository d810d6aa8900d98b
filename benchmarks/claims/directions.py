"""Both directions: what a net gains that may look ahead, where the whole input is there."""

import keras
import numpy as np
import reviews

from claims import Row, grouped, nets, span, table
from kerasrnn import tasks
from kerasrnn.layers import Bidirectional

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
        for cell in ("lstm", "gru")
        for directions in (1, 2)
        for seed in range(seeds)
    ]


def in_keras(run):
    return run | {"library": "keras"}


def train(run):
    """The accuracy on words or sentences that were not trained with."""
    nets.fresh(run["seed"])
    return {"accuracy": _TASKS[run["task"]](run)}


def _recurrent(run, **options):
    """As wide in both directions together as in one."""
    units = run["units"] // run["directions"]
    layer = nets.layer(run["cell"], units, library=run["library"], **options)
    if run["directions"] == 1:
        return layer
    both = Bidirectional if run["library"] == "kerasrnn" else keras.layers.Bidirectional
    return both(layer)


def _accuracy(model, taught, tested, epochs):
    accuracy = [keras.metrics.BinaryAccuracy(threshold=0.0)]
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(nets.RATE, global_clipnorm=nets.CLIP)
    model.compile(optimizer, loss, weighted_metrics=accuracy)
    x, y, *weights = taught
    weight = weights[0] if weights else None
    model.fit(x, y, sample_weight=weight, batch_size=nets.BATCH, epochs=epochs, verbose=0)
    x, y, *weights = tested
    weight = weights[0] if weights else None
    return float(model.evaluate(x, y, sample_weight=weight, batch_size=100, verbose=0)[1])


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
    return _accuracy(model, taught, tagged(TESTED, 1000 + run["seed"]), 1)


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
    return _accuracy(model, taught, (words[SENTENCES:], labels[SENTENCES:]), epochs)


_TASKS = {"tagging": _tagging, "sentiment": _sentiment}


def rows(runs, found):
    by = grouped(runs, found, "task", "directions")

    def mean(task, directions):
        return np.mean([one["accuracy"] for one in by[task, directions]])

    for task, what in (
        ("tagging", "Tags that depend on later words need both directions"),
        ("sentiment", "Both directions do better where the whole sentence is there"),
    ):
        one, two = mean(task, 1), mean(task, 2)
        spread = np.std([each["accuracy"] for d in (1, 2) for each in by[task, d]]) / 2
        # An honest difference is larger than what seeds alone make.
        holds = two - one > max(0.005, spread) and "yes"
        yield Row(what, f"accuracy {one:.3f} in one direction, {two:.3f} in both", holds or "no")


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
