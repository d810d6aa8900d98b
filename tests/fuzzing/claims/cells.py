"""Layers around cells of this package, and the cells called step by step."""

import keras
import tensorflow as tf
from keras import tree

from fuzzing import random_layers
from fuzzing.compare import (
    Skip,
    assert_close,
    assert_same,
    results,
    set_precision,
    trainable_values,
)
from fuzzing.reference import cell_by_steps
from kerasrnn import layers

FLAGS = ("return_sequences", "go_backwards", "zero_output_for_mask")


def _by_steps(cell, flags, x, states, mask, reset):
    """What a layer around the cell gives: its output, and a list of the final states."""
    outputs, final = cell_by_steps(
        *(cell, x, states, mask, reset), flags["go_backwards"], flags["zero_output_for_mask"]
    )
    return (tf.stack(outputs, 1) if flags["return_sequences"] else outputs[-1]), final


def same_in_every_way(draw):
    """A layer around a cell of this package, with initial states, mask and reset, and the cell
    called step by step: outputs, states, and the gradients by weights, input and initial states.
    The layer is called eagerly, unrolled, in a graph or compiled; or it is Keras's; or it is given
    the sequence in two parts, with states handed over or stateful."""
    (batch, time, features), dtype = draw.shape(), draw.dtype()
    flags = draw.flags(*FLAGS)
    cell = random_layers.cell(draw, dtype)
    cell.build((batch, features))
    draw.perturb(cell)
    way = draw.choice(
        "way",
        *("eager", "eager", "eager", "eager", "unroll", "unroll", "keras", "keras"),
        *("chunks", "chunks", "stateful", "plain", "compiled", "compiled"),
    )
    arguments = {
        "x": draw.normal(batch, time, features, dtype=dtype.removeprefix("mixed_")),
        "states": draw.initial_states(batch, tree.flatten(cell.state_size), cell.state_dtype),
        "mask": draw.mask(batch, time),
        # Keras's layers have none.
        "reset": draw.reset(batch, time) if way != "keras" else None,
    }
    package = keras.layers if way == "keras" else layers
    options = {"unroll": way == "unroll", "stateful": way == "stateful"}
    layer = package.RNN(cell, return_state=True, dtype=dtype, **options, **flags)

    def call(x, states=None, mask=None, reset=None):
        more = {} if reset is None else {"reset": reset}
        if attached and mask is not None:
            x, mask = random_layers.Attached(mask)(x), None
        return layer(x, initial_state=states, mask=mask, **more)

    def reference(x, states=None, mask=None, reset=None):
        y, final = _by_steps(cell, flags, x, states, mask, reset)
        return [y, *final]

    if way in ("chunks", "stateful"):
        # Backwards, the states are set back by where the part that was run before begins.
        if time == 1 or (flags["go_backwards"] and arguments["reset"] is not None):
            raise Skip
        cut = draw.integer(1, time)
        if way == "stateful":
            arguments["states"] = None
        call = _in_two_parts(layer, cut, hands_states_on=way == "chunks")
        reference = _without_masked_outputs(reference)
    mode = way if way in ("plain", "compiled") else "eager"
    unknown = mode != "eager" and draw.flag("unknown")
    # Keras's layers lose the mask beside states.
    attached = way in ("eager", "unroll", "plain", "compiled")
    attached = attached and draw.flag("attached_mask", one_in=3)
    # The states that a stateful layer keeps are variables, which gradients end at.
    gradients = way != "stateful"
    variables = trainable_values(cell)
    expected = results(reference, variables, arguments, gradients=gradients)
    actual = results(call, variables, arguments, mode, unknown, gradients)
    assert_same(way, actual, expected, dtype)


def _in_two_parts(layer, cut, hands_states_on):
    """A call of a layer for the steps before `cut`, and one for those from it on, or backwards in
    the other order; the outputs of both together."""

    def call(x, states=None, mask=None, reset=None):
        parts = [slice(cut), slice(cut, None)]
        outputs = []
        for part in reversed(parts) if layer.go_backwards else parts:
            y, *states = layer(
                x[:, part],
                initial_state=states if hands_states_on else None,
                mask=None if mask is None else mask[:, part],
                reset=None if reset is None else reset[:, part],
            )
            outputs.append(y)
        if mask is not None:
            return states
        return [tf.concat(outputs, 1) if layer.return_sequences else outputs[-1], *states]

    return call


def _without_masked_outputs(reference):
    """The `reference` without its output where there is a mask: the second part does not know what
    the first one showed, which masked steps at its start would repeat."""

    def call(x, states=None, mask=None, reset=None):
        y, *final = reference(x, states, mask, reset)
        return [y, *final] if mask is None else final

    return call


def same_in_predict_and_fit(draw):
    """A model with one layer around a cell of this package, and the cell called step by step:
    `predict` in batches, and by how much a step of `fit` moves the weights. The mask is that of
    Masking, handed on by itself or as an argument; a reset is a second input."""
    draw.deterministic = True
    (_, time, features), dtype, rows = draw.shape(), draw.dtype(half=False), 5
    set_precision(dtype)
    flags = draw.flags(*FLAGS)
    cell = random_layers.cell(draw, dtype)
    mask = draw.mask(rows, time)
    x, reset = draw.normal(rows, time, features, dtype=dtype), draw.reset(rows, time)
    if mask is not None:
        mask = tf.broadcast_to(mask, (rows, time))
        x = tf.where(mask[..., None], x, 0)
    model = _model(draw, layers.RNN(cell, **flags), (time, features), mask, reset)
    draw.perturb(model)
    model.compile(
        keras.optimizers.SGD(1.0),
        "mse",
        jit_compile=draw.choice("jit_compile", "auto", "auto", "auto", True),
        run_eagerly=draw.maybe(0.1),
        steps_per_execution=draw.choice("steps_per_execution", 1, 1, 2),
    )
    inputs = [v.numpy() for v in (x, reset) if v is not None]

    def reference():
        return _by_steps(cell, flags, x, None, mask, reset)[0]

    batch_size = draw.choice("batch_size", 2, 5, 3)
    predicted = model.predict(inputs, batch_size=batch_size, verbose=0)
    assert_close("predict", predicted, reference(), dtype)
    # Keras weights the loss of a sequence by its mask.
    if (mask is not None and flags["return_sequences"]) or not model.trainable_variables:
        return
    before = [tf.identity(v) for v in trainable_values(model)]
    target = draw.normal(*reference().shape, dtype=dtype)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((reference() - target) ** 2)
    expected = tape.gradient(loss, trainable_values(model), unconnected_gradients="zero")
    model.fit(inputs, target.numpy(), batch_size=rows, shuffle=False, verbose=0)
    moved = [b - v for b, v in zip(before, trainable_values(model), strict=True)]
    assert_same("fit", moved, expected, "float32")


def _model(draw, layer, shape, mask, reset):
    """The layer behind inputs, with a Masking if there is a mask."""
    time, features = shape
    inputs = [keras.Input((draw.choice("time", time, None), features))]
    y, more = inputs[0], {}
    if mask is not None:
        y = keras.layers.Masking()(y)
    if reset is not None:
        inputs.append(keras.Input((None,), dtype="bool"))
        more["reset"] = inputs[1]
        if mask is not None and not draw.flag("implicit_mask", one_in=4):
            more["mask"] = keras.layers.Masking().compute_mask(inputs[0])
    return keras.Model(inputs, layer(y, **more))
