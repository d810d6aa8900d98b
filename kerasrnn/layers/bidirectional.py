import keras
from keras import tree

from kerasrnn.layers.recurrent import RNN, Marks


@keras.saving.register_keras_serializable("kerasrnn")
class Bidirectional(keras.layers.Bidirectional):
    """Runs a recurrent layer forward and a copy of it backward in time, each with weights of its
    own (Schuster & Paliwal, 1997), and merges the two.

        →h_t = RNN_f(→h_{t-1}, x_t)
        ←h_t = RNN_b(←h_{t+1}, x_t)
         h_t = [→h_t; ←h_t]                 for `merge_mode="concat"`

    For tasks that have the whole input; a language model, which predicts the next step, must not
    use it.

    Args: those of `keras.layers.Bidirectional`: `layer` (any recurrent layer of this package or of
        Keras), `merge_mode` ("concat", "sum", "mul", "ave" or `None`), `weights`, `backward_layer`.

    Returns:
        (batch, 2 units), or (batch, time, 2 units) with the layer's `return_sequences`. Without it
        the two halves are the states after the last step and, for the backward direction, after
        the first.

    Call arguments: those of `keras.layers.Bidirectional`, and `reset` as in `kerasrnn.layers.RNN`.

    Raises:
        ValueError: `layer` is not recurrent, an argument is outside its range, as in Keras, or
            `initial_state` does not hold the states of both directions.

    Example:

    >>> layer = kerasrnn.layers.Bidirectional(kerasrnn.layers.LSTM(8, return_sequences=True))
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 16])
    """

    def __init__(self, layer, merge_mode="concat", weights=None, backward_layer=None, **kwargs):
        if isinstance(layer, keras.layers.Layer) and not hasattr(layer, "go_backwards"):
            raise ValueError(
                "`layer` must be a recurrent layer, one that can go_backwards. "
                f"Received: layer={layer!r}"
            )
        super().__init__(layer, merge_mode, weights, backward_layer, **kwargs)

    def call(self, sequences, initial_state=None, mask=None, training=None, reset=None):
        if reset is not None:
            if not all(isinstance(one, RNN) for one in (self.forward_layer, self.backward_layer)):
                raise ValueError(
                    "`reset` needs layers of this package. "
                    f"Received: a reset for {self.forward_layer!r}"
                )
            mask = Marks(mask, reset)
        if initial_state is not None:
            count = self._count_states()
            if count and (not tree.is_nested(initial_state) or len(initial_state) != count):
                shapes = [tuple(getattr(s, "shape", ())) for s in tree.flatten(initial_state)]
                raise ValueError(
                    f"`initial_state` must be a list of {count}: the states of the forward layer, "
                    "then those of the backward layer. Received: a "
                    f"{type(initial_state).__name__} of the shapes {', '.join(map(str, shapes))}"
                )
        return super().call(sequences, initial_state=initial_state, mask=mask, training=training)

    def compute_mask(self, inputs, mask=None):
        # Keras's own fails where a stateful layer returns its states, which have no mask.
        (mask, *_) = mask if isinstance(mask, list) else [mask]
        masks = [mask if self.return_sequences else None] * (2 if self.merge_mode is None else 1)
        if self.return_state:
            masks += [None] * self._count_states()
        return tuple(masks) if len(masks) > 1 else masks[0]

    def _count_states(self):
        # A layer of the user's own, which Keras lets in too, need not say what states it has.
        both = self.forward_layer, self.backward_layer
        return sum(len(layer.state_size) for layer in both if isinstance(layer, keras.layers.RNN))

    def reset_state(self, rows=None):
        """Sets the states of both directions back; `rows` as in `kerasrnn.layers.RNN`."""
        for layer in (self.forward_layer, self.backward_layer):
            if rows is None:
                layer.reset_state()
            else:
                # Keras's own layers have states as ours do, but no rows.
                reset = type(layer).reset_state if isinstance(layer, RNN) else RNN.reset_state
                reset(layer, rows)
