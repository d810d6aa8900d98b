import language_model
import numpy as np
import pytest
import tensorflow as tf

from kerasrnn.export import export_streaming


@pytest.fixture
def few_letters(monkeypatch, rng):
    text = np.tile([0, 1, 2, 1], 700)
    monkeypatch.setattr(language_model, "plays", lambda: (["a", "b", "\n"], text))


@pytest.mark.usefixtures("few_letters")
def test_the_script(capsys, tmp_path):
    flags = ["--steps", "3", "--units", "4", "--order", "2", "--out", str(tmp_path / "x.png")]
    language_model.main([*flags, "--export", str(tmp_path / "step")])
    printed = capsys.readouterr().out
    assert "Checked on 16 letters: no output depends on a later one." in printed
    assert "With bidirectional=True, layer rnn_stack" in printed
    assert "at step 0 sees step 1." in printed
    assert "bits per character\n1-grams" in printed
    assert "which chooses 500 of these 500 letters" in printed
    assert printed.splitlines()[-1].startswith("Next: python examples/language_model.py")
    assert (tmp_path / "x.png").stat().st_size > 10_000
    assert "step" in tf.saved_model.load(tmp_path / "step").signatures


def test_an_export_takes_no_folder_of_other_things(capsys, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SystemExit):
        language_model.main(["--export", str(tmp_path)])
    assert "--export: must be new, or an earlier export, not" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    (tmp_path / "signature.json").touch()
    assert language_model.new_or_exported(str(tmp_path)) == tmp_path


def test_the_plays():
    letters, text = language_model.plays()
    assert len(text) > 5_000_000
    assert "".join(letters[i] for i in text[:40]).startswith("# A Midsummer Night's Dream")
    train, test, _ = language_model.split()
    assert len(test) == pytest.approx(len(text) / 20, abs=1)
    np.testing.assert_array_equal(np.append(train, test), text)


def test_a_language_model_that_looks_ahead_is_caught(rng):
    model = language_model.language_model(5, 8, bidirectional=True)
    with pytest.raises(ValueError, match=r"layer rnn_stack\S* at step 0 sees step 1$"):
        language_model.check_causal(model, rng.integers(0, 5, (1, 8)))


def test_windows():
    text = np.tile([0, 1, 2], 60)
    x, y = language_model.windows(text, [0, 5])
    np.testing.assert_array_equal(x[1], text[5 : 5 + 64])
    np.testing.assert_array_equal(y[1], text[6 : 6 + 64])
    assert language_model.windows(text, [0], 10)[0].shape == (1, 10)


@pytest.mark.usefixtures("few_letters")
def test_a_result():
    found = language_model.result(seed=1, units=4, steps=60)
    assert found["parameters"] == language_model.language_model(3, 4).count_params()
    assert len(found["losses"]) == 2
    # Of three letters, of which one is half of all.
    assert 0 < found["bits"] < 1.6


def test_what_the_step_writes_is_what_the_net_would(tmp_path, rng):
    """Letters drawn from the net itself, called anew for each with all that stands before it."""
    model = language_model.language_model(5, 8)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.weights])
    path = export_streaming(model, tmp_path / "step")
    start = rng.integers(0, 5, 6)
    written, difference, same = language_model.compare(model, path, start, 12, seed=3)
    assert difference < 1e-5
    assert same == 12
    noise, text = np.random.default_rng(3).gumbel(size=(12, 5)), list(start)
    for of_letter in noise:
        text.append((model(np.array([text]))[0, -1] + of_letter).numpy().argmax())
    np.testing.assert_array_equal(written, text[6:])

    other = language_model.language_model(5, 8)
    _, difference, same = language_model.compare(other, path, start, 12, seed=3)
    assert difference > 1e-2
    assert same < 12
