"""How a health report looks: its table, its plots and its page."""

import base64
import html
import io
import string
import textwrap

import numpy as np

from kerasrnn.diagnostics.gates import BINS, HIGH, LOW

_LINES = ("-", "--", "-.", ":")
_MARKERS = "o+x^s"
# In inches, so that the letters are as large as those around where the page is narrow.
_SIZE = (4.8, 4.2)
# Under the table of layers.
KEY = (
    "T and half-life in steps; slope of the gradient, log ρ(W_h) and Lyapunov exponent λ in natural"
    " log per step, under 0 where gradients vanish, the latter two only of a layer with a single"
    " recurrent matrix (an LSTM or GRU has one per gate); saturated: the gate with the most such"
    " values."
)

_STYLE = """
.health { font: 16px/1.45 system-ui, sans-serif; color: #111; background: #fff; margin: 0 auto;
  max-width: 62rem; padding: 0 .75rem 2rem; }
.health h1 { font-size: 1.5rem; margin: 1rem 0; }
.health h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere; }
.health .verdict { border: 1px solid #111; border-left-width: .5rem; padding: .6rem .8rem;
  margin: .75rem 0; overflow-wrap: anywhere; }
.health .verdict.HEALTHY, .health .verdict.CLIP_IDLE { border-left-width: 1px; }
.health .note { overflow-wrap: anywhere; }
.health .verdict p { margin: .3rem 0; }
.health .numbers { font-size: .875rem; color: #333; }
.health table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
.health th, .health td { border-bottom: 1px solid #999; padding: .25rem .6rem; text-align: right;
  white-space: nowrap; }
.health th:first-child, .health td:first-child { text-align: left; }
@media (max-width: 40rem) {
  .health thead { display: none; }
  .health tr { display: block; border-bottom: 1px solid #111; padding: .3rem 0; }
  .health td, .health td:first-child { display: flex; justify-content: space-between; border: 0;
    text-align: right; white-space: normal; overflow-wrap: anywhere; padding: .1rem 0; }
  .health td::before { content: attr(data-name); font-weight: bold; padding-right: 1rem;
    white-space: nowrap; }
}
.health .plots { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
.health figure { margin: 0; }
.health img { width: 100%; height: auto; display: block; }
"""
_PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
</head>
<body style="margin: 0">
$fragment
</body>
</html>
""")
_FRAGMENT = string.Template("""<style>$style</style>
<div class="health">
<h1>$title</h1>
$verdicts
$notes
$table
$plots
</div>""")
_VERDICT = string.Template("""<section class="verdict $code">
<p><strong>$words:</strong> $meaning</p>
$remedy
<p class="numbers">$numbers</p>
</section>""")


def table(report):
    """The rows of what was measured of each layer, the names of the columns first."""
    rows = [
        (
            "layer",
            "cell",
            "T",
            "slope",
            "half-life",
            "log ρ(W_h)",
            "λ",
            "saturated",
        )
    ]
    for path, layer in report.layers.items():
        gates = sorted(layer.gates.items(), key=lambda item: item[1].saturated)
        rows.append(
            (
                path,
                layer.kind,
                str(layer.steps),
                _number(layer.slope, "+.3f"),
                _number(layer.half_life, ".3g"),
                _number(layer.log_radius, "+.3f"),
                _number(layer.lyapunov, "+.3f"),
                f"{gates[-1][0]}: {gates[-1][1].saturated:.0%}" if gates else "-",
            )
        )
    return rows


def _number(value, form):
    return "-" if value is None or np.isnan(value) else format(value, form)


def document(report):
    """The page by itself."""
    return _PAGE.substitute(title=_title(report), fragment=fragment(report))


def fragment(report):
    """The page as a part of another."""
    return _FRAGMENT.substitute(
        style=_STYLE,
        title=_title(report),
        verdicts="\n".join(map(_verdict, report.verdicts)),
        notes="\n".join(map(_note, report.notes)),
        table=_table(report),
        plots="\n".join(_plots(report)),
    )


def _title(report):
    return html.escape(f"Health of {report.name}")


def _verdict(verdict):
    numbers = ", ".join(f"{name} {_short(value)}" for name, value in verdict.numbers.items())
    remedy = f"<p><strong>What to change:</strong> {html.escape(verdict.remedy)}</p>"
    return _VERDICT.substitute(
        code=verdict.code,
        words=html.escape(verdict.words),
        meaning=html.escape(verdict.meaning),
        remedy=remedy if verdict.remedy else "",
        numbers=html.escape(numbers),
    )


def _note(note):
    return f'<p class="note"><strong>Note:</strong> {html.escape(note)}</p>'


def _short(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _table(report):
    if not report.layers:
        return ""
    head, *rows = (tuple(map(html.escape, row)) for row in table(report))
    titles = "".join(f'<th scope="col">{name}</th>' for name in head)
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td data-name="{name}">{cell}</td>' for name, cell in zip(head, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f"<table><thead><tr>{titles}</tr></thead>\n<tbody>{body}</tbody></table>\n"
        f'<p class="numbers">{html.escape(KEY)}</p>'
    )


def _plots(report):
    if report.norms is not None:
        yield "<h2>Gradient norms during training</h2>"
        yield f'<div class="plots">{_image(report.norms, "Gradient norms over the updates")}</div>'
    for path, layer in report.layers.items():
        yield f"<h2>{html.escape(path)}</h2>"
        drawn = [_over_time(report.flow, path, layer), _over_lags(report.flow, path, layer)]
        drawn += [_gates(layer)] if layer.gates else []
        drawn += [_eigenvalues(layer)] if layer.eigenvalues else []
        images = (_image(figure, f"{axis.get_title()} of {path}") for figure, axis in drawn)
        yield f'<div class="plots">{"".join(images)}</div>'


def _image(figure, alt):
    import matplotlib

    svg = io.BytesIO()
    # The same report gives the same page.
    with matplotlib.rc_context({"svg.hashsalt": "health"}):
        figure.savefig(svg, format="svg", metadata={"Date": None})
    data = base64.b64encode(svg.getvalue()).decode()
    source = f"data:image/svg+xml;base64,{data}"
    return f'<figure><img src="{source}" alt="{html.escape(alt)}"></figure>'


def _axis(title, x, y):
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
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


def narrowed(figure):
    """A figure as wide as those here, with a title and a legend that find room."""
    figure.set_size_inches(_SIZE[0], figure.get_size_inches()[1])
    figure.suptitle(textwrap.fill(figure.get_suptitle(), 42), fontsize="large")
    for legend in list(figure.legends):
        labels = [textwrap.fill(text.get_text(), 42) for text in legend.get_texts()]
        legend.remove()
        figure.legend(legend.legend_handles, labels, loc="outside lower center")
    for axis in figure.axes:
        axis.set_title(textwrap.fill(axis.get_title(), 32), fontsize="medium")
        axis.set_xlabel(textwrap.fill(axis.get_xlabel(), 32))
    return figure


def _over_time(flow, path, layer):
    label = r"$\Vert\partial J/\partial h_t\Vert$, mean over the batch"
    figure, axis = _axis("Gradient over time", "time step t of the input", label)
    norms = np.where(flow.norms[path] > 0, flow.norms[path], np.nan)
    axis.plot(norms, "k-o", markersize=3, markevery=max(1, len(norms) // 15), label="measured")
    if layer.bound_over_time is not None:
        bound = r"bound, $(\Vert W_h\Vert\,\gamma)^{T-t}$"
        axis.plot(layer.bound_over_time, "--", color="0.4", label=bound)
    _logarithmic(axis, norms, len(norms))
    return _with_legend(figure, axis, 2)


def _over_lags(flow, path, layer):
    ratio = r"$\Vert\partial J/\partial h_{s-k}\Vert\;/\;\Vert\partial J/\partial h_s\Vert$"
    figure, axis = _axis(
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


def _gates(layer):
    figure, axis = _axis("Gate values", "value of the gate", f"share per {1 / BINS:g}, in %")
    edges = np.linspace(0, 1, BINS + 1)
    for i, (name, gate) in enumerate(layer.gates.items()):
        axis.stairs(
            100 * gate.counts / gate.counts.sum(),
            edges,
            color="k",
            linestyle=_LINES[i % 4],
            linewidth=1 + 0.6 * (i // 4),
            label=f"{name}: {gate.low:.0%} under {LOW}, {gate.high:.0%} over {HIGH}",
        )
    for edge in (LOW, HIGH):
        axis.axvspan(round(edge), edge, color="0.88", zorder=0)
    axis.set_xlim(0, 1)
    return _with_legend(figure, axis, 1)


def _eigenvalues(layer):
    figure, axis = _axis("Eigenvalues of the recurrent kernel", "real part", "imaginary part")
    circle = np.exp(2j * np.pi * np.linspace(0, 1, 200))
    axis.plot(circle.real, circle.imag, "--", color="0.4", linewidth=1, label="unit circle")
    for i, (gate, values) in enumerate(layer.eigenvalues.items()):
        axis.plot(
            values.real,
            values.imag,
            "k" + _MARKERS[i % len(_MARKERS)],
            markersize=4,
            fillstyle="none",
            label=rf"$W_{{{gate}}}$: $\rho$ = {np.abs(values).max():.3g}",
        )
    axis.set_aspect("equal", adjustable="datalim")
    return _with_legend(figure, axis, 3)
