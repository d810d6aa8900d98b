"""benchmarks/depth.py, but for the training itself."""

import importlib.util
import pathlib

import numpy as np
import pytest
import tensorflow as tf

PATH = pathlib.Path(__file__).parents[1] / "benchmarks" / "depth.py"


@pytest.fixture
def depth(monkeypatch, tmp_path):
    # As for a script in its folder.
    monkeypatch.syspath_prepend(PATH.parent)
    spec = importlib.util.spec_from_file_location("depth", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RUNS", tmp_path / "runs" / "depth.jsonl")
    return module


@pytest.fixture
def trained(depth, monkeypatch):
    """The runs that were trained; each loss falls by 0.1 per chunk, from 1 + its seed."""
    runs = []

    def train(run):
        runs.append(run)
        losses = [1 + run["seed"] - 0.1 * i for i in range(run["steps"] // run["chunk"])]
        return {"losses": losses, "before": 10.0 ** run["seed"], "after": 2.0}

    monkeypatch.setattr(depth, "train", train)
    return runs


@pytest.mark.parametrize("changed", ["units", "depth", "batch", "learning_rate", "length", "steps"])
def test_a_run_is_known_by_all_that_determines_it(depth, trained, changed, monkeypatch):
    depth.run_all(depth.wanted(1, 100))
    assert len(trained) == 2 * (6 + 6 + 4)
    depth.run_all(depth.wanted(1, 100))
    assert len(trained) == 32
    if changed != "steps":
        monkeypatch.setitem(depth.COMMON, changed, 99)
    depth.run_all(depth.wanted(1, 125 if changed == "steps" else 100))
    assert len(trained) == 64


def test_the_tables(depth, trained, capsys):
    runs = depth.wanted(3, 500)
    depth.table(runs, depth.run_all(runs))
    printed = capsys.readouterr().out
    assert "8 layers, 32 wide" in printed
    assert "with respect to the biases of layer 1" in printed
    # The mean of the last two of 20 losses; the first below 0.69 by a seed of 0 is the fifth.
    expected = (
        "| order | gru | residual, bidirectional | -0.850, 0.150, 1.150 | 125, 375, - | 10 | 2 |"
    )
    assert expected in printed
    letters = depth.text()[1]
    shares = np.unique(letters, return_counts=True)[1] / len(letters)
    for task, chance in (
        ("adding", 0.1667),
        ("order", np.log(4)),
        ("letters", -sum(shares * np.log(shares))),
    ):
        rule = f"| {task} | {chance:.3f} | {depth.THRESHOLDS[task]} |"
        assert rule in printed
    for line in printed.splitlines():
        if line.startswith("|"):
            assert line.count("|") in (4, 8)


@pytest.mark.parametrize("name", ["plain", "dense", "residual, bidirectional"])
def test_the_ratio_is_that_of_the_first_layer_s_biases_to_the_last_s(depth, name):
    small = {"task": "order", "cell": "lstm", "options": depth.STACKS[name], "length": 10}
    run = small | depth.COMMON | {"depth": 3, "units": 4}
    model, stack = depth.build(run)
    x, y = depth.data(run, 5, seed=0)
    with tf.GradientTape() as tape:
        loss = model.loss(y, model(x))
    gradients = tape.gradient(loss, model.trainable_weights[:-2])
    named = zip(model.trainable_weights, gradients, strict=False)
    norms = [np.linalg.norm(g) for weight, g in named if weight.path.endswith("bias")]
    half = len(norms) // 3
    expected = np.linalg.norm(norms[:half]) / np.linalg.norm(norms[-half:])
    assert depth.gradient_ratio(model, stack, x, y) == pytest.approx(expected, rel=1e-5)
