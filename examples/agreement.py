"""Is the subject of a sentence singular or plural? What no bag of short n-grams can tell, and the
gradient through time that says, before any training, which net will learn it.

Used by `sentiment.py`.
"""

import dataclasses

import keras
import numpy as np
from matplotlib.figure import Figure
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

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
STYLES = ("tab:blue", "--"), ("tab:red", "-."), ("tab:green", "-")


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


def net(layer):
    words = keras.Input((STEPS,), dtype="int64")
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
