"""What a report says of the one before it: on models that change as it advised, or otherwise."""

import dataclasses
import functools
import pickle
import re

import keras
import numpy as np
import pytest
from known_nets import UNITS, X, Y, compiled, found, only, simple, trained

from kerasrnn import layers, tasks
from kerasrnn.callbacks import GradientNormMonitor
from kerasrnn.diagnostics import health_report
from kerasrnn.diagnostics.health.progress import escalated, known_rates, since
from kerasrnn.diagnostics.health.settings import LayerSettings, Settings
from kerasrnn.diagnostics.health.verdict import Advice, Verdict
from kerasrnn.initializers import Chrono
from kerasrnn.updates.clip_in_force import ClipInForce

# They are to go wrong.
pytestmark = pytest.mark.filterwarnings("ignore:GradientNormMonitor:UserWarning")


def codes(report):
    return [verdict.code for verdict in report.verdicts]


T = 30
ADDING = tasks.adding_problem(320, T)


def on_adding(optimizer, *callbacks, previous=None, rnn=layers.SimpleRNN, **options):
    """The report on a net trained on the adding problem."""
    keras.utils.set_random_seed(0)
    net = [keras.Input((T, 2)), rnn(16, **options), keras.layers.Dense(1)]
    model = keras.Sequential(net)
    model.compile(optimizer, "mse")
    monitor = GradientNormMonitor()
    model.fit(*ADDING, 16, 3, verbose=0, callbacks=[monitor, *callbacks])
    x, y = (part[:32] for part in ADDING)
    return health_report(model, x, y, monitor, previous), monitor


SGD = keras.optimizers.SGD


@functools.cache
def diverged():
    return on_adding(SGD(1.0))


def rate_in(report):
    return float(re.search(r"learning rate from \S+ to (\S+):", report.verdicts[0].remedy)[1])


def test_a_rate_that_is_too_high_is_named_first_and_advice_leads_out_of_it():
    report, monitor = diverged()
    assert codes(report)[:2] == ["LEARNING_RATE", "NON_FINITE"]
    assert report.status == "sick"
    assert "climbed" in report.verdicts[1].meaning
    assert "inputs" not in " ".join(report.verdicts[1].steps)
    # No number comes out of it.
    with pytest.raises(ValueError, match="lower the learning rate first"):
        monitor.suggest_clipnorm()
    assert "clipnorm=" not in report.text
    rates = [1.0]
    while codes(report)[0] == "LEARNING_RATE":
        assert len(rates) <= 3
        rates.append(rate_in(report))
        report, _ = on_adding(SGD(rates[-1]), previous=report)
    assert rates == sorted(set(rates), reverse=True)
    assert np.isfinite(report.loss)
    assert "Gone: LEARNING RATE, NON-FINITE" in " ".join(report.since_previous)
    assert f"Changed: learning rate {rates[-2]:g} → {rates[-1]:g}." in report.since_previous


def test_what_did_not_help_is_not_said_again():
    first, _ = diverged()
    second, _ = on_adding(SGD(0.9), previous=first)
    assert codes(second)[0] == "LEARNING_RATE"
    assert "Clip the gradients" in second.verdicts[0].remedy
    third, _ = on_adding(SGD(0.9, global_clipnorm=1.0), previous=second)
    assert codes(third)[0] == "LEARNING_RATE"
    assert "Adam" in third.verdicts[0].remedy
    assert "lip the gradients" not in " ".join(third.verdicts[0].steps)
    # Back to what helps least, once all else is done.
    assert "Lower the learning rate" in third.verdicts[0].steps[-1]


def test_a_rate_too_low_is_raised_to_below_one_that_was_too_high():
    low, _ = on_adding(SGD(1e-7), previous=diverged()[0])
    assert codes(low)[0] == "LEARNING_RATE"
    assert low.verdicts[0].numbers["too"] == "low"
    assert low.rates == (0.0, 1.0)
    assert rate_in_raise(low) <= np.sqrt(1e-7)
    # What was too high for one optimizer, or for data of one scale, is not so for another.
    now = low.settings
    assert known_rates(low, now) == (1e-7, 1.0)
    assert known_rates(low, now._replace(scale_of_inputs=1.1 * now.scale_of_inputs))[1] == 1.0
    for change in (
        {"optimizer": "Adam"},
        {"scale_of_inputs": 10 * now.scale_of_inputs},
        {"scale_of_targets": 0.1 * now.scale_of_targets},
        {"scale_of_targets": None},
    ):
        assert known_rates(low, now._replace(**change)) == (0.0, np.inf)


def rate_in_raise(report):
    return float(re.search(r"Raise the learning rate from \S+ to (\S+):", report.text)[1])


@functools.cache
def vanishing():
    return health_report(compiled(simple(layers, 0.5)), X, Y)


def test_advice_that_was_followed_and_did_not_help():
    lstm = functools.partial(layers.LSTM, UNITS, name="lstm")

    def report(layer, previous):
        # Its gates forget at once, whatever it started from.
        model = compiled(layer)
        kernel, recurrent, bias = layer.get_weights()
        bias[UNITS : 2 * UNITS] = -9.0
        layer.set_weights([kernel, 0 * recurrent, bias])
        return health_report(model, X, Y, previous=previous)

    def vanishes(report):
        return next(v for v in report.verdicts if v.code == "VANISHING")

    first = vanishing()
    assert "kerasrnn.layers.LSTM" in only(first).remedy
    second = report(lstm(), first)
    assert "Changed: cells SimpleRNN → LSTM" in second.since_previous[0]
    assert "Chrono" in vanishes(second).remedy
    third = report(lstm(bias_initializer=Chrono(T_max=12)), second)
    assert "bias initializer none → Chrono(12)" in third.since_previous[0]
    assert "Chrono" not in " ".join(vanishes(third).steps)
    assert "LRU" in vanishes(third).remedy
    # It was not followed, and so it is said again.
    fourth = report(lstm(bias_initializer=Chrono(T_max=12)), third)
    assert fourth.since_previous[0] == "Nothing was changed that the report knows of."
    assert "LRU" in vanishes(fourth).remedy
    still = "Still there: SATURATED in lstm, VANISHING in lstm."
    assert fourth.since_previous[-1] == still


def test_a_step_that_no_setting_shows_is_taken_for_done():
    x = keras.Input((12, 3))
    unused, used = layers.GRU(2, name="unused")(x), layers.GRU(2, name="used")(x)
    model = keras.Model(x, keras.layers.Dense(1)(used) + 0 * keras.layers.Dense(1)(unused))
    model.compile("sgd", "mse")
    report, advised = None, []
    for _ in range(3):
        report = health_report(model, X, Y, previous=report)
        advised.append(report.verdicts[0].remedy)
    assert [step[:4] for step in advised] == ["Look", "Lead", "Lead"]


def test_the_loss_and_the_number_of_layers():
    model = compiled(layers.GRU(3, return_sequences=True), layers.GRU(3))
    model.compile("sgd", "mae")
    said = " ".join(health_report(model, X, Y, previous=vanishing()).since_previous)
    assert "The loss is another one, mae and not mse" in said
    assert "It has 2 recurrent layers and had 1" in said
    same = health_report(compiled(simple(layers, 0.5)), X, Y, previous=vanishing())
    assert "The loss at the batch went from" in same.since_previous[1]
    assert same.text.count("Since the previous report.") == 1
    assert "Since the previous report:" in same._repr_html_()
    assert "Since" not in vanishing()._repr_html_()


def test_a_previous_report_of_something_else():
    model = compiled(layers.GRU(3), shape=(12, 3))
    for previous in (health_report, "report", 3):
        with pytest.raises(TypeError, match="`previous` must be the HealthReport"):
            health_report(model, X, Y, previous=previous)
    other = compiled(layers.GRU(3), shape=(12, 5))
    with pytest.raises(ValueError, match=r"its `x` had the shape \(12, 3\).* x of \(12, 5\)"):
        health_report(other, np.ones((4, 12, 5)), Y[:4], previous=vanishing())
    at_each_step = compiled(layers.GRU(3, return_sequences=True))
    y = np.repeat(Y[:, None], 12, axis=1)
    with pytest.raises(ValueError, match=r"its `y` had the shape \(1,\)"):
        health_report(at_each_step, X, y, previous=vanishing())
    # Longer sequences are of the same task.
    longer = compiled(layers.GRU(3), shape=(None, 3))
    assert found(health_report(longer, np.repeat(X, 2, axis=1), Y, previous=vanishing()))


def dead_net(activation="relu"):
    """A net whose layer without a bias gives zeros, with the names that Keras makes up."""
    negative = keras.initializers.RandomUniform(-1, 0, seed=0)
    hidden = keras.layers.Dense(8, activation, use_bias=False, kernel_initializer=negative)
    rnn = layers.SimpleRNN(16, activation="sigmoid")
    model = keras.Sequential([keras.Input((12, 3)), rnn, hidden, keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True, jit_compile=False)
    return model


def test_a_dead_layer_is_known_again_under_another_name():
    report, advised = None, []
    for _ in range(3):
        model = dead_net()
        report = health_report(model, X, Y, trained(model), previous=report)
        assert codes(report) == ["DEAD"]
        advised.append(report.verdicts[0].remedy)
    assert "weights of both signs" in advised[0]
    assert "leaky_relu" in advised[1]
    # There is nothing else, and so the one longest ago.
    assert advised[2] == advised[0]
    assert "learning rate" not in report.text
    assert f"Still there: DEAD in {model.layers[1].name}" in " ".join(report.since_previous)
    assert "DEAD" not in codes(health_report(dead_net("leaky_relu"), X, Y, previous=report))


NONE = LayerSettings.of(layers.LSTM(2).cell)
CLIP = ClipInForce("norm", 1.0)
LONG = LayerSettings.of(layers.LSTM(2, bias_initializer=Chrono(12)).cell)


def of_layers(*each, **others):
    names = [f"rnn_{number}" for number in range(len(each))]
    places = {name: ("recurrent", number) for number, name in enumerate(names)}
    return Settings(layers=dict(zip(names, each, strict=True)), places=places, **others)


def reported(settings, *verdicts):
    """A report of these verdicts alone."""
    return dataclasses.replace(vanishing(), verdicts=[*verdicts], settings=settings, tried={})


def ill(code, layer, *steps, severity="attention"):
    return Verdict(code, layer, {}, "", severity=severity).advised(steps)


GATES = Advice("Start its gates.", "bias initializer")
LOOK, TAKE = Advice("Look."), Advice("Take LRU.", "cells")


@pytest.mark.parametrize(
    ("then", "now", "tried"),
    [
        ((NONE,), (LONG,), [True]),
        ((NONE,), (NONE,), [False]),
        # More layers are no other initializer.
        ((NONE,), (NONE, NONE), [False]),
        ((NONE, NONE), (NONE,), [False]),
        # It was taken in the first layer alone.
        ((NONE, NONE), (LONG, NONE), [True, False]),
        ((NONE, LONG), (LONG, NONE), [True, True]),
    ],
)
def test_advice_on_a_layer_was_taken_where_that_layer_has_changed(then, now, tried):
    then, now = of_layers(*then), of_layers(*now)
    both = [ill("VANISHING", f"rnn_{number}", GATES, TAKE) for number in range(len(tried))]
    found, names = escalated(both, now, reported(then, *both))
    assert [v.remedy == TAKE for v in found] == tried
    assert len(names) == sum(tried)


def test_a_step_that_no_setting_shows_was_taken_if_the_summary_named_it():
    now = of_layers(NONE)
    lesser = ill("SATURATED", "rnn_0", LOOK, TAKE)
    grave = ill("DEAD", "rnn_0", LOOK, TAKE, severity="sick")
    previous = reported(now, lesser, grave)
    assert previous.summary[-1] == f"Next step: {grave.remedy}"
    found, _ = escalated([lesser, grave], now, previous)
    assert [v.remedy for v in found] == [LOOK, TAKE]


def test_the_same_advice_in_other_numbers_and_names():
    now = of_layers(NONE)
    steps = [Advice(f"Start dense{n} from 1e-{n}.", key="start") for n in (1, 2)]
    previous = reported(now, ill("DEAD", "rnn_0", steps[0], TAKE))
    (verdict,), _ = escalated([ill("DEAD", "rnn_0", steps[1], TAKE)], now, previous)
    assert verdict.remedy == TAKE
    assert pickle.loads(pickle.dumps(steps[0])).key == "start"


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        (of_layers(NONE, guard=None), of_layers(NONE, guard=False), "Nothing was changed"),
        (of_layers(NONE, guard=False), of_layers(NONE, guard=True), "DivergenceGuard no → yes."),
        (of_layers(NONE, rate=None), of_layers(NONE, rate=0.1), "Nothing was changed"),
        (of_layers(NONE, NONE), of_layers(NONE), "The loss"),
        # Without a monitor nobody knows of a clip in `fit`.
        (of_layers(NONE, clip=CLIP, guard=False), of_layers(NONE), "Nothing was changed"),
        (of_layers(NONE, clip=CLIP, guard=False), of_layers(NONE, guard=False), " → none."),
        (of_layers(NONE, NONE), of_layers(LONG), "bias initializer none, none → Chrono(12)."),
        (of_layers(NONE, LONG), of_layers(LONG, NONE), "none, Chrono(12) → Chrono(12), none."),
    ],
)
def test_only_what_is_known_to_be_another_is_said_to_be_changed(then, now, said):
    first = since([], now, 1.0, reported(then, ill("HEALTHY", None)))[0]
    assert said in first
    changes = "Changed: bias", "Changed: Div", "Changed: clip"
    assert first.startswith((*changes, "Nothing", "The loss"))


def test_a_loss_that_saw_its_answer_is_not_compared():
    settings = of_layers(NONE)
    leaked = reported(settings, ill("LOOKS_AHEAD", "rnn_0"))
    assert any("saw what it predicts" in said for said in since([], settings, 9.0, leaked))
    before = dataclasses.replace(reported(settings), loss=0.8981)
    assert any("0.898: the same." in said for said in since([], settings, 0.8982, before))


def test_losses_of_targets_of_another_scale_are_not_compared():
    then, now = (of_layers(NONE, scale_of_targets=scale) for scale in (100.0, 1.0))
    before = reported(then, ill("HEALTHY", None))
    assert any("another scale" in said for said in since([], now, 1.0, before))
    assert not any("another scale" in said for said in since([], then, 1.0, before))
