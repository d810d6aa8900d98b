"""What callbacks put into the hook, each a `Protocol`, and what it shows them."""

from typing import Any, NamedTuple, Protocol


class Update(NamedTuple):
    """An update that was made, or skipped, in the graph.

    Attributes:
        variables: A list of them.
        grads, clipped: Their gradients before and after the clip; of an update that is skipped,
            twice as they came.
        weights, after: The values of the variables before and after it.
        rate: The learning rate; NaN of an update that is skipped.
        loss: The mean of the losses of its batches, regularizers included; NaN where the train step
            does not call the model's `compute_loss`.
    """

    variables: list
    grads: list
    clipped: list
    weights: list
    after: list
    rate: Any
    loss: Any


class Observer(Protocol):
    """Is shown every update, in the graph."""

    def expect(self, variables):
        """Makes what it needs for these variables; called where a step is traced."""

    def record(self, update):
        """Takes in an `Update`, once it is made or skipped."""


class Part(Protocol):
    """What the hook makes for a callback, and keeps from one `fit` to the next."""

    def begin(self, again):
        """Called before the first batch of a `fit`; `again` where no step is traced for it, but the
        one of the `fit` before is run, and with it all variables in it."""


class Clip(Protocol):
    """Takes the place of the optimizer's own clip."""

    def __call__(self, variables, grads):
        """The gradients, clipped."""


class Filter(Observer, Protocol):
    """Lets an update happen, or has it skipped; an observer, too.

    Attributes:
        skipped: How many updates were skipped.
    """

    skipped: int

    def flags(self, grads):
        """Which variables' gradients are bad, booleans (variables,); one of them has the update
        skipped."""

    def let_through(self, variables):
        """Is told, after it, of an update that happened."""

    def skip(self, variables, flags):
        """Is told of an update that did not happen, and for which variables' sake."""


def path_of(variable):
    """The path of a Keras variable, the name of one of TensorFlow's."""
    return getattr(variable, "path", variable.name)
