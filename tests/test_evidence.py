"""benchmarks/evidence.py and its claims: what is run, what is made of what was found, and one small
training of each kind."""

import math
import pathlib
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def evidence():
    sys.path.insert(0, str(FOLDER))
    try:
        import evidence

        yield evidence
    finally:
        sys.path.remove(str(FOLDER))


FOUND = {
    "memory": {"before": 3.0, "during": 9.0, "skill": 0.5},
    "order": {"errors": {str(n): 0.5 for n in (50, 100, 200, 1000, 5000)}},
    "agreement": {
        "looks": [
            {"right": {"0": 1.0, "1": 0.75}, "last_agrees": 1.0, "last_differs": n > 6}
            for n in range(12)
        ]
    },
    "clipping": {"loss": 0.25},
    "connections": {"before": 0.125, "after": 2.0, "losses": [3.0, 2.0, 1.0]},
    "directions": {"accuracy": 0.75},
    "gates": {"skill": 0.5, "ms": 4.0, "parameters": 100},
    "real_data": {"score": 0.95, "beside": 0.5},
}


def found_by(run, name):
    """What a run may have found, with another skill for every lag."""
    return FOUND[name] | ({"skill": 10 / run["lag"]} if name == "memory" else {})


@pytest.fixture
def claims(evidence, monkeypatch):
    # Of the plays, a few letters.
    from claims import letters

    text = np.random.default_rng(0).integers(0, 4, 4000)
    monkeypatch.setattr(letters, "text", lambda: (list("abcd"), text))
    return evidence.CLAIMS


def test_the_claims(claims):
    assert claims.keys() == FOUND.keys()


@pytest.mark.parametrize("name", FOUND)
def test_runs_are_told_apart_by_their_seeds(evidence, claims, name):
    one, three = (claims[name].wanted(seeds) for seeds in (1, 3))
    keys = {evidence.key(run) for run in three}
    assert len(keys) == len(three)
    assert keys > {evidence.key(run) for run in one}
    assert all(run["updates"] > 0 for run in three)
    for run in one:
        other = claims[name].in_keras(run)
        assert other is None or other == run | {"library": "keras"}


@pytest.mark.parametrize("name", FOUND)
def test_lines_and_tables(claims, name):
    runs = claims[name].wanted(3)
    found = [found_by(run, name) for run in runs]
    for row in claims[name].rows(runs, found):
        assert row.claim
        assert row.holds.startswith(("yes", "no", "for ", "during ", "up to "))
    for part in claims[name].tables(runs, found):
        columns = {line.count("|") for line in part.splitlines()}
        assert len(columns) == 1


def test_a_claim_holds_only_if_the_numbers_say_so(claims):
    """What follows from them is turned around with them."""

    def holds(name, change):
        runs = claims[name].wanted(3)
        found = [FOUND[name] | change(run) for run in runs]
        return [row.holds for row in claims[name].rows(runs, found)]

    def near(run):
        far = run["cell"] == "simple_rnn" and run["lag"] > 30
        reach = 0.1 if far else run["lag"]
        return {"skill": 0.0 if far else 0.9, "before": reach, "during": reach}

    assert holds("memory", near) == ["yes"] * 3
    reversed_ = holds(
        "memory",
        lambda run: {
            "skill": 1 - near(run)["skill"],
            **{when: near(run)[when] for when in ("before", "during")},
        },
    )
    assert reversed_ == ["no"] * 3
    helps = holds(
        "connections",
        lambda run: {"losses": [run["depth"] / 2 if run["connection"] == "plain" else 0.01] * 3},
    )
    assert helps == ["yes", "no, 1"]

    def solved(most):
        lengths = FOUND["order"]["errors"]
        few = {n: 0.0 if int(n) <= most else 0.7 for n in lengths}
        return holds("order", lambda run: {"errors": few if run["omega"] else lengths})

    assert [solved(most) for most in (5000, 200, 0)] == [["yes"], ["up to 200 steps"], ["no"]]
    assert (
        holds("directions", lambda run: {"accuracy": 0.4 + run["directions"] / 10}) == ["yes"] * 2
    )
    assert holds("directions", lambda run: {"accuracy": 0.7}) == ["no"] * 2
    looks = FOUND["agreement"]["looks"]
    sooner = {"last_agrees": 1.0, "last_differs": 1.0}
    assert holds("agreement", lambda run: {"looks": looks}) == ["yes"]
    assert holds("agreement", lambda run: {"looks": [sooner] * 12}) == ["no"]
    of_lstm = holds(
        "agreement", lambda run: {"looks": looks if run["cell"] == "lstm" else [sooner] * 12}
    )
    assert of_lstm == ["for lstm"]
    lost = holds(
        "clipping",
        lambda run: {
            "loss": 1e-9 if run["clip"] != "none" else 0.2 if run["net"] == "cliff" else None
        },
    )
    assert lost == ["yes"] * 2
    assert holds("gates", lambda run: {"skill": 0.9 if run["cell"] == "gru" else 0.1})[0] == "no"
    assert holds("gates", lambda run: {"ms": 2.0 if run["cell"] == "gru" else 4.0})[1] == "yes"


@pytest.mark.parametrize(
    "name", sorted(FOUND.keys() - {"real_data"})
)  # those of the scripts' tests
@pytest.mark.slow
def test_a_small_training_of_each_kind(claims, name):
    kinds = {}
    for run in claims[name].wanted(1):
        kinds.setdefault((run.get("task"), run.get("net")), run)
    for run in kinds.values():
        small = run | {"updates": 25, "units": 4}
        found = claims[name].train(small)
        assert found.keys() == FOUND[name].keys()
        if other := claims[name].in_keras(small):
            for timed in (small, other):
                assert found.keys() >= claims[name].train(timed | {"timed": True}).keys()


def test_sentences_of_one_number_and_their_attractors(claims):
    words, plural, attractors, last_differs = claims["agreement"].generated(400, seed=1)
    assert len(words) == 400
    for row, number, count, differs in zip(words, plural, attractors, last_differs, strict=True):
        row = row[row > 0]
        assert row[-1] == (37 if number else 36)
        # The subject is the noun whose "the" has no preposition before it; a phrase has four words.
        (the,) = (t for t in np.flatnonzero(row == 1) if t == 0 or not 2 <= row[t - 1] <= 5)
        nouns = [word >= 16 for word in row[the:-1] if 6 <= word <= 25]
        assert nouns[0] == number
        assert sum(noun != number for noun in nouns[1:]) == count
        assert (nouns[-1] != number) == differs


def test_attractors_that_are_rare(claims):
    """Of n nouns, k attractors have the weight of (n choose k) / rarer^k."""
    _, _, attractors, _ = claims["agreement"].generated(40_000, seed=1, rarer=10)
    expected = np.zeros(5)
    for nouns in range(1, 5):
        weights = [math.comb(nouns, k) / 10**k for k in range(nouns + 1)]
        expected[: nouns + 1] += np.array(weights) / sum(weights) / 4
    np.testing.assert_allclose(np.bincount(attractors, minlength=5) / 40_000, expected, atol=0.01)


def test_the_updates_until_few_errors(claims):
    updates_to = claims["agreement"].updates_to
    looks = [{"last_agrees": right} for right in [0.5] * 4 + [0.96, 0.5] * 4]
    assert updates_to(looks, "last_agrees", 600) == 250
    assert updates_to(looks[:4], "last_agrees", 600) == np.inf


def test_a_tag_is_the_number_of_the_noun_two_words_on(claims):
    x, tags, weights = claims["directions"].tagged(20, seed=0)
    for sentence, tag, weight in zip(x, tags[..., 0], weights, strict=True):
        for t in np.flatnonzero(sentence == 1):
            assert tag[t] == (sentence[t + 2] >= 16)
        np.testing.assert_array_equal(weight, sentence == 1)


SENTENCES = """sentence\tverb_index\tverb_pos\tn_intervening\tn_diff_intervening
The keys to the cabinet are here\t6\tVBP\t1\t1
The key is here\t3\tVBZ\t0\t0
The key to the old doors of the house is here\t10\tVBZ\t2\t1
"""


def test_real_sentences(claims, tmp_path):
    path = tmp_path / "sentences.tsv"
    path.write_text(SENTENCES)
    claims["agreement"].check(path)
    words, plural, attractors, differs = claims["agreement"].real(path)
    # The last one's nouns are of both numbers.
    assert [(row > 0).sum() for row in words] == [5, 2]
    assert words[0, -5] == words[1, -2]
    np.testing.assert_array_equal((plural, attractors, differs), [[1, 0]] * 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sentence\tverb_index\n", "Missing in .*: verb_pos, n_intervening, n_diff_intervening"),
        (None, "must be a file"),
    ],
)
def test_a_file_without_a_column(evidence, text, said, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence, "PACKAGES", {})
    path = tmp_path / "sentences.tsv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit, match=said):
        evidence.main(["--sentences", str(path)])


def test_a_package_that_is_missing(evidence, monkeypatch, capsys):
    monkeypatch.setattr(evidence, "PACKAGES", {"no_such_module": "no-such-package"})
    with pytest.raises(SystemExit):
        evidence.main(["memory"])
    assert "lacks no-such-package" in capsys.readouterr().err


def test_a_claim_that_is_none(evidence, capsys):
    with pytest.raises(SystemExit):
        evidence.main(["vanish"])
    assert "there are the claims memory, order" in capsys.readouterr().err


def test_from_the_runs_to_the_table(evidence, claims, tmp_path, monkeypatch, capsys):
    """What each run found stands in the file; the seconds of both libraries in the last line."""
    trained = []

    def train(run):
        trained.append(run)
        return {
            "seconds": 1.0 if run["library"] == "kerasrnn" else 4.0,
            **found_by(run, run["claim"]),
        }

    def run_all(path, runs, _, processes=None, runs_per_process=None):
        return [train(run) for run in runs]

    monkeypatch.setattr(evidence, "run_all", run_all)
    monkeypatch.setattr(evidence, "PACKAGES", {})
    evidence.main(["memory", "gates", "--seeds", "2"])
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("| The same trainings with keras.layers | ")
    assert last.endswith(", 0.25 (11 runs) | 0.25x |")
    timed = [run for run in trained if run.get("timed")]
    assert [run["library"] for run in timed] == ["kerasrnn", "keras"] * 11


def test_the_loss_by_chance_of_letters(claims):
    from claims import letters

    shares = np.unique(letters.text()[1], return_counts=True)[1] / 4000
    assert letters.chance() == pytest.approx(-(shares * np.log(shares)).sum())


def test_the_updates_to_a_threshold(claims):
    steps_to = claims["connections"].steps_to
    assert steps_to(0.5, [0.9, 0.5, 0.4, 0.6]) == "75"
    assert steps_to(0.4, [0.9, 0.4]) == "-"


@pytest.mark.parametrize("name", ["plain", "dense", "residual, bidirectional"])
def test_the_ratio_is_that_of_the_first_layer_s_biases_to_the_last_s(claims, name):
    connections = claims["connections"]
    run, *_ = (one for one in connections.wanted(1) if one["connection"] == name)
    run = run | {"depth": 3, "units": 4, "length": 10}
    model, stack = connections.build(run)
    x, y = connections.data(run, 5, seed=0)
    with tf.GradientTape() as tape:
        loss = keras.ops.mean((model(x) - y) ** 2)
    gradients = tape.gradient(loss, model.trainable_weights[:-2])
    named = zip(model.trainable_weights, gradients, strict=False)
    norms = [np.linalg.norm(g) for weight, g in named if weight.path.endswith("bias")]
    half = len(norms) // 3
    expected = np.linalg.norm(norms[:half]) / np.linalg.norm(norms[-half:])
    assert connections.gradient_ratio(model, stack, x, y) == pytest.approx(expected, rel=1e-5)


def test_real_and_generated_sentences_train_alike(claims, tmp_path):
    path = tmp_path / "sentences.tsv"
    path.write_text(SENTENCES + SENTENCES.partition("\n")[2] * 9)
    agreement = claims["agreement"]
    for sentences in (None, path):
        run, *_ = agreement.wanted(1, sentences)
        found = agreement.train(run | {"updates": 12, "units": 4})
        assert len(found["looks"]) == agreement.LOOKS
        assert found["looks"][0].keys() == FOUND["agreement"]["looks"][0].keys()
