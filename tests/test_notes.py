import re

import keras
import numpy as np
import pytest
from known_nets import X, Y, compiled, found, rng, simple

from kerasrnn import layers
from kerasrnn.diagnostics import health_report, lyapunov_exponent


def test_the_report_says_where_eigenvalues_mislead():
    """W_h is 1.5 times a rotation, and saturation makes the gradients fall nevertheless."""
    layer = simple(keras.layers, 1.5)
    x = rng.normal(size=(4, 40, 8)).astype("float32")
    report = health_report(compiled(layer, shape=(40, 8)), x, Y[:4])
    health = report.layers["rnn"]
    assert health.log_radius == pytest.approx(np.log(1.5), abs=1e-5)
    assert health.lyapunov == pytest.approx(lyapunov_exponent(layer, x))
    assert health.lyapunov < 0 < health.log_radius
    assert "EXPLODING" not in {code for code, _ in found(report)}
    (note,) = report.notes
    numbers = [float(n) for n in re.findall(r"[+-]\d\.\d{3}", note)]
    expected = [health.log_radius, health.lyapunov, health.slope]
    assert numbers == pytest.approx(expected, abs=1e-3)
    assert note in " ".join(report.text.split())
    # Where they agree there is nothing to say.
    assert health_report(compiled(simple(layers, 1.5, "linear")), X, Y).notes == []
