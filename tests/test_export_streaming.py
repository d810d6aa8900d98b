import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from exported import (
    AHEAD,
    CAUSAL,
    TwiceCell,
    inputs_of,
    of_cell,
    outputs_of,
    randomized,
    sequence,
)
from slow import slow_but

from kerasrnn import cells, layers
from kerasrnn.export import export_streaming
from kerasrnn.export import onnx as onnx_files
from kerasrnn.export.check import ExportError

MODELS = {name: (lambda name=name: of_cell(name)) for name in cells.CELLS} | CAUSAL


def exported(model, folder, format="saved_model", **options):
    path = folder / ("s.tflite" if format == "litert" else "s")
    return export_streaming(model, path, format, **options)


def runner(path, format):
    """`run(signature, arrays)` of what was written."""
    if format == "litert":
        interpreter = Interpreter(model_path=str(path))
        return lambda name, arrays: interpreter.get_signature_runner(name)(**arrays)
    if format == "onnx":
        signatures = json.loads((path / "signature.json").read_text())["signatures"]
        states = signatures["initial_state"]["outputs"]
        files = {
            name: onnx_files.Runner((path / f"{name}.onnx").read_bytes(), states)
            for name in signatures
        }
        return lambda name, arrays: files[name].run(arrays)
    loaded = tf.saved_model.load(path)
    return lambda name, arrays: {
        k: v.numpy()
        for k, v in loaded.signatures[name](
            **{k: tf.constant(v) for k, v in arrays.items()}
        ).items()
    }


def steps(run, arrays, stateful=False):
    """What comes out at each step but for the states."""
    batch, length = next(iter(arrays.values())).shape[:2]
    states = {} if stateful else run("initial_state", {"batch": np.array(batch, "int32")})
    for t in range(length):
        outputs = run("step", {name: x[:, t] for name, x in arrays.items()} | states)
        states = {name: outputs.pop(name) for name in states}
        yield outputs


def assert_steps_are_the_whole(model, run, arrays, stateful=False):
    expected = outputs_of(model, arrays)
    shown = list(steps(run, arrays, stateful))
    names = sorted(shown[0])
    for name, want in zip(names, expected, strict=True):
        ys = [outputs[name] for outputs in shown]
        if len(want.shape) > 2:
            np.testing.assert_allclose(np.stack(ys, 1), want, atol=1e-5)
        else:
            np.testing.assert_allclose(ys[-1], want, atol=1e-5)
            # And at each step what it would have been there.
            shorter = {name: x[:, :4] for name, x in arrays.items()}
            np.testing.assert_allclose(
                ys[3], outputs_of(model, shorter)[names.index(name)], atol=1e-5
            )


@pytest.mark.parametrize("format", slow_but(["saved_model"], ["saved_model", "litert", "onnx"]))
@pytest.mark.parametrize(
    "name", slow_but(["lru", "around", "features", "inputs", "functional", "sentences"], MODELS)
)
def test_step_by_step_is_the_whole(name, format, tmp_path, rng):
    model = randomized(MODELS[name]())
    path = exported(model, tmp_path, format)
    assert path.report.difference <= 1e-5
    assert not {"While", "StatelessWhile", "WHILE", "Loop", "Scan"} & path.report.operations.keys()
    assert_steps_are_the_whole(model, runner(path, format), inputs_of(model, 3, 9, rng))


@pytest.mark.parametrize("name", ["stack", "features", "axes"])
@pytest.mark.parametrize("format", ["litert", "onnx"])
def test_the_other_formats_in_short(format, name, tmp_path, rng):
    model = randomized(CAUSAL[name]())
    path = exported(model, tmp_path, format)
    assert_steps_are_the_whole(model, runner(path, format), inputs_of(model, 3, 9, rng))
    # A convolution of one step keeps none.
    assert not any(0 in shape for shape in path.report.shapes.values())


@pytest.mark.parametrize("format", slow_but(["saved_model"], ["saved_model", "litert", "onnx"]))
def test_a_functional_model_of_a_fixed_length(format, tmp_path, rng):
    x = keras.Input((9, 3), name="x")
    y = layers.GRU(4, return_sequences=True, unroll=True)(x)
    inner = keras.Input((9, 4))
    y = keras.Model(inner, keras.layers.LSTM(2, return_sequences=True)(inner), name="inner")(y)
    model = randomized(
        keras.Model(x, [y, keras.layers.GRU(2, name="last")(keras.layers.Masking()(x))])
    )
    path = exported(model, tmp_path, format)
    arrays = inputs_of(model, 3, 9, rng)
    shown = list(steps(runner(path, format), arrays))
    assert len(shown[0]) == 2
    received = {name: np.stack([step[name] for step in shown], 1) for name in shown[0]}
    whole, last = outputs_of(model, arrays)
    np.testing.assert_allclose(received["inner"], whole, atol=1e-5)
    np.testing.assert_allclose(received["last"][:, -1], last, atol=1e-5)
    with pytest.raises(ValueError, match="incompatible"):
        model(arrays["x"][:, :4])


@pytest.mark.parametrize("format", slow_but(["litert"], ["saved_model", "litert"]))
@pytest.mark.parametrize("name", slow_but(["lru", "stack"], MODELS))
def test_a_file_keeps_its_states(name, format, tmp_path, rng):
    model = randomized(MODELS[name]())
    path = exported(model, tmp_path, format, stateful=True)
    assert path.report.difference <= 1e-5
    assert path.report.dynamic == ("time",)
    assert path.report.shapes.keys() == {part.name for part in model.inputs}
    assert not any("FLEX" in kind or kind == "CUSTOM" for kind in path.report.operations)
    run = runner(path, format)
    for _ in range(2):
        assert_steps_are_the_whole(model, run, inputs_of(model, 1, 9, rng), stateful=True)
        run("reset", {})


@pytest.mark.parametrize("format", ["saved_model", "litert"])
def test_rows_of_a_file_that_keeps_its_states(format, tmp_path, rng):
    """Each loading has states of its own, for as many rows as the Input says, and for no others."""
    gru = layers.GRU(4, stateful=True, initial_state="learned", name="gru")
    model = keras.Sequential([keras.Input(batch_shape=(2, None, 3), name="x"), gru])
    randomized(model)
    path = exported(model, tmp_path, format, stateful=True)
    assert path.report.shapes == {"x": (2, 3)}
    first, second = runner(path, format), runner(path, format)
    arrays = inputs_of(model, 2, 6, rng)
    early = list(steps(first, {"x": arrays["x"][:, :3]}, stateful=True))
    list(steps(second, {"x": rng.normal(size=(2, 4, 3)).astype("float32")}, stateful=True))
    late = list(steps(first, {"x": arrays["x"][:, 3:]}, stateful=True))
    gru.reset_state()
    (want,) = outputs_of(model, arrays)
    (received,) = (early + late)[-1].values()
    np.testing.assert_allclose(received, want, atol=1e-5)
    (learned,) = (w for w in model.weights if "initial" in w.path)
    for served in (first, second):
        start = served("reset", {})
        np.testing.assert_allclose(start["gru_h"], np.tile(np.ravel(learned), (2, 1)), atol=1e-6)
    for rows in (1, 3):
        with pytest.raises((RuntimeError, tf.errors.InvalidArgumentError)):
            first("step", {"x": np.ones((rows, 3), "float32")})


@pytest.mark.parametrize("format", ["saved_model", "litert", "onnx"])
def test_states_of_another_batch(format, tmp_path, rng):
    """One row is not taken for all rows."""
    model = randomized(of_cell("gru"))
    run = runner(exported(model, tmp_path, format), format)
    for rows, of_states in ((3, 1), (1, 3), (3, 2)):
        states = run("initial_state", {"batch": np.array(of_states, "int32")})
        rule = r"must have as many rows as `x`" if format == "saved_model" else "[Rr]eshape|RESHAPE"
        with pytest.raises(Exception, match=rule):
            run("step", {"x": np.ones((rows, 3), "float32"), **states})


def test_what_cannot_keep_its_states(tmp_path):
    with pytest.raises(ValueError, match=r"`stateful` must be False with format='onnx'.*True"):
        exported(of_cell("gru"), tmp_path, "onnx", stateful=True)
    with pytest.raises(ValueError, match=r"`stateful` must be True or False.*stateful='file'"):
        exported(of_cell("gru"), tmp_path, stateful="file")
    memoryless = sequence(keras.layers.Dense(2), keras.layers.Dropout(0.5))
    for stateful in (False, True):
        with pytest.raises(ValueError, match=r"must have states.*Received: sequential"):
            exported(memoryless, tmp_path, stateful=stateful)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("format", "stateful"),
    slow_but([("saved_model", False)], [("saved_model", False), ("litert", True)]),
)
@pytest.mark.parametrize("length", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_steps(length, format, stateful, tmp_path, rng):
    model = randomized(
        sequence(
            layers.LSTM(8, return_sequences=True),
            layers.LRU(8, return_sequences=True),
            layers.GRU(8, return_sequences=True),
        )
    )
    path = exported(model, tmp_path, format, stateful=stateful)
    arrays = inputs_of(model, 1 if stateful else 2, length, rng)
    assert_steps_are_the_whole(model, runner(path, format), arrays, stateful)


def test_names_and_signature(tmp_path):
    path = exported(randomized(CAUSAL["stack"]()), tmp_path)
    signatures = json.loads((path / "signature.json").read_text())["signatures"]
    states = {f"lstm_{i}_{s}" for i in (1, 2) for s in ("h", "c", "output")}
    taken = signatures["step"]["inputs"].keys()
    assert {"tokens"} | states <= taken
    assert signatures["initial_state"]["inputs"] == {"batch": {"dtype": "int32", "shape": []}}
    assert signatures["initial_state"]["outputs"].keys() == taken - {"tokens"}
    assert taken - {"tokens"} < signatures["step"]["outputs"].keys()
    assert signatures["step"]["inputs"]["tokens"] == {"dtype": "int32", "shape": [None]}
    assert signatures["step"]["inputs"]["lstm_1_h"] == {"dtype": "float32", "shape": [None, 8]}


class PlainCell(keras.layers.Layer):
    """A user's, which has no more than Keras asks for."""

    def __init__(self, state_size):
        super().__init__()
        self.state_size = state_size
        self.dense = keras.layers.Dense(3, activation="tanh")

    def build(self, shape):
        self.dense.build((None, shape[-1] + 3))

    def call(self, x, states):
        (h, *more) = states
        h = self.dense(keras.ops.concatenate([x, h], -1))
        return h, [h, *(c + h for c in more)]


@pytest.mark.parametrize("kind", [layers.RNN, keras.layers.RNN])
def test_cells_that_say_the_sizes_of_their_states_alone(kind, tmp_path, rng):
    model = sequence(
        kind(PlainCell([3, 3]), return_sequences=True), kind([PlainCell([3]), PlainCell(3)])
    )
    randomized(model)
    path = exported(model, tmp_path)
    assert_steps_are_the_whole(model, runner(path, "saved_model"), inputs_of(model, 2, 6, rng))


def test_layers_of_one_name_have_states_of_their_own(tmp_path, rng):
    inner = [
        keras.Sequential(
            [keras.Input((None, 3)), layers.GRU(3, return_sequences=True, name="gru")],
            name=f"part_{i}",
        )
        for i in range(2)
    ]
    model = randomized(sequence(*inner))
    path = exported(model, tmp_path)
    assert {"part_0_gru_h", "part_1_gru_h"} <= path.report.shapes.keys()
    assert_steps_are_the_whole(model, runner(path, "saved_model"), inputs_of(model, 2, 6, rng))


def test_a_stateful_model_is_left_as_it_is(tmp_path, rng):
    model = randomized(
        keras.Sequential(
            [keras.Input(batch_shape=(2, None, 3), name="x"), layers.LSTM(4, stateful=True)]
        )
    )
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    model(x)
    kept = [np.array(state) for state in model.layers[0].states]
    run = runner(exported(model, tmp_path), "saved_model")
    assert model.layers[0].stateful
    np.testing.assert_array_equal(kept, model.layers[0].states)
    # Any batch, from zeros.
    *_, last = steps(run, {"x": np.concatenate([x, x])})
    model.layers[0].reset_state()
    (y,) = last.values()
    np.testing.assert_allclose(y[2:], model(x), atol=1e-5)


def test_a_tf1_session_serves_it(tmp_path, rng):
    model = randomized(of_cell("gru"))
    path = exported(model, tmp_path)
    x = rng.normal(size=(2, 3)).astype("float32")
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(path))
        step = loaded.signature_def["step"]
        (state,) = step.inputs.keys() - {"x"}
        feeds = {step.inputs["x"].name: x, step.inputs[state].name: np.zeros((2, 5))}
        y = session.run(step.outputs["y"].name, feeds)
    np.testing.assert_allclose(y, model(x[:, None])[:, 0], atol=1e-5)


class Smoothed(keras.layers.Layer):
    def call(self, x):
        return keras.ops.cumsum(x, axis=1)


def attended():
    x = keras.Input((None, 4), name="x")
    y = layers.GRU(4, return_sequences=True)(x)
    return keras.Model(x, keras.layers.Attention(name="looks")([y, y]))


REFUSED = {
    "which runs against the time": lambda: sequence(
        layers.Bidirectional(layers.GRU(2), name="looks")
    ),
    "runs against": lambda: sequence(layers.GRU(2, go_backwards=True, name="looks")),
    "inside of a connection": lambda: sequence(
        layers.Residual(
            layers.Bidirectional(layers.GRU(2, return_sequences=True), "sum", name="looks"),
            project=True,
        )
    ),
    "padding='same'": lambda: sequence(keras.layers.Conv1D(2, 3, padding="same", name="looks")),
    "may look at other steps": lambda: sequence(
        layers.GRU(2, return_sequences=True), keras.layers.GlobalMaxPooling1D(name="looks")
    ),
    "look at other steps": attended,
    "at other steps": lambda: sequence(Smoothed(name="looks"), layers.GRU(2)),
    "axis=1": lambda: sequence(keras.layers.Softmax(axis=1, name="looks"), layers.GRU(2)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_looks_at_other_steps_is_named(reason, tmp_path):
    rule = reason if reason != "inside of a connection" else "runs against"
    with pytest.raises(ValueError, match=f"`model` must be causal.*Received: looks .*{rule}"):
        exported(REFUSED[reason](), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_states_from_elsewhere_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"inputs with time.*'h' has the shape \(None, 4\)"):
        exported(AHEAD["states"](), tmp_path)
    x = keras.Input((None, 3), name="x")
    h = keras.layers.Dense(4)(layers.GRU(4)(x))
    model = keras.Model(x, layers.GRU(4, return_sequences=True, name="g")(x, initial_state=h))
    with pytest.raises(ValueError, match="initial_state"):
        exported(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments(tmp_path):
    model = of_cell("gru")
    with pytest.raises(ValueError, match=r"`format` must be 'saved_model', .*format='tflite'"):
        export_streaming(model, tmp_path / "s", format="tflite")
    with pytest.raises(ValueError, match=r"`path` must end in '.tflite'"):
        export_streaming(model, tmp_path / "s", format="litert")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"overwrite=True.*full"):
        export_streaming(model, tmp_path / "full")
    assert [p.name for p in tmp_path.rglob("*")] == ["full", "mine.txt"]


@pytest.mark.parametrize(
    ("format", "stateful"),
    [("saved_model", False), ("litert", False), ("onnx", False), ("litert", True)],
)
def test_a_difference_leaves_nothing(format, stateful, tmp_path, monkeypatch):
    monkeypatch.setitem(export_streaming.__globals__, "BOUND", -1.0)
    model = sequence(layers.RNN(TwiceCell(2)))
    with pytest.raises(ExportError, match="must give what the model gives"):
        exported(model, tmp_path / "new" / "deep", format, stateful=stateful)
    assert list(tmp_path.iterdir()) == []
