"""The choices of a search: which values an argument leaves, and which of them each cell can have.

A single value is no choice, and is not in the space. `None`, which keras-tuner's `Choice` does not
take, is "none" there.
"""

import math

from kerasrnn import cells
from kerasrnn.arguments import one_of, positive_integer, real_number
from kerasrnn.initializers import Chrono, ForgetBias

# The arguments of a cell for each way to start its weights. `ForgetBias(1)` is how an LSTM of Keras
# starts anyhow.
INITIALIZERS = {
    "default": lambda T_max: {},
    "chrono": lambda T_max: {"bias_initializer": Chrono(T_max)},
    "forget_bias": lambda T_max: {"bias_initializer": ForgetBias(2.0)},
    "identity": lambda T_max: {"activation": "relu", "recurrent_initializer": "identity"},
}
# "layer" is the stack's.
NORMALIZATIONS = {None: {}, "layer": {}, "cell": {"normalization": "layer"}}


def several(name, values, check):
    """The values of an argument that takes one or several, each what `check(name, value)` gives."""
    each = tuple(values) if isinstance(values, list | tuple | range) else (values,)
    checked = tuple(check(name, value) for value in each)
    if not checked or len(set(checked)) < len(checked):
        raise ValueError(
            f"`{name}` must be one value or several different ones. Received: {name}={values!r}"
        )
    return checked


def registered(name, value):
    """`value`, if it is the name of a registered cell."""
    if not isinstance(value, str) or value not in cells.CELLS:
        raise ValueError(
            f"`{name}` must be 'all' or name registered cells: {', '.join(cells.CELLS)}. "
            f"Received: {value!r}"
        )
    return value


def among(choices):
    """A check that a value is one of `choices`."""
    return lambda name, value: one_of(tuple(choices), name, value)


def count(name, value):
    """`value` as an `int`, 0 or more."""
    return 0 if value == 0 and not isinstance(value, bool) else positive_integer(name, value)


def bounds(name, value):
    """A lower and an upper bound above 0; a single number is both."""
    pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
    try:
        lower, upper = (real_number(name, one) for one in pair)
    except ValueError:
        lower = upper = math.nan
    if not 0 < lower <= upper:
        raise ValueError(
            f"`{name}` must be a lower and an upper bound above 0, or one number above 0. "
            f"Received: {name}={value!r}"
        )
    return lower, upper


def choose(hp, name, values):
    """One of several values, by a hyperparameter of that name; `None` where that is not active."""
    named = ["none" if value is None else value for value in values]
    # A tuner that is started with hyperparameters sets also what is no choice.
    fixed = hp.get(name) if name in hp else named[0]
    value = hp.Choice(name, named) if len(values) > 1 else fixed
    return None if value == "none" else value


def choose_between(hp, name, lower, upper):
    """A number between bounds, by a hyperparameter whose logarithm is spread evenly."""
    if lower == upper:
        return choose(hp, name, (lower,))
    return hp.Float(name, lower, upper, sampling="log")


class OfCell:
    """An option of which not every cell can have every value.

    Cells that can have the same ones share a hyperparameter, which is active for them alone. It has
    a name of its own, since `keras_tuner.GridSearch` takes no two lists of values under one: the
    largest group with a choice has `name`, the others that and their first cell.

    Args:
        name: The hyperparameter's name.
        argument: The name of the argument that gives the values.
        values: The values.
        names: The names of the cells.
        arguments: What a cell is made with for a value: a function that gives its arguments, or
            `None` where it has no such value.

    Raises:
        ValueError: a cell can have none of the values.
    """

    def __init__(self, name, argument, values, names, arguments):
        self.groups = {}
        for cell in names:
            possible = tuple(v for v in values if can_have(cell, arguments(cell, v)))
            if not possible:
                raise ValueError(
                    f"`{argument}` must hold a value that each of the cells can have; for {cell} "
                    f"it holds none. Received: {argument}={values!r}, cells={tuple(names)!r}"
                )
            self.groups.setdefault(possible, []).append(cell)
        choosing = [members for possible, members in self.groups.items() if len(possible) > 1]
        most = max(choosing, key=len, default=None)
        self.names = {
            members[0]: name if members is most else f"{name}_{members[0]}"
            for members in self.groups.values()
        }

    def choose(self, hp, cell):
        """The value for a cell."""
        chosen = {}
        for values, members in self.groups.items():
            name = self.names[members[0]]
            if len(self.groups) == 1 or len(values) == 1:
                value = choose(hp, name, values)
            else:
                with hp.conditional_scope("cell", members):
                    value = choose(hp, name, values)
            chosen |= dict.fromkeys(members, value)
        return chosen[cell]

    def possible(self, cell):
        """The values that a cell can have."""
        return next(values for values, members in self.groups.items() if cell in members)


def can_have(cell, arguments):
    """Whether a cell can be made with these arguments; it says so itself."""
    if arguments is None:
        return False
    try:
        cells.get(cell)(1, **arguments)
    except ValueError:
        return False
    return True


def rate(option):
    """The arguments of a cell for a rate of one of its options."""
    return lambda cell, value: {option: value} if value else {}


def normalization(cell, value):
    """The arguments of a cell for `normalization`: a cell that always normalizes has no choice."""
    always = None not in cells.get(cell).normalizations
    return None if value == "cell" and always else NORMALIZATIONS[value]


def initializer(T_max):
    """As `rate`, for the names in `INITIALIZERS`; the identity is for the one recurrent matrix of a
    cell without gates (Le et al., 2015)."""

    def arguments(cell, value):
        if value == "identity" and len(cells.get(cell)(1).recurrent_gates) != 1:
            return None
        return INITIALIZERS[value](T_max)

    return arguments
