#!/usr/bin/env bash
# model.export(format="litert") of a recurrent layer of Keras that returns its sequence writes a file without an
# error or a Python warning, and the interpreter of ai-edge-litert refuses it: the outputs are collected in a list of
# tensors, for which it wants the Flex delegate of TensorFlow. A line in the converter's log says so, which
# TF_CPP_MIN_LOG_LEVEL hides. A batch that the Input fixes makes no difference; it is any batch in the file.
# Seen with keras 3.15.1, tensorflow 2.21.0, ai-edge-litert 2.3.0, Python 3.11:
#   any: batch -1, Select TensorFlow op(s); fixed: batch -1, Select TensorFlow op(s)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet tensorflow==2.21.0 keras==3.15.1 ai-edge-litert==2.3.0
cat >show.py <<'END'
import keras
from ai_edge_litert.interpreter import Interpreter

said = []
for name, shape in (("any", {"shape": (None, 3)}), ("fixed", {"batch_shape": (2, 5, 3)})):
    layer = keras.layers.LSTM(4, return_sequences=True)
    model = keras.Sequential([keras.Input(**shape), layer])
    model.export(f"{name}.tflite", format="litert", verbose=False)
    interpreter = Interpreter(model_path=f"{name}.tflite")
    batch = interpreter.get_input_details()[0]["shape_signature"][0]
    try:
        interpreter.allocate_tensors()
        interpreter.invoke()
        said.append(f"{name}: batch {batch}, runs")
    except RuntimeError as error:
        said.append(f"{name}: batch {batch}, {str(error).partition(',')[0]}")
print("; ".join(said))
END
seen=$(venv/bin/python show.py 2>log | tail -n 1)
echo "$seen"
test "$seen" = "any: batch -1, Select TensorFlow op(s); fixed: batch -1, Select TensorFlow op(s)"
