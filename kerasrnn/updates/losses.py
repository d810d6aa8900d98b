"""The losses of the batches that an update is made of."""

from keras import ops

from kerasrnn.updates.replicas import on_first_replica, total
from kerasrnn.updates.variables import step_variable


class BatchLosses:
    """Keeps, in the graph, the loss of each batch until the update that it goes into, with several
    others where gradients are accumulated."""

    def __init__(self):
        self._latest = step_variable(float("nan"))
        self._sum, self._batches = (step_variable(0.0) for _ in range(2))

    def begin(self):
        """Forgets what a `fit` before has left, as of batches too few for an update."""
        self._latest.assign(float("nan"))
        for variable in (self._sum, self._batches):
            variable.assign(0.0)

    def hear(self, loss):
        """Takes the loss that a replica has computed; the replicas' add up."""
        loss = total(ops.cast(ops.stop_gradient(loss), "float32"))
        if on_first_replica():
            self._latest.assign(loss)

    def end_batch(self):
        """Counts the last one as that of a batch; NaN where none was computed since."""
        if on_first_replica():
            self._sum.assign(self._sum.value + self._latest.value)
            self._batches.assign(self._batches.value + 1.0)
            self._latest.assign(float("nan"))

    def take(self):
        """The mean over the batches since the last call."""
        mean = self._sum.value / self._batches.value
        for variable in (self._sum, self._batches):
            variable.assign(0.0)
        return mean
