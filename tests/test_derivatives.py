"""The diagnostics under any of Keras's backends; under TensorFlow the rest of their tests are in
files of their own."""

import diagnosed
import keras
import numpy as np
import pytest
from keras import ops
from other_backends import OTHERS, ROOT, under

from kerasrnn import diagnostics, export, layers
from kerasrnn.backends import BACKEND, tf
from kerasrnn.diagnostics import derivatives

BATCH, TIME, FEATURES, UNITS = 3, 7, 4, 5
X = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES)).astype("float32")


def weights_of(layer):
    return [np.array(ops.convert_to_numpy(w), "float64") for w in layer.weights]


def states_of(layer, x, mask):
    """The states of a SimpleRNN after each step, (time, batch, units)."""
    kernel, recurrent, bias = weights_of(layer)
    h, states = np.zeros((len(x), UNITS)), []
    for t in range(x.shape[1]):
        new = np.tanh(x[:, t] @ kernel + h @ recurrent + bias)
        h = np.where(mask[:, t, None], new, h)
        states.append(h)
    return np.array(states)


def flown_back(layer, states, arriving, mask):
    """The norms, (batch, time), of the gradients at the states from those that arrive at each."""
    _, recurrent, _ = weights_of(layer)
    g, norms = np.zeros_like(states[0]), []
    for t in range(TIME)[::-1]:
        g = g + arriving[t]
        norms.append(np.linalg.norm(g, axis=-1))
        g = np.where(mask[:, t, None], g * (1 - states[t] ** 2) @ recurrent.T, g)
    return np.array(norms)[::-1].T


@pytest.mark.parametrize("package", [layers, keras.layers], ids=["ours", "keras"])
@pytest.mark.parametrize("masked", [False, True])
def test_gradient_flow(package, masked, random_weights):
    """A net that is read at every step, beside NumPy; the lags are those of the last one alone."""
    mask = diagnosed.MASK if masked else np.ones((BATCH, TIME), bool)
    x = X * mask[:, :, None]
    rnn = package.SimpleRNN(UNITS, return_sequences=True, name="rnn")
    model = keras.Sequential([keras.Input((TIME, FEATURES)), keras.layers.Masking(), rnn])
    model.compile("sgd", "mse")
    random_weights(rnn)
    y = np.random.default_rng(1).normal(size=(BATCH, TIME, UNITS)).astype("float32")
    flow = diagnostics.gradient_flow(model, x, y, mask.astype("float32"))

    states = states_of(rnn, x, mask)
    arriving = 2 * (states - y.swapaxes(0, 1)) * mask.T[:, :, None]
    weight = flow.loss / np.sum(arriving**2 / 4)
    whole = flown_back(rnn, states, arriving, mask) * weight
    np.testing.assert_allclose(flow.per_sample["rnn"], whole, rtol=1e-5)

    last = np.arange(TIME)[:, None] == np.max(np.where(mask, np.arange(TIME), 0), axis=1)
    single = flown_back(rnn, states, arriving * last[:, :, None], mask)
    lags = np.full((BATCH, TIME), np.nan)
    for row, norms, valid in zip(lags, single, mask, strict=True):
        back = norms[valid][::-1]
        row[: len(back)] = np.log(back / back[0])
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(flow.profile["rnn"], np.exp(np.nanmean(lags, 0)), rtol=1e-5)


def test_recurrent_jacobian(random_weights):
    layer = layers.SimpleRNN(UNITS)
    layer.build((None, None, FEATURES))
    random_weights(layer)
    h = states_of(layer, X[:, :1], np.ones((BATCH, 1), bool))[0]
    _, recurrent, _ = weights_of(layer)
    np.testing.assert_allclose(
        diagnostics.recurrent_jacobian(layer, X[:, 0]),
        (1 - h[:, :, None] ** 2) * recurrent.T,
        rtol=1e-5,
        atol=1e-7,
    )


def test_lyapunov_exponent_of_one_unit(random_weights):
    layer = layers.SimpleRNN(1)
    layer.build((None, None, FEATURES))
    random_weights(layer)
    kernel, recurrent, bias = weights_of(layer)
    h, logs = np.zeros((BATCH, 1)), []
    for t in range(TIME):
        h = np.tanh(X[:, t] @ kernel + h @ recurrent + bias)
        logs.append(np.log(np.abs(recurrent * (1 - h**2))))
    exponent = diagnostics.lyapunov_exponent(layer, X, warmup=2)
    np.testing.assert_allclose(exponent, np.mean(logs[2:]), rtol=1e-5)


@keras.saving.register_keras_serializable("tests")
class Turned(keras.layers.Layer):
    """The steps in the other order, behind a `stop_gradient` where that is asked for."""

    def __init__(self, hidden, **kwargs):
        super().__init__(**kwargs)
        self.hidden = hidden

    def call(self, x):
        turned = ops.flip(x, axis=1)
        return x + (ops.stop_gradient(turned) if self.hidden else turned)


def gru():
    return layers.GRU(3, return_sequences=True)


@pytest.mark.parametrize(
    ("parts", "leak"),
    [
        ([gru], None),
        ([lambda: layers.Bidirectional(gru(), name="both")], ("both", 0, 1)),
        ([lambda: Turned(False, name="turned"), gru], ("turned", 0, 4)),
        ([lambda: Turned(True, name="hidden"), gru], ("hidden", 0, 4)),
    ],
    ids=["causal", "both directions", "turned", "turned without a gradient"],
)
@pytest.mark.parametrize("tokens", [False, True])
def test_is_causal(parts, leak, tokens):
    x = X[:2, :5]
    first = keras.layers.Dense(3)
    if tokens:
        x = np.random.default_rng(2).permutation(10).reshape(2, 5).astype("int32")
        first = keras.layers.Embedding(10, 3)
    inputs = keras.Input(x.shape[1:], dtype=x.dtype.name)
    y = first(inputs)
    for part in parts:
        y = part()(y)
    assert diagnostics.is_causal(keras.Model(inputs, y), x).leak == leak


def test_a_leak_inside_a_model_of_tokens_is_seen():
    """No gradient leads through the model inside, which is a source beside that in it."""
    tokens = np.random.default_rng(2).permutation(10).reshape(2, 5).astype("int32")
    inputs = keras.Input((5,), dtype="int32")
    both = layers.Bidirectional(gru(), name="both")
    inside = keras.Model(inputs, both(keras.layers.Embedding(10, 3)(inputs)), name="inside")
    inputs = keras.Input((5,), dtype="int32")
    assert diagnostics.is_causal(keras.Model(inputs, gru()(inside(inputs))), tokens).leak == (
        "inside/both",
        0,
        1,
    )


def test_what_running_the_model_changes_is_set_back():
    model, x = diagnosed.net("stateful")
    (layer,) = (one for one in model.layers if isinstance(one, layers.LSTM))
    model(x)
    before = [np.array(ops.convert_to_numpy(state)) for state in layer.states]
    assert all(state.any() for state in before)
    diagnostics.gradient_flow(model, x, np.ones((3, 7, 2), "float32"))
    for state, kept in zip(layer.states, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(state), kept)


def test_gradients_of_a_loss_that_depends_on_no_source_are_zero():
    way = derivatives.WayBack(lambda source: ([ops.sum(0 * source(ops.ones(2)) + 1)], None))
    assert np.array(way.back(1.0)).tolist() == [[0, 0]]

    def past(source):
        source(ops.ones((2, 3)))
        return [ops.sum(ops.ones(3))], None

    (gradient,) = derivatives.WayBack(past).back(1.0)
    np.testing.assert_array_equal(gradient, np.zeros((2, 3)))


def test_a_source_keeps_its_mask():
    """In one way back and in several at once, which JAX traces in another manner."""
    layer = layers.LSTM(UNITS, return_sequences=True)
    embedding = keras.layers.Embedding(10, FEATURES, mask_zero=True)
    tokens = np.array([[3, 0, 2, 0]], "int32")

    def run(source):
        return [layer(source(embedding(tokens)))], None

    run(lambda tensor: tensor)
    way = derivatives.WayBack(run)
    gradient = np.ones((1, 4, UNITS), "float32")
    (once,) = way.back(gradient)
    ((several,),) = way.back_each([gradient])
    for found in map(np.array, (once, several)):
        np.testing.assert_array_equal(found.any(axis=-1), tokens != 0)


def test_a_change_of_the_gradient_is_that_of_the_way_back():
    """Not that of the way there, nor that of the first way back."""
    factor = 1.0

    def run(source):
        y = derivatives.change_gradient(source(ops.ones(2)), lambda g: factor * g)
        return [ops.sum(y)], None

    way = derivatives.WayBack(run)
    for factor in (2.0, 3.0):
        assert np.array(way.back(1.0)).tolist() == [[factor, factor]]


@pytest.mark.skipif(tf is not None, reason="it is about the other backends")
@pytest.mark.parametrize(
    ("package", "name"),
    [
        *((diagnostics, name) for name in ("health_report", "HealthReport")),
        *((export, name) for name in export.__all__),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_needs_tensorflow_says_so(package, name):
    expected = (
        rf"^{package.__name__}\.{name} needs Keras's TensorFlow backend: save the model as "
        rf"\.keras, .* KERAS_BACKEND=tensorflow load it .*\. Received: the backend '{BACKEND}'$"
    )
    with pytest.raises(RuntimeError, match=expected):
        getattr(package, name)(None, x=None)


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
def test_numbers_are_those_under_tensorflow(backend, tmp_path, random_weights):
    expected = {}
    for name in diagnosed.nets():
        model, x = diagnosed.net(name)
        random_weights(model)
        model.save(tmp_path / f"{name}.keras")
        expected[name] = diagnosis = diagnosed.diagnosis(model, x)
        assert all(np.isfinite(value).all() for value in diagnosis.values())
    under(backend, ROOT / "tests" / "diagnosed.py", tmp_path)
    for name, numbers in expected.items():
        actual = np.load(tmp_path / f"{name}.npz")
        assert set(actual.files) == numbers.keys()
        for key, value in numbers.items():
            np.testing.assert_allclose(
                actual[key],
                value,
                rtol=1e-5,
                atol=1e-5 * np.abs(value).max(),
                err_msg=f"{name}: {key}",
            )
