"""Callbacks that watch the gradients of a model while it trains."""

from kerasrnn.callbacks.gradient_flow_monitor import GradientFlowMonitor
from kerasrnn.callbacks.gradient_norm_monitor import GradientNormMonitor

__all__ = ["GradientFlowMonitor", "GradientNormMonitor"]
