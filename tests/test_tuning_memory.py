"""Graphs of trials that have ended."""

import gc
import weakref

import keras
import numpy as np
import tensorflow as tf

from kerasrnn.tuning.memory import TrialMemory


def test_a_train_step_goes_with_its_model():
    memory = TrialMemory()
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    graphs = []

    class Looking(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            compute_loss = self.model.compute_loss

            def looking(*args, **kwargs):
                graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
                return compute_loss(*args, **kwargs)

            self.model.compute_loss = looking

    model.fit(np.ones((4, 3)), np.ones((4, 1)), callbacks=[Looking()], verbose=0)
    assert graphs
    del model
    memory.release()
    keras.backend.clear_session()
    gc.collect()
    assert [graph() for graph in graphs] == [None] * len(graphs)


def test_a_graph_that_is_still_there_keeps_its_gradients():
    @tf.custom_gradient
    def doubled_back(x):
        return x * 3.0, lambda d: d * 2.0

    memory = TrialMemory()
    triple = tf.function(doubled_back).get_concrete_function(tf.TensorSpec((2,)))
    memory.release()
    gc.collect()
    x = tf.constant([1.0, 2.0])
    for _ in range(2):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = triple(x)
        np.testing.assert_array_equal(y, [3.0, 6.0])
        np.testing.assert_array_equal(tape.gradient(y, x), [2.0, 2.0])
        memory.release()
        gc.collect()
