"""The layers on a GPU, under each backend of Keras that is installed: right, and how fast.

    python benchmarks/gpu.py [--backends jax torch tensorflow] [--small] [--out gpu.json]

Each backend runs in a process of its own. What is done is in `--out`, where a run that was stopped
goes on, and the tables are printed from it. `--small` is for a machine without a GPU: it shows that
all of it runs.

Right: every registered cell against its equations in NumPy and float64 (`tests/twins.py`), the
outputs, the final states and the gradient, this one in a random direction of the weights by a
central difference. Products in full float32; what TF32 does to them stands in a row of its own.

Fast: the median of 30 calls, after 5 that do not count, each waited for. A training step is the
loss, the mean of all squared outputs, and its gradient by all weights.

A GPU machine without network takes, beside this checkout and what it has of JAX, PyTorch and NumPy,
a folder of wheels (`pip download --no-deps --dest wheels NAME`): keras>=3.15, keras-tuner, namex,
optree, h5py, rich, ml-dtypes, absl-py, packaging, and with them

    pip install --no-index --no-deps --target site wheels/*.whl
    PYTHONPATH=site:. python benchmarks/gpu.py
"""

import argparse
import functools
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve()
BACKENDS = ("jax", "torch", "tensorflow")
# (batch, time, features, units)
SHAPES = [
    (32, 200, 64, 128),
    (64, 100, 128, 256),
    (128, 400, 32, 64),
    (256, 200, 256, 512),
    (16, 16384, 16, 128),
]
SMALL = [(4, 20, 8, 16)]
# No loop of so many steps in Python is waited for.
LONGEST_LOOP = 2000
TOLERANCE = 1e-3
WARM_UPS, CALLS = 5, 30


def relative(actual, expected):
    """The largest difference over the largest value."""
    import numpy as np

    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30))


class Device:
    """What differs between the backends: precision, steps that are compiled, and waiting."""

    def __init__(self):
        import keras

        from kerasrnn.backends import BACKEND, framework, sees_gpu

        self.backend, self.framework, self.on_gpu = BACKEND, framework, sees_gpu()
        self.version = f"{BACKEND} {framework.__version__}, keras {keras.__version__}"

    @property
    def card(self):
        if not self.on_gpu:
            return "no GPU"
        if self.backend == "torch":
            return self.framework.cuda.get_device_name()
        if self.backend == "jax":
            return self.framework.devices()[0].device_kind
        gpu = self.framework.config.list_physical_devices("GPU")[0]
        return self.framework.config.experimental.get_device_details(gpu)["device_name"]

    def set_tf32(self, allowed):
        if self.backend == "torch":
            self.framework.backends.cuda.matmul.allow_tf32 = allowed
            self.framework.backends.cudnn.allow_tf32 = allowed
        elif self.backend == "jax":
            precision = "tensorfloat32" if allowed else "float32"
            self.framework.config.update("jax_default_matmul_precision", precision)
        else:
            self.framework.config.experimental.enable_tensor_float_32_execution(allowed)

    def step(self, layer, x, training):
        """A function that takes one step of a layer and waits for it; it gives the gradients of the
        weights, or the outputs."""
        return getattr(self, f"_step_of_{self.backend}")(layer, x, training)

    def _step_of_jax(self, layer, x, training):
        jax = self.framework
        fixed = [v.value for v in layer.non_trainable_variables]

        def outputs(weights, x):
            return layer.stateless_call(weights, fixed, x, training=training)[0]

        def loss(weights, x):
            return (outputs(weights, x) ** 2).mean()

        call = jax.jit(jax.grad(loss) if training else outputs)
        x = jax.numpy.asarray(x)

        def step():
            weights = [v.value for v in layer.trainable_variables]
            return jax.block_until_ready(call(weights, x))

        step.memory = lambda: self._memory_of_jax(
            call, [v.value for v in layer.trainable_variables], x
        )
        return step

    def _memory_of_jax(self, call, *arguments):
        return call.lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    def _step_of_torch(self, layer, x, training):
        torch = self.framework
        weights = [getattr(v, "value", v) for v in trainable(layer)]
        x = torch.tensor(x, device="cuda" if self.on_gpu else "cpu")
        options = {"training": training} if hasattr(layer, "built") else {}

        def outputs():
            y = layer(x, **options)
            return y[0] if isinstance(y, tuple) else y

        def step():
            if training:
                result = torch.autograd.grad((outputs() ** 2).mean(), weights)
            else:
                with torch.no_grad():
                    result = outputs()
            if self.on_gpu:
                torch.cuda.synchronize()
            return result

        def memory():
            if not self.on_gpu:
                return None
            torch.cuda.reset_peak_memory_stats()
            step()
            return torch.cuda.max_memory_allocated()

        step.memory = memory
        return step

    def _step_of_tensorflow(self, layer, x, training):
        tf = self.framework
        from kerasrnn.recurrence import compiled

        x = tf.constant(x)

        @tf.function
        def call():
            with compiled(), tf.GradientTape() as tape:
                y = layer(x, training=training)
                loss = tf.reduce_mean(y**2)
            return tape.gradient(loss, layer.trainable_weights) if training else y

        def step():
            result = call()
            tf.nest.map_structure(lambda v: v.numpy()[:0] if v.shape.rank else v, result)
            return result

        def memory():
            if not self.on_gpu:
                return None
            tf.config.experimental.reset_memory_stats("GPU:0")
            step()
            return tf.config.experimental.get_memory_info("GPU:0")["peak"]

        step.memory = memory
        return step


def trainable(layer):
    """The weights of a Keras layer or of a module of PyTorch's."""
    if hasattr(layer, "trainable_variables"):
        return layer.trainable_variables
    return list(layer.parameters())


def milliseconds(step):
    for _ in range(WARM_UPS):
        step()
    taken = []
    for _ in range(CALLS):
        began = time.perf_counter()
        step()
        taken.append(time.perf_counter() - began)
    return 1e3 * statistics.median(taken)


def checks(device, small):
    """(name, function that gives relative errors) of all that is to be right."""
    import keras
    import numpy as np

    from kerasrnn import cells, layers

    sys.path.insert(0, str(HERE.parents[1] / "tests"))
    import twins

    batch, time_steps, features, units = (4, 12, 5, 6) if small else (16, 60, 24, 32)

    def of_cell(name, options, twin, tf32=False):
        device.set_tf32(tf32)
        rng = np.random.default_rng(0)
        layer = layers.RNN(name, units=units, return_sequences=True, return_state=True, **options)
        x = rng.normal(size=(batch, time_steps, features)).astype("float32")
        layer.build(x.shape)
        weights = [rng.normal(0, 0.3, w.shape).astype("float32") for w in layer.weights]
        layer.set_weights(weights)
        zeros = [np.zeros((batch, units)) for _ in layer.cell.states]
        exact = [w.astype("float64") for w in weights]
        y, states = twins.run(twin, exact, x.astype("float64"), zeros)
        received = [keras.ops.convert_to_numpy(v) for v in layer(x)]
        errors = [relative(a, b) for a, b in zip(received, [y, *states], strict=True)]

        direction = [rng.normal(size=w.shape) for w in weights]

        def loss(shift):
            moved = [w + shift * d for w, d in zip(exact, direction, strict=True)]
            return (twins.run(twin, moved, x.astype("float64"), zeros)[0] ** 2).mean()

        slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
        layer.return_state = False
        gradients = device.step(layer, x, True)()
        pairs = zip(gradients, direction, strict=True)
        ours = sum(float((keras.ops.convert_to_numpy(g) * d).sum()) for g, d in pairs)
        norm = np.sqrt(sum(float((keras.ops.convert_to_numpy(g) ** 2).sum()) for g in gradients))
        # Against the gradient's size, since a direction may be nearly at right angles to it.
        errors.append(abs(ours - slope) / norm)
        device.set_tf32(False)
        return errors

    for name in cells.CELLS:
        for options, twin in twins.TWINS[name]:
            words = ", ".join(f"{k}={v!r}" for k, v in options.items())
            yield f"{name} {words}".strip(), lambda n=name, o=options, t=twin: of_cell(n, o, t)
    for name in ("lstm", "gru"):
        options, twin = twins.TWINS[name][0]
        yield f"{name}, with TF32", lambda n=name, o=options, t=twin: of_cell(n, o, t, True)

    def masked(make, reset=None):
        """Rows with padding at their end against each row alone, without it."""
        rng = np.random.default_rng(1)
        layer = make()
        x = rng.normal(size=(batch, time_steps, features)).astype("float32")
        lengths = rng.integers(2, time_steps, batch)
        mask = np.arange(time_steps) < lengths[:, None]
        y = keras.ops.convert_to_numpy(layer(x, mask=mask))
        single = (
            keras.ops.convert_to_numpy(layer(x[i : i + 1, :n])) for i, n in enumerate(lengths)
        )
        return [
            relative(y[i, :n], one[0])
            for i, (n, one) in enumerate(zip(lengths, single, strict=True))
        ]

    def after_reset():
        rng = np.random.default_rng(2)
        layer = layers.GRU(units, return_sequences=True)
        x = rng.normal(size=(batch, time_steps, features)).astype("float32")
        half = time_steps // 2
        reset = np.zeros((batch, time_steps), bool)
        reset[:, half] = True
        y = keras.ops.convert_to_numpy(layer(x, reset=reset))
        return [relative(y[:, half:], keras.ops.convert_to_numpy(layer(x[:, half:])))]

    for name in ("LSTM", "GRU", "MinGRU"):
        kind = getattr(layers, name)
        yield f"{name}, a mask", lambda k=kind: masked(lambda: k(units, return_sequences=True))
    yield "GRU, a reset", after_reset
    yield (
        "a stack of two, in two directions, a mask",
        lambda: masked(
            lambda: layers.RNNStack(
                "lstm",
                units,
                2,
                bidirectional=True,
                connection="residual",
                project=True,
                return_sequences=True,
            )
        ),
    )


def search():
    """The best score of a search of two trials."""
    import tempfile

    import keras_tuner
    import numpy as np

    from kerasrnn.tuning import RNNHyperModel

    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 10, 3)).astype("float32")
    y = (x.sum((1, 2)) > 0).astype("int32")
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.RandomSearch(
            RNNHyperModel("binary", features=3, units=(8, 16), depths=1),
            "val_accuracy",
            max_trials=2,
            seed=0,
            directory=folder,
        )
        tuner.search(x, y, validation_split=0.25, epochs=2, verbose=0)
        return tuner.oracle.get_best_trials(1)[0].score


def rows(device, small):
    """(what, shape, function that makes the layer) of all that is timed."""
    import keras

    from kerasrnn import cells, layers

    for shape in SMALL if small else SHAPES:
        units = shape[3]
        long = shape[1] > LONGEST_LOOP
        sides = {"kerasrnn MinGRU": lambda u=units: layers.MinGRU(u, return_sequences=True)}
        for name in ("LSTM", "GRU"):
            for label, module in (("kerasrnn", layers), ("keras", keras.layers)):
                make = getattr(module, name)
                sides[f"{label} {name}"] = lambda m=make, u=units: m(u, return_sequences=True)
                sides[f"{label} {name}, use_cudnn=False"] = lambda m=make, u=units: m(
                    u, return_sequences=True, use_cudnn=False
                )
        for name in ("LSTM", "GRU") if device.backend == "torch" else ():
            sides[f"torch.nn.{name}"] = functools.partial(of_torch, device, name, shape)
        for what, make in sides.items():
            if long and device.backend == "torch" and "use_cudnn=False" in what:
                continue
            yield what, shape, make
    shape = (SMALL if small else SHAPES)[0]
    for name in cells.CELLS:
        if name not in ("lstm", "gru", "mingru"):
            yield (
                f"kerasrnn {name}",
                shape,
                lambda n=name: layers.RNN(n, units=shape[3], return_sequences=True),
            )
    yield (
        "kerasrnn RNNStack, 4 LSTM layers, residual",
        shape,
        lambda: layers.RNNStack(
            "lstm", shape[3], 4, connection="residual", project=True, return_sequences=True
        ),
    )
    if device.backend == "torch":
        yield (
            "torch.nn.LSTM, num_layers=4",
            shape,
            lambda: of_torch(device, "LSTM", shape, num_layers=4),
        )


def of_torch(device, name, shape, **options):
    """A layer of torch.nn for sequences of this shape."""
    layer = getattr(device.framework.nn, name)(shape[2], shape[3], batch_first=True, **options)
    return layer.to("cuda" if device.on_gpu else "cpu")


def paths(layer, shape):
    """The paths that a layer of this package takes in training."""
    import keras
    import numpy as np

    from kerasrnn import recurrence

    if not isinstance(layer, keras.layers.Layer):
        return ""
    explained = recurrence.explain(layer, np.zeros(shape[:3], "float32"))
    return ", ".join(dict.fromkeys(str(choices["fit"].path) for choices in explained.values()))


def child(small, seconds, done):
    """Prints a line of JSON for each thing that is done."""
    import numpy as np

    began = time.monotonic()
    device = Device()
    # Their progress is said by the process above.
    print(
        json.dumps({"key": "device", "card": device.card, "versions": device.version}), flush=True
    )
    device.set_tf32(False)

    def report(key, make):
        if key in done:
            return
        if time.monotonic() - began > seconds:
            line = {"key": key, "left": "no time was left for it"}
        else:
            try:
                line = {"key": key} | make()
            # What fails under one backend keeps nothing else from being measured.
            except Exception as error:
                line = {"key": key, "failed": f"{type(error).__name__}: {str(error)[:300]}"}
        print(json.dumps(line), flush=True)

    for name, check in checks(device, small):
        report(f"right {name}", lambda check=check: {"error": max(check())})
    report("right a search of two trials", lambda: {"score": search()})

    def timed(shape, make):
        layer = make()
        x = np.random.default_rng(0).normal(size=shape[:3]).astype("float32")
        if hasattr(layer, "built"):
            layer.build(x.shape)
        training = device.step(layer, x, True)
        return {
            "training": milliseconds(training),
            "forward": milliseconds(device.step(layer, x, False)),
            "bytes": training.memory(),
            "paths": paths(layer, shape),
        }

    for what, shape, make in rows(device, small):
        report(f"fast {shape} {what}", lambda s=shape, m=make: timed(s, m))


def table(results):
    """The results of all backends, in Markdown."""
    lines = []
    for backend, done in results.items():
        about = done.get("device", {})
        lines += [f"## {backend}: {about.get('card')}, {about.get('versions')}", ""]
        lines += ["| right | relative error | |", "|---|---|---|"]
        for key, row in done.items():
            kind, _, name = key.partition(" ")
            if kind == "right":
                said = row.get("failed") or row.get("left") or ""
                if "error" in row and row["error"] > TOLERANCE and "TF32" not in name:
                    said = f"more than {TOLERANCE}"
                value = f"{row['error']:.1e}" if "error" in row else row.get("score", "")
                lines.append(f"| {name} | {value} | {said} |")
        lines += ["", "| layer | shape | training, ms | forward, ms | MiB | path |"]
        lines.append("|---|---|---|---|---|---|")
        for key, row in done.items():
            kind, _, rest = key.partition(" ")
            if kind != "fast":
                continue
            shape, _, name = rest.partition(") ")
            if "training" in row:
                memory = f"{row['bytes'] / 2**20:.0f}" if row["bytes"] is not None else ""
                said = f"{row['training']:.2f} | {row['forward']:.2f} | {memory} | {row['paths']}"
            else:
                said = f"{row.get('failed') or row.get('left')} | | |"
            lines.append(f"| {name} | {shape}) | {said} |")
        lines.append("")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=installed)
    parser.add_argument(
        "--small", action="store_true", help="small shapes, for a machine without a GPU"
    )
    parser.add_argument("--seconds", type=float, default=480, help="for all backends together")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("gpu.json"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        seconds, done = arguments.child
        child(arguments.small, float(seconds), set(json.loads(done)))
        return
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    began = time.monotonic()
    for k, backend in enumerate(arguments.backends):
        done = results.setdefault(backend, {})
        left = arguments.seconds - (time.monotonic() - began)
        share = left / (len(arguments.backends) - k)
        command = [sys.executable, HERE, *["--small"] * arguments.small]
        # What failed is tried again.
        kept = [key for key, row in done.items() if not row.keys() & {"failed", "left"}]
        command += ["--child", str(share), json.dumps([key for key in kept if key != "device"])]
        path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": path}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            for line in process.stdout:
                if not line.startswith("{"):
                    continue
                row = json.loads(line)
                done[row.pop("key")] = row
                unfinished = arguments.out.with_suffix(".unfinished")
                unfinished.write_text(json.dumps(results, indent=1))
                unfinished.replace(arguments.out)
                print(f"\r{backend}: {len(done)} done", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        if process.returncode:
            done["device"] = done.get("device", {}) | {"failed": f"exit {process.returncode}"}
    print(table(results))
    wrong = [
        f"{backend}: {key}"
        for backend, done in results.items()
        for key, row in done.items()
        if "failed" in row or ("TF32" not in key and row.get("error", 0) > TOLERANCE)
    ]
    if wrong:
        sys.exit("Failed or wrong:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
