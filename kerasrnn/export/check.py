"""The check of a file that was exported: it runs in its runtime on inputs of two batches and
lengths, and gives what the model gives."""

import contextlib
import itertools
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kerasrnn.inside import layers_in

# Pairs of a batch and a length. The later ones are for models with longer windows.
_SIZES = (((2, 11), (3, 16)), ((2, 101), (3, 160)), ((2, 1001), (3, 1600)))


# What Keras and TensorFlow say of a shape.
_REFUSALS = (ValueError, tf.errors.InvalidArgumentError)
# What random inputs are multiplied by in the last case: far from where functions are smooth.
_LARGE = 60


class Case(NamedTuple):
    """What a file is run on: inputs and the model's outputs, dictionaries of arrays, and what the
    file may be off beside the bound."""

    inputs: dict
    expected: dict
    slack: float = 0.0


class ExportError(RuntimeError):
    """What was written does not run, or does not give what the model gives; nothing is left."""


def cases(model, specs, call, apart=True):
    """Random inputs of two sizes, and large ones of the first where they are floats, and what the
    model gives of them. Large ones count where the model gives finite numbers of them.

    Args:
        model, specs: As for `samples`.
        call: `call(arrays)` gives the model's outputs, by name.
        apart: Whether inputs, and open axes of one, differ in length where the model lets them.

    Returns:
        A list of `Case`s.

    Raises:
        ExportError: the model itself takes no such inputs. What else it raises, it raises here.
    """
    for sizes, differ in itertools.product(_SIZES, (True, False) if apart else (False,)):
        try:
            drawn = samples(model, specs, sizes, differ)
            ran = [Case(inputs, _arrays(call(inputs))) for inputs in drawn]
            return ran + _large_case(samples(model, specs, sizes[:1], differ, _LARGE)[0], call)
        except _REFUSALS as error:
            refused = error
    raise ExportError(
        f"What is exported is run on random inputs, and {model.name} itself takes none of the "
        f"shapes {', '.join(f'{name} {tuple(spec.shape)}' for name, spec in specs.items())}; "
        f"nothing was written. {_first_lines(refused)}"
    ) from refused


def _large_case(inputs, call):
    """A list of one case or none, with what a last bit of the inputs changes as slack."""
    if not any(v.dtype.kind == "f" and abs(v).max(initial=0) > _LARGE for v in inputs.values()):
        return []
    try:
        expected = _arrays(call(inputs))
    except _REFUSALS:
        return []
    if not all(np.isfinite(v).all() for v in expected.values() if v.dtype.kind == "f"):
        return []
    nearby = {
        name: v * v.dtype.type(1 + 1e-6) if v.dtype.kind == "f" else v for name, v in inputs.items()
    }
    moved = largest_difference(expected, _arrays(call(nearby)))
    return [Case(inputs, expected, max(1e-3, 10 * moved))]


def check_finite(model):
    """Raises a `ValueError` unless all weights of a model are finite: of what they make not a
    number nobody could say whether a file gives it."""
    refused = [
        weight.path
        for weight in model.weights
        if keras.backend.is_float_dtype(weight.dtype)
        and not keras.ops.all(keras.ops.isfinite(weight))
    ]
    if refused:
        raise ValueError(
            "`model` must have finite weights: go back to those before they were lost, as "
            f"kerasrnn.callbacks.DivergenceGuard does. Received: {model.name}, with NaN or "
            f"infinity in {', '.join(refused)}"
        )


@contextlib.contextmanager
def converting(model, format):
    """Has all that a converter raises be an `ExportError`, which names quantized layers."""
    try:
        yield
    except Exception as error:
        said = str(error)
        if not isinstance(error, ExportError):
            said = (
                f"{model.name} could not be written in the format {format}; nothing was written. "
                f"Received: {type(error).__name__}: {_first_lines(error)}"
            )
        raise ExportError(f"{said}{_on_quantized(model)}") from error


def _on_quantized(model):
    """What to do instead where a model holds what Keras has quantized."""
    policies = {
        part.name: part.dtype_policy.quantization_mode
        for part in layers_in(model)
        if isinstance(part.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy)
    }
    if not policies:
        return ""
    named = ", ".join(f"{name} ({mode})" for name, mode in policies.items())
    return (
        f". The model is quantized by Keras's `quantize`, in {named}: export the model as it was "
        "before, here with export_litert(..., quantize=...) where the file is to be small; "
        "export_saved_model writes it as it is"
    )


def _arrays(tensors):
    return {name: np.asarray(value) for name, value in tensors.items()}


def samples(model, specs, sizes, apart=False, scale=1):
    """Random inputs, one dictionary of arrays per pair of a batch and a length; where a shape says
    how much, it holds. What may be masked is padded on the right in the first, and anywhere in the
    others.

    Args:
        model: The Keras model, whose embeddings and vocabularies say which tokens and words it
            knows.
        specs: By name what has a `shape` and a `dtype`.
        sizes: Pairs of a batch and a length.
        apart: Whether each open axis behind the batch has a length of its own, by one more than
            that before it, in every other dictionary by one less.
        scale: What floats are multiplied by that are no tokens.
    """
    rng = np.random.default_rng(0)
    parts = layers_in(model)
    tokens = min(
        [part.input_dim for part in parts if isinstance(part, keras.layers.Embedding)], default=None
    )
    words = [
        word
        for part in parts
        if isinstance(part, keras.layers.TextVectorization | keras.layers.StringLookup)
        for word in part.get_vocabulary()
    ] or ["a", "b"]

    masks = [part.mask_value for part in parts if isinstance(part, keras.layers.Masking)]

    def one(spec, batch, lengths, padded):
        shape = [*spec.shape[:1], *(next(lengths) if n is None else n for n in spec.shape[1:])]
        if len(shape):
            shape[0] = spec.shape[0] or batch
        dtype = keras.backend.standardize_dtype(spec.dtype)
        if dtype == "string":
            texts = [" ".join(rng.choice(words, 4)) for _ in range(int(np.prod(shape)))]
            return np.array(texts, object).reshape(shape)
        if dtype == "bool":
            return rng.random(shape) < 0.5
        # An Input has floats by default, before an Embedding, too.
        if "int" in dtype or (tokens and len(shape) == 2):
            least = min(1, (tokens or 3) - 1) if padded else 0
            x, hidden = rng.integers(least, tokens or 3, shape), [0]
        else:
            x, hidden = scale * rng.normal(size=shape), masks
        if len(shape) > 1 and hidden:
            # Padded on the right, or with gaps anywhere.
            lengths = rng.integers(1, shape[1] + 1, [shape[0], 1])
            gaps = np.arange(shape[1]) >= lengths if padded else rng.random(shape[:2]) < 0.3
            x[gaps] = hidden[0]
        return x.astype(dtype)

    axes = sum(n is None for spec in specs.values() for n in spec.shape[1:])
    drawn = []
    for i, (batch, length) in enumerate(sizes):
        numbers = range(length, length + axes)
        numbers = (reversed(numbers) if i % 2 else numbers) if apart else [length] * axes
        lengths = iter(numbers)
        drawn.append({name: one(spec, batch, lengths, i == 0) for name, spec in specs.items()})
    return drawn


def largest_difference(expected, received):
    """The largest difference between two dictionaries of arrays, divided by the largest number that
    is expected where that is above 1; infinite where they differ in their names, shapes, or in
    what is not finite."""
    if expected.keys() != received.keys():
        return np.inf
    return max(map(_difference, expected.values(), (received[name] for name in expected)))


def _difference(expected, received):
    expected, received = (np.asarray(v) for v in (expected, received))
    if expected.shape != received.shape:
        return np.inf
    # NumPy itself has no bfloat16, nor a kind for it.
    if expected.dtype.kind not in "fiub" and expected.dtype != tf.bfloat16.as_numpy_dtype:
        return 0.0 if (expected == received).all() else np.inf
    expected, received = (np.asarray(v, "float64") for v in (expected, received))
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], received[~finite], equal_nan=True):
        return np.inf
    if not finite.any():
        return 0.0
    apart = np.abs(expected[finite] - received[finite]).max()
    apart = apart / max(1.0, np.abs(expected[finite]).max())
    return float(apart) if np.isfinite(apart) else np.inf


def loaded(format, load):
    """What `load()` gives, the runtime of a format with what was written.

    Raises:
        ExportError: it does not load.
    """
    try:
        return load()
    except Exception as error:
        raise ExportError(
            f"The {format} file does not load; it was not put into its place. {_first_lines(error)}"
        ) from error


def checked(format, cases, run, bound, inputs_are="random inputs"):
    """Runs what was written on all cases.

    Args:
        format: Its name, for messages.
        cases: `Case`s, or pairs of their inputs and outputs.
        run: `run(inputs)` gives the outputs, by the same names.
        bound: The largest difference that is let through.
        inputs_are: What the cases are of, for messages.

    Returns:
        The largest difference in the cases without slack.

    Raises:
        ExportError: a case does not run, or differs by more.
    """
    worst, cases = 0.0, list(cases)
    if not cases:
        raise ExportError(f"The {format} file was run on nothing; it was not put into its place.")
    for inputs, expected, slack in (Case(*case) for case in cases):
        shapes = ", ".join(f"{name} {v.shape}" for name, v in inputs.items())
        try:
            received = run(inputs)
        except Exception as error:
            raise ExportError(
                f"The {format} file does not run on inputs of the shapes {shapes}; it was not put "
                f"into its place. {_first_lines(error)}"
            ) from error
        difference = largest_difference(expected, received)
        if not (difference <= bound + slack and difference < np.inf):
            raise ExportError(
                f"The {format} file must give what the model gives, up to {bound + slack:g}; it "
                f"was not put into its place. Received: a difference of {difference:.3g} on "
                f"{inputs_are}{' of large numbers' if slack else ''} of the shapes {shapes}, in "
                f"the outputs {', '.join(expected)}"
            )
        if not slack:
            worst = max(worst, difference)
    return worst


def _first_lines(error, count=3):
    return " ".join(str(error).strip().splitlines()[:count])[:500]
