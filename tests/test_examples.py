import importlib.util
import itertools
import pathlib

import numpy as np
import pytest

from kerasrnn.callbacks import GradientClipping

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--updates", "-1"], "--updates: must be a whole number, at least 1, not '-1'"),
        (["--out", "no/x.png"], "--out: must lie in a folder that is there, not 'no/x.png'"),
    ],
)
def test_exploding_cliff_refuses_before_the_work(flags, message, capsys):
    with pytest.raises(SystemExit):
        load("exploding_cliff").main(flags)
    assert message in capsys.readouterr().err


def test_exploding_cliff(tmp_path, capsys):
    """The clipped path against gradient descent by hand, with finite differences; the other ends
    where nothing leads back from."""
    example = load("exploding_cliff")
    example.main(["--updates", "100", "--out", str(tmp_path / "cliff.png")])
    assert (tmp_path / "cliff.png").stat().st_size > 10_000
    lines = capsys.readouterr().out.splitlines()

    free = example.descend(100)
    clipped = example.descend(100, GradientClipping("global_norm", example.THRESHOLD))
    assert example.error(*free[-1]) > 9e-4
    assert free[-1][1] > 5
    assert example.error(*clipped[-1]) < 1e-5
    assert lines[0].split() == ["after", "100", "updates", "w", "b", "E"]
    for line, (w, b) in zip(lines[2:4], (free[-1], clipped[-1]), strict=True):
        assert line.split()[-3:] == [f"{w:.2f}", f"{b:.2f}", f"{example.error(w, b):.1e}"]
    assert lines[-1].startswith("Next: python examples/exploding_cliff.py --updates 400")

    def slope(weights):
        steps = 1e-6 * np.eye(2)
        ends = [(example.error(*(weights + s)), example.error(*(weights - s))) for s in steps]
        return np.array([(after - before) / 2e-6 for after, before in ends])

    assert np.linalg.norm(slope(free[0])) < example.THRESHOLD / 5
    fired = 0
    for before, after in itertools.pairwise(clipped):
        g = slope(before)
        if np.linalg.norm(g) >= example.THRESHOLD:
            g, fired = example.THRESHOLD * g / np.linalg.norm(g), fired + 1
        # Half a percent of the longest step: single precision on a cliff.
        np.testing.assert_allclose(after, before - example.RATE * g, atol=2e-3)
    assert fired
