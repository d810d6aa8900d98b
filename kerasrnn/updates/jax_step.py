"""How a train step of JAX's trainer passes through the hook.

It is a function of the state, which is a tuple of lists: trainable, non-trainable, the optimizer's
and the metrics' variables. Those of the hook's parts ride behind the optimizer's, past the train
step of Keras or the user.
"""

from keras import ops

from kerasrnn.updates.variables import step_variables_in

_OPTIMIZERS = 2
# The seam of test_the_jax_trainer_hands_the_loss_on.
_HEARS_LOSS = "_update_metrics_variables"


class JaxStep:
    """A train step with the variables of the hook's parts in its state.

    Args:
        model: The model in training.
        parts: The parts.
        finish: `finish(losses)` is called in the trace, behind the train step, with the loss of its
            batch in a list, empty where nobody has told it.
    """

    def __init__(self, model, parts, finish):
        self._model, self._parts, self._finish = model, parts, finish

    def _variables(self):
        return step_variables_in(self._parts)

    def make_train_function(self):
        """Has the model make its train function of this step."""
        of_model = vars(self._model)
        users = {name: of_model[name] for name in of_model.keys() & {"train_step"}}
        of_model["train_step"] = self._through(self._model.train_step)
        try:
            self._model.make_train_function()
        finally:
            del of_model["train_step"]
            of_model.update(users)
        self._model.train_function = self._carrying(self._model.train_function)

    def _carrying(self, function):
        def train_function(state, iterator):
            variables = self._variables()
            logs, state = function(_joined(state, [v.value for v in variables]), iterator)
            state, values = _parted(state, len(variables))
            _set(variables, values)
            return logs, state

        return train_function

    def _through(self, train_step):
        def step(state, data):
            variables = self._variables()
            before = [v.value for v in variables]
            state, values = _parted(state, len(variables))
            _set(variables, values)
            try:
                with _Loss(self._model) as losses:
                    logs, state = train_step(state, data)
                self._finish(losses)
                return logs, _joined(state, [v.value for v in variables])
            finally:
                _set(variables, before)

        return step


class _Loss:
    """Listens for the loss, where it comes out of what is differentiated."""

    def __init__(self, model):
        self._model = model

    def __enter__(self):
        losses, hand_on = [], getattr(self._model, _HEARS_LOSS)

        def hear(metrics_variables, unscaled_loss, *args, **kwargs):
            losses.append(unscaled_loss)
            return hand_on(metrics_variables, unscaled_loss, *args, **kwargs)

        vars(self._model)[_HEARS_LOSS] = hear
        return losses

    def __exit__(self, *_):
        del vars(self._model)[_HEARS_LOSS]


def only_where(condition, act, variables):
    """Has `act` write these variables where a condition holds, a tensor or `True`."""
    before = [v.value for v in variables]
    act()
    if condition is not True:
        for variable, value in zip(variables, before, strict=True):
            variable.value = ops.where(condition, variable.value, value)


def _set(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.value = value


def _joined(state, values):
    of_optimizer = [*state[_OPTIMIZERS], *values]
    return (*state[:_OPTIMIZERS], of_optimizer, *state[_OPTIMIZERS + 1 :])


def _parted(state, count):
    joined = list(state[_OPTIMIZERS])
    split = len(joined) - count
    return (*state[:_OPTIMIZERS], joined[:split], *state[_OPTIMIZERS + 1 :]), joined[split:]
