import importlib.util
import itertools
import pathlib

import numpy as np

from kerasrnn.callbacks import GradientClipping

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_exploding_cliff(tmp_path, capsys):
    """The clipped path against gradient descent by hand, with finite differences; the other ends
    where nothing leads back from."""
    example = load("exploding_cliff")
    example.main(["--updates", "100", "--out", str(tmp_path / "cliff.png")])
    assert (tmp_path / "cliff.png").stat().st_size > 10_000
    assert capsys.readouterr().out.count("after 100 updates") == 2

    free = example.descend(100)
    clipped = example.descend(100, GradientClipping("global_norm", example.THRESHOLD))
    assert example.error(*free[-1]) > 9e-4
    assert free[-1][1] > 5
    assert example.error(*clipped[-1]) < 1e-5

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
