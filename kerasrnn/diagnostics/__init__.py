"""What a model does with its input, looked at from outside."""

from kerasrnn.diagnostics.causality import Causality, is_causal

__all__ = ["Causality", "is_causal"]
