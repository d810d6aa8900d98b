"""Layers of this package in the place of Keras's."""

from typing import NamedTuple

import keras
import tensorflow as tf
from keras import tree

from fuzzing.compare import Skip, assert_same, results, set_precision, trainable_values
from fuzzing.draw import activations
from kerasrnn import cells, layers

BASES = ("SimpleRNN", "LSTM", "GRU")


class Configuration(NamedTuple):
    """What both layers are made of.

    Attributes:
        kind: One of `BASES`; "RNN", around a cell of the class `base`; or "stacked", around a GRU
            cell and that one.
        base: One of `BASES`.
        options: Of the layer or its cell.
        flags: Of the layer.
        merge_mode: Of the Bidirectional around it, "none" for `None`; "" where there is no such.
        backward_layer: Whether that takes its backward layer as an argument.
    """

    kind: str
    base: str
    units: int
    dtype: str
    options: dict
    flags: dict
    merge_mode: str
    backward_layer: bool

    def made(self, package, cell_package=keras.layers):
        """The layer, of `keras.layers` or `kerasrnn.layers`."""
        if not self.merge_mode:
            return self._one(package, cell_package, self.flags["go_backwards"])
        return package.Bidirectional(
            self._one(package, cell_package, False),
            merge_mode=None if self.merge_mode == "none" else self.merge_mode,
            backward_layer=self._one(package, cell_package, True) if self.backward_layer else None,
            dtype=self.dtype,
        )

    def _one(self, package, cell_package, go_backwards):
        fixed = self.flags | {"dtype": self.dtype, "go_backwards": go_backwards}
        if self.kind == self.base:
            return getattr(package, self.kind)(self.units, **self.options, **fixed)
        cell_class = getattr(cell_package, f"{self.base}Cell")
        cell = cell_class(self.units, dtype=self.dtype, **self.options)
        if self.kind == "stacked":
            cell = [keras.layers.GRUCell(2, dtype=self.dtype), cell]
        return package.RNN(cell, **fixed)

    def called(self, layer, x, states=None, mask=None):
        """What a layer returns, and its losses."""
        if states is not None and self.kind == "stacked":
            sizes = [size for one in self._directions(layer) for size in one.state_size]
            states = tree.pack_sequence_as(sizes, states)
        y = layer(x, initial_state=states, mask=mask)
        return [y, *map(tf.identity, layer.losses)]

    def state_sizes(self, layer):
        return tree.flatten([one.state_size for one in self._directions(layer)])

    def _directions(self, layer):
        return [layer.forward_layer, layer.backward_layer] if self.merge_mode else [layer]


def same_as_keras(draw):
    """A layer of `keras.layers` that is not unrolled, and the one of the same name and arguments
    here, unrolled or not, with the same weights: outputs, states, losses, and the gradients by
    weights, input and initial states, in an eager call, in a graph and compiled, of known size or
    not."""
    (batch, time, features), dtype = draw.shape(), draw.dtype()
    units = draw.choice("units", 1, 2, 3, 4)
    if draw.maybe(0.03):
        batch = 0
    set_precision(dtype)
    drawn = _configuration(draw, units, dtype)
    # Keras's unrolled loop forgets to turn the mask around before it gives zeros for it.
    theirs = drawn._replace(flags=drawn.flags | {"unroll": False}).made(keras.layers)
    own_cell = drawn.kind == "RNN" and draw.flag("own_cell")
    ours = drawn.made(layers, cells if own_cell else keras.layers)

    def with_results(layer, arguments, *options):
        def call(x, states=None, mask=None):
            return drawn.called(layer, x, states, mask)

        return results(call, trainable_values(layer), arguments, *options)

    try:
        theirs.build((batch, time, features))
        draw.perturb(theirs)
        arguments = {
            "x": draw.normal(batch, time, features, dtype=dtype.removeprefix("mixed_")),
            "states": draw.initial_states(batch, drawn.state_sizes(theirs), dtype),
            "mask": draw.mask(batch, time),
        }
        # A stateful layer goes on, in the second call, where the first one ended.
        calls = 2 if drawn.flags["stateful"] else 1
        expected = [with_results(theirs, arguments) for _ in range(calls)]
    except Exception as error:
        raise Skip from error
    ours.build((batch, time, features))
    ours.set_weights(theirs.get_weights())
    mode = draw.choice("mode", *["eager"] * 7, "plain", "compiled")
    # Steps are written out one by one, states are kept per row, and that loss is one per row.
    needs_size = drawn.flags["unroll"] or drawn.flags["stateful"]
    needs_size = needs_size or "activity_regularizer" in drawn.options
    unknown = mode != "eager" and not needs_size and draw.flag("unknown")
    for one in expected:
        assert_same(mode, with_results(ours, arguments, mode, unknown), one, dtype)


def _configuration(draw, units, dtype):
    kind, options = draw.choice("class", *BASES, "RNN", "stacked"), {}
    flags = draw.flags(
        "return_sequences", "return_state", "go_backwards", "zero_output_for_mask"
    ) | draw.flags("unroll", "stateful", one_in=4)
    base = kind if kind in BASES else draw.choice("cell", *BASES)

    def offer(name, *values, chance=0.3):
        if draw.maybe(chance):
            options[name] = draw.choice(name, *values)

    offer("activation", *activations(dtype))
    offer("use_bias", False)
    offer("dropout", 0.3)
    offer("recurrent_dropout", 0.3)
    offer("kernel_regularizer", "l2")
    offer("bias_regularizer", "l1")
    if base != "SimpleRNN":
        offer("recurrent_activation", *activations(dtype))
        if kind == base:
            offer("implementation", 0, 1, 2)
    if base == "LSTM":
        offer("unit_forget_bias", False)
    if base == "GRU":
        offer("reset_after", False, chance=0.5)
    # Keras's SimpleRNN forgets it.
    if kind == base != "SimpleRNN":
        offer("activity_regularizer", "l2")
    merge_mode, backward_layer = "", False
    if draw.flag("Bidirectional", one_in=3):
        merge_mode = draw.choice("merge_mode", "concat", "sum", "mul", "ave", "none")
        backward_layer = draw.flag("backward_layer", one_in=3)
    return Configuration(kind, base, units, dtype, options, flags, merge_mode, backward_layer)
