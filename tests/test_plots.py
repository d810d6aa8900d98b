"""What is drawn are the numbers that were measured."""

import numpy as np
import pytest
from known_nets import rng, stack
from records import norms, recorded, rows

from kerasrnn.diagnostics import plots
from kerasrnn.updates.clip_in_force import ClipInForce
from kerasrnn.updates.record import GradientRecord


@pytest.mark.parametrize("clip", [None, ("clipnorm", 1.0), ("global_clipnorm", 1.0)])
def test_plot(clip, tmp_path):
    before = norms()
    figure = plots.gradient_norms(recorded(before, np.minimum(before, 1.0), clip))
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
    record = GradientRecord(rows(before, before), ["cell/kernel", "cell/bias"], None)
    figure = plots.gradient_norms(record)
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
    record = GradientRecord(rows(norms(9), norms(9)), [f"{cell}/kernel", "head/kernel"], None)
    heatmap = plots.gradient_norms(record).axes[-2]
    named = [label.get_text() for label in heatmap.get_yticklabels()]
    assert named == ["…/forward_lstm_1/lstm_cell_1", "head"]


def test_layers_are_named_without_what_they_all_lie_in():
    of_updates = rows(norms(9), norms(9))
    for outer, named in (("net/", ["rnn/cell", "head"]), ("", ["rnn/cell", "head"])):
        paths = [f"{outer}rnn/cell/kernel", f"{outer}head/kernel"]
        heatmap = plots.gradient_norms(GradientRecord(of_updates, paths, None)).axes[-2]
        assert [label.get_text() for label in heatmap.get_yticklabels()] == named


def test_plot_of_what_is_not_there():
    broken = norms(20)
    broken[[3, 7]] = np.inf
    figure = plots.gradient_norms(recorded(broken))
    axis = figure.axes[0]
    np.testing.assert_array_equal(axis.lines[-1].get_xdata(), [3, 7])
    assert figure.get_suptitle() == "Gradients: 20 updates, 2 with Inf or NaN"
    # Where there is no gradient to show there is no colour.
    broken[:, 1] = 0.0
    heatmap = plots.gradient_norms(recorded(broken)).axes[1]
    masked = np.ma.getmaskarray(heatmap.images[0].get_array())
    np.testing.assert_array_equal(np.flatnonzero(masked[0]), [3, 7])
    assert masked[1].all()
    plots.gradient_norms(recorded(np.zeros((5, 2))))


def test_nothing_of_the_norms_is_cut_off():
    paths = ["net/both/backward_lstm/lstm_cell/kernel", "net/head/kernel"]
    before, after = np.split(rng.lognormal(size=(2500, 4)), 2, axis=1)
    record = GradientRecord(rows(before, after), paths, ClipInForce("global_norm", 0.0001))
    figure = plots.narrowed(plots.gradient_norms(record))
    figure.draw_without_rendering()
    shown, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(shown.x0, shown.y0) >= 0
    assert (shown.x1 <= width, shown.y1 <= height) == (True, True)
    # More of it is plot than words.
    assert all(axis.get_position().width > 0.5 for axis in figure.axes)


def test_the_plots_show_what_was_measured():
    for path, layer in stack().layers.items():
        _, axis = plots.over_time(stack().flow, path, layer)
        assert axis.get_yscale() == "log"
        np.testing.assert_array_equal(axis.lines[0].get_ydata(), stack().flow.norms[path])
        _, axis = plots.over_lags(stack().flow, path, layer)
        np.testing.assert_array_equal(axis.lines[0].get_ydata(), stack().flow.profile[path])
        (line,) = [line for line in axis.lines if line.get_label().startswith("slope")]
        steps = np.diff(np.log(line.get_ydata()))
        np.testing.assert_allclose(steps, layer.slope)
        if layer.kind == "SimpleRNN":
            (bound,) = [line for line in axis.lines if line.get_label().startswith("bound")]
            assert (bound.get_ydata() >= stack().flow.profile[path] * (1 - 1e-5)).all()
        for shown in (axis, plots.eigenvalues(layer)[1]):
            assert shown.get_xlabel()
            assert shown.get_ylabel()
    _, axis = plots.gates(stack().layers["b>a"])
    np.testing.assert_allclose([patch.get_data().values.sum() for patch in axis.patches[:3]], 100)


def test_parallel_coordinates(tmp_path):
    rates = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    rows = [
        {
            "hyperparameters": {"cell": "gru" if i % 2 else "lstm", "rate": rate},
            "score": None if i == 4 else float(i),
            "verdict": "NON-FINITE" if i == 4 else "HEALTHY",
        }
        for i, rate in enumerate(rates)
    ]
    figure = plots.parallel_coordinates(rows, ["cell", "rate"], "val_loss", {"rate"})
    (axis,) = figure.axes
    lines = {tuple(line.get_ydata()): line for line in axis.lines if len(line.get_xdata()) == 3}
    heights = np.array([*lines])[::-1]
    # From the last, below the others, to the best; on a logarithmic axis these are evenly spaced.
    np.testing.assert_allclose(heights[:, 0], [1, 0, 1, 0, 1])
    np.testing.assert_allclose(heights[:, 1], [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(heights[:4, 2], [0, 1 / 3, 2 / 3, 1])
    assert heights[4, 2] < 0
    *others, lost = list(lines.values())[::-1]
    assert {line.get_color() for line in others} == {others[0].get_color()} != {lost.get_color()}
    assert others[0].get_linewidth() > others[1].get_linewidth()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(labels) == ["HEALTHY", "NON-FINITE"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["cell", "rate", "val_loss"]
    figure.savefig(tmp_path / "search.png")
    with pytest.raises(ValueError, match="needs trials that have ended"):
        plots.parallel_coordinates([], [], "loss")
