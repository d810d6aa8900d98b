#!/usr/bin/env bash
# Under Keras's JAX backend the states that a recurrent layer with stateful=True keeps are forgotten in
# `predict`, `evaluate` and `fit`, without a word: each batch starts from the same states, since a step of
# the trainer carries on the variables of the model alone and these are not among them. A call of the layer
# by itself keeps them, and so do all of these under TensorFlow.
# Seen with keras 3.15.1, jax 0.10.2, tensorflow 2.21.0, Python 3.11:
#   jax: a second predict differs by 0 from the first, a second call differs;  tensorflow: both differ
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet keras==3.15.1 jax==0.10.2 tensorflow==2.21.0
cat >seen.py <<'END'
import keras
import numpy as np

x = np.ones((4, 5, 2), "float32")
keras.utils.set_random_seed(0)
layer = keras.layers.LSTM(3, stateful=True)
model = keras.Sequential([keras.Input((5, 2), batch_size=4), layer])
first, second = (model.predict(x, verbose=0) for _ in range(2))
called = [np.asarray(layer(x)) for _ in range(2)]
print(bool(np.any(first != second)), bool(np.any(called[0] != called[1])))
END
seen() {
    KERAS_BACKEND=$1 TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python seen.py 2>log || { tail -n 3 log >&2; exit 1; }
}
jax=$(seen jax)
tensorflow=$(seen tensorflow)
[ "$jax" = "False True" ] && [ "$tensorflow" = "True True" ]
echo "a second predict, a second call of a stateful layer differ: jax $jax, tensorflow $tensorflow"
