"""The one place that every update of every `fit` goes through."""

import threading
import weakref

import keras
from keras import ops

from kerasrnn.backends import BACKEND, tf
from kerasrnn.layers.checks import check_compilation
from kerasrnn.updates.clip_in_force import ClipInForce
from kerasrnn.updates.jax_step import JaxStep, only_where
from kerasrnn.updates.kept_step import KeptStep, TraceConstants
from kerasrnn.updates.losses import BatchLosses
from kerasrnn.updates.optimizers import OtherOptimizers, innermost
from kerasrnn.updates.parts import Update
from kerasrnn.updates.replicas import on_first_replica, outside
from kerasrnn.updates.variables import apart, chosen, step_variables_in, value_of

# The optimizer's methods that the hook shadows: Keras internals, named in tests/test_seams.py.
# The first has the variables; it calls the second where an update is really made, with gradients
# that are unscaled and averaged over accumulated batches, and then the third, which makes it.
METHODS = ("_backend_apply_gradients", "_clip_gradients", "_backend_update_step")
# The hook of each optimizer and `fit`, for as long as a callback holds it.
_hooks = weakref.WeakValueDictionary()


def require_optimizer(callback):
    """Raises a `ValueError` unless the callback's model has an optimizer."""
    if not getattr(callback.model, "optimizer", None):
        raise ValueError(
            f"{type(callback).__name__} needs a model compiled with an optimizer. "
            f"Received: model={callback.model.name}"
        )


def _require_what_jax_shows(callback):
    name, model = type(callback).__name__, callback.model
    if innermost(model.optimizer) is not model.optimizer:
        raise ValueError(
            f"{name} does not see updates inside of a loss scaling under JAX: use mixed_bfloat16, "
            "which needs none, or Keras's TensorFlow or PyTorch backend. "
            f"Received: optimizer={type(model.optimizer).__name__}"
        )
    if distribution := keras.distribution.distribution():
        raise ValueError(
            f"{name} does not see updates that are distributed under JAX: use it in a fit on one "
            f"device, or the optimizer's own clips. Received: distribution={distribution!r}"
        )


class UpdateHook:
    """What the callbacks of one `fit` do to every update of the optimizer, in this order, whatever
    that of the callbacks:

        filter      a `Filter` lets the update happen, or has it skipped
        clip        a `Clip` takes the place of the optimizer's own
        observers   each `Observer` is shown the `Update`, after it

    It is on the optimizer from the first batch on, and so never where a callback refuses the `fit`
    at its start. Of other optimizers that the model trains by it warns once.

    There is one for each `fit`. The step that was traced for it stays with the model, a `KeptStep`;
    the next `fit` with the same callbacks runs it again, and one without them that of before.

    Attributes:
        clip: The `ClipInForce`, a callback's or the optimizer's own, or `None`.
        filter: The `Filter`, or `None`.
    """

    def __init__(self, model, fit):
        self.model = model
        self.fit = fit
        self.optimizer = innermost(model.optimizer)
        self.observers = []
        self.filter = self._clip = None
        self.clip = ClipInForce.of(self.optimizer)
        self._variables = []
        # Replicas take turns in threads of their own.
        self._clipped = threading.local()
        self._announced = self._outdated = False
        # Of a step of JAX that is being traced, the updates that are still to be shown.
        self._unseen = []
        self._others = OtherOptimizers(model)
        self._callbacks, self._made = [], {}
        # That of the `fit` before, that of this one, and the train function without this hook.
        self._kept, self._step, self._plain = KeptStep.of(model), None, None

    @classmethod
    def of(cls, callback):
        """The hook of the `fit` that the callback is in.

        What an interrupted `fit` left on the optimizer goes: its callbacks had other parameters.
        """
        require_optimizer(callback)
        if BACKEND == "jax":
            _require_what_jax_shows(callback)
        model, fit = callback.model, callback.params
        if tf is not None:
            check_compilation(model)
        optimizer = innermost(model.optimizer)
        shadow = vars(optimizer).get(METHODS[0])
        if shadow and shadow.__self__.fit is not fit:
            shadow.__self__.remove()
        key = id(optimizer), id(fit)
        hook = _hooks.get(key) or _hooks.setdefault(key, cls(model, fit))
        hook._callbacks.append(weakref.ref(callback))
        return hook

    def part(self, callback, kind, *arguments):
        """A `Part` for a callback to put in: that of the `fit` before, if its step may be run again
        and it was made of the same arguments, else a new one.

        Args:
            callback: The callback.
            kind: The class of the part.
            arguments: What it takes beside the model.
        """
        key = id(callback), kind, arguments
        made = self._kept.made if self._kept else {}
        self._made[key] = made.get(key) or outside(lambda: kind(self.model, *arguments))
        return self._made[key]

    def observe(self, observer):
        """Puts in an observer."""
        self.observers.append(observer)

    def clip_by(self, clip, mode, value):
        """Puts in a clip, of which a `GradientClipping` tells its mode and value."""
        of_optimizer = ClipInForce.of(self.optimizer)
        if of_optimizer:
            raise ValueError(
                "GradientClipping takes the place of the optimizer's own clip: give the optimizer "
                "none. Received: {}={}".format(*of_optimizer)
            )
        self._clip = self._only_one("GradientClipping", self._clip, clip)
        self.clip = ClipInForce(mode, value)

    def filter_by(self, part):
        """Puts in a filter, on behalf of a `DivergenceGuard`."""
        self.filter = self._only_one("DivergenceGuard", self.filter, part)
        self.observe(part)

    def _only_one(self, name, present, part):
        if present is not None:
            raise ValueError(f"One fit takes one {name}. Received: callbacks with two of them")
        return part

    def release(self, part):
        """Takes off what a callback has put in, and all of the hook once nothing is left in it."""
        self.observers = [observer for observer in self.observers if observer is not part]
        self._clip = None if self._clip is part else self._clip
        self.filter = None if self.filter is part else self.filter
        self._outdated = True
        if not (self.observers or self._clip or self.filter):
            self._leave()
        self._others.warn_once()

    def remove(self):
        """Takes the hook off the optimizer."""
        for name in METHODS:
            vars(self.optimizer).pop(name, None)
        if vars(self.model).get("compute_loss") == self._compute_loss:
            del vars(self.model)["compute_loss"]
            # A user may have put one on this model.
            vars(self.model).update(self._users_loss)

    @property
    def _in_place(self):
        return vars(self.optimizer).get(METHODS[0]) == self._apply

    def _place(self):
        # Not that of the start, after which a callback may have changed the model.
        kept, plain = KeptStep.of(self.model), self.model.train_function
        self._keras_apply, self._keras_clip, self._keras_update = (
            getattr(self.optimizer, name) for name in METHODS
        )
        shadows = self._apply, self._clip_gradients, self._update
        vars(self.optimizer).update(zip(METHODS, shadows, strict=True))
        self._model_loss = self.model.compute_loss
        self._users_loss = {k: v for k, v in vars(self.model).items() if k == "compute_loss"}
        # That of JAX is inside of what is differentiated, which nothing can come out of.
        if BACKEND != "jax":
            vars(self.model)["compute_loss"] = self._compute_loss

        again = kept is not None and kept.is_of(self._parts())
        for part in self._made.values():
            outside(lambda part=part: part.begin(again))
        if again:
            self._losses = kept.losses
            self._losses.begin()
            self._run(kept)
        else:
            self._losses = outside(BatchLosses)
            self.retrace()
        # Any other may have been traced for the model as it was.
        self._plain = kept and plain

    def _parts(self):
        return [self.filter, self._clip, *self.observers]

    def retrace(self):
        """Has the train step traced anew, to pass through the hook as it is now."""
        self._make_train_function()
        if self._in_place:
            function = self.model.train_function
            self._run(KeptStep(function, self._parts(), self._made, self._losses))

    def _make_train_function(self):
        self.model.train_function = None
        if BACKEND == "jax" and self._in_place:
            parts = [*self._parts(), self._losses]
            JaxStep(self.model, parts, self._finish_step).make_train_function()
        else:
            self.model.make_train_function()

    def _run(self, step):
        self._announced = self._outdated = False
        self._step, self._plain = step, None
        self._train_function = self._only_when_announced(step)
        self.model.train_function = self._train_function

    def _leave(self):
        """Takes the hook off, and keeps the step for the next `fit` where it is right for it."""
        placed, step = self._in_place, self._step
        replaced = placed and self.model.train_function is not self._train_function
        self.remove()
        if not placed:
            return
        right = not replaced and step.is_right_for(self.model)
        if right and self._plain:
            self.model.train_function = self._plain
        else:
            self._make_train_function()
        if right:
            step.keep(self.model.train_function, [callback() for callback in self._callbacks])

    def announce(self):
        """To be called at the start of every batch of the `fit` that the hook belongs to."""
        if not self._in_place:
            self._place()
        elif self._outdated:
            self.retrace()
        self._announced = True
        # Those that the model makes while it trains have to wait for the end.
        if self._others:
            self._others.warn_once()

    def _only_when_announced(self, step):
        """Nothing tells a callback that its `fit` was interrupted. The next one, which is not
        announced, must not train with a step that was traced for it."""

        def announced_train_function(*args):
            if not self._announced:
                self.remove()
                self._make_train_function()
                return self.model.train_function(*args)
            try:
                logs = step.function(*args)
            finally:
                self._announced = False
            # The first batch may have built the model.
            if step.constants is None:
                step.constants = TraceConstants(self.model, self._model_loss)
            return logs

        return announced_train_function

    def _compute_loss(self, *args, **kwargs):
        loss = self._model_loss(*args, **kwargs)
        # That of a validation is none of an update's.
        if self._announced and loss is not None:
            self._losses.hear(loss)
        return loss

    def _apply(self, grads, trainable_variables):
        if not self._announced:
            # A step of another `compile`, or of a user's loop, after an interrupted `fit`.
            self.remove()
            self._keras_apply(grads, trainable_variables)
            return
        self._variables = list(trainable_variables)
        for observer in self.observers:
            observer.expect(self._variables)
        if BACKEND == "jax":
            self._apply_without_branches(grads)
            return
        self._losses.end_batch()
        if self.filter is None:
            self._keras_apply(grads, trainable_variables)
        elif tf is None:
            self._apply_or_skip(grads)
        else:
            self._apply_filtered(grads)

    def _apply_or_skip(self, grads):
        flags = self.filter.flags(grads)
        if ops.any(flags):
            self._skip(flags)
            self._show_skipped(grads)
        else:
            self._keras_apply(grads, self._variables)
            self.filter.let_through(self._variables)

    def _skip(self, flags):
        self.filter.skip(self._variables, flags)
        # Keras counts one up after this, whatever happened here.
        self.optimizer._iterations.assign_sub(1)

    def _apply_without_branches(self, grads):
        """As Keras does under JAX: the update is made, and what must not be is taken back."""
        steps = self.optimizer.gradient_accumulation_steps
        whole = True if not steps else (self.optimizer._iterations.value + 1) % steps == 0
        if self.filter is None:
            of_clip = step_variables_in(self._clip)
            only_where(whole, lambda: self._keras_apply(grads, self._variables), of_clip)
            self._unseen = [(whole, update) for update in self._unseen]
            return
        grads_seen = apart(grads)
        flags = self.filter.flags(grads_seen)
        good = ~ops.any(flags)
        changed = [*self._variables, *self.optimizer.variables]
        before = apart([v.value for v in changed])
        only_where(
            good & whole,
            lambda: self._keras_apply(grads, self._variables),
            step_variables_in(self._clip),
        )
        made = [value_of(v) for v in changed]
        for variable, value in zip(changed, chosen(good, made, before), strict=True):
            variable.assign(value)
        of_filter = step_variables_in(self.filter)
        only_where(good, lambda: self.filter.let_through(self._variables), of_filter)
        only_where(~good, lambda: self.filter.skip(self._variables, flags), of_filter)
        # Keras counts one up after this, whatever happened here.
        self.optimizer._iterations.assign_sub(ops.cast(~good, self.optimizer._iterations.dtype))
        self._unseen = [
            (whole | ~good, self._skipped_where(~good, update, grads_seen))
            for update in self._unseen
        ]

    def _skipped_where(self, bad, update, grads):
        shown = [ops.where(bad, g, u) for g, u in zip(grads, update.grads, strict=True)]
        clipped = shown
        if any(c is not g for c, g in zip(update.clipped, update.grads, strict=True)):
            clipped = [ops.where(bad, g, c) for g, c in zip(grads, update.clipped, strict=True)]
        after = [ops.where(bad, w, a) for w, a in zip(update.weights, update.after, strict=True)]
        rate = ops.where(bad, float("nan"), update.rate)
        return update._replace(grads=shown, clipped=clipped, after=after, rate=rate)

    def _finish_step(self, losses):
        # A later `fit`, with a hook of its own, may run this step and have it traced for batches of
        # another shape.
        vars(self.optimizer)[METHODS[0]].__self__._show_unseen(losses)

    def _show_unseen(self, losses):
        """Shows what a step of JAX has done, at its end, where its loss is known."""
        for loss in losses:
            self._losses.hear(loss)
        self._losses.end_batch()
        unseen, self._unseen = self._unseen, []
        for shown, update in unseen:
            written = step_variables_in([self._losses, *self.observers])
            only_where(shown, lambda update=update: self._show(update), written)

    def _apply_filtered(self, grads):
        replica = tf.distribute.get_replica_context()
        flags = self.filter.flags(grads)
        flags = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(flags, "float32")) > 0
        # A branch in which replicas speak to each other has to be opened outside of all of them.
        replica.merge_call(self._branch, args=(flags, grads))

    def _branch(self, strategy, flags, grads):
        (flags, *_) = strategy.experimental_local_results(flags)

        def update():
            strategy.extended.call_for_each_replica(
                lambda grads: self._keras_apply(grads, self._variables), args=(grads,)
            )
            self.filter.let_through(self._variables)

        def skip():
            self._skip(flags)
            strategy.extended.call_for_each_replica(self._show_skipped, args=(grads,))

        tf.cond(tf.reduce_any(flags), skip, update)

    def _clip_gradients(self, grads):
        seen = apart(grads)
        if self._clip is None:
            clipped = self._keras_clip(grads)
            clipped_seen = clipped if seen is grads else self._keras_clip(seen)
        else:
            clipped = self._clip(self._variables, grads)
            clipped_seen = apart(clipped)
        self._clipped.parts = seen, clipped_seen, self._weights()
        return clipped

    def _update(self, grads, trainable_variables, learning_rate):
        parts = self._clipped.parts
        self._keras_update(grads, trainable_variables, learning_rate)
        update = Update(self._variables, *parts, self._weights(), value_of(learning_rate), None)
        if BACKEND == "jax":
            self._unseen = [update]
        else:
            self._show(update)

    def _show_skipped(self, grads):
        weights = self._weights()
        self._show(Update(self._variables, grads, grads, weights, weights, float("nan"), None))

    def _weights(self):
        return [value_of(v) for v in self._variables]

    def _show(self, update):
        update = update._replace(loss=self._losses.take() if on_first_replica() else None)
        for observer in self.observers:
            observer.record(update)
