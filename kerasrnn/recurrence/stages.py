"""What a pass over a sequence is a part of, by which the paths decide:

    eager       an eager call
    export      what is traced to be saved: has to run where there is neither XLA nor a GPU
    step        a traced step of `fit`, `evaluate` or `predict`, or of what is `compiled`
    graph       any other function, which may be exported: has to run where there is no XLA

Under Keras's other backends all are a step.

Who traces is told by the code that runs. The names of functions and graphs are anyone's to choose.
"""

import contextlib
import contextvars
import functools
import inspect
import sys

import keras

from kerasrnn.backends import require_tensorflow, tf

_STAGE = contextvars.ContextVar("stage", default=None)
_COMPILED = contextvars.ContextVar("compiled", default=False)


def current():
    """The stage of what is being run or traced."""
    if stage := _STAGE.get():
        return stage
    if tf is None:
        return "step"
    if tf.executing_eagerly():
        return "eager"
    running = _running()
    if running & _functions_that_export():
        return "export"
    return "step" if _COMPILED.get() or running & _functions_that_keras_traces() else "graph"


def traced_model():
    """The model for which Keras's trainer traces a step, or `None` outside of one."""
    # The seam of test_stages_of_keras_and_tensorflow.
    for frame in _frames():
        if frame.f_code in _functions_that_keras_traces() and "self" in frame.f_locals:
            return frame.f_locals["self"]
    return None


def _running():
    """The code of all functions on the stack; of those, too, for which a replica's thread runs."""
    return {frame.f_code for frame in _frames()}


def _frames():
    frames = [sys._getframe(1)]
    if tf.distribute.has_strategy():
        # The thread that traces waits for those of the replicas.
        frames = sys._current_frames().values()
    for frame in frames:
        while frame is not None:
            yield frame
            frame = frame.f_back


@functools.cache
def _functions_that_export():
    """The code of those that trace what they are to save."""
    # The seam of test_stages_of_keras_and_tensorflow.
    archive = type(keras.export.ExportArchive())
    exports = keras.Model.export, archive.write_out, tf.saved_model.save
    return {inspect.unwrap(function).__code__ for function in exports}


@functools.cache
def _functions_that_keras_traces():
    """The code of those that Keras's trainer makes and traces for a step of its own."""
    # The seam of test_stages_of_keras_and_tensorflow.
    makers = "_make_function", "make_train_function", "make_test_function", "make_predict_function"
    makers = [getattr(keras.Model, name, None) for name in makers]
    return {code for make in makers if make for code in _inside(make.__code__)}


def _inside(code):
    """The code of the functions that a function defines."""
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield constant
            yield from _inside(constant)


@contextlib.contextmanager
def as_if(stage):
    """Takes every pass, inside, for one of this stage."""
    token = _STAGE.set(stage)
    try:
        yield
    finally:
        _STAGE.reset(token)


@contextlib.contextmanager
def compiled():
    """Lets layers inside a `tf.function` of the user's own take the XLA programs on a CPU, as those
    in Keras's `fit` do.

    A `tf.function` may be exported, into a SavedModel that has to run where there is no XLA, so
    that layers in it take plain operations, as Keras's do; this is for one that will not be, as the
    step of a training loop. It is said where the layers are called, inside of the function.

    Raises:
        RuntimeError: Keras's backend is not TensorFlow.
        AssertionError, KeyError: by `tf.saved_model.save`, where a function that was traced like
            that is to be saved all the same; the message names `kerasrnn.recurrence.compiled`.

    Example:

    >>> layer = kerasrnn.layers.GRU(32)
    >>> @tf.function
    ... def gradients(x):
    ...     with kerasrnn.recurrence.compiled(), tf.GradientTape() as tape:
    ...         loss = tf.reduce_mean(layer(x, training=True) ** 2)
    ...     return tape.gradient(loss, layer.trainable_weights)
    >>> [d.shape.rank for d in gradients(tf.ones((2, 64, 3)))]
    [2, 2, 2]
    """
    require_tensorflow("kerasrnn.recurrence.compiled", "leave it out under any other")
    token = _COMPILED.set(True)
    try:
        yield
    finally:
        _COMPILED.reset(token)
