"""Whether a model looks ahead in time."""

import contextlib
import dataclasses
import functools

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from kerasrnn.diagnostics.flow import left_as_it_was


@dataclasses.dataclass(frozen=True)
class Causality:
    """What `is_causal` found; true if there is no leak.

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


def is_causal(model, x):
    """Finds out whether any output of a model depends on a later input, as it must not in a
    language model or in any other that is to run step by step.

        causal:  ∂y_t / ∂x_s = 0  for all s > t, and y_t stays as it is when x_s changes

    First from gradients: each y_t is taken in a random direction over its features, so that no
    gradients cancel out; for inputs that have no gradient, such as tokens, x_s is the output of the
    layer that takes them. Then, since there may be ways without a gradient (tokens that are
    turned around, a `stop_gradient`), from values: the later steps of x take those of other steps,
    which have to differ. Runs as in inference (`training=False`), twice forward and once backward
    per step, so that a short x is enough; what it changes of a stateful model is set back.

    Args:
        model: Any Keras model, or layer, that is built and gives (batch, time, ...).
        x: Its input, (batch, time, ...), or a structure of them.

    Returns:
        A `Causality`, which is true or false and holds the `leak`.

    Raises:
        ValueError: The output has no axis of time as long as the input's, or the gradients are not
            finite or zero throughout at this x, so that they tell nothing.

    Source: CS224N 2019, lecture 7: bidirectional nets need the entire sequence, and so have no
    place in language modelling.

    Example:

    >>> gru = kerasrnn.layers.GRU(4, return_sequences=True)
    >>> inputs = keras.Input((5, 3))
    >>> model = keras.Model(inputs, kerasrnn.layers.Bidirectional(gru, name="both")(inputs))
    >>> kerasrnn.diagnostics.is_causal(model, np.ones((1, 5, 3)))
    Causality(leak=('both', 0, 1))
    """
    inputs = tree.map_structure(keras.ops.convert_to_tensor, x)
    sources = [part for part in tree.flatten(inputs) if part.dtype.is_floating]
    # Outputs of the model's parts, with their names, in the order of the calls.
    heard = []
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(sources)

        def hear(name, outputs, differentiable):
            for part in outputs:
                if not differentiable:
                    tape.watch(part)
                    sources.append(part)
                heard.append((name, part))

        with left_as_it_was(model), _listening(model, hear):
            outputs = _floats(model(inputs, training=False))

    lengths = {part.shape[1] for part in tree.flatten(inputs) if len(part.shape) > 1}
    if not outputs or any(len(y.shape) < 3 or y.shape[1] not in lengths for y in outputs):
        raise ValueError(
            "`model` must give (batch, time, ...) with as many steps as its input (a recurrent "
            "layer with return_sequences=True). Received: a model with outputs of the shapes "
            f"{[tuple(y.shape) for y in outputs]} for inputs of "
            f"{[tuple(part.shape) for part in tree.flatten(inputs)]}"
        )
    shape = outputs[0].shape[:2]
    sources = [part for part in sources if part.shape[:2] == shape]
    if not any(_leak(tape, y, sources, must_depend=True) for y in outputs):
        return Causality(_leak_by_values(model, inputs, shape))
    for name, y in [*heard, *((model.name, y) for y in outputs)]:
        if y.shape[:2] == shape and (steps := _leak(tape, y, sources)):
            return Causality((name, *steps))


def _leak(tape, y, sources, must_depend=False):
    """The first step of `y` that depends on a later one of a source, and that one."""
    direction = np.random.default_rng(0).normal(size=y.shape)
    depends = False
    for t in range(y.shape[1]):
        one_step = np.zeros_like(direction)
        one_step[:, t] = direction[:, t]
        gradients = tape.gradient(y, sources, output_gradients=tf.constant(one_step, y.dtype))
        for gradient in gradients:
            if gradient is None:
                continue
            steps = np.array(gradient, "float64").swapaxes(0, 1).reshape(y.shape[1], -1)
            if not np.isfinite(steps).all():
                raise ValueError(
                    "The gradients at `x` must be finite to tell what depends on what. Received: "
                    f"an `x` at which that of step {t} is not"
                )
            depending = np.flatnonzero(steps.any(axis=1))
            depends = depends or depending.size > 0
            if depending.size and depending[-1] > t:
                return t, int(depending[depending > t][0])
    if must_depend and not depends:
        raise ValueError(
            "The output must depend on the input at `x` for its gradients to tell anything; try "
            "other values. Received: an `x` at which all gradients are zero"
        )
    return None


def _leak_by_values(model, inputs, shape):
    """The first part of the model, its step, and a later step of the input whose value it shows."""

    def run(later):
        """All parts in order of time, with the steps `later` of the input exchanged."""
        steps = np.arange(shape[1])
        steps[later] = (steps[later] + 1) % shape[1]
        heard = []

        def hear(name, outputs, differentiable):
            heard.extend((name, part) for part in outputs if part.shape[:2] == shape)

        def exchanged(part):
            return tf.gather(part, steps, axis=1) if part.shape[:2] == shape else part

        with left_as_it_was(model), _listening(model, hear):
            outputs = _floats(model(tree.map_structure(exchanged, inputs), training=False))
        return heard, [(model.name, y) for y in outputs]

    def changed(parts, t):
        """The name of the first of the parts that is not what it was up to step t."""
        for (name, part), (_, was) in zip(parts, was_heard + was_shown, strict=True):
            a, b = (np.array(v, "float64")[:, : t + 1] for v in (part, was))
            if not np.allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(b).max()):
                return name

    was_heard, was_shown = run([])
    for t in range(shape[1] - 1):
        _, shown = run(slice(t + 1, None))
        if changed([*was_heard, *shown], t):
            for s in range(t + 1, shape[1]):
                heard, shown = run([s])
                if changed([*was_heard, *shown], t):
                    return changed([*heard, *shown], t), t, s
    return None


def _floats(structure):
    parts = tree.flatten(structure)
    return [part for part in parts if tf.is_tensor(part) and part.dtype.is_floating]


def _parts(model, prefix=""):
    """The layers and operations of a model and of the models in it, with their names."""
    for part in getattr(model, "operations", None) or getattr(model, "layers", ()):
        if isinstance(part, keras.Model):
            yield from _parts(part, f"{prefix}{part.name}/")
        if not isinstance(part, keras.layers.InputLayer):
            yield f"{prefix}{part.name}", part


@contextlib.contextmanager
def _listening(model, hear):
    """Tells `hear` of every call of a part of the model, in the order in which they end."""

    def call(original, name, *args, **kwargs):
        given = _floats((args, kwargs))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(given)
            outputs = original(*args, **kwargs)
        floats = _floats(outputs)
        # Not by the dtype of what is given: Keras's models cast tokens too.
        gradients = tape.gradient(floats, given) if floats and given else []
        hear(name, floats, any(gradient is not None for gradient in gradients))
        return outputs

    shadowed = {id(part): (name, part) for name, part in _parts(model)}.values()
    for name, part in shadowed:
        part.call = functools.partial(call, part.call, name)
    try:
        yield
    finally:
        for _, part in shadowed:
            del part.call
