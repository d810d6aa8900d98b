"""The layers of a model, from what was chosen for it."""

import functools

import keras

from kerasrnn import cells
from kerasrnn.arguments import positive_integer, real_number
from kerasrnn.layers import RNNStack
from kerasrnn.tuning.size import count_parameters, largest_units
from kerasrnn.tuning.space import INITIALIZERS, NORMALIZATIONS

# The choices that the number of parameters depends on, beside the units.
SIZED = ("cell", "depth", "connection", "bidirectional", "normalization")


class Network:
    """The models of one task and one kind of input.

    What a method takes as choices is described in `RNNHyperModel`: cell, depth, connection,
    bidirectional, dropout, normalization, recurrent_dropout, zoneout and initializer.

    Args:
        task: Its `kerasrnn.tuning.tasks.Task`.
        vocabulary_size, features, mask_value, T_max: As in `RNNHyperModel`.

    Raises:
        ValueError: an argument outside its range, or not exactly one of `vocabulary_size` and
            `features`.
    """

    def __init__(self, task, vocabulary_size, features, mask_value, T_max):
        if (vocabulary_size is None) == (features is None):
            raise ValueError(
                "Pass `vocabulary_size` for sequences of tokens, or `features` for sequences of "
                f"vectors. Received: vocabulary_size={vocabulary_size}, features={features}"
            )
        for name, value in (("vocabulary_size", vocabulary_size), ("features", features)):
            if value is not None:
                positive_integer(name, value)
        if mask_value is not None:
            mask_value = real_number("mask_value", mask_value)
            if features is None:
                raise ValueError(
                    "`mask_value` is for sequences of vectors; the padding of tokens is 0. "
                    f"Received: mask_value={mask_value}, vocabulary_size={vocabulary_size}"
                )
        self.task = task
        self.vocabulary_size = vocabulary_size
        self.features = features
        self.mask_value = mask_value
        self.T_max = T_max
        self._units = {}

    def model(self, units, choices):
        """A model that is not compiled."""
        shape, dtype = self._input
        inputs = x = keras.Input(shape[1:], dtype=dtype)
        for layer in self._layers(units, **choices):
            x = layer(x)
        return keras.Model(inputs, x)

    @property
    def _input(self):
        if self.features is None:
            return (None, None), "int64"
        return (None, None, self.features), None

    def _layers(
        self,
        units,
        cell,
        depth,
        connection,
        bidirectional,
        dropout,
        normalization,
        recurrent_dropout,
        zoneout,
        initializer,
    ):
        layers = []
        if self.features is None:
            width = units * (2 if bidirectional else 1)
            layers.append(keras.layers.Embedding(self.vocabulary_size, width, mask_zero=True))
            layers.append(keras.layers.SpatialDropout1D(dropout))
        elif self.mask_value is not None:
            layers.append(keras.layers.Masking(self.mask_value))
        options = INITIALIZERS[initializer](self.T_max)
        if normalization == "cell":
            # The stack has a `normalization` of its own.
            cell = functools.partial(cells.get(cell), **NORMALIZATIONS[normalization], **options)
            options, normalization = {}, None
        stack = RNNStack(
            cell,
            units,
            depth,
            connection=connection,
            bidirectional=bidirectional,
            normalization=normalization,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
            project=True,
            return_sequences=self.task.per_step,
            **options,
        )
        layers += [stack, keras.layers.Dropout(dropout)]
        layers.append(keras.layers.Dense(self.task.width, activation=self.task.activation))
        if self.task.shape is not None:
            layers.append(keras.layers.Reshape(self.task.shape))
        return layers

    def units_within(self, max_parameters, choices):
        """The most units with which a model has at most so many parameters."""
        key = (max_parameters, *(choices[name] for name in SIZED))
        if key not in self._units:
            self.check_size(max_parameters, choices)
            special = None
            if self.features is not None:
                # As wide as the input, which then needs no projection.
                width, rest = divmod(self.features, 2 if choices["bidirectional"] else 1)
                special = None if rest else width
            self._units[key] = largest_units(
                lambda units: self._count(units, choices),
                max_parameters,
                self._smallest(choices),
                special,
            )
        return self._units[key]

    def check_size(self, max_parameters, choices):
        """Raises a `ValueError` where the smallest number of units is too many."""
        smallest = self._smallest(choices)
        count = self._count(smallest, choices)
        if count > max_parameters:
            sized = ", ".join(f"{name}={choices[name]!r}" for name in SIZED)
            raise ValueError(
                f"`max_parameters` must be at least {count}, what a model of {smallest} units has "
                f"where {sized}. Received: max_parameters={max_parameters}"
            )

    def _smallest(self, choices):
        # A layer's normalization would leave nothing of a single unit.
        return 2 if choices["normalization"] == "layer" and not choices["bidirectional"] else 1

    def _count(self, units, choices):
        return count_parameters(lambda: self._layers(units, **choices), self._input[0])
