import keras
import numpy as np
import pytest

from kerasrnn import cells, initializers, layers

UNITS = 2000


def bias(name, initializer, **options):
    cell = cells.get(name)(UNITS, bias_initializer=initializer, **options)
    # What the bias starts with needs no kernels of this size.
    value = np.array(cell.initial_bias(cell.bias_shape, "float64"))
    assert value.shape == cell.bias_shape
    parts = np.split(value, len(cell.bias_gates), axis=-1)
    return dict(zip(cell.bias_gates, parts, strict=True))


def assert_chrono(b, T_max):
    """exp(b) is uniform in [1, T_max - 1]: by its quantiles."""
    memory = np.sort(np.exp(b))
    uniform = 1 + (T_max - 2) * (np.arange(UNITS) + 0.5) / UNITS
    assert np.abs(memory - uniform).max() < 0.05 * T_max


def test_chrono_of_an_lstm():
    b = bias("lstm", initializers.Chrono(50, seed=1))
    assert_chrono(b["f"], 50)
    np.testing.assert_allclose(b["i"], -b["f"])
    assert not b["g"].any()
    assert not b["o"].any()


@pytest.mark.parametrize(
    ("name", "gate", "sign", "options"),
    [
        ("gru", "z", 1, {"reset_after": False}),
        ("gru", "z", -1, {"reset_after": False, "update_gate": "write"}),
        ("mgu", "f", -1, {}),
        ("janet", "f", 1, {}),
        ("ugrnn", "g", 1, {}),
        ("mingru", "z", -1, {}),
        ("qrnn", "f", 1, {}),
        ("sru", "f", 1, {}),
        ("slstm", "f", 1, {}),
    ],
)
def test_chrono_of_one_gate(name, gate, sign, options):
    b = bias(name, initializers.Chrono(50, seed=1), **options)
    assert_chrono(sign * b.pop(gate), 50)
    assert not any(other.any() for other in b.values())


def test_chrono_of_a_gru_with_two_biases():
    b = bias("gru", initializers.Chrono(50, seed=1))
    assert_chrono(b["z"][0], 50)
    assert not b["z"][1].any()
    assert not b["r"].any()


def test_chrono_at_every_depth():
    b = bias("rhn", initializers.Chrono(50, seed=1), depth=2)
    for gate in ("t1", "t2"):
        assert_chrono(-b[gate], 50)
    assert not b["h1"].any()


def test_a_shorter_memory_than_a_step():
    np.testing.assert_array_equal(bias("lstm", initializers.Chrono(2))["f"], np.zeros(UNITS))
    for T_max in (1, 1.9, -3, "100", None, True, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"`T_max` must be at least 2 steps.*T_max="):
            initializers.Chrono(T_max)


@pytest.mark.parametrize(
    ("kind", "options"), [(cells.NASCell, {}), (cells.LSTMCell, {"use_bias": False})]
)
def test_a_cell_with_no_bias_to_keep_by(kind, options):
    rule = rf"{kind.__name__} with use_bias=\w+ has no bias of a gate.*bias_initializer=Chrono"
    with pytest.raises(ValueError, match=rule):
        kind(3, bias_initializer=initializers.Chrono(9), **options)


def test_forget_bias():
    b = bias("lstm", initializers.ForgetBias(2.0))
    assert set(b["f"]) == {2.0}
    assert not any(b[gate].any() for gate in "igo")
    assert set(bias("mgu", initializers.ForgetBias(2.0))["f"]) == {-2.0}
    assert set(bias("gru", initializers.ForgetBias(2.0))["z"][0]) == {2.0}


@pytest.mark.parametrize("value", ["a", None, True, float("inf")])
def test_what_is_no_bias(value):
    with pytest.raises(ValueError, match=rf"`value` must be a finite number.*value={value!r}"):
        initializers.ForgetBias(value)


@pytest.mark.parametrize("value", ["foo", None, 3])
def test_what_initializes_no_gate(value):
    with pytest.raises(ValueError, match=rf"`initializer` must be .*initializer={value!r}"):
        initializers.PerGate(value)


def test_squares_of_their_own():
    value = np.array(initializers.PerGate("orthogonal")((4, 12)))
    blocks = np.split(value, 3, axis=1)
    for block in blocks:
        np.testing.assert_allclose(block @ block.T, np.eye(4), atol=1e-5)
    assert not np.allclose(blocks[0], blocks[1])
    np.testing.assert_array_equal(
        initializers.PerGate("identity")((3, 6)), np.tile(np.eye(3), (1, 2))
    )
    seeded = initializers.PerGate(keras.initializers.Orthogonal(seed=3))
    np.testing.assert_array_equal(seeded((4, 8)), seeded((4, 8)))
    with pytest.raises(ValueError, match=r"`PerGate` is for recurrent kernels.*\(4, 6\)"):
        initializers.PerGate()((4, 6))


@pytest.mark.parametrize(
    ("option", "initializer"),
    [
        ("bias_initializer", initializers.Chrono(9, seed=1)),
        ("bias_initializer", initializers.ForgetBias(2.0)),
        ("bias_initializer", initializers.PowerLaw(1.6)),
        ("kernel_initializer", initializers.SRUKernel(peephole=False, seed=3)),
        ("kernel_initializer", initializers.LRUKernel(seed=3)),
        ("recurrent_initializer", initializers.PerGate("he_normal")),
    ],
)
def test_configuration_survives(option, initializer):
    config = keras.saving.serialize_keras_object(initializer)
    copy = keras.saving.deserialize_keras_object(config)
    assert keras.saving.serialize_keras_object(copy) == config
    layer = layers.LSTM(3, **{option: initializer})
    again = layers.LSTM.from_config(layer.get_config())
    assert type(getattr(again, option)) is type(initializer)


def test_a_gate_s_initializer_by_itself():
    value = np.array(initializers.Chrono(50, seed=1)((UNITS,)))
    assert_chrono(value, 50)


@pytest.mark.parametrize("option", ["kernel_initializer", "recurrent_initializer"])
def test_what_is_for_a_bias_starts_nothing_else(option):
    with pytest.raises(ValueError, match=f"Chrono is for `bias_initializer`.*{option}=<"):
        layers.LSTM(3, **{option: initializers.Chrono(9)})


def test_power_law():
    value = np.array(initializers.PowerLaw(1.6)((5,), "float64"))
    # NX-AI/xlstm, of the last block.
    np.testing.assert_allclose(value, -(-5 + 12 * (np.arange(5) / 4) ** (0.3 + 1.3)))
    np.testing.assert_array_equal(initializers.PowerLaw()((1,)), [5.0])
    b = bias("gru", initializers.PowerLaw(), reset_after=False, update_gate="write")
    np.testing.assert_allclose(b["z"], -np.array(initializers.PowerLaw()((UNITS,), "float64")))


@pytest.mark.parametrize("value", [0, -0.3, "0.3", None, True, float("nan"), float("inf")])
def test_what_is_no_exponent(value):
    rule = rf"`exponent` must be a finite number above 0.*exponent={value!r}"
    with pytest.raises(ValueError, match=rule):
        initializers.PowerLaw(value)


def test_what_is_no_vector():
    with pytest.raises(ValueError, match=r"`PowerLaw` is for a bias, \(units,\).*\(2, 3\)"):
        initializers.PowerLaw()((2, 3))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
@pytest.mark.parametrize("name", ["sru", "lru", "rg_lru", "slstm"])
def test_weights_of_every_precision(name, dtype):
    cell = cells.get(name)(3, dtype=dtype)
    cell.build((None, 3))
    assert {weight.dtype for weight in cell.weights} == {dtype}


@pytest.mark.parametrize("kind", [initializers.SRUKernel, initializers.LRUKernel])
def test_blocks_of_a_kernel(kind):
    kernel = np.array(kind(seed=3)((5, 24)))
    blocks = np.split(kernel, 4 if kind is initializers.SRUKernel else 3, axis=1)
    # Each is drawn by itself, and with a seed all of them again.
    ratio = blocks[0] / blocks[1]
    assert ratio.std() > 0.1
    np.testing.assert_array_equal(kernel, kind(seed=3)((5, 24)))
    assert not np.array_equal(kernel, kind()((5, 24)))
    with pytest.raises(ValueError, match=rf"`{kind.__name__}` is for kernels.*\(5, 7\)"):
        kind()((5, 7))


def test_what_is_no_peephole():
    with pytest.raises(ValueError, match=r"`peephole` must be True or False.*peephole='no'"):
        initializers.SRUKernel("no")
