"""The recurrent layers with a name of their own, each around one cell."""

import keras

from kerasrnn.layers.one_cell import OneCellLayer


@keras.saving.register_keras_serializable("kerasrnn")
class SimpleRNN(OneCellLayer):
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
class LSTM(OneCellLayer):
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
class GRU(OneCellLayer):
    """Gated recurrent unit layer; takes the place of `keras.layers.GRU`, and with
    `update_gate="write", reset_after=False` is the lecture's.

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
class MinGRU(OneCellLayer):
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
class MinLSTM(OneCellLayer):
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
class LRU(OneCellLayer):
    """Linear recurrent unit layer, a linear recurrence with complex states.

    Equations, weights and source: `kerasrnn.cells.LRUCell`. Arguments, call arguments, shapes
    and errors: those of `kerasrnn.layers.RNN`.

    {further}

    Example:

    >>> kerasrnn.layers.LRU(8)(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 8])
    """

    cell_name = "lru"
