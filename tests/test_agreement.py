"""The part of the demo on number agreement."""

import itertools
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
