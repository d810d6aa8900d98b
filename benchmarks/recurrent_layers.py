"""Recurrent layers side by side: this package, keras.layers in its best mode, torch.nn.

    python benchmarks/recurrent_layers.py [--pairs 5]

One layer with `return_sequences=True` is trained by `fit` and run by `predict`, as a user calls
them, on batches whose size and length the model does not know beforehand. The three take turns; a
ratio is the median over the turns of one's median step over the other's. torch runs in a process of
its own, which is stopped between its turns. Keras's best mode is the one with the least median of
three runs.
"""

import argparse
import atexit
import importlib.util
import math
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from turns import take_turns

from kerasrnn import layers

# (batch, time, features, units)
SHAPES = [
    (32, 200, 64, 128),
    (64, 100, 128, 256),
    (16, 784, 1, 128),
    (128, 400, 32, 64),
    (1, 200, 64, 128),
    # Words, speech frames, short texts in a large layer.
    (128, 40, 100, 100),
    (8, 1000, 40, 192),
    (32, 30, 300, 512),
]
MASKED = (32, 200, 64, 128)
STEPS = 6
# Keras takes minutes to trace a longer sequence unrolled.
UNROLLED_UP_TO = 40
KERAS_MODES = {"graph": {}, "XLA": {"jit_compile": True}, "unroll": {"unroll": True}}


class Clock(keras.callbacks.Callback):
    """The seconds of every step of a `fit` or `predict`, the first left out."""

    def on_train_batch_begin(self, batch, logs=None):
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(time.perf_counter() - self.began)

    on_predict_batch_begin = on_train_batch_begin
    on_predict_batch_end = on_train_batch_end

    def on_train_begin(self, logs=None):
        self.steps = []

    on_predict_begin = on_train_begin

    @property
    def median(self):
        return statistics.median(self.steps[1:])


class Net:
    """One layer under a mean squared error."""

    def __init__(self, module, kind, options, shape, mask=None, jit_compile=False):
        keras.utils.set_random_seed(0)
        batch, steps, features, units = shape
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(STEPS * batch, steps, features)).astype("float32")
        inputs = outputs = keras.Input((None, features))
        if mask is not None:
            self.x[~np.tile(mask, (STEPS, 1))] = 0
            outputs = keras.layers.Masking()(outputs)
        options = dict(options)
        bidirectional = options.pop("bidirectional", False)
        layer = getattr(module, kind)(units, return_sequences=True, **options)
        outputs = module.Bidirectional(layer)(outputs) if bidirectional else layer(outputs)
        self.model = keras.Model(inputs, outputs)
        self.model.compile(keras.optimizers.SGD(1e-3), "mse", jit_compile=jit_compile)
        self.y = rng.normal(size=(*self.x.shape[:2], outputs.shape[-1])).astype("float32")
        self.batch = batch

    def fit(self):
        clock = Clock()
        self.model.fit(self.x, self.y, self.batch, verbose=0, shuffle=False, callbacks=[clock])
        return clock.median

    def predict(self):
        clock = Clock()
        self.model.predict(self.x, self.batch, verbose=0, callbacks=[clock])
        return clock.median


def nets_of_keras(kind, options, shape, mask=None):
    """Keras's nets, one per mode."""
    nets = {}
    for mode, how in KERAS_MODES.items():
        if mode == "unroll" and (shape[1] > UNROLLED_UP_TO or mask is not None):
            continue
        compiled = how.get("jit_compile", False)
        more = {k: v for k, v in how.items() if k != "jit_compile"}
        nets[mode] = Net(keras.layers, kind, options | more, shape, mask, compiled)
    return nets


def best(nets, task):
    """The net that is the fastest at `task`, and its mode."""

    def seconds(mode):
        run = getattr(nets[mode], task)
        # The first run compiles.
        run()
        return statistics.median(run() for _ in range(3))

    mode = min(nets, key=seconds)
    return nets[mode], mode


class Torch:
    """torch.nn in a process of its own."""

    def __init__(self):
        script = pathlib.Path(__file__).with_name("torch_layers.py")
        self.process = subprocess.Popen(
            [sys.executable, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        atexit.register(self.process.kill)
        self._answer()

    def set_up(self, kind, shape, bidirectional):
        self._ask("set_up", kind, *shape, int(bidirectional))

    def fit(self):
        return float(self._ask("fit", STEPS))

    def predict(self):
        return float(self._ask("predict", STEPS))

    def _ask(self, *words):
        self.process.send_signal(signal.SIGCONT)
        print(*words, file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self):
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise RuntimeError(f"The process of torch has ended:\n{self.process.stderr.read()}")
        # Its threads would go on spinning, at the cost of whose turn it is.
        self.process.send_signal(signal.SIGSTOP)
        return answer


def compare(ours, keras_net, torch, task, pairs):
    """Milliseconds of ours, and its ratio to Keras and to torch."""
    runs = [getattr(net, task) for net in (ours, keras_net, torch) if net is not None]
    turns = take_turns(runs, pairs)
    return turns.ms(0), *(turns.ratio(0, i) for i in range(1, len(runs)))


def geometric_mean(values):
    return math.exp(statistics.fmean(map(math.log, values)))


def table(title, rows, torch, pairs):
    """Prints one line per layer and shape."""
    print(f"\n### {title}\n")
    print(
        "| layer | (batch, time, features, units) | fit step | / keras | (its mode) | / torch "
        "| predict step | / keras | (its mode) | / torch |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    found = []
    for kind, options, shape in rows:
        bidirectional = options.get("bidirectional", False)
        theirs = nets_of_keras(kind, options, shape)
        ours = Net(layers, kind, options, shape)
        rival = torch if options.get("reset_after", True) else None
        if rival:
            rival.set_up(kind, shape, bidirectional)
        cells = []
        for task in ("fit", "predict"):
            keras_net, mode = best(theirs, task)
            ms, *ratios = compare(ours, keras_net, rival, task, pairs)
            to_keras, *to_torch = (f"{ratio:.2f}" for ratio in ratios)
            cells += [f"{ms:.1f} ms", to_keras, mode, *(to_torch or [""])]
            found.append((kind, task, ratios))
        name = ", ".join([kind, *(f"{k}={v}" for k, v in options.items())])
        print(f"| {name} | {shape} | {' | '.join(cells)} |", flush=True)
    for kind in dict.fromkeys(kind for kind, _, _ in found):
        cells = []
        for task in ("fit", "predict"):
            columns = zip(*(r for k, t, r in found if (k, t) == (kind, task)), strict=True)
            to_keras, *to_torch = (f"**{geometric_mean(column):.2f}**" for column in columns)
            cells += ["", to_keras, "", *(to_torch or [""])]
        print(f"| {kind} | geometric mean | {' | '.join(cells)} |", flush=True)


def masks(pairs):
    """A batch of which 30% of the steps are unmasked, against the same batch without a mask."""
    batch, steps, _, _ = MASKED
    lengths = np.random.default_rng(1).permutation(np.linspace(0.1, 0.5, batch) * steps)
    mask = np.arange(steps) < lengths[:, None]
    print(f"\n### A batch with {mask.mean():.0%} of its steps unmasked: {MASKED}\n")
    print("| layer | padded | / our unmasked batch | / keras, masked |")
    print("|---|---|---|---|")
    for kind in ("LSTM", "GRU"):
        for side, padded in (("right", mask), ("left", mask[:, ::-1])):
            ours, whole = (Net(layers, kind, {}, MASKED, m) for m in (padded, None))
            theirs, _ = best(nets_of_keras(kind, {}, MASKED, padded), "fit")
            _, to_whole, to_keras = compare(ours, whole, theirs, "fit", pairs)
            print(f"| {kind} | {side} | {to_whole:.2f} | {to_keras:.2f} |", flush=True)


def lecture(pairs):
    """The lecture's GRU against ours with the reset after the product."""
    print("\n### The lecture's GRU (reset before the product) / our reset_after=True GRU\n")
    print("| (batch, time, features, units) | fit | predict |")
    print("|---|---|---|")
    options = {"reset_after": False, "update_gate": "write"}
    for shape in SHAPES[:4]:
        nets = [Net(layers, "GRU", o, shape) for o in (options, {})]
        ratios = [compare(*nets, None, task, pairs)[1] for task in ("fit", "predict")]
        print(f"| {shape} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)


def first_steps():
    """Seconds to the first training step, of a net whose programs are not there yet and of another
    of the same shapes; the difference is what XLA's compilation takes."""

    def seconds(module, depth, units):
        net = keras.Sequential([keras.Input((None, units))])
        for _ in range(depth):
            net.add(module.LSTM(units, return_sequences=True))
        net.compile("sgd", "mse")
        x = np.zeros((32, 100, units), "float32")
        began = time.perf_counter()
        net.train_on_batch(x, x)
        return time.perf_counter() - began

    print("\n### Seconds to the first training step, LSTM (32, 100, units, units)\n")
    print("| layers | ours | ours again | of it compilation | keras |")
    print("|---|---|---|---|---|")
    # The first of all pays for much else.
    seconds(layers, 1, 48), seconds(keras.layers, 1, 48)
    for depth, units in ((1, 64), (8, 72)):
        first, again = (seconds(layers, depth, units) for _ in range(2))
        theirs = seconds(keras.layers, depth, units)
        print(f"| {depth} | {first:.1f} | {again:.1f} | {first - again:.1f} | {theirs:.1f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    torch = Torch() if importlib.util.find_spec("torch") else None
    both = [(kind, {}, shape) for kind in ("LSTM", "GRU") for shape in SHAPES]
    table("LSTM and GRU", both, torch, pairs)
    before = [("GRU", {"reset_after": False}, shape) for shape in SHAPES[:4]]
    table("GRU with the reset before the product", before, torch, pairs)
    directions = [(k, {"bidirectional": True}, s) for k in ("LSTM", "GRU") for s in SHAPES[:2]]
    table("Bidirectional", directions, torch, pairs)
    lecture(pairs)
    masks(pairs)
    first_steps()


if __name__ == "__main__":
    main()
