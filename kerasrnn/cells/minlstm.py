import keras
from keras import ops

from kerasrnn.cells.base import NO_RECURRENT_KERNEL
from kerasrnn.cells.linear import LinearCell


@keras.saving.register_keras_serializable("kerasrnn")
class MinLSTMCell(LinearCell):
    """Minimal LSTM (Feng et al., 2024, section 3.2): a linear recurrence.

        f_t = σ(W_f x_t + b_f)                         forget gate
        i_t = σ(W_i x_t + b_i)                         input gate
        g_t = W_g x_t + b_g                            candidate
        h_t = f_t / (f_t + i_t) ∘ h_{t-1} + i_t / (f_t + i_t) ∘ g_t     new state, and the output

    f / (f + i) is computed as σ(log f - log i), which does not divide by zero where both gates
    close. The paper's form in logarithms (appendix B) has `activation="g"`, as said of
    `MinGRUCell`. Its authors' code starts W and b as PyTorch does, from U[-1, 1] / √features, and
    can raise b_f, as `kerasrnn.initializers.ForgetBias(value)` does; here they start as Keras's.

    Weights: `kernel` W (features, 3 units), `bias` b (3 units), blocks in the order f, i, g.

    Args: those of `kerasrnn.cells.Cell` but for `recurrent_activation`; `activation` is applied to
        g_t, by default none.

    Example:

    >>> cell = kerasrnn.cells.MinLSTMCell(4)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    gates = ("f", "i", "g")
    recurrent_gates = ()
    candidate = "g"
    keeps = ("f",)
    writes = ("i",)
    lacks = (*NO_RECURRENT_KERNEL, "recurrent_activation")
    paper = "Feng et al., 2024"

    def __init__(self, units, activation="linear", **kwargs):
        self._configure(__class__, locals())

    def coefficients(self, x):
        f, i, g = self.split(x, "f", "i", "g")
        log_ratio = ops.log_sigmoid(f) - ops.log_sigmoid(i)
        return ops.sigmoid(log_ratio), ops.sigmoid(-log_ratio) * self.activation(g)
