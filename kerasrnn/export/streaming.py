"""Models that run one time step at a time, their states in and out by name."""

import contextlib

import numpy as np
import tensorflow as tf

from kerasrnn.arguments import boolean, one_of
from kerasrnn.export import litert, onnx
from kerasrnn.export.artifact import (
    Report,
    directory_for,
    file_for,
    file_in_place,
    needed,
    reported,
    size_of,
    write_signature,
)
from kerasrnn.export.check import cases, checked
from kerasrnn.export.interface import (
    BOUND,
    SAVE_OPTIONS,
    Interface,
    as_arrays,
    as_tensors,
)
from kerasrnn.export.saved_model import operations_of
from kerasrnn.export.step_rules import stateless
from kerasrnn.export.step_signatures import StatesInside, StatesOutside
from kerasrnn.export.stepwise import Stepwise
from kerasrnn.files import replacing_directory


def export_streaming(model, path, format="saved_model", overwrite=False, stateful=False):
    """Writes a causal model so that it runs one time step at a time.

    The signature `step` takes one step of each input under its own name, (batch, ...), and the
    states by name, and gives the outputs by the names of their layers and the new states by the
    same names; `initial_state` gives the states to start from for a number of rows, `batch`. States
    of other rows than the inputs are an error where the file runs (LiteRT counts their numbers).
    There is no loop in it. A model that returns the last output alone gives at every step what it
    would give if the sequence ended there. A masked step leaves the states as they are and repeats
    the output, which then is a state, too; a causal convolution has its last inputs as one.
    A stateful model is written as if it were not: the states are the caller's.

    With `stateful=True` they are the file's, whatever the model is: variables that last from call
    to call, for as many rows as the model's `Input` says, or one. `step` takes the inputs and gives
    the outputs alone, and `reset`, which takes nothing, puts the initial states back and gives
    them by name. What loads the file holds one set of states, and another loading another.

    Before it takes its place the file runs in its runtime, step by step over random sequences of
    two batches and lengths, and has to give what the model gives of the whole ones: the difference,
    divided by the largest output where that is above 1, is at most 1e-5.

    Args:
        model: A built functional or Sequential model in float32 of recurrent layers, of this
            package or Keras's, of any cell, in stacks and connections; causal `Conv1D`, `Dense`,
            `EinsumDense`, `Embedding`, normalization over the features, dropout, activations, sums
            and products, masks, and `TimeDistributed`, whose layer starts anew at each step. The
            length that an `Input` fixes does not matter.
        path: For "saved_model" and "onnx" a directory to write, for "litert" a file whose name ends
            in ".tflite"; or an address that `tf.io.gfile` knows.
        format: "saved_model"; "litert", one file with both signatures; or "onnx", the files
            `step.onnx` and `initial_state.onnx`: there a state comes out with "_next" behind its
            name, since no two tensors of an ONNX graph have one name.
        overwrite: Whether to replace what stands at `path`.
        stateful: Whether the file keeps the states, which "onnx" cannot.

    Returns:
        The path, an `Artifact` (a `pathlib.Path`), or a `RemoteArtifact` (a string) where `path` is
        an address. Its `report` says what is in there.

    Raises:
        ImportError: the runtime of the format is not installed; the message has the line for pip.
        FileExistsError: there is something at `path`, and `overwrite` is `False`.
        ValueError: the model looks ahead, or has a layer without a step, which the message names;
            it is not built, takes strings or computes in half precision; `format` is unknown;
            the model has no states; `stateful` with "onnx".
        ExportError: the file does not run, or does not give what the model gives.

    Example:

    >>> inputs = keras.Input((None, 3), name="x")
    >>> y = kerasrnn.layers.GRU(4, return_sequences=True, name="gru")(inputs)
    >>> model = keras.Model(inputs, keras.layers.Dense(1, name="y")(y))
    >>> path = kerasrnn.export.export_streaming(model, "stream")
    >>> served = tf.saved_model.load(path).signatures
    >>> states = served["initial_state"](batch=tf.constant(2))
    >>> for x in np.ones((5, 2, 3), "float32"):
    ...     outputs = served["step"](x=tf.constant(x), **states)
    ...     states = {name: outputs[name] for name in states}
    >>> sorted(outputs)
    ['gru_h', 'y']
    """
    one_of(FORMATS, "format", format)
    if boolean("stateful", stateful) and format == "onnx":
        raise ValueError(
            "`stateful` must be False with format='onnx', since an ONNX graph keeps nothing from "
            f"call to call: its states go in and come out. Received: stateful={stateful!r}"
        )
    with FORMATS[format](path, overwrite) as writer:
        interface = Interface(model, format, in_steps=True)
        batch = _rows(model) if stateful else None
        stepwise = Stepwise(interface, batch)
        if not stepwise.states:
            raise ValueError(
                "`model` must have states that go from step to step, of a recurrent layer or a "
                "causal Conv1D; without them each step is a sequence of its own for the other "
                f"exporters. Received: {model.name}"
            )
        served = StatesInside(stepwise) if stateful else StatesOutside(stepwise)
        operations = writer.write(served)
        with stateless(model):
            # One step of each at a time.
            specs = interface.specs_of_batch(batch)
            pairs = cases(model, specs, interface.of_arrays, apart=False)
        difference = checked(format, pairs, _whole(served, writer.run), BOUND)
        report = Report(
            format,
            operations,
            writer.size(),
            difference,
            BOUND,
            ("time",) if stateful else ("batch", "time"),
            {name: tuple(spec.shape) for name, spec in served.taken.items()},
        )
    return reported(writer.place, report)


def _rows(model):
    """The batch of a model's inputs; 1 where they leave it open."""
    return next((part.shape[0] for part in model.inputs if part.shape[0] is not None), 1)


def _whole(served, run):
    """`run(signature, arrays)` over whole sequences, with the outputs of one call of the model."""
    stepwise = served.stepwise

    def whole(inputs):
        batch, length = next(iter(inputs.values())).shape[:2]
        states = served.start(run, batch)
        steps = []
        for t in range(length):
            outputs = run("step", {name: x[:, t] for name, x in inputs.items()} | states)
            states = {name: outputs[name] for name in states}
            steps.append([outputs[name] for name in stepwise.outputs])
        return {
            name: np.stack(ys, 1) if name in stepwise.sequences else ys[-1]
            for name, ys in zip(stepwise.outputs, zip(*steps, strict=True), strict=True)
        }

    return whole


class _SavedModel:
    """Writes a SavedModel, and runs it."""

    def __init__(self, place, directory):
        self.place, self.directory = place, directory

    def write(self, served):
        module = served.module()
        signatures = {name: getattr(module, name) for name in served.names}
        tf.saved_model.save(module, str(self.directory), signatures, SAVE_OPTIONS)
        # Held, or its functions are gone.
        self.loaded = tf.saved_model.load(str(self.directory))
        loaded = self.loaded.signatures
        specs = {
            name: (loaded[name].structured_input_signature[1], loaded[name].structured_outputs)
            for name in signatures
        }
        write_signature(self.directory, specs)
        return operations_of(loaded["step"])

    def run(self, signature, arrays):
        return as_arrays(self.loaded.signatures[signature](**as_tensors(arrays)))

    def size(self):
        return size_of(self.directory)


class _LiteRT:
    """Writes a LiteRT file, and runs it."""

    def __init__(self, place, file):
        self.place, self.file = place, file

    def write(self, served):
        model = served.stepwise.interface.model
        content = litert.converted(model, served.module(), list(served.names))
        self.file.write(content)
        self.runner = litert.Runner(content)
        return self.runner.operations()

    def run(self, signature, arrays):
        return self.runner.run(signature, arrays)

    def size(self):
        return self.file.tell()


class _ONNX:
    """Writes a directory of ONNX files, and runs them."""

    def __init__(self, place, directory):
        self.place, self.directory = place, directory

    def write(self, served):
        self.directory.mkdir()
        self.runners, specs = {}, {}
        model = served.stepwise.interface.model
        for name, (function, inputs) in served.functions().items():
            proto, outputs = onnx.written(model, function, inputs)
            file = self.directory / f"{name}.onnx"
            file.write_bytes(proto.SerializeToString())
            self.runners[name] = onnx.Runner(file.read_bytes(), served.stepwise.states)
            specs[name] = (inputs, outputs)
            if name == "step":
                operations = onnx.operations_of(proto)
        write_signature(self.directory, specs)
        return operations

    def run(self, signature, arrays):
        return self.runners[signature].run(arrays)

    def size(self):
        return size_of(self.directory)


@contextlib.contextmanager
def _saved_model(path, overwrite):
    place = directory_for(path, overwrite)
    with replacing_directory(place) as directory:
        yield _SavedModel(place, directory)


@contextlib.contextmanager
def _litert(path, overwrite):
    needed("ai_edge_litert.interpreter", "litert")
    place = file_for(path, ".tflite", overwrite)
    with file_in_place(place) as file:
        yield _LiteRT(place, file)


@contextlib.contextmanager
def _onnx(path, overwrite):
    onnx.check_runtime()
    place = directory_for(path, overwrite)
    with replacing_directory(place) as directory:
        yield _ONNX(place, directory)


FORMATS = {"saved_model": _saved_model, "litert": _litert, "onnx": _onnx}
