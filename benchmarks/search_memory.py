"""How the memory of a search grows with its trials.

    python benchmarks/search_memory.py [--units 16 32 48 64] [--layers keras] [--tuner keras_tuner]

A random search over the learning rate, and the units if there are several, of a small LSTM model,
in one process. Programs that are compiled for units that were not tried before take memory of
their own. Prints the resident memory after the third trial and after the last, and what it has
grown by.
"""

import argparse
import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_tuner
import numpy as np

import kerasrnn
from kerasrnn import tuning

LENGTH, FEATURES, SAMPLES = 40, 8, 512


def resident():
    """In MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--units", type=int, nargs="+", default=[32])
    parser.add_argument("--layers", choices=("kerasrnn", "keras"), default="kerasrnn")
    parser.add_argument("--tuner", choices=("kerasrnn", "keras_tuner"), default="kerasrnn")
    arguments = parser.parse_args()
    lstm = {"kerasrnn": kerasrnn.layers.LSTM, "keras": keras.layers.LSTM}[arguments.layers]
    tuner = {"kerasrnn": tuning, "keras_tuner": keras_tuner}[arguments.tuner].RandomSearch

    def build(hp):
        model = keras.Sequential(
            [
                keras.Input((None, FEATURES)),
                lstm(hp.Choice("units", arguments.units)),
                keras.layers.Dense(1),
            ]
        )
        rate = hp.Float("learning_rate", 1e-4, 1e-2, sampling="log")
        model.compile(keras.optimizers.Adam(rate), "mse")
        return model

    memory = []

    class Recording(tuner):
        def on_trial_end(self, trial):
            super().on_trial_end(trial)
            memory.append(resident())
            print(f"trial {len(memory)}: {memory[-1]:.0f} MiB", flush=True)

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(SAMPLES, LENGTH, FEATURES)), rng.normal(size=(SAMPLES, 1))
    with tempfile.TemporaryDirectory() as directory:
        search = Recording(
            build, "val_loss", max_trials=arguments.trials, seed=1, directory=directory
        )
        search.search(x, y, validation_split=0.25, epochs=2, verbose=0)
    third, last = memory[2], memory[-1]
    print(
        f"{arguments.tuner}, {arguments.layers} layers, units {arguments.units}: {third:.0f} MiB "
        f"after trial 3, {last:.0f} after trial {len(memory)}, {last / third - 1:+.1%}"
    )


if __name__ == "__main__":
    main()
