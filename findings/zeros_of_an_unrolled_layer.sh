#!/usr/bin/env bash
# A recurrent layer of Keras with go_backwards=True and zero_output_for_mask=True puts its zeros elsewhere
# with unroll=True than without: the unrolled one turns its input and not the mask for the zeros.
# Seen with keras 3.15.1, tensorflow 2.21.0, Python 3.11:
#   five steps, the last two masked: outputs of zeros at steps 0 1 of the outputs in the loop, at steps
#   0 1 3 4 unrolled
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet keras==3.15.1 tensorflow==2.21.0
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - <<'END' 2>log || { tail -n 3 log >&2; exit 1; }
import keras
import numpy as np

x = np.random.default_rng(0).normal(size=(1, 5, 3)).astype("float32")
mask = np.array([[True, True, True, False, False]])
zeros = {}
for unroll in (False, True):
    keras.utils.set_random_seed(0)
    options = {"return_sequences": True, "go_backwards": True, "zero_output_for_mask": True}
    layer = keras.layers.LSTM(4, unroll=unroll, **options)
    zeros[unroll] = np.flatnonzero((np.array(layer(x, mask=mask)) == 0).all(axis=-1)[0]).tolist()
assert zeros == {False: [0, 1], True: [0, 1, 3, 4]}, zeros
print("outputs of zeros at steps", *zeros[False], "in the loop, at steps", *zeros[True], "unrolled")
END
