import re

import keras
import numpy as np
import pytest

from kerasrnn import layers
from kerasrnn.cells import CELLS
from kerasrnn.diagnostics import (
    gradient_bound,
    gradient_flow,
    lyapunov_exponent,
    recurrent_jacobian,
    spectral_radius,
)

PACKAGES = pytest.mark.parametrize("package", [layers, keras.layers], ids=["ours", "keras"])
rng = np.random.default_rng(0)
X = rng.normal(size=(3, 4)).astype("float32")


def built(layer, features=4):
    layer.build((None, None, features))
    return layer


def scaled(package, scale, units=32, features=8, **options):
    orthogonal = keras.initializers.Orthogonal(scale, seed=0)
    return built(package.SimpleRNN(units, recurrent_initializer=orthogonal, **options), features)


def differences(cell, x, states, eps=1e-2):
    """The Jacobian of all states side by side, from central differences."""
    sizes = np.cumsum([s.shape[1] for s in states])

    def step(side_by_side):
        split = np.split(side_by_side.astype("float32"), sizes[:-1], axis=1)
        _, new = cell(x, split)
        return np.concatenate([np.array(s) for s in new], axis=1)

    s = np.concatenate(states, axis=1)
    columns = []
    for unit in np.eye(sizes[-1]):
        columns.append((step(s + eps * unit) - step(s - eps * unit)) / (2 * eps))
    return np.stack(columns, axis=2)


@PACKAGES
def test_the_jacobian_of_a_simple_rnn(package, random_weights):
    layer = built(package.SimpleRNN(5))
    random_weights(layer)
    w, u, b = layer.get_weights()
    h = rng.normal(size=(3, 5)).astype("float32")
    slopes = 1 - np.tanh(X @ w + h @ u + b) ** 2
    np.testing.assert_allclose(
        recurrent_jacobian(layer, X, h), slopes[:, :, None] * u.T, rtol=1e-5, atol=1e-6
    )
    at_zero = recurrent_jacobian(layer.cell, X)
    np.testing.assert_array_equal(at_zero, recurrent_jacobian(layer, X, np.zeros((3, 5))))


KERAS = {"keras_lstm": keras.layers.LSTMCell, "keras_gru": keras.layers.GRUCell}


@pytest.mark.parametrize("kind", [*CELLS, *KERAS])
def test_the_jacobian_of_every_cell(kind, random_weights):
    cell = (CELLS | KERAS)[kind](4)
    cell.build((None, 4))
    random_weights(cell, 0.3)
    states = [
        rng.uniform(0.2, 0.8, (3, 4)).astype("float32") for _ in np.atleast_1d(cell.state_size)
    ]
    actual = recurrent_jacobian(cell, X, states)
    np.testing.assert_allclose(actual, differences(cell, X, states), atol=2e-3)


@PACKAGES
@pytest.mark.parametrize("go_backwards", [False, True])
def test_the_lyapunov_exponent_against_numpy(package, go_backwards):
    layer = scaled(package, 1.5, go_backwards=go_backwards)
    w, u, b = (weight.astype("float64") for weight in layer.get_weights())
    x = rng.normal(size=(2, 200, 8)).astype("float32")
    exponents = []
    for sample in x[:, ::-1] if go_backwards else x:
        h, q, growth = np.zeros(32), np.eye(32), []
        for x_t in sample:
            h = np.tanh(x_t @ w + h @ u + b)
            # Vogt et al. (2020): the growth along each direction, kept apart by QR.
            q, r = np.linalg.qr((1 - h**2)[:, None] * u.T @ q)
            growth.append(np.log(np.abs(np.diag(r))))
        exponents.append(np.mean(growth[50:], axis=0).max())
    assert lyapunov_exponent(layer, x) == pytest.approx(np.mean(exponents), abs=0.01)


def test_the_lyapunov_exponent_of_linear_nets():
    layer = built(layers.SimpleRNN(3, "linear"))
    layer.set_weights([np.ones((4, 3)), np.diag([0.5, 0.9, -1.1]), np.zeros(3)])
    x = np.zeros((1, 300, 4), "float32")
    assert lyapunov_exponent(layer, x) == pytest.approx(np.log(1.1), abs=1e-3)
    layer.set_weights([np.ones((4, 3)), np.zeros((3, 3)), np.zeros(3)])
    assert lyapunov_exponent(layer, x[:, :9], warmup=0) == -np.inf


@PACKAGES
@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_the_slope_is_the_lyapunov_exponent(package, scale):
    """Also where the spectral radius says the contrary: W is 1.5 times a rotation, and saturation
    makes the gradients vanish nevertheless."""
    layer = scaled(package, scale)
    model = keras.Sequential([layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = rng.normal(size=(16, 60, 8)).astype("float32")
    y = rng.normal(size=(16, 1)).astype("float32")
    model(x)
    measured = gradient_flow(model, x, y)
    assert measured.slope[layer.name] == pytest.approx(lyapunov_exponent(layer, x), rel=0.1)
    assert measured.slope[layer.name] < 0
    assert np.log(spectral_radius(layer)) == pytest.approx(np.log(scale), abs=1e-5)


@PACKAGES
@pytest.mark.parametrize(("activation", "gamma"), [("tanh", 1), ("sigmoid", 1 / 4), ("relu", 1)])
@pytest.mark.parametrize("scale", [0.8, 1.5, 3.5])
def test_no_gradient_exceeds_the_bound(package, activation, gamma, scale, random_weights):
    layer = scaled(package, 1.0, units=6, activation=activation)
    random_weights(layer)
    w, u, b = layer.get_weights()
    u *= scale / np.linalg.norm(u, 2)
    layer.set_weights([w, u, b])
    lags = np.arange(20)
    bound = gradient_bound(layer, lags)
    np.testing.assert_allclose(bound, (scale * gamma) ** lags, rtol=1e-5)
    assert gradient_bound(layer.cell, 3) == pytest.approx(bound[3])

    model = keras.Sequential([layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = rng.normal(size=(8, 20, 8)).astype("float32")
    model(x)
    measured = gradient_flow(model, x, np.ones((8, 1), "float32")).per_sample[layer.name][:, ::-1]
    assert (measured <= bound * measured[:, :1] * (1 + 1e-5)).all()
    if scale < 1 / gamma:
        assert bound[-1] < 1
        assert (measured[:, -1] < measured[:, 0]).all()


def test_the_spectral_radius_of_every_gate(random_weights):
    for kind, gates in {"SimpleRNN": "h", "LSTM": "ifgo", "GRU": "zrg"}.items():
        for package in (layers, keras.layers):
            layer = built(getattr(package, kind)(5))
            random_weights(layer)
            for i, gate in enumerate(gates):
                u = layer.get_weights()[1][:, 5 * i : 5 * (i + 1)]
                expected = np.abs(np.linalg.eigvals(u)).max()
                assert spectral_radius(layer, gate) == pytest.approx(expected, rel=1e-4)


class Squared(keras.layers.Layer):
    """A cell of the user's: h_t = tanh(W x_t + U h_{t-1}²)."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = self.state_size = units

    def build(self, shape):
        self.kernel = self.add_weight((shape[-1], self.units))
        self.recurrent_kernel = self.add_weight((self.units, self.units))

    def call(self, x, h):
        h = keras.ops.tanh(x @ self.kernel + (h * h) @ self.recurrent_kernel)
        return h, h


class Squaring(keras.layers.SimpleRNNCell):
    """The same from Keras's cell, with its weights."""

    def call(self, x, h, training=False):
        return super().call(x, h * h, training)


@pytest.mark.parametrize("base", [Squared, Squaring])
def test_a_namesake_is_not_taken_for_keras_s_simple_rnn(base):
    """Its step is another: at h = 0 the Jacobian is 0."""
    cell = built(type("SimpleRNNCell", (base,), {})(3))
    assert not recurrent_jacobian(cell, X, np.zeros((3, 3))).any()
    with pytest.raises(ValueError, match=r"must be a SimpleRNN .* bound is that of its step"):
        gradient_bound(cell, 1)
    u = np.array(cell.recurrent_kernel)
    assert spectral_radius(cell) == pytest.approx(np.abs(np.linalg.eigvals(u)).max(), rel=1e-4)


def test_errors():
    simple, lstm = built(layers.SimpleRNN(3)), built(keras.layers.LSTM(3))
    with pytest.raises(ValueError, match="`gate` must be one of i, f, g, o"):
        spectral_radius(lstm)
    with pytest.raises(ValueError, match=r"recurrent kernel.*MinGRUCell"):
        spectral_radius(built(layers.MinGRU(3)))
    with pytest.raises(ValueError, match="must be a SimpleRNN"):
        gradient_bound(lstm, 1)
    with pytest.raises(ValueError, match="without zoneout"):
        gradient_bound(built(layers.SimpleRNN(3, zoneout=0.5)), 1)
    with pytest.raises(ValueError, match="activation=softplus"):
        gradient_bound(built(layers.SimpleRNN(3, "softplus")), 1)
    for lag in (-1, [1, -2], "a", None, np.nan, True):
        with pytest.raises(ValueError, match=r"`lag` must be.*lag=" + re.escape(repr(lag))):
            gradient_bound(simple, lag)
    with pytest.raises(ValueError, match="and built"):
        recurrent_jacobian(layers.SimpleRNN(3), X)
    with pytest.raises(ValueError, match="one cell"):
        recurrent_jacobian(built(layers.RNN([simple.cell, keras.layers.GRUCell(2)])), X)
    with pytest.raises(ValueError, match=r"one step.*\(3, 1, 4\)"):
        recurrent_jacobian(simple, X[:, None])
    with pytest.raises(ValueError, match="rank 3"):
        lyapunov_exponent(simple, X)
    for layer in (simple, lstm):
        with pytest.raises(ValueError, match=r"`x` must have the 4 features.*\(3, 2\)"):
            recurrent_jacobian(layer, X[:, :2])
        with pytest.raises(ValueError, match=r"`x` must have the 4 features.*\(3, 1, 2\)"):
            lyapunov_exponent(layer, X[:, None, :2])
    with pytest.raises(ValueError, match=r"`x` must have a time step or more.*\(3, 0, 4\)"):
        lyapunov_exponent(simple, X[:, None][:, :0])
    for warmup in (1, 0.5, -1, "1", True):
        with pytest.raises(ValueError, match=rf"from 0 to 0.*warmup={warmup!r}"):
            lyapunov_exponent(simple, X[:, None], warmup=warmup)
    zeros = np.zeros((3, 3), "float32")
    for states, received in {
        "count": ([zeros], r"\(3, 3\)"),
        "single": (zeros, r"\(3, 3\)"),
        "units": ([zeros, zeros[:, :2]], r"\(3, 3\), \(3, 2\)"),
        "batch": ([zeros, zeros[:2]], r"\(3, 3\), \(2, 3\)"),
        "none": ([], "none"),
    }.values():
        rule = rf"`states` must be those of the cell, \(3, 3\), \(3, 3\)\. .*shapes {received}$"
        with pytest.raises(ValueError, match=rule):
            recurrent_jacobian(lstm, X, states)
        with pytest.raises(ValueError, match=rule):
            lyapunov_exponent(lstm, X[:, None], states)
