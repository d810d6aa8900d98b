import warnings

import keras
import numpy as np

from kerasrnn.arguments import positive_integer
from kerasrnn.backends import require_tensorflow
from kerasrnn.copying import copied_without
from kerasrnn.diagnostics import plots
from kerasrnn.diagnostics.health.findings import verdicts
from kerasrnn.diagnostics.health.measured import Measured
from kerasrnn.files import located, path
from kerasrnn.updates.alarm import Alarm
from kerasrnn.updates.folders import Folders, of_copies
from kerasrnn.updates.hook import UpdateHook, require_optimizer
from kerasrnn.updates.outputs import CSVRecord, SummaryRecord
from kerasrnn.updates.record import GradientRecord
from kerasrnn.updates.recorder import NormRecorder
from kerasrnn.updates.suggestion import suggest_clipnorm

_CAPACITY = 1024
# A training may go wrong for so many updates before the loss shows it or the norms are looked at.
_LISTEN_EVERY = 10
# What an interrupted process loses of its CSV at most, in batches.
_FLUSH_EVERY = 100


class GradientNormMonitor(keras.callbacks.Callback):
    """Records the norm of every variable's gradient at every optimizer update of a `fit`, before
    and after clipping, and what the clip did.

        n_v = ‖g_v‖_2        per variable v, as the optimizer gets it: averaged over accumulated
                             batches, loss scale removed, summed over replicas
        n   = (Σ_v n_v²)^½   global norm

    It works in a compiled `fit`, under `jit_compile`, `steps_per_execution`, gradient accumulation
    and mixed precision, and does not change a bit of the training, but for the rounding of a clip
    that multiplies gradients by a factor, as `global_clipnorm` and `GradientClipping` do: where
    nothing else reads the product, TensorFlow's graph optimizer may multiply factor and learning
    rate first. Under JAX it does not see updates inside of a loss scaling (`mixed_float16`), nor
    those of a `keras.distribution`. `grad_norm` (the median of the epoch's global norms before
    clipping, a NaN the largest among them) and `clip_rate` (the share of its updates that were
    clipped) appear in the
    progress bar, in `History` and to every callback after this one: put it first. Each `fit` starts
    a new record.

    Files are those of the first model that a monitor is fitted with. Other models with the same
    monitor, and all with a copy of it, as keras-tuner makes one for every `fit`, have a folder for
    each `fit`, `fit-1`, `fit-2` and so on, beside the `csv` and in the `log_dir`.

    Args:
        csv: Path of a CSV file to write, one row per update, or an address that `tf.io.gfile`
            knows, as "gs://bucket/norms.csv", or `None`.
        log_dir: Directory of TensorBoard logs to write, or an address, or `None`.
        batch_size: Samples per update, all accumulated ones together, for `noise_scale`, which then
            appears in the logs, too; it takes the memory of one more gradient of every variable.
            `None` leaves it out.

    Attributes:
        history: `"global_norm"` and `"clipped_norm"`, arrays (updates,), the global norms before
            and after clipping; `"variable_norms"` and `"clipped_variable_norms"`, arrays
            (updates, variables). A variable that got no gradient counts as 0. `"loss"`, (updates,),
            that of the update's batches, regularizers included, NaN where a `train_step` of your
            own does not call `compute_loss`; `"update_ratio"`, (updates, variables), ‖Δw‖/‖w‖, how
            far the update moved each variable, about 1e-3 where the learning rate is right
            (Karpathy, Stanford CS231n, "Ratio of weights:updates").
        gate_norms: `gate_norms[path][gate]`, an array (updates,): for each recurrent kernel, of
            this package's cells and of Keras's, the norm before clipping of each gate's columns;
            their squares add up to that of the kernel's. A cell of this package names its gates
            itself; those of Keras's are i, f, g, o (LSTM), z, r, g (GRU) and h (SimpleRNN).
        variables: The variables' paths, in the order of the columns.
        clip: The clip that was set when the first batch began, as `("clipnorm", 1.0)` of the
            optimizer or `("global_norm", 1.0)`, mode and value of a `GradientClipping`, or `None`.
        clip_rate: Share of the updates that were clipped.

    Keras clips an embedding by `clipnorm` before it has summed the rows of tokens that occur more
    than once; the norms here are of the sums, which is what the weights get, so they need not end
    at the threshold.

    Raises:
        ValueError: `csv` or `log_dir` is no path, or leads through a file, or `batch_size` is no
            positive integer; at the start of `fit`, where the model has no optimizer, or
            has `jit_compile=True` under a strategy of several replicas, or under JAX a loss
            scaling or a `keras.distribution`.
        RuntimeError: there is a `log_dir`, or an address, and Keras's backend is not TensorFlow.
        FileExistsError: at the start of `fit`, where `csv` is a file of something else; a record of
            an earlier `fit` is replaced.

    Warns:
        UserWarning: once in a `fit` without a `DivergenceGuard`, where the gradients of ten updates
            in a row hold an Inf or NaN, or a global norm is over a thousand times its running
            median, that of up to a hundred finite ones before it; at the end of a `fit` in which
            the model's optimizer made no update; where a monitor that has recorded nothing is asked
            for its record, but was copied: it names the files of its copies.

    Source: Pascanu, Mikolov & Bengio (2013), section 3.2, for watching and clipping the norm;
    McCandlish et al. (2018) for the noise scale.

    Example:

    >>> model = keras.Sequential([kerasrnn.layers.GRU(4), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.Adam(clipnorm=1.0), "mse")
    >>> monitor = kerasrnn.callbacks.GradientNormMonitor()
    >>> history = model.fit(np.ones((8, 5, 3)), np.ones((8, 1)), callbacks=[monitor], verbose=0)
    >>> monitor.history["global_norm"].shape
    (1,)
    >>> {gate: norms.shape for gate, norms in monitor.gate_norms[monitor.variables[1]].items()}
    {'z': (1,), 'r': (1,), 'g': (1,)}
    """

    def __init__(self, csv=None, log_dir=None, batch_size=None):
        super().__init__()
        self.csv = path("csv", csv)
        self.log_dir = path("log_dir", log_dir, directory=True)
        if log_dir is not None:
            require_tensorflow(
                "GradientNormMonitor(log_dir=...)", "write the norms to a `csv` of its own"
            )
        if batch_size is not None:
            batch_size = positive_integer("batch_size", batch_size)
        self.batch_size = batch_size
        self._hook = self._recorder = self._filter = None
        self._folders = Folders()
        self._outputs = []
        self._copied = False
        self._forget()

    def _forget(self):
        self.clip = self._skipped = self._alarm = None
        self.variables = []
        self._gates = {}
        self._rows = np.zeros((0, 0), "float32")
        self._before = 0
        self._epoch_start = self._seen = self._read = self._heard = self._batches = 0

    def __getstate__(self):
        self._read_out()
        self._copied = True
        left_behind = self._hook, self._recorder, self._filter, self._folders
        return copied_without(self, *left_behind) | {"_outputs": [], "_copied": False}

    def __setstate__(self, state):
        vars(self).update(state, _folders=Folders(copied=True))

    def keep_in(self, folder, suffix=""):
        """Has the next `fit` write its files in a folder, a `pathlib.Path` or `Address`, and a CSV
        in any case: for a search, whose trials have folders of their own."""
        name = located("csv", self.csv or "gradient_norms.csv").name
        stem, dot, ending = name.rpartition(".")
        self.csv = folder / (f"{stem}{suffix}{dot}{ending}" if dot else name + suffix)
        if self.log_dir:
            self.log_dir = folder / (located("log_dir", self.log_dir).name + suffix)
        self._folders = Folders()

    def fit_state(self):
        """The record of the `fit` so far, for `go_on_from`."""
        self._read_out()
        updates = self._before + self._read
        return updates, self._rows, self.variables, self._gates, self.clip, self._skipped

    def go_on_from(self, state):
        """Begins the record of a `fit` that has begun with the one of which a `fit_state` is."""
        self._before, self._rows, self.variables, self._gates, self.clip, self._skipped = state
        if len(self._rows):
            record = GradientRecord(self._rows, self.variables, self.clip, self._gates)
            for output in self._outputs:
                output.write(self._before - len(self._rows), record)

    def gradient_record(self, first=0):
        """The norms of the updates so far, from number `first` on, as a
        `kerasrnn.updates.record.GradientRecord`; what `health_report` reads."""
        self._read_out()
        return GradientRecord(
            self._rows[first:],
            self.variables,
            self.clip,
            self._gates,
            self._skipped,
            "" if len(self._rows) else self._on_copies(),
        )

    def _on_copies(self):
        """Where the records of its copies are, if it was copied."""
        if not self._copied:
            return ""
        written = [
            str(folder / name)
            for place, name in self._places()
            for folder in of_copies(place)
            if (folder / name).exists()
        ]
        where = f"they are in {', '.join(written)}" if written else "none of them is in a file"
        if not (self.csv or self.log_dir):
            where = "with a `csv` or a `log_dir` each fit of a copy writes to a folder of its own"
        return (
            "It was copied, as keras-tuner does for every fit, and the records are those of the "
            f"copies: {where}."
        )

    def _places(self):
        """The folders in which copies make theirs, and what each writes there."""
        if self.csv:
            csv = located("csv", self.csv)
            yield csv.parent, csv.name
        if self.log_dir:
            yield located("log_dir", self.log_dir), "."

    def _some_record(self, method):
        record = self.gradient_record()
        if not len(record):
            raise ValueError(
                f"{method}() needs recorded updates: call it after fit. {record.absence}".rstrip()
            )
        return record

    def _any_record(self):
        record = self.gradient_record()
        if record.absence:
            warnings.warn(
                f"GradientNormMonitor has recorded nothing. {record.absence}", stacklevel=3
            )
        return record

    @property
    def history(self):
        record = self._any_record()
        return {
            "global_norm": record.global_norm,
            "clipped_norm": record.clipped_norm,
            "variable_norms": record.before,
            "clipped_variable_norms": record.after,
            "loss": record.loss,
            "update_ratio": record.update_ratio,
        }

    @property
    def gate_norms(self):
        return self._any_record().gate_norms

    @property
    def clip_rate(self):
        return self._any_record().clip_rate

    @property
    def noise_scale(self):
        """The gradient noise scale: the batch size beyond which a larger one hardly makes a step
        any better.

            B_simple = tr(Σ) / |G|²        G, Σ: mean and covariance of a sample's gradient
            |G|²     ≈ <g_k · g_{k-1}>     successive gradients, before clipping
            tr(Σ)    ≈ B (<|g_k|²> - <g_k · g_{k-1}>)

        <> is the mean over the updates recorded, B the `batch_size`. These are the unbiased
        estimates of McCandlish et al. (2018, appendix A.1) with a batch for the small one and two
        in a row for the big one. It takes them to be drawn independently and the weights to move
        little from one to the next; it grows as training goes on, which the `noise_scale` of each
        epoch in `History` shows.

        Samples, a float: infinite where the noise of the updates hides the gradient, NaN without
        two updates in a row that are finite.

        Raises:
            ValueError: the monitor was made without `batch_size`.
        """
        if self.batch_size is None:
            raise ValueError(
                "noise_scale needs the number of samples per update: "
                "GradientNormMonitor(batch_size=32). Received: batch_size=None"
            )
        return self._any_record().noise_scale(self.batch_size)

    def suggest_clipnorm(self, window=None):
        """A clip threshold from the norms seen, for the next training.

        The norm that nine updates in ten stay below, but at most ten times the median: Pascanu,
        Mikolov & Bengio (2013, section 3.2) saw training converge with thresholds of a half to
        ten times the average norm. It is meant for the kind of clip that was set: for one of each
        variable by itself, `clipnorm` or `GradientClipping("norm")`, it looks at each update's
        largest variable, else at the global norm. A clip with a fixed threshold that fired on more
        than half of the updates is named what it is, a lower learning rate in disguise.

        Args:
            window: How many of the last updates to look at; `None` for all.

        Returns:
            A float with `.argument`, the optimizer's argument it is meant for, `.mode`, that of
            `GradientClipping`, and `.reason`: set it as in `Adam(**{s.argument: s})` or
            `GradientClipping(s.mode, s)`. Printed, it says which value of what, and why.

        Raises:
            ValueError: `window` is no positive integer; no update with finite gradients other than
                zero was recorded; the training diverged so early that nothing before it shows what
                is usual. What comes after that is never looked at.
        """
        if window is not None:
            window = positive_integer("window", window)
        return suggest_clipnorm(self.gradient_record(), window)

    def verdict(self):
        """What the recorded norms say, in plain words.

        Returns:
            A few sentences, each beginning with LEARNING RATE, NON-FINITE, EXPLODING, VANISHING,
            CLIP TOO TIGHT, CLIP IDLE or HEALTHY: `kerasrnn.diagnostics.health_report` lists what
            each rests on. Whether a gradient vanishes through time, norms over all time steps do
            not show: that is the matter of that report.

        Raises:
            ValueError: no update was recorded.
        """
        return "\n".join(map(str, self.verdicts()))

    def verdicts(self):
        """The same, as data.

        Returns:
            A list of `kerasrnn.diagnostics.Verdict`.

        Raises:
            ValueError: no update was recorded.
        """
        return verdicts(Measured(record=self._some_record("verdict")))

    def plot(self):
        """Draws the norms over the updates, before and after clipping, on a logarithmic axis, with
        the clip threshold, and below them, layers by updates, the norm of each layer.

        Where each variable is clipped by itself (`clipnorm`, "norm"), a second panel shows what the
        threshold applies to: the largest variable's norm. No threshold is drawn that is none of
        norms, as of "value", or has no fixed place, as of "percentile".

        Returns:
            A `matplotlib.figure.Figure`; `.savefig("norms.png")` writes it. Crosses on the lower
            edge are updates with an Inf or NaN, hatched layers had one or no gradient at all.

        Raises:
            ValueError: no update was recorded.
        """
        return plots.gradient_norms(self._some_record("plot"))

    def on_train_begin(self, logs=None):
        require_optimizer(self)
        self._open_outputs()
        self._forget()
        capacity = max(_CAPACITY, 2 * self.model.steps_per_execution)
        self._hook = UpdateHook.of(self)
        products = self.batch_size is not None
        self._recorder = self._hook.part(self, NormRecorder, capacity, products)
        self._hook.observe(self._recorder)
        self._alarm = Alarm()

    def on_train_batch_begin(self, batch, logs=None):
        self._hook.announce()
        if not self._batches:
            # A GradientClipping or a DivergenceGuard may begin after this callback, and a guard end
            # before it.
            self.clip, self._filter = self._hook.clip, self._hook.filter

    def on_train_batch_end(self, batch, logs=None):
        before, self._seen = self._seen, self._recorder.count()
        # A user's train_step may update several times.
        as_many_again = 2 * self._seen - before
        self._batches += 1
        many = self._seen - self._heard >= _LISTEN_EVERY
        if many or not np.isfinite((logs or {}).get("loss", 0.0)):
            self._listen()
        full = as_many_again - self._read > self._recorder.capacity
        if full or self._batches % _FLUSH_EVERY == 0:
            self._read_out()

    def _listen(self):
        # A guard acts by itself, and says so.
        if self._alarm is None or self._filter:
            return
        norms = self._recorder.norms(self._heard, self._seen)
        self._heard = self._seen
        if wrong := self._alarm.hear(self._seen - len(norms), norms):
            self._alarm = None
            warnings.warn(
                f"GradientNormMonitor: {wrong}. `kerasrnn.callbacks.DivergenceGuard()` among the "
                "callbacks skips an Inf or NaN, and goes back where the loss explodes.",
                stacklevel=2,
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_start = len(self.gradient_record())

    def on_epoch_end(self, epoch, logs=None):
        self._listen()
        record = self.gradient_record(self._epoch_start)
        if logs is not None and len(record):
            # NaN counts as larger than any number: of one update, or none, a median needs no more.
            logs["grad_norm"] = float(np.median(np.nan_to_num(record.global_norm, nan=np.inf)))
            logs["clip_rate"] = record.clip_rate
            if self.batch_size is not None:
                logs["noise_scale"] = record.noise_scale(self.batch_size)

    def on_train_end(self, logs=None):
        self._read_out()
        self._hook.release(self._recorder)
        self._hook = self._recorder = self._filter = None
        self._close_outputs()
        if not len(self._rows):
            warnings.warn(
                "GradientNormMonitor recorded nothing: the optimizer that the model was compiled "
                "with made no update in this fit.",
                stacklevel=2,
            )

    def _open_outputs(self):
        self._close_outputs()
        folder = self._folders.of_fit(self.model)
        if self.csv:
            csv = located("csv", self.csv)
            self._outputs.append(CSVRecord(folder(csv.parent) / csv.name))
        if self.log_dir:
            self._outputs.append(SummaryRecord(folder(located("log_dir", self.log_dir))))
        self._folders.written(self.model)

    def _close_outputs(self):
        for output in self._outputs:
            output.close()
        self._outputs = []

    def _read_out(self):
        """Takes in what the recorder has written up to the last batch that was finished: after an
        interrupted `fit`, another one may go on writing."""
        if self._recorder is None or self._seen == self._read:
            return
        rows, lost = self._recorder.take(self._seen)
        first, self._read = self._before + self._read + lost, self._seen
        self._skipped = self._filter and self._filter.skipped
        if lost:
            warnings.warn(
                f"GradientNormMonitor lost {lost} updates: more of them in one batch than its "
                f"buffer of {self._recorder.capacity} holds. The record goes on without them.",
                stacklevel=2,
            )
        self.variables, self._gates = self._recorder.paths, self._recorder.gates
        self._rows = np.concatenate([self._rows, rows]) if len(self._rows) else rows
        record = GradientRecord(rows, self.variables, self.clip, self._gates)
        for output in self._outputs:
            output.write(first, record)
