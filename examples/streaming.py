"""A net that listens: from whole recordings in training to a stream in pieces of any size.

    python examples/streaming.py            # about a minute; writes streaming.png

A GRU learns to hear a call, a tone that rises and fades within 200 ms, among falling and steady
tones and noise; it is to say so at the end, and may know a moment before. `export_streaming` writes
the net as one time step with its states in and out; from then on neither Keras nor this package is
needed. The exported step hears a new recording as a microphone would give it, in chunks of odd
sizes: what is left of a chunk waits for the next one, and the states go from step to step.

Printed: which calls were heard and which alarms were false, the delay from the end of a call, the
time that a chunk takes, and that the outputs are those of the whole recording at once. The
picture: the spectrogram of the recording with its calls, and what the net says.
"""

import os
import pathlib
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gallery
import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from kerasrnn.export import export_streaming
from kerasrnn.layers import GRU

RATE, HOP, FRAME = 8000, 80, 160  # samples: a second, 10 ms, 20 ms
BANDS = 20
SOUND = 0.2  # seconds, of a call and of the tones that are none
# By their probability.
SOUNDS = {"call": 0.4, "falling": 0.2, "steady": 0.2, "noise": 0.1, "nothing": 0.1}
# Frames behind the end of a call in which the net is to say so: what it hears is over by then.
SAY = 12
THRESHOLD = 0.5
# Frames of silence behind an alarm.
REST = 20


def main(argv=None):
    flags = gallery.parser(__doc__, "streaming.png")
    flags.add_argument("--recordings", type=gallery.at_least(1), default=300, help="to train on")
    flags.add_argument("--epochs", type=gallery.at_least(1), default=10)
    flags.add_argument("--units", type=gallery.at_least(1), default=32)
    flags.add_argument("--seconds", type=gallery.at_least(3), default=60, help="of the stream")
    arguments = flags.parse_args(argv)
    settings = {name: value for name, value in vars(arguments).items() if name != "out"}

    one = result(**settings, picture=arguments.out)
    rows = [
        ["calls heard", f"{one['heard']} of {one['calls']}"],
        ["false alarms", one["false_alarms"]],
        ["delay from the end of a call, median", f"{one['delay_ms']:.0f} ms"],
        ["chunks", one["chunks"]],
        ["sound of a chunk, mean", f"{one['chunk_ms']:.1f} ms"],
        ["its processing, median", f"{one['process_ms']:.2f} ms"],
        ["largest difference from the whole recording", f"{one['difference']:.1e}"],
    ]
    print(gallery.table([f"{arguments.seconds} s of sound", ""], rows))
    print(f"\nWritten: {arguments.out}")
    print(
        'Next: in this script, export_streaming(..., format="litert"), the step that a phone runs; '
        "does it hear the same?"
    )


def result(kind=GRU, seed=0, epochs=10, recordings=300, units=32, seconds=60, picture=None):
    """Trains one net, exports it and has it hear a stream.

    Args:
        kind: A layer's class.
        recordings: To train on, of three seconds each.
        seconds: The length of the stream.
        picture: A PNG to write.

    Returns:
        A dictionary: "calls" of the stream, "heard" of them, "false_alarms", "delay_ms" from the
        end of a call to its alarm, the median, NaN where none is heard; "chunks", their number,
        "chunk_ms", their mean length, and "process_ms", the median of the time they take;
        "difference", the largest between the outputs of the stream and of the model on the whole.
    """
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    model = train(kind, rng, epochs, recordings, units)
    sound, ends = recording(rng, seconds)
    with tempfile.TemporaryDirectory() as folder:
        path = export_streaming(model, pathlib.Path(folder) / "step")
        listener = Listener(path)
        spoken, milliseconds = [], []
        pieces = chunks(rng, sound)
        for chunk in pieces:
            begun = time.perf_counter()
            spoken.extend(listener.hear(chunk))
            milliseconds.append(1000 * (time.perf_counter() - begun))
    whole = model.predict(spectrogram(sound)[None], verbose=0)[0, :, 0]

    alarmed = alarms(spoken)
    delays = delays_of(ends, alarmed)
    if picture:
        draw(sound, ends, spoken, alarmed).savefig(picture, dpi=90)
    return {
        "calls": len(ends),
        "heard": len(delays),
        "false_alarms": len(alarmed) - len(delays),
        "delay_ms": float(np.median(delays)) * 1000 if delays else float("nan"),
        "chunks": len(pieces),
        "chunk_ms": 1000 * len(sound) / RATE / len(pieces),
        "process_ms": float(np.median(milliseconds)),
        "difference": np.abs(np.array(spoken) - whole).max().item(),
    }


def recording(rng, seconds):
    """Noise with a call or another sound in most seconds.

    Returns:
        The samples, (seconds * RATE,), and at which of them a call ends.
    """
    sound = rng.normal(0, 0.1, seconds * RATE)
    ends = []
    for second in range(seconds):
        which = rng.choice([*SOUNDS], p=[*SOUNDS.values()])
        start = int((second + rng.uniform(0.1, 0.6)) * RATE)
        piece = tone(rng, which)
        sound[start : start + len(piece)] += rng.uniform(0.1, 0.4) * piece
        if which == "call":
            ends.append(start + len(piece))
    return sound, ends


def tone(rng, which):
    """One sound, of an amplitude of 1 and `SOUND` seconds."""
    samples = int(SOUND * RATE)
    if which == "nothing":
        return np.zeros(samples)
    if which == "noise":
        return np.hanning(samples) * rng.normal(0, 1, samples)
    low, high = rng.uniform(500, 900), rng.uniform(1600, 2400)
    steady = rng.choice([low, high])
    ways = {"call": (low, high), "falling": (high, low), "steady": (steady, steady)}
    start, end = ways[which]
    hertz = np.linspace(start, end, samples)
    return np.hanning(samples) * np.sin(2 * np.pi * np.cumsum(hertz) / RATE)


def features(frame):
    """The log of the power in `BANDS` bands up to half the rate, roughly between -2 and 2, of a
    frame or of several, (..., FRAME) -> (..., BANDS)."""
    power = np.abs(np.fft.rfft(frame * np.hanning(FRAME))[..., 1:]) ** 2
    bands = power.reshape(*power.shape[:-1], BANDS, -1).mean(axis=-1)
    return (np.log(bands + 1e-3) / 2).astype("float32")


def spectrogram(sound):
    """The features of all whole frames, (frames, BANDS)."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, FRAME)[::HOP]
    return features(frames)


def end_of(frame):
    """The sample behind a frame."""
    return frame * HOP + FRAME


def labels(ends, frames):
    """1 in the `SAY` frames behind the end of each call, else 0, (frames, 1)."""
    behind = end_of(np.arange(frames))[:, None] - np.array(ends, int)
    return ((behind >= 0) & (behind < SAY * HOP)).any(axis=1, keepdims=True).astype("float32")


def train(kind, rng, epochs, recordings, units):
    x, y = [], []
    for _ in range(recordings):
        sound, ends = recording(rng, 3)
        x.append(spectrogram(sound))
        y.append(labels(ends, len(x[-1])))
    inputs = keras.Input((None, BANDS), name="x")
    h = kind(units, return_sequences=True, name="rnn")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="call")(h))
    model.compile(keras.optimizers.Adam(5e-3, global_clipnorm=1.0), "binary_crossentropy")
    model.fit(np.array(x), np.array(y), batch_size=16, epochs=epochs, verbose=0)
    return model


class Listener:
    """The exported step behind a microphone: samples in, in pieces of any size, and out what the
    net says of each frame that they complete."""

    def __init__(self, path):
        # Held, or its functions are gone.
        self.served = tf.saved_model.load(path)
        self.states = self.served.signatures["initial_state"](batch=tf.constant(1))
        self.waiting = np.zeros(0)

    def hear(self, chunk):
        self.waiting = np.concatenate([self.waiting, chunk])
        spoken = []
        while len(self.waiting) >= FRAME:
            x = tf.constant(features(self.waiting[None, :FRAME]))
            out = self.served.signatures["step"](x=x, **self.states)
            self.states = {name: out[name] for name in self.states}
            spoken.append(out["call"].numpy().item())
            # The next frame begins with the second half of this one.
            self.waiting = self.waiting[HOP:]
        return spoken


def chunks(rng, sound, longest=400):
    """The samples in pieces of 1 to `longest`."""
    cuts = np.cumsum(rng.integers(1, longest + 1, len(sound)))
    return np.split(sound, cuts[cuts < len(sound)])


def alarms(spoken):
    """The frames at which the output is above the threshold, but for those within a rest behind an
    alarm: an output that stays above it raises the next one after each rest."""
    found = []
    for frame in np.flatnonzero(np.array(spoken) > THRESHOLD):
        if not found or frame - found[-1] > REST:
            found.append(int(frame))
    return found


def delays_of(ends, alarmed):
    """Seconds from the end of each call that was heard to its alarm: the first one, from shortly
    before the end to half a second behind it, that is not an earlier call's."""
    found, left = [], sorted(alarmed)
    for end in sorted(ends):
        for frame in left:
            delay = (end_of(frame) - end) / RATE
            if -SOUND / 2 <= delay < 0.5:
                found.append(delay)
                left.remove(frame)
                break
    return found


def draw(sound, ends, spoken, alarmed):
    """The first eight seconds or less."""
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    heard, said = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    seconds = len(sound) / RATE
    power = spectrogram(sound).T
    heard.imshow(
        power,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="Greys",
        # Most of the noise in one shade.
        vmin=np.quantile(power, 0.8),
        extent=(0, seconds, 0, RATE / 2000),
    )
    for end in ends:
        at = end / RATE
        heard.plot(
            [at - SOUND, at], [3.2, 3.2], color="tab:red", linewidth=4, solid_capstyle="butt"
        )
    heard.set(ylabel="frequency, kHz", title="What it hears; the bars are the calls")
    times = end_of(np.arange(len(spoken))) / RATE
    said.plot(times, spoken, color="k", linewidth=1)
    said.plot(times[alarmed], np.full(len(alarmed), 1.08), "v", color="tab:red", label="alarm")
    for end in ends:
        said.axvspan(end / RATE - SOUND, end / RATE, color="0.85")
    said.set(xlabel="time, s", ylabel="P(call)", ylim=(-0.05, 1.25))
    said.set(xlim=(0, min(8, seconds)), title="What it says; grey: the calls")
    said.legend(loc="center left")
    return figure


if __name__ == "__main__":
    main()
