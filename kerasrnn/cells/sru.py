import math

import keras
from keras import ops

from kerasrnn.cells.base import NO_RECURRENT_KERNEL
from kerasrnn.cells.linear import LinearCell
from kerasrnn.initializers import SRUKernel


@keras.saving.register_keras_serializable("kerasrnn")
class SRUCell(LinearCell):
    """Simple recurrent unit (Lei et al., 2018).

        g_t = W_g x_t + b_g                                      candidate, the paper's W x_t
        f_t = σ(W_f x_t + v_f ∘ c_{t-1} + b_f)                   forget gate
        r_t = σ(W_r x_t + v_r ∘ c_{t-1} + b_r)                   reset gate
        c_t = f_t ∘ c_{t-1} + (1 - f_t) ∘ g_t                    new cell state
        h_t = r_t ∘ c_t + (1 - r_t) ∘ (W_x x_t + b_x)            output, with a highway connection

    With `peephole=False`, the form of 2017 (Lei & Zhang, arXiv 1709.02755v2), v = 0: no gate sees
    the state, so it is a linear recurrence and skips the loop, which the published form cannot. In
    that form the output has an activation of c_t, as `activation="tanh"` gives.

    The paper's highway connection has x_t itself, W_x = I, for which features and units have to be
    the same; where they differ its authors' code has a W_x, too. That code also scales x_t, or W_x
    at first, by √3 (`rescale`). Neither has b_g and b_x.

    The cell starts as that code does: W as `kerasrnn.initializers.SRUKernel` says,
    v ~ √½ U[-√3, √3], b = 0.

    Weights: `kernel` W (features, 4 units) and `bias` b (4 units), blocks in the order g, f, r, x;
    with the peephole `peephole` v (2 units), in the order f, r.

    Args: those of `kerasrnn.cells.Cell`; `recurrent_activation` takes the place of σ; `activation`
        is applied to c_t in h_t, by default none.
        peephole: Whether the gates see the state. Default: `True`.
        kernel_initializer: Default: `None`, for `kerasrnn.initializers.SRUKernel(peephole)`.

    Example:

    >>> cell = kerasrnn.cells.SRUCell(4)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    gates = ("g", "f", "r", "x")
    recurrent_gates = ()
    candidate = "g"
    gated = ("f", "r")
    keeps = ("f",)
    lacks = NO_RECURRENT_KERNEL
    paper = "Lei et al., 2018"
    linear_if = "with peephole=False"

    def __init__(
        self, units, activation="linear", peephole=True, kernel_initializer=None, **kwargs
    ):
        self._configure(__class__, locals())

    def _check_options(self):
        if self.kernel_initializer is None:
            self.kernel_initializer = SRUKernel(self.peephole)
        super()._check_options()

    @property
    def states(self):
        # What the peephole shows of c_{t-1} is gone when `output` sees c_t.
        return ("h", "c") if self.peephole else ("c",)

    # No step looks at h.
    learnable = ("c",)

    @property
    def linear(self):
        return not self.peephole

    def build_own(self, input_shape):
        def initializer(shape, dtype=None):
            limit = math.sqrt(3 / 2)
            return keras.random.uniform(shape, -limit, limit, dtype, self.seed_generator)

        if self.peephole:
            self.peephole_kernel = self.add_weight((2 * self.units,), initializer, name="peephole")

    def step(self, x, states, product):
        if not self.peephole:
            return super().step(x, states, product)
        _, c = states
        v_f, v_r = ops.split(self.cast(self.peephole_kernel), 2)
        g, f, r, x = self.split(x, "g", "f", "r", "x")

        f = self.recurrent_activation(f + v_f * c)
        r = self.recurrent_activation(r + v_r * c)
        c = f * c + product.drop((1 - f) * g)
        return r * self.activation(c) + (1 - r) * x, c

    def coefficients(self, x):
        g, f, _, _ = self.split(x, "g", "f", "r", "x")
        f = self.recurrent_activation(f)
        return f, (1 - f) * g

    def output(self, x, states):
        if self.peephole:
            return super().output(x, states)
        (c,) = states
        _, _, r, x = self.split(x, "g", "f", "r", "x")
        r = self.recurrent_activation(r)
        return r * self.activation(c) + (1 - r) * x
