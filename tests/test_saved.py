"""Models saved by release 0.1, before its modules were moved, load and give the same numbers."""

import pathlib

import keras
import numpy as np
import pytest

import kerasrnn  # noqa: F401  registers the layers

FOLDER = pathlib.Path(__file__).parent / "saved"


@pytest.mark.parametrize("name", ["connections", "cells"])
def test_a_saved_model_gives_the_numbers_it_gave(name):
    """The first holds stacks, directions, connections, initializers and a schedule; the second
    every registered cell, with states that a stateful layer has kept."""
    model = keras.models.load_model(FOLDER / f"{name}.keras")
    with np.load(FOLDER / f"{name}.npz") as file:
        x, y = file["x"], file["y"]
        rate = float(file["lr"]) if "lr" in file else None
    np.testing.assert_allclose(model(x), y, rtol=1e-5, atol=1e-6)
    if rate is not None:
        np.testing.assert_allclose(float(model.optimizer.learning_rate), rate, rtol=1e-6)
