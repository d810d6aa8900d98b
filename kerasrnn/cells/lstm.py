import keras
from keras import ops

from kerasrnn.cells.base import Cell
from kerasrnn.initializers import GateBias


@keras.saving.register_keras_serializable("kerasrnn")
class LSTMCell(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber, 1997) with the forget gate of Gers,
    Schmidhuber & Cummins (2000).

        i_t = σ(W_i x_t + U_i h_{t-1} + b_i)       input gate: how much of g_t to write
        f_t = σ(W_f x_t + U_f h_{t-1} + b_f)       forget gate: how much of c_{t-1} to keep
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)    candidate
        o_t = σ(W_o x_t + U_o h_{t-1} + b_o)       output gate: how much of c_t to show
        c_t = f_t ∘ c_{t-1} + i_t ∘ g_t            new cell state
        h_t = o_t ∘ tanh(c_t)                      new hidden state, and the output

    TensorFlow 1's `LSTMCell` and `BasicLSTMCell` start with b_f = 0 and add `forget_bias=1` inside
    of σ at every step: with weights from there, b_f is theirs plus 1 (`kerasrnn.layers.from_tf1`).

    Shapes: x_t (batch, features); h_t, c_t and the gates (batch, units).

    Weights: `kernel` W (features, 4 units), `recurrent_kernel` U (units, 4 units), `bias` b
    (4 units), gates in the order i, f, g, o, as in `keras.layers.LSTMCell` (where g is called c).

    Args: those of `keras.layers.LSTMCell`, described in `kerasrnn.cells.Cell`;
        `recurrent_activation` takes the place of σ, `activation` that of tanh.
        unit_forget_bias: Start with b_f = 1, as Jozefowicz et al. (2015) recommend: a cell that
            keeps, so that gradients pass from the first update on. Default: `True`. A
            `bias_initializer` that speaks of gates, as `kerasrnn.initializers.Chrono`, goes first.

    Raises:
        ValueError: `units` is not a positive integer, or a dropout rate lies outside [0, 1).

    Example:

    >>> cell = kerasrnn.cells.LSTMCell(4)
    >>> h, (h, c) = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> h.shape, c.shape
    (TensorShape([2, 4]), TensorShape([2, 4]))
    """

    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    candidate = "g"
    keeps = ("f",)
    writes = ("i",)
    outside_step = Cell.outside_step | {"unit_forget_bias"}
    paper = "Hochreiter & Schmidhuber, 1997; Gers et al., 2000"

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

    def initial_bias(self, shape, dtype=None):
        if not self.unit_forget_bias or isinstance(self.bias_initializer, GateBias):
            return super().initial_bias(shape, dtype)
        u = self.units
        return ops.concatenate(
            [
                self.bias_initializer((u,), dtype=dtype),
                ops.ones((u,), dtype=dtype),
                self.bias_initializer((2 * u,), dtype=dtype),
            ]
        )

    def step(self, x, states, product):
        h, c = states
        i, f, g, o = self.split(x + product("ifgo", h), "i", "f", "g", "o")

        i = self.recurrent_activation(i)
        f = self.recurrent_activation(f)
        g = product.drop(self.activation(g))
        o = self.recurrent_activation(o)

        c = f * c + i * g
        h = o * self.activation(self.show(c))
        return h, c

    def show(self, c):
        """What of the cell state the output gate lets out."""
        return c
