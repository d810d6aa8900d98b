"""Is the subject of a sentence singular or plural? Errors by the number of nouns that mislead.

    python examples/agreement.py            # about a minute; writes agreement.png

A verb agrees with its subject, however many nouns of the other number, attractors, stand between
them. In text few do, and a net may get along with the nouns nearby: Linzen, Dupoux & Goldberg
(2016) counted the errors by the number of attractors. So does this script, with a SimpleRNN and an
LSTM, beside the rule to go by the last noun, after training on sentences of which each further
attractor makes a tenth as many; and the half-life of the gradient through time of each net before
training, which tells them apart.

Used by `sentiment.py`, too: what no bag of short n-grams can tell, and the gradient through time
that says, before any training, which net will learn it.
"""

import dataclasses
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gallery
import keras
import numpy as np
from matplotlib.figure import Figure

from kerasrnn.diagnostics import GradientFlow, gradient_flow
from kerasrnn.initializers import Chrono
from kerasrnn.layers import LSTM, SimpleRNN
from kerasrnn.tasks import number_agreement

EXAMPLE = '"behind the old doors the small key near the red cabinets ..."'
# With a phrase before it, the subject is not the first noun; with an adjective, no three words that
# hold it differ from those that hold another noun.
BEFORE, ADJECTIVES, DISTRACTORS = 1, 1, 9
STEPS = (3 + ADJECTIVES) * (BEFORE + 1 + DISTRACTORS) - 1
# Steps from the subject, which is without a preposition, to the end.
BACK = (3 + ADJECTIVES) * DISTRACTORS
UNITS = 32
# Nouns between subject and verb in the sentences of the script, and what each attractor divides the
# number of its training sentences by.
NOUNS, RARER = 5, 10
NETS = {"SimpleRNN": SimpleRNN, "LSTM": LSTM}
STYLES = ("tab:blue", "--"), ("tab:red", "-."), ("tab:green", "-")


def main(argv=None):
    flags = gallery.parser(__doc__, "agreement.png")
    flags.add_argument("--samples", type=gallery.at_least(1), default=6000, help="to train on")
    flags.add_argument("--epochs", type=gallery.at_least(1), default=6)
    arguments = flags.parse_args(argv)

    settings = {
        "seed": arguments.seed,
        "epochs": arguments.epochs,
        "samples": arguments.samples,
    }
    results = {}
    for name in NETS:
        results[name] = result(name, **settings)
        print(f"{name}: trained", flush=True)
    one = results["LSTM"]
    rows = [
        ["training sentences", *one["trained_on"], sum(one["trained_on"])],
        ["errors by the last noun, %", *map(percent, [*one["last_noun"], one["last_noun_error"]])],
        *(
            [f"errors of the {name}, %", *map(percent, [*r["errors"], r["error"]])]
            for name, r in results.items()
        ),
    ]
    print(f"\n{gallery.table(['attractors', *range(NOUNS + 1), 'all'], rows)}")
    back = (3 + ADJECTIVES) * NOUNS
    print(f"\nThe subject is {back} words back; the gradient before training halves every so many:")
    print(", ".join(f"{name} {one['half_life']:.1f}" for name, one in results.items()))
    draw(results).savefig(arguments.out, dpi=90)
    print(f"\nWritten: {arguments.out}")
    print("Next: python examples/agreement.py --epochs 1; what do the nets go by at first?")


def result(kind="LSTM", seed=0, epochs=6, samples=6000):
    """Trains one of `NETS` on sentences with few attractors.

    Returns:
        A dictionary: "error", the share of errors on the test sentences, in which each noun is
        singular or plural by chance, and "last_noun_error", that of going by the last noun;
        "half_life", of the gradient through time before training, in steps. By the number of
        attractors, 0 to `NOUNS`: "errors" and "last_noun", the same shares, NaN where there is no
        such test sentence, and "trained_on", the number of training sentences.
    """
    keras.utils.set_random_seed(seed)
    x, y = with_few_attractors(samples, seed=2 * seed)
    test = corpus(8000, seed=2 * seed + 1)
    model = net(NETS[kind](UNITS, name="rnn"), steps=x.shape[1])
    (half_life,) = gradient_flow(model, *measured(test)).half_life.values()
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)

    wrong = (model.predict(test[0], batch_size=500, verbose=0)[:, 0] > 0.5) != test[1]
    last_wrong = plural_nouns(test[0])[:, -1] != test[1]
    of_test = attractors(*test)
    return {
        "error": wrong.mean().item(),
        "last_noun_error": last_wrong.mean().item(),
        "half_life": half_life,
        "errors": by(of_test, wrong),
        "last_noun": by(of_test, last_wrong),
        "trained_on": np.bincount(attractors(x, y), minlength=NOUNS + 1).tolist(),
    }


def corpus(samples, seed):
    return number_agreement(samples, NOUNS, seed, before=BEFORE, adjectives=ADJECTIVES)


def with_few_attractors(samples, seed):
    """Sentences of which each further attractor, at any of the `NOUNS`, makes a tenth as many."""
    rng = np.random.default_rng(seed)
    share = ((1 + 1 / RARER) / 2) ** NOUNS
    x, y = corpus(int(1.5 * samples / share) + 1000, seed)
    kept = np.flatnonzero(rng.random(len(x)) < (1 / RARER) ** attractors(x, y))[:samples]
    return x[kept], y[kept]


def plural_nouns(x):
    """Whether the subject and each noun behind it is plural, (samples, 1 + NOUNS)."""
    phrase = 3 + ADJECTIVES
    last = x.shape[1] - 1
    return x[:, last - NOUNS * phrase :: phrase] >= 16


def attractors(x, y):
    """The number of nouns between subject and verb that are not of the subject's number."""
    return (plural_nouns(x)[:, 1:] != y[:, None]).sum(axis=1)


def by(number, wrong):
    """The share that is wrong among those with 0, 1, ..., `NOUNS` attractors."""
    every = [wrong[number == n] for n in range(NOUNS + 1)]
    return [some.mean().item() if len(some) else float("nan") for some in every]


def percent(share):
    return f"{100 * share:.1f}"


def draw(results):
    """The errors of the nets by the number of attractors, beside those of the last noun.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axis = figure.subplots()
    numbers = np.arange(NOUNS + 1)
    rule = next(iter(results.values()))["last_noun"]
    axis.plot(numbers, 100 * np.array(rule), "k:", marker="x", label="by the last noun")
    for (name, one), (color, line), marker in zip(results.items(), STYLES, "so", strict=False):
        style = {"color": color, "linestyle": line, "marker": marker, "linewidth": 2}
        axis.plot(numbers, 100 * np.array(one["errors"]), label=name, **style)
    axis.axhline(50, color="0.7", linewidth=1, zorder=0)
    axis.text(0, 51, "chance", color="0.35")
    axis.set_xlabel(f"attractors among the {NOUNS} nouns between subject and verb")
    axis.set_ylabel("errors, % of the test sentences with so many")
    axis.set_title("Errors in number by attractors", loc="left")
    axis.set_xticks(numbers)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(handlelength=4)
    return figure


@dataclasses.dataclass(frozen=True)
class Learner:
    """A net, the gradient through time that it started with, and what it came to."""

    name: str
    flow: GradientFlow
    right: np.ndarray  # of the test sentences, by the trained net

    @property
    def profile(self):
        (profile,) = self.flow.profile.values()
        return profile

    @property
    def falls(self):
        (half_life,) = self.flow.half_life.values()
        return "does not fall" if np.isinf(half_life) else f"halves every {half_life:.3g} steps"

    @property
    def arrives(self):
        """The share at the subject of the gradient at the last word but one."""
        return f"{100 * self.profile[BACK] / self.profile[1]:.2g}%"


def sentences(samples):
    """Two thirds to train on, a sixth to validate, a sixth to test."""
    x, y = number_agreement(samples, DISTRACTORS, before=BEFORE, adjectives=ADJECTIVES)
    ends = [4 * samples // 6, 5 * samples // 6]
    return list(zip(np.split(x, ends), np.split(y, ends), strict=True))


def measured(part):
    """The sentences at which gradients are measured."""
    return tuple(each[:200] for each in part)


def bag(x, y, n):
    """Logistic regression on 1- to n-grams."""
    # Not on top: who runs this file as a script needs no scikit-learn.
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    ngrams = CountVectorizer(preprocessor=as_text, token_pattern=r"\S+", ngram_range=(1, n))
    # A small C, with which the bag does better here than with 1.
    return make_pipeline(ngrams, LogisticRegression(C=0.01, max_iter=1000)).fit(x, y)


def as_text(numbers):
    return " ".join(map(str, numbers))


def layers():
    """By the name in the picture."""
    return {
        "SimpleRNN": SimpleRNN(UNITS, name="simple_rnn"),
        "LSTM": LSTM(UNITS, name="lstm"),
        "LSTM with Chrono": LSTM(UNITS, bias_initializer=Chrono(STEPS), name="lstm_with_chrono"),
    }


def net(layer, steps=STEPS):
    words = keras.Input((steps,), dtype="int64")
    h = layer(keras.layers.Embedding(36, 16)(words))
    model = keras.Model(words, keras.layers.Dense(1, activation="sigmoid")(h), name=layer.name)
    optimizer = keras.optimizers.Adam(5e-3, global_clipnorm=1.0)
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
    return model


def learn(name, model, train, valid, test, epochs=8):
    """Measures the gradient through time of a net as it is, trains it, and tests it.

    Returns:
        A `Learner`.
    """
    flow = gradient_flow(model, *measured(valid))
    model.fit(
        *train,
        batch_size=32,
        epochs=epochs,
        validation_data=valid,
        callbacks=[StopWhenLearned()],
        verbose=0,
    )
    x, y = test
    right = (model.predict(x, verbose=0)[:, 0] > 0.5) == y
    return Learner(name, flow, right)


class StopWhenLearned(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = logs["val_accuracy"] > 0.999


def picture(learners):
    """The gradients of the nets before training along a sentence, and what the nets came to.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    for learner, (color, linestyle) in zip(learners, STYLES, strict=True):
        # From the last word but one on: an LSTM's way from h to h is not that from c to c.
        profile = learner.profile[1:] / learner.profile[1]
        words = STEPS - 1 - np.arange(len(profile))
        label = f"{learner.name}: {learner.falls}; accuracy {learner.right.mean():.2f}"
        axis.plot(words, profile, color=color, linestyle=linestyle, linewidth=2, label=label)
    # Not beside the lines, where the steeper ones run through it.
    figure.legend(loc="outside lower center", handlelength=4)
    subject = STEPS - BACK
    axis.axvline(subject, color="0.7", linewidth=1, zorder=0)
    below = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "color": "0.35"}
    axis.annotate("the subject", (subject, 0), (4, 5), **below)
    axis.annotate("is or are?", (STEPS, 0), (0, 5), ha="right", **below)
    axis.set_yscale("log")
    axis.set_xlim(0, STEPS)
    axis.set_xlabel(f"word t of the sentence, T = {STEPS}")
    axis.set_ylabel(
        r"$\Vert\partial J/\partial h_t\Vert\;/\;\Vert\partial J/\partial h_{T-1}\Vert$"
    )
    axis.set_title("Gradient through time before training, and accuracy after it", loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
