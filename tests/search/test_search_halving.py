"""Rungs and brackets, against scikit-learn and the published tables."""

import itertools
import math

import numpy as np
import pytest
from playing import everything_diverges, play
from sklearn.base import BaseEstimator
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import HalvingRandomSearchCV

from jaxnn.search import (
    Space,
    SpaceError,
    choice,
    hyperband,
    log_uniform,
    random,
    successive_halving,
)

SPACE = Space({"learning_rate": log_uniform(1e-3, 1.0), "hidden": choice((), (5,))})


class Constant(BaseEstimator):
    """Learns nothing, but can be given a budget."""

    def __init__(self, value: float = 0.0, budget: int = 1):
        self.value = value
        self.budget = budget

    def fit(self, x, y):
        return self

    def score(self, x, y):
        return self.value


def asked(rounds):
    """(trials, until) of rounds."""
    return [(len(one.trials), one.until) for one in rounds]


@pytest.mark.parametrize(
    ("count", "eta", "evaluations"),
    [(27, 3, 27), (81, 3, 27), (9, 3, 81), (16, 2, 8), (64, 4, 64), (16, 2, 1024), (1, 2, 8)],
)
def test_rungs_are_scikit_learns_where_everything_divides(count, eta, evaluations):
    search = HalvingRandomSearchCV(
        Constant(),
        {"value": np.linspace(0, 1, 1000).tolist()},
        n_candidates=count,
        factor=eta,
        resource="budget",
        max_resources=evaluations,
        min_resources="exhaust",
        cv=2,
        refit=False,
        random_state=0,
    )
    search.fit(np.zeros((8, 1)), np.arange(8) % 2)
    expected = list(zip(search.n_candidates_, search.n_resources_, strict=True))
    method = successive_halving(count, eta=eta)
    assert asked(play(method, SPACE, evaluations=evaluations)) == expected


@pytest.mark.parametrize(
    ("count", "eta", "minimum", "evaluations", "expected"),
    [
        (64, 3, 1, 12, [(64, 1), (21, 4), (7, 12)]),  # the budget allows two halvings
        (1000, 3, 1, 4, [(1000, 1), (333, 4)]),
        (1000, 3, 1, 2, [(1000, 2)]),  # and here none
        (2, 3, 1, 9, [(2, 9)]),  # nor does the count
        (27, 3, 4, 27, [(27, 9), (9, 27)]),  # 27 / 3^2 = 3 would be below the minimum
        (27, 3, 27, 27, [(27, 27)]),
        (243, 3, 1, 243, [(243, 1), (81, 3), (27, 9), (9, 27), (3, 81), (1, 243)]),
        (10, 2, 1, 10, [(10, 1), (5, 2), (2, 5), (1, 10)]),
    ],
)
def test_rungs_by_hand(count, eta, minimum, evaluations, expected):
    played = play(
        successive_halving(count, eta=eta, minimum=minimum), SPACE, evaluations=evaluations
    )
    assert asked(played) == expected
    announced = [list(one.following) for one in played]
    assert announced == [expected[rung + 1 :] for rung in range(len(expected))]


@pytest.mark.parametrize(
    ("evaluations", "eta", "brackets"),
    [
        (  # Li et al. (2018): n = ceil((s_max + 1) eta^s / (s + 1)), n_i = floor(n / eta^i)
            81,
            3,
            [
                [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
                [(34, 3), (11, 9), (3, 27), (1, 81)],
                [(15, 9), (5, 27), (1, 81)],
                [(8, 27), (2, 81)],
                [(5, 81)],
            ],
        ),
        (  # the table of R's mlr3hyperband
            8,
            2,
            [
                [(8, 1), (4, 2), (2, 4), (1, 8)],
                [(6, 2), (3, 4), (1, 8)],
                [(4, 4), (2, 8)],
                [(4, 8)],
            ],
        ),
        (1, 3, [[(1, 1)]]),
    ],
)
def test_hyperband_has_the_published_brackets(evaluations, eta, brackets):
    played = play(hyperband(eta=eta), SPACE, evaluations=evaluations)
    assert asked(played) == [rung for bracket in brackets for rung in bracket]


def test_hyperband_draws_new_configurations_in_every_bracket():
    played = play(hyperband(), SPACE, evaluations=9)
    fresh = [t for one in played for t in one.trials if t.parent is None]
    assert [t.number for t in fresh] == list(range(len(fresh)))
    expected = play(random(len(fresh)), SPACE)[0].trials
    assert [t.config for t in fresh] == [t.config for t in expected]


def test_the_best_go_on_as_themselves():
    played = play(successive_halving(9), SPACE, lambda trial: (trial.number - 4.2) ** 2)
    assert [[t.number for t in one.trials] for one in played] == [list(range(9)), [3, 4, 5], [4]]
    for before, after in itertools.pairwise(played):
        configs = {t.number: t.config for t in before.trials}
        assert all(t.parent == t.number and t.config == configs[t.number] for t in after.trials)


def test_among_equals_the_first_go_on():
    played = play(successive_halving(9), SPACE, lambda trial: 1.0)
    assert [t.number for t in played[1].trials] == [0, 1, 2]


def test_diverged_trials_never_go_on():
    played = play(
        successive_halving(9), SPACE, lambda trial: 1.0 if trial.number == 7 else math.inf
    )
    assert [[t.number for t in one.trials] for one in played[1:]] == [[7], [7]]


def test_bracket_in_which_everything_diverges_ends_and_the_next_one_begins():
    played = play(hyperband(), SPACE, everything_diverges)
    assert asked(played) == [(9, 1), (5, 3), (3, 9)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count is 0, expected a positive integer"),
        ({"count": 9, "eta": 1}, "eta is 1, expected an integer of at least 2"),
        ({"count": 9, "eta": 2.5}, "eta is 2.5, expected an integer of at least 2"),
        ({"count": 9, "minimum": 0}, "minimum is 0, expected a positive integer"),
    ],
)
def test_bad_argument_is_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        successive_halving(**arguments)


def test_minimum_beyond_the_budget_is_refused():
    with pytest.raises(SpaceError, match=r"minimum is 10 evaluations, expected at most .* 9"):
        play(successive_halving(9, minimum=10), SPACE, evaluations=9)
