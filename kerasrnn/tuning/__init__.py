"""Models for keras-tuner, and its tuners as searches that survive.

A model is one of a `hypermodel` (`tasks`, `network`, `space`, `optimizers`, `size`, `data`). What a
search is made of: its tuner (`search`, and `searches`, the four of them), which asks an oracle
(`oracles`) for hyperparameters and trains a trial, kept on disk after each epoch (`keeping`,
`folder`) and given up where it is lost (`healthy`); and what it shows (`progress`, `table`).
"""

from kerasrnn.tuning.healthy import HealthyObjective
from kerasrnn.tuning.hypermodel import RNNHyperModel
from kerasrnn.tuning.searches import BayesianOptimization, GridSearch, Hyperband, RandomSearch

__all__ = [
    "BayesianOptimization",
    "GridSearch",
    "HealthyObjective",
    "Hyperband",
    "RNNHyperModel",
    "RandomSearch",
]
