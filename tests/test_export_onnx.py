import pathlib
import warnings

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from exported import (
    AHEAD,
    CAUSAL,
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
from kerasrnn.export import export_onnx, export_streaming
from kerasrnn.export.check import ExportError

MODELS = {name: (lambda name=name: of_cell(name)) for name in cells.CELLS} | CAUSAL | AHEAD
NODES = {"LSTM", "GRU", "RNN", "Scan", "If"}
FEW = ["simple_rnn", "lru", "reset", "bidirectional", "around", "sentences"]


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def nodes(report):
    return {name: count for name, count in report.operations.items() if name in NODES}


@pytest.mark.parametrize("name", slow_but(FEW, MODELS))
def test_the_file_gives_what_the_model_gives(name, tmp_path, rng):
    model = randomized(MODELS[name]())
    path = export_onnx(model, tmp_path / "net.onnx")
    assert path.report.difference <= 1e-5
    run = session(path)
    for batch, length in ((2, 7), (5, 40), (1, 7)):
        arrays = inputs_of(model, batch, length, rng)
        received = run.run(None, arrays)
        for y, want in zip(received, outputs_of(model, arrays), strict=True):
            np.testing.assert_allclose(y, want, atol=1e-5)


NODES_OF = {
    "an LSTM": (lambda: layers.LSTM(3), {"LSTM": 1}),
    "a GRU": (lambda: layers.GRU(3), {"GRU": 1}),
    "reset before": (
        lambda: layers.GRU(3, reset_after=False, use_bias=False),
        {"GRU": 1},
    ),
    "the lecture's GRU": (lambda: layers.GRU(3, update_gate="write"), {"GRU": 1}),
    "a SimpleRNN": (lambda: layers.SimpleRNN(3, activation="relu"), {"RNN": 1}),
    "hard gates": (lambda: layers.LSTM(3, recurrent_activation="hard_sigmoid"), {"LSTM": 1}),
    "Keras's LSTM": (lambda: keras.layers.LSTM(3, use_bias=False), {"LSTM": 1}),
    "Keras's GRU": (lambda: keras.layers.GRU(3, reset_after=False), {"GRU": 1}),
    "Keras's both": (
        lambda: keras.layers.Bidirectional(keras.layers.SimpleRNN(3)),
        {"RNN": 2},
    ),
    "both": (lambda: layers.Bidirectional(layers.LSTM(3)), {"LSTM": 2}),
    "a stack": (lambda: layers.RNNStack("gru", 3, 2, bidirectional=True), {"GRU": 4}),
    # What these nodes have not.
    "zoneout": (lambda: layers.LSTM(3, zoneout=0.2), {"Scan": 1}),
    "normalization": (lambda: layers.GRU(3, normalization="layer"), {"Scan": 1}),
    "another activation": (lambda: layers.GRU(3, activation="softsign"), {"Scan": 1}),
    "hard gates that write": (
        lambda: layers.GRU(3, update_gate="write", recurrent_activation="hard_sigmoid"),
        {"Scan": 1},
    ),
    "another cell": (lambda: layers.MinGRU(3), {"Scan": 1}),
}


@pytest.mark.parametrize(
    "name", slow_but(["reset before", "the lecture's GRU", "hard gates", "zoneout"], NODES_OF)
)
def test_which_node_it_is(name, tmp_path):
    """What it gives is what the exporter compares."""
    layer, expected = NODES_OF[name]
    path = export_onnx(randomized(sequence(layer())), tmp_path / "net.onnx")
    assert nodes(path.report) == expected


def test_weights_become_arrays_without_a_warning(tmp_path):
    """Those of the package, beside what Keras does."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export_onnx(sequence(layers.GRU(3)), tmp_path / "net.onnx")
    assert [one.filename for one in caught if "kerasrnn" in pathlib.Path(one.filename).parts] == []


def test_convolutions_by_channel(tmp_path, rng):
    model = sequence(
        keras.layers.DepthwiseConv1D(3, depth_multiplier=2, padding="same"),
        keras.layers.SeparableConv1D(5, 3, strides=2),
        layers.GRU(3),
    )
    path = export_onnx(randomized(model), tmp_path / "net.onnx")
    assert path.report.operations["Conv"] == 3
    arrays = inputs_of(model, 2, 9, rng)
    np.testing.assert_allclose(session(path).run(None, arrays)[0], model(arrays["x"]), atol=1e-5)


ACTIVATIONS = ["tanh", "sigmoid", "relu", "hard_sigmoid"]
GATED = [{"activation": a, "recurrent_activation": r} for a in ACTIVATIONS for r in ACTIVATIONS]
OF_KIND = {
    "LSTM": [lambda o=o: layers.LSTM(3, **o) for o in GATED],
    "GRU": [lambda o=o: layers.GRU(3, **o) for o in GATED],
    "reset before": [lambda o=o: layers.GRU(3, reset_after=False, **o) for o in GATED],
    "SimpleRNN": [lambda a=a: layers.SimpleRNN(3, activation=a) for a in ACTIVATIONS],
    "both": [
        lambda a=a, b=b: layers.Bidirectional(
            layers.LSTM(3, activation=a),
            backward_layer=layers.LSTM(3, recurrent_activation=b, go_backwards=True),
        )
        for a, b in zip(ACTIVATIONS, ACTIVATIONS[::-1], strict=True)
    ],
}


@pytest.mark.parametrize("kind", OF_KIND)
def test_all_activations_that_nodes_have(kind, tmp_path, rng):
    x = keras.Input((None, 3), name="x")
    model = randomized(keras.Model(x, [make()(x) for make in OF_KIND[kind]]))
    # With gates that are not bounded states grow.
    model.set_weights([0.5 * w for w in model.get_weights()])
    path = export_onnx(model, tmp_path / "net.onnx")
    assert sum(nodes(path.report).values()) == len(OF_KIND[kind]) * (1 + (kind == "both"))
    arrays = inputs_of(model, 2, 7, rng)
    received = session(path).run(model.output_names, arrays)
    for y, want in zip(received, model(arrays["x"]), strict=True):
        np.testing.assert_allclose(y, want, atol=1e-5)


@pytest.mark.parametrize("option", [None, "go_backwards", "zero_output_for_mask"])
@pytest.mark.parametrize("name", slow_but(["LSTM"], ["LSTM", "GRU", "SimpleRNN"]))
def test_masks_of_every_kind(name, option, tmp_path, rng):
    """Padded on the right, on the left, with gaps, and nothing but padding."""
    layer, options = getattr(layers, name), {option: True} if option else {}
    model = randomized(tokens(layer(3, return_sequences=True, **options)))
    path = export_onnx(model, tmp_path / "net.onnx")
    assert nodes(path.report)["If"] == 1
    run = session(path)
    full = rng.integers(1, 4, (3, 6)).astype("int32")
    for hidden in (
        [[0, 0, 0, 0, 1, 1], [0] * 6, [0, 1, 1, 1, 1, 1]],
        [[1, 1, 0, 0, 0, 0], [0] * 6, [1, 0, 0, 0, 0, 0]],
        [[0, 1, 0, 1, 0, 0], [1, 0, 0, 0, 1, 1], [0] * 6],
        [[1] * 6, [0] * 6, [0, 0, 0, 0, 1, 1]],
    ):
        ids = np.where(hidden, 0, full).astype("int32")
        (y,) = run.run(None, {"tokens": ids})
        np.testing.assert_allclose(y, model(ids), atol=1e-5)


def test_states_go_in_and_come_out(tmp_path, rng):
    model = randomized(AHEAD["states"]())
    path = export_onnx(model, tmp_path / "net.onnx")
    run = session(path)
    arrays = inputs_of(model, 2, 8, rng)
    whole, h, c = run.run(None, arrays)
    first = run.run(None, arrays | {"x": arrays["x"][:, :5]})
    last = run.run(None, {"x": arrays["x"][:, 5:], "h": first[1], "c": first[2]})
    np.testing.assert_allclose(np.concatenate([first[0], last[0]], 1), whole, atol=1e-5)
    np.testing.assert_allclose([h, c], last[1:], atol=1e-5)


def with_states_of(layer, count):
    x = keras.Input((None, 3), name="x")
    states = [keras.Input((4,), name=f"state_{i}") for i in range(count)]
    return keras.Model([x, *states], layer(x, initial_state=states))


OPTIONS = {"return_sequences": True, "return_state": True}
STATEFUL = {
    "lstm": (lambda: layers.LSTM(4, **OPTIONS), 2, {"LSTM": 1}),
    "gru": (lambda: layers.GRU(4, **OPTIONS), 1, {"GRU": 1}),
    "simple_rnn": (lambda: layers.SimpleRNN(4, **OPTIONS), 1, {"RNN": 1}),
    "nas": (lambda: layers.RNN("nas", units=4, **OPTIONS), 2, {"Scan": 1}),
    "stack": (lambda: layers.RNNStack("gru", 4, 2, **OPTIONS), 2, {"GRU": 2}),
    "both": (lambda: layers.Bidirectional(layers.LSTM(4, **OPTIONS)), 4, {"LSTM": 2}),
    "keras": (lambda: keras.layers.LSTM(4, **OPTIONS), 2, {"LSTM": 1}),
    "keras, both": (
        lambda: keras.layers.Bidirectional(keras.layers.GRU(4, **OPTIONS)),
        2,
        {"GRU": 2},
    ),
}


@pytest.mark.parametrize("name", slow_but(["lstm", "gru", "simple_rnn", "nas", "both"], STATEFUL))
def test_states_of_every_kind_over_two_chunks(name, tmp_path, rng):
    """Those that come out are what the next chunk starts from, in the file as in the model."""
    layer, count, expected = STATEFUL[name]
    model = randomized(with_states_of(layer(), count))
    path = export_onnx(model, tmp_path / "net.onnx")
    assert nodes(path.report) == expected
    run = session(path)
    taken = [one.name for one in run.get_inputs()]
    assert taken == ["x", *(f"state_{i}" for i in range(count))]
    given = [one.name for one in run.get_outputs()]
    assert len(given) == 1 + count
    states = [rng.normal(size=(2, 4)).astype("float32") for _ in range(count)]
    wanted = states
    for length in (5, 3):
        x = rng.normal(size=(2, length, 3)).astype("float32")
        y, *states = run.run(given, dict(zip(taken, [x, *states], strict=True)))
        want, *wanted = map(np.array, model([x, *wanted]))
        np.testing.assert_allclose(y, want, atol=1e-5)
        for state, one in zip(states, wanted, strict=True):
            np.testing.assert_allclose(state, one, atol=1e-5)


def test_a_process_without_tensorflow_runs_it(tmp_path, rng):
    model = randomized(of_cell("lstm"))
    path = export_onnx(model, tmp_path / "net.onnx")
    x = rng.normal(size=(2, 9, 3)).astype("float32")
    code = """
import json, sys
import numpy as np, onnxruntime
run = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(json.dumps(run.run(["y"], {"x": np.load(sys.argv[2])})[0].tolist()))
assert not {"tensorflow", "kerasrnn"} & {name.partition(".")[0] for name in sys.modules}
"""
    np.testing.assert_allclose(served_elsewhere(code, path, x, tmp_path), model(x), atol=1e-5)


def test_names_shapes_and_what_is_open(tmp_path):
    path = export_onnx(CAUSAL["inputs"](), tmp_path / "net.onnx")
    assert path.report.dynamic == ("batch", "time")
    run = session(path)
    assert {one.name: one.shape for one in run.get_inputs()} == {
        "a": ["batch", "a_time", 3],
        "b": ["batch", "b_time", 3],
    }
    assert {one.name: one.shape[-1] for one in run.get_outputs()} == {"last": 2, "sum": 4}
    assert path.report.size == path.stat().st_size


def test_a_memory_that_fades_slowly(tmp_path, rng):
    model = long_memory()
    x = rng.normal(size=(2, 40, 3)).astype("float32")
    path = export_onnx(model, tmp_path / "net.onnx")
    (y,) = session(path).run(None, {"x": x})
    np.testing.assert_allclose(y, model(x), atol=3e-6)


def pair_of_sequences():
    a, b = keras.Input((None, 3), name="a"), keras.Input((None, 3), name="b")
    of_a, of_b = (layers.GRU(4, return_sequences=True)(x) for x in (a, b))
    attended = keras.layers.Attention()([of_b, of_a])
    last = keras.layers.Dot(1)([layers.GRU(4)(a), layers.LSTM(4)(b)])
    return keras.Model([a, b], [keras.layers.Dot(2, name="scores")([of_a, of_b]), attended, last])


def encoder_decoder():
    source, target = (keras.Input((None,), dtype="int32", name=name) for name in ("src", "tgt"))
    embedding = keras.layers.Embedding(4, 5, mask_zero=True)
    _, *states = layers.LSTM(4, return_state=True)(embedding(source))
    y = layers.LSTM(4, return_sequences=True)(embedding(target), initial_state=states)
    return keras.Model([source, target], keras.layers.Dense(3, name="y")(y))


@pytest.mark.parametrize("make", [pair_of_sequences, encoder_decoder])
def test_sequences_of_different_lengths(make, tmp_path, rng):
    model = randomized(make())
    run = session(export_onnx(model, tmp_path / "net.onnx"))
    for lengths in ((5, 9), (9, 5), (7, 7)):
        arrays = {
            part.name: inputs_of(model, 2, length, rng)[part.name]
            for part, length in zip(model.inputs, lengths, strict=True)
        }
        received = run.run(None, arrays)
        for y, want in zip(received, outputs_of(model, arrays), strict=True):
            np.testing.assert_allclose(y, want, atol=1e-5)


def test_outputs_stand_in_the_order_of_the_model(tmp_path, rng):
    x = keras.Input((None, 3), name="x")
    names = ["lstm_9", "lstm_10", "b", "a", "Z"]
    model = randomized(keras.Model(x, [layers.LSTM(4, name=name)(x) for name in names]))
    run = session(export_onnx(model, tmp_path / "net.onnx"))
    assert [one.name for one in run.get_outputs()] == model.output_names
    arrays = inputs_of(model, 2, 5, rng)
    for y, want in zip(run.run(None, arrays), outputs_of(model, arrays), strict=True):
        np.testing.assert_allclose(y, want, atol=1e-5)


def test_names_that_tensors_inside_could_have(tmp_path, rng):
    """Of inputs and outputs, beside those that the graph numbers itself."""
    names = [f"{kind}_{i}" for kind in ("constant", "Transpose", "Identity") for i in range(25)]
    parts = [keras.Input((None, 3), name=name) for name in names]
    y = layers.GRU(2)(keras.layers.Add()(parts))
    outputs = {f"Squeeze_{i}": y + i for i in range(25)} | {"constant_1_next": y}
    model = randomized(keras.Model(parts, outputs))
    run = session(export_onnx(model, tmp_path / "net.onnx"))
    assert [one.name for one in run.get_inputs()] == names
    arrays = inputs_of(model, 2, 5, rng)
    expected = model([arrays[name] for name in names])
    for one, received in zip(run.get_outputs(), run.run(None, arrays), strict=True):
        np.testing.assert_allclose(received, expected[one.name], atol=1e-5)


def step_with_output(name):
    x = keras.Input((None, 3), name="x")
    y = layers.GRU(4, return_sequences=True, name="gru")(x)
    return keras.Model(x, keras.layers.Dense(2, name=name)(y))


@pytest.mark.parametrize("name", ["y_next", "x_next"])
def test_an_output_of_a_step_that_ends_as_states_do(name, tmp_path, rng):
    model = randomized(step_with_output(name))
    path = export_streaming(model, tmp_path / "step", format="onnx")
    run = session(path / "step.onnx")
    assert [one.name for one in run.get_outputs()] == [name, "gru_h_next"]
    arrays = inputs_of(model, 2, 1, rng)
    x = arrays["x"][:, 0]
    (y,) = run.run([name], {"x": x, "gru_h": np.zeros((2, 4), "float32")})
    np.testing.assert_allclose(y[:, None], model(arrays["x"]), atol=1e-5)


def test_a_name_for_two_tensors_of_a_step(tmp_path):
    x = keras.Input((None, 4), name="gru_h_next")
    of_input = keras.Model(x, layers.GRU(4, name="gru")(x))
    for model in (step_with_output("gru_h_next"), of_input):
        with pytest.raises(ValueError, match=r"called as a state with '_next'.*'gru_h_next' twice"):
            export_streaming(model, tmp_path / "step", format="onnx")
    assert list(tmp_path.iterdir()) == []


class Inverse(keras.layers.Layer):
    def call(self, x):
        return tf.linalg.inv(tf.matmul(x, x, transpose_a=True) + tf.eye(3))


def test_an_operation_that_is_not_written_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"Received: Matrix\w+, of .*turned"):
        export_onnx(sequence(Inverse(name="turned")), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_keras_has_quantized(tmp_path, rng):
    model = quantized("int8")
    path = export_onnx(model, tmp_path / "net.onnx")
    assert path.report.operations["MatMulInteger"] == 1
    arrays = inputs_of(model, 2, 7, rng)
    (y,) = session(path).run(None, arrays)
    # One step of the activation in int8 more or less, where a number lies between two.
    np.testing.assert_allclose(y, model(arrays["x"]), atol=1e-2)


@pytest.mark.parametrize("mode", ["int4", "float8"])
def test_a_quantization_that_onnx_has_not_is_named(mode, tmp_path):
    model = quantized(mode)
    name = model.layers[-1].name
    with pytest.raises(
        ExportError, match=rf"quantized by Keras.*in {name} \({mode}\): export the m"
    ):
        export_onnx(model, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_table_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"so no table, as an IntegerLookup has.*integer_lookup"):
        export_onnx(with_table(), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_it_refuses(tmp_path):
    path = tmp_path / "net.onnx"
    stateful = keras.Sequential(
        [keras.Input(batch_shape=(2, 5, 3)), keras.layers.GRU(2, stateful=True, name="kept")]
    )
    with pytest.raises(ValueError, match=r"not be stateful.*`return_state=True`.*layers kept"):
        export_onnx(stateful, path)
    with pytest.raises(ValueError, match=r"compute in float32.*wide, which computes in float64"):
        export_onnx(sequence(layers.GRU(2, dtype="float64", name="wide")), path)
    with pytest.raises(ValueError, match=r"`path` must end in '.onnx'"):
        export_onnx(sequence(layers.GRU(2)), tmp_path / "net")
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"overwrite=True.*net\.onnx"):
        export_onnx(sequence(layers.GRU(2)), path)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(IsADirectoryError, match="must name a file"):
        export_onnx(sequence(layers.GRU(2)), tmp_path / "folder.onnx")
    assert path.read_bytes() == b"mine"


def test_a_difference_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(export_onnx.__globals__, "BOUND", -1.0)
    with pytest.raises(ExportError, match="must give what the model gives"):
        export_onnx(sequence(layers.GRU(2)), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
