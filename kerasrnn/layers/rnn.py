"""The recurrent layer: a cell, run over time by `kerasrnn.recurrence`."""

import contextlib

import keras
from keras import ops, tree

from kerasrnn import cells, recurrence
from kerasrnn.arguments import boolean, check_spelling, own_parameters
from kerasrnn.backends import BACKEND
from kerasrnn.cells.base import Cell
from kerasrnn.cells.configured import parameters
from kerasrnn.keras_cells import nothing_dropped
from kerasrnn.layers.checks import (
    MaskAndReset,
    check_cell,
    check_replicas,
    check_shape,
    check_states,
    checked_reset,
    dense_with_mask,
    fitted_mask,
    handed_on,
    nested_shapes,
    of_batch_size,
    turned_mask,
)
from kerasrnn.layers.states import load_states, reset_states, save_states, state_shapes


@keras.saving.register_keras_serializable("kerasrnn")
class RNN(keras.layers.RNN):
    """Runs a cell over a sequence; takes the place of `keras.layers.RNN`.

    Args:
        cell: A cell of this package, of Keras or of the user's, a list of cells, or the name of a
            registered cell (a key of `kerasrnn.cells.CELLS`), whose arguments then follow as
            keywords. A subclass of a cell that overrides `call` is called once per step.
        return_sequences: Whether to return the output of every step or of the last one only.
        return_state: Whether to return the final states too.
        go_backwards: Whether to run from the last step to the first; the outputs come in that
            order too, and so does the mask that is handed on with them, which Keras's layer leaves
            in the order of the inputs.
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

    Without `mask` the layer takes the one that Keras has attached to `sequences`, as of a Masking
    or of an Embedding with `mask_zero=True`. It holds beside a `reset` and an `initial_state`, too,
    beside which Keras's own layer loses it; `mask=False` takes none, and hands on the one that is
    attached. Rows of a `tf.RaggedTensor` are padded, and the padding
    is masked.

    A model's `quantize` leaves recurrent layers, as Keras's, in their precision, with Keras's
    warning that the cell has no `quantize`; it quantizes the Dense layers in connections and gates.

    Returns:
        (batch, units), or (batch, time, units) with `return_sequences`; then the final states with
        `return_state`. Those of a linear recurrence are returned, taken and, under a mixed policy,
        kept in float32 where all else is in half precision; in a list of cells they are not. With
        `return_sequences` the mask is handed on to the next layer, whichever Keras is installed;
        Keras's own recurrent layers drop it from 3.16 on. A loss of one value per sequence, such as
        `keras.losses.CTC`, takes no mask: a `keras.ops.add(y, 0)` before it leaves the mask behind.

    Raises:
        ValueError: `cell` is no cell, an option is unknown or not a boolean, or a call argument is
            not of its shape: `sequences` (one time step at least, with `unroll` a known number of
            them), `mask`, `reset` (which has to be boolean, too), or a state in `initial_state`,
            (batch, units), or as a user's cell has its initial one.
        ValueError: under a `tf.distribute` strategy of several replicas the layer is stateful, or
            its model compiled with `jit_compile=True`.
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
            arguments = {name: kwargs.pop(name) for name in names if name in kwargs}
            if "units" not in arguments:
                raise ValueError(
                    f"A cell given by name needs its size as a keyword, RNN({cell!r}, units=...); "
                    "what stands second is `return_sequences`. "
                    f"Received: cell={cell!r}, return_sequences={return_sequences!r}"
                )
            cell = cell_class(
                **arguments,
                dtype=kwargs.get("dtype"),
                trainable=kwargs.get("trainable", True),
                name=f"{cell}_cell",
            )
        else:
            check_cell(cell, kwargs, own_parameters(RNN))
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
        self._set_supports_jit()
        if self._linear:
            # Autocast would round the states that come in, and those a stateful layer keeps.
            self.autocast = False

    def _set_supports_jit(self):
        """cuDNN's kernels cannot be compiled into an XLA program."""
        stacked = type(self.cell) is keras.layers.StackedRNNCells
        # Only the layers that have it in Keras have the argument.
        use_cudnn = getattr(self, "use_cudnn", "auto")
        self.supports_jit = all(
            recurrence.supports_jit(cell, self.unroll, use_cudnn)
            for cell in (self.cell.cells if stacked else [self.cell])
        )

    @property
    def _linear(self):
        return isinstance(self.cell, Cell) and self.cell.linear

    def build(self, sequences_shape, initial_state_shape=None):
        check_replicas(self)
        check_shape(sequences_shape, self.unroll)
        super().build(sequences_shape, initial_state_shape)
        if initial_state_shape is not None:
            self._check_states(nested_shapes(initial_state_shape), sequences_shape[0])

    def call(self, sequences, initial_state=None, mask=None, training=False, reset=None):
        if isinstance(mask, MaskAndReset):
            mask, reset = mask
        check_replicas(self)
        sequences, mask = dense_with_mask(sequences, mask)
        check_shape(sequences.shape, self.unroll)
        if initial_state is not None:
            shapes = [getattr(state, "shape", ()) for state in tree.flatten(initial_state)]
            self._check_states(shapes, sequences.shape[0])
        if mask is not None:
            mask = fitted_mask(mask, sequences)
        if reset is not None:
            mask = MaskAndReset(mask, checked_reset(reset, sequences))
        if self.stateful:
            size = tree.flatten(self.states)[0].shape[0]
            sequences = of_batch_size(sequences, size, self.name)
        call = self._call_linear if self._linear else super().call
        with contextlib.nullcontext() if training else nothing_dropped(self.cell):
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

    def get_initial_state(self, batch_size):
        states = super().get_initial_state(batch_size)
        # One spread over the rows, and the weight it is spread from, share a memory there, which
        # what is kept from batch to batch is written into.
        shared = self.stateful and BACKEND == "torch"
        return tree.map_structure(ops.copy, states) if shared else states

    @property
    def variables(self):
        # Under JAX a step of a model carries on the variables that it knows, and Keras counts the
        # states of its layers to none of them: `fit` and `predict` would forget them.
        kept = tree.flatten(self.states) if BACKEND == "jax" and self.states is not None else []
        return super().variables + kept

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        shapes = super().compute_output_shape(sequences_shape, initial_state_shape)
        if not (self.return_state and self.built) or isinstance(
            self.cell, keras.layers.StackedRNNCells
        ):
            return shapes
        # Keras goes by their sizes alone.
        return shapes[0], *((sequences_shape[0], *axes) for axes in state_shapes(self))

    def compute_output_spec(self, *args, **kwargs):
        spec = super().compute_output_spec(*args, **kwargs)
        if not (self._linear and self.return_state):
            return spec
        y, *states = spec
        return y, *(keras.KerasTensor(state.shape, self.cell.state_dtype) for state in states)

    def compute_mask(self, sequences, mask=None):
        _, mask = dense_with_mask(sequences, handed_on(mask))
        if self.go_backwards and self.return_sequences:
            mask = turned_mask(mask)
        return super().compute_mask(sequences, mask)

    def _check_states(self, shapes, batch):
        check_states(shapes, state_shapes(self), batch, self.name)

    def reset_state(self, rows=None):
        """Sets the states of a stateful layer back to their initial values.

        Args:
            rows: Which samples of the batch, as indices or as a boolean per sample; all by default.

        Raises:
            ValueError: `rows` names a sample that the batch does not have, or the layer has no
                states.
        """
        reset_states(self, rows)

    def save_assets(self, dir_path):
        save_states(self, dir_path)

    def load_assets(self, dir_path):
        load_states(self, dir_path)

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """Runs the cell over the sequences; Keras's `call` calls it. Here all recurrences of the
        package begin."""
        mask, reset = mask if isinstance(mask, MaskAndReset) else (mask, None)
        if self.stateful and BACKEND == "torch":
            # The way back needs them as they were, and Keras writes the final ones over them.
            initial_state = tree.map_structure(ops.copy, initial_state)
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
            use_cudnn=getattr(self, "use_cudnn", "auto"),
        )
