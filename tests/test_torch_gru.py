"""The GRU under PyTorch with a backward loop: its values beside the equations in NumPy, its
gradients beside finite differences. It runs where Keras's backend is PyTorch."""

import itertools

import numpy as np
import pytest
import twins

from kerasrnn import layers
from kerasrnn.backends import BACKEND

if BACKEND != "torch":
    pytest.skip("needs Keras's PyTorch backend", allow_module_level=True)

import torch

from kerasrnn.recurrence import torch_gru

BATCH, TIME, FEATURES, UNITS = 2, 5, 2, 3
# Of (TIME, BATCH, 3 UNITS) in float64: one step alone, two steps, all.
BLOCKS = 1, 2 * BATCH * 3 * UNITS * 8, 1 << 20


@pytest.fixture(params=BLOCKS, autouse=True)
def blocks(request, monkeypatch):
    monkeypatch.setattr(torch_gru, "_BLOCK_BYTES", request.param)


@pytest.fixture
def arguments(rng):
    shapes = (BATCH, TIME, FEATURES), (BATCH, UNITS), (FEATURES, 9), (UNITS, 9), (2, 9)
    return [torch.tensor(rng.normal(size=shape), requires_grad=True) for shape in shapes]


def plain(x, h, kernel, recurrent_kernel, bias):
    outputs = []
    for x_t in x.unbind(1):
        of_x = (x_t @ kernel + bias[0]).chunk(3, -1)
        of_h = (h @ recurrent_kernel + bias[1]).chunk(3, -1)
        z, r = (torch.sigmoid(a + b) for a, b in zip(of_x[:2], of_h[:2], strict=True))
        h = z * h + (1 - z) * torch.tanh(of_x[2] + r * of_h[2])
        outputs.append(h)
    return torch.stack(outputs, 1)


def gru(*arguments):
    return torch_gru.gru(*arguments, plain)


def test_values_are_those_of_the_equations(arguments):
    x, h, *weights = (v.detach().numpy() for v in arguments)
    expected, _ = twins.run(twins.gru, weights, x, [h])
    np.testing.assert_allclose(gru(*arguments).detach(), expected, rtol=1e-12)


def test_gradients_are_those_of_finite_differences(arguments):
    assert torch.autograd.gradcheck(gru, arguments)


def test_gradients_of_some_alone(arguments):
    for chosen in itertools.combinations(range(5), 2):
        some = [v.detach().requires_grad_(i in chosen) for i, v in enumerate(arguments)]
        assert torch.autograd.gradcheck(gru, some)


def test_second_derivatives_are_those_of_finite_differences(arguments):
    assert torch.autograd.gradgradcheck(gru, arguments)


# PyTorch's own, the first time that it differentiates forward.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_forward_mode_is_the_transpose_of_the_gradient(arguments, rng):
    arguments = tuple(v.detach() for v in arguments)
    tangents = tuple(torch.tensor(rng.normal(size=v.shape)) for v in arguments)
    outputs, d_outputs = torch.func.jvp(gru, arguments, tangents)
    adjoint = torch.tensor(rng.normal(size=outputs.shape))
    _, pull = torch.func.vjp(gru, *arguments)
    back = sum((d * g).sum() for d, g in zip(tangents, pull(adjoint), strict=True))
    torch.testing.assert_close((d_outputs * adjoint).sum(), back)


def test_a_graph_may_be_walked_twice(arguments):
    loss = (gru(*arguments) ** 2).sum()
    first = torch.autograd.grad(loss, arguments, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(loss, arguments), strict=True):
        assert torch.equal(one, other)


def test_it_trains_and_what_predicts_is_the_kernel_of_torch(monkeypatch):
    calls = []
    loop = torch_gru.gru
    monkeypatch.setattr(torch_gru, "gru", lambda *of: calls.append(1) or loop(*of))
    layer, x = layers.GRU(UNITS, return_sequences=True), torch.randn(BATCH, TIME, FEATURES)
    trained = layer(x)
    assert calls
    with torch.no_grad():
        predicted = layer(x)
    assert len(calls) == 1
    torch.testing.assert_close(trained, predicted)
