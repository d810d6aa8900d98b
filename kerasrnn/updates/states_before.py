"""The states of stateful layers, as they were before a step."""

import tensorflow as tf
from keras import tree

from kerasrnn.inside import stateful_layers


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
                with tf.init_scope():
                    for state, value in _initial(layer):
                        self._kept[id(state)] = state, tf.Variable(value, trainable=False)

    def keep(self):
        """Takes them as they are, if they are finite: a step begins."""
        finite = self._finite()
        for state, kept in self._kept.values():
            kept.assign(tf.where(finite, state, kept))

    def put_back(self):
        """Has them as they were before the step."""
        for state, kept in self._kept.values():
            state.assign(kept)

    def put_back_nonfinite(self):
        if not self._finite():
            self.put_back()

    def _finite(self):
        finite = [tf.reduce_all(tf.math.is_finite(state)) for state, _ in self._kept.values()]
        return tf.reduce_all(finite or True)


def _initial(layer):
    """The states of a stateful layer, and what each is at first."""
    states = tree.flatten(layer.states or [])
    if not states:
        return
    initial = tree.flatten(layer.get_initial_state(states[0].shape[0]))
    for state, value in zip(states, initial, strict=True):
        yield state, tf.cast(value, state.dtype)
