import keras

from kerasrnn.cells.base import Cell


@keras.saving.register_keras_serializable("kerasrnn")
class UGRNNCell(Cell):
    """Update gate RNN (Collins, Sohl-Dickstein & Sussillo, 2017).

        c_t = tanh(W_c x_t + U_c h_{t-1} + b_c)        candidate
        g_t = σ(W_g x_t + U_g h_{t-1} + b_g)           update gate: how much of h_{t-1} to keep
        h_t = g_t ∘ h_{t-1} + (1 - g_t) ∘ c_t          new state, and the output

    TensorFlow 1's `UGRNNCell` adds a constant 1 inside of σ at every step;
    `kerasrnn.initializers.ForgetBias` starts b_g there. Its W and U start from one glorot_uniform,
    TensorFlow's default; here they start as Keras's, and b_g = 0.

    Weights: `kernel` W (features, 2 units), `recurrent_kernel` U (units, 2 units), `bias` b
    (2 units), gates in the order c, g.

    Args: those of `kerasrnn.cells.Cell`; `recurrent_activation` takes the place of σ, `activation`
        that of tanh.

    Example:

    >>> cell = kerasrnn.cells.UGRNNCell(4)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    gates = ("c", "g")
    candidate = "c"
    keeps = ("g",)
    paper = "Collins et al., 2017"

    def step(self, x, states, product):
        (h,) = states
        c, g = self.split(x + product("cg", h), "c", "g")

        c = product.drop(self.activation(c))
        g = self.recurrent_activation(g)
        return (g * h + (1 - g) * c,)
