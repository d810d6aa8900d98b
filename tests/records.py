"""Records of norms whose illness is known."""

import numpy as np

from kerasrnn.diagnostics.health.findings import verdicts
from kerasrnn.diagnostics.health.measured import Measured
from kerasrnn.updates.clip_in_force import ClipInForce
from kerasrnn.updates.record import GradientRecord


def recorded(before, after=None, clip=None, products=None):
    """The norms of two variables, and the products of successive gradients, if any."""
    before = np.asarray(before, "float32")
    parts = [before, before if after is None else after]
    if products is not None:
        parts.append(np.reshape(products, (-1, 1)))
    rows, paths = np.concatenate(parts, axis=1), ["cell/kernel", "dense/kernel"]
    return GradientRecord(rows, paths, clip and ClipInForce(*clip))


def norms(size=1000, sigma=0.2):
    return np.random.default_rng(0).lognormal(0, sigma, (size, 2)).astype("float32")


def verdicts_on(record):
    return verdicts(Measured(record=record))


def verdict_on(record):
    """As `GradientNormMonitor.verdict` gives it."""
    return "\n".join(map(str, verdicts_on(record)))
