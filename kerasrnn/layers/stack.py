import keras
from keras import ops

from kerasrnn import cells
from kerasrnn.cells.base import parameters, positive_integer
from kerasrnn.layers.bidirectional import Bidirectional
from kerasrnn.layers.connections import Residual
from kerasrnn.layers.recurrent import RNN

CONNECTIONS = (None, "residual")


def check_connection(connection):
    """Raises a `ValueError` that lists the known connections, unless `connection` is one."""
    if connection not in CONNECTIONS:
        known = ", ".join(map(repr, CONNECTIONS))
        raise ValueError(
            f"`connection` must be one of {known}. Received: connection={connection!r}"
        )


@keras.saving.register_keras_serializable("kerasrnn")
class RNNStack(keras.layers.Layer):
    """Recurrent layers on top of each other (Graves et al., 2013, section 2), with direct
    connections where asked for.

        h^0 = x
        h^l = RNN_l(h^{l-1})                    connection=None
        h^l = h^{l-1} + RNN_l(h^{l-1})          connection="residual"

    Two to four layers train plain; deeper stacks need a connection (CS224N 2019, lecture 7).

    Args:
        cell: Name of a registered cell (a key of `kerasrnn.cells.CELLS`). Default: `"lstm"`.
        units: Positive integer, size of each layer's states. Default: 256.
        depth: Positive integer, number of layers. Default: 4.
        connection: `None` or `"residual"`.
        bidirectional: Whether each layer runs in both directions; its output is then 2 units wide.
        project: Whether a learned matrix fits the input to the first residual connection where its
            width differs from the layer's.
        dropout: Fraction of each layer's inputs to drop, in [0, 1), the same ones at all steps.
        recurrent_dropout: Fraction of the previous state to drop, likewise.
        return_sequences: Whether to return every step or the last one only. Default: `False`.
        **kwargs: Further arguments of the cell, as `initial_state="learned"`, and of a Keras layer.

    Call arguments: `inputs` (batch, time, features), `mask` (batch, time), `training`.

    Returns:
        (batch, time, width) with `return_sequences`, else (batch, width); width is `units`, or
        twice that when bidirectional. As in `Bidirectional`, the last step of the backward half is
        the first in time. Masked steps count for neither.

    Raises:
        ValueError: an unknown `cell` or `connection`, `units` or `depth` that is not a positive
            integer, an input of another rank than 3, or a residual connection whose widths differ
            without `project=True`.

    Example:

    >>> stack = kerasrnn.layers.RNNStack("lstm", 8, 2, connection="residual", bidirectional=True)
    >>> stack(np.ones((2, 5, 16), "float32")).shape
    TensorShape([2, 16])
    """

    def __init__(
        self,
        cell="lstm",
        units=256,
        depth=4,
        connection=None,
        bidirectional=False,
        project=False,
        dropout=0.0,
        recurrent_dropout=0.0,
        return_sequences=False,
        **kwargs,
    ):
        names = parameters(cells.get(cell))
        options = {name: kwargs.pop(name) for name in names if name in kwargs}
        super().__init__(**kwargs)
        check_connection(connection)
        self.supports_masking = True
        self.cell = cell
        self.units = positive_integer("units", units)
        self.depth = positive_integer("depth", depth)
        self.connection = connection
        self.bidirectional = bidirectional
        self.project = project
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        self.return_sequences = return_sequences
        self.cell_options = options
        self.layers = [self._layer(i + 1) for i in range(self.depth)]

    def _layer(self, level):
        layer = RNN(
            self.cell,
            units=self.units,
            dropout=self.dropout,
            recurrent_dropout=self.recurrent_dropout,
            return_sequences=True,
            **self.cell_options,
            dtype=self.dtype_policy,
            name=f"{self.cell}_{level}",
        )
        if self.bidirectional:
            name = f"bidirectional_{level}"
            layer = Bidirectional(layer, dtype=self.dtype_policy, name=name)
        if self.connection == "residual":
            name = f"residual_{level}"
            layer = Residual(layer, project=self.project, dtype=self.dtype_policy, name=name)
        return layer

    def build(self, input_shape):
        for layer in self.layers:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)

    def call(self, inputs, mask=None, training=None):
        y = inputs
        for layer in self.layers:
            y = layer(y, mask=mask, training=training)
        return y if self.return_sequences else self._last(y, mask)

    def _last(self, y, mask):
        if mask is None:
            mask = ops.ones(ops.shape(y)[:2], "bool")
        mask = ops.cast(mask, "bool")
        steps = ops.arange(ops.shape(y)[1], dtype="int32")
        last = ops.max(ops.where(mask, steps, 0), axis=1)
        first = ops.min(ops.where(mask, steps, ops.shape(y)[1] - 1), axis=1)

        def at(step, part):
            return ops.take_along_axis(part, step[:, None, None], axis=1)[:, 0]

        if self.bidirectional:
            forward, backward = ops.split(y, 2, axis=-1)
            out = ops.concatenate([at(last, forward), at(first, backward)], axis=-1)
        else:
            out = at(last, y)
        return ops.where(ops.any(mask, axis=1, keepdims=True), out, ops.zeros_like(out))

    def compute_mask(self, inputs, mask=None):
        return mask if self.return_sequences else None

    def compute_output_shape(self, input_shape):
        width = self.units * (2 if self.bidirectional else 1)
        if self.return_sequences:
            return (*input_shape[:-1], width)
        return (input_shape[0], width)

    def get_config(self):
        options = {k: keras.saving.serialize_keras_object(v) for k, v in self.cell_options.items()}
        return super().get_config() | {
            "cell": self.cell,
            "units": self.units,
            "depth": self.depth,
            "connection": self.connection,
            "bidirectional": self.bidirectional,
            "project": self.project,
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "return_sequences": self.return_sequences,
            **options,
        }
