"""Which trial is chosen, and how sure its score is."""

import sys

import numpy as np
import pytest
from scipy import stats

from jaxnn import NEVER, Metrics
from jaxnn.search import AllDivergedError, Trial
from jaxnn.search.result import (
    Curve,
    chosen,
    confidence_intervals,
    may_be_chosen,
    proportion_interval,
    skewed_interval,
    standard_error,
)


def curve(number, *evaluations, diverged_at=NEVER, size=10, l2=0.0, start=0):
    """A trial with these errors, a row of replicates per evaluation; the losses are ten times."""
    made = Curve(Trial(number, {"l2": l2}), None, start, size)
    for errors in evaluations:
        values = np.atleast_1d(np.asarray(errors, float))
        at = np.full(len(values), NEVER)
        at[-1] = diverged_at
        made.add(Metrics(10 * values, values), at)
    return made


def curves(*made):
    return {each.trial.number: each for each in made}


def test_the_lowest_mean_at_any_evaluation_wins():
    trials = curves(curve(0, [0.3, 0.3], [0.25, 0.25]), curve(1, [0.1, 0.3], [0.5, 0.5]))
    assert chosen(trials, "error") == 1
    assert trials[1].best("error") == 0
    assert trials[1].score("error") == pytest.approx(0.2)
    assert trials[1].last("error") == pytest.approx(0.5)


def test_of_equals_the_first_wins():
    assert chosen(curves(curve(3, 0.2), curve(2, 0.2)), "error") == 2
    assert curve(0, 0.3, 0.2, 0.2).best("error") == 1


@pytest.mark.parametrize("error", [None, lambda _: 0.02])
def test_what_has_diverged_is_not_chosen_for_what_it_was_before(error):
    late = curve(0, [0.1, 0.1], [0.1, np.nan], diverged_at=40)
    trials = curves(late, curve(1, [0.5, 0.6], [0.4, 0.5]))
    assert chosen(trials, "error", error) == 1
    assert late.score("error") == late.last("error") == np.inf
    lost = curve(2, [0.1, 0.1], diverged_at=40)
    assert lost.score("error") == lost.last("error") == np.inf


def test_nothing_left_to_choose_is_an_error_that_counts():
    trials = curves(curve(0, np.nan, diverged_at=1), curve(1, np.nan, diverged_at=2))
    with pytest.raises(AllDivergedError, match="all 2 configurations diverged"):
        chosen(trials, "error")
    assert may_be_chosen(trials, "error", "mean") == set()


def test_the_standard_error_is_of_the_mean_of_independent_values():
    values = np.array([0.2, 0.25, 0.27, 0.24])
    assert standard_error(values) == pytest.approx(stats.sem(values))


GOOD, WORSE = (0.21, 0.23), (0.9, 0.9)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([curve(1, [0.21, 0.23], size=5)], 1),  # fewer parameters, 0.22 <= 0.2 + 0.02
        ([curve(1, [0.22, 0.24], size=5)], 0),  # 0.23 is beyond
        ([curve(1, [0.21, 0.23], l2=0.5)], 1),  # as many, but stronger L2
        ([curve(1, [0.21, 0.23], size=11, l2=0.5)], 0),
        ([curve(1, [0.21, 0.23]), curve(2, [0.205, 0.205])], 2),  # stopped earlier than 0
        ([curve(1, [0.5, 0.5], [0.21, 0.23], size=5), curve(2, [0.21, 0.23], size=5)], 2),
        # What counts is where it stops: not how long it was trained, nor for how long by itself.
        ([curve(1, WORSE, GOOD, size=5), curve(2, GOOD, WORSE, WORSE, size=5)], 2),
        ([curve(1, GOOD, size=5, start=3), curve(2, WORSE, GOOD, size=5)], 2),
    ],
)
def test_one_standard_error_takes_the_simplest_that_is_as_good(others, expected):
    best = curve(0, WORSE, [0.18, 0.22], WORSE, size=10)  # mean 0.2
    errors = {0: 0.02, 1: 9.0, 2: 9.0}
    assert chosen(curves(best, *others), "error", errors.__getitem__) == expected


def test_without_spread_the_simplest_of_equals_is_chosen():
    trials = curves(curve(0, [0.2, 0.2]), curve(1, [0.2, 0.2], size=5))
    assert chosen(trials, "error", lambda _: 0.0) == 1


def test_parameters_are_kept_of_all_that_may_yet_be_chosen():
    trials = curves(
        curve(0, [0.2, 0.2]), curve(1, [0.3, 0.3]), curve(2, [np.nan] * 2, diverged_at=1)
    )
    assert may_be_chosen(trials, "error", "mean") == {0}
    assert may_be_chosen(trials, "error", "one_standard_error") == {0, 1}


SEEDS = (2, 3, 5, 10)


def covered(low, high, true):
    """The share of intervals that contain the true value."""
    return np.mean((np.asarray(low) <= true) & (true <= np.asarray(high)))


@pytest.mark.parametrize("seeds", SEEDS)
def test_intervals_over_seeds_are_those_of_students_t(seeds):
    values = np.random.default_rng(5).normal(3.0, 1.0, (50, seeds))
    expected = stats.t.interval(
        0.9, seeds - 1, loc=values.mean(axis=1), scale=stats.sem(values, axis=1)
    )
    np.testing.assert_allclose(confidence_intervals(values, confidence=0.9), expected, rtol=1e-9)


@pytest.mark.parametrize("seeds", SEEDS)
def test_intervals_over_seeds_contain_the_true_mean_in_95_of_100_cases(seeds):
    values = np.random.default_rng(seeds).normal(0.9, 0.01, (2000, seeds))
    assert 0.94 <= covered(*confidence_intervals(values), 0.9) <= 0.96


@pytest.mark.slow
@pytest.mark.parametrize("accuracy", [0.5, 0.9, 0.98, 0.995, 0.999])
@pytest.mark.parametrize("models", [1, 3])
def test_intervals_of_the_accuracy_contain_the_true_accuracy_in_95_of_100_cases(accuracy, models):
    rng, examples = np.random.default_rng(11), 360
    # Models agree on most examples: an example is hard for all, or hard for each by itself.
    together = np.sqrt(accuracy) if models > 1 else accuracy
    ends = []
    for _ in range(2000):
        right = rng.random(examples) < together
        alone = rng.random((models, examples)) < accuracy / together
        ends.append(proportion_interval((right & alone).mean(axis=0), models))
    low, high = np.transpose(ends)
    assert covered(low, high, accuracy) >= 0.94
    assert np.all((low >= 0) & (high <= 1))


@pytest.mark.parametrize(("right", "examples"), [(0, 10), (7, 10), (10, 10), (357, 360)])
def test_the_interval_of_the_accuracy_of_a_model_is_exact(right, examples):
    shares = (np.arange(examples) < right).astype(float)
    expected = stats.binomtest(right, examples).proportion_ci(0.95, "exact")
    np.testing.assert_allclose(proportion_interval(shares, 1), expected, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("margin", "spread"), [(3, 2.0), (5, 3.0)])
def test_intervals_of_the_mean_loss_contain_the_true_mean_in_95_of_100_cases(margin, spread):
    def losses(*shape, rng):  # cross-entropies of normal margins: most near 0, a few large
        return np.logaddexp(0, -rng.normal(margin, spread, shape))

    true = losses(4_000_000, rng=np.random.default_rng(1)).mean()
    draws = losses(2000, 1000, rng=np.random.default_rng(2))
    low, high = np.transpose([skewed_interval(each) for each in draws])
    assert 0.94 <= covered(low, high, true) <= 0.96


def test_the_interval_of_symmetric_losses_is_students():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    expected = stats.t.interval(0.95, 3, loc=2.5, scale=stats.sem(values))
    np.testing.assert_allclose(skewed_interval(values), expected, rtol=1e-9)
    assert skewed_interval(np.ones(5)) == (1, 1)
    assert np.isnan(skewed_interval(np.ones(1))).all()


def test_one_replicate_has_no_interval():
    low, high = confidence_intervals(np.ones((3, 1)))
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_a_search_of_one_replicate_does_not_wait_for_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    low, high = confidence_intervals(np.ones((3, 1)))
    assert np.isnan([low, high]).all()
