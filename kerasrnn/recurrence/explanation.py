"""Which way each recurrent layer of a model goes through its sequences, and why no other."""

import contextlib
import contextvars
import inspect
import reprlib
import textwrap
import warnings
from typing import NamedTuple

import keras
import tensorflow as tf
from keras import tree

from kerasrnn.inside import recurrent_paths
from kerasrnn.recurrence import stages

# What a user does with a model: the stage of its passes, and `training`.
_USES = {"fit": ("step", True), "predict": ("step", False), "export": ("export", False)}
# The letters of a line with a reason.
_WIDTH = 76
_NOTES = contextvars.ContextVar("notes", default=None)


class Choice(NamedTuple):
    """The path that one pass takes.

    Attributes:
        path: The name of one of `kerasrnn.recurrence.PATHS`; "keras" for a layer of Keras's own,
            which runs in Keras's loop; `None` where a path was asked for that cannot be taken.
        passed_over: Of each path that comes before it, by name, the one reason why it refused.
    """

    path: str | None
    passed_over: dict


class Explanation(dict):
    """For each recurrent layer by its path a dictionary: its `Choice` in "fit", in "predict" and in
    "export". Printed, it is a table, with what was passed over and why below it.

    >>> choice = kerasrnn.recurrence.Choice("loop", {"scan": "GRUCell is no linear recurrence"})
    >>> uses = "fit", "predict", "export"
    >>> kerasrnn.recurrence.Explanation({"gru": dict.fromkeys(uses, choice)})
    layer | fit  | predict | export | why
    ------+------+---------+--------+----
    gru   | loop | loop    | loop   | 1
    <BLANKLINE>
    1  scan: GRUCell is no linear recurrence
    """

    def __repr__(self):
        rows, notes = [("layer", *_USES, "why")], []
        for layer, choices in self.items():
            note = _reasons(choices)
            if note not in notes:
                notes.append(note)
            paths = [choices[use].path or "error" for use in _USES]
            rows.append((layer, *paths, str(notes.index(note) + 1)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines.insert(1, "-+-".join("-" * width for width in widths))
        for number, note in enumerate(notes, 1):
            lines.append("")
            lines += [f"{number if k == 0 else '':<2} {line}" for k, line in enumerate(note)]
        return "\n".join(lines)


def _reasons(choices):
    """One line per path and reason, with the uses it holds in where these are not all."""
    if all(choice.path == "keras" for choice in choices.values()):
        return ["a layer of Keras's, in Keras's loop"]
    uses = {}
    for use, choice in choices.items():
        for path, reason in choice.passed_over.items():
            uses.setdefault((path, reason), []).append(use)
    lines = []
    for (path, reason), listed in uses.items():
        where = "" if len(listed) == len(_USES) else f" ({', '.join(listed)})"
        lines += textwrap.wrap(f"{path}{where}: {reason}", _WIDTH, subsequent_indent="  ")
    return lines or ["the first of all paths"]


def explain(model_or_layer, x=None):
    """Shows the path that each recurrent layer takes in `fit`, in `predict` and when it is
    exported, and of each path that comes before it the one reason why it cannot be taken.

    The model is traced, not run, once for each of the three. A `tf.function` of the user's own goes
    the way of an export, or inside `kerasrnn.recurrence.compiled` that of `fit` or `predict`.

    Args:
        model_or_layer: A Keras model or layer, with recurrent layers of this package or of Keras
            anywhere inside: in stacks, directions, connections and models.
        x: A batch as for `fit`, of which shapes and dtypes count; batches of unknown size and
            length may be named by `keras.Input`. Default: what it was built for.

    Returns:
        An `Explanation`, a dictionary that a prompt shows as a table. Its keys are the layers'
        paths, as those of `kerasrnn.diagnostics.gradient_flow`.

    Raises:
        ValueError: `model_or_layer` is no Keras layer or has no recurrent layer, or was not built
            and `x` is missing.

    Example:

    >>> model = keras.Sequential([keras.Input((100, 8)), kerasrnn.layers.LSTM(32, name="lstm")])
    >>> kerasrnn.recurrence.explain(model)["lstm"]["export"].path
    'loop'
    """
    if not isinstance(model_or_layer, keras.layers.Layer):
        raise ValueError(
            "`model_or_layer` must be a Keras model or layer. "
            f"Received: model_or_layer={model_or_layer!r}"
        )
    if x is not None and not model_or_layer.built:
        model_or_layer(x)
    explanation = Explanation()
    for use in _USES:
        for path, choice in choices(model_or_layer, x, use).items():
            explanation.setdefault(path, {})[use] = choice
    if not explanation:
        raise ValueError(
            "`model_or_layer` must have a recurrent layer. "
            f"Received: model_or_layer={model_or_layer.name}, without any"
        )
    return explanation


def choices(model_or_layer, x, use):
    """The `Choice` of each recurrent layer by its path, in one use.

    Args:
        model_or_layer, x: As for `explain`, and built.
        use: "fit", "predict" or "export".
    """
    paths, names = _paths(model_or_layer)
    chosen = {path: Choice("keras", {}) for path in set(paths) - set(names.values())}
    chosen |= _traced(model_or_layer, _specs(model_or_layer, x), names, *_USES[use])
    # In the order of the model; a second call follows the first.
    return dict(sorted(chosen.items(), key=lambda item: paths.index(_layer_of(item[0]))))


def notes(cell, choice):
    """Takes note of the choice for one pass of a cell, where an explanation is under way, and says
    whether one is."""
    if (noted := _NOTES.get()) is None:
        return False
    noted.append((cell, choice))
    return True


@contextlib.contextmanager
def _noting():
    noted = []
    token = _NOTES.set(noted)
    try:
        yield noted
    finally:
        _NOTES.reset(token)


def _paths(model_or_layer):
    """The paths of all recurrent layers, or of their cells where there are several, and those by
    the ids of the cells that run in this package's loops."""
    paths, names = [], {}
    for path, layer, _ in recurrent_paths(model_or_layer):
        if layer.inner_loop.__module__.startswith("keras."):
            paths.append(path)
            continue
        stacked = type(layer.cell) is keras.layers.StackedRNNCells
        for cell in layer.cell.cells if stacked else [layer.cell]:
            names[id(cell)] = f"{path}/{cell.name}" if stacked else path
            paths.append(names[id(cell)])
    return paths, names


def _layer_of(path):
    """The path of a layer without the number of the call."""
    return path.partition("#")[0]


def _specs(model_or_layer, x):
    """The shapes and dtypes of x, or of the inputs that a model or layer was built for."""
    if x is None:
        x = _symbolic_inputs(model_or_layer)
    for part in tree.flatten(x):
        if part is not None and not (hasattr(part, "shape") and hasattr(part, "dtype")):
            raise ValueError(
                "`x` must be an array, (batch, ...), or a structure of them; np.array makes one of "
                f"lists of numbers. Received: x={reprlib.repr(x)}"
            )
    return tree.map_structure(lambda v: None if v is None else tf.TensorSpec(v.shape, v.dtype), x)


def _symbolic_inputs(model_or_layer):
    if inputs := getattr(model_or_layer, "inputs", None):
        return inputs if len(inputs) > 1 else inputs[0]
    config = model_or_layer.get_build_config() if model_or_layer.built else None
    if not config:
        raise ValueError(
            "`x` must show the shape of the input of a model or layer that does not know it: pass "
            f"a batch. Received: x=None for {model_or_layer.name}"
        )
    shape = config.get("input_shape") or next(iter(config["shapes_dict"].values()))
    return keras.KerasTensor(shape, dtype=model_or_layer.compute_dtype)


def _traced(model_or_layer, specs, names, stage, training):
    """The choice for each call of each layer, by its path."""
    options = {"training": training}
    if "training" not in inspect.signature(model_or_layer.call).parameters:
        options = {}
    if stage == "step" and getattr(model_or_layer, "run_eagerly", False):
        stage = "eager"
    with _noting() as noted, stages.as_if(stage), warnings.catch_warnings():
        # A list of inputs serves a model that would like a dictionary.
        warnings.filterwarnings("ignore", "The structure of `inputs`")
        tf.function(lambda v: model_or_layer(v, **options)).get_concrete_function(specs)
    choices = {}
    for cell, choice in noted:
        path = names[id(cell)]
        calls = sum(_layer_of(key) == path for key in choices)
        choices[f"{path}#{calls + 1}" if calls else path] = choice
    return choices
