"""The states of stateful layers, as they were before a step."""

import keras
from keras import ops, tree

from kerasrnn.inside import stateful_layers
from kerasrnn.updates.replicas import outside
from kerasrnn.updates.variables import step_variable, value_of


class StatesBefore:
    """Keeps the states that the stateful recurrent layers of a model had before the step that is
    under way: by the time of its update, the forward pass has replaced them.

    It does so in the graph, since of several steps in one execution each starts from its own.
    """

    def __init__(self, model):
        self._model = model
        self._kept = {}

    def begin(self):
        """Takes the initial states for those of before; a `fit` begins."""
        for layer in stateful_layers(self._model):
            for state, value in _initial(layer):
                if id(state) in self._kept:
                    _, kept = self._kept[id(state)]
                    kept.assign(value)

    def expect(self):
        """Makes room for the states that are there by now. A layer that the first step builds had
        the initial ones before it."""
        for layer in stateful_layers(self._model):
            if any(id(state) not in self._kept for state in tree.flatten(layer.states or [])):
                outside(lambda layer=layer: self._make_room(layer))

    def _make_room(self, layer):
        for state, value in _initial(layer):
            dtype = keras.backend.standardize_dtype(state.dtype)
            self._kept[id(state)] = state, step_variable(value, dtype)

    def keep(self):
        """Takes them as they are, if they are finite: a step begins."""
        finite = self._finite()
        for state, kept in self._kept.values():
            kept.assign(ops.where(finite, value_of(state), kept.value))

    def put_back(self):
        """Has them as they were before the step."""
        for state, kept in self._kept.values():
            state.assign(kept.value)

    def put_back_nonfinite(self):
        if not self._finite():
            self.put_back()

    def _finite(self):
        finite = [ops.all(ops.isfinite(value_of(state))) for state, _ in self._kept.values()]
        return ops.all(ops.stack(finite)) if finite else True


def _initial(layer):
    """The states of a stateful layer, and what each is at first."""
    states = tree.flatten(layer.states or [])
    if not states:
        return
    initial = tree.flatten(layer.get_initial_state(states[0].shape[0]))
    for state, value in zip(states, initial, strict=True):
        yield state, ops.cast(value, state.dtype)
