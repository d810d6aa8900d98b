"""A model as a function of named tensors, as every format sees it."""

import collections
import contextlib
import inspect
import keyword
import re

import keras
import numpy as np
import tensorflow as tf
from keras import tree

# The seam of test_variables_become_constants.
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from kerasrnn import recurrence
from kerasrnn.cells.base import Cell
from kerasrnn.diagnostics.looking import shadowed
from kerasrnn.export.check import ExportError, check_finite
from kerasrnn.inside import layers_in, stateful_layers
from kerasrnn.layers import RNN

# What a file with one function calls it.
SIGNATURE = "serving_default"
# The difference to a model in float32 that is let through.
BOUND = 1e-5
# Those of what is served alone, some of which TensorFlow cannot save without its variables.
SAVE_OPTIONS = tf.saved_model.SaveOptions(experimental_custom_gradients=False)


def check_model(model):
    """Raises a `TypeError` unless `model` is one of Keras, a `ValueError` unless it is built and
    its weights are finite."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: model={model!r}")
    if not model.built:
        raise ValueError(
            "`model` must be built before it is exported: call it on a batch, or give it an "
            f"`Input`. Received: model={model.name}"
        )
    check_finite(model)


def check_input_names(model, names):
    """Raises a `ValueError` unless the names of a model's inputs can be those of a signature."""
    # TensorFlow changes other names in silence, or fails without naming them.
    written = collections.Counter(name.lower() for name in names)
    refused = [
        name
        for name in names
        if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name)
        or keyword.iskeyword(name)
        or name == "self"
        or written[name.lower()] > 1
    ]
    if refused:
        raise ValueError(
            "`model` must have inputs whose names the signature can bear, a letter and then "
            "letters, digits and underscores, no keyword or 'self', and different in lower case, "
            "too; rename them, as keras.Input(..., name='tokens'), or the keys of the dictionary "
            "that a model of your own class takes. "
            f"Received: {', '.join(map(repr, refused))} of {model.name}"
        )


def check_layer_names(model, keeps_variables=False):
    """Raises a `ValueError` unless TensorFlow can trace the layers of a model under their names,
    and, if the format keeps variables, write these under their paths."""
    layers = layers_in(model)
    refused = [
        layer.name
        for layer in layers
        # The other cells are not called as layers.
        if layer is not model and not isinstance(layer, Cell) and not _is_scope(layer.name)
    ]
    if keeps_variables:
        models = [layer.name for layer in layers if isinstance(layer, keras.Model)]
        paths = [weight.path for weight in model.weights]
        refused += [path for path in models + paths if not (_is_scope(path) and _is_root(path))]
    if refused:
        raise ValueError(
            "`model` must have layers, and weights, whose names TensorFlow can trace: letters, "
            "digits, and after the first one underscores and dashes; build it with other names, "
            "and give it the weights by set_weights(model.get_weights()). "
            f"Received: {', '.join(map(repr, dict.fromkeys(refused)))} in {model.name}"
        )


def _is_scope(name):
    return re.fullmatch(r"[A-Za-z0-9_.\\/>-]*", name) is not None


def _is_root(name):
    return re.match(r"[_\\/>-]", name) is None


def unique(name, taken):
    """`name` as a signature can bear it, and with a number behind where that is `taken`, a set of
    lower-case names to which it is added."""
    name = re.sub("[^A-Za-z0-9_]", "_", name)
    name = name if re.match("[A-Za-z]", name) else f"y_{name}"
    number, numbered = 0, name
    while numbered.lower() in taken:
        number += 1
        numbered = f"{name}_{number}"
    taken.add(numbered.lower())
    return numbered


def as_tensors(arrays):
    """A dictionary of arrays as one of tensors."""
    return {name: tf.constant(value) for name, value in arrays.items()}


def as_arrays(tensors):
    """A dictionary of tensors as one of arrays."""
    return {name: np.asarray(value) for name, value in tensors.items()}


def input_structure(model):
    """The inputs of a functional or Sequential model as it takes them."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


class Interface:
    """A functional or Sequential model, its inputs and outputs by name.

    Attributes:
        model: The model.
        inputs: Its `keras.KerasTensor`s by the names of its `Input`s.
        outputs: The names of its outputs: the keys of a dictionary, else the names of the layers
            they come from, with a number behind where several come from one.

    Args:
        model: A Keras model.
        format: "saved_model", "litert" or "onnx".
        in_steps: Whether it is to run one time step at a time.

    Raises:
        TypeError, ValueError: it is none, not built, no functional or Sequential model, or has
            inputs whose names or dtypes the format cannot bear.
    """

    def __init__(self, model, format, in_steps=False):
        check_model(model)
        check_input_names(model, [part.name for part in getattr(model, "inputs", None) or []])
        check_layer_names(model)
        named = f"{format}, step by step" if in_steps else format
        if not getattr(model, "inputs", None):
            raise ValueError(
                f"`model` must be a functional or Sequential model for the format {named}; one of "
                "your own class goes into one as a layer: keras.Model(x, model(x)) with x = "
                f"keras.Input(...). Received: {model.name}, a {type(model).__name__}"
            )
        self.model = model
        self.inputs = {part.name: part for part in model.inputs}
        for name, part in self.inputs.items():
            if part.dtype == "string":
                raise ValueError(
                    f"`model` must take numbers for the format {named}, which carries no strings; "
                    "export_saved_model does, and the layers behind the TextVectorization are a "
                    f"model without it. Received: the input {name!r} of strings"
                )
        refused = {"float16", "bfloat16"}
        if format != "saved_model":
            # Of their recurrent nodes and of the products runtimes have those of float32 alone.
            refused.add("float64")
        for layer in layers_in(model):
            if layer.compute_dtype in refused:
                raise ValueError(
                    f"`model` must compute in float32 for the format {named}: build it under "
                    "keras.config.set_dtype_policy('float32') and give it the weights by "
                    f"set_weights(model.get_weights()). Received: {layer.name}, which computes in "
                    f"{layer.compute_dtype}"
                )
        self.outputs = self._output_names()

    def _output_names(self):
        is_sequential = isinstance(self.model, keras.Sequential)
        output = self.model.outputs if is_sequential else self.model.output
        if isinstance(output, dict) and not any(map(tree.is_nested, output.values())):
            names = list(tree.flatten({key: key for key in output}))
        else:
            names = keras.Model(self.model.inputs, tree.flatten(output)).output_names
        taken = {name.lower() for name in self.inputs}
        return [unique(name, taken) for name in names]

    def call(self, tensors):
        """The outputs by name, of inputs by name."""
        packed = tree.map_structure(lambda part: tensors[part.name], input_structure(self.model))
        outputs = tree.flatten(self.model(packed, training=False))
        return dict(zip(self.outputs, outputs, strict=True))

    def of_arrays(self, arrays):
        """The outputs by name as arrays, of inputs by name as arrays."""
        return as_arrays(self.call(as_tensors(arrays)))

    def specs(self, batch=None, length=None):
        """The inputs as `tf.TensorSpec`s by name, with the sizes named where the model leaves them
        open.

        Raises:
            ValueError: the model has another one.
        """
        shapes = {name: list(part.shape) for name, part in self.inputs.items()}
        for argument, size, axis in (("batch", batch, 0), ("length", length, 1)):
            if size is None:
                continue
            # Of a fixed size, the second axis of a matrix may be that of features.
            fixed = {
                name: shape[axis] is not None and shape[axis] != size
                for name, shape in shapes.items()
                if axis < len(shape)
            }
            refused = [
                name
                for name, is_other in fixed.items()
                if is_other and (axis == 0 or len(shapes[name]) > 2 or all(fixed.values()))
            ]
            if refused:
                name = refused[0]
                raise ValueError(
                    f"`{argument}` must be that of the model where it has one. Received: "
                    f"{argument}={size}, and the input {name!r} of the shape {tuple(shapes[name])}"
                )
            for name in fixed:
                if shapes[name][axis] is None:
                    shapes[name][axis] = size
        return {
            name: tf.TensorSpec(shape, self.inputs[name].dtype, name)
            for name, shape in shapes.items()
        }

    def specs_of_batch(self, batch=None):
        """As `specs`, of a model whose batch size may be another; `None` for any."""
        return {
            name: tf.TensorSpec([batch, *part.shape[1:]], part.dtype, name)
            for name, part in self.inputs.items()
        }


@contextlib.contextmanager
def convertible(model):
    """Has Keras's own recurrent layers in a model run through `kerasrnn.recurrence`, inside, and
    its TimeDistributed layers as `over_rows` has it."""
    # The seam of test_recurrent_layers_of_keras_run_an_inner_loop.
    stock = [
        (layer, _inner_loop(layer))
        for layer in layers_in(model)
        if isinstance(layer, keras.layers.RNN) and not isinstance(layer, RNN)
    ]
    with shadowed("inner_loop", stock), over_rows(model):
        yield


@contextlib.contextmanager
def over_rows(model):
    """Has the TimeDistributed layers of a model take all steps as rows of one batch, inside: what
    Keras has for an unknown number of steps runs no loop, and so no recurrent layer.

    Raises:
        ValueError: a stateful layer in one, whose states would go on from step to step, of an
            unknown number of steps; or a layer of the model that TensorFlow cannot trace.
    """
    distributed = [
        (layer, _over_rows(layer))
        for layer in layers_in(model)
        if isinstance(layer, keras.layers.TimeDistributed)
    ]
    try:
        with shadowed("call", distributed):
            yield
    except tf.errors.OperatorNotAllowedInGraphError as error:
        # Keras says the class alone.
        named = [
            f"{layer.name} ({type(layer).__name__})"
            for layer in layers_in(model)
            if f"{type(layer).__name__}.call()" in str(error)
        ]
        raise ValueError(
            "`model` must have layers that TensorFlow can trace, in which no `if` of Python asks "
            "for values: put such a layer before the model, or, in the place of a "
            "CategoryEncoding, keras.ops.one_hot or multi_hot into it. "
            f"Received: {', '.join(named) or model.name}"
        ) from error


def _over_rows(layer):
    def call(original, inputs, training=None, mask=None):
        if stateful := stateful_layers(layer):
            if inputs.shape[1] is not None:
                return original(inputs, training=training, mask=mask)
            raise ValueError(
                "`model` must fix the number of steps of a TimeDistributed with a stateful layer, "
                f"keras.Input((steps, ...)). Received: {layer.name}, with {stateful[0].name}"
            )
        # As Keras has it: what has no such argument is not told.
        taken = inspect.signature(layer.layer.call).parameters
        options = {"training": training} if "training" in taken else {}
        if mask is not None and "mask" in taken:
            options["mask"] = _as_rows(mask)
        y = layer.layer.call(_as_rows(inputs), **options)
        steps = tf.shape(inputs)[:2]
        of_row = y.shape[1:]
        y = tf.reshape(y, tf.concat([steps, tf.shape(y)[1:] if None in of_row else of_row], 0))
        y.set_shape([*inputs.shape[:2], *of_row])
        return y

    return call


def _as_rows(x):
    """All steps of x, (batch, time, ...), as rows of one batch."""
    if None not in x.shape[2:]:
        return tf.reshape(x, [-1, *x.shape[2:]])
    rows = tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], 0))
    rows.set_shape([None, *x.shape[2:]])
    return rows


def _inner_loop(layer):
    def inner_loop(original, sequences, initial_state, mask, training=False):
        return recurrence.run(
            layer.cell,
            sequences,
            initial_state,
            mask=tree.flatten(mask)[0] if mask is not None else None,
            training=training,
            go_backwards=layer.go_backwards,
            unroll=layer.unroll,
            zero_output_for_mask=layer.zero_output_for_mask,
            return_sequences=layer.return_sequences,
        )

    return inner_loop


def frozen(function, specs):
    """A function of named tensors as one without variables.

    Args:
        function: `function(tensors)` gives a dictionary of tensors for one.
        specs: The `tf.TensorSpec`s of its arguments, by name.

    Returns:
        A `tf.types.experimental.ConcreteFunction` whose `inputs` have the names of `specs`, and the
        names of its outputs, in their order.

    Raises:
        ExportError: it keeps what cannot become a constant, as a table.
    """
    names = []

    # As a list, since TensorFlow puts a dictionary into the order of its keys.
    def in_order(**tensors):
        outputs = function(tensors)
        names[:] = outputs
        return list(outputs.values())

    concrete = tf.function(in_order, autograph=False).get_concrete_function(**specs)
    try:
        constant = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    except Exception as error:
        raise ExportError(
            "TensorFlow must be able to make the model's variables constants; nothing was written. "
            f"Received: {type(error).__name__}: {error}"
        ) from error
    if kept := [tensor.op.name for tensor in constant.inputs if tensor.op.name not in specs]:
        raise ExportError(
            "The model must keep nothing but variables, so no table, as an IntegerLookup has: such "
            "a layer belongs before the model, or into export_saved_model; nothing was written. "
            f"Received: {', '.join(kept)}"
        )
    return constant, names


def as_signature(function, names):
    """What `frozen` returns as a function of keywords that returns a dictionary."""
    order = [tensor.name.partition(":")[0] for tensor in function.inputs]
    specs = {
        name: tf.TensorSpec(tensor.shape, tensor.dtype, name)
        for name, tensor in zip(order, function.inputs, strict=True)
    }

    def call(**tensors):
        outputs = function(*(tensors[name] for name in order))
        return dict(zip(names, tree.flatten(outputs), strict=True))

    return tf.function(call, autograph=False).get_concrete_function(**specs)


def as_module(functions):
    """A `tf.Module` of functions without variables, each under its name.

    Args:
        functions: For each by name a function from named tensors to named tensors, and the
            `tf.TensorSpec`s of what it takes, by name.
    """
    module = tf.Module()
    for name, (function, specs) in functions.items():
        setattr(module, name, as_signature(*frozen(function, specs)))
    return module


def check_stateless(model):
    """Raises a `ValueError` for a model with stateful layers."""
    names = [layer.name for layer in stateful_layers(model)]
    if names:
        raise ValueError(
            "`model` must not be stateful: the file would forget its states in silence. "
            "export_streaming gives them a way in and out step by step, export_saved_model keeps "
            "them; for whole sequences build the model without `stateful`, with the states as "
            "`Input`s to `initial_state` and as outputs by `return_state=True`, and give it the "
            "weights by set_weights(model.get_weights()). "
            f"Received: {model.name}, with the stateful layers {', '.join(names)}"
        )
