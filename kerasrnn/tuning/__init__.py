"""Models for keras-tuner."""

from kerasrnn.tuning.hypermodel import RNNHyperModel

__all__ = ["RNNHyperModel"]
