"""What the gradient norms of a training say."""

import numpy as np

from kerasrnn.callbacks.clips import WARMUP
from kerasrnn.verdict import Verdict

# A clip that only rounds has not fired; float32 norms agree to about 1e-6.
_FIRED = 1 - 1e-5
# Below the epsilon of Keras's Adam even a rescaled step is lost.
_VANISHED = 1e-7
# Columns of the heatmap: about what a page can show.
_WIDTH = 1000
# Letters of a layer's path beside it.
_LETTERS = 28
# For each argument by which Keras's optimizers clip, the mode of `GradientClipping` of its kind.
_MODES = {"clipnorm": "norm", "global_clipnorm": "global_norm", "clipvalue": "value"}
# The others follow the norms or the weights, and may be meant to fire on most updates: AutoClip at
# the 10th percentile does on 90% of them.
_FIXED = set(_MODES.values())


def _shortened(path):
    """As many of the path's last parts as leave room for the picture."""
    parts = path.split("/")
    kept = [parts.pop()]
    while parts and len("/".join([parts[-1], *kept])) <= _LETTERS:
        kept.insert(0, parts.pop())
    return "/".join(["…"] * bool(parts) + kept)


def _callback(mode, value):
    return f'GradientClipping("{mode}", {value})'


# What remedies name where no norms are at hand.
CLIP = f"kerasrnn.callbacks.{_callback('global_norm', '1.0')}"


class Suggestion(float):
    """A clip threshold, usable as the number it is, with the reason for it.

    Attributes:
        argument: The optimizer's argument it is meant for, `"clipnorm"` or `"global_clipnorm"`.
        mode: The mode of `GradientClipping` it is meant for, `"norm"` or `"global_norm"`.
        reason: One sentence.
    """

    def __new__(cls, value, argument, reason):
        self = super().__new__(cls, value)
        self.argument = argument
        self.reason = reason
        return self

    @property
    def mode(self):
        return _MODES[self.argument]

    def __reduce__(self):
        return type(self), (float(self), self.argument, self.reason)

    def __str__(self):
        return f"{self.argument}={float(self):.3g}: {self.reason}"


class GradientRecord:
    """Norms of gradients, per update and variable.

    Args:
        rows: (updates, numbers), each as of an `UpdateRow`.
        variables: The variables' paths.
        clip: The clip that was set, as of `UpdateHook`.
        gates: For the number of each recurrent kernel in `variables`, the names of its gates.
        skipped: How many updates a `DivergenceGuard` skipped; `None` without one.

    Attributes:
        before, after: (updates, variables), norms per variable before and after clipping.
        gate_norms: For each recurrent kernel, by path, and each of its gates, by name, (updates,),
            the norm of the gate's columns before clipping.
        products: (updates,), the product of each gradient with the one before it, or (updates, 0).
        global_norm, clipped_norm: (updates,), global norms before and after clipping.
        fired: (updates,), whether the clip changed anything.
    """

    def __init__(self, rows, variables, clip, gates=None, skipped=None):
        self.variables = variables
        self.clip = clip
        self._skipped = skipped
        n, names = len(variables), gates or {}
        ends = np.cumsum([n, n, sum(map(len, names.values()))])
        self.before, self.after, of_gates, self.products = np.split(rows, ends, axis=1)
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

    @property
    def clip_rate(self):
        return _share(self.fired)

    @property
    def _kind(self):
        """The clip that was set, as a mode of `GradientClipping`, whoever clips."""
        return self.clip and _MODES.get(self.clip[0], self.clip[0])

    @property
    def columns(self):
        """Every norm before clipping, by name: those of the variables, then those of the gates."""
        of_gates = {
            f"{path}/{gate}": norms
            for path, gates in self.gate_norms.items()
            for gate, norms in gates.items()
        }
        return dict(zip(self.variables, self.before.T, strict=True)) | of_gates

    @property
    def _clips_too_often(self):
        return self._kind in _FIXED and self.clip_rate > 0.5

    def noise_scale(self, batch_size):
        seen = np.isfinite(self.products).all(axis=1) & self.finite
        if not (self.products.size and seen.any()):
            return float("nan")
        signal = self.products[seen].astype("float64").mean()
        noise = batch_size * (np.mean(self.global_norm[seen] ** 2) - signal)
        return float(noise / signal) if signal > 0 else float("inf")

    def suggest_clipnorm(self):
        argument = "clipnorm" if self._kind == "norm" else "global_clipnorm"
        of_update = self.before.max(axis=1, initial=0.0)
        norms = of_update if argument == "clipnorm" else self.global_norm
        norms = norms[self.finite & (norms > 0)]
        if not len(norms):
            raise ValueError(
                "suggest_clipnorm() needs an update with gradients that are finite and not all "
                f"zero. Received: {len(self)} recorded updates, {self.finite.sum()} of them finite"
            )
        median, high = np.percentile(norms, [50, 90])
        value = float(min(high, 10 * median))
        what = "the largest variable's" if argument == "clipnorm" else "the global"
        reason = (
            f"{what} gradient norm had a median of {median:.3g} and a 90th percentile of "
            f"{high:.3g} over {len(norms)} updates; {_percent(norms > value)} of them lie above "
            "this threshold"
        )
        if self._kind not in (None, "norm", "global_norm"):
            reason += f" (to be set in the place of {self._clip_set})"
        if self._clips_too_often:
            reason += (
                f"; {self._clip_set} fired on {_percent(self.fired)} of the updates, which is a "
                "lower learning rate in disguise"
            )
        return Suggestion(value, argument, reason)

    def verdicts(self):
        if not len(self):
            raise ValueError("verdict() needs recorded updates: call it after fit.")
        findings = self._non_finite()
        if not findings:
            findings = self._sizes() + self._tight_clip()
        return findings or self._idle_clip() or self._healthy()

    def verdict(self):
        return "\n".join(map(str, self.verdicts()))

    def _non_finite(self):
        bad = np.argwhere(~np.isfinite(self.before))
        if not len(bad):
            return []
        update, column = bad[0]
        variable, updates = self.variables[column], len(np.unique(bad[:, 0]))
        clip = "clip to less" if self.clip else f"clip, `{CLIP}`"
        if self._skipped is None:
            guard = (
                "Where the weights hold one now, go back to an earlier checkpoint. "
                "`kerasrnn.callbacks.DivergenceGuard()` has such a batch cost one step and not a "
                "run"
            )
        else:
            guard = f"DivergenceGuard skipped {self._skipped} updates, which cost no more than that"
        return [
            Verdict(
                "NON_FINITE",
                variable,
                {"update": int(update), "variable": variable, "updates": updates},
                f"update {update} was the first of {updates} with an Inf or NaN in its gradients, "
                f"in {variable}.",
                f"Look for one in the inputs and labels of that batch first. {guard}; if the norms "
                f"rose before it came, {clip}, or lower the learning rate.",
            )
        ]

    def _sizes(self):
        median, top = (float(n) for n in np.percentile(self.global_norm, [50, 99]))
        numbers = {"median_norm": median, "p99_norm": top}
        if median < _VANISHED:
            return [
                Verdict(
                    "VANISHING",
                    None,
                    numbers,
                    f"half of the updates have a gradient norm under {_VANISHED:g}, with a median "
                    f"of {median:.3g}: hardly anything reaches the weights.",
                    "Look for a loss that does not depend on them, saturated or dead units, or "
                    "labels that are masked out.",
                )
            ]
        if top <= 100 * median:
            return []
        return [
            Verdict(
                "EXPLODING",
                None,
                numbers,
                f"one update in a hundred has a gradient norm over {top:.3g}, "
                f"{top / median:.0f} times the median of {median:.3g}.",
                self._against_explosions(),
            )
        ]

    def _against_explosions(self):
        if self.clip and self.fired.any():
            return (
                f"These are the norms before {self._clip_set}, which cut "
                f"{_percent(self.fired)} of the updates."
            )
        idle = f"{self._clip_set} never fired. " if self.clip else ""
        return f"{idle}Clip the gradients: {self._suggestion()}."

    @property
    def _clip_set(self):
        name, value = self.clip
        return f"{name}={value:g}" if name in _MODES else _callback(name, f"{value:g}")

    def _suggestion(self):
        """In the terms of the clip that was set."""
        suggestion = self.suggest_clipnorm()
        if self.clip and self.clip[0] in _MODES:
            return str(suggestion)
        callback = _callback(suggestion.mode, f"{suggestion:.3g}")
        return f"kerasrnn.callbacks.{callback}: {suggestion.reason}"

    def _of_clip(self, code, meaning, remedy):
        name, value = self.clip
        of_clip = {name: value} if name in _MODES else {"mode": name, "value": value}
        numbers = {"clip_rate": self.clip_rate} | of_clip
        return [Verdict(code, None, numbers, f"{self._clip_set} {meaning}", remedy)]

    def _tight_clip(self):
        if not self._clips_too_often:
            return []
        return self._of_clip(
            "CLIP_TOO_TIGHT",
            f"cut {_percent(self.fired)} of the updates.",
            f"Try {self._suggestion()}.",
        )

    def _idle_clip(self):
        warming_up = self._kind == "zscore" and len(self) <= WARMUP
        if self.clip is None or self.fired.any() or warming_up:
            return []
        return self._of_clip(
            "CLIP_IDLE",
            "never fired, so training ran as if without it.",
            "That does no harm; to have it cut the largest steps, lower it.",
        )

    def _healthy(self):
        median, top = (float(n) for n in np.percentile(self.global_norm, [50, 99]))
        fired = f"; the clip fired on {_percent(self.fired)} of them" if self.clip else ""
        return [
            Verdict(
                "HEALTHY",
                None,
                {"median_norm": median, "p99_norm": top, "clip_rate": self.clip_rate},
                f"over {len(self)} updates the gradient norm stayed finite, with a median of "
                f"{median:.3g} and a 99th percentile of {top:.3g}{fired}.",
                "Of gradients through time it says nothing: see "
                "kerasrnn.diagnostics.health_report.",
            )
        ]

    def plot(self):
        if not len(self):
            raise ValueError("plot() needs recorded updates: call it after fit.")
        from matplotlib.figure import Figure

        panels = [("global gradient norm", self.global_norm, self.clipped_norm)]
        if self._kind == "norm":
            largest = (norms.max(axis=1, initial=0.0) for norms in (self.before, self.after))
            panels.append(("largest variable's gradient norm", *largest))
        layers, of_layers = self._layer_norms()
        heights = [3.2] * len(panels) + [2.2 + 0.25 * len(layers)]

        # As wide as the labels leave the panels their place.
        width = 7.5 + 0.07 * max(map(len, layers))
        figure = Figure(figsize=(width, sum(heights)), layout="constrained")
        *axes, heatmap = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        for axis, (label, before, after) in zip(axes, panels, strict=True):
            self._draw_norms(axis, before, after)
            axis.set_ylabel(label)
        if self._kind in ("norm", "global_norm"):
            # Behind the norms, which often lie on it, and wide enough to be seen there.
            axes[-1].axhline(
                self.clip[1],
                color="tab:red",
                linestyle="--",
                linewidth=2.4,
                zorder=1,
                label=f"threshold, {self._clip_set}",
            )
        figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        figure.suptitle(self._title(), fontsize="large")
        self._draw_layers(figure, heatmap, layers, of_layers)
        return figure

    def _title(self):
        title = f"Gradients: {len(self)} updates"
        if self.clip:
            title += f", {_percent(self.fired)} clipped by {self._clip_set}"
        if not self.finite.all():
            title += f", {np.sum(~self.finite)} with Inf or NaN"
        return title

    def _draw_norms(self, axis, before, after):
        if self.clip is None:
            axis.plot(before, color="tab:blue", linewidth=0.8, label="norm")
        else:
            axis.plot(before, color="0.65", linewidth=1.6, label="before clipping")
            axis.plot(after, color="tab:blue", linewidth=0.8, label="after clipping")
        bad = np.flatnonzero(~self.finite)
        if len(bad):
            edge = axis.get_xaxis_transform()
            axis.plot(bad, np.full(len(bad), 0.02), "kx", transform=edge, label="Inf or NaN")
        if (before > 0).any():
            axis.set_yscale("log")

    def _layer_norms(self):
        """The layers' paths, and the norm of all that belongs to each, (layers, updates)."""
        owners = np.array([path.rpartition("/")[0] or path for path in self.variables])
        layers = list(dict.fromkeys(owners))
        wide = self.before.astype("float64")
        norms = [np.linalg.norm(wide[:, owners == one], axis=1) for one in layers]
        return _without_common_part(layers), np.array(norms)

    def _draw_layers(self, figure, axis, layers, norms):
        from matplotlib.colors import LogNorm

        # More updates than the picture has columns share one, which shows their largest.
        together = -(-len(self) // _WIDTH)
        norms = np.maximum.reduceat(norms, np.arange(0, len(self), together), axis=1)
        shown = np.ma.masked_where(~np.isfinite(norms) | (norms == 0), norms)
        scale = LogNorm(shown.min(), shown.max()) if shown.count() else LogNorm(_VANISHED, 1)
        # From dark to light, so that it needs no colour; what has none shows the hatching.
        axis.patch.set(facecolor="white", edgecolor="0.5", hatch="///")
        edges = (-0.5, norms.shape[1] * together - 0.5, len(layers) - 0.5, -0.5)
        image = axis.imshow(
            shown, norm=scale, cmap="cividis", aspect="auto", extent=edges, interpolation="nearest"
        )
        axis.set_xlim(-0.5, len(self) - 0.5)
        axis.set_yticks(range(len(layers)), map(_shortened, layers), fontsize="small")
        axis.set_ylabel("layer")
        axis.set_xlabel("optimizer update")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_title("Gradient norm per layer (hatched: 0, Inf or NaN)", fontsize="medium")
        label = "gradient norm before clipping"
        if together > 1:
            label += f", largest of {together} updates"
        bar = figure.colorbar(image, ax=axis, orientation="horizontal", label=label, aspect=40)
        # Within a power of ten there are many.
        bar.ax.tick_params(which="minor", labelsize=6)


def _without_common_part(paths):
    """The paths inside of what all of them lie in, as a Sequential model."""
    parts = [path.split("/") for path in paths]
    outer = {tuple(part[:1]) for part in parts}
    if len(outer) > 1 or min(map(len, parts)) == 1:
        return paths
    return ["/".join(part[1:]) for part in parts]


def _percent(flags):
    share = _share(flags)
    if 0 < share < 0.01:
        return "less than 1%"
    return f"{share:.0%}"


def _share(flags):
    return float(np.mean(flags)) if len(flags) else 0.0
