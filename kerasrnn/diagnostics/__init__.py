"""What a model does with its input, looked at from outside.

Under Keras's JAX and PyTorch backends all but `health_report` and its `HealthReport` work.
"""

from kerasrnn.backends import tensorflow_only, tf
from kerasrnn.diagnostics.causality import Causality, is_causal
from kerasrnn.diagnostics.flow import GradientFlow, gradient_flow
from kerasrnn.diagnostics.health.verdict import Verdict
from kerasrnn.diagnostics.spectrum import (
    gradient_bound,
    lyapunov_exponent,
    recurrent_jacobian,
    spectral_radius,
)

if tf:
    from kerasrnn.diagnostics.health.report import HealthReport, health_report
else:
    HealthReport, health_report = (
        tensorflow_only(
            f"kerasrnn.diagnostics.{name}",
            "save the model as .keras, and under KERAS_BACKEND=tensorflow load it with "
            "compile=False and compile it",
        )
        for name in ("HealthReport", "health_report")
    )

__all__ = [
    "Causality",
    "GradientFlow",
    "HealthReport",
    "Verdict",
    "gradient_bound",
    "gradient_flow",
    "health_report",
    "is_causal",
    "lyapunov_exponent",
    "recurrent_jacobian",
    "spectral_radius",
]
