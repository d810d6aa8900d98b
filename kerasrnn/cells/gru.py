import keras
import numpy as np
from keras import ops

from kerasrnn.arguments import one_of
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

    With `update_gate="write"` the update gate says how much to write instead of how much to keep,
    as in CS224N 2019, lecture 7 (there called u), and in Chung et al. (2014), section 3.2:

        h_t = (1 - z_t) ∘ h_{t-1} + z_t ∘ g_t

    Keras, cuDNN and PyTorch have the first form. Since 1 - σ(a) = σ(-a), the two are one net under
    a change of sign: see `flip_update_gate`.

    Shapes: x_t (batch, features); h_t, z_t, r_t, g_t (batch, units).

    Weights: `kernel` W (features, 3 units), `recurrent_kernel` U (units, 3 units), `bias` b
    (3 units), or b and b' (2, 3 units) with `reset_after=True`; gates in the order z, r, g, as in
    `keras.layers.GRUCell` (where g is called h).

    Args: those of `keras.layers.GRUCell`, described in `kerasrnn.cells.Cell`;
        `recurrent_activation` takes the place of σ, `activation` that of tanh.
        reset_after: Whether the reset gate acts after the product with U_g, or before it as in the
            paper. Default: `True`.
        update_gate: `"keep"` or `"write"`. Default: `"keep"`.

    Raises:
        ValueError: `units` is not a positive integer, a dropout rate lies outside [0, 1), or
            `update_gate` is neither of the two.

    Example:

    >>> cell = kerasrnn.cells.GRUCell(4)
    >>> h, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> h.shape
    TensorShape([2, 4])
    """

    gates = ("z", "r", "g")
    states = ("h",)
    candidate = "g"
    normalized_together = ("zr", "g")
    paper = "Cho et al., 2014"

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
        update_gate="keep",
        **kwargs,
    ):
        self._configure(__class__, locals())
        self.update_gate = one_of(("keep", "write"), "update_gate", update_gate)

    @property
    def keeps(self):
        return ("z",) if self.update_gate == "keep" else ()

    @property
    def writes(self):
        return ("z",) if self.update_gate == "write" else ()

    def initial_bias(self, shape, dtype=None):
        bias = super().initial_bias(shape, dtype)
        if bias.shape == shape:
            return bias
        return ops.stack([bias, ops.zeros_like(bias)])

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
        x_z, x_r, x_g = self.split(x, "z", "r", "g")

        if self.reset_after:
            u_z, u_r, u_g = self.split(product("zrg", h), "z", "r", "g")
        else:
            u_z, u_r = self.split(product("zr", h), "z", "r")
        z, r = self.recurrent_activation(x_z + u_z), self.recurrent_activation(x_r + u_r)
        g = self.activation(x_g + (r * u_g if self.reset_after else product("g", r * h)))
        g = product.drop(g)
        if self.update_gate == "write":
            return ((1 - z) * h + z * g,)
        return (z * h + (1 - z) * g,)


def flip_update_gate(weights):
    """Turns the weights of a GRU that keeps by its update gate into those of one that writes by it,
    and the other way round.

        1 - σ(W_z x + U_z h + b_z) = σ(-W_z x - U_z h - b_z)

    Args:
        weights: What `get_weights()` of one layer, or of one direction of a `Bidirectional`, gives:
            kernel, recurrent kernel and, if there is one, bias.

    Returns:
        The weights, of the same shapes, with the sign of all that belongs to z changed.

    Raises:
        ValueError: `weights` are not those of one GRU.

    Example:

    >>> keep = kerasrnn.layers.GRU(4)
    >>> write = kerasrnn.layers.GRU(4, update_gate="write")
    >>> keep.build((None, None, 3)), write.build((None, None, 3))
    (None, None)
    >>> write.set_weights(kerasrnn.cells.flip_update_gate(keep.get_weights()))
    """
    listed = weights if isinstance(weights, list | tuple) else []
    shapes = [tuple(getattr(weight, "shape", ())) for weight in listed]
    match shapes:
        case [(_, width), (units, other), *bias]:
            fits = width == other == 3 * units and bias in ([], [(width,)], [(2, width)])
        case _:
            fits = False
    if not fits:
        raise ValueError(
            "`weights` must be a list of a GRU's arrays: a kernel (features, 3 units), a recurrent "
            "kernel (units, 3 units) and, if there is one, a bias; call this once per layer or "
            f"direction. Received: a {type(weights).__name__} of the shapes {shapes}"
        )
    z_first = np.repeat([-1, 1, 1], units)
    return [array * z_first.astype(array.dtype) for array in map(np.asarray, weights)]
