"""Callbacks that watch the gradients of a model while it trains, clip them and skip bad ones."""

from kerasrnn.callbacks.divergence_guard import DivergenceGuard
from kerasrnn.callbacks.gradient_clipping import GradientClipping
from kerasrnn.callbacks.gradient_flow_monitor import GradientFlowMonitor
from kerasrnn.callbacks.gradient_norm_monitor import GradientNormMonitor

__all__ = ["DivergenceGuard", "GradientClipping", "GradientFlowMonitor", "GradientNormMonitor"]
