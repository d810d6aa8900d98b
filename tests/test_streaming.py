"""The script of the gallery that listens to a stream."""

from types import SimpleNamespace

import numpy as np
import pytest
import streaming


@pytest.fixture
def sound(rng):
    return streaming.recording(rng, 6)


def test_a_call_rises_and_nothing_else_does(rng):
    """By the strongest frequency of its first and its last third."""

    def hertz(piece):
        power = np.abs(np.fft.rfft(piece * np.hanning(len(piece))))
        return power.argmax() * streaming.RATE / len(piece)

    for which, rises in (("call", 1), ("falling", -1), ("steady", 0)):
        first, _, last = np.array_split(streaming.tone(rng, which), 3)
        assert np.sign(round((hertz(last) - hertz(first)) / 100)) == rises
    assert not streaming.tone(rng, "nothing").any()


def test_features_are_the_power_in_bands(rng):
    """That of a tone is in its band: (2 * 200 + 100) Hz in the third of 200 Hz each."""
    t = np.arange(streaming.FRAME) / streaming.RATE
    features = streaming.features(np.sin(2 * np.pi * 500 * t))
    assert features.shape == (20,)
    assert features.argmax() == 2
    x = rng.normal(size=1000)
    frames = streaming.spectrogram(x)
    assert len(frames) == 1 + (1000 - 160) // 80
    np.testing.assert_allclose(frames[3], streaming.features(x[240:400]), rtol=1e-5)
    assert streaming.end_of(3) == 400


def test_labels_are_behind_the_end_of_a_call(sound):
    _, ends = sound
    assert ends
    y = streaming.labels(ends, 598)
    behind = [frame * 80 + 160 - end for frame in np.flatnonzero(y) for end in ends]
    assert min(b for b in behind if b >= 0) < 80
    assert y.sum() == 12 * len(ends)
    assert not streaming.labels([], 10).any()


def test_chunks_of_any_size_give_the_same_frames(rng, sound):
    """By a step that says the last band and counts the frames."""
    x, _ = sound

    def step(x, n):
        return {"call": x[:, -1], "n": n + 1}

    listener = object.__new__(streaming.Listener)
    listener.served = SimpleNamespace(signatures={"step": step})
    listener.states, listener.waiting = {"n": 0}, np.zeros(0)
    pieces = streaming.chunks(rng, x)
    np.testing.assert_array_equal(np.concatenate(pieces), x)
    assert {len(piece) % 80 for piece in pieces} > {1, 2, 3}
    spoken = [said for piece in pieces for said in listener.hear(piece)]
    np.testing.assert_allclose(spoken, streaming.spectrogram(x)[:, -1], rtol=1e-6)
    assert listener.states["n"] == len(spoken)


def test_alarms_and_delays():
    spoken = np.zeros(200)
    spoken[[50, 51, 60, 90, 180]] = 0.9
    assert streaming.alarms(spoken) == [50, 90, 180]
    # Ends at which the frames 50 and 90 come 0.05 s later and 0.02 s before.
    ends = [50 * 80 + 160 - 400, 90 * 80 + 160 + 160, 8000 * 10]
    assert streaming.delays_of(ends, [50, 90, 180]) == pytest.approx([0.05, -0.02])
    assert streaming.delays_of(ends, []) == []


def test_an_alarm_is_of_one_call():
    """Two calls end within reach of the first alarm; the second alarm is the second call's."""
    ends, at = [6400, 10400], [123, 131]
    assert [streaming.end_of(frame) / streaming.RATE for frame in at] == [1.25, 1.33]
    assert streaming.delays_of(ends, at[:1]) == pytest.approx([0.45])
    assert streaming.delays_of(ends, at) == pytest.approx([0.45, 0.03])
    # Two alarms of one call: the second is false.
    assert streaming.delays_of(ends[1:], at) == pytest.approx([-0.05])


def test_an_output_that_stays_high_raises_an_alarm_after_each_rest():
    assert streaming.alarms([0.9] * 60) == [0, 21, 42]
    assert streaming.alarms([0.5] * 60) == []


def test_the_script(tmp_path, capsys):
    """The exported step says what the whole net says."""
    flags = ["--recordings", "4", "--epochs", "1", "--units", "4", "--seconds", "3"]
    streaming.main([*flags, "--out", str(tmp_path / "a.png")])
    assert (tmp_path / "a.png").stat().st_size > 10_000
    lines = capsys.readouterr().out.splitlines()
    (difference,) = (line.split()[-1] for line in lines if line.startswith("largest difference"))
    assert float(difference) < 1e-5
    assert lines[-1].startswith("Next: ")
