import keras

from kerasrnn.cells.gru import GRUCell


@keras.saving.register_keras_serializable("kerasrnn")
class LayerNormGRUCell(GRUCell):
    """Gated recurrent unit with layer normalization (Ba, Kiros & Hinton, 2016, supplement,
    equations 26 to 28).

        (z_t, r_t) = LN(W_zr x_t; α_x) + b_zr + LN(U_zr h_{t-1}; α_h) + b'_zr
        g_t = tanh(LN(W_g x_t; α_x) + b_g + σ(r_t) ∘ (LN(U_g h_{t-1}; α_h) + b'_g))
        h_t = (1 - σ(z_t)) ∘ h_{t-1} + σ(z_t) ∘ g_t

    LN as in `LayerNormLSTMCell`; the gates share a mean and a variance, the candidate has its own.
    haste's `LayerNormGRU` normalizes z, r and g together, so that it gives other numbers from the
    same weights. The paper's LN has biases β, which b and b' stand for; its authors' code has a
    further b inside, LN(W x_t + b; α_x). There the update gate keeps, as with `update_gate="keep"`,
    and U starts orthogonal gate by gate, as `kerasrnn.initializers.PerGate()` gives it.

    Weights: those of `GRUCell`, then `kernel_gain` α_x and `recurrent_gain` α_h (3 units).

    Args: those of `GRUCell`, of which this is `normalization="layer"` and `update_gate="write"`.

    Raises:
        ValueError: `normalization` is not `"layer"`.

    Example:

    >>> cell = kerasrnn.cells.LayerNormGRUCell(4)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    normalizations = ("layer",)
    paper = "Ba et al., 2016"

    def __init__(self, units, normalization="layer", update_gate="write", **kwargs):
        self._configure(__class__, locals())
