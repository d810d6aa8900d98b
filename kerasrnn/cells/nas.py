import keras
from keras import ops

from kerasrnn.cells.base import Cell


@keras.saving.register_keras_serializable("kerasrnn")
class NASCell(Cell):
    """The cell that a search by reinforcement found (Zoph & Le, 2017, appendix A, figure 8), in the
    form of TensorFlow 1's and TensorFlow Addons' `NASCell`.

        x_k, u_k = block k of W x_t, of U h_{t-1} + b; k = 0 ... 7

        l_0 = σ(x_0 + u_0)    l_1 = relu(x_1 + u_1)    l_2 = σ(x_2 + u_2)    l_3 = relu(x_3 ∘ u_3)
        l_4 = tanh(x_4 + u_4) l_5 = σ(x_5 + u_5)       l_6 = tanh(x_6 + u_6) l_7 = σ(x_7 + u_7)

        c_t = tanh(tanh(l_0 ∘ l_1) + c_{t-1}) ∘ tanh(l_2 + l_3)             new cell state
        h_t = tanh(c_t ∘ tanh(tanh(l_4 ∘ l_5) + σ(l_6 + l_7)))              new state, the output

    Their states are in the order c, h, they have no b by default, and their U starts from
    glorot_uniform, TensorFlow's default; here it is orthogonal, as Keras has it.

    Weights: `kernel` W (features, 8 units), `recurrent_kernel` U (units, 8 units), `bias` b
    (8 units), blocks in the order of k.

    Args: those of `kerasrnn.cells.Cell`, but for the activations, which the search has chosen.

    Example:

    >>> cell = kerasrnn.cells.NASCell(4)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    gates = tuple("01234567")
    states = ("h", "c")
    lacks = ("activation", "recurrent_activation")
    paper = "Zoph & Le, 2017"

    def __init__(self, units, **kwargs):
        self._configure(__class__, locals())

    def input_bias(self):
        return None

    def recurrent_bias(self):
        return self.bias

    def step(self, x, states, product):
        h, c = states
        u = product("01234567", h)
        s_0, s_1, s_2, _, s_4, s_5, s_6, s_7 = self.split(x + u, *self.gates)
        x_3, u_3 = x[:, self.columns("3")], u[:, self.columns("3")]

        l_0, l_1 = ops.sigmoid(s_0), ops.relu(s_1)
        l_2, l_3 = ops.sigmoid(s_2), ops.relu(x_3 * u_3)
        l_4, l_5 = ops.tanh(s_4), ops.sigmoid(s_5)
        l_6, l_7 = ops.tanh(s_6), ops.sigmoid(s_7)

        c = ops.tanh(ops.tanh(l_0 * l_1) + c) * ops.tanh(l_2 + l_3)
        h = ops.tanh(c * ops.tanh(ops.tanh(l_4 * l_5) + ops.sigmoid(l_6 + l_7)))
        return h, c
