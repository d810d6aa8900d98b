import keras
from keras import ops

from kerasrnn.arguments import one_of
from kerasrnn.cells.base import Cell
from kerasrnn.initializers import GateBias, normal

# Of Nguyen & Salazar (2019), as the authors' code calls it.
_SMALL_INIT = normal(2 / 5)


@keras.saving.register_keras_serializable("kerasrnn")
class SLSTMCell(Cell):
    """sLSTM, an LSTM with exponential gates and a normalizer (Beck et al., 2024, "xLSTM", section
    2.2, equations 8 to 14, and 15 to 17 for the stabilizer).

        (i_t, f_t, z_t, o_t) = W x_t + U h_{t-1} + b
        k_t = log f(f_t) + m_{t-1},  or i_t where n_{t-1} = 0
        m_t = max(k_t, i_t)                                    stabilizer
        i'_t = exp(i_t - m_t),  f'_t = exp(k_t - m_t)
        c_t = f'_t ∘ c_{t-1} + i'_t ∘ tanh(z_t)                new cell state
        n_t = f'_t ∘ n_{t-1} + i'_t                            new normalizer
        h_t = σ(o_t) ∘ c_t / n_t                               new hidden state, and the output

    f is σ or exp. m_t cancels in h_t; where nothing has been written yet (n = 0) m_t = i_t, as in
    the authors' code, so that n_t is 1; f', which multiplies zeros there, is 1, too, and not a
    number that may be too large. That code has σ for f. With several heads the paper has U in
    blocks, one per head; this is the cell with one. Zoneout acts on h: the other three belong
    together.

    The cell starts as that code does: U = 0, W ~ N(0, 2 / (5 features)), b = 0 but for b_f, which
    falls from 5 to -7 over the units (`kerasrnn.initializers.PowerLaw`). Where f is exp, b_f is
    log σ of what a `bias_initializer` that speaks of gates gives, so that f starts at the same.

    Weights: `kernel` W (features, 4 units), `recurrent_kernel` U (units, 4 units), `bias` b
    (4 units), gates in the order i, f, z, o.

    Args: those of `kerasrnn.cells.Cell`; `recurrent_activation` takes the place of σ in σ(o_t),
        `activation` that of tanh.
        forget_gate: `"sigmoid"` or `"exponential"`, for f. Default: `"sigmoid"`.
        kernel_initializer: Default: N(0, 2 / (5 features)).
        recurrent_initializer: Default: `"zeros"`.
        bias_initializer: Default: `kerasrnn.initializers.PowerLaw()`.

    Raises:
        ValueError: `forget_gate` is neither of the two.

    Example:

    >>> cell = kerasrnn.cells.SLSTMCell(4)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    gates = ("i", "f", "z", "o")
    states = ("h", "c", "n", "m")
    candidate = "z"
    gated = ("o",)
    keeps = ("f",)
    # A normalizer n below 0 would have no bound, and m only rescales.
    zoned = learnable = ("h",)
    paper = "Beck et al., 2024"

    def __init__(
        self,
        units,
        forget_gate="sigmoid",
        kernel_initializer=_SMALL_INIT,
        recurrent_initializer="zeros",
        bias_initializer="kerasrnn>PowerLaw",
        **kwargs,
    ):
        self._configure(__class__, locals())
        one_of(("sigmoid", "exponential"), "forget_gate", forget_gate)

    def initial_bias(self, shape, dtype=None):
        bias = super().initial_bias(shape, dtype)
        if self.forget_gate == "sigmoid" or not isinstance(self.bias_initializer, GateBias):
            return bias
        i, f, zo = self.split(bias, "i", "f", "zo")
        return ops.concatenate([i, ops.log_sigmoid(f), zo])

    def step(self, x, states, product):
        h, c, n, m = states
        i, f, z, o = self.split(x + product("ifzo", h), "i", "f", "z", "o")

        log_f = f if self.forget_gate == "exponential" else ops.log_sigmoid(f)
        # Nothing written yet is nothing to rescale; the f' it would have may be too large a number.
        kept = ops.where(n == 0, i, log_f + m)
        new_m = ops.maximum(kept, i)
        i, f = ops.exp(i - new_m), ops.exp(kept - new_m)
        c = f * c + i * product.drop(self.activation(z))
        n = f * n + i
        h = self.recurrent_activation(o) * c / n
        return h, c, n, new_m
