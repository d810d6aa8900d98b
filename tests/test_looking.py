"""A model is looked at without being changed, on a batch that is one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasrnn import layers
from kerasrnn.diagnostics import gradient_flow, health_report
from kerasrnn.diagnostics.looking import shadowed

rng = np.random.default_rng(0)
X = rng.normal(size=(3, 7, 4)).astype("float32")
Y = rng.normal(size=(3, 1)).astype("float32")


def compiled(*parts):
    model = keras.Sequential([*parts, keras.layers.Dense(1, name="head")])
    model.build(X.shape)
    model.compile("sgd", "mse")
    return model


def test_a_stand_in_calls_the_original_and_goes():
    layer, other = keras.layers.Dense(2), keras.layers.Dense(2)
    expected, calls = np.array(layer(X)), []

    def doubled(original, *args, **kwargs):
        calls.append(args)
        return 2 * original(*args, **kwargs)

    with shadowed("call", [(layer, doubled), (other, doubled)]):
        np.testing.assert_allclose(layer(X), 2 * expected, rtol=1e-6)
        other(X)
    assert len(calls) == 2
    np.testing.assert_allclose(layer(X), expected)
    assert "call" not in vars(layer) | vars(other)


def test_an_attribute_of_the_instance_comes_back():
    cell = keras.layers.GRUCell(2)
    with shadowed("recurrent_activation", [(cell, lambda original, v: -original(v))]):
        assert float(cell.recurrent_activation(0.0)) == -0.5
    assert cell.recurrent_activation is keras.activations.sigmoid


def test_a_stand_in_goes_where_its_block_fails():
    """Or where a later one cannot be put in."""
    layer = keras.layers.Dense(2)
    with pytest.raises(ZeroDivisionError), shadowed("call", [(layer, lambda original, x: x)]):
        1 / 0  # noqa: B018
    assert "call" not in vars(layer)
    pairs = [(layer, lambda original, x: x), (object(), None)]
    with pytest.raises(AttributeError), shadowed("call", pairs):
        pass
    assert "call" not in vars(layer)


@pytest.mark.parametrize("look", [gradient_flow, health_report])
def test_what_is_no_batch(look):
    model = compiled(layers.GRU(3))
    for name, x, y in (
        ("x", X.tolist(), Y),
        ("y", X, Y.tolist()),
        ("x", None, Y),
        ("x", np.float32(1), Y),
        ("x", tf.constant(1.0), Y),
        ("x", tf.data.Dataset.from_tensor_slices((X, Y)).batch(3), None),
    ):
        with pytest.raises(
            ValueError, match=rf"^`{name}` must be an array.*Received: {name}=.{{4}}"
        ):
            look(model, x, y)
    for x, y, shape in ((X, Y[:2], r"\(2, 1\)"), (X[:2], Y, r"\(3, 1\)")):
        with pytest.raises(ValueError, match=rf"`y` must hold as many samples as `x`.*{shape}"):
            look(model, x, y)
    with pytest.raises(ValueError, match=r"`x` must hold at least one sample"):
        look(model, X[:0], Y[:0])
    with pytest.raises(ValueError, match=r"`y` must hold the targets.* Received: y=None"):
        look(model, X, None)
    with pytest.raises(ValueError, match=r"`sample_weight` must hold .*\(2,\)"):
        gradient_flow(model, X, Y, np.ones(2))


@pytest.mark.parametrize("look", [gradient_flow, health_report])
def test_a_loss_without_targets(look):
    class Own(keras.Model):
        def __init__(self, adds):
            super().__init__()
            self.rnn, self.adds = layers.GRU(3, name="rnn"), adds

        def call(self, x):
            h = self.rnn(x)
            if self.adds:
                self.add_loss(keras.ops.mean(h**2))
            return h

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            if self.adds:
                return super().compute_loss(x, y, y_pred, sample_weight, training)
            return keras.ops.mean(y_pred**2)

    for adds in (True, False):
        model = Own(adds)
        model.compile("sgd", None if adds else "mse")
        look(model, X, None)
