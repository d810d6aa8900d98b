"""How a health report looks: its table and its page."""

import base64
import html
import re
import string

import numpy as np

from kerasrnn.diagnostics import plots
from kerasrnn.diagnostics.health.verdict import grouped, in_other_layers, short

# Under the table of layers.
KEY = (
    "T and half-life in steps; slope of the gradient, log ρ(W_h) and Lyapunov exponent λ in natural"
    " log per step, under 0 where gradients vanish, the latter two only of a layer with a single"
    " recurrent matrix (an LSTM or GRU has one per gate); saturated: the gate with the most such"
    " values."
)

# Between the parts of a name, not within a number.
_PARTS = re.compile(r"(?<=\w[./=])(?=[^\W\d])")

_STYLE = """
.health { font: 16px/1.45 system-ui, sans-serif; color: #111; background: #fff; margin: 0 auto;
  max-width: 62rem; padding: 0 .75rem 2rem; }
.health h1 { font-size: 1.5rem; margin: 1rem 0; }
.health h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere; }
.health .verdict { border: 1px solid #111; border-left-width: .5rem; padding: .6rem .8rem;
  margin: .75rem 0; overflow-wrap: anywhere; }
.health .verdict.healthy { border-left-width: 1px; }
.health .note { overflow-wrap: anywhere; }
.health .verdict p { margin: .3rem 0; }
.health .numbers { font-size: .875rem; color: #333; }
.health table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
.health th, .health td { border-bottom: 1px solid #999; padding: .25rem .6rem; text-align: right;
  white-space: nowrap; }
.health th:first-child, .health td:first-child { text-align: left; white-space: normal;
  overflow-wrap: anywhere; }
@media (max-width: 48rem) {
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
<p class="summary">$summary</p>
$since
$verdicts
$notes
$table
$plots
</div>""")
_VERDICT = string.Template("""<section class="verdict $severity">
<p><strong>$words:</strong> $meaning</p>
$remedy
<p class="numbers">$numbers</p>
$others
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
        summary=_text(" ".join(report.summary)),
        since=_since(report),
        verdicts="\n".join(_verdict(*group) for group in grouped(report.verdicts)),
        notes="\n".join(map(_note, report.notes)),
        table=_table(report),
        plots="\n".join(_plots(report)),
    )


def _title(report):
    return html.escape(f"Health of {report.name}")


def _verdict(verdict, others):
    numbers = ", ".join(f"{name} = {short(value)}" for name, value in verdict.numbers.items())
    remedy = f"<p><strong>Next step:</strong> {_text(verdict.remedy)}</p>"
    if verdict.further:
        items = "".join(f"<li>{_text(step)}</li>" for step in verdict.further)
        remedy += f"\n<p>If that does not help:</p>\n<ol>{items}</ol>"
    return _VERDICT.substitute(
        severity=verdict.severity,
        words=_text(verdict.words),
        meaning=_text(verdict.meaning),
        remedy=remedy if verdict.remedy else "",
        numbers=_text(numbers),
        others=f"<p>{_text(in_other_layers(others))}</p>" if others else "",
    )


def _since(report):
    if not report.since_previous:
        return ""
    items = "".join(f"<li>{_text(said)}</li>" for said in report.since_previous)
    return f"<p>Since the previous report:</p>\n<ul>{items}</ul>"


def _note(note):
    return f'<p class="note"><strong>Note:</strong> {_text(note)}</p>'


def _text(words):
    """Words as HTML: names in backticks as code; those too long for a narrow page may break between
    their parts."""
    marked = re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(words, quote=False))
    return re.sub(r"[^\s<>]{30,}", lambda name: _PARTS.sub("<wbr>", name[0]), marked)


def _table(report):
    if not report.layers:
        return ""
    head, *rows = table(report)
    head = [html.escape(name) for name in head]
    titles = "".join(f'<th scope="col">{name}</th>' for name in head)
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td data-name="{name}">{_text(cell)}</td>'
            for name, cell in zip(head, row, strict=True)
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
        yield f"<h2>{_text(path)}</h2>"
        drawn = [
            plots.over_time(report.flow, path, layer),
            plots.over_lags(report.flow, path, layer),
        ]
        drawn += [plots.gates(layer)] if layer.gates else []
        drawn += [plots.eigenvalues(layer)] if layer.eigenvalues else []
        images = (_image(figure, f"{axis.get_title()} of {path}") for figure, axis in drawn)
        yield f'<div class="plots">{"".join(images)}</div>'


def _image(figure, alt):
    data = base64.b64encode(plots.svg(figure)).decode()
    source = f"data:image/svg+xml;base64,{data}"
    return f'<figure><img src="{source}" alt="{html.escape(alt)}"></figure>'
