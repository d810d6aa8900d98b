"""Whether data fit a model and its task, before a trial is trained with them.

The errors are keras-tuner's fatal ones, which end a search; any other would fail trial after trial.
Of data sets the first batch is looked at. Generators, which would lose it, and whatever else is no
array pass as they are.
"""

import keras
import numpy as np
from keras_tuner.errors import FatalValueError

from kerasrnn.backends import Tensor, tf
from kerasrnn.tuning.tasks import whole_below


def is_array(data):
    return isinstance(data, np.ndarray | Tensor)


def first_of(data):
    """The inputs and labels of the first batch of a data set; `None` of anything else."""
    if tf is not None and isinstance(data, tf.data.Dataset):
        batch = next(iter(data.take(1)), None)
    elif isinstance(data, keras.utils.PyDataset):
        batch = data[0]
    else:
        return None
    return None if batch is None else keras.utils.unpack_x_y_sample_weight(batch)[:2]


def _numbers(array):
    return np.asarray(array).dtype.kind in "biuf"


def _finite(array):
    return np.all(np.isfinite(array))


def check_inputs(x, vocabulary_size, features, name):
    """Raises an error for an array that is not what the model takes.

    Args:
        x: The inputs.
        vocabulary_size, features: Those of the hypermodel, one of them `None`.
        name: What `x` is called in the error.
    """
    if not is_array(x):
        return
    if vocabulary_size is None:
        if len(x.shape) != 3 or x.shape[2] != features or not (_numbers(x) and _finite(x)):
            raise FatalValueError(
                f"`{name}` must be (samples, time, {features}) for features={features}, finite "
                f"numbers. Received: {described(x)}"
            )
        return
    in_range = whole_below(vocabulary_size)
    if len(x.shape) != 2 or not (_numbers(x) and in_range(np.asarray(x))):
        raise FatalValueError(
            f"`{name}` must be (samples, time), whole numbers from 0 to {vocabulary_size - 1} for "
            f"vocabulary_size={vocabulary_size}. Received: {described(x)}"
        )


def check_labels(y, x, task, labels, name):
    """Raises an error for an array that holds no labels of the task.

    Args:
        y: The labels.
        x: The inputs, whose steps a task with an output per step goes by if they are an array.
        task: The task's name.
        labels: Its `Labels`.
        name: What `y` is called in the error.
    """
    if y is None and is_array(x):
        raise FatalValueError(f"`{name}` must be the labels for task={task!r}. Received: None")
    if not is_array(y):
        return
    steps = x.shape[1] if is_array(x) and len(x.shape) > 1 else None
    shape = tuple(steps if axis == "time" else axis for axis in labels.shape)
    shapes = [shape, shape[:-1]] if shape[-1] == 1 else [shape]
    hold = _numbers(y) and labels.hold(np.asarray(y))
    if not (any(_fits(y.shape[1:], one) for one in shapes) and hold):
        axes = " or ".join(
            f"({', '.join(map(str, ('samples', *one)))})"
            for one in ([labels.shape, labels.shape[:-1]] if shape[-1] == 1 else [labels.shape])
        ).replace("(samples)", "(samples,)")
        raise FatalValueError(
            f"`{name}` must be {axes}, {labels.rule}, for task={task!r}. "
            f"Received: {described(y)}"
            + (f" for inputs of the shape {tuple(x.shape)}" if "time" in labels.shape else "")
        )


def _fits(axes, wanted):
    return len(axes) == len(wanted) and all(
        w in (None, a) for a, w in zip(axes, wanted, strict=True)
    )


def described(array):
    values = np.asarray(array)
    if not _numbers(values):
        return f"an array of the shape {tuple(array.shape)} and dtype {values.dtype}"
    between = f", from {values.min()} to {values.max()}" if values.size else ""
    return f"an array of the shape {tuple(array.shape)}{between}"
