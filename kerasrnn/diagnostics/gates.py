"""The values that the gates of a layer take while it runs."""

import contextlib
import functools
from typing import NamedTuple

import numpy as np

from kerasrnn.backends import tf
from kerasrnn.diagnostics.looking import shadowed
from kerasrnn.keras_cells import declarations

# Under the one or over the other the slope of a sigmoid is less than a hundredth of its largest.
# Gates that have learned to decide lie near their limits, too, but mostly inside of these.
LOW, HIGH = 0.0025, 0.9975
BINS = 40


class Gate(NamedTuple):
    """What values a gate took, over all units, samples and steps that are not masked.

    Attributes:
        counts: (40,), a histogram from 0 to 1.
        low, high: The shares under 0.0025 and over 0.9975.
        remembers: The one of these two in which the gate leaves the state as it is, "low", "high"
            or "".
    """

    counts: np.ndarray
    low: float
    high: float
    remembers: str

    @property
    def saturated(self):
        """The share of saturated values, but for those by which a cell remembers."""
        return sum(getattr(self, side) for side in ("low", "high") if side != self.remembers)


class GateRecorder(contextlib.AbstractContextManager):
    """Notes what the `recurrent_activation` of each cell gives, which is its gates, from the
    beginning of its first run until the end of the context."""

    def __init__(self):
        self._shadowed = contextlib.ExitStack()
        self._runs = {}
        self._calls = {}

    def begin(self, run):
        """Notes a `kerasrnn.diagnostics.probe.Run` that begins."""
        cell = run.cell
        if not hasattr(cell, "recurrent_activation"):
            return
        if id(cell) not in self._calls:
            note = functools.partial(self._note, id(cell))
            self._shadowed.enter_context(shadowed("recurrent_activation", [(cell, note)]))
        self._calls[id(cell)] = calls = []
        self._runs[run.path] = cell, calls, run.valid

    def __exit__(self, *error):
        return self._shadowed.__exit__(*error)

    def _note(self, key, activation, v):
        values = activation(v)
        # What a function traced inside the model computes has no values here.
        if not tf.is_symbolic_tensor(values):
            self._calls[key].append(values)
        return values

    def gates(self, path):
        """The gates of one run by their names, {} where the cell has none that lie in [0, 1]."""
        if path not in self._runs:
            return {}
        cell, calls, valid = self._runs[path]
        valid = np.asarray(valid)
        if not calls or len(calls) % valid.shape[1]:
            return {}
        declared = declarations(cell)
        names, keeps, writes = declared.gated, declared.keeps, declared.writes
        blocks = _blocks(calls, valid, cell.units)
        if len(names) != len(blocks):
            names = [f"gate {k}" for k in range(1, len(blocks) + 1)]
        gates = {}
        for name, values in zip(names, blocks, strict=True):
            if values.size and values.min() >= 0 and values.max() <= 1:
                side = "high" if name in keeps else "low" if name in writes else ""
                gates[name + "'" * (name in gates)] = Gate(
                    np.histogram(values, BINS, (0, 1))[0],
                    float(np.mean(values < LOW)),
                    float(np.mean(values > HIGH)),
                    side,
                )
        return gates


def _blocks(calls, valid, units):
    """The values of each gate in the order in which a step computes them, as one flat array."""
    per_step = len(calls) // valid.shape[1]
    blocks = []
    for k in range(per_step):
        values = np.stack([np.asarray(v, "float32") for v in calls[k::per_step]], axis=1)
        width = values.shape[-1]
        gates = np.split(values, width // units, axis=-1) if width % units == 0 else [values]
        blocks += [gate[valid] for gate in gates]
    return blocks
