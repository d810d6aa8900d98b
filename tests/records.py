"""Records of norms whose illness is known."""

import numpy as np

from kerasrnn.diagnostics.health.findings import verdicts
from kerasrnn.diagnostics.health.measured import Measured
from kerasrnn.updates.clip_in_force import ClipInForce
from kerasrnn.updates.record import GradientRecord


def rows(before, after, products=None, loss=None, ratio=1e-3, rate=0.1):
    """As an `UpdateRow` writes them, of variables without gates whose weights have a norm of 1."""
    updates, variables = np.shape(before)
    changes = np.broadcast_to(np.reshape(ratio, (-1, 1)), (updates, variables))
    loss = np.linspace(1, 0.5, updates) if loss is None else loss
    scalars = [np.broadcast_to(v, updates)[:, None] for v in (loss, rate)]
    parts = [before, after, changes, np.ones((updates, variables)), *scalars]
    parts += [] if products is None else [np.reshape(products, (-1, 1))]
    return np.concatenate(parts, axis=1).astype("float32")


def recorded(before, after=None, clip=None, products=None, **options):
    """The norms of two variables, and the products of successive gradients, if any; `options` are
    those of `rows`, and `skipped`."""
    before, skipped = np.asarray(before, "float32"), options.pop("skipped", None)
    of_updates = rows(before, before if after is None else after, products, **options)
    paths = ["cell/kernel", "dense/kernel"]
    return GradientRecord(of_updates, paths, clip and ClipInForce(*clip), skipped=skipped)


def norms(size=1000, sigma=0.2):
    return np.random.default_rng(0).lognormal(0, sigma, (size, 2)).astype("float32")


def verdicts_on(record):
    return verdicts(Measured(record=record))


def verdict_on(record):
    """As `GradientNormMonitor.verdict` gives it."""
    return "\n".join(map(str, verdicts_on(record)))
