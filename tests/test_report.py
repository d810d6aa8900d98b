"""Models whose illness is known get its verdict, and none of the others."""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from known_nets import (
    BATCH,
    FEATURES,
    PACKAGES,
    TIME,
    UNITS,
    X,
    Y,
    compiled,
    found,
    healthy_lstm,
    only,
    plain,
    simple,
    stack,
    trained,
)

from kerasrnn import layers
from kerasrnn.callbacks import GradientClipping, GradientFlowMonitor, GradientNormMonitor
from kerasrnn.diagnostics import gradient_flow, health_report
from kerasrnn.diagnostics.health import page
from kerasrnn.diagnostics.health.verdict import Advice, Verdict, grouped


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
    assert '`kerasrnn.callbacks.GradientClipping("global_norm", 1.0)`' in " ".join(
        only(report).steps
    )


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
        steps = " ".join(verdict.steps)
        assert (orthogonal in steps) == advised
        assert "kerasrnn.layers.LSTM" in steps
        assert ("and not 1.5" in steps) == (gain == 1.5)


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
    # A clip that is idle does no harm.
    of_clip, *others = report.verdicts
    assert (of_clip.code, of_clip.layer) == (code, None)
    assert [verdict.code for verdict in others] == ["HEALTHY"] * (clip > 1)
    assert of_clip.numbers == {"clip_rate": float(clip < 1), "global_clipnorm": clip}
    assert of_clip == monitor.verdicts()[0]


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
    assert "the weights of head are zero" in only(report).meaning
    assert "other than zero" in only(report).remedy

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


def test_why_a_layer_is_dead():
    """Zeros, saturation and weights that have blown up are told apart."""
    tanh = keras.layers.Dense(4, "tanh", name="tanh", bias_initializer=keras.initializers.Constant)
    model = compiled(layers.GRU(UNITS, name="rnn"), tanh)
    for bias, kernel, why, remedy in (
        (40.0, 0.1, "all outputs of tanh lie where it is flat", "Start tanh anew from smaller"),
        (0.0, 4e4, "blown up, those of tanh to 4e+04", "Lower the learning rate"),
    ):
        tanh.set_weights([np.full((UNITS, 4), kernel), np.full(4, bias)])
        # Its input must be no zero.
        model.get_layer("rnn").set_weights([np.ones(w.shape) for w in model.layers[0].weights])
        dead = health_report(model, X, Y).verdicts[0]
        assert (dead.code, dead.layer) == ("DEAD", "rnn")
        assert why in dead.meaning
        assert dead.remedy.startswith(remedy)
        assert "zero" not in dead.meaning


def test_the_status_and_what_stands_on_top():
    model = healthy_lstm("sgd")
    report = health_report(model, X, Y)
    assert report.status == only(report).severity == "healthy"
    mean = np.mean((Y - Y.mean()) ** 2)
    assert report.trivial.loss == pytest.approx(mean, rel=1e-5)
    assert report.loss == pytest.approx(float(model.evaluate(X, Y, verbose=0)), rel=1e-5)
    top = report.text.split("\n\n")[1]
    assert top.startswith("Status: healthy. The loss is ")
    assert f"always predicting the mean of `y` has {mean:.3g}" in top
    assert "Next step" not in top
    sick = health_report(compiled(simple(layers, 1.5, "linear")), X, Y)
    assert sick.status == "sick"
    assert sick.summary[-1] == f"Next step: {only(sick).remedy}"
    vanishing = health_report(compiled(simple(layers, 0.5)), X, Y)
    assert vanishing.status == "attention"
    # A harmless note is none.
    idle = healthy_lstm(keras.optimizers.SGD(global_clipnorm=1e3))
    report = health_report(idle, X, Y, trained(idle))
    codes = [verdict.code for verdict in report.verdicts]
    assert (codes, report.status) == (["CLIP_IDLE", "HEALTHY"], "healthy")
    assert "In training it went from" in report.text
    assert report.trend[2] == 2


def test_penalties_are_not_what_a_net_has_learned():
    """They are in its loss, and not in that of a constant."""
    plain, model = (
        compiled(layers.LSTM(UNITS, kernel_regularizer=r, name="rnn"), optimizer="adam")
        for r in (None, keras.regularizers.L2(1.0))
    )
    model.set_weights(plain.get_weights())
    report, expected = health_report(model, X, Y), health_report(plain, X, Y)
    assert report.penalties == pytest.approx(np.sum(model.get_weights()[0] ** 2), rel=1e-4)
    assert report.loss - report.penalties == pytest.approx(expected.loss, rel=1e-4)
    assert report.trivial.loss == pytest.approx(expected.trivial.loss, rel=1e-4)
    assert f"of which {report.penalties:.3g} are penalties" in report.summary[1]
    assert "penalties" not in expected.summary[1]
    for one in report, expected:
        worse = one.loss - one.penalties >= one.trivial.loss
        assert ("nothing is learned yet" in one.summary[1]) == worse


def test_layers_with_the_same_verdict_are_shown_once():
    net = [simple(layers, 0.3, return_sequences=n < 2) for n in range(3)]
    for n, layer in enumerate(net):
        layer.name = f"rnn_{n}"
    report = health_report(compiled(*net), X, Y)
    assert found(report) == [("VANISHING", f"rnn_{n}") for n in range(3)]
    assert report.text.count("VANISHING: ") == 1
    html = report._repr_html_()
    assert html.count("<strong>VANISHING:") == 1
    for text in (" ".join(report.text.split()), html):
        assert "The same in rnn_1 (slope" in text
        assert f"half_life {report.layers['rnn_2'].half_life:.3g}" in text
    first, second = (
        Verdict.of("SATURATED", f"rnn_{n}", {}, "so", [Advice("Lower it", key=f"step {n}")])
        for n in range(2)
    )
    assert grouped([first, second]) == [(first, ()), (second, ())]
    whole = Verdict.of("VANISHING", None, {}, "so")
    assert grouped([whole, whole]) == [(whole, ()), (whole, ())]


def test_a_loss_that_was_lost_on_the_way():
    model = healthy_lstm()
    monitor = trained(model)
    report = health_report(model, X, Y, monitor)
    assert report.trend[3] == 0
    assert "NaN" not in report.text
    said = dataclasses.replace(report, trend=(1.0, 0.5, 10, 7)).summary
    assert any("to 0.5 in 10 updates, and was NaN from then on, for 7." in one for one in said)


def noted(report, words):
    return [note for note in report.notes if words in note]


def test_what_stands_on_weak_feet_is_noted():
    model = healthy_lstm("sgd", name="net")
    assert noted(health_report(model, X, Y), "has made no update")
    monitor = trained(model, epochs=2)
    report = health_report(model, X, Y, monitor)
    assert not report.notes
    same = health_report(model, X, np.ones_like(Y), monitor)
    assert noted(same, "`y` is the same for all of `x`")
    assert same.trivial is None
    one = health_report(model, X[:1], Y[:1], monitor)
    assert noted(one, "`x` holds one sample")
    assert one.trivial is None
    dead = compiled(layers.SimpleRNN(4, "relu", name="rnn", **DEAD))
    dead = only(health_report(dead, X[:1], Y[:1]))
    assert "for the only sample of `x`" in dead.meaning
    assert dead.remedy.startswith("Report on more samples")
    # A net of the same names and shapes, and the same one restored.
    twin = healthy_lstm("sgd", name="net")
    assert noted(health_report(twin, X, Y, monitor), "not those that the training of `monitor`")
    model.set_weights([0.5 * w for w in model.get_weights()])
    assert noted(health_report(model, X, Y, monitor), "not those that the training of `monitor`")


def test_models_without_recurrent_layers():
    model = compiled(keras.layers.Flatten(), keras.layers.Dense(4, "relu", name="hidden"))
    report = health_report(model, X, Y, trained(model))
    assert found(report) == [("HEALTHY", None)]
    assert (report.flow, report.layers) == (None, {})
    weights = [np.zeros((TIME * FEATURES, 4)), -np.ones(4)]
    model.get_layer("hidden").set_weights(weights)
    assert found(health_report(model, X, Y)) == [("DEAD", "hidden")]
    assert "<table" not in health_report(model, X, Y)._repr_html_()


def test_the_update_and_the_variable_that_were_not_finite():
    model = compiled(keras.layers.Flatten())
    y = Y.copy()
    y[9] = np.inf
    monitor = GradientNormMonitor()
    model.fit(X, y, batch_size=4, shuffle=False, verbose=0, callbacks=[monitor])
    verdict = only(health_report(model, X, Y, monitor))
    assert (verdict.code, verdict.numbers["update"]) == ("NON_FINITE", 2)
    assert (verdict.layer, verdict.numbers["variable"]) == ("head", monitor.variables[0])
    assert "the norms before it were as ever" in verdict.meaning
    assert "inputs and labels" in verdict.remedy
    # The batch that holds it says more.
    assert (
        "`y` holds an Inf or NaN, first in sample 9"
        in only(health_report(model, X, y, monitor)).meaning
    )


@PACKAGES
def test_saturated_gates(package):
    layer = package.GRU(UNITS, name="rnn")
    model = compiled(layer)
    # r lies at its limits by an input that is too large; z keeps, which is no illness.
    w, u, b = layer.get_weights()
    w[:, UNITS : 2 * UNITS] *= 100
    b[0, :UNITS] = 9
    layer.set_weights([w, u, b])
    report = health_report(model, X, Y)
    assert found(report) == [("SATURATED", "rnn")]
    gates = report.layers["rnn"].gates
    assert only(report).numbers == {"r": gates["r"].low + gates["r"].high}
    assert gates["z"].high > 0.9
    # Closed, it is.
    b[0, :UNITS] = -9
    layer.set_weights([w, u, b])
    assert health_report(model, X, Y).verdicts[0].numbers.keys() == {"z", "r"}


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    def stop(*paths):
        raise OSError("no space left")

    page, beside = tmp_path / "page.html", tmp_path / "page.html.unfinished"
    beside.write_text("of the user's own")
    plain().save(page)
    whole = page.read_text(encoding="utf-8")
    monkeypatch.setattr("os.replace", stop)
    with pytest.raises(OSError, match="no space left"):
        plain().save(page)
    assert set(tmp_path.iterdir()) == {page, beside}
    assert beside.read_text() == "of the user's own"
    assert page.read_text(encoding="utf-8") == whole


def test_where_no_page_can_be_saved(tmp_path, monkeypatch):
    # Before it is drawn.
    monkeypatch.delattr(page, "document")
    for path in (None, 3):
        with pytest.raises(TypeError, match=f"`path` must be .* path={path}$"):
            plain().save(path)
    with pytest.raises(IsADirectoryError, match="`path` must name a file"):
        plain().save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"`path` must .*missing"):
        plain().save(tmp_path / "missing" / "page.html")
    with pytest.raises(ValueError, match="`path` must have two slashes in an address"):
        plain().save(pathlib.Path("gs://bucket/page.html"))
    assert not list(tmp_path.iterdir())


def test_a_page_at_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain().save("page.html")
    for _ in range(2):
        plain().save(f"ram:/{tmp_path}/new/page.html")
    with tf.io.gfile.GFile(f"ram:/{tmp_path}/new/page.html", "rb") as file:
        assert file.read() == (tmp_path / "page.html").read_bytes()
    with pytest.raises(IsADirectoryError, match=r"`path` must name a file.*ram://.*new'"):
        plain().save(f"ram:/{tmp_path}/new")
    assert [part.name for part in tmp_path.iterdir()] == ["page.html"]


def test_the_text():
    assert str(stack()) == stack().text
    assert max(map(len, stack().text.split("\n\n")[1].splitlines())) <= 96
    for path, layer in stack().layers.items():
        (line,) = [line for line in stack().text.splitlines() if line.startswith(path)]
        assert f"{layer.slope:+.3f}" in line
        assert f"{layer.half_life:.3g}" in line


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
