"""What is quantized inside a layer, in the file of a model."""

import inspect

import keras

from kerasrnn.inside import layers_in


class KeepsQuantization:
    """A layer that makes others when it is built, as a gate, of which its configuration says
    nothing: what a `quantize` did to those inside stands beside the shapes that it was built for,
    and is done again where a file is loaded, before the weights are.

    Keras's layers that do the same lose it (keras-team/keras, issue 21378).
    """

    def get_build_config(self):
        parts = {
            str(index): _quantization(part)
            for index, part in enumerate(layers_in(self))
            if _is_quantized(part)
        }
        config = super().get_build_config()
        return config | {"quantized": parts} if parts else config

    def build_from_config(self, config):
        config = dict(config or {})
        quantized = config.pop("quantized", {})
        super().build_from_config(config)
        parts = list(layers_in(self))
        for index, quantization in quantized.items():
            part = parts[int(index)]
            # A layer that was passed in says so in its own configuration.
            if not _is_quantized(part):
                part.quantize(
                    **{k: keras.saving.deserialize_keras_object(v) for k, v in quantization.items()}
                )


def _is_quantized(layer):
    return isinstance(layer.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy)


def _quantization(layer):
    """The arguments of the `quantize` that made a layer as it is."""
    arguments = {"mode": layer.dtype_policy.quantization_mode}
    config = getattr(layer, "quantization_config", None)
    if config is not None and "config" in inspect.signature(layer.quantize).parameters:
        arguments["config"] = keras.saving.serialize_keras_object(config)
    return arguments
