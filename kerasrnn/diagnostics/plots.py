"""Every figure of this package, from numbers that were measured elsewhere."""

import io
import textwrap

import numpy as np

from kerasrnn.diagnostics.gates import BINS, HIGH, LOW
from kerasrnn.updates.record import percent

_LINES = ("-", "--", "-.", ":")
# Of a line per layer; as many as are prime to the kinds of lines.
_MARKERS = "os^vD"
# Of points that may lie on each other.
_OPEN_MARKERS = "o+x^s"
# In inches: of a figure with a legend of one line per layer, and of those on the page of a report,
# so that the letters are as large as the text's where the page is narrow.
_WIDTH, _HEIGHT, _LEGEND_LINE = 8, 4, 0.2
_PAGE_SIZE = (4.8, 4.2)
# Columns of the heatmap: about what a page can show.
_COLUMNS = 1000
# Letters of a layer's path beside it.
_LETTERS = 28
# The heatmap's colours where it has nothing to show.
_NO_RANGE = (1e-7, 1)


def _matplotlib():
    """matplotlib, which is not imported before a figure is drawn: a program that only trains should
    not wait for it."""
    import matplotlib.figure

    return matplotlib


def _figure(*size):
    return _matplotlib().figure.Figure(figsize=size, layout="constrained")


def svg(figure):
    """A figure as the bytes of an SVG file; the same figure gives the same bytes."""
    file = io.BytesIO()
    with _matplotlib().rc_context({"svg.hashsalt": "health"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def gradient_flow(flow):
    """The norms of a `GradientFlow` over the time steps, a line per layer."""
    figure = _figure(_WIDTH, _HEIGHT + _LEGEND_LINE * len(flow.norms))
    axis = figure.subplots()
    for i, (path, norms) in enumerate(flow.norms.items()):
        axis.plot(
            np.where(norms > 0, norms, np.nan),
            linestyle=_LINES[i % len(_LINES)],
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=4,
            markevery=max(1, len(norms) // 12),
            label=f"{path}: slope {flow.slope[path]:+.3f} per step back, "
            f"half-life {flow.half_life[path]:.3g} steps",
        )
    axis.set_yscale("log")
    axis.set_xlabel("time step t of the input")
    axis.set_ylabel("‖∂J/∂h_t‖, mean over the batch")
    axis.set_title("Gradients through time")
    figure.legend(loc="outside lower center")
    return figure


def slopes(epochs, flows):
    """The slope of each layer over the epochs, from a `GradientFlow` for each of them."""
    figure = _figure(_WIDTH, _HEIGHT + _LEGEND_LINE * len(flows[0].slope))
    axis = figure.subplots()
    for i, path in enumerate(flows[0].slope):
        of_layer = np.array([flow.slope[path] for flow in flows])
        axis.plot(
            epochs,
            np.where(np.isfinite(of_layer), of_layer, np.nan),
            linestyle=_LINES[i % len(_LINES)],
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=4,
            label=path,
        )
    axis.axhline(0, color="0.6", linewidth=0.8)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("epoch")
    axis.set_ylabel("slope of log ‖∂J/∂h‖ per step back")
    axis.set_title("Gradients through time: below 0 they vanish, above they explode")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def gradient_norms(record):
    """The norms of a `GradientRecord` over the updates, and below them layers by updates; what
    `GradientNormMonitor.plot` describes."""
    by_variable = record.clip is not None and record.clip.mode == "norm"
    panels = [("global gradient norm", record.global_norm, record.clipped_norm)]
    if by_variable:
        panels.append(("largest variable's gradient norm", *record.largest_norms))
    layers = _without_common_part(list(record.layer_norms))
    heights = [3.2] * len(panels) + [2.2 + 0.25 * len(layers)]

    # As wide as the labels leave the panels their place.
    figure = _figure(7.5 + 0.07 * max(map(len, layers)), sum(heights))
    *axes, heatmap = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    for axis, (label, before, after) in zip(axes, panels, strict=True):
        _draw_norms(axis, before, after, record)
        axis.set_ylabel(label)
    if by_variable or (record.clip and record.clip.mode == "global_norm"):
        # Behind the norms, which often lie on it, and wide enough to be seen there.
        axes[-1].axhline(
            record.clip.value,
            color="tab:red",
            linestyle="--",
            linewidth=2.4,
            zorder=1,
            label=f"threshold, {record.clip}",
        )
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(_title(record), fontsize="large")
    _draw_layers(figure, heatmap, layers, np.array(list(record.layer_norms.values())))
    return figure


def _title(record):
    title = f"Gradients: {len(record)} updates"
    if record.clip:
        title += f", {percent(record.fired)} clipped by {record.clip}"
    if not record.finite.all():
        title += f", {np.sum(~record.finite)} with Inf or NaN"
    return title


def _draw_norms(axis, before, after, record):
    if record.clip is None:
        axis.plot(before, color="tab:blue", linewidth=0.8, label="norm")
    else:
        axis.plot(before, color="0.65", linewidth=1.6, label="before clipping")
        axis.plot(after, color="tab:blue", linewidth=0.8, label="after clipping")
    bad = np.flatnonzero(~record.finite)
    if len(bad):
        edge = axis.get_xaxis_transform()
        axis.plot(bad, np.full(len(bad), 0.02), "kx", transform=edge, label="Inf or NaN")
    if (before > 0).any():
        axis.set_yscale("log")


def _draw_layers(figure, axis, layers, norms):
    updates = norms.shape[1]
    # More updates than the picture has columns share one, which shows their largest.
    together = -(-updates // _COLUMNS)
    norms = np.maximum.reduceat(norms, np.arange(0, updates, together), axis=1)
    shown = np.ma.masked_where(~np.isfinite(norms) | (norms == 0), norms)
    limits = (shown.min(), shown.max()) if shown.count() else _NO_RANGE
    # From dark to light, so that it needs no colour; what has none shows the hatching.
    axis.patch.set(facecolor="white", edgecolor="0.5", hatch="///")
    image = axis.imshow(
        shown,
        norm=_matplotlib().colors.LogNorm(*limits),
        cmap="cividis",
        aspect="auto",
        extent=(-0.5, norms.shape[1] * together - 0.5, len(layers) - 0.5, -0.5),
        interpolation="nearest",
    )
    axis.set_xlim(-0.5, updates - 0.5)
    axis.set_yticks(range(len(layers)), map(_shortened, layers), fontsize="small")
    axis.set_ylabel("layer")
    axis.set_xlabel("optimizer update")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_title("Gradient norm per layer (hatched: 0, Inf or NaN)", fontsize="medium")
    label = "gradient norm before clipping"
    if together > 1:
        label += f", largest of {together} updates"
    bar = figure.colorbar(image, ax=axis, orientation="horizontal", label=label, aspect=40)
    # Within a power of ten there are many.
    bar.ax.tick_params(which="minor", labelsize=6)


def _without_common_part(paths):
    """The paths inside of what all of them lie in, as a Sequential model."""
    parts = [path.split("/") for path in paths]
    outer = {tuple(part[:1]) for part in parts}
    if len(outer) > 1 or min(map(len, parts)) == 1:
        return paths
    return ["/".join(part[1:]) for part in parts]


def _shortened(path):
    """As many of the path's last parts as leave room for the picture."""
    parts = path.split("/")
    kept = [parts.pop()]
    while parts and len("/".join([parts[-1], *kept])) <= _LETTERS:
        kept.insert(0, parts.pop())
    return "/".join(["…"] * bool(parts) + kept)


def narrowed(figure):
    """A figure as wide as those of a report's page, with a title and a legend that find room."""
    figure.set_size_inches(_PAGE_SIZE[0], figure.get_size_inches()[1])
    figure.suptitle(textwrap.fill(figure.get_suptitle(), 42), fontsize="large")
    for legend in list(figure.legends):
        labels = [textwrap.fill(text.get_text(), 42) for text in legend.get_texts()]
        legend.remove()
        figure.legend(legend.legend_handles, labels, loc="outside lower center")
    for axis in figure.axes:
        axis.set_title(textwrap.fill(axis.get_title(), 32), fontsize="medium")
        axis.set_xlabel(textwrap.fill(axis.get_xlabel(), 32))
    return figure


def over_time(flow, path, layer):
    """The gradient of one layer over the time steps, with its bound: figure and axis, as of all
    below. `flow` is a `GradientFlow`, `layer` the `LayerHealth` of the layer at `path`."""
    label = r"$\Vert\partial J/\partial h_t\Vert$, mean over the batch"
    figure, axis = _page_figure("Gradient over time", "time step t of the input", label)
    norms = np.where(flow.norms[path] > 0, flow.norms[path], np.nan)
    axis.plot(norms, "k-o", markersize=3, markevery=max(1, len(norms) // 15), label="measured")
    if layer.bound_over_time is not None:
        bound = r"bound, $(\Vert W_h\Vert\,\gamma)^{T-t}$"
        axis.plot(layer.bound_over_time, "--", color="0.4", label=bound)
    _logarithmic(axis, norms, len(norms))
    return _with_legend(figure, axis, 2)


def over_lags(flow, path, layer):
    """The gradient of one layer by the lag, with its slope and its bound."""
    ratio = r"$\Vert\partial J/\partial h_{s-k}\Vert\;/\;\Vert\partial J/\partial h_s\Vert$"
    figure, axis = _page_figure(
        "Gradient by lag", "lag k in steps, back from step s, which is read", ratio
    )
    profile = flow.profile[path]
    lags = np.arange(len(profile))
    axis.plot(profile, "ko", markersize=3, label="measured, geometric mean over the batch")
    if np.isfinite(layer.slope):
        # The line has the slope that was fitted to all samples, maybe without lag 0.
        middle = np.exp(np.median(np.log(profile) - layer.slope * lags) + layer.slope * lags)
        falls = f", half-life {layer.half_life:.3g} steps" if np.isfinite(layer.half_life) else ""
        slope = f"slope {layer.slope:+.3f} per step{falls}"
        axis.plot(middle, "k-", linewidth=1, label=slope)
    if layer.bound is not None:
        bound = r"bound, $(\Vert W_h\Vert\,\gamma)^k$"
        axis.plot(layer.bound[: len(profile)], "--", color="0.4", label=bound)
    _logarithmic(axis, profile, layer.steps)
    return _with_legend(figure, axis, 1)


def gates(layer):
    """The histogram of the values of each gate."""
    figure, axis = _page_figure("Gate values", "value of the gate", f"share per {1 / BINS:g}, in %")
    edges = np.linspace(0, 1, BINS + 1)
    for i, (name, gate) in enumerate(layer.gates.items()):
        axis.stairs(
            100 * gate.counts / gate.counts.sum(),
            edges,
            color="k",
            linestyle=_LINES[i % len(_LINES)],
            linewidth=1 + 0.6 * (i // len(_LINES)),
            label=f"{name}: {gate.low:.0%} under {LOW}, {gate.high:.0%} over {HIGH}",
        )
    axis.set_xlim(0, 1)
    return _with_legend(figure, axis, 1)


def eigenvalues(layer):
    """The eigenvalues of each recurrent matrix in the complex plane."""
    figure, axis = _page_figure(
        "Eigenvalues of the recurrent kernel", "real part", "imaginary part"
    )
    circle = np.exp(2j * np.pi * np.linspace(0, 1, 200))
    axis.plot(circle.real, circle.imag, "--", color="0.4", linewidth=1, label="unit circle")
    for i, (gate, values) in enumerate(layer.eigenvalues.items()):
        axis.plot(
            values.real,
            values.imag,
            "k" + _OPEN_MARKERS[i % len(_OPEN_MARKERS)],
            markersize=4,
            fillstyle="none",
            label=rf"$W_{{{gate}}}$: $\rho$ = {np.abs(values).max():.3g}",
        )
    axis.set_aspect("equal", adjustable="datalim")
    return _with_legend(figure, axis, 3)


def _page_figure(title, x, y):
    figure = _figure(*_PAGE_SIZE)
    axis = figure.subplots()
    axis.set_title(title)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    return figure, axis


def _logarithmic(axis, values, steps):
    """A logarithmic axis over the steps where there is something to show on it, no wider than the
    values."""
    axis.set_xlim(-1, steps)
    values = values[np.isfinite(values) & (values > 0)]
    if values.size:
        # First, or the scale would look for limits of its own, for bounds beyond all numbers too.
        axis.set_ylim(values.min() / 2, values.max() * 2)
        axis.set_yscale("log")
    else:
        axis.set_ylim(0, 1)
        axis.text(0.5, 0.5, "no gradient", ha="center", transform=axis.transAxes)


def _with_legend(figure, axis, columns):
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=columns)
    return figure, axis


def parallel_coordinates(rows, names, score, logarithmic=()):
    """The trials of a search, a line each, over an axis for every hyperparameter and the last for
    the score.

    Args:
        rows: Of each trial, the best first, a dictionary with its `"hyperparameters"`, its
            `"score"`, `None` for a trial that has none, and its `"verdict"`.
        names: Of the hyperparameters.
        score: What the score is called.
        logarithmic: The names of those that are drawn on a logarithmic axis.
    """
    if not rows:
        raise ValueError("plot() needs trials that have ended: call it after search().")
    columns = [[row["hyperparameters"].get(name) for row in rows] for name in names]
    columns.append([row["score"] for row in rows])
    axes = [
        _Coordinate(values, name in logarithmic)
        for name, values in zip([*names, score], columns, strict=True)
    ]
    heights = np.array([axis.heights for axis in axes]).T
    verdicts = list(dict.fromkeys(row["verdict"] for row in rows))

    figure = _figure(max(_WIDTH, 1.5 * len(axes)), _HEIGHT + _LEGEND_LINE * len(verdicts))
    axis = figure.subplots()
    # The best last, on top of the others.
    for place, row, line in reversed(list(zip(range(len(rows)), rows, heights, strict=True))):
        kind = verdicts.index(row["verdict"])
        axis.plot(
            line,
            color=f"C{kind % 10}",
            linestyle=_LINES[kind % len(_LINES)],
            marker=_MARKERS[kind % len(_MARKERS)],
            markersize=4,
            linewidth=2.6 if place == 0 else 1.0,
            alpha=1.0 if place == 0 else 0.7,
            label=row["verdict"] or "no verdict",
        )
    for place, coordinate in enumerate(axes):
        axis.axvline(place, color="0.6", linewidth=0.8, zorder=0)
        for height, label in coordinate.ticks:
            axis.annotate(
                label,
                (place, height),
                (-5, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize="small",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1},
            )
    axis.set_xticks(range(len(axes)), [textwrap.fill(name, 16) for name in [*names, score]])
    axis.set_xlim(-0.6, len(axes) - 0.6)
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.set_title(f"{len(rows)} trials; the best has the thick line")
    labelled = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=4)
    return figure


class _Coordinate:
    """One axis of a figure of parallel coordinates.

    Args:
        values: Of each line, numbers or others; `None` where it has none there.
        logarithmic: Whether equal ratios have equal distances.

    Attributes:
        heights: Of each line, between 0 and 1; below, where it has no value.
        ticks: Pairs of a height and a label.
    """

    _NOWHERE = -0.12

    def __init__(self, values, logarithmic):
        there = [value for value in values if value is not None]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in there)
        scale = np.log10 if logarithmic and numbers and min(there, default=0) > 0 else np.asarray
        distinct = sorted(set(there)) if numbers else sorted(set(there), key=str)
        if numbers and len(distinct) > 4:
            places = np.array([float(scale(value)) for value in distinct])
            places = (places - places[0]) / (places[-1] - places[0])
            of_value = dict(zip(distinct, places, strict=True))
            ends = scale(distinct[0]), scale(distinct[-1])
            between = np.linspace(*ends, 5)
            labels = 10**between if scale is np.log10 else between
            self.ticks = list(zip(np.linspace(0, 1, 5), (f"{v:.3g}" for v in labels), strict=True))
        else:
            places = np.linspace(0, 1, len(distinct)) if len(distinct) > 1 else [0.5]
            of_value = dict(zip(distinct, places, strict=False))
            self.ticks = [
                (of_value[v], f"{v:.4g}" if isinstance(v, float) else v) for v in distinct
            ]
        self.heights = [of_value.get(value, self._NOWHERE) for value in values]
        if len(there) < len(values):
            self.ticks.append((self._NOWHERE, "none"))
