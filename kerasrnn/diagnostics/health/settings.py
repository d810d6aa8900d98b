"""What is set in a model and its training, so that advice does not name it again."""

import collections
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import tree

from kerasrnn.cells import Cell, LinearCell
from kerasrnn.initializers import Chrono
from kerasrnn.inside import layers_directly_in, recurrent_paths
from kerasrnn.keras_cells import declarations
from kerasrnn.layers import DenselyConnected, Highway, Residual
from kerasrnn.updates.clip_in_force import ClipInForce
from kerasrnn.updates.optimizers import innermost

# How the layers are counted whose class changes with the cell.
RECURRENT = "recurrent"


class LayerSettings(NamedTuple):
    """What is set in a recurrent layer.

    Attributes:
        cell: The class of its cell, as "LSTM".
        gates: Whether the cell has a gate that keeps or writes its state.
        linear: Whether it is a linear recurrence.
        memory: `T_max` of the Chrono its gates started from; `None` with another initializer.
        gain: That of the orthogonal initializer its recurrent weights came from; `None` with
            another.
        activation: The name of its activation; `None` where it has none.
        normalization: Whether it normalizes.
        of_keras: Whether the cell is one of Keras's.
    """

    cell: str
    gates: bool
    linear: bool
    memory: float | None
    gain: float | None
    activation: str | None
    normalization: bool
    of_keras: bool

    @classmethod
    def of(cls, cell):
        """Those of a cell."""
        declared = declarations(cell)
        bias = getattr(cell, "bias_initializer", None)
        recurrent = getattr(cell, "recurrent_initializer", None)
        orthogonal = isinstance(recurrent, keras.initializers.Orthogonal)
        return cls(
            type(cell).__name__.removesuffix("Cell"),
            bool(declared.keeps or declared.writes),
            isinstance(cell, LinearCell),
            bias.T_max if isinstance(bias, Chrono) else None,
            recurrent.gain if orthogonal else None,
            getattr(getattr(cell, "activation", None), "__name__", None),
            getattr(cell, "normalization", None) is not None,
            not isinstance(cell, Cell),
        )


class Settings(NamedTuple):
    """What is set in a model and its training.

    Attributes:
        optimizer: The class of the optimizer, `None` without one.
        rate: The learning rate, of the training's last update where a monitor knows it; `None`
            where it is not known.
        clip: The `ClipInForce`, or `None`.
        guard: Whether a DivergenceGuard was there; `None` without a monitor.
        loss: The name of the loss.
        inputs, targets: Their shapes without the batch.
        scale_of_inputs, scale_of_targets: The root mean square of the numbers in them that are
            finite; `None` of those that are no floats.
        layers: The `LayerSettings` of each recurrent layer's cell, by its path.
        mean_of_inputs, mean_of_targets: The mean of these numbers, or `None`.
        normalized: Whether the first layer that changes the inputs brings them to a scale.
        places: By the path of each layer, what tells it from the others in a net that is built
            again, where its name may be another: RECURRENT or its class, and its number among them.
        connected: The number of connections between layers: `Residual`, `Highway`,
            `DenselyConnected`.
    """

    optimizer: str | None = None
    rate: float | None = None
    clip: ClipInForce | None = None
    guard: bool | None = None
    loss: str | None = None
    inputs: tuple = ()
    targets: tuple = ()
    scale_of_inputs: float | None = None
    scale_of_targets: float | None = None
    layers: Any = None
    connected: int = 0
    places: Any = None
    normalized: bool = False
    mean_of_inputs: float | None = None
    mean_of_targets: float | None = None

    def of_cells(self, name):
        """What each recurrent layer has of a setting, in their order."""
        return tuple(getattr(layer, name) for layer in (self.layers or {}).values())

    @property
    def by_name(self):
        """What an `Advice` can name as its setting, in words, with what it is set to; `None` where
        that is not known, and a tuple where each recurrent layer has its own."""
        return {
            "optimizer": self.optimizer,
            "learning rate": self.rate,
            # Without a monitor nobody knows of a clip in `fit`.
            "clip": str(self.clip) if self.clip else None if self.guard is None else "none",
            "DivergenceGuard": self.guard,
            "cells": self.of_cells("cell"),
            "bias initializer": tuple(
                None if T is None else f"Chrono({T:g})" for T in self.of_cells("memory")
            ),
            "gain of the orthogonal initializer": self.of_cells("gain"),
            "normalization": self.of_cells("normalization"),
            "connections": self.connected,
            "scale of the inputs": _rounded(self.scale_of_inputs),
            "scale of the targets": _rounded(self.scale_of_targets),
        }


def _rounded(number):
    return None if number is None else float(f"{number:.1g}")


def of_training(record):
    """What the `GradientRecord` of a training alone shows."""
    if record is None:
        return Settings()
    known = record.rate[np.isfinite(record.rate)]
    rate = float(f"{known[-1]:.6g}") if len(known) else None
    return Settings(rate=rate, clip=record.clip, guard=record.skipped is not None)


def of_model(model, x, y, record):
    """The `Settings` of a compiled model at a batch, and of its training, if there is a record."""
    trained = of_training(record)
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        optimizer = innermost(optimizer)
    loss = model.loss
    return Settings(
        type(optimizer).__name__ if optimizer is not None else None,
        trained.rate if record is not None else _rate(optimizer),
        trained.clip if record is not None else optimizer and ClipInForce.of(optimizer),
        trained.guard,
        loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", None)),
        _shapes(x),
        _shapes(y),
        _scale(x),
        _scale(y),
        {path: LayerSettings.of(layer.cell) for path, layer, _ in recurrent_paths(model)},
        _connections(model),
        _places(model),
        _normalized(model),
        _mean(x),
        _mean(y),
    )


def _rate(optimizer):
    rate = getattr(optimizer, "learning_rate", None)
    return None if rate is None else float(f"{float(rate):.6g}")


def _shapes(batch):
    return tuple(tuple(part.shape[1:]) for part in tree.flatten(batch) if part is not None)


def _finite_numbers(batch):
    """Of each part of floats those that are finite."""
    parts = [np.asarray(part) for part in tree.flatten(batch) if part is not None]
    parts = [part for part in parts if np.issubdtype(part.dtype, np.floating)]
    finite = [part[np.isfinite(part)].astype("float64") for part in parts]
    return [part for part in finite if part.size]


def _scale(batch):
    squares = [np.mean(part**2) for part in _finite_numbers(batch)]
    return float(np.sqrt(np.mean(squares))) if squares else None


def _mean(batch):
    means = [np.mean(part) for part in _finite_numbers(batch)]
    return float(np.mean(means)) if means else None


def _normalized(model):
    bring_to_scale = (
        keras.layers.BatchNormalization,
        keras.layers.GroupNormalization,
        keras.layers.LayerNormalization,
        keras.layers.Normalization,
        keras.layers.RMSNormalization,
        keras.layers.Rescaling,
        keras.layers.UnitNormalization,
    )
    for _, layer in _paths(model):
        if isinstance(layer, bring_to_scale):
            return True
        if layer.variables and not layers_directly_in(layer):
            return False
    return False


def _connections(layer):
    kinds = Residual, Highway, DenselyConnected
    return sum(isinstance(one, kinds) + _connections(one) for one in layers_directly_in(layer))


def _places(model):
    of_layers, counts = {}, collections.Counter()
    recurrent = recurrent_paths(model)
    for number, (_, layer, _) in enumerate(recurrent):
        of_layers[id(layer)] = RECURRENT, number
    places = {path: of_layers[id(layer)] for path, layer, _ in recurrent}
    for path, layer in _paths(model):
        kind = type(layer).__name__
        if id(layer) not in of_layers:
            of_layers[id(layer)] = kind, counts[kind]
            counts[kind] += 1
        places[path] = of_layers[id(layer)]
    return places


def _paths(layer, path=()):
    """The path by names of every layer inside one, but for those inside a recurrent layer."""
    for part in layers_directly_in(layer):
        here = (*path, part.name)
        yield "/".join(here), part
        if not isinstance(part, keras.layers.RNN):
            yield from _paths(part, here)
