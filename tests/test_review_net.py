"""The net of the demo."""

import json

import keras
import keras_tuner
import numpy as np
import pytest
import review_net
import reviews

WORDS = ["the", "film", "is", "good", "bad", "."]


@pytest.fixture
def vectors(rng):
    return rng.normal(size=(len(WORDS), 6)).astype("float32")


@pytest.fixture
def fit_on(rng):
    x, y = rng.integers(1, 8, (64, 5)), rng.integers(0, 2, 64)
    return {"x": x, "y": y, "validation_data": (x[:24], y[:24])}


def test_numbers_of_texts():
    numbers = review_net.numbering(WORDS)(np.array(["The film , is GOOD.", ""])).numpy()
    assert numbers.shape == (2, review_net.LENGTH)
    assert [*numbers[0, :7]] == [2, 3, 1, 4, 5, 7, 0]
    assert not numbers[1].any()
    assert max(map(len, reviews.words_of(reviews.sentences()[0]))) <= review_net.LENGTH


def test_the_net(vectors):
    """Beside its layers, one sentence at a time and without padding."""
    net = review_net.review_net(vectors, units=3)
    sentences = [2, 3, 4, 5], [7], [3, 1, 2]
    padded = np.zeros((3, 6), int)
    for row, sentence in zip(padded, sentences, strict=True):
        row[: len(sentence)] = sentence
    embedding, both, dense = (
        next(one for one in net.layers if one.name.startswith(name))
        for name in ("embedding", "bidirectional", "dense")
    )
    np.testing.assert_array_equal(embedding.get_weights()[0], [*np.zeros((2, 6)), *vectors])
    expected = []
    for sentence in sentences:
        h = both(embedding(np.array([sentence]))).numpy()[0]
        pooled = np.concatenate([h.max(axis=0), h.mean(axis=0)])
        expected.append(dense(pooled[None]).numpy()[0])
    np.testing.assert_allclose(net(padded), expected, rtol=1e-5)
    assert np.isfinite(net(np.zeros((1, 6), int))).all()


def test_training_keeps_the_averaged_weights_of_the_best_epoch(vectors, rng):
    x = rng.integers(1, 8, (192, 5))
    y = (x == 5).any(axis=1).astype(int)
    # A third of these are wrong, so that the loss grows as the net gets sure.
    otherwise = np.where(rng.random(192) < 0.3, 1 - y, y)
    fit_on = {"x": x, "y": y, "validation_data": (x, otherwise)}
    net = review_net.review_net(vectors, units=3)
    net.optimizer.learning_rate = 0.1
    averages, weights, of_epochs, losses = [], [], [], []

    def note_update(batch, logs):
        weights.append([w.numpy() for w in net.trainable_variables])
        before = averages[-1] if averages else weights[-1]  # As Keras starts its average.
        averages.append([0.99 * a + 0.01 * w for a, w in zip(before, weights[-1], strict=True)])

    def note_epoch(epoch, logs):
        of_epochs.append((averages[-1], weights[-1]))
        losses.append(logs["val_loss"])

    noting = keras.callbacks.LambdaCallback(on_train_batch_end=note_update, on_epoch_end=note_epoch)
    best, last = review_net.train(net, fit_on, 60, [noting])
    assert last == len(losses) == best + 2
    assert best > 1
    assert losses[best - 1] == min(losses)
    kept = [w.numpy() for w in net.trainable_variables]
    for mine, average, raw in zip(kept, *of_epochs[best - 1], strict=True):
        np.testing.assert_allclose(mine, average, rtol=1e-3, atol=1e-4)
        assert not np.allclose(mine, raw, rtol=1e-3, atol=1e-4)
    loss = net.evaluate(*fit_on["validation_data"], verbose=0)[0]
    assert loss == pytest.approx(losses[best - 1], rel=1e-4)


def test_a_line_per_epoch(fit_on, capsys):
    net = keras.Sequential([keras.layers.Dense(1, activation="sigmoid")])
    net.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    best, last = review_net.train(net, fit_on, 1, [review_net.Epochs()])
    assert (best, last) == (1, 1)
    loss, accuracy = net.evaluate(*fit_on["validation_data"], verbose=0)
    printed = capsys.readouterr().out
    assert printed.startswith("   epoch 1: loss ")
    assert f"on the validation sentences {loss:.3f}, accuracy {accuracy:.3f}, " in printed


def test_models_of_the_search_start_from_the_word_vectors(vectors):
    hypermodel = review_net.WithWordVectors(vectors, units=2)
    net = hypermodel.build(keras_tuner.HyperParameters())
    (table,) = net.layers[1].get_weights()
    np.testing.assert_array_equal(table, [*np.zeros((2, 4)), *vectors[:, :4]])


@pytest.mark.slow
def test_the_best_trial_is_taken(fit_on, rng, tmp_path, quiet_tuner, capsys):
    vectors = rng.normal(size=(6, 128)).astype("float32")
    net = review_net.best_of_search(vectors, fit_on, tmp_path, trials=3, epochs=1)
    assert "best first" in capsys.readouterr().out
    (folder,) = tmp_path.iterdir()
    trials = [json.loads(path.read_text()) for path in folder.glob("trial_*/trial.json")]
    best = min(trials, key=lambda trial: trial["score"])["hyperparameters"]["values"]
    assert len(trials) == 3
    assert float(net.optimizer.learning_rate) == pytest.approx(best["learning_rate"])
    assert net.layers[1].output_dim == 2 * best["units"]
    # What was found is not searched again.
    review_net.best_of_search(vectors, fit_on, tmp_path, trials=3, epochs=1)
    assert len([*folder.glob("trial_*/trial.json")]) == 3


def test_a_model_that_cannot_be_served(tmp_path, monkeypatch):
    monkeypatch.setattr(review_net, "SERVE", "import sys; sys.exit('no ' + sys.argv[1])")
    with pytest.raises(RuntimeError, match=r"could not be served:\nno .*nothing"):
        review_net.served(tmp_path / "nothing", ["text"])
