"""The losses of the batches that an update is made of."""

import tensorflow as tf

from kerasrnn.updates.replicas import on_first_replica


class BatchLosses:
    """Keeps, in the graph, the loss of each batch until the update that it goes into, with several
    others where gradients are accumulated."""

    def __init__(self):
        self._latest = tf.Variable(float("nan"), trainable=False)
        self._sum, self._batches = (tf.Variable(0.0, trainable=False) for _ in range(2))

    def begin(self):
        """Forgets what a `fit` before has left, as of batches too few for an update."""
        self._latest.assign(float("nan"))
        for variable in (self._sum, self._batches):
            variable.assign(0.0)

    def hear(self, loss):
        """Takes the loss that a replica has computed; the replicas' add up."""
        loss = tf.cast(loss, "float32")
        replica = tf.distribute.get_replica_context()
        if replica and replica.num_replicas_in_sync > 1:
            loss = replica.all_reduce(tf.distribute.ReduceOp.SUM, loss)
        if on_first_replica():
            self._latest.assign(loss)

    def end_batch(self):
        """Counts the last one as that of a batch; NaN where none was computed since."""
        if on_first_replica():
            self._sum.assign_add(self._latest.read_value())
            self._batches.assign_add(1.0)
            self._latest.assign(float("nan"))

    def take(self):
        """The mean over the batches since the last call."""
        mean = self._sum / self._batches
        for variable in (self._sum, self._batches):
            variable.assign(0.0)
        return mean
