"""Models of Keras's recurrent layers as models of this package's, and back.

`keras.models.clone_model` makes the new model; what is here says what becomes of each layer.
"""

import inspect
import warnings

import keras
from keras import tree

from kerasrnn import cells
from kerasrnn.arguments import RESOLVERS, own_parameters
from kerasrnn.cells.configured import parameters
from kerasrnn.inside import layers_in
from kerasrnn.layers.bidirectional import Bidirectional
from kerasrnn.layers.checks import dense_with_mask
from kerasrnn.layers.connections import DenselyConnected, Highway, Normalized, Residual
from kerasrnn.layers.convert.copies import bring_over, check_compiled, copied
from kerasrnn.layers.group import Connected
from kerasrnn.layers.named import GRU, LSTM, SimpleRNN
from kerasrnn.layers.rnn import RNN
from kerasrnn.layers.stack import RNNStack

# The layers and cells of Keras, and their namesakes.
_COUNTERPARTS = {
    keras.layers.SimpleRNN: SimpleRNN,
    keras.layers.LSTM: LSTM,
    keras.layers.GRU: GRU,
    keras.layers.RNN: RNN,
    keras.layers.Bidirectional: Bidirectional,
    keras.layers.SimpleRNNCell: cells.SimpleRNNCell,
    keras.layers.LSTMCell: cells.LSTMCell,
    keras.layers.GRUCell: cells.GRUCell,
}
_KERAS_S = {ours: theirs for theirs, ours in _COUNTERPARTS.items()}
_BIDIRECTIONAL = (keras.layers.Bidirectional, Bidirectional)
# Of Keras's layers that hold others, and of this package's, the argument that takes them.
_HOLDERS = {keras.layers.TimeDistributed: "layer", keras.layers.StackedRNNCells: "cells"}
_CONNECTIONS = {
    Residual: "layer",
    Highway: "layer",
    Normalized: "layer",
    DenselyConnected: "layers",
}
# The arguments, beside those that they name, of Keras's layers and cells.
_FURTHER = {
    *own_parameters(keras.layers.Layer),
    *own_parameters(keras.layers.RNN),
    *("name", "dtype", "trainable", "zero_output_for_mask"),
}


def from_keras(model):
    """A model of this package's layers with the weights of one of Keras's.

    `SimpleRNN`, `LSTM`, `GRU`, `RNN`, `Bidirectional` and the cells `SimpleRNNCell`, `LSTMCell` and
    `GRUCell` become their namesakes, wherever they stand: shared, in models inside, in a
    TimeDistributed, in StackedRNNCells, in this package's connections. All other layers are copied,
    ConvLSTM and subclasses of those named among them; a `Lambda`, which holds nothing, stays the
    same. Names, configurations and the order of the weights are the model's.

    The copy is made as `keras.models.clone_model` makes it, with its own weights, vocabularies and
    kept states of stateful layers. It is compiled as `model` is, if that is: with the same kind of
    optimizer, at the start of its count and its moments, and the same losses and metrics.

    Outputs are those of `model`, also where Keras computes on padding: where its layer loses a mask
    beside an `initial_state` the new one is called with `mask=False`, as a functional model shows;
    take that out to have the mask heeded. A mask that a `Sequential`, or a model inside, hands on
    from a layer with `go_backwards=True, return_sequences=True` stands in the order of the outputs,
    where Keras's layer leaves it in that of the inputs.

    Args:
        model: A Sequential or functional `keras.Model`.

    Returns:
        A new model, a Sequential or a functional one as `model` is.

    Raises:
        TypeError: `model` is no model.
        ValueError: `model`, or a model in it that has such layers, is a subclass that says in its
            own code how it is called; a layer of the user's own has such a layer inside; or the
            model was compiled with, or a layer made with, functions that Keras cannot make again
            from their name.

    Example:

    >>> theirs = keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(8)])
    >>> ours = kerasrnn.layers.from_keras(theirs)
    >>> type(ours.layers[0]) is kerasrnn.layers.LSTM
    True
    >>> x = np.ones((2, 5, 3), "float32")
    >>> bool(np.allclose(ours(x), theirs(x), atol=1e-6))
    True
    """
    return _converted(model, _ToOurs())


def to_keras(model):
    """A model of Keras's own layers with the weights of one of this package's: the way back of
    `from_keras`, which says what is copied and how.

    Args:
        model: A Sequential or functional `keras.Model`, whose recurrent layers and cells are those
            named there, without what Keras does not have. An `RNNStack` of one direction without
            connections becomes a `keras.layers.RNN` of stacked cells.

    Returns:
        A new model, which loads without this package.

    Raises:
        TypeError: `model` is no model.
        ValueError: as `from_keras`; and, with the layer's name, for a layer, a cell, an option (as
            `zoneout`), an initializer or activation of this package that Keras does not have, and
            for a call with a `reset`.

    Example:

    >>> ours = keras.Sequential([keras.Input((None, 3)), kerasrnn.layers.GRU(8)])
    >>> type(kerasrnn.layers.to_keras(ours).layers[0]) is keras.layers.GRU
    True
    """
    return _converted(model, _ToKeras())


def _converted(model, conversion):
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: model={model!r}")
    new = conversion.model(model)
    bring_over(model, new)
    return new


class _Conversion:
    """One conversion of a model: what becomes of each layer, of one that stands at several places
    one.

    Attributes:
        old: For each new layer, by its id, the one whose place it takes.

    Class attributes:
        kinds: The classes that are replaced, each with what by.
        holders: The classes that stay and have what is inside replaced, each with the argument
            that takes it.
    """

    kinds = holders = None

    def __init__(self):
        self._made = {}
        self.old = {}

    def __call__(self, layer):
        """The layer, cell, model or operation that takes the place of one."""
        if id(layer) not in self._made:
            self._made[id(layer)] = new = self._make(layer)
            self.old[id(new)] = layer
        return self._made[id(layer)]

    def model(self, model):
        """The model that takes the place of one."""
        if not _shows_its_calls(model):
            _refuse_subclass(model)
        check_compiled(model)
        if isinstance(model, keras.Sequential):
            self._say_where_masks_turn(model)
            return keras.models.clone_model(model, clone_function=self)
        inputs = {
            id(layer.output): type(layer).from_config(layer.get_config()).output
            for layer in model.layers
            if isinstance(layer, keras.layers.InputLayer)
        }
        new = keras.models.clone_model(
            model,
            # Those that clone_model makes itself are neither sparse nor optional.
            input_tensors=tree.map_structure(lambda x: inputs[id(x)], model.input),
            clone_function=self,
            call_function=self.call,
        )
        if type(new) is not type(model):
            _refuse_subclass(model)
        return new

    def _say_where_masks_turn(self, model):
        """Warns of a mask that the old and the new layer hand on in different orders. A functional
        model names the mask of each call, which stays what it is."""
        for layer in model.layers[:-1] if model.built else []:
            turned = type(layer) in self.kinds and getattr(layer, "go_backwards", False)
            if turned and dense_with_mask(layer.output, None)[1] is not None:
                warnings.warn(
                    f"The mask behind {layer.name}, with go_backwards=True, is handed on in the "
                    "order of its outputs by this package's layer, in that of its inputs by "
                    "Keras's: what follows sees another one than in the model converted.",
                    stacklevel=5,
                )

    def call(self, layer, *args, **kwargs):
        """The outputs of a new layer for what the old one was called with."""
        return layer(*args, **kwargs)

    def arguments(self, layer):
        """Those of the constructor of the layer or cell that takes the place of one."""
        config = layer.get_config()
        # The functions and objects themselves, which need not be known to Keras by a name.
        return config | {name: getattr(layer, name) for name in config if _resolves(name)}

    def check_copied(self, layer):
        """Raises a `ValueError` if a layer cannot be copied as it is."""
        for part in layers_in(layer):
            if type(part) in self.kinds and isinstance(part, keras.layers.RNN):
                raise ValueError(
                    f"`model` must have its recurrent layers where they can be replaced: in models "
                    "that are Sequential or functional, in Bidirectional, TimeDistributed and this "
                    "package's connections. Replace it in the class, by the import line, and use "
                    "set_weights(model.get_weights()). "
                    f"Received: {part.name} ({type(part).__name__}) in {layer.name} "
                    f"({type(layer).__name__})"
                )

    def _make(self, layer):
        kind = type(layer)
        if isinstance(layer, keras.Model) and _shows_its_calls(layer):
            return self.model(layer)
        if kind in _BIDIRECTIONAL:
            return self._bidirectional(layer)
        if kind in self.kinds:
            arguments = self.arguments(layer)
            if "cell" in arguments:
                arguments["cell"] = self(layer.cell)
            return self.kinds[kind](**arguments)
        if kind in self.holders:
            name = self.holders[kind]
            return kind(**(layer.get_config() | {name: self._each(getattr(layer, name))}))
        if kind is keras.layers.Lambda:
            return layer
        if isinstance(layer, keras.layers.Layer):
            self.check_copied(layer)
        return copied(layer)

    def _each(self, held):
        return [self(one) for one in held] if isinstance(held, list | tuple) else self(held)

    def _bidirectional(self, layer):
        config = layer.get_config() | {
            "layer": self(layer.forward_layer),
            "backward_layer": self(layer.backward_layer),
        }
        return self.kinds.get(type(layer), type(layer))(**config)


class _ToOurs(_Conversion):
    kinds = _COUNTERPARTS
    holders = _HOLDERS | _CONNECTIONS

    def call(self, layer, *args, **kwargs):
        old = self.old.get(id(layer))
        if type(old) not in _COUNTERPARTS or _heeds_attached_masks(old):
            return layer(*args, **kwargs)
        named = inspect.signature(old.call).bind(*args, **kwargs).arguments
        if named.get("initial_state") is not None and named.get("mask") is None:
            named["mask"] = False
        return layer(named.pop("sequences"), **named)

    def arguments(self, layer):
        arguments = super().arguments(layer)
        # What Keras's layers do not write into their configuration.
        if hasattr(layer, "use_cudnn"):
            arguments["use_cudnn"] = layer.use_cudnn
        cell = getattr(layer, "cell", layer)
        if "units" in arguments and hasattr(cell, "implementation"):
            arguments["implementation"] = cell.implementation
        return arguments


class _ToKeras(_Conversion):
    kinds = _KERAS_S | {RNNStack: keras.layers.RNN}
    holders = _HOLDERS

    def call(self, layer, *args, **kwargs):
        old = self.old.get(id(layer))
        if not _heeds_attached_masks(old):
            return layer(*args, **kwargs)
        named = inspect.signature(old.call).bind(*args, **kwargs).arguments
        if named.pop("reset", None) is not None:
            _refuse_call(old, "reset", "which Keras's layers do not have")
        sequences = named.pop(next(iter(named)))
        if named.get("initial_state") is not None:
            if isinstance(old, RNNStack):
                _refuse_call(old, "initial_state", "of a stack, which Keras's has in another form")
            _, named["mask"] = dense_with_mask(sequences, named.get("mask"))
        elif named.get("mask") is False:
            _refuse_call(old, "mask=False", "which Keras has beside an `initial_state` alone")
        return layer(sequences, **named)

    def arguments(self, layer):
        arguments = super().arguments(layer)
        known = {*own_parameters(self.kinds[type(layer)]), *_FURTHER}
        if "recurrent_activation" in known:
            known.add("implementation")
        defaults = parameters(type(getattr(layer, "cell", layer)))
        for name, value in arguments.items():
            if name not in known and value != defaults[name].default:
                _refuse_option(layer, name, value)
            if _is_of_this_package(value):
                _refuse_option(layer, name, value)
        return {name: value for name, value in arguments.items() if name in known}

    def check_copied(self, layer):
        for part in layers_in(layer):
            if _is_of_this_package(part):
                raise ValueError(
                    "`model` must have layers and cells that Keras has, too, in models, "
                    "Bidirectional and TimeDistributed. "
                    f"Received: {part.name} ({type(part).__name__})"
                )

    def _make(self, layer):
        return self._stacked(layer) if type(layer) is RNNStack else super()._make(layer)

    def _stacked(self, stack):
        """One layer of stacked cells, which is what a stack without connections is."""
        for name in ("connection", "normalization", "bidirectional", "return_state"):
            if value := getattr(stack, name):
                _refuse_option(stack, name, value)
        names = ("name", "trainable", "return_sequences", "go_backwards", "stateful")
        return keras.layers.RNN(
            [self(layer.cell) for layer in stack.layers],
            dtype=stack.dtype_policy,
            **{name: getattr(stack, name) for name in names},
        )

    def _bidirectional(self, layer):
        if getattr(layer, "gated", False):
            _refuse_option(layer, "merge_mode", "gate")
        return super()._bidirectional(layer)


def _heeds_attached_masks(layer):
    """Whether a layer is a recurrent one that heeds a mask attached to its input beside an initial
    state, too. Keras fills one in only where a layer has one tensor argument."""
    inside = getattr(layer, "forward_layer", None)
    return any(isinstance(one, RNN | Bidirectional | Connected) for one in (layer, inside))


def _shows_its_calls(model):
    """Whether a model is Sequential or functional; one that calls its layers in its own code shows
    no inputs."""
    return isinstance(model, keras.Sequential) or hasattr(model, "inputs")


def _refuse_subclass(model):
    raise ValueError(
        "`model` must be Sequential or functional: a subclass says in its own code how its layers "
        "are called. Replace them there, by the import line, and bring the weights over by "
        "set_weights(model.get_weights()). "
        f"Received: {model.name} ({type(model).__name__})"
    )


def _refuse_call(layer, argument, why):
    raise ValueError(
        f"`model` must do without `{argument}`, {why}. Received: {layer.name} "
        f"({type(layer).__name__}), called with it"
    )


def _refuse_option(layer, name, value):
    raise ValueError(
        f"`model` must do without what Keras does not have. Received: {layer.name} "
        f"({type(layer).__name__}) with {name}={value!r}"
    )


def _resolves(name):
    return name.rpartition("_")[2] in RESOLVERS


def _is_of_this_package(value):
    return (getattr(value, "__module__", None) or "").startswith("kerasrnn.")
