import keras
import numpy as np
from keras import tree

from kerasrnn.arguments import positive_integer
from kerasrnn.backends import require_tensorflow
from kerasrnn.copying import copied_without
from kerasrnn.diagnostics import plots
from kerasrnn.diagnostics.flow import Measurement
from kerasrnn.diagnostics.probe import NoRecurrentLayer
from kerasrnn.inside import layers_in
from kerasrnn.updates.kept_step import TraceConstants


class GradientFlowMonitor(keras.callbacks.Callback):
    """Measures the gradient through time, `kerasrnn.diagnostics.gradient_flow`, on a fixed batch
    while a model trains.

    The measurement runs beside the training and does not change it. Each `fit` starts a new record.
    Its first measurement, before the training, is not recorded: it is to show what is wrong.

    Args:
        x, y: The batch, as for `fit`.
        every: Number of epochs from one measurement to the next.

    Attributes:
        history: A `GradientFlow` for each measurement.
        epochs: The epochs at whose ends they were made, from 1.

    Raises:
        RuntimeError: Keras's backend is not TensorFlow.
        ValueError: `every` is no positive integer; at the start of `fit`, or after the first batch
            where that one builds the model, if there is no recurrent layer that takes part, or if
            the model cannot be run on `x` or its loss not be computed with `y`.

    Example:

    >>> x, y = np.ones((8, 5, 3)), np.ones((8, 1))
    >>> model = keras.Sequential([kerasrnn.layers.GRU(4, name="gru"), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> monitor = kerasrnn.callbacks.GradientFlowMonitor(x, y, every=2)
    >>> history = model.fit(x, y, epochs=4, callbacks=[monitor], verbose=0)
    >>> monitor.epochs, monitor.history[-1].norms["gru"].shape
    ([2, 4], (5,))
    """

    def __init__(self, x, y, every=1):
        super().__init__()
        require_tensorflow(
            "kerasrnn.callbacks.GradientFlowMonitor",
            "call kerasrnn.diagnostics.gradient_flow between two fits",
        )
        self.x, self.y = x, y
        self.every = positive_integer("every", every)
        self.history, self.epochs = [], []
        self._measure = self._constants = self._loss = None
        self._checked = False

    def __getstate__(self):
        return copied_without(self, self._measure, self._constants, self._loss)

    def on_train_begin(self, logs=None):
        self.history, self.epochs = [], []
        # In a `fit` the hook of other callbacks is on it.
        self._loss = self.model.compute_loss
        if self._constants is None or self._constants != self._constants_now():
            self._measure, self._constants = Measurement(self.model, trace=True), None
        self._checked = False
        # Others are built by the data of `fit`, not by a batch that may not fit it.
        if all(layer.built for layer in layers_in(self.model)):
            self._check()

    def fit_state(self):
        """The record of the `fit` so far, for `go_on_from`."""
        return self.history, self.epochs

    def go_on_from(self, state):
        """Begins the record of a `fit` that has begun with the one of which a `fit_state` is."""
        self.history, self.epochs = map(list, state)

    def on_train_batch_end(self, batch, logs=None):
        if not self._checked:
            self._check()

    def _check(self):
        """Measures once, which is traced for the times to come, so that what is wrong shows before
        the training and not in the middle of it."""
        try:
            self._measure(self.x, self.y)
        except NoRecurrentLayer:
            raise
        except Exception as error:
            batch = self.x, self.y
            x, y = tree.map_structure(lambda v: None if v is None else np.shape(v), batch)
            raise ValueError(
                "GradientFlowMonitor cannot measure with its batch: the model must run on `x`, and "
                "its loss take `y`, as in `fit`. The error above tells more. "
                f"Received: model={self.model.name}, x and y of the shapes {x} and {y}"
            ) from error
        self._checked, self._constants = True, self._constants_now()

    def _constants_now(self):
        return TraceConstants(self.model, self._loss)

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0:
            self.history.append(self._measure(self.x, self.y))
            self.epochs.append(epoch + 1)

    def plot(self):
        """Draws the slope of each layer over the epochs: what one step further back adds to the log
        of the gradient, 0 where it neither vanishes nor explodes.

        Returns:
            A `matplotlib.figure.Figure`; `.savefig("slopes.png")` writes it.

        Raises:
            ValueError: nothing was measured.
        """
        if not self.history:
            raise ValueError("plot() needs measurements: call it after fit.")
        return plots.slopes(self.epochs, self.history)
