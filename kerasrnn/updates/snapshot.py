"""The values that variables had."""

import numpy as np


class Snapshot:
    """The values of variables at the time it was made, in memory.

    Args:
        variables: A list of them.
        values: The `values` of another snapshot, of the same variables in another process.
    """

    def __init__(self, variables, values=None):
        if values is None:
            # Some backends give the memory itself, which the next step writes.
            values = [np.array(variable.numpy()) for variable in variables]
        self._values = list(zip(variables, values, strict=True))

    def __len__(self):
        return len(self._values)

    @property
    def values(self):
        return [value for _, value in self._values]

    @property
    def finite(self):
        return all(np.isfinite(value).all() for _, value in self._values)

    def change(self, variable):
        """How much a variable has grown since; one that is new was 0."""
        before = next((value for one, value in self._values if one is variable), 0.0)
        return float(variable.numpy()) - float(before)

    def restore(self, which=lambda variable: True):
        """Sets back the variables, or those of them for which `which` is true."""
        for variable, value in self._values:
            if which(variable):
                variable.assign(value)
