"""Which trial is chosen, and how sure its score is."""

import sys

import numpy as np
import pytest
from scipy import stats

from jaxnn import NEVER, Metrics
from jaxnn.search import AllDivergedError, Trial
from jaxnn.search.result import Curve, chosen, confidence_intervals, may_be_chosen, standard_error


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


@pytest.mark.parametrize("rule", ["mean", "one_standard_error"])
def test_what_has_diverged_is_not_chosen_for_what_it_was_before(rule):
    late = curve(0, [0.1, 0.1], [0.1, np.nan], diverged_at=40)
    trials = curves(late, curve(1, [0.5, 0.6], [0.4, 0.5]))
    assert chosen(trials, "error", rule) == 1
    assert late.score("error") == late.last("error") == np.inf
    lost = curve(2, [0.1, 0.1], diverged_at=40)
    assert lost.score("error") == lost.last("error") == np.inf


def test_nothing_left_to_choose_is_an_error_that_counts():
    trials = curves(curve(0, np.nan, diverged_at=1), curve(1, np.nan, diverged_at=2))
    with pytest.raises(AllDivergedError, match="all 2 configurations diverged"):
        chosen(trials, "error")
    assert may_be_chosen(trials, "error", "mean") == set()


def test_the_standard_error_is_of_the_mean_of_the_replicates():
    values = [0.2, 0.25, 0.27, 0.24]
    assert standard_error(curve(0, values), "error") == pytest.approx(stats.sem(values))


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
    best = curve(0, WORSE, [0.18, 0.22], WORSE, size=10)  # mean 0.2, standard error 0.02
    assert chosen(curves(best, *others), "error", "one_standard_error") == expected


def test_without_spread_the_simplest_of_equals_is_chosen():
    trials = curves(curve(0, [0.2, 0.2]), curve(1, [0.2, 0.2], size=5))
    assert chosen(trials, "error", "one_standard_error") == 1


def test_parameters_are_kept_of_all_that_may_yet_be_chosen():
    trials = curves(
        curve(0, [0.2, 0.2]), curve(1, [0.3, 0.3]), curve(2, [np.nan] * 2, diverged_at=1)
    )
    assert may_be_chosen(trials, "error", "mean") == {0}
    assert may_be_chosen(trials, "error", "one_standard_error") == {0, 1}


def test_intervals_hold_the_true_mean_as_often_as_they_should():
    values = np.random.default_rng(5).normal(3.0, 1.0, (400, 30))
    low, high = confidence_intervals(values, confidence=0.9, resamples=500)
    covered = np.mean((low <= 3.0) & (high >= 3.0))
    # A percentile interval of 30 values is a little narrow: 0.9 would be covered 0.88 of the time.
    assert 0.84 <= covered <= 0.93
    t_low, t_high = stats.t.interval(
        0.9, 29, loc=values.mean(axis=1), scale=stats.sem(values, axis=1)
    )
    np.testing.assert_allclose(high - low, t_high - t_low, rtol=0.25)


def test_one_replicate_has_no_interval():
    low, high = confidence_intervals(np.ones((3, 1)))
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_a_search_of_one_replicate_does_not_wait_for_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    low, high = confidence_intervals(np.ones((3, 1)))
    assert np.isnan([low, high]).all()
