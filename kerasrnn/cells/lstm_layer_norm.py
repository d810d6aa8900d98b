import keras

from kerasrnn.cells.lstm import LSTMCell
from kerasrnn.cells.options import layer_norm


@keras.saving.register_keras_serializable("kerasrnn")
class LayerNormLSTMCell(LSTMCell):
    """LSTM with layer normalization (Ba, Kiros & Hinton, 2016, supplement, equations 20 to 22).

        (i_t, f_t, g_t, o_t) = LN(W x_t; α_x) + LN(U h_{t-1}; α_h) + b
        c_t = σ(f_t) ∘ c_{t-1} + σ(i_t) ∘ tanh(g_t)
        h_t = σ(o_t) ∘ tanh(LN(c_t; α_c) + β_c)

    LN(y; α) = α ∘ (y - mean(y)) / √(var(y) + 1e-5), over all columns of a product at once. The
    paper's LN of the products has biases β as well, which here b stands for; 1e-5 is that of its
    authors' code. That code adds b twice, as LN(W x_t + b; α_x) and once more as above. It starts
    with b_f = 0, for which `unit_forget_bias=False` is, where b_f = 1 here, as in an LSTM of Keras,
    and with U orthogonal gate by gate, as `kerasrnn.initializers.PerGate()` gives it; gains are 1
    and biases 0 there as here. How large W and U are makes no difference to LN.

    TensorFlow Addons' `LayerNormLSTMCell` differs: it has 1e-3, and the next step gets the
    normalized cell state for c_t. So it is with TensorFlow 1's `LayerNormBasicLSTMCell`, which
    normalizes each gate's sum W x_t + U h_{t-1} by itself.

    Weights: those of `LSTMCell`, then `kernel_gain` α_x and `recurrent_gain` α_h (4 units), and
    `c_gain` α_c and `c_bias` β_c (units).

    Args: those of `LSTMCell`, but for `normalization=None`, which `LSTMCell` is for.
        `LSTMCell(units, normalization="layer")` is the same without LN(c_t).

    Raises:
        ValueError: `normalization` is not `"layer"`.

    Example:

    >>> cell = kerasrnn.cells.LayerNormLSTMCell(4)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    normalizations = ("layer",)
    paper = "Ba et al., 2016"

    def __init__(self, units, normalization="layer", **kwargs):
        self._configure(__class__, locals())

    def build_own(self, input_shape):
        self.c_gain = self.add_weight((self.units,), "ones", name="c_gain")
        self.c_bias = self.add_weight((self.units,), "zeros", name="c_bias")

    def show(self, c):
        return layer_norm(c, self.c_gain) + self.cast(self.c_bias)
