"""The plain loop in `keras.ops`, for any cell, under any of Keras's backends."""

from keras import ops

from kerasrnn.backends import BACKEND, tf
from kerasrnn.recurrence import stepping


def refuses(sequence_pass):
    """Why the pass cannot take this path, or `None`."""
    if sequence_pass.regularizes and not tf:
        weight = sequence_pass.cell.vanishing_gradient_regularization
        return (
            "`vanishing_gradient_regularization` must be 0 but under Keras's TensorFlow backend. "
            f"Received: vanishing_gradient_regularization={weight!r}"
        )
    return None


def run(sequence_pass):
    """Runs the pass; returns what `kerasrnn.recurrence.run` does."""
    # PyTorch runs step after step anyhow, and `ops.scan` takes each step's values there from those
    # of all, so that on the way back it makes zeros for all at every step.
    return stepping.run(sequence_pass, stepping.unrolled if BACKEND == "torch" else _scanned)


def _scanned(advance, steps, output, states, count, return_sequences):
    """As `kerasrnn.recurrence.stepping.unrolled`, by `ops.scan`."""

    def turn(carry, now):
        carry = advance(now, *carry)
        # What Keras's scan collects has to have the structure of what it carries.
        return carry, carry

    (output, states), (outputs, _) = ops.scan(turn, (output, states), steps)
    return output, outputs, states
