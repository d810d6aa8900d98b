#!/usr/bin/env bash
# What keras.layers.LSTM shows at a masked step that nothing came before depends on the backend, where the
# layer starts from a state that is not zero: zeros under TensorFlow, the initial state under JAX. The same
# weights give other outputs then, as for left-padded text behind an encoder.
# Seen with keras 3.15.1, jax 0.10.2, tensorflow 2.21.0, Python 3.11:
#   initial states of 0.5, mask [False, True]: the first output is 0.5 under JAX, 0 under TensorFlow
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet keras==3.15.1 jax==0.10.2 tensorflow==2.21.0
cat >seen.py <<'END'
import keras
import numpy as np

layer = keras.layers.LSTM(2, return_sequences=True)
x, state = np.ones((1, 2, 1), "float32"), np.full((1, 2), 0.5, "float32")
y = layer(x, initial_state=[state, state], mask=np.array([[False, True]]))
print(*np.unique(np.asarray(y)[0, 0]))
END
seen() {
    KERAS_BACKEND=$1 TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python seen.py 2>log || { tail -n 3 log >&2; exit 1; }
}
jax=$(seen jax)
tensorflow=$(seen tensorflow)
[ "$jax" = 0.5 ] && [ "$tensorflow" = 0.0 ]
echo "the output at a masked first step, the initial state being 0.5: jax $jax, tensorflow $tensorflow"
