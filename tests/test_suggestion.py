import pickle

import numpy as np
import pytest
from records import norms, recorded

from kerasrnn.updates.suggestion import suggest_clipnorm


def test_suggestion_follows_pascanus_rule():
    before = norms()
    suggestion = suggest_clipnorm(recorded(before))
    total = np.linalg.norm(before, axis=1)
    assert suggestion == pytest.approx(np.percentile(total, 90), rel=1e-6)
    assert (suggestion.argument, "global" in suggestion.reason) == ("global_clipnorm", True)
    # A long tail does not carry it beyond ten times the median.
    heavy = before.copy()
    heavy[::5] *= 1e4
    median = np.median(np.linalg.norm(heavy, axis=1))
    assert suggest_clipnorm(recorded(heavy)) == pytest.approx(10 * median, rel=1e-6)
    # For a clip per variable it looks at what that clip looks at.
    per_variable = suggest_clipnorm(recorded(before, clip=("clipnorm", 1.0)))
    assert per_variable == pytest.approx(np.percentile(before.max(axis=1), 90), rel=1e-6)
    assert pickle.loads(pickle.dumps(per_variable)).reason == per_variable.reason
    assert str(per_variable).startswith(f"clipnorm={float(per_variable):.3g}: ")


def test_suggestion_counts_what_it_would_cut():
    heavy = norms()
    heavy[::5] *= 1e4
    assert "20% of them lie above this threshold" in suggest_clipnorm(recorded(heavy)).reason
    assert "0% of them lie" in suggest_clipnorm(recorded(np.ones((1, 2)))).reason


def diverging(stable):
    """Norms and losses that are as ever for a while, and then climb until they overflow."""
    climb = np.append(10.0 ** np.arange(2, 32, 2), np.nan)
    before = np.concatenate([norms(stable), np.stack([climb, climb], axis=1)])
    return before, np.concatenate([np.linspace(1, 0.9, stable), climb])


def test_no_number_comes_from_a_training_that_diverged():
    before, loss = diverging(20)
    suggestion = suggest_clipnorm(recorded(before, loss=loss))
    stable = np.linalg.norm(before[:20], axis=1)
    assert suggestion == pytest.approx(np.percentile(stable, 90), rel=1e-6)
    assert "over 20 updates before the training diverged" in suggestion.reason
    # Nor does one that ends finite but for its loss.
    finite = recorded(before[:-1], loss=loss[:-1])
    assert suggest_clipnorm(finite) == pytest.approx(suggestion)
    assert suggest_clipnorm(recorded(before, loss=loss), window=26) < stable.max()
    with pytest.raises(ValueError, match="6 recorded updates, 5 of them finite"):
        suggest_clipnorm(recorded(before, loss=loss), window=6)
    before, loss = diverging(4)
    with pytest.raises(ValueError, match=r"lower the learning rate first.* 4 updates before that"):
        suggest_clipnorm(recorded(before, loss=loss))
    before, loss = diverging(5)
    assert suggest_clipnorm(recorded(before, loss=loss)) < 10


def test_suggestion_names_a_clip_that_fires_too_often():
    before = norms()
    set_clip = ("global_clipnorm", 0.1)
    tight = suggest_clipnorm(recorded(before, before * 0.1, set_clip))
    assert "global_clipnorm=0.1 fired on 100% of the updates" in tight.reason
    assert "a lower learning rate in disguise" in tight.reason
    half = before.copy()
    half[::2] *= 0.1
    assert "disguise" not in suggest_clipnorm(recorded(before, half, set_clip)).reason
    # Whatever the norms, what is suggested fires on less than half of the updates.
    tails = np.random.default_rng(1).lognormal(0, [[0.1], [2.0], [6.0]], (3, 1000))
    for tail in tails:
        suggestion = suggest_clipnorm(recorded(np.stack([tail, np.zeros(1000)], axis=1)))
        assert np.median(tail) <= suggestion <= 10.001 * np.median(tail)
        assert np.mean(tail > suggestion) < 0.5
