import keras

from kerasrnn.cells.base import NO_RECURRENT_KERNEL
from kerasrnn.cells.linear import LinearCell


@keras.saving.register_keras_serializable("kerasrnn")
class QRNNCell(LinearCell):
    """Quasi-recurrent network with fo-pooling (Bradbury et al., 2017), a linear recurrence.

        z_t = tanh(W_z x_t + b_z)                      candidate
        f_t = σ(W_f x_t + b_f)                         forget gate
        o_t = σ(W_o x_t + b_o)                         output gate
        c_t = f_t ∘ c_{t-1} + (1 - f_t) ∘ z_t          new state
        h_t = o_t ∘ c_t                                output

    The paper's W are convolutions over the last k steps; this is k = 1. A causal
    `keras.layers.Conv1D` before the layer gives wider windows. The paper has no biases.

    Its authors' code for PyTorch (salesforce's pytorch-qrnn) has the opposite f, which writes,
    c_t = (1 - f_t) ∘ c_{t-1} + f_t ∘ z_t: W_f and b_f from there change their sign here. It starts
    W and b as PyTorch does, from U[-1, 1] / √features; here they start as Keras's.

    Weights: `kernel` W (features, 3 units), `bias` b (3 units), blocks in the order z, f, o.

    Args: those of `kerasrnn.cells.Cell`; `recurrent_activation` takes the place of σ, `activation`
        that of tanh.

    Example:

    >>> cell = kerasrnn.cells.QRNNCell(4)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    gates = ("z", "f", "o")
    recurrent_gates = ()
    states = ("c",)
    candidate = "z"
    keeps = ("f",)
    lacks = NO_RECURRENT_KERNEL
    paper = "Bradbury et al., 2017"

    def __init__(self, units, **kwargs):
        self._configure(__class__, locals())

    def coefficients(self, x):
        z, f, _ = self.split(x, "z", "f", "o")
        f = self.recurrent_activation(f)
        return f, (1 - f) * self.activation(z)

    def output(self, x, states):
        (c,) = states
        return self.recurrent_activation(x[..., self.columns("o")]) * c
