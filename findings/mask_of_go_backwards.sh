#!/usr/bin/env bash
# A recurrent layer of Keras with go_backwards=True and return_sequences=True gives its outputs in the
# order in which it ran, from the last step to the first, and hands on the mask of its input as it came. A
# second layer behind it skips steps that are there and takes in steps that are not.
# Seen with keras 3.15.1, tensorflow 2.21.0, Python 3.11:
#   five steps, the last two masked: the outputs are zeros at the first two (masked) steps, the mask on them
#   is 1 1 1 0 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet keras==3.15.1 tensorflow==2.21.0
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - <<'END' 2>log || { tail -n 3 log >&2; exit 1; }
import keras
import numpy as np

x = np.ones((1, 5, 3), "float32")
mask = np.array([[True, True, True, False, False]])
layer = keras.layers.LSTM(4, return_sequences=True, go_backwards=True)
ran = (np.array(layer(x, mask=mask)) != 0).any(axis=-1)[0].astype(int)
mask = np.array(layer.compute_mask(x, mask))[0].astype(int)
assert ran.tolist() == [0, 0, 1, 1, 1], ran
assert mask.tolist() == [1, 1, 1, 0, 0], mask
print("steps that ran, as the outputs show them:", *ran, "- the mask that comes with them:", *mask)
END
