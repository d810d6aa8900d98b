"""Who of nine men says "ae"? Recurrent nets that hear in one direction, and in both.

    python examples/speaker_recognition.py  # under a minute; writes speaker_recognition.png

JapaneseVowels (Kudo, Toyama & Shimbo, 1999): 270 utterances to learn from and 370 to test, 7 to 29
frames of 12 LPC cepstrum coefficients each, so that shorter ones are masked. The nearest neighbour
by dynamic time warping comes to 0.949 (Bagnall et al., 2018). The picture shows how many frames a
net has to hear. Settings were chosen on parts of the 270 alone, as `--cross-validate` judges them.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gallery
import keras
import numpy as np
from matplotlib.figure import Figure

from kerasrnn.layers import GRU, LSTM, Bidirectional

FRAMES, COEFFICIENTS, SPEAKERS = 29, 12, 9
NETS = {
    "LSTM": (LSTM, False),
    "GRU": (GRU, False),
    "LSTM, both directions": (LSTM, True),
    "GRU, both directions": (GRU, True),
}
BATCH, RATE, DROPOUT = 32, 1e-2, 0.3
STYLES = ("k:", "k-.", "k--", "k-")
# The nearest neighbour by dynamic time warping, all coefficients together (DTW_D): Bagnall et al.
# (2018), "The UEA multivariate time series classification archive, 2018".
WARPED = 0.949
HEARD = range(1, FRAMES + 1, 2)


def main(argv=None):
    flags = gallery.parser(__doc__, "speaker_recognition.png")
    flags.add_argument("--epochs", type=gallery.at_least(1), default=80)
    flags.add_argument("--units", type=gallery.at_least(2), default=64)
    flags.add_argument("--noise", type=float, default=0.5, help="on what is learned from")
    flags.add_argument(
        "--cross-validate",
        action="store_true",
        help="leave the test utterances alone, to choose settings",
    )
    arguments = flags.parse_args(argv)
    settings = [arguments.seed, arguments.epochs, arguments.units, arguments.noise]
    if arguments.cross_validate:
        for net in NETS:
            print(f"{net}: {cross_validated(net, *settings):.3f} in cross-validation", flush=True)
        return

    results = {}
    for net in NETS:
        print(f"training: {net}", flush=True)
        results[net] = result(net, *settings)
    rows = [
        (net, found["parameters"], f"{found['accuracy']:.3f}", f"{found['heard'][3]:.3f}")
        for net, found in results.items()
    ]
    head = ("test accuracy", "weights", "all frames", f"the first {HEARD[3]}")
    print("\n" + gallery.table(head, [*rows, ("dynamic time warping", "", WARPED, "")]) + "\n")
    draw(results, *utterances("test")[:2]).savefig(arguments.out, dpi=90)
    print(f"Written: {arguments.out}")
    print("Next: python examples/speaker_recognition.py --noise 0 --cross-validate")


def result(net, seed=0, epochs=80, units=64, noise=0.5):
    """Trains a net and tests it.

    Returns:
        A dictionary: the "accuracy" on the test utterances, the same of their first frames alone,
        "heard", for each number of frames in `HEARD`, and "parameters", the number of weights.
    """
    keras.utils.set_random_seed(seed)
    model = learned(net, epochs, units, noise, *utterances("train"))
    x, _, y = utterances("test")
    heard = [share_of_right(model, first(x, frames), y) for frames in HEARD]
    return {"accuracy": heard[-1], "heard": heard, "parameters": model.count_params()}


def cross_validated(net, seed=0, epochs=80, units=64, noise=0.5, folds=5):
    """The accuracy on utterances of the training set, each by a net that learned from the others:
    by this the settings were chosen."""
    keras.utils.set_random_seed(seed)
    x, lengths, y = utterances("train")
    right = []
    for place in range(folds):
        # They are sorted by speaker, so that each fold has as many of everybody.
        out = np.arange(len(x)) % folds == place
        model = learned(net, epochs, units, noise, x[~out], lengths[~out], y[~out])
        right.append(share_of_right(model, x[out], y[out]))
    return float(np.mean(right))


def learned(net, epochs, units, noise, x, lengths, y):
    model = recognizer(net, units, noise, x, lengths, epochs * -(-len(x) // BATCH))
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
    return model


def share_of_right(model, x, y):
    return float((model.predict(x, verbose=0).argmax(axis=1) == y).mean())


def first(x, frames):
    """The utterances as far as they are heard after so many frames."""
    return np.where(np.arange(FRAMES)[:, None] < frames, x, 0)


def recognizer(net, units, noise, x, lengths, updates):
    """A net for these utterances, which it sees with mean 0 and variance 1 and, while it learns,
    with noise; the 270 are soon known by heart without."""
    layer, both = NETS[net]
    # As wide as one direction.
    layer = Bidirectional(layer(units // 2)) if both else layer(units)
    heard = x[np.arange(FRAMES) < lengths[:, None]]
    mean, variance = heard.mean(axis=0), heard.var(axis=0)

    inputs = keras.Input((FRAMES, COEFFICIENTS))
    h = keras.layers.Masking()(inputs)
    h = keras.layers.Normalization(mean=mean, variance=variance)(h)
    h = keras.layers.GaussianNoise(noise)(h)
    h = keras.layers.Dropout(DROPOUT)(layer(h))
    outputs = keras.layers.Dense(SPEAKERS, activation="softmax")(h)
    model = keras.Model(inputs, outputs)
    rate = keras.optimizers.schedules.CosineDecay(RATE, updates)
    optimizer = keras.optimizers.Adam(rate, global_clipnorm=1.0)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def utterances(part):
    """Utterances with zeros behind them (utterances, frames, coefficients), the number of frames of
    each, and who speaks; `part` is "train" or "test", as in the package sktime."""
    gallery.require("sktime")
    # Not on top: it takes seconds, and is an extra.
    from sktime.datasets import load_japanese_vowels

    table, speakers = load_japanese_vowels(split=part, return_type="nested_univ")
    lengths = np.array([len(of_one) for of_one in table.iloc[:, 0]])
    x = np.zeros((len(table), FRAMES, COEFFICIENTS), "float32")
    for number, length in enumerate(lengths):
        x[number, :length] = np.stack(table.iloc[number], axis=1)
    return x, lengths, speakers.astype(int) - 1


def draw(results, x, lengths):
    figure = Figure(figsize=(10, 4), layout="constrained")
    utterance, error = figure.subplots(1, 2, width_ratios=[2, 3])
    image = utterance.imshow(
        x[0, : lengths[0]].T,
        cmap="Greys",
        origin="lower",
        aspect="auto",
        extent=(0.5, lengths[0] + 0.5, 0.5, COEFFICIENTS + 0.5),
    )
    utterance.set(xlabel="frame", ylabel="LPC cepstrum coefficient")
    utterance.set_title("An utterance", loc="left")
    figure.colorbar(image, ax=utterance, label="value")

    for style, (net, found) in zip(STYLES, results.items(), strict=True):
        label = f"{net}: {1 - found['accuracy']:.3f}"
        wrong = 1 - np.array(found["heard"])
        error.semilogy(HEARD, wrong, style, marker="o", markersize=3, label=label)
    error.axhline(1 - WARPED, color="0.6", linewidth=1, zorder=0)
    error.annotate(
        f"dynamic time warping: {1 - WARPED:.3f}",
        (1, 1 - WARPED),
        (0, 3),
        ha="right",
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        color="0.35",
    )
    error.set(xlabel="frames heard", ylabel="share of errors in the test", ylim=(0.008, 1))
    error.set_title("Who speaks? After so many frames", loc="left")
    error.legend(loc="upper right", handlelength=4)
    error.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
