import keras
from keras import ops

from kerasrnn.cells.lstm import LSTMCell


@keras.saving.register_keras_serializable("kerasrnn")
class PeepholeLSTMCell(LSTMCell):
    """LSTM whose gates look at the cell state (Gers & Schmidhuber, 2000, "Recurrent nets that time
    and count").

        i_t = σ(W_i x_t + U_i h_{t-1} + p_i ∘ c_{t-1} + b_i)
        f_t = σ(W_f x_t + U_f h_{t-1} + p_f ∘ c_{t-1} + b_f)
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        c_t = f_t ∘ c_{t-1} + i_t ∘ g_t
        o_t = σ(W_o x_t + U_o h_{t-1} + p_o ∘ c_t + b_o)
        h_t = o_t ∘ tanh(c_t)

    The paper shows c_t itself, h_t = o_t ∘ c_t; the tanh is that of Graves (2013, equations 7 to
    11), and of TensorFlow 1's `LSTMCell(use_peepholes=True)`, which adds a constant 1 inside of the
    σ of f_t at every step, as said of `LSTMCell`, and starts p at random, as its kernel. The net
    here starts as a plain LSTM, with p = 0.

    Weights: those of `LSTMCell`, and `peephole` p (3 units) in the order i, f, o.

    Args: those of `LSTMCell`.

    Example:

    >>> cell = kerasrnn.cells.PeepholeLSTMCell(4)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    paper = "Gers & Schmidhuber, 2000"

    def build_own(self, input_shape):
        self.peephole = self.add_weight((3 * self.units,), "zeros", name="peephole")

    def step(self, x, states, product):
        h, c = states
        p_i, p_f, p_o = ops.split(self.cast(self.peephole), 3)
        i, f, g, o = self.split(x + product("ifgo", h), "i", "f", "g", "o")

        i = self.recurrent_activation(i + p_i * c)
        f = self.recurrent_activation(f + p_f * c)
        g = product.drop(self.activation(g))
        c = f * c + i * g
        o = self.recurrent_activation(o + p_o * c)
        return o * self.activation(c), c
