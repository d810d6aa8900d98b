import keras

from kerasrnn.cells.base import NO_RECURRENT_KERNEL
from kerasrnn.cells.linear import LinearCell


@keras.saving.register_keras_serializable("kerasrnn")
class MinGRUCell(LinearCell):
    """Minimal GRU (Feng et al., 2024, section 3.1): a linear recurrence.

        z_t = σ(W_z x_t + b_z)                         update gate: how much to write
        g_t = W_g x_t + b_g                            candidate
        h_t = (1 - z_t) ∘ h_{t-1} + z_t ∘ g_t          new state, and the output

    The paper's form in logarithms (appendix B) needs states above zero and has g(W_g x_t + b_g) for
    its candidate: `activation="g"`, which is `kerasrnn.activations.g`, gives the same numbers, as
    long as the initial state is 0 or what the paper makes of its own, g(h_0). Nothing here needs
    it. Its authors' code starts W and b as PyTorch does, from U[-1, 1] / √features; here they start
    as Keras's.

    Weights: `kernel` W (features, 2 units), `bias` b (2 units), blocks in the order z, g.

    Args: those of `kerasrnn.cells.Cell`; `recurrent_activation` takes the place of σ; `activation`
        is applied to g_t, by default none.

    Example:

    >>> cell = kerasrnn.cells.MinGRUCell(4)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    gates = ("z", "g")
    recurrent_gates = ()
    candidate = "g"
    writes = ("z",)
    lacks = NO_RECURRENT_KERNEL
    paper = "Feng et al., 2024"

    def __init__(self, units, activation="linear", **kwargs):
        self._configure(__class__, locals())

    def coefficients(self, x):
        z, g = self.split(x, "z", "g")
        z = self.recurrent_activation(z)
        return 1 - z, z * self.activation(g)
