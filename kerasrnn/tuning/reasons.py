"""Why a trial failed, in a line."""

import re

_RAISED = re.compile(r"^[A-Za-z_][\w.]*: ?", re.MULTILINE)
_COLOURS = re.compile(r"\x1b\[\d*m")
# Where an error of Keras's tells how a layer was called, which is no reason.
_CALLED = "Arguments received by"
# How TensorFlow says in which node.
_NODE = re.compile(r"^\s*\[\[.*", re.MULTILINE)
_LONGEST = 300


def reason_of(message):
    """What an error or a traceback says, of several lines the first and the last.

    Args:
        message: The `message` of a trial, or `None`.
    """
    text = _COLOURS.sub("", message or "")
    traceback = text.rpartition("Traceback (most recent call last):")[2]
    raised = _RAISED.search(traceback) if traceback != text else None
    text = traceback[raised.start() :] if raised else text
    text = _NODE.sub("", text.partition(_CALLED)[0])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "no reason was recorded"
    said = lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."
