"""Copies of callbacks."""


def copied_without(callback, *left_behind):
    """The state of a callback for a copy of it, as keras-tuner makes for every trial: without the
    model and what belongs to the `fit` it is in."""
    left_behind = (*left_behind, callback.model)
    return {
        name: None if any(value is one for one in left_behind) else value
        for name, value in vars(callback).items()
    }
