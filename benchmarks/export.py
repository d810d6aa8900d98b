"""What of this package runs in which format: the largest difference from the model, or the one
reason why not. And what a step costs.

    python benchmarks/export.py                  # every row that is not there yet
    python benchmarks/export.py --rows lstm      # some of them, once more
    python benchmarks/export.py --steps          # microseconds per step

Each row is written to export.json in the folder of `--out` when it is done, so that a run that was
stopped goes on where it was; the table is printed from there.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import openvino
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from turns import take_turns

from kerasrnn import cells, layers
from kerasrnn.export import export_litert, export_onnx, export_saved_model, export_streaming
from kerasrnn.export import onnx as onnx_files
from kerasrnn.export.check import largest_difference

UNITS, FEATURES, BATCH, TIME = 16, 8, 3, 20
RNG = np.random.default_rng(0)


def sequence(*parts):
    return keras.Sequential([keras.Input((None, FEATURES), name="x"), *parts])


def masked(*parts):
    return sequence(keras.layers.Masking(), *parts)


def of_two_inputs():
    a, b = (keras.Input((None, FEATURES), name=name) for name in "ab")
    both = [
        layers.GRU(UNITS, return_sequences=True)(a),
        layers.LSTM(UNITS, return_sequences=True)(b),
    ]
    joined = keras.layers.Concatenate()(both)
    return keras.Model([a, b], layers.GRU(UNITS)(joined))


def returning_states():
    x = keras.Input((None, FEATURES), name="x")
    return keras.Model(x, layers.LSTM(UNITS, return_state=True)(keras.layers.Masking()(x)))


def rows():
    """Functions that make a model, by name."""
    made = {}
    for name in cells.CELLS:
        made[name] = lambda name=name: sequence(
            layers.RNN(name, units=UNITS, return_sequences=True)
        )
        made[f"{name}, mask"] = lambda name=name: masked(layers.RNN(name, units=UNITS))
    for name in ("lstm", "gru", "mingru"):
        made[f"Bidirectional {name}"] = lambda name=name: sequence(
            layers.Bidirectional(layers.RNN(name, units=UNITS, return_sequences=True))
        )
        made[f"Bidirectional {name}, mask"] = lambda name=name: masked(
            layers.Bidirectional(layers.RNN(name, units=UNITS))
        )
        for connection in (None, "residual", "highway", "dense"):
            made[f"stack of {name}, {connection or 'plain'}"] = lambda name=name, c=connection: (
                sequence(
                    layers.RNNStack(
                        name,
                        UNITS,
                        2,
                        connection=c,
                        return_sequences=True,
                        **({"project": True} if c in ("residual", "highway") else {}),
                    )
                )
            )
    made["stack of lstm, both directions, mask"] = lambda: masked(
        layers.RNNStack("lstm", UNITS, 2, bidirectional=True)
    )
    for name in ("lstm", "gru", "lru"):
        made[f"{name}, stateful"] = lambda name=name: keras.Sequential(
            [
                keras.Input(batch_shape=(BATCH, None, FEATURES), name="x"),
                layers.RNN(name, units=UNITS, stateful=True, return_sequences=True),
            ]
        )
    made["keras.layers LSTM and GRU"] = lambda: sequence(
        keras.layers.Bidirectional(keras.layers.LSTM(UNITS, return_sequences=True)),
        keras.layers.GRU(UNITS),
    )
    made["functional, two inputs"] = of_two_inputs
    made["lstm, mask, return_state"] = returning_states
    made["TimeDistributed Dense, lstm"] = lambda: sequence(
        keras.layers.TimeDistributed(keras.layers.Dense(UNITS, activation="relu")),
        layers.LSTM(UNITS, return_sequences=True),
    )
    made["causal Conv1D, gru"] = lambda: sequence(
        keras.layers.Conv1D(UNITS, 3, padding="causal", activation="relu"),
        layers.GRU(UNITS, return_sequences=True),
    )
    return made


def inputs(model):
    """Arrays by the names of the model's inputs, and its outputs in their order."""
    arrays = {}
    for part in model.inputs:
        x = RNG.normal(size=(BATCH, TIME, FEATURES)).astype("float32")
        for row, length in enumerate((TIME, 13, 7)):
            x[row, length:] = 0
        arrays[part.name] = x
    reset(model)
    expected = outputs(model, arrays)
    reset(model)
    return arrays, expected


def outputs(model, arrays):
    x = list(arrays.values())
    return [np.array(y) for y in keras.tree.flatten(model(x if len(x) > 1 else x[0]))]


def in_order(outputs):
    """Those of one model have names whose order is theirs."""
    return [outputs[name] for name in sorted(outputs)]


def reset(model):
    for layer in model.layers:
        if getattr(layer, "stateful", False):
            layer.reset_state()


def keras_file(model, folder):
    model.save(folder / "net.keras")
    arrays, expected = inputs(model)
    return expected, outputs(keras.models.load_model(folder / "net.keras"), arrays)


def saved_model(model, folder):
    path = export_saved_model(model, folder / "net")
    arrays, expected = inputs(model)
    serve = tf.saved_model.load(path).signatures["serving_default"]
    return expected, in_order(serve(**{name: tf.constant(x) for name, x in arrays.items()}))


def tf1(model, folder):
    path = export_saved_model(model, folder / "net")
    arrays, expected = inputs(model)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(path))
        signature = loaded.signature_def["serving_default"]
        feeds = {signature.inputs[name].name: x for name, x in arrays.items()}
        names = {name: output.name for name, output in signature.outputs.items()}
        return expected, in_order(session.run(names, feeds))


def streaming(format):
    def run(model, folder):
        path = folder / ("net.tflite" if format == "litert" else "net")
        return export_streaming(model, path, format=format).report.difference

    return run


def litert(model, folder):
    path = export_litert(model, folder / "net.tflite")
    arrays, expected = inputs(model)
    run = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    return expected, in_order(run(**arrays))


def litert_int8(model, folder):
    shape = (64, TIME, FEATURES)
    data = [RNG.normal(size=shape).astype("float32") for _ in model.inputs]
    options = {"quantize": "int8", "data": data, "length": TIME}
    return export_litert(model, folder / "net.tflite", **options).report.difference


def onnx(model, folder):
    path = export_onnx(model, folder / "net.onnx")
    arrays, expected = inputs(model)
    return expected, in_order(onnx_files.Runner(path.read_bytes()).run(arrays))


def openvino_from_onnx(model, folder):
    path = export_onnx(model, folder / "net.onnx")
    arrays, expected = inputs(model)
    # Else it computes in bfloat16 where the processor can.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(path), "CPU", options)
    outputs = compiled(arrays)
    return expected, in_order({one.any_name: outputs[one] for one in compiled.outputs})


COLUMNS = {
    ".keras": keras_file,
    "SavedModel": saved_model,
    "TF1 session": tf1,
    "step, SavedModel": streaming("saved_model"),
    "step, LiteRT": streaming("litert"),
    "step, ONNX": streaming("onnx"),
    "LiteRT": litert,
    "LiteRT int8": litert_int8,
    "ONNX": onnx,
    "OpenVINO, by ONNX": openvino_from_onnx,
}


def entry(run, make):
    """The difference as text, or the reason why there is none."""
    keras.utils.set_random_seed(0)
    model = make()
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.3, w.shape) for w in model.weights])
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = run(model, pathlib.Path(folder))
        except Exception as error:
            return reason(error)
    if isinstance(result, tuple):
        result = largest_difference(*(dict(enumerate(one)) for one in result))
    return f"{result:.0e}"


def reason(error):
    text = " ".join(str(error).split())
    for part, short in (
        ("must not be stateful", "refused: stateful"),
        ("must be causal", "refused: looks ahead"),
    ):
        if part in text:
            return short
    if unread := re.search(r"Conversion is failed for: (\w+)", text):
        return f"not read: {unread[1]}"
    if beyond := re.search(r"up to (\S+);.*a difference of ([\d.]+)", text):
        return f"refused: {beyond[2]} is over {beyond[1]}"
    return f"{type(error).__name__}: {text[:120]}"


def table(done):
    lines = [f"| | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    for name in rows():
        if name in done:
            lines.append(f"| {name} | {' | '.join(done[name][column] for column in COLUMNS)} |")
    return "\n".join(lines)


def per_step(units=128):
    """Microseconds per step of two LSTMs, batch 1, beside Keras's stateful layers."""
    x = np.zeros((1, 1, FEATURES), "float32")

    def two(layer, stateful):
        shape = {"batch_shape": (1, 1, FEATURES)} if stateful else {"shape": (None, FEATURES)}
        options = {"return_sequences": True, "stateful": stateful}
        return keras.Sequential(
            [keras.Input(**shape, name="x"), layer(units, **options), layer(units, **options)]
        )

    stateful = two(keras.layers.LSTM, True)
    net = two(layers.LSTM, False)
    runs = {"keras.layers, stateful, predict_on_batch": lambda: stateful.predict_on_batch(x)}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        loaded = tf.saved_model.load(export_streaming(net, folder / "a"))
        run = loaded.signatures["step"]
        states = loaded.signatures["initial_state"](batch=tf.constant(1))
        taken = {"x": tf.constant(x[:, 0]), **states}
        runs["step, SavedModel"] = lambda: run(**taken)
        arrays = {name: np.array(v) for name, v in taken.items()}
        path = export_streaming(net, folder / "b.tflite", format="litert")
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        step = interpreter.get_signature_runner("step")
        runs["step, LiteRT"] = lambda: step(**arrays)
        path = export_streaming(net, folder / "d.tflite", format="litert", stateful=True)
        keeping = Interpreter(model_path=str(path), num_threads=1)
        step_on = keeping.get_signature_runner("step")
        runs["step, LiteRT, states inside"] = lambda: step_on(x=arrays["x"])
        files = export_streaming(net, folder / "c", format="onnx")
        session = onnx_files.Runner((files / "step.onnx").read_bytes()).session
        runs["step, ONNX"] = lambda: session.run(None, arrays)

        def timed(run, repeats=200):
            def once():
                start = time.perf_counter()
                for _ in range(repeats):
                    run()
                return (time.perf_counter() - start) / repeats

            return once

        turns = take_turns([timed(run) for run in runs.values()], 15)
    print("| step of two LSTM(128), batch 1 | microseconds | of the first |\n|---|---|---|")
    for i, name in enumerate(runs):
        micro = 1e6 * statistics.median(turn[i] for turn in turns.seconds)
        print(f"| {name} | {micro:.0f} | {turns.ratio(i, 0):.3f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", help="names of rows to fill, once more")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--steps", action="store_true", help="microseconds per step, nothing else")
    options = parser.parse_args()
    if options.steps:
        per_step()
        return
    options.out.mkdir(parents=True, exist_ok=True)
    kept = options.out / "export.json"
    done = json.loads(kept.read_text()) if kept.exists() else {}
    for name, make in rows().items():
        if name in (options.rows if options.rows is not None else rows().keys() - done.keys()):
            done[name] = {column: entry(run, make) for column, run in COLUMNS.items()}
            kept.write_text(json.dumps(done, indent=1))
            print(name, done[name], flush=True)
    print(table(done))


if __name__ == "__main__":
    main()
