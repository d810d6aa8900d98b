"""What the tests ask of Keras's backend and `keras.ops` does not have: gradients, and functions
that are compiled."""

import importlib

import keras
from keras import ops, tree

from kerasrnn import recurrence
from kerasrnn.backends import BACKEND, tf

# The others are not installed everywhere.
jax, torch = (importlib.import_module(n) if n == BACKEND else None for n in ("jax", "torch"))

# The paths that take any cell.
PLAIN_PATHS = [name for name in ("loop", "portable") if name in recurrence.PATHS]


def gradients(function, arguments, variables=(), kept=()):
    """What `function(*arguments)` gives, a result and a loss, as the result and the gradients of
    the loss: a list, of the arguments and then of the variables, zeros where there is none.

    Args:
        function: As above.
        arguments: Tensors.
        variables: Keras's, which it may look at.
        kept: Those it may assign to.
    """
    by_backend = {"tensorflow": _by_tape, "jax": _by_transform, "torch": _by_graph}[BACKEND]
    return by_backend(function, arguments, variables, kept)


def outputs_and_gradients(layer, x, initial_state=None, **call):
    """A layer's outputs and the gradients of a loss of them, of x, states and trainable weights."""
    arguments = [ops.convert_to_tensor(v) for v in (x, *tree.flatten(initial_state or []))]

    def function(x, *states):
        states = tree.pack_sequence_as(initial_state, states) if states else None
        y = layer(x, initial_state=states, **call)
        return y, sum(ops.sum(ops.sin(3.0 * part)) for part in tree.flatten(y))

    kept = [*layer.non_trainable_variables, *tree.flatten(getattr(layer, "states", None) or [])]
    return gradients(function, arguments, layer.trainable_weights, kept)


def compiled(function):
    """The function as the backend compiles it, where it does."""
    if tf:
        return tf.function(function)
    if BACKEND == "torch":
        return function

    def run(*args, training=None, **kwargs):
        given = args, kwargs
        # What a function decides by is not traced.
        fixed = {} if training is None else {"training": training}

        def stateless(args, kwargs):
            with keras.StatelessScope():
                return function(*args, **kwargs, **fixed)

        # Keras makes lists of its own of a layer's attributes, which JAX takes for values.
        flat = tree.flatten(given)
        tensors = [ops.convert_to_tensor(v) for v in flat if v is not None]

        def packed(tensors):
            # None, as of a mask that is not there, is a leaf to Keras and nothing to JAX.
            left = iter(tensors)
            args, kwargs = tree.pack_sequence_as(
                given, [None if v is None else next(left) for v in flat]
            )
            return stateless(args, kwargs)

        return jax.jit(packed)(tensors)

    return run


def _by_tape(function, arguments, variables, kept):
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        result, loss = function(*arguments)
    # Of a source that nothing depends on TensorFlow asks for the dtype.
    sources = [*arguments, *(variable.value for variable in variables)]
    return result, tape.gradient(loss, sources, unconnected_gradients="zero")


def _by_transform(function, arguments, variables, kept):
    def stateless(arguments, values):
        with keras.StatelessScope(list(zip(variables, values, strict=True))) as scope:
            result, loss = function(*arguments)
        return loss, (result, [scope.get_current_value(variable) for variable in kept])

    differentiate = jax.value_and_grad(stateless, argnums=(0, 1), has_aux=True)
    values = [variable.value for variable in variables]
    (_, (result, new)), found = differentiate(arguments, values)
    for variable, value in zip(kept, new, strict=True):
        if value is not None:
            variable.assign(value)
    return result, tree.flatten(found)


def _by_graph(function, arguments, variables, kept):
    arguments = [argument.detach().requires_grad_() for argument in arguments]
    result, loss = function(*arguments)
    sources = [*arguments, *(variable.value for variable in variables)]
    found = torch.autograd.grad(loss, sources, allow_unused=True, materialize_grads=True)
    return result, list(found)
