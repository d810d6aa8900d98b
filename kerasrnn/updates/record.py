"""The updates of a training, as numbers."""

import functools

import numpy as np

from kerasrnn.updates.divergence import divergence

# A clip that only rounds has not fired; float32 norms agree to about 1e-6.
_FIRED = 1 - 1e-5
# A clip with a fixed threshold that fires on a larger share of the updates is a lower learning rate
# in disguise.
_TOO_OFTEN = 0.5
# A loss still falls if it does by a larger share between the last two fifths of so many updates.
_FALLING, _LONG = 0.05, 50


class GradientRecord:
    """Norms of gradients and of what became of the weights, per update and variable.

    Args:
        rows: (updates, numbers), each as of an `UpdateRow`.
        variables: The variables' paths.
        clip: The `ClipInForce`, or `None`.
        gates: For the number of each recurrent kernel in `variables`, the names of its gates.
        skipped: How many updates a `DivergenceGuard` skipped; `None` without one.
        absence: Where to look instead, a sentence, if it is empty and that is known; or "".

    Attributes:
        before, after: (updates, variables), norms per variable before and after clipping.
        gate_norms: For each recurrent kernel, by path, and each of its gates, by name, (updates,),
            the norm of the gate's columns before clipping.
        changes, weights: (updates, variables), ‖Δw‖, the change of each variable by the update, and
            ‖w‖ before it.
        loss, rate: (updates,), the loss, regularizers included, and the learning rate; NaN where
            the train step does not call `compute_loss`, and where the update was skipped.
        products: (updates,), the product of each gradient with the one before it, or (updates, 0).
        global_norm, clipped_norm: (updates,), global norms before and after clipping.
        fired: (updates,), whether the clip changed anything.
        finite: (updates,), whether the gradients held no Inf or NaN.
    """

    def __init__(self, rows, variables, clip, gates=None, skipped=None, absence=""):
        self.variables = variables
        self.clip = clip
        self.skipped = skipped
        self.absence = absence
        n, names = len(variables), gates or {}
        ends = np.cumsum([n, n, sum(map(len, names.values())), n, n, 1, 1])
        parts = np.split(rows, ends, axis=1)
        self.before, self.after, of_gates, self.changes, self.weights, *scalars = parts
        self.loss, self.rate = (part.reshape(-1) for part in scalars[:2])
        self.products = scalars[2]
        column = iter(of_gates.T)
        self.gate_norms = {
            variables[i]: {gate: next(column) for gate in of_kernel}
            for i, of_kernel in names.items()
        }
        self.global_norm = np.linalg.norm(self.before.astype("float64"), axis=1)
        self.clipped_norm = np.linalg.norm(self.after.astype("float64"), axis=1)
        self.fired = (self.after < self.before * _FIRED).any(axis=1)
        self.finite = np.isfinite(self.global_norm)

    def __len__(self):
        return len(self.before)

    @functools.cached_property
    def divergence(self):
        """Its `Divergence`, or `None`."""
        return divergence(self.global_norm, self.loss.astype("float64"))

    @property
    def stable(self):
        """(updates,), whether each was finite and before the training diverged."""
        onset = self.divergence.onset if self.divergence else len(self)
        return self.finite & (np.arange(len(self)) < onset)

    @property
    def trend(self):
        """The first loss, the mean of the last tenth, how many are known, and how many updates at
        the end had none; `None` without any."""
        (known,) = np.nonzero(~np.isnan(self.loss))
        if not len(known):
            return None
        losses = self.loss[known].astype("float64")
        last = losses[-max(1, len(losses) // 10) :]
        lost = len(self) - 1 - int(known[-1])
        return float(losses[0]), float(np.mean(last)), len(losses), lost

    @property
    def median_norm(self):
        """That of the global norms before clipping."""
        return float(np.median(self.global_norm))

    @property
    def p99_norm(self):
        """Their 99th percentile."""
        return float(np.percentile(self.global_norm, 99))

    @property
    def falling(self):
        """The median losses of the last two fifths of the updates, where the loss still falls;
        `None` where it does not, or too few are known to tell."""
        if len(self) < _LONG or not np.isfinite(self.loss).all():
            return None
        before, last = (float(np.median(part)) for part in np.array_split(self.loss, 5)[-2:])
        return (before, last) if before - last > _FALLING * abs(before) else None

    @property
    def clip_rate(self):
        """The share of the updates that were clipped."""
        return share(self.fired)

    @property
    def clips_too_often(self):
        """Whether a clip with a fixed threshold fired on more than half of the updates."""
        return self.clip is not None and self.clip.rule.fixed and self.clip_rate > _TOO_OFTEN

    @property
    def largest_norms(self):
        """(updates,) each, the largest variable's norm before and after clipping."""
        return tuple(norms.max(axis=1, initial=0.0) for norms in (self.before, self.after))

    @property
    def update_ratio(self):
        """(updates, variables), ‖Δw‖/‖w‖; infinite for weights that were zero."""
        return ratio(self.changes, self.weights)

    @property
    def layer_norms(self):
        """For each layer by its path, (updates,), the norm before clipping of all that belongs to
        it."""
        return self._of_layers(self.before)

    @property
    def layer_weights(self):
        """For each layer by its path, (updates,), ‖w‖ of all its weights together, before the
        update."""
        return self._of_layers(self.weights)

    @property
    def layer_ratios(self):
        """For each layer by its path, (updates,), ‖Δw‖/‖w‖ of all its weights together."""
        changes, weights = self._of_layers(self.changes), self.layer_weights
        return {layer: ratio(changes[layer], weights[layer]) for layer in changes}

    def _of_layers(self, norms):
        layers = np.array([path.rpartition("/")[0] or path for path in self.variables])
        wide = norms.astype("float64")
        return {
            layer: np.linalg.norm(wide[:, layers == layer], axis=1)
            for layer in dict.fromkeys(layers)
        }

    @property
    def columns(self):
        """Every norm before clipping, by name: those of the variables, then those of the gates."""
        of_gates = {
            f"{path}/{gate}": norms
            for path, gates in self.gate_norms.items()
            for gate, norms in gates.items()
        }
        return dict(zip(self.variables, self.before.T, strict=True)) | of_gates

    def noise_scale(self, batch_size):
        """B_simple, in samples; the equations are those of `GradientNormMonitor.noise_scale`."""
        seen = np.isfinite(self.products).all(axis=1) & self.finite
        if not (self.products.size and seen.any()):
            return float("nan")
        signal = self.products[seen].astype("float64").mean()
        noise = batch_size * (np.mean(self.global_norm[seen] ** 2) - signal)
        return float(noise / signal) if signal > 0 else float("inf")


def ratio(changes, weights):
    """Of the norms of changes to those of weights; 0 where nothing changed."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(changes == 0, 0.0, changes / weights)


def share(flags):
    """The share of true ones; 0 of none."""
    return float(np.mean(flags)) if len(flags) else 0.0


def percent(flags):
    """That share as it is written in a text."""
    if 0 < share(flags) < 0.01:
        return "less than 1%"
    return f"{share(flags):.0%}"
