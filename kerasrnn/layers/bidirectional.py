import keras


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

    Raises:
        ValueError: an argument outside its range, as in Keras.

    Example:

    >>> layer = kerasrnn.layers.Bidirectional(kerasrnn.layers.LSTM(8, return_sequences=True))
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 16])
    """

    def reset_state(self, rows=None):
        """Sets the states of both directions back; `rows` as in `kerasrnn.layers.RNN`."""
        for layer in (self.forward_layer, self.backward_layer):
            layer.reset_state(*(() if rows is None else (rows,)))
