import keras
import numpy as np
import pytest
import starts
import twins
from any_backend import gradients
from keras import ops

from kerasrnn import cells, initializers, layers, recurrence

CASES = [(name, *case) for name, cases in twins.TWINS.items() for case in cases]
over_twins = pytest.mark.parametrize(("name", "options", "twin"), CASES)


def test_every_registered_cell_has_a_twin_and_a_paper():
    assert set(twins.TWINS) == set(cells.CELLS)
    assert [name for name, kind in cells.CELLS.items() if not kind.paper] == []


def random_states(cell, rng, size):
    """The sLSTM's normalizer, a sum of exponentials, is above zero."""
    states = {name: rng.normal(size=(size, cell.units)) for name in cell.states}
    return [np.abs(s) + 0.5 if name == "n" else s for name, s in states.items()]


@over_twins
def test_step_is_the_papers(name, options, twin, rng, random_weights):
    cell = cells.get(name)(5, dtype="float64", **options)
    cell.build((None, 3))
    random_weights(cell)
    x = rng.normal(size=(4, 3))
    states = random_states(cell, rng, 4)

    output, new_states = cell(x, states)

    expected = twins.output_and_states(twin(cell.get_weights(), x, states))
    np.testing.assert_allclose(output, expected.output, rtol=1e-10)
    for new, want in zip(new_states, expected.states, strict=True):
        np.testing.assert_allclose(new, want, rtol=1e-10)


@over_twins
def test_gradient_is_that_of_finite_differences(name, options, twin, rng, random_weights):
    cell = cells.get(name)(3, dtype="float64", **options)
    cell.build((None, 2))
    random_weights(cell)
    x = rng.normal(size=(2, 2))
    values = [*cell.get_weights(), *random_states(cell, rng, 2)]
    count = len(cell.weights)
    states = [ops.convert_to_tensor(value) for value in values[count:]]

    def loss(*states):
        output, new_states = cell(x, states)
        return None, sum(ops.sum(ops.sin(s)) for s in (2 * output, *new_states))

    _, found = gradients(loss, states, cell.trainable_weights)
    found = found[len(states) :] + found[: len(states)]

    def loss_at(shifted):
        output, states = twins.output_and_states(twin(shifted[:count], x, shifted[count:]))
        return sum(np.sin(s).sum() for s in (2 * output, *states))

    for which, gradient in enumerate(found):
        gradient = np.array(gradient)
        for index in np.ndindex(*values[which].shape):
            up, down = ([v.copy() for v in values] for _ in range(2))
            up[which][index] += 1e-6
            down[which][index] -= 1e-6
            slope = (loss_at(up) - loss_at(down)) / 2e-6
            np.testing.assert_allclose(gradient[index], slope, rtol=1e-6, atol=1e-8)


@over_twins
def test_runs_inside_keras(name, options, twin, rng, random_weights):
    cell = cells.get(name)(5, **options)
    layer = keras.layers.RNN(cell, return_sequences=True)
    x = rng.normal(size=(2, 6, 3)).astype("float32")
    layer.build(x.shape)
    random_weights(layer)

    zeros = [np.zeros((2, 5)) for _ in cell.states]
    expected, _ = twins.run(twin, layer.get_weights(), x, zeros)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)
    ours = layers.RNN(cell, return_sequences=True)
    np.testing.assert_allclose(ours(x), expected, rtol=1e-4, atol=1e-5)


GATED = [name for name, kind in cells.CELLS.items() if kind(1).gated]


@pytest.mark.parametrize("name", [name for name, kind in cells.CELLS.items() if kind.candidate])
def test_the_candidate_is_what_drop_marks(name, rng, random_weights):
    """Where all of it is dropped nothing of its projection gets into the states."""
    cell = cells.get(name)(4, dtype="float64")
    cell.build((None, 3))
    random_weights(cell)
    states = [ops.convert_to_tensor(state) for state in random_states(cell, rng, 2)]
    x = ops.convert_to_tensor(rng.normal(size=(2, len(cell.gates) * 4)))

    def gradient(mask):
        mask = ops.full((2, 4), mask, "float64")

        def loss(x):
            new = cell.advance(x, states, cell.product, candidate=mask)
            return None, sum(ops.sum(state) for state in new)

        _, (of,) = gradients(loss, [x])
        return np.abs(np.array(of)[:, cell.columns((cell.candidate,))]).min()

    assert gradient(0.0) == 0
    assert gradient(1.0) > 0


@pytest.mark.parametrize("name", GATED)
def test_gated_names_the_gates_in_the_order_of_a_step(name, rng, random_weights, monkeypatch):
    """A gate with a bias that shuts it is shut under its name."""
    cell = cells.get(name)(4, dtype="float64")
    cell.build((None, 3))
    random_weights(cell, 0.1)
    activation, values = cell.recurrent_activation, []

    def kept(v):
        values.extend(np.split(np.array(activation(v)), v.shape[-1] // 4, axis=-1))
        return activation(v)

    monkeypatch.setattr(cell, "recurrent_activation", kept)
    biases = cell.bias.numpy()
    for gate in set(cell.gated) & set(cell.bias_gates):
        shut = biases.copy()
        # The GRU's has a second row, of the recurrent products.
        shut.reshape(-1, len(cell.bias_gates), 4)[0, cell.bias_gates.index(gate)] = -30
        cell.bias.assign(shut)
        values.clear()
        cell(rng.normal(size=(2, 3)), random_states(cell, rng, 2))
        low = [one for one, v in zip(cell.gated, values, strict=True) if v.max() < 1e-6]
        assert set(low) == {gate}


@pytest.mark.parametrize("name", GATED)
def test_a_cell_with_gates_says_which_keep_or_write_its_state(name, rng, random_weights):
    """With the ones open and the others closed it remembers more of where it began."""
    cell = cells.get(name)(4, dtype="float64")
    assert cell.keeps or cell.writes
    cell.build((None, 3))
    random_weights(cell)
    x = ops.convert_to_tensor(rng.normal(size=(2, 20, 3)))
    starts = [random_states(cell, rng, 2) for _ in range(2)]

    def difference(sign):
        """Between the outputs of the last step, from two starts."""
        # A GRU's second bias stays 0.
        biases = np.zeros((np.prod(cell.bias.shape) // 4, 4))
        for gate in cell.bias_gates:
            row = cell.bias_gates.index(gate)
            biases[row] = sign * (20 * (gate in cell.keeps) - 20 * (gate in cell.writes))
        cell.bias.assign(biases.reshape(cell.bias.shape))
        one, other = (recurrence.run(cell, x, start)[0] for start in starts)
        return np.abs(np.array(one - other)).max()

    assert difference(1) > 0.01
    assert difference(1) > 10 * difference(-1)


@pytest.mark.parametrize("name", cells.CELLS)
def test_configuration_survives(name):
    cell_class = cells.get(name)
    options = {
        "activation": "relu",
        "kernel_initializer": keras.initializers.RandomNormal(stddev=0.3),
        "recurrent_regularizer": keras.regularizers.L2(0.1),
        "bias_constraint": "non_neg",
        "dropout": 0.1,
        "seed": 7,
        "implementation": 1,
        "initial_state": "learned",
    }
    options = {k: v for k, v in options.items() if k not in cell_class.lacks}
    cell = cell_class(4, **options)
    config = keras.saving.serialize_keras_object(cell)
    copy = keras.saving.deserialize_keras_object(config)
    assert keras.saving.serialize_keras_object(copy) == config
    assert copy.kernel_initializer.stddev == 0.3
    if "activation" in options:
        assert copy.activation is keras.activations.relu
    if "recurrent_regularizer" in options:
        assert copy.recurrent_regularizer.l2 == pytest.approx(0.1)
    for option in ("dropout", "seed", "implementation", "initial_state"):
        assert getattr(copy, option) == options[option]


BEGINNINGS = [(name, *case, 192) for name, cases in starts.STARTS.items() for case in cases]
# As many features as units.
BEGINNINGS += [("sru", *case, 128) for case in starts.STARTS["sru"]]


def test_of_every_registered_cell_it_is_known_where_it_starts():
    assert set(starts.STARTS) == set(cells.CELLS)


@pytest.mark.parametrize(("name", "options", "start", "features"), BEGINNINGS)
def test_weights_start_where_those_of_the_authors_do(name, options, start, features):
    cell = cells.get(name)(128, **options)
    cell.build((None, features))
    expected = start(features, 128)
    assert {w.name for w in cell.weights} == set(expected)
    for weight in cell.weights:
        blocks = expected[weight.name]
        values = np.split(np.array(weight, "float64"), len(blocks), axis=-1)
        for block, distribution in zip(values, blocks, strict=True):
            starts.assert_starts(block, distribution)


@pytest.mark.parametrize("name", ["sru", "lru", "rg_lru", "slstm"])
def test_an_initializer_of_the_user_s_goes_before_the_authors(name):
    options = {"kernel_initializer": keras.initializers.Constant(0.5)}
    if name == "slstm":
        options |= {"recurrent_initializer": "orthogonal", "bias_initializer": "ones"}
    if name == "lru":
        options |= {"output_initializer": "ones"}
    cell = cells.get(name)(8, **options)
    cell.build((None, 3))
    starts.assert_starts(np.array(cell.kernel), 0.5)
    if name == "slstm":
        starts.assert_starts(np.array(cell.recurrent_kernel), starts.ORTHOGONAL)
        starts.assert_starts(np.array(cell.bias), 1.0)
    if name == "lru":
        starts.assert_starts(np.array(cell.output_kernel_re), 1.0)


def test_an_slstm_without_biases():
    """Its forget gates cannot start by theirs."""
    cell = cells.SLSTMCell(4, use_bias=False)
    cell.build((None, 3))
    assert cell.bias is None
    copy = cells.SLSTMCell.from_config(cell.get_config())
    assert copy.use_bias is False


def test_the_forget_gates_of_an_slstm_start_alike_with_either_function():
    bias = initializers.Chrono(50, seed=1)
    b = {}
    for forget_gate in ("sigmoid", "exponential"):
        cell = cells.SLSTMCell(100, forget_gate=forget_gate, bias_initializer=bias)
        cell.build((None, 3))
        b[forget_gate] = np.split(np.array(cell.bias, "float64"), 4)[1]
    np.testing.assert_allclose(np.exp(b["exponential"]), 1 / (1 + np.exp(-b["sigmoid"])), rtol=1e-5)


def test_forget_bias_starts_at_one():
    cell = cells.LSTMCell(3, bias_initializer=keras.initializers.Constant(0.5))
    cell.build((None, 2))
    np.testing.assert_array_equal(cell.bias, np.repeat([0.5, 1, 0.5, 0.5], 3))
    plain = cells.LSTMCell(3, unit_forget_bias=False)
    plain.build((None, 2))
    np.testing.assert_array_equal(plain.bias, np.zeros(12))


@pytest.mark.parametrize("implementation", [1, 2])
def test_dropout_masks_are_per_gate_only_with_implementation_1(implementation):
    cell = cells.LSTMCell(4, dropout=0.5, implementation=implementation)
    masks, recurrent = cell.noise(ops.ones((2, 7, 3)), [ops.ones((2, 4))] * 2, training=True)[:2]
    assert len(masks) == (4 if implementation == 1 else 1)
    assert recurrent == (None,)
    # One mask for all steps, and what is kept is scaled up to keep the mean.
    assert masks[0].shape == (2, 1, 3)
    assert set(np.unique(masks[0])) <= {0.0, 2.0}


def test_gates_with_masks_of_their_own_see_their_own_inputs(rng, random_weights):
    cell = cells.LSTMCell(4, dtype="float64")
    cell.build((None, 3))
    random_weights(cell)
    x = rng.normal(size=(2, 5, 3))
    masks = [rng.integers(0, 2, size=(2, 1, 3)) * 2.0 for _ in range(4)]
    W, _, b = cell.get_weights()
    expected = np.concatenate(
        [(x * m) @ w for m, w in zip(masks, np.split(W, 4, axis=1), strict=True)], axis=-1
    )
    np.testing.assert_allclose(cell.project(x, masks), expected + b, rtol=1e-12)

    h = rng.normal(size=(2, 4))
    state_masks = [rng.integers(0, 2, size=(2, 4)) * 2.0 for _ in range(4)]
    U = np.split(cell.get_weights()[1], 4, axis=1)
    expected = np.concatenate([(h * state_masks[k]) @ U[k] for k in (1, 2)], axis=-1)
    np.testing.assert_allclose(cell.product("fg", h, state_masks), expected, rtol=1e-12)


@pytest.mark.parametrize("units", [0, -3, 2.5, "8", True, None])
def test_bad_units(units):
    with pytest.raises(ValueError, match=r"`units` must be a positive integer.*units="):
        cells.GRUCell(units)


@pytest.mark.parametrize("argument", ["dropout", "recurrent_dropout"])
def test_bad_dropout(argument):
    for rate in (1.5, -0.1, None, "0.1"):
        with pytest.raises(ValueError, match=rf"`{argument}` must lie in \[0, 1\).*{argument}="):
            cells.GRUCell(3, **{argument: rate})


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("activation", "tahn"),
        ("recurrent_activation", "sigmod"),
        ("kernel_initializer", "glrot"),
        ("bias_regularizer", "l3"),
        ("recurrent_constraint", 7),
        ("use_bias", "no"),
        ("reset_after", None),
        ("implementation", 3),
    ],
)
def test_an_error_names_the_argument_and_the_value(argument, value):
    with pytest.raises(ValueError, match=rf"^`{argument}` must be .*{argument}={value!r}$"):
        cells.GRUCell(3, **{argument: value})


def test_bad_inputs_of_a_step():
    cell = cells.LSTMCell(3)
    x, h = np.ones((2, 4), "float32"), np.ones((2, 3), "float32")
    with pytest.raises(ValueError, match=r"`states` must hold 2, each \(batch, 3\): h, c.*1 of"):
        cell(x, [h])
    with pytest.raises(ValueError, match=r"`inputs` must have rank 2.*shape=\(2, 1, 4\)"):
        cell(x[:, None], [h, h])
    with pytest.raises(ValueError, match=r"built for 4 features.*of 3 features"):
        cell(x[:, :3], [h, h])


def test_unknown_cell_lists_the_known():
    with pytest.raises(ValueError, match=r"simple_rnn, lstm, gru.*cell='grru'"):
        cells.get("grru")


@pytest.mark.parametrize("argument", ["features", "units"])
def test_a_table_of_no_size(argument):
    with pytest.raises(ValueError, match=rf"`{argument}` must be a positive integer.*{argument}=0"):
        cells.describe(**{argument: 0})


@pytest.mark.parametrize(
    "initializer", ["orthogonal", "identity", initializers.PerGate("orthogonal")]
)
def test_an_initializer_of_matrices_for_a_vector(initializer):
    layer = layers.RNN("indrnn", units=3, recurrent_initializer=initializer)
    rule = r"`recurrent_initializer` of IndRNNCell must be one for vectors.*_initializer=<"
    with pytest.raises(ValueError, match=rule):
        layer.build((None, None, 2))


@pytest.mark.parametrize("number", [np.int64, np.int32])
def test_numbers_may_be_numpys(number):
    cell = cells.LSTMCell(number(4), dropout=np.float32(0.5))
    config = cell.get_config()
    assert (config["units"], config["dropout"]) == (4, 0.5)
    assert (type(config["units"]), type(config["dropout"])) == (int, float)


def test_a_subclass_with_a_constructor_of_its_own(rng):
    @keras.saving.register_keras_serializable("test_cells")
    class Scaled(cells.LSTMCell):
        def __init__(self, units, scale=2.0, **kwargs):
            super().__init__(units, **kwargs)
            self.scale = scale

        def step(self, x, states, product):
            return super().step(self.scale * x, states, product)

        def get_config(self):
            return super().get_config() | {"scale": self.scale}

    cell = Scaled(3, scale=3.0, dropout=0.1)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(cell))
    assert (copy.scale, copy.dropout, copy.get_config()) == (3.0, 0.1, cell.get_config())


@pytest.mark.parametrize("name", ["simple_rnn", "lstm", "gru", "mgu", "rhn", "ran", "nas"])
def test_regularizers_and_constraints_reach_their_weights(name):
    cell = cells.get(name)(
        3,
        kernel_regularizer=keras.regularizers.L1(1.0),
        recurrent_regularizer=keras.regularizers.L1(10.0),
        bias_regularizer=keras.regularizers.L1(100.0),
        kernel_constraint=keras.constraints.MaxNorm(1.0),
        recurrent_constraint=keras.constraints.MaxNorm(2.0),
        bias_constraint=keras.constraints.MaxNorm(3.0),
    )
    cell.build((None, 2))
    cell.set_weights([np.ones(w.shape) for w in cell.weights])
    sizes = [np.prod(w.shape) for w in cell.weights]
    losses = sorted(map(float, map(np.array, cell.losses)))
    np.testing.assert_allclose(losses, sorted(np.multiply(sizes, [1, 10, 100])))
    limits = [w.constraint.max_value for w in (cell.kernel, cell.recurrent_kernel, cell.bias)]
    assert limits == [1.0, 2.0, 3.0]


def test_the_seed_fixes_the_masks():
    def mask(seed):
        cell = cells.GRUCell(3, dropout=0.5, seed=seed)
        return cell.noise(ops.ones((20, 4)), [ops.ones((20, 3))], training=True).inputs[0]

    np.testing.assert_array_equal(mask(1), mask(1))
    assert not np.array_equal(mask(1), mask(2))


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("use_bias", [True, False])
def test_flipping_the_update_gate(reset_after, use_bias, rng, random_weights):
    options = {"reset_after": reset_after, "use_bias": use_bias, "dtype": "float64"}
    keep = cells.GRUCell(5, **options)
    write = cells.GRUCell(5, update_gate="write", **options)
    for cell in (keep, write):
        cell.build((None, 3))
    random_weights(keep)
    write.set_weights(cells.flip_update_gate(keep.get_weights()))
    x, h = rng.normal(size=(4, 3)), rng.normal(size=(4, 5))
    np.testing.assert_allclose(write(x, [h])[0], keep(x, [h])[0], rtol=1e-12)
    for back, weight in zip(
        cells.flip_update_gate(write.get_weights()), keep.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(back, weight)


def ones(*shapes):
    return [np.ones(shape) for shape in shapes]


@pytest.mark.parametrize(
    ("weights", "received"),
    [
        (ones((2, 12), (3, 12), (12,)), r"a list of the shapes \[\(2, 12\), \(3, 12\), \(12,\)\]"),
        (ones((2, 9), (3, 9), (3, 9)), r"\(3, 9\), \(3, 9\)\]"),
        (ones((9,), (3, 9)), r"\[\(9,\), \(3, 9\)\]"),
        (2 * ones((2, 9), (3, 9), (9,)), "shapes"),
        ([[[1.0] * 9] * 2, [[1.0] * 9] * 3], r"\[\(\), \(\)\]"),
        (np.ones((2, 3, 9)), "a ndarray of"),
        (None, "a NoneType of"),
        ("zr", "a str of"),
    ],
)
def test_what_are_no_weights_of_one_gru(weights, received):
    rule = r"`weights` must be a list of a GRU's arrays.*once per layer or direction.*Received: .*"
    with pytest.raises(ValueError, match=rule + received):
        cells.flip_update_gate(weights)


ARRAYS = [np.array([True, False]), np.zeros(0), np.array([1])]
ARRAYS += [ops.ones(2), ops.convert_to_tensor(True)]


@pytest.mark.parametrize("value", [*ARRAYS, [1], (), {}, None, "yes"])
@pytest.mark.parametrize(
    ("argument", "rule"),
    [
        ("update_gate", "'keep' or 'write'"),
        ("implementation", "0, 1 or 2"),
        ("reset_after", "True or False"),
        ("units", "a positive integer"),
    ],
)
def test_what_is_no_choice(argument, rule, value):
    with pytest.raises(ValueError, match=rf"`{argument}` must be {rule}. Received: {argument}="):
        cells.GRUCell(**{"units": 3, argument: value})


@pytest.mark.parametrize("truth", [1, np.True_, np.int64(1)])
def test_choices_are_kept_as_they_are_named(truth):
    cell = cells.GRUCell(np.int64(3), reset_after=truth, implementation=np.int64(1))
    assert cell.reset_after is True
    assert (type(cell.units), type(cell.implementation)) == (int, int)


LINEAR = [("qrnn", {}), ("mingru", {}), ("minlstm", {}), ("lru", {}), ("rg_lru", {})]
LINEAR += [("sru", {"peephole": False})]


def test_which_cells_are_linear():
    linear = {name for name, cell_class in cells.CELLS.items() if cell_class(3).linear}
    assert linear == {name for name, _ in LINEAR} - {"sru"}
    assert cells.SRUCell(3, peephole=False).linear
    assert cells.MinGRUCell(3, zoneout=0.1).linear


@pytest.mark.parametrize(("name", "options"), LINEAR)
def test_coefficients_of_all_steps_at_once(name, options, rng, random_weights):
    """h_t = a_t h_{t-1} + b_t, and the outputs of all steps, are what single steps give."""
    cell = cells.get(name)(5, dtype="float64", **options)
    cell.build((None, 3))
    random_weights(cell)
    x = rng.normal(size=(2, 6, 3))
    projected = cell.project(x)
    a, b = cell.coefficients(projected)
    if len(cell.states) == 2:
        a, b = (re + 1j * im for re, im in (map(np.array, part) for part in (a, b)))
    a, b = np.array(a), np.array(b)
    a = np.broadcast_to(a, b.shape)
    h, history = np.zeros((2, 5)), []
    states = [np.zeros((2, 5)) for _ in cell.states]
    outputs = []
    for t in range(6):
        h = a[:, t] * h + b[:, t]
        history.append(h)
        output, states = cell(x[:, t], states)
        outputs.append(np.array(output))
    history = np.stack(history, axis=1)
    parts = [history.real, history.imag] if len(cell.states) == 2 else [history]
    for part, state in zip(parts, states, strict=True):
        np.testing.assert_allclose(part[:, -1], state, rtol=1e-10)
    shown = cell.output(projected, [ops.convert_to_tensor(part) for part in parts])
    np.testing.assert_allclose(shown, np.stack(outputs, axis=1), rtol=1e-10)


@pytest.mark.parametrize("name", ["minlstm", "rg_lru", "slstm", "mingru", "qrnn"])
def test_gates_that_are_shut_or_open_to_the_last_bit(name, rng, random_weights):
    cell = cells.get(name)(4)
    cell.build((None, 3))
    random_weights(cell)
    states = [ops.zeros((2, 4)) for _ in cell.states]
    for scale in (-1e3, 1e3):
        bias = np.full(cell.bias.shape, scale, "float32")
        cell.bias.assign(bias)
        x = rng.normal(size=(2, 3)).astype("float32")

        def results_and_loss():
            output, new_states = cell(x, states)  # noqa: B023
            return [output, *new_states], ops.sum(output)

        results, found = gradients(results_and_loss, [], cell.trainable_weights)
        assert all(np.isfinite(np.array(v)).all() for v in (*results, *found))


def test_the_lru_starts_on_its_ring():
    cell = cells.LRUCell(4000, r_min=0.6, r_max=0.8, max_phase=1.0)
    cell.kernel_initializer = cell.output_initializer = keras.initializers.Zeros()
    cell.build((None, 1))
    (re, im), _ = cell.coefficients(ops.zeros((1, 12000)))
    values = np.array(re) + 1j * np.array(im)
    radius, phase = np.abs(values), np.angle(values)
    # Even over the ring: the square of the radius is uniform.
    share = np.sort((radius**2 - 0.36) / 0.28)
    even = (np.arange(4000) + 0.5) / 4000
    assert np.abs(share - even).max() < 0.05
    assert np.abs(np.sort(phase) - even).max() < 0.05
    np.testing.assert_allclose(np.exp(cell.gamma_log), np.sqrt(1 - radius**2), rtol=1e-4)


def test_the_rg_lru_starts_with_long_memories():
    cell = cells.RGLRUCell(4000)
    cell.build((None, 1))
    power = np.sort((1 / (1 + np.exp(-np.array(cell.recurrence, "float64")))) ** 8)
    even = 0.9 + 0.099 * (np.arange(4000) + 0.5) / 4000
    assert np.abs(power - even).max() < 0.005


def test_the_stabilizer_cancels(rng, random_weights):
    """An sLSTM's h does not depend on the m its c and n were divided by."""
    cell = cells.SLSTMCell(4, dtype="float64")
    cell.build((None, 3))
    random_weights(cell)
    x = rng.normal(size=(2, 3))
    h, c, n, m = random_states(cell, rng, 2)
    shifted = [h, c * np.exp(-2.0), n * np.exp(-2.0), m + 2.0]
    np.testing.assert_allclose(cell(x, shifted)[0], cell(x, [h, c, n, m])[0], rtol=1e-10)
