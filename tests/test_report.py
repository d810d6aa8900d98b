"""Models whose illness is known get its verdict, and none of the others."""

import html.parser
import re

import keras
import numpy as np
import pytest

from kerasrnn import layers
from kerasrnn.callbacks import GradientClipping, GradientFlowMonitor, GradientNormMonitor
from kerasrnn.callbacks.gradient_record import GradientRecord
from kerasrnn.cells import CELLS
from kerasrnn.diagnostics import gradient_flow, health_report, lyapunov_exponent, page
from kerasrnn.diagnostics.flow import Measurement
from kerasrnn.diagnostics.gates import BINS, GateRecorder
from kerasrnn.initializers import Chrono

BATCH, TIME, FEATURES, UNITS = 16, 12, 3, 6
rng = np.random.default_rng(0)
X = rng.normal(size=(BATCH, TIME, FEATURES)).astype("float32")
# The sign of the first step: something to remember.
Y = (X[:, 0, :1] > 0).astype("float32")
PACKAGES = pytest.mark.parametrize("package", [layers, keras.layers], ids=["ours", "keras"])


def compiled(*parts, optimizer="sgd", shape=(TIME, FEATURES), eagerly=True, name=None):
    head = keras.layers.Dense(1, name="head")
    model = keras.Sequential([keras.Input(shape), *parts, head], name=name)
    # Few updates take less time than tracing one.
    model.compile(optimizer, "mse", run_eagerly=eagerly, jit_compile=False)
    return model


def simple(package, scale, activation="tanh", **options):
    orthogonal = keras.initializers.Orthogonal(scale, seed=0)
    return package.SimpleRNN(
        UNITS, activation, recurrent_initializer=orthogonal, name="rnn", **options
    )


def healthy_lstm(optimizer="adam", **options):
    lstm = layers.LSTM(UNITS, bias_initializer=Chrono(T_max=TIME, seed=0), name="rnn")
    return compiled(lstm, optimizer=optimizer, **options)


def trained(model, *callbacks, epochs=1):
    monitor = GradientNormMonitor()
    model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=[monitor, *callbacks])
    return monitor


def found(report):
    return [(verdict.code, verdict.layer) for verdict in report.verdicts]


def only(report):
    (verdict,) = report.verdicts
    return verdict


@PACKAGES
def test_a_vanishing_simple_rnn(package):
    model = compiled(simple(package, 0.5))
    report = health_report(model, X, Y)
    assert found(report) == [("VANISHING", "rnn")]
    measured = gradient_flow(model, X, Y)
    verdict = only(report)
    assert verdict.numbers["half_life"] == pytest.approx(measured.half_life["rnn"])
    assert verdict.numbers["half_life"] < TIME / 10
    assert verdict.numbers["slope"] == pytest.approx(measured.slope["rnn"])
    assert f"Chrono(T_max={TIME})" in verdict.remedy


@PACKAGES
def test_an_exploding_simple_rnn(package):
    model = compiled(simple(package, 1.5, "linear"))
    report = health_report(model, X, Y)
    assert found(report) == [("EXPLODING", "rnn")]
    # A rotation, made half as long again at every step.
    assert only(report).numbers["slope"] == pytest.approx(np.log(1.5), rel=1e-3)
    assert only(report).numbers["growth"] == pytest.approx(1.5 ** (TIME - 1), rel=0.05)
    assert '`kerasrnn.callbacks.GradientClipping("global_norm", 1.0)`' in only(report).remedy


def test_what_a_layer_already_has_is_not_advised():
    orthogonal = 'recurrent_initializer="orthogonal"'
    shrinks = "tanh", 20 * X[:, ::-1]
    for (activation, x), code, kernel, gain, advised in (
        (shrinks, "VANISHING", None, 1.0, False),
        (shrinks, "VANISHING", None, 0.5, True),
        (shrinks, "VANISHING", "glorot_uniform", None, True),
        (("linear", X), "EXPLODING", None, 1.5, True),
        (("linear", X), "EXPLODING", None, 1.0, False),
    ):
        layer = simple(layers, gain or 1.0, activation)
        if kernel:
            layer = layers.SimpleRNN(UNITS, recurrent_initializer=kernel, name="rnn")
        model = compiled(layer)
        if code == "EXPLODING":
            # As a training may have made it.
            w, _, b = layer.get_weights()
            layer.set_weights([w, 1.5 * np.eye(UNITS), b])
        verdict = next(v for v in health_report(model, x, Y).verdicts if v.code == code)
        assert (orthogonal in verdict.remedy) == advised
        assert "kerasrnn.layers.LSTM" in verdict.remedy or advised
        assert ("and not 1.5" in verdict.remedy) == (gain == 1.5)


def test_the_half_life_of_a_healthy_layer_in_words():
    falls = health_report(compiled(simple(layers, 0.9, "linear")), X, Y)
    assert (
        f"with a half-life of {np.log(0.5) / np.log(0.9):.3g} steps in rnn; over {TIME} steps it "
        f"should be {TIME / 10} or more." in only(falls).meaning
    )
    grows = health_report(compiled(simple(layers, 1.01, "linear")), X, Y)
    assert "all recurrent layers and do not shrink on the way." in only(grows).meaning


@pytest.mark.parametrize(("growth", "code"), [(8, "HEALTHY"), (12, "EXPLODING")])
def test_the_margin_of_an_explosion(growth, code):
    model = compiled(simple(layers, growth ** (1 / (TIME - 1)), "linear"))
    assert only(health_report(model, X, Y)).code == code


@pytest.mark.parametrize(("halvings", "code"), [(9, "HEALTHY"), (11, "VANISHING")])
def test_the_half_life_of_a_gradient_that_vanishes(halvings, code):
    model = compiled(simple(layers, 0.5 ** (halvings / TIME), "linear"))
    assert only(health_report(model, X, Y)).code == code


@pytest.fixture(scope="module")
def monitored():
    """The healthy LSTM and the monitor of its training."""
    keras.utils.set_random_seed(0)
    model = healthy_lstm(keras.optimizers.Adam(0.05), eagerly=False)
    monitor = trained(model, epochs=30)
    # It has learned what lies at the other end of the sequence.
    assert np.mean((model(X) > 0.5) == Y) > 0.9
    return model, monitor


def test_a_healthy_lstm(monitored):
    model, monitor = monitored
    assert found(health_report(model, X, Y)) == [("HEALTHY", None)]
    report = health_report(model, X, Y, monitor)
    assert found(report) == [("HEALTHY", None)]
    numbers = only(report).numbers
    assert numbers["median_norm"] == pytest.approx(np.median(monitor.history["global_norm"]))
    assert numbers["half_life"] == pytest.approx(gradient_flow(model, X, Y).half_life["rnn"])


@pytest.mark.parametrize(("clip", "code"), [(1e-3, "CLIP_TOO_TIGHT"), (1e3, "CLIP_IDLE")])
def test_clips(clip, code):
    model = healthy_lstm(keras.optimizers.Adam(global_clipnorm=clip))
    monitor = trained(model)
    report = health_report(model, X, Y, monitor)
    assert found(report) == [(code, None)]
    assert only(report).numbers == {"clip_rate": float(clip < 1), "global_clipnorm": clip}
    assert only(report) == monitor.verdicts()[0]


def test_the_clip_of_a_callback():
    model = compiled(keras.layers.Flatten())
    report = health_report(model, X, Y, trained(model, GradientClipping("global_norm", 1e-4)))
    assert found(report) == [("CLIP_TOO_TIGHT", None)]
    assert only(report).numbers == {"clip_rate": 1.0, "mode": "global_norm", "value": 1e-4}
    assert "GradientClipping" in report.norms.get_suptitle()


DEAD = {"bias_initializer": keras.initializers.Constant(-50)}


def test_a_dead_layer():
    # Its weights decay, but that is no gradient of the data.
    dead = keras.layers.Dense(4, "relu", name="dead", kernel_regularizer="l2", **DEAD)
    gru = layers.GRU(UNITS, name="gru")
    report = health_report(compiled(keras.layers.Dense(3, name="dense"), gru, dead), X, Y)
    assert found(report) == [("DEAD", "dead")]
    assert only(report).numbers == {"variables": 2, "layers_without_gradient": 3}
    assert "behind it get any: dense, gru" in only(report).meaning


@PACKAGES
def test_a_dead_recurrent_layer(package):
    """No gradient gets back a step; that is not called vanishing."""
    report = health_report(compiled(package.SimpleRNN(4, "relu", name="rnn", **DEAD)), X, Y)
    assert found(report) == [("DEAD", "rnn")]


def test_layers_that_no_gradient_comes_back_to():
    model = compiled(simple(layers, 1.0))
    model.get_layer("head").set_weights([np.zeros((UNITS, 1)), np.ones(1)])
    report = health_report(model, X, Y)
    assert found(report) == [("DEAD", "rnn")]
    assert "no gradient comes back" in only(report).meaning

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.unused = keras.layers.LSTM(2, name="unused")
            self.head = keras.layers.Dense(1, name="head")

        def call(self, x):
            self.unused(x)
            return self.head(x[:, 0])

    model = Model()
    model.compile("sgd", "mse")
    assert found(health_report(model, X, Y)) == [("DEAD", "unused")]


def test_models_without_recurrent_layers():
    model = compiled(keras.layers.Flatten(), keras.layers.Dense(4, "relu", name="hidden"))
    report = health_report(model, X, Y, trained(model))
    assert found(report) == [("HEALTHY", None)]
    assert (report.flow, report.layers) == (None, {})
    weights = [np.zeros((TIME * FEATURES, 4)), -np.ones(4)]
    model.get_layer("hidden").set_weights(weights)
    assert found(health_report(model, X, Y)) == [("DEAD", "hidden")]
    assert "<table" not in health_report(model, X, Y)._repr_html_()


@pytest.mark.parametrize("where", ["x", "y", "weights"])
def test_what_is_not_finite(where):
    model = healthy_lstm()
    x, y = X.copy(), Y.copy()
    if where == "weights":
        layer = model.get_layer("rnn")
        layer.set_weights([np.full_like(w, np.nan) for w in layer.get_weights()])
    else:
        {"x": x, "y": y}[where][[3, 5]] = np.nan
    report = health_report(model, x, y)
    assert found(report) == [("NON_FINITE", "rnn" if where == "weights" else None)]
    what, remedy = {
        "x": ("`x` holds an Inf or NaN, first in sample 3,", "Clean or mask"),
        "y": ("`y` holds an Inf or NaN, first in sample 3,", "Clean"),
        "weights": ("rnn/lstm_cell/kernel holds an Inf or NaN", "Go back to an earlier checkpoint"),
    }[where]
    assert what in only(report).meaning
    assert only(report).remedy.startswith(remedy)
    assert "`kerasrnn.callbacks.DivergenceGuard()`" in only(report).remedy
    clip = '`kerasrnn.callbacks.GradientClipping("global_norm", 1.0)`'
    assert (clip in only(report).remedy) == (where == "weights")


def test_weights_that_no_gradient_goes_to_are_of_a_layer_too():
    model = compiled(keras.layers.BatchNormalization(name="norm"), keras.layers.Flatten())
    norm = model.get_layer("norm")
    norm.moving_mean.assign(np.full(FEATURES, np.nan))
    for trainable in (True, False):
        norm.trainable = trainable
        verdict = only(health_report(model, X, Y))
        assert (verdict.code, verdict.layer) == ("NON_FINITE", "norm")
        assert "norm/moving_mean holds" in verdict.meaning


@PACKAGES
def test_states_that_overflow(package):
    """The upper layer only gets what the lower one has made huge."""
    x = np.repeat(X, 5, axis=1)
    lower = simple(package, 6.0, "relu", return_sequences=True)
    upper = package.SimpleRNN(4, "linear", recurrent_initializer="orthogonal", name="upper")
    model = compiled(lower, upper, shape=x.shape[1:])
    verdict = only(health_report(model, x, Y))
    assert (verdict.code, verdict.layer) == ("EXPLODING", "rnn")
    largest = np.max(lower(x))
    assert verdict.numbers["largest"] == pytest.approx(float(largest), rel=1e-3)
    assert largest > 1e20
    assert "GradientClipping" in verdict.remedy
    assert "logarithm" not in verdict.remedy


def test_gradients_that_overflow_where_states_do_not():
    """At rest a tanh multiplies gradients by W_h, and its states stay zero."""
    x = np.zeros((4, 60, FEATURES), "float32")
    options = {"kernel_initializer": "zeros", "return_sequences": True}
    lower = layers.SimpleRNN(5, name="lower", **options)
    model = compiled(lower, simple(layers, 6.0), shape=x.shape[1:])
    verdict = only(health_report(model, x, Y[:4] + 1))
    assert (verdict.code, verdict.layer) == ("EXPLODING", "rnn")
    assert np.isfinite(verdict.numbers["loss"])
    assert verdict.numbers["largest"] > 6.0**40


def test_data_too_large_to_be_squared_are_no_explosion():
    linear = compiled(simple(layers, 1.0, "linear"))
    for model, x, y in ((healthy_lstm(), X, 1e30 * Y), (linear, 1e25 * X, Y)):
        verdict = only(health_report(model, x, y))
        assert (verdict.code, verdict.layer) == ("NON_FINITE", None)
        assert "the loss is inf" in verdict.meaning
        assert "too large to be squared" in verdict.remedy


@pytest.mark.parametrize("steps", [False, True])
def test_a_logarithm_of_zero_is_no_explosion(steps):
    """Its gradient comes to some steps only where a layer is read at every one."""
    model = compiled(simple(layers, 1.0, return_sequences=steps))
    y = np.repeat(Y[:, None], TIME, 1) if steps else Y

    def loss(y, prediction):
        at = prediction[:, 5] if steps else prediction
        zero = at - keras.ops.stop_gradient(at)
        return keras.ops.mean(keras.ops.square(prediction - y)) + keras.ops.mean(
            keras.ops.sqrt(zero)
        )

    model.compile("sgd", loss, run_eagerly=True)
    verdict = only(health_report(model, X, y))
    assert (verdict.code, verdict.layer) == ("NON_FINITE", "rnn")
    assert "the gradient of" in verdict.meaning
    assert "logarithm, root or division of zero" in verdict.remedy


def test_the_update_and_the_variable_that_were_not_finite():
    model = compiled(keras.layers.Flatten())
    y = Y.copy()
    y[9] = np.inf
    monitor = GradientNormMonitor()
    model.fit(X, y, batch_size=4, shuffle=False, verbose=0, callbacks=[monitor])
    verdict = only(health_report(model, X, Y, monitor))
    assert (verdict.code, verdict.numbers["update"]) == ("NON_FINITE", 2)
    assert (verdict.layer, verdict.numbers["variable"]) == ("head", monitor.variables[0])


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def by_hand(layer, x, kind):
    """The gates of a layer, (batch, time, units) each, from its equations."""
    w, u, b = layer.get_weights()
    h = c = np.zeros((len(x), UNITS))
    kept = []
    for t in range(x.shape[1]):
        if kind == "LSTM":
            i, f, g, o = np.split(x[:, t] @ w + h @ u + b, 4, axis=1)
            gates = {"i": sigmoid(i), "f": sigmoid(f), "o": sigmoid(o)}
            c = gates["f"] * c + gates["i"] * np.tanh(g)
            h = gates["o"] * np.tanh(c)
        else:
            (z, r, g), (uz, ur, ug) = (
                np.split(v, 3, axis=1) for v in (x[:, t] @ w + b[0], h @ u + b[1])
            )
            gates = {"z": sigmoid(z + uz), "r": sigmoid(r + ur)}
            h = gates["z"] * h + (1 - gates["z"]) * np.tanh(g + gates["r"] * ug)
        kept.append(gates)
    return {gate: np.stack([gates[gate] for gates in kept], 1) for gate in kept[0]}


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize(("package", "backward"), [(layers, True), (keras.layers, False)])
def test_gates_against_their_equations(package, kind, backward, random_weights):
    layer = getattr(package, kind)(UNITS, name="rnn", go_backwards=backward)
    # Masked at the end of what is run.
    lengths = rng.integers(3, TIME, BATCH)
    valid = np.arange(TIME) < lengths[:, None]
    valid = valid[:, ::-1] if backward else valid
    x = np.where(valid[:, :, None], X, 0)
    model = compiled(keras.layers.Masking(), layer)
    random_weights(layer, 1.5)
    gates = health_report(model, x, Y).layers["rnn"].gates
    along = slice(None, None, -1 if backward else 1)
    expected = by_hand(layer, x[:, along], kind)
    assert list(gates) == list(expected)
    for name, values in expected.items():
        values = values[valid[:, along]]
        shares = np.mean(values < 0.05), np.mean(values > 0.95)
        assert min(shares) > 0
        assert gates[name][1:3] == pytest.approx(shares, abs=1e-3)
        counts = np.histogram(values, BINS, (0, 1))[0]
        np.testing.assert_allclose(gates[name].counts, counts, atol=5)
        assert gates[name].counts.sum() == valid.sum() * UNITS


@pytest.mark.parametrize("kind", CELLS)
def test_the_gates_of_every_cell_are_known_by_name(kind, random_weights):
    layer = layers.RNN(kind, units=FEATURES, name="rnn")
    model = compiled(layer, shape=(5, FEATURES))
    random_weights(layer, 0.3)
    recorder = GateRecorder()

    activation = getattr(layer.cell, "recurrent_activation", None)
    with recorder:
        Measurement(model, trace=False, watch=recorder.begin)(X[:2, :5], Y[:2])
    gates = recorder.gates("rnn")
    assert [name.rstrip("'") for name in gates] == list(layer.cell.gated)
    assert getattr(layer.cell, "recurrent_activation", None) is activation
    for name, gate in gates.items():
        assert gate.counts.sum() == 2 * 5 * FEATURES
        remembers = "high" * (name.rstrip("'") in layer.cell.keeps)
        assert gate.remembers == (remembers or "low" * (name in layer.cell.writes))


@PACKAGES
def test_saturated_gates(package):
    layer = package.GRU(UNITS, name="rnn")
    model = compiled(layer)
    # r lies at its limits by an input that is too large; z keeps, which is no illness.
    w, u, b = layer.get_weights()
    w[:, UNITS : 2 * UNITS] *= 100
    b[0, :UNITS] = 5
    layer.set_weights([w, u, b])
    report = health_report(model, X, Y)
    assert found(report) == [("SATURATED", "rnn")]
    gates = report.layers["rnn"].gates
    assert only(report).numbers == {"r": gates["r"].low + gates["r"].high}
    assert gates["z"].high > 0.9
    # Closed, it is.
    b[0, :UNITS] = -5
    layer.set_weights([w, u, b])
    assert health_report(model, X, Y).verdicts[-1].numbers.keys() == {"z", "r"}


def test_gates_that_are_none():
    """What is no number in [0, 1] is no gate, nor is what a function of the user's own hides."""
    model = compiled(layers.LSTM(UNITS, recurrent_activation="tanh", name="rnn"))
    assert health_report(model, X, Y).layers["rnn"].gates == {}


def test_the_report_says_where_eigenvalues_mislead():
    """W_h is 1.5 times a rotation, and saturation makes the gradients fall nevertheless."""
    layer = simple(keras.layers, 1.5)
    x = rng.normal(size=(4, 40, 8)).astype("float32")
    report = health_report(compiled(layer, shape=(40, 8)), x, Y[:4])
    health = report.layers["rnn"]
    assert health.log_radius == pytest.approx(np.log(1.5), abs=1e-5)
    assert health.lyapunov == pytest.approx(lyapunov_exponent(layer, x))
    assert health.lyapunov < 0 < health.log_radius
    assert "EXPLODING" not in {code for code, _ in found(report)}
    (note,) = report.notes
    numbers = [float(n) for n in re.findall(r"[+-]\d\.\d{3}", note)]
    expected = [health.log_radius, health.lyapunov, health.slope]
    assert numbers == pytest.approx(expected, abs=1e-3)
    assert note in " ".join(report.text.split())
    # Where they agree there is nothing to say.
    assert health_report(compiled(simple(layers, 1.5, "linear")), X, Y).notes == []


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def stack():
    """Two layers that read each other, of which the lower one runs both ways."""
    keras.utils.set_random_seed(0)
    lower = layers.Bidirectional(simple(layers, 0.4, return_sequences=True), name="lower")
    model = compiled(lower, keras.layers.LSTM(4, name="b>a"), optimizer="adam")
    return health_report(model, X, Y, trained(model))


def test_the_page_stands_alone(stack, tmp_path):
    path = tmp_path / "page.html"
    path.write_text("of an earlier report")
    stack.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    seen = Page(path.read_text(encoding="utf-8"))
    assert not {tag for tag, _ in seen.tags} & {"script", "link", "iframe"}
    images = [attributes for tag, attributes in seen.tags if tag == "img"]
    # The updates; two plots and the eigenvalues of each layer, and the gates of one.
    assert len(images) == 1 + 3 * 3 + 1
    for attributes in images:
        assert attributes["src"].startswith("data:image/svg+xml;base64,")
        assert attributes["alt"]
    assert all("://" not in str(attributes) for _, attributes in seen.tags)
    assert "url(" not in path.read_text(encoding="utf-8")
    # A name is text, never markup.
    assert "b>a" in seen.words
    text = " ".join(" ".join(seen.words).split())
    for verdict in stack.verdicts:
        for sentence in (verdict.meaning, verdict.remedy):
            assert sentence[1:] in text


@pytest.fixture(scope="module")
def plain():
    """The report of a model without recurrent layers."""
    return health_report(compiled(keras.layers.Flatten()), X, Y)


def test_nothing_of_the_norms_is_cut_off():
    paths = ["net/both/backward_lstm/lstm_cell/kernel", "net/head/kernel"]
    rows = rng.lognormal(size=(2500, 4))
    record = GradientRecord(rows, paths, ("global_norm", 0.0001))
    figure = page.narrowed(record.plot())
    figure.draw_without_rendering()
    shown, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(shown.x0, shown.y0) >= 0
    assert (shown.x1 <= width, shown.y1 <= height) == (True, True)
    # More of it is plot than words.
    assert all(axis.get_position().width > 0.5 for axis in figure.axes)


def test_a_notebook_shows_the_page(plain, tmp_path):
    plain.save(tmp_path / "page.html")
    assert plain._repr_html_() in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_nothing_half_written_stays(plain, tmp_path, monkeypatch):
    def stop(*paths):
        raise OSError("no space left")

    page, beside = tmp_path / "page.html", tmp_path / "page.html.unfinished"
    beside.write_text("of the user's own")
    plain.save(page)
    whole = page.read_text(encoding="utf-8")
    monkeypatch.setattr("os.replace", stop)
    with pytest.raises(OSError, match="no space left"):
        plain.save(page)
    assert set(tmp_path.iterdir()) == {page, beside}
    assert beside.read_text() == "of the user's own"
    assert page.read_text(encoding="utf-8") == whole


def test_where_no_page_can_be_saved(plain, tmp_path, monkeypatch):
    # Before it is drawn.
    monkeypatch.delattr(page, "document")
    for path in (None, 3):
        with pytest.raises(TypeError, match=f"`path` must be .* path={path}$"):
            plain.save(path)
    with pytest.raises(IsADirectoryError, match="`path` must name a file"):
        plain.save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"`path` must .*missing"):
        plain.save(tmp_path / "missing" / "page.html")
    assert not list(tmp_path.iterdir())


def test_the_text(stack):
    assert str(stack) == stack.text
    assert max(map(len, stack.text.split("\n\n")[1].splitlines())) <= 96
    for path, layer in stack.layers.items():
        (line,) = [line for line in stack.text.splitlines() if line.startswith(path)]
        assert f"{layer.slope:+.3f}" in line
        assert f"{layer.half_life:.3g}" in line


def test_the_plots_show_what_was_measured(stack):
    for path, layer in stack.layers.items():
        _, axis = page._over_time(stack.flow, path, layer)
        assert axis.get_yscale() == "log"
        np.testing.assert_array_equal(axis.lines[0].get_ydata(), stack.flow.norms[path])
        _, axis = page._over_lags(stack.flow, path, layer)
        np.testing.assert_array_equal(axis.lines[0].get_ydata(), stack.flow.profile[path])
        (line,) = [line for line in axis.lines if line.get_label().startswith("slope")]
        steps = np.diff(np.log(line.get_ydata()))
        np.testing.assert_allclose(steps, layer.slope)
        if layer.kind == "SimpleRNN":
            (bound,) = [line for line in axis.lines if line.get_label().startswith("bound")]
            assert (bound.get_ydata() >= stack.flow.profile[path] * (1 - 1e-5)).all()
        for shown in (axis, page._eigenvalues(layer)[1]):
            assert shown.get_xlabel()
            assert shown.get_ylabel()
    _, axis = page._gates(stack.layers["b>a"])
    np.testing.assert_allclose([patch.get_data().values.sum() for patch in axis.patches[:3]], 100)


@pytest.mark.parametrize("backward", [False, True])
def test_the_bound_over_time(backward):
    layer = simple(layers, 0.9, go_backwards=backward)
    report = health_report(compiled(layer), X, Y)
    norms, bound = report.flow.norms["rnn"], report.layers["rnn"].bound_over_time
    assert (norms <= bound * (1 + 1e-5)).all()
    last = 0 if backward else -1
    assert norms[last] == pytest.approx(bound[last])


def test_a_bound_beyond_all_numbers():
    """What saturates passes on no gradient, however large its weights."""
    layer = simple(layers, 3e30)
    report = health_report(compiled(layer), X, 1e8 * Y)
    layer, norms = report.layers["rnn"], report.flow.norms["rnn"]
    assert found(report) == [("DEAD", "rnn")]
    assert layer.bound[[0, 1, -1]] == pytest.approx([1, 3e30, np.inf])
    # The last but one is beyond them times the norm only.
    assert np.isfinite(layer.bound[-2])
    assert layer.bound_over_time[[0, 1, -1]] == pytest.approx([np.inf, np.inf, norms[-1]])
    _, axis = page._over_time(report.flow, "rnn", layer)
    assert axis.get_yscale() == "log"
    assert axis.get_ylim() == pytest.approx((norms[-1] / 2, norms[-1] * 2))
    # Drawn without a warning.
    assert report._repr_html_().count("<img") == 3


def test_where_there_is_no_bound_over_time():
    # Where every step is read, or masked ones are repeated, it would be none.
    read = compiled(simple(layers, 0.9, return_sequences=True))
    report = health_report(read, X, np.repeat(Y[:, None], TIME, 1))
    assert report.layers["rnn"].bound_over_time is None
    masked = compiled(keras.layers.Masking(), simple(layers, 0.9))
    report = health_report(masked, np.where(np.arange(TIME)[:, None] < 9, X, 0), Y)
    assert report.layers["rnn"].bound_over_time is None
    assert (report.layers["rnn"].steps, report.layers["rnn"].lyapunov) == (9, None)


def test_the_model_is_left_as_it_was():
    layer = keras.layers.GRU(4, stateful=True, name="rnn")
    model = keras.Sequential([keras.Input((TIME, FEATURES), BATCH), layer, keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"], run_eagerly=True)
    model.train_on_batch(X, Y)
    watched = [*model.variables, *layer.states, *model.metrics_variables]
    before = [np.array(v) for v in watched]
    health_report(model, X, Y)
    for variable, value in zip(watched, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert layer.cell.recurrent_activation is keras.activations.sigmoid
    for part in (*model.layers, layer.cell):
        assert not {"call", "inner_loop"} & set(vars(part))


def test_what_cannot_be_reported(monitored):
    model, _ = monitored
    with pytest.raises(ValueError, match="compiled Keras model"):
        health_report(keras.Sequential([layers.GRU(3)]), X, Y)
    with pytest.raises(TypeError, match=r"GradientNormMonitor.*GradientFlowMonitor"):
        health_report(model, X, Y, GradientFlowMonitor(X, Y))
    with pytest.raises(ValueError, match="pass it to fit"):
        health_report(model, X, Y, GradientNormMonitor())
    other = compiled(keras.layers.Flatten())
    with pytest.raises(ValueError, match="must have watched this model"):
        health_report(model, X, Y, trained(other))
    # All steps are masked: nothing is known of any gradient.
    masked = compiled(keras.layers.Masking(), layers.GRU(3, name="rnn"))
    with pytest.raises(ValueError, match=r"`x` must hold a step that is not masked.* in rnn"):
        health_report(masked, np.zeros_like(X), Y)


def test_a_monitor_of_another_model():
    """One layer of the same name does not make it the same; a frozen one leaves it that."""

    def net(*names):
        dense = (keras.layers.Dense(2, name=name) for name in names)
        return compiled(keras.layers.Flatten(), *dense, name="net")

    smaller, larger = net("first"), net("first", "second")
    with pytest.raises(ValueError, match="record of net/second/kernel, net/second/bias, which"):
        health_report(smaller, X, Y, trained(larger))
    larger.get_layer("first").trainable = False
    assert found(health_report(larger, X, Y, trained(larger))) == [("HEALTHY", None)]
