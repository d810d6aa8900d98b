"""What Keras 3.15 gets wrong about states and configurations; here it has to be right."""

import keras
import numpy as np
import pytest
from keras import ops
from slow import slow_but

import kerasrnn
from kerasrnn import layers
from kerasrnn.backends import BACKEND, tf

X = np.random.default_rng(1).normal(size=(4, 2, 5, 3)).astype("float32")


# PyTorch's compiler would take long.
COMPILED = {} if BACKEND == "torch" else {"jit_compile": True}


def stateful(layer=layers.LSTM, batch_size=2, **options):
    model = keras.Sequential(
        [keras.Input(batch_shape=(batch_size, 5, 3)), layer(4, stateful=True, **options)]
    )
    return model, model.layers[0]


def nested(units=4, stateful=True):
    cells = [keras.layers.LSTMCell(units), keras.layers.GRUCell(3)]
    return layers.RNN(cells, stateful=stateful)


def bidirectional(units, stateful):
    return layers.Bidirectional(layers.GRU(units, stateful=stateful))


over_kinds = pytest.mark.parametrize(
    "kind", [layers.LSTM, layers.GRU, layers.SimpleRNN, nested, bidirectional]
)


def values(layer):
    return [np.array(state) for state in keras.tree.flatten(layer.states)]


class ResetAfterBatch(keras.callbacks.Callback):
    """Sets the states back after each batch, synchronized with JAX's trainer or not."""

    def __init__(self, layer, synchronized, rows=None):
        super().__init__()
        self.layer, self.synchronized, self.rows = layer, synchronized, rows

    def reset(self, batch, logs=None):
        if self.synchronized:
            self.model.jax_state_sync()
        self.layer.reset_state(rows=self.rows)

    on_train_batch_end = on_test_batch_end = on_predict_batch_end = reset


@pytest.mark.parametrize("task", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize("rows", [None, [1]])
def test_states_are_reset_between_batches(task, rows, random_weights):
    """Each batch then begins as the first one, in the rows that are reset."""
    model, layer = stateful(return_sequences=True)
    random_weights(model)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    twice = np.concatenate([X[0, :1], X[1, :1]] * 2)
    run = {"x": twice, "batch_size": 2, "verbose": 0}
    if task != "predict":
        run["y"] = np.zeros((4, 5, 4), "float32")
    if task == "fit":
        run["shuffle"] = False
    again = ResetAfterBatch(layer, BACKEND == "jax", rows)
    found = getattr(model, task)(**run, callbacks=[again])
    if task == "predict":
        first, second = found[:2], found[2:]
        np.testing.assert_allclose(second[1], first[1], 1e-6)
        assert np.allclose(second[0], first[0]) == (rows is None)
    kept = values(layer)
    assert all((state[1] == 0).all() for state in kept)
    assert all((state[0] == 0).all() == (rows is None) for state in kept)


@pytest.mark.skipif(BACKEND != "jax", reason="other trainers leave the states where they are")
@pytest.mark.parametrize("task", ["fit", "evaluate", "predict"])
def test_states_that_the_trainer_holds_are_an_error(task):
    model, layer = stateful(return_sequences=True)
    model.compile("sgd", "mse")
    run = {"x": X[:, 0], "batch_size": 2, "verbose": 0}
    if task != "predict":
        run["y"] = np.zeros((4, 5, 4), "float32")
    with pytest.raises(RuntimeError, match=r"calls `self\.model\.jax_state_sync\(\)` first"):
        getattr(model, task)(**run, callbacks=[ResetAfterBatch(layer, False)])


@pytest.mark.parametrize("use_cudnn", ["auto", False])
@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU])
def test_configuration_is_whole(kind, use_cudnn, tmp_path):
    layer = kind(3, use_cudnn=use_cudnn, implementation=1)
    both = layers.Bidirectional(layer)
    keras.Sequential([keras.Input((5, 3)), both]).save(tmp_path / "model.keras")
    (loaded,) = keras.models.load_model(tmp_path / "model.keras").layers
    for copy in (
        kind.from_config(layer.get_config()),
        layers.Bidirectional.from_config(both.get_config()).forward_layer,
        layers.Bidirectional.from_config(both.get_config()).backward_layer,
        loaded.forward_layer,
        loaded.backward_layer,
    ):
        assert (copy.use_cudnn, copy.cell.implementation) == (use_cudnn, 1)


def test_nested_states_are_reset():
    layer = nested()
    first = layer(X[0])
    assert all(state.any() for state in values(layer))
    layer.reset_state()
    assert not any(state.any() for state in values(layer))
    np.testing.assert_allclose(layer(X[0]), first, rtol=1e-6)


@pytest.mark.parametrize("rows", [[1], np.array([False, True]), 1])
@over_kinds
def test_single_rows_are_reset(kind, rows):
    _, layer = stateful(kind)
    layer(X[0])
    before = values(layer)
    layer.reset_state(rows=rows)
    for state, was in zip(values(layer), before, strict=True):
        np.testing.assert_array_equal(state[0], was[0])
        assert not state[1].any()
        assert was[1].any()


@pytest.mark.parametrize("module", [layers, keras.layers])
def test_rows_of_both_directions_are_reset(module):
    layer = layers.Bidirectional(module.GRU(3, stateful=True))
    layer(X[0])
    layer.reset_state(rows=[0])
    assert [state.any(axis=1).tolist() for state in values(layer)] == [[False, True]] * 2
    layer.reset_state()
    assert not any(state.any() for state in values(layer))


@pytest.mark.parametrize("rows", [[5], -1, [0.0], True, [True], [True, False, True], [[0]], "a"])
def test_rows_that_are_not_there(rows):
    _, layer = stateful()
    layer(X[0])
    before = values(layer)
    with pytest.raises(ValueError, match=r"`rows` must index the 2 samples.*rows="):
        layer.reset_state(rows=rows)
    layer.reset_state(rows=[])
    for state, was in zip(values(layer), before, strict=True):
        np.testing.assert_array_equal(state, was)


def test_rows_need_states():
    for layer in (layers.LSTM(3), layers.LSTM(3, stateful=True)):
        layer.reset_state()
        with pytest.raises(ValueError, match=r"`rows` needs a layer with states.*rows=\[0\]"):
            layer.reset_state(rows=[0])


@pytest.mark.tensorflow
@pytest.mark.parametrize("plain", slow_but([True], [True, False]))
@over_kinds
def test_an_export_keeps_state_from_call_to_call(kind, plain, tmp_path):
    model, layer = stateful(kind)
    path = tmp_path / "artifact"
    if plain:
        model.export(path, verbose=False)
    else:
        kerasrnn.export.export_saved_model(model, path)
    layer.reset_state()
    expected = [np.array(model(x)) for x in X]
    assert not np.allclose(expected[0], model(X[0]))

    serve = tf.saved_model.load(path).signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]
    for x, want in zip(X, expected, strict=True):
        np.testing.assert_allclose(serve(**{name: x})["output_0"], want, rtol=1e-5, atol=1e-6)

    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(path))
        signature = loaded.signature_def["serving_default"]
        for x, want in zip(X, expected, strict=True):
            output = session.run(
                signature.outputs["output_0"].name, {signature.inputs[name].name: x}
            )
            np.testing.assert_allclose(output, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"run_eagerly": True}, {}, COMPILED])
def test_a_batch_of_another_size_is_an_error(options):
    three = np.concatenate([X[0], X[1][:1]])
    # The first is seen while tracing, where the batch's size is known; the second in the graph.
    for batch_size in (3, 2):
        model, _ = stateful()
        model.compile(**options)
        with pytest.raises(
            (ValueError, tf.errors.InvalidArgumentError) if tf else ValueError,
            match=r"keeps.to.the.batch.size.it.was.built.for",
        ):
            model.predict(three, verbose=0, batch_size=batch_size)
        # JAX leaves a model in which a step has failed without its weights.
        if BACKEND != "jax":
            assert model.predict(np.concatenate(X[:2]), verbose=0, batch_size=2).shape == (4, 4)


def run_through(layer, x, states=None):
    """The outputs of one batch after the other, each from where the one before ended."""
    plain = type(layer).from_config(layer.get_config() | {"stateful": False, "return_state": True})
    plain.build(x.shape[1:])
    plain.set_weights(layer.get_weights())
    outputs = []
    for batch in x:
        y, *states = plain(batch, initial_state=states)
        outputs.append(np.array(y))
    return np.concatenate(outputs), states


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU, layers.MinGRU, nested])
def test_fit_evaluate_and_predict_go_on_where_the_batch_before_ended(kind, random_weights):
    model, layer = stateful(kind)
    random_weights(model)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.concatenate(X)
    width = model.output_shape[-1]
    target = np.ones((8, width), "float32")
    outputs, states = run_through(layer, X)
    history = model.fit(x, target, batch_size=2, shuffle=False, verbose=0).history
    np.testing.assert_allclose(history["loss"][0], np.mean((outputs - 1) ** 2), rtol=1e-5)
    outputs, states = run_through(layer, X, states)
    loss = model.evaluate(x, target, batch_size=2, verbose=0)
    np.testing.assert_allclose(loss, np.mean((outputs - 1) ** 2), rtol=1e-5)
    outputs, states = run_through(layer, X, states)
    y = model.predict(x, batch_size=2, verbose=0)
    np.testing.assert_allclose(y, outputs, rtol=1e-5, atol=1e-6)
    for mine, other in zip(values(layer), keras.tree.flatten(states), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)
    # And trains.
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = model.get_weights()
    model.fit(x, target, batch_size=2, shuffle=False, verbose=0)
    assert not any(np.array_equal(w, b) for w, b in zip(model.get_weights(), before, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@over_kinds
def test_states_survive_a_file(kind, dtype, tmp_path):
    keras.config.set_dtype_policy(dtype)
    model, _ = stateful(kind)
    model(X[0])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for mine, other in zip(values(loaded.layers[0]), values(model.layers[0]), strict=True):
        assert mine.any()
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(loaded(X[1]), model(X[1]))


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", slow_but([layers.LSTM], [layers.LSTM, nested, bidirectional]))
@pytest.mark.parametrize("stateful", [False, True])
def test_a_file_with_assets_of_another_layer(stateful, kind, tmp_path):
    """Keras hands in no folder for a layer without assets."""
    words = keras.layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=5)
    embedding, layer = keras.layers.Embedding(4, 3), kind(4, stateful=stateful)
    text = ops.convert_to_tensor([["a b a"], ["b"]])
    inputs = keras.Input(batch_shape=(2, 1), dtype="string")
    model = keras.Model(inputs, layer(embedding(words(inputs))))
    model(text)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    if stateful:
        assert all(state.any() for state in values(layer))
        for mine, other in zip(values(loaded.layers[-1]), values(layer), strict=True):
            np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(loaded(text), model(text))


@pytest.mark.parametrize("other", [layers.LSTM, layers.GRU])
def test_stored_states_of_another_shape(other, tmp_path):
    _, stored = stateful(other, batch_size=3)
    stored.save_assets(tmp_path)
    _, layer = stateful()
    layer(X[0])
    before = values(layer)
    layer.name = "encoder"
    rule = r"states of its own shapes.*encoder.*\[\(2, 4\), \(2, 4\)\]. Received: .*\[\(3, 4\)"
    with pytest.raises(ValueError, match=rule):
        layer.load_assets(tmp_path)
    for state, was in zip(values(layer), before, strict=True):
        np.testing.assert_array_equal(state, was)


@pytest.mark.parametrize("read", [keras.layers.LSTM, layers.LSTM])
@pytest.mark.parametrize("written", [keras.layers.LSTM, layers.LSTM])
def test_a_file_of_weights_serves_ours_and_keras_s_of_any_batch_size(written, read, tmp_path):
    first, _ = stateful(written)
    expected = first(X[0])
    first.save_weights(tmp_path / "model.weights.h5")
    second, _ = stateful(read, batch_size=1)
    second.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(second(X[0, :1]), expected[:1], rtol=1e-5, atol=1e-6)
