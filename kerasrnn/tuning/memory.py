"""What a trial leaves in memory, and how it goes."""

import inspect
import weakref

from kerasrnn.backends import tf

if tf is None:
    # No other backend keeps one.
    _REGISTRY = {}
else:
    # test_seams.py: test_gradients_are_registered_for_good
    from tensorflow.python.framework import ops

    _REGISTRY = ops.gradient_registry._registry


class TrialMemory:
    """Has the graphs that are traced from now on go when nothing else holds them any more.

    TensorFlow registers a gradient, for good, for every `tf.custom_gradient` and every function
    that is called while a graph is traced. It holds that graph, and with it all of the train step.
    Keras's optimizers have one in each train step, where they sum gradients over replicas, so that
    a search grows with every trial (keras-tuner's issue 873).
    """

    def __init__(self):
        self._before = set(_REGISTRY)

    def release(self):
        """Leaves each gradient that was registered since then to its graph."""
        for name in _REGISTRY.keys() - self._before:
            gradient = _REGISTRY[name]["type"]
            graph = _graph_of(gradient)
            if graph is not None:
                graph.kerasrnn_gradients = [*getattr(graph, "kerasrnn_gradients", ()), gradient]
                _REGISTRY[name]["type"] = _Held(gradient)
        self._before = set(_REGISTRY)


class _Held:
    """A gradient that somebody else keeps."""

    def __init__(self, gradient):
        self._gradient = weakref.ref(gradient)

    def __call__(self, op, *gradients):
        return self._gradient()(op, *gradients)


def _graph_of(gradient):
    """The graph for which a gradient function was made, `None` of one for all graphs."""
    if not inspect.isfunction(gradient):
        return None
    kept = inspect.getclosurevars(gradient).nonlocals
    if "tape_grad_fn" in kept:
        result = inspect.getclosurevars(kept["tape_grad_fn"]).nonlocals["result"]
        return tf.nest.flatten(result)[0].graph
    return getattr(kept.get("self"), "_func_graph", None)
