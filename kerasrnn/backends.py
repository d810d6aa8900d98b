"""Keras's backends, as far as the package has to tell them apart.

Attributes:
    BACKEND: The name of the one that runs.
    framework: Its module, as `jax`.
    tf: TensorFlow where that is Keras's backend, otherwise `None`: it is not imported then.
    Tensor: The class of its tensors, not of its variables.
"""

import importlib

_REMEDY = (
    "kerasrnn runs on Keras's backends tensorflow, jax, torch: set KERAS_BACKEND to one of them "
    "that is installed, before keras is imported"
)
try:
    import keras
except (ImportError, ValueError) as error:
    if getattr(error, "name", None) == "keras":
        raise
    raise ImportError(f"{_REMEDY}. Received from Keras: {error}") from error

BACKEND = keras.backend.backend()
if BACKEND not in ("tensorflow", "jax", "torch"):
    raise ImportError(f"{_REMEDY}. Received: the backend {BACKEND!r}")
framework = importlib.import_module(BACKEND)
tf = framework if BACKEND == "tensorflow" else None
Tensor = framework.Array if BACKEND == "jax" else framework.Tensor


def sees_gpu():
    """Whether the backend would run on a GPU."""
    if BACKEND == "jax":
        return framework.default_backend() == "gpu"
    if BACKEND == "torch":
        return framework.cuda.is_available()
    return bool(tf.config.list_logical_devices("GPU"))


def require_tensorflow(what, instead):
    """Raises a `RuntimeError` unless Keras's backend is TensorFlow.

    Args:
        what: What needs it, by its name.
        instead: What to use instead, behind a colon.
    """
    if tf is None:
        raise RuntimeError(
            f"{what} needs Keras's TensorFlow backend: {instead}. Received: the backend {BACKEND!r}"
        )


def tensorflow_only(what, instead):
    """What stands under another backend for a function or class that needs TensorFlow: a class,
    that nothing is an instance of, which raises at each call what `require_tensorflow` does of
    these arguments."""

    def refuse(cls, *args, **kwargs):
        require_tensorflow(what, instead)

    doc = f"Needs Keras's TensorFlow backend: {instead}."
    return type(what.rpartition(".")[2], (), {"__new__": refuse, "__doc__": doc})
