import keras

from kerasrnn.cells.base import Cell


class LinearCell(Cell):
    """A linear recurrence, whose step follows from its coefficients.

        h_t = a_t ∘ h_{t-1} + b_t

    a_t and b_t depend on the input alone, so that all steps can be computed at once (Martin &
    Cundy, 2018). A subclass has `coefficients` in the place of `step`; complex states are two, re
    and im. Where all else is in half precision, coefficients and states are in float32; called by
    itself, such a cell gives half precision for half precision, which Keras's loop needs.

    Args: those of `kerasrnn.cells.Cell` that a cell without recurrent kernel has.

    Source: Martin & Cundy (2018), "Parallelizing Linear Recurrent Neural Nets Over Sequence
    Length", section 2.

    Example:

    >>> class LeakyCell(kerasrnn.cells.LinearCell):
    ...     gates, recurrent_gates = ("x",), ()
    ...
    ...     def coefficients(self, x):
    ...         return 0.9 * keras.ops.ones_like(x), 0.1 * x
    >>> kerasrnn.layers.RNN(LeakyCell(4))(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 4])
    """

    linear = True

    @property
    def state_dtype(self):
        """No half precision, in which an a_t near 1 would be 1 or more, and a sum of many steps
        would not grow."""
        if not self.linear:
            return super().state_dtype
        return keras.backend.result_type(self.compute_dtype, "float32")

    def coefficients(self, x):
        """a_t and b_t.

        Args:
            x: The projected input of one step or of many, (..., gates * units).

        Returns:
            a and b, each (..., units), or where the states are complex each a pair (re, im) of
            such. Where a does not depend on the step it is (units,).
        """
        raise NotImplementedError

    def step(self, x, states, product):
        a, b = self.coefficients(x)
        if len(states) == 1:
            (h,) = states
            return (a * h + product.drop(b),)
        (re, im), (a_re, a_im), (b_re, b_im) = states, a, b
        return (
            a_re * re - a_im * im + product.drop(b_re),
            a_re * im + a_im * re + product.drop(b_im),
        )
