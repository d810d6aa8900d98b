import numpy as np
import pytest
import speaker_recognition as speakers


def test_the_utterances():
    x, lengths, y = speakers.utterances("train")
    assert x.shape == (270, 29, 12)
    np.testing.assert_array_equal(np.bincount(y), [30] * 9)
    others, other_lengths, other_speakers = speakers.utterances("test")
    assert others.shape == (370, 29, 12)
    assert other_lengths.max() == 29
    assert min(lengths.min(), other_lengths.min()) == 7
    assert {*other_speakers} == {*range(9)}
    for utterances, frames in (x, lengths), (others, other_lengths):
        heard = np.arange(29) < frames[:, None]
        # What a Masking takes for padding, and nothing else.
        np.testing.assert_array_equal(utterances.any(axis=-1), heard)
    # The first numbers of the file's first line: a coefficient, frame by frame.
    np.testing.assert_allclose(x[0, :3, 0], [1.860936, 1.891651, 1.939205], rtol=1e-6)
    # No utterance is in both.
    assert not {each.tobytes() for each in x} & {each.tobytes() for each in others}


def test_the_first_frames():
    x = np.ones((2, 29, 12), "float32")
    heard = speakers.first(x, 4)
    np.testing.assert_array_equal(heard[:, :4], 1)
    np.testing.assert_array_equal(heard[:, 4:], 0)


@pytest.mark.parametrize("net", speakers.NETS)
def test_padding_does_not_count_and_statistics_are_those_of_the_frames(net):
    x, lengths, _ = speakers.utterances("train")
    model = speakers.recognizer(net, 8, 0.5, x, lengths, 10)
    (masking,) = (layer for layer in model.layers if layer.name.startswith("masking"))
    (normal,) = (layer for layer in model.layers if layer.name.startswith("normalization"))
    seen = np.array(normal(masking(x)))[np.arange(29) < lengths[:, None]]
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(seen.std(axis=0), 1, atol=1e-4)
    short = int(lengths[0])
    expected = model.predict(x[:1], verbose=0)
    cut = speakers.first(x, short)[:1]
    np.testing.assert_allclose(model.predict(cut, verbose=0), expected, atol=1e-6)
    if "both" not in net:
        steps = np.pad(x[:1, :short], ((0, 0), (0, 29 - short), (0, 0)))
        np.testing.assert_allclose(model.predict(steps, verbose=0), expected, atol=1e-6)


def test_a_result(monkeypatch):
    few = {part: [a[::9] for a in speakers.utterances(part)] for part in ("train", "test")}
    monkeypatch.setattr(speakers, "utterances", few.get)
    found = speakers.result("GRU", seed=1, epochs=2, units=4)
    assert len(found["heard"]) == len(speakers.HEARD)
    assert speakers.HEARD[-1] == speakers.FRAMES
    assert found["heard"][-1] == found["accuracy"]
    assert 0 <= found["accuracy"] <= 1
    # GRU: 12 and 4 numbers and two biases into three times 4; Normalization: 12, 12 and a count.
    assert found["parameters"] >= 3 * 4 * (12 + 4 + 2) + 9 * 5


def test_cross_validation_leaves_the_test_alone(capsys, monkeypatch):
    """Each utterance of the training set is told once, by a net that has not learned from it."""
    x, lengths, y = speakers.utterances("train")
    monkeypatch.setattr(speakers, "utterances", {"train": (x, lengths, y)}.__getitem__)
    told = []

    def learned(net, epochs, units, noise, x, lengths, y):
        np.testing.assert_array_equal(np.bincount(y), [24] * 9)
        assert len(lengths) == 216
        return {each.tobytes() for each in x}

    def share_of_right(model, x, y):
        each = [one.tobytes() for one in x]
        assert not model & {*each}
        told.extend(each)
        return 0.25 * len(told) / 54

    monkeypatch.setattr(speakers, "learned", learned)
    monkeypatch.setattr(speakers, "share_of_right", share_of_right)
    assert speakers.cross_validated("GRU") == 0.75
    assert sorted(told) == sorted(one.tobytes() for one in x)

    monkeypatch.setattr(speakers, "cross_validated", lambda *args: 0.75)
    speakers.main(["--cross-validate"])
    assert capsys.readouterr().out.count("0.750 in cross-validation") == 4


def test_the_script(capsys, tmp_path, monkeypatch):
    found = {"accuracy": 0.5, "heard": [0.1] * 15, "parameters": 77}
    monkeypatch.setattr(speakers, "result", lambda *args: found)
    speakers.main(["--out", str(tmp_path / "x.png")])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines]
    assert ["GRU,", "both", "directions", "77", "0.500", "0.100"] in rows
    assert ["dynamic", "time", "warping", "0.949"] in rows
    assert lines[-1].startswith("Next: python examples/speaker_recognition.py")
    assert (tmp_path / "x.png").stat().st_size > 10_000
