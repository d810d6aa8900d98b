import keras
import numpy as np
import pytest
from exported import quantized, sequence, tokens

from kerasrnn import layers
from kerasrnn.export import export_litert, export_onnx, export_saved_model, export_streaming
from kerasrnn.export.check import (
    ExportError,
    cases,
    checked,
    converting,
    largest_difference,
    loaded,
    samples,
)

ONE = np.ones((2, 3), "float32")


@pytest.mark.parametrize(
    ("expected", "received", "difference"),
    [
        (ONE, ONE, 0.0),
        (ONE, 1.5 * ONE, 0.5),
        (4 * ONE, 5 * ONE, 0.25),
        (ONE, ONE[:1], np.inf),
        (ONE, np.nan * ONE, np.inf),
        (np.nan * ONE, np.nan * ONE, 0.0),
        (np.inf * ONE, -np.inf * ONE, np.inf),
        (np.array([1, 2]), np.array([1, 4]), 1.0),
        (np.array([b"a"]), np.array([b"b"]), np.inf),
        (np.zeros((0, 3)), np.zeros((0, 3)), 0.0),
        (ONE.astype("bfloat16"), 1.25 * ONE.astype("bfloat16"), 0.25),
        (ONE.astype("bfloat16"), np.nan * ONE.astype("bfloat16"), np.inf),
    ],
)
def test_largest_difference(expected, received, difference):
    assert largest_difference({"y": expected}, {"y": received}) == pytest.approx(difference)


def test_outputs_of_other_names_differ():
    assert largest_difference({"y": ONE}, {"z": ONE}) == np.inf


def test_checked_gives_the_largest_and_refuses_more():
    pairs = [({"x": ONE}, {"y": ONE}), ({"x": ONE[:1]}, {"y": ONE[:1]})]
    factors = iter([1.25, 1.125])
    assert checked("onnx", pairs, lambda x: {"y": next(factors) * x["x"]}, 0.5) == 0.25
    with pytest.raises(ExportError, match=r"up to 0.1; .* of 1 on.*x \(2, 3\).* outputs y"):
        checked("onnx", pairs, lambda x: {"y": 2 * x["x"]}, 0.1)
    with pytest.raises(ExportError, match="a difference of inf"):
        checked("onnx", pairs, lambda x: {"y": np.nan * x["x"]}, 0.1)

    def fails(x):
        raise RuntimeError("no such kernel")

    with pytest.raises(ExportError, match=r"does not run on .*x \(2, 3\).*no such kernel"):
        checked("onnx", pairs, fails, 0.1)
    with pytest.raises(ExportError, match="was run on nothing"):
        checked("onnx", [], fails, 0.1)


def test_what_does_not_load():
    def load():
        raise TypeError("No Op registered for MulNoNan")

    with pytest.raises(ExportError, match=r"onnx file does not load; it was not .* for MulNoNan"):
        loaded("onnx", load)


def test_samples_are_padded_first_and_then_have_gaps():
    model = tokens(layers.GRU(2))
    padded, gaps = samples(model, {"t": model.inputs[0]}, ((40, 9), (40, 12)))
    assert (padded["t"].shape, gaps["t"].shape) == ((40, 9), (40, 12))
    assert padded["t"].dtype == "int32"
    for x in (padded["t"], gaps["t"]):
        assert {*x.ravel()} == {0, 1, 2, 3}
    rises = [(np.diff((x["t"] > 0).astype(int), axis=1) > 0).any() for x in (padded, gaps)]
    assert rises == [False, True]


def test_samples_of_a_masking():
    model = sequence(keras.layers.Masking(-1.0), layers.GRU(2))
    for x in samples(model, {"x": model.inputs[0]}, ((20, 9), (20, 12))):
        hidden = (x["x"] == -1).all(-1)
        assert hidden.any()
        assert not hidden.all()


def test_fixed_sizes_hold():
    model = keras.Sequential([keras.Input(batch_shape=(2, 5, 3), name="x"), layers.GRU(2)])
    for x in samples(model, {"x": model.inputs[0]}, ((7, 9), (8, 9))):
        assert x["x"].shape == (2, 5, 3)


def test_open_axes_have_lengths_of_their_own():
    a, b = keras.Input((None, None, 3), name="a"), keras.Input((None, 3), name="b")
    model = keras.Model([a, b], [keras.layers.Dense(2)(a), layers.GRU(2)(b)])
    pairs = cases(model, {"a": a, "b": b}, lambda x: {"y": model([x["a"], x["b"]])[1]})
    shapes = [(x["a"].shape, x["b"].shape) for x, *_ in pairs[:2]]
    assert shapes == [((2, 11, 12, 3), (2, 13, 3)), ((3, 18, 17, 3), (3, 16, 3))]


def test_one_length_where_the_model_needs_it():
    a, b = keras.Input((None, 3), name="a"), keras.Input((None, 3), name="b")
    model = keras.Model([a, b], keras.layers.Add()([a, b]))
    pairs = cases(model, {"a": a, "b": b}, lambda x: {"y": model([x["a"], x["b"]])})
    shapes = [(x["a"].shape, x["b"].shape) for x, *_ in pairs[:2]]
    assert shapes == [((2, 11, 3), (2, 11, 3)), ((3, 16, 3), (3, 16, 3))]


def test_longer_sequences_where_a_window_needs_them():
    model = sequence(keras.layers.Conv1D(2, 30), layers.GRU(2))
    pairs = cases(model, {"x": model.inputs[0]}, lambda x: {"y": model(x["x"])})
    assert [x["x"].shape[1] for x, *_ in pairs] == [101, 160, 101]

    def refuses(x):
        raise ValueError("not such numbers")

    with pytest.raises(ExportError, match=r"itself takes none.*x \(None, None, 3\).*not such numb"):
        cases(model, {"x": model.inputs[0]}, refuses)


def test_the_last_case_is_of_large_inputs():
    model = sequence(layers.GRU(2))
    pairs = cases(model, {"x": model.inputs[0]}, lambda x: {"y": np.array(model(x["x"]))})
    assert [abs(case.inputs["x"]).max() > 60 for case in pairs] == [False, False, True]
    assert [case.slack > 0 for case in pairs] == [False, False, True]

    def overflows(x):
        return {"y": np.array(model(x["x"])) * (np.nan if abs(x["x"]).max() > 60 else 1)}

    with pytest.raises(ExportError, match="of inf on random inputs of large numbers"):
        checked("onnx", pairs, overflows, 1e-5)
    # What the model does not give, a file need not either, nor what it refuses.
    assert len(cases(model, {"x": model.inputs[0]}, overflows)) == 2

    def refuses(x):
        if abs(x["x"]).max() > 60:
            raise ValueError("too large")
        return overflows(x)

    assert len(cases(model, {"x": model.inputs[0]}, refuses)) == 2
    ids = tokens(layers.GRU(2))
    assert len(cases(ids, {"x": ids.inputs[0]}, lambda x: {"y": ids(x["x"])})) == 2


def test_what_a_last_bit_of_large_inputs_changes_is_let_through():
    model = sequence(keras.layers.Dense(1))
    pairs = cases(model, {"x": model.inputs[0]}, lambda x: {"y": np.sin(1e6 * x["x"])})
    assert pairs[-1].slack > 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, MemoryError, KeyError])
def test_what_a_model_raises_of_its_own_keeps_its_name(error):
    model = sequence(layers.GRU(2))

    def fails(x):
        raise error("of its own")

    with pytest.raises(error, match="of its own"):
        cases(model, {"x": model.inputs[0]}, fails)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(value, tmp_path):
    model = sequence(layers.GRU(2, name="gru"), keras.layers.Dense(1, name="lost"))
    kernel, bias = model.layers[-1].get_weights()
    kernel[0, 0] = value
    model.layers[-1].set_weights([kernel, bias])
    for export, suffix, options in (
        (export_saved_model, "", {}),
        (export_litert, ".tflite", {}),
        (export_onnx, ".onnx", {}),
        *((export_streaming, "", {"format": format}) for format in ("saved_model", "onnx")),
    ):
        with pytest.raises(
            ValueError, match=r"must have finite weights.*infinity in \S*lost/kernel$"
        ):
            export(model, tmp_path / f"net{suffix}", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        (KeyError("no such"), ExportError, r"in the format onnx; .*KeyError: 'no such'$"),
        (ExportError("as it was"), ExportError, r"^as it was$"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_what_a_converter_raises(error, name, message):
    model = sequence(layers.GRU(2), keras.layers.Dense(3))
    with pytest.raises(name, match=message), converting(model, "onnx"):
        raise error


def test_what_a_converter_raises_of_a_quantized_model():
    model = quantized("int8")
    name = model.layers[-1].name
    rule = rf"as it was\. The model is quantized by Keras's .*in {name} \(int8\): export the model"
    with pytest.raises(ExportError, match=rule), converting(model, "onnx"):
        raise ExportError("as it was")
