"""Real data, by the scripts of the gallery: speakers by their vowels, digits drawn with one line,
Shakespeare's letters, a forecast with quantiles, and an encoder with a decoder.

The updates are the scripts' own, in epochs but for letters.
"""

import contextlib
import sys

import digits
import encoder_decoder
import forecast
import language_model
import ngrams
import speaker_recognition

from claims import Row, nets, span, table

SPEAKERS, DIGITS = "LSTM, both directions", "GRU"
# More seeds where the data are few.
MORE_SEEDS = 2
STEPS, ORDER = 4000, 6


def wanted(seeds):
    of_seeds = {
        "speakers": seeds + MORE_SEEDS if seeds > 1 else seeds,
        "digits": seeds,
        "letters": 1,
        "forecast": seeds,
        "encoder and decoder": seeds,
    }
    epochs = {"speakers": 80, "digits": 30, "forecast": 40, "encoder and decoder": 8}
    return [
        {"data": data, "seed": seed, "updates": epochs.get(data, STEPS)}
        for data, count in of_seeds.items()
        for seed in range(count)
    ]


def in_keras(run):
    """The scripts have their layers in their own text."""
    return None


def train(run):
    """The score, and that of what it stands beside."""
    nets.fresh(run["seed"])
    # What the scripts say on the way is not of the tables.
    with contextlib.redirect_stdout(sys.stderr):
        return _TASKS[run["data"]](run["seed"], run["updates"])


def _speakers(seed, epochs):
    found = speaker_recognition.result(SPEAKERS, seed, epochs)
    return {"score": found["accuracy"], "beside": speaker_recognition.WARPED}


def _digits(seed, epochs):
    found = digits.result(DIGITS, seed, epochs)
    return {"score": found["accuracy"], "beside": digits.PUBLISHED[DIGITS]}


def _letters(seed, steps):
    train, test, letters = language_model.split()
    counted = ngrams.bits(train, test, len(letters), ORDER)
    found = language_model.result(seed, steps=steps)
    return {"score": float(found["bits"]), "beside": float(min(counted))}


def _forecast(seed, epochs):
    loss = forecast.result(seed=seed, epochs=epochs)["loss"]
    return {"score": float(loss.pop("GRU")), "beside": float(min(loss.values()))}


def _encoder_decoder(seed, epochs):
    found = encoder_decoder.result(seed=seed, epochs=epochs)
    # The first and the last of the lengths.
    short, *_, long = found["by_length"]
    return {"score": float(short), "beside": float(long)}


_TASKS = {
    "speakers": _speakers,
    "digits": _digits,
    "letters": _letters,
    "forecast": _forecast,
    "encoder and decoder": _encoder_decoder,
}
# What is claimed, what the two numbers are, and whether the first is to be larger.
_SAID = {
    "speakers": (
        "JapaneseVowels, LSTM in both directions: accuracy above 0.98",
        "accuracy {score}; by dynamic time warping {beside} (published)",
        lambda score, beside: score > 0.98,
    ),
    "digits": (
        "MNIST-1D, GRU: accuracy above the published 0.91",
        "accuracy {score}; published {beside}",
        lambda score, beside: score > beside,
    ),
    "letters": (
        "A net predicts Shakespeare's letters better than n-grams",
        f"bits per character {{score}}; the best n-gram up to {ORDER} letters {{beside}}",
        lambda score, beside: score < beside,
    ),
    "forecast": (
        "A net's quantiles are nearer than those of seasonal naive forecasts",
        "quantile loss, in ppm, {score}; the best of three naive ones {beside}",
        lambda score, beside: score < beside,
    ),
    "encoder and decoder": (
        "An encoder-decoder, all of whose input passes through one state, errs more on longer rows",
        "rows of one digit without an error {score}, of ten {beside}",
        lambda score, beside: beside < score - 0.1,
    ),
}


def rows(runs, found):
    for data, (claim, told, holds) in _SAID.items():
        some = [one for run, one in zip(runs, found, strict=True) if run["data"] == data]
        scores, beside = ([one[name] for one in some] for name in ("score", "beside"))
        measured = told.format(score=span(scores), beside=span(beside))
        mean = [sum(values) / len(values) for values in (scores, beside)]
        yield Row(claim, f"{measured}, seeds: {len(some)}", "yes" if holds(*mean) else "no")


def tables(runs, found):
    yield (
        "The scripts of the gallery, by seeds; accuracy, bits per character, quantile loss in ppm, "
        "and share of rows without an error: "
        "`python examples/speaker_recognition.py`, `digits.py`, `language_model.py`, `forecast.py` "
        "and `encoder_decoder.py`."
    )
    lines = [
        [run["data"], run["seed"], f"{one['score']:.4f}", f"{one['beside']:.4f}"]
        for run, one in zip(runs, found, strict=True)
    ]
    yield table(("data", "seed", "score", "beside it"), lines)
