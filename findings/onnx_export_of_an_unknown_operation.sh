#!/usr/bin/env bash
# model.export(format="onnx") of a model with an operation that tf2onnx does not know, here tf.math.multiply_no_nan,
# logs "not supported", and writes TensorFlow's operation into the file all the same, without an error: no runtime
# loads that.
# Seen with keras 3.15.1, tensorflow 2.21.0, tf2onnx 1.17.0, onnx 1.23.2, onnxruntime 1.32.0, Python 3.11:
#   written; operations: MulNoNan; onnxruntime: No Op registered for MulNoNan
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet tensorflow==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime==1.32.0
cat >show.py <<'END'
import re

import keras
import onnx
import onnxruntime
import tensorflow as tf


class Weighed(keras.layers.Layer):
    def call(self, x):
        return tf.math.multiply_no_nan(x, x)


model = keras.Sequential([keras.Input((3,), name="x"), Weighed()])
model(tf.ones((2, 3)))
model.export("net.onnx", format="onnx", verbose=False)
written = [node.op_type for node in onnx.load("net.onnx").graph.node]
try:
    onnxruntime.InferenceSession("net.onnx")
    said = "loads"
except Exception as error:
    said = re.search(r"No Op registered for \w+", str(error))[0]
print(f"written; operations: {', '.join(written)}; onnxruntime: {said}")
END
seen=$(venv/bin/python show.py 2>log | tail -n 1)
echo "$seen"
test "$seen" = "written; operations: MulNoNan; onnxruntime: No Op registered for MulNoNan"
