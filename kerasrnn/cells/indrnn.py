import keras

from kerasrnn.cells.base import Cell

_FROM_0_TO_1 = {"class_name": "RandomUniform", "config": {"minval": 0.0, "maxval": 1.0}}


@keras.saving.register_keras_serializable("kerasrnn")
class IndRNNCell(Cell):
    """Independently recurrent network (Li et al., 2018): each unit sees its own past
    only.

        h_t = relu(W x_t + u ∘ h_{t-1} + b)        new state, and the output

    Its authors start with u ~ U[0, 1] and let |u| be 2^(1/T) at most for sequences of T steps; a
    `recurrent_constraint` can see to that here. Their W starts as their framework or experiment
    has it, in PyTorch U[-1, 1] / √features; here it is Keras's. b = 0 in both.

    Weights: `kernel` W (features, units), `recurrent_kernel` u (units), `bias` b (units).

    Args: those of `kerasrnn.cells.Cell`; `activation` takes the place of relu.

    Raises:
        ValueError: at build, `recurrent_initializer` is one for matrices, as `"orthogonal"`.

    Example:

    >>> cell = kerasrnn.cells.IndRNNCell(4)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    gates = ("h",)
    recurrent_gates = ()
    lacks = ("recurrent_activation", "vanishing_gradient_regularization")
    paper = "Li et al., 2018"

    def __init__(
        self,
        units,
        activation="relu",
        recurrent_initializer=_FROM_0_TO_1,
        **kwargs,
    ):
        self._configure(__class__, locals())

    def build_own(self, input_shape):
        self.recurrent_kernel = self._add("recurrent_kernel", (self.units,), self._initial)

    def _initial(self, shape, dtype=None):
        try:
            return self.recurrent_initializer(shape, dtype=dtype)
        except ValueError as error:
            raise ValueError(
                "`recurrent_initializer` of IndRNNCell must be one for vectors, (units,). "
                f"Received: recurrent_initializer={self.recurrent_initializer}"
            ) from error

    def step(self, x, states, product):
        (h,) = states
        return (self.activation(x + self.cast(self.recurrent_kernel) * h),)
