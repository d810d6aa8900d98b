"""Models of Keras's layers and of this package's, turned into each other, give the same numbers."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrnn import activations, cells, initializers, layers
from kerasrnn.layers import from_keras, to_keras

K = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 6, 4)).astype("float32")
# With masked steps, in the middle too.
TOKENS = np.array([[3, 1, 0, 0, 0, 0], [2, 0, 5, 1, 4, 0], [1, 2, 3, 4, 5, 6]])


def assert_same(model, other, *inputs, atol=1e-6):
    inputs = inputs[0] if len(inputs) == 1 else list(inputs)
    for y, z in zip(
        keras.tree.flatten(model(inputs)), keras.tree.flatten(other(inputs)), strict=True
    ):
        np.testing.assert_allclose(z, y, rtol=1e-5, atol=atol)


def assert_turns(model, *inputs, atol=1e-6):
    """There and back; gives the model of this package's layers."""
    ours = from_keras(model)
    theirs = to_keras(ours)
    for other in (ours, theirs):
        assert type(other) is type(model)
        assert [w.path for w in other.weights] == [w.path for w in model.weights]
        for w, v in zip(other.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(w, v)
        assert_same(model, other, *inputs, atol=atol)
    assert {layer.name for layer in model.layers} == {layer.name for layer in theirs.layers}
    # It loads where this package is not.
    assert "kerasrnn" not in str(theirs.get_config())
    return ours


def recurrent(model):
    """The classes of the recurrent layers and their cells in a model, by name."""
    found = {}
    for layer in model._flatten_layers():
        if isinstance(layer, K.RNN | K.Bidirectional):
            found[layer.name] = type(layer)
            for cell in getattr(getattr(layer, "cell", None), "cells", []):
                found[cell.name] = type(cell)
    return found


@pytest.fixture
def encoder_decoder(random_weights):
    """With shared layers, two inputs, masks, states in and out, and models inside."""
    x, tokens = keras.Input((None, 4), name="x"), keras.Input((None,), dtype="int64", name="t")
    e = K.Embedding(7, 4, mask_zero=True)(tokens)
    shared = K.GRU(5, return_sequences=True, reset_after=False, name="shared")
    _, h, c = K.LSTM(5, return_state=True, name="encoder")(e)
    y = K.LSTM(5, return_sequences=True, name="decoder")(x, initial_state=[h, c])
    # Keras loses the mask of e here.
    z = K.LSTM(5, return_sequences=True, return_state=True, name="lost")(e, [h, c])
    both = K.Bidirectional(K.GRU(5, return_sequences=True), merge_mode="ave", name="both")
    # And turns none around here.
    back = K.SimpleRNN(3, return_sequences=True, go_backwards=True, name="back")(e)
    back = K.SimpleRNN(3, name="behind")(back)
    stacked = K.RNN(
        [K.LSTMCell(3, name="lower"), K.GRUCell(2)],
        return_sequences=True,
        return_state=True,
        name="stacked",
    )
    inner = keras.Sequential([keras.Input((None, 5)), K.LSTM(2, name="within")], name="inner")
    a, b = keras.Input((None, 5)), keras.Input((5,))
    nested = keras.Model([a, b], K.GRU(5, name="nested")(a, initial_state=b), name="functional")
    outputs = {
        "shared": [shared(x), shared(e)],
        "y": y,
        "z": z,
        "both": both(e, initial_state=[h, c]),
        "merged": K.Bidirectional(K.LSTM(2, return_state=True), name="merged")(e),
        "back": back,
        "stacked": stacked(e),
        "inner": [inner(y), inner(shared(x))],
        "nested": nested([y, h]) * 2 + 1,
        "cell": K.RNN(K.SimpleRNNCell(2), name="cell")(e),
    }
    model = keras.Model([x, tokens], outputs)
    random_weights(model)
    return model


@pytest.mark.filterwarnings("ignore:Layer '.*' .* does not support masking")
def test_a_functional_model(encoder_decoder, tmp_path):
    ours = assert_turns(encoder_decoder, X, TOKENS)
    kinds = recurrent(ours)
    assert kinds.keys() == recurrent(encoder_decoder).keys()
    assert {kind.__module__.partition(".")[0] for kind in kinds.values()} == {"kerasrnn"}
    assert kinds["lower"] is cells.LSTMCell
    ours.save(tmp_path / "model.keras")
    assert_same(ours, keras.models.load_model(tmp_path / "model.keras"), X, TOKENS, atol=0)
    # A copy: the one does not train the other.
    ours.get_layer("shared").cell.kernel.assign_add(ours.get_layer("shared").cell.kernel)
    kernel = encoder_decoder.get_layer("shared").cell.kernel
    np.testing.assert_array_equal(ours.get_layer("shared").cell.kernel, 2 * kernel)


def test_a_mask_that_our_layer_heeds_is_named_to_keras_s(random_weights):
    tokens, h = keras.Input((None,), dtype="int64"), keras.Input((5,))
    e = K.Embedding(7, 4, mask_zero=True)(tokens)
    ours = keras.Model([tokens, h], layers.GRU(5)(e, initial_state=h))
    random_weights(ours)
    state = X[:, 0, :1] * np.ones((1, 5), "float32")
    assert_same(ours, to_keras(ours), TOKENS, state)
    # Within Keras's Bidirectional, too.
    both = K.Bidirectional(layers.GRU(5))(e, initial_state=[h, h])
    both = keras.Model([tokens, h], both)
    random_weights(both)
    for convert in (from_keras, to_keras):
        assert_same(both, convert(both), TOKENS, state)


def test_a_sequential_model(random_weights):
    model = keras.Sequential(
        [
            keras.Input((None, 4)),
            K.Masking(),
            K.LSTM(5, return_sequences=True, activation="relu", bias_regularizer="l2"),
            K.Bidirectional(K.GRU(3, return_sequences=True), backward_layer=None),
            K.TimeDistributed(K.Dense(2)),
            K.SimpleRNN(3, use_bias=False),
        ]
    )
    random_weights(model)
    x = X.copy()
    x[0, 3:] = 0
    ours = assert_turns(model, x)
    assert ours.get_config()["layers"][2]["config"]["bias_regularizer"]["class_name"] == "L2"
    assert len(ours.losses) == len(model.losses) == 1


def test_layers_within_time_distributed(random_weights):
    inputs = keras.Input((2, 6, 4))
    inner = keras.Sequential([keras.Input((6, 4)), K.LSTM(3, name="deep")])
    outputs = [K.TimeDistributed(K.GRU(3, name="td"))(inputs), K.TimeDistributed(inner)(inputs)]
    model = keras.Model(inputs, outputs)
    random_weights(model)
    ours = from_keras(model)
    assert recurrent(ours) == {"td": layers.GRU, "deep": layers.LSTM}
    assert_same(model, ours, np.stack([X, 2 * X], axis=1))
    assert recurrent(to_keras(ours)) == recurrent(model)
    assert_same(model, to_keras(ours), np.stack([X, 2 * X], axis=1), atol=0)


def test_layers_within_this_package_s_connections(random_weights):
    dense = layers.DenselyConnected([K.SimpleRNN(2, return_sequences=True), K.Dense(3)])
    model = keras.Sequential(
        [
            keras.Input((None, 4)),
            layers.Residual(K.LSTM(4, return_sequences=True)),
            layers.Highway(K.GRU(5, return_sequences=True), project=True),
            layers.Bidirectional(K.GRU(3, return_sequences=True), merge_mode="gate"),
            dense,
        ]
    )
    random_weights(model)
    ours = from_keras(model)
    assert {kind.__module__.partition(".")[0] for kind in recurrent(ours).values()} == {"kerasrnn"}
    assert_same(model, ours, X)


@pytest.mark.parametrize("return_sequences", [True, False])
def test_a_stack_becomes_a_layer_of_stacked_cells(return_sequences, random_weights):
    options = {"return_sequences": return_sequences, "stateful": True, "name": "upper"}
    ours = keras.Sequential(
        [
            keras.Input(batch_shape=(3, None, 4)),
            K.Masking(),
            layers.RNNStack("lstm", [3, 2], return_sequences=True, dropout=0.1, name="lower"),
            layers.RNNStack(lambda units, **rates: K.GRUCell(units, **rates), 3, 2, **options),
        ]
    )
    random_weights(ours)
    x = X.copy()
    ours(x)
    x[0, 2:4] = x[1] = 0
    theirs = to_keras(ours)
    assert recurrent(theirs).keys() >= {"lower", "upper", "lstm_cell_1", "lstm_cell_2"}
    assert {kind.__module__.partition(".")[0] for kind in recurrent(theirs).values()} == {"keras"}
    assert theirs.layers[1].cell.cells[0].dropout == 0.1
    for w, v in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_array_equal(w, v)
    assert_same(ours, theirs, x)
    assert_same(ours, theirs, X)


def test_directions_of_different_units(random_weights):
    pair = K.LSTM(3, return_sequences=True), K.GRU(2, go_backwards=True, return_sequences=True)
    model = keras.Sequential(
        [keras.Input((None, 4)), K.Bidirectional(pair[0], backward_layer=pair[1])]
    )
    random_weights(model)
    ours = from_keras(model)
    assert ours.output_shape == (None, None, 5)
    x = np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float32")
    np.testing.assert_allclose(ours(x), model(x), atol=1e-6)


def test_a_stack_that_runs_backward(random_weights):
    ours = keras.Sequential(
        [keras.Input((None, 4)), layers.RNNStack("gru", 3, 2, go_backwards=True), K.Dense(2)]
    )
    random_weights(ours)
    assert_same(ours, to_keras(ours), X)


def test_what_is_left_as_it_is(random_weights):
    class Mine(K.LSTM):
        pass

    class MyCell(K.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = self.state_size = units

        def build(self, shape):
            self.w = self.add_weight((shape[-1], self.units))

        def call(self, x, states):
            h = x @ self.w + states[0]
            return h, [h]

        def get_config(self):
            return super().get_config() | {"units": self.units}

    model = keras.Sequential(
        [
            keras.Input((2, 3, 3, 1)),
            K.ConvLSTM2D(2, 2, return_sequences=True),
            K.Reshape((2, 8)),
            K.Lambda(lambda x: x * 2),
            Mine(3, return_sequences=True),
            K.RNN(MyCell(2)),
        ]
    )
    random_weights(model)
    ours = from_keras(model)
    assert [type(layer) for layer in ours.layers[-2:]] == [Mine, layers.RNN]
    assert type(ours.layers[-1].cell) is MyCell
    assert type(to_keras(ours).layers[-1]) is K.RNN
    assert_same(model, ours, RNG.normal(size=(2, 2, 3, 3, 1)).astype("float32"))


def test_a_stateful_model_goes_on_where_it_was(random_weights):
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(3, None, 4)),
            K.LSTM(5, stateful=True, return_sequences=True),
            K.RNN([K.GRUCell(3), K.LSTMCell(2)], stateful=True),
        ]
    )
    random_weights(model)
    model(X)
    ours = from_keras(model)
    theirs = to_keras(ours)
    x = X[::-1]
    y = model(x)
    np.testing.assert_allclose(ours(x), y, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(theirs(x), y)


def test_what_a_model_keeps_beside_weights(random_weights):
    text, normalization = K.TextVectorization(), K.Normalization()
    text.adapt(["a b c", "b d"])
    normalization.adapt(X)
    words, x = keras.Input((1,), dtype="string", name="w"), keras.Input((6, 4), name="x")
    y = K.GRU(2)(K.Embedding(9, 3, mask_zero=True)(text(words)))
    z = K.LSTM(2)(K.BatchNormalization(name="batch")(normalization(x)))
    model = keras.Model({"w": words, "x": x}, [y, z], name="texts")
    model.get_layer("batch").moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    ours = from_keras(model)
    assert_same(model, ours, {"w": tf.constant([["a d"], ["e"], ["b a c"]]), "x": tf.constant(X)})
    assert ours.name == "texts"


def test_frozen_layers_stay_frozen():
    model = keras.Sequential([keras.Input((None, 4)), K.LSTM(3), K.GRU(2), K.Dense(1)][::2])
    model.layers[0].cell.trainable = False
    inputs = keras.Input((None, 4))
    frozen = keras.Sequential([keras.Input((None, 4)), K.LSTM(3)])
    frozen.trainable = False
    outer = keras.Model(inputs, K.Dense(1)(frozen(inputs)))
    for one in (model, outer):
        for other in (from_keras(one), to_keras(from_keras(one))):
            paths = [w.path for w in other.trainable_weights]
            assert paths == [w.path for w in one.trainable_weights]
            assert [part.trainable for part in other.layers] == [p.trainable for p in one.layers]


def test_a_model_that_is_not_built(random_weights):
    layer = K.LSTM(3, return_sequences=True, name="ready")
    layer.build((None, None, 4))
    random_weights(layer)
    model = keras.Sequential([layer, K.GRU(2)])
    ours = from_keras(model)
    assert not ours.built
    for w, v in zip(ours.layers[0].get_weights(), layer.get_weights(), strict=True):
        np.testing.assert_array_equal(w, v)
    model(X)
    assert_same(model, from_keras(model), X)


def test_a_compiled_model_is_compiled(random_weights):
    model = keras.Sequential([keras.Input((None, 4)), K.LSTM(3), K.Dense(1)])
    assert not from_keras(model).compiled
    model.compile(keras.optimizers.Adam(0.25, clipnorm=1.0), "mse", metrics=["mae"])
    y = np.ones((3, 1))
    model.fit(X, y, verbose=0)
    ours = from_keras(model)
    for one in (ours, to_keras(ours)):
        assert float(one.optimizer.learning_rate) == 0.25
        assert one.optimizer.clipnorm == 1.0
        assert int(one.optimizer.iterations) == 0
        scores = one.evaluate(X, y, verbose=0)
        np.testing.assert_allclose(scores, model.evaluate(X, y, verbose=0), rtol=1e-5)
        one.fit(X, y, verbose=0)


def test_functions_that_keras_knows_by_no_name(random_weights):
    def squashed(x):
        return x / (1 + keras.ops.abs(x))

    model = keras.Sequential(
        [keras.Input((None, 4)), K.LSTM(3, activation=squashed, kernel_constraint=squashed)]
    )
    random_weights(model)
    ours = assert_turns(model, X)
    assert ours.layers[0].activation is squashed


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_other_precisions(policy, random_weights):
    model = keras.Sequential(
        [
            keras.Input((None, 4)),
            K.GRU(3, return_sequences=True, dtype=policy),
            K.Bidirectional(K.LSTM(2, dtype=policy), dtype=policy),
        ]
    )
    random_weights(model)
    ours = from_keras(model)
    assert [one.dtype_policy.name for one in ours.layers] == [policy] * 2
    assert ours.layers[1].forward_layer.cell.dtype_policy.name == policy
    assert_same(model, ours, X, atol=2e-3 if policy == "mixed_float16" else 1e-12)


def test_what_the_configuration_of_keras_s_layers_leaves_out():
    model = keras.Sequential(
        [keras.Input((None, 4)), K.LSTM(3, use_cudnn=False, implementation=1, seed=3)]
    )
    for one in (from_keras(model), to_keras(from_keras(model))):
        (layer,) = one.layers
        assert (layer.use_cudnn, layer.cell.implementation, layer.cell.seed) == (False, 1, 3)


def test_inputs_that_are_optional_or_dictionaries(random_weights):
    inputs = {"a": keras.Input((None, 4), name="a"), "b": keras.Input((3,), name="b")}
    optional = keras.Input((1,), name="c", optional=True)
    y = K.GRU(3)(inputs["a"], initial_state=inputs["b"])
    model = keras.Model({**inputs, "c": optional}, y)
    random_weights(model)
    x = {"a": X, "b": X[:, 0, :3], "c": None}
    ours = from_keras(model)
    assert_same(model, ours, x)
    assert [layer.name for layer in ours.layers] == [layer.name for layer in model.layers]
    # Between two tensors of another model.
    part = keras.Model(model.get_layer("a").output, K.LSTM(2)(model.get_layer("a").output * 2))
    assert_turns(part, X)


@pytest.mark.parametrize("masked", [True, False])
def test_the_mask_behind_go_backwards_of_a_sequential_model(masked):
    turning = K.LSTM(3, return_sequences=True, go_backwards=True, name="turning")
    parts = [keras.Input((None, 4)), *[K.Masking()] * masked, turning, K.GRU(2)]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        to_keras(from_keras(keras.Sequential(parts)))
    assert [one.filename for one in seen] == [__file__] * 2 * masked
    assert all("mask behind turning, with go_backwards=True" in str(one.message) for one in seen)


class Holder(K.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.held = K.LSTM(3, name="held")

    def call(self, x):
        return self.held(x)


class Subclass(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.held = K.LSTM(3, name="held")

    def call(self, x):
        return self.held(x)


class Configured(keras.Model):
    """Functional, but not made from its inputs and outputs."""

    def __init__(self, units):
        inputs = keras.Input((None, 4))
        super().__init__(inputs, K.LSTM(units)(inputs), name="configured")


def loss(y, z):
    return keras.ops.mean(keras.ops.abs(y - z))


def compiled(**options):
    model = keras.Sequential([keras.Input((None, 4)), K.LSTM(3)], name="compiled")
    model.compile("sgd", **options)
    return model


def around(layer):
    return keras.Sequential([keras.Input((None, 4)), layer])


class NoConfig(K.Layer):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)

    def get_config(self):
        raise NotImplementedError


FROM = {
    "a layer": (lambda: K.LSTM(3), "`model` must be a keras.Model. Received: model=<LSTM"),
    "subclass": (Subclass, r"must be Sequential or functional.*Received: mine \(Subclass\)"),
    "inside": (lambda: around(Subclass()), r"held \(LSTM\) in mine \(Subclass\)"),
    "configured": (lambda: Configured(3), r"Received: configured \(Configured\)"),
    "holder": (
        lambda: around(Holder(name="holder")),
        r"held \(LSTM\) in holder \(Holder\)",
    ),
    "loss": (lambda: compiled(loss=loss), r"compiled with what Keras can make again.*'loss'"),
    "copy": (
        lambda: around(NoConfig(3, name="odd")),
        r"can make again from their configuration.*odd \(NoConfig\)",
    ),
    "range": (lambda: around(K.LSTM(3, dropout=1)), "`dropout` must lie in .*dropout=1"),
}


@pytest.mark.parametrize("case", FROM)
def test_models_that_cannot_be_turned_into_ours(case):
    make, message = FROM[case]
    with pytest.raises((TypeError, ValueError), match=message):
        from_keras(make())


def reset_model():
    x, reset = keras.Input((None, 4)), keras.Input((None,), dtype="bool")
    return keras.Model([x, reset], layers.GRU(3, name="g")(x, reset=reset))


def without_mask():
    x = keras.Input((None, 4))
    return keras.Model(x, layers.GRU(3, name="g")(x, mask=False))


def outside(**options):
    return lambda: around(layers.LSTM(3, name="lstm", **options))


def stack(**options):
    return lambda: around(layers.RNNStack("gru", 4, 2, name="s", **options))


def stack_with_state():
    x, h = keras.Input((None, 4)), [keras.Input((4,)) for _ in range(2)]
    return keras.Model([x, *h], layers.RNNStack("gru", 4, 2, name="s")(x, initial_state=h))


TO = {
    "zoneout": (outside(zoneout=0.1), r"Received: lstm \(LSTM\) with zoneout=0.1"),
    "normalization": (outside(normalization="layer"), "normalization='layer'"),
    "learned": (outside(initial_state="learned"), "initial_state='learned'"),
    "omega": (
        outside(vanishing_gradient_regularization=0.1),
        "vanishing_gradient_regularization=0.1",
    ),
    "form": (outside(recurrent_dropout_form="candidate"), "recurrent_dropout_form='candidate'"),
    "chrono": (
        outside(bias_initializer=initializers.Chrono(9)),
        "lstm .*bias_initializer=<kerasrnn",
    ),
    "activation": (outside(activation=activations.g), "lstm .*activation=<function"),
    "write": (
        lambda: around(layers.GRU(3, name="g", update_gate="write")),
        r"g \(GRU\) with update_gate='write'",
    ),
    "gate": (
        lambda: around(layers.Bidirectional(layers.GRU(3), merge_mode="gate", name="both")),
        r"both \(Bidirectional\) with merge_mode='gate'",
    ),
    "direction": (
        lambda: around(layers.Bidirectional(layers.GRU(3, zoneout=0.2, name="g"))),
        r"forward_g \(GRU\) with zoneout=0.2",
    ),
    "cell": (
        lambda: around(layers.RNN("mgu", units=3, name="r")),
        r"Keras has, too.*mgu_cell \(MGUCell\)",
    ),
    "stacked": (
        lambda: around(layers.RNN([cells.GRUCell(2), cells.LSTMCell(2, zoneout=0.3, name="c")])),
        r"c \(LSTMCell\) with zoneout=0.3",
    ),
    "layer": (lambda: around(layers.MinGRU(3, name="m")), r"Keras has, too.*m \(MinGRU\)"),
    "connection": (stack(connection="highway"), r"s \(RNNStack\) with connection='highway'"),
    "both": (stack(bidirectional=True), r"s \(RNNStack\) with bidirectional=True"),
    "normalized": (stack(normalization="layer"), "s .* with normalization='layer'"),
    "states": (stack(return_state=True), "s .* with return_state=True"),
    "zoned stack": (stack(zoneout=0.1), r"gru_cell_1 \(GRUCell\) with zoneout=0.1"),
    "state in": (stack_with_state, r"without `initial_state`, of a stack.*s \(RNNStack\)"),
    "residual": (
        lambda: around(layers.Residual(K.LSTM(4, return_sequences=True), name="r")),
        r"r \(Residual\)",
    ),
    "reset": (reset_model, r"must do without `reset`.*Received: g \(GRU\), called with it"),
    "no mask": (without_mask, "must do without `mask=False`.*Received: g"),
    "subclass": (Subclass, r"must be Sequential or functional.*Received: mine \(Subclass\)"),
}


@pytest.mark.parametrize("case", TO)
def test_models_that_keras_cannot_say(case):
    make, message = TO[case]
    with pytest.raises((TypeError, ValueError), match=message):
        to_keras(make())
