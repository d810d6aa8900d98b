import json
import os
import pathlib
import subprocess
import sys

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from exported import AHEAD, CAUSAL, Own, inputs_of, outputs_of, quantized, randomized, sequence
from slow import slow_but

from kerasrnn import cells, layers
from kerasrnn.export import export_litert, export_onnx, export_saved_model
from kerasrnn.export.check import ExportError
from kerasrnn.export.interface import Interface
from kerasrnn.tuning import RNNHyperModel

TEXTS = ["a good film", "a bad , bad film .", "good"]


def disk_is_full(model, monkeypatch):
    """From now on its files cannot be written."""

    def fail(*_, **__):
        raise RuntimeError("disk full")

    monkeypatch.setattr(type(model), "export", fail)


@pytest.fixture
def vectorize():
    layer = keras.layers.TextVectorization(output_sequence_length=8)
    layer.adapt(TEXTS)
    return layer


@pytest.fixture
def model(vectorize, random_weights):
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int64"),
            keras.layers.Embedding(vectorize.vocabulary_size(), 8, mask_zero=True),
            layers.RNNStack("lstm", 4, 2, connection="residual", bidirectional=True, dropout=0.5),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    random_weights(model)
    return model


@pytest.fixture
def small():
    """Where it is all about what comes into which place."""
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])


@pytest.mark.parametrize("name", slow_but(["sentences"], ["sentences", "steps of steps"]))
def test_recurrent_layers_at_each_step(name, tmp_path, rng):
    """Keras itself writes no TimeDistributed around a recurrent layer of any number of steps."""
    model = randomized((CAUSAL | AHEAD)[name]())
    path = export_saved_model(model, tmp_path / "artifact")
    assert path.report.dynamic == ("batch", "time")
    serve = tf.saved_model.load(path).signatures["serving_default"]
    for batch, length in ((2, 7), (3, 1)):
        arrays = inputs_of(model, batch, length, rng)
        (y,) = serve(**{name: tf.constant(x) for name, x in arrays.items()}).values()
        np.testing.assert_allclose(y, *outputs_of(model, arrays), atol=1e-5)


def test_states_that_go_on_at_each_step(tmp_path, rng):
    """With a number of steps Keras writes them, without it nobody does."""

    def counting(steps):
        x = keras.Input((steps, 5, 3), batch_size=2, name="x")
        y = keras.layers.TimeDistributed(layers.GRU(4, stateful=True, name="counts"))(x)
        return randomized(keras.Model(x, y))

    model, x = counting(4), rng.normal(size=(2, 4, 5, 3)).astype("float32")
    path = export_saved_model(model, tmp_path / "artifact")
    serve = tf.saved_model.load(path).signatures["serving_default"]
    np.testing.assert_allclose(serve(x=tf.constant(x))["output_0"], model(x), atol=1e-5)
    with pytest.raises(ValueError, match=r"must fix the number of steps.*with counts"):
        export_saved_model(counting(None), tmp_path / "open")
    assert [one.name for one in tmp_path.iterdir()] == ["artifact"]


def test_takes_raw_strings_in_a_process_without_this_package(model, vectorize, tmp_path):
    path = export_saved_model(model, tmp_path / "artifact", preprocessing=vectorize)
    code = """
import sys, tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
print(serve(text=tf.constant(sys.argv[2:]))["output_0"].numpy()[:, 0].tolist())
assert "kerasrnn" not in sys.modules
"""
    command = [sys.executable, "-c", code, str(path), *TEXTS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    served = np.array(eval(done.stdout))
    np.testing.assert_allclose(served, model(vectorize(TEXTS))[:, 0], rtol=1e-5)


def test_a_tf1_session_serves_it(model, vectorize, tmp_path):
    """TensorFlow Serving loads an artifact in this way."""
    path = export_saved_model(model, tmp_path / "artifact", preprocessing=vectorize)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(path))
        signature = loaded.signature_def["serving_default"]
        served = session.run(
            signature.outputs["output_0"].name, {signature.inputs["text"].name: TEXTS}
        )
    np.testing.assert_allclose(served, model(vectorize(TEXTS)), rtol=1e-5)


def test_without_preprocessing(model, vectorize, tmp_path):
    path = export_saved_model(model, tmp_path / "artifact")
    served = tf.saved_model.load(path).signatures["serving_default"]
    (name,) = served.structured_input_signature[1]
    tokens = vectorize(TEXTS)
    np.testing.assert_allclose(served(**{name: tokens})["output_0"], model(tokens), rtol=1e-5)


@pytest.mark.parametrize("functional", [False, True])
def test_a_model_as_preprocessing(functional, tmp_path, rng):
    model = keras.Sequential([keras.Input((None, 3)), layers.GRU(4)])
    scale = keras.layers.Rescaling(2.0)
    raw = keras.Input((None, 3), name="raw")
    scaled = keras.Model(raw, scale(raw)) if functional else keras.Sequential([raw, scale])
    path = export_saved_model(model, tmp_path / "artifact", preprocessing=scaled)
    served = tf.saved_model.load(path).signatures["serving_default"]
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    (name,) = served.structured_input_signature[1]
    np.testing.assert_allclose(served(**{name: x})["output_0"], model(2 * x), rtol=1e-5)


def test_an_existing_place_is_kept_unless_told(small, tmp_path):
    path = tmp_path / "artifact"
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"overwrite=True.*artifact"):
        export_saved_model(small, path)
    assert (path / "notes.txt").read_text() == "mine"

    export_saved_model(small, path, overwrite=True)
    assert not (path / "notes.txt").exists()
    assert tf.saved_model.contains_saved_model(path)
    assert [p.name for p in tmp_path.iterdir()] == ["artifact"]


def test_an_address(small, tmp_path, monkeypatch, rng):
    """Nothing of it is left on this machine."""
    monkeypatch.chdir(tmp_path)
    place = f"ram:/{tmp_path}/artifact"
    x = rng.normal(size=(2, 3)).astype("float32")
    for _ in range(2):
        small.set_weights([rng.normal(size=w.shape) for w in small.get_weights()])
        assert export_saved_model(small, place, overwrite=True) == place
        serve = tf.saved_model.load(place).signatures["serving_default"]
        (name,) = serve.structured_input_signature[1]
        np.testing.assert_allclose(serve(**{name: x})["output_0"], small(x), rtol=1e-5)
    with pytest.raises(FileExistsError, match=r"overwrite=True.*ram://.*artifact"):
        export_saved_model(small, place)

    disk_is_full(small, monkeypatch)
    with pytest.raises(RuntimeError, match="disk full"):
        export_saved_model(small, place, overwrite=True)
    assert tf.saved_model.contains_saved_model(place)
    assert tf.io.gfile.listdir(f"ram:/{tmp_path}") == ["artifact"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["abc://bucket/artifact", pathlib.Path("gs://bucket/artifact")])
def test_what_is_no_address(path, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"`path` must .*bucket/artifact"):
        export_saved_model(small, path)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_directory_will_do(small, tmp_path):
    export_saved_model(small, tmp_path)
    assert tf.saved_model.contains_saved_model(tmp_path)


def test_a_failure_leaves_what_was_there(small, tmp_path, monkeypatch):
    path = export_saved_model(small, tmp_path / "artifact")

    disk_is_full(small, monkeypatch)
    with pytest.raises(RuntimeError, match="disk full"):
        export_saved_model(small, path, overwrite=True)
    assert tf.saved_model.contains_saved_model(path)
    assert [p.name for p in tmp_path.iterdir()] == ["artifact"]


def test_bad_arguments(small, tmp_path):
    with pytest.raises(TypeError, match=r"TextVectorization, or a functional.*preprocessing=<fun"):
        export_saved_model(small, tmp_path / "artifact", preprocessing=lambda x: x)
    with pytest.raises(ValueError, match="must be built"):
        export_saved_model(keras.Sequential([layers.GRU(3)]), tmp_path / "artifact")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_text_is_served_too(tmp_path, random_weights):
    vectorize = keras.layers.TextVectorization(output_sequence_length=6)
    vectorize.adapt(TEXTS)
    hp = keras_tuner.HyperParameters()
    model = RNNHyperModel("binary", vocabulary_size=vectorize.vocabulary_size()).build(hp)
    random_weights(model, scale=0.1)
    path = export_saved_model(model, tmp_path / "artifact", preprocessing=vectorize)
    serve = tf.saved_model.load(path).signatures["serving_default"]
    alone = serve(text=tf.constant([""]))["output_0"]
    among = serve(text=tf.constant(["", *TEXTS]))["output_0"]
    assert np.isfinite(among).all()
    np.testing.assert_allclose(among[:1], alone, rtol=1e-5)
    np.testing.assert_allclose(among[1:], model(vectorize(TEXTS)), rtol=1e-5)


def test_a_failure_at_the_last_moment_leaves_what_was_there(small, tmp_path, monkeypatch):
    path = export_saved_model(small, tmp_path / "artifact")
    rename = os.rename

    def interrupted(source, target):
        if pathlib.Path(source).name == "new":
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_saved_model(small, path, overwrite=True)
    assert tf.saved_model.contains_saved_model(path)
    with pytest.raises(KeyboardInterrupt):
        export_saved_model(small, tmp_path / "other")
    assert [p.name for p in tmp_path.iterdir()] == ["artifact"]


def test_relative_paths(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_saved_model(small, ".")
    assert tf.saved_model.contains_saved_model(tmp_path)


def test_preprocessing_that_is_not_ready(small, tmp_path):
    with pytest.raises(ValueError, match=r"call its adapt\(\)"):
        export_saved_model(small, tmp_path / "a", keras.layers.TextVectorization())
    unbuilt = keras.Sequential([keras.layers.Rescaling(2.0)])
    with pytest.raises(TypeError, match="that has its Input"):
        export_saved_model(small, tmp_path / "a", unbuilt)
    assert list(tmp_path.iterdir()) == []


def test_preprocessing_that_does_not_fit(small, vectorize, tmp_path):
    raw, other = keras.Input((3,), name="raw"), keras.Input((3,), name="other")
    wide = keras.Model(raw, keras.layers.Dense(4)(raw), name="wide")
    both = keras.Model([raw, other], [raw, other], name="both")
    net = keras.Sequential([keras.Input((None, 3)), layers.GRU(4)], name="net")
    own = Own()
    own(np.ones((1, 4, 3), "float32"))
    for before, model, shape in (
        (wide, net, r"\(None, 4\)"),
        (wide, small, r"\(None, 4\)"),
        (both, net, r"\(None, 3\), \(None, 3\)"),
        (vectorize, net, r"\(None, 8\)"),
        (wide, own, r"\(None, 4\)"),
    ):
        rule = (
            rf"must give what `model` takes.*={before.name}, which gives {shape}, .*={model.name}"
        )
        with pytest.raises(ValueError, match=rule):
            export_saved_model(model, tmp_path / "artifact", before)
    assert list(tmp_path.iterdir()) == []


def test_preprocessing_of_named_inputs(tmp_path, rng):
    inputs = {name: keras.Input((None, 3), name=name) for name in ("left", "right")}
    total = keras.Model(inputs, inputs["left"] + inputs["right"])
    model = keras.Sequential([keras.Input((None, 3)), layers.GRU(4)])
    path = export_saved_model(model, tmp_path / "artifact", preprocessing=total)
    serve = tf.saved_model.load(path).signatures["serving_default"]
    left, right = rng.normal(size=(2, 2, 5, 3)).astype("float32")
    served = serve(left=left, right=right)["output_0"]
    np.testing.assert_allclose(served, model(left + right), rtol=1e-5)


def test_a_vectorization_of_open_length_warns(model, tmp_path):
    vectorize = keras.layers.TextVectorization()
    vectorize.adapt(TEXTS)
    with pytest.warns(UserWarning, match="output_sequence_length"):
        export_saved_model(model, tmp_path / "artifact", preprocessing=vectorize)


def test_what_is_no_model(tmp_path):
    with pytest.raises(TypeError, match=r"`model` must be a keras.Model.*'model.keras'"):
        export_saved_model("model.keras", tmp_path / "artifact")


@pytest.mark.parametrize("name", ["a b", "a-b", "a.b", "1a", "_a", "class", "self"])
def test_an_input_whose_name_no_signature_can_bear(name, tmp_path):
    model = keras.Sequential([keras.Input((3,), name=name), keras.layers.Dense(1)])
    with pytest.raises(
        ValueError, match=f"`model` must have inputs whose names.*Received: '{name}'"
    ):
        export_saved_model(model, tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


def around(layer, **options):
    x = keras.Input((2, 3), name="x")
    return keras.Model(x, layer(x), **options)


def named(kind, name):
    """A model in which something has a name."""
    match kind:
        case "layer":
            return around(layers.GRU(2, name=name))
        case "model":
            return around(layers.GRU(2), name=name)
        case "inside":
            return around(around(layers.GRU(2), name=name))
        case "stack":
            return around(layers.RNNStack("gru", 3, 2, name=name))
        case "cell":
            return around(layers.RNN(cells.GRUCell(2, name=name)))
        case "dropout":
            return around(keras.layers.Dropout(0.5, name=name))
        case "Sequential":
            return sequence(layers.GRU(2, name=name))


@pytest.mark.parametrize("name", ["_p", "-p", "my layer", "é"])
@pytest.mark.parametrize("kind", ["layer", "model", "inside", "stack"])
def test_names_that_tensorflow_does_not_trace(kind, name, tmp_path):
    with pytest.raises(ValueError, match=rf"`model` must have layers.*Received: '{name}"):
        export_saved_model(named(kind, name), tmp_path / "artifact")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["layer", "inside", "stack", "dropout", "Sequential"])
def test_names_that_no_format_traces(kind, tmp_path):
    with pytest.raises(ValueError, match=r"`model` must have layers.*Received: 'my layer'"):
        Interface(named(kind, "my layer"), "onnx")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("cell", "_p"), ("dropout", "_p"), ("Sequential", "_p"), ("layer", "p.1-a>b"), ("layer", "1")],
)
def test_odd_names_that_are_traced(kind, name, tmp_path):
    export_saved_model(named(kind, name), tmp_path / "artifact")


@pytest.mark.parametrize("export", [export_saved_model, export_onnx, export_litert])
def test_a_layer_that_asks_for_values(export, tmp_path):
    x = keras.Input((None,), dtype="int32", name="x")
    encoded = keras.layers.CategoryEncoding(4, "one_hot", name="encodes")(x)
    model = keras.Model(x, layers.GRU(3)(encoded))
    path = tmp_path / {export_onnx: "m.onnx", export_litert: "m.tflite"}.get(export, "m")
    with pytest.raises(ValueError, match=r"no `if` of .*Received: encodes \(CategoryEncoding\)$"):
        export(model, path)
    assert list(tmp_path.iterdir()) == []


def test_inputs_whose_names_differ_in_case_alone(tmp_path):
    inputs = [keras.Input((3,), name=name) for name in ("A", "a", "b")]
    model = keras.Model(inputs, keras.layers.Concatenate()(inputs))
    with pytest.raises(ValueError, match=r"different in lower case.*Received: 'A', 'a' of"):
        export_saved_model(model, tmp_path / "artifact")


def test_a_text_vectorization_before_several_inputs(vectorize, tmp_path):
    tokens, other = keras.Input((8,), dtype="int64", name="tokens"), keras.Input((2,), name="other")
    h = layers.LSTM(3)(keras.layers.Embedding(20, 4)(tokens))
    model = keras.Model([tokens, other], keras.layers.Concatenate()([h, other]))
    with pytest.raises(ValueError, match=r"gives one\. .*inputs tokens, other"):
        export_saved_model(model, tmp_path / "artifact", preprocessing=vectorize)
    # As the message says.
    text, raw = keras.Input((), dtype="string", name="text"), keras.Input((2,), name="raw")
    both = keras.Model([text, raw], [vectorize(text), raw])
    export_saved_model(model, tmp_path / "artifact", preprocessing=both)
    serve = tf.saved_model.load(tmp_path / "artifact").signatures["serving_default"]
    values = np.ones((3, 2), "float32")
    served = serve(text=tf.constant(TEXTS), raw=tf.constant(values))["output_0"]
    np.testing.assert_allclose(served, model([vectorize(TEXTS), tf.constant(values)]), rtol=1e-5)


def signature_of(path):
    return json.loads((path / "signature.json").read_text())


def test_the_signature_is_written_beside_it(model, vectorize, tmp_path):
    path = export_saved_model(
        model, tmp_path / "artifact", preprocessing=vectorize, class_names=["bad", "good"]
    )
    written = signature_of(path)
    assert written["signatures"] == {
        "serving_default": {
            "inputs": {"text": {"dtype": "string", "shape": [None]}},
            "outputs": {"output_0": {"dtype": "float32", "shape": [None, 1]}},
        }
    }
    assert written["class_names"] == ["bad", "good"]
    assert written["versions"]["keras"] == keras.version()
    assert written["versions"].keys() == {"kerasrnn", "keras", "tensorflow"}
    assert path.report.difference <= 1e-5
    assert path.report.dynamic == ("batch",)


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        (["a"], "two names where the output has one number"),
        (["a", "b", "c"], "two names"),
        ("ab", "must be a list of strings"),
        ([1, 2], "must be a list of strings"),
        (["a", "a"], "must differ from each other"),
    ],
)
def test_class_names_that_are_none(names, rule, small, tmp_path):
    with pytest.raises(ValueError, match=f"`class_names` .*{rule}.*Received: class_names="):
        export_saved_model(small, tmp_path / "artifact", class_names=names)
    assert list(tmp_path.iterdir()) == []


def test_class_names_for_several_outputs(tmp_path):
    x = keras.Input((3,), name="x")
    model = keras.Model(x, [keras.layers.Dense(2)(x), keras.layers.Dense(2)(x)])
    with pytest.raises(ValueError, match=r"one output.*2 outputs"):
        export_saved_model(model, tmp_path / "artifact", class_names=["a", "b"])


def test_a_stateful_net_starts_from_its_initial_states(tmp_path, random_weights, rng):
    model = keras.Sequential(
        [keras.Input(batch_shape=(2, 5, 3), name="x"), layers.LSTM(4, stateful=True)]
    )
    random_weights(model)
    x = rng.normal(size=(3, 2, 5, 3)).astype("float32")
    model(x[0])
    kept = [np.array(state) for state in model.layers[0].states]
    path = export_saved_model(model, tmp_path / "artifact")
    assert path.report.dynamic == ()
    assert path.report.shapes == {"x": (2, 5, 3)}
    np.testing.assert_array_equal(kept, model.layers[0].states)
    serve = tf.saved_model.load(path).signatures["serving_default"]
    model.layers[0].reset_state()
    for part in x:
        np.testing.assert_allclose(serve(x=part)["output_0"], model(part), atol=1e-6)


def test_an_artifact_that_gives_something_else_is_none(small, tmp_path, monkeypatch):
    path = tmp_path / "artifact"
    export = type(small).export

    def other(model, *args, **kwargs):
        weights = model.get_weights()
        model.set_weights([w + 1 for w in weights])
        export(model, *args, **kwargs)
        model.set_weights(weights)

    monkeypatch.setattr(type(small), "export", other)
    with pytest.raises(ExportError, match=r"must give what the model gives.*difference"):
        export_saved_model(small, path)
    assert list(tmp_path.iterdir()) == []


def test_half_precision_and_outputs_by_name(tmp_path):
    x = keras.Input((None, 3), name="x")
    y = layers.LSTM(4, return_state=True, dtype="mixed_bfloat16")(x)
    path = export_saved_model(keras.Model(x, dict(zip("yhc", y, strict=True))), tmp_path / "a")
    assert signature_of(path)["signatures"]["serving_default"]["outputs"].keys() == {*"yhc"}
    assert path.report.bound > 1e-3


def test_a_model_of_a_class_of_its_own(tmp_path):
    model = Own()
    model(np.ones((1, 4, 3), "float32"))
    assert export_saved_model(model, tmp_path / "artifact").report.difference <= 1e-5


class Nested(Own):
    """Which takes structures of tensors."""

    def call(self, x):
        return sum((i + 1) * self.gru(part) for i, part in enumerate(keras.tree.flatten(x)))


@pytest.mark.parametrize(
    ("structure", "names"),
    [
        ({"b": 0, "a": 1}, ["a", "b"]),
        ([*range(12)], ["args_0", *(f"args_0_{i}" for i in range(1, 12))]),
        ({"b": {"c": 0}, "a": [1]}, ["args_0", "args_0_1"]),
    ],
)
def test_a_model_of_a_class_of_its_own_of_several_inputs(structure, names, tmp_path, rng):
    model = Nested()
    parts = rng.normal(size=(len(names), 2, 4, 3)).astype("float32")
    x = keras.tree.pack_sequence_as(structure, [*map(tf.constant, parts)])
    y = model(x)
    path = export_saved_model(model, tmp_path / "artifact")
    assert path.report.shapes.keys() == {*names}
    serve = tf.saved_model.load(path).signatures["serving_default"]
    served = serve(**dict(zip(names, map(tf.constant, parts), strict=True)))["output_0"]
    np.testing.assert_allclose(served, y, atol=1e-5)


def test_a_model_of_a_class_of_its_own_of_odd_keys(tmp_path):
    model = Nested()
    model({"a b": np.ones((1, 4, 3), "float32")})
    with pytest.raises(ValueError, match=r"the keys of the dictionary.*Received: 'a b' of nested"):
        export_saved_model(model, tmp_path / "artifact")


@pytest.mark.slow
def test_the_command_line_runs_it(tmp_path, rng):
    """TensorFlow's saved_model_cli; the test of a TF1 session is the quick one."""
    model = sequence(layers.LRU(4))
    path = export_saved_model(model, tmp_path / "net")
    x = rng.normal(size=(2, 7, 3)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    command = [pathlib.Path(sys.executable).with_name("saved_model_cli"), "run", "--dir", path]
    command += ["--tag_set", "serve", "--signature_def", "serving_default"]
    command += ["--inputs", f"x={tmp_path / 'x.npy'}", "--outdir", tmp_path / "served"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (served,) = (tmp_path / "served").iterdir()
    np.testing.assert_allclose(np.load(served), model(x), atol=1e-5)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_what_keras_has_quantized(mode, tmp_path, rng):
    model = quantized(mode)
    path = export_saved_model(model, tmp_path / "net")
    arrays = inputs_of(model, 2, 7, rng)
    served = tf.saved_model.load(path).signatures["serving_default"]
    (y,) = served(x=tf.constant(arrays["x"])).values()
    np.testing.assert_allclose(y, model(arrays["x"]), atol=1e-2)
