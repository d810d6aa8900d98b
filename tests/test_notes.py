import dataclasses
import re

import keras
import numpy as np
import pytest
from known_nets import X, Y, compiled, found, rng, simple
from records import norms, recorded

from kerasrnn import layers
from kerasrnn.diagnostics import health_report, lyapunov_exponent
from kerasrnn.diagnostics.health.findings import verdicts
from kerasrnn.diagnostics.health.measured import Measured
from kerasrnn.diagnostics.health.notes import notes
from kerasrnn.diagnostics.health.trivial import TrivialPredictor


def test_the_report_says_where_eigenvalues_mislead():
    """W_h is 1.5 times a rotation, and saturation makes the gradients fall nevertheless."""
    layer = simple(keras.layers, 1.5)
    x = rng.normal(size=(4, 40, 8)).astype("float32")
    report = health_report(compiled(layer, shape=(40, 8)), x, Y[:4])
    health = report.layers["rnn"]
    assert health.log_radius == pytest.approx(np.log(1.5), abs=1e-5)
    assert health.lyapunov == pytest.approx(lyapunov_exponent(layer, x))
    assert health.lyapunov < 0 < health.log_radius
    assert "EXPLODING" not in {code for code, _ in found(report)}
    (note,) = (note for note in report.notes if "eigenvalues" in note)
    numbers = [float(n) for n in re.findall(r"[+-]\d\.\d{3}", note)]
    expected = [health.log_radius, health.lyapunov, health.slope]
    assert numbers == pytest.approx(expected, abs=1e-3)
    assert note in " ".join(report.text.split())
    # Where they agree there is nothing to say.
    report = health_report(compiled(simple(layers, 1.5, "linear")), X, Y)
    assert not any("eigenvalues" in note for note in report.notes)


@pytest.mark.parametrize(("percent", "said"), [(50, True), (11, True), (9, False), (51, False)])
def test_a_clip_that_fires_often_is_said(percent, said):
    """And one that does on more than half of the updates has a verdict."""
    before = norms(100)
    after = np.where(np.arange(100)[:, None] < percent, 0.5, 1) * before
    for clip, fixed in ((("clipnorm", 1.0), True), (("percentile", 10.0), False)):
        measured = Measured(record=recorded(before, after, clip))
        expected = [f"clipnorm=1 fired on {percent}% of the updates, each a shorter step."]
        assert notes(measured) == expected * (said and fixed)
        too_tight = "CLIP_TOO_TIGHT" in {verdict.code for verdict in verdicts(measured)}
        assert too_tight == (percent > 50 and fixed)
        # Where the net has learned, it has a note.
        trivial = TrivialPredictor(1.0, "the mean of `y`")
        measured = dataclasses.replace(measured, loss=0.4, trivial=trivial)
        assert notes(measured)[: fixed and percent > 9] == expected * (percent > 9 and fixed)
        assert verdicts(measured)[0].code == "HEALTHY"


@pytest.mark.parametrize(
    ("last", "trivial", "said"),
    [(0.94, 1.0, True), (0.96, 1.0, False), (0.85, None, False), (0.85, 20.0, False)],
)
def test_a_loss_that_still_falls_is_said(last, trivial, said):
    """Unless it is small beside the trivial predictor's."""
    loss = np.r_[np.ones(80), np.full(20, last)]
    known = trivial and TrivialPredictor(trivial, "the mean of `y`")
    measured = Measured(record=recorded(norms(100), loss=loss), loss=last, trivial=known)
    assert [note.endswith("train on.") for note in notes(measured)] == [True] * said


def test_a_loss_that_falls_slowly():
    loss = np.r_[np.ones(80), np.full(20, 0.9)]
    trivial = TrivialPredictor(1.0, "the mean of `y`")
    for ratio, rate, penalties, said in (
        (1e-4, 0.01, 0.0, "train on. Raise the learning rate from 0.01 to 0.1: an update"),
        (1e-3, 0.01, 0.0, "train on."),
        (1e-4, np.nan, 0.0, "train on."),
        # Of the loss penalties are most.
        (1e-4, 0.01, 0.88, None),
    ):
        record = recorded(norms(100), loss=loss, ratio=ratio, rate=rate)
        measured = Measured(record=record, loss=0.9, penalties=penalties, trivial=trivial)
        told = notes(measured)
        assert len(told) == (said is not None)
        assert all(said in note and note.endswith((said, "healthy.")) for note in told)


def test_norms_that_jump_where_the_net_has_learned():
    """That it has makes a note of the verdict."""
    jumping = norms()
    jumping[::50] *= 1e3
    trivial = TrivialPredictor(1.0, "the mean of `y`")
    for loss, code in ((0.9, "EXPLODING"), (0.1, "HEALTHY")):
        measured = Measured(record=recorded(jumping), loss=loss, trivial=trivial)
        assert verdicts(measured)[0].code == code
        said = [note for note in notes(measured) if "times the median of those before" in note]
        assert len(said) == (code == "HEALTHY")


def doubled(v):
    return 2 * keras.ops.tanh(v)


def test_the_report_says_what_trains_step_by_step():
    """Where that is slow: not of "small", for which nothing is faster."""
    options = {"activation": doubled, "return_sequences": True}
    net = [
        layers.SimpleRNN(200, **options, name="one"),
        layers.Residual(layers.SimpleRNN(200, **options, name="deep"), name="two"),
        layers.GRU(60, return_sequences=True, name="fast"),
        keras.layers.GRU(2, return_sequences=True, name="theirs"),
        layers.SimpleRNN(2, name="small"),
    ]
    model = compiled(*net, eagerly=False)
    slow = [note for note in health_report(model, X, Y).notes if "plain loop" in note]
    assert slow == [
        "one, two/deep train in the plain loop, one step after the other: "
        "activation=doubled is not one of Keras's. `kerasrnn.recurrence.explain(model)` shows "
        "which way each layer goes.",
    ]
