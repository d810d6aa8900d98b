#!/usr/bin/env bash
# A compiled model that Keras saves under PyTorch is opened under another backend only where PyTorch is installed,
# too: the file names the optimizer by a class of that backend alone. Under JAX and TensorFlow it names that of
# keras.optimizers. With compile=False it is opened everywhere.
# Seen with keras 3.15.1, torch 2.13.0, jax 0.10.2, Python 3.11:
#   module of the optimizer in the file: keras.src.backend.torch.optimizers.torch_adam; load_model under JAX raises a
#   TypeError, "cannot be imported"; with compile=False the predictions are the same
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv writing
python3 -m venv reading
writing/bin/pip install --quiet keras==3.15.1 torch==2.13.0
reading/bin/pip install --quiet keras==3.15.1 jax==0.10.2
KERAS_BACKEND=torch writing/bin/python - <<'END' 2>log || { tail -n 3 log >&2; exit 1; }
import json
import zipfile

import keras
import numpy as np

model = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4), keras.layers.Dense(1)])
model.compile("adam", "mse")
model.save("model.keras")
np.save("predicted.npy", model.predict(np.ones((2, 5, 3)), verbose=0))
with zipfile.ZipFile("model.keras") as file:
    optimizer = json.loads(file.read("config.json"))["compile_config"]["optimizer"]
print("written by torch with", optimizer["module"], end="; ")
assert optimizer["module"] == "keras.src.backend.torch.optimizers.torch_adam", optimizer
END
KERAS_BACKEND=jax reading/bin/python - <<'END' 2>log || { tail -n 3 log >&2; exit 1; }
import keras
import numpy as np

try:
    keras.models.load_model("model.keras")
    raise SystemExit("the compiled model was opened")
except TypeError as error:
    assert "cannot be imported" in str(error), error
model = keras.models.load_model("model.keras", compile=False)
np.testing.assert_allclose(model.predict(np.ones((2, 5, 3)), verbose=0), np.load("predicted.npy"), atol=1e-6)
print("under JAX a TypeError, and with compile=False the same predictions")
END
