"""Which part of the graph is whose under a distribution strategy of TensorFlow; of other backends
there is one replica."""

from concurrent.futures import ThreadPoolExecutor

from kerasrnn.backends import tf


def several():
    """The context of a replica that is one of several, or `None`."""
    replica = None if tf is None else tf.distribute.get_replica_context()
    return replica if replica is not None and replica.num_replicas_in_sync > 1 else None


def total(values):
    """A tensor, or a list of them, summed over the replicas."""
    replica = several()
    return values if replica is None else replica.all_reduce(tf.distribute.ReduceOp.SUM, values)


def on_first_replica():
    """Whether this part of the graph is that of the replica which keeps the books for all."""
    replica = several()
    if replica is None:
        return True
    return tf.get_static_value(tf.convert_to_tensor(replica.replica_id_in_sync_group)) == 0


def outside(make):
    """What `make()` gives, with its variables made outside of any graph and any strategy.

    In the scope of a strategy, in which `fit` may be called, they would be variables of all
    replicas, to be written by all. It holds for its thread.
    """
    if tf is None:
        return make()
    if tf.distribute.has_strategy():
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(make).result()
    with tf.init_scope():
        return make()
