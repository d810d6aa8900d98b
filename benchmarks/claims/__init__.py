"""The claims of the lecture, a module each, with the runs that bear on them.

A module has `wanted(seeds)`, which gives its runs, dicts of plain values with their "updates";
`train(run)`, which gives what one found, or of a run with a "timed" trains alone and measures no
gradients; `in_keras(run)`, which gives the same run with the layers
of Keras, or `None` where it has none; `rows(runs, found)`, which gives the lines of the table, a
`Row` each; and `tables(runs, found)`, which gives what stands behind them, in Markdown.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """A claim, what was measured, and whether it holds: "yes", "no", or in which part."""

    claim: str
    measured: str
    holds: str


def table(head, rows):
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def grouped(runs, found, *names):
    """What was found, in lists by the values that the runs have for the names."""
    groups = {}
    for run, one in zip(runs, found, strict=True):
        groups.setdefault(tuple(run[name] for name in names), []).append(one)
    return groups


def span(values, digits=3):
    """A mean with the least and the greatest beside it, where they differ."""
    mean = sum(values) / len(values)
    if min(values) == max(values):
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
