import keras

from kerasrnn.cells.base import Cell


@keras.saving.register_keras_serializable("kerasrnn")
class RANCell(Cell):
    """Recurrent additive network (Lee, Levy & Zettlemoyer, 2017): an LSTM whose candidate sees the
    input only.

        g_t = W_g x_t + b_g                                candidate, the paper's content layer
        i_t = σ(W_i x_t + U_i h_{t-1} + b_i)               input gate
        f_t = σ(W_f x_t + U_f h_{t-1} + b_f)               forget gate
        c_t = i_t ∘ g_t + f_t ∘ c_{t-1}                    new cell state, a weighted sum of inputs
        h_t = tanh(c_t)                                    new hidden state, and the output

    Its authors' code has no b_g, and the identity in the place of tanh as a choice. It starts W and
    U from U[-0.05, 0.05] or narrower, by experiment, and b at 0 as here, though b_f = 1, as
    `kerasrnn.initializers.ForgetBias()` gives it, did slightly better, it says.

    Weights: `kernel` W (features, 3 units) and `bias` b (3 units), gates in the order g, i, f;
    `recurrent_kernel` U (units, 2 units), in the order i, f.

    Args: those of `kerasrnn.cells.Cell`; `recurrent_activation` takes the place of σ, `activation`
        that of tanh.

    Example:

    >>> cell = kerasrnn.cells.RANCell(4)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    gates = ("g", "i", "f")
    recurrent_gates = ("i", "f")
    states = ("h", "c")
    candidate = "g"
    keeps = ("f",)
    writes = ("i",)
    normalized_together = ("g", "if")
    paper = "Lee et al., 2017"

    def step(self, x, states, product):
        h, c = states
        g, x_if = self.split(x, "g", "if")
        i, f = self.split(self.recurrent_activation(x_if + product("if", h)), "i", "f")

        c = i * product.drop(g) + f * c
        return self.activation(c), c
