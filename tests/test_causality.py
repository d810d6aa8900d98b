import keras
import numpy as np
import pytest
from keras import ops
from slow import slow_but

from kerasrnn import layers
from kerasrnn.diagnostics import is_causal

X = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
TOKENS = np.random.default_rng(0).integers(1, 9, (2, 6))


def gru(**options):
    return layers.GRU(4, return_sequences=True, **options)


def looked_ahead(model, x):
    """Pairs (output step, later input step), found by changing one step of the input at a time."""
    y = np.array(model(x))
    pairs = set()
    for s in range(x.shape[1]):
        changed = x.copy()
        changed[:, s] = 1 + changed[:, s] % 5
        steps = np.flatnonzero(np.abs(model(changed) - y).max(axis=(0, 2)) > 1e-6)
        pairs |= {(int(t), s) for t in steps if t < s}
    return pairs


CAUSAL = {
    "gru": lambda: [gru()],
    "keras": lambda: [keras.layers.LSTM(4, return_sequences=True)],
    "stack": lambda: [layers.RNNStack("lstm", 3, 4, "dense", return_sequences=True)],
    "residual_conv": lambda: [layers.Residual(keras.layers.Conv1D(3, 3, padding="causal"))],
    "normalized": lambda: [gru(), keras.layers.LayerNormalization(), keras.layers.Dropout(0.5)],
    "dense": lambda: [keras.layers.Dense(4, "relu"), keras.layers.Dense(2, "softmax")],
}


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("tokens", [False, True])
def test_causal(kind, tokens):
    first = [keras.layers.Embedding(9, 3)] if tokens else []
    model = keras.Sequential([*first, *CAUSAL[kind]()])
    x = TOKENS if tokens else X
    model.build(x.shape)
    found = is_causal(model, x)
    assert found
    assert found.leak is None
    assert looked_ahead(model, x) == set()


@keras.saving.register_keras_serializable("test_causality")
class Shift(keras.layers.Layer):
    """Looks two steps ahead."""

    def call(self, x):
        return ops.concatenate([x[:, 2:], x[:, :2] * 0], axis=1)


LEAKING = {
    "bidirectional": (lambda: [gru(), layers.Bidirectional(gru(), name="leak"), gru()], (0, 1)),
    "keras": (
        lambda: [
            keras.layers.Bidirectional(keras.layers.GRU(4, return_sequences=True), name="leak")
        ],
        (0, 1),
    ),
    "stack": (
        lambda: [
            gru(),
            layers.RNNStack("gru", 3, 2, None, True, return_sequences=True, name="leak"),
        ],
        (0, 1),
    ),
    "inside": (lambda: [layers.Highway(layers.Bidirectional(gru()), True, name="leak")], (0, 1)),
    "conv": (lambda: [gru(), keras.layers.Conv1D(4, 3, padding="same", name="leak")], (0, 1)),
    "shift": (lambda: [keras.layers.Dense(4), Shift(name="leak"), gru()], (0, 2)),
    "backward": (lambda: [gru(go_backwards=True, name="leak"), gru()], (0, 5)),
}


@pytest.mark.parametrize("kind", LEAKING)
@pytest.mark.parametrize("tokens", slow_but([True], [False, True]))
def test_leaking(kind, tokens):
    make, steps = LEAKING[kind]
    first = [keras.layers.Embedding(9, 3)] if tokens else []
    model = keras.Sequential([*first, *make()])
    x = TOKENS if tokens else X
    model.build(x.shape)
    found = is_causal(model, x)
    assert not found
    assert found.leak == ("leak", *steps)
    assert steps in looked_ahead(model, x)


def test_attention():
    inputs = keras.Input((6, 3))
    for causal in (False, True):
        attend = keras.layers.MultiHeadAttention(2, 3, name="attend")
        model = keras.Model(inputs, attend(inputs, inputs, use_causal_mask=causal))
        found = is_causal(model, X)
        assert found.leak == (None if causal else ("attend", 0, 1))


def test_models_within_models_and_operations_without_layers():
    inputs = keras.Input((6, 3))
    flipped = keras.Model(inputs, ops.flip(gru(name="ahead")(inputs), axis=1), name="inner")
    name, *steps = is_causal(keras.Model(inputs, gru()(flipped(inputs))), X).leak
    assert (name.startswith("inner/flip"), steps) == (True, [0, 1])

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__(name="subclassed")
            self.parts = [gru(name="a"), gru(name="b")]

        def call(self, x):
            return ops.flip(self.parts[1](self.parts[0](x)), axis=1)

    model = Subclassed()
    model(X)
    assert is_causal(model, X).leak == ("subclassed", 0, 1)


def test_the_model_is_left_as_it_was():
    model = keras.Sequential([keras.Input((6, 3)), gru(), layers.Bidirectional(gru())])
    before = model(X).numpy()
    is_causal(model, X)
    assert not any("call" in vars(layer) for layer in model.layers)
    np.testing.assert_array_equal(model(X), before)


def test_what_cannot_be_told():
    with pytest.raises(ValueError, match=r"return_sequences=True.*\(2, 4\).*\(2, 6, 3\)"):
        is_causal(keras.Sequential([keras.Input((6, 3)), layers.GRU(4)]), X)
    dead = keras.Sequential([keras.Input((6, 3)), keras.layers.ReLU()])
    with pytest.raises(ValueError, match="all gradients are zero"):
        is_causal(dead, -np.abs(X))
    with pytest.raises(ValueError, match="must be finite"):
        is_causal(keras.Sequential([keras.Input((6, 3)), gru()]), np.full_like(X, np.nan))


class Turned(keras.Model):
    """A model whose tokens are turned around outside of any layer."""

    def __init__(self):
        super().__init__()
        self.embedding, self.gru = keras.layers.Embedding(9, 3), gru()

    def call(self, x):
        return self.gru(self.embedding(ops.flip(x, 1)))


class Hidden(keras.layers.Layer):
    """Takes tokens, and looks ahead inside."""

    def __init__(self):
        super().__init__(name="hidden")
        self.embedding, self.both = keras.layers.Embedding(9, 3), layers.Bidirectional(gru())

    def call(self, x):
        return self.both(self.embedding(x))


def of_tokens(function):
    inputs = keras.Input((6,), dtype="int32")
    return keras.Model(inputs, function(inputs))


WITHOUT_GRADIENTS = {
    "flipped": lambda: of_tokens(lambda i: keras.layers.Embedding(9, 3)(ops.flip(i, axis=1))),
    "shifted": lambda: of_tokens(lambda i: keras.layers.Embedding(9, 3)(ops.roll(i, -1, axis=1))),
    "hidden": lambda: of_tokens(Hidden()),
    "subclassed": Turned,
}


@pytest.mark.parametrize("kind", WITHOUT_GRADIENTS)
def test_a_leak_that_no_gradient_shows(kind):
    model = WITHOUT_GRADIENTS[kind]()
    model(TOKENS)
    found = is_causal(model, TOKENS)
    assert not found
    name, t, s = found.leak
    assert (t, s) in looked_ahead(model, TOKENS)
    assert name


def test_a_stopped_gradient_hides_no_leak():
    inputs = keras.Input((6, 3))
    ahead = ops.stop_gradient(ops.flip(inputs, axis=1))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs + ahead))
    _, t, s = is_causal(model, X).leak
    assert (t, s) in looked_ahead(model, X)


def test_a_stateful_model_is_left_as_it_was():
    model = keras.Sequential([keras.Input((6, 3), batch_size=2), gru(stateful=True)])
    model(X)
    before = np.array(model.layers[0].states[0])
    assert is_causal(model, X)
    np.testing.assert_array_equal(model.layers[0].states[0], before)


@pytest.mark.parametrize("length", [6, None])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_outputs_that_do_not_keep_step_are_left_out(bidirectional, length):
    """States of as many units as there are steps, half the steps, and one for all of them."""
    inputs = keras.Input((length, 3))
    own = layers.GRU(6, return_sequences=True, return_state=True)
    y, *states = (layers.Bidirectional(own, name="leak") if bidirectional else own)(inputs)
    halved = keras.layers.Conv1D(2, 2, strides=2)(y)
    pooled = keras.layers.GlobalMaxPooling1D()(y)
    model = keras.Model(inputs, [halved, *states, y, pooled])
    assert is_causal(model, X).leak == (("leak", 0, 1) if bidirectional else None)
    with pytest.raises(ValueError, match=r"as many steps.*\(2, 3, 2\), \(2, 6\)"):
        is_causal(keras.Model(inputs, [halved, states[0]]), X)


def encoder_decoder(bidirectional, tokens):
    """What it reads in both directions, then what it writes."""
    inputs = [keras.Input((None,) if tokens else (None, 3), name=name) for name in ("source", "to")]
    embed = keras.layers.Embedding(9, 3) if tokens else lambda x: x
    source, to = map(embed, inputs)
    encoder = layers.GRU(4, return_state=True)
    _, *states = layers.Bidirectional(encoder, merge_mode="sum", name="encoder")(source)
    decoder = gru(name="decoder")
    if bidirectional:
        decoder = layers.Bidirectional(decoder, name="both")
        return keras.Model(inputs, decoder(to, initial_state=states))
    return keras.Model(inputs, decoder(to, initial_state=[states[0] + states[1]]))


@pytest.mark.parametrize("tokens", slow_but([True], [False, True]))
def test_an_encoder_may_read_what_a_decoder_must_not(tokens):
    x = TOKENS if tokens else X
    model = encoder_decoder(False, tokens)
    for source in (x, x[:, :4]):
        pair = [source, x[:, ::-1]]
        assert is_causal(model, pair, along=1)
        named = keras.Model(dict(zip(("source", "to"), model.inputs, strict=True)), model.outputs)
        assert is_causal(named, dict(zip(("source", "to"), pair, strict=True)), along=["to"])
        assert is_causal(encoder_decoder(True, tokens), pair, along=1).leak == ("both", 0, 1)
    same = ops.convert_to_tensor(x)
    assert is_causal(model, [same, same], along=1)
    # Of equal lengths, and all in step: what it reads is ahead.
    assert is_causal(model, [x, x]).leak == ("decoder", 0, 1)
    with pytest.raises(ValueError, match=r"`along` must say.*\[4, 6\].*along=None"):
        is_causal(model, [x[:, :4], x])


def test_features_that_all_steps_share_have_no_time():
    """Nor need their axis be told from that of time by its length."""
    a, b = keras.Input((6, 3)), keras.Input((6,))
    shared = keras.layers.Dense(4)(b)
    model = keras.Model([a, b], gru()(a) + shared[:, None])
    assert is_causal(model, [X, X[:, :, 0]])


@pytest.mark.parametrize("length", [6, None])
def test_the_leak_is_named_where_there_is_time(length):
    inputs = keras.Input((length, 6))
    pooled = keras.layers.GlobalAveragePooling1D(name="pool")(inputs)
    joined = keras.layers.Add(name="join")([inputs, pooled[:, None]])
    x = np.concatenate([X, 2 * X], axis=-1)
    assert is_causal(keras.Model(inputs, joined), x).leak == ("join", 0, 1)
    if length is None:
        turned = keras.layers.Permute((2, 1), name="turn")(inputs)
        back = keras.layers.Permute((2, 1), name="back")(ops.flip(turned, axis=2))
        assert is_causal(keras.Model(inputs, back), x).leak == ("back", 0, 5)


@pytest.mark.parametrize(
    ("model", "x", "along", "message"),
    [
        (lambda x: x, X, None, "`model` must be a Keras model or layer.*<function"),
        (gru, X, None, "`model` must be a Keras model or layer.*<function"),
        ("dense", X.tolist(), None, r"`x` must be an array.*np.array\(x\)"),
        ("dense", lambda: X, None, "`x` must be an array.*<function"),
        ("dense", X[:, :1], None, r"two time steps or more.*\(2, 1, 3\)"),
        ("dense", X[0, 0], None, r"two time steps or more.*\(3,\)"),
        ("dense", X, 0, "none for a single one.*along=0"),
        ("dense", [X, X], 2, "one of the inputs.*0, 1. Received: along=2"),
        ("dense", {"a": X, "b": X}, ["a", "c"], r"'a', 'b'. Received: along=\['a', 'c'\]"),
    ],
)
def test_bad_arguments(model, x, along, message):
    model = keras.layers.Dense(2) if model == "dense" else model
    with pytest.raises(ValueError, match=message):
        is_causal(model, x, along)
