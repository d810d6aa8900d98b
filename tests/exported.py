"""Models to export, with random weights. The exporters themselves compare files and models; the
tests of each format do it once more with numbers of their own."""

import json
import subprocess
import sys

import keras
import numpy as np

from kerasrnn import cells, layers


class Own(keras.Model):
    """A model of a class of its own, for whose inputs nobody can ask."""

    def __init__(self):
        super().__init__()
        self.gru = layers.GRU(2)

    def call(self, x):
        return self.gru(x)


def served_elsewhere(code, path, x, folder):
    """What a file gives for x in a process of its own.

    Args:
        code: Prints it as JSON; it finds the paths of the file and of x in `sys.argv`.
        path, x, folder: The file, an array, and a folder for it.
    """
    np.save(folder / "x.npy", x)
    command = [sys.executable, "-c", code, str(path), str(folder / "x.npy")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def sequence(*parts, features=3):
    return keras.Sequential([keras.Input((None, features), name="x"), *parts])


def tokens(*parts):
    """Half of what it takes is masked."""
    embedding = keras.layers.Embedding(4, 8, mask_zero=True)
    return keras.Sequential([keras.Input((None,), dtype="int32", name="tokens"), embedding, *parts])


def of_cell(name):
    return sequence(
        layers.RNN(name, units=5, return_sequences=True), keras.layers.Dense(2, name="y")
    )


def with_reset():
    x, reset = keras.Input((None, 3), name="x"), keras.Input((None,), dtype="bool", name="reset")
    options = {"return_sequences": True, "initial_state": "learned"}
    y = layers.GRU(4, **options)(x, reset=reset)
    return keras.Model([x, reset], layers.RNN("mgu", units=4, **options)(y, reset=reset))


def with_states():
    x, h, c = (keras.Input(s, name=n) for s, n in (((None, 3), "x"), ((4,), "h"), ((4,), "c")))
    outputs = layers.LSTM(4, return_sequences=True, return_state=True, name="y")(
        x, initial_state=[h, c]
    )
    return keras.Model([x, h, c], outputs)


class TwiceCell(cells.GRUCell):
    """A user's, of which no more is known than its call."""

    def call(self, inputs, states, training=False):
        y, states = super().call(inputs, states, training)
        return 2 * y, states


def masked_backwards():
    return tokens(
        layers.LSTM(4, return_sequences=True, go_backwards=True), layers.GRU(3, go_backwards=True)
    )


def two_inputs():
    """Of a dictionary, the keys not in the order of the names."""
    a, b = keras.Input((None, 3), name="a"), keras.Input((None, 3), name="b")
    shared = layers.GRU(4, return_sequences=True)
    return keras.Model({"b": b, "a": a}, {"sum": shared(a) + shared(b), "last": layers.LSTM(2)(a)})


def joined_masks():
    """A functional model, which has the masks that its layers make and join as operations."""
    x, mask = keras.Input((None, 3), name="x"), keras.Input((None,), dtype="bool", name="mask")
    y = keras.layers.Masking()(x)
    y = keras.layers.Concatenate(axis=2)([y, keras.layers.Dense(2)(x)])
    y = layers.GRU(4, return_sequences=True)(keras.layers.Add()([y, y]))
    return keras.Model([x, mask], layers.LSTM(3, return_sequences=True)(y, mask=mask))


def of_sentences():
    """Of three words each, of which some are masked."""
    words = keras.Input((3,), dtype="int32")
    embedded = keras.layers.Embedding(4, 3, mask_zero=True)(words)
    sentence = keras.Model(words, layers.GRU(4)(embedded))
    text = keras.Input((None, 3), dtype="int32", name="text")
    y = keras.layers.TimeDistributed(sentence)(text)
    # A convolution over the words, and not over the sentences.
    z = keras.layers.TimeDistributed(keras.layers.Embedding(4, 3))(text)
    z = keras.layers.TimeDistributed(keras.layers.Conv1D(3, 2, padding="causal"))(z)
    z = keras.layers.TimeDistributed(keras.layers.Dense(4))(z)
    z = keras.layers.TimeDistributed(keras.layers.GlobalMaxPooling1D())(z)
    return keras.Model(text, layers.LSTM(3, return_sequences=True)(y + z))


def steps_of_steps():
    """Both of any number, with a mask of the inner ones."""
    x = keras.Input((None, None, 3), name="x")
    y = keras.layers.TimeDistributed(keras.layers.LSTM(4, return_sequences=True))(
        keras.layers.Masking()(x)
    )
    return keras.Model(x, keras.layers.TimeDistributed(layers.Bidirectional(layers.GRU(2)))(y))


# Those that look back alone.
CAUSAL = {
    "stack": lambda: tokens(
        layers.RNNStack("lstm", 8, 2, connection="residual", return_sequences=True), layers.GRU(3)
    ),
    "last of a stack": lambda: tokens(layers.RNNStack("gru", 8, 2, connection="highway")),
    "dense": lambda: tokens(
        layers.RNNStack("mgu", [3, 4], connection="dense", return_sequences=True)
    ),
    "zeros": lambda: tokens(
        layers.GRU(4, return_sequences=True, zero_output_for_mask=True),
        layers.RNN("ran", units=4, return_sequences=True, zero_output_for_mask=True),
    ),
    "reset": with_reset,
    "options": lambda: sequence(
        layers.LSTM(4, return_sequences=True, zoneout=0.2, dropout=0.3, initial_state="learned"),
        layers.GRU(4, normalization="layer", return_sequences=True),
        layers.MinGRU(4, zoneout=0.1),
    ),
    "cells": lambda: tokens(
        layers.RNN(
            [cells.LSTMCell(3), keras.layers.GRUCell(4), cells.LRUCell(3)], return_sequences=True
        ),
        layers.RNN(TwiceCell(3)),
    ),
    "keras": lambda: tokens(keras.layers.LSTM(4, return_sequences=True), keras.layers.GRU(3)),
    "around": lambda: sequence(
        keras.layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="relu"),
        keras.layers.LayerNormalization(),
        layers.SimpleRNN(4, return_sequences=True),
        keras.layers.BatchNormalization(),
        keras.layers.TimeDistributed(keras.layers.Dense(3, activation="silu")),
    ),
    "inputs": two_inputs,
    "functional": joined_masks,
    "sentences": of_sentences,
    "features": lambda: sequence(
        keras.layers.Normalization(mean=[0.1, -0.2, 0.3], variance=[1.0, 2.0, 0.5]),
        layers.GRU(4, return_sequences=True),
        keras.layers.EinsumDense("btc,cd->btd", (None, 3), bias_axes="d"),
    ),
    "axes": lambda: sequence(
        keras.layers.Conv1D(4, 1, padding="causal"),
        keras.layers.PReLU(shared_axes=[1]),
        keras.layers.BatchNormalization(axis=2),
        layers.GRU(3),
        keras.layers.LayerNormalization(axis=1),
        keras.layers.PReLU(),
    ),
}
# The others.
AHEAD = {
    "steps of steps": steps_of_steps,
    "bidirectional": lambda: tokens(
        layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        layers.Bidirectional(layers.GRU(3, update_gate="write"), merge_mode="gate"),
    ),
    "bidirectional stack": lambda: tokens(
        layers.RNNStack("gru", 4, 2, connection="highway", project=True, bidirectional=True)
    ),
    "backwards": masked_backwards,
    "states": with_states,
    "keras in both directions": lambda: sequence(
        keras.layers.Masking(),
        keras.layers.Bidirectional(keras.layers.GRU(3, return_sequences=True)),
        keras.layers.GlobalAveragePooling1D(),
    ),
    "pooled": lambda: sequence(
        keras.layers.Conv1D(3, 2),
        keras.layers.MaxPooling1D(2),
        layers.LSTM(3, return_sequences=True),
        keras.layers.GlobalMaxPooling1D(),
    ),
    "unrolled": lambda: keras.Sequential(
        [keras.Input((7, 3), name="x"), layers.RNN("janet", units=3, unroll=True)]
    ),
}


def quantized(mode):
    """By Keras, its Dense."""
    model = randomized(sequence(layers.GRU(4, return_sequences=True), keras.layers.Dense(2)))
    model.layers[-1].quantize(mode)
    return model


def with_table():
    ids = keras.Input((None,), dtype="int32", name="ids")
    known = keras.layers.IntegerLookup(vocabulary=[1, 2, 3])(ids)
    return keras.Model(ids, layers.GRU(3)(keras.layers.Embedding(4, 3)(known)))


def randomized(model, seed=0):
    rng = np.random.default_rng(seed)
    values = [rng.normal(0, 0.4, w.shape) for w in model.weights]
    # A variance has no sign.
    positive = ["variance" in w.path for w in model.weights]
    model.set_weights([abs(v) if p else v for v, p in zip(values, positive, strict=True)])
    return model


def long_memory():
    """Of an RG-LRU whose states fade by a millionth per step."""
    model = randomized(sequence(layers.RNN("rg_lru", units=6, return_sequences=True, name="y")))
    cell = model.layers[-1].cell
    cell.recurrence.assign(np.linspace(6, 12, 6))
    return model


def inputs_of(model, batch, length, rng):
    """Inputs by name, of which a half is masked and a third set back."""
    arrays = {}
    for part in model.inputs:
        shape = [length if n is None else n for n in (batch, *part.shape[1:])]
        if part.dtype == "bool":
            arrays[part.name] = rng.random(shape) < 0.3
        elif "int" in part.dtype:
            arrays[part.name] = rng.integers(0, 4, shape).astype(part.dtype)
        else:
            arrays[part.name] = rng.normal(size=shape).astype("float32")
            # A Masking sees what is zero throughout.
            arrays[part.name][rng.random(shape[:2]) < 0.2] = 0 if len(shape) > 2 else 1
    return arrays


def outputs_of(model, arrays):
    """What a model gives, flat; eager, on its own paths."""
    x = {part.name: arrays[part.name] for part in model.inputs}
    if isinstance(model, keras.Sequential) or not isinstance(model.input, dict | list):
        (x,) = x.values()
    elif isinstance(model.input, list):
        x = list(x.values())
    return [np.array(y) for y in keras.tree.flatten(model(x, training=False))]
