"""What one `fit` leaves to the next, so that a train step is traced once for both."""

import inspect
import weakref

from kerasrnn.backends import BACKEND
from kerasrnn.inside import kept_states, layers_in
from kerasrnn.updates.clip_in_force import ClipInForce
from kerasrnn.updates.optimizers import innermost

# What backends note on models and layers while they run them: the seam of
# test_what_a_trainer_notes_on_a_model.
_NOTES = {"tensorflow": (), "jax": ("_jax_state_synced",), "torch": ("training",)}[BACKEND]
# On the train function without callbacks, which Keras drops at every `compile`.
_ATTRIBUTE = "_kerasrnn_kept_step"


class TraceConstants:
    """What the trace of a step takes for constant, of all that a user can change without `compile`:
    variables and whether they are trained, flags and numbers of layers and of the optimizer, how
    the step is run. Two are equal where a step traced at one of them is right at the other.

    Integers are left out: a layer or a `train_step` may count by one how often it is traced.

    Args:
        model: The model.
        compute_loss: Its `compute_loss`, without what this package shadows it by.
    """

    def __init__(self, model, compute_loss):
        optimizer = innermost(model.optimizer)
        # A model may train by others alone.
        optimizers = [model.optimizer, optimizer] if optimizer else []
        parts = [*optimizers, *layers_in(model)]
        # They are kept, so that no new one can have the id of one that is gone.
        self._objects = [
            model,
            *parts,
            # The seam of test_compile_makes_a_loss_and_drops_the_train_function.
            model._compile_loss,
            getattr(optimizer, "_learning_rate", None),
            *model.trainable_variables,
            *model.non_trainable_variables,
            *kept_states(model),
        ]
        self._trained = len(model.trainable_variables)
        self._numbers = [_flags_and_numbers(part) for part in parts]
        self._run = (
            model.train_step,
            compute_loss,
            model.run_eagerly,
            model.jit_compile,
            model.steps_per_execution,
            ClipInForce.of(optimizer),
        )

    def __eq__(self, other):
        return (
            list(map(id, self._objects)) == list(map(id, other._objects))
            and self._trained == other._trained
            and self._numbers == other._numbers
            and self._run == other._run
        )

    __hash__ = None


def _flags_and_numbers(part):
    """But for `stop_training` and the like, by which a callback ends a `fit`, and `built`, which an
    optimizer's first step sets; what a layer builds is among the variables."""
    return {
        name: value
        for name, value in vars(part).items()
        if isinstance(value, bool | float)
        and not name.startswith(("stop_", "built"))
        and name not in _NOTES
    }


class KeptStep:
    """A train step as it was traced for a `fit` with callbacks, with all that it has captured.

    It is kept by the model's train function without callbacks, and so is gone with the model, and
    after `compile`; once one of the callbacks is gone, it lets go of everything.

    Args:
        function: The train function that was traced.
        parts: The filter, the clip and the observers in it.
        made: Those that the hook has made, by the keys of `UpdateHook.part`.
        losses: The `BatchLosses` in it.

    Attributes:
        constants: The `TraceConstants` that it was traced at, once it was.
    """

    def __init__(self, function, parts, made, losses):
        self.function, self.parts, self.made, self.losses = function, parts, made, losses
        self.constants = None
        self._callbacks = []

    def is_of(self, parts):
        """Whether these are the parts in it, the very objects."""
        return list(map(id, self.parts)) == list(map(id, parts))

    def is_right_for(self, model):
        """Whether the model, without a hook on it, would be traced to the same."""
        # Eager steps are not traced, and may show other variables each time.
        if self.constants is None or model.run_eagerly:
            return False
        return self.constants == TraceConstants(model, model.compute_loss)

    def keep(self, train_function, callbacks):
        """Has it belong to a train function without callbacks until one of these is gone."""
        # The attributes of a method, say, would be those of its class.
        if inspect.isfunction(train_function):
            self._callbacks = [weakref.ref(callback, self._let_go) for callback in callbacks]
            vars(train_function)[_ATTRIBUTE] = self

    def _let_go(self, _):
        self.function = self.constants = self.losses = None
        self.parts, self.made = [], {}

    @classmethod
    def of(cls, model):
        """That of a model, or `None` where none is kept that is right for it as it is now."""
        train_function = model.train_function
        kept = vars(train_function).get(_ATTRIBUTE) if inspect.isfunction(train_function) else None
        return kept if kept is not None and kept.is_right_for(model) else None
