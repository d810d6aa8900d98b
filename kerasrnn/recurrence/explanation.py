"""Which way each recurrent layer of a model goes through its sequences, and why no other."""

import contextlib
import contextvars
import inspect
import reprlib
import textwrap
import warnings
from typing import NamedTuple

import keras
from keras import tree

from kerasrnn.backends import tf
from kerasrnn.inside import recurrent_paths
from kerasrnn.recurrence import stages

# What a user does with a model: the stage of its passes, and `training`.
_USES = {"fit": ("step", True), "predict": ("step", False)}
if tf:
    _USES["export"] = "export", False
# What is said of a layer that no path of this package runs.
_ELSEWHERE = {
    "keras": "a layer of Keras's, which goes Keras's way",
    "other": "a layer with an `inner_loop` of its own",
    "not run": "the model does not call it",
}
# The letters of a line with a reason.
_WIDTH = 76
_NOTES = contextvars.ContextVar("notes", default=None)


class Choice(NamedTuple):
    """The path that one pass takes.

    Attributes:
        path: The name of one of `kerasrnn.recurrence.PATHS`; "keras" for a layer of Keras's,
            "other" for one with a loop of its own; "not run" in a use in which the model does not
            call the layer; `None` where a path was asked for that cannot be taken.
        passed_over: Of each path that comes before it, by name, the one reason why it refused.
    """

    path: str | None
    passed_over: dict


class Explanation(dict):
    """For each recurrent layer by its path a dictionary: its `Choice` in "fit", in "predict" and,
    under Keras's TensorFlow backend, in "export". Printed, it is a table, with what was passed over
    and why below it.

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
    for path, what in _ELSEWHERE.items():
        if all(choice.path == path for choice in choices.values()):
            return [what]
    # By path, in the order in which they are tried.
    uses = {path: {} for choice in choices.values() for path in choice.passed_over}
    for use, choice in choices.items():
        for path, reason in choice.passed_over.items():
            uses[path].setdefault(reason, []).append(use)
    lines = []
    for path, reasons in uses.items():
        for reason, listed in reasons.items():
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
            and `x` is missing; or it cannot be traced.

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
        # A symbolic call runs nothing and leaves states as they are.
        model_or_layer(_specs(x))
    uses = {use: choices(model_or_layer, x, use) for use in _USES}
    rows = dict.fromkeys(path for chosen in uses.values() for path in chosen)
    if not rows:
        raise ValueError(
            "`model_or_layer` must have a recurrent layer. "
            f"Received: model_or_layer={model_or_layer.name}, without any"
        )
    not_run = Choice("not run", {})
    return Explanation(
        {row: {use: chosen.get(row, not_run) for use, chosen in uses.items()} for row in rows}
    )


def choices(model_or_layer, x, use):
    """The `Choice` of each recurrent layer by its path, in one use.

    Args:
        model_or_layer, x: As for `explain`, and built.
        use: "fit", "predict" or "export".

    Raises:
        ValueError: `model_or_layer` cannot be traced on x.
    """
    elsewhere, names = _paths(model_or_layer)
    chosen = _traced(model_or_layer, x, names, *_USES[use])
    called = {_layer_of(path) for path in chosen}
    for path in names.values():
        if path not in called:
            chosen[path] = Choice("not run", {})
    chosen |= elsewhere
    # In the order of the model; a second call follows the first.
    order = [path for path, _, _ in recurrent_paths(model_or_layer)]

    def place(path):
        layer = _layer_of(path)
        places = [k for k, one in enumerate(order) if f"{layer}/".startswith(f"{one}/")]
        return places[0] if places else len(order)

    return dict(sorted(chosen.items(), key=lambda item: place(item[0])))


def note_if_explaining(cell, choice):
    """Takes note of the choice for one pass of a cell where an explanation is under way; returns
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
    """The `Choice` of each recurrent layer that does not run in this package's loops, by its path;
    and the paths of those that do, or of their cells where there are several, by the ids of the
    cells. A layer that is in several places has the first."""
    elsewhere, names = {}, {}
    for path, layer, _ in recurrent_paths(model_or_layer):
        home = layer.inner_loop.__module__.partition(".")[0]
        if home != __package__.partition(".")[0]:
            elsewhere[path] = Choice("keras" if home == "keras" else "other", {})
            continue
        stacked = type(layer.cell) is keras.layers.StackedRNNCells
        for cell in layer.cell.cells if stacked else [layer.cell]:
            names.setdefault(id(cell), f"{path}/{cell.name}" if stacked else path)
    return elsewhere, names


def _layer_of(path):
    """The path of a layer without the number of the call."""
    return path.partition("#")[0]


def _specs(x):
    """The shapes and dtypes of x."""
    for part in tree.flatten(x):
        if part is not None and not (hasattr(part, "shape") and hasattr(part, "dtype")):
            raise ValueError(
                "`x` must be an array, (batch, ...), or a structure of them; np.array makes one of "
                f"lists of numbers. Received: x={reprlib.repr(x)}"
            )
    return tree.map_structure(_spec, x)


def _spec(v):
    if v is None:
        return None
    return keras.KerasTensor(tuple(v.shape), keras.backend.standardize_dtype(v.dtype))


def _symbolic_inputs(model_or_layer):
    """The inputs that a model or layer was built for."""
    if inputs := getattr(model_or_layer, "inputs", None):
        return inputs if len(inputs) > 1 else inputs[0]
    config = model_or_layer.get_build_config() if model_or_layer.built else None
    shapes = (config or {}).get("shapes_dict", {"": (config or {}).get("input_shape")})
    shape = next(iter(shapes.values()))
    # Of what several inputs, or a structure of them, are like, a shape says too little.
    if len(shapes) > 1 or not shape or not all(isinstance(n, int | None) for n in shape):
        raise ValueError(
            "`x` must show the shape of the input of a model or layer that does not know it: pass "
            f"a batch. Received: x=None for {model_or_layer.name}"
        )
    return keras.KerasTensor(shape, dtype=model_or_layer.compute_dtype)


class _Call(keras.Operation):
    """A function as an operation, which Keras traces on the shapes of tensors by its backend."""

    def __init__(self, function):
        super().__init__()
        self.call = function


def _traced(model_or_layer, x, names, stage, training):
    """The choice for each call of each layer, by its path; of a cell that no layer of the model is
    known to have by the cell's name."""
    specs = _specs(_symbolic_inputs(model_or_layer) if x is None else x)
    options = {"training": training}
    if "training" not in inspect.signature(model_or_layer.call).parameters:
        options = {}
    if stage == "step" and getattr(model_or_layer, "run_eagerly", False):
        stage = "eager"
    with _noting() as noted, stages.as_if(stage), warnings.catch_warnings():
        # A list of inputs serves a model that would like a dictionary.
        warnings.filterwarnings("ignore", "The structure of `inputs`")
        # Losses that layers add, states and statistics do not outlive the scope.
        with keras.StatelessScope():

            def call(v):
                # What is unknown of a shape is tried twice, as two numbers, under PyTorch.
                noted.clear()
                return model_or_layer(v, **options)

            try:
                _Call(call)(specs)
            except Exception as error:
                raise ValueError(
                    f"{model_or_layer.name} cannot be traced on `x`, which is how its paths are "
                    f"found; its recurrent layers can be explained one by one. Received: {specs}"
                ) from error
    chosen = {}
    for cell, choice in noted:
        path = names.get(id(cell)) or getattr(cell, "name", type(cell).__name__)
        calls = sum(_layer_of(key) == path for key in chosen)
        chosen[f"{path}#{calls + 1}" if calls else path] = choice
    return chosen
