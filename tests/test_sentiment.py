"""The demo from start to end, and what it puts on the screen."""

import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import reviews
import sentiment
import starting
import tensorflow as tf

DEMO = pathlib.Path(sentiment.__file__)


def test_standard_errors():
    right = np.array([True] * 75 + [False] * 25)
    assert sentiment.with_error(right) == "0.750 ± 0.043"
    # Both right 60 times, one alone 15 times, the other alone 5 times.
    other = np.array([True] * 60 + [False] * 15 + [True] * 5 + [False] * 20)
    values = np.array([1] * 15 + [-1] * 5 + [0] * 80)
    errors = values.mean() / (values.std() / 10)
    said = sentiment.compared(right, "a bag", other)
    assert said == f"beats a bag (+0.100, {errors:.1f} standard errors)"
    said = sentiment.compared(other, "a bag", right)
    assert said == f"loses to a bag (-0.100, {errors:.1f} standard errors)"
    said = sentiment.compared(right, "itself", right)
    assert said == "ties with itself (+0.000, 0.0 standard errors)"
    near = right.copy()
    near[74:76] = False, True
    near[76] = True
    assert (
        sentiment.compared(near, "a bag", right) == "ties with a bag (+0.010, 0.6 standard errors)"
    )


def test_the_table(capsys):
    labels = np.array([0, 0, 1, 1])
    bag, strong_bag = np.array([0.6, 0.4, 0.4, 0.6]), np.array([0.1, 0.2, 0.9, 0.4])
    sentiment.table(labels, bag, strong_bag, np.array([0.6, 0.7, 0.8, 0.9]), "a net")
    lines = capsys.readouterr().out.splitlines()
    accuracies = {line[5:25].strip(): float(line[25:30]) for line in lines[2:6]}
    # The means are 0.35, 0.45, 0.85 and 0.65.
    expected = {"bag": 0.5, "strong bag": 0.75, "net": 0.5, "net and strong bag": 1.0}
    assert accuracies == expected
    assert lines[4].endswith("a net")
    assert lines[6] == "   The net ties with the bag (+0.000, 0.0 standard errors),"
    assert lines[8].startswith("   the mean of both beats the strong bag (+0.250, ")


def test_one_of_the_predictions_is_wrong(capsys):
    texts = np.array(["a" * 71, "fine", "dull", "so so", "long", "wrong too", "right too"])
    labels = np.array([1, 1, 0, 1, 0, 1, 1])
    sentiment.predictions(texts, labels, np.array([0.9, 0.8, 0.25, 0.4, 0.1, 0.2, 0.7]))
    assert capsys.readouterr().out.splitlines()[2:] == [
        "     0.80  good         fine",
        "     0.25  bad          dull",
        "     0.10  bad          long",
        "     0.40  good  WRONG  so so",
    ]


@pytest.mark.slow
def test_a_small_run(tmp_path):
    """Nothing on the screen but its lines, which agree with what it wrote."""
    out = tmp_path / "runs"
    done = subprocess.run(
        [sys.executable, DEMO, "--limit", "300", "--epochs", "2", "--out", out],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert all(re.match(r"Learns|One to|In |Next|   |[12]\. |$", line) for line in lines)
    assert max(map(len, lines)) <= 96 + len(str(out))

    written = {p.name for p in out.iterdir()}
    assert written == starting.OUTPUTS.keys() - {"tuning"}
    listed = {line.split()[0] for line in lines[-1 - len(written) : -1]}
    assert listed == written
    assert lines[-1].startswith("Next: python examples/sentiment.py --tune")
    assert len((out / "gradients.csv").read_text().splitlines()) == 1 + 2 * np.ceil(240 / 64)
    assert keras.models.load_model(out / "model.keras").count_params() > 0
    assert "Health of lstm" in (out / "health.html").read_text()
    for name in ("gradients.png", "gradients_through_time.png"):
        assert (out / name).stat().st_size > 10_000

    train, _, (texts, labels) = reviews.split(*reviews.sentences(300))
    serve = tf.saved_model.load(out / "saved_model").signatures["serving_default"]
    good = serve(text=tf.constant(texts))["output_0"].numpy()[:, 0]
    assert f"     net                 {sentiment.with_error((good > 0.5) == labels)}" in done.stdout
    bags = reviews.bag(*train), reviews.strong_bag(*train)
    bag, strong_bag = (one.predict_proba(texts)[:, 1] for one in bags)
    assert f"     bag                 {sentiment.with_error((bag > 0.5) == labels)}" in done.stdout
    both = sentiment.with_error(((good + strong_bag) / 2 > 0.5) == labels)
    assert f"     net and strong bag  {both}" in done.stdout
    shown = [line.strip() for line in lines if re.match(r" +\d\.\d\d  (good|bad) ", line)]
    assert sum("WRONG" in line for line in shown) <= 1
    for line in shown:
        probability, truth = line.split()[:2]
        (i,) = (i for i, text in enumerate(texts) if line.endswith(f"  {text}"))
        assert f"{good[i]:.2f}" == probability
        assert truth == ("good" if labels[i] else "bad")
        assert ("WRONG" in line) == ((good[i] > 0.5) != labels[i])


@pytest.mark.slow
def test_a_small_search_that_is_stopped_and_taken_up(tmp_path, quiet_tuner, monkeypatch, capsys):
    import agreement
    import review_net

    class Small(review_net.WithWordVectors):
        def __init__(self, vectors, **choices):
            super().__init__(vectors, **choices | {"units": (8,), "depths": (1,)})

    def stop(samples):
        raise KeyboardInterrupt

    monkeypatch.setattr(review_net, "WithWordVectors", Small)
    flags = ["--limit", "100", "--epochs", "1", "--tune", "--trials", "1", "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(agreement, "sentences", stop)
        with pytest.raises(KeyboardInterrupt):
            sentiment.main(flags)
    # What was computed stays.
    assert "the best of the search" in capsys.readouterr().out
    later = {"health.html", "gradients_through_time.png"}
    assert {p.name for p in tmp_path.iterdir()} == starting.OUTPUTS.keys() - later

    (trial,) = tmp_path.glob("tuning/*/trial_*/trial.json")
    found = trial.read_text(), trial.stat().st_mtime_ns
    sentiment.main(flags)
    assert "best first" in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} == starting.OUTPUTS.keys()
    assert [*tmp_path.glob("tuning/*/trial_*/trial.json")] == [trial]
    assert (trial.read_text(), trial.stat().st_mtime_ns) == found


def test_the_words_come_from_the_training_sentences_alone(monkeypatch, tmp_path):
    """Those of the net, beside the texts without labels; and what the bags are fitted on."""
    seen = []

    def stop(texts, words, vectors):
        seen.append(texts)
        raise KeyboardInterrupt

    for name in ("bag", "strong_bag"):
        fit = getattr(reviews, name)
        monkeypatch.setattr(
            reviews, name, lambda *part, fit=fit: (seen.append(part[0]), fit(*part))[1]
        )
    monkeypatch.setattr(reviews, "with_words_of", stop)
    monkeypatch.setattr(reviews, "word_vectors", lambda documents: ([], np.zeros((0, 2))))
    with pytest.raises(KeyboardInterrupt):
        sentiment.main(["--limit", "100", "--out", str(tmp_path)])
    texts, _ = reviews.sentences(100)
    assert len(seen) == 3
    for part in seen:
        np.testing.assert_array_equal(part, texts[:80])
