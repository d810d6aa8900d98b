"""Which part of the graph is whose under a distribution strategy."""

import tensorflow as tf


def on_first_replica():
    """Whether this part of the graph is that of the replica which keeps the books for all."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return True
    return tf.get_static_value(tf.convert_to_tensor(replica.replica_id_in_sync_group)) == 0
