"""One pass of a cell over a sequence, and what all paths do alike with masks and resets.

s_{t-1} <- s_0                           where an episode begins at t            start_states
s_t     <- s_{t-1}                       at a masked step                        unless_masked
y_t     <- y_{t-1} (0 before any), or 0  at a masked step                        (each path)
"""

import contextlib
import contextvars
from typing import Any, NamedTuple

from keras import ops, tree

from kerasrnn.backends import tf
from kerasrnn.cells import CELLS
from kerasrnn.cells.base import Cell, overrides_call

# What the XLA programs say of a pass that is not worth one, and nobody needs to mend.
TOO_FEW = "too few for compiling to pay"
_TAP = contextvars.ContextVar("tap", default=None)
# Those of a `Cell` that a path may go without, or take from another cell of the same class.
_METHODS = ("advance", "step", "product", "normalized_product", "coefficients", "project", "output")


class SequencePass(NamedTuple):
    """One pass of a cell over a sequence: what `kerasrnn.recurrence.run` was asked for.

    Attributes:
        cell, training, go_backwards, unroll, zero_output_for_mask, return_sequences,
            path, use_cudnn: As there.
        sequences: (batch, time, features), in the cell's compute dtype.
        states: A list of the initial states.
        mask: (batch, time, 1) booleans, or `None`.
        reset: (batch, time, 1) booleans, true at the steps before which the states are set back, in
            the cell's order of the steps; or `None`.
        episode_start: The states that a reset sets back to; an empty list without one.
        tap: As for `tapped`, or `None`.
        stage: What the pass is a part of, as `kerasrnn.recurrence.stages` names it.
    """

    cell: Any
    sequences: Any
    states: list
    mask: Any
    reset: Any
    episode_start: list
    training: Any
    go_backwards: bool
    unroll: bool
    zero_output_for_mask: bool
    return_sequences: bool
    tap: Any
    stage: str
    path: str | None
    use_cudnn: Any

    @property
    def regularizes(self):
        """Whether Ω is added, whose gradient is taken at every step."""
        return self.training and getattr(self.cell, "vanishing_gradient_regularization", 0)


def kind_of(cell):
    """The class of a cell in words, by which one of Keras's is not taken for its namesake here."""
    kind, package = type(cell), type(cell).__module__.partition(".")[0]
    if package == "keras":
        return f"keras.layers.{kind.__name__}"
    return kind.__name__ if package == "kerasrnn" else f"{kind.__module__}.{kind.__name__}"


def overridden(cell):
    """Why a path that knows what a step of the cell's class does cannot take this cell, or `None`;
    the plain loop takes the steps as the cell does."""
    if not isinstance(cell, Cell):
        return None
    if overrides_call(cell):
        return f"{type(cell).__name__} overrides `call`"
    for name in _METHODS:
        if name in vars(cell):
            return f"`{name}` of {cell.name} was set to another one"
    return None


def unregistered(cell):
    """Why a path for the cells of this package's registry, as they are, cannot take this one, or
    `None`."""
    if reason := overridden(cell):
        return reason
    if not isinstance(cell, Cell):
        return f"{kind_of(cell)} is no kerasrnn.cells.Cell"
    if type(cell) not in CELLS.values():
        return f"{kind_of(cell)} is not registered in kerasrnn.cells.CELLS"
    return None


@contextlib.contextmanager
def tapped(tap):
    """Adds taps, inside, to the states of every cell after each step: what depends on a state
    depends on its tap in the same way, a repeated output too.

    Args:
        tap: `tap(cell, states, steps)`, called before the first step, gives the taps of one cell,
            zeros, nested like its states, each (steps, batch, size), in the order of the steps.
    """
    token = _TAP.set(tap)
    try:
        yield
    finally:
        _TAP.reset(token)


def current_tap():
    """The `tap` of the `tapped` that the call is in, or `None`."""
    return _TAP.get()


def check_length(sequences):
    """`sequences`, of an unknown length that the running graph finds to be one step or more."""
    least_one = tf.debugging.assert_positive(
        tf.shape(sequences)[1], "`sequences` must have at least one time step"
    )
    with tf.control_dependencies([least_one]):
        return tf.identity(sequences)


def initial_states(cell, sequences):
    """The states an episode begins with, as a list."""
    states = cell.get_initial_state(batch_size=ops.shape(sequences)[0])
    return list(states) if tree.is_nested(states) else [states]


def turned_resets(reset):
    """Where the states are set back on the way from the last step to the first: an episode that
    begins at t is left, backwards, at t, so that the one before it begins, backwards, at t - 1."""
    return ops.concatenate([reset[:, 1:], ops.zeros_like(reset[:, :1])], axis=1)


def values_over_time(sequence_pass, zones=None):
    """What differs from step to step, by name, (batch, time, ...), in the cell's order of the
    steps: the input "x", and of "mask", "reset" and zoneout's "zones" those there are."""
    values = {
        "x": sequence_pass.sequences,
        "mask": sequence_pass.mask,
        "reset": sequence_pass.reset,
        "zones": zones,
    }
    values = {name: value for name, value in values.items() if value is not None}
    if sequence_pass.go_backwards:
        values = tree.map_structure(lambda v: ops.flip(v, axis=1), values)
    return values


def time_major(values):
    """A structure of (batch, time, ...) as one of (time, batch, ...)."""
    return tree.map_structure(time_first, values)


def time_first(v):
    """(batch, time, ...) as (time, batch, ...), or the other way round."""
    return ops.transpose(v, [1, 0, *range(2, len(v.shape))])


def start_states(step, episode_start, states):
    """The states a step starts from: those of an episode's start where `step`, the values of one
    step or of all, says that one begins."""
    if "reset" not in step:
        return states
    return where(step["reset"], episode_start, states)


def unless_masked(step, new, old):
    """The `new` states where `step` is not masked, the `old` ones where it is."""
    return where(step["mask"], new, old) if "mask" in step else new


def where(condition, new, old):
    """`ops.where` for structures, row by row, however many axes a row has.

    Args:
        condition: (..., batch, 1) booleans.
        new, old: Structures of (..., batch, ...), of which one may lack the axes before the batch.
    """

    def one(new, old):
        further = max(len(new.shape), len(old.shape)) - len(condition.shape)
        if not further:
            return ops.where(condition, new, old)
        of_rows = condition[..., 0]
        return ops.where(of_rows[(..., *[None] * (further + 1))], new, old)

    return tree.map_structure(one, new, old)
