"""Looking at a model without changing it: the batch it runs on, what stands for its methods and is
set back, the gradient of its loss."""

import contextlib
import functools
import reprlib

import keras
from keras import ops, tree

from kerasrnn.diagnostics import derivatives
from kerasrnn.inside import attached_mask, kept_states, layers_in

# What a loss is multiplied by where float16 might lose its gradient; powers of two round nothing.
_SCALES = (2.0**10, 2.0**20)


def check_compiled(model):
    """Raises a `ValueError` unless the model has a loss."""
    if not getattr(model, "compiled", False):
        raise ValueError(
            "`model` must be a compiled Keras model, whose loss the gradients are of. "
            f"Received: model={model!r}"
        )


def as_batch(model, **parts):
    """Each of a batch's parts by its name, x, y or weights, with tensors for its arrays.

    Raises:
        ValueError: A part has something else than arrays, they differ in their samples or have
            none, or the model has a loss of targets that are missing.
    """
    arrays = [
        (name, array)
        for name, part in parts.items()
        for array in tree.flatten(part)
        # A model may have no targets, or inputs that may be left out.
        if array is not None or (name == "x" and part is None)
    ]
    for name, array in arrays:
        if not len(getattr(array, "shape", ())):
            raise ValueError(
                f"`{name}` must be an array, (batch, ...), or a structure of them as `fit` takes "
                "it; np.array makes one of lists of numbers, and a dataset yields them. "
                f"Received: {name}={reprlib.repr(parts[name])}"
            )
    samples = arrays[0][1].shape[0]
    for name, array in arrays:
        if array.shape[0] != samples:
            raise ValueError(
                f"`{name}` must hold as many samples as `x`, {samples}. Received: an array of the "
                f"shape {tuple(array.shape)}"
            )
    if not samples:
        raise ValueError("`x` must hold at least one sample. Received: an empty batch")
    # A model may take its loss from its layers, or compute it in its own way.
    of_targets = model.loss is not None and type(model).compute_loss is keras.Model.compute_loss
    if of_targets and parts["y"] is None:
        raise ValueError(
            "`y` must hold the targets, which the loss the model is compiled with needs. "
            "Received: y=None"
        )
    return [
        tree.map_structure(lambda v: None if v is None else ops.convert_to_tensor(v), part)
        for part in parts.values()
    ]


@contextlib.contextmanager
def shadowed(name, stand_ins):
    """Lets functions stand for a method of some layers: on the instances, where they come before
    the class's, and inside the context only.

    Args:
        name: The name of the method, or of an attribute that is called.
        stand_ins: For each layer, named once, a pair (layer, function): `function(original, *args,
            **kwargs)` is called in the place of `original`.
    """
    with contextlib.ExitStack() as restored:
        for layer, function in stand_ins:
            original = getattr(layer, name)
            if name in vars(layer):
                restored.callback(setattr, layer, name, original)
            else:
                restored.callback(delattr, layer, name)
            stand_in = functools.partial(function, original)
            # Layers around this one look at its signature.
            setattr(layer, name, functools.update_wrapper(stand_in, original, updated=()))
        yield


@contextlib.contextmanager
def left_as_it_was(model):
    """Sets back what running a model, or a layer, changes."""
    metrics = getattr(model, "metrics_variables", [])
    kept = [*model.non_trainable_variables, *metrics, *kept_states(model)]
    values = [ops.copy(variable) for variable in kept]
    try:
        yield
    finally:
        for variable, value in zip(kept, values, strict=True):
            variable.assign(value)


def mask_weights(model, output):
    """Weights, of the mask's shape, by which the loss of a model leaves out the steps that its
    output masks, as Keras's losses do; `None` without a mask."""
    mask = attached_mask(output)
    return None if mask is None else weights_of_mask(model, mask)


def weights_of_mask(model, mask):
    """Those of a mask that the output no longer carries."""
    weights = ops.cast(mask, "float32")
    if getattr(model.loss, "reduction", None) == "sum":
        return weights
    # The mean over all steps, masked ones included, of what they leave.
    return ops.divide_no_nan(weights, ops.mean(weights))


def gradients(model, back):
    """The gradients of a model's loss, in float64, or the squares of small ones would be none.

    Where a layer computes in float16, they are taken of the loss times several factors, as training
    scales it, and count for the largest by which everything stays finite.

    Args:
        model: The model.
        back: `back(g)` gives the list of the gradients of g times the loss.
    """

    def scaled(scale):
        return [g / scale for g in back(scale)]

    result = scaled(1.0)
    if all(layer.compute_dtype != "float16" for layer in layers_in(model)):
        return result
    for scale in _SCALES:
        result = derivatives.where_finite(scaled(scale), result)
    return result
