"""Models as artifacts that run without this package."""

import collections
import keyword
import pathlib
import re
import warnings

import keras

from kerasrnn.files import located, replacing_directory


def export_saved_model(model, path, preprocessing=None, overwrite=False):
    """Writes a model as a SavedModel directory with the signature `serving_default`.

    The artifact needs neither this package nor Keras: `tf.saved_model.load`, TensorFlow Serving and
    a TF1 session load it. It is written in full beside its place before it takes that place; behind
    an address as gs://bucket/model, where no directory takes another's place at once, it is written
    in full on this machine, what stands there is removed, and its files are copied.

    Args:
        model: A built Keras model.
        path: The directory to write, or an address of one that `tf.io.gfile` knows.
        preprocessing: What turns raw inputs into the model's, to become part of the artifact: a
            `keras.layers.TextVectorization` (give it an `output_sequence_length`, or an empty text
            is a sequence without steps), after which the signature takes a vector of strings named
            `text`; or a functional or Sequential model. `None` for the model's own inputs, which
            the signature calls by the names of the model's `Input`s.
        overwrite: Whether to replace what stands at `path`, whatever it is.

    Returns:
        The directory, a `pathlib.Path`; its address, a string, where `path` is one.

    Raises:
        FileExistsError: `path` exists, is not an empty directory, and `overwrite` is `False`.
        TypeError: `path` is no path, `model` no Keras model, or `preprocessing` neither a
            `TextVectorization` nor a model with inputs.
        ValueError: the model is not built, or has inputs whose names no signature can bear, or
            several inputs behind a `TextVectorization`; the `TextVectorization` has seen no text;
            or `path` is an address that TensorFlow does not know.

    Warns:
        UserWarning: the `TextVectorization` has no `output_sequence_length`.

    Source: Keras, `Model.export`; what `tf.saved_model.save` writes of a Keras model a TF1 session
    cannot load.

    Example:

    >>> model = keras.Sequential([keras.Input((None, 3)), kerasrnn.layers.GRU(4)])
    >>> path = kerasrnn.export.export_saved_model(model, "artifact")
    >>> served = tf.saved_model.load("artifact").signatures["serving_default"]
    """
    place = located("path", path).resolve()
    if not overwrite and place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise FileExistsError(
            "`path` must name a new or empty directory; choose another or pass overwrite=True. "
            f"Received: path={str(place)!r}, which exists"
        )
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: model={model!r}")
    if not model.built:
        raise ValueError(
            "`model` must be built before it is exported: call it on a batch, or give it an "
            f"`Input`. Received: model={model.name}"
        )
    served = model if preprocessing is None else _behind(preprocessing, model)
    _check_names(served)
    with replacing_directory(place) as unfinished:
        served.export(str(unfinished), verbose=False)
    return place if isinstance(place, pathlib.Path) else str(place)


def _check_names(model):
    # TensorFlow changes other names in silence, or fails without naming them.
    names = [part.name for part in getattr(model, "inputs", None) or []]
    written = collections.Counter(name.lower() for name in names)
    refused = [
        name
        for name in names
        if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name)
        or keyword.iskeyword(name)
        or written[name.lower()] > 1
    ]
    if refused:
        raise ValueError(
            "`model` must have inputs whose names the signature can bear, a letter and then "
            "letters, digits and underscores, no keyword, and different in lower case, too; rename "
            "them, as keras.Input(..., name='tokens'). "
            f"Received: {', '.join(map(repr, refused))} of {model.name}"
        )


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
    return keras.Model(raw, model(preprocessing(raw)))
