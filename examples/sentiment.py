"""Is a film review good or bad? And which net learns what lies far back? A tour of a minute or two.

    python examples/sentiment.py            # with the net in review_net.py
    python examples/sentiment.py --tune     # with the best net of a search

1. A bidirectional LSTM on word vectors learns from sentences whether a review is good or bad,
   beside two bags of words, and together with the better of them (reviews.py, review_net.py).
2. On a task that no bag of short n-grams can do, the gradient through time tells before training
   which LSTM will learn it (agreement.py).

Writes into runs/sentiment/ (or --out) what it lists in the end.
"""

import time

import numpy as np
import starting


def main(argv=None):
    arguments = starting.parse(argv)
    out, begun = arguments.out, time.perf_counter()
    say("Learns whether a film review is good or bad, then whether a verb is singular or plural.")
    say("One to two minutes on two cores; starting TensorFlow takes 5 s.")
    with starting.log_in(out / starting.MARK):
        # Not on top: they take seconds, and the flags are looked at before that.
        import agreement
        import keras
        import review_net
        import reviews

        from kerasrnn.callbacks import GradientNormMonitor
        from kerasrnn.diagnostics import health_report
        from kerasrnn.export import export_saved_model
    keras.utils.set_random_seed(arguments.seed)

    train, valid, test = reviews.split(*reviews.sentences(arguments.limit))
    sizes = "{} sentences to learn from, {} to validate, {} to test"
    say("\n1. Film reviews: " + sizes.format(*(len(labels) for _, labels in (train, valid, test))))
    say("   fitting two bags of words, about 5 s")
    bags = reviews.bag(*train), reviews.strong_bag(*train)
    bag, strong_bag = (one.predict_proba(test[0])[:, 1] for one in bags)

    unlabelled = reviews.unlabelled(arguments.limit)
    say(f"   word vectors from {len(unlabelled)} longer reviews without labels, about 15 s")
    vectors = reviews.word_vectors(reviews.words_of(unlabelled))
    words, vectors = reviews.with_words_of(train[0], *vectors)
    numbers = review_net.numbering(words)
    fit_on = {
        "x": numbers(train[0]),
        "y": train[1],
        "validation_data": (numbers(valid[0]), valid[1]),
    }

    if arguments.tune:
        say(f"   searching for a net, about half a minute for each of {arguments.trials} trials")
        trials, epochs = arguments.trials, min(4, arguments.epochs)
        net = review_net.best_of_search(vectors, fit_on, out / "tuning", trials, epochs)
    else:
        net = review_net.review_net(vectors)
    say("   training the net: compiling, about 10 s in silence")
    norms = out / "gradients.csv"
    norms.unlink(missing_ok=True)
    monitor = GradientNormMonitor(csv=norms)
    best, last = review_net.train(net, fit_on, arguments.epochs, [monitor, review_net.Epochs()])
    say(f"   stopped at epoch {last}, the best was {best}: its weights are kept")
    net.save(out / "model.keras")
    monitor.plot().savefig(out / "gradients.png", dpi=120)
    export_saved_model(net, out / "saved_model", preprocessing=numbers, overwrite=True)
    alone = review_net.served(out / "saved_model", test[0])
    kind = "the best of the search" if arguments.tune else "word vectors, bidirectional LSTM"
    table(test[1], bag, strong_bag, alone, kind)
    predictions(*test, alone)

    say(f"\n2. Agreement: {agreement.EXAMPLE} is, or are?")
    say(f"   As its subject, {agreement.BACK} words back, whatever the other nouns are.")
    train, valid, test = agreement.sentences(min(arguments.limit or 6000, 6000))
    say("\n   test accuracy, ± standard error")
    for n in (1, 2, 3):
        right = agreement.bag(*train, n).predict(test[0]) == test[1]
        say(f"     {'bag of 1-grams' if n == 1 else f'bag of 1-{n}-grams':20}{with_error(right)}")
    learners = []
    for name, layer in agreement.layers().items():
        net = agreement.net(layer)
        if name == "LSTM":
            report = health_report(net, *agreement.measured(valid))
            report.save(out / "health.html")
        one = agreement.learn(name, net, train, valid, test)
        learners.append(one)
        say(f"     {name:20}{with_error(one.right)}   gradient before training: {one.falls}")
    agreement.picture(learners).savefig(out / "gradients_through_time.png", dpi=150)
    _, lstm, remedied = learners
    verdict = report.verdicts[0].words.lower()
    say(f"   {lstm.arrives} of the LSTM's gradient at the last word but one arrives at the subject")
    say(f"   ({verdict}, says {out / 'health.html'}); {remedied.arrives} with Chrono,")
    say("   which starts its gates so that they keep:")
    say(f"   {out / 'gradients_through_time.png'}")

    say(f"\nIn {time.perf_counter() - begun:.0f} s written into {out}:")
    for name, what in starting.OUTPUTS.items():
        if (out / name).exists():
            say(f"   {name:28}{what}")
    say("Next: python examples/sentiment.py --tune, a search among other nets of 5 minutes")


def table(labels, bag, strong_bag, net, kind):
    """Accuracies with their standard errors, and how the net compares."""
    both = (net + strong_bag) / 2
    bag, strong_bag, net, both = ((good > 0.5) == labels for good in (bag, strong_bag, net, both))
    say("\n   test accuracy, ± standard error")
    say(f"     bag                 {with_error(bag)}   TF-IDF of 1-2-grams, logistic regression")
    say(f"     strong bag          {with_error(strong_bag)}   1-3-grams weighted as by naive Bayes")
    say(f"     net                 {with_error(net)}   {kind}")
    say(f"     net and strong bag  {with_error(both)}   the mean of their probabilities")
    say(f"   The net {compared(net, 'the bag', bag)},")
    say(f"   {compared(net, 'the strong bag', strong_bag)};")
    say(f"   the mean of both {compared(both, 'the strong bag', strong_bag)}.")


def with_error(right):
    p = right.mean()
    return f"{p:.3f} ± {np.sqrt(p * (1 - p) / len(right)):.3f}"


def compared(one, name, other):
    """Whether one beats the other, in standard errors of the difference, which are smaller than
    those of each, since both were right or wrong on the same sentences."""
    difference = one.astype(int) - other
    mean, error = difference.mean(), difference.std() / np.sqrt(len(difference))
    errors = abs(mean) / error if error else 0.0
    verb = "ties with" if errors < 1 else "beats" if mean > 0 else "loses to"
    return f"{verb} {name} ({mean:+.3f}, {errors:.1f} standard errors)"


def predictions(texts, labels, good, most=70):
    """Of three sentences the net is right about and one it is wrong about, the first short ones."""
    right = (good > 0.5) == labels
    short = np.array([len(text) <= most for text in texts])
    shown = [*np.flatnonzero(right & short)[:3], *np.flatnonzero(~right & short)[:1]]
    say("\n   P(good) of the SavedModel, in a process without kerasrnn, and the truth")
    for i in shown:
        truth = "good" if labels[i] else "bad"
        say(f"     {good[i]:.2f}  {truth:4}  {'' if right[i] else 'WRONG':5}  {texts[i]}")


def say(text):
    print(text, flush=True)


if __name__ == "__main__":
    main()
