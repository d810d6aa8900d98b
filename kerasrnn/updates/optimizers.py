"""The optimizer that a `fit` is watched at, and others beside it."""

import warnings

import keras

from kerasrnn.inside import layers_in


def innermost(optimizer):
    """The optimizer inside those that wrap it, as for loss scaling."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


class OtherOptimizers:
    """Those that a model or a layer in it holds beside the one it was compiled with, as a GAN does
    for its discriminator. No callback of this package sees what they do.

    Args:
        model: The model in training.
    """

    def __init__(self, model):
        self._model = model
        self._counts = {id(optimizer): _count(optimizer) for optimizer in self._named()}
        self._said = False

    def __bool__(self):
        return bool(self._counts)

    def warn_once(self):
        """Warns, where some have made updates since, of all that have by then."""
        if self._said:
            return
        active = [
            name
            for optimizer, name in self._named().items()
            if _count(optimizer) > self._counts.get(id(optimizer), 0)
        ]
        if active:
            self._said = True
            names = " and ".join(active)
            warnings.warn(
                f"The model {self._model.name} trains by {names}, too. The callbacks of kerasrnn "
                "see the updates of the optimizer that it was compiled with; those of "
                f"{names} are neither recorded nor clipped, nor skipped for an Inf or NaN.",
                stacklevel=2,
            )

    def _named(self):
        """Each of them and the name of an attribute that holds it."""
        named = {}
        for layer in layers_in(self._model):
            for name, value in vars(layer).items():
                # TensorFlow keeps lists of what it tracks.
                if name.startswith("_self_"):
                    continue
                for one in _values(value):
                    if isinstance(one, keras.optimizers.Optimizer) and not self._is_watched(one):
                        owner = "" if layer is self._model else f"{layer.name}."
                        named.setdefault(one, owner + name)
        return named

    def _is_watched(self, optimizer):
        return innermost(optimizer) is innermost(self._model.optimizer)


def _values(value):
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else [value]


def _count(optimizer):
    return int(optimizer.iterations)
