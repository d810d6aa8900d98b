import keras

from kerasrnn.cells.base import Cell


@keras.saving.register_keras_serializable("kerasrnn")
class GRUCell(Cell):
    """Gated recurrent unit (Cho et al., 2014, section 2.3).

        z_t = σ(W_z x_t + U_z h_{t-1} + b_z)               update gate: how much of h_{t-1} to keep
        r_t = σ(W_r x_t + U_r h_{t-1} + b_r)               reset gate: how much of h_{t-1} g_t sees
        g_t = tanh(W_g x_t + U_g (r_t ∘ h_{t-1}) + b_g)    candidate
        h_t = z_t ∘ h_{t-1} + (1 - z_t) ∘ g_t              new state, and the output

    With `reset_after=True`, Keras's and cuDNN's default, the reset gate acts after the product,
    and the products with the state have a bias b' of their own:

        g_t = tanh(W_g x_t + b_g + r_t ∘ (U_g h_{t-1} + b'_g))

    Shapes: x_t (batch, features); h_t, z_t, r_t, g_t (batch, units).

    Weights: `kernel` W (features, 3 units), `recurrent_kernel` U (units, 3 units), `bias` b
    (3 units), or b and b' (2, 3 units) with `reset_after=True`; gates in the order z, r, g, as in
    `keras.layers.GRUCell` (where g is called h).

    Args: those of `keras.layers.GRUCell`, described in `kerasrnn.cells.Cell`;
        `recurrent_activation` takes the place of σ, `activation` that of tanh.
        reset_after: Whether the reset gate acts after the product with U_g, or before it as in the
            paper. Default: `True`.

    Raises:
        ValueError: `units` is not a positive integer, or a dropout rate lies outside [0, 1).

    Example:

    >>> cell = kerasrnn.cells.GRUCell(4)
    >>> h, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> h.shape
    TensorShape([2, 4])
    """

    gates = ("z", "r", "g")
    states = ("h",)

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        reset_after=True,
        seed=None,
        implementation=2,
        **kwargs,
    ):
        self._configure(__class__, locals())

    @property
    def bias_shape(self):
        (width,) = super().bias_shape
        return (2, width) if self.reset_after else (width,)

    def input_bias(self):
        return self.bias[0] if self.use_bias and self.reset_after else self.bias

    def recurrent_bias(self):
        return self.bias[1] if self.use_bias and self.reset_after else None

    def step(self, x, states, product):
        (h,) = states
        x_zr, x_g = self.split(x, "zr", "g")

        if self.reset_after:
            u_zr, u_g = self.split(product("zrg", h), "zr", "g")
        else:
            u_zr = product("zr", h)
        z, r = self.split(self.recurrent_activation(x_zr + u_zr), "z", "r")
        g = self.activation(x_g + (r * u_g if self.reset_after else product("g", r * h)))
        return (z * h + (1 - z) * g,)
