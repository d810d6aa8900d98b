#!/usr/bin/env bash
# model.export(format="onnx") of a stateful layer of Keras leaves its states out: each call of the file starts from
# the states that the model happened to have when it was exported, and no state goes in or comes out. A log message
# of tf2onnx speaks of "freezing errors", of an AssignVariableOp that was "Removed"; the export goes on.
# Seen with keras 3.15.1, tensorflow 2.21.0, tf2onnx 1.17.0, onnx 1.23.2, onnxruntime 1.32.0, Python 3.11:
#   inputs: x; calls 1 and 2 of the file are the model's: 3 and 3
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet tensorflow==2.21.0 keras==3.15.1 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime==1.32.0
cat >show.py <<'END'
import keras
import numpy as np
import onnxruntime

keras.utils.set_random_seed(0)
inputs = keras.Input(batch_shape=(2, 5, 3), name="x")
model = keras.Model(inputs, keras.layers.LSTM(4, stateful=True)(inputs))
x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
of_model = [model.predict(x, verbose=0) for _ in range(2)]
model.export("net.onnx", format="onnx", verbose=False)
of_model += [model.predict(x, verbose=0) for _ in range(3)]
session = onnxruntime.InferenceSession("net.onnx")
of_file = [session.run(None, {"x": x})[0] for _ in range(2)]
calls = [
    next(i for i, want in enumerate(of_model, 1) if np.allclose(y, want, atol=1e-5))
    for y in of_file
]
names = ", ".join(one.name for one in session.get_inputs())
print(f"inputs: {names}; calls 1 and 2 of the file are the model's: {calls[0]} and {calls[1]}")
END
seen=$(venv/bin/python show.py 2>log | tail -n 1)
echo "$seen"
test "$seen" = "inputs: x; calls 1 and 2 of the file are the model's: 3 and 3"
