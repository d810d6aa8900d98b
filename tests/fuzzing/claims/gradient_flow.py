"""The norms of `gradient_flow`."""

import keras
import numpy as np
import tensorflow as tf

from fuzzing import random_layers
from fuzzing.compare import Skip, assert_close, set_precision, skip_where_refused
from fuzzing.reference import Taps, layer_by_hand
from kerasrnn import diagnostics, layers
from kerasrnn.layers.group import recurrent_layers


def same_as_gradients_of_taps(draw):
    """`gradient_flow` of a model of two or three recurrent layers, under a mask or not, and the
    norms of the gradients by zeros added to the states of its cells, called step by step: the loss,
    and for each state the norm at each step."""
    (batch, time, features), dtype = draw.shape(), draw.dtype(half=False)
    set_precision(dtype)
    mask = draw.mask(batch, time)
    recurrent = _recurrent_layers(draw, dtype, masked=mask is not None)
    parts = [part for layer in recurrent for part in recurrent_layers(layer)]
    if any(isinstance(part.cell, keras.layers.StackedRNNCells) for part in parts):
        raise Skip
    head, masking = keras.layers.Dense(2), [] if mask is None else [keras.layers.Masking()]
    with skip_where_refused(random_layers.NOTHING_TO_NORMALIZE):
        model = keras.Sequential([keras.Input((time, features)), *masking, *recurrent, head])
    draw.perturb(model)
    x = draw.normal(batch, time, features, dtype=dtype)
    if mask is not None:
        mask = tf.broadcast_to(mask, (batch, time))
        x = tf.where(mask[..., None], x, 0)
    model.compile("sgd", "mse")
    y = draw.normal(*model(x).shape, dtype=dtype)
    flow = diagnostics.gradient_flow(model, x, y)
    with tf.GradientTape() as tape:
        taps, h = Taps(tape), x
        for layer in recurrent:
            h, _ = layer_by_hand(layer, h, mask=mask, taps=taps)
        loss = tf.reduce_mean((h @ head.kernel.value + head.bias.value - y) ** 2)
    assert_close("loss", flow.loss, loss, "float32")
    gradients = tape.gradient(loss, [one.taps for one in taps.passes], unconnected_gradients="zero")
    measured = flow.per_state.items()
    for (path, states), steps, one in zip(measured, gradients, taps.passes, strict=True):
        for i, (name, norms) in enumerate(states.items()):
            expected = np.stack([np.linalg.norm(step[i], axis=-1) for step in steps], 1)
            if one.go_backwards:
                expected = expected[:, ::-1]
            assert_close(f"{path} {name}", norms, expected, "float32")
    assert list(flow.norms) == list(flow.per_state)


def _recurrent_layers(draw, dtype, masked):
    made = []
    for n in range(draw.choice("layers", 1, 2)):
        draw.prefix = f"{n}."
        kind = draw.choice("kind", "rnn", "rnn", "both_ways", "stack", "Residual")
        if kind == "rnn":
            layer = random_layers.rnn(draw, dtype, return_sequences=True)
        elif kind == "both_ways":
            layer = random_layers.bidirectional(draw, dtype, return_sequences=True)
        elif kind == "stack":
            layer = random_layers.stack(draw, dtype, 2, return_sequences=True)
        else:
            inner = random_layers.rnn(draw, dtype, 2, return_sequences=True)
            layer = layers.Residual(inner, project=True)
        made.append(layer)
    draw.prefix = "last."
    # Keras weights the loss of a sequence by its mask.
    return_sequences = not masked and draw.flag("return_sequences")
    flags = {"return_sequences": return_sequences, **draw.flags("go_backwards")}
    return [*made, random_layers.rnn(draw, dtype, **flags)]
