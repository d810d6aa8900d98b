"""Norms of gradients, written into a buffer in the graph at every update."""

import numpy as np
import tensorflow as tf

from kerasrnn.callbacks.gradients import norm
from kerasrnn.callbacks.update_hook import UpdateHook, path_of


class GradientHook:
    """Writes the norms of all gradients, before and after clipping, at every update of one `fit`.

    A row of norms goes into a ring buffer in the graph, so nothing has to leave it at each step.

    Args:
        callback: The callback of that `fit` which reads them.
        capacity: Rows that the buffer holds.
    """

    def __init__(self, callback, capacity):
        self.model = callback.model
        self._hook = UpdateHook.of(callback)
        self.capacity = capacity
        self.paths = []
        self._ring = None
        self._taken = 0

    def attach(self):
        # Under a distribution strategy Keras builds the model before the first step, and the
        # buffer has to be there by then: replicas cannot agree on a variable made while tracing.
        if self.model.distribute_strategy.num_replicas_in_sync > 1:
            self._allocate(self.model.trainable_variables)
        self._hook.observe(self)

    def announce(self):
        self._hook.announce()

    def detach(self):
        self._hook.release(self)

    def expect(self, variables):
        """Makes the buffer, unless it is there, once the first update shows what is trained."""
        if self._ring is None:
            known = {id(v) for v in self.model.trainable_variables}
            # A custom train_step may update variables that are none of the model's, or hand over
            # the tf.Variable inside the Keras one.
            known |= {id(v.value) for v in self.model.trainable_variables}
            others = [v for v in variables if id(v) not in known]
            with tf.init_scope():
                self._allocate([*self.model.trainable_variables, *others])
        for variable in variables:
            if id(variable) not in self._columns:
                raise ValueError(
                    "GradientNormMonitor cannot take in a variable that is first trained after the "
                    "first step: call fit anew after unfreezing a layer. "
                    f"Received: {path_of(variable)}"
                )

    def _allocate(self, variables):
        self.paths = [path_of(v) for v in variables]
        self._columns = {
            id(same): i for i, v in enumerate(variables) for same in (v, getattr(v, "value", v))
        }
        self._ring = tf.Variable(tf.zeros((self.capacity, 2 * len(variables))), trainable=False)
        self._count = tf.Variable(0, dtype="int64", trainable=False)

    def record(self, variables, grads, clipped):
        replica = tf.distribute.get_replica_context()
        if replica and replica.num_replicas_in_sync > 1:
            grads, clipped = (
                replica.all_reduce(tf.distribute.ReduceOp.SUM, list(g)) for g in (grads, clipped)
            )
            if tf.get_static_value(tf.convert_to_tensor(replica.replica_id_in_sync_group)) != 0:
                return
        norms = [norm(g) for g in [*grads, *clipped]]
        columns = [self._columns[id(v)] for v in variables]
        columns += [len(self.paths) + c for c in columns]
        row = tf.scatter_nd([[c] for c in columns], norms, [2 * len(self.paths)])
        self._ring.scatter_nd_update([[self._count % self.capacity]], row[None])
        self._count.assign_add(1)

    def count(self):
        """Updates seen so far."""
        return 0 if self._ring is None else int(self._count)

    def take(self, until):
        """The rows written since the last call and before update `until`, as an array.

        The second value is how many of them were overwritten before they could be read.
        """
        if self._ring is None:
            return np.zeros((0, 0), "float32"), 0
        oldest = max(self._taken, self.count() - self.capacity)
        lost = min(oldest, until) - self._taken
        rows = np.take(self._ring.numpy(), range(oldest, until), axis=0, mode="wrap")
        self._taken = until
        return rows, lost
