"""The filter of updates that are not finite."""

from keras import ops

from kerasrnn.updates.gradients import has_rows, nonfinite
from kerasrnn.updates.parts import path_of
from kerasrnn.updates.replicas import on_first_replica
from kerasrnn.updates.states_before import StatesBefore
from kerasrnn.updates.variables import step_variable, value_of


class NonFiniteFilter:
    """Lets no update through whose gradients hold an Inf or NaN, in the graph; puts back the states
    that a stateful layer had before it, keeps count, and looks at what the other updates have made
    of the weights. A `Filter` of the `UpdateHook`, and a `Part` that it makes.

    Args:
        model: The model in training.

    Attributes:
        states: Of the stateful layers, a `StatesBefore`.
        skipped: Batches not let through.
        in_a_row: How many of them were the last ones.
        first_nonfinite: Update, counted from 0, and path of the first variable, or `None`.
        spoilt: Whether an update left an Inf or NaN in the weights.
    """

    def __init__(self, model):
        self.states = StatesBefore(model)
        self._paths = []
        self._updates, self._skipped, self._in_a_row = (step_variable(0, "int32") for _ in range(3))
        self._first = step_variable([-1, -1], "int32")
        self._spoilt = step_variable(False, "bool")

    def begin(self, again):
        self.states.begin()
        self.begin_again()
        for count in (self._updates, self._skipped):
            count.assign(0)
        self._first.assign([-1, -1])

    def fit_state(self):
        """The counts, for `go_on_from`."""
        return [variable.numpy() for variable in self._counts()], self._paths

    def go_on_from(self, state):
        """To be called after `begin`."""
        values, self._paths = state
        for variable, value in zip(self._counts(), values, strict=True):
            variable.assign(value)

    def _counts(self):
        return self._updates, self._skipped, self._in_a_row, self._first, self._spoilt

    @property
    def skipped(self):
        return int(self._skipped.numpy())

    @property
    def in_a_row(self):
        return int(self._in_a_row.numpy())

    @property
    def spoilt(self):
        return bool(self._spoilt.numpy())

    def begin_again(self):
        """After the weights were restored."""
        self._in_a_row.assign(0)
        self._spoilt.assign(False)

    @property
    def first_nonfinite(self):
        update, variable = map(int, self._first.numpy())
        return None if update < 0 else (update, self._paths[variable])

    def expect(self, variables):
        self.states.expect()
        self._paths += [path_of(v) for v in variables if path_of(v) not in self._paths]

    def flags(self, grads):
        """Which gradients hold an Inf or NaN (variables,)."""
        return nonfinite([g.values if has_rows(g) else g for g in grads])

    def let_through(self, variables):
        self.states.keep()
        self._in_a_row.assign(0)
        spoilt = nonfinite([value_of(v) for v in variables])
        self._spoilt.assign(self._spoilt.value | ops.any(spoilt))

    def skip(self, variables, flags):
        self.states.put_back()
        columns = ops.convert_to_tensor([self._paths.index(path_of(v)) for v in variables], "int32")
        first = ops.take(columns, ops.argmax(ops.cast(flags, "int32")))
        now = ops.stack([self._updates.value, first])
        self._first.assign(ops.where(self._skipped.value > 0, self._first.value, now))
        for count in (self._skipped, self._in_a_row):
            count.assign(count.value + 1)

    def record(self, update):
        if on_first_replica():
            self._updates.assign(self._updates.value + 1)
