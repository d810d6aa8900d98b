"""Updates that are skipped and states that are restored, against fits in which nothing was ill."""

import copy
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from slow import slow_but
from small import BATCH, LABELS, SGD, TOKENS, assert_same, build, compiled, fit

from kerasrnn import layers
from kerasrnn.callbacks import DivergenceGuard, GradientClipping, GradientNormMonitor
from kerasrnn.files import Address
from kerasrnn.updates.hook import METHODS
from kerasrnn.updates.scaled_schedule import ScaledSchedule

Adam = keras.optimizers.Adam
BAD = 2  # The batch of six with the NaN.
ILL = LABELS.copy()
ILL[BAD * BATCH + 5] = np.nan
GOOD = np.r_[0 : BAD * BATCH, (BAD + 1) * BATCH : len(TOKENS)]
skips = pytest.warns(UserWarning, match="DivergenceGuard skipped")


def fit_without(model, *callbacks, epochs=2, **options):
    """A fit that leaves the bad batch out."""
    options = {"batch_size": BATCH, "shuffle": False, "verbose": 0, "epochs": epochs} | options
    return model.fit(TOKENS[GOOD], LABELS[GOOD], callbacks=list(callbacks), **options)


def assert_equal_state(model, other):
    """Weights and optimizer, to the last bit but for what XLA rounds."""
    mine, others = (m.weights + m.optimizer.variables for m in (model, other))
    for a, b in zip(mine, others, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-7, err_msg=a.path)


MODES = {
    "sgd": (lambda: SGD(0.1), {}),
    "adam and eager": (lambda: Adam(0.01), {"run_eagerly": True}),
    "average": (lambda: Adam(0.01, use_ema=True, ema_overwrite_frequency=3), {}),
    "xla": (lambda: Adam(0.01, weight_decay=0.1), {"jit_compile": True}),
    "steps_per_execution": (lambda: Adam(0.01, clipnorm=0.1), {"steps_per_execution": 4}),
    "accumulation": (lambda: Adam(0.01, gradient_accumulation_steps=2), {}),
    "schedule": (lambda: SGD(keras.optimizers.schedules.CosineDecay(0.1, 12)), {}),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_nan_costs_one_step(mode):
    optimizer, options = MODES[mode]
    guarded, other = (compiled(optimizer(), sparse=True, **options) for _ in range(2))
    guard = DivergenceGuard()
    with skips:
        history = fit(guarded, guard, labels=ILL)
    expected = fit_without(other)
    assert_equal_state(guarded, other)
    assert (guard.skipped, guard.rollbacks) == (2, 0)
    update = 1 if mode == "accumulation" else BAD
    assert guard.first_nonfinite == (update, guarded.trainable_variables[0].path)
    if mode == "steps_per_execution":
        assert np.isfinite(history.history["loss"]).all()
    else:
        np.testing.assert_allclose(history.history["loss"], expected.history["loss"], rtol=1e-5)


def test_an_epoch_without_a_batch_left_has_no_loss():
    """Of its six batches one is bad, and leaves out the half or all that is executed with it."""
    means = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: means.append(logs["loss"])
    )
    fit_without(compiled(SGD(0.1)), watch, epochs=1)
    second_half = (5 * means[4] - 2 * means[1]) / 3
    for steps, loss in (3, second_half), (6, np.nan):
        model = build()
        model.compile(SGD(0.1), "mse", metrics=["mae"], steps_per_execution=steps)
        validation = {"validation_data": (TOKENS, LABELS)}
        with skips:
            history = fit(model, DivergenceGuard(), labels=ILL, epochs=1, **validation).history
        assert history["loss"] == pytest.approx([loss], rel=1e-5, nan_ok=True)
        assert np.isnan(history["mae"]) == np.isnan(loss)
        assert history["val_loss"][0] > 0


def test_a_nan_costs_a_plain_fit_everything():
    model = compiled(SGD(0.1, clipnorm=0.1))
    fit(model, labels=ILL)
    assert all(np.isnan(w).all() for w in model.get_weights())


def test_a_guard_with_nothing_to_do_changes_no_bit():
    guarded, plain = (compiled(Adam(0.01), sparse=True) for _ in range(2))
    guard = DivergenceGuard()
    fit(guarded, guard)
    fit(plain)
    assert_same(guarded, plain.get_weights(), rtol=0, atol=0)
    assert (guard.skipped, guard.rollbacks, guard.first_nonfinite) == (0, 0, None)


def test_loss_scaling_skips_by_itself():
    """Its first scale overflows half precision a few times, which is how it finds a good one."""
    optimizer = keras.optimizers.LossScaleOptimizer(SGD(0.1), initial_scale=2.0**30)
    model = compiled(optimizer, dtype="mixed_float16")
    guard = DivergenceGuard(max_skips=1, max_rollbacks=0)
    fit(model, guard, epochs=4)
    assert float(optimizer.dynamic_scale) < 2.0**30
    assert int(optimizer.iterations) < 24
    assert (guard.skipped, guard.rollbacks) == (0, 0)


def test_statistics_and_states_that_a_bad_input_spoils():
    def model():
        keras.utils.set_random_seed(0)
        layers = [keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile(SGD(0.1), "mse", metrics=["mae"])
        return model

    x = np.random.default_rng(0).normal(size=(40, 3))
    x[13, 1] = np.inf
    y, guarded, plain = np.ones((40, 1)), model(), model()
    options = {"batch_size": 4, "shuffle": False, "verbose": 0}
    with skips:
        history = guarded.fit(x, y, callbacks=[DivergenceGuard(every=1)], **options)
    keep = np.r_[0:12, 16:40]
    expected = plain.fit(x[keep], y[keep], **options)
    assert_same(guarded, plain.get_weights())
    for name, values in expected.history.items():
        np.testing.assert_allclose(history.history[name], values, rtol=1e-5)


def stateful(kind, optimizer=None, built=True, **options):
    keras.utils.set_random_seed(0)
    rnn = kind(4, stateful=True, dtype=options.pop("dtype", None))
    model = keras.Sequential([rnn, keras.layers.Dense(1)])
    if built:
        model.build((4, 5, 3))
        # Not the initial ones, which are there again after any reset.
        model(np.ones((4, 5, 3)))
    model.compile(optimizer or Adam(0.01), "mse", **options)
    return model


def states(model):
    return [state.numpy() for state in model.layers[0].states]


SERIES = np.random.default_rng(1).normal(size=(24, 5, 3)), np.ones((24, 1))
STATEFUL = {
    "ours, xla": (layers.SimpleRNN, {"jit_compile": True}),
    "ours, steps_per_execution": (layers.SimpleRNN, {"steps_per_execution": 6, "built": False}),
    "keras": (keras.layers.LSTM, {}),
    "keras, eager": (keras.layers.SimpleRNN, {"run_eagerly": True, "built": False}),
}


@pytest.mark.parametrize("mode", slow_but(["ours, xla", "keras"], STATEFUL))
def test_stateful_layers_go_on_from_before_bad_batches(mode):
    """As if they had not been there. In x a NaN gets into the states, in y it does not."""
    kind, options = STATEFUL[mode]
    guarded, plain = (stateful(kind, **options) for _ in range(2))
    x, y = map(np.copy, SERIES)
    # The first batch where that one builds the model.
    bad = 4 * options.get("built", True)
    x[bad + 1] = y[13] = np.nan
    guard, keep = (
        DivergenceGuard(),
        np.delete(np.arange(24), [*range(bad, bad + 4), *range(12, 16)]),
    )
    fit_options = {"batch_size": 4, "shuffle": False, "verbose": 0}
    with skips:
        guarded.fit(x, y, callbacks=[guard], **fit_options)
    plain.fit(x[keep], y[keep], **fit_options)
    assert (guard.skipped, guard.rollbacks) == (2, 0)
    assert_equal_state(guarded, plain)
    for mine, expected in zip(states(guarded), states(plain), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-6, atol=1e-7)


def test_states_are_restored_with_the_weights():
    x, y = map(np.copy, SERIES)
    x[8:20] = np.nan
    model, seen = stateful(layers.SimpleRNN), []
    watch = At({0, 4}, lambda model: seen.append(states(model)))
    callbacks = [DivergenceGuard(every=1), watch]
    with skips, pytest.warns(UserWarning, match="went back"):
        model.fit(x, y, 4, shuffle=False, verbose=0, callbacks=callbacks)
    for first, restored in zip(*seen, strict=True):
        np.testing.assert_array_equal(first, restored)


def test_states_are_kept_as_they_were_reset():
    x, y = map(np.copy, SERIES)
    x[4:8] = np.nan
    model = stateful(layers.SimpleRNN)
    callbacks = [
        keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs: model.layers[0].reset_state()
        ),
        DivergenceGuard(),
    ]
    with skips:
        model.fit(x[:8], y[:8], 4, shuffle=False, verbose=0, callbacks=callbacks)
    np.testing.assert_array_equal(states(model), np.zeros((1, 4, 4)))


def test_states_that_loss_scaling_leaves_spoilt():
    """It skips the update itself, so that the guard does not see the gradients."""
    optimizer = keras.optimizers.LossScaleOptimizer(SGD(0.01), initial_scale=8.0)
    model = stateful(layers.SimpleRNN, optimizer, dtype="mixed_float16")
    x, y = map(np.copy, SERIES)
    x[8] = np.nan
    guard = DivergenceGuard()
    model.fit(x, y, 4, shuffle=False, verbose=0, callbacks=[guard])
    assert int(optimizer.iterations) == 5
    assert np.isfinite(states(model)).all()


def test_the_order_of_the_callbacks_does_not_matter():
    results = []
    for turn in range(3):
        monitor, guard = GradientNormMonitor(), DivergenceGuard()
        callbacks = [monitor, guard, GradientClipping("percentile", 40.0)]
        model = compiled(Adam(0.01))
        with skips:
            fit(model, *callbacks[turn:], *callbacks[:turn], labels=ILL)
        results.append([*model.get_weights(), *monitor.history.values()])
        assert not set(METHODS) & set(vars(model.optimizer))
        # The monitor shows what was skipped, under the same number.
        bad = np.flatnonzero(~np.isfinite(monitor.history["global_norm"]))
        np.testing.assert_array_equal(bad, [BAD, 6 + BAD])
        assert guard.first_nonfinite == (BAD, monitor.variables[0])
        assert f"NON-FINITE: update {BAD} was the first of 2" in monitor.verdict()
        for one in (monitor, copy.deepcopy(monitor)):
            assert "DivergenceGuard skipped 2 updates" in one.verdict()
            assert "DivergenceGuard()" not in one.verdict()
    for others in results[1:]:
        for first, second in zip(results[0], others, strict=True):
            np.testing.assert_array_equal(first, second)
    clipped = compiled(Adam(0.01))
    fit_without(clipped, GradientClipping("percentile", 40.0))
    assert_same(clipped, results[0][: len(clipped.weights)])


def interrupt(model):
    raise KeyboardInterrupt


class At(keras.callbacks.Callback):
    """Calls a function with the model at the end of some batches, counted through all epochs."""

    def __init__(self, batches, function):
        super().__init__()
        self.batches, self.function, self.count = batches, function, -1

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count in self.batches:
            self.function(self.model)


def state(model):
    return [v.numpy() for v in model.weights + model.optimizer.variables]


def test_goes_back_to_weights_optimizer_and_a_lower_rate():
    """The labels go bad for three batches; meanwhile the weights do not move."""
    labels = LABELS.copy()
    labels[3 * BATCH : 6 * BATCH] = np.nan
    model, seen = compiled(Adam(0.01), sparse=True), []
    guard = DivergenceGuard(every=1)
    watch = At({1, 2, 4}, lambda model: seen.append(state(model)))
    with skips, pytest.warns(UserWarning, match="rollback 1 of at most 3: 3 batches in a row"):
        fit(model, guard, watch, labels=labels, epochs=1)
    second, third, ill = seen
    restored = state(model)
    rate = [v.path for v in model.weights + model.optimizer.variables].index(
        model.optimizer.variables[1].path
    )
    for i, values in enumerate(zip(second, third, ill, restored, strict=True)):
        two, three, skipped, found = values
        np.testing.assert_array_equal(three, skipped)
        # The copy before the newest: that one is only good if what follows it is.
        np.testing.assert_array_equal(found, two if i != rate else np.float32(0.005))
    assert any(np.abs(a - b).max() > 0 for a, b in zip(second, third, strict=True))
    assert (guard.skipped, guard.rollbacks) == (3, 1)
    assert guard.first_nonfinite[0] == 3


def test_a_loss_that_explodes():
    """By a learning rate that another callback has set too high."""
    model = compiled(SGD(0.05))
    blow_up = At({4}, lambda model: setattr(model.optimizer, "learning_rate", 1e4))
    guard = DivergenceGuard(every=2, lr_factor=1e-6)
    with pytest.warns(UserWarning, match=r"the loss of a batch rose from .* multiplied by 1e-06"):
        history = fit(model, guard, blow_up, epochs=3)
    assert (guard.skipped, guard.rollbacks) == (0, 1)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)
    # Honest about the epoch in which it happened, and well again after.
    assert history.history["loss"][1] > 100 > 10 > history.history["loss"][2]


def test_gives_up_with_the_good_weights_in_place(tmp_path):
    """And leaves the backup for another start."""
    labels = LABELS.copy()
    labels[2 * BATCH :] = np.nan
    model, seen = compiled(Adam(0.01)), []
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=1)
    guard = DivergenceGuard(max_skips=1, max_rollbacks=2)
    watch = At({0}, lambda model: seen.append(state(model)))
    with (
        pytest.warns(UserWarning, match="went back"),
        pytest.raises(RuntimeError, match=r"gave up after 2 rollbacks: 1 batches in a row.*update"),
    ):
        fit(model, guard, watch, backup, labels=labels)
    for value, good in list(zip(state(model), seen[0], strict=True))[: len(model.weights)]:
        np.testing.assert_array_equal(value, good)
    assert (guard.skipped, guard.rollbacks) == (3, 2)
    assert not set(METHODS) & set(vars(model.optimizer))

    # A new process: the backup is finite, and the cut rate is in it.
    again = compiled(Adam(0.01))
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    began = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: began.append(float(again.optimizer.learning_rate))
    )
    fit(again, backup, watch, epochs=1)
    assert began == pytest.approx([0.0025])
    assert all(np.isfinite(w).all() for w in again.get_weights())
    assert not (tmp_path / "backup").exists()


def test_goes_back_to_before_a_late_explosion():
    """Of one weight that is to become 1: from batch 252 on its error doubles with each update."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )
    model.compile(SGD(1e-4), "mse")
    guard, went_back_to = DivergenceGuard(every=5), []

    def look(batch, logs):
        if guard.rollbacks and not went_back_to:
            went_back_to.append(float(model.get_weights()[0][0, 0]))

    watch = keras.callbacks.LambdaCallback(on_train_batch_end=look)
    blow_up = At({252}, lambda model: setattr(model.optimizer, "learning_rate", 1.5))
    x = np.ones((280, 1))
    with pytest.warns(UserWarning, match=r"the loss of a batch rose from 0\.922 to 231"):
        model.fit(x, x, 1, verbose=0, callbacks=[guard, watch, blow_up])
    assert guard.rollbacks == 1
    # Exploded ones are farther off than 1.
    assert 0 < went_back_to[0] < 1


def test_a_skip_puts_the_next_copy_off():
    """A copy counts as good after batches in a row without trouble only."""
    labels = LABELS.copy()
    labels[3 * BATCH] = labels[5 * BATCH] = np.nan
    model, seen = compiled(SGD(0.1)), []
    start = model.get_weights()
    guard = DivergenceGuard(every=2, max_skips=1)
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(model.get_weights())
    )
    with pytest.warns(UserWarning, match="DivergenceGuard"):
        fit(model, guard, watch, labels=labels, epochs=1)
    # Back to the first copy both times: that of batch 1 was followed by a single good one.
    for after in (3, 5):
        for value, good in zip(seen[after], start, strict=True):
            np.testing.assert_array_equal(value, good)


def fit_with_losses(*losses, **arguments):
    """A fit whose train_step gives these losses itself; what it warned of, and its guard."""

    class Own(keras.Model):
        metrics = ()

        def train_step(self, data):
            super().train_step(data)
            return {"loss": next(values)}

    values, n = iter(np.float32(losses)), len(losses)
    inputs = keras.Input((1,))
    model = Own(inputs, keras.layers.Dense(1)(inputs))
    model.compile(SGD(0.1), "mse", run_eagerly=True)
    guard = DivergenceGuard(**arguments)
    model.fit(np.ones((n, 1)), np.ones(n), 1, verbose=0, callbacks=[guard])
    return guard


def test_a_loss_that_train_step_gives_itself():
    with pytest.warns(UserWarning, match="the loss of a batch rose from 1 to 200"):
        fit_with_losses(1.0, 30.0, 200.0, 2.0)


@pytest.mark.parametrize(
    "losses",
    [
        (1e-4, *[1.0, 2.0, 0.5] * 5),
        (0.0, *[1.0, 2.0, 0.5] * 5),
        (-1e-5, *[-300.0, -200.0, 1.0, 100.0] * 4),
        (np.nan, np.nan, 1e-6, *[1.0] * 12),
        [0.0] * 8,
    ],
)
def test_a_healthy_loss_that_begins_small(losses):
    assert fit_with_losses(*losses).rollbacks == 0


def test_a_rollback_has_a_reference_of_its_own():
    """The weights that it restores have the losses of before."""
    losses = (10.0, 3.0, 0.3, 0.1, *[0.1] * 30, 1e4, 10.0, 9.0, 3.0, 0.3, 1e4, 10.0)
    first = pytest.warns(UserWarning, match="rollback 1 of at most 3: .* rose from 0.1 to 1e")
    with first, pytest.warns(UserWarning, match="rollback 2 of at most 3: .* rose from 3 to 1e"):
        assert fit_with_losses(*losses).rollbacks == 2


def test_a_first_batch_of_little_weight():
    weights = np.ones(len(LABELS))
    weights[:BATCH] = 1e-4
    guarded, plain = (compiled(SGD(0.01)) for _ in range(2))
    guard = DivergenceGuard()
    for model, callbacks in ((guarded, [guard]), (plain, [])):
        fit(model, *callbacks, sample_weight=weights)
    assert guard.rollbacks == 0
    assert_same(guarded, plain.get_weights(), rtol=0, atol=0)


@pytest.mark.parametrize("guard_first", [True, False])
def test_goes_back_in_a_resumed_fit(guard_first, tmp_path):
    """To what the backup held, not to the weights that the new process had before."""

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    first = compiled(Adam(0.01))
    with pytest.raises(KeyboardInterrupt):
        fit(first, backup(), At({8}, interrupt))
    epoch = compiled(Adam(0.01))
    fit(epoch, epochs=1)

    resumed = compiled(Adam(0.01))
    labels = LABELS.copy()
    labels[: 2 * BATCH] = np.nan
    guard, seen = DivergenceGuard(max_skips=2), []
    callbacks = [guard, backup()] if guard_first else [backup(), guard]
    with pytest.warns(UserWarning, match="DivergenceGuard"):
        fit(resumed, *callbacks, At({1}, lambda m: seen.append(m.get_weights())), labels=labels)
    assert guard.rollbacks == 1
    assert_same(epoch, seen[0])
    assert int(resumed.optimizer.iterations) == 6 + 4


KILLED_AS_IT_WRITES = """
import os, signal, sys
sys.path.insert(0, "tests")
import numpy as np
import small
from kerasrnn.callbacks import DivergenceGuard

whole, writes = np.savez, []

def savez(file, *values):
    writes.append(file)
    whole(file, *values)
    if len(writes) == 4:
        file.truncate(file.tell() // 2)
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

np.savez = savez
model = small.compiled(small.keras.optimizers.Adam(0.01), sparse=True)
small.fit(model, DivergenceGuard(every=1, directory=sys.argv[1]))
"""


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_writes(tmp_path):
    """Leaves the file before whole: the start, then the states after batches 0 and 1."""
    command = [sys.executable, "-c", KILLED_AS_IT_WRITES, str(tmp_path)]
    killed = subprocess.run(command, cwd=pathlib.Path(__file__).parents[1], check=False)
    assert killed.returncode == -signal.SIGKILL
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"good_state.npz", "good_state.npz.unfinished"}

    two = compiled(Adam(0.01), sparse=True)
    fit(two, epochs=1, steps_per_epoch=2)
    resumed, seen = compiled(Adam(0.01), sparse=True), []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(state(resumed))
    )
    fit(resumed, DivergenceGuard(directory=tmp_path), watch, epochs=1)
    for value, variable in zip(seen[0], two.weights + two.optimizer.variables, strict=True):
        np.testing.assert_allclose(value, variable.numpy(), rtol=1e-6, atol=1e-7)
    assert int(resumed.optimizer.iterations) == 2 + 6
    assert not list(tmp_path.iterdir())


def test_takes_up_what_is_farther_than_the_backup(tmp_path):
    """And leaves a backup that is farther alone."""
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    guard = DivergenceGuard(every=1, directory=tmp_path / "late")
    save = At({4}, lambda model: shutil.copytree(tmp_path / "late", tmp_path / "early"))
    with pytest.raises(KeyboardInterrupt):
        fit(compiled(Adam(0.01)), guard, backup, save, At({9}, interrupt))
    shutil.copytree(tmp_path / "backup", tmp_path / "backup too")
    # The backups are of iteration 6, the files of 9 and 4.
    pairs = ("late", "backup", 9), ("early", "backup too", 6)
    for directory, backup_dir, begins in pairs:
        model = compiled(Adam(0.01))
        guard = DivergenceGuard(directory=tmp_path / directory)
        fit(model, guard, keras.callbacks.BackupAndRestore(tmp_path / backup_dir))
        assert int(model.optimizer.iterations) == begins + 6


def test_the_file_keeps_the_lower_rate_and_outlives_a_guard_that_gives_up(tmp_path):
    model = compiled(Adam(0.01))
    guard = DivergenceGuard(max_skips=1, max_rollbacks=1, every=1, directory=tmp_path)
    labels = LABELS.copy()
    labels[3 * BATCH :] = np.nan
    with pytest.warns(UserWarning, match="went back"), pytest.raises(RuntimeError):
        fit(model, guard, labels=labels)
    again, began = compiled(Adam(0.01)), []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: began.append(float(again.optimizer.learning_rate))
    )
    fit(again, DivergenceGuard(directory=tmp_path), watch, epochs=1)
    assert began[0] == pytest.approx(0.005)
    assert int(again.optimizer.iterations) == 2 + 6


def eager(sparse=False):
    return compiled(SGD(0.01), sparse=sparse, run_eagerly=True)


def left_by_an_interrupted_fit(directory):
    """The guard; in the file are three updates."""
    guard = DivergenceGuard(every=1, directory=directory)
    with pytest.raises(KeyboardInterrupt):
        fit(eager(), guard, At({3}, interrupt))
    return guard


def iterations_after_an_epoch(guard, model):
    fit(model, guard, epochs=1)
    return int(model.optimizer.iterations)


COPIERS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda guard: pickle.loads(pickle.dumps(guard)),
}


@pytest.mark.parametrize("copier", slow_but(["deepcopy"], COPIERS))
def test_a_copy_takes_up_nothing(copier, tmp_path):
    """That of another one of the same shapes would be another training's, one of others an
    error."""
    copier, guard = COPIERS[copier], left_by_an_interrupted_fit(tmp_path)
    copied = copier(guard)
    with pytest.raises(KeyboardInterrupt):
        fit(eager(), copied, At({3}, interrupt))
    for one, sparse in ((copied, False), (copier(guard), True)):
        assert iterations_after_an_epoch(one, eager(sparse)) == 6
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")}
    assert files == {"good_state.npz", "fit-1", "fit-1/good_state.npz"}
    # The same script again, and what the copy has left.
    for directory in (tmp_path, tmp_path / "fit-1"):
        guard = DivergenceGuard(directory=directory)
        assert iterations_after_an_epoch(guard, eager()) == 3 + 6


def test_another_model_with_the_same_guard_takes_up_nothing(tmp_path):
    guard = left_by_an_interrupted_fit(tmp_path)
    first = guard.model
    for sparse in (False, True):
        assert iterations_after_an_epoch(guard, eager(sparse)) == 6
    assert [part.name for part in tmp_path.iterdir()] == ["good_state.npz"]
    # It has made four updates, one more than the file holds.
    guard.set_model(first)
    assert iterations_after_an_epoch(guard, first) == 4 + 6
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_of_before_there_were_folders(tmp_path):
    state = DivergenceGuard(directory=tmp_path).__getstate__() | {"_first_loss": 1.0}
    del state["_folders"], state["_explosion_rule"]
    guard = DivergenceGuard.__new__(DivergenceGuard)
    guard.__setstate__(state)
    assert iterations_after_an_epoch(guard, eager()) == 6


def test_a_directory_at_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = f"ram:/{tmp_path}/guard"
    left_by_an_interrupted_fit(directory)
    assert tf.io.gfile.listdir(directory) == ["good_state.npz"]
    assert iterations_after_an_epoch(DivergenceGuard(directory=directory), eager()) == 3 + 6
    assert tf.io.gfile.listdir(directory) == []
    guard = left_by_an_interrupted_fit(directory)
    copied = copy.deepcopy(guard)
    with pytest.raises(KeyboardInterrupt):
        fit(eager(), copied, At({3}, interrupt))
    assert sorted(tf.io.gfile.listdir(directory)) == ["fit-1", "good_state.npz"]
    with Address(f"{directory}/good_state.npz").open("wb") as file:
        file.write(b"PK damaged")
    with pytest.raises(ValueError, match=r"ram://.*good_state\.npz cannot be read; delete it"):
        fit(eager(), DivergenceGuard(directory=directory))
    assert list(tmp_path.iterdir()) == []


def test_says_where_the_good_state_is(tmp_path):
    labels = LABELS.copy()
    labels[2 * BATCH :] = np.nan
    guard = copy.deepcopy(DivergenceGuard(1, 0, directory=tmp_path))
    place = r"are in place, and in .*fit-1.good_state\.npz\. The first"
    with pytest.raises(RuntimeError, match=place):
        fit(eager(), guard, labels=labels)
    assert (tmp_path / "fit-1" / "good_state.npz").exists()


def test_a_file_that_cannot_be_taken_up(tmp_path):
    file = tmp_path / "good_state.npz"
    guard = DivergenceGuard(directory=tmp_path)
    file.write_bytes(b"PK damaged")
    with pytest.raises(ValueError, match=r"good_state\.npz cannot be read; delete it"):
        fit(compiled(SGD(0.1)), guard)
    with file.open("wb") as opened:
        np.savez(opened, np.ones(3))
    with pytest.raises(ValueError, match=r"good_state\.npz holds the state of another model"):
        fit(compiled(SGD(0.1)), guard)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(SGD(0.1), "mse")
    callbacks = keras.callbacks.CallbackList([guard], model=model)
    with pytest.raises(ValueError, match="`directory` needs a model that is built before"):
        callbacks.on_train_begin()


@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("optimizer", [lambda: SGD(0.1, global_clipnorm=1.0), lambda: Adam(0.01)])
def test_a_nan_in_the_weights(optimizer, batch):
    """A finite gradient can bring it about: Keras's global clip makes NaN of one whose square
    overflows, and Adam keeps an infinite square. In the last batch too."""
    model, saved = build(), []
    model.compile(optimizer(), "mae")
    weights = np.ones(len(LABELS))
    weights[batch * BATCH] = 1e22
    save = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: saved.extend(state(model))
    )
    with pytest.warns(UserWarning, match="rollback 1 of at most 3"):
        fit(model, DivergenceGuard(explosion=1e30), save, sample_weight=weights, epochs=1)
    assert all(np.isfinite(value).all() for value in saved)
    assert np.isfinite(model.evaluate(TOKENS, LABELS, verbose=0))


def test_weights_are_looked_at_after_every_update():
    """Not only where a copy is due or the next gradient is NaN for it."""

    class Overflows(SGD):
        def update_step(self, gradient, variable, learning_rate):
            step = tf.where(self.iterations == 2, np.inf, learning_rate)
            super().update_step(gradient, variable, step)

    model, seen = compiled(Overflows(0.1)), []
    with pytest.warns(UserWarning, match="the weights or the optimizer's variables held"):
        fit(model, DivergenceGuard(), At({2}, lambda model: seen.extend(state(model))), epochs=1)
    assert all(np.isfinite(value).all() for value in seen)


def test_an_infinite_loss_does_not_hide_the_next_explosion():
    labels = LABELS.copy()
    labels[2 * BATCH], labels[4 * BATCH] = 1e20, 1e3
    guard = DivergenceGuard()
    infinite = pytest.warns(UserWarning, match="rollback 1 of at most 3: .* was infinite")
    with infinite, pytest.warns(UserWarning, match="rollback 2 of at most 3: .* rose from"):
        history = fit(compiled(SGD(0.01)), guard, labels=labels, epochs=1)
    assert guard.rollbacks == 2
    assert np.isfinite(history.history["loss"]).all()


def test_a_schedule_is_scaled(tmp_path):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    labels = LABELS.copy()
    labels[3 * BATCH : 5 * BATCH] = np.nan
    model = compiled(SGD(schedule, momentum=0.9))
    with skips, pytest.warns(UserWarning, match="went back"):
        fit(model, DivergenceGuard(max_skips=2, every=1), labels=labels, epochs=1)
    other = compiled(SGD(schedule, momentum=0.9))
    fit(other, epochs=1, steps_per_epoch=2)
    other.optimizer.learning_rate = ScaledSchedule(schedule, 0.5)
    other.make_train_function(force=True)
    last = slice(5 * BATCH, None)
    other.fit(TOKENS[last], LABELS[last], BATCH, verbose=0)
    assert_equal_state(model, other)
    assert int(model.optimizer.iterations) == 3

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").optimizer.learning_rate
    assert float(loaded) == pytest.approx(0.05 * 0.5**0.3)


def test_a_model_that_is_built_in_its_first_step():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    x, y = np.ones((16, 3)), np.ones((16, 1))
    y[:4] = np.nan
    guard = DivergenceGuard(max_skips=1)
    with skips, pytest.warns(UserWarning, match="went back"):
        history = model.fit(x, y, 4, shuffle=False, verbose=0, callbacks=[guard])
    assert (guard.skipped, guard.rollbacks, int(model.optimizer.iterations)) == (1, 1, 3)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.slow
def test_on_two_replicas(on_two_devices):
    """The second gets the NaN; loss scaling, which looks at the first alone, lets it pass."""
    printed = on_two_devices("""
        import keras
        import warnings
        import small
        import test_divergence_guard as t

        warnings.simplefilter("ignore")
        scaled = lambda: keras.optimizers.LossScaleOptimizer(t.Adam(0.01), initial_scale=8.0)
        for optimizer in (lambda: t.Adam(0.01), scaled):
            with strategy.scope():
                models = [small.compiled(optimizer(), sparse=True) for _ in range(2)]
            guard, monitor = t.DivergenceGuard(max_skips=2), t.GradientNormMonitor()
            history = small.fit(models[0], guard, monitor, labels=t.ILL)
            expected = t.fit_without(models[1])
            small.assert_same(models[0], models[1].get_weights())
            counts = [int(model.optimizer.iterations.numpy()) for model in models]
            losses = np.abs(np.subtract(history.history["loss"], expected.history["loss"])).max()
            finite = np.isfinite(monitor.history["global_norm"]).sum()
            print(guard.skipped, guard.rollbacks, guard.first_nonfinite[0], counts, finite)
            print("losses", losses < 1e-5)

        labels = small.LABELS.copy()
        labels[24:40] = np.nan
        with strategy.scope():
            model = small.compiled(t.Adam(0.01), sparse=True)
        guard = t.DivergenceGuard(max_skips=2)
        small.fit(model, guard, labels=labels, epochs=1)
        print(guard.rollbacks, all(np.isfinite(w).all() for w in model.get_weights()))
    """)
    assert "2 0 2 [10, 10] 10" in printed
    assert printed.count("losses True") == 2
    assert "1 True" in printed


@pytest.mark.parametrize("recompiled", [False, True])
def test_what_an_interrupted_fit_left_is_taken_off(recompiled):
    model = compiled(SGD(0.1))
    guard = DivergenceGuard()
    with pytest.raises(KeyboardInterrupt):
        fit(model, guard, At({3}, interrupt), labels=ILL)
    assert guard.skipped == 1
    if recompiled:
        model.compile(model.optimizer, "mse")
    fit(model, labels=ILL)
    assert np.isnan(model.get_weights()[0]).all()
    assert guard.skipped == 1


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_in_fit_and_outside(copier):
    guard, copies = DivergenceGuard(max_skips=7), []
    with skips:
        fit(compiled(SGD(0.1)), guard, At({3}, lambda m: copies.append(copier(guard))), labels=ILL)
    for copied in (*copies, copier(guard)):
        assert (copied.max_skips, copied.model) == (7, None)
        assert copied.first_nonfinite == guard.first_nonfinite
        fit(compiled(SGD(0.1)), copied, epochs=1)
        assert copied.skipped == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_skips": 0}, "`max_skips` must be a positive integer. Received: max_skips=0"),
        ({"max_rollbacks": -1}, "`max_rollbacks` must be an integer, 0 or more. Received: max_"),
        ({"lr_factor": 1.5}, r"`lr_factor` must lie in \(0, 1\]. Received: lr_factor=1.5"),
        ({"max_rollbacks": True}, "`max_rollbacks` must be an integer, 0 or more. Received: max_"),
        ({"lr_factor": True}, r"`lr_factor` must lie in \(0, 1\]. Received: lr_factor=True"),
        ({"explosion": np.nan}, "`explosion` must be a number over 1. Received: explosion=nan"),
        ({"directory": 3}, "`directory` must be a path or None. Received: directory=3"),
        (
            {"directory": pathlib.Path(__file__, "x")},
            r"`directory` must be a directory, but '.*_guard.py'",
        ),
        ({"directory": pathlib.Path("gs://x")}, r"`directory` must have two slashes in an addr"),
        ({"every": 1.5}, "`every` must be a positive integer. Received: every=1.5"),
        ({"explosion": 1}, "`explosion` must be a number over 1. Received: explosion=1"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DivergenceGuard(**arguments)


def test_a_rate_that_cannot_be_cut():
    with pytest.raises(ValueError, match="learning rate that is a function"):
        fit(compiled(SGD(lambda: 0.1)), DivergenceGuard())
    fit(compiled(SGD(lambda: 0.1)), DivergenceGuard(lr_factor=1), epochs=1)


def test_two_guards():
    with pytest.raises(ValueError, match="One fit takes one DivergenceGuard"):
        fit(compiled(SGD(0.1)), DivergenceGuard(), DivergenceGuard())


def test_needs_an_optimizer():
    callbacks = keras.callbacks.CallbackList([DivergenceGuard()], model=build())
    with pytest.raises(ValueError, match="DivergenceGuard needs a model compiled with"):
        callbacks.on_train_begin()
