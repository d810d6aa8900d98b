import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from exported import (
    AHEAD,
    CAUSAL,
    Own,
    inputs_of,
    long_memory,
    of_cell,
    outputs_of,
    quantized,
    randomized,
    sequence,
    served_elsewhere,
    tokens,
    with_table,
)
from slow import slow_but

from kerasrnn import cells, layers
from kerasrnn.export import export_litert
from kerasrnn.export.check import ExportError
from kerasrnn.export.interface import Interface
from kerasrnn.export.litert import BOUNDS

MODELS = {name: (lambda name=name: of_cell(name)) for name in cells.CELLS} | CAUSAL | AHEAD


@pytest.mark.parametrize("name", slow_but(["lru", "bidirectional", "inputs", "sentences"], MODELS))
def test_the_file_gives_what_the_model_gives(name, tmp_path, rng):
    model = randomized(MODELS[name]())
    path = export_litert(model, tmp_path / "net.tflite")
    assert path.report.difference <= 1e-5
    assert not any("FLEX" in kind or kind == "CUSTOM" for kind in path.report.operations)
    runner = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    for batch, length in ((2, 7), (5, 40), (1, 7)):
        arrays = inputs_of(model, batch, length, rng)
        expected = outputs_of(model, arrays)
        received = runner(**arrays)
        assert len(received) == len(expected)
        # Both in the order of their names, which Keras gives where they have one.
        for y, want in zip(_in_order(model, received), expected, strict=True):
            np.testing.assert_allclose(y, want, atol=1e-5)


def _in_order(model, received):
    if isinstance(model, keras.Sequential) or isinstance(model.output, dict):
        return [received[name] for name in sorted(received)]
    return received.values()


def test_a_process_without_keras_runs_it(tmp_path, rng):
    model = randomized(
        sequence(layers.GRU(4, return_sequences=True), keras.layers.Dense(1, name="y"))
    )
    path = export_litert(model, tmp_path / "net.tflite")
    x = rng.normal(size=(2, 9, 3)).astype("float32")
    code = """
import json, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
run = Interpreter(model_path=sys.argv[1]).get_signature_runner("serving_default")
print(json.dumps(run(x=np.load(sys.argv[2]))["y"].tolist()))
assert not {"keras", "kerasrnn"} & {name.partition(".")[0] for name in sys.modules}
"""
    np.testing.assert_allclose(served_elsewhere(code, path, x, tmp_path), model(x), atol=1e-5)


def test_what_is_left_open_is_said(tmp_path):
    model = sequence(layers.LSTM(3))
    path = export_litert(model, tmp_path / "any.tflite")
    assert path.report.dynamic == ("batch", "time")
    assert path.report.shapes == {"x": (None, None, 3)}
    assert path.report.size == path.stat().st_size
    path = export_litert(model, tmp_path / "one.tflite", length=12, batch=1)
    assert path.report.dynamic == ()
    assert path.report.shapes == {"x": (1, 12, 3)}


@pytest.mark.parametrize("quantize", slow_but(["dynamic"], ["float16", "dynamic"]))
def test_quantized(quantize, tmp_path):
    """A few units have too few weights to be quantized."""
    model = sequence(layers.GRU(64, return_sequences=True), keras.layers.Dense(64), features=64)
    whole = export_litert(model, tmp_path / "whole.tflite")
    path = export_litert(model, tmp_path / "net.tflite", quantize=quantize)
    assert path.report.size < 0.65 * whole.report.size
    assert 1e-6 < path.report.difference < 0.1
    assert path.report.dynamic == ("batch", "time")


def test_dynamic_that_quantizes_nothing_says_so(tmp_path):
    """From 1024 numbers on: 31 x 33 are one less."""
    path = tmp_path / "net.tflite"
    for units, is_said in ((33, True), (34, False)):
        model = keras.Sequential([keras.Input((31,), name="x"), keras.layers.Dense(units)])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            export_litert(model, path, quantize="dynamic", overwrite=True)
        said = [str(one.message) for one in caught if "has quantized nothing" in str(one.message)]
        assert len(said) == is_said
        assert all("fewer than 1024 numbers" in one and model.name in one for one in said)


@pytest.mark.parametrize("name", slow_but(["lstm"], ["lstm", "gru", "mgu", "lru"]))
def test_int8_is_written_without_a_loop(name, tmp_path, rng):
    """In a loop its converter takes the ranges of other tensors, and an LSTM gives anything."""
    model = randomized(sequence(layers.RNN(name, units=16, return_sequences=True)))
    data = rng.normal(size=(100, 8, 3)).astype("float32")
    path = export_litert(model, tmp_path / "net.tflite", length=8, quantize="int8", data=data)
    assert "WHILE" not in path.report.operations
    assert 1e-6 < path.report.difference < 0.1
    run = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    (y,) = run(x=data[:5]).values()
    want = np.array(model(data[:5]))
    np.testing.assert_allclose(y, want, atol=0.1 * max(1, abs(want).max()))


def test_int8_is_run_on_its_data_alone(tmp_path, rng, monkeypatch):
    model = randomized(sequence(layers.GRU(4)))
    calls = []
    of_arrays = Interface.of_arrays
    monkeypatch.setattr(
        Interface, "of_arrays", lambda self, x: calls.append(x) or of_arrays(self, x)
    )
    data = rng.normal(size=(100, 4, 3)).astype("float32")
    export_litert(model, tmp_path / "net.tflite", length=4, quantize="int8", data=data)
    np.testing.assert_array_equal(np.concatenate([x["x"] for x in calls]), data[:8])


def test_large_inputs(tmp_path, rng):
    x = keras.Input((None, 3), name="x")
    options = {"units": 4, "return_sequences": True}
    outputs = [layers.RNN(name, **options)(x) for name in ("minlstm", "slstm")]
    outputs += [keras.layers.Activation(name)(x) for name in ("softplus", "log_sigmoid", "mish")]
    model = randomized(keras.Model(x, {str(i): y for i, y in enumerate(outputs)}))
    path = export_litert(model, tmp_path / "net.tflite")
    run = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    for scale in (60, 600):
        arrays = {"x": (scale * rng.normal(size=(2, 9, 3))).astype("float32")}
        received = run(**arrays)
        for i, want in enumerate(outputs_of(model, arrays)):
            np.testing.assert_allclose(received[f"y_{i}"], want, rtol=1e-4, atol=1e-4)


def test_a_memory_that_fades_slowly(tmp_path, rng):
    model = long_memory()
    x = rng.normal(size=(2, 40, 3)).astype("float32")
    path = export_litert(model, tmp_path / "net.tflite")
    y = Interpreter(model_path=str(path)).get_signature_runner("serving_default")(x=x)["y"]
    np.testing.assert_allclose(y, model(x), atol=3e-6)


def two_of_a_shape(as_dictionary):
    """Inputs whose names are not in the order of the alphabet, of very different sizes."""
    b, a = keras.Input((4, 3), name="b"), keras.Input((4, 3), name="a")
    y = keras.layers.Dense(2)(keras.layers.Concatenate()([layers.GRU(4)(b), a[:, -1]]))
    return randomized(keras.Model({"one": a, "two": b} if as_dictionary else [b, a], y))


# Keras's, of keys that are not the names of the inputs.
@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
@pytest.mark.parametrize("as_dictionary", [False, True])
def test_int8_takes_a_dictionary_by_its_keys(as_dictionary, tmp_path, rng):
    model = two_of_a_shape(as_dictionary)
    small, large = (n * rng.normal(size=(100, 4, 3)).astype("float32") for n in (0.2, 9))
    a, b = ("one", "two") if as_dictionary else ("a", "b")
    options = {"quantize": "int8", "length": 4, "overwrite": True}
    path = export_litert(model, tmp_path / "net.tflite", data={b: small, a: large}, **options)
    run = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    (y,) = run(a=large, b=small).values()
    want = np.array(model({b: small, a: large} if as_dictionary else [small, large]))
    assert abs(y - want).max() <= 0.1 * abs(want).max()

    rule = rf"`data` must hold an array for each .*: ({a}, {b}|{b}, {a})\. .*\['c', '{a}'\]"
    with pytest.raises(ValueError, match=rule):
        export_litert(model, path, data={"c": small, a: large}, **options)


def test_int8_of_few_rows_says_so(tmp_path, rng, monkeypatch):
    model = randomized(sequence(layers.GRU(4)))
    data = rng.normal(size=(5, 4, 3)).astype("float32")
    options = {"length": 4, "batch": 2, "quantize": "int8", "data": data}
    with pytest.warns(UserWarning, match=r"100 rows or more .*Received: 4 rows"):
        export_litert(model, tmp_path / "net.tflite", **options)
    monkeypatch.setitem(BOUNDS, "int8", 0.0)
    options["data"] = np.repeat(data, 40, 0)
    with pytest.raises(ExportError, match=r"a difference of .* on rows of `data` of the shapes x"):
        export_litert(model, tmp_path / "none.tflite", **options)


def test_int8_costs_what_the_report_says_each_time(tmp_path, rng):
    """The largest difference on the first rows of `data`, by the largest output above 1."""
    model = randomized(sequence(layers.MinGRU(8), keras.layers.Dense(2)))
    model.set_weights([4 * w for w in model.get_weights()])
    data = rng.normal(size=(100, 5, 3)).astype("float32")
    options = {"length": 5, "quantize": "int8", "data": data}
    path, again = (export_litert(model, tmp_path / f"{i}.tflite", **options) for i in range(2))
    assert path.read_bytes() == again.read_bytes()
    run = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    costs = []
    for row in data[:8]:
        want = np.array(model(row[None]))
        (y,) = run(x=row[None]).values()
        costs.append(abs(y - want).max() / max(1, abs(want).max()))
    assert path.report.difference == pytest.approx(max(costs), rel=1e-3)
    assert path.report.bound == 0.2


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"go_backwards": True}, {"zero_output_for_mask": True}])
@pytest.mark.parametrize("layer", [layers.SimpleRNN, layers.LSTM, layers.GRU])
def test_int8_with_a_mask(layer, options, tmp_path, rng):
    model = randomized(sequence(keras.layers.Masking(), layer(8, return_sequences=True, **options)))
    data = rng.normal(size=(100, 6, 3)).astype("float32")
    data[rng.random((64, 6)) < 0.3] = 0
    path = export_litert(model, tmp_path / "net.tflite", length=6, quantize="int8", data=data)
    run = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    (y,) = run(x=data).values()
    apart = np.abs(y - model(data))
    assert apart.max() < 0.25
    assert apart.mean() < 0.04


def test_a_difference_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "net.tflite"
    path.write_bytes(b"mine")
    model = randomized(sequence(layers.GRU(4)))
    monkeypatch.setitem(export_litert.__globals__["BOUNDS"], None, 0.0)
    with pytest.raises(ExportError, match=r"must give what the model gives.*difference of"):
        export_litert(model, path, overwrite=True)
    assert path.read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["net.tflite"]


@keras.saving.register_keras_serializable("tests")
class Inverse(keras.layers.Layer):
    def call(self, x):
        return tf.linalg.inv(tf.matmul(x, x, transpose_a=True) + tf.eye(3))


def test_an_operation_that_litert_has_not_is_named(tmp_path, capfd):
    with pytest.raises(ExportError, match=r"no builtin operations.*MatrixInverse"):
        export_litert(sequence(Inverse()), tmp_path / "net.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_a_quantization_that_litert_has_not_is_named(mode, tmp_path, capfd):
    model = quantized(mode)
    name = model.layers[-1].name
    rule = rf"Received: (BatchMatMulV3|Cast)\. .*quantized by Keras.*in {name} \({mode}\): export"
    with pytest.raises(ExportError, match=rule):
        export_litert(model, tmp_path / "net.tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_table_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"so no table, as an IntegerLookup has.*integer_lookup"):
        export_litert(with_table(), tmp_path / "net.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("`quantize` must be None, 'float16'.*quantize='int4'", {"quantize": "int4"}),
        ("`length` must be a positive integer.*length=0", {"length": 0}),
        ("`batch` must be a positive integer.*batch=-1", {"batch": -1}),
        ("`length` must be a number of time steps.*length=None", {"quantize": "int8"}),
        ("`data` must hold an array for each .*x", {"quantize": "int8", "length": 3}),
        (
            r"`data` must have the shape .*\(None, 3, 3\) of x.*\(2, 4, 3\)",
            {"quantize": "int8", "length": 3, "data": np.zeros((2, 4, 3))},
        ),
        ("`data` is for quantize='int8'", {"data": np.zeros((2, 3, 3))}),
        (
            "`data` must hold at least as many rows as the file takes at once, 8.*x: 5",
            {"quantize": "int8", "length": 4, "batch": 8, "data": np.zeros((5, 4, 3))},
        ),
        *(
            (
                "`data` must hold finite numbers.*Received: x with array",
                {"quantize": "int8", "length": 3, "data": np.full((2, 3, 3), value)},
            )
            for value in (np.nan, "a")
        ),
    ],
)
def test_bad_arguments(message, arguments, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_litert(sequence(layers.GRU(2)), tmp_path / "net.tflite", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_length_beside_that_of_the_model(tmp_path):
    model = keras.Sequential([keras.Input(batch_shape=(2, 5, 3), name="x"), layers.GRU(2)])
    with pytest.raises(ValueError, match=r"`batch` must be that of the model.*batch=3, and"):
        export_litert(model, tmp_path / "net.tflite", batch=3)
    with pytest.raises(ValueError, match=r"`length` must be that of the model.*length=4"):
        export_litert(model, tmp_path / "net.tflite", length=4)
    ids = keras.Input((30,), dtype="int32", name="ids")
    model = keras.Model(ids, layers.GRU(2)(keras.layers.Embedding(4, 2)(ids)))
    with pytest.raises(ValueError, match=r"length=20, and the input 'ids' of .*\(None, 30\)"):
        export_litert(model, tmp_path / "net.tflite", length=20)
    assert Interface(model, "litert").specs(length=30)["ids"].shape == [None, 30]
    # What may be features beside a sequence is left alone.
    x, h = keras.Input((None, 3), name="x"), keras.Input((2,), name="h")
    model = keras.Model([x, h], layers.GRU(2)(x, initial_state=h))
    specs = Interface(model, "litert").specs(length=20)
    assert (specs["x"].shape, specs["h"].shape) == ([None, 20, 3], [None, 2])


def test_models_it_does_not_take(tmp_path):
    path = tmp_path / "net.tflite"
    stateful = keras.Sequential(
        [keras.Input(batch_shape=(2, 5, 3)), layers.GRU(2, stateful=True, name="kept")]
    )
    with pytest.raises(ValueError, match=r"must not be stateful.*stateful layers kept"):
        export_litert(stateful, path)
    with pytest.raises(ValueError, match="must be built"):
        export_litert(keras.Sequential([layers.GRU(2)]), path)
    with pytest.raises(ValueError, match=r"must compute in float32.*bfloat16"):
        export_litert(sequence(layers.GRU(2, dtype="mixed_bfloat16")), path)
    with pytest.raises(ValueError, match=r"must compute in float32.*float64"):
        export_litert(sequence(layers.GRU(2, dtype="float64")), path)
    texts = keras.Input((), dtype="string", name="texts")
    vectorize = keras.layers.TextVectorization(vocabulary=["a"], output_sequence_length=4)
    embedded = keras.layers.Embedding(4, 2)(vectorize(texts))
    with pytest.raises(ValueError, match=r"carries no strings.*'texts'"):
        export_litert(keras.Model(texts, layers.GRU(2)(embedded)), path)

    own = Own()
    own(np.ones((1, 2, 3)))
    with pytest.raises(ValueError, match=r"functional or Sequential.*a Own"):
        export_litert(own, path)
    assert list(tmp_path.iterdir()) == []


def test_padding_is_checked_as_well_as_gaps(tmp_path, monkeypatch):
    """A mask that is lost on the way is a difference, on either of the two inputs of the check."""
    model = randomized(tokens(layers.GRU(4)))
    path = export_litert(model, tmp_path / "net.tflite")
    run = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    ids = np.array([[1, 2, 3, 0, 0], [0, 3, 0, 1, 2]], "int32")
    (received,) = run(tokens=ids).values()
    short = [model(np.array([row[row > 0]])) for row in ids]
    np.testing.assert_allclose(received, np.concatenate(short), atol=1e-5)
