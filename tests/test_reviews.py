"""The data of the demo, its word vectors and its bags of words."""

import collections

import numpy as np
import pytest
import reviews
from sklearn.linear_model import LogisticRegression


@pytest.fixture(scope="module")
def part():
    texts, labels = reviews.sentences(200)
    return list(reviews.split(texts, labels))


def test_sentences_are_shuffled_and_balanced():
    texts, labels = reviews.sentences()
    assert len(texts) == len(labels) == 8530
    assert labels.mean() == 0.5
    parts = list(reviews.split(texts, labels))
    assert [len(part) for part, _ in parts] == [6824, 853, 853]
    assert all(0.4 < part_labels.mean() < 0.6 for _, part_labels in parts)
    again, _ = reviews.sentences()
    np.testing.assert_array_equal(texts, again)
    few, _ = reviews.sentences(100)
    np.testing.assert_array_equal(few, texts[:100])


def test_reviews_without_labels_are_others():
    texts = reviews.unlabelled()
    assert len(texts) == 25_000
    assert all(isinstance(text, str) for text in texts)
    assert not {*texts} & {*reviews.sentences()[0]}
    assert reviews.unlabelled(7) == texts[:7]


def test_words():
    texts = ["It's a<br />Must-see , 10/10!", " \t ", "café"]
    words = [["it's", "a", "must", "-", "see", ",", "10", "/", "10", "!"], [], ["caf", "é"]]
    assert reviews.words_of(np.array(texts)) == words


def test_word_vectors():
    """Beside PPMI with loops over the words and a full SVD."""
    rng = np.random.default_rng(0)
    documents = [list(rng.permutation(list("aabcdefgh"))[: rng.integers(2, 9)]) for _ in range(30)]
    documents[0] += ["rare"]
    words, vectors = reviews.word_vectors(documents, size=8, dimensions=4)
    counts = collections.Counter(word for document in documents for word in document)
    assert [counts[word] for word in words] == sorted(counts.values(), reverse=True)[:8]
    assert words[0] == "a"
    assert "rare" not in words

    together = np.zeros((8, 8))
    for document in documents:
        for i, word in enumerate(document):
            for near in document[max(0, i - 5) : i] + document[i + 1 : i + 6]:
                if "rare" not in (word, near):
                    together[words.index(word), words.index(near)] += 1
    p_both = together / together.sum()
    p, smooth = p_both.sum(axis=1), p_both.sum(axis=0) ** 0.75
    with np.errstate(divide="ignore"):
        pmi = np.log(p_both / (p[:, None] * smooth / smooth.sum()))
    u, s, _ = np.linalg.svd(np.maximum(pmi, 0))
    expected = (u * np.sqrt(s))[:, :4]
    expected /= np.sqrt(np.mean(expected**2))
    # But for the signs of the dimensions.
    signs = np.sign((expected * vectors).sum(axis=0))
    np.testing.assert_allclose(vectors, expected * signs, atol=1e-4)


def test_words_without_a_vector_get_zeros():
    vectors = np.arange(6.0).reshape(3, 2)
    words, table = reviews.with_words_of(["one new , old"], ["one", ",", "two"], vectors)
    assert words == ["one", ",", "two", "new", "old"]
    np.testing.assert_array_equal(table, [*vectors, [0, 0], [0, 0]])


def ngrams(text):
    (words,) = reviews.words_of([text])
    return {tuple(words[i : i + n]) for n in (1, 2, 3) for i in range(len(words) - n + 1)}


def test_the_strong_bag(part):
    """Beside n-grams counted by hand and weighted as in the paper."""
    (texts, labels), _, (test, _) = part
    of_texts = [ngrams(text) for text in texts]
    names = sorted(set().union(*of_texts))

    def counts(grams):
        return np.array([[name in of_text for name in names] for of_text in grams], float)

    x = counts(of_texts)
    p, q = 1 + x[labels == 1].sum(axis=0), 1 + x[labels == 0].sum(axis=0)
    r = np.log((p / np.abs(p).sum()) / (q / np.abs(q).sum()))
    regression = LogisticRegression(max_iter=1000).fit(x * r, labels)
    expected = regression.predict_proba(counts(map(ngrams, test)) * r)
    good = reviews.strong_bag(texts, labels).predict_proba(test)
    np.testing.assert_allclose(good, expected, atol=2e-3)
