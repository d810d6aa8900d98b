import keras

from kerasrnn.cells.base import Cell


@keras.saving.register_keras_serializable("kerasrnn")
class SimpleRNNCell(Cell):
    """Vanilla recurrent network (Elman, 1990), as written in CS224N 2019, lecture 7.

        h_t = tanh(W x_t + U h_{t-1} + b)          new state, and the output

    Shapes: x_t (batch, features); h_t (batch, units).

    Weights: `kernel` W (features, units), `recurrent_kernel` U (units, units), `bias` b (units),
    as in `keras.layers.SimpleRNNCell`.

    Args: those of `keras.layers.SimpleRNNCell`, described in `kerasrnn.cells.Cell`;
        `activation` takes the place of tanh.

    Raises:
        ValueError: `units` is not a positive integer, or a dropout rate lies outside [0, 1).

    Example:

    >>> cell = kerasrnn.cells.SimpleRNNCell(4)
    >>> h, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> h.shape
    TensorShape([2, 4])
    """

    gates = ("h",)
    states = ("h",)
    lacks = ("recurrent_activation",)
    paper = "Elman, 1990"

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
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        seed=None,
        implementation=2,
        **kwargs,
    ):
        self._configure(__class__, locals())

    def step(self, x, states, product):
        (h,) = states
        return (self.activation(x + product("h", h)),)
