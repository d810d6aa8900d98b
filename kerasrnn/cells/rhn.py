import keras

from kerasrnn.arguments import positive_integer
from kerasrnn.cells.base import Cell


@keras.saving.register_keras_serializable("kerasrnn")
class RHNCell(Cell):
    """Recurrent highway network (Zilly et al., 2017, section 4, equations 6 to 9), with the carry
    gate coupled to the transform gate, c = 1 - t, as in the paper's experiments.

        s_0 = h_{t-1}
        h_l = tanh(W_h x_t [l = 1] + R_hl s_{l-1} + b_hl)      candidate at depth l = 1 ... depth
        t_l = σ(W_t x_t [l = 1] + R_tl s_{l-1} + b_tl)         transform gate: how much to write
        s_l = h_l ∘ t_l + s_{l-1} ∘ (1 - t_l)
        h_t = s_depth                                          new state, and the output

    Its authors' code starts with b_tl at -2 or -4, by experiment, as
    `kerasrnn.initializers.ForgetBias(2.0)` and `ForgetBias(4.0)` do, and with all other weights
    from U[-0.04, 0.04]; here b = 0, and the others start as Keras's.

    Weights: `kernel` W (features, 2 units), in the order h, t; `recurrent_kernel` R (units,
    2 depth units) and `bias` b (2 depth units) in the order h_1, t_1, h_2, t_2 ...

    Args: those of `kerasrnn.cells.Cell`; `recurrent_activation` takes the place of σ, `activation`
        that of tanh.
        depth: Positive integer, number of layers in a step. Default: 3.

    Example:

    >>> cell = kerasrnn.cells.RHNCell(4, depth=2)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    gates = ("h1", "t1")
    candidate = "h1"
    paper = "Zilly et al., 2017"

    def __init__(self, units, depth=3, **kwargs):
        self._configure(__class__, locals())

    def _check_options(self):
        self.depth = positive_integer("depth", self.depth)
        super()._check_options()

    @property
    def recurrent_gates(self):
        return tuple(f"{gate}{level + 1}" for level in range(self.depth) for gate in "ht")

    @property
    def normalized_together(self):
        return tuple(zip(self.recurrent_gates[::2], self.recurrent_gates[1::2], strict=True))

    @property
    def bias_gates(self):
        return self.recurrent_gates

    @property
    def gated(self):
        return self.recurrent_gates[1::2]

    @property
    def writes(self):
        return self.gated

    def input_bias(self):
        return None

    def recurrent_bias(self):
        return self.bias

    def step(self, x, states, product):
        (s,) = states
        for level in range(self.depth):
            h, t = gates = self.recurrent_gates[2 * level : 2 * level + 2]
            u = product(gates, s)
            h, t = self.split(u if level else x + u, (h,), (t,))

            h = product.drop(self.activation(h))
            t = self.recurrent_activation(t)
            s = h * t + s * (1 - t)
        return (s,)
