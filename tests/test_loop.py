"""The plain loop around cells of which no more is known than that they are called: a user's, and
subclasses of this package's that override `call`."""

import keras
import numpy as np
import pytest
from any_backend import PLAIN_PATHS, compiled
from keras import ops

import kerasrnn
from kerasrnn import cells, layers, recurrence
from kerasrnn.backends import BACKEND, tf
from kerasrnn.cells.configured import parameters

# Keras's own layers, from 3.16 on.
pytestmark = pytest.mark.filterwarnings("ignore:.*does not support masking")
X = np.random.default_rng(1).normal(size=(3, 6, 2)).astype("float32")
MASK = np.array([[1, 0, 1, 1, 0, 1], [0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]], bool)
RESET = np.array([[0, 0, 1, 0, 0, 1], [1, 0, 0, 1, 1, 0], [0, 1, 0, 0, 0, 0]], bool)


def subclass(cell_class, **methods):
    """A subclass with these methods, saved as such."""
    made = type(f"My{cell_class.__name__}", (cell_class,), methods)
    return keras.saving.register_keras_serializable("test_loop")(made)


def doubling(base):
    """`call` of a subclass of `base`: twice the output, and states moved by 0.1."""

    def call(self, inputs, states, training=False):
        y, states = base.call(self, inputs, states, training=training)
        return 2 * y, [s + 0.1 for s in states]

    return call


def assert_same(actual, expected, tolerance=1e-6):
    pairs = zip(keras.tree.flatten(actual), keras.tree.flatten(expected), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "base",
    [cells.GRUCell, cells.LSTMCell, cells.MinGRUCell, cells.LRUCell, keras.layers.GRUCell],
    ids=lambda base: f"{base.__module__.split('.')[0]}-{base.__name__}",
)
def test_a_subclass_s_call_is_the_step(base, random_weights):
    cell = subclass(base, call=doubling(base))(4)
    cell.build(X.shape)
    random_weights(cell)
    for options in (
        {"return_sequences": True, "return_state": True},
        {"unroll": True, "zero_output_for_mask": True},
        {"go_backwards": True, "return_state": True},
    ):
        ours, theirs = layers.RNN(cell, **options), keras.layers.RNN(cell, **options)
        # Under JAX a masked step of Keras's shows the first state.
        mask = None if BACKEND == "jax" else MASK
        expected = theirs(X, mask=mask)
        assert_same(ours(X, mask=mask), expected)
        assert_same(compiled(ours)(X, mask=mask), expected)


def test_a_subclass_s_call_in_lists_stacks_and_directions(random_weights):
    mine = subclass(cells.GRUCell, call=doubling(cells.GRUCell))
    listed, theirs = (
        package.RNN([mine(4), cells.LSTMCell(3)], return_sequences=True)
        for package in (layers, keras.layers)
    )
    both, theirs_both = (
        package.Bidirectional(package.RNN(mine(4), return_sequences=True))
        for package in (layers, keras.layers)
    )
    for ours, other in ((listed, theirs), (both, theirs_both)):
        expected = other(X, mask=MASK)
        ours.build(X.shape)
        ours.set_weights(other.get_weights())
        assert_same(ours(X, mask=MASK), expected)
    stack = layers.RNNStack(lambda units, **rates: mine(units, **rates), 4, 1)
    stack.build(X.shape)
    random_weights(stack)
    alone = keras.layers.RNN(mine(4))
    alone.build(X.shape)
    alone.set_weights(stack.get_weights())
    assert_same(stack(X), alone(X))


@pytest.mark.tensorflow
def test_fit_and_gradient_flow_see_a_subclass_s_call(random_weights):
    """The gradient by h_t of a cell whose call halves what reaches the step before."""

    def call(self, inputs, states, training=False):
        calls.append(1)
        y, (h,) = cells.SimpleRNNCell.call(self, inputs, states, training=training)
        return y, [0.5 * h]

    calls = []
    mine = subclass(cells.SimpleRNNCell, call=call)
    model = keras.Sequential([keras.Input((6, 2)), layers.RNN(mine(4), name="rnn")])
    random_weights(model)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    y = np.ones((3, 4), "float32")
    calls.clear()
    loss = model.fit(X, y, verbose=0).history["loss"][0]
    assert calls
    cell = model.layers[0].cell
    h = ops.zeros((3, 4))
    with tf.GradientTape() as tape:
        states = []
        for t in range(6):
            output, (h,) = cell(X[:, t], [h])
            tape.watch(h)
            states.append(h)
        expected = ops.mean((output - y) ** 2)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    gradients = tape.gradient(expected, states, unconnected_gradients="zero")
    flow = kerasrnn.diagnostics.gradient_flow(model, X, y)
    norms = np.mean([np.linalg.norm(g, axis=-1) for g in gradients], axis=-1)
    np.testing.assert_allclose(flow.norms["rnn"], norms, rtol=1e-4, atol=1e-7)


@pytest.mark.tensorflow
@pytest.mark.parametrize("base", [cells.GRUCell, cells.SRUCell, cells.LRUCell, cells.QRNNCell])
def test_gradient_flow_sees_the_output_of_a_call_that_leaves_the_states(base, random_weights):
    """A call that hands its output on as it is flows as without it, one that doubles it as twice
    the output of the cell does."""

    def call(self, inputs, states, training=False):
        y, states = base.call(self, inputs, states, training=training)
        return factor * y, states

    flows = {}
    y = np.ones((3, 4), "float32")
    for kind in (base, subclass(base, call=call)):
        for factor in (1, 2):
            scale = keras.layers.Rescaling(factor if kind is base else 1)
            rnn = layers.RNN(kind(4), name="rnn")
            model = keras.Sequential([keras.Input((6, 2)), rnn, scale])
            rng = np.random.default_rng(4)
            model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
            model.compile("sgd", "mse")
            flows[kind, factor] = kerasrnn.diagnostics.gradient_flow(model, X, y).per_state["rnn"]
    plain, mine = base, kind
    for factor in (1, 2):
        for state, norms in flows[plain, factor].items():
            np.testing.assert_allclose(flows[mine, factor][state], norms, rtol=1e-4, atol=1e-7)


OPTIONS = {
    "dropout": 0.3,
    "recurrent_dropout": 0.3,
    "zoneout": 0.4,
    "normalization": "layer",
    "initial_state": "learned",
}


@pytest.mark.parametrize("name", list(cells.CELLS))
def test_a_call_that_changes_nothing_changes_nothing(name, random_weights):
    """Random numbers among it: one dropout mask for all steps, and the same as without it."""
    cell_class = cells.get(name)
    refused = {"recurrent_dropout", "normalization"}
    names = parameters(cell_class).keys() - (set() if cell_class.recurrent_gates else refused)
    options = {k: v for k, v in OPTIONS.items() if k in names}

    def call(self, inputs, states, training=False):
        return cell_class.call(self, inputs, states, training=training)

    plain, called = (
        layers.RNN(kind(4, seed=1, **options), return_sequences=True, return_state=True)
        for kind in (cell_class, subclass(cell_class, call=call))
    )
    for layer in (plain, called):
        layer.build(X.shape)
    random_weights(plain)
    called.set_weights(plain.get_weights())
    for training in (True, False):
        arguments = {"mask": MASK, "reset": RESET, "training": training}
        assert_same(called(X, **arguments), plain(X, **arguments), 1e-5)


def test_called_from_outside_of_a_pass_a_cell_draws_anew():
    cell = cells.GRUCell(4, dropout=0.5)
    layer = layers.RNN(subclass(cells.GRUCell, call=doubling(cells.GRUCell))(4, dropout=0.5))
    layer(X, training=True)
    for one in (cell, layer.cell):
        ones = ops.ones((50, 2))
        first, again = (one(ones, [ops.zeros((50, 4))], training=True)[0] for _ in "ab")
        assert not np.allclose(first, again)


def test_only_the_plain_loop_takes_such_a_cell(monkeypatch):
    mine = subclass(cells.MinGRUCell, call=doubling(cells.MinGRUCell))
    monkeypatch.setitem(cells.CELLS, "mine", mine)
    explanation = recurrence.explain(layers.RNN("mine", units=64, name="rnn"), np.ones((2, 64, 3)))
    for choice in explanation["rnn"].values():
        assert choice.path == PLAIN_PATHS[0]
        if tf:
            assert set(choice.passed_over.values()) == {"MyMinGRUCell overrides `call`"}


def test_a_linear_recurrence_whose_step_is_not_that_of_its_coefficients(random_weights):
    def step(self, x, states, product):
        (h,) = cells.MinGRUCell.step(self, x, states, product)
        return (ops.tanh(h),)

    def advance(self, x, states, product, zones=None, candidate=None):
        states = [0.5 * s for s in states]
        return cells.MinGRUCell.advance(self, x, states, product, zones, candidate)

    for methods in ({"step": step}, {"advance": advance}):
        mine = subclass(cells.MinGRUCell, **methods)
        layer = layers.RNN(mine(4, name="mine"), return_sequences=True, name="rnn")
        theirs = keras.layers.RNN(layer.cell, return_sequences=True)
        expected = theirs(X)
        assert_same(layer(X), expected)
        (name,) = methods
        reason = f"MyMinGRUCell overrides `{name}` and leaves `coefficients` as it is"
        explanation = recurrence.explain(layer)["rnn"]
        if "scan" in recurrence.PATHS:
            assert explanation["predict"].passed_over["scan"] == reason
    # With coefficients of its own, or none of a step's methods, it stays a linear recurrence.
    for methods in ({"step": step, "coefficients": cells.MinGRUCell.coefficients}, {}):
        layer = layers.RNN(subclass(cells.MinGRUCell, **methods)(4), name="rnn")
        path = recurrence.explain(layer, X)["rnn"]["predict"].path
        assert path == ("scan" if "scan" in recurrence.PATHS else "portable")


@pytest.mark.parametrize("method", ["call", "step", "product", "output"])
@pytest.mark.parametrize("path", ["programs", "scan", "loop", "portable"])
def test_a_method_that_is_set_on_the_cell_itself(method, path, random_weights, take_path):
    take_path(path if path in PLAIN_PATHS else None)
    cell = cells.QRNNCell(4, name="mine") if path == "scan" else cells.GRUCell(4, name="mine")
    cell.build((None, 2))
    random_weights(cell)
    original = getattr(cell, method)

    def doubled(*args, **kwargs):
        return keras.tree.map_structure(lambda v: 2 * v, original(*args, **kwargs))

    setattr(cell, method, doubled)
    expected = keras.layers.RNN(cell)(X)
    assert_same(layers.RNN(cell)(X), expected)
    if path not in PLAIN_PATHS and path in recurrence.PATHS:
        with pytest.raises(ValueError, match=f"'{path}' cannot be met here: .*`?{method}`?"):
            recurrence.run(cell, X, cell.get_initial_state(3), path=path)


def test_a_regularization_that_a_call_would_leave_out():
    mine = subclass(cells.GRUCell, call=doubling(cells.GRUCell))
    with pytest.raises(ValueError, match=r"leaves `call` as it is.*=0\.1 for MyGRUCell"):
        mine(4, vanishing_gradient_regularization=0.1)


def test_a_call_is_told_of_training():
    """In a pass of its own, too, outside of any layer."""

    def call(self, inputs, states, training=False):
        told.append(training)
        return cells.GRUCell.call(self, inputs, states, training=training)

    told = []
    cell = subclass(cells.GRUCell, call=call)(4)
    cell.build((None, 2))
    for training in (True, False):
        told.clear()
        recurrence.run(cell, X, cell.get_initial_state(3), training=training)
        assert set(told) == {training}


@keras.saving.register_keras_serializable("test_loop")
class Memory(keras.layers.Layer):
    """Fast weights, (units, units) per sample.

    M_t = 0.9 M_{t-1} + k vᵀ,  y_t = M_tᵀ k         `wide`: [y_t, 2 y_t], (units, 2)
    """

    def __init__(self, units, wide=False, declared=None, **kwargs):
        super().__init__(**kwargs)
        self.units = self.output_size = units
        self.wide = wide
        self.state_size = declared or units

    def build(self, input_shape):
        width = input_shape[-1]
        self.key = self.add_weight((width, self.units), name="key")
        self.value = self.add_weight((width, self.units), name="value")
        self.initial = self.add_weight((self.units, self.units), name="initial")

    def get_initial_state(self, batch_size=None):
        return [ops.broadcast_to(self.initial, (batch_size, self.units, self.units))]

    def call(self, inputs, states):
        (m,) = states
        key = ops.tanh(inputs @ self.key)
        m = 0.9 * m + key[:, :, None] * (inputs @ self.value)[:, None, :]
        y = ops.einsum("bij,bi->bj", m, key)
        return ops.stack([y, 2 * y], axis=-1) if self.wide else y, [m]

    def get_config(self):
        own = {"units": self.units, "wide": self.wide, "declared": self.state_size}
        return super().get_config() | own


def by_hand(cell, x, m, mask, reset=None, go_backwards=False, zeros=False):
    """In NumPy; the outputs in the order of the steps, and the last state."""
    key, value, initial = (w.astype("float64") for w in cell.get_weights())
    m = np.repeat(initial[None], len(x), 0) if m is None else m
    outputs, y = [], np.zeros((len(x), cell.units))
    for t in range(x.shape[1])[:: -1 if go_backwards else 1]:
        begins = t + 1 if go_backwards else t
        if reset is not None and begins < x.shape[1]:
            m = np.where(reset[:, begins, None, None], initial, m)
        k = np.tanh(x[:, t] @ key)
        new = 0.9 * m + k[:, :, None] * (x[:, t] @ value)[:, None]
        on = mask[:, t]
        m = np.where(on[:, None, None], new, m)
        shown = np.einsum("bij,bi->bj", new, k)
        y = np.where(on[:, None], shown, 0 if zeros else y)
        outputs.append(np.stack([y, 2 * y], -1) if cell.wide else y)
    return np.stack(outputs, 1), m


# With as many units as there are rows a wrong axis goes unnoticed.
@pytest.mark.parametrize("units", [3, 4])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("unroll", [False, True])
def test_states_and_outputs_of_more_axes(units, wide, unroll, rng, random_weights):
    start = rng.normal(size=(3, units, units))
    cell = Memory(units, wide)
    cell.build(X.shape)
    random_weights(cell)
    names = ("return_sequences", "zero_output_for_mask", "go_backwards")
    # Each value of an option with each of the others.
    for values in ((0, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1)):
        options = dict(zip(names, map(bool, values), strict=True))
        zeros, go_backwards = options["zero_output_for_mask"], options["go_backwards"]
        layer = layers.RNN(cell, return_state=True, unroll=unroll, **options)
        for m, reset in ((None, None), (start, RESET)):
            outputs, final = by_hand(cell, X, m, MASK, reset, go_backwards, zeros)
            expected = [outputs if options["return_sequences"] else outputs[:, -1], final]
            states = None if m is None else [m.astype("float32")]
            actual = layer(X, initial_state=states, mask=MASK, reset=reset)
            assert_same(actual, expected, 1e-5)


def test_states_of_more_axes_in_graphs_models_and_directions(rng, random_weights):
    both = layers.Bidirectional(
        layers.RNN(Memory(3, True), return_sequences=True, return_state=True)
    )
    start = rng.normal(size=(2, 3, 3, 3)).astype("float32")
    both.build(X.shape)
    random_weights(both)
    # Keras has both directions give zeros at masked steps.
    forward, m = by_hand(both.forward_layer.cell, X, start[0], MASK, RESET, zeros=True)
    backward, n = by_hand(both.backward_layer.cell, X, start[1], MASK, RESET, True, zeros=True)
    expected = [np.concatenate([forward, backward[:, ::-1]], -1), m, n]

    def call(x, mask, reset, *states):
        return both(x, mask=mask, reset=reset, initial_state=list(states))

    arguments = [X, MASK, RESET, *start]
    assert_same(call(*map(ops.convert_to_tensor, arguments)), expected, 1e-5)
    if tf:
        any_size = [tf.TensorSpec([None] * np.ndim(v), tf.as_dtype(v.dtype)) for v in arguments]
        any_size[0] = tf.TensorSpec([None, None, 2])
        assert_same(tf.function(call, any_size)(*arguments), expected, 1e-5)

    # In a functional model the states of one layer start another.
    inputs = keras.Input((6, 2))
    encoder, decoder = layers.RNN(Memory(3), return_state=True), layers.RNN(Memory(3))
    _, state = encoder(inputs)
    assert state.shape == (None, 3, 3)
    model = keras.Model(inputs, decoder(inputs, initial_state=[state]))
    random_weights(model)
    nothing = np.ones_like(MASK)
    _, m = by_hand(encoder.cell, X, None, nothing)
    outputs, _ = by_hand(decoder.cell, X, m, nothing)
    assert_same(model.predict(X, verbose=0), outputs[:, -1], 1e-5)


@pytest.mark.parametrize("declared", [3, (3, 3), [(3, 3)]], ids=str)
def test_states_of_more_axes_whatever_their_cell_declares(declared, rng, random_weights):
    """One size, two or a shape: Keras asks for sizes alone."""
    layer = layers.RNN(Memory(3, declared=declared), return_sequences=True, return_state=True)
    both = layers.Bidirectional(layer)
    both.build(X.shape)
    random_weights(both)
    residual = layers.Residual(both.forward_layer, project=True)
    residual.build(X.shape)
    start = rng.normal(size=(3, 3, 3)).astype("float32")
    forward, m = by_hand(both.forward_layer.cell, X, start, MASK, zeros=True)
    backward, n = by_hand(both.backward_layer.cell, X, start, MASK, None, True, zeros=True)
    y, *states = both(X, initial_state=[start, start], mask=MASK)
    assert_same([y, *states], [np.concatenate([forward, backward[:, ::-1]], -1), m, n], 1e-5)
    y, state = residual(X, initial_state=[start], mask=MASK)
    shortcut = X @ residual.projection.get_weights()[0]
    assert_same([y, state], [forward + shortcut, m], 1e-5)
    assert len(residual.compute_mask(X, MASK)) == 2
    assert len(both.compute_mask(X, MASK)) == 3


def test_a_list_of_cells_with_states_of_more_axes(rng, random_weights):
    layer = layers.RNN([Memory(2), Memory(3)], return_state=True)
    layer.build(X.shape)
    random_weights(layer)
    first, second = layer.cell.cells
    states = [rng.normal(size=(3, n, n)).astype("float32") for n in (2, 3)]
    middle, m = by_hand(first, X, states[0], MASK)
    outputs, n = by_hand(second, middle, states[1], MASK)
    actual = layer(X, initial_state=[[s] for s in states], mask=MASK)
    assert_same(actual, [outputs[:, -1], [m], [n]], 1e-5)
    with pytest.raises(ValueError, match=r"shapes \(3, 2, 2\), \(3, 3, 3\)\. Received"):
        layer(X, initial_state=[[s[:, 0]] for s in states])


def test_states_of_more_axes_are_kept_and_checked(random_weights):
    layer = layers.RNN(Memory(3), stateful=True, return_state=True, name="memory")
    layer.build(X.shape)
    random_weights(layer)
    layer.reset_state()
    m = None
    for _ in range(2):
        outputs, m = by_hand(layer.cell, X, m, MASK)
        assert_same(layer(X, mask=MASK), [outputs[:, -1], m], 1e-5)
    layer.reset_state(rows=[1])
    initial = np.repeat(layer.cell.get_weights()[-1][None], 3, 0)
    assert_same(layer.states[0], np.where(np.array([0, 1, 0])[:, None, None], initial, m), 1e-5)
    for shape in ((3, 3), (2, 3, 3), (3, 3, 4)):
        rule = r"`initial_state` of memory.*shapes \(3, 3, 3\)\. Received: the shapes "
        with pytest.raises(ValueError, match=rule):
            layer(X, initial_state=[ops.zeros(shape)])


@pytest.mark.tensorflow
def test_the_gradient_flow_of_states_and_outputs_of_more_axes(random_weights):
    rnn = layers.RNN(Memory(3, True), return_sequences=True, name="rnn")
    model = keras.Sequential([rnn, keras.layers.Lambda(lambda v: ops.mean(v, (2, 3)))])
    model.compile("sgd", "mse")
    model(X)
    random_weights(model)
    target, cell = np.ones((3, 6), "float32"), rnn.cell
    with tf.GradientTape() as tape:
        taps, shown = [ops.zeros((3, 3, 3)) for _ in range(6)], []
        tape.watch(taps)
        (m,) = cell.get_initial_state(3)
        for t in range(6):
            y, (m,) = cell(X[:, t], [m])
            m = m + taps[t]
            shown.append(y)
        loss = ops.mean((ops.mean(ops.stack(shown, 1), (2, 3)) - target) ** 2)
    gradients = tape.gradient(loss, taps, unconnected_gradients="zero")
    flow = kerasrnn.diagnostics.gradient_flow(model, X, target)
    np.testing.assert_allclose(flow.loss, loss, rtol=1e-5)
    norms = np.stack([np.linalg.norm(np.reshape(g, (3, -1)), axis=-1) for g in gradients], 1)
    np.testing.assert_allclose(flow.per_state["rnn"]["h"], norms, rtol=1e-4, atol=1e-7)


def test_an_output_of_a_linear_recurrence_of_more_axes(rng, random_weights):
    """Under a mask, from all steps at once."""

    def output(self, x, states):
        return ops.stack([states[0], 2 * states[0]], axis=-1)

    cell = subclass(cells.MinGRUCell, output=output)(3)
    for options in ({"return_sequences": True}, {"zero_output_for_mask": True}):
        layer = layers.RNN(cell, **options)
        plain = layers.RNN(cells.MinGRUCell(3), **options)
        layer.build(X.shape)
        plain.build(X.shape)
        random_weights(plain)
        layer.set_weights(plain.get_weights())
        y = plain(X, mask=MASK)
        assert_same(layer(X, mask=MASK), ops.stack([y, 2 * y], -1))
        path = recurrence.explain(layer)[layer.name]["export"].path
        assert path == ("scan" if "scan" in recurrence.PATHS else "portable")
