"""The signatures by which a step is served, with the states outside of the file or inside."""

import numpy as np
import tensorflow as tf

from kerasrnn.export.interface import as_arrays, as_module

_BATCH = {"batch": tf.TensorSpec([], "int32", "batch")}


class StatesOutside:
    """The signatures of a step whose states the caller holds.

    Attributes:
        stepwise: The `Stepwise`.
        taken: The `tf.TensorSpec`s of what `step` takes, by name.
        names: The names of the signatures.
    """

    names = ("step", "initial_state")

    def __init__(self, stepwise):
        self.stepwise = stepwise
        self.taken = stepwise.inputs | stepwise.states

    def functions(self):
        """For each signature its function, and the specifications of what it takes."""
        return {
            "step": (self.stepwise.step, self.taken),
            "initial_state": (self.stepwise.initial_state, _BATCH),
        }

    def module(self):
        """A `tf.Module` with a concrete function of each name."""
        return as_module(self.functions())

    def start(self, run, batch):
        """The states that a sequence starts from."""
        return run("initial_state", {"batch": np.array(batch, "int32")})


class StatesInside:
    """The signatures of a step whose states are variables; attributes as those of `StatesOutside`.

    The rows are fixed, for LiteRT runs reliably on variables of a fixed shape alone.
    """

    names = ("step", "reset")

    def __init__(self, stepwise):
        self.stepwise, self.taken = stepwise, stepwise.inputs
        self._has_run = False

    def module(self):
        stepwise = self.stepwise
        specs = stepwise.inputs | stepwise.states
        module = as_module({"pure_step": (stepwise.step, specs)})
        initial = as_arrays(stepwise.initial_state({"batch": tf.constant(stepwise.batch)}))
        module.states = {name: tf.Variable(value, name=name) for name, value in initial.items()}

        def step(**inputs):
            before = {name: state.read_value() for name, state in module.states.items()}
            outputs = module.pure_step(**inputs, **before)
            for name, state in module.states.items():
                state.assign(outputs.pop(name))
            return outputs

        def reset():
            for name, state in module.states.items():
                state.assign(initial[name])
            # What gives nothing, LiteRT's converter leaves out.
            return {name: tf.constant(value) for name, value in initial.items()}

        for function, specs in ((step, stepwise.inputs), (reset, {})):
            traced = tf.function(function, autograph=False)
            setattr(module, function.__name__, traced.get_concrete_function(**specs))
        return module

    def start(self, run, batch):
        """Nothing, after the states were put back: but for the first sequence, which starts from
        what the file has."""
        if self._has_run:
            run("reset", {})
        self._has_run = True
        return {}
