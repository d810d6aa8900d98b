"""Models under a `tf.distribute` strategy of two replicas, beside the same ones on one device."""

import keras
import numpy as np
import pytest

from kerasrnn import layers
from kerasrnn.callbacks import GradientClipping, GradientNormMonitor

RNG = np.random.default_rng(8)
TOKENS = RNG.integers(1, 9, (24, 6)) * (np.arange(6) < RNG.integers(2, 7, (24, 1)))
LABELS = RNG.normal(size=(24, 1)).astype("float32")
FEATURES = 3

BODIES = {
    "lstm": lambda: layers.LSTM(4),
    "keras": lambda: keras.layers.GRU(4),
    "lru": lambda: layers.LRU(4),
    "bidirectional": lambda: layers.Bidirectional(layers.GRU(3)),
    "residual": lambda: layers.RNNStack("gru", 3, 2, connection="residual", project=True),
    "dense": lambda: layers.RNNStack("mingru", 3, 2, connection="dense", bidirectional=True),
    "normalized": lambda: layers.RNNStack("lstm", 3, 2, normalization="layer"),
}


def compiled(body, **options):
    keras.utils.set_random_seed(4)
    inputs = keras.Input((None,), dtype="int64")
    x = keras.layers.Embedding(9, FEATURES, mask_zero=True)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(body()(x)))
    model.compile(keras.optimizers.Adam(0.02), "mse", **options)
    return model


def trained(name):
    """Losses, weights, and what the monitor recorded, with a threshold that clips some updates."""
    model = compiled(BODIES[name])
    monitor = GradientNormMonitor()
    fit = model.fit(
        TOKENS,
        LABELS,
        batch_size=8,
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=[monitor, GradientClipping("global_norm", 0.4)],
    )
    return {
        "loss": np.array(fit.history["loss"]),
        "norms": np.array(monitor.history["global_norm"]),
        "clipped": np.array(monitor.history["clipped_norm"]),
        **{f"weight {n}": w for n, w in enumerate(model.get_weights())},
    }


FEW = ["lstm", "residual"]


@pytest.mark.parametrize(
    "names", [FEW, pytest.param([*(BODIES.keys() - {*FEW})], marks=pytest.mark.slow)]
)
def test_as_on_one_device(names, on_two_devices, tmp_path):
    on_two_devices(f"""
        import test_replicas as t

        for name in {names}:
            # The scope is in force for `fit`, too.
            with strategy.scope():
                result = t.trained(name)
            np.savez({str(tmp_path)!r} + "/" + name + ".npz", **result)
    """)
    for name in names:
        alone = trained(name)
        with np.load(tmp_path / f"{name}.npz") as both:
            assert set(both) == set(alone)
            for key, value in alone.items():
                np.testing.assert_allclose(
                    both[key], value, rtol=1e-5, atol=1e-5, err_msg=f"{name}: {key}"
                )
        assert (alone["clipped"] < alone["norms"]).any()


def test_what_no_strategy_can_run(on_two_devices):
    """One error each, of the layer or of the callback, where TensorFlow has a long one or none."""
    printed = on_two_devices("""
        import keras
        import test_replicas as t

        def said(act):
            try:
                act()
            except ValueError as error:
                print(str(error).replace("\\n", " "))

        def stateful(body, rows):
            with strategy.scope():
                keras.Sequential([keras.Input(batch_shape=(rows, 5, 3)), body()])

        # 4 rows are a batch of each replica's, which Keras takes in silence.
        for body, rows in (
            (lambda: t.layers.GRU(3, stateful=True), 4),
            (lambda: t.layers.RNNStack("gru", 3, 2, stateful=True), 8),
            (lambda: t.layers.Bidirectional(t.layers.GRU(3, stateful=True)), 8),
        ):
            said(lambda: stateful(body, rows))

        with strategy.scope():
            model = t.compiled(t.BODIES["lru"], jit_compile=True)
            dense = t.compiled(lambda: keras.layers.GlobalAveragePooling1D(), jit_compile=True)
        said(lambda: model.fit(t.TOKENS, t.LABELS, batch_size=8, verbose=0))
        said(lambda: model.evaluate(t.TOKENS, t.LABELS, batch_size=8, verbose=0))
        for callback in (t.GradientNormMonitor(), t.GradientClipping()):
            said(lambda: dense.fit(t.TOKENS, t.LABELS, verbose=0, callbacks=[callback]))

        # A program inside of a replica is for one device.
        layer = t.layers.GRU(2)
        layer.build((None, None, 3))
        run = tf.function(lambda x: layer(x), jit_compile=True)
        print("ran", strategy.run(run, args=(tf.ones((2, 5, 3)),)).values[1].shape)
    """)
    assert printed.count("A stateful layer keeps the states of one device's batch") == 3
    assert printed.count("`jit_compile` makes a step one XLA program") == 4
    assert printed.count("under a strategy of 2 replicas") == 7
    assert "ran (2, 2)" in printed


def test_one_device_takes_what_several_do_not():
    model = compiled(BODIES["lru"], jit_compile=True)
    model.fit(TOKENS, LABELS, verbose=0, callbacks=[GradientNormMonitor()])
    assert model.jit_compile
