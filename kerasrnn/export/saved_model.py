"""SavedModels: for TensorFlow, TensorFlow Serving and TF1 sessions."""

import collections
import warnings

import keras
import tensorflow as tf
from keras import tree

from kerasrnn.diagnostics.looking import left_as_it_was
from kerasrnn.export.artifact import Report, directory_for, reported, size_of, write_signature
from kerasrnn.export.check import cases, checked
from kerasrnn.export.interface import (
    BOUND,
    SIGNATURE,
    as_tensors,
    check_input_names,
    check_layer_names,
    check_model,
    input_structure,
    over_rows,
    unique,
)
from kerasrnn.files import replacing_directory
from kerasrnn.inside import kept_states, layers_in
from kerasrnn.layers.group import reset_state

# Of what is computed in half precision.
HALF_BOUND = 5e-2


def export_saved_model(model, path, preprocessing=None, overwrite=False, class_names=None):
    """Writes a model as a SavedModel directory with the signature `serving_default`.

    The artifact needs neither this package nor Keras: `tf.saved_model.load`, TensorFlow Serving and
    a TF1 session load it. It is written in full beside its place, loaded, run on random inputs of
    two batches and lengths, and takes its place where it gives what the model gives, up to 1e-5 (of
    a model in half precision 5e-2). Behind an address as gs://bucket/model, where no directory
    takes another's place at once, it is written in full on this machine, what stands there is
    removed, and its files are copied. In it, `signature.json` says what goes in and comes out.

    A stateful model keeps its states in the artifact, from call to call; they start from their
    initial values, whatever batch the model has seen last.

    Args:
        model: A built Keras model.
        path: The directory to write, or an address of one that `tf.io.gfile` knows.
        preprocessing: What turns raw inputs into the model's, to become part of the artifact: a
            `keras.layers.TextVectorization` (give it an `output_sequence_length`, or an empty text
            is a sequence without steps), after which the signature takes a vector of strings named
            `text`; or a functional or Sequential model. `None` for the model's own inputs, which
            the signature calls by the names of the model's `Input`s; those of a model of your own
            class by the keys of the dictionary it takes, else `args_0`, `args_0_1`, ...
        overwrite: Whether to replace what stands at `path`, whatever it is.
        class_names: What the numbers of the model's one output stand for, a list of strings for
            `signature.json`: as many as its last axis has, or two where it has one, the probability
            of the second; no two alike. `None` for an output that is no classes.

    Returns:
        The directory, an `Artifact` (a `pathlib.Path`); its address, a `RemoteArtifact` (a string),
        where `path` is one. Its `report` says what is in there.

    Raises:
        FileExistsError: `path` exists, is not an empty directory, and `overwrite` is `False`.
        TypeError: `path` is no path, `model` no Keras model, or `preprocessing` neither a
            `TextVectorization` nor a model with inputs.
        ValueError: the model is not built, or has inputs whose names no signature can bear, or
            layers whose names TensorFlow cannot trace, or several inputs behind a
            `TextVectorization`; the `TextVectorization` has seen no text; what `preprocessing`
            gives, `model` does not take; `class_names` are not as many as classes, or two are
            alike; or `path` is an address that TensorFlow does not know.
        ExportError: the artifact does not run, or does not give what the model gives.

    Warns:
        UserWarning: the `TextVectorization` has no `output_sequence_length`.

    Source: Keras, `Model.export`; what `tf.saved_model.save` writes of a Keras model a TF1 session
    cannot load.

    Example:

    >>> model = keras.Sequential([keras.Input((None, 3)), kerasrnn.layers.GRU(4)])
    >>> path = kerasrnn.export.export_saved_model(model, "artifact")
    >>> path.report.dynamic
    ('batch', 'time')
    >>> served = tf.saved_model.load("artifact").signatures["serving_default"]
    """
    place = directory_for(path, overwrite)
    check_model(model)
    served = model if preprocessing is None else _behind(preprocessing, model)
    structure = _structure(served)
    # Of a functional model Keras knows the names itself.
    signature = None if getattr(served, "inputs", None) else structure
    check_input_names(served, [part.name for part in tree.flatten(structure)])
    check_layer_names(served, keeps_variables=True)
    class_names = _checked_class_names(class_names, served)
    with left_as_it_was(served), replacing_directory(place) as unfinished:
        reset_state(served)
        with over_rows(served):
            served.export(str(unfinished), verbose=False, input_signature=signature)
        loaded = tf.saved_model.load(str(unfinished))
        serve = loaded.signatures[SIGNATURE]
        inputs = _specs(serve, served)
        write_signature(unfinished, {SIGNATURE: (inputs, serve.structured_outputs)}, class_names)
        report = _report(served, structure, serve, inputs, unfinished)
    return reported(place, report)


def _structure(model):
    """The arguments that a model is called with, a named specification for each tensor."""
    if getattr(model, "inputs", None):
        return [input_structure(model)]
    # Keras's own, which a class may have replaced.
    kept = keras.Model.get_build_config(model)
    if not kept:
        raise ValueError(
            "`model` must be called once before it is exported, so that its inputs are known. "
            f"Received: {model.name}, a {type(model).__name__}"
        )
    arguments = kept["shapes_dict"].values() if "shapes_dict" in kept else [kept["input_shape"]]
    return [_argument(f"args_{i}", shapes, model.input_dtype) for i, shapes in enumerate(arguments)]


def _argument(name, shapes, dtype):
    """The specifications for the shapes of an argument, by the keys of a dictionary, else with the
    names that TensorFlow gives them."""
    taken = set()

    def spec(shape, name):
        return tf.TensorSpec([None, *shape[1:]], dtype, name)

    if isinstance(shapes, dict) and all(
        isinstance(key, str) and _is_shape(shape) for key, shape in shapes.items()
    ):
        return {key: spec(shape, key) for key, shape in shapes.items()}
    return tree.map_shape_structure(lambda shape: spec(shape, unique(name, taken)), shapes)


def _is_shape(value):
    return isinstance(value, tuple | list) and all(n is None or isinstance(n, int) for n in value)


def _specs(serve, model):
    """What the signature takes, by name, with the one batch that a stateful model takes."""
    specs = serve.structured_input_signature[1]
    kept = kept_states(model)
    if not kept:
        return specs
    return {
        name: tf.TensorSpec([kept[0].shape[0], *spec.shape[1:]], spec.dtype, name)
        for name, spec in specs.items()
    }


def _report(model, structure, serve, inputs, directory):
    bound = bound_of(model)
    pairs = cases(model, inputs, lambda arrays: _outputs(model, structure, arrays))
    difference = checked("saved_model", pairs, lambda arrays: serve(**as_tensors(arrays)), bound)
    of_file = operations_of(serve), size_of(directory), difference, bound
    return Report.of("saved_model", *of_file, inputs)


def bound_of(model):
    """The difference to a model that is let through."""
    half = any(layer.compute_dtype in ("float16", "bfloat16") for layer in layers_in(model))
    return HALF_BOUND if half else BOUND


def operations_of(function):
    """The operations of a TensorFlow function and of those in it, counted, by name."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for part in graph.library.function for node in part.node_def)]
    counts = collections.Counter(node.op for node in nodes)
    return dict(sorted(counts.items()))


def _outputs(model, structure, arrays):
    """The model's outputs by the names of Keras's signature."""
    tensors = as_tensors(arrays)
    taken = tree.map_structure(lambda part: tensors[part.name], structure)
    outputs = model(*taken, training=False)
    if isinstance(outputs, dict):
        return outputs
    return {f"output_{i}": y for i, y in enumerate(tree.flatten(outputs))}


def _checked_class_names(class_names, model):
    if class_names is None:
        return None
    is_list = isinstance(class_names, list | tuple)
    if not is_list or any(not isinstance(name, str) for name in class_names):
        raise ValueError(
            f"`class_names` must be a list of strings. Received: class_names={class_names!r}"
        )
    if len(set(class_names)) < len(class_names):
        raise ValueError(
            f"`class_names` must differ from each other. Received: class_names={class_names!r}"
        )
    outputs = getattr(model, "outputs", None) or []
    if len(outputs) != 1:
        raise ValueError(
            "`class_names` needs a functional or Sequential model of one output. Received: "
            f"class_names={class_names!r}, {model.name} with {len(outputs)} outputs"
        )
    classes = outputs[0].shape[-1]
    if len(class_names) != (2 if classes == 1 else classes):
        rule = "two names where the output has one number" if classes == 1 else f"{classes} names"
        raise ValueError(
            f"`class_names` must name the numbers of the last axis of the output: {rule}. "
            f"Received: class_names={class_names!r}, outputs of the shape {outputs[0].shape}"
        )
    return list(class_names)


def _behind(preprocessing, model):
    """One model of both."""
    if isinstance(preprocessing, keras.layers.TextVectorization):
        inputs = [part.name for part in getattr(model, "inputs", None) or []]
        if len(inputs) > 1:
            raise ValueError(
                "`preprocessing` must be a functional model that gives all inputs where `model` "
                "has several: a TextVectorization gives one. "
                f"Received: preprocessing={preprocessing.name}, inputs {', '.join(inputs)}"
            )
        # Padding and the token for unknown words are there before any text was seen.
        if preprocessing.vocabulary_size() <= 2:
            raise ValueError(
                "`preprocessing` must know its vocabulary: call its adapt() on the training texts "
                f"first. Received: preprocessing={preprocessing.name}"
            )
        if preprocessing.get_config()["output_sequence_length"] is None:
            warnings.warn(
                "An empty text becomes a sequence without steps, which most models refuse: give "
                "the TextVectorization an output_sequence_length.",
                stacklevel=3,
            )
        raw = keras.Input((), dtype="string", name="text")
    elif isinstance(preprocessing, keras.Sequential) and preprocessing.built:
        (raw,) = preprocessing.inputs
    elif isinstance(preprocessing, keras.Model) and hasattr(preprocessing, "inputs"):
        raw = preprocessing.input
    else:
        raise TypeError(
            "`preprocessing` must be a keras.layers.TextVectorization, or a functional or "
            f"Sequential keras.Model that has its Input. Received: preprocessing={preprocessing!r}"
        )
    given = preprocessing(raw)
    shapes = [part.shape for part in tree.flatten(given)]
    wanted = [part.shape for part in getattr(model, "inputs", None) or []]
    said = f"Received: preprocessing={preprocessing.name}, which gives {_listed(shapes)}"
    # A Sequential model looks at shapes when it is traced alone.
    if wanted and not (len(shapes) == len(wanted) and all(map(_fits, shapes, wanted))):
        raise ValueError(
            "`preprocessing` must give what `model` takes. "
            f"{said}, and model={model.name}, which takes {_listed(wanted)}"
        )
    try:
        return keras.Model(raw, model(given))
    # What Keras says of a structure or a dtype, and models of a class of their own of a shape.
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`preprocessing` must give what `model` takes. {said}, to model={model.name}: {error}"
        ) from error


def _fits(shape, wanted):
    """Whether Keras takes a shape for an input, where it adds or drops a last axis of 1."""
    shapes = [shape, (*shape, 1), *([shape[:-1]] if shape[-1:] == (1,) else [])]
    return any(tf.TensorShape(one).is_compatible_with(wanted) for one in shapes)


def _listed(shapes):
    return ", ".join(map(str, shapes))
