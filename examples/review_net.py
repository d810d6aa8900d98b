"""The net of `sentiment.py`: a bidirectional LSTM over word vectors; how it is built, trained,
searched and served."""

import json
import subprocess
import sys
import time

import keras
import numpy as np
from reviews import spaced

from kerasrnn.layers import LSTM, Bidirectional
from kerasrnn.tuning import RandomSearch, RNNHyperModel

LENGTH = 64  # Words and punctuation of the longest sentence, and some more.
BATCH = 64

# Runs in a process of its own, to show that the SavedModel needs TensorFlow alone.
SERVE = """
import json, sys
import tensorflow as tf

serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
probabilities = serve(text=tf.constant(json.load(sys.stdin)))["output_0"]
assert "kerasrnn" not in sys.modules
print(json.dumps(probabilities.numpy()[:, 0].tolist()))
"""


def numbering(words):
    """The layer that makes numbers of a text: 0 for no word, 1 for one that is not in `words`."""
    return keras.layers.TextVectorization(
        standardize=spaced, output_sequence_length=LENGTH, vocabulary=words
    )


def table_of(vectors):
    """The weights of an Embedding of the numbers: zeros for 0 and 1, then the vectors."""
    return np.concatenate([np.zeros((2, vectors.shape[1])), vectors])


def review_net(vectors, units=48):
    """Word vectors -> LSTM in both directions -> its largest and mean outputs -> Dense.

    Settings by the accuracy on parts of the training sentences. To start the LSTM as a language
    model of the reviews without labels did not help.
    """
    table = table_of(vectors)
    embedding = keras.layers.Embedding(*table.shape, mask_zero=True)
    words = keras.Input((None,), dtype="int64")
    x = keras.layers.Dropout(0.4)(embedding(words))
    h = Bidirectional(LSTM(units, return_sequences=True))(x)
    h = keras.layers.Dropout(0.5)(largest_and_mean(h, words))
    model = keras.Model(words, keras.layers.Dense(1, activation="sigmoid")(h), name="review_net")
    embedding.set_weights([table])
    # Averaged weights, θ̄ ← 0.99 θ̄ + 0.01 θ, are what is validated and kept.
    optimizer = keras.optimizers.Adam(2e-3, use_ema=True, ema_momentum=0.99)
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
    return model


def largest_and_mean(h, words):
    """Over the steps that hold a word; elsewhere a Bidirectional gives 0."""
    there = keras.ops.expand_dims(words != 0, axis=-1)
    # No output of an LSTM is under -1.
    largest = keras.ops.max(keras.ops.where(there, h, -1.0), axis=1)
    count = keras.ops.sum(keras.ops.cast(there, h.dtype), axis=1)
    mean = keras.ops.sum(h, axis=1) / keras.ops.maximum(count, 1.0)
    return keras.ops.concatenate([largest, mean], axis=-1)


class WithWordVectors(RNNHyperModel):
    """The models of an `RNNHyperModel`, whose embeddings start from word vectors: from as many of
    their dimensions, of which the first are the most important, as an embedding has."""

    def __init__(self, vectors, **choices):
        self.table = table_of(vectors)
        super().__init__("binary", vocabulary_size=len(self.table), **choices)

    def build(self, hp):
        model = super().build(hp)
        (embedding,) = (one for one in model.layers if isinstance(one, keras.layers.Embedding))
        embedding.set_weights([self.table[:, : embedding.output_dim]])
        return model


def best_of_search(vectors, fit_on, folder, trials, epochs):
    """The model with the settings of the best of a few short trials, untrained; an interrupted
    search goes on where it stopped."""
    hypermodel = WithWordVectors(vectors, units=(16, 32, 64))
    search = RandomSearch(
        hypermodel,
        "val_loss",
        max_trials=trials,
        seed=0,
        directory=folder,
        # A search over other data or of other length is another search.
        project_name=f"{len(fit_on['x'])}_sentences_{epochs}_epochs",
        overwrite=False,
    )
    stop = keras.callbacks.EarlyStopping("val_loss", patience=1)
    search.search(**fit_on, batch_size=BATCH, epochs=epochs, callbacks=[stop], verbose=2)
    print(f"\nThe search's trials, best first:\n\n{search.trials_table()}\n")
    return hypermodel.build(search.get_best_hyperparameters()[0])


def train(model, fit_on, epochs, callbacks):
    """Trains until the validation loss has not fallen for two epochs, and goes back to the best.

    Returns:
        The best epoch and the last, from 1.
    """
    stop = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    callbacks = [stop, *callbacks]
    if model.optimizer.use_ema:
        # First, so that the others find the averaged weights.
        callbacks.insert(0, keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    fitted = model.fit(**fit_on, batch_size=BATCH, epochs=epochs, callbacks=callbacks, verbose=0)
    return stop.best_epoch + 1, len(fitted.epoch)


class Epochs(keras.callbacks.Callback):
    """A line per epoch, on the screen."""

    def on_epoch_begin(self, epoch, logs=None):
        self.begun = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        print(
            f"   epoch {epoch + 1}: loss {logs['loss']:.3f}, on the validation sentences "
            f"{logs['val_loss']:.3f}, accuracy {logs['val_accuracy']:.3f}, "
            f"{time.perf_counter() - self.begun:.0f} s",
            flush=True,
        )


def served(path, texts):
    """The probabilities of good that a SavedModel gives raw texts, in a process of its own."""
    command = [sys.executable, "-c", SERVE, str(path)]
    done = subprocess.run(command, input=json.dumps(list(texts)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"The SavedModel {path} could not be served:\n{done.stderr}")
    return np.array(json.loads(done.stdout))
