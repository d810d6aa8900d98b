"""Layers and cells of random configurations.

Of all functions here the first argument, `draw`, is a `Draw`, `dtype` the layer's dtype policy,
`width` the number of features of its input, and what follows are arguments that the layer gets as
they are.
"""

import keras
import numpy as np
import tensorflow as tf
from keras_masks import keras_hands_on

from fuzzing.draw import activations
from kerasrnn import cells, layers
from kerasrnn.cells.configured import parameters

NAMED = {
    "lstm": layers.LSTM,
    "gru": layers.GRU,
    "simple_rnn": layers.SimpleRNN,
    "mingru": layers.MinGRU,
    "minlstm": layers.MinLSTM,
    "lru": layers.LRU,
}
# Of a cell's arguments, values other than the default; `None` stands for any activation.
OPTIONS = {
    "activation": None,
    "recurrent_activation": None,
    "use_bias": [False],
    "implementation": [1, 0],
    "zoneout": [0.3],
    "normalization": ["layer"],
    "initial_state": ["learned"],
    "reset_after": [False],
    "update_gate": ["write"],
    "peephole": [False],
    "depth": [1, 3],
    "beta": [0.0, 2.0],
    "unit_forget_bias": [False],
    "r_max": [0.5],
    "dropout": [0.2],
    "max_phase": [0.3],
    "bias_initializer": ["ones"],
}
# Those that draw numbers in training.
NOISE = ("dropout", "zoneout")
# Those of a cell that an `RNNStack` has another meaning for, or does not take.
OWN_OF_THE_STACK = ("normalization", "depth", "dropout")

# Those named twice are drawn twice as often.
INSIDE_A_CONNECTION = (
    *("Dense", "Conv1D", "rnn", "rnn", "both_ways"),
    *("Sequential", "Residual", "Highway", "Dense"),
)
# Where the `width` that a stack is drawn for is not that of its input.
NOTHING_TO_NORMALIZE = "Layer normalization needs two features or more"


class Attached(keras.layers.Layer):
    """Attaches a mask to a tensor, (batch, time) or (1, time), as Masking does to one that has it
    in its values."""

    def __init__(self, mask):
        super().__init__(dtype="float64", autocast=False)
        self.mask = mask

    def call(self, x):
        return tf.identity(x)

    def compute_mask(self, x, previous_mask=None):
        return self.mask


def cell_options(draw, kind, units, dtype):
    """Some of the options of a registered cell, in a random order: each is kept if the cell takes
    it beside those before."""
    options, cell_class = {}, cells.get(kind)
    for name in map(str, draw.rng.permutation(list(OPTIONS))):
        excluded = draw.deterministic and name in NOISE
        if name in parameters(cell_class) and not excluded and draw.maybe(0.35):
            values = OPTIONS[name] or activations(dtype)
            more = options | {name: values[draw.rng.integers(len(values))]}
            try:
                cell_class(units, **more)
            except ValueError:
                continue
            options = more
    draw.record(kind, {"units": units} | options)
    return options


def cell(draw, dtype, units=None):
    """A cell of this package."""
    kind = list(cells.CELLS)[draw.rng.integers(len(cells.CELLS))]
    units = units or int(draw.rng.choice([1, 2, 3, 4]))
    return cells.get(kind)(units, dtype=dtype, **cell_options(draw, kind, units, dtype))


def rnn(draw, dtype, units=None, **fixed):
    """A recurrent layer: around a cell or two, by a cell's name, by its own name, or Keras's."""
    units = units or int(draw.rng.choice([1, 2, 3]))
    make = draw.choice("make", "cell", "cell", "name", "class", "keras", "stacked")
    if make == "keras":
        theirs = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)
        return keras_hands_on(draw.choice("class", *theirs)(units, dtype=dtype, **fixed))
    if make == "stacked":
        stacked = [cell(draw, dtype), cell(draw, dtype, units)]
        return layers.RNN(stacked, dtype=dtype, **fixed)
    kind = str(draw.rng.choice(list(NAMED if make == "class" else cells.CELLS)))
    options = cell_options(draw, kind, units, dtype)
    if make == "cell":
        one = cells.get(kind)(units, dtype=dtype, **options)
        return layers.RNN(one, dtype=dtype, **fixed)
    if make == "name":
        return layers.RNN(kind, units=units, dtype=dtype, **options, **fixed)
    return NAMED[kind](units, dtype=dtype, **options, **fixed)


def bidirectional(draw, dtype, units=None, **fixed):
    """A `Bidirectional` whose output, if `units` is given, has that width."""
    merge_mode = draw.choice("merge_mode", "concat", "sum", "mul", "ave", "gate")
    each = units // 2 if units and merge_mode == "concat" else units
    layer = rnn(draw, dtype, each, **fixed)
    return layers.Bidirectional(layer, merge_mode=merge_mode, dtype=dtype)


def stack(draw, dtype, width, **fixed):
    """An `RNNStack`."""
    connection = draw.choice("connection", None, "residual", "highway", "dense")
    both_ways = draw.flag("bidirectional")
    depth = draw.choice("depth", 1, 2, 2, 3, 4)
    per_layer = draw.maybe(0.4)
    units = [draw.integer(1, 4) for _ in range(depth)] if per_layer else draw.integer(1, 4)
    kind, normalization = draw.choice("cell", *cells.CELLS), None
    # A single feature cannot be normalized.
    if width > 1 and np.min(units) * (1 + both_ways) > 1:
        normalization = draw.choice("stack_normalization", None, "layer")
    options = cell_options(draw, kind, 2, dtype)
    draw.configuration["units"] = units
    options = {name: v for name, v in options.items() if name not in OWN_OF_THE_STACK}
    return layers.RNNStack(
        *(kind, units, depth, connection, both_ways, normalization),
        project=True,
        dtype=dtype,
        **options,
        **fixed,
    )


def connection(draw, dtype, width, **fixed):
    """A `Residual`, a `Highway` or a `DenselyConnected` around layers of all kinds."""
    kind = draw.choice("connection", "Residual", "Highway", "DenselyConnected")
    if kind == "DenselyConnected":
        count = draw.choice("n", 1, 2, 3)
        inner = [_inside(draw, dtype, draw.integer(1, 4), **fixed) for _ in range(count)]
        return layers.DenselyConnected(inner, dtype=dtype)
    inner = _inside(draw, dtype, draw.choice("width", width, width, 4), **fixed)
    return getattr(layers, kind)(inner, project=True, dtype=dtype)


def _inside(draw, dtype, width, **fixed):
    """A layer inside a connection, with an output of `width` features, or of one more where it
    joins two directions."""
    kind = draw.choice("inner", *INSIDE_A_CONNECTION)
    if kind == "Dense":
        return keras.layers.Dense(width, "tanh", dtype=dtype)
    if kind == "Conv1D":
        padding = draw.choice("padding", "same", "causal")
        return keras.layers.Conv1D(width, 2, padding=padding, dtype=dtype)
    fixed["return_sequences"] = True
    if kind == "Sequential":
        gru = layers.GRU(width, return_sequences=True, dtype=dtype)
        return keras.Sequential([keras.layers.Dense(3, dtype=dtype), gru])
    if kind in ("Residual", "Highway"):
        inner = rnn(draw, dtype, width, **fixed)
        return getattr(layers, kind)(inner, project=True, dtype=dtype)
    if kind == "rnn":
        return rnn(draw, dtype, width, **fixed)
    return bidirectional(draw, dtype, width + width % 2, **fixed)


def any_layer(draw, dtype, width, **fixed):
    """One of the above; a connection gets no further arguments."""
    kind = draw.choice("kind", "rnn", "both_ways", "stack", "connection")
    if kind == "rnn":
        return rnn(draw, dtype, **fixed)
    if kind == "both_ways":
        return bidirectional(draw, dtype, **fixed)
    if kind == "stack":
        return stack(draw, dtype, width, **fixed)
    return connection(draw, dtype, width)
