"""The rules of clipping in NumPy, from the papers."""

import numpy as np


def norm_of(grads):
    return np.sqrt(sum(np.sum(g**2) for g in grads))


def algorithm_1(g, threshold):
    """Pascanu et al. (2013), Algorithm 1."""
    norm = np.linalg.norm(g)
    if norm >= threshold:
        g = threshold / norm * g
    return g


class GlobalNorm:
    def __init__(self, value):
        self.value = value

    def __call__(self, weights, grads):
        flat = algorithm_1(np.concatenate([g.ravel() for g in grads]), self.threshold(grads))
        parts = np.split(flat, np.cumsum([g.size for g in grads])[:-1])
        return [part.reshape(g.shape) for part, g in zip(parts, grads, strict=True)]

    def threshold(self, grads):
        return self.value


class Norm(GlobalNorm):
    def __call__(self, weights, grads):
        return [algorithm_1(g, self.value) for g in grads]


class Value(GlobalNorm):
    def __call__(self, weights, grads):
        return [np.clip(g, -self.value, self.value) for g in grads]


class AutoClip(GlobalNorm):
    """Seetharaman et al. (2020): the percentile of all norms up to and with this one."""

    def __init__(self, value):
        super().__init__(value)
        self.norms = []

    def threshold(self, grads):
        self.norms.append(norm_of(grads))
        return np.percentile(self.norms, self.value)


class ZClip(GlobalNorm):
    """Kumar et al. (2025), with a reciprocal clip."""

    def __init__(self, value, warmup=25):
        super().__init__(value)
        self.warmup, self.seen = warmup, []

    def threshold(self, grads):
        g = norm_of(grads)
        if len(self.seen) < self.warmup:
            self.seen.append(g)
            self.mean, self.variance = np.mean(self.seen), np.var(self.seen)
            return np.inf
        sigma = np.sqrt(self.variance)
        z = (g - self.mean) / sigma
        threshold = self.mean + self.value**2 / z * sigma if z > self.value else np.inf
        g = min(g, threshold)
        self.mean = 0.97 * self.mean + 0.03 * g
        self.variance = 0.97 * self.variance + 0.03 * (g - self.mean) ** 2
        return threshold


class AGC(GlobalNorm):
    """Brock et al. (2021), equation 3: unit by unit, here column by column."""

    def __call__(self, weights, grads):
        clipped = []
        for w, g in zip(weights, grads, strict=True):
            g = g.copy()
            for i in range(g.shape[1]) if g.ndim == 2 else [slice(None)]:
                most = max(np.linalg.norm(w[..., i]), 1e-3)
                ratio = np.linalg.norm(g[..., i]) / most
                if ratio > self.value:
                    g[..., i] *= self.value * most / np.linalg.norm(g[..., i])
            clipped.append(g)
        return clipped


# Thresholds that some of the updates, variables, entries or units stay below.
BY_HAND = {
    "global_norm": (GlobalNorm, 1.0),
    "norm": (Norm, 0.5),
    "value": (Value, 0.1),
    "percentile": (AutoClip, 40.0),
    "zscore": (ZClip, 1.0),
    "adaptive": (AGC, 0.3),
}
