"""PyTorch's kernels: the values and gradients of the plain loop, whose cells are tested against the
equations of their papers. They run where Keras's backend is PyTorch."""

import itertools

import keras
import numpy as np
import pytest

from kerasrnn import cells, layers, recurrence
from kerasrnn.backends import BACKEND
from kerasrnn.backends import framework as torch

pytestmark = pytest.mark.skipif(BACKEND != "torch", reason="they are PyTorch's")
BATCH, TIME, FEATURES, UNITS = 5, 7, 3, 4
LENGTHS = [7, 3, 0, 5, 1]
AT_THE_END = np.arange(TIME) < np.array(LENGTHS)[:, None]


def built(name, rng, **options):
    cell = cells.CELLS[name](UNITS, **options)
    cell.build((None, FEATURES))
    for weight in cell.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return cell


def tensor(values):
    return torch.tensor(np.asarray(values, "float32"), requires_grad=True)


@pytest.mark.parametrize("name", ["lstm", "gru"])
@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients_are_those_of_the_loop(name, masked, rng):
    cell = built(name, rng)
    x = tensor(rng.normal(size=(BATCH, TIME, FEATURES)))
    states = [tensor(rng.normal(size=(BATCH, UNITS))) for _ in cell.states]
    mask = torch.tensor(AT_THE_END) if masked else None
    shares = torch.tensor(rng.normal(size=(BATCH, TIME, UNITS)))
    for back, zero, sequences in itertools.product([False, True], repeat=3):
        results = []
        for path in ("torch_kernels", "portable"):
            last, outputs, final = recurrence.run(
                cell,
                x,
                states,
                mask=mask,
                go_backwards=back,
                zero_output_for_mask=zero,
                return_sequences=sequences,
                path=path,
            )
            loss = (last**2).sum() + (outputs * shares[:, : outputs.shape[1]]).sum()
            loss = loss + sum((s**3).sum() for s in final)
            inputs = [x, *states, *(w.value for w in cell.weights)]
            results.append([last, outputs, *final, *torch.autograd.grad(loss, inputs)])
        for actual, expected in zip(*results, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_padding_may_hold_anything(name, rng):
    cell = built(name, rng)
    x = rng.normal(size=(BATCH, TIME, FEATURES))
    mask = torch.tensor(AT_THE_END)
    results = []
    for padding in (0, 1e30, np.nan):
        filled = tensor(np.where(AT_THE_END[:, :, None], x, padding))
        initial = cell.get_initial_state(BATCH)
        _, outputs, final = recurrence.run(cell, filled, initial, mask=mask, path="torch_kernels")
        loss = (outputs**2).sum() + sum((s**2).sum() for s in final)
        gradients = torch.autograd.grad(loss, [w.value for w in cell.weights])
        results.append([outputs, *final, *gradients])
    for other in results[1:]:
        for actual, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    ("options", "call", "reason"),
    [
        ({}, {"mask": [[True, False, True]]}, "a mask of steps that are not all at the end"),
        ({}, {"reset": [[False, True, False]]}, "a reset"),
        ({"unroll": True}, {}, "unroll=True"),
        ({"activation": "relu"}, {}, "activation=relu"),
        ({"zoneout": 0.1}, {}, "zoneout=0.1"),
        ({"reset_after": False}, {}, "reset_after=False"),
        ({"dtype": "mixed_bfloat16"}, {}, "bfloat16, not float32 or float64"),
        ({}, {"mask": [[True, True, False]]}, None),
        ({"return_sequences": True, "go_backwards": True, "dropout": 0.2}, {}, None),
    ],
)
def test_what_it_refuses(options, call, reason, monkeypatch):
    chosen = []
    run = recurrence.PATHS["torch_kernels"].refuses

    def refuses(sequence_pass):
        chosen.append(run(sequence_pass))
        return chosen[-1]

    monkeypatch.setattr(recurrence.PATHS["torch_kernels"], "refuses", refuses)
    layers.GRU(4, **options)(
        np.ones((1, 3, 2), "float32"), **{k: np.array(v) for k, v in call.items()}
    )
    (received,) = chosen
    assert received == reason or received.startswith(reason)


@pytest.mark.parametrize("name", ["lstm", "gru"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("features", [FEATURES - 1, FEATURES + 1])
def test_another_number_of_features_is_an_error(name, masked, features, rng):
    """PyTorch's LSTM would read beside its weights."""
    cell, x = built(name, rng), torch.zeros((BATCH, TIME, features))
    mask = torch.tensor(AT_THE_END) if masked else None
    with pytest.raises(ValueError, match=f"for {FEATURES} features.*of {features} features"):
        recurrence.run(cell, x, cell.get_initial_state(BATCH), mask=mask, path="torch_kernels")


def test_stacks_and_directions_reach_them():
    model = keras.Sequential(
        [
            keras.Input((None, 3)),
            keras.layers.Masking(),
            layers.RNNStack("lstm", 4, 2, bidirectional=True, return_sequences=True),
            layers.GRU(4),
        ]
    )
    explained = recurrence.explain(model)
    assert len(explained) == 5
    paths = {choice.path for uses in explained.values() for choice in uses.values()}
    assert paths == {"torch_kernels"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU])
@pytest.mark.parametrize("masked", [False, True])
def test_under_a_compiler(kind, masked, rng):
    """To the losses of a fit without it; a file that was written under JAX asks for it."""
    x = rng.normal(size=(4, 6, 3)).astype("float32")
    x[1, 4:] = 0
    losses, weights = [], None
    for compiled in (False, True):
        masking = [keras.layers.Masking()] if masked else []
        model = keras.Sequential([keras.Input((6, 3)), *masking, kind(4), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=compiled)
        weights = weights or model.get_weights()
        model.set_weights(weights)
        fit = model.fit(x, np.ones((4, 1)), epochs=2, shuffle=False, verbose=0)
        losses.append(fit.history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_kernels_of_torch():
    """`torch.lstm` and `torch.gru`, which PyTorch's own layers call, take their arguments in this
    order; nn.LSTM and nn.GRU are computed from them and known to be right."""
    x = torch.randn(2, 5, 3)
    for kind, kernel, count in ((torch.nn.LSTM, torch.lstm, 2), (torch.nn.GRU, torch.gru, 1)):
        layer = kind(3, 4, batch_first=True)
        states = [torch.randn(1, 2, 4) for _ in range(count)]
        expected, _ = layer(x, tuple(states) if count > 1 else states[0])
        weights = [p.detach() for p in layer.parameters()]
        states = states if count > 1 else states[0]
        outputs, *_ = kernel(x, states, weights, True, 1, 0.0, False, False, True)
        torch.testing.assert_close(outputs, expected)
