"""Where the time of a training step goes: its programs, and the products in them alone.

    python benchmarks/parts.py

One layer with `return_sequences=True`, as in recurrent_layers.py. Beside a step of `fit` stand,
each run by itself on the same parts of the batch: the forward and the backward program; the
products in them, as a program that does nothing else; the products with the inputs, and those with
the states for the gradients of the kernels. What all products take is the limit: activations, what
is kept and copies come on top. The last two columns are of the first step: tracing, and the
compilation of programs.
"""

import functools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from turns import seconds, take_turns

from kerasrnn import layers
from kerasrnn.recurrence import program

SHAPES = [(32, 200, 64, 128), (64, 100, 128, 256), (128, 40, 100, 100), (32, 30, 300, 512)]
PARTS = 2


def five_times(run):
    for _ in range(5):
        run()


def in_parts(run, *values):
    """`run(*values)` for every part at the same time, as the package does it."""
    both = tf.function(lambda parts: [run(*part) for part in parts], autograph=False)
    # Of the same tensors TensorFlow would do it once.
    parts = [
        [tf.constant(v) if isinstance(v, int) else tf.Variable(v).value() for v in values]
        for _ in range(PARTS)
    ]
    return lambda: both(parts)


@tf.function(jit_compile=True)
def products(h, kernel, steps):
    """As many products as steps, each of what the one before gave."""
    units = h.shape[1]

    def step(t, h):
        y = tf.matmul(h, kernel)
        return t + 1, y[:, :units] if y.shape[1] >= units else tf.tile(y, [1, units // y.shape[1]])

    return tf.while_loop(lambda t, h: t < steps, step, (0, h))[1]


def with_inputs(x, kernel, d):
    """The projection, and the gradient of its kernel."""
    return tf.matmul(x, kernel), tf.matmul(x, d, transpose_a=True)


def with_states(h, d):
    """The gradient of the recurrent kernel."""
    return tf.matmul(h, d, transpose_a=True)


def compiled(kind, shape):
    """A net of one layer, and the seconds of its first step."""
    _, steps, features, units = shape
    layer = getattr(layers, kind)(units, return_sequences=True)
    net = keras.Sequential([keras.Input((steps, features)), layer])
    net.compile("sgd", "mse")
    return net, seconds(net.train_on_batch, *batch_of(shape))


def batch_of(shape):
    batch, steps, features, units = shape
    return tf.random.normal((batch, steps, features)), tf.zeros((batch, steps, units))


def row(kind, shape):
    batch, steps, features, units = shape
    net, first = compiled(kind, shape)
    # Of another net of the same shapes the programs are there.
    _, tracing = compiled(kind, shape)

    cell = net.layers[0].cell
    loops = program._program_for(cell)
    rows, columns = batch // PARTS, cell.kernel.shape[1]
    weights = [tf.convert_to_tensor(cell.weights[i].value) for i in loops.structure.used]
    blocks = [cell.recurrent_blocks(gates, (None,)) for gates, _ in loops.structure.calls]
    turned = tf.nest.map_structure(tf.transpose, blocks)
    constants = {"steps": {}, "dropped": [], "candidate": []}
    ends = tf.constant(0), tf.constant(steps)
    states = [tf.zeros((rows, units)) for _ in cell.states]
    projected = tf.random.normal((steps, rows, columns))

    def forward(projected):
        return loops.forward(projected, states, weights, [], blocks, constants, *ends)

    _, befores, kept = forward(projected)

    def backward(d):
        xs = [] if loops.structure.summed else [projected]
        inputs = xs, weights, [], turned, states, [d], constants
        return loops.backward(*inputs, *ends, befores, kept)

    kernel = tf.random.normal((units, columns)) / units
    d_sums = tf.random.normal((rows, columns))
    d_all_sums = tf.random.normal((steps * rows, columns))
    inputs = tf.random.normal((steps * rows, features)), tf.random.normal((features, columns))
    runs = [
        lambda: net.train_on_batch(*data),
        in_parts(forward, projected),
        in_parts(backward, befores[0][1:]),
        in_parts(products, states[0], kernel, steps),
        in_parts(products, d_sums, tf.transpose(kernel), steps),
        in_parts(with_inputs, *inputs, d_all_sums),
        in_parts(with_states, tf.random.normal((steps * rows, units)), d_all_sums),
    ]
    data = batch_of(shape)
    turns = take_turns([functools.partial(seconds, five_times, run) for run in runs], 7)
    ms = [turns.ms(i) / 5 for i in range(len(runs))]
    cells = [f"{value:.1f}" for value in ms] + [f"{sum(ms[3:]) / ms[0]:.2f}"]
    cells += [f"{tracing:.1f} s", f"{first - tracing:.1f} s"]
    print(f"| {kind} | {shape} | {' | '.join(cells)} |", flush=True)


def main():
    columns = [
        *("layer", "(batch, time, features, units)", "step of fit, ms"),
        *("forward program", "backward program", "products in it, forward", "backward"),
        *("with the inputs", "with the states", "products / step", "tracing", "compilation"),
    ]
    print(f"| {' | '.join(columns)} |")
    print("|" + "---|" * len(columns))
    for kind in ("LSTM", "GRU"):
        for shape in SHAPES:
            row(kind, shape)


if __name__ == "__main__":
    main()
