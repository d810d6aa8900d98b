"""What a pass over a sequence hands to a cell that it calls at every step."""

import contextlib
import contextvars
from typing import Any, NamedTuple

from kerasrnn.cells.noise import Noise

_OF_PASS = contextvars.ContextVar("step of a pass", default=(None, None))


class StepOfPass(NamedTuple):
    """What a step of a pass has beside its input and its states.

    Attributes:
        noise: Its part of the `Noise` of the pass.
        tap: `tap(states)` gives the new states plus their taps; or `None`.
    """

    noise: Noise
    tap: Any = None


@contextlib.contextmanager
def handed(cell, step):
    """Has the calls of a cell, inside, be this `StepOfPass`."""
    token = _OF_PASS.set((cell, step))
    try:
        yield
    finally:
        _OF_PASS.reset(token)


def step_of_pass(cell):
    """The `StepOfPass` that the call of a cell is, or `None`."""
    of, step = _OF_PASS.get()
    return step if of is cell else None
