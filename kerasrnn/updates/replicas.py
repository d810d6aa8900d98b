"""Which part of the graph is whose under a distribution strategy."""

from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf


def on_first_replica():
    """Whether this part of the graph is that of the replica which keeps the books for all."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return True
    return tf.get_static_value(tf.convert_to_tensor(replica.replica_id_in_sync_group)) == 0


def outside(make):
    """What `make()` gives, with its variables made outside of any graph and any strategy.

    In the scope of a strategy, in which `fit` may be called, they would be variables of all
    replicas, to be written by all. It holds for its thread.
    """
    if tf.distribute.has_strategy():
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(make).result()
    with tf.init_scope():
        return make()
