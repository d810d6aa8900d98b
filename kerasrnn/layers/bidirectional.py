import keras
from keras import ops, tree

from kerasrnn.arguments import one_of
from kerasrnn.layers.checks import MaskAndReset, dense_with_mask, handed_on, turned_mask
from kerasrnn.layers.group import (
    Connected,
    check_reset,
    mask_handed_on,
    reset_state,
    take_states_unrounded,
)
from kerasrnn.layers.quantized import KeepsQuantization
from kerasrnn.layers.states import state_sizes, state_structure

MERGES = ("concat", "sum", "mul", "ave", "gate", None)


@keras.saving.register_keras_serializable("kerasrnn")
class Bidirectional(KeepsQuantization, keras.layers.Bidirectional):
    """Runs a recurrent layer forward and a copy of it backward in time, each with weights of its
    own (Schuster & Paliwal, 1997), and merges the two.

        →h_t = RNN_f(→h_{t-1}, x_t)
        ←h_t = RNN_b(←h_{t+1}, x_t)
         h_t = [→h_t; ←h_t]                         for `merge_mode="concat"`
         h_t = g_t ∘ →h_t + (1 - g_t) ∘ ←h_t        for "gate", with
         g_t = σ(W [→h_t; ←h_t] + b)

    For tasks that have the whole input; a language model, which predicts the next step, must not
    use it (`kerasrnn.diagnostics.is_causal` tells). A single stateful layer is let in, as in Keras,
    whose own tests ask for it: each direction then starts from where it ended in the batch before,
    which for the backward one is the wrong end. Stacks and connections are refused. A layer's seeds
    are those of both directions, as in Keras; `backward_layer` may have others.

    Args: those of `keras.layers.Bidirectional`: `layer` (any recurrent layer of this package or of
        Keras, an `RNNStack`, or a connection around one), `merge_mode` ("concat", "sum", "mul",
        "ave" or `None`, and the learned "gate"), `weights`, `backward_layer`.

    Returns:
        (batch, 2 units), or (batch, time, 2 units) with the layer's `return_sequences`; half as
        wide where the directions are not concatenated, the units of both together where they
        differ. Without `return_sequences` the two halves
        are the states after the last step and, for the backward direction, after the first. With
        `return_state` the states follow, those of the forward direction first. Masks are handed on
        as in `kerasrnn.layers.RNN`, where the directions are Keras's own layers, too.

    Call arguments: those of `keras.layers.Bidirectional`, `sequences` and `mask` as in
    `kerasrnn.layers.RNN`, and `reset` as there.

    Raises:
        ValueError: `layer` is not recurrent, or a stateful stack or connection, an argument is
            outside its range, as in Keras, directions of different units are to be merged other
            than by "concat", or
            `initial_state` does not hold the states of both directions.

    Example:

    >>> layer = kerasrnn.layers.Bidirectional(kerasrnn.layers.LSTM(8, return_sequences=True))
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 16])
    """

    def __init__(self, layer, merge_mode="concat", weights=None, backward_layer=None, **kwargs):
        # A connection around a layer that is not recurrent has no return_sequences.
        if isinstance(layer, keras.layers.Layer) and not (
            hasattr(layer, "go_backwards") and hasattr(layer, "return_sequences")
        ):
            raise ValueError(
                "`layer` must be a recurrent layer, one that can go_backwards. "
                f"Received: layer={layer!r}"
            )
        if isinstance(layer, Connected) and layer.stateful:
            raise ValueError(
                "A stack or connection in both directions cannot be stateful: its backward "
                "direction would have to start from the batch to come. "
                f"Received: layer={layer.name}, with stateful=True"
            )
        self.gated = one_of(MERGES, "merge_mode", merge_mode) == "gate"
        # Keras merges to what the gate then takes apart.
        merge_mode = "concat" if self.gated else merge_mode
        super().__init__(layer, merge_mode, weights, backward_layer, **kwargs)
        self.supports_masking = True
        take_states_unrounded(self)

    def build(self, sequences_shape, initial_state_shape=None):
        shapes = [
            layer.compute_output_shape(sequences_shape)
            for layer in (self.forward_layer, self.backward_layer)
        ]
        forward, backward = [shape[0] for shape in shapes] if self.return_state else shapes
        if self._mode not in (None, "concat") and forward != backward:
            raise ValueError(
                "Directions that are merged must have the same units, but by 'concat'; "
                "merge_mode=None returns both as they are. Received: "
                f"merge_mode={self._mode!r} of {self.name}, outputs of the shape {forward} forward "
                f"and {backward} backward"
            )
        super().build(sequences_shape, initial_state_shape)
        if self.gated:
            self.gate = keras.layers.Dense(
                forward[-1], activation="sigmoid", dtype=self.dtype_policy, name="gate"
            )
            self.gate.build((None, 2 * forward[-1]))

    @property
    def _mode(self):
        return "gate" if self.gated else self.merge_mode

    def call(self, sequences, initial_state=None, mask=None, training=None, reset=None):
        sequences, mask = dense_with_mask(sequences, mask)
        if reset is not None:
            for layer in (self.forward_layer, self.backward_layer):
                check_reset(layer)
            mask = MaskAndReset(mask, reset)
        if initial_state is not None:
            structure, states = state_structure(self), tree.flatten(initial_state)
            count = len(state_sizes(self))
            if count and len(states) != count:
                shapes = [tuple(getattr(state, "shape", ())) for state in states]
                raise ValueError(
                    f"`initial_state` must be a list of {count}: the states of the forward layer, "
                    "then those of the backward layer. Received: a "
                    f"{type(initial_state).__name__} of the shapes {', '.join(map(str, shapes))}"
                )
            # A layer of the user's own, which Keras lets in too, need not say what states it has.
            if count:
                initial_state = tree.pack_sequence_as(structure, states)
        with mask_handed_on(self.forward_layer, self.backward_layer):
            outputs = super().call(
                sequences, initial_state=initial_state, mask=mask, training=training
            )
        if not self.gated:
            return outputs
        y, *states = outputs if self.return_state else [outputs]
        g = self.gate(y)
        forward, backward = ops.split(y, 2, axis=-1)
        y = g * forward + (1 - g) * backward
        return (y, *states) if self.return_state else y

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        # Keras's takes the backward direction to be like the forward one.
        shapes = [
            layer.compute_output_shape(sequences_shape)
            for layer in (self.forward_layer, self.backward_layer)
        ]
        (forward, *states), (backward, *more) = shapes if self.return_state else zip(shapes)
        if self._mode is None:
            outputs = forward, backward
        elif self._mode == "concat":
            outputs = ((*forward[:-1], forward[-1] + backward[-1]),)
        else:
            outputs = (forward,)
        outputs = (*outputs, *states, *more)
        return outputs if len(outputs) > 1 else outputs[0]

    def get_config(self):
        return super().get_config() | {"merge_mode": self._mode}

    def compute_mask(self, inputs, mask=None):
        # Keras's own fails where a stateful layer returns its states, which have no mask.
        _, mask = dense_with_mask(inputs, handed_on(mask))
        if self.forward_layer.go_backwards and self.return_sequences:
            # Both outputs are in its order.
            mask = turned_mask(mask)
        masks = [mask if self.return_sequences else None] * (2 if self.merge_mode is None else 1)
        if self.return_state:
            masks += [None] * len(state_sizes(self))
        return tuple(masks) if len(masks) > 1 else masks[0]

    def reset_state(self, rows=None):
        """Sets the states of both directions back; `rows` as in `kerasrnn.layers.RNN`."""
        reset_state(self, rows)
