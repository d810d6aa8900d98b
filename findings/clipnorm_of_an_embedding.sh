#!/usr/bin/env bash
# An optimizer of Keras clips the gradient of an embedding before the rows of a token that occurs more
# than once are summed. The update of such a token may be longer than `clipnorm` or `global_clipnorm`
# allows, and larger than `clipvalue`: each occurrence counts as a row of its own.
# Seen with keras 3.15.1, tensorflow 2.21.0, Python 3.11:
#   a token twice, gradient 1 each; the update is 2 unclipped, 1.414 with clipnorm=1.0 or
#   global_clipnorm=1.0, and 2 with clipvalue=1.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet keras==3.15.1 tensorflow==2.21.0
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - <<'END' 2>log || { tail -n 3 log >&2; exit 1; }
import keras
import numpy as np


def update(**clip):
    embedding = keras.layers.Embedding(3, 1, embeddings_initializer="zeros")
    model = keras.Sequential([keras.Input((2,), dtype="int32"), embedding])
    model.compile(keras.optimizers.SGD(1.0, **clip), lambda y, outputs: keras.ops.sum(outputs))
    model.train_on_batch(np.array([[0, 0]]), np.zeros((1, 2, 1)))
    return -float(embedding.get_weights()[0][0, 0])


clips = {}, {"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"clipvalue": 1.0}
updates = [update(**clip) for clip in clips]
np.testing.assert_allclose(updates, [2, 2**0.5, 2**0.5, 2], rtol=1e-6)
print("a token that occurs twice gets, for a clip of 1, updates of", *np.round(updates[1:], 3))
END
