"""The recurrence: the only place that runs a cell over a sequence, and its ways through.

    cudnn           one kernel for the whole sequence, LSTM and GRU on a GPU
    programs        XLA programs with one backward loop for all cells, on a CPU, in `fit` and the
                    like, and where `compiled` says so
    scan            linear recurrences, all steps at once from their coefficients; in XLA one step
                    after the other costs less
    loop            one step after the other, any cell, anywhere
    bptt            one backward loop for all cells under JAX, in blocks of steps
    torch_kernels   one kernel for the whole sequence, LSTM and GRU, on a CPU too
    portable        one step after the other, in `keras.ops`

`programs` and `loop` are for TensorFlow, `scan` for TensorFlow and JAX, `bptt` for JAX,
`torch_kernels` for PyTorch.

Each is a module of that name: `refuses(sequence_pass)` gives the one reason why it cannot take a
pass, or `None`, and `run(sequence_pass)` runs it. `run` takes the first that does not refuse, and
nothing else decides; `explain` shows which, and why not another. An exporter to a format that has
none of these loops brings a way of its own, with `through`.
"""

import contextlib
import contextvars
import importlib

import keras
from keras import ops, tree

from kerasrnn.arguments import one_of
from kerasrnn.backends import BACKEND
from kerasrnn.cells.base import Cell
from kerasrnn.recurrence import explanation, sequence, stages
from kerasrnn.recurrence.explanation import Choice, Explanation, explain
from kerasrnn.recurrence.stages import compiled

_NAMES = {
    "tensorflow": ("cudnn", "programs", "scan", "loop", "portable"),
    "jax": ("cudnn", "scan", "bptt", "portable"),
    "torch": ("cudnn", "torch_kernels", "portable"),
}
# In the order in which they are tried. A module is imported where it can run.
PATHS = {name: importlib.import_module(f"{__name__}.{name}") for name in _NAMES[BACKEND]}
_THROUGH = contextvars.ContextVar("through", default=None)


@contextlib.contextmanager
def through(run_pass):
    """Has `run_pass(sequence_pass)` take every pass, inside, in the place of all paths; it returns
    what `run` does."""
    token = _THROUGH.set(run_pass)
    try:
        yield
    finally:
        _THROUGH.reset(token)


def run(
    cell,
    sequences,
    states,
    mask=None,
    training=False,
    go_backwards=False,
    unroll=False,
    zero_output_for_mask=False,
    return_sequences=True,
    reset=None,
    path=None,
    use_cudnn="auto",
):
    """Runs `cell` over the time steps of `sequences`.

    A masked step leaves the states as they are; its output is that of the step before (zeros at
    the start), or zeros with `zero_output_for_mask`.

    Args:
        cell: A `Cell`, any Keras cell, or `keras.layers.StackedRNNCells` of either.
        sequences: (batch, time, features).
        states: The initial states, nested like the cell's `state_size`; each (batch, size), or
            with more axes where a cell of the user's keeps such.
        mask: (batch, time) booleans, `False` where a step is to be skipped, or `None`.
        training: Whether dropout applies.
        go_backwards: Run from the last step to the first; the outputs come in that order too.
        unroll: Write one copy of the step per time step into the graph instead of a loop.
        zero_output_for_mask: See above.
        return_sequences: Keep the output of every step.
        reset: (batch, time) booleans, `True` where an episode begins: before that step the states
            are set to the cell's initial ones. Backwards, where the episode after has been passed.
        path: The one of `PATHS` to take, by name, though another may be faster; `None` for the
            first that does not refuse.
        use_cudnn: `False` passes cuDNN over, `True` is an error where it cannot be taken.

    Returns:
        The last output (batch, ...); the outputs (batch, time, ...), or (batch, 1, ...) without
        `return_sequences`; the final states, those of a linear recurrence in float32 where the
        outputs are in half precision.

    Raises:
        ValueError: `path` is no path, or it or cuDNN, which was asked for, cannot be taken; the
            message gives the reason.

    Example:

    >>> cell = kerasrnn.cells.GRUCell(4)
    >>> x = np.ones((2, 5, 3), "float32")
    >>> cell.build((2, 3))
    >>> last, outputs, states = kerasrnn.recurrence.run(cell, x, cell.get_initial_state(2))
    >>> outputs.shape
    TensorShape([2, 5, 4])
    """
    one_of((None, *PATHS), "path", path)
    one_of(("auto", True, False), "use_cudnn", use_cudnn)
    if use_cudnn is True and path not in (None, "cudnn"):
        raise ValueError(
            "`path` must leave the path open or be 'cudnn' where `use_cudnn` is True. "
            f"Received: path={path!r}"
        )
    # A subclass may connect its cells in a way of its own.
    if type(cell) is keras.layers.StackedRNNCells:
        options = {
            "training": training,
            "unroll": unroll,
            "zero_output_for_mask": zero_output_for_mask,
            "path": path,
            "use_cudnn": use_cudnn,
        }
        return _run_stacked(
            cell.cells, sequences, states, mask, go_backwards, reset, return_sequences, options
        )

    dtype = getattr(cell, "compute_dtype", None)
    sequences = ops.cast(sequences, dtype) if dtype else ops.convert_to_tensor(sequences)
    if sequences.shape[1] is None:
        sequences = sequence.check_length(sequences)
    shape = ops.shape(sequences)[:2]
    if mask is not None:
        mask = ops.cast(mask, "bool")
        mask = mask if len(mask.shape) == 3 else ops.expand_dims(mask, 2)
        # One row may stand for all.
        mask = ops.broadcast_to(mask, (*shape, 1))
    states, episode_start = list(states), []
    if reset is not None:
        reset = ops.broadcast_to(reset, shape)
        reset = ops.expand_dims(sequence.turned_resets(reset) if go_backwards else reset, 2)
        episode_start = sequence.initial_states(cell, sequences)
    if isinstance(cell, Cell):
        states, episode_start = (
            [ops.cast(v, cell.state_dtype) for v in vs] for vs in (states, episode_start)
        )
    tap = sequence.current_tap()
    # What is measured is measured, whatever was asked for in training.
    if path is None and use_cudnn is True and tap is None:
        if "cudnn" not in PATHS:
            raise ValueError(
                f"use_cudnn=True cannot be met under Keras's {BACKEND} backend, where this package "
                "does not call cuDNN. use_cudnn='auto' takes another path. "
                f"Received: use_cudnn=True for {_place_of(cell)}"
            )
        path = "cudnn"
    sequence_pass = sequence.SequencePass(
        cell,
        sequences,
        states,
        mask,
        reset,
        episode_start,
        training,
        go_backwards,
        unroll,
        zero_output_for_mask,
        return_sequences,
        tap,
        stages.current(),
        path,
        use_cudnn,
    )
    run_pass = _THROUGH.get() or _path_of(sequence_pass).run
    output, outputs, final = run_pass(sequence_pass)
    return ops.cast(output, dtype or output.dtype), ops.cast(outputs, dtype or output.dtype), final


def supports_jit(cell, unroll, use_cudnn):
    """Whether every pass of a layer around `cell` can be a part of an XLA program: under TensorFlow
    cuDNN's kernels cannot.

    Args:
        cell, unroll, use_cudnn: As for `run`.
    """
    return BACKEND != "tensorflow" or bool(PATHS["cudnn"].refuses_layer(cell, unroll, use_cudnn))


def _path_of(sequence_pass):
    """The path that a pass takes: the first, of all or of the one asked for, that does not refuse
    it."""
    cell, taken, passed_over = sequence_pass.cell, None, {}
    for name, path in PATHS.items():
        if sequence_pass.path in (None, name):
            reason = path.refuses(sequence_pass)
            if reason is None:
                taken = name
                break
            passed_over[name] = reason
    if explanation.note_if_explaining(cell, Choice(taken, passed_over)):
        # Any path serves: of the pass the shapes alone are needed. TensorFlow's loop takes lengths
        # that are not known.
        return PATHS.get("loop") or PATHS["portable"]
    if taken is None and sequence_pass.path is None:
        raise ValueError(
            f"No path takes {_place_of(cell)} under Keras's {BACKEND} backend: "
            f"{passed_over[list(PATHS)[-1]]}"
        )
    if taken is None:
        ((name, reason),) = passed_over.items()
        argument, other = "path", None
        if name == "cudnn" and sequence_pass.use_cudnn is True:
            argument, name, other = "use_cudnn", True, "auto"
        raise ValueError(
            f"{argument}={name!r} cannot be met here: {reason}. {argument}={other!r} takes another "
            f"path where it must. Received: {argument}={name!r} for {_place_of(cell)}"
        )
    return PATHS[taken]


def _place_of(cell):
    """The names on the way to a cell, as far as it has them."""
    return getattr(cell, "path", None) or getattr(cell, "name", type(cell).__name__)


def _run_stacked(cells, sequences, states, mask, go_backwards, reset, return_sequences, options):
    """Runs each cell over the whole sequence before the next: the same numbers as all cells at
    every step, since no cell of a stack looks at a later one."""
    last, final_states = None, []
    for cell, cell_states in zip(cells, states, strict=True):
        nested = tree.is_nested(cell_states)
        last, sequences, final = run(
            cell,
            sequences,
            cell_states if nested else [cell_states],
            mask=mask,
            go_backwards=go_backwards,
            reset=reset,
            # The cells above the last need all outputs of the one before.
            return_sequences=return_sequences or cell is not cells[-1],
            **options,
        )
        final_states.append(final if nested else final[0])
        if go_backwards:
            mask = None if mask is None else ops.flip(mask, axis=1)
            reset = None if reset is None else ops.flip(sequence.turned_resets(reset), axis=1)
            go_backwards = False
    return last, sequences, final_states


__all__ = ["PATHS", "Choice", "Explanation", "compiled", "explain", "run", "through"]
