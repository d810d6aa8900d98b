"""Models as files that run without this package: each is run in its runtime, and compared with the
model, before it takes its place.

    export_saved_model      TensorFlow, TensorFlow Serving, a TF1 session
    export_litert           LiteRT, formerly TensorFlow Lite, with its builtin operations alone
    export_onnx             onnxruntime, OpenVINO and other runtimes of ONNX
    export_streaming        one time step at a time, the states in and out; in all three

They need Keras's TensorFlow backend, and under another say so when they are called.
"""

from kerasrnn.backends import tensorflow_only, tf

if tf:
    from kerasrnn.export.artifact import Artifact, RemoteArtifact, Report
    from kerasrnn.export.litert import export_litert
    from kerasrnn.export.onnx import export_onnx
    from kerasrnn.export.saved_model import export_saved_model
    from kerasrnn.export.streaming import export_streaming

__all__ = [
    "Artifact",
    "RemoteArtifact",
    "Report",
    "export_litert",
    "export_onnx",
    "export_saved_model",
    "export_streaming",
]

if not tf:
    globals().update(
        {
            name: tensorflow_only(
                f"kerasrnn.export.{name}",
                "save the model as .keras, and under KERAS_BACKEND=tensorflow load it with "
                "compile=False and export it",
            )
            for name in __all__
        }
    )
