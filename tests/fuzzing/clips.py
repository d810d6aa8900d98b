"""The rules of `GradientClipping` and of Keras's optimizers, in NumPy."""

import numpy as np

# The z-score's, as in the documentation of `GradientClipping`.
WARMUP, MEMORY = 25, 0.97


class Clip:
    """One rule, and what it remembers of the global norms so far.

    Args:
        mode: Of `GradientClipping`, or the name of an argument of Keras's optimizers.
        value: Its limit.
    """

    def __init__(self, mode, value):
        self.mode, self.value, self.norms = mode, value, []
        self.mean = self.variance = None

    def __call__(self, gradients, weights):
        """The clipped gradients of one update."""
        if self.mode in ("norm", "clipnorm"):
            return [_shrunk(g, _norm(g), self.value) for g in gradients]
        if self.mode in ("value", "clipvalue"):
            return [np.clip(g, -self.value, self.value) for g in gradients]
        if self.mode == "adaptive":
            limits = [self.value * np.maximum(_norm_per_unit(w), 1e-3) for w in weights]
            return [
                _shrunk(g, _norm_per_unit(g), limit)
                for g, limit in zip(gradients, limits, strict=True)
            ]
        norm = _norm([_norm(g) for g in gradients])
        self.norms.append(norm)
        limit = self.value
        if self.mode == "percentile":
            limit = np.percentile(self.norms, self.value)
        if self.mode == "zscore":
            limit = self._zscore_limit(norm)
        return [_shrunk(g, norm, limit) for g in gradients]

    def _zscore_limit(self, norm):
        if len(self.norms) <= WARMUP:
            self.mean, self.variance = np.mean(self.norms), np.var(self.norms)
            return np.inf
        deviation = np.sqrt(self.variance)
        z, limit = (norm - self.mean) / deviation, np.inf
        if z > self.value:
            limit = self.mean + deviation * self.value**2 / z
        clipped = min(norm, limit)
        self.mean = MEMORY * self.mean + (1 - MEMORY) * clipped
        self.variance = MEMORY * self.variance + (1 - MEMORY) * (clipped - self.mean) ** 2
        return limit


def _norm(v):
    return np.sqrt(np.sum(np.square(v)))


def _norm_per_unit(v):
    """Of the weights into each unit: over all axes but the last; of a vector, of all of it."""
    return np.sqrt(np.sum(np.square(v), tuple(range(max(1, v.ndim - 1))), keepdims=True))


def _shrunk(gradient, norm, limit):
    return gradient * np.where(norm >= limit, limit / np.maximum(norm, 1e-300), 1)
