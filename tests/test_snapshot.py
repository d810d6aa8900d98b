import numpy as np
import tensorflow as tf

from kerasrnn.updates.snapshot import Snapshot


def test_a_snapshot_restores_what_it_is_told():
    first, second = tf.Variable([1.0, 2.0]), tf.Variable([3.0])
    kept = Snapshot([first, second])
    first.assign([0.0, np.nan])
    second.assign([0.0])
    kept.restore(lambda v: v is first)
    np.testing.assert_array_equal(first, [1.0, 2.0])
    np.testing.assert_array_equal(second, [0.0])
    assert kept.finite
    assert not Snapshot([tf.Variable([np.inf])]).finite
