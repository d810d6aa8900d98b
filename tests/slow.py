"""Parameters of which `make test` takes a few and `make test-all` all."""

import pytest


def slow_but(few, parameters):
    """The parameters, with the mark of the slow tests on all but a few."""
    return [one if one in few else pytest.param(one, marks=pytest.mark.slow) for one in parameters]
