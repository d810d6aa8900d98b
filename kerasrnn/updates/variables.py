"""What a train step reads and writes beside the model's and the optimizer's variables."""

import keras
from keras import ops

from kerasrnn.backends import BACKEND, Tensor, framework, tf


class StepVariable:
    """A variable of a callback, that a train step reads and writes.

    Under TensorFlow it is one of the graph. Under PyTorch steps run as they are written. Under JAX
    the hook hands the values to each step and takes the new ones from it: Keras's own variables
    would have to be the model's or the optimizer's for that, and be saved with them.

    Args:
        value: What it is at first, an array or number.
        dtype: A string.

    Attributes:
        value: What it is now, a tensor.
    """

    def __init__(self, value, dtype="float32"):
        self.dtype = dtype
        self.value = ops.convert_to_tensor(value, dtype)

    def assign(self, value):
        value = ops.cast(value, self.dtype)
        # PyTorch would go on to change what somebody else holds.
        self.value = value.clone() if BACKEND == "torch" else value

    def write(self, row, value):
        """Puts `value` in the place of one row, an integer tensor."""
        if BACKEND == "jax":
            self.value = self.value.at[row].set(value)
        else:
            self.value[row] = value

    def numpy(self):
        return ops.convert_to_numpy(self.value)


class _GraphVariable(StepVariable):
    def __init__(self, value, dtype="float32"):
        self.dtype = dtype
        self._variable = tf.Variable(value, dtype=dtype, trainable=False)

    @property
    def value(self):
        return self._variable.read_value()

    def assign(self, value):
        self._variable.assign(tf.cast(value, self.dtype))

    def write(self, row, value):
        self._variable.scatter_nd_update([[row]], value[None])

    def numpy(self):
        return self._variable.numpy()


def step_variable(value, dtype="float32"):
    """The `StepVariable` of the backend."""
    return (StepVariable if tf is None else _GraphVariable)(value, dtype)


def step_variables_in(part):
    """Those of a part of the hook."""
    if isinstance(part, StepVariable):
        return [part]
    if isinstance(part, list | tuple):
        inside = part
    elif type(part).__module__.startswith("kerasrnn.updates."):
        inside = vars(part).values()
    else:
        inside = ()
    return [variable for one in inside for variable in step_variables_in(one)]


def value_of(variable):
    """The value that a variable has now, a tensor that stays as it is."""
    if tf is not None:
        return tf.convert_to_tensor(variable)
    value = variable.value if isinstance(variable, keras.Variable) else variable
    value = value if isinstance(value, Tensor) else ops.convert_to_tensor(value)
    return value.detach().clone() if BACKEND == "torch" else apart([value])[0]


def apart(tensors):
    """A list of tensors for those who look on: under JAX XLA else fuses what they compute with what
    the training does, which then is rounded otherwise."""
    return framework.lax.optimization_barrier(list(tensors)) if BACKEND == "jax" else tensors


def chosen(condition, tensors, others):
    """One of two lists of tensors under JAX: by a branch, since XLA else fuses the choice with what
    the training does."""
    return framework.lax.cond(condition, lambda a, b: a, lambda a, b: b, tensors, others)
