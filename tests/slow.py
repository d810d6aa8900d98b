"""Parameters of which `make test` takes a few and `make test-all` all."""

import pytest


def slow_but(few, parameters):
    """The parameters, with the mark of the slow tests on all but a few."""
    listed = (one if isinstance(one, tuple) else (one,) for one in parameters)
    return [
        pytest.param(*one, marks=() if (one in few or one[0] in few) else pytest.mark.slow)
        for one in listed
    ]
