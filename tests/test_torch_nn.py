"""Weights of torch.nn give here what the equations of its documentation give.

benchmarks/converted.py compares with torch itself.
"""

import keras
import ml_dtypes
import numpy as np
import pytest

from kerasrnn import cells, layers
from kerasrnn.layers import from_torch, to_torch

RNG = np.random.default_rng(0)
FEATURES, UNITS = 3, 5
X = RNG.normal(size=(2, 7, FEATURES)).astype("float32")
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
OURS = {"LSTM": layers.LSTM, "GRU": layers.GRU, "RNN": layers.SimpleRNN}


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def torch_state(kind, depth=1, both=False, bias=True, prefix="", rng=RNG):
    """Random weights under the names and in the shapes of torch's documentation."""
    state = {}
    rows = GATES[kind] * UNITS
    for level in range(depth):
        width = FEATURES if level == 0 else UNITS * (1 + both)
        for suffix in ("", "_reverse")[: 1 + both]:
            shapes = {"weight_ih": (rows, width), "weight_hh": (rows, UNITS)}
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)} if bias else {}
            for name, shape in shapes.items():
                state[f"{prefix}{name}_l{level}{suffix}"] = rng.normal(0, 0.5, shape)
    return state


def torch_step(kind, weights, x, states, nonlinearity):
    """One step as in the documentation of torch.nn.RNN, LSTM and GRU."""
    w_ih, w_hh, b_ih, b_hh = weights
    from_x, from_h = x @ w_ih.T + b_ih, states[0] @ w_hh.T + b_hh
    if kind == "RNN":
        return [nonlinearity(from_x + from_h)]
    x_gates, h_gates = (np.split(v, GATES[kind], axis=-1) for v in (from_x, from_h))
    if kind == "LSTM":
        i, f, g, o = (a + b for a, b in zip(x_gates, h_gates, strict=True))
        c = sigmoid(f) * states[1] + sigmoid(i) * np.tanh(g)
        return [sigmoid(o) * np.tanh(c), c]
    r, z = (sigmoid(a + b) for a, b in zip(x_gates[:2], h_gates[:2], strict=True))
    n = np.tanh(x_gates[2] + r * h_gates[2])
    return [(1 - z) * n + z * states[0]]


def torch_run(kind, state, x, nonlinearity=np.tanh):
    """The outputs and the final states in the order of h_n, and of c_n, of a torch layer."""
    last = []
    depth = 1 + max(int(name.split("_l")[1][0]) for name in state)
    for level in range(depth):
        outputs = []
        for suffix in ("", "_reverse"):
            names = [f"{name}_l{level}{suffix}" for name in ("weight_ih", "weight_hh")]
            if names[0] not in state:
                continue
            weights = [state[name] for name in names]
            for name in ("bias_ih", "bias_hh"):
                weights.append(state.get(f"{name}_l{level}{suffix}", 0.0))
            states = [np.zeros((len(x), UNITS))] * (2 if kind == "LSTM" else 1)
            steps = []
            for t in range(x.shape[1])[:: -1 if suffix else 1]:
                states = torch_step(kind, weights, x[:, t], states, nonlinearity)
                steps.append(states[0])
            outputs.append(np.stack(steps[:: -1 if suffix else 1], axis=1))
            last.extend(states)
        x = np.concatenate(outputs, axis=-1)
    return x, last


def relu(v):
    return np.maximum(v, 0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("depth", "both"), [(1, False), (1, True), (3, False), (2, True)])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "tanh", "relu"])
def test_weights_of_torch(kind, depth, both, bias):
    options = {} if kind in GATES else {"nonlinearity": kind}
    function = relu if kind == "relu" else np.tanh
    kind = kind if kind in GATES else "RNN"
    state = torch_state(kind, depth, both, bias)
    expected, last = torch_run(kind, state, X, function)
    layer = from_torch(state, **options, return_state=True)
    expected_class = OURS[kind] if not both else layers.Bidirectional
    assert type(layer) is (expected_class if depth == 1 else layers.RNNStack)
    y, *states = layer(X)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(states, last, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    back = to_torch(layer)
    assert back.keys() == state.keys()
    for name, array in state.items():
        assert back[name].shape == array.shape
        assert back[name].flags.c_contiguous
        if kind == "GRU" or "weight" in name:
            np.testing.assert_allclose(back[name], array, rtol=1e-6)
        elif "bias_hh" in name:
            other = name.replace("hh", "ih")
            np.testing.assert_allclose(back[other], state[other] + array, rtol=1e-4, atol=1e-6)
            assert not back[name].any()
    np.testing.assert_allclose(
        torch_run(kind, back, X, function)[0], expected, rtol=1e-4, atol=1e-5
    )


class Tensor:
    """As much of a tensor of torch as is asked for."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def cpu(self):
        return self

    def double(self):
        return self.array.astype("float64")


class Module:
    """As much of a torch module as is asked for."""

    def __init__(self, state, **inside):
        self.state = state
        vars(self).update(inside)

    def state_dict(self):
        return {name: Tensor(array) for name, array in self.state.items()}

    def get_submodule(self, path):
        return getattr(self, path.replace(".", "_")) if path else self


def test_a_layer_within_a_module():
    state = torch_state("RNN", both=True, prefix="encoder.rnn.")
    expected, _ = torch_run(
        "RNN", {k.removeprefix("encoder.rnn."): v for k, v in state.items()}, X, relu
    )
    module = Module(
        state | {"head.weight": np.ones((2, 10))},
        encoder_rnn=Module({}, nonlinearity="relu"),
    )
    for prefix in ("encoder.rnn", "encoder.rnn."):
        layer = from_torch(module, prefix, name="mine")
        assert layer.name == "mine"
        np.testing.assert_allclose(layer(X), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"that of the module, 'relu'.*nonlinearity='tanh'"):
        from_torch(module, "encoder.rnn", nonlinearity="tanh")


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_cells_of_torch(kind):
    """They have the names of a layer without its number."""
    state = torch_state(kind)
    cell = {name.removesuffix("_l0"): array for name, array in state.items()}
    layer = from_torch(cell, return_sequences=False)
    np.testing.assert_allclose(layer(X), torch_run(kind, state, X)[0][:, -1], rtol=1e-5, atol=1e-5)


def test_options_of_the_layer_that_is_made():
    layer = from_torch(torch_state("GRU", 2), dropout=0.3, name="stack", return_sequences=False)
    assert (layer.name, layer.dropout, layer.return_sequences) == ("stack", 0.3, False)
    both = from_torch(torch_state("GRU", 1, True), dtype="float64", go_backwards=False)
    assert both.forward_layer.cell.kernel.dtype == "float64"


def test_weights_in_bfloat16():
    """Of which NumPy knows nothing but by ml_dtypes; tensors are asked for doubles."""
    state = {name: array.astype(ml_dtypes.bfloat16) for name, array in torch_state("GRU").items()}
    rounded = {name: array.astype("float64") for name, array in state.items()}
    expected, _ = torch_run("GRU", rounded, X)
    layer = from_torch(state)
    assert layer.cell.kernel.dtype == "float32"
    np.testing.assert_allclose(layer(X), expected, rtol=1e-5, atol=1e-5)
    mixed = from_torch(state, dtype="mixed_bfloat16")
    np.testing.assert_array_equal(mixed.cell.kernel, layer.cell.kernel)
    pure = from_torch(state, dtype="bfloat16", recurrent_initializer="glorot_uniform")
    np.testing.assert_array_equal(np.array(pure.cell.kernel, "float32"), layer.cell.kernel)


class Quantized(Tensor):
    """As torch's: it has no doubles."""

    def double(self):
        raise RuntimeError("not on the backend 'QuantizedCPU'")


def changed(kind="LSTM", *, without=(), **more):
    state = torch_state(kind, 2)
    return {name: array for name, array in state.items() if name not in without} | more


ODD = {
    "proj_size": (
        lambda: from_torch(changed(weight_hr_l0=np.ones((2, 5)))),
        "without a projection.*`proj_size`.*Received: weight_hr_l0",
    ),
    "missing": (
        lambda: from_torch(changed(without=["bias_hh_l1"])),
        "Missing: bias_hh_l1. Received: weight_ih_l0, weight_hh_l0",
    ),
    "level": (
        lambda: from_torch(changed(weight_ih_l3=np.ones((20, 5)))),
        "Missing: weight_ih_l2, weight_hh_l2, bias_ih_l2",
    ),
    "odd": (
        lambda: from_torch(changed(alpha=np.ones(3))),
        "`prefix` must lead to .* here '' does. Received: prefix='', where there is alpha",
    ),
    "prefix": (
        lambda: from_torch({f"net.rnn.{k}": v for k, v in changed().items()}),
        "here 'net.rnn.' does. Received: prefix='', where there is net.rnn.weight_ih_l0",
    ),
    "nothing": (
        lambda: from_torch({"head.weight": np.ones(2)}, "net"),
        "here nothing does. Received: prefix='net.', where there is nothing",
    ),
    "rows": (
        lambda: from_torch({"weight_ih_l0": np.ones((10, 3)), "weight_hh_l0": np.ones((10, 5))}),
        r"`weight_hh_l0` must have 4 rows per column.*weight_hh_l0.shape=\(10, 5\)",
    ),
    "shape": (
        lambda: from_torch(changed(bias_hh_l0=np.ones(5))),
        r"`bias_hh_l0` must have the shape \(20\). Received: bias_hh_l0.shape=\(5,\)",
    ),
    "width": (
        lambda: from_torch(changed(weight_ih_l1=np.ones((20, 3)))),
        r"`weight_ih_l1` must have the shape \(20, 5\)",
    ),
    "no nonlinearity": (
        lambda: from_torch(torch_state("RNN")),
        "`nonlinearity` must be 'tanh' or 'relu'. Received: nonlinearity=None",
    ),
    "nonlinearity": (
        lambda: from_torch(torch_state("GRU"), nonlinearity="relu"),
        "nonlinearity='relu' for the weights of a gru",
    ),
    "said": (
        lambda: from_torch(torch_state("GRU"), reset_after=False),
        "`reset_after` must be left out.*reset_after=False",
    ),
    **{
        f"prefix {prefix!r}": (
            lambda prefix=prefix: from_torch(torch_state("GRU"), prefix),
            f"`prefix` must be a string.*prefix={prefix!r}",
        )
        for prefix in (None, 3)
    },
    **{
        f"{name}={value!r} of {depth}{' both' * both}": (
            lambda options={name: value}, depth=depth, both=both: from_torch(
                torch_state("GRU", depth, both), **options
            ),
            f"`?{rule}.*Received: {name}={value!r}",
        )
        for name, value, depth, both, rule in (
            ("normalization", "layer", 1, False, "The options must bring no weights"),
            ("normalization", "layer", 2, False, "The options must bring no weights"),
            ("initial_state", "learned", 1, True, "The options must bring no weights"),
            ("stateful", True, 1, False, "stateful` must be False"),
            ("stateful", True, 2, False, "stateful` must be False"),
            ("go_backwards", True, 1, True, "go_backwards` must be False"),
            ("merge_mode", "sum", 1, True, "merge_mode` must be left out"),
            ("merge_mode", None, 1, False, "merge_mode` must be left out"),
            ("merge_mode", "gate", 2, True, "merge_mode` must be left out"),
            ("dtype", "int32", 1, False, "dtype` must be one of real numbers"),
            ("dtype", "bool", 2, True, "dtype` must be one of real numbers"),
        )
    },
    "quantized": (
        lambda: from_torch(changed(weight_hh_l1=Quantized(1))),
        "`weight_hh_l1` must be an array or a tensor of real numbers; of a quantized.*QuantizedCPU",
    ),
    **{
        f"of {kind}": (
            lambda kind=kind: from_torch(changed(bias_ih_l0=np.ones(20).astype(kind))),
            "`bias_ih_l0` must be an array or a tensor of real numbers.*an array of ",
        )
        for kind in ("complex64", "str", "object")
    },
    "no array": (
        lambda: from_torch(changed(bias_ih_l0=[[1, 2], [3]])),
        "`bias_ih_l0` must be an array or a tensor of real numbers.*inhomogeneous",
    ),
    "bfloat16": (
        lambda: from_torch(torch_state("LSTM"), dtype="bfloat16"),
        "`dtype` must be 'mixed_bfloat16'.*Received: dtype='bfloat16'",
    ),
    "no name": (lambda: from_torch({3: np.ones(3)}), "dictionary of arrays or tensors by their n"),
    "kind": (lambda: from_torch(3), "`state_dict_or_module` must be .*Received: .*=3"),
}


@pytest.mark.parametrize("case", ODD)
def test_weights_that_are_no_layer_s(case):
    call, message = ODD[case]
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def stack(**options):
    return lambda: layers.RNNStack("lstm", 3, 2, **options)


def lstm(**options):
    return lambda: layers.LSTM(3, name="lstm", **options)


NOT_TORCH = {
    "no layer": (lambda: keras.layers.Dense(3), "`layer` must be a SimpleRNN.*Received: layer=<D"),
    "cell": (lambda: layers.RNN("mgu", units=3), "mgu_cell .*equations that torch does not have"),
    "activation": (lstm(activation="relu"), "lstm_cell .* with activation=<function relu"),
    "gates": (lstm(recurrent_activation="relu"), "recurrent_activation=<function relu"),
    "before": (lambda: layers.GRU(3, reset_after=False), "reset_after=False"),
    "write": (lambda: layers.GRU(3, update_gate="write"), "update_gate='write'"),
    "zoneout": (lstm(zoneout=0.2), "lstm_cell .* with zoneout=0.2"),
    "normalization": (lstm(normalization="layer"), "normalization='layer'"),
    "learned": (lstm(initial_state="learned"), "initial_state='learned'"),
    "backward": (lstm(go_backwards=True), r"lstm \(LSTM\) with go_backwards=True"),
    "merge": (
        lambda: layers.Bidirectional(layers.LSTM(3), merge_mode="sum"),
        r"\(Bidirectional\) with merge_mode='sum'; torch has both directions as 'concat' does",
    ),
    "gate": (
        lambda: layers.Bidirectional(layers.LSTM(3), merge_mode="gate"),
        "with merge_mode='gate'; torch has both directions as 'concat'",
    ),
    "connection": (stack(connection="residual"), "with connection='residual'"),
    "normalized": (stack(normalization="layer"), "with normalization='layer'"),
    "units": (
        lambda: layers.RNN([cells.GRUCell(3, name="a"), cells.GRUCell(4, name="b")]),
        r"b \(GRUCell\) with another units than a",
    ),
    "cells": (
        lambda: layers.RNN([cells.GRUCell(3, name="a"), cells.LSTMCell(3, name="b")]),
        r"b \(LSTMCell\) with another cell than a",
    ),
    "two in one": (
        lambda: keras.layers.Bidirectional(
            keras.layers.RNN([keras.layers.GRUCell(3), keras.layers.GRUCell(3)])
        ),
        "stacked cells within one direction",
    ),
}


@pytest.mark.parametrize("case", NOT_TORCH)
def test_layers_that_torch_does_not_have(case):
    make, message = NOT_TORCH[case]
    layer = make()
    layer.build((None, None, 3))
    with pytest.raises(ValueError, match=message):
        to_torch(layer)


def test_a_layer_that_is_not_built():
    with pytest.raises(ValueError, match=r"must be built.*Received: lstm_cell"):
        to_torch(layers.LSTM(3))


def test_weights_of_keras_s_layers_for_torch(random_weights):
    stacked = keras.layers.RNN(
        [keras.layers.GRUCell(UNITS) for _ in range(2)], return_sequences=True
    )
    both = keras.layers.Bidirectional(keras.layers.LSTM(UNITS, return_sequences=True))
    for kind, layer in (("GRU", stacked), ("LSTM", both)):
        layer.build(X.shape)
        random_weights(layer)
        y, _ = torch_run(kind, to_torch(layer), X)
        np.testing.assert_allclose(layer(X), y, rtol=1e-5, atol=1e-5)
