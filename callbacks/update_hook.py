"""Where updates pass: the one place that every update of every `fit` goes through."""

import weakref

import tensorflow as tf

# The optimizer's methods that the hook shadows: Keras internals, named in tests/test_seams.py.
# The first has the variables; it calls the second where an update is really made, with gradients
# that are unscaled and averaged over accumulated batches.
METHODS = ("_backend_apply_gradients", "_clip_gradients")
# The hook of each optimizer and `fit`, for as long as a callback holds it.
_hooks = weakref.WeakValueDictionary()


def innermost(optimizer):
    """The optimizer inside those that wrap it, as for loss scaling."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def require_optimizer(callback):
    if not getattr(callback.model, "optimizer", None):
        raise ValueError(
            f"{type(callback).__name__} needs a model compiled with an optimizer. "
            f"Received: model={callback.model.name}"
        )


def clip_of(optimizer):
    """The clip that an optimizer was given, as `("clipnorm", 1.0)`, or `None`."""
    for argument in ("clipnorm", "global_clipnorm", "clipvalue"):
        value = getattr(optimizer, argument, None)
        if value and value > 0:
            return argument, float(value)
    return None


def path_of(variable):
    return getattr(variable, "path", variable.name)


def on_first_replica():
    """Whether this part of the graph is that of the replica which keeps the books for all."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return True
    return tf.get_static_value(tf.convert_to_tensor(replica.replica_id_in_sync_group)) == 0


class UpdateHook:
    """What the callbacks of one `fit` do to every update of the optimizer.

    In this order, whatever the order of the callbacks:

        gate        lets the update happen, or has it skipped
        clip        takes the place of the optimizer's own clip
        observers   are shown the gradients before and after the clip; of a skipped update, twice
                    as they came

    A gate says in `flags(grads)` which variables' gradients are bad, and is told what comes of it:
    `let_through(variables)`, after the update, or `skip(variables, flags)`; a clip is a function of
    variables and gradients; an observer has `expect(variables)`, called at tracing, and
    `record(variables, grads, clipped)`. A gate is an observer, too.

    It is on the optimizer from the first batch on, and so is not where a callback, of whomever,
    refuses the `fit` at its start.

    Attributes:
        clip: What clips, as `("global_norm", 1.0)`, GradientClipping's mode and value, as
            `("clipnorm", 1.0)`, the optimizer's own, or `None`.
        gate: What lets updates through, or `None`.
    """

    def __init__(self, model, fit):
        self.model = model
        self.fit = fit
        self.optimizer = innermost(model.optimizer)
        self.observers = []
        self.gate = self._clip = None
        self.clip = clip_of(self.optimizer)
        self._variables = []
        self._announced = False

    @classmethod
    def of(cls, callback):
        """The hook of the `fit` that the callback is in.

        What an interrupted `fit` left on the optimizer goes: its callbacks were given other
        parameters.
        """
        require_optimizer(callback)
        model, fit = callback.model, callback.params
        optimizer = innermost(model.optimizer)
        shadow = vars(optimizer).get(METHODS[0])
        if shadow and shadow.__self__.fit is not fit:
            shadow.__self__.remove()
        return _hooks.setdefault((id(optimizer), id(fit)), cls(model, fit))

    def observe(self, observer):
        self.observers.append(observer)

    def clip_by(self, clip, mode, value):
        own = clip_of(self.optimizer)
        if own:
            raise ValueError(
                "GradientClipping takes the place of the optimizer's own clip: give the optimizer "
                "none. Received: {}={}".format(*own)
            )
        self._clip = self._only_one("GradientClipping", self._clip, clip)
        self.clip = mode, value

    def guard_by(self, gate):
        self.gate = self._only_one("DivergenceGuard", self.gate, gate)
        self.observe(gate)

    def _only_one(self, name, present, part):
        if present is not None:
            raise ValueError(f"One fit takes one {name}. Received: callbacks with two of them")
        return part

    def release(self, part):
        """Takes off what a callback has put in, and all of the hook once nothing is left in it."""
        self.observers = [observer for observer in self.observers if observer is not part]
        self._clip = None if self._clip is part else self._clip
        self.gate = None if self.gate is part else self.gate
        if not (self.observers or self._clip or self.gate):
            self.remove()
        self.retrace()

    def remove(self):
        for name in METHODS:
            vars(self.optimizer).pop(name, None)

    @property
    def _in_place(self):
        return vars(self.optimizer).get(METHODS[0]) == self._apply

    def _place(self):
        self._keras_apply, self._keras_clip = (getattr(self.optimizer, name) for name in METHODS)
        vars(self.optimizer).update(zip(METHODS, (self._apply, self._clip_gradients), strict=True))
        self.retrace()

    def retrace(self):
        """Has the train step traced anew, to pass through the hook as it is now."""
        self.model.train_function = None
        self.model.make_train_function()
        if self._in_place:
            self._announced = False
            self.model.train_function = self._only_when_announced(self.model.train_function)

    def announce(self):
        """To be called at the start of every batch of the `fit` that the hook belongs to."""
        if not self._in_place:
            self._place()
        self._announced = True

    def _only_when_announced(self, train_function):
        """Nothing tells a callback that its `fit` was interrupted. The next one, which is not
        announced, must not train with a step that was traced for it."""

        def announced_train_function(data):
            if not self._announced:
                self.remove()
                self.retrace()
                return self.model.train_function(data)
            try:
                return train_function(data)
            finally:
                self._announced = False

        return announced_train_function

    def _apply(self, grads, trainable_variables):
        if not self._announced:
            # A step of another `compile`, or of the user's own, after an interrupted `fit`.
            self.remove()
            self._keras_apply(grads, trainable_variables)
            return
        self._variables = list(trainable_variables)
        for observer in self.observers:
            observer.expect(self._variables)
        if self.gate is None:
            self._keras_apply(grads, trainable_variables)
        else:
            self._through_gate(grads)

    def _through_gate(self, grads):
        replica = tf.distribute.get_replica_context()
        flags = self.gate.flags(grads)
        flags = replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(flags, "float32")) > 0
        # A branch in which replicas speak to each other has to be opened outside of all of them.
        replica.merge_call(self._branch, args=(flags, grads))

    def _branch(self, strategy, flags, grads):
        (flags, *_) = strategy.experimental_local_results(flags)

        def update():
            strategy.extended.call_for_each_replica(
                lambda grads: self._keras_apply(grads, self._variables), args=(grads,)
            )
            self.gate.let_through(self._variables)

        def skip():
            self.gate.skip(self._variables, flags)
            # Keras counts one up after this, whatever happened here.
            self.optimizer._iterations.assign_sub(1)
            strategy.extended.call_for_each_replica(
                lambda grads: self._show(grads, grads), args=(grads,)
            )

        tf.cond(tf.reduce_any(flags), skip, update)

    def _clip_gradients(self, grads):
        if self._clip is None:
            clipped = self._keras_clip(grads)
        else:
            clipped = self._clip(self._variables, grads)
        self._show(grads, clipped)
        return clipped

    def _show(self, grads, clipped):
        for observer in self.observers:
            observer.record(self._variables, grads, clipped)


def copied_without(callback, *left_behind):
    """The state of a callback for a copy of it, as keras-tuner makes for every trial: without the
    model and what belongs to the `fit` it is in."""
    left_behind = (*left_behind, callback.model)
    return {
        name: None if any(value is one for one in left_behind) else value
        for name, value in vars(callback).items()
    }
