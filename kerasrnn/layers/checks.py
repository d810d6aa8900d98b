"""What a recurrent layer is called with, checked: cells, shapes, masks, resets and states."""

from typing import Any, NamedTuple

import keras
from keras import ops, tree

from kerasrnn.arguments import check_spelling
from kerasrnn.backends import tf
from kerasrnn.cells.base import Cell
from kerasrnn.cells.configured import parameters
from kerasrnn.inside import attached_mask
from kerasrnn.recurrence import stages


class MaskAndReset(NamedTuple):
    """The mask of a sequence and its resets in one, since Keras hands a mask on from layer to layer
    and nothing else."""

    mask: Any
    reset: Any


def check_cell(cell, kwargs, known):
    """Raises a `ValueError` unless `cell` is a cell or a list of them, and `kwargs` are a layer's,
    of which `known` are the recurrent one's."""
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
    check_spelling("RNN", kwargs, known)


def check_shape(shape, unroll):
    """Raises a `ValueError` unless a sequence of this shape can be run over."""
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


def dense_with_mask(sequences, mask):
    """The sequences as a dense tensor, and their mask or `None`: where none is passed the one that
    Keras has attached to them, of ragged ones the padding, too.

    An attached mask Keras passes by itself to a layer alone that is called with no further tensor,
    such as a reset or a state.

    Args:
        sequences: (batch, time, ...), a tensor, a `tf.RaggedTensor` or a `keras.KerasTensor`.
        mask: As for a layer's call, `None`, or `False` for none where one is attached.
    """
    if mask is None:
        mask = attached_mask(sequences)
    elif mask is False:
        # A tensor to which none is attached, for the layers inside this one, too.
        sequences, mask = sequences + 0, None
    if _is_ragged(sequences):
        within = tf.sequence_mask(sequences.row_lengths())
        sequences = sequences.to_tensor()
        if mask is not None:
            mask = ops.cast(_dense(tree.flatten(mask)[0]), "bool")
            mask = mask & (within if len(mask.shape) == 2 else within[:, :, None])
        else:
            mask = within
    return sequences, mask


def _is_ragged(v):
    return tf is not None and isinstance(v, tf.RaggedTensor)


def _dense(v):
    return v.to_tensor() if _is_ragged(v) else v


def handed_on(mask):
    """The mask of a call as one that is to be handed on: a call with `mask=False` hands on what is
    attached, as Keras's layers do where they do not heed it themselves."""
    mask = tree.flatten(mask)[0]
    return None if mask is False else mask


def turned_mask(mask):
    """The mask of outputs in the order from the last step to the first, from that of the inputs."""
    return None if mask is None else ops.flip(mask, axis=1)


def fitted_mask(mask, sequences):
    """`mask`, of one of the forms that Keras takes, as (batch, time[, 1]).

    Raises:
        ValueError: it is not that of `sequences`.
    """
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
    return ops.repeat(mask, ops.shape(sequences)[0], axis=0) if one_for_all else mask


def checked_reset(reset, sequences):
    """`reset` as a tensor.

    Raises:
        ValueError: it is not boolean, or not that of `sequences`.
    """
    reset = ops.convert_to_tensor(_dense(reset))
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


def check_states(shapes, expected, batch, name):
    """Raises a `ValueError` unless `shapes` are those of the states of a layer.

    Args:
        shapes: Those of `initial_state`.
        expected: Those of the layer's states, without the batch.
        batch: The number of samples, or `None`.
        name: The layer's.
    """
    ok = len(shapes) == len(expected) and all(
        len(shape) == 1 + len(axes)
        and all(
            None in pair or pair[0] == pair[1] for pair in zip(shape, (batch, *axes), strict=True)
        )
        for shape, axes in zip(shapes, expected, strict=True)
    )
    if not ok:
        batch = "batch" if batch is None else batch
        rule = ", ".join(f"({', '.join(map(str, (batch, *axes)))})" for axes in expected)
        raise ValueError(
            f"`initial_state` of {name} must hold a tensor for each of its states, of the "
            f"shapes {rule}. Received: the shapes {', '.join(map(str, map(tuple, shapes)))}"
        )


def of_batch_size(sequences, size, name):
    """The sequences of a stateful layer, of the batch size that it was built for.

    Args:
        sequences: (batch, time, features).
        size: That batch size.
        name: The layer's.

    Raises:
        ValueError, tf.errors.InvalidArgumentError: they are of another; the latter where only the
            running graph can see it.
    """
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
            f"and `predict` that batch_size, and data of a multiple of it. Layer: {name}. "
            f"Received: sequences.shape={tuple(sequences.shape)}"
        )
    return sequences


def check_replicas(layer):
    """Raises a `ValueError` where a recurrent layer is called under a `tf.distribute.Strategy` of
    several replicas that it cannot be a part of."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync if tf else 1
    if replicas == 1:
        return
    if layer.stateful:
        raise ValueError(
            "A stateful layer keeps the states of one device's batch, and a strategy of several "
            "replicas would keep others on each: leave `stateful`, or the strategy. Received: "
            f"stateful=True in {layer.name}, under a strategy of {replicas} replicas"
        )
    model = stages.traced_model()
    if model is not None:
        check_compilation(model)


def check_compilation(model):
    """Raises a `ValueError` for a model whose step is to be one XLA program for several replicas,
    which TensorFlow cannot run: it ends in a variable "located in device" another."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    if replicas > 1 and model.jit_compile:
        raise ValueError(
            "`jit_compile` makes a step one XLA program, which is for one device: under a strategy "
            "of several replicas compile the model with jit_compile=False. Received: "
            f"jit_compile=True in {model.name}, under a strategy of {replicas} replicas"
        )
