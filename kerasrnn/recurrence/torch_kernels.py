"""PyTorch's own kernels for a whole sequence, for any layer or stack around an LSTM or GRU cell
that they know: on a CPU, where Keras loops, as on a GPU.

Their weights are those of Keras, each matrix turned; the gates of a GRU, z, r, g, have the order
r, z, g. They know no mask that PyTorch has fast kernels for, but of rows that are padded at their
end alone what comes after a row's last step can be left out afterwards: of the outputs, and with
them of h. The c of an LSTM is kept to the end by one more input, that is 1 at masked steps:

    i_t = σ(... - 10⁴) = 0,    f_t = σ(... + 10⁴) = 1,    c_t = f_t ∘ c_{t-1} + i_t ∘ g_t = c_{t-1}

Backward in time each row is turned around by itself, so that its padding stays at the end.
"""

import torch
from keras import ops

from kerasrnn.cells import GRUCell, LSTMCell
from kerasrnn.recurrence import cudnn

_DTYPES = (torch.float32, torch.float64)
# Beside it what else a gate adds up at a masked step, U h + b, is small.
_SHUT = 1e4


def refuses(sequence_pass):
    """Why the pass cannot take this path, or `None`."""
    if reason := cudnn.unsuited(sequence_pass.cell, sequence_pass.unroll):
        return reason
    if sequence_pass.reset is not None:
        return "a reset"
    if sequence_pass.tap:
        return "the gradient by each state is measured"
    if sequence_pass.sequences.dtype not in _DTYPES:
        return f"{sequence_pass.cell.compute_dtype}, not float32 or float64"
    if not sequence_pass.sequences.shape[0]:
        return "a batch without rows"
    if sequence_pass.mask is not None and not _padded_at_the_end(sequence_pass.mask):
        return "a mask of steps that are not all at the end of their rows"
    return None


def _padded_at_the_end(mask):
    # Where shapes alone are asked for there are no values to look at.
    return mask.is_meta or bool((mask[:, 1:] <= mask[:, :-1]).all())


def run(sequence_pass):
    """Runs the pass; returns what `kerasrnn.recurrence.run` does."""
    cell, x, states = sequence_pass.cell, sequence_pass.sequences, sequence_pass.states
    cell.check_features(x)
    (dropped,) = cell.noise(x, states, sequence_pass.training).inputs
    if dropped is not None:
        x = x * dropped
    weights = [
        ops.cast(w, cell.compute_dtype) for w in (cell.kernel, cell.recurrent_kernel, cell.bias)
    ]
    kernel = _KERNELS[type(cell)]
    if sequence_pass.mask is None:
        if sequence_pass.go_backwards:
            x = x.flip(1)
        outputs, states = kernel(x, states, *weights)
    else:
        outputs, states = _run_masked(sequence_pass, kernel, x, weights)
    last = outputs[:, -1]
    return last, outputs if sequence_pass.return_sequences else last[:, None], states


def _run_masked(sequence_pass, kernel, x, weights):
    """The outputs, as masked steps show them, and the final states.

    Args:
        sequence_pass: The pass.
        kernel: The cell's kernel.
        x: (batch, time, features), with what dropout leaves of it.
        weights: The cell's.
    """
    mask, backwards = sequence_pass.mask, sequence_pass.go_backwards
    # What stands in the padding, an Inf or NaN even, reaches no gate.
    x = torch.where(mask, x, 0)
    steps = torch.arange(x.shape[1], device=x.device)
    lengths = mask.sum(1)
    if backwards:
        x = _taken(x, (lengths - 1 - steps).clamp(min=0))
    outputs, (h, *c) = kernel(x, sequence_pass.states, *weights, masked=~mask)
    empty = lengths == 0
    h = _taken(outputs, (lengths - 1).clamp(min=0))[:, 0]
    final = [torch.where(empty, sequence_pass.states[0], h), *c]
    # Backward in time the masked steps come first, where there is nothing yet to repeat.
    place = steps - (x.shape[1] - lengths) if backwards else steps.expand(len(x), -1)
    shown = (place >= 0) & ~empty
    if sequence_pass.zero_output_for_mask:
        shown = shown & (place < lengths)
    place = torch.minimum(place, lengths - 1).clamp(min=0)
    return torch.where(shown[:, :, None], _taken(outputs, place), 0), final


def _taken(v, steps):
    """The steps of v, (batch, time, ...), whose numbers are in `steps`, (batch, time)."""
    return v.gather(1, steps[:, :, None].expand(-1, -1, v.shape[2]))


def _lstm(x, states, kernel, recurrent_kernel, bias, masked=None):
    """The outputs of all steps, (batch, time, units), and the final h and c.

    Args:
        x: (batch, time, features).
        states: The initial h and c, each (batch, units).
        kernel, recurrent_kernel, bias: The cell's.
        masked: (batch, time, 1) booleans, true at the steps that keep c, or `None`.
    """
    if masked is not None:
        x = torch.cat([x, masked.to(x.dtype)], 2)
        shut = torch.tensor([-_SHUT, _SHUT, 0, 0], dtype=x.dtype, device=x.device)
        kernel = torch.cat([kernel, shut.repeat_interleave(len(recurrent_kernel))[None]])
    weights = [kernel.T, recurrent_kernel.T, bias, torch.zeros_like(bias)]
    # The seam of test_kernels_of_torch.
    return _run_kernel(torch.lstm, x, states, weights)


def _gru(x, states, kernel, recurrent_kernel, bias, masked=None):
    """As `_lstm`; what h is after masked steps does not count."""

    def ordered(v):
        z, r, g = v.chunk(3, -1)
        return torch.cat([r, z, g], -1)

    weights = [ordered(kernel).T, ordered(recurrent_kernel).T, *ordered(bias)]
    return _run_kernel(torch.gru, x, states, weights)


def _run_kernel(kernel, x, states, weights):
    states = [s[None].contiguous() for s in states]
    # Of one layer in one direction, with biases and no dropout between layers; the way back has
    # what it needs, in training or not.
    options = (True, 1, 0.0, torch.is_grad_enabled(), False, True)
    outputs, *states = kernel(x, states if len(states) > 1 else states[0], weights, *options)
    return outputs, [s[0] for s in states]


_KERNELS = {LSTMCell: _lstm, GRUCell: _gru}
