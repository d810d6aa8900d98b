import keras

from kerasrnn.arguments import real_number
from kerasrnn.cells.base import Cell


@keras.saving.register_keras_serializable("kerasrnn")
class JANETCell(Cell):
    """Just another network (van der Westhuizen & Lasenby, 2018): an LSTM with no gate but the
    forget gate.

        s_t = W_f x_t + U_f h_{t-1} + b_f
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)                     candidate
        h_t = σ(s_t) ∘ h_{t-1} + (1 - σ(s_t - β)) ∘ g_t             new state, and the output

    The paper has it start with `kerasrnn.initializers.Chrono`, which has to be told how long the
    memory is to be; its code, untold, with b_f = 1, as `kerasrnn.initializers.ForgetBias()`, and
    with U from glorot_uniform, TensorFlow's default. Here b_f = 0 by default, and U is orthogonal
    as in Keras.

    Weights: `kernel` W (features, 2 units), `recurrent_kernel` U (units, 2 units), `bias` b
    (2 units), gates in the order f, g.

    Args: those of `kerasrnn.cells.Cell`; `recurrent_activation` takes the place of σ, `activation`
        that of tanh.
        beta: β, which lets more be written than is forgotten. Default: 1, the paper's.

    Raises:
        ValueError: `beta` is not a finite number.

    Example:

    >>> cell = kerasrnn.cells.JANETCell(4)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    gates = ("f", "g")
    candidate = "g"
    # The second is 1 - i_t, which has the same bias.
    gated = ("f", "f")
    keeps = ("f",)
    paper = "van der Westhuizen & Lasenby, 2018"

    def __init__(self, units, beta=1.0, **kwargs):
        self._configure(__class__, locals())
        self.beta = real_number("beta", beta)

    def step(self, x, states, product):
        (h,) = states
        s, g = self.split(x + product("fg", h), "f", "g")

        g = product.drop(self.activation(g))
        f, i = self.recurrent_activation(s), 1 - self.recurrent_activation(s - self.beta)
        return (f * h + i * g,)
