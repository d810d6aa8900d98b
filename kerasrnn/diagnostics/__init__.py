"""What a model does with its input, looked at from outside."""

from kerasrnn.diagnostics.causality import Causality, is_causal
from kerasrnn.diagnostics.flow import GradientFlow, gradient_flow
from kerasrnn.diagnostics.health.report import HealthReport, health_report
from kerasrnn.diagnostics.health.verdict import Verdict
from kerasrnn.diagnostics.spectrum import (
    gradient_bound,
    lyapunov_exponent,
    recurrent_jacobian,
    spectral_radius,
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
