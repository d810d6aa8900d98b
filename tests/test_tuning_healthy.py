"""Trials that their gradients say are lost."""

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

from kerasrnn import layers, tuning
from kerasrnn.callbacks import GradientNormMonitor
from kerasrnn.tuning.healthy import first_batch

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1600, 12, 2)).astype("float32")
Y = X[:, :, 0].mean(1, keepdims=True)
# keras-tuner 1.4 asks for the thread by a name that Python has deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:getName:DeprecationWarning"),
]


def net(rate=0.01, initializer="orthogonal", optimizer="adam"):
    model = keras.Sequential(
        [
            keras.Input((None, 2)),
            layers.SimpleRNN(4, recurrent_initializer=initializer),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.get({"class_name": optimizer, "config": {}}), "mse")
    model.optimizer.learning_rate = rate
    return model


def search(folder, build, objective="loss", trials=2, epochs=3, callbacks=(), x=X, y=Y, **options):
    if isinstance(objective, str):
        objective = tuning.HealthyObjective(objective, **options)
    made = tuning.GridSearch(build, objective, max_trials=trials, seed=0, directory=folder)
    made.search(x, y, batch_size=16, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return made


def by_choice(table, name):
    return {row["hyperparameters"][name]: row for row in table}


def test_a_rate_that_is_too_high_is_given_up(tmp_path):
    made = search(tmp_path, lambda hp: net(hp.Choice("rate", [0.01, 30.0]), optimizer="sgd"))
    rows = by_choice(made.trials_table(), "rate")
    assert rows[30.0]["verdict"] in ("LEARNING RATE", "NON-FINITE")
    assert (rows[30.0]["score"], rows[30.0]["epochs"]) == (None, 1)
    assert rows[0.01]["epochs"] == 3
    assert made.get_best_hyperparameters()[0].values == {"rate": 0.01}
    # What the gradients were is there to be looked at.
    records = sorted(tmp_path.rglob("trial_*/gradient_norms.csv"))
    assert len(records) == 2


def test_a_gradient_that_vanishes_has_to_have_learned(tmp_path):
    """By weights of hardly anything nothing comes back a step, which does no harm where the last
    step is all that matters."""
    tiny = keras.initializers.RandomNormal(stddev=1e-3)
    choices = {"small": tiny, "orthogonal": "orthogonal"}

    def build(hp):
        return net(0.01, choices[hp.Choice("weights", list(choices))])

    made = search(tmp_path / "far", build, y=X[:, 0, :1], patience=1)
    rows = by_choice(made.trials_table(), "weights")
    assert rows["small"]["verdict"] == "VANISHING"
    assert (rows["small"]["score"], rows["small"]["epochs"]) == (None, 1)
    (message,) = (trial.message for trial in made.oracle.trials.values() if trial.message)
    assert message.startswith("VANISHING: simple_rnn")
    near = search(tmp_path / "near", build, y=X[:, -1, :1], patience=1)
    assert all(row["score"] is not None for row in near.trials_table())


@pytest.mark.slow
def test_patience(tmp_path):
    tiny = keras.initializers.RandomNormal(stddev=1e-3)
    with pytest.raises(RuntimeError, match=r"VANISHING"):
        search(tmp_path, lambda hp: net(0.01, tiny), y=X[:, 0, :1], patience=2, trials=1)
    (record,) = tmp_path.rglob("record.json")
    assert '"epochs": 2' in record.read_text()


def test_what_is_not_finite_at_the_start_is_seen_before_an_update(tmp_path):
    def build(hp):
        model = net()
        if hp.Boolean("broken"):
            kernel = model.layers[0].trainable_variables[1]
            kernel.assign(np.full(kernel.shape, np.nan, "float32"))
        return model

    made = search(tmp_path, build, trials=2)
    rows = by_choice(made.trials_table(), "broken")
    assert rows[True]["verdict"] == "NON-FINITE"
    assert "at the start" in next(t.message for t in made.oracle.trials.values() if t.message)
    assert rows[False]["score"] is not None


def test_a_monitor_of_the_users_is_the_one_that_is_read(tmp_path):
    monitor = GradientNormMonitor(csv="norms.csv")
    search(tmp_path, lambda hp: net(hp.Choice("rate", [0.01])), trials=1, callbacks=[monitor])
    assert len(list(tmp_path.rglob("norms.csv"))) == 1
    assert not list(tmp_path.rglob("gradient_norms.csv"))


def test_models_without_a_recurrent_layer_are_watched_by_their_norms(tmp_path):
    def build(hp):
        model = keras.Sequential([keras.Input((12, 2)), keras.layers.Flatten()])
        model.add(keras.layers.Dense(1))
        model.compile(keras.optimizers.SGD(hp.Choice("rate", [1e-3, 100.0])), "mse")
        return model

    rows = by_choice(search(tmp_path, build).trials_table(), "rate")
    assert rows[1e-3]["score"] is not None
    assert rows[100.0]["score"] is None


def test_one_of_several_objectives_and_no_winner(tmp_path):
    objectives = [tuning.HealthyObjective("loss"), keras_tuner.Objective("loss", "min")]
    with pytest.raises(RuntimeError, match=r"No trial of 1 .*: (LEARNING RATE|NON-FINITE): "):
        search(tmp_path, lambda hp: net(30.0, optimizer="sgd"), objectives, trials=1)


@pytest.mark.parametrize(
    "data",
    [
        lambda: (X, Y),
        lambda: (tf.data.Dataset.from_tensor_slices((X, Y)).batch(32),),
        lambda: (({"a": X, "b": X}), Y),
    ],
    ids=["arrays", "dataset", "dictionary"],
)
def test_the_first_samples(data):
    x, y = first_batch(data(), {}, 8)
    for part in x.values() if isinstance(x, dict) else [x]:
        np.testing.assert_array_equal(part, X[:8])
    np.testing.assert_array_equal(y, Y[:8])


def test_a_generator_keeps_its_samples():
    batches = iter([(X, Y)])
    assert first_batch((batches,), {}, 8) is None
    assert len(list(batches)) == 1


def test_directions():
    assert tuning.HealthyObjective("val_accuracy").direction == "max"
    assert tuning.HealthyObjective("val_score", "max").direction == "max"
    assert tuning.HealthyObjective("loss", patience=3) == keras_tuner.Objective("loss", "min")
    with pytest.raises(ValueError, match="val_score"):
        tuning.HealthyObjective("val_score")
    with pytest.raises(ValueError, match=r"`direction` must be.*'up'"):
        tuning.HealthyObjective("loss", "up")
    with pytest.raises(ValueError, match=r"`patience` must be a positive integer.*0"):
        tuning.HealthyObjective("loss", patience=0)
    with pytest.raises(ValueError, match=r"`samples` must be a positive integer.*2.5"):
        tuning.HealthyObjective("loss", samples=2.5)
