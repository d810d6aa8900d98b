import keras

from kerasrnn.cells.base import Cell


@keras.saving.register_keras_serializable("kerasrnn")
class MGUCell(Cell):
    """Minimal gated unit (Zhou et al., 2016): a GRU whose two gates are one.

        f_t = σ(W_f x_t + U_f h_{t-1} + b_f)               forget gate: how much to replace
        g_t = tanh(W_g x_t + U_g (f_t ∘ h_{t-1}) + b_g)    candidate
        h_t = (1 - f_t) ∘ h_{t-1} + f_t ∘ g_t              new state, and the output

    It starts as Keras's GRU does, with b_f = 0, so that about half of h is replaced at each step;
    `kerasrnn.initializers.ForgetBias` and `Chrono` have more of it kept.

    Weights: `kernel` W (features, 2 units), `recurrent_kernel` U (units, 2 units), `bias` b
    (2 units), gates in the order f, g.

    Args: those of `kerasrnn.cells.Cell`; `recurrent_activation` takes the place of σ, `activation`
        that of tanh.

    Example:

    >>> cell = kerasrnn.cells.MGUCell(4)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    gates = ("f", "g")
    candidate = "g"
    writes = ("f",)
    normalized_together = ("f", "g")
    paper = "Zhou et al., 2016"

    def step(self, x, states, product):
        (h,) = states
        x_f, x_g = self.split(x, "f", "g")

        f = self.recurrent_activation(x_f + product("f", h))
        g = product.drop(self.activation(x_g + product("g", f * h)))
        return ((1 - f) * h + f * g,)
