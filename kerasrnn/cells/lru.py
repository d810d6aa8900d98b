import math

import keras
from keras import ops

from kerasrnn.arguments import real_number
from kerasrnn.cells.base import NO_RECURRENT_KERNEL
from kerasrnn.cells.linear import LinearCell
from kerasrnn.initializers import normal

_LECUN_NORMAL = normal(1.0)


@keras.saving.register_keras_serializable("kerasrnn")
class LRUCell(LinearCell):
    """Linear recurrent unit (Orvieto et al., 2023, section 3): a linear recurrence with a complex
    diagonal matrix.

        λ = exp(-exp(ν) + i exp(θ))                    |λ| < 1 for every ν: stable
        h_t = λ ∘ h_{t-1} + exp(γ) ∘ (B x_t)           new state, complex: re, im
        y_t = Re(C h_t) + D x_t                        output

    λ starts even on the ring r_min <= |λ| <= r_max with a phase in [0, max_phase), and γ at
    log √(1 - |λ|²), so that the state is as large as the input (section 3.4). As in the paper's
    code (appendix A), the parts of B start from N(0, 1 / (2 features)), those of C from
    N(0, 1 / units). It has a diagonal D ~ N(0, 1); here D is full, and D x_t starts as large.
    Zoneout keeps both parts of h_{t-1} or neither.

    Weights: `kernel` (features, 3 units): the real and the imaginary part of B, then D; with
    `use_bias`, which the paper does not have, `bias` (3 units); `nu_log` ν, `theta_log` θ,
    `gamma_log` γ (units); `output_kernel_re`, `output_kernel_im` (units, units): C.

    Args: those of `kerasrnn.cells.Cell` that a cell without activations and recurrent kernel has.
        r_min, r_max: The ring, 0 <= r_min < r_max <= 1. Default: 0 and 1.
        max_phase: Above 0, and at most 2π, the default.
        kernel_initializer: Of B and D. Default: `kerasrnn.initializers.LRUKernel()`.
        output_initializer: Of the parts of C. Default: N(0, 1 / units).

    Raises:
        ValueError: the ring is none, or `max_phase` lies outside (0, 2π].

    Example:

    >>> cell = kerasrnn.cells.LRUCell(4)
    >>> y, states = cell(np.ones((2, 3), "float32"), cell.get_initial_state(2))
    >>> y.shape
    TensorShape([2, 4])
    """

    gates = ("re", "im", "d")
    recurrent_gates = ()
    states = ("re", "im")
    candidate = "re"
    zoned = ("h",)
    lacks = (*NO_RECURRENT_KERNEL, "activation", "recurrent_activation")
    identity = ("activation",)
    # They say where the weights start.
    outside_step = LinearCell.outside_step | {"r_min", "r_max", "max_phase", "output_initializer"}
    paper = "Orvieto et al., 2023"

    def __init__(
        self,
        units,
        r_min=0.0,
        r_max=1.0,
        max_phase=2 * math.pi,
        use_bias=False,
        kernel_initializer="kerasrnn>LRUKernel",
        output_initializer=_LECUN_NORMAL,
        **kwargs,
    ):
        self._configure(__class__, locals())
        self.r_min, self.r_max = real_number("r_min", r_min), real_number("r_max", r_max)
        if not 0 <= self.r_min < self.r_max <= 1:
            raise ValueError(
                "`r_min` and `r_max` must be the radii of a ring in the unit circle, "
                f"0 <= r_min < r_max <= 1. Received: r_min={r_min!r}, r_max={r_max!r}"
            )
        self.max_phase = real_number(
            "max_phase", max_phase, "lie in (0, 2π]", lambda v: 0 < v <= 2 * math.pi
        )

    def build_own(self, input_shape):
        shape, square = (self.units,), (self.units, self.units)
        uniform = keras.random.uniform(shape, seed=self.seed_generator)
        radius_squared = self.r_min**2 + (self.r_max**2 - self.r_min**2) * uniform
        # An |λ| of 0 or 1 has no logarithms.
        radius_squared = ops.clip(radius_squared, 1e-6, 1 - 1e-6)
        phase = self.max_phase * keras.random.uniform(shape, 1e-6, 1.0, seed=self.seed_generator)
        start = {
            "nu_log": ops.log(-0.5 * ops.log(radius_squared)),
            "theta_log": ops.log(phase),
            "gamma_log": 0.5 * ops.log(1 - radius_squared),
        }
        for name, value in start.items():

            def initializer(shape, dtype=None, value=value):
                return ops.cast(value, dtype)

            # As exact as they are: |λ| is close to 1.
            weight = self.add_weight(shape, initializer, name=name, autocast=False)
            setattr(self, name, weight)
        self.output_kernel_re, self.output_kernel_im = (
            self.add_weight(
                square, self.output_initializer, name=f"output_kernel_{part}", autocast=False
            )
            for part in self.states
        )

    def coefficients(self, x):
        radius, phase = ops.exp(-ops.exp(self.nu_log)), ops.exp(self.theta_log)
        a = self.cast(radius * ops.cos(phase)), self.cast(radius * ops.sin(phase))
        re, im, _ = self.split(x, ("re",), ("im",), ("d",))
        gamma = self.cast(ops.exp(self.gamma_log))
        return a, (gamma * re, gamma * im)

    def output(self, x, states):
        re, im = states
        c_re, c_im = self.cast(self.output_kernel_re), self.cast(self.output_kernel_im)
        return ops.matmul(re, c_re) - ops.matmul(im, c_im) + x[..., self.columns(("d",))]
