"""What an argument must be: each check gives the value, or an error that names the argument, the
rule and what was received."""

import difflib
import inspect
import math
import numbers

import keras
import numpy as np

RESOLVERS = {
    "activation": keras.activations,
    "initializer": keras.initializers,
    "regularizer": keras.regularizers,
    "constraint": keras.constraints,
}


def own_parameters(cls):
    """The arguments the constructor of `cls` names itself, in order."""
    named = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return {p.name: p for p in named if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def check_spelling(owner, keywords, known):
    """Raises a `ValueError` for a keyword that is not `known`, but nearly; others are Keras's."""
    known = [*known, *own_parameters(keras.layers.Layer)]
    for name, value in keywords.items():
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        if name not in known and near:
            raise ValueError(
                f"{owner} has no argument `{name}`; did you mean `{near[0]}`? "
                f"Received: {name}={value!r}"
            )


def positive_integer(name, value):
    """`value` as an `int`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
    return int(value)


def real_number(name, value, rule="be a finite number", holds=math.isfinite):
    """`value` as a `float`, of which `holds` says whether it keeps to the rule."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not holds(value):
        raise ValueError(f"`{name}` must {rule}. Received: {name}={value!r}")
    return float(value)


def fraction(name, value):
    """`value` as a `float`; the whole is none."""
    return real_number(name, value, "lie in [0, 1)", lambda v: 0 <= v < 1)


def one_of(choices, name, value):
    """The one of `choices` that equals `value`."""
    # An array compares by entries.
    if value is None or isinstance(value, str | numbers.Number | np.bool_):
        for choice in choices:
            if choice == value:
                return choice
    *others, last = map(repr, choices)
    rule = f"{', '.join(others)} or {last}" if others else last
    raise ValueError(f"`{name}` must be {rule}. Received: {name}={value!r}")


def boolean(name, value):
    """`value` as a `bool`."""
    return one_of((True, False), name, value)


def resolved(name, value):
    """What stands for `value` in the module of Keras that `name` speaks of, if any."""
    kind = name.rpartition("_")[2]
    if kind not in RESOLVERS:
        return value
    if kind == "activation" and isinstance(value, str):
        value = _registered_activation(value)
    try:
        return RESOLVERS[kind].get(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be what keras.{kind}s.get takes: a name, a configuration or a "
            f"callable. Received: {name}={value!r}"
        ) from error


def _registered_activation(name):
    """The function registered with Keras as `name`, where keras.activations, which looks for names
    in itself alone, has none of that name; those of this package go without their prefix, too."""
    if not hasattr(keras.activations, name):
        for key in (name, f"kerasrnn>{name}"):
            function = keras.saving.get_registered_object(key)
            if inspect.isfunction(function):
                return function
    return name
