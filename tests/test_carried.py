import numpy as np
import pytest
import tensorflow as tf
from slow import slow_but
from two_paths import MASK, RESET, X

from kerasrnn import cells, layers, recurrence
from kerasrnn.recurrence import carried


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("name", slow_but(["lstm", "lru"], cells.CELLS))
def test_it_gives_what_the_plain_loop_gives(name, go_backwards, random_weights):
    cell = cells.get(name)(5)
    cell.build((3, 4))
    random_weights(cell)
    options = {"mask": MASK, "reset": RESET, "go_backwards": go_backwards}
    start = [tf.fill((3, 5), 0.3) for _ in cell.states]
    for return_sequences in (True, False):
        options["return_sequences"] = return_sequences
        expected = recurrence.run(cell, X, start, path="loop", **options)
        with recurrence.through(carried.run):
            received = recurrence.run(cell, X, start, **options)
        for a, b in zip(tf.nest.flatten(received), tf.nest.flatten(expected), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("steps", slow_but([1, 33, 64], [1, 31, 32, 33, 64, 100]))
def test_blocks_end_where_the_sequence_does(steps, random_weights, rng):
    layer = layers.GRU(3, return_sequences=True)
    x = rng.normal(size=(2, steps, 4)).astype("float32")
    layer.build(x.shape)
    random_weights(layer)

    @tf.function(input_signature=[tf.TensorSpec((None, None, 4))])
    def run(x):
        return layer(x)

    with recurrence.through(carried.run):
        function = run.get_concrete_function()
    library = function.graph.as_graph_def().library
    kinds = {node.op for part in library.function for node in part.node_def}
    assert not any("TensorList" in kind for kind in kinds)
    np.testing.assert_allclose(function(x), layer(x), atol=1e-6)
