"""Direct connections around a layer: short ways for the gradient."""

import inspect

import keras


@keras.saving.register_keras_serializable("kerasrnn")
class Residual(keras.layers.Wrapper):
    """Adds a layer's input to its output (He et al., 2016, section 3.2).

        y = x + f(x)          or, where `project=True` and the widths differ,
        y = P x + f(x)

    The gradient reaches x undiminished by way of the sum, however deep the stack.

    Args:
        layer: Any layer whose output has the shape of its input; a recurrent one therefore with
            `return_sequences=True`.
        project: Whether a learned matrix P (features, units) fits x where the last axes differ.

    Returns:
        A tensor of the shape of the layer's output; the layer's mask passes through.

    Raises:
        ValueError: `layer` runs backward in time; or, at build, the shapes differ and `project`
            cannot help or was not asked for (the message gives both).

    Example:

    >>> layer = kerasrnn.layers.Residual(kerasrnn.layers.LSTM(3, return_sequences=True))
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    TensorShape([2, 5, 3])
    """

    def __init__(self, layer, project=False, **kwargs):
        super().__init__(layer, **kwargs)
        if getattr(layer, "go_backwards", False):
            raise ValueError(
                "Residual needs a layer whose outputs stand in the order of its inputs, which "
                "go_backwards=True turns around; run backward inside a Bidirectional. "
                f"Received: layer={layer.name}"
            )
        self.supports_masking = True
        self.project = project
        self.projection = None

    def build(self, input_shape):
        super().build(input_shape)
        input_shape = tuple(input_shape)
        output_shape = tuple(self.layer.compute_output_shape(input_shape))
        if len(output_shape) != len(input_shape) or output_shape[1:-1] != input_shape[1:-1]:
            raise ValueError(
                "Residual needs a layer that keeps all axes but the last (a recurrent one with "
                f"return_sequences=True). Received: layer={self.layer.name}, which turns "
                f"{input_shape} into {output_shape}"
            )
        if output_shape[-1] == input_shape[-1]:
            return
        if not self.project:
            raise ValueError(
                "Residual needs a layer whose output has the width of its input; pass project=True "
                f"to fit it with a learned matrix. Received: layer={self.layer.name}, which turns "
                f"{input_shape} into {output_shape}"
            )
        self.projection = keras.layers.Dense(
            output_shape[-1], use_bias=False, dtype=self.dtype_policy, name="projection"
        )
        self.projection.build(input_shape)

    def call(self, inputs, mask=None, training=None):
        takes = inspect.signature(self.layer.call).parameters
        options = {"mask": mask, "training": training}
        options = {name: value for name, value in options.items() if name in takes}
        shortcut = inputs if self.projection is None else self.projection(inputs)
        return shortcut + self.layer(inputs, **options)

    def compute_mask(self, inputs, mask=None):
        return self.layer.compute_mask(inputs, mask)

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    def get_config(self):
        return super().get_config() | {"project": self.project}
