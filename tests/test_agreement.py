"""The part of the demo on number agreement, and the script of the gallery."""

import itertools
import math
from types import SimpleNamespace

import agreement
import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from kerasrnn.diagnostics import gradient_flow
from kerasrnn.layers import SimpleRNN


@pytest.fixture(scope="module")
def parts():
    return agreement.sentences(120)


def test_the_subject_is_where_the_picture_says(parts):
    assert [len(y) for _, y in parts] == [80, 20, 20]
    for x, y in parts:
        assert x.shape == (len(y), agreement.STEPS)
        subject = x[:, agreement.STEPS - agreement.BACK - 1]
        np.testing.assert_array_equal(y, subject >= 16)


def test_a_bag_sees_ngrams_up_to_n(parts):
    train, _, (x, y) = parts
    bag = agreement.bag(*train, 2)
    names = {*bag[0].get_feature_names_out()}
    pairs = {f"{a} {b}" for row in train[0] for a, b in itertools.pairwise(row)}
    assert names == pairs | {*map(str, np.unique(train[0]))}
    assert bag.predict(x).shape == y.shape


def test_learning(parts):
    """The gradient is that of the weights before training, the answers are those after it."""
    train, valid, test = parts
    net = agreement.net(SimpleRNN(4))
    start = net.get_weights()
    one = agreement.learn("small", net, train, valid, test, epochs=2)
    np.testing.assert_array_equal(
        one.right, (net.predict(test[0], verbose=0)[:, 0] > 0.5) == test[1]
    )
    assert not np.allclose(start[0], net.get_weights()[0])
    net.set_weights(start)
    (half_life,) = gradient_flow(net, *valid).half_life.values()
    assert one.falls == f"halves every {half_life:.3g} steps"


def test_the_nets_learn_only_as_long_as_they_have_to(parts):
    stop = agreement.StopWhenLearned()
    stop.set_model(keras.Sequential())
    for accuracy, stops in ((0.999, False), (1.0, True)):
        stop.on_epoch_end(0, {"val_accuracy": accuracy})
        assert stop.model.stop_training == stops


def test_the_picture_shows_what_was_measured(parts):
    _, valid, _ = parts
    flow = gradient_flow(agreement.net(SimpleRNN(4)), *valid)
    accuracies = [0.5, 0.75, 1.0]
    learners = [agreement.Learner(f"net {a}", flow, np.arange(20) < 20 * a) for a in accuracies]
    figure = agreement.picture(learners)
    assert isinstance(figure, Figure)
    (axis,) = figure.axes
    lines = [line for line in axis.lines if len(line.get_xdata()) > 2]
    assert len(lines) == 3
    for line in lines:
        x, y = line.get_data()
        assert (x[0], y[0]) == (agreement.STEPS - 1, 1)
        (profile,) = flow.profile.values()
        np.testing.assert_allclose(y, [profile[agreement.STEPS - t] / profile[1] for t in x])
        share = y[x == agreement.STEPS - agreement.BACK].item()
        assert learners[0].arrives == f"{100 * share:.2g}%"
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    for accuracy in accuracies:
        assert any(f"net {accuracy}" in s and f"accuracy {accuracy:.2f}" in s for s in labels)
    (subject,) = (line for line in axis.lines if len(line.get_xdata()) == 2)
    assert [*subject.get_xdata()] == 2 * [agreement.STEPS - agreement.BACK]


def test_no_words_of_the_picture_lie_on_its_lines():
    """With the half-lives that the demo's nets have."""
    lags = np.arange(agreement.STEPS)
    learners = [
        agreement.Learner(
            name,
            SimpleNamespace(profile={"": 0.5 ** (lags / half_life)}, half_life={"": half_life}),
            np.ones(3),
        )
        for name, half_life in (("SimpleRNN", 85.5), ("LSTM", 3.51), ("LSTM with Chrono", 13.3))
    ]
    figure = agreement.picture(learners)
    figure.draw_without_rendering()
    (axis,) = figure.axes
    boxes = [text.get_window_extent() for text in (*axis.texts, *figure.legends)]
    assert len(boxes) == 3
    for line in axis.lines:
        # Between the words that are drawn, too.
        drawn = line.get_path().interpolated(20).transformed(line.get_transform()).vertices
        assert not any(box.contains(*point) for box in boxes for point in drawn)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def test_the_nouns_of_a_sentence():
    """Counted from the tokens, word by word."""
    x, y = agreement.corpus(50, seed=1)
    plural, number = agreement.plural_nouns(x), agreement.attractors(x, y)
    for i, row in enumerate(x):
        nouns = [word >= 16 for word in row if 6 <= word < 26]
        # One noun stands before the subject.
        assert [*plural[i]] == nouns[1:]
        assert number[i] == sum(noun != y[i] for noun in nouns[2:])
        assert (row[len(row) - 1 - 20] >= 16) == y[i]


def test_few_attractors_to_train_on_and_as_many_as_come_to_test():
    x, y = agreement.with_few_attractors(3000, seed=0)
    assert len(x) == len(y) == 3000
    counts = np.bincount(agreement.attractors(x, y), minlength=6)
    # Binomial, with a probability of 1/11: a tenth as likely as a noun of the subject's number.
    wanted = [3000 * math.comb(5, n) * (1 / 11) ** n * (10 / 11) ** (5 - n) for n in range(6)]
    np.testing.assert_allclose(counts, wanted, atol=4 * np.sqrt(max(wanted)))
    assert abs(y.mean() - 0.5) < 0.05
    assert len(agreement.with_few_attractors(1, seed=0)[0]) == 1


def test_errors_by_attractors():
    one = agreement.result("SimpleRNN", epochs=1, samples=64)
    x, y = agreement.corpus(8000, seed=1)
    number = agreement.attractors(x, y)
    # The last word is the last noun.
    wrong = (x[:, -1] >= 16) != y
    assert one["last_noun"] == [wrong[number == n].mean() for n in range(6)]
    assert one["last_noun"][0] == 0
    assert one["last_noun"][5] == 1
    shares = np.bincount(number) / len(number)
    assert one["error"] == pytest.approx(shares @ one["errors"])
    assert one["last_noun_error"] == pytest.approx(shares @ one["last_noun"])
    assert sum(one["trained_on"]) == 64
    few = agreement.by(np.array([0, 0, 2]), np.array([True, False, True]))
    assert few[:1] + few[2:3] == [0.5, 1.0]
    assert np.isnan(few[1])


def test_the_script(tmp_path, capsys, monkeypatch):
    made = {
        "half_life": 3.5,
        "error": 0.25,
        "last_noun_error": 0.5,
        "errors": [0.0, 0.1, 0.2, 0.3, 0.4, np.nan],
        "last_noun": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
        "trained_on": [5, 4, 3, 2, 1, 0],
    }
    seen = []
    monkeypatch.setattr(
        agreement, "result", lambda kind, **settings: seen.append((kind, settings)) or made
    )
    flags = ["--epochs", "1", "--samples", "15", "--seed", "2"]
    agreement.main([*flags, "--out", str(tmp_path / "a.png")])
    settings = {"epochs": 1, "samples": 15, "seed": 2}
    assert seen == [("SimpleRNN", settings), ("LSTM", settings)]
    assert (tmp_path / "a.png").stat().st_size > 10_000
    lines = capsys.readouterr().out.splitlines()
    for row in (
        "training sentences 5 4 3 2 1 0 15",
        "errors by the last noun, % 0.0 20.0 40.0 60.0 80.0 100.0 50.0",
        "errors of the LSTM, % 0.0 10.0 20.0 30.0 40.0 nan 25.0",
    ):
        assert row in [" ".join(line.split()) for line in lines]
    assert "SimpleRNN 3.5, LSTM 3.5" in lines
    assert lines[-1].startswith("Next: python examples/agreement.py")
