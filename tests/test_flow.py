import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_masks import keras_hands_on
from slow import slow_but

from kerasrnn import layers
from kerasrnn.cells import CELLS
from kerasrnn.diagnostics import flow, gradient_flow
from kerasrnn.diagnostics.reach import gradient_reach
from kerasrnn.recurrence import programs

BATCH, TIME, FEATURES = 3, 7, 4
rng = np.random.default_rng(0)
X = rng.normal(size=(BATCH, TIME, FEATURES)).astype("float32")
Y = rng.normal(size=(BATCH, 1)).astype("float32")
# Gaps inside, padding before and after.
MASK = np.array([[0, 1, 1, 0, 1, 1, 1], [1, 1, 0, 1, 1, 0, 0], [1] * TIME], bool)
PACKAGES = pytest.mark.parametrize("package", [layers, keras.layers], ids=["ours", "keras"])
KINDS = pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])


def compiled(*parts, x=X):
    parts = [*map(keras_hands_on, parts), keras.layers.Dense(1, name="head")]
    model = keras.Sequential(parts)
    model.build(x.shape)
    model.compile("sgd", "mse")
    return model


def unroll(cell, x, mask=None, backward=False):
    """The states after each step, along the input, from a cell that is stepped by hand."""
    states = [tf.zeros((x.shape[0], size)) for size in np.atleast_1d(cell.state_size)]
    kept = [None] * x.shape[1]
    for t in range(x.shape[1])[:: -1 if backward else 1]:
        _, new = cell(x[:, t], states)
        new = new if isinstance(new, list | tuple) else [new]
        if mask is not None:
            new = [tf.where(mask[:, t, None], n, s) for n, s in zip(new, states, strict=True)]
        kept[t] = states = [tf.identity(s) for s in new]
    return kept


def of(kept, state=0):
    return [states[state] for states in kept]


def norms(tape, loss, tensors):
    """(batch, time) from a tensor (batch, units) per step."""
    gradients = tape.gradient(loss, tensors, unconnected_gradients="zero")
    return np.linalg.norm(np.array(gradients), axis=-1).T


def mse(model, z, y=Y):
    return tf.reduce_mean((model.get_layer("head")(z) - y) ** 2)


def equal(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7 * np.max(expected))


@PACKAGES
@KINDS
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("pooled", [False, True])
def test_one_layer(package, kind, masked, pooled, random_weights):
    x = np.where(MASK[:, :, None], X, 0) if masked else X
    layer = getattr(package, kind)(5, return_sequences=pooled, name="rnn")
    before = [keras.layers.Masking()] if masked else []
    after = [keras.layers.GlobalAveragePooling1D()] if pooled else []
    model = compiled(*before, layer, *after)
    random_weights(layer)

    mask = MASK if masked else np.ones_like(MASK)
    with tf.GradientTape(persistent=True) as tape:
        kept = unroll(layer.cell, X, mask)
        h = tf.stack(of(kept), 1)
        weights = mask[:, :, None].astype("float32")
        pool = tf.reduce_sum(h * weights, 1) / weights.sum(1)
        loss = mse(model, pool if pooled else h[:, -1])
    measured = gradient_flow(model, x, Y)
    assert measured.loss == pytest.approx(float(loss), rel=1e-5)
    equal(measured.per_sample["rnn"], norms(tape, loss, of(kept)))
    equal(measured.norms["rnn"], norms(tape, loss, of(kept)).mean(axis=0))
    if kind == "LSTM":
        assert list(measured.per_state["rnn"]) == ["h", "c"]
        equal(measured.per_state["rnn"]["c"], norms(tape, loss, of(kept, 1)))


@PACKAGES
def test_lstm_against_its_equations(package, random_weights):
    layer = package.LSTM(5, name="rnn")
    model = compiled(layer)
    random_weights(layer)
    w, u, b = layer.get_weights()
    with tf.GradientTape(persistent=True) as tape:
        h = c = tf.zeros((BATCH, 5))
        tape.watch(h)
        hs, cs = [], []
        for t in range(TIME):
            i, f, g, o = tf.split(X[:, t] @ w + h @ u + b, 4, axis=1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h, c = tf.sigmoid(o) * tf.tanh(c), tf.identity(c)
            hs.append(h)
            cs.append(c)
        loss = mse(model, h)
    measured = gradient_flow(model, X, Y)
    equal(measured.per_sample["rnn"], norms(tape, loss, hs))
    equal(measured.per_state["rnn"]["c"], norms(tape, loss, cs))


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("masked", slow_but([True], [False, True]))
def test_every_cell(kind, masked, random_weights):
    """With the output that the cell gives beside its state, at the last step that is not masked."""
    mask = MASK[1:] if masked else np.ones_like(MASK[1:])
    x = np.where(mask[:, :, None], X[1:], 0)
    layer = layers.RNN(kind, units=FEATURES, name="rnn")
    model = compiled(keras.layers.Masking(), layer, x=x)
    random_weights(layer, 0.3)

    last = TIME - 1 - mask[:, ::-1].argmax(axis=1)
    with tf.GradientTape(persistent=True) as tape:
        kept = unroll(layer.cell, x, mask)
        outputs = [layer.cell.output(layer.cell.project(x[:, t]), kept[t]) for t in range(TIME)]
        loss = mse(model, tf.gather(tf.stack(outputs, 1), last, batch_dims=1), Y[1:])
    measured = gradient_flow(model, x, Y[1:])
    assert measured.loss == pytest.approx(float(loss), rel=1e-4)
    per_state = [norms(tape, loss, of(kept, i)) for i in range(len(layer.cell.states))]
    # Where nothing comes after the last step, a copy of its state has the same gradient only if
    # the output is that state.
    upto = np.arange(TIME) <= last[:, None]
    for name, expected in zip(layer.cell.states, per_state, strict=True):
        np.testing.assert_allclose(
            measured.per_state["rnn"][name][upto], expected[upto], rtol=2e-4, atol=1e-6
        )


@PACKAGES
@pytest.mark.parametrize("masked", [False, True])
def test_bidirectional_and_stacked(package, masked, random_weights):
    x = np.where(MASK[:, :, None], X, 0) if masked else X
    both = [
        package.Bidirectional(package.LSTM(5, return_sequences=True), name="lower"),
        package.Bidirectional(package.GRU(4), name="upper"),
    ]
    model = compiled(keras.layers.Masking(), *both)
    for one in both:
        random_weights(one)
    mask = MASK if masked else np.ones_like(MASK)
    kept = {}
    with tf.GradientTape(persistent=True) as tape:
        z = x
        for one in both:
            for way in ("forward", "backward"):
                cell = getattr(one, f"{way}_layer").cell
                kept[f"{one.name}/{way}"] = unroll(cell, z, mask, way == "backward")
            ways = [of(kept[f"{one.name}/{way}"]) for way in ("forward", "backward")]
            z = tf.concat([tf.stack(way, 1) for way in ways], 2)
        loss = mse(model, tf.concat([ways[0][-1], ways[1][0]], 1))
    measured = gradient_flow(model, x, Y)
    assert set(measured.norms) == set(kept)
    for path in kept:
        equal(measured.per_sample[path], norms(tape, loss, of(kept[path])))
        # In Keras's order, too, and under its own path.
        part = model.get_layer(path.split("/")[0]).path
        equal(measured.norms[f"{part}/{path.split('/')[1]}"], measured.norms[path])


@PACKAGES
@pytest.mark.parametrize("backward", [False, True])
def test_several_cells(package, backward, random_weights):
    cells = [package.LSTM(5).cell, keras.layers.GRUCell(4)]
    layer = package.RNN(cells, go_backwards=backward, name="rnn")
    model = compiled(layer)
    random_weights(layer)
    with tf.GradientTape(persistent=True) as tape:
        lower = unroll(cells[0], X, backward=backward)
        upper = unroll(cells[1], tf.stack(of(lower), 1), backward=backward)
        loss = mse(model, upper[0 if backward else -1][0])
    measured = gradient_flow(model, X, Y)
    equal(measured.per_sample[f"rnn/{cells[0].name}"], norms(tape, loss, of(lower)))
    equal(measured.per_sample[f"rnn/{cells[1].name}"], norms(tape, loss, of(upper)))


@pytest.mark.parametrize("connection", [None, "residual", "dense"])
def test_a_stack_inside_a_bidirectional(connection, random_weights):
    stack = layers.RNNStack("gru", FEATURES, 2, connection, return_sequences=True)
    both = layers.Bidirectional(stack, name="both")
    model = compiled(both, keras.layers.GlobalMaxPooling1D())
    random_weights(both)
    rnns = [layer for layer in both._flatten_layers() if isinstance(layer, layers.RNN)]
    with tf.GradientTape(persistent=True) as tape:
        kept, outputs = {}, []
        for way in ("forward", "backward"):
            z = X
            for level in (1, 2):
                is_one = f"{way}_rnn_stack", f"gru_{level}"
                (rnn,) = [r for r in rnns if all(name in r.path for name in is_one)]
                kept[way, level] = unroll(rnn.cell, z, backward=way == "backward")
                h = tf.stack(of(kept[way, level]), 1)
                if connection == "residual":
                    z = z + h
                elif connection == "dense" and level == 1:
                    z = tf.concat([z, h], 2)
                else:
                    z = h
            outputs.append(z)
        loss = mse(model, tf.reduce_max(tf.concat(outputs, 2), 1))
    measured = gradient_flow(model, X, Y)
    for (way, level), states in kept.items():
        (path,) = [p for p in measured.norms if way in p and f"gru_{level}" in p]
        equal(measured.per_sample[path], norms(tape, loss, of(states)))


def test_tracing_changes_nothing(random_weights):
    x = np.where(MASK[:, :, None], X, 0)
    both = layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True), name="both")
    last = layers.LSTM(4, stateful=True, name="last")
    lru = layers.LRU(5, return_sequences=True, name="lru")
    model = compiled(keras.layers.Masking(), both, lru, last)
    random_weights(both)
    measure = flow.Measurement(model, trace=True)
    for _ in range(2):
        random_weights(last)
        traced, eager = measure(x, Y), gradient_flow(model, x, Y)
        assert traced.loss == pytest.approx(eager.loss, rel=1e-5)
        assert list(traced.norms) == ["both/forward", "both/backward", "lru", "last"]
        for path in eager.norms:
            equal(traced.per_sample[path], eager.per_sample[path])
            equal(traced.profile[path], eager.profile[path])


@pytest.mark.parametrize("kind", ["lstm", "lru"])
def test_the_fast_path_measures_the_same(kind, monkeypatch, random_weights, take_path):
    runs, original = [], programs.run
    monkeypatch.setattr(programs, "run", lambda p: runs.append(p.cell) or original(p))
    both = layers.Bidirectional(layers.RNN(kind, units=5, return_sequences=True), name="both")
    model = compiled(both)
    random_weights(both, 0.3)
    eager = gradient_flow(model, X, Y)
    assert not runs
    take_path("programs")
    traced = flow.Measurement(model, trace=True)(X, Y)
    assert {id(cell) for cell in runs} == {
        id(layer.cell) for layer in (both.forward_layer, both.backward_layer)
    }
    for path, states in eager.per_state.items():
        for name, expected in states.items():
            equal(traced.per_state[path][name], expected)
        equal(traced.profile[path], eager.profile[path])


def test_subclassed_models_and_layers_called_twice(random_weights):
    @keras.saving.register_keras_serializable("test_flow")
    class Inner(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="inner")
            self.parts = {"a": layers.GRU(5, return_sequences=True, name="gru")}

        def call(self, x):
            return self.parts["a"](self.parts["a"](x))

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = Inner()
            self.head = keras.layers.Dense(1, name="head")

        def call(self, x):
            return self.head(self.inner(x)[:, -1])

    model = Subclassed()
    model.compile("sgd", "mse")
    x = X @ rng.normal(size=(FEATURES, 5)).astype("float32")
    model(x)
    gru = model.inner.parts["a"]
    random_weights(gru)
    with tf.GradientTape(persistent=True) as tape:
        first = unroll(gru.cell, x)
        second = unroll(gru.cell, tf.stack(of(first), 1))
        loss = mse(model, second[-1][0])
    measured = gradient_flow(model, x, Y)
    assert list(measured.norms) == ["inner/gru", "inner/gru#2"]
    equal(measured.per_sample["inner/gru"], norms(tape, loss, of(first)))
    equal(measured.per_sample["inner/gru#2"], norms(tape, loss, of(second)))
    equal(measured.norms["gru"], measured.norms["inner/gru"])
    with pytest.raises(KeyError, match="one of inner/gru, inner/gru#2"):
        measured.norms["lstm"]


def test_the_slope_is_that_of_a_single_reading(random_weights):
    """A loss over all steps is flat over time; how far one of them reaches back is not."""
    layer = layers.SimpleRNN(5, return_sequences=True, name="rnn")
    model = compiled(layer)
    random_weights(layer, 0.2)
    y = rng.normal(size=(BATCH, TIME, 1)).astype("float32")
    last = np.zeros((BATCH, TIME), "float32")
    last[:, -1] = 1
    every, one = gradient_flow(model, X, y), gradient_flow(model, X, y, sample_weight=last)
    equal(every.profile["rnn"], one.profile["rnn"])
    ratios = one.per_sample["rnn"][:, ::-1] / one.per_sample["rnn"][:, -1:]
    equal(one.profile["rnn"], np.exp(np.log(ratios).mean(axis=0)))
    assert every.slope["rnn"] == pytest.approx(
        np.polyfit(np.arange(7), np.log(ratios).T, 1)[0].mean()
    )
    assert every.half_life["rnn"] == pytest.approx(-np.log(2) / every.slope["rnn"])
    flat = -np.polyfit(np.arange(7), np.log(every.norms["rnn"]), 1)[0]
    assert every.slope["rnn"] < flat - 0.3


def test_a_read_out_step_per_sample(random_weights):
    layer = layers.GRU(5, return_sequences=True, name="rnn")
    model = compiled(layer)
    random_weights(layer)
    y = rng.normal(size=(BATCH, TIME, 1)).astype("float32")
    read = rng.integers(2, TIME, BATCH)
    with tf.GradientTape() as tape:
        kept = unroll(layer.cell, X)
        h = tf.gather(tf.stack(of(kept), 1), read, batch_dims=1)
        loss = tf.reduce_sum((model.get_layer("head")(h) - y[np.arange(BATCH), read]) ** 2)
    exact = norms(tape, loss, of(kept))
    lags = [np.log(n[s::-1] / n[s]) for n, s in zip(exact, read, strict=True)]
    means = [np.mean([lag[k] for lag in lags if k < len(lag)]) for k in range(max(read) + 1)]
    k = np.concatenate([np.arange(len(lag)) for lag in lags])

    weight = np.eye(TIME, dtype="float32")[read]
    measured = gradient_flow(model, X, y, sample_weight=weight)
    np.testing.assert_allclose(measured.profile["rnn"], np.exp(means), rtol=1e-4)
    slope = np.polyfit(k, np.concatenate(lags), 1)[0]
    assert measured.slope["rnn"] == pytest.approx(slope, rel=1e-4)


def test_lags_are_steps_that_are_not_masked(random_weights):
    layer = layers.GRU(5, name="rnn")
    model = compiled(keras.layers.Masking(), layer)
    random_weights(layer)
    padded = np.concatenate([X[:1, :3], np.zeros((1, 2, FEATURES), "float32"), X[:1, 3:]], 1)
    padded = np.pad(padded, ((0, 0), (0, 4), (0, 0)))
    plain, masked = (gradient_flow(model, x, Y[:1]) for x in (X[:1], padded))
    equal(masked.profile["rnn"], plain.profile["rnn"])
    assert masked.slope["rnn"] == pytest.approx(plain.slope["rnn"], rel=1e-4)


def test_slopes_without_a_gradient():
    model = compiled(layers.SimpleRNN(3, recurrent_initializer="zeros", name="rnn"))
    measured = gradient_flow(model, X, Y)
    assert (measured.slope["rnn"], measured.half_life["rnn"]) == (-np.inf, 0)
    assert np.isnan(gradient_flow(model, X[:, :1], Y).slope["rnn"])
    model.get_layer("head").set_weights([np.zeros((3, 1)), np.zeros(1)])
    measured = gradient_flow(model, X, Y)
    assert not measured.norms["rnn"].any()
    assert (measured.slope["rnn"], measured.half_life["rnn"]) == (-np.inf, 0)
    grows = compiled(
        layers.SimpleRNN(
            3, "linear", recurrent_initializer=keras.initializers.Identity(2), name="rnn"
        )
    )
    assert gradient_flow(grows, X, Y).half_life["rnn"] == np.inf


@PACKAGES
@KINDS
def test_a_gradient_that_is_no_number_has_no_slope(package, kind):
    model = compiled(getattr(package, kind)(4, name="rnn"))
    y = Y.copy()
    y[1] = np.nan
    for measured in (gradient_flow(model, X * np.nan, Y), gradient_flow(model, X, y)):
        assert np.isnan(measured.norms["rnn"]).all()
        assert np.isnan(measured.profile["rnn"]).all()
        assert np.isnan([measured.slope["rnn"], measured.half_life["rnn"]]).all()


def test_lag_0_is_left_out_where_the_gradient_comes_back_in_another_state(random_weights):
    """An LSTM's h is read and its c is kept: only from lag 1 on does the profile follow c."""
    layer = layers.LSTM(5, name="rnn")
    model = compiled(layer)
    random_weights(layer)
    for steps, first in ((2, 0), (3, 1), (TIME, 1)):
        x = X[:, :steps]
        with tf.GradientTape(persistent=True) as tape:
            kept = unroll(layer.cell, x)
            loss = mse(model, kept[-1][0])
        back = norms(tape, loss, of(kept))[:, ::-1]
        measured = gradient_flow(model, x, Y)
        equal(measured.profile["rnn"], np.exp(np.log(back / back[:, :1]).mean(axis=0)))
        slope = np.polyfit(np.arange(first, steps), np.log(back[:, first:]).T, 1)[0].mean()
        assert measured.slope["rnn"] == pytest.approx(slope, rel=1e-4)


@PACKAGES
def test_the_model_is_left_as_it_was(package):
    layer = package.LSTM(4, stateful=True, return_sequences=True, dropout=0.5)
    model = compiled(layer, keras.layers.BatchNormalization())
    model.compile("sgd", "mse", metrics=["mae"])
    y = rng.normal(size=(BATCH, TIME, 1)).astype("float32")
    model.fit(X, y, batch_size=BATCH, verbose=0)
    watched = [*model.variables, *layer.states, *model.metrics_variables]
    before = [np.array(v) for v in watched]
    gradient_flow(model, X, y)
    for variable, value in zip(watched, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert "inner_loop" not in vars(layer)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=r"features|MatMul"):
        gradient_flow(model, X[:, :, :2], y)
    assert "inner_loop" not in vars(layer)


def test_inputs_and_targets_of_any_structure():
    tokens, other = keras.Input((5,), name="tokens"), keras.Input((5, 2), name="other")
    z = keras.layers.Embedding(9, 3, mask_zero=True)(tokens)
    h = layers.GRU(4, name="words")(z)
    k = keras.layers.LSTM(4, name="others")(other)
    heads = {"a": keras.layers.Dense(1, name="a")(h + k), "b": keras.layers.Dense(2, name="b")(k)}
    model = keras.Model({"tokens": tokens, "other": other}, heads)
    model.compile("sgd", {"a": "mse", "b": "mae"})
    x = {"tokens": rng.integers(0, 9, (3, 5)), "other": rng.normal(size=(3, 5, 2))}
    y = {"a": rng.normal(size=(3, 1)), "b": rng.normal(size=(3, 2))}
    measured = gradient_flow(model, x, y)
    assert measured.loss == pytest.approx(
        model.evaluate(x, y, verbose=0, return_dict=True)["loss"], rel=1e-5
    )
    assert set(measured.norms) == {"words", "others"}
    assert all((n > 0).all() for n in measured.norms.values())


def test_what_cannot_be_measured():
    with pytest.raises(ValueError, match="compiled Keras model"):
        gradient_flow(keras.Sequential([layers.GRU(3)]), X, Y)
    with pytest.raises(ValueError, match=r"must have a recurrent layer.*no recurrent layer"):
        gradient_flow(compiled(keras.layers.Flatten()), X, Y)


def test_plot(random_weights):
    model = compiled(layers.GRU(3, return_sequences=True, name="a"), keras.layers.LSTM(3, name="b"))
    measured = gradient_flow(model, X, Y)
    (axis,) = measured.plot().axes
    assert (axis.get_yscale(), len(axis.lines)) == ("log", 2)
    for line, path in zip(axis.lines, measured.norms, strict=True):
        np.testing.assert_allclose(line.get_ydata(), measured.norms[path])
        assert line.get_label().startswith(path)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("error", [1e-4, 1e3])
def test_float16_neither_loses_a_gradient_nor_overflows(error, traced):
    """What comes back from small errors is under 6e-8; large ones cannot be scaled."""
    x, noise = rng.normal(size=(8, 30, FEATURES)), rng.normal(size=(8, 1))
    flows, reached = [], []
    for policy in ("float32", "mixed_float16"):
        keras.utils.set_random_seed(1)
        model = compiled(layers.LSTM(8, dtype=policy, name="rnn"), x=x)
        y = np.array(model(x)) + error * noise
        flows.append(flow.Measurement(model, traced)(x, y))
        tensors = map(tf.convert_to_tensor, (x, y))
        reached.append(gradient_reach(model, *tensors)[-1]["rnn"].gradients.values())
    one, half = flows
    assert half.slope["rnn"] == pytest.approx(one.slope["rnn"], rel=0.02)
    np.testing.assert_allclose(half.norms["rnn"], one.norms["rnn"], rtol=0.05)
    np.testing.assert_allclose([*reached[1]], [*reached[0]], rtol=0.05)


def test_norms_too_small_to_tell_are_left_out():
    norms = np.array([[1e-35, 1e-20, 1e-10, 1.0, 0.0]])
    lags = flow._lags(norms, np.ones((1, 5), bool))
    np.testing.assert_allclose(lags, [[0, *np.log([1e-10, 1e-20]), -np.inf, np.nan]])
