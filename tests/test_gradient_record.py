"""What is said of recorded norms, on norms whose illness is known."""

import pickle

import numpy as np
import pytest

from kerasrnn.callbacks.clips import CLIPS
from kerasrnn.callbacks.gradient_record import GradientRecord


def recorded(before, after=None, clip=None, products=None):
    """The norms of two variables, and the products of successive gradients, if any."""
    before = np.asarray(before, "float32")
    parts = [before, before if after is None else after]
    if products is not None:
        parts.append(np.reshape(products, (-1, 1)))
    return GradientRecord(np.concatenate(parts, axis=1), ["cell/kernel", "dense/kernel"], clip)


def norms(size=1000, sigma=0.2):
    return np.random.default_rng(0).lognormal(0, sigma, (size, 2)).astype("float32")


def test_suggestion_follows_pascanus_rule():
    before = norms()
    suggestion = recorded(before).suggest_clipnorm()
    total = np.linalg.norm(before, axis=1)
    assert suggestion == pytest.approx(np.percentile(total, 90), rel=1e-6)
    assert (suggestion.argument, "global" in suggestion.reason) == ("global_clipnorm", True)
    # A long tail does not carry it beyond ten times the median.
    heavy = before.copy()
    heavy[::5] *= 1e4
    median = np.median(np.linalg.norm(heavy, axis=1))
    assert recorded(heavy).suggest_clipnorm() == pytest.approx(10 * median, rel=1e-6)
    # For a clip per variable it looks at what that clip looks at.
    per_variable = recorded(before, clip=("clipnorm", 1.0)).suggest_clipnorm()
    assert per_variable == pytest.approx(np.percentile(before.max(axis=1), 90), rel=1e-6)
    assert pickle.loads(pickle.dumps(per_variable)).reason == per_variable.reason
    assert str(per_variable).startswith(f"clipnorm={float(per_variable):.3g}: ")


def test_verdicts():
    healthy = norms()
    cut = healthy.copy()
    cut[healthy > 1.2] = 1.2
    assert recorded(healthy).verdict().startswith("HEALTHY")
    assert "through time it says nothing" in recorded(healthy).verdict()
    assert "fired on" in recorded(healthy, cut, ("clipnorm", 1.2)).verdict()

    tight = recorded(healthy, healthy * 0.1, ("global_clipnorm", 0.1)).verdict()
    assert tight.startswith("CLIP TOO TIGHT: global_clipnorm=0.1 cut 100%")
    idle = recorded(healthy, healthy, ("clipnorm", 50.0)).verdict()
    assert idle.startswith("CLIP IDLE: clipnorm=50")

    exploding = healthy.copy()
    exploding[::50] *= 1e3
    assert recorded(exploding).verdict().startswith("EXPLODING")
    advice = 'Clip the gradients: kerasrnn.callbacks.GradientClipping("global_norm", '
    assert advice in recorded(exploding).verdict()

    broken = healthy.copy()
    broken[300:, 1] = np.nan
    verdict = recorded(broken).verdict()
    assert verdict.startswith("NON-FINITE: update 300 was the first of 700")
    assert "dense/kernel" in verdict
    for callback in ('GradientClipping("global_norm", 1.0)', "DivergenceGuard()"):
        assert f"`kerasrnn.callbacks.{callback}`" in verdict
    assert "GradientClipping" not in recorded(broken, clip=("clipnorm", 1.0)).verdict()


@pytest.mark.parametrize("mode", CLIPS)
def test_a_clip_of_gradient_clipping(mode):
    """It is named in its own terms, and drawn where it has a place among the norms."""
    before, clip = norms(), (mode, 0.1)
    tight = recorded(before, before * 0.1, clip)
    (verdict,) = tight.verdicts()
    named = f'GradientClipping("{mode}", 0.1)'
    suggestion = tight.suggest_clipnorm()
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
    (idle,) = recorded(before, clip=clip).verdicts()
    assert (idle.code, idle.meaning[: len(named)]) == ("CLIP_IDLE", named)

    *axes, _, _ = tight.plot().axes
    assert len(axes) == 1 + by_variable
    drawn = [line for axis in axes for line in axis.lines if "threshold" in line.get_label()]
    assert [line.get_ydata()[0] for line in drawn] == [0.1] * fixed


def test_a_clip_that_is_warming_up_is_not_idle():
    """ZClip's first 25 updates are not clipped."""
    for updates, code in (25, "HEALTHY"), (26, "CLIP_IDLE"):
        (verdict,) = recorded(norms(updates), clip=("zscore", 2.5)).verdicts()
        assert verdict.code == code
    (verdict,) = recorded(norms(25), clip=("percentile", 10.0)).verdicts()
    assert verdict.code == "CLIP_IDLE"


def test_no_finding_contradicts_another():
    exploding = norms()
    exploding[::50] *= 1e3
    caught = np.minimum(exploding, 10.0)
    idle = recorded(exploding, exploding, ("clipnorm", 1e4)).verdict()
    assert idle.startswith("EXPLODING")
    assert "clipnorm=10000 never fired. Clip the gradients: clipnorm=" in idle
    assert "no harm" not in idle
    clipped = recorded(exploding, caught, ("clipnorm", 10.0)).verdict()
    assert "the norms before clipnorm=10, which cut 2% of the updates." in clipped
    assert "Clip the gradients" not in clipped

    vanished = recorded(norms() * 1e-12, clip=("clipnorm", 1.0)).verdict()
    assert vanished.startswith("VANISHING")
    assert "lower it" not in vanished

    # A clip that has fired is not said to have done so 0% of the time.
    once = norms()
    once[0] = 50.0
    cut = np.minimum(once, 20.0)
    assert "less than 1% of them" in recorded(once, cut, ("clipnorm", 20.0)).verdict()


def test_suggestion_counts_what_it_would_cut():
    heavy = norms()
    heavy[::5] *= 1e4
    assert "20% of them lie above this threshold" in recorded(heavy).suggest_clipnorm().reason
    assert "0% of them lie" in recorded(np.ones((1, 2))).suggest_clipnorm().reason


def test_suggestion_names_a_clip_that_fires_too_often():
    before = norms()
    set_clip = ("global_clipnorm", 0.1)
    tight = recorded(before, before * 0.1, set_clip).suggest_clipnorm()
    assert "global_clipnorm=0.1 fired on 100% of the updates" in tight.reason
    assert "a lower learning rate in disguise" in tight.reason
    half = before.copy()
    half[::2] *= 0.1
    assert "disguise" not in recorded(before, half, set_clip).suggest_clipnorm().reason
    # Whatever the norms, what is suggested fires on less than half of the updates.
    tails = np.random.default_rng(1).lognormal(0, [[0.1], [2.0], [6.0]], (3, 1000))
    for tail in tails:
        suggestion = recorded(np.stack([tail, np.zeros(1000)], axis=1)).suggest_clipnorm()
        assert np.median(tail) <= suggestion <= 10.001 * np.median(tail)
        assert np.mean(tail > suggestion) < 0.5


def test_noise_scale():
    before = np.array([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0], [np.inf, 0.0], [0.0, 1.0]])
    products = [np.nan, 0.5, 1.5, np.nan, np.nan]
    # <|g|²> = (1 + 4) / 2 over the updates that have a product, of which the mean is 1.
    assert recorded(before, products=products).noise_scale(8) == pytest.approx(8 * 1.5)
    assert recorded(before, products=np.full(5, -0.5)).noise_scale(8) == np.inf
    assert np.isnan(recorded(before, products=np.full(5, np.nan)).noise_scale(8))
    assert np.isnan(recorded(np.zeros((0, 2)), products=[]).noise_scale(8))


@pytest.mark.parametrize("clip", [None, ("clipnorm", 1.0), ("global_clipnorm", 1.0)])
def test_plot(clip, tmp_path):
    before = norms()
    figure = recorded(before, np.minimum(before, 1.0), clip).plot()
    *axes, heatmap, colours = figure.axes
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(), np.linalg.norm(before, axis=1))
    if clip:
        np.testing.assert_array_equal(axes[-1].lines[-1].get_ydata(), [1.0, 1.0])
    if clip and clip[0] == "clipnorm":
        np.testing.assert_array_equal(axes[1].lines[0].get_ydata(), before.max(axis=1))
    (image,) = heatmap.images
    np.testing.assert_allclose(image.get_array(), before.T)
    assert (image.norm.vmin, image.norm.vmax) == pytest.approx((before.min(), before.max()))
    assert [label.get_text() for label in heatmap.get_yticklabels()] == ["cell", "dense"]
    assert (heatmap.get_xlabel(), heatmap.get_ylabel()) == ("optimizer update", "layer")
    assert colours.get_xlabel() == "gradient norm before clipping"
    figure.savefig(tmp_path / "norms.png")


def test_heatmap_of_a_long_training():
    """Updates share a column, which shows the largest; a layer's variables share a row."""
    before = norms(2500)
    before[7, 0] = 50.0
    rows = np.concatenate([before, before], axis=1)
    figure = GradientRecord(rows, ["cell/kernel", "cell/bias"], None).plot()
    heatmap, colours = figure.axes[-2:]
    (image,) = heatmap.images
    layer = np.linalg.norm(before, axis=1)
    largest = [layer[i : i + 3].max() for i in range(0, 2500, 3)]
    np.testing.assert_allclose(image.get_array(), [largest], rtol=1e-6)
    assert image.get_extent() == [-0.5, 2501.5, 0.5, -0.5]
    assert heatmap.get_xlim() == (-0.5, 2499.5)
    assert colours.get_xlabel().endswith("largest of 3 updates")


def test_long_paths_are_named_by_their_ends():
    cell = "rnn_stack/residual_1/bidirectional_1/forward_lstm_1/lstm_cell_1"
    rows = np.concatenate([norms(9), norms(9)], axis=1)
    heatmap = GradientRecord(rows, [f"{cell}/kernel", "head/kernel"], None).plot().axes[-2]
    named = [label.get_text() for label in heatmap.get_yticklabels()]
    assert named == ["…/forward_lstm_1/lstm_cell_1", "head"]


def test_layers_are_named_without_what_they_all_lie_in():
    rows = np.concatenate([norms(9), norms(9)], axis=1)
    for outer, named in (("net/", ["rnn/cell", "head"]), ("", ["rnn/cell", "head"])):
        paths = [f"{outer}rnn/cell/kernel", f"{outer}head/kernel"]
        heatmap = GradientRecord(rows, paths, None).plot().axes[-2]
        assert [label.get_text() for label in heatmap.get_yticklabels()] == named


def test_gradients_that_are_not_there():
    assert recorded(np.zeros((20, 2))).verdict().startswith("VANISHING")
    assert recorded(norms() * 1e-12).verdict().startswith("VANISHING")
    # Most updates do nothing: neither an explosion nor a threshold of zero.
    sparse = np.zeros((100, 2))
    sparse[::3] = 1.0
    record = recorded(sparse)
    assert record.verdict().startswith("VANISHING")
    assert record.suggest_clipnorm() == pytest.approx(np.sqrt(2))
    with pytest.raises(ValueError, match="20 recorded updates, 20 of them finite"):
        recorded(np.zeros((20, 2))).suggest_clipnorm()


def test_nothing_finite_says_nothing_of_the_clip():
    record = recorded(np.full((5, 2), np.nan), clip=("clipnorm", 1.0))
    assert record.verdict().startswith("NON-FINITE: update 0 was the first of 5")
    assert "CLIP" not in record.verdict()


def test_fired_is_told_per_variable():
    before = np.array([[1.0, 1e-4], [1.0, 1e-4], [1.0, 1e-4], [0.5, 0.5]])
    after = before.copy()
    after[1, 1] = 0.5e-4
    after[2] *= 1 - 1e-6
    np.testing.assert_array_equal(recorded(before, after).fired, [False, True, False, False])


def test_plot_of_what_is_not_there():
    with pytest.raises(ValueError, match="after fit"):
        recorded(np.zeros((0, 2))).plot()
    broken = norms(20)
    broken[[3, 7]] = np.inf
    figure = recorded(broken).plot()
    axis = figure.axes[0]
    np.testing.assert_array_equal(axis.lines[-1].get_xdata(), [3, 7])
    assert figure.get_suptitle() == "Gradients: 20 updates, 2 with Inf or NaN"
    # Where there is no gradient to show there is no colour.
    broken[:, 1] = 0.0
    heatmap = recorded(broken).plot().axes[1]
    masked = np.ma.getmaskarray(heatmap.images[0].get_array())
    np.testing.assert_array_equal(np.flatnonzero(masked[0]), [3, 7])
    assert masked[1].all()
    recorded(np.zeros((5, 2))).plot()
