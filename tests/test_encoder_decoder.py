"""The script of the gallery with an encoder and a decoder."""

import encoder_decoder
import keras
import numpy as np
import pytest

from kerasrnn.diagnostics import gradient_flow


@pytest.fixture(scope="module")
def digits():
    return encoder_decoder.rows(np.random.default_rng(0), np.array([1, 4, 2, 5, 3]), 5)


@pytest.fixture(scope="module")
def nets():
    keras.utils.set_random_seed(0)
    nets = encoder_decoder.nets(6)
    rng = np.random.default_rng(0)
    for net in nets[:1]:
        net.set_weights([rng.normal(0, 1, w.shape) for w in net.weights])
    return nets


def test_rows_and_what_is_written(digits):
    assert [(row != 0).sum() for row in digits] == [1, 4, 2, 5, 3]
    for row, n in zip(digits, [1, 4, 2, 5, 3], strict=True):
        assert all(2 <= token < 12 for token in row[:n])
    for order in encoder_decoder.ORDERS:
        x, y = encoder_decoder.batch(digits, order)
        for i, n in enumerate([1, 4, 2, 5, 3]):
            read = [*digits[i, :n]]
            written = read[::-1] if order == "backwards" else read
            assert [*y[i]] == written + [0] * (5 - n)
            assert [*x["late"][i, :n]] == [1, *written[:-1]]
        np.testing.assert_array_equal(x["digits"], digits)


def test_writing_step_by_step_is_the_greedy_decoding_of_the_trained_net(nets, digits):
    """With the whole row so far anew at every step, through the net that is trained."""
    training, encoder, decoder = nets
    late = np.full((5, 1), 1)
    for _ in range(5):
        logits = np.array(training({"digits": digits, "late": late}))[:, -1]
        late = np.column_stack([late, 2 + logits[:, 2:].argmax(axis=1)])
    written = encoder_decoder.write(encoder, decoder, digits)
    np.testing.assert_array_equal(written, late[:, 1:])
    assert len(np.unique(written)) > 2


def test_the_gradient_is_that_of_the_first_digit_written(nets, digits):
    """Beside a net that ends there."""
    training, *_ = nets
    rows = digits[3:4]
    x, y = encoder_decoder.batch(rows, "backwards")
    first = keras.Model(training.inputs, training.output[:, 0])
    first.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    expected = gradient_flow(first, x, y[:, 0]).norms["encoder"]
    norms = np.array(encoder_decoder.gradient(training, rows, "backwards"))
    np.testing.assert_allclose(norms / norms[-1], expected / expected[-1], rtol=1e-4)


def test_what_a_run_gives(monkeypatch):
    monkeypatch.setattr(encoder_decoder, "TESTED", 10)
    one = encoder_decoder.result("forwards", epochs=1, samples=64, longest=3, units=8)
    assert len(one["by_length"]) == len(one["gradient"]) == 3
    assert one["right"] == pytest.approx(np.mean(one["by_length"]))
    assert one["right"] <= one["digits"] <= 1
    assert all(len(read) == len(written) for read, written in one["examples"])
    assert all(read != written for read, written in one["examples"][-1:])


def test_examples_say_whether_they_are_right():
    assert encoder_decoder.said("forwards", [2, 3], [2, 3]) == ("01", "01", "right")
    assert encoder_decoder.said("backwards", [2, 3], [2, 3]) == ("01", "01", "wrong")
    assert encoder_decoder.said("backwards", [2, 3], [3, 2]) == ("01", "10", "right")


def test_the_script(tmp_path, capsys, monkeypatch):
    made = {"right": 0.5, "by_length": [1.0, 0.0], "digits": 0.7, "gradient": [0.1, 0.2]}
    made["examples"] = [([2, 3], [3, 2])]
    seen = []
    monkeypatch.setattr(
        encoder_decoder, "result", lambda order, **settings: seen.append((order, settings)) or made
    )
    flags = ["--longest", "2", "--samples", "8", "--epochs", "1", "--units", "4"]
    encoder_decoder.main([*flags, "--out", str(tmp_path / "a.png")])
    settings = {"longest": 2, "samples": 8, "epochs": 1, "units": 4, "seed": 0}
    assert seen == [("backwards", settings), ("forwards", settings)]
    assert (tmp_path / "a.png").stat().st_size > 10_000
    lines = capsys.readouterr().out.splitlines()
    assert ["backwards", "100", "0", "50.0"] in [line.split() for line in lines]
    assert "  01 -> 10  right" in lines
    assert "  01 -> 10  wrong" in lines
    assert lines[-1].startswith("Next: python examples/encoder_decoder.py")
