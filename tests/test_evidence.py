"""benchmarks/evidence.py and its claims: what is run, what is made of what was found, and one small
training of each kind."""

import argparse
import math
import pathlib
import re
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
    "gates": {"skill": 0.5, "parameters": 100},
    "real_data": {"score": 0.95, "beside": 0.5},
}


def found_by(run, name):
    """What a run may have found, with another skill for every lag."""
    if run.get("task") == "time":
        return {"units": 0.75, "parameters": 1.0}
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
        found = [found_by(run, name) | change(run) for run in runs]
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

    def stacks(*connected):
        """Losses that fall with the depth, but where such connections are, and on `order`."""

        def change(run):
            learned = run["connection"] in connected or run["task"] == "order"
            return {"losses": [0.01 if learned else 3 + run["depth"] / 2] * 3}

        return holds("connections", change)

    assert stacks("residual", "highway", "dense") == [
        "yes where plain ones fail, 4 of 5",
        "no, 1",
    ]
    assert stacks("dense")[0] == "for dense where plain ones fail, 4 of 5"
    assert stacks()[0] == "no"
    assert stacks("plain", "residual")[0] == "no"
    deep = holds("connections", lambda run: {"losses": [abs(run["depth"] - 4)] * 3})
    assert deep[1] == "yes"

    def solved(most):
        lengths = FOUND["order"]["errors"]
        few = {n: 0.0 if int(n) <= most else 0.7 for n in lengths}
        return holds("order", lambda run: {"errors": few if run["omega"] else lengths})

    assert [solved(most) for most in (5000, 200, 0)] == [["yes"], ["up to 200 steps"], ["no"]]
    both = {"accuracy": 0.6}
    better = holds("directions", lambda run: both if run["directions"] == 2 else {"accuracy": 0.5})
    assert better == ["yes"] * 2
    one_seed = holds(
        "directions",
        lambda run: {"accuracy": 0.9 if (run["directions"], run["seed"]) == (2, 0) else 0.7},
    )
    assert one_seed == ["no"] * 2
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
    assert holds("clipping", lambda run: {"loss": 0.2}) == ["no"] * 2

    def gates(better, units=0.75):
        """The verdicts if one of the cells is better on some tasks."""

        def change(run):
            if run["task"] == "time":
                return {"units": units}
            return {"skill": 0.9 if better.get(run["task"]) == run["cell"] else 0.1}

        return holds("gates", change)

    assert gates({"letters": "gru"}) == ["no", "yes"]
    assert gates({"letters": "gru", "order": "lstm"}, units=1.0) == ["yes", "no"]
    assert gates({})[0] == "yes"


@pytest.mark.parametrize(
    ("data", "score", "beside", "verdict"),
    [
        ("speakers", 0.99, 0.9, "yes"),
        ("speakers", 0.97, 0.9, "no"),
        ("digits", 0.92, 0.91, "yes"),
        ("digits", 0.90, 0.91, "no"),
        ("letters", 2.0, 2.1, "yes"),
        ("letters", 2.2, 2.1, "no"),
        ("forecast", 0.1, 0.2, "yes"),
        ("forecast", 0.2, 0.1, "no"),
        ("encoder and decoder", 1.0, 0.2, "yes"),
        ("encoder and decoder", 1.0, 0.95, "no"),
    ],
)
def test_what_holds_of_real_data(claims, data, score, beside, verdict):
    runs = claims["real_data"].wanted(3)
    found = [{"score": score, "beside": beside} for _ in runs]
    rows = dict(zip(claims["real_data"]._SAID, claims["real_data"].rows(runs, found), strict=True))
    assert rows[data].holds == verdict


def test_half_lives_rank_within_one_lag_and_task(claims):
    """What falls with the lag, the same for all cells, tells nothing of cells."""
    memory = claims["memory"]
    runs = memory.wanted(1)
    found = []
    for run, value in zip(runs, np.random.default_rng(0).random(len(runs)), strict=True):
        # Among the cells of one lag and task the order is the other way round.
        found.append({"before": 600 / run["lag"] - value, "skill": 10 / run["lag"] + value / 5})
    assert memory.correlation(runs, found, "before")[0] < -0.5


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
        assert found.keys() == found_by(run, name).keys()
        if other := claims[name].in_keras(small):
            for timed in (small, other):
                assert not claims[name].train(timed | {"timed": True}).get("skill")


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
        (SENTENCES, "at least 20 sentences .* In .*sentences.tsv there are 2"),
        (SENTENCES.replace("\t3\tVBZ", "\tx\tVBZ"), "line 3: verb_index must be a whole number"),
        (SENTENCES.replace("\tVBP", "\tVBD"), "line 2: verb_pos must be one of VBP, VBZ. .*'VBD'"),
        (SENTENCES.replace("\t2\t1\n", "\t2\n"), "line 4: n_diff_intervening .* Received: None"),
    ],
)
def test_a_file_that_does_not_fit(evidence, text, said, tmp_path):
    path = tmp_path / "sentences.tsv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit, match=said):
        evidence.main(["agreement", "--sentences", str(path)])
    with pytest.raises(SystemExit):
        evidence.main(["memory", "--sentences", str(path)])


def test_a_package_that_is_missing(evidence, monkeypatch, capsys):
    packages = {"gates": {"no_such_module": "no-such-package"}}
    monkeypatch.setattr(evidence, "PACKAGES", packages)
    with pytest.raises(SystemExit):
        evidence.main(["memory", "gates"])
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
    assert last.startswith("| The same trainings take at most 0.5 of the time")
    # A tenth of 90 and 16.
    assert last.endswith(", 0.25 (10 trainings) | yes |")
    timed = [run for run in trained if run.get("timed")]
    assert [run["library"] for run in timed] == ["kerasrnn", "keras"] * 10


def test_no_line_about_time_where_keras_has_no_layers(evidence):
    runs = [{"claim": "real_data", "data": "digits"}]
    assert list(evidence.beside_keras(runs)) == []


def test_a_tenth_of_the_updates(evidence):
    arguments = argparse.Namespace(claims=["memory"], quick=True, seeds=3, sentences=None)
    (runs,) = evidence.wanted(arguments).values()
    assert {(run["updates"], run["seed"]) for run in runs} == {(150, 0)}


def test_other_settings_are_other_runs(evidence, claims, monkeypatch, tmp_path):
    """Those of a claim and of the nets, and the file of sentences."""
    arguments = argparse.Namespace(claims=["agreement"], quick=True, seeds=1, sentences=None)

    def one():
        return evidence.wanted(arguments)["agreement"][0]

    before = one()
    assert one() == before
    monkeypatch.setattr(claims["agreement"], "RARER", 5)
    rarer = one()
    monkeypatch.setattr(evidence.nets, "CLIP", 2.0)
    clipped = one()
    arguments.sentences = tmp_path / "sentences.tsv"
    read = []
    for text in (SENTENCES, SENTENCES + "more"):
        arguments.sentences.write_text(text)
        read.append(one())
    assert len({run["settings"] for run in (before, rarer, clipped, *read)}) == 5


@pytest.mark.parametrize("flag", ["--seeds", "--processes"])
def test_none_at_all(evidence, flag, capsys):
    with pytest.raises(SystemExit):
        evidence.main([flag, "0"])
    assert f"argument {flag}: must be a whole number, at least 1" in capsys.readouterr().err


def test_the_loss_by_chance_of_letters(claims):
    from claims import letters

    shares = np.unique(letters.text()[1], return_counts=True)[1] / 4000
    assert letters.chance() == pytest.approx(-(shares * np.log(shares)).sum())


def test_the_updates_to_a_threshold(claims):
    steps_to = claims["connections"].steps_to
    assert steps_to(0.5, [0.9, 0.5, 0.4, 0.6]) == "75"
    assert steps_to(0.4, [0.9, 0.4]) == "-"


# Not of a highway's gate.
OF_CELL = re.compile(r"lstm_cell(_\d+)?/bias$")


@pytest.mark.parametrize("name", ["plain", "highway", "dense"])
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
    norms = [np.linalg.norm(g) for weight, g in named if OF_CELL.search(weight.path)]
    assert len(norms) == 3
    expected = norms[0] / norms[-1]
    assert connections.gradient_ratio(model, stack, x, y) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_real_and_generated_sentences_train_alike(claims, tmp_path):
    path = tmp_path / "sentences.tsv"
    path.write_text(SENTENCES + SENTENCES.partition("\n")[2] * 9)
    agreement = claims["agreement"]
    agreement.check(path)
    for sentences in (None, path):
        run, *_ = agreement.wanted(1, sentences)
        found = agreement.train(run | {"updates": 12, "units": 4})
        assert len(found["looks"]) == agreement.LOOKS
        assert found["looks"][0].keys() == FOUND["agreement"]["looks"][0].keys()
