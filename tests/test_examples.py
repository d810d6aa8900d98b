import importlib.util
import pathlib
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


@pytest.fixture
def sentiment():
    spec = importlib.util.spec_from_file_location("sentiment", EXAMPLES / "sentiment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("tune", [[], ["--tune", "--trials", "1"]])
def test_sentiment(sentiment, tune, tmp_path, capsys, quiet_tuner):
    out = tmp_path / "runs"
    arguments = ["--limit", "300", "--epochs", "1", "--out", str(out), *tune]
    sentiment.main(arguments)
    printed = capsys.readouterr().out
    for expected in ("grad_norm:", "clip_rate:", "Test accuracy:", "Baseline,", "Suggested clip"):
        assert expected in printed
    assert ("best first" in printed) == bool(tune)
    assert printed.count("(here") == 3

    written = {p.name for p in out.iterdir()}
    assert written == set(sentiment.OUTPUTS) - (set() if tune else {"tuning"})
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


def test_a_missing_package_is_named_with_its_remedy(sentiment, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install .*examples"):
        sentiment.load_reviews()


def test_a_folder_with_something_else_is_left_alone(sentiment, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(FileExistsError, match=r"--overwrite.*thesis.tex"):
        sentiment.main(["--out", str(tmp_path)])
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    sentiment.check_output(tmp_path, overwrite=True)


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
