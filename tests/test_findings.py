"""What is found in recorded norms whose illness is known; test_report.py has the models."""

import inspect
import math
import re

import keras
import numpy as np
import pytest
from records import norms, recorded, verdict_on, verdicts_on

from kerasrnn import layers
from kerasrnn.callbacks import GradientNormMonitor
from kerasrnn.diagnostics import health_report, plots
from kerasrnn.diagnostics.gates import Gate
from kerasrnn.diagnostics.health.findings import CHECKS, verdicts
from kerasrnn.diagnostics.health.measured import LayerHealth, Measured
from kerasrnn.diagnostics.health.memory import Exchange
from kerasrnn.diagnostics.health.notes import notes
from kerasrnn.diagnostics.health.settings import LayerSettings, Settings
from kerasrnn.diagnostics.health.trivial import TrivialPredictor
from kerasrnn.diagnostics.health.verdict import SEVERITIES
from kerasrnn.diagnostics.reach import Reach
from kerasrnn.updates.clips import CLIPS
from kerasrnn.updates.suggestion import suggest_clipnorm


def test_verdicts():
    healthy = norms()
    cut = healthy.copy()
    cut[healthy > 1.2] = 1.2
    assert verdict_on(recorded(healthy)).startswith("HEALTHY")
    assert "through time it says nothing" in verdict_on(recorded(healthy))
    assert "fired on" in verdict_on(recorded(healthy, cut, ("clipnorm", 1.2)))

    tight = verdict_on(recorded(healthy, healthy * 0.1, ("global_clipnorm", 0.1)))
    assert tight.startswith("CLIP TOO TIGHT: global_clipnorm=0.1 cut 100%")
    idle = verdict_on(recorded(healthy, healthy, ("clipnorm", 50.0)))
    assert idle.startswith("CLIP IDLE: clipnorm=50")

    exploding = healthy.copy()
    exploding[::50] *= 1e3
    assert verdict_on(recorded(exploding)).startswith("EXPLODING")
    advice = 'Clip the gradients: kerasrnn.callbacks.GradientClipping("global_norm", '
    assert advice in verdict_on(recorded(exploding))

    broken = healthy.copy()
    broken[300:, 1] = np.nan
    verdict = verdict_on(recorded(broken))
    assert verdict.startswith("NON-FINITE: update 300 was the first of 700")
    assert "dense/kernel" in verdict
    for callback in ('GradientClipping("global_norm", 1.0)', "DivergenceGuard()"):
        assert f"`kerasrnn.callbacks.{callback}`" in verdict
    assert "GradientClipping" not in verdict_on(recorded(broken, clip=("clipnorm", 1.0)))


@pytest.mark.parametrize("mode", CLIPS)
def test_a_clip_of_gradient_clipping(mode):
    """It is named in its own terms, and drawn where it has a place among the norms."""
    before, clip = norms(), (mode, 0.1)
    tight = recorded(before, before * 0.1, clip)
    (verdict,) = verdicts_on(tight)
    named = f'GradientClipping("{mode}", 0.1)'
    suggestion = suggest_clipnorm(tight)
    by_variable = mode == "norm"
    assert (suggestion.mode, suggestion.argument) == (
        ("norm", "clipnorm") if by_variable else ("global_norm", "global_clipnorm")
    )
    fixed = mode in ("norm", "global_norm")
    assert (f"in the place of {named}" in suggestion.reason) == (not fixed)
    # Those that follow the norms or the weights may be meant to fire that often.
    follows = mode in ("percentile", "zscore", "adaptive")
    assert (f"{named} fired on 100%" in suggestion.reason) == (not follows)
    if follows:
        assert (verdict.code, verdict.numbers["clip_rate"]) == ("HEALTHY", 1.0)
    else:
        meaning = f"{named} cut 100% of the updates."
        assert (verdict.code, verdict.meaning) == ("CLIP_TOO_TIGHT", meaning)
        assert verdict.numbers == {"clip_rate": 1.0, "mode": mode, "value": 0.1}
        advice = f'Try kerasrnn.callbacks.GradientClipping("{suggestion.mode}", {suggestion:.3g}): '
        assert verdict.remedy.startswith(advice)
    idle, well = verdicts_on(recorded(before, clip=clip))
    assert well.code == "HEALTHY"
    assert (idle.code, idle.meaning[: len(named)]) == ("CLIP_IDLE", named)

    *axes, _, _ = plots.gradient_norms(tight).axes
    assert len(axes) == 1 + by_variable
    drawn = [line for axis in axes for line in axis.lines if "threshold" in line.get_label()]
    assert [line.get_ydata()[0] for line in drawn] == [0.1] * fixed


def test_a_clip_that_is_warming_up_is_not_idle():
    """ZClip's first 25 updates are not clipped."""
    for updates, codes in (25, {"HEALTHY"}), (26, {"CLIP_IDLE", "HEALTHY"}):
        assert codes_on(recorded(norms(updates), clip=("zscore", 2.5))) == codes
    idle = recorded(norms(25), clip=("percentile", 10.0))
    assert codes_on(idle) == {"CLIP_IDLE", "HEALTHY"}


def test_no_finding_contradicts_another():
    exploding = norms()
    exploding[::50] *= 1e3
    caught = np.minimum(exploding, 10.0)
    idle = verdict_on(recorded(exploding, exploding, ("clipnorm", 1e4)))
    assert idle.startswith("EXPLODING")
    assert "clipnorm=10000 never fired. Clip the gradients: clipnorm=" in idle
    assert "no harm" not in idle
    clipped = verdict_on(recorded(exploding, caught, ("clipnorm", 10.0)))
    assert "before clipnorm=10, which cut 2% of the updates." in clipped
    assert "Clip the gradients" not in clipped

    vanished = verdict_on(recorded(norms() * 1e-12, clip=("clipnorm", 1.0)))
    assert vanished.startswith("VANISHING")
    assert "lower it" not in vanished

    # A clip that has fired is not said to have done so 0% of the time.
    once = norms()
    once[0] = 50.0
    cut = np.minimum(once, 20.0)
    assert "less than 1% of them" in verdict_on(recorded(once, cut, ("clipnorm", 20.0)))


def test_gradients_that_are_not_there():
    assert verdict_on(recorded(np.zeros((20, 2)))).startswith("VANISHING")
    assert verdict_on(recorded(norms() * 1e-12)).startswith("VANISHING")
    # Most updates do nothing: neither an explosion nor a threshold of zero.
    sparse = np.zeros((100, 2))
    sparse[::3] = 1.0
    record = recorded(sparse)
    assert verdict_on(record).startswith("VANISHING")
    assert suggest_clipnorm(record) == pytest.approx(np.sqrt(2))
    with pytest.raises(ValueError, match="20 recorded updates, 20 of them finite"):
        suggest_clipnorm(recorded(np.zeros((20, 2))))


def test_nothing_finite_says_nothing_of_the_clip():
    record = recorded(np.full((5, 2), np.nan), clip=("clipnorm", 1.0))
    assert verdict_on(record).startswith("NON-FINITE: update 0 was the first of 5")
    assert "CLIP" not in verdict_on(record)


def test_every_check_is_described_where_verdicts_are():
    """And nothing else is."""
    listed = re.findall(r"^ {4}- ([A-Z_]+): (.*(?:\n {8}.*)*)", health_report.__doc__, re.M)
    assert [code for code, _ in listed] == list(CHECKS)
    for code, text in listed:
        assert " ".join(text.split()) == " ".join(inspect.getdoc(CHECKS[code]).split())


# Of 100 updates.
EVER = norms(100, 0.05)
FALLS = np.linspace(1, 0.5, 100)


def records_of_many_kinds():
    exploding, broken = norms(), norms()
    exploding[::50] *= 1e3
    broken[3] = np.nan
    return [recorded(EVER, ratio=4.0)] + [
        recorded(before, after, clip)
        for before in (norms(), norms() * 1e-12, exploding, broken)
        for after in (before, before * 0.1)
        for clip in (None, ("clipnorm", 0.1), ("percentile", 10.0))
    ]


def test_what_can_be_said_of_norms_alone_is_what_the_monitor_says_it_can():
    words = GradientNormMonitor.verdict.__doc__.replace("-", " ")
    said = {code for code in CHECKS if code.replace("_", " ") in words}
    codes = (verdict.code for record in records_of_many_kinds() for verdict in verdicts_on(record))
    assert set(codes) == said


@pytest.mark.parametrize("code", CHECKS)
def test_every_check_takes_what_was_measured_and_gives_its_verdicts(code):
    """Each under its code, and of nothing nothing."""
    check = CHECKS[code]
    assert list(inspect.signature(check).parameters) == ["measured"]
    assert check.__name__.upper() == code
    verdicts = [v for record in records_of_many_kinds() for v in check(Measured(record=record))]
    assert {verdict.code for verdict in verdicts} <= {code}
    if code != "HEALTHY":
        assert check(Measured()) == []


def codes(record=None, **of_layers):
    measured = Measured(record=record, layers=of_layers)
    return {verdict.code for check in CHECKS.values() for verdict in check(measured)}


def codes_on(record):
    return {verdict.code for verdict in verdicts_on(record)}


def constant(norm, of_last=None):
    """Norms that are all the same, the hundredth part of them, the last ones, another one."""
    of_one = np.full(1000, norm / 2**0.5)
    of_one[-11:] = (of_last or norm) / 2**0.5
    return np.stack([of_one, of_one], axis=1)


def jump(by):
    """A loss that leaps at update 10, behind an update of 11% of the weights."""
    return np.where(np.arange(100) == 10, by, FALLS)


def after(ratio, update=9):
    return np.where(np.arange(100) == update, ratio, 1e-3)


@pytest.mark.parametrize(
    ("above", "below"),
    [
        # An update larger than the weights.
        ({"ratio": after(2.01)}, {"ratio": after(1.99)}),
        # Half of them.
        ({"ratio": 0.31}, {"ratio": 0.29}),
        # A jump of the loss, and the update before it.
        ({"loss": jump(10.1), "ratio": after(0.11)}, {"loss": jump(9.9), "ratio": after(0.11)}),
        ({"loss": jump(10.1), "ratio": after(0.11)}, {"loss": jump(10.1), "ratio": after(0.09)}),
        (
            {"loss": jump(10.1), "ratio": after(0.11)},
            {"loss": jump(10.1), "ratio": after(0.11, update=10)},
        ),
        # Where the loss ends, and how far the updates go.
        (
            {"loss": np.linspace(1, 1.25, 100), "ratio": 0.011},
            {"loss": np.linspace(1, 1.19, 100), "ratio": 0.011},
        ),
        (
            {"loss": np.linspace(1, 1.25, 100), "ratio": 0.011},
            {"loss": np.linspace(1, 1.25, 100), "ratio": 0.009},
        ),
        (
            {"loss": np.linspace(-1, -0.75, 100), "ratio": 0.011},
            {"loss": np.linspace(-1, -0.81, 100), "ratio": 0.011},
        ),
        # Too low: the ratio, and how far the loss falls.
        ({"loss": 0 * FALLS + 1, "ratio": 0.9e-4}, {"loss": 0 * FALLS + 1, "ratio": 1.1e-4}),
        (
            {"loss": np.linspace(1, 0.87, 100), "ratio": 0.9e-4},
            {"loss": np.linspace(1, 0.83, 100), "ratio": 0.9e-4},
        ),
    ],
)
def test_thresholds_of_the_learning_rate(above, below):
    assert codes_on(recorded(EVER, **above)) == {"LEARNING_RATE"}
    assert codes_on(recorded(EVER, **below)) == {"HEALTHY"}


def test_a_rate_is_not_too_low_without_gradients_or_after_few_updates():
    low = {"ratio": 1e-5, "loss": 1.0}
    assert "LEARNING_RATE" in codes_on(recorded(EVER[:20], **low))
    assert codes_on(recorded(EVER[:19], **low)) == {"HEALTHY"}
    falls = EVER * np.where(np.arange(100) < 50, 1, 0.4)[:, None]
    assert codes_on(recorded(falls, **low)) == {"HEALTHY"}
    assert codes_on(recorded(EVER * 1e-9, **low)) == {"VANISHING"}
    # Where the model does better than a constant, a low rate is the end of a training.
    for loss, code in ((0.91, "LEARNING_RATE"), (0.89, "HEALTHY")):
        trivial = TrivialPredictor(1.0, "the mean of `y`")
        measured = Measured(record=recorded(EVER, **low), loss=loss, trivial=trivial)
        assert verdicts(measured)[0].code == code


def test_a_rate_is_lowered_to_a_thousandth_at_most():
    """However far an update threw a net that has blown up."""
    for ratio, to in ((5.0, "0.002"), (2.6e3, "0.001")):
        (verdict, *_) = verdicts_on(recorded(EVER, ratio=ratio, rate=1.0))
        assert f"from 1 to {to}:" in verdict.remedy


def test_a_rate_that_a_schedule_took_away_and_one_that_is_zero():
    decays = 0.1 * 0.9 ** np.arange(100)
    decaying = recorded(EVER, ratio=1e-7, loss=1.0, rate=decays)
    said = "the schedule took the learning rate from 0.1 to 2.95e-06"
    assert notes(Measured(record=decaying))[0].startswith(said)
    assert not notes(Measured(record=recorded(EVER, rate=0.1 * 0.92 ** np.arange(100))))
    (verdict,) = verdicts_on(decaying)
    assert verdict.remedy.startswith(
        "Let the learning rate decay more slowly: its schedule took it"
    )
    assert "from 0.1 to 2.95e-06" in verdict.remedy
    (verdict,) = verdicts_on(recorded(EVER, ratio=0.0, loss=1.0, rate=0.0))
    assert verdict.remedy.startswith(
        "Raise the learning rate from 0 to 0.001: so far nothing moves"
    )


@pytest.mark.parametrize("low", [{"ratio": 1e-5, "loss": 1.0}, {"ratio": 4.0}])
def test_scales_come_before_rates(low):
    settings = Settings(rate=0.1, scale_of_inputs=30.0, scale_of_targets=500.0)
    first, *_ = verdicts(Measured(record=recorded(EVER, **low), settings=settings))
    starts = "Scale the inputs", "Divide the targets by 500"
    assert first.code == "LEARNING_RATE"
    assert all(step.startswith(start) for step, start in zip(first.steps, starts, strict=False))


def test_layers_that_start_from_zero_are_no_sign_of_a_high_rate():
    record = recorded(EVER, ratio=1e-3)
    record.weights[:, 1] = np.minimum(np.arange(100) / 10, 1)
    record.changes[:10, 1] = 0.1
    assert codes_on(record) == {"HEALTHY"}


@pytest.mark.parametrize(
    ("options", "rates", "advised"),
    [
        ({"ratio": 5.0}, (0, math.inf), "from 0.1 to 0.0002:"),
        ({"ratio": 0.35}, (0, math.inf), "from 0.1 to 0.003:"),
        ({"loss": np.linspace(1, 3, 100), "ratio": 0.02}, (0, math.inf), "from 0.1 to 0.01:"),
        ({"loss": 1.0, "ratio": 1e-5}, (0, math.inf), "from 0.1 to 10:"),
        # Never to where an earlier report has been.
        ({"loss": 1.0, "ratio": 1e-5}, (0, 0.9), "from 0.1 to 0.3:"),
        ({"ratio": 4.0}, (0.001, math.inf), "from 0.1 to 0.01:"),
    ],
)
def test_the_rate_that_is_advised(options, rates, advised):
    (verdict,) = verdicts(Measured(record=recorded(EVER, **options), rates=rates))
    assert advised in verdict.remedy
    assert verdict.numbers["rate"] == 0.1


def test_rates_are_raised_only_so_far():
    """And not where the fastest layer moves, whatever the others do."""
    low = recorded(EVER, ratio=1e-7, loss=1.0, rate=0.01)
    for optimizer, to in (("Adam", "0.03"), ("SGD", "10")):
        settings = Settings(optimizer=optimizer, rate=0.01)
        (verdict,) = verdicts(Measured(record=low, settings=settings))
        assert f"from 0.01 to {to}:" in verdict.remedy
    settings = Settings(optimizer="Adam", rate=0.03)
    highest = recorded(EVER, ratio=1e-7, loss=1.0, rate=0.03)
    (verdict,) = verdicts(Measured(record=highest, settings=settings))
    assert "Raise" not in " ".join(verdict.steps)
    low.changes[:, 1] = 2e-4
    assert codes_on(low) == {"HEALTHY"}


def test_of_a_schedule_the_rates_count_that_did_it():
    """Not the last ones, that have harmed nobody."""
    decays = np.geomspace(1.0, 1e-5, 100)
    (verdict,) = verdicts_on(recorded(EVER, ratio=4.0, rate=decays))
    assert "from 1 to 0.003:" in verdict.remedy
    assert verdict.numbers["rate"] == 1.0
    (verdict,) = verdicts_on(recorded(EVER, ratio=1e-5, loss=1.0, rate=decays))
    assert verdict.numbers["rate"] == pytest.approx(np.median(decays), rel=1e-4)


def test_what_speaks_alone_speaks_where_nothing_is_wrong():
    idle = recorded(EVER, clip=("clipnorm", 1e6))
    assert [v.code for v in verdicts_on(idle)] == ["CLIP_IDLE", "HEALTHY"]
    layer = layer_health(low=0.9)
    assert [v.code for v in verdicts(Measured(record=idle, layers={"rnn": layer}))] == ["SATURATED"]
    assert [code for code, check in CHECKS.items() if check.alone] == [
        "NOT_LEARNING",
        "CLIP_IDLE",
        "HEALTHY",
    ]


@pytest.mark.parametrize("code", ["SATURATED", "VANISHING", "EXPLODING"])
def test_targets_out_of_scale_come_first(code):
    """Whatever is found, unless the net has learned all the same."""
    layer = layer_health(
        slope={"VANISHING": -1.0, "EXPLODING": 1.0}.get(code, 0.0), low=0.9 * (code == "SATURATED")
    )
    settings = Settings(scale_of_targets=500.0, scale_of_inputs=1.0)
    (verdict,) = verdicts(Measured(layers={"rnn": layer}, settings=settings))
    assert verdict.code == code
    assert verdict.remedy.startswith("Divide the targets by 500")
    assert sum(step.startswith("Divide the targets") for step in verdict.steps) == 1
    learned = {"loss": 0.1, "trivial": TrivialPredictor(1.0, "the mean of `y`")}
    told = verdicts(Measured(layers={"rnn": layer}, settings=settings, **learned))
    assert not any("Divide" in step for verdict in told for step in verdict.steps)


def test_what_a_net_does_without_is_settled_once_its_loss_stands():
    """One that has not learned, and still does, may yet need what it makes nothing of."""
    trivial, layer = TrivialPredictor(1.0, "the mean of `y`"), layer_health(slope=-1.0)
    for loss, falls, code in (
        (0.4, True, "HEALTHY"),
        (0.8, False, "HEALTHY"),
        (0.8, True, "VANISHING"),
        (0.95, False, "VANISHING"),
    ):
        losses = np.r_[np.ones(80), np.full(20, 0.9 if falls else 1.0)]
        measured = Measured(
            record=recorded(norms(100), loss=losses),
            loss=loss,
            trivial=trivial,
            layers={"rnn": layer},
            exchanges=lambda path, back: Exchange(back, 0.8, 0.8, 0.0, True),
        )
        assert verdicts(measured)[0].code == code
        assert any("does well without" in note for note in notes(measured)) == (code == "HEALTHY")


def test_penalties_count_for_nothing_in_what_was_learned():
    trivial = TrivialPredictor(1.0, "the mean of `y`")
    for penalties, code in ((0.0, "EXPLODING"), (1.0, "HEALTHY")):
        layer = layer_health(slope=math.log(1100) / 99)
        of_batch = {"loss": 1.4, "penalties": penalties, "trivial": trivial}
        assert verdicts(Measured(layers={"rnn": layer}, **of_batch))[0].code == code


def test_the_trend_counts_what_has_no_loss():
    losses = np.r_[np.linspace(2, 1, 20), np.full(3, np.nan)]
    first, last, known, lost = recorded(norms(23), loss=losses).trend
    assert (first, known, lost) == (2.0, 20, 3)
    assert last == pytest.approx(losses[18:20].mean(), rel=1e-6)


def test_a_frozen_layer_has_no_gates_to_learn():
    layer = layer_health(low=0.9)
    for trainable, code in ((True, "SATURATED"), (False, "HEALTHY")):
        frozen = layer._replace(trainable=trainable)
        assert verdicts(Measured(layers={"rnn": frozen}))[0].code == code


def test_what_stands_for_a_trivial_predictor_that_cannot_be_scored():
    """Half of the loss that the training began with, where a monitor knows it."""
    layer = layer_health(slope=-1.0)
    record = recorded(norms(100), loss=np.r_[2.0, np.ones(99)])
    for loss, with_record, code in (
        (0.91, True, "VANISHING"),
        (0.89, True, "HEALTHY"),
        (0.01, False, "VANISHING"),
        (-0.5, True, "VANISHING"),
    ):
        measured = Measured(
            record=record if with_record else None,
            loss=loss,
            layers={"rnn": layer},
            exchanges=lambda path, back: Exchange(back, 0.8, 0.8, 0.0, True),
        )
        assert verdicts(measured)[0].code == code


def test_the_growth_that_harms_a_net_by_what_it_has_learned():
    trivial = TrivialPredictor(1.0, "the mean of `y`")
    for loss, growth, code in (
        (1.0, 8, "HEALTHY"),
        (1.0, 12, "EXPLODING"),
        (0.8, 900, "HEALTHY"),
        (0.8, 1100, "EXPLODING"),
        (0.4, 1e6, "HEALTHY"),
    ):
        layer = layer_health(slope=math.log(growth) / 99)
        measured = Measured(loss=loss, trivial=trivial, layers={"rnn": layer})
        assert verdicts(measured)[0].code == code
        said = [note for note in notes(measured) if "the net learns all the same" in note]
        assert len(said) == (code == "HEALTHY" and growth > 10)
        assert all(f"10^{math.log10(growth):.1f} over 100 steps" in note for note in said)


def test_a_saved_model_that_has_learned_nothing():
    """Without a monitor: its optimizer knows how many updates it has made."""
    trivial = TrivialPredictor(1.0, "the mean of `y`")
    for updates, code in (None, "HEALTHY"), (0, "HEALTHY"), (99, "HEALTHY"), (100, "NOT_LEARNING"):
        (verdict,) = verdicts(Measured(loss=0.95, trivial=trivial, updates=updates))
        assert verdict.code == code
    assert "after 100 updates" in verdict.meaning
    assert "rate" not in " ".join(verdict.steps)


def test_a_rate_of_zero():
    (verdict,) = verdicts_on(recorded(EVER, rate=0.0, ratio=0.0, loss=1.0))
    assert "from 0 to 0.001:" in verdict.remedy


def test_a_training_that_diverged():
    """Its cause comes first, no threshold is taken from it, and no input is blamed."""
    before, loss = EVER.copy(), np.array(FALLS)
    before[50:60] = 10.0 ** np.arange(1, 20, 2)[:, None]
    before[60:] = np.nan
    loss[50:60], loss[60:] = before[50:60, 0], np.nan
    first, second = verdicts_on(recorded(before, loss=loss, clip=("global_clipnorm", 1e25)))
    assert (first.code, second.code) == ("LEARNING_RATE", "NON_FINITE")
    assert "climbed from update 50 on" in first.meaning
    assert "before the first Inf or NaN, update 60" in first.meaning
    assert "the gradient norm climbed from 1.4" in second.meaning
    assert "inputs" not in " ".join(second.steps)
    assert second.remedy == first.remedy
    assert "lip" not in " ".join(first.steps)
    assert "DivergenceGuard()" in first.steps[-1]
    first, _ = verdicts_on(recorded(before, loss=loss, skipped=40))
    assert "DivergenceGuard()" not in " ".join(first.steps)
    # It ends finite, and the clip fires on every update.
    loss[60:] = 1e20
    tight = recorded(EVER, EVER * 0.1, ("global_clipnorm", 0.1), loss=loss)
    first, second = verdicts_on(tight)
    assert (first.code, second.code) == ("LEARNING_RATE", "CLIP_TOO_TIGHT")
    assert second.remedy.startswith("Lower the learning rate first")


def test_gradients_that_are_huge_before_the_first_update():
    before = np.full((30, 2), np.nan)
    before[0] = 1e22
    (verdict,) = verdicts_on(recorded(before))
    assert (verdict.code, verdict.numbers["update"]) == ("EXPLODING", 1)


def test_norms_that_fall_for_good_are_no_explosion():
    """Each is held against those before it: as a loss falls, so do its gradients."""
    falls = norms() * np.geomspace(1e3, 1e-3, 1000)[:, None]
    assert np.percentile(falls, 99) > 100 * np.median(falls)
    assert codes_on(recorded(falls)) == {"HEALTHY"}
    jumps = falls.copy()
    jumps[200::50] *= 1e3
    assert codes_on(recorded(jumps)) == {"EXPLODING"}
    for times, code in (90, "HEALTHY"), (110, "EXPLODING"):
        steady = np.ones((300, 2))
        steady[::40] = times
        assert codes_on(recorded(steady)) == {code}


def test_a_net_that_has_learned_nothing():
    """Thresholds of updates and loss, what comes first, and what to try in which order."""
    trivial = TrivialPredictor(1.0, "the mean of `y`")

    def at(loss=0.96, record=None, **others):
        record = recorded(EVER, ratio=1e-3) if record is None else record
        return verdicts(Measured(record=record, loss=loss, trivial=trivial, **others))

    (verdict,) = at()
    assert (verdict.code, verdict.severity) == ("NOT_LEARNING", "attention")
    assert verdict.numbers["trivial_loss"] == 1.0
    assert verdict.numbers["update_ratio"] == pytest.approx(1e-3)
    assert "from 0.1 to 0.3:" in verdict.remedy
    assert "Train on" in verdict.further[0]
    assert at(loss=0.94)[0].code == "HEALTHY"
    assert at(record=recorded(EVER[:99]))[0].code == "HEALTHY"
    # Layers that move fast enough, and a rate that was too high at 0.2.
    assert "Train on" in at(record=recorded(EVER, ratio=4e-3))[0].remedy
    assert "from 0.1 to 0.14:" in at(rates=(0, 0.2))[0].remedy
    # Other causes come first, and alone.
    tight = recorded(EVER, EVER * 0.1, ("global_clipnorm", 0.1))
    assert [v.code for v in at(record=tight)] == ["CLIP_TOO_TIGHT"]
    assert {v.code for v in at(layers={"rnn": layer_health(slope=-1.0)})} == {"VANISHING"}

    plain = Settings(optimizer="SGD", rate=0.1, scale_of_targets=500.0, scale_of_inputs=30.0)
    stack = {f"rnn_{k}": layer_health() for k in range(5)}
    (verdict,) = at(settings=plain, layers=stack)
    starts = ["Divide the targets by 500", "Scale the inputs", "Lead connections past the layers"]
    starts += ["Take an optimizer", "Raise the learning rate", "Start its gates", "Train on", "See"]
    assert len(verdict.steps) == len(starts)
    for step, start in zip(verdict.steps, starts, strict=True):
        assert step.startswith(start)
    shrinking = recorded(EVER, ratio=1e-3)
    shrinking.weights = np.linspace(1, 0.02, 100)[:, None] * np.ones((1, 2))
    (verdict,) = at(record=shrinking, settings=plain)
    assert verdict.remedy.startswith("Weaken the regularizers, or the optimizer's weight decay")
    assert "shrunk to 2.0% of what" in verdict.remedy
    stack = dict(list(stack.items())[:4])
    assert "connections" not in " ".join(at(settings=plain, layers=stack)[0].steps)


def test_a_clip_is_why_the_updates_of_sgd_are_small():
    """And not why those of Adam are, which do not depend on the size of gradients."""
    record = recorded(EVER, EVER * 1e-3, ("global_clipnorm", 1e-3), loss=1.0, ratio=1e-5)
    for optimizer, code in ("SGD", "CLIP_TOO_TIGHT"), ("Adam", "LEARNING_RATE"):
        settings = Settings(optimizer=optimizer, rate=0.1, clip=record.clip)
        assert verdicts(Measured(record=record, settings=settings))[0].code == code


def test_every_check_says_how_grave_it_is():
    assert {check.severity for check in CHECKS.values()} == set(SEVERITIES)
    for verdict in verdicts_on(recorded(EVER, ratio=4.0)):
        assert verdict.severity == CHECKS[verdict.code].severity


@pytest.mark.parametrize(
    ("code", "above", "below"),
    [
        ("EXPLODING", recorded(constant(1.0, 101.0)), recorded(constant(1.0, 99.0))),
        ("VANISHING", recorded(constant(0.99e-7)), recorded(constant(1.01e-7))),
        (
            "CLIP_TOO_TIGHT",
            *(
                recorded(
                    constant(1.0),
                    np.where(np.arange(1000)[:, None] < n, 0.5, 1) * constant(1.0),
                    ("clipnorm", 1.0),
                )
                for n in (501, 499)
            ),
        ),
    ],
)
def test_thresholds_of_training(code, above, below):
    assert code in codes(above)
    assert code not in codes(below)


def layer_health(slope=0.0, low=0.0):
    """Of 100 steps, with a gate of which a share is shut."""
    half_life = math.log(2) / -slope if slope < 0 else math.inf
    gate = Gate(np.zeros(40), low, 0.0, "")
    return LayerHealth(
        "LSTMCell",
        100,
        slope,
        half_life,
        {"i": gate},
        {},
        None,
        None,
        None,
        LayerSettings.of(layers.LSTM(2).cell),
    )


@pytest.mark.parametrize(
    ("code", "above", "below"),
    [
        # Half-lives of 9.9 and 10.1 steps of 100.
        ("VANISHING", {"slope": -math.log(2) / 9.9}, {"slope": -math.log(2) / 10.1}),
        # Growth over 99 steps to 10.1 times, and to 9.9.
        ("EXPLODING", {"slope": math.log(10.1) / 99}, {"slope": math.log(9.9) / 99}),
        ("SATURATED", {"low": 0.51}, {"low": 0.49}),
    ],
)
def test_thresholds_of_a_layer(code, above, below):
    assert code in codes(rnn=layer_health(**above))
    assert code not in codes(rnn=layer_health(**below))


@pytest.mark.parametrize(
    ("took", "gave", "explodes"), [(1, 1.1e9, True), (1, 0.9e9, False), (1e3, 1.1e9, False)]
)
def test_a_layer_that_gives_huge_numbers(took, gave, explodes):
    """More than 1e9, and than 1e9 times what it takes."""
    assert Reach(keras.layers.SimpleRNN(2), {}, took, gave).explodes == explodes


def test_verdicts_come_in_the_order_of_the_checks():
    """HEALTHY beside harmless ones alone."""
    exploding = norms()
    exploding[::50] *= 1e3
    several = verdicts_on(recorded(exploding, exploding * 0.1, ("clipnorm", 0.1)))
    assert [verdict.code for verdict in several] == ["EXPLODING", "CLIP_TOO_TIGHT"]
    (healthy,) = verdicts(Measured(record=recorded(norms())))
    assert healthy.code == list(CHECKS)[-1]
