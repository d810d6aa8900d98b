"""SavedModels where they are served: behind a gRPC PredictionService as TensorFlow Serving has it,
and in a C program with the libraries of the tensorflow wheel. Ends with an error where an answer is
not what the model gives.

    pip install --no-deps tensorflow-serving-api
    python benchmarks/serving.py
"""

import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from kerasrnn.export import export_saved_model, export_streaming
from kerasrnn.layers import LSTM

REQUESTS, THREADS = 1000, 8
FEATURES, UNITS, STEPS = 3, 16, 36
WORDS = [f"word{i}" for i in range(200)]
RNG = np.random.default_rng(0)


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict alone, of one model."""

    def __init__(self, path):
        self.loaded = tf.saved_model.load(path)

    def Predict(self, request, context):
        run = self.loaded.signatures[request.model_spec.signature_name]
        taken = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        outputs = run(**{name: tf.constant(value) for name, value in taken.items()})
        response = predict_pb2.PredictResponse()
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


def requests(folder):
    """Texts from several threads at once; each answer is that to its text."""
    texts = [" ".join(RNG.choice(WORDS, RNG.integers(1, 30))) for _ in range(REQUESTS)]
    vectorize = keras.layers.TextVectorization(vocabulary=WORDS, output_sequence_length=40)
    words = keras.Input((40,), dtype="int64")
    embedded = keras.layers.Embedding(vectorize.vocabulary_size(), 16, mask_zero=True)(words)
    model = keras.Model(words, keras.layers.Dense(1, "sigmoid")(LSTM(32)(embedded)))
    model.set_weights([RNG.normal(0, 0.5, w.shape) for w in model.weights])
    path = export_saved_model(model, folder / "sentiment", preprocessing=vectorize)
    want = np.ravel(model.predict(vectorize(texts), verbose=0))

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(THREADS))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(path), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    with grpc.insecure_channel(f"localhost:{port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def ask(text):
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = "serving_default"
            request.inputs["text"].CopyFrom(tf.make_tensor_proto([text]))
            (answer,) = stub.Predict(request, timeout=60).outputs.values()
            return tf.make_ndarray(answer).item()

        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
            answers = list(threads.map(ask, texts))
        took = time.perf_counter() - began
    server.stop(None)
    np.testing.assert_allclose(answers, want, atol=1e-5)
    apart = np.abs(np.array(answers) - want)
    # What another text's answer would look like.
    others = np.median(np.abs(want - np.roll(want, 1)))
    print(
        f"gRPC: {len(answers)} answers to {REQUESTS} requests from {THREADS} threads in {took:.1f} "
        f"s; off by {apart.max():.0e} at most (the answer to another text, by {others:.0e})"
    )


def built(folder):
    """The C program."""
    wheel = pathlib.Path(tf.__file__).parent
    program = folder / "step"
    source = pathlib.Path(__file__).with_suffix("").with_name("step.c")
    libraries = [wheel / "libtensorflow_cc.so.2", wheel / "libtensorflow_framework.so.2"]
    command = ["gcc", "-O2", source, "-o", program, f"-I{tf.sysconfig.get_include()}", *libraries]
    subprocess.run([*command, f"-Wl,-rpath,{wheel}"], check=True)
    return program


def steps_in_c(folder):
    """A streaming SavedModel in C, its states in the program and in the file."""
    inputs = keras.Input((None, FEATURES), name="x")
    y = LSTM(UNITS, return_sequences=True)(LSTM(UNITS, return_sequences=True)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, name="y")(y))
    model.set_weights([RNG.normal(0, 0.4, w.shape) for w in model.weights])
    x = RNG.normal(size=(1, STEPS, FEATURES)).astype("float32")
    want = np.array(model(x))[0]
    program = built(folder)
    for stateful in (False, True):
        path = export_streaming(model, folder / f"stream_{stateful}", stateful=stateful)
        # What the C API finds a tensor by.
        with tf.compat.v1.Session(graph=tf.Graph()) as session:
            definition = tf.compat.v1.saved_model.load(session, ["serve"], str(path))
        step = definition.signature_def["step"]
        states = [name for name in step.inputs if name != "x"]
        tensors = [step.inputs["x"].name, step.outputs["y"].name]
        for name in states:
            tensors += [step.inputs[name].name, step.outputs[name].name]
        done = subprocess.run(
            [program, path, *map(str, (STEPS, FEATURES, UNITS)), *tensors],
            input=" ".join(f"{value:.9g}" for value in x.ravel()),
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        received = np.array(done.stdout.split(), "float32").reshape(want.shape)
        np.testing.assert_allclose(received, want, atol=1e-5)
        apart = np.abs(received - want)
        where = "inside the file" if stateful else "in the program"
        print(f"C: {STEPS} steps, states {where}; off by {apart.max():.0e} at most")


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        requests(folder)
        if shutil.which("gcc"):
            steps_in_c(folder)
        else:
            print("C: not run, there is no gcc")


if __name__ == "__main__":
    main()
