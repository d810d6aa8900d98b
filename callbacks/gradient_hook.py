"""Where gradients are seen: the one place that every update of every `fit` goes through."""

import numpy as np
import tensorflow as tf

from kerasrnn.callbacks.update_row import UpdateRow

# The optimizer's methods that the hook shadows: Keras internals, named in tests/test_seams.py.
# The first has the variables; it calls the second where an update is really made, with gradients
# that are unscaled and averaged over accumulated batches.
METHODS = ("_backend_apply_gradients", "_clip_gradients")


def innermost(optimizer):
    """The optimizer inside those that wrap it, as for loss scaling."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


class GradientHook:
    """Writes the norms of all gradients, before and after clipping, at every update of one `fit`.

    A row of norms goes into a ring buffer in the graph, so nothing has to leave it at each step.

    Args:
        model: The model in training.
        fit: Any object that is the same for all callbacks of one `fit` and of no other: what an
            interrupted `fit` left on the optimizer is told from a neighbour's hook by it.
        capacity: Rows that the buffer holds.
        products: As for `UpdateRow`.
    """

    def __init__(self, model, fit, capacity, products=False):
        self.model = model
        self.fit = fit
        self.optimizer = innermost(model.optimizer)
        self.capacity = capacity
        self.products = products
        self.paths = []
        self.gates = {}
        self._variables = []
        self._ring = None
        self._in_use = False
        self._taken = 0

    def attach(self):
        shadow = vars(self.optimizer).get(METHODS[0])
        if shadow is None or shadow.fit is not self.fit:
            self._shadow_methods()
        self._observers().append(self)
        # With the buffer there, the first step is traced once; making it there takes a second time.
        if self.model.built:
            self._allocate(self.model.trainable_variables)
        # Under a distribution strategy Keras builds the model before the first step, and the
        # buffer has to be there by then: replicas cannot agree on a variable made while tracing.
        self._in_use = self.model.distribute_strategy.num_replicas_in_sync > 1

    def detach(self):
        observers = self._observers()
        observers.remove(self)
        if not observers:
            self._restore_methods()

    def _observers(self):
        return vars(self.optimizer)[METHODS[0]].observers

    def _restore_methods(self):
        for name in METHODS:
            vars(self.optimizer).pop(name, None)

    def _shadow_methods(self):
        self._restore_methods()
        apply, clip = (getattr(self.optimizer, name) for name in METHODS)
        observers, updated = [], []

        def _backend_apply_gradients(grads, trainable_variables):
            updated[:] = trainable_variables
            for observer in observers:
                observer.expect(updated)
            return apply(grads, trainable_variables)

        def _clip_gradients(grads):
            clipped = clip(grads)
            for observer in observers:
                observer.record(updated, grads, clipped)
            return clipped

        _backend_apply_gradients.fit = self.fit
        _backend_apply_gradients.observers = observers
        shadows = (_backend_apply_gradients, _clip_gradients)
        vars(self.optimizer).update(zip(METHODS, shadows, strict=True))

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
                with tf.init_scope():
                    self._allocate(trained)
        for variable in variables:
            if id(variable) not in self._columns:
                raise ValueError(
                    "GradientNormMonitor cannot take in a variable that is first trained after the "
                    "first step: call fit anew after unfreezing a layer. "
                    f"Received: {_path(variable)}"
                )

    def _allocate(self, variables):
        self._variables = variables
        self.paths = [_path(v) for v in variables]
        self._columns = {
            id(same): i for i, v in enumerate(variables) for same in (v, getattr(v, "value", v))
        }
        self._row = UpdateRow(self.model, variables, self.products)
        self.gates = self._row.gates
        self._ring = tf.Variable(tf.zeros((self.capacity, self._row.width)), trainable=False)
        self._count = tf.Variable(0, dtype="int64", trainable=False)

    def record(self, variables, grads, clipped):
        self._in_use = True
        sides = [grads, clipped]
        if all(g is c for g, c in zip(*sides, strict=True)):
            sides.pop()
        replica = tf.distribute.get_replica_context()
        if replica and replica.num_replicas_in_sync > 1:
            sides = [replica.all_reduce(tf.distribute.ReduceOp.SUM, list(g)) for g in sides]
            if tf.get_static_value(tf.convert_to_tensor(replica.replica_id_in_sync_group)) != 0:
                return
        columns = [self._columns[id(v)] for v in variables]
        dense = [[_dense_rows(g) for g in side] for side in sides]
        row = self._row(columns, sides[0], dense[0], dense[-1])
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


def _path(variable):
    return getattr(variable, "path", variable.name)


def _dense_rows(gradient):
    """The gradient, with rows of the same index in an `IndexedSlices` summed.

    By sorting, since `tf.unique` has no static shape and so no XLA.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    indices = tf.reshape(gradient.indices, [-1])
    order = tf.argsort(indices)
    sorted_indices = tf.gather(indices, order)
    starts = tf.cast(sorted_indices[1:] != sorted_indices[:-1], "int32")
    segments = tf.concat([[0], tf.cumsum(starts)], axis=0)
    return tf.math.unsorted_segment_sum(
        tf.gather(gradient.values, order), segments, tf.size(indices)
    )
