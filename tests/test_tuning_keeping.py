"""A training that goes on in another process is the one that was broken off."""

import contextlib
import warnings

import keras
import keras_tuner
import numpy as np
import pytest
from slow import slow_but

import kerasrnn
from kerasrnn import layers
from kerasrnn.callbacks import (
    DivergenceGuard,
    GradientClipping,
    GradientFlowMonitor,
    GradientNormMonitor,
)
from kerasrnn.tuning.folder import StateFile
from kerasrnn.tuning.keeping import EpochKeeper, Resumable

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 5, 3)), RNG.normal(size=(12, 1))
LOSS = keras_tuner.Objective("loss", "min")


def net(stateful=False, built=True):
    first = [keras.Input((5, 3), batch_size=4)] if built else []
    drop = {"dropout": 0.2, "recurrent_dropout": 0.1}
    return keras.Sequential(
        [
            *first,
            layers.LSTM(4, return_sequences=True, stateful=stateful, **drop),
            keras.layers.BatchNormalization(),
            layers.GRU(3),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(1),
        ]
    )


def optimizers():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)
    return {
        "adam": keras.optimizers.Adam(0.05),
        "averaged": keras.optimizers.SGD(schedule, momentum=0.9, use_ema=True),
        "accumulating": keras.optimizers.RMSprop(0.01, gradient_accumulation_steps=2),
    }


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def train(path, optimizer, stop=False, stateful=False, built=True, rate=True):
    """The weights and the logs of 4 epochs that go on from what is in the file."""
    keras.utils.set_random_seed(3)
    model = net(stateful, built)
    model.compile(optimizers()[optimizer], "mse", run_eagerly=True)
    plateau = keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=0.5)
    callbacks = [GradientNormMonitor(), *[plateau] * rate]
    file = StateFile(path / "state.pickle")
    keeper = EpochKeeper(file, [7], LOSS, callbacks)
    first = keeper.first_epoch(0, 4)
    fitted = {"batch_size": 4, "epochs": 4, "initial_epoch": first, "verbose": 0}
    try:
        history = model.fit(X, Y, callbacks=[*callbacks, keeper, *[Stop()] * stop], **fitted)
    except KeyboardInterrupt:
        return None
    norms = callbacks[0].history["global_norm"]
    return first, model.get_weights(), history.history, history.epoch, norms


@pytest.mark.parametrize("optimizer", slow_but(["averaged"], optimizers()))
@pytest.mark.parametrize("stateful", slow_but([True], [False, True]))
def test_goes_on_as_if_nothing_had_been(optimizer, stateful, tmp_path):
    options = {"stateful": stateful, "rate": optimizer != "averaged"}
    _, *whole = train(tmp_path / "whole", optimizer, **options)
    assert train(tmp_path / "parts", optimizer, stop=True, **options) is None
    first, *parts = train(tmp_path / "parts", optimizer, **options)
    assert first == 2
    for one, other in zip(whole[0], parts[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
    assert whole[2] == parts[2] == [0, 1, 2, 3]
    assert whole[1].keys() == parts[1].keys()
    for name in whole[1]:
        np.testing.assert_allclose(whole[1][name], parts[1][name], rtol=1e-6)
    np.testing.assert_allclose(whole[3], parts[3], rtol=1e-5)
    # Of a training that has ended nothing is trained again.
    first, *again = train(tmp_path / "parts", optimizer, **options)
    assert first == 4
    assert again[2] == [0, 1, 2, 3]
    assert again[1] == parts[1]


def test_a_model_that_is_built_by_its_data(tmp_path):
    _, *whole = train(tmp_path / "whole", "adam", built=False)
    train(tmp_path / "parts", "adam", stop=True, built=False)
    _, *parts = train(tmp_path / "parts", "adam", built=False)
    for one, other in zip(whole[0], parts[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_the_state_of_another_model_is_an_error(tmp_path):
    train(tmp_path, "adam", stop=True)
    with pytest.raises(keras_tuner.errors.FatalValueError, match=r"state\.pickle.*another model"):
        train(tmp_path, "averaged", rate=False)


def test_a_metric_of_several_numbers(tmp_path):
    histories = []
    for _ in range(2):
        model = keras.Sequential([keras.Input((5, 3)), layers.GRU(2, activation="softmax")])
        f1 = keras.metrics.F1Score(average=None, name="f1")
        model.compile("sgd", "mse", metrics=[f1], run_eagerly=True)
        keeper = EpochKeeper(StateFile(tmp_path / "state.pickle"), [7], LOSS, [])
        first = keeper.first_epoch(0, 2)
        fitted = model.fit(
            X, np.eye(2)[[0, 1] * 6], epochs=2, initial_epoch=first, callbacks=[keeper], verbose=0
        )
        histories.append(fitted.history["f1"])
    assert np.shape(histories[0]) == (2, 2)
    np.testing.assert_allclose(*histories)


@pytest.mark.parametrize("losses", [[1.0, np.nan, 1.0], [np.inf]])
def test_what_is_not_finite_ends_the_training(losses, tmp_path):
    class Says(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["loss"] = losses[epoch]

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    file = StateFile(tmp_path / "state.pickle")
    keeper = EpochKeeper(file, [7], LOSS, [])
    model.fit(X[:, 0], Y, epochs=9, callbacks=[Says(), keeper], verbose=0)
    at = next(i for i, loss in enumerate(losses) if not np.isfinite(loss))
    assert keeper.lost == f"loss was {losses[at]} after epoch {at + 1}"
    assert keeper.epochs == list(range(at + 1))
    again = EpochKeeper(file, [7], LOSS, [])
    assert (again.lost, again.first_epoch(0, 9)) == (keeper.lost, 9)


def test_weights_that_are_nan_lose_whatever_the_objective_is(tmp_path):
    class Spoil(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["loss"] = 0.0
            kernel, bias = self.model.get_weights()
            self.model.set_weights([kernel * np.nan, bias])

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="head")])
    model.compile("sgd", "mse", run_eagerly=True)
    keeper = EpochKeeper(StateFile(tmp_path / "state.pickle"), [7], LOSS, [])
    model.fit(X[:, 0], Y, epochs=9, callbacks=[Spoil(), keeper], verbose=0)
    assert keeper.lost.endswith("head/kernel held an Inf or NaN after epoch 1")


@pytest.mark.parametrize("name", kerasrnn.callbacks.__all__)
def test_every_callback_of_this_package_is_resumable(name):
    assert issubclass(getattr(kerasrnn.callbacks, name), Resumable)


def broken_off(path, make, optimizer, y, stop=False):
    """A training of 4 epochs, and what it is left with: the weights and the callback."""
    net = [keras.Input((5, 3)), layers.GRU(3, name="gru"), keras.layers.Dense(1)]
    model = keras.Sequential(net, name="net")
    model.set_weights([np.full(w.shape, 0.1) for w in model.get_weights()])
    model.compile(optimizer(), "mse", run_eagerly=True)
    callback = make()
    keeper = EpochKeeper(StateFile(path / "state.pickle"), [7], LOSS, [callback])
    first = keeper.first_epoch(0, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with contextlib.suppress(KeyboardInterrupt):
            model.fit(
                X,
                y,
                batch_size=4,
                epochs=4,
                initial_epoch=first,
                shuffle=False,
                verbose=0,
                callbacks=[callback, keeper, *[Stop()] * stop],
            )
    return model, callback


SPOILT = Y.copy()
SPOILT[1] = np.nan
SGD = keras.optimizers.SGD
KNOWN = {
    "percentile": (
        lambda: GradientClipping("percentile", 50),
        lambda: SGD(0.1),
        Y,
        lambda clipping: [clipping.threshold],
    ),
    "zscore": (
        lambda: GradientClipping("zscore"),
        lambda: SGD(0.1),
        Y,
        lambda clipping: [one[1].numpy() for one in clipping._clip._variables()],
    ),
    "guard": (
        lambda: DivergenceGuard(max_skips=9),
        lambda: SGD(0.1),
        SPOILT,
        lambda guard: [guard.skipped, *guard.first_nonfinite],
    ),
    # Every skip is one too many: it goes back in each of the epochs.
    "guard that goes back": (
        lambda: DivergenceGuard(max_skips=1, max_rollbacks=4),
        lambda: SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)),
        SPOILT,
        lambda guard: [guard.skipped, guard.rollbacks, *guard.first_nonfinite],
    ),
    "flow": (
        lambda: GradientFlowMonitor(X, Y),
        lambda: SGD(0.1),
        Y,
        lambda monitor: [monitor.epochs, *(flow.norms["gru"] for flow in monitor.history)],
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_a_callback_knows_goes_on(name, tmp_path):
    make, optimizer, y, known = KNOWN[name]
    whole, callback = broken_off(tmp_path / "whole", make, optimizer, y)
    broken_off(tmp_path / "parts", make, optimizer, y, stop=True)
    parts, again = broken_off(tmp_path / "parts", make, optimizer, y)
    for one, other in zip(known(callback), known(again), strict=True):
        if isinstance(one, str):
            assert one == other
        else:
            np.testing.assert_allclose(one, other, rtol=1e-6)
    for one, other in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
