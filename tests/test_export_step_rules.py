"""Which models have a step, per layer and operation, and which of their outputs have time."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.layers import BatchNormalization, EinsumDense, Embedding, Masking, PReLU, TimeDistributed

from kerasrnn import layers
from kerasrnn.export.interface import Interface
from kerasrnn.export.step_rules import sequences_of


def of(function, shape=(None, 3), dtype="float32"):
    x = keras.Input(shape, dtype=dtype, name="x")
    return keras.Model(x, function(x))


def gru(*args, **options):
    return layers.GRU(4, return_sequences=True)(*args, **options)


def last(x, **options):
    return layers.GRU(4, name="last")(x, **options)


def explicit():
    x, mask = keras.Input((None, 3), name="x"), keras.Input((None,), dtype="bool", name="mask")
    return keras.Model([x, mask], gru(x, mask=ops.logical_not(mask)))


def joined(x):
    y = Masking()(x)
    y = keras.layers.Concatenate(axis=2)([y, keras.layers.Dense(2)(x)])
    return gru(keras.layers.Add()([y, y]))


def through_connections(x):
    y = layers.RNNStack("gru", 3, 2, connection="residual", return_sequences=True)(Masking()(x))
    return last(layers.Residual(layers.GRU(3, return_sequences=True))(y) + y)


def nested(x):
    inner = keras.Input((30, 3))
    return gru(keras.Model(inner, gru(Masking()(inner)))(x))


TAKEN = {
    "Masking": lambda: of(lambda x: gru(Masking()(x))),
    "tokens": lambda: of(lambda x: gru(Embedding(4, 3, mask_zero=True)(x)), (None,), "int32"),
    "a mask passed": explicit,
    "a mask computed": lambda: of(lambda x: gru(x, mask=ops.any(ops.not_equal(x, 0), axis=2))),
    "masks joined": lambda: of(joined),
    "masks through connections": lambda: of(through_connections),
    "a fixed length": lambda: of(lambda x: gru(Masking()(x)), (30, 3)),
    "fixed lengths": lambda: of(nested, (30, 3)),
    "an unrolled layer": lambda: of(keras.layers.LSTM(2, unroll=True), (30, 3)),
    "operations of features": lambda: of(
        lambda x: gru(ops.softmax(x, -1) * ops.sum(x, axis=(2,), keepdims=True))[..., :2]
    ),
    "means": lambda: of(lambda x: ops.mean(gru(x), -1)),
    "the last output": lambda: of(lambda x: keras.layers.Dense(2)(gru(x)[:, -1])),
    "axes": lambda: of(lambda x: last(BatchNormalization(axis=2)(PReLU(shared_axes=[1])(x)))),
    "axes of the last": lambda: of(
        lambda x: keras.layers.LayerNormalization(axis=1)(
            PReLU()(BatchNormalization(axis=1)(last(x)))
        )
    ),
    "axes in a connection": lambda: of(
        lambda x: last(layers.Residual(BatchNormalization(axis=2))(x))
    ),
    "images": lambda: of(
        lambda x: last(TimeDistributed(keras.layers.Flatten())(BatchNormalization(axis=2)(x))),
        (None, 4, 3),
    ),
    "normalization": lambda: of(
        lambda x: gru(keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 2.0, 3.0])(x))
    ),
    "sums of products": lambda: of(
        lambda x: EinsumDense("...c,cd->...d", 4, bias_axes="d")(
            EinsumDense("btc,cd->btd", (None, 4), bias_axes="d")(gru(x))
        )
    ),
    "the largest": lambda: of(lambda x: ops.argmax(gru(x), axis=-1) + ops.argmin(gru(x), axis=2)),
    "one step of a convolution": lambda: of(lambda x: gru(keras.layers.Conv1D(2, 1)(x))),
}
HAVE_NO_TIME = {
    *("masks through connections", "an unrolled layer", "the last output", "axes"),
    *("axes of the last", "axes in a connection", "images"),
}


@pytest.mark.filterwarnings("ignore:Layer 'functional:UserWarning")
@pytest.mark.parametrize("name", TAKEN)
def test_what_has_a_step(name):
    model = TAKEN[name]()
    interface = Interface(model, "saved_model")
    sequences = set() if name in HAVE_NO_TIME else set(interface.outputs)
    assert sequences_of(interface) == sequences
    # It takes its own length as before, and no other.
    shape = [[2, *(n or 5 for n in part.shape[1:])] for part in model.inputs]
    x = [np.ones(s, part.dtype) for s, part in zip(shape, model.inputs, strict=True)]
    x = x if len(x) > 1 else x[0]
    model(x)
    if "length" in name:
        with pytest.raises(ValueError, match="incompatible"):
            model(x[:, :7])


REFUSED = {
    r"Any\), with axis=\[1\] of 3": lambda: of(lambda x: last(x) * ops.any(x, axis=1)[:, :1]),
    r"Any\), with axis=\[-1\] of 2": lambda: of(
        lambda x: Embedding(4, 3)(x) * ops.any(x, axis=-1)[:, None, None], (None,), "int32"
    ),
    r"Max\), with axis=None of 3": lambda: of(lambda x: gru(x / ops.max(x))),
    r"Squeeze\), with axis=None of 3": lambda: of(lambda x: ops.squeeze(gru(x))),
    r"Softmax\), with axis=1 of 3": lambda: of(lambda x: ops.softmax(gru(x), axis=1)),
    r"ExpandDims\), with axis=1 of 4": lambda: of(lambda x: ops.expand_dims(gru(x), 1)),
    r"layer 'batch_normalization.* axis 1 ": lambda: of(
        lambda x: last(BatchNormalization(axis=1)(x)), (30, 3)
    ),
    r"LayerNormalization\), with axis=\[-2, -1\]|another number of steps": lambda: of(
        lambda x: last(keras.layers.LayerNormalization(axis=[-2, -1])(x)), (30, 3)
    ),
    r"PReLU\), with a weight for each time step": lambda: of(lambda x: last(PReLU()(x)), (30, 3)),
    r"Add\), which does not run over another number of steps": lambda: of(
        lambda x: last(x + np.ones((30, 3), "float32")), (30, 3)
    ),
    r"Add\), which brings what the whole sequence": lambda: of(
        lambda x: keras.layers.Add()([gru(x), last(x)])
    ),
    r"Multiply\), which brings what the whole sequence": lambda: of(
        lambda x: gru(x) * last(x)[:, None]
    ),
    r"Argmax\), with axis=1 of 3": lambda: of(lambda x: ops.argmax(gru(x), axis=1)),
    r"Normalization\), with axis=\(1,\) of 3": lambda: of(
        lambda x: gru(keras.layers.Normalization(axis=1, mean=[1.0] * 30, variance=[1.0] * 30)(x)),
        (30, 3),
    ),
    **{
        rf"EinsumDense\), with the equation {equation} over": (
            lambda equation=equation, shape=shape, axes=axes: of(
                lambda x: last(EinsumDense(equation, shape, bias_axes=axes)(x)), (30, 3)
            )
        )
        for equation, shape, axes in (
            ("btc,ts->bsc", (30, 3), "c"),
            ("btc,cd->bdt", (4, 30), None),
            ("btc,cd->btd", (30, 4), "td"),
        )
    },
    r"takes some steps: .*, 0\)": lambda: of(lambda x: gru(x)[:, 0]),
    r"takes some steps: .*None, 2\)": lambda: of(lambda x: gru(x)[:, ::2]),
    r"takes some steps: \(Ellipsis": lambda: of(
        lambda x: last(Embedding(4, 3)(x[..., 1:])), (None,), "int32"
    ),
    r"last \(GRU\), which is called with an initial_state": lambda: of(
        lambda x: last(x, initial_state=last_of(x))
    ),
    r"TimeDistributed\), with a recurrent layer over an open length": lambda: of(
        lambda x: gru(TimeDistributed(layers.GRU(2))(x)), (None, None, 3)
    ),
}


def last_of(x):
    return layers.GRU(4)(x)


@pytest.mark.parametrize("reason", REFUSED)
def test_what_has_no_step_is_named(reason):
    with pytest.raises(ValueError, match=f"`model` must be causal.*Received: .*{reason}"):
        sequences_of(Interface(REFUSED[reason](), "saved_model"))
