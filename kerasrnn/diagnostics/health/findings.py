"""What a health report finds: CHECKS, one function per verdict.

A check takes a `Measured` and gives a list of `Verdict`s, those of the training before those of the
batch, layer by layer. Its docstring is its entry in that of `health_report`; its threshold, how
grave it is, and whether it speaks alone, stand beside it. A further verdict is a further file in
`checks` and its line in CHECKS, what to do about it in `advice`; docs/tables.py writes its row in
docs/verdicts.md.
"""

import inspect
import textwrap

from kerasrnn.diagnostics.health import advice
from kerasrnn.diagnostics.health.checks.clipping import clip_idle, clip_too_tight
from kerasrnn.diagnostics.health.checks.dead import dead
from kerasrnn.diagnostics.health.checks.exploding import exploding
from kerasrnn.diagnostics.health.checks.healthy import healthy
from kerasrnn.diagnostics.health.checks.learning_rate import learning_rate
from kerasrnn.diagnostics.health.checks.looks_ahead import looks_ahead
from kerasrnn.diagnostics.health.checks.non_finite import non_finite
from kerasrnn.diagnostics.health.checks.not_learning import not_learning
from kerasrnn.diagnostics.health.checks.saturated import saturated
from kerasrnn.diagnostics.health.checks.vanishing import vanishing
from kerasrnn.diagnostics.health.verdict import SEVERITIES

# Causes before what comes of them, the gravest first.
CHECKS = {
    "LEARNING_RATE": learning_rate,
    "NON_FINITE": non_finite,
    "DEAD": dead,
    "EXPLODING": exploding,
    "LOOKS_AHEAD": looks_ahead,
    "SATURATED": saturated,
    "VANISHING": vanishing,
    "CLIP_TOO_TIGHT": clip_too_tight,
    "NOT_LEARNING": not_learning,
    "CLIP_IDLE": clip_idle,
    "HEALTHY": healthy,
}


def verdicts(measured):
    """What the checks find, a list of `Verdict`s, the gravest first."""
    said = []
    for check in CHECKS.values():
        ill = any(verdict.severity != SEVERITIES[0] for verdict in said)
        if not (check.alone and ill):
            said += [verdict._replace(severity=check.severity) for verdict in check(measured)]
    scaled = not measured.learned and advice.scale_targets(measured.settings)
    return [_with_targets_scaled(v, scaled) if scaled else v for v in said]


def _with_targets_scaled(verdict, step):
    """Numbers that are out of scale come before all else that may be done, but for the inputs'."""
    if verdict.severity == SEVERITIES[0] or step in verdict.steps:
        return verdict
    steps = list(verdict.steps)
    first = bool(steps) and steps[0].startswith("Scale the inputs")
    return verdict.advised([*steps[:first], step, *steps[first:]])


def described():
    """What every verdict rests on, as it stands in the docstring of `health_report`."""
    entries = (f"- {code}: {inspect.getdoc(check)}" for code, check in CHECKS.items())
    margins = {"width": 100, "initial_indent": 4 * " ", "subsequent_indent": 8 * " "}
    return "\n".join(textwrap.fill(entry, **margins) for entry in entries).lstrip()
