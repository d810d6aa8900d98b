"""A net that trains in no time, and the same training by hand, with a GradientTape and NumPy."""

import keras
import numpy as np
import tensorflow as tf

RNG = np.random.default_rng(5)
TOKENS = RNG.integers(0, 12, (48, 7))
LABELS = RNG.normal(size=(48, 1)).astype("float32")
BATCH = 8
LABELS[4 * BATCH : 5 * BATCH] *= 3  # a batch whose gradient stands out
SGD = keras.optimizers.SGD


def build(sparse=False, dtype=None):
    """`sparse` gives it an embedding's gradients, with tokens that occur more than once."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((7,), dtype="int64")
    if sparse:
        x = keras.layers.Embedding(12, 6, dtype=dtype)(inputs)
    else:
        x = keras.layers.Dense(6, use_bias=False, dtype=dtype)(keras.ops.one_hot(inputs, 12))
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(5, "tanh", dtype=dtype)(x)
    return keras.Model(inputs, keras.layers.Dense(1, dtype=dtype)(x))


def compiled(optimizer, sparse=False, dtype=None, **options):
    model = build(sparse, dtype)
    model.compile(optimizer, "mse", **options)
    return model


def fit(model, *callbacks, labels=LABELS, **options):
    options = {"batch_size": BATCH, "epochs": 2, "shuffle": False, "verbose": 0} | options
    return model.fit(TOKENS, labels, callbacks=list(callbacks), **options)


def batches(epochs=2):
    return [slice(i, i + BATCH) for _ in range(epochs) for i in range(0, len(TOKENS), BATCH)]


def gradients(model, batch):
    """Of the mean squared error, dense, in NumPy."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(TOKENS[batch]) - LABELS[batch]) ** 2)
    found = tape.gradient(loss, [v.value for v in model.trainable_variables])
    return [tf.convert_to_tensor(g).numpy().astype("float64") for g in found]


def descend(clip, rate, accumulate=1, sparse=False, epochs=2):
    """Weights after gradient descent by hand; `clip(weights, gradients)` gives the gradients."""
    model, pending = build(sparse), []
    for batch in batches(epochs):
        pending.append(gradients(model, batch))
        if len(pending) == accumulate:
            mean = [sum(parts) / accumulate for parts in zip(*pending, strict=True)]
            weights, pending = model.get_weights(), []
            steps = clip(weights, mean)
            model.set_weights([w - rate * g for w, g in zip(weights, steps, strict=True)])
    return model.get_weights()


def assert_same(model, weights, rtol=1e-5, atol=1e-6):
    for mine, other in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(mine, other, rtol=rtol, atol=atol)


class At(keras.callbacks.Callback):
    """Calls a function at the end of one batch of the first epoch."""

    def __init__(self, batch, function):
        super().__init__()
        self.batch, self.function = batch, function

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.batch:
            self.function()
