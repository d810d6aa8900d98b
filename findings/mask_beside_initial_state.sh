#!/usr/bin/env bash
# A recurrent layer of Keras that is called on a masked tensor (after Masking, or Embedding with
# mask_zero=True) forgets the mask where `initial_state` is passed, too, and runs over the padding; nothing
# is said. A decoder that starts from an encoder's state meets it.
# Seen with keras 3.15.1, tensorflow 2.21.0, Python 3.11:
#   zeros as initial state, which is what the layer starts from by itself, change its output
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet keras==3.15.1 tensorflow==2.21.0
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - <<'END' 2>log || { tail -n 3 log >&2; exit 1; }
import keras
import numpy as np

x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
x[:, 3:] = 0
layer, masked = keras.layers.LSTM(4), keras.layers.Masking()(x)
alone = np.array(layer(masked))
zeros = [np.zeros((2, 4), "float32")] * 2
np.testing.assert_allclose(alone, layer(x[:, :3]), rtol=1e-5)
beside = np.array(layer(masked, initial_state=zeros))
np.testing.assert_allclose(beside, layer(x, initial_state=zeros), rtol=1e-5)
assert np.abs(alone - beside).max() > 1e-3
print("masked steps are skipped without initial_state, and run over beside it")
END
