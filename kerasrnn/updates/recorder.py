"""The observer that records updates as numbers."""

import numpy as np
from keras import ops

from kerasrnn.backends import BACKEND
from kerasrnn.updates.gradients import sum_rows
from kerasrnn.updates.parts import path_of
from kerasrnn.updates.replicas import on_first_replica, outside, total
from kerasrnn.updates.update_row import UpdateRow
from kerasrnn.updates.variables import step_variable


class NormRecorder:
    """Writes an `UpdateRow` at every update of a `fit`; an `Observer` of the `UpdateHook`, and a
    `Part` that it makes.

    It goes into a ring buffer in the graph, so nothing has to leave it at each step.

    Args:
        model: The model in training.
        capacity: Rows that the buffer holds.
        products: As for `UpdateRow`.

    Attributes:
        paths: The paths of the variables that may be updated.
        gates: As in `UpdateRow`.
    """

    def __init__(self, model, capacity, products=False):
        self.model = model
        self.capacity = capacity
        self.products = products
        self.paths = []
        self.gates = {}
        self._variables = []
        self._ring = None
        self._taken = 0
        self._in_use = False

    def begin(self, again):
        self._taken = 0
        if again and self._ring is not None:
            self._count.assign(0)
            self._row.begin()
            return
        # With the buffer there, the first step is traced once; making it there takes a second time.
        if self.model.built:
            self._allocate(self.model.trainable_variables)
        # Under a distribution strategy Keras builds the model before the first step, and the
        # buffer has to be there by then: replicas cannot agree on a variable made while tracing.
        # So does JAX's trainer, and a step is handed the buffer.
        strategy = getattr(self.model, "distribute_strategy", None)
        self._in_use = BACKEND == "jax" or (strategy and strategy.num_replicas_in_sync > 1)

    def expect(self, variables):
        """Makes the buffer, unless the right one is there, once the first update shows what is
        trained."""
        if not self._in_use:
            known = {id(v) for v in self.model.trainable_variables}
            # A custom train_step may update variables that are none of the model's, or hand over
            # the tf.Variable inside the Keras one.
            known |= {id(v.value) for v in self.model.trainable_variables}
            others = [v for v in variables if id(v) not in known]
            trained = [*self.model.trainable_variables, *others]
            if list(map(id, trained)) != list(map(id, self._variables)):
                outside(lambda: self._allocate(trained))
        for variable in variables:
            if id(variable) not in self._columns:
                raise ValueError(
                    "GradientNormMonitor cannot take in a variable that is first trained after the "
                    "first step: call fit anew after unfreezing a layer. "
                    f"Received: {path_of(variable)}"
                )

    def _allocate(self, variables):
        self._variables = variables
        self.paths = [path_of(v) for v in variables]
        self._columns = {
            id(same): i for i, v in enumerate(variables) for same in (v, getattr(v, "value", v))
        }
        self._row = UpdateRow(self.model, variables, self.products)
        self.gates = self._row.gates
        self._ring = step_variable(np.zeros((self.capacity, self._row.width)))
        self._count = step_variable(0, "int32")

    def record(self, update):
        self._in_use = True
        sides = [update.grads, update.clipped]
        if all(g is c for g, c in zip(*sides, strict=True)):
            sides.pop()
        sides = [total(list(g)) for g in sides]
        if not on_first_replica():
            return
        columns = [self._columns[id(v)] for v in update.variables]
        dense = [[sum_rows(g) for g in side] for side in sides]
        row = self._row(columns, sides[0], dense[0], dense[-1], update)
        count = self._count.value
        self._ring.write(count % self.capacity, row)
        self._count.assign(count + 1)

    def count(self):
        """Updates seen so far."""
        return 0 if self._ring is None else int(self._count.numpy())

    def norms(self, since, until):
        """The global norms before clipping, (updates,), of those updates, or of as many of the last
        of them as the buffer holds."""
        updates = np.arange(max(since, until - self.capacity), until)
        rows = ops.convert_to_numpy(ops.take(self._ring.value, updates % self.capacity, axis=0))
        return np.linalg.norm(rows[:, : len(self.paths)].astype("float64"), axis=1)

    def take(self, until):
        """The rows written since the last call and before update `until`, as an array, and how many
        of them were overwritten before they could be read."""
        if self._ring is None:
            return np.zeros((0, 0), "float32"), 0
        oldest = max(self._taken, self.count() - self.capacity)
        lost = min(oldest, until) - self._taken
        rows = np.take(self._ring.numpy(), range(oldest, until), axis=0, mode="wrap")
        self._taken = until
        return rows, lost
