#!/usr/bin/env bash
# Under MirroredStrategy an optimizer of Keras clips the gradient of each replica, and sums what is left.
# The same batch with the same `global_clipnorm` gives another update than on one device, and one that is
# not in the direction of the gradient where there are several weights.
# Seen with keras 3.15.1, tensorflow 2.21.0, Python 3.11:
#   gradients 8 and -0.5 of two samples, global_clipnorm=1.0: an update of 1 on one device, of 0.75 on two
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet keras==3.15.1 tensorflow==2.21.0
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - <<'END' 2>log || { tail -n 3 log >&2; exit 1; }
import contextlib

import keras
import numpy as np
import tensorflow as tf

two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
x, y = np.array([[8.0], [-0.5]]), np.zeros((2, 1))


def update(scope):
    with scope:
        dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        model = keras.Sequential([keras.Input((1,)), dense])
        optimizer = keras.optimizers.SGD(1.0, global_clipnorm=1.0)
        model.compile(optimizer, lambda y, outputs: -outputs)
    model.fit(tf.data.Dataset.from_tensors((x, y)), verbose=0)
    return float(dense.get_weights()[0].item())


strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
updates = update(contextlib.nullcontext()), update(strategy.scope())
np.testing.assert_allclose(updates, [1, 0.75], rtol=1e-6)
print("one batch, one clip of 1: an update of {} on one device, of {} on two".format(*updates))
END
