import csv
import pathlib
import warnings

import keras
import numpy as np
import tensorflow as tf

from kerasrnn.callbacks.gradient_hook import GradientHook
from kerasrnn.callbacks.gradient_record import GradientRecord
from kerasrnn.callbacks.update_hook import (
    clip_of,
    copied_without,
    innermost,
    require_optimizer,
)

_CAPACITY = 1024
# What an interrupted process loses of its CSV at most, in batches.
_FLUSH_EVERY = 100
_COLUMNS = ["update", "global_norm", "clipped_norm", "clipped"]


class GradientNormMonitor(keras.callbacks.Callback):
    """Records the norm of every variable's gradient at every optimizer update of a `fit`, before
    and after clipping, and what the clip did.

        n_v = ‖g_v‖_2        per variable v, as the optimizer gets it: averaged over accumulated
                             batches, loss scale removed, summed over replicas
        n   = (Σ_v n_v²)^½   global norm

    It works in a compiled `fit`, under `jit_compile`, `steps_per_execution`, gradient accumulation
    and mixed precision, and does not change a bit of the training. `grad_norm` (the median of the
    epoch's global norms before clipping) and `clip_rate` (the share of its updates that were
    clipped) appear in the progress bar, in `History` and to every callback after this one: put it
    first. Each `fit` starts a new record.

    Args:
        csv: Path of a CSV file to write, one row per update, or `None`.
        log_dir: Directory of TensorBoard logs to write, or `None`.

    Attributes:
        history: `"global_norm"` and `"clipped_norm"`, arrays (updates,), the global norms before
            and after clipping; `"variable_norms"` and `"clipped_variable_norms"`, arrays
            (updates, variables). A variable that got no gradient counts as 0.
        variables: The variables' paths, in the order of the columns.
        clip: The clip that was set, as `("clipnorm", 1.0)`, or `None`.
        clip_rate: Share of the updates that were clipped.

    Keras clips an embedding by `clipnorm` before it has summed the rows of tokens that occur more
    than once; the norms here are of the sums, which is what the weights get, so they need not end
    at the threshold.

    Raises:
        ValueError: at the start of `fit`, where the model has no optimizer.
        FileExistsError: at the start of `fit`, where `csv` is a file of something else; a record of
            an earlier `fit` is replaced.

    Warns:
        UserWarning: at the end of a `fit` in which the model's optimizer made no update.

    Source: Pascanu, Mikolov & Bengio (2013), section 3.2, for watching and clipping the norm.

    Example:

    >>> model = keras.Sequential([kerasrnn.layers.GRU(4), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.Adam(clipnorm=1.0), "mse")
    >>> monitor = kerasrnn.callbacks.GradientNormMonitor()
    >>> history = model.fit(np.ones((8, 5, 3)), np.ones((8, 1)), callbacks=[monitor], verbose=0)
    >>> monitor.history["global_norm"].shape
    (1,)
    """

    def __init__(self, csv=None, log_dir=None):
        super().__init__()
        self.csv = csv
        self.log_dir = log_dir
        self._hook = self._csv_file = self._summaries = None
        self._forget()

    def _forget(self):
        self.clip = None
        self.variables = []
        self._rows = np.zeros((0, 0), "float32")
        self._epoch_start = self._seen = self._read = self._batches = 0

    def __getstate__(self):
        self._read_out()
        return copied_without(self, self._hook, self._csv_file, self._summaries)

    def _record(self, first=0):
        self._read_out()
        return GradientRecord(self._rows[first:], self.variables, self.clip)

    @property
    def history(self):
        record = self._record()
        return {
            "global_norm": record.global_norm,
            "clipped_norm": record.clipped_norm,
            "variable_norms": record.before,
            "clipped_variable_norms": record.after,
        }

    @property
    def clip_rate(self):
        return self._record().clip_rate

    def suggest_clipnorm(self):
        """A clip threshold from the norms seen, for the next training.

        The norm that nine updates in ten stay below, but at most ten times the median: Pascanu,
        Mikolov & Bengio (2013, section 3.2) saw training converge with thresholds of a half to
        ten times the average norm. It is meant for the argument the optimizer clips by:
        for `clipnorm` it looks at each update's largest variable, else at the global norm.

        Returns:
            A float with `.argument`, the optimizer's argument it is meant for, and `.reason`: set
            it as in `Adam(**{s.argument: s})`. Printed, it says all three.

        Raises:
            ValueError: no update with finite gradients other than zero was recorded.
        """
        return self._record().suggest_clipnorm()

    def verdict(self):
        """What the recorded norms say, in plain words.

        Returns:
            A few sentences: NON-FINITE gradients with their first update and variable; VANISHING
            ones (median norm under 1e-7); EXPLODING ones (99th percentile over 100 times the
            median); CLIP TOO TIGHT, one that fires on more than half of the updates, or CLIP IDLE,
            one that never does; or HEALTHY.

        Raises:
            ValueError: no update was recorded.
        """
        return self._record().verdict()

    def plot(self):
        """Draws the norms over the updates, before and after clipping, on a logarithmic axis, with
        the clip threshold.

        Where the optimizer clips each variable by itself (`clipnorm`), a second panel shows what
        the threshold applies to: the largest variable's norm.

        Returns:
            A `matplotlib.figure.Figure`; `.savefig("norms.png")` writes it. Crosses on the lower
            edge are updates with an Inf or NaN.

        Raises:
            ValueError: no update was recorded.
        """
        return self._record().plot()

    def on_train_begin(self, logs=None):
        require_optimizer(self)
        self._open_outputs()
        self._forget()
        self.clip = clip_of(innermost(self.model.optimizer))
        capacity = max(_CAPACITY, 2 * self.model.steps_per_execution)
        self._hook = GradientHook(self, capacity)
        self._hook.attach()

    def on_train_batch_begin(self, batch, logs=None):
        self._hook.announce()

    def on_train_batch_end(self, batch, logs=None):
        before, self._seen = self._seen, self._hook.count()
        # A train_step of the user's own may update several times.
        as_many_again = 2 * self._seen - before
        self._batches += 1
        full = as_many_again - self._read > self._hook.capacity
        if full or self._batches % _FLUSH_EVERY == 0:
            self._read_out()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_start = len(self._record())

    def on_epoch_end(self, epoch, logs=None):
        record = self._record(self._epoch_start)
        if logs is not None and len(record):
            logs["grad_norm"] = float(np.median(record.global_norm))
            logs["clip_rate"] = record.clip_rate

    def on_train_end(self, logs=None):
        self._read_out()
        self._hook.detach()
        self._hook = None
        self._close_outputs()
        if not len(self._rows):
            warnings.warn(
                "GradientNormMonitor recorded nothing: the optimizer that the model was compiled "
                "with made no update in this fit.",
                stacklevel=2,
            )

    def _open_outputs(self):
        self._close_outputs()
        if self.csv:
            path = pathlib.Path(self.csv)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir() or (path.exists() and not _is_record(path)):
                raise FileExistsError(
                    "`csv` must name a new file or a record of an earlier fit, which it replaces. "
                    f"Received: csv={str(path)!r}, which holds something else"
                )
            self._csv_file = path.open("w", newline="", encoding="utf-8")
        if self.log_dir:
            self._summaries = tf.summary.create_file_writer(str(self.log_dir))

    def _close_outputs(self):
        for output in (self._csv_file, self._summaries):
            if output:
                output.close()
        self._csv_file = self._summaries = None

    def _read_out(self):
        """Takes in what the hook has written up to the last batch that was finished: after an
        interrupted `fit`, another one may go on writing."""
        if self._hook is None or self._seen == self._read:
            return
        rows, lost = self._hook.take(self._seen)
        first, self._read = self._read + lost, self._seen
        if lost:
            warnings.warn(
                f"GradientNormMonitor lost {lost} updates: more of them in one batch than its "
                f"buffer of {self._hook.capacity} holds. The record goes on without them.",
                stacklevel=2,
            )
        self.variables = self._hook.paths
        self._rows = np.concatenate([self._rows, rows]) if len(self._rows) else rows
        record = GradientRecord(rows, self.variables, self.clip)
        self._write_csv(first, record)
        self._write_summaries(first, record)

    def _write_csv(self, first, record):
        if not self._csv_file:
            return
        writer = csv.writer(self._csv_file)
        if self._csv_file.tell() == 0:
            writer.writerow([*_COLUMNS, *self.variables])
        for i, fired in enumerate(record.fired):
            norms = record.global_norm[i], record.clipped_norm[i]
            writer.writerow([first + i, *norms, int(fired), *record.before[i]])
        self._csv_file.flush()

    def _write_summaries(self, first, record):
        if not self._summaries:
            return
        with self._summaries.as_default():
            for i, norms in enumerate(record.before):
                step = first + i
                tf.summary.scalar("gradients/global_norm", record.global_norm[i], step)
                tf.summary.scalar("gradients/clipped_norm", record.clipped_norm[i], step)
                for path, norm in zip(self.variables, norms, strict=True):
                    tf.summary.scalar(f"gradients/{path}", norm, step)
        self._summaries.flush()


def _is_record(path):
    with path.open(encoding="utf-8", errors="replace") as file:
        start = file.readline()
    return not start or start.startswith(",".join(_COLUMNS))
