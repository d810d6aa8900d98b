import keras
from keras import ops

from kerasrnn.cells.base import NO_RECURRENT_KERNEL
from kerasrnn.cells.linear import LinearCell
from kerasrnn.initializers import normal

_LECUN_NORMAL = normal(1.0)


@keras.saving.register_keras_serializable("kerasrnn")
class RGLRUCell(LinearCell):
    """Real-gated linear recurrent unit (De et al., 2024, "Griffin", section 2.4, equations 1 to
    4): a linear recurrence.

        v_t = W_v x_t + b_v                                    input, the paper's x_t
        r_t = σ(W_r x_t + b_r)                                 recurrence gate
        i_t = σ(W_i x_t + b_i)                                 input gate
        a_t = a^{c r_t}, a = σ(Λ), c = 8
        h_t = a_t ∘ h_{t-1} + √(1 - a_t²) ∘ (i_t ∘ v_t)        new state, and the output

    The paper's x_t is as wide as the state, and is a projection already; W_v = I, b_v = 0 is the
    paper's unit. a_t and √(1 - a_t²) are computed from log a_t = c r_t log σ(Λ), where
    log σ(Λ) = -softplus(-Λ); the paper's equation 6 and its authors' code have -softplus(Λ), so
    that the code's parameter is -Λ. Λ starts with a^c even in [0.9, 0.999], as the paper has it;
    the code draws a itself from there, with a² even, has W_r and W_i in blocks (section 4.1), and
    leaves √(1 - a_t²) out at the first step. As there W ~ N(0, 1 / features) and b = 0 at first. A
    `bias_initializer` for long memory, `kerasrnn.initializers.Chrono(T_max)`, starts r near 1 / T,
    with memories 10 to 1000 times as long as in a cell with a forget gate, since a^c is near 1 by
    itself.

    Weights: `kernel` W (features, 3 units), `bias` b (3 units), blocks in the order v, r, i;
    `recurrence` Λ (units).

    Args: those of `kerasrnn.cells.Cell` but for `activation`; `recurrent_activation` takes the
        place of σ in r_t and i_t.
        kernel_initializer: Default: N(0, 1 / features), its authors'.

    Example:

    >>> cell = kerasrnn.cells.RGLRUCell(4)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    gates = ("v", "r", "i")
    recurrent_gates = ()
    candidate = "v"
    # r keeps where it is closed, and lets go and writes where it is open.
    writes = ("r",)
    lacks = (*NO_RECURRENT_KERNEL, "activation")
    identity = ("activation",)
    paper = "De et al., 2024"

    c = 8

    def __init__(self, units, kernel_initializer=_LECUN_NORMAL, **kwargs):
        self._configure(__class__, locals())

    def build_own(self, input_shape):
        def initializer(shape, dtype=None):
            power = keras.random.uniform(shape, 0.9, 0.999, seed=self.seed_generator)
            a = power ** (1 / self.c)
            return ops.cast(ops.log(a) - ops.log1p(-a), dtype)

        self.recurrence = self.add_weight(
            (self.units,), initializer, name="recurrence", autocast=False
        )

    def coefficients(self, x):
        v, r, i = self.split(x, "v", "r", "i")
        r = self.recurrent_activation(r)
        i = self.recurrent_activation(i)

        log_a = self.c * r * self.cast(ops.log_sigmoid(self.recurrence))
        rest = -ops.expm1(2 * log_a)
        # The root's slope at zero is infinite; where r is zero, so is its part in the gradient.
        some = rest > 0
        root = ops.where(some, ops.sqrt(ops.where(some, rest, 1)), 0)
        return ops.exp(log_a), root * (i * v)
