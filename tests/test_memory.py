"""Whether what lies further back matters: nets that are known to read it, or not, and the exchange
against NumPy."""

import collections
import functools

import keras
import numpy as np
import pytest
from keras_masks import keras_hands_on
from known_nets import PACKAGES

from kerasrnn import layers
from kerasrnn.diagnostics import health_report
from kerasrnn.diagnostics.health.measured import measure
from kerasrnn.diagnostics.health.memory import partners
from kerasrnn.diagnostics.looking import as_batch
from kerasrnn.initializers import Chrono

BATCH, TIME, FEATURES = 64, 40, 2
rng = np.random.default_rng(0)
X = rng.normal(size=(BATCH, TIME, FEATURES)).astype("float32")
X[:, :, 0] = rng.choice([-1, 1], (BATCH, TIME))
# The flag of the third last step, and that of the first.
NEAR, FAR = X[:, -3, :1], X[:, 0, :1]


def net(*parts, loss="mse", outputs=1):
    parts = [*map(keras_hands_on, parts), keras.layers.Dense(outputs)]
    model = keras.Sequential([keras.Input((None, FEATURES)), *parts])
    model.compile(keras.optimizers.Adam(0.01, global_clipnorm=1.0), loss, jit_compile=False)
    return model


def simple(package=layers, radius=0.6, **options):
    start = keras.initializers.Orthogonal(radius, seed=0)
    return package.SimpleRNN(8, recurrent_initializer=start, name="rnn", **options)


def trained(model, x, y, epochs):
    keras.utils.set_random_seed(0)
    model.fit(x, y, batch_size=len(x), epochs=epochs, verbose=0)
    return model


def exchange(model, x, y, back, path="rnn"):
    return measure(model, *as_batch(model, x=x, y=y)).exchanges(path, back)


def codes(report):
    return [verdict.code for verdict in report.verdicts]


def on_memory(report):
    return [note for note in report.notes if "does well without" in note]


@functools.cache
def near():
    """One that needs no memory beyond three steps, and has none."""
    return trained(net(simple()), X, NEAR, 150)


@PACKAGES
def test_a_net_that_needs_no_more_has_a_note(package):
    model = net(simple(package))
    model.set_weights(near().get_weights())
    report = health_report(model, X, NEAR)
    assert report.loss < 0.1 * report.trivial.loss
    layer = report.layers["rnn"]
    assert layer.half_life < TIME / 10
    assert codes(report) == ["HEALTHY"]
    assert report.status == "healthy"
    (note,) = on_memory(report)
    assert f"vanishes after {int(np.ceil(10 * layer.half_life))} steps" in note


def test_a_net_that_has_learned_nothing_keeps_its_verdict():
    for y in (NEAR, FAR):
        keras.utils.set_random_seed(1)
        report = health_report(net(simple()), X, y)
        assert codes(report) == ["VANISHING"]
        assert report.status == "attention"
        assert not on_memory(report)
        (verdict,) = report.verdicts
        assert verdict.numbers["vanishes"] == np.ceil(10 * report.layers["rnn"].half_life)
        # What it makes of what lies there, a net does not show that is no better than a constant.
        assert "matters" not in verdict.numbers


def test_a_net_that_has_learned_what_lies_far_back_needs_it():
    lstm = layers.LSTM(16, bias_initializer=Chrono(T_max=TIME, seed=0), name="rnn")
    model = trained(net(lstm), X, FAR, 150)
    loss = model.evaluate(X, FAR, verbose=0)
    assert loss < 0.1
    # A flag of another sample is the wrong one in half of the samples, and then off by 2.
    for back in (5, TIME - 2):
        told = exchange(model, X, FAR, back)
        assert told.loss == pytest.approx(loss, rel=1e-3)
        assert told.matters
        assert not told.stays
        assert told.rise > 10 * loss
    # Beyond the first step lies nothing.
    assert exchange(model, X, FAR, TIME - 1) is None


def latch(gain):
    """h_t = tanh(5 h_{t-1} + 10 x_t[1]): keeps the sign of the first step, at which alone it gets
    something; where tanh is flat no gradient gets through."""
    x = X.copy()
    x[:, 0, 1] = X[:, 0, 0]
    x[:, 1:, 1] = 0
    model = net(layers.SimpleRNN(1, name="rnn"))
    weights = [[[0], [10]], [[5]], [0], [[gain]], [0]]
    model.set_weights([np.array(w, "float32") for w in weights])
    return model, x


def test_a_gradient_that_vanishes_where_the_net_remembers():
    model, x = latch(0.7)
    report = health_report(model, x, FAR)
    assert report.loss == pytest.approx(0.09, rel=0.1)
    (verdict,) = report.verdicts
    assert verdict.code == "VANISHING"
    # Half of the samples are exchanged with one of the other sign, more or less.
    assert verdict.numbers["matters"] == pytest.approx(1.4, abs=0.5)
    # One that makes hardly an error is not ill.
    well = health_report(latch(1.0)[0], x, FAR)
    assert well.loss < 1e-3
    assert codes(well) == ["HEALTHY"]
    (note,) = [note for note in well.notes if "the gradient vanishes after" in note]
    assert "does well all the same, and with what lies further back" in note
    assert "it matters" in verdict.meaning
    assert "See whether the task needs" not in " ".join(verdict.steps)


@PACKAGES
@pytest.mark.parametrize("pre", [False, True])
@pytest.mark.parametrize("backward", [False, True])
def test_the_exchange_of_a_masked_batch(package, pre, backward):
    """Against a batch that is exchanged before the model sees it, at each sample's own end."""
    lengths = rng.integers(1, TIME, BATCH)
    lengths[:20] = 25
    steps = np.arange(TIME)
    valid = (steps >= TIME - lengths[:, None]) if pre else (steps < lengths[:, None])
    x = np.where(valid[:, :, None], X, 0)
    model = net(keras.layers.Masking(), simple(package, 1.0, go_backwards=backward))
    told = exchange(model, x, FAR, 5)
    ordered = valid[:, ::-1] if backward else valid
    sample, step = np.moveaxis(partners(ordered, 5), -1, 0)
    if backward:
        sample, step = sample[:, ::-1], TIME - 1 - step[:, ::-1]
    other = x[sample, step]
    assert (other.any(axis=-1) == valid).all()
    assert told.loss == pytest.approx(model.evaluate(x, FAR, verbose=0), rel=1e-4)
    assert told.exchanged == pytest.approx(model.evaluate(other, FAR, verbose=0), rel=1e-4)
    assert abs(told.rise) > 1e-3


@pytest.mark.parametrize("back", [0, 3])
def test_the_partners(back):
    valid = rng.random((12, 9)) < 0.7
    valid[0], valid[1] = True, False
    valid[2:6] = valid[6]
    pairs = partners(valid, back)
    lags = [dict(enumerate(np.flatnonzero(row)[::-1])) for row in valid]
    lag_of = [{step: lag for lag, step in of_sample.items()} for of_sample in lags]
    at_lag = collections.defaultdict(list)
    for i, t in np.ndindex(*valid.shape):
        j, s = pairs[i, t]
        lag = lag_of[i].get(t)
        if lag is None or lag <= back:
            assert (j, s) == (i, t)
        else:
            assert lag_of[j][s] == lag
            at_lag[lag].append((i, j))
    assert at_lag
    for lag, some in at_lag.items():
        those, theirs = zip(*some, strict=True)
        # A permutation of those that are as long, without a fixed point where there is another.
        assert sorted(theirs) == sorted(those) == [i for i in range(12) if lag in lags[i]]
        assert len(those) == 1 or all(i != j for i, j in some)
    # Samples of one length keep to one partner.
    everything = {pair for some in at_lag.values() for pair in some}
    assert all(len([j for i, j in everything if i == k]) == 1 for k in range(2, 7))


def test_where_an_exchange_says_nothing():
    model = net(simple())
    # Samples that do not differ there, and too few of them.
    assert exchange(model, np.repeat(X[:1], BATCH, 0), NEAR, 5) is None
    assert exchange(model, X[:7], NEAR[:7], 5) is None
    assert exchange(model, X[:8], NEAR[:8], 5) is not None
    # Outputs of all steps are read with no step between, where they are pooled; with none of them
    # read it does say.
    pooled = net(simple(radius=1.0, return_sequences=True), keras.layers.GlobalAveragePooling1D())
    assert exchange(pooled, X, NEAR, 5) is None
    below = net(simple(return_sequences=True), layers.SimpleRNN(4, name="above"))
    assert exchange(below, X, NEAR, 35).stays
    assert exchange(below, X, NEAR, 35, "above").stays


def test_of_outputs_per_step_the_last_is_scored():
    """As one evaluates it by hand, with the weight of that step alone."""
    every = net(simple(radius=1.0, return_sequences=True))
    source = partners(np.ones((BATCH, TIME), bool), 5)
    other, y = X[source[..., 0], source[..., 1]], X[:, :, :1]
    told = exchange(every, X, y, 5)
    for x, loss in ((X, told.loss), (other, told.exchanged)):
        expected = np.mean((every.predict(x, verbose=0)[:, -1] - y[:, -1]) ** 2)
        assert loss == pytest.approx(expected, rel=1e-4)
    assert told.at_last
    assert not exchange(net(simple()), X, NEAR, 5).at_last


def test_steps_that_the_output_masks_do_not_count():
    """As they do not in the loss of the model."""
    x = X.copy()
    x[:, 30:] = 0
    every = net(keras.layers.Masking(), simple(return_sequences=True, go_backwards=True))
    told = exchange(every, x, X[:, :, :1], TIME - 15)
    assert told.loss == pytest.approx(every.evaluate(x, X[:, :, :1], BATCH, verbose=0), rel=1e-4)


def test_one_direction_of_two():
    """What the other reads further back is its own affair."""
    model = net(layers.Bidirectional(simple(), name="both"))
    for path in ("both/forward", "both/backward"):
        assert abs(exchange(model, X, NEAR, 20, path).rise) < 1e-4
        assert abs(exchange(model, X, NEAR, 1, path).rise) > 1e-4


def test_a_second_call_and_a_second_input():
    inputs = keras.Input((TIME, FEATURES)), keras.Input((TIME, FEATURES))
    layer = simple(radius=1.0)
    outputs = keras.layers.Subtract()([layer(one) for one in inputs])
    model = keras.Model(inputs, keras.layers.Dense(1)(outputs))
    model.compile("sgd", "mse")
    x = [X, X[::-1]]
    source = partners(np.ones((BATCH, TIME), bool), 10)
    for path, k in (("rnn", 0), ("rnn#2", 1)):
        other = list(x)
        other[k] = x[k][source[..., 0], source[..., 1]]
        expected = model.evaluate(other, NEAR, verbose=0)
        assert exchange(model, x, NEAR, 10, path).exchanged == pytest.approx(expected, rel=1e-4)


def test_a_regularizer_is_left_out():
    model = net(simple(kernel_regularizer=keras.regularizers.L2(100.0)))
    plain = net(simple())
    model.set_weights(plain.get_weights())
    expected = exchange(plain, X, NEAR, 5)[1:3]
    assert exchange(model, X, NEAR, 5)[1:3] == pytest.approx(expected, rel=1e-3)


def test_the_standard_error():
    """Of a mean squared error, from the samples' own."""
    model = net(simple(radius=1.0))
    told = exchange(model, X, NEAR, 2)
    sample, step = np.moveaxis(partners(np.ones((BATCH, TIME), bool), 2), -1, 0)
    before, after = ((model.predict(x, verbose=0) - NEAR) ** 2 for x in (X, X[sample, step]))
    assert told.rise == pytest.approx((after - before).mean(), abs=1e-5)
    error = (after - before).std() / np.sqrt(BATCH)
    assert told.error == pytest.approx(error, rel=0.6)
