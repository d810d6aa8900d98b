#!/usr/bin/env bash
# A search of keras-tuner for the best val_accuracy can be won by a trial whose weights are all NaN: NaN
# exceeds no threshold, so that every sample counts as class 0, and the accuracy is the share of that class.
# Nothing is said, and get_best_models gives the net.
# Seen with keras-tuner 1.4.8, keras 3.15.1, tensorflow 2.21.0, Python 3.11:
#   two learning rates, 1e-9 and 1e39, 70% of class 0: the best is 1e39, with a score of 0.7 and NaN weights
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet keras-tuner==1.4.8 keras==3.15.1 tensorflow==2.21.0 tensorboard six
TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - <<'END' 2>log || { tail -n 3 log >&2; exit 1; }
import keras
import keras_tuner
import numpy as np

x = np.random.default_rng(0).normal(size=(40, 6, 3))
y = np.arange(40) % 10 >= 7


def build(hp):
    recurrent = keras.layers.LSTM(4)
    # An output that says class 1, and is not trained.
    last = keras.layers.Dense(1, activation="sigmoid", bias_initializer="ones", kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((6, 3)), recurrent, last])
    model.compile(keras.optimizers.SGD(hp.Choice("rate", [1e-9, 1e39])), "mse", metrics=["accuracy"])
    return model


search = keras_tuner.GridSearch(build, keras_tuner.Objective("val_accuracy", "max"), directory="search")
search.search(x, y, validation_data=(x, y), epochs=3, verbose=0)
(best,) = search.oracle.get_best_trials(1)
(model,) = search.get_best_models(1)
weights = np.concatenate([w.ravel() for w in model.get_weights()])
assert best.hyperparameters["rate"] == 1e39 and np.isnan(weights).all(), (best.hyperparameters.values, weights)
np.testing.assert_allclose(best.score, 0.7, rtol=1e-6)
print(f"the best of the search: val_accuracy {best.score:.1f}, all {len(weights)} weights NaN")
END
