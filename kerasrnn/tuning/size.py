"""How many units a model may have for a number of parameters."""

import bisect
import random


def count_parameters(make_layers, shape):
    """The parameters of the layers in a row that `make_layers` makes, for an input of that shape.

    Leaves Python's generator, from which Keras draws the seeds of layers, as it was: a model starts
    from the same weights whether something was counted before or not.
    """
    state = random.getstate()
    total = 0
    for layer in make_layers():
        layer.build(shape)
        total += layer.count_params()
        shape = layer.compute_output_shape(shape)
    random.setstate(state)
    return total


def largest_units(count, most, smallest=1, special=None):
    """The largest number of units for which `count(units)` is at most `most`.

    Every weight has two axes at most, and an axis is a multiple of the units or independent of
    them: so that the count is a polynomial of degree 2, which three small models tell.

    Args:
        count: The number of parameters for a number of units.
        most: How many there may be; as many at least as for `smallest`.
        smallest: The smallest number of units that there can be.
        special: A number of units for which there are fewer than the polynomial says, as where a
            projection is left out since its input is as wide as its output.
    """
    first = special + 1 if special in range(smallest, smallest + 3) else smallest
    a, b, c = (count(first + k) for k in range(3))

    def polynomial(units):
        k = units - first
        return a + k * (b - a) + k * (k - 1) // 2 * (c - 2 * b + a)

    largest = bisect.bisect_right(range(1, most + 1), most, key=polynomial)
    if special is not None and special > largest and count(special) <= most:
        return special
    return largest
