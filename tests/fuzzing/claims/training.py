"""What callbacks do to updates."""

import keras
import numpy as np
import tensorflow as tf

from fuzzing import random_layers
from fuzzing.clips import Clip
from fuzzing.compare import (
    Skip,
    assert_close,
    assert_same,
    skip_where_refused,
    trainable_values,
)
from kerasrnn.callbacks import GradientClipping, GradientNormMonitor
from kerasrnn.inside import recurrent_paths
from kerasrnn.recurrence import programs

# Of a GradientClipping, and of Keras's optimizers.
MODES = ("global_norm", "norm", "value", "percentile", "zscore", "adaptive")
KERAS_MODES = ("clipvalue", "global_clipnorm", "clipnorm")


def same_as_steps_by_hand(draw):
    """`fit` with GradientNormMonitor and a clip, by GradientClipping or by the optimizer, with
    accumulated gradients or not, and a loop of tapes, NumPy's clips and a plain optimizer: the
    norms that the monitor has recorded before and after the clip, and the weights at the end."""
    draw.deterministic = True
    time, features = draw.choice("T", 1, 2, 4), draw.choice("F", 1, 3)
    size = draw.choice("batch", 1, 3)
    # Compiling takes long, so mostly with the limit of size: it is the updates that are tried.
    programs.WORTH_COMPILING = draw.choice("worth", 2048, 2048, 2048, 0)
    tokens = draw.flag("tokens", one_in=3)
    optimizer = "SGD"
    if not tokens:
        optimizer = draw.choice("optimizer", "SGD", "SGD", "Adam", "RMSprop", "Adagrad")
    mode = draw.choice("clip", None, *KERAS_MODES, *MODES)
    value = draw.choice("value", 0.01, 0.1, 0.5, 2.0) * (30 if mode == "percentile" else 1)
    accumulated = 1
    # With Adagrad one such case in 40 differs by more than the tolerance.
    if optimizer != "Adagrad":
        accumulated = draw.choice("accumulate", None, None, 2) or 1
    # A z-score is taken from the 26th update on.
    steps = 30 if mode == "zscore" else 4
    # Keras clips before the rows of an Embedding's gradient are summed.
    if tokens and mode in KERAS_MODES:
        raise Skip
    if tokens:
        x = draw.rng.integers(0, 5, (steps * size, time))
    else:
        x = draw.rng.normal(size=(steps * size, time, features)).astype("float32")
    with skip_where_refused(random_layers.NOTHING_TO_NORMALIZE):
        model = _model(draw, x, tokens)
    # A layer normalization of one unit divides nothing but rounding.
    cells = [layer.cell for _, layer, _ in recurrent_paths(model)]
    if any(getattr(cell, "normalization", None) and cell.units == 1 for cell in cells):
        raise Skip
    draw.perturb(model)
    y = draw.rng.normal(size=(steps * size, 1)) * draw.rng.choice([1, 10], (steps * size, 1))
    y = y.astype("float32")
    by_hand = keras.models.clone_model(model)
    by_hand.set_weights(model.get_weights())

    own_options = {mode: value} if mode in KERAS_MODES else {}
    if accumulated > 1:
        own_options["gradient_accumulation_steps"] = accumulated
    make = getattr(keras.optimizers, optimizer)
    model.compile(make(0.01, **own_options), "mse", jit_compile=False)
    monitor = GradientNormMonitor()
    clipping = [GradientClipping(mode, value)] if mode in MODES else []
    options = {"batch_size": size, "shuffle": False, "verbose": 0}
    model.fit(x, y, callbacks=[monitor, *clipping], **options)
    norms, clipped_norms = _trained(
        by_hand, make(0.01), x, y, size, accumulated, Clip(mode, value) if mode else None
    )
    if not np.max([norms, clipped_norms]) < 1e4:
        raise Skip
    history = monitor.history
    assert_close("variable_norms", history["variable_norms"], norms, "float32")
    clipped = history["clipped_variable_norms"]
    assert_close("clipped_variable_norms", clipped, clipped_norms, "float32")
    global_norms = np.linalg.norm(norms, axis=-1)
    assert_close("global_norm", history["global_norm"], global_norms, "float32")
    assert_same("weights", trainable_values(model), trainable_values(by_hand), "float32")


def _model(draw, x, tokens):
    parts = [keras.layers.Embedding(5, 3)] if tokens else []
    if draw.flag("deep"):
        parts.append(random_layers.any_layer(draw, "float32", 3, return_sequences=False))
    else:
        parts.append(random_layers.rnn(draw, "float32"))
    head = [keras.layers.Flatten(), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input(x.shape[1:]), *parts, *head])


def _trained(model, optimizer, x, y, size, accumulated, clip):
    """Trains a model for one epoch; returns the norms of the gradients before and after the clip,
    (updates, variables)."""
    optimizer.build(model.trainable_variables)
    variables = trainable_values(model)
    norms, clipped_norms, pending = [], [], []
    for start in range(0, len(x), size):
        with tf.GradientTape() as tape:
            y_hat = model(x[start : start + size], training=False)
            loss = tf.reduce_mean((y_hat - y[start : start + size]) ** 2)
        gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
        # An Embedding's are sparse.
        gradients = [tf.convert_to_tensor(g).numpy().astype("float64") for g in gradients]
        pending.append(gradients)
        if len(pending) < accumulated:
            continue
        gradients = [sum(parts) / accumulated for parts in zip(*pending, strict=True)]
        clipped = clip(gradients, [np.asarray(v) for v in variables]) if clip else gradients
        norms.append([np.linalg.norm(g) for g in gradients])
        clipped_norms.append([np.linalg.norm(g) for g in clipped])
        optimizer.apply([tf.constant(g, "float32") for g in clipped])
        pending = []
    return np.array(norms), np.array(clipped_norms)
