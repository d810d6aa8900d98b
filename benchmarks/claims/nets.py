"""The nets and the data of the tasks with a known answer, for all claims."""

import keras
import numpy as np

import kerasrnn
from kerasrnn import tasks
from kerasrnn.initializers import Chrono
from kerasrnn.layers import RNN

BATCH, RATE, CLIP = 32, 3e-3, 1.0
# The loss of whoever knows how often each answer occurs, and nothing of the input.
CHANCE = {"adding": 1 / 6, "order": np.log(4), "agreement": np.log(2)}
_SHAPES = {"adding": ((2,), 1), "order": ((8,), 4), "agreement": ((), 1)}


def layer(cell, units, steps=None, library="kerasrnn", **options):
    """A recurrent layer by the name of its cell, of this package or of Keras.

    Args:
        cell: A name of `kerasrnn.cells.CELLS`, or "irnn": a `SimpleRNN` with relu that starts from
            the identity (Le, Jaitly & Hinton, 2015, "A Simple Way to Initialize Recurrent Networks
            of Rectified Linear Units"), or "chrono": an LSTM whose gates start from the length of
            the sequences (Tallec & Ollivier, 2018).
        steps: That length, for "chrono".
        units: Positive integer.
        library: "kerasrnn" or "keras".
        **options: Of the layer.
    """
    if cell == "irnn":
        cell = "simple_rnn"
        options |= {"activation": "relu", "recurrent_initializer": "identity"}
    if cell == "chrono":
        cell = "lstm"
        options |= {"bias_initializer": Chrono(steps), "unit_forget_bias": False}
    if library == "kerasrnn":
        return RNN(cell, units=units, **options)
    names = {"simple_rnn": "SimpleRNN", "lstm": "LSTM", "gru": "GRU"}
    return getattr(keras.layers, names[cell])(units, **options)


def data(task, lag, samples, seed):
    """Sequences in which what counts lies about `lag` steps before the end, and the answers."""
    if task == "adding":
        # The first mark is on average at a quarter of the length.
        return tasks.adding_problem(samples, round(lag / 0.75), seed)
    if task == "order":
        # The first symbol is on average at 15% of it.
        return tasks.temporal_order(samples, round(lag / 0.85), seed)
    # A phrase between subject and verb has three words.
    return tasks.number_agreement(samples, max(1, round(lag / 3)), seed)


def model(task, recurrent, length, rate=RATE):
    """The recurrent layer between the input and the answer of a task, compiled with Adam."""
    features, outputs = _SHAPES[task]
    words = task == "agreement"
    x = inputs = keras.Input((length, *features), dtype="int32" if words else "float32")
    if words:
        x = keras.layers.Embedding(36, 16)(x)
    made = keras.Model(inputs, keras.layers.Dense(outputs)(recurrent(x)))
    loss = {
        "adding": "mse",
        "order": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "agreement": keras.losses.BinaryCrossentropy(from_logits=True),
    }[task]
    made.compile(keras.optimizers.Adam(rate, global_clipnorm=CLIP), loss)
    return made


def skill(loss, chance):
    """What a loss is worth: 1 for none, 0 for that by chance and more."""
    return max(0.0, float(1 - loss / chance)) if np.isfinite(loss) else 0.0


def fresh(seed):
    """Leaves nothing of the run before, and starts from the seed."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)


def half_life(model, x, y):
    """The steps in which the gradient through time of its one recurrent layer falls to half."""
    (steps,) = kerasrnn.diagnostics.gradient_flow(model, x, y).half_life.values()
    return float(steps)
