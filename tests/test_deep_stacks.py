import deep_stacks
import numpy as np
import pytest
import tensorflow as tf

from kerasrnn.cells import CELLS


@pytest.fixture
def small(monkeypatch):
    for name, value in {"units": 4, "batch": 8, "chunk": 2, "length": 5}.items():
        monkeypatch.setitem(deep_stacks.SETTINGS, name, value)


def test_the_script(capsys, tmp_path, monkeypatch, rng):
    """But for the training."""

    def result(connection, seed, cell, depth, updates):
        assert (seed, cell, depth, updates) == (2, "gru", 3, 9)
        gradient = rng.random((3, 30)).tolist()
        return {"gradient": gradient, "arrives": 0.25, "losses": [0.5, 0.125], "loss": 0.125}

    monkeypatch.setattr(deep_stacks, "result", result)
    flags = ["--updates", "9", "--depth", "3", "--cell", "gru", "--seed", "2"]
    deep_stacks.main([*flags, "--out", str(tmp_path / "x.png")])
    lines = capsys.readouterr().out.splitlines()
    assert ["plain", "0.25", "0.1250"] in [line.split() for line in lines]
    assert ["always", "1", "0.1667"] in [line.split() for line in lines]
    assert lines[-1].startswith("Next: python examples/deep_stacks.py")
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_a_cell_that_is_none_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        deep_stacks.main(["--cell", "nope"])
    said = capsys.readouterr().err
    assert "argument --cell: invalid choice: 'nope'" in said
    assert all(name in said for name in CELLS)


@pytest.mark.usefixtures("small")
def test_a_result_is_that_of_a_tape(monkeypatch):
    """The gradient with respect to what is added to each state, of two Elman nets written out."""
    starts = []
    losses_of = deep_stacks.losses_of

    def kept(run, model, x, y):
        starts.append(model.get_weights())
        return losses_of(run, model, x, y)

    monkeypatch.setattr(deep_stacks, "losses_of", kept)
    found = deep_stacks.result("plain", 3, "simple_rnn", depth=2, updates=4)
    assert len(found["losses"]) == 2
    assert found["loss"] == pytest.approx(np.mean(found["losses"]))

    ((*layers, kernel, bias),) = starts
    x, y = deep_stacks.adding_problem(8, 5, 1003)
    added = tf.zeros((2, 5, 8, 4))
    with tf.GradientTape() as tape:
        tape.watch(added)
        below = tf.unstack(tf.constant(x, tf.float32), axis=1)
        for number in range(2):
            w, r, b = layers[3 * number : 3 * number + 3]
            states = [tf.zeros((8, 4))]
            for t in range(5):
                states.append(tf.tanh(below[t] @ w + states[-1] @ r + b) + added[number, t])
            below = states[1:]
        loss = tf.reduce_mean((below[-1] @ kernel + bias - y.reshape(-1, 1)) ** 2)
    expected = tf.norm(tape.gradient(loss, added), axis=-1).numpy().mean(axis=-1)
    np.testing.assert_allclose(found["gradient"], expected, rtol=1e-4)
    first, last = np.linalg.norm(expected, axis=1)
    assert found["arrives"] == pytest.approx(first / last, rel=1e-4)


def test_connections_are_those_of_a_stack():
    run = deep_stacks.SETTINGS | {"depth": 3, "units": 4}
    for name, options in deep_stacks.CONNECTIONS.items():
        stack = deep_stacks.stack_of(run, "lstm", options)
        assert (stack.depth, stack.connection or "plain") == (3, name)
