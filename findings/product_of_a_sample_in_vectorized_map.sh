#!/usr/bin/env bash
# tf.matmul of a batch of one sequence and a matrix, `sample[None] @ w`, in tf.vectorized_map is wrong on a
# CPU of several cores, or ends the process, unless TF_ENABLE_ONEDNN_OPTS=0; as a product of two matrices,
# as keras.ops.matmul takes it since 3.15, it is right. Known as tensorflow/tensorflow, issue 117700.
# Seen with keras 3.15.1, tensorflow 2.21.0 (and 2.18.0 to 2.20.0), Python 3.11:
#   five samples of 32 steps, 4 features: tf.matmul is wrong or dies, keras.ops.matmul is right, and so is
#   tf.matmul without oneDNN
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet keras==3.15.1 tensorflow==2.21.0
cat >product.py <<'END'
import sys

import keras
import numpy as np
import tensorflow as tf

rng = np.random.default_rng(0)
x, w = (rng.normal(size=size).astype("float32") for size in ((5, 32, 4), (4, 1)))
matmul = {"keras": keras.ops.matmul, "tensorflow": tf.matmul}[sys.argv[1]]
found = tf.vectorized_map(lambda sample: matmul(sample[None], tf.constant(w))[0], tf.constant(x))
np.testing.assert_allclose(found, x @ w, rtol=1e-4, atol=1e-5)
END
right() {
    if TF_CPP_MIN_LOG_LEVEL=3 TF_ENABLE_ONEDNN_OPTS=$1 venv/bin/python product.py "$2" >log 2>&1
    then echo right; else echo wrong; fi
}
seen="tf.matmul: $(right 1 tensorflow), keras.ops.matmul: $(right 1 keras), without oneDNN: $(right 0 tensorflow)"
echo "$seen"
test "$seen" = "tf.matmul: wrong, keras.ops.matmul: right, without oneDNN: right"
