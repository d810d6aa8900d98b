"""Whether a model looks ahead in time."""

import dataclasses
import functools
import reprlib
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops, tree

from kerasrnn.diagnostics.derivatives import REJECTIONS, WayBack, depends
from kerasrnn.diagnostics.derivatives.floats import floats_in, is_float
from kerasrnn.diagnostics.looking import left_as_it_was, shadowed


@dataclasses.dataclass(frozen=True)
class Causality:
    """Whether a model is causal; true if there is no leak.

    Attributes:
        leak: `None`, or the first leaking layer's name (inside a model within the model, behind
            that one's name: "encoder/conv1d"), a step of its output, and a later step of the input
            that this output depends on.

    Example:

    >>> bool(kerasrnn.diagnostics.Causality(leak=("bidirectional", 0, 1)))
    False
    """

    leak: tuple[str, int, int] | None

    def __bool__(self):
        return self.leak is None


def is_causal(model, x, along=None):
    """Finds out whether any output of a model depends on a later input, as it must not in a
    language model or in any other that is to run step by step.

        causal:  ∂y_t / ∂x_s = 0  for all s > t, and y_t stays as it is when x_s changes

    First from gradients: each y_t is taken in a random direction over its features, so that no
    gradients cancel out; for inputs that have no gradient, such as tokens, x_s is the output of the
    layer that takes them. Then, since there may be ways without a gradient (tokens that are
    turned around, a `stop_gradient`), from values: the later steps of x take those of other steps,
    which have to differ. Runs as in inference (`training=False`), forward twice per step and
    backward once, so that a short x is enough; what it changes of a stateful model is set back.

    Which steps are compared is not left to how long things happen to be. Of several inputs, all
    that have time (tokens, or three axes) count, unless `along` names some: in an encoder-decoder,
    whose decoder may read the whole source, the one that goes into the decoder. Judged are the
    outputs that keep step with them: their second axis is as long, and gets shorter where x does.
    Other outputs, as final states or what was pooled, are left out. Of a model that takes one
    length only, an output keeps step if it has three axes and the second is as long; choose an x
    with another number of features.

    Args:
        model: Any Keras model, or layer, that is built and gives (batch, time, ...).
        x: Its input, an array (batch, time, ...) of two steps or more, or a structure of them.
        along: Which inputs the outputs may not look ahead in, if not all: an index or key of x, or
            a list of these.

    Returns:
        A `Causality`, which is true or false and holds the `leak`.

    Raises:
        ValueError: `model` is none, `x` holds no arrays, or inputs of different lengths without
            `along`; no output keeps step; or the gradients are not finite or zero throughout at
            this x, so that they tell nothing.

    Source: CS224N 2019, lecture 7: bidirectional nets need the entire sequence, and so have no
    place in language modelling.

    Example:

    >>> gru = kerasrnn.layers.GRU(4, return_sequences=True)
    >>> inputs = keras.Input((5, 3))
    >>> model = keras.Model(inputs, kerasrnn.layers.Bidirectional(gru, name="both")(inputs))
    >>> kerasrnn.diagnostics.is_causal(model, np.ones((1, 5, 3)))
    Causality(leak=('both', 0, 1))
    """
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(f"`model` must be a Keras model or layer. Received: model={model!r}")
    inputs = _tensors(x)
    flat = tree.flatten(inputs)
    chosen = _chosen(inputs, along)
    shape = chosen[0].shape[:2]

    def run(change, source=None):
        """The outputs of all parts of the model, in order, with the steps of x so changed."""
        taken = [change(part) if any(part is one for one in chosen) else part for part in flat]
        return _run(model, tree.pack_sequence_as(inputs, taken), source)

    def all_parts(source):
        parts = run(lambda part: source(part) if is_float(part) else part, source)
        return [part.y for part in parts], parts

    way = WayBack(all_parts)
    parts = way.others

    follows = _follow(parts, run, shape)
    outputs = [part for part in parts if part.is_output]
    judged = [i for i in follows if parts[i].is_output]
    if not judged:
        raise ValueError(
            "`model` must give (batch, time, ...) with as many steps as its input (a recurrent "
            "layer with return_sequences=True). Received: a model with outputs of the shapes "
            f"{[tuple(part.y.shape) for part in outputs]} for inputs of "
            f"{[tuple(part.shape) for part in flat]}"
        )
    without_gradient = [i for i in follows if not parts[i].differentiable]
    if without_gradient and len(chosen) < len(flat):
        turned = run(lambda part: ops.roll(part, 1, axis=1))
        without_gradient = [i for i in without_gradient if _differ(parts[i].y, turned[i].y)]
    # Those of the inputs come first, then one of each part without a gradient.
    of_inputs = range(sum(map(is_float, chosen)))
    of_parts = [i for i, part in enumerate(parts) if not part.differentiable]
    sources = [*of_inputs, *(len(of_inputs) + of_parts.index(i) for i in without_gradient)]

    reaches = [_reach(way, i, sources) for i in judged]
    if not any(reach.any() for reach in reaches):
        raise ValueError(
            "The output must depend on the input at `x` for its gradients to tell anything; try "
            "other values. Received: an `x` at which all gradients are zero"
        )
    if not any(_ahead(reach) for reach in reaches):
        return Causality(_leak_by_values(run, parts, follows, judged, shape[1]))
    for i in follows:
        if steps := _ahead(_reach(way, i, sources)):
            return Causality((parts[i].name, *steps))


def _tensors(x):
    if any(not hasattr(part, "shape") for part in tree.flatten(x)):
        raise ValueError(
            "`x` must be an array (batch, time, ...) or a structure of them as the model takes it; "
            f"np.array(x) makes one of lists of numbers. Received: x={reprlib.repr(x)}"
        )
    # Each a tensor of its own, though two inputs may be the same.
    return tree.map_structure(lambda part: ops.copy(ops.convert_to_tensor(part)), x)


def _chosen(inputs, along):
    """The inputs that the outputs may not look ahead in."""
    flat = tree.flatten(inputs)
    if along is None:
        chosen = [p for p in flat if len(p.shape) > 1 + is_float(p)] or flat
    else:
        keys = along if isinstance(along, list | tuple) else [along]
        named = dict(enumerate(flat)) if len(flat) > 1 else {}
        named = inputs if isinstance(inputs, dict) else named
        if not keys or any(key not in named for key in keys):
            raise ValueError(
                "`along` must be one of the inputs in x, or a list of them, by index or key: "
                f"{', '.join(map(repr, named)) or 'none for a single one'}. "
                f"Received: along={along!r}"
            )
        chosen = tree.flatten([named[key] for key in keys])
    lengths = [part.shape[1] if len(part.shape) > 1 else 0 for part in chosen]
    if min(lengths) < 2:
        raise ValueError(
            "`x` must be (batch, time, ...), of two time steps or more. Received: inputs of the "
            f"shapes {[tuple(part.shape) for part in chosen]}"
        )
    if len(set(lengths)) > 1:
        raise ValueError(
            "`along` must say which of several inputs the outputs may not look ahead in, since "
            f"they differ in length: {lengths}. Received: along={along!r}"
        )
    return chosen


class _Part(NamedTuple):
    """What a part of the model gave, or the model itself."""

    name: str
    y: Any
    # Whether a gradient leads from y to what the part took.
    differentiable: bool
    is_output: bool = False


def _run(model, inputs, source):
    """The parts; with the `source` of a `WayBack`, those that no gradient leads through are its
    sources. Without one it is left open whether one leads."""
    parts, listening = [], True

    def heard(name, original, *args, **kwargs):
        """Calls a part of the model and notes its outputs."""
        nonlocal listening
        outputs = original(*args, **kwargs)
        if not listening:
            return outputs
        differentiable = True
        if source:
            # Not by the dtype of what it takes: Keras's models cast tokens too. The parts inside
            # have been heard.
            listening = False
            differentiable = depends(_called, (original, args, kwargs))
            listening = True
        floats = {id(y): y for y in floats_in(outputs)}
        if not differentiable:
            floats = {key: source(y) for key, y in floats.items()}
            outputs = tree.map_structure(lambda y: floats.get(id(y), y), outputs)
        parts.extend(_Part(name, y, differentiable) for y in floats.values())
        return outputs

    # A part that has several names goes by the last of them.
    named = {id(part): (part, name) for name, part in _parts(model)}
    calls = [(part, functools.partial(heard, name)) for part, name in named.values()]
    with left_as_it_was(model), shadowed("call", calls):
        outputs = floats_in(model(inputs, training=False))
    return parts + [_Part(model.name, y, True, True) for y in outputs]


def _called(function, args, kwargs):
    return function(*args, **kwargs)


def _follow(parts, run, shape):
    """The indices of the parts that have the time of the input on their second axis."""
    as_long = [i for i, part in enumerate(parts) if part.y.shape[:2] == shape]
    try:
        shorter = run(lambda part: part[:, :-1])
    except REJECTIONS:
        shorter = []
    if len(shorter) != len(parts):
        # A model of one length.
        return [i for i in as_long if len(parts[i].y.shape) > 2 or not parts[i].differentiable]
    return [i for i in as_long if shorter[i].y.shape[1] == shape[1] - 1]


def _reach(way, i, sources):
    """Whether step t of output i of a `WayBack` depends on step s of one of those `sources`, at
    [t, s]."""
    y = way.outputs[i]
    time = y.shape[1]
    direction = np.random.default_rng(0).normal(size=y.shape)
    steps = np.eye(time).reshape(time, 1, time, *[1] * (len(y.shape) - 2))
    reach = np.zeros((time, time), bool)
    for t, gradients in enumerate(way.back_each(steps * direction, i)):
        for gradient in (gradients[source] for source in sources):
            along = np.array(gradient).swapaxes(0, 1).reshape(time, -1)
            if not np.isfinite(along).all():
                raise ValueError(
                    "The gradients at `x` must be finite to tell what depends on what. Received: "
                    f"an `x` at which that of step {t} is not"
                )
            reach[t] |= along.any(axis=1)
    return reach


def _ahead(reach):
    """The first step that depends on a later one, and that one."""
    for t, s in zip(*np.nonzero(np.triu(reach, 1)), strict=True):
        return int(t), int(s)
    return None


def _leak_by_values(run, parts, follows, judged, time):
    """The first part of the model, its step, and a later step of the input whose value it shows."""

    def shows(later, t, among):
        """The first of the parts that is not up to step t what it was, with other `later` steps."""
        steps = np.arange(time)
        steps[later] = (steps[later] + 1) % time
        now = run(lambda part: ops.take(part, steps, axis=1))
        for i in among:
            if _differ(now[i].y[:, : t + 1], parts[i].y[:, : t + 1]):
                return parts[i].name
        return None

    for t in range(time - 1):
        if shows(slice(t + 1, None), t, judged):
            for s in range(t + 1, time):
                if shows([s], t, judged):
                    return shows([s], t, follows), t, s
    return None


def _differ(a, b):
    a, b = (np.array(ops.convert_to_numpy(v), "float64") for v in (a, b))
    return not np.allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(b).max())


def _parts(model, prefix=""):
    """The layers and operations of a model and of the models in it, with their names."""
    for part in getattr(model, "operations", None) or getattr(model, "layers", ()):
        if isinstance(part, keras.Model):
            yield from _parts(part, f"{prefix}{part.name}/")
        if not isinstance(part, keras.layers.InputLayer):
            yield f"{prefix}{part.name}", part
