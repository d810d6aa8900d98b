"""The internals of Keras and its backends that this package touches, or its tests, named: a version
that moves one breaks a test here."""

import contextlib
import inspect
import json
import re

import keras
import keras_tuner
import numpy as np
import pytest
from any_backend import compiled
from keras import ops
from keras.src.backend.common import dtypes
from keras_masks import keras_hands_on
from keras_tuner.src.engine import conditions

from kerasrnn import cells, inside, layers
from kerasrnn.backends import BACKEND, tf
from kerasrnn.backends import framework as jax
from kerasrnn.diagnostics.looking import shadowed
from kerasrnn.layers.checks import MaskAndReset
from kerasrnn.recurrence import stages
from kerasrnn.tuning import workers
from kerasrnn.updates import kept_step

if tf:
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.eager import forwardprop_util
    from tensorflow.python.framework import ops as gradients_of
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )


def test_rnn_calls_inner_loop():
    """kerasrnn.layers.RNN puts its own time loop in the place of Keras's."""
    parameters = list(inspect.signature(keras.layers.RNN.inner_loop).parameters)
    assert parameters == ["self", "sequences", "initial_state", "mask", "training"]
    assert "self.inner_loop(" in inspect.getsource(keras.layers.RNN.call)
    assert layers.RNN.inner_loop is not keras.layers.RNN.inner_loop


def test_a_mask_is_handed_on_unlooked_at(monkeypatch):
    """A `MaskAndReset` gets through Keras's layers to `inner_loop`."""
    seen = []

    def inner_loop(self, sequences, initial_state, mask, training=False):
        seen.append(mask)
        return keras.layers.RNN.inner_loop(self, sequences, initial_state, None, training)

    monkeypatch.setattr(keras.layers.LSTM, "inner_loop", inner_loop)
    marks = MaskAndReset(None, ops.convert_to_tensor([[False, True]]))
    for layer in (keras.layers.LSTM(2), keras.layers.Bidirectional(keras.layers.LSTM(2))):
        keras_hands_on(layer)(ops.ones((1, 2, 3)), mask=marks)
    assert len(seen) == 3
    for mask in seen:
        assert isinstance(mask, MaskAndReset)
        assert mask.mask is None
        assert np.array(mask.reset).tolist() == [[False, True]]


def test_keras_attaches_masks_to_tensors():
    """Which kerasrnn.inside reads and attaches itself, eagerly, in graphs and where a functional
    model is made; and passes it by itself where there is no further tensor."""
    passed = []

    class Layer(keras.layers.Layer):
        def call(self, x, other=None, mask=None):
            passed.append(mask)
            attached.append(inside.attached_mask(x))
            return x

    attached, layer = [], Layer()
    layer.supports_masking = True
    masking = keras.layers.Masking()
    masked = masking(ops.ones((1, 2, 3)))
    layer(masked)
    layer(masked, other=ops.ones((1, 2)))
    compiled(lambda x: layer(masking(x), other=x))(ops.ones((1, 2, 3)))
    assert [mask is not None for mask in passed] == [True, False, False]
    assert [tuple(mask.shape) for mask in attached] == [(1, 2)] * 3

    def again(x):
        y = x + 1
        inside.attach_mask(y, x[..., 0] > 0)
        layer(y)
        return y

    again(ops.ones((1, 2, 3)))
    compiled(again)(ops.ones((1, 2, 3)))
    assert [mask is not None for mask in passed[3:]] == [True, True]
    assert inside.attached_mask(masking(keras.Input((2, 3)))).shape == (None, 2)
    other = tf.ones((1, 2, 3))
    inside.attach_mask(other, attached[0])
    layer(other)
    assert passed[-1] is attached[-1] is attached[0]


def test_a_layer_s_own_inner_loop_comes_first():
    """gradient_flow shadows it on the instance, to run Keras's layers in this package's loop, which
    asks them for what `layers.RNN.inner_loop` reads."""
    layer = keras.layers.LSTM(2)
    for name in ("cell", "go_backwards", "unroll", "zero_output_for_mask", "return_sequences"):
        assert hasattr(layer, name)
    asked = []
    original, layer.inner_loop = (
        layer.inner_loop,
        lambda *a, **k: asked.append(1) or original(*a, **k),
    )
    layer(ops.ones((1, 2, 3)))
    del layer.inner_loop
    assert asked
    assert layer.inner_loop == original


def test_layers_list_those_inside_them():
    """By `_flatten_layers`, which kerasrnn.inside asks for all of this package."""
    both = keras.layers.Bidirectional(keras.layers.LSTM(2))
    net = keras.Sequential([keras.Input((None, 3)), both])
    parameters = list(inspect.signature(keras.layers.Layer._flatten_layers).parameters)
    assert parameters == ["self", "include_self", "recursive"]
    assert both in inside.layers_directly_in(net)
    directions = both.forward_layer, both.backward_layer
    assert set(map(id, directions)) <= set(map(id, inside.layers_directly_in(both)))
    assert {id(net), id(both.forward_layer.cell)} <= set(map(id, inside.layers_in(net)))


def test_keras_lists_no_states_of_stateful_layers():
    """kerasrnn.inside finds them, in `states`, for DivergenceGuard and the diagnostics."""
    stateful, stacked = keras.layers.LSTM(2, stateful=True), [keras.layers.GRUCell(2) for _ in "ab"]
    stacked = keras.layers.RNN(stacked, stateful=True, return_sequences=True)
    net = keras.Sequential([stacked, stateful, keras.layers.Dense(1)])
    assert inside.kept_states(net) == []
    net(ops.ones((1, 2, 3)))
    states = [*keras.tree.flatten(stacked.states), *stateful.states]
    assert list(map(id, inside.kept_states(net))) == list(map(id, states))
    assert len(states) == 4
    assert not {id(v) for v in net.variables} & set(map(id, states))


@pytest.mark.tensorflow
def test_layers_know_the_model_that_was_called():
    """kerasrnn.recurrence.regularization finds the optimizer that scales the loss by way of it."""
    seen = []

    class Layer(keras.layers.Layer):
        def call(self, x):
            seen.append(self._get_call_context().entry_layer)
            self._maybe_reset_call_context()
            seen.append(self._get_call_context().entry_layer)
            return x

    layer = Layer()
    model = keras.Sequential([layer])
    model(ops.ones((1, 2)))
    assert all(one is model for one in seen[-2:])
    # Outside of a call none is left open.
    layer._get_call_context()
    layer._maybe_reset_call_context()
    model(ops.ones((1, 2)))
    assert seen[-1] is model


def test_keras_s_layers_reach_cudnn_in_inner_loop():
    """kerasrnn.recurrence.cudnn calls it on what stands for a layer, with all that it asks for."""
    answered = {"cell", "use_cudnn", "dropout", "recurrent_dropout", "return_sequences"}
    answered |= {"go_backwards", "unroll"}
    for kind in (keras.layers.LSTM, keras.layers.GRU):
        parameters = list(inspect.signature(kind.inner_loop).parameters)
        assert parameters == ["self", "sequences", "initial_state", "mask", "training"]
        asked = set(re.findall(r"self\.(\w+)", inspect.getsource(kind.inner_loop)))
        assert asked == answered | {"supports_jit"}


def test_a_bidirectional_runs_its_directions_one_by_one(monkeypatch):
    """gradient_flow looks into each. Keras fuses them into one kernel, past their `inner_loop`, on
    other backends than TensorFlow."""
    ran = []
    for kind in (keras.layers.LSTM, keras.layers.GRU):
        original = kind.inner_loop
        monkeypatch.setattr(
            kind,
            "inner_loop",
            lambda self, *args, run=original, **options: (
                ran.append(self) or run(self, *args, **options)
            ),
        )
        for wrapper in (keras.layers.Bidirectional, layers.Bidirectional):
            both = wrapper(kind(2))
            both(ops.ones((1, 2, 3)))
            assert ran[-2:] == [both.forward_layer, both.backward_layer]
    for name in ("bidirectional_lstm", "bidirectional_gru") if tf else ():
        with pytest.raises(NotImplementedError):
            getattr(keras.src.backend, name)()


def test_keras_s_cells_ask_for_their_gates_one_by_one():
    """health_report shadows `recurrent_activation` on the cell to see i, f, o and z, r."""
    for kind, gates in ((keras.layers.LSTMCell, 3), (keras.layers.GRUCell, 2)):
        cell = kind(2)
        original, asked = cell.recurrent_activation, []
        cell.recurrent_activation = lambda v, a=original, asked=asked: asked.append(1) or a(v)
        cell(ops.ones((1, 3)), cell.get_initial_state(1))
        assert len(asked) == gates


def test_optimizers_clip_and_apply_through_three_methods():
    """UpdateHook shadows them on the optimizer instance."""
    optimizer = keras.optimizers.Optimizer
    apply = inspect.signature(optimizer._backend_apply_gradients).parameters
    assert list(apply) == ["self", "grads", "trainable_variables"]
    assert list(inspect.signature(optimizer._clip_gradients).parameters) == ["self", "grads"]
    assert "self._backend_apply_gradients(" in inspect.getsource(optimizer.apply)
    source = inspect.getsource(optimizer._backend_apply_gradients)
    # Once for an update from accumulated gradients, once for one without.
    assert source.count("self._clip_gradients(grads)") == 2
    update = inspect.signature(optimizer._backend_update_step).parameters
    assert list(update) == ["self", "grads", "trainable_variables", "learning_rate"]
    clips, updates = (
        [at.start() for at in re.finditer(rf"self\.{name}\(", source)]
        for name in ("_clip_gradients", "_backend_update_step")
    )
    # Each behind its clip.
    assert clips[0] < updates[0] < clips[1] < updates[1]


def test_a_train_step_asks_the_model_for_its_loss():
    """By `compute_loss`, which UpdateHook shadows on the model instance."""
    model, asked = small_model(), []

    def compute_loss(original, *args, **kwargs):
        asked.append(True)
        return original(*args, **kwargs)

    with shadowed("compute_loss", [(model, compute_loss)]):
        model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    assert asked


def test_optimizers_count_after_an_update_whatever_came_of_it():
    """UpdateHook takes one off for an update that DivergenceGuard skips."""
    source = inspect.getsource(keras.optimizers.Optimizer.apply)
    update, count = "self._backend_apply_gradients(", "self._iterations.assign_add(1)"
    assert 0 < source.index(update) < source.index(count)
    assert keras.optimizers.SGD()._iterations.dtype == ("int64" if tf else "int32")


def test_a_mean_has_its_total_and_count():
    """DivergenceGuard finds the loss of a batch in the mean of an epoch."""
    mean = keras.metrics.Mean()
    mean.update_state([2.0, 4.0], sample_weight=[3.0, 1.0])
    assert (float(mean.total), float(mean.count)) == (10.0, 4.0)


def test_optimizers_know_their_schedule():
    """DivergenceGuard wraps it; `learning_rate` gives what it says at the moment."""
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    assert keras.optimizers.SGD(schedule)._learning_rate is schedule
    assert isinstance(keras.optimizers.SGD(0.1)._learning_rate, keras.Variable)


def test_loss_scaling_wraps_the_optimizer():
    """UpdateHook looks for the innermost one."""
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    assert isinstance(scaled.inner_optimizer, keras.optimizers.SGD)


def small_model(**options):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", **options)
    return model


def test_an_update_goes_through_the_three_methods(monkeypatch):
    """Shadowed on the instance, as UpdateHook does, under the trainer of any backend: the update
    first, in it the clip and then the step."""
    model, seen = small_model(), []

    def hears(name):
        def method(original, *args, **kwargs):
            seen.append(name)
            return original(*args, **kwargs)

        return method

    names = "_backend_apply_gradients", "_clip_gradients", "_backend_update_step"
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(shadowed(name, [(model.optimizer, hears(name))]))
        model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    # TensorFlow's and JAX's trainers trace them.
    assert seen == [*names]


@pytest.mark.skipif(BACKEND != "jax", reason="it is JAX's trainer")
def test_the_jax_trainer_hands_the_loss_on():
    """Past what is differentiated, to `_update_metrics_variables` of the model; and its steps take
    the state as a tuple, the optimizer's variables third."""
    model, losses, states = small_model(), [], []

    def update(original, metrics_variables, unscaled_loss, *args, **kwargs):
        jax.debug.callback(lambda loss: losses.append(float(loss)), unscaled_loss)
        assert len(metrics_variables) == len(model.metrics_variables)
        return original(metrics_variables, unscaled_loss, *args, **kwargs)

    def train_step(original, state, data):
        states.append([len(part) for part in state])
        logs, state = original(state, data)
        states.append([len(part) for part in state])
        return logs, state

    with shadowed("_update_metrics_variables", [(model, update)]):
        # JAX's trainer asks the model for it where it makes the train function.
        with shadowed("train_step", [(model, train_step)]):
            model.make_train_function()
        function = model.train_function
        model.train_function = lambda state, iterator: function(state, iterator)
        history = model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, batch_size=4).history
    jax.effects_barrier()
    assert losses == history["loss"]
    parts = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    assert states == 2 * [[len(part) for part in parts]]


@pytest.mark.skipif(tf is not None, reason="TensorFlow's notes nothing")
def test_what_a_trainer_notes_on_a_model():
    """KeptStep leaves it out of what tells one step from another: it is not the same before and in
    a `fit`."""
    model, seen = small_model(), []
    (name,) = kept_step._NOTES

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(vars(model)[name])

    seen.append(vars(model)[name])
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[Look()])
    model.evaluate(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    seen.append(vars(model)[name])
    assert {True, False} == set(seen)


@pytest.mark.skipif(tf is not None, reason="TensorFlow keeps double precision")
def test_double_precision_becomes_single_by_a_table(monkeypatch):
    """That tests/conftest.py edits, so that tests in float64 are that under JAX and PyTorch."""
    v = ops.convert_to_tensor(np.ones(2))

    def dtypes_now():
        return {
            keras.backend.result_type("float64"),
            keras.backend.standardize_dtype(ops.arctan2(v, v).dtype),
        }

    assert dtypes_now() == {"float64"}
    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float32")
    assert dtypes_now() == {"float32"}


TRACED = []


class Stages(keras.layers.Layer):
    """Notes the stage of each call that is traced."""

    def build(self, shape):
        self.seen, self.weight = set(), self.add_weight((1,), "ones")

    def call(self, x):
        if not isinstance(x, keras.KerasTensor) and tf.inside_function():
            self.seen.add(stages.current())
            TRACED.append(stages.traced_model())
        return self.weight * x

    def stages_of(self, act, *args, **kwargs):
        self.seen.clear()
        act(*args, **kwargs)
        return self.seen


@pytest.mark.tensorflow
def test_stages_of_keras_and_tensorflow(tmp_path):
    """What Keras's trainer and exports trace is known by the code of their functions, and not by
    their names, which are anyone's."""
    layer, x = Stages(), np.ones((4, 2))
    model = keras.Sequential([keras.Input((2,)), layer])
    for options in ({}, {"steps_per_execution": 2}, {"jit_compile": True}):
        model.compile("sgd", "mse", **options)
        for act, args in ((model.fit, (x, x)), (model.evaluate, (x, x)), (model.predict, (x,))):
            assert layer.stages_of(act, *args, batch_size=2, verbose=0) == {"step"}
            assert TRACED[-1] is model
        for act, args in (
            (model.train_on_batch, (x, x)),
            (model.test_on_batch, (x, x)),
            (model.predict_on_batch, (x,)),
        ):
            # Of another shape, so that they are traced.
            assert layer.stages_of(act, *(v[:3] for v in args)) == {"step"}
    assert layer.stages_of(model.export, tmp_path / "a", verbose=False) == {"export"}
    archive = keras.export.ExportArchive()
    archive.add_endpoint("serve", lambda x: model(x), [tf.TensorSpec((None, 2))])
    assert layer.stages_of(archive.write_out, tmp_path / "b", verbose=False) == {"export"}
    module = tf.Module()
    module.layer = layer
    module.run = tf.function(lambda x: model(x), input_signature=[tf.TensorSpec((None, 2))])
    assert layer.stages_of(tf.saved_model.save, module, tmp_path / "c") == {"export"}

    @tf.function
    def one_step_on_data(x):
        return model(x)

    assert layer.stages_of(one_step_on_data, ops.ones((1, 2))) == {"graph"}
    assert TRACED[-1] is None


@pytest.mark.tensorflow
def test_forward_accumulators_tell_what_they_follow():
    """Linear recurrences ask TensorFlow for it by `pack_tangents`."""
    x, other = tf.ones(2), tf.ones(2)

    def followed():
        return [bool(any(forwardprop_util.pack_tangents([v]).indices)) for v in (2 * x, other)]

    assert followed() == [False, False]
    with tf.autodiff.ForwardAccumulator(x, tf.ones(2)):
        assert followed() == [True, False]


@pytest.mark.tensorflow
def test_sequences_and_a_matrix_are_multiplied_as_two_matrices():
    """As one of a batch of matrices TensorFlow up to 2.21 gets the product wrong or dies of it in
    `tf.vectorized_map` (tensorflow/tensorflow, issue 117700)."""
    dense, cell = keras.layers.Dense(3), cells.GRUCell(3)

    @tf.function(autograph=False)
    def products(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = (dense(x), cell.project(x), keras.ops.matmul(x, tf.ones((4, 3))))
        return tape.gradient(y, x)

    for layer in (dense, cell):
        layer.build((1, 4))
    kinds = [
        op.type for op in products.get_concrete_function(tf.ones((1, 5, 4))).graph.get_operations()
    ]
    assert "MatMul" in kinds
    assert not any(kind.startswith("BatchMatMul") for kind in kinds)


@pytest.mark.tensorflow
def test_variables_become_constants():
    """`convert_variables_to_constants_v2`, which TensorFlow's own converters to LiteRT use."""
    variable = tf.Variable([2.0, 3.0])
    function = tf.function(lambda x: variable * x, autograph=False)
    concrete = function.get_concrete_function(x=tf.TensorSpec([None, 2], tf.float32, "x"))
    constant = convert_variables_to_constants_v2(concrete, lower_control_flow=False)
    assert not constant.variables
    assert [t.name for t in constant.inputs] == ["x:0"]
    variable.assign([0.0, 0.0])
    np.testing.assert_array_equal(constant(tf.ones((1, 2)))[0], [[2.0, 3.0]])


@pytest.mark.tensorflow
def test_a_saved_model_holds_its_functions(tmp_path):
    """Operations with the names of their outputs, and the functions that others may call."""
    module = tf.Module()
    module.f = tf.function(lambda x: tf.nn.softplus(x) + tf.math.expm1(x)).get_concrete_function(
        tf.TensorSpec([None, 3], tf.float32)
    )
    module.stand_ins = {"one": module.f}
    tf.saved_model.save(module, tmp_path)
    content = (tmp_path / "saved_model.pb").read_bytes()
    saved = saved_model_pb2.SavedModel.FromString(content)
    functions = saved.meta_graphs[0].graph_def.library.function
    function = next(f for f in functions if f.signature.name == module.f.name.decode())
    nodes = {node.op: node for node in function.node_def}
    assert [*nodes["AddV2"].input] == ["Softplus:activations:0", "Expm1:y:0"]
    assert nodes["Softplus"].attr["T"].type == tf.float32.as_datatype_enum


def test_recurrent_layers_of_keras_run_an_inner_loop():
    """`inner_loop(sequences, initial_state, mask, training)`, which gives the last output, all of
    them and the states."""
    for layer in (
        keras.layers.SimpleRNN(3),
        keras.layers.LSTM(3),
        keras.layers.GRU(3),
        keras.layers.RNN(keras.layers.GRUCell(3)),
    ):
        seen = []

        def inner_loop(original, *args, seen=seen, **kwargs):
            seen.append((args, kwargs))
            return original(*args, **kwargs)

        with shadowed("inner_loop", [(layer, inner_loop)]):
            y = layer(np.ones((2, 4, 3), "float32"))
        ((args, kwargs),) = seen
        bound = inspect.signature(layer.inner_loop).bind(*args, **kwargs).arguments
        assert {*bound} == {"sequences", "initial_state", "mask", "training"}
        last, _, states = layer.inner_loop(**bound)
        np.testing.assert_allclose(last, y, atol=1e-6)
        assert isinstance(states, list | tuple)


@pytest.mark.tensorflow
def test_functions_say_what_they_have_captured():
    """`FuncGraph.captures`, `ConcreteFunction.captured_inputs` and the order of its `inputs`."""
    variable, constant = tf.Variable(2.0), tf.constant(3.0)

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)])
    def outer(x):
        y = x + 1.0
        inner = tf.function(lambda z: z * variable + y + constant, autograph=False)
        function = inner.get_concrete_function(tf.TensorSpec([], tf.float32))
        inside = function.inputs[1:]
        assert len(inside) == len(function.captured_inputs) == 3
        pairs = {id(inner): outer for outer, inner in function.graph.captures}
        assert all(
            pairs[id(placeholder)] is tensor
            for placeholder, tensor in zip(inside, function.captured_inputs, strict=True)
        )
        assert any(tensor is y for tensor in function.captured_inputs)
        return y

    outer.get_concrete_function()


def test_compile_makes_a_loss_and_drops_the_train_function():
    """TraceConstants tells a model that was compiled again by its loss, KeptStep by what Keras made
    of its train step; a schedule stands in for the rate."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.make_train_function()
    before, function = model._compile_loss, model.train_function
    assert inspect.isfunction(function)
    model.make_train_function()
    assert model.train_function is function
    model.compile("sgd", "mse")
    assert model._compile_loss is not before
    assert model.train_function is None
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    assert keras.optimizers.SGD(schedule)._learning_rate is schedule


def tuned(kind, directory, **settings):
    """A tuner of keras-tuner's own, and its oracle."""

    def build(hp):
        dense = keras.layers.Dense(hp.Choice("units", [1, 2]))
        model = keras.Sequential([keras.Input((3,)), dense])
        model.compile("adam", "mse", run_eagerly=True)
        return model

    tuner = getattr(keras_tuner, kind)(build, "loss", seed=1, directory=str(directory), **settings)
    return tuner, tuner.oracle


def test_a_tuner_begins_with_its_space(tmp_path, monkeypatch):
    """kerasrnn.tuning's tuners take up their folder in `_populate_initial_space`, which comes after
    the oracle and the folder are known, and ask `_is_worker`."""
    seen = []
    method = keras_tuner.Tuner._populate_initial_space

    def populate(self):
        seen.append((self.oracle, self.project_dir, self._is_worker()))
        method(self)

    monkeypatch.setattr(keras_tuner.Tuner, "_populate_initial_space", populate)
    tuner, oracle = tuned("RandomSearch", tmp_path, max_trials=1)
    assert seen == [(oracle, tuner.project_dir, False)]
    assert [hp.name for hp in oracle.get_space().space] == ["units"]


def test_an_execution_is_built_and_fitted_in_one_place(tmp_path, monkeypatch, quiet_tuner):
    """With copies of the callbacks, and behind them keras-tuner's, that of the best epoch among
    them, whose best value is an attribute, and whose file is that of `_get_checkpoint_fname`."""
    seen = []
    method = keras_tuner.Tuner._build_and_fit_model

    def fit(self, trial, *args, **kwargs):
        seen.append((trial.trial_id, kwargs["callbacks"]))
        return method(self, trial, *args, **kwargs)

    monkeypatch.setattr(keras_tuner.Tuner, "_build_and_fit_model", fit)
    tuner, _ = tuned("RandomSearch", tmp_path, max_trials=1, executions_per_trial=2)
    mine = keras.callbacks.EarlyStopping("loss")
    tuner.search(np.ones((4, 3)), np.ones((4, 1)), callbacks=[mine], verbose=0)
    assert [trial_id for trial_id, _ in seen] == ["0", "0"]
    for _, (copy, of_tuner, of_best) in seen:
        assert isinstance(copy, keras.callbacks.EarlyStopping)
        assert copy is not mine
        assert of_tuner.tuner is tuner
        assert np.isfinite(vars(of_best)["best_value"])
        assert of_best.filepath == str(tuner._get_checkpoint_fname("0"))


def test_weights_bring_the_optimizer_along(tmp_path, monkeypatch, quiet_tuner):
    """If its variables are there when `_build_hypermodel` has made the model."""
    method = keras_tuner.Tuner._build_hypermodel

    def build(self, hp):
        model = method(self, hp)
        model.optimizer.build(model.trainable_variables)
        return model

    monkeypatch.setattr(keras_tuner.Tuner, "_build_hypermodel", build)
    tuner, _ = tuned("RandomSearch", tmp_path, max_trials=1)
    tuner.search(np.ones((4, 3)), np.ones((4, 1)), batch_size=2, verbose=0)
    assert int(tuner.get_best_models()[0].optimizer.iterations) == 2


def test_trials_are_saved_by_save_trial(tmp_path, monkeypatch, quiet_tuner):
    """`Oracle._save_trial` writes trial.json, and nothing else does."""
    monkeypatch.setattr(keras_tuner.Oracle, "_save_trial", lambda self, trial: None)
    tuner, _ = tuned("RandomSearch", tmp_path, max_trials=1)
    tuner.search(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    assert not [*tmp_path.rglob("trial.json")]
    assert [*tmp_path.rglob("oracle.json")]


def test_a_retried_trial_comes_next(tmp_path, quiet_tuner):
    """That whose number is last in `Oracle._retry_queue`."""
    _, oracle = tuned("RandomSearch", tmp_path, max_trials=2)
    first = oracle.create_trial("tuner0")
    oracle.ongoing_trials = {}
    oracle._retry_queue += [first.trial_id]
    assert oracle.create_trial("tuner0") is first
    assert oracle.create_trial("tuner1") is not first


def test_the_random_state_of_bayesian_optimization(tmp_path):
    """Is a `numpy.random.RandomState`, that keras-tuner does not save."""
    _, oracle = tuned("BayesianOptimization", tmp_path)
    name, keys, *rest = oracle._random_state.get_state()
    json.dumps([name, keys.tolist(), *rest])
    assert not {"random_state", "_random_state"} & oracle.get_state().keys()


def test_the_sizes_of_hyperband(tmp_path):
    """Of all rounds of all brackets add up to the trials."""
    _, oracle = tuned("Hyperband", tmp_path, max_epochs=9, factor=3)
    brackets = range(oracle._get_num_brackets())
    sizes = [[oracle._get_size(b, r) for r in range(oracle._get_num_rounds(b))] for b in brackets]
    assert sizes == [[3], [5, 2], [9, 3, 1]]


def test_the_order_of_a_grid_search(tmp_path, quiet_tuner):
    """Is a list in which each trial names the one after it, made of them in their order, and a
    queue; keras-tuner saves neither."""
    tuner, oracle = tuned("GridSearch", tmp_path)
    tuner.search(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    first, second = oracle.start_order
    again = type(oracle._ordered_ids)()
    for trial_id in (first, second):
        again.insert(trial_id)
    for ordered in (oracle._ordered_ids, again):
        assert ordered.next(first) == second
        assert ordered.next(second) is None
    assert oracle._populate_next == []
    assert not {"ordered", "next"} & oracle.get_state().keys()


@pytest.mark.tensorflow
def test_gradients_are_registered_for_good():
    """With the graph they were traced in, under a name in TensorFlow's registry, which is asked for
    the entry's "type" whenever a gradient is built."""

    @tf.custom_gradient
    def doubled(x):
        return x * 2.0, lambda d: d * 2.0

    registry = gradients_of.gradient_registry._registry
    before = set(registry)
    function = tf.function(doubled).get_concrete_function(tf.TensorSpec((1,)))
    (name,) = registry.keys() - before
    gradient = registry[name]["type"]
    tape_grad = inspect.getclosurevars(gradient).nonlocals["tape_grad_fn"]
    assert inspect.getclosurevars(tape_grad).nonlocals["result"].graph is function.graph
    assert gradients_of.gradient_registry.lookup(name) is gradient


def test_conditions_print(monkeypatch, capsys):
    """`print` is nothing else in that file, for which `kerasrnn.tuning` has one that is silent."""
    assert workers.conditions is conditions
    condition = conditions.Parent("cell", ["gru"])
    condition.to_proto()
    assert capsys.readouterr().out == ""
    monkeypatch.delattr(conditions, "print")
    condition.to_proto()
    assert capsys.readouterr().out == "gru\n"
    assert inspect.getsource(conditions).count("print(") == 1


def test_a_worker_asks_a_client(monkeypatch, tmp_path):
    """keras-tuner has put it in the place of the oracle by the end of `Tuner.__init__`; its calls
    are plain attributes, and so are the chief's two lists of its workers."""
    for name, value in (("ORACLE_IP", "127.0.0.1"), ("ORACLE_PORT", "1"), ("TUNER_ID", "worker")):
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    tuner = keras_tuner.RandomSearch(lambda hp: None, "loss", directory=str(tmp_path))
    assert type(tuner.oracle).__name__ == "OracleClient"
    assert callable(tuner.oracle.create_trial)
    oracle = keras_tuner.oracles.RandomSearchOracle("loss")
    assert (oracle.tuner_ids, oracle.ongoing_trials) == (set(), {})
