"""Models for keras-tuner."""

import keras
import keras_tuner

from kerasrnn.arguments import one_of, positive_integer
from kerasrnn.cells import CELLS
from kerasrnn.layers import RNNStack
from kerasrnn.layers.stack import CONNECTIONS

TASKS = {
    "binary": ("sigmoid", "binary_crossentropy", "accuracy"),
    "multiclass": ("softmax", "sparse_categorical_crossentropy", "accuracy"),
    "regression": ("linear", "mean_squared_error", "mean_absolute_error"),
}


class RNNHyperModel(keras_tuner.HyperModel):
    """A compiled recurrent model for one label or number per sequence, with the choices that matter
    as hyperparameters.

        sequence -> [Embedding] -> RNNStack -> Dense

    Hyperparameters: `cell`, `units`, `depth`, `dropout`, `learning_rate` and `clipnorm` (a
    threshold per variable, as Keras's argument of that name).

    Args:
        task: `"binary"` (labels 0 or 1), `"multiclass"` (labels 0 to `outputs` - 1, not one-hot)
            or `"regression"`.
        vocabulary_size: For sequences of token numbers: how many there are, 0 being the padding.
        features: For sequences of vectors: their length. One of the two must be given.
        outputs: Size of the output; the number of classes for `"multiclass"`.
        cells: Names of registered cells to choose from; here and in the next three, a single value
            is no choice.
        units: The sizes of a layer's states to choose from.
        depths: The numbers of layers to choose from.
        dropouts: The dropout rates to choose from, used on the embedding, on every layer's input
            and before the last layer.
        learning_rates: Lower and upper bound; twice the same number fixes it.
        clipnorms: Lower and upper bound, likewise.
        connection: As in `RNNStack`; a residual connection has its input fitted where it must.
        bidirectional: As in `RNNStack`.

    Raises:
        ValueError: an unknown `task`, cell or connection, not exactly one of `vocabulary_size` and
            `features`, fewer than two classes, or bounds that are none.

    Example:

    >>> hypermodel = kerasrnn.tuning.RNNHyperModel("binary", features=3)
    >>> tuner = keras_tuner.RandomSearch(hypermodel, "val_accuracy", max_trials=5)
    """

    def __init__(
        self,
        task="binary",
        vocabulary_size=None,
        features=None,
        outputs=1,
        cells=("lstm", "gru"),
        units=(32, 64, 128),
        depths=(1, 2, 3),
        dropouts=(0.0, 0.2, 0.4, 0.6),
        learning_rates=(3e-4, 1e-2),
        clipnorms=(0.1, 10.0),
        connection="residual",
        bidirectional=True,
        name=None,
        tunable=True,
    ):
        super().__init__(name=name, tunable=tunable)
        if task not in TASKS:
            raise ValueError(f"`task` must be one of {', '.join(TASKS)}. Received: task={task!r}")
        if (vocabulary_size is None) == (features is None):
            raise ValueError(
                "Pass `vocabulary_size` for sequences of tokens, or `features` for sequences of "
                f"vectors. Received: vocabulary_size={vocabulary_size}, features={features}"
            )
        for name, value in (("vocabulary_size", vocabulary_size), ("features", features)):
            if value is not None:
                positive_integer(name, value)
        cells, units, depths, dropouts = (
            tuple(choices) if isinstance(choices, list | tuple) else (choices,)
            for choices in (cells, units, depths, dropouts)
        )
        unknown = [cell for cell in cells if cell not in CELLS]
        if unknown:
            raise ValueError(
                f"`cells` must name registered cells: {', '.join(CELLS)}. Received: {unknown}"
            )
        if task == "multiclass" and outputs < 2:
            raise ValueError(
                "`outputs` must be the number of classes for task='multiclass', 2 or more. "
                f"Received: outputs={outputs}"
            )
        for name, bounds in (("learning_rates", learning_rates), ("clipnorms", clipnorms)):
            if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
                raise ValueError(
                    f"`{name}` must be a lower and an upper bound above 0. "
                    f"Received: {name}={bounds}"
                )
        one_of(CONNECTIONS, "connection", connection)
        self.task = task
        self.vocabulary_size = vocabulary_size
        self.features = features
        self.outputs = outputs
        self.cells = cells
        self.units = units
        self.depths = depths
        self.dropouts = dropouts
        self.learning_rates = learning_rates
        self.clipnorms = clipnorms
        self.connection = connection
        self.bidirectional = bidirectional

    def build(self, hp):
        """Builds and compiles one model.

        Args:
            hp: `keras_tuner.HyperParameters`.

        Returns:
            A compiled `keras.Model`.
        """
        cell = hp.Choice("cell", list(self.cells))
        units = hp.Choice("units", list(self.units))
        depth = hp.Choice("depth", list(self.depths))
        dropout = hp.Choice("dropout", list(self.dropouts))
        learning_rate = hp.Float("learning_rate", *self.learning_rates, sampling="log")
        clipnorm = hp.Float("clipnorm", *self.clipnorms, sampling="log")

        width = units * (2 if self.bidirectional else 1)
        if self.vocabulary_size is not None:
            inputs = keras.Input((None,), dtype="int64")
            x = keras.layers.Embedding(self.vocabulary_size, width, mask_zero=True)(inputs)
            x = keras.layers.SpatialDropout1D(dropout)(x)
        else:
            inputs = x = keras.Input((None, self.features))
        x = RNNStack(
            cell,
            units,
            depth,
            connection=self.connection,
            bidirectional=self.bidirectional,
            project=True,
            dropout=dropout,
        )(x)
        x = keras.layers.Dropout(dropout)(x)
        activation, loss, metric = TASKS[self.task]
        model = keras.Model(inputs, keras.layers.Dense(self.outputs, activation=activation)(x))
        optimizer = keras.optimizers.Adam(learning_rate, clipnorm=clipnorm)
        model.compile(optimizer, loss, metrics=[metric])
        return model
