"""What is known of a step, and which cells share a program by it."""

import random

import keras
import numpy as np
import pytest
from two_paths import KINDS, X

from kerasrnn import cells, layers, recurrence
from kerasrnn.recurrence import program, structure


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["tanh", "relu", "hard_sigmoid"])
@pytest.mark.parametrize("units", [1, 2, 5])
def test_what_a_program_knows_of_its_cell(kind, activation, units):
    """Only a reset gate between U h and the sum keeps the two apart."""
    cls, fixed = KINDS[kind]
    cell = cls(units, activation=activation, **fixed).cell
    known = structure.observed(structure.pattern(cell, dtype="float64"))
    assert known.summed == (kind not in ("gru", "gru_without_bias"))
    assert known.inner == []


def test_layers_alike_share_a_program(monkeypatch, take_path):
    monkeypatch.setattr(program, "_PROGRAMS", {})
    take_path("programs")
    stack = layers.RNNStack("lstm", 4, 3, bidirectional=True, dropout=0.1)
    model = keras.Sequential([keras.Input((6, 8)), stack, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 6, 8)), np.ones((4, 1)), verbose=0)
    (one,) = program._PROGRAMS.values()
    assert one.forward.experimental_get_tracing_count() == 1
    assert one.backward.experimental_get_tracing_count() == 1
    # The program holds no model's weights.
    assert one.cell.kernel.shape[0] == 1
    other = keras.Sequential([keras.Input((6, 8)), layers.GRU(4), keras.layers.Dense(1)])
    other.compile("sgd", "mse")
    other.fit(np.ones((4, 6, 8)), np.ones((4, 1)), verbose=0)
    assert len(program._PROGRAMS) == 2


class Scaled(cells.SimpleRNNCell):
    """h_t = scale_seed tanh(W x_t + U h_{t-1} + b), with an option of an unlucky name."""

    def __init__(self, units, scale_seed=1.0, **kwargs):
        self._configure(__class__, locals())

    def step(self, x, states, product):
        return (self.scale_seed * super().step(x, states, product)[0],)


def test_an_option_counts_whatever_its_name(random_weights, monkeypatch, take_path):
    """Of two cells that differ in it each runs its own step."""
    monkeypatch.setitem(cells.CELLS, "scaled", Scaled)
    take_path("programs")
    plain, doubled = (
        layers.RNN("scaled", units=5, scale_seed=scale, activation="linear") for scale in (1.0, 2.0)
    )
    x = X[:, :1].astype("float32")
    for layer in (plain, doubled):
        layer.build(x.shape)
    random_weights(plain)
    doubled.set_weights(plain.get_weights())
    np.testing.assert_allclose(doubled(x), 2 * np.array(plain(x)), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("lstm", {"kernel_initializer": "ones", "unit_forget_bias": False, "dropout": 0.5}),
        (
            "gru",
            {"recurrent_dropout": 0.1, "seed": 3, "name": "other", "bias_constraint": "non_neg"},
        ),
        ("lru", {"r_min": 0.5, "max_phase": 1.0, "output_initializer": "zeros"}),
    ],
)
def test_what_lies_outside_of_a_step_does_not_count(name, changes):
    plain, changed = cells.get(name)(4), cells.get(name)(4, **changes)
    assert structure.step_key(plain) == structure.step_key(changed)
    assert structure.step_key(plain) != structure.step_key(cells.get(name)(5))


@pytest.mark.parametrize("name", cells.CELLS)
def test_programs_draw_nothing_at_random(name):
    """A seeded run must not depend on which programs are there already."""
    cell = cells.get(name)(4, seed=3)
    before = random.getstate()
    structure.pattern(cell)
    assert random.getstate() == before


class Decaying(cells.SimpleRNNCell):
    """Has an initializer more than its base knows of, and draws from it."""

    def __init__(self, units, decay_initializer="glorot_uniform", **kwargs):
        self._configure(__class__, locals())

    def build_own(self, input_shape):
        self.decay = self.add_weight(
            shape=(self.units,), initializer=self.decay_initializer, name="decay"
        )


def test_nor_for_an_initializer_of_a_user_s_cell():
    cell = Decaying(4)
    before = random.getstate()
    made = structure.pattern(cell)
    assert random.getstate() == before
    assert made.decay.shape == (4,)


class Halving(keras.regularizers.Regularizer):
    def __call__(self, w):
        return 0.5 * keras.ops.sum(w)

    def get_config(self):
        return {}


def test_what_a_scope_of_custom_objects_knows_need_not_be_known_outside_of_it():
    """Programs are made in another thread."""
    with keras.saving.custom_object_scope({"Halving": Halving}):
        # Of 7 units, as no other test has it: the program is not there yet.
        layer = layers.LSTM(7, kernel_regularizer=Halving(), name="lstm")
        model = keras.Sequential([layer])
        model.compile("sgd", "mse")
        x = np.ones((2, 400, 1), "float32")
        assert recurrence.explain(model, x)["lstm"]["fit"].path == "programs"
        model.fit(x, np.ones((2, 7)), verbose=0)
