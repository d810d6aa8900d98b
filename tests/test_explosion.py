"""When a loss explodes: the equation, losses of healthy trainings, and those of sick ones."""

import math

import numpy as np
import pytest

from kerasrnn.updates.explosion import ExplosionRule

RNG = np.random.default_rng(0)


def around(level, size, spread=0.3):
    """Losses of a training that gets no better."""
    return level * np.exp(spread * RNG.normal(size=size))


def explosions(losses, explosion=100.0, renew=True):
    """The numbers of the batches whose losses explode."""
    rule, numbers = ExplosionRule(explosion), []
    for i, loss in enumerate(losses):
        if rule.rose_from(float(loss)) is not None:
            numbers.append(i)
            if renew:
                rule.renew()
    return numbers


def with_little_weight(share):
    """Of every `share` batches all but one."""
    return np.where(np.arange(400) % share == share - 1, 1.0, 1e-4) * around(1.0, 400, 0.1)


HEALTHY = {
    "constant": np.ones(300),
    "a first batch of little weight": [1e-4, *around(1.0, 300)],
    "three of them": [*around(1e-4, 3), *around(1.0, 300)],
    "a first loss of 0": [0.0, *around(1.0, 300)],
    "a first loss next to 0": [1e-30, *around(1.0, 300)],
    "a first loss below 0": [-1e-9, *RNG.normal(3.0, 1.0, 300)],
    "all 0": np.zeros(300),
    "0 but for some": np.where(np.arange(300) % 3, 0.0, around(1.0, 300)),
    "single batches of little weight": np.where(np.arange(300) % 7, 1.0, 1e-6) * around(1.0, 300),
    "half of the batches of little weight": with_little_weight(2),
    "all but one in four": with_little_weight(4),
    "every other one, of losses that differ": np.where(np.arange(400) % 2, 1.0, 1e-6)
    * RNG.chisquare(1, 400),
    "negative": RNG.normal(-500.0, 10.0, 300),
    "around 0": RNG.normal(size=300),
    "falling through 0": np.linspace(5.0, -5.0, 1000) + RNG.normal(0.0, 0.3, 1000),
    "rising through 0": np.linspace(-5.0, 5.0, 1000) + RNG.normal(0.0, 0.3, 1000),
    "rising slowly, to a thousand times the first": np.exp(np.linspace(0.0, 7.0, 1000)),
    "converging to nothing, in leaps": np.exp(np.linspace(0.0, -30.0, 2000)) * around(1, 2000, 2.0),
    "not finite": [math.nan, math.inf, 1.0, -math.inf, 2.0, math.nan],
}
DOUBLING = 2.0 ** np.arange(1, 40)


@pytest.mark.parametrize("case", HEALTHY)
def test_a_healthy_training_goes_on(case):
    assert explosions(HEALTHY[case]) == []


@pytest.mark.parametrize(
    ("losses", "first"),
    [
        ([*np.ones(50), *DOUBLING], 56),  # 2^7 = 128
        ([*np.full(50, 1e-3), *1e-3 * DOUBLING], 56),
        ([1e-8, *np.ones(10), *DOUBLING], 17),
        ([*np.ones(4), 101.0], 4),
        ([1.0, 30.0, 200.0], 2),
        # From the first batches on: two leaps may be those of the batches' weights, not three.
        (1000.0 ** np.arange(12), 3),
        ([1.0, 1.1, 0.9, *1000.0 ** np.arange(1, 12)], 5),
        # Of -500 by 99 times 500.
        ([*np.full(50, -500.0), *(-500.0 + 1000.0 * DOUBLING)], 55),
        ([*np.tile([-1.0, 1.0], 20), *DOUBLING], 46),
        # Far above what it has come down to, and above where it came from.
        ([*np.full(20, 100.0), *np.full(200, 0.1), 1000.0], 220),
        # Growing by a tenth with each batch.
        ([*np.ones(200), *1.1 ** np.arange(1, 200)], 248),
    ],
)
def test_a_sick_one_does_not(losses, first):
    assert explosions(losses)[0] == first


def limit(losses, explosion):
    """The equation, in NumPy, and m."""
    recent = np.array(losses[-100:])
    m = np.percentile(recent, 50, method="lower")
    s = np.percentile(np.abs(recent[: (len(recent) + 1) // 2]), 90, method="higher")
    top = max(losses[: len(losses) - len(recent) // 2])
    return m + max((explosion - 1) * s, 2 * (top - m)), m


@pytest.mark.parametrize("level", [-3.0, 0.0, 1.0])
def test_the_limit_is_that_of_the_equation(level):
    losses = (level + RNG.normal(size=230) * np.linspace(2.0, 0.1, 230)).tolist()
    for n in (4, 5, 50, 99, 100, 101, 150, 230):
        for explosion in (1.5, 10.0, 1000.0):
            expected, usual = limit(losses[:n], explosion)
            for just, rose_from in ((-1e-9, None), (1e-9, pytest.approx(usual))):
                rule = ExplosionRule(math.inf)
                assert all(rule.rose_from(loss) is None for loss in losses[:n])
                rule.explosion = explosion
                assert rule.rose_from(expected + just * abs(expected)) == rose_from


def test_after_a_rollback_the_losses_of_older_weights_count():
    """The old ones, of a net that had converged, would have had it go back again and again."""
    rule = ExplosionRule(100.0)
    for loss in (*np.full(200, 1e-3), 5.0):
        exploded = rule.rose_from(loss) is not None
    assert exploded
    rule.renew()
    assert [rule.rose_from(loss) for loss in (10.0, 9.0, 11.0, 10.0)] == [None] * 4
    assert rule.rose_from(1100.0) == 10.0


def test_after_a_rollback_the_next_explosion_is_seen_at_once():
    losses = [1.0, 1.2, 0.8, 1.0, 500.0, 1.0, 600.0, 1e-4, 1.0, 700.0]
    assert explosions(losses) == [4, 6, 9]


def test_no_finite_loss_explodes_where_none_is_to():
    assert explosions([1.0, 1.0, 1.0, 1.0, 1e38], math.inf) == []
