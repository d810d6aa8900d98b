import csv
import pathlib

import keras
import numpy as np
import tensorflow as tf

# A clip that only rounds has not fired; float32 norms agree to about 1e-6.
_FIRED = 1 - 1e-5
_CAPACITY = 1024


class Suggestion(float):
    """A clip threshold, usable as the number it is, with the reason for it.

    Attributes:
        argument: The optimizer's argument it is meant for, `"clipnorm"` or `"global_clipnorm"`.
        reason: One sentence.
    """

    def __new__(cls, value, argument, reason):
        self = super().__new__(cls, value)
        self.argument = argument
        self.reason = reason
        return self

    def __str__(self):
        return f"{self.argument}={float(self):.3g}: {self.reason}"


class GradientNormMonitor(keras.callbacks.Callback):
    """Records the norm of every variable's gradient at every optimizer update of a `fit`, before
    and after clipping, and what the clip did.

        n_v = ‖g_v‖_2        per variable v, as the optimizer gets it: averaged over accumulated
                             batches, loss scale removed, summed over replicas
        n   = (Σ_v n_v²)^½   global norm

    It works in a compiled `fit`, under `jit_compile`, `steps_per_execution`, gradient accumulation
    and mixed precision, and does not change a bit of the training. `grad_norm` (the median of the
    epoch's global norms before clipping) and `clip_rate` (the share of its updates that were
    clipped) appear in the progress bar, in `History` and to every callback after this one. Each
    `fit` starts a new record.

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

    Raises:
        ValueError: at the start of `fit`, where the model has no optimizer.

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
        self.clip = None
        self.variables = []
        self._rows = np.zeros((0, 0), "float32")
        self._hook = None
        self._epoch_start = 0
        self._unread = 0
        self._csv_file = self._summaries = None

    def __reduce__(self):
        # keras-tuner copies its callbacks for every trial; the hook and the model stay behind.
        return _restore, (type(self), self.csv, self.log_dir, self.clip, self.variables, self.rows)

    @property
    def rows(self):
        """All rows recorded so far: the norms before, then after clipping, (updates, 2 variables).

        After an interrupted `fit` too: what the hook has written is read out here.
        """
        self._read_out()
        return self._rows

    @property
    def history(self):
        before, after = np.split(self.rows, 2, axis=1)
        return {
            "global_norm": np.linalg.norm(before.astype("float64"), axis=1),
            "clipped_norm": np.linalg.norm(after.astype("float64"), axis=1),
            "variable_norms": before,
            "clipped_variable_norms": after,
        }

    @property
    def clip_rate(self):
        return _share(_fired(self.rows))

    def on_train_begin(self, logs=None):
        if not getattr(self.model, "optimizer", None):
            raise ValueError(
                "GradientNormMonitor needs a model compiled with an optimizer. "
                f"Received: model={self.model.name}"
            )
        optimizer = _innermost(self.model.optimizer)
        self.clip = _clip_of(optimizer)
        self.variables = []
        self._rows = np.zeros((0, 0), "float32")
        self._unread = self._epoch_start = 0
        self._hook = _Hook(self.model, optimizer)
        self._hook.attach()
        # The step has to be traced anew to pass through the hook, and once more without it.
        self.model.make_train_function(force=True)
        self._open_outputs()

    def on_train_batch_end(self, batch, logs=None):
        steps = self.model.steps_per_execution
        self._unread += steps
        if self._unread + steps > self._hook.capacity:
            self._read_out()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_start = len(self.rows)

    def on_epoch_end(self, epoch, logs=None):
        rows = self.rows[self._epoch_start :]
        if logs is not None and len(rows):
            before, _ = np.split(rows, 2, axis=1)
            logs["grad_norm"] = float(np.median(np.linalg.norm(before, axis=1)))
            logs["clip_rate"] = _share(_fired(rows))

    def on_train_end(self, logs=None):
        self._read_out()
        self._hook.detach()
        self._hook = None
        self.model.train_function = None
        if self._csv_file:
            self._csv_file.close()
        if self._summaries:
            self._summaries.close()
        self._csv_file = self._summaries = None

    def _open_outputs(self):
        if self.csv:
            path = pathlib.Path(self.csv)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._csv_file = path.open("w", newline="", encoding="utf-8")
        if self.log_dir:
            self._summaries = tf.summary.create_file_writer(str(self.log_dir))

    def _read_out(self):
        self._unread = 0
        new = self._hook.take() if self._hook else ()
        if not len(new):
            return
        first = len(self._rows)
        if not self.variables:
            self.variables = self._hook.paths
        self._rows = np.concatenate([self._rows, new]) if first else new
        self._write_csv(first, new)
        self._write_summaries(first, new)

    def _write_csv(self, first, rows):
        if not self._csv_file:
            return
        writer = csv.writer(self._csv_file)
        if first == 0:
            writer.writerow(["update", "global_norm", "clipped_norm", "clipped", *self.variables])
        before, after = np.split(rows, 2, axis=1)
        lines = zip(before, after, _fired(rows), strict=True)
        for update, (b, a, fired) in enumerate(lines, first):
            writer.writerow([update, np.linalg.norm(b), np.linalg.norm(a), int(fired), *b])
        self._csv_file.flush()

    def _write_summaries(self, first, rows):
        if not self._summaries:
            return
        before, after = np.split(rows, 2, axis=1)
        with self._summaries.as_default():
            for update, (b, a) in enumerate(zip(before, after, strict=True), first):
                tf.summary.scalar("gradients/global_norm", np.linalg.norm(b), update)
                tf.summary.scalar("gradients/clipped_norm", np.linalg.norm(a), update)
                for path, norm in zip(self.variables, b, strict=True):
                    tf.summary.scalar(f"gradients/{path}", norm, update)
        self._summaries.flush()

    def suggest_clipnorm(self):
        """A clip threshold from the norms seen.

        The norm that nine updates in ten stay below, held between a half and ten times the median:
        Pascanu, Mikolov & Bengio (2013, section 3.2) saw training converge with thresholds of a
        half to ten times the average norm. It is meant for the argument the optimizer clips by:
        for `clipnorm` it looks at each update's largest variable, else at the global norm.

        Returns:
            A `Suggestion`: the number, with `.argument` and `.reason`.

        Raises:
            ValueError: no update with finite gradients was recorded.
        """
        argument = "clipnorm" if self.clip and self.clip[0] == "clipnorm" else "global_clipnorm"
        norms = self._norms_for(argument)
        norms = norms[np.isfinite(norms)]
        if not len(norms):
            raise ValueError(
                "suggest_clipnorm() needs at least one update with finite gradients: call it after "
                f"fit. Received: {len(self.rows)} recorded updates"
            )
        median, high = np.percentile(norms, [50, 90])
        value = float(np.clip(high, 0.5 * median, 10 * median))
        what = "the largest variable's" if argument == "clipnorm" else "the global"
        share = _share(norms > value)
        return Suggestion(
            value,
            argument,
            f"{what} gradient norm had a median of {median:.3g} and a 90th percentile of "
            f"{high:.3g} over {len(norms)} updates; this threshold cuts the largest "
            f"{share:.0%} and leaves the others as they are",
        )

    def _norms_for(self, argument):
        history = self.history
        if argument == "clipnorm":
            return history["variable_norms"].max(axis=1, initial=0.0)
        return history["global_norm"]

    def verdict(self):
        """What the recorded norms say, in plain words.

        Returns:
            A few sentences: non-finite gradients with their first update and variable; exploding
            ones (99th percentile over 100 times the median); a clip that fires on more than half of
            the updates or on none; or health.

        Raises:
            ValueError: no update was recorded.
        """
        norms = self.history["global_norm"]
        if not len(norms):
            raise ValueError("verdict() needs recorded updates: call it after fit.")
        findings = []
        bad = np.argwhere(~np.isfinite(self.history["variable_norms"]))
        if len(bad):
            update, variable = bad[0]
            findings.append(
                f"NON-FINITE: update {update} was the first of {len(np.unique(bad[:, 0]))} with an "
                f"Inf or NaN in its gradients, in {self.variables[variable]}. The weights are lost "
                "from there on: go back to an earlier checkpoint, and lower the learning rate."
            )
            norms = norms[np.isfinite(norms)]
        median, top = np.percentile(norms, [50, 99]) if len(norms) else (0.0, 0.0)
        if top > 100 * median:
            findings.append(
                f"EXPLODING: one update in a hundred has a gradient norm over {top:.3g}, "
                f"{top / max(median, 1e-30):.0f} times the median of {median:.3g}. Clip the "
                f"gradients: {self.suggest_clipnorm()}."
            )
        findings += self._clip_findings()
        if not findings:
            findings.append(
                f"HEALTHY: over {len(norms)} updates the gradient norm stayed finite and even, "
                f"with a median of {median:.3g} and a 99th percentile of {top:.3g}."
            )
            if self.clip:
                findings.append(f"The clip fired on {self.clip_rate:.0%} of them.")
        return "\n".join(findings)

    def _clip_findings(self):
        if self.clip is None:
            return []
        argument, value = self.clip
        if self.clip_rate > 0.5:
            return [
                f"CLIP TOO TIGHT: {argument}={value:g} cut {self.clip_rate:.0%} of the updates. A "
                "clip that fires on most of them is a lower learning rate in disguise."
            ]
        if self.clip_rate == 0:
            return [f"CLIP IDLE: {argument}={value:g} never fired; training ran as if without it."]
        return []

    def plot(self):
        """Draws the norms over the updates, before and after clipping, on a logarithmic axis, with
        the clip threshold.

        Where the optimizer clips each variable by itself (`clipnorm`), a second panel shows what
        the threshold applies to: the largest variable's norm.

        Returns:
            A `matplotlib.figure.Figure`; `.savefig("norms.png")` writes it.
        """
        from matplotlib.figure import Figure

        history = self.history
        panels = [("global gradient norm", history["global_norm"], history["clipped_norm"])]
        if self.clip and self.clip[0] == "clipnorm":
            largest = (
                history[key].max(axis=1, initial=0.0)
                for key in ("variable_norms", "clipped_variable_norms")
            )
            panels.append(("largest variable's gradient norm", *largest))

        figure = Figure(figsize=(8, 3.2 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axis, (label, before, after) in zip(axes, panels, strict=True):
            axis.plot(before, color="0.65", linewidth=1.6, label="before clipping")
            axis.plot(after, color="tab:blue", linewidth=0.8, label="after clipping")
            axis.set_yscale("log")
            axis.set_ylabel(label)
        if self.clip and self.clip[0] != "clipvalue":
            argument, value = self.clip
            axes[-1].axhline(
                value, color="tab:red", linestyle="--", label=f"threshold, {argument}={value:g}"
            )
        figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        axes[-1].set_xlabel("optimizer update")
        axes[0].set_title(f"Gradients: {len(self.rows)} updates, {self.clip_rate:.0%} clipped")
        return figure


def _restore(cls, csv, log_dir, clip, variables, rows):
    monitor = cls(csv, log_dir)
    monitor.clip, monitor.variables, monitor._rows = clip, variables, rows
    return monitor


def _fired(rows):
    before, after = np.split(rows, 2, axis=1)
    return (after < before * _FIRED).any(axis=1)


def _share(flags):
    return float(np.mean(flags)) if len(flags) else 0.0


def _innermost(optimizer):
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def _clip_of(optimizer):
    for argument in ("clipnorm", "global_clipnorm", "clipvalue"):
        value = getattr(optimizer, argument, None)
        if value and value > 0:
            return argument, float(value)
    return None


class _Hook:
    """Sees the gradients at the one place where every `fit` brings them in their final form.

    It shadows two methods on the optimizer *instance*: `_backend_apply_gradients`, which has the
    variables, and `_clip_gradients`, which it calls when an update is really made, with gradients
    that are unscaled and averaged. These are Keras internals; tests/test_seams.py names them.
    """

    METHODS = ("_backend_apply_gradients", "_clip_gradients")

    def __init__(self, model, optimizer):
        self.model = model
        self.optimizer = optimizer
        self.capacity = max(_CAPACITY, 2 * model.steps_per_execution)
        self.paths = []
        self._ring = None
        self._updated = []
        self._taken = 0

    def attach(self):
        # What an interrupted fit left behind shadows these names too.
        self.detach()
        # Only a model under a distribution strategy is sure to be built before the first step, and
        # only there it has to be: the replicas could not agree on a variable made while tracing.
        if self.model.built:
            self._allocate()
        apply, clip = (getattr(self.optimizer, name) for name in self.METHODS)

        def _backend_apply_gradients(grads, trainable_variables):
            if self._ring is None:
                with tf.init_scope():
                    self._allocate()
            self._updated = list(trainable_variables)
            return apply(grads, trainable_variables)

        def _clip_gradients(grads):
            clipped = clip(grads)
            self._record(grads, clipped)
            return clipped

        shadows = (_backend_apply_gradients, _clip_gradients)
        self.optimizer.__dict__.update(zip(self.METHODS, shadows, strict=True))

    def detach(self):
        for name in self.METHODS:
            self.optimizer.__dict__.pop(name, None)

    def _allocate(self):
        variables = self.model.trainable_variables
        self.paths = [v.path for v in variables]
        # A custom train_step may hand over the tf.Variable inside the Keras one.
        self._columns = {id(ref): i for i, v in enumerate(variables) for ref in (v, v.value)}
        self._ring = tf.Variable(tf.zeros((self.capacity, 2 * len(variables))), trainable=False)
        self._count = tf.Variable(0, dtype="int64", trainable=False)

    def take(self):
        """The rows written since the last call, as an array."""
        if self._ring is None:
            return np.zeros((0, 0), "float32")
        count = int(self._count)
        rows = np.take(self._ring.numpy(), range(self._taken, count), axis=0, mode="wrap")
        self._taken = count
        return rows

    def _record(self, grads, clipped):
        replica = tf.distribute.get_replica_context()
        if replica and replica.num_replicas_in_sync > 1:
            grads, clipped = (
                replica.all_reduce(tf.distribute.ReduceOp.SUM, list(g)) for g in (grads, clipped)
            )
            if tf.get_static_value(tf.convert_to_tensor(replica.replica_id_in_sync_group)) != 0:
                return
        norms = [tf.norm(tf.cast(_dense_rows(g), "float32")) for g in [*grads, *clipped]]
        columns = [self._columns[id(v)] for v in self._updated]
        columns += [len(self.paths) + c for c in columns]
        row = tf.scatter_nd([[c] for c in columns], norms, [2 * len(self.paths)])
        self._ring.scatter_nd_update([[self._count % self.capacity]], row[None])
        self._count.assign_add(1)


def _dense_rows(gradient):
    """The gradient, with rows of the same index in an `IndexedSlices` summed.

    By sorting, since `tf.unique` has no static shape and so no XLA.
    """
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    indices = tf.reshape(gradient.indices, [-1])
    order = tf.argsort(indices)
    sorted_indices = tf.gather(indices, order)
    starts = tf.cast(sorted_indices[1:] != sorted_indices[:-1], "int32")
    segments = tf.concat([[0], tf.cumsum(starts)], axis=0)
    return tf.math.unsorted_segment_sum(
        tf.gather(gradient.values, order), segments, tf.size(indices)
    )
