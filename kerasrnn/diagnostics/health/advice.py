"""What to do about a finding: for each a function that lists the steps, the best first.

None names what is set already (`Settings`), and each tells which setting it changes, by which a
later report sees whether it was followed.
"""

import math

from kerasrnn.diagnostics.health.settings import RECURRENT
from kerasrnn.diagnostics.health.verdict import Advice
from kerasrnn.updates.clip_in_force import written
from kerasrnn.updates.suggestion import nothing_to_suggest_from, suggest_clipnorm

# What is named where no norms are at hand.
_CLIP = f"`kerasrnn.callbacks.{written('global_norm', '1.0')}`"
_ORTHOGONAL = 'recurrent_initializer="orthogonal"'
# Where the rate is zero, and what no rate is raised above.
_USUAL_RATE, _HIGHEST, _HIGHEST_OF_SGD = 1e-3, 0.03, 10
# A rate that may be higher by less is no reason that nothing is learned.
_WORTH = 1.5
# Plain stacks of up to four layers train (CS224N 2019, lecture 7).
_DEEP = 4
# Data are scaled if the root of their mean square is at most that.
_SCALED = 10
# Inputs are tiny under that; one-hot ones are under one, too.
_TINY = 1e-3
# So small that a tanh is a line for them.
_SMALL = 0.1


def listed(*steps):
    """The steps that are some."""
    return [step for step in steps if step]


def lower_rate(measured, factor, why):
    """A learning rate that is lower by a factor, but over one that was too low."""
    rate, (too_low, _) = measured.settings.rate, measured.rates
    if rate is None:
        text = f"Lower the learning rate to {factor:.1g} of what it is: {why}."
        return Advice(text, key="lower the rate")
    to = max(factor * rate, math.sqrt(too_low * rate))
    return Advice(
        f"Lower the learning rate from {rate:g} to {_rounded(to, rate)}: {why}.",
        "learning rate",
        "lower the rate",
    )


def raise_rate(measured, factor, why):
    """A learning rate that is higher by a factor, but under one that was too high."""
    settings = measured.settings
    rate, (_, too_high) = settings.rate, measured.rates
    if rate is None:
        text = f"Raise the learning rate to {factor:.1g} times what it is: {why}."
        return Advice(text, key="raise the rate")
    highest = _HIGHEST_OF_SGD if settings.optimizer in ("SGD", None) else _HIGHEST
    wanted = factor * rate if rate and math.isfinite(factor) else max(_USUAL_RATE, 10 * rate)
    to = min(wanted, math.sqrt(too_high * rate) or wanted, highest)
    if to <= rate:
        return None
    return Advice(
        f"Raise the learning rate from {rate:g} to {_rounded(to, rate)}: {why}.",
        "learning rate",
        "raise the rate",
    )


def _rounded(to, rate):
    """A rate in as few digits as tell it from the one that is set."""
    first = float(f"{to:.1g}")
    return f"{first:g}" if first != float(f"{rate:.1g}") else f"{to:.2g}"


def clip(settings):
    """A clip, where none is set."""
    return settings.clip is None and Advice(f"Clip the gradients, {_CLIP}.", "clip")


def clip_by_norms(record, settings):
    """The threshold that a stable training shows, in the terms of the clip that is set."""
    if why := nothing_to_suggest_from(record):
        return Advice(
            f"Lower the learning rate and train anew before you choose a threshold: {why}.",
            "learning rate",
            "lower the rate before a threshold",
        )
    begin = "Try" if record.fired.any() else "Clip the gradients:"
    instead = suggest_clipnorm(record).instead_of(settings.clip)
    return Advice(f"{begin} {instead}.", "clip", "clip by norms")


def guard(settings):
    """A DivergenceGuard, where none is known to be there."""
    return not settings.guard and Advice(
        "Put `kerasrnn.callbacks.DivergenceGuard()` into `fit`: such a batch then costs one step "
        "and not a run.",
        "DivergenceGuard",
    )


def adaptive(settings):
    """Adam, where the steps grow with the gradients."""
    return settings.optimizer == "SGD" and Advice(
        "Take an optimizer whose steps do not grow with the gradients, as "
        "`keras.optimizers.Adam(0.001)`.",
        "optimizer",
    )


def scale_targets(settings):
    """Targets of a scale of one, where they are larger."""
    scale, mean = settings.scale_of_targets, settings.mean_of_targets or 0.0
    if not scale or scale <= _SCALED:
        return None
    deviation = math.sqrt(max(scale**2 - mean**2, 0.0))
    if abs(mean) > deviation:
        how = f"Subtract {mean:.3g} from the targets, their mean"
        if deviation > _SCALED:
            how += f", and divide them by {deviation:.3g}, their standard deviation"
    else:
        how = f"Divide the targets by {scale:.3g}, the root of their mean square"
    return Advice(
        f"{how}: a loss of large numbers has large gradients.",
        "scale of the targets",
        "scale the targets",
    )


def scale_inputs(settings):
    """Inputs of a scale of one, where they are larger, or tiny, and no layer brings them to it."""
    scale, mean = settings.scale_of_inputs, settings.mean_of_inputs or 0.0
    if scale and not _TINY < scale < _SCALED and not settings.normalized:
        return Advice(
            "Scale the inputs to a mean of zero and a variance of one: their mean is "
            f"{mean:.3g}, the root of their mean square {scale:.3g}.",
            "scale of the inputs",
            "scale the inputs",
        )
    return None


def start_gates(layer, of_layer):
    """Gates that start so that they keep, in a layer that has gates."""
    bias = f"bias_initializer=kerasrnn.initializers.Chrono(T_max={layer.steps})"
    if of_layer.memory and of_layer.memory >= layer.steps:
        return None
    place = ", in a layer of kerasrnn.layers" if of_layer.of_keras else ""
    return Advice(
        f"Start its gates so that they keep: {bias}{place}.", "bias initializer", "start the gates"
    )


def take_gates(layer):
    """A cell with gates that keep its state, where a layer has none."""
    return Advice(
        "Take a cell with gates that keep its state, `kerasrnn.layers.LSTM` or `GRU`, with "
        f"bias_initializer=kerasrnn.initializers.Chrono(T_max={layer.steps}).",
        "cells",
        "take gates",
    )


def start_recurrent(of_layer):
    """Recurrent weights that neither shrink nor grow, where they did not start so."""
    if of_layer.gain == 1:
        return None
    instead = "" if of_layer.gain is None else f", whose gain is 1 and not {of_layer.gain:.3g}"
    return Advice(
        f"Start from {_ORTHOGONAL}{instead}.",
        "gain of the orthogonal initializer",
        "start from orthogonal weights",
    )


def of_a_layer_that_explodes(of_layer, settings):
    return listed(
        scale_inputs(settings),
        start_recurrent(of_layer),
        clip(settings),
        not of_layer.gates
        and Advice("Take a cell with gates, `kerasrnn.layers.LSTM` or `GRU`.", "cells"),
        Advice("Start from smaller recurrent weights."),
    )


def of_an_overflow(settings):
    start = ["smaller recurrent weights"]
    if any(gain != 1 for gain in settings.of_cells("gain")):
        start.append(_ORTHOGONAL)
    if any(activation != "tanh" for activation in settings.of_cells("activation")):
        start.append('an activation that is bounded, "tanh"')
    return listed(
        scale_inputs(settings),
        Advice(f"Start anew from {' and '.join(start)}.", key="start from smaller weights"),
        clip(settings),
        not all(settings.of_cells("gates"))
        and Advice("Take a cell with gates, `kerasrnn.layers.LSTM` or `GRU`.", "cells"),
    )


def of_a_layer_that_vanishes(measured, layer, exchange=None):
    of_layer, settings = layer.settings, measured.settings
    needs = Advice(
        "See whether the task needs the memory: where the loss stays the same when the early steps "
        "are cut off, nothing is wrong."
    )
    if of_layer.gates or of_layer.linear:
        return listed(
            scale_inputs(settings),
            not measured.learned and scale_targets(settings),
            connect(measured),
            of_layer.gates and start_gates(layer, of_layer),
            measured.learned and exchange is None and needs,
            of_layer.cell != "LRU"
            and Advice(
                "Take a cell whose memory does not pass through gates, `kerasrnn.layers.LRU`.",
                "cells",
            ),
            Advice(
                "Shorten the way: average over the outputs of all steps (return_sequences=True and "
                "`keras.layers.GlobalAveragePooling1D`), or read every second step."
            ),
            not measured.learned and needs,
        )
    return listed(
        scale_inputs(settings),
        not measured.learned and scale_targets(settings),
        take_gates(layer),
        (of_layer.gain is None or of_layer.gain < 1) and start_recurrent(of_layer),
        of_layer.activation == "tanh"
        and _may_be_smaller(settings)
        and Advice(
            "Scale the inputs down, to a tenth: tanh passes a gradient on where its argument is "
            "small, and swallows it where it is large.",
            "scale of the inputs",
        ),
    )


def _may_be_smaller(settings):
    """Whether the inputs may be scaled down; of tokens and of what a layer normalizes they cannot.
    Without a batch nothing is known of them."""
    if settings.inputs and (settings.scale_of_inputs is None or settings.normalized):
        return False
    return settings.scale_of_inputs is None or settings.scale_of_inputs > _SMALL


def connect(measured):
    """Connections past the layers of a deep stack, where there are none."""
    deep = len(measured.layers) > _DEEP and not measured.settings.connected
    return deep and Advice(
        f"Lead connections past the layers, of which there are {len(measured.layers)}: "
        '`kerasrnn.layers.RNNStack(connection="residual", project=True)`.',
        "connections",
        "connect the layers",
    )


def of_no_progress(measured, factor, why):
    """Of a net that has learned nothing, by nothing that shows in its gradients."""
    settings = measured.settings
    without = next((one for one in measured.layers.values() if not one.settings.gates), None)
    starts = [start_gates(one, one.settings) for one in measured.layers.values()]
    return listed(
        less_decay(measured),
        scale_targets(settings),
        scale_inputs(settings),
        connect(measured),
        adaptive(settings),
        factor >= _WORTH and raise_rate(measured, factor, why),
        take_gates(without) if without else next(filter(None, starts), None),
        Advice("Train on: the loss of long memories may stay where it is for hundreds of updates."),
        Advice(
            "See whether the net can learn a few samples by heart, 32 of them; if not, whether `y` "
            "belongs to `x`."
        ),
    )


# Weights that have shrunk to less than that share of what they began with hold nothing.
_SHRUNK = 0.1


def less_decay(measured):
    """Weaker regularizers, where weights have all but vanished in training."""
    if measured.record is None:
        return None
    left = {
        layer: weights[-1] / weights[0]
        for layer, weights in measured.record.layer_weights.items()
        if weights[0] > 0
    }
    layer = min(left, key=left.get, default=None)
    if layer is None or left[layer] >= _SHRUNK:
        return None
    return Advice(
        f"Weaken the regularizers, or the optimizer's weight decay: the weights of {layer} have "
        f"shrunk to {left[layer]:.1%} of what they began with.",
        key="weaken the regularizers",
    )


def of_a_leak(measured, layer):
    kind, _ = (measured.settings.places or {}).get(layer, ("", 0))
    if "Conv" in kind:
        step = f'Build {layer} with padding="causal".'
    elif "Attention" in kind:
        step = f"Call {layer} with `use_causal_mask=True`."
    elif kind in (RECURRENT, "Bidirectional", "RNNStack"):
        step = f"Let {layer} run in one direction, without a Bidirectional or `bidirectional=True`."
    else:
        step = f"Have {layer} give its output of a step from this step and earlier ones alone."
    return [Advice(step, key="let it see no later step")]


def of_saturated_gates(of_layer, settings):
    scaled = scale_inputs(settings) or Advice(
        "Scale the inputs to a mean of zero and a variance of one.", key="scale the inputs"
    )
    normalized = not of_layer.normalization and Advice(
        'Take normalization="layer"'
        + (", in a layer of kerasrnn.layers." if of_layer.of_keras else "."),
        "normalization",
        "normalize",
    )
    smaller = Advice("Start anew from smaller weights and biases, with a lower learning rate.")
    # With a batch it is known that they are of that scale, or tokens.
    seen = settings.inputs or settings.scale_of_inputs is not None
    known = seen and scaled.setting is None
    return listed(*((normalized, smaller) if known else (scaled, normalized, smaller)))


def of_dead_silence(measured, path):
    """Of a layer that gives nothing but zeros: no learning rate wakes one that was born so, nor do
    weights of one sign learn another where no bias does."""
    biased = any("bias" in v.name for v in measured.reach[path].layer.weights)
    born = _never_moved(measured, path)
    biases = "biases that are not negative"
    initial = Advice(
        "Start it anew from weights of both signs, as `glorot_uniform` gives"
        + (f", and {biases}." if biased else "."),
        key="start a dead layer from other weights",
    )
    slower = Advice(
        "Lower the learning rate and start it anew" + (f", from {biases}." if biased else "."),
        "learning rate",
        "start a dead layer at a lower rate",
    )
    sloped = Advice(
        'Take an activation that is not flat below zero: "leaky_relu", or "tanh" in a recurrent '
        "layer."
    )
    return listed(
        measured.samples == 1
        and Advice("Report on more samples: where this one gives zeros, others may not."),
        *((slower, sloped) if biased and not born else (initial, sloped)),
        not biased and not born and slower,
    )


def _never_moved(measured, path):
    """Whether a layer has had no gradient from the first update on, as far as that is known."""
    record = measured.record
    if record is None:
        return measured.updates == 0
    its = [variable in measured.reach[path].gradients for variable in record.variables]
    return not record.before[:, its].any()


def of_weights_blown_up(measured):
    return listed(
        lower_rate(measured, 0.1, "the weights have grown out of all bounds; start them anew"),
        clip(measured.settings),
        scale_targets(measured.settings),
    )


def of_weights_of_zero(path):
    return [
        Advice(
            f"Start {path} from weights other than zero, as `glorot_uniform` gives: behind zeros "
            "no layer gets a gradient.",
            key="start from weights other than zero",
        )
    ]


def of_a_flat_activation(path, settings):
    return listed(
        scale_inputs(settings),
        Advice(
            f"Start {path} anew from smaller weights, with a lower learning rate.",
            key="start from smaller weights",
        ),
        Advice(
            f"Take normalization before {path}, as `keras.layers.LayerNormalization`.",
            key="normalize before it",
        ),
    )


def of_a_cut_way(settings):
    return listed(
        Advice(
            "Look at what lies between it and the loss: an output that is not used, or a function "
            "without a gradient."
        ),
        not settings.connected
        and Advice(
            "Lead a connection past it: `kerasrnn.layers.Residual`, or "
            '`RNNStack(connection="residual")`, with `project=True` where the widths differ.',
            "connections",
        ),
    )


def of_a_low_rate(measured, factor, why, decay=None):
    """`decay` are the highest and the last rate where a schedule has lowered it far, or `None`."""
    settings = measured.settings
    slower = decay and Advice(
        f"Let the learning rate decay more slowly: its schedule took it from {decay[0]:.3g} to "
        f"{decay[1]:.3g} in this training.",
        "learning rate",
        "let the rate decay more slowly",
    )
    return listed(
        scale_inputs(settings),
        scale_targets(settings),
        slower or raise_rate(measured, factor, why),
        adaptive(settings),
    )


def of_a_high_rate(measured, factor, why, non_finite):
    settings = measured.settings
    return listed(
        scale_inputs(settings),
        scale_targets(settings),
        lower_rate(measured, factor, why),
        clip(settings),
        adaptive(settings),
        non_finite and guard(settings),
    )
