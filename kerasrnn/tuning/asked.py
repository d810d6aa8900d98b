"""What a search is asked for, looked at before it begins: each would fail trial after trial."""

import inspect
import math
import numbers
import os

import keras
import keras_tuner

from kerasrnn.arguments import positive_integer, real_number
from kerasrnn.files import Address, located, path


def _count(name, value):
    rule = "be an integer, 0 or more"
    return real_number(name, value, rule, lambda v: isinstance(v, numbers.Integral) and v >= 0)


def _positive_or_none(name, value):
    return value if value is None else positive_integer(name, value)


def _endless(name, value):
    return value if value == math.inf else _positive_or_none(name, value)


def _seed(name, value):
    return value if value is None else _count(name, value)


def _at_least_two(name, value):
    rule = "be an integer, 2 or more"
    return real_number(name, value, rule, lambda v: isinstance(v, numbers.Integral) and v >= 2)


def _not_negative(name, value):
    return real_number(name, value, "be a number, 0 or more", lambda v: 0 <= v < math.inf)


def _objective(name, value):
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError(f"`{name}` must hold a metric. Received: {name}={value!r}")
        for one in value:
            _objective(name, one)
    directed = isinstance(value, keras_tuner.Objective)
    if directed and value.direction not in ("min", "max", None):
        raise ValueError(
            f"`{name}` must have the direction 'min' or 'max'. "
            f"Received: {name}={value.name!r} with direction={value.direction!r}"
        )


_SETTINGS = {
    "objective": _objective,
    "max_trials": _positive_or_none,
    "seed": _seed,
    "max_retries_per_trial": _count,
    "max_consecutive_failed_trials": positive_integer,
    "num_initial_points": _positive_or_none,
    "alpha": _not_negative,
    "beta": _not_negative,
    "max_epochs": positive_integer,
    "factor": _at_least_two,
    "hyperband_iterations": _endless,
}


def require_settings(settings):
    """Raises a `ValueError` for an argument of an oracle that is out of its range."""
    for name in settings.keys() & _SETTINGS.keys():
        _SETTINGS[name](name, settings[name])


def require_hypermodel(hypermodel):
    """Raises a `ValueError` for what is called as a function but builds no model."""
    if isinstance(hypermodel, type | keras.Model):
        what = "the class" if isinstance(hypermodel, type) else "the model"
        name = hypermodel.__name__ if isinstance(hypermodel, type) else hypermodel.name
        raise ValueError(
            "`hypermodel` must be an instance of a HyperModel, or a function that builds and "
            f"compiles a new model for every trial. Received: {what} {name}"
        )


def require_folder(directory, project_name):
    """Raises an `OSError` unless the folder of the search can be made and written."""
    path("directory", directory, directory=True)
    place = located("directory", directory or os.curdir) / (project_name or "untitled_project")
    said = f"Received: directory={directory!r}, project_name={project_name!r}"
    if isinstance(place, Address):
        return
    if place.exists() and not place.is_dir():
        raise FileExistsError(f"`project_name` must name a folder, but {place} is a file. {said}")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"`directory` must be one that can be made ({error}). {said}") from error
    if not os.access(place, os.W_OK):
        raise PermissionError(f"`directory` must be one that can be written. {said}")


def named_arguments(args, kwargs):
    """The arguments of `fit` by their names.

    Raises:
        TypeError: `fit` does not take them.
        ValueError: one is out of its range, or `y` has not as many samples as `x`.
    """
    try:
        named = dict(inspect.signature(keras.Model.fit).bind(None, *args, **kwargs).arguments)
    except TypeError as error:
        raise TypeError(f"search() takes the arguments of keras.Model.fit: {error}") from None
    named.pop("self")
    for name, check in _OF_FIT.items():
        if name in named:
            check(name, named[name])
    sizes = [getattr(named.get(name), "shape", ())[:1] for name in ("x", "y")]
    if all(sizes) and sizes[0] != sizes[1]:
        raise ValueError(
            "`y` must have as many samples as `x`. "
            f"Received: {sizes[1][0]} for `y`, {sizes[0][0]} for `x`"
        )
    return named


def _part(name, value):
    rule = "be a number from 0 to below 1"
    return value if value is None else real_number(name, value, rule, lambda v: 0 <= v < 1)


_OF_FIT = {
    "batch_size": _positive_or_none,
    "epochs": positive_integer,
    "initial_epoch": _count,
    "validation_split": _part,
}


def list_of_callbacks(callbacks):
    """Callbacks as the list that keras-tuner adds its own to.

    Raises:
        TypeError: one of them is no callback.
    """
    several = isinstance(callbacks, list | tuple)
    each = list(callbacks) if several else [] if callbacks is None else [callbacks]
    for one in each:
        if not isinstance(one, keras.callbacks.Callback):
            raise TypeError(
                "`callbacks` must be instances of keras.callbacks.Callback. "
                f"Received: {one!r} among them"
            )
    return each
