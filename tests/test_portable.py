"""The loop in `keras.ops`, under the backend that runs, against the twins in NumPy."""

import numpy as np
import pytest
import twins
from any_backend import compiled, gradients
from keras import ops
from slow import slow_but

from kerasrnn import cells, recurrence

X = np.random.default_rng(1).normal(size=(3, 6, 2))
# A row that begins with masked steps, one with holes, one of which nothing is left.
MASK = np.array([[0, 0, 1, 1, 0, 1], [1, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]], bool)
RESET = np.array([[0, 0, 1, 0, 0, 1], [1, 0, 0, 1, 1, 0], [0, 1, 0, 0, 0, 0]], bool)
CALLS = {
    "plain": {},
    "mask": {"mask": MASK},
    "zeros": {"mask": MASK, "zero_output_for_mask": True},
    "reset": {"mask": MASK, "reset": RESET},
    "backwards": {"mask": MASK, "reset": RESET, "go_backwards": True},
    "unrolled": {"mask": MASK, "reset": RESET, "go_backwards": True, "unroll": True},
    "last": {"mask": MASK, "return_sequences": False},
}
TWINS = {name: cases[0] for name, cases in twins.TWINS.items()}
FEW = ["lstm", "slstm", "sru", "lru"]


def by_hand(
    twin,
    weights,
    x,
    states,
    mask=None,
    reset=None,
    go_backwards=False,
    zero_output_for_mask=False,
    **further,
):
    """The outputs, in the order of the steps, and the last states."""
    count = x.shape[1]
    mask = np.ones(x.shape[:2], bool) if mask is None else mask
    reset = np.zeros(x.shape[:2], bool) if reset is None else reset
    outputs, y = [], 0
    for t in range(count)[:: -1 if go_backwards else 1]:
        begins = t + 1 if go_backwards else t
        if begins < count:
            states = [np.where(reset[:, begins, None], 0, s) for s in states]
        output, new = twins.output_and_states(twin(weights, x[:, t], states))
        on = mask[:, t, None]
        y = np.where(on, output, 0 if zero_output_for_mask else y)
        states = [np.where(on, n, s) for n, s in zip(new, states, strict=True)]
        outputs.append(y)
    return np.stack(outputs, axis=1), states


@pytest.fixture
def made(rng, random_weights):
    """A cell and states it can be in."""

    def made(name, units=4):
        cell = cells.get(name)(units, dtype="float64", **TWINS[name][0])
        cell.build((None, 2))
        random_weights(cell)
        states = [rng.normal(size=(3, units)) for _ in cell.states]
        # The sLSTM's normalizer, a sum of exponentials.
        states = [
            np.abs(s) + 0.5 if n == "n" else s for n, s in zip(cell.states, states, strict=True)
        ]
        return cell, states

    return made


@pytest.mark.parametrize("call", slow_but(["mask", "backwards"], CALLS))
@pytest.mark.parametrize("name", cells.CELLS)
def test_is_the_twin(name, call, made):
    cell, states = made(name)
    options = CALLS[call]

    def run(x, *states):
        return recurrence.run(cell, x, list(states), path="portable", **options)

    last, outputs, final = compiled(run)(*map(ops.convert_to_tensor, (X, *states)))
    expected, end = by_hand(TWINS[name][1], cell.get_weights(), X, states, **options)
    np.testing.assert_allclose(last, expected[:, -1], rtol=1e-9, atol=1e-12)
    if not options.get("return_sequences", True):
        expected = expected[:, -1:]
    np.testing.assert_allclose(outputs, expected, rtol=1e-9, atol=1e-12)
    for one, other in zip(final, end, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("call", slow_but(["backwards"], CALLS))
@pytest.mark.parametrize("name", slow_but(FEW, cells.CELLS))
def test_the_gradient_is_that_of_finite_differences(name, call, made, rng):
    """In one direction in the space of the inputs, the states and the weights."""
    cell, states = made(name, units=3)
    options, twin = CALLS[call], TWINS[name][1]
    at = [X, *states, *cell.get_weights()]
    direction = [rng.normal(size=v.shape) for v in at]
    weights_from = 1 + len(states)

    def loss(x, *states):
        _, outputs, final = recurrence.run(cell, x, list(states), path="portable", **options)
        return None, sum(ops.sum(ops.sin(v)) for v in (outputs, *final))

    run = compiled(lambda *values: gradients(loss, values, cell.trainable_weights)[1])
    found = run(*map(ops.convert_to_tensor, at[:weights_from]))
    slope = sum(np.vdot(np.array(g), d) for g, d in zip(found, direction, strict=True))

    def loss_at(shift):
        x, *moved = (v + shift * d for v, d in zip(at, direction, strict=True))
        start, weights = moved[: len(states)], moved[len(states) :]
        outputs, final = by_hand(twin, weights, x, start, **options)
        if not options.get("return_sequences", True):
            outputs = outputs[:, -1:]
        return sum(np.sin(v).sum() for v in (outputs, *final))

    np.testing.assert_allclose(slope, (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6, rtol=1e-6)
