import math
import numbers
import warnings

import keras
import numpy as np

from kerasrnn.arguments import positive_integer, real_number
from kerasrnn.backends import BACKEND
from kerasrnn.copying import copied_without
from kerasrnn.files import located, path
from kerasrnn.inside import kept_states, stateful_layers
from kerasrnn.updates.explosion import ExplosionRule, described
from kerasrnn.updates.folders import Folders
from kerasrnn.updates.hook import UpdateHook
from kerasrnn.updates.nonfinite import NonFiniteFilter
from kerasrnn.updates.optimizers import innermost
from kerasrnn.updates.scaled_schedule import lowered
from kerasrnn.updates.snapshot import Snapshot
from kerasrnn.updates.state_file import StateFile

Schedule = keras.optimizers.schedules.LearningRateSchedule
# What a `fit` that goes on in another process has to know, beside copies and counts.
_OF_FIT = "skipped", "rollbacks", "first_nonfinite", "_well", "_explosion_rule"
_SPOILT = "the weights or the optimizer's variables held an Inf or NaN"


class DivergenceGuard(keras.callbacks.Callback):
    """Skips updates whose gradients hold an Inf or NaN, and goes back to a good state where
    skipping does not help: a NaN costs one step, not a run.

    A gradient counts as non-finite by any entry, as the optimizer gets it: loss scale removed, of
    any replica. Then nothing of the update happens, in the graph: weights, slots, accumulated
    gradients, averages and the count of iterations stay, an accumulated update waits for one more
    batch, and stateful recurrent layers go on from the states they had before the batch, finite
    ones too. The metrics leave the batch out, and statistics that its forward pass has spoilt, as
    those of a batch normalization, come back from the newest copy. What loss scaling skips never
    reaches the guard, but for states that are Inf or NaN after it, which go back in the same way.

    After `max_skips` batches in a row that were skipped, after a loss explosion, or where weights
    are found to be Inf or NaN, it restores weights, optimizer and loss scale as they last were
    good, multiplies the learning rate by `lr_factor`, warns, and goes on with the next batch. The
    weights that an update has changed are looked at after it, the optimizer's variables and all
    other weights with every copy and at the end of every epoch; put it before callbacks that save
    then. A good state is one that was finite, and was followed by `every` batches without a skip or
    an explosion; before that, the first there was.

    {explosion}

    An infinite loss explodes, too, and the metrics leave it out.

    Under `steps_per_execution` all this is done between executions, whose mean loss counts, and the
    metrics leave out all batches of an execution in which one was skipped. Where none is left of an
    epoch, its metrics are NaN to callbacks after this one and in `History`; in the logs of batches
    they are 0 until one counts, as Keras has it.

    Good states are two copies in memory of the model's weights, of what its stateful layers hold
    and of the optimizer's variables. With a `directory` the one it would go back to is also in a
    file, which is replaced at once or not at all (at an address as far as its file system can) and
    so is whole whenever the process dies. The next `fit` takes it up if it is from a later
    iteration than the optimizer's; `BackupAndRestore` beside it knows the epoch, gets no NaN to
    save and, from a guard that gives up, no chance to delete its backup.

    The `directory` belongs to one training: that of the first model that a guard is fitted with,
    and, when the process was killed, of the one that the same script begins anew. Other models with
    the same guard, and all with a copy of it, as keras-tuner makes one for every `fit`, begin where
    they are, and have a folder in it for each `fit`: `fit-1`, `fit-2` and so on. A search that goes
    on in another process thus begins the trial that was running anew, as keras-tuner does; give
    `DivergenceGuard` such a folder as its `directory` to go on from a state that is left there.

    Args:
        max_skips: Positive integer, skipped batches in a row that are too many.
        max_rollbacks: Integer, 0 or more; how often a `fit` goes back before it gives up.
        lr_factor: In (0, 1], what a learning rate is multiplied by. A `LearningRateSchedule` is
            wrapped, and goes back along its course with the iterations; a `LearningRateScheduler`
            sets a rate of its own again in the next epoch. A rate that was cut is saved with the
            optimizer; the factor of a wrapped schedule is not, and a resumed `fit` begins without.
        every: Positive integer, batches without trouble from one copy to the next.
        explosion: Number over 1; a higher one where the loss of single batches varies that much, as
            where most of them have hardly any weight. With `math.inf`, infinite losses alone count.
        directory: Path of a directory for the file, one for each training, or an address that
            `tf.io.gfile` knows, as "gs://bucket/guard", or `None`. A `fit` that comes to its end
            deletes the file. The model must be built before.

    Attributes:
        skipped: Batches that were skipped in this or the last `fit`.
        rollbacks: How often it went back.
        first_nonfinite: `None`, or the first skipped update, counted from 0 as
            `GradientNormMonitor` does, and the path of the first variable with an Inf or NaN.

    Put it before callbacks that look at the loss of a batch, as `TerminateOnNaN`; else the place
    does not matter. After an interrupted `fit` it is taken off at the start of the next one.

    Raises:
        ValueError: an argument is out of its range; at the start of `fit`, where there is no
            optimizer, a second guard, under JAX a stateful layer, a loss scaling or a
            `keras.distribution`, or a learning rate that is a function and cannot be cut, or
            where the file in `directory` is damaged or of another model.
        RuntimeError: in `fit`, where it would have to go back once more than `max_rollbacks`. The
            good weights and the good optimizer's state are in place then.

    Warns:
        UserWarning: when it goes back, and at the end of a `fit` in which updates were skipped.

    Example:

    >>> model = keras.Sequential([kerasrnn.layers.GRU(4), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> guard = kerasrnn.callbacks.DivergenceGuard()
    >>> history = model.fit(np.ones((8, 5, 3)), np.ones((8, 1)), callbacks=[guard], verbose=0)
    >>> guard.skipped, guard.rollbacks, guard.first_nonfinite
    (0, 0, None)
    """

    def __init__(
        self,
        max_skips=3,
        max_rollbacks=3,
        lr_factor=0.5,
        every=100,
        explosion=100.0,
        directory=None,
    ):
        super().__init__()
        self.max_skips = positive_integer("max_skips", max_skips)
        self.max_rollbacks = int(
            real_number(
                "max_rollbacks",
                max_rollbacks,
                "be an integer, 0 or more",
                lambda v: isinstance(v, numbers.Integral) and v >= 0,
            )
        )
        self.lr_factor = real_number("lr_factor", lr_factor, "lie in (0, 1]", lambda v: 0 < v <= 1)
        self.every = positive_integer("every", every)
        self.explosion = real_number("explosion", explosion, "be a number over 1", lambda v: v > 1)
        self.directory = path("directory", directory, directory=True)
        self._hook = self._filter = self._file = None
        self._folders = Folders()
        self._forget()

    def _forget(self):
        self.skipped = self.rollbacks = self._well = 0
        self.first_nonfinite = self._explosion_rule = None
        self._measured = self._begun = False
        self._good = self._newer = self._metrics = self._of_filter = None

    def __getstate__(self):
        of_fit = self._hook, self._filter, self._file, self._explosion_rule
        return copied_without(self, *of_fit, self._good, self._newer, self._metrics, self._folders)

    def __setstate__(self, state):
        vars(self).update(state, _folders=Folders(copied=True))

    def on_train_begin(self, logs=None):
        hook = UpdateHook.of(self)
        if BACKEND == "jax" and stateful_layers(self.model):
            raise ValueError(
                "DivergenceGuard cannot put back the states of stateful layers under JAX: use "
                "Keras's TensorFlow or PyTorch backend, or keras.callbacks.TerminateOnNaN. "
                f"Received: model={self.model.name}, with "
                f"{', '.join(layer.name for layer in stateful_layers(self.model))}"
            )
        _require_a_rate_to_cut(hook.optimizer, self.lr_factor)
        if self.directory is not None:
            if not self.model.built:
                raise ValueError(
                    "DivergenceGuard with a `directory` needs a model that is built before `fit`. "
                    f"Received: model={self.model.name}, directory={self.directory!r}"
                )
            directory = located("directory", self.directory)
            folder = self._folders.of_fit(self.model)(directory)
            self._file = StateFile(folder, of_one_fit=folder != directory)
        self._forget()
        self._explosion_rule = ExplosionRule(self.explosion)
        self._hook, self._filter = hook, hook.part(self, NonFiniteFilter)
        self._hook.filter_by(self._filter)

    def fit_state(self):
        """What it knows of the `fit` so far, for `go_on_from`."""
        copies = [None if one is None else one.values for one in (self._good, self._newer)]
        return {
            "attributes": {name: getattr(self, name) for name in _OF_FIT},
            "copies": [copies[0] if self._good is not self._newer else None, copies[1]],
            "filter": self._filter.fit_state(),
        }

    def go_on_from(self, state):
        """Has a `fit` that has begun, of a model whose state is that of then, go on as the one of
        which a `fit_state` is."""
        vars(self).update(state["attributes"])
        good, newer = state["copies"]
        if newer is not None:
            self._newer = Snapshot(self._state(), newer)
            self._good = self._newer if good is None else Snapshot(self._state(), good)
        # What a schedule is multiplied by is in none of the optimizer's variables.
        optimizer = innermost(self.model.optimizer)
        if isinstance(optimizer._learning_rate, Schedule):
            for _ in range(self.rollbacks):
                optimizer.learning_rate = lowered(optimizer._learning_rate, self.lr_factor)
        self._of_filter = state["filter"]

    def on_epoch_begin(self, epoch, logs=None):
        self._measured = False

    def on_train_batch_begin(self, batch, logs=None):
        # Not sooner: at the start of `fit` a callback behind this one may load a backup.
        first = not self._begun and self.model.built
        if first:
            self._begun = True
            self._take_up()
            if self._newer is None:
                self._keep()
        self._hook.announce()
        if self._of_filter:
            # The hook has it begin anew where it is put in place.
            self._filter.go_on_from(self._of_filter)
            self._of_filter = None
        if first:
            self._filter.states.expect()
        self._metrics = Snapshot(self._metric_variables())
        # Between batches they may be reset.
        self._filter.states.keep()

    def on_train_batch_end(self, batch, logs=None):
        logs = {} if logs is None else logs
        # Under JAX they are the trainer's while it trains.
        if BACKEND == "jax":
            self.model.jax_state_sync()
        self._filter.states.put_back_nonfinite()
        # The first batch may have built the model and the optimizer.
        if self._newer is None or len(self._newer) < len(self._state()):
            self._keep()
        skipped = self._filter.skipped
        if skipped > self.skipped:
            self.skipped, self.first_nonfinite = skipped, self._filter.first_nonfinite
            self._well = 0
            self._leave_out(logs)
            trouble = self._too_many_skips()
        elif math.isinf(loss := self._loss(logs)):
            self._well += 1
            # The mean would stay infinite, and hide what comes after.
            self._leave_out(logs)
            trouble = "the loss of a batch was infinite"
        else:
            self._well += 1
            self._measured = True
            trouble = self._loss_exploded(loss)
        trouble = trouble or self._weights_spoilt()
        if trouble:
            self._go_back(trouble)

    def on_epoch_end(self, epoch, logs=None):
        if logs and not self._measured:
            # Keras gives 0 as the mean of nothing.
            logs.update(
                {name: math.nan for name in self.model.get_metrics_result() if name in logs}
            )
        if not Snapshot(self._state()).finite:
            self._go_back(_SPOILT)

    def on_train_end(self, logs=None):
        self._release()
        if self._file:
            self._file.remove()
        if self.skipped:
            warnings.warn(
                f"DivergenceGuard skipped {self.skipped} batches with an Inf or NaN in their "
                "gradients, the first at update {} in {}.".format(*self.first_nonfinite),
                stacklevel=2,
            )

    def _release(self):
        self._hook.release(self._filter)
        self._hook = self._filter = self._good = self._newer = self._metrics = None

    def _too_many_skips(self):
        in_a_row = self._filter.in_a_row
        if in_a_row >= self.max_skips:
            return f"{in_a_row} batches in a row had an Inf or NaN in their gradients"
        return None

    def _loss_exploded(self, loss):
        usual = self._explosion_rule.rose_from(loss)
        return None if usual is None else f"the loss of a batch rose from {usual:.3g} to {loss:.3g}"

    def _loss(self, logs):
        """Of the last batch alone, where `logs` has the mean of the epoch so far."""
        for metric in self.model.metrics:
            if metric.name == "loss" and isinstance(metric, keras.metrics.Mean):
                total, count = map(self._metrics.change, (metric.total, metric.count))
                return total / count if count > 0 else math.nan
        # A train_step that keeps no mean gives the loss itself.
        return logs.get("loss", math.nan)

    def _weights_spoilt(self):
        due = self._well and self._well % self.every == 0
        if self._filter.spoilt or (due and not self._keep()):
            return _SPOILT
        return None

    def _state(self):
        return self.model.weights + kept_states(self.model) + self.model.optimizer.variables

    def _keep(self):
        """Copies the state, unless it is not finite, which makes the copy before it a good one."""
        snapshot = Snapshot(self._state())
        if not snapshot.finite:
            return False
        whole = self._newer is not None and len(self._newer) == len(snapshot)
        before, self._good = self._good, self._newer if whole else snapshot
        self._newer = snapshot
        if self._good is not before:
            self._save(self._good)
        return True

    def _save(self, snapshot):
        if self._file:
            self._file.write(snapshot.values)
            self._folders.written(self.model)

    def _take_up(self):
        """Restores what the file holds, unless a backup or the model itself is as far as that."""
        if not self._file:
            return
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        state, iterations = self._state(), innermost(optimizer)._iterations
        values = self._file.read([tuple(v.shape) for v in state])
        if not values:
            return
        (count,) = (value for v, value in zip(state, values, strict=True) if v is iterations)
        if count > iterations.numpy():
            for variable, value in zip(state, values, strict=True):
                variable.assign(value)

    def _metric_variables(self):
        return [variable for metric in self.model.metrics for variable in metric.variables]

    def _leave_out(self, logs):
        """Takes back what the forward pass of a skipped batch has done."""
        # Metrics that this batch was the first to fill are not in the copy.
        self.model.reset_metrics()
        self._metrics.restore()
        results = self.model.get_metrics_result()
        logs.update({k: float(v) for k, v in results.items() if k in logs})
        if self._newer:
            self._newer.restore(lambda v: not (v.trainable or np.isfinite(v.numpy()).all()))

    def _go_back(self, trouble):
        optimizer = innermost(self.model.optimizer)
        lower_rate = lowered(optimizer._learning_rate, self.lr_factor)
        if self._good:
            self._good.restore()
        if self.rollbacks == self.max_rollbacks or not self._good:
            self._give_up(trouble)
        self.rollbacks += 1
        self._well, self._newer = 0, self._good
        self._filter.begin_again()
        self._explosion_rule.renew()
        optimizer.learning_rate = lower_rate
        if isinstance(lower_rate, Schedule):
            self._hook.retrace()
        # With the lower rate.
        self._save(Snapshot(self._state()))
        warnings.warn(
            f"DivergenceGuard went back to the last good weights, rollback {self.rollbacks} of at "
            f"most {self.max_rollbacks}: {trouble}. The learning rate was multiplied by "
            f"{self.lr_factor}.",
            stacklevel=2,
        )

    def _give_up(self, trouble):
        where = "The last good weights and optimizer state are in place." * bool(self._good)
        if self._good and self._file:
            where = f"{where[:-1]}, and in {self._file.path}."
        first = self.first_nonfinite and "The first Inf or NaN: update {} in {}.".format(
            *self.first_nonfinite
        )
        self._release()
        raise RuntimeError(
            f"DivergenceGuard gave up after {self.rollbacks} rollbacks: {trouble}. {where} "
            f"{first or ''} Look for an Inf or NaN in the data, lower the learning rate, or clip "
            "with GradientClipping."
        )


DivergenceGuard.__doc__ = DivergenceGuard.__doc__.replace("{explosion}", described())


def _require_a_rate_to_cut(optimizer, factor):
    rate = optimizer._learning_rate
    if factor < 1 and not isinstance(rate, keras.Variable | Schedule):
        raise ValueError(
            "DivergenceGuard cannot cut a learning rate that is a function: use a number or a "
            f"LearningRateSchedule, or lr_factor=1. Received: learning_rate={rate!r}"
        )
