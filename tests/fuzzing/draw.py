"""The random values of a case, and what they were."""

import numpy as np
import tensorflow as tf

SMOOTH = ["tanh", "sigmoid", "softsign", "silu", "linear"]
# At whose kinks rounding decides the derivative.
KINKED = ["relu", "hard_sigmoid", "elu", "leaky_relu"]


def is_half(dtype):
    return "16" in dtype


def activations(dtype):
    """The names of those that give comparable gradients in this precision."""
    return SMOOTH if is_half(dtype) else SMOOTH + KINKED


class Draw:
    """The random values of the case `index` of a claim: the same for the same arguments, as long as
    what draws them does so in the same order.

    Attributes:
        rng: The generator, for what is not worth recording.
        configuration: The values drawn by name, but for `None` and `False`.
        prefix: Stands before the names from then on, to tell one layer's from another's.
        deterministic: Whether cells go without the options that draw numbers in training.
    """

    def __init__(self, claim, seed, index):
        self.rng = np.random.default_rng([seed, ord(claim), index])
        self.configuration, self.prefix, self.deterministic = {}, "", False

    def record(self, name, value):
        self.configuration[self.prefix + name] = value

    def choice(self, name, *options):
        """One of the `options`, each as likely as the others; given twice, twice as likely."""
        value = options[self.rng.integers(len(options))]
        if value is not None and value is not False:
            self.record(name, value)
        return value

    def flag(self, name, one_in=2):
        """A boolean that is true in one case of so many."""
        return self.choice(name, *[False] * (one_in - 1), True)

    def flags(self, *names, one_in=2):
        return {name: self.flag(name, one_in) for name in names}

    def maybe(self, chance):
        """A boolean that is not recorded."""
        return self.rng.random() < chance

    def integer(self, low, high):
        """One of `low` to `high - 1`, not recorded."""
        return int(self.rng.integers(low, high))

    def normal(self, *shape, dtype="float64"):
        return tf.cast(self.rng.normal(size=shape), dtype)

    def shape(self):
        """Of a small input: batch, time and features."""
        return (
            self.choice("B", 1, 2, 3, 5),
            self.choice("T", 1, 2, 3, 4, 7),
            self.choice("F", 1, 2, 3, 4),
        )

    def dtype(self, half=True):
        """A dtype policy; `half` allows mixed precision."""
        halves = ["mixed_float16", "mixed_bfloat16"] if half else []
        return self.choice("dtype", *["float64"] * 5, *["float32"] * 4, *halves)

    def mask(self, batch, time):
        """`None` or booleans, (batch, time), or (1, time) for all rows; sometimes a row, or all of
        them, without a step that is not masked."""
        kinds = ["random", "left", "right", "rows", "batch", "one row"]
        kind = self.choice("mask", *[None] * 3, *kinds)
        # All are drawn, whichever is taken, so that the values after them do not depend on it.
        lengths = self.rng.integers(0, time + 1, (batch, 1))
        masks = {
            "random": self.rng.random((batch, time)) < 0.6,
            "left": np.arange(time) >= time - lengths,
            "batch": np.zeros((batch, time), bool),
            "right": np.arange(time) < lengths,
            "rows": np.repeat(self.rng.random((batch, 1)) < 0.5, time, axis=1),
            "one row": self.rng.random((1, time)) < 0.6,
        }
        return None if kind is None else tf.constant(masks[kind])

    def reset(self, batch, time):
        """`None` or booleans, (batch, time), true where an episode begins."""
        if not self.flag("reset", one_in=3):
            return None
        return tf.constant(self.rng.random((batch, time)) < 0.3)

    def initial_states(self, batch, sizes, dtype):
        """`None` or a list of states of these sizes."""
        if not sizes or not self.flag("initial_state"):
            return None
        dtype = dtype.removeprefix("mixed_")
        return [self.normal(batch, size, dtype=dtype) for size in sizes]

    def perturb(self, layer):
        """Moves the weights away from where they start: no bias is zero, no two gates are alike."""
        for variable in {id(v): v for v in layer.trainable_variables}.values():
            noise = self.normal(*variable.shape, dtype=variable.dtype)
            variable.assign(variable + 0.4 * noise)
