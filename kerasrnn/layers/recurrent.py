"""Recurrent layers: a cell, run over time by `kerasrnn.recurrence`."""

import os
import re
from operator import attrgetter
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops, tree

from kerasrnn import cells, recurrence
from kerasrnn.arguments import boolean, check_spelling, one_of, own_parameters
from kerasrnn.cells.base import Cell
from kerasrnn.cells.configured import parameters

_STATES = "states.npz"


class Marks(NamedTuple):
    """What is said about each step, in the place of the mask where there is more than a mask."""

    mask: Any
    reset: Any


@keras.saving.register_keras_serializable("kerasrnn")
class RNN(keras.layers.RNN):
    """Runs a cell over a sequence; takes the place of `keras.layers.RNN`.

    Args:
        cell: A cell of this package or of Keras, a list of cells, or the name of a registered cell
            (a key of `kerasrnn.cells.CELLS`), whose arguments then follow as keywords.
        return_sequences: Whether to return the output of every step or of the last one only.
        return_state: Whether to return the final states too.
        go_backwards: Whether to run from the last step to the first; the outputs come in that
            order too.
        stateful: Whether a batch starts from the final states of the one before. It then keeps to
            the batch size it was built for: a last batch of another size, in `fit` or `predict`
            too, is an error. An initial state that the cell has learned is what the first batch
            starts from; it is trained further only by a `reset`, which goes back to it, since no
            gradient flows into the batch before.
        unroll: Whether to write one copy of the step per time step into the graph; their number
            has to be known.
        zero_output_for_mask: Whether a masked step gives zeros; otherwise it repeats the output of
            the step before, and gives zeros where nothing came before.

    Call arguments: `sequences` (batch, time, features), `initial_state`, `mask` (batch, time) or
    (1, time) for all rows, `False` at the steps that leave the states as they are, `training`, as
    in Keras; and `reset` (batch, time), boolean: `True` where an episode begins, so that before
    this step the state is set back to the cell's initial one, whatever was passed. Backwards the
    state is set back at the same border between two steps. Stricter than Keras: an initial state of
    shape (1, units) for more rows than one, options that are no boolean, such as
    `return_sequences=None`, and `dropout=1.0` are refused.

    Returns:
        (batch, units), or (batch, time, units) with `return_sequences`; then the final states with
        `return_state`. Those of a linear recurrence are returned, taken and, under a mixed policy,
        kept in float32 where all else is in half precision; in a list of cells they are not.

    Raises:
        ValueError: `cell` is no cell, an option is unknown or not a boolean, or a call argument is
            not of its shape: `sequences` (one time step at least, with `unroll` a known number of
            them), `mask`, `reset` (which has to be boolean, too), or a state, (batch, units), in
            `initial_state`.
        ValueError, tf.errors.InvalidArgumentError: a stateful layer gets a batch of another size;
            the latter where only the running graph can see it.

    Example:

    >>> layer = kerasrnn.layers.RNN("gru", units=8, return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 8])
    """

    def __init__(
        self,
        cell,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        zero_output_for_mask=False,
        **kwargs,
    ):
        if isinstance(cell, str):
            cell_class = cells.get(cell)
            names = [*parameters(cell_class), *cell_class.lacks]
            check_spelling(type(self).__name__, kwargs, [*names, *own_parameters(RNN)])
            own = {name: kwargs.pop(name) for name in names if name in kwargs}
            if "units" not in own:
                raise ValueError(
                    f"A cell given by name needs its size as a keyword, RNN({cell!r}, units=...); "
                    "what stands second is `return_sequences`. "
                    f"Received: cell={cell!r}, return_sequences={return_sequences!r}"
                )
            cell = cell_class(
                **own,
                dtype=kwargs.get("dtype"),
                trainable=kwargs.get("trainable", True),
                name=f"{cell}_cell",
            )
        else:
            _check_cell(cell, kwargs)
        options = {
            "return_sequences": return_sequences,
            "return_state": return_state,
            "go_backwards": go_backwards,
            "stateful": stateful,
            "unroll": unroll,
            "zero_output_for_mask": zero_output_for_mask,
        }
        options = {name: boolean(name, value) for name, value in options.items()}
        super().__init__(cell, **options, **kwargs)
        self.supports_masking = True
        if self._linear:
            # Which would round the states that come in, and those a stateful layer keeps.
            self.autocast = False

    @property
    def _linear(self):
        return isinstance(self.cell, Cell) and self.cell.linear

    def build(self, sequences_shape, initial_state_shape=None):
        _check_shape(sequences_shape, self.unroll)
        if initial_state_shape is not None:
            self._check_states(nested_shapes(initial_state_shape), sequences_shape[0])
        super().build(sequences_shape, initial_state_shape)

    def call(self, sequences, initial_state=None, mask=None, training=False, reset=None):
        if isinstance(mask, Marks):
            mask, reset = mask
        _check_shape(sequences.shape, self.unroll)
        if initial_state is not None:
            shapes = [getattr(state, "shape", ()) for state in tree.flatten(initial_state)]
            self._check_states(shapes, sequences.shape[0])
        if mask is not None:
            mask = fitted_mask(mask, sequences)
        if reset is not None:
            mask = Marks(mask, checked_reset(reset, sequences))
        if self.stateful:
            sequences = self._of_the_batch_size(sequences)
        call = self._call_linear if self._linear else super().call
        return call(sequences, initial_state=initial_state, mask=mask, training=training)

    def _call_linear(self, sequences, initial_state, mask, training):
        """Keras's `call`, but for its casts of the states."""
        sequences = ops.cast(sequences, self.compute_dtype)
        if initial_state is None:
            batch = ops.shape(sequences)[0]
            initial_state = self.states if self.stateful else self.get_initial_state(batch)
        states = [ops.convert_to_tensor(state) for state in tree.flatten(initial_state)]
        last, outputs, states = self.inner_loop(sequences, states, mask, training=training)
        if self.stateful:
            for kept, state in zip(self.states, states, strict=True):
                kept.assign(state)
        y = ops.cast(outputs if self.return_sequences else last, self.compute_dtype)
        return (y, *states) if self.return_state else y

    def compute_output_spec(self, *args, **kwargs):
        spec = super().compute_output_spec(*args, **kwargs)
        if not (self._linear and self.return_state):
            return spec
        y, *states = spec
        return y, *(keras.KerasTensor(state.shape, self.cell.state_dtype) for state in states)

    def _check_states(self, shapes, batch):
        sizes = tree.flatten(self.state_size)
        ok = len(shapes) == len(sizes) and all(
            len(shape) == 2
            and (None in (shape[0], batch) or shape[0] == batch)
            and shape[1] in (None, size)
            for shape, size in zip(shapes, sizes, strict=True)
        )
        if not ok:
            batch = "batch" if batch is None else batch
            rule = ", ".join(f"({batch}, {size})" for size in sizes)
            raise ValueError(
                f"`initial_state` of {self.name} must hold a tensor for each of its states, of the "
                f"shapes {rule}. Received: the shapes {', '.join(map(str, map(tuple, shapes)))}"
            )

    def _of_the_batch_size(self, sequences):
        size = tree.flatten(self.states)[0].shape[0]
        if sequences.shape[0] is None:
            # Not an assertion, which XLA leaves out. TensorFlow's message gives the name of the op.
            rule = (
                "a_stateful_layer_keeps_to_the_batch_size_it_was_built_for/"
                "give_fit_and_predict_that_batch_size_and_data_of_a_multiple_of_it"
            )
            return tf.ensure_shape(sequences, [size, *sequences.shape[1:]], name=rule)
        if sequences.shape[0] != size:
            raise ValueError(
                f"A stateful layer keeps to the batch size it was built for, {size}: give `fit` "
                f"and `predict` that batch_size, and data of a multiple of it. Layer: {self.name}. "
                f"Received: sequences.shape={tuple(sequences.shape)}"
            )
        return sequences

    def reset_state(self, rows=None):
        """Sets the states of a stateful layer back to their initial values.

        Args:
            rows: Which samples of the batch, as indices or as a boolean per sample; all by default.

        Raises:
            ValueError: `rows` names a sample that the batch does not have, or the layer has no
                states.
        """
        if self.states is None:
            if rows is None:
                return
            raise ValueError(
                "`rows` needs a layer with states: stateful=True, and built. "
                f"Received: rows={rows!r} for layer {self.name}"
            )
        states = tree.flatten(self.states)
        size = states[0].shape[0]
        chosen = np.ones(size, bool) if rows is None else _chosen(rows, size)
        for state, initial in zip(states, tree.flatten(self.get_initial_state(size)), strict=True):
            of_rows = chosen.reshape(-1, *[1] * (len(state.shape) - 1))
            state.assign(ops.where(of_rows, initial, state))

    def save_assets(self, dir_path):
        # Not among the variables: a file of weights serves layers of any batch size, and Keras's.
        if self.states is not None:
            # What holds the values of every dtype, and NumPy knows.
            values = [ops.cast(state, "float64") for state in tree.flatten(self.states)]
            np.savez(os.path.join(dir_path, _STATES), *map(ops.convert_to_numpy, values))

    def load_assets(self, dir_path):
        # Keras gives no folder where the file holds assets of other layers only.
        if dir_path is None or self.states is None:
            return
        path = os.path.join(dir_path, _STATES)
        if not os.path.exists(path):
            return
        with np.load(path) as file:
            values = list(file.values())
        states = tree.flatten(self.states)
        stored, own = ([tuple(v.shape) for v in vs] for vs in (values, states))
        if stored != own:
            raise ValueError(
                "A stateful layer takes stored states of its own shapes, the batch size included; "
                f"a file of weights alone (save_weights) serves any. Layer: {self.name}, with "
                f"states of the shapes {own}. Received: stored states of the shapes {stored}"
            )
        for state, value in zip(states, values, strict=True):
            state.assign(value)

    def inner_loop(self, sequences, initial_state, mask, training=False):
        mask, reset = mask if isinstance(mask, Marks) else (mask, None)
        return recurrence.run(
            self.cell,
            sequences,
            initial_state,
            mask=tree.flatten(mask)[0] if mask is not None else None,
            reset=reset,
            training=training,
            go_backwards=self.go_backwards,
            unroll=self.unroll,
            zero_output_for_mask=self.zero_output_for_mask,
            return_sequences=self.return_sequences,
        )


def _check_cell(cell, kwargs):
    """Checks a `cell` that is given as such, with the keywords beside it."""
    listed = list(cell) if isinstance(cell, list | tuple) else [cell]
    for one in listed:
        if isinstance(one, str):
            raise ValueError(
                "A list must hold cells, not names; RNNStack stacks layers of a cell by its name. "
                f"Received: cell={cell}"
            )
        if isinstance(one, type):
            raise ValueError(
                f"`cell` must be a cell and not its class: make one, as {one.__name__}(8). "
                f"Received: cell={cell!r}"
            )
    if not listed or isinstance(cell, keras.layers.RNN):
        raise ValueError(
            "`cell` must be a cell, a list of one or more, or the name of a registered one; a "
            f"layer runs by itself. Received: cell={cell!r}"
        )
    for name, value in kwargs.items():
        if name in parameters(type(cell) if isinstance(cell, Cell) else Cell):
            kinds = " and ".join(dict.fromkeys(type(one).__name__ for one in listed))
            raise ValueError(
                f"`{name}` is the cell's: give it to {kinds}, or name a registered "
                f"cell instead. Received: {name}={value!r}"
            )
    check_spelling("RNN", kwargs, own_parameters(RNN))


def _check_shape(shape, unroll):
    if len(shape) == 2:
        raise ValueError(
            "`sequences` must have rank 3, (batch, time, features). Where the two axes are (batch, "
            "time), one number per step takes x[..., None], and tokens an Embedding before; where "
            "they are (batch, features), one step takes x[:, None]. "
            f"Received: sequences.shape={tuple(shape)}"
        )
    if len(shape) != 3:
        raise ValueError(
            "`sequences` must have rank 3, (batch, time, features). "
            f"Received: sequences.shape={tuple(shape)}"
        )
    if shape[1] == 0:
        raise ValueError(
            "`sequences` must have at least one time step. "
            f"Received: sequences.shape={tuple(shape)}"
        )
    if unroll and shape[1] is None:
        raise ValueError(
            "unroll=True needs to know the number of time steps, for each of which it writes a "
            "step into the graph: name it, as in keras.Input((10, 3)), or leave `unroll`. "
            f"Received: sequences.shape={tuple(shape)}"
        )


def nested_shapes(nested):
    """The shapes in a structure of them."""
    if all(size is None or isinstance(size, int) for size in nested):
        return [tuple(nested)]
    return [shape for part in nested for shape in nested_shapes(part)]


def fitted_mask(mask, sequences):
    """The mask, in one of the forms that Keras takes, as (batch, time[, 1]) or an error."""
    mask = tree.flatten(mask)[0]
    shape, expected = tuple(getattr(mask, "shape", ())), tuple(sequences.shape[:2])
    one_for_all = shape[:1] == (1,) != expected[:1]
    pairs = zip(shape[one_for_all:2], expected[one_for_all:], strict=False)
    if (
        len(shape) not in (2, 3)
        or shape[2:] not in ((), (1,), (None,))
        or any(None not in pair and pair[0] != pair[1] for pair in pairs)
    ):
        raise ValueError(
            f"`mask` must have the shape (batch, time) of `sequences`, here {expected}. "
            f"Received: mask.shape={shape}"
        )
    return tf.repeat(mask, tf.shape(sequences)[0], axis=0) if one_for_all else mask


def checked_reset(reset, sequences):
    """`reset` as a tensor, or an error if it is not that of `sequences`."""
    reset = ops.convert_to_tensor(reset)
    dtype = keras.backend.standardize_dtype(reset.dtype)
    if dtype != "bool":
        raise ValueError(
            f"`reset` must be boolean, True where an episode begins. Received: reset.dtype={dtype}"
        )
    shape, expected = tuple(reset.shape), tuple(sequences.shape[:2])
    pairs = zip(shape, expected, strict=False)
    if len(shape) != 2 or any(None not in pair and pair[0] != pair[1] for pair in pairs):
        raise ValueError(
            f"`reset` must have the shape (batch, time) of `sequences`, here {expected}. "
            f"Received: reset.shape={shape}"
        )
    return reset


def _chosen(rows, size):
    """Which of `size` samples `rows` names, a boolean for each."""
    # NumPy takes an empty list for floats.
    named = np.asarray(rows) if np.size(rows) else np.zeros(0, int)
    indices = named.dtype.kind in "iu" and named.ndim < 2 and np.isin(named, range(size)).all()
    if not indices and (named.dtype, named.shape) != (bool, (size,)):
        raise ValueError(
            f"`rows` must index the {size} samples of the batch, from 0 to {size - 1}, or be a "
            f"boolean for each. Received: rows={rows!r}"
        )
    chosen = np.zeros(size, bool)
    chosen[named] = True
    return chosen


# An argument, or several, in a docstring.
_ENTRY = re.compile(r"^ {8}(\w+(?:, \w+)*): (.*(?:\n {12}.*)*)", re.M)


def _further_arguments(layer):
    """What a layer's docstring says of all that its signature and Keras's docstrings leave out: of
    the cell's arguments what the cell's own docstrings do."""
    names = parameters(layer.cell_class).keys() - own_parameters(layer).keys()
    # A cell without a product with the state refuses it.
    if not layer.cell_class.recurrent_gates:
        names -= {"normalization"}
    lines = ["Further arguments, the cell's:"]
    for cell_class in layer.cell_class.__mro__:
        if issubclass(cell_class, Cell):
            for listed, text in _ENTRY.findall(cell_class.__doc__):
                some = [name for name in listed.split(", ") if name in names]
                lines += [f"        {', '.join(some)}: {text}"] if some else []
                names -= set(some)
    lines += ["", "    Further call argument:"]
    lines += ["        reset: (batch, time), boolean: `True` where an episode begins, so that the"]
    lines += ["            state is set back before this step; more in `kerasrnn.layers.RNN`."]
    return "\n".join(lines)


class _OneCell(RNN):
    """A layer that takes its cell's arguments beside its own, and shows them as attributes."""

    cell_name = None

    def __init_subclass__(cls):
        super().__init_subclass__()
        cls.cell_class = cells.CELLS[cls.cell_name]
        for name in parameters(cls.cell_class):
            of_cell = property(attrgetter(f"cell.{name}"), doc=f"The cell's `{name}`.")
            setattr(cls, name, of_cell)
        if cls.__doc__:
            cls.__doc__ = cls.__doc__.replace("{further}", _further_arguments(cls))

    def __init__(self, units, *others, **kwargs):
        if others:
            raise TypeError(
                f"{type(self).__name__} takes `units` alone by its place; name what else there is, "
                f"as return_sequences=True. Received: {', '.join(map(repr, (units, *others)))}"
            )
        super().__init__(self.cell_name, units=units, **kwargs)

    def _configure(self, cls, arguments):
        """Sets what the constructor of `cls` was called with; `arguments` is its `locals()`."""
        named = {name: arguments[name] for name in own_parameters(cls)} | arguments["kwargs"]
        has_cudnn = "use_cudnn" in named
        use_cudnn = one_of(("auto", True, False), "use_cudnn", named.pop("use_cudnn", False))
        super().__init__(self.cell_name, **named)
        if has_cudnn:
            self.use_cudnn = use_cudnn
            # cuDNN's kernels cannot be compiled into an XLA program.
            self.supports_jit = not self._runs_on_cudnn(mask=None)

    def inner_loop(self, sequences, initial_state, mask, training=False):
        if self._runs_on_cudnn(mask):
            return self._run_on_cudnn(sequences, initial_state, training)
        if getattr(self, "use_cudnn", False) is True:
            raise ValueError(
                "use_cudnn=True needs a GPU, no mask, and the arguments that cuDNN knows (tanh, "
                "sigmoid, biases, no recurrent_dropout, zoneout, normalization or "
                "vanishing_gradient_regularization, no unroll; for a GRU reset_after=True and "
                "update_gate='keep'); 'auto' takes another path where it must. "
                f"Received: use_cudnn=True for layer {self.name}"
            )
        return super().inner_loop(sequences, initial_state, mask, training=training)

    def _runs_on_cudnn(self, mask):
        """Whether Keras's own path to cuDNN serves; a mask would make its outputs differ from those
        on every other path."""
        cell = self.cell
        return bool(
            getattr(self, "use_cudnn", False)
            and tf.config.list_logical_devices("GPU")
            and mask is None
            and not self.unroll
            and not cell.recurrent_dropout
            and not cell.zoneout
            and not cell.normalization
            and not cell.vanishing_gradient_regularization
            and not (cell.dropout and cell.implementation == 1)
            and cell.use_bias
            and cell.activation is keras.activations.tanh
            and cell.recurrent_activation is keras.activations.sigmoid
            and getattr(cell, "reset_after", True)
            and getattr(cell, "update_gate", "keep") == "keep"
        )

    def _run_on_cudnn(self, sequences, initial_state, training):
        masks = self.cell.noise(sequences, initial_state, training).inputs
        if masks[0] is not None:
            sequences = sequences * masks[0]
        layer = self.keras_class(
            self.units,
            return_sequences=self.return_sequences,
            go_backwards=self.go_backwards,
            dtype=self.dtype_policy,
        )
        layer.cell = self.cell
        return layer.inner_loop(sequences, initial_state, mask=None)

    def get_config(self):
        config = super().get_config()
        del config["cell"]
        cell = self.cell.get_config()
        config |= {name: cell[name] for name in parameters(self.cell_class)}
        return config | {"use_cudnn": self.use_cudnn} if hasattr(self, "use_cudnn") else config

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable("kerasrnn")
class SimpleRNN(_OneCell):
    """Vanilla recurrent layer; takes the place of `keras.layers.SimpleRNN`.

    Equations, weights and source: `kerasrnn.cells.SimpleRNNCell`. Arguments, call arguments, shapes
    and errors: those of `keras.layers.SimpleRNN` and `kerasrnn.layers.RNN`.

    {further}

    Example:

    >>> kerasrnn.layers.SimpleRNN(8)(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 8])
    """

    cell_name = "simple_rnn"

    def __init__(
        self,
        units,
        activation="tanh",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        seed=None,
        **kwargs,
    ):
        self._configure(__class__, locals())


@keras.saving.register_keras_serializable("kerasrnn")
class LSTM(_OneCell):
    """Long short-term memory layer; takes the place of `keras.layers.LSTM`.

    Equations, weights and source: `kerasrnn.cells.LSTMCell`. Arguments, call arguments, shapes and
    errors: those of `keras.layers.LSTM` and `kerasrnn.layers.RNN`.

    {further}

    Example:

    >>> layer = kerasrnn.layers.LSTM(8, return_sequences=True, return_state=True)
    >>> y, h, c = layer(np.ones((2, 5, 3), "float32"))
    >>> y.shape, h.shape, c.shape
    (TensorShape([2, 5, 8]), TensorShape([2, 8]), TensorShape([2, 8]))
    """

    cell_name = "lstm"
    keras_class = keras.layers.LSTM

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        unit_forget_bias=True,
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        seed=None,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        use_cudnn="auto",
        **kwargs,
    ):
        self._configure(__class__, locals())


@keras.saving.register_keras_serializable("kerasrnn")
class GRU(_OneCell):
    """Gated recurrent unit layer; takes the place of `keras.layers.GRU`, and with
    `update_gate="write"` is the lecture's.

    Equations, weights and source: `kerasrnn.cells.GRUCell`. Arguments, call arguments, shapes and
    errors: those of `keras.layers.GRU` and `kerasrnn.layers.RNN`, and:

    Args:
        update_gate: `"keep"`, where the update gate says how much of the state is kept, or
            `"write"`, where it says how much is written. `kerasrnn.cells.flip_update_gate` turns
            the weights of one form into those of the other. Default: `"keep"`.

    {further}

    Example:

    >>> kerasrnn.layers.GRU(8)(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 8])
    """

    cell_name = "gru"
    keras_class = keras.layers.GRU

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        seed=None,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        reset_after=True,
        use_cudnn="auto",
        update_gate="keep",
        **kwargs,
    ):
        self._configure(__class__, locals())


@keras.saving.register_keras_serializable("kerasrnn")
class MinGRU(_OneCell):
    """Minimal GRU layer, a linear recurrence.

    Equations, weights and source: `kerasrnn.cells.MinGRUCell`. Arguments, call arguments, shapes
    and errors: those of `kerasrnn.layers.RNN`.

    {further}

    Example:

    >>> kerasrnn.layers.MinGRU(8)(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 8])
    """

    cell_name = "mingru"


@keras.saving.register_keras_serializable("kerasrnn")
class MinLSTM(_OneCell):
    """Minimal LSTM layer, a linear recurrence.

    Equations, weights and source: `kerasrnn.cells.MinLSTMCell`. Arguments, call arguments, shapes
    and errors: those of `kerasrnn.layers.RNN`.

    {further}

    Example:

    >>> kerasrnn.layers.MinLSTM(8)(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 8])
    """

    cell_name = "minlstm"


@keras.saving.register_keras_serializable("kerasrnn")
class LRU(_OneCell):
    """Linear recurrent unit layer, a linear recurrence with complex states.

    Equations, weights and source: `kerasrnn.cells.LRUCell`. Arguments, call arguments, shapes
    and errors: those of `kerasrnn.layers.RNN`.

    {further}

    Example:

    >>> kerasrnn.layers.LRU(8)(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 8])
    """

    cell_name = "lru"
