"""Population-based training: who copies whom, and what the copies try."""

import math
from collections import Counter

import numpy as np
import pytest
from playing import everything_diverges, play
from scipy import stats

from jaxnn.search import (
    Scores,
    Space,
    SpaceError,
    choice,
    conditional,
    fixed,
    integer,
    log_uniform,
    population_based,
    uniform,
)
from jaxnn.search.methods import explore, random_configuration

SPACE = Space(
    {
        "learning_rate": log_uniform(1e-4, 1.0),
        "l2": uniform(0.0, 0.1),
        "hidden": choice((), (5,), (6,)),
    }
)
FACTORS = 0.8, 1.25


def second_round(scores, space=SPACE, *, seed=0, **arguments):
    """The members before and after one selection."""
    rounds = population_based(len(scores), **arguments).rounds(space, 9, seed)
    before = next(rounds).trials
    told = dict(enumerate(scores))
    return before, rounds.send(Scores(dict.fromkeys(told, 0.0), told)).trials


def copies(trials):
    """Of those that are copies, the numbers of their parents."""
    return [t.parent for t in trials if t.parent != t.number]


def test_worst_become_copies_of_the_best_by_their_latest_scores():
    _, after = second_round([3, 8, 1, 7, 4, 2, 6, 5], quantile=0.25)
    replaced = [row for row, t in enumerate(after) if t.parent != t.number]
    assert replaced == [1, 3]
    assert set(copies(after)) <= {2, 5}
    assert [t.number for t in after] == [0, 8, 2, 9, 4, 5, 6, 7]


def test_parents_are_equally_likely_among_the_best():
    parents = Counter()
    for seed in range(300):
        _, after = second_round(range(8), seed=seed, quantile=0.5)
        parents.update(copies(after))
    assert sum(parents.values()) == 4 * 300
    assert set(parents) == {0, 1, 2, 3}
    assert stats.chisquare(list(parents.values())).pvalue > 0.01


@pytest.mark.parametrize(
    ("count", "quantile", "replaced"), [(2, 0.25, 1), (3, 0.5, 1), (10, 0.2, 2), (10, 0.5, 5)]
)
def test_quantile_is_the_share_that_is_replaced(count, quantile, replaced):
    _, after = second_round(range(count), quantile=quantile)
    assert len(copies(after)) == replaced


def test_among_equals_the_last_copy_the_first():
    _, after = second_round([1.0] * 8, quantile=0.25)
    assert [t.parent == t.number for t in after] == [True] * 6 + [False] * 2
    assert set(copies(after)) <= {0, 1}


def test_every_diverged_member_is_replaced_however_many():
    inf = math.inf
    _, after = second_round([inf, 2, inf, inf, 1, inf, inf, inf], quantile=0.25)
    assert [t.parent for t in after if t.parent == t.number] == [1, 4]
    assert len(copies(after)) == 6
    assert set(copies(after)) <= {1, 4}


def test_everything_diverged_ends_the_search():
    assert len(play(population_based(8), SPACE, everything_diverges)) == 1


def test_one_that_is_left_becomes_everyones_parent():
    played = play(population_based(4), SPACE, lambda t: 1.0 if t.number == 2 else math.inf)
    assert copies(played[1].trials) == [2, 2, 2]


def test_copy_keeps_its_parents_program():
    before, after = second_round(range(8), quantile=0.5)
    for trial in after:
        assert trial.parent is not None
        assert trial.config["hidden"] == before[trial.parent].config["hidden"]


def test_members_go_on_with_what_they_had():
    before, after = second_round(range(8))
    assert all(t.config == before[t.number].config for t in after if t.parent == t.number)


@pytest.mark.parametrize(("resample", "share"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)])
def test_copies_are_perturbed_or_drawn_anew(resample, share):
    rng = np.random.default_rng(0)
    config = {"learning_rate": 0.01, "l2": 0.01, "hidden": ()}
    explored = [explore(config, SPACE, rng, FACTORS, resample) for _ in range(2000)]
    rates = np.array([each["learning_rate"] for each in explored])
    lower, higher = (np.isclose(rates, 0.01 * factor) for factor in (0.8, 1.25))
    anew = rates[~lower & ~higher]
    assert stats.binomtest(len(anew), 2000, share).pvalue > 0.01
    if len(anew) < 2000:
        assert stats.binomtest(int(lower.sum()), 2000 - len(anew), 0.5).pvalue > 0.01
    if len(anew):
        assert stats.kstest(anew, stats.loguniform(1e-4, 1.0).cdf).pvalue > 0.01


@pytest.mark.parametrize("factors", [(0.5, 2.0), (1.0,), (10.0,)])
def test_exploring_never_leaves_the_space(factors):
    space = Space(
        {
            "learning_rate": log_uniform(1e-2, 1e-1),
            "optimizer": fixed("adam"),
            "b1": uniform(0.5, 0.9),
            "l2": choice(0.0, 1e-4, 1e-3),
            "batch_size": integer(1, 4),
        }
    )
    rng = np.random.default_rng(0)
    config = random_configuration(space, 0, 0)
    for _ in range(300):
        config = explore(config, space, rng, factors, 0.25)
        assert 1e-2 <= config["learning_rate"] <= 1e-1
        assert 0.5 <= config["b1"] <= 0.9
        assert config["l2"] in (0.0, 1e-4, 1e-3)
        assert list(config) == list(space)


@pytest.mark.parametrize(
    ("value", "factor", "expected"),
    [(0.2, 2.0, 0.3), (0.2, 0.5, 0.1), (0.3, 2.0, 0.3), (0.1, 0.5, 0.1), (0.2, 1.0, 0.2)],
)
def test_listed_value_moves_to_a_neighbour_and_stops_at_the_ends(value, factor, expected):
    space = Space({"learning_rate": choice(0.1, 0.2, 0.3)})
    rng = np.random.default_rng(0)
    explored = explore({"learning_rate": value}, space, rng, (factor,), 0.0)
    assert explored == {"learning_rate": expected}


def test_exploring_keeps_to_the_conditions():
    space = Space(
        {
            "learning_rate": fixed(0.1),
            "momentum": choice(0.0, 0.9),
            "l2": conditional(uniform(0.01, 0.1), momentum=0.9),
        }
    )
    rng, seen = np.random.default_rng(0), set()
    config = random_configuration(space, 0, 0)
    for _ in range(100):
        config = explore(config, space, rng, FACTORS, 0.25)
        seen.add(config["momentum"])
        assert ("l2" in config) == (config["momentum"] == 0.9)
    assert seen == {0.0, 0.9}


def test_fixed_value_appears_when_exploring_makes_it_apply():
    space = Space(
        {
            "learning_rate": fixed(0.1),
            "momentum": choice(0.0, 0.9),
            "l2": conditional(fixed(0.01), momentum=0.9),
        }
    )
    config = {"learning_rate": 0.1, "momentum": 0.0}
    explored = explore(config, space, np.random.default_rng(0), (2.0,), 0.0)
    assert explored == {"learning_rate": 0.1, "momentum": 0.9, "l2": 0.01}


def test_selection_follows_every_interval_and_training_ends_with_the_budget():
    played = play(population_based(4, interval=4), SPACE, evaluations=10)
    assert [one.until for one in played] == [4, 8, 10]


def test_population_climbs_to_the_best_learning_rate():
    def score(trial):
        return abs(math.log(trial.config["learning_rate"] / 0.03))

    played = play(population_based(12, resample=0.1), SPACE, score, evaluations=20)
    first, last = (np.mean([score(t) for t in played[i].trials]) for i in (0, -1))
    assert last < first / 3


@pytest.mark.parametrize(
    ("domains", "arguments", "message"),
    [
        ({"hidden": choice((), (5,))}, {}, "changes hyperparameters in training, expected one of"),
        (
            {
                "momentum": choice(0.0, 0.9),
                "hidden": conditional(choice((), (5,)), momentum=0.9),
            },
            {},
            "population_based changes momentum in training, expected that hidden",
        ),
        ({"l2": uniform(0, 1)}, {"interval": 9}, "interval is 9 evaluations, expected fewer"),
    ],
)
def test_space_that_does_not_fit_is_one_clear_line(domains, arguments, message):
    space = Space({"learning_rate": fixed(0.1)} | domains)
    with pytest.raises(SpaceError, match=message) as error:
        play(population_based(4, **arguments), space, evaluations=9)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 1}, "count is 1, expected an integer of at least 2"),
        ({"count": 4, "interval": 0}, "interval is 0, expected a positive integer"),
        ({"count": 4, "quantile": 0.0}, "quantile is 0.0, expected a number above 0, at most 0.5"),
        ({"count": 4, "quantile": 0.6}, "quantile is 0.6, expected"),
        ({"count": 4, "resample": 1.5}, "resample is 1.5, expected a probability"),
        ({"count": 4, "factors": ()}, r"factors is \(\), expected numbers above 0"),
        ({"count": 4, "factors": (0.0, 2.0)}, "expected numbers above 0"),
    ],
)
def test_bad_argument_is_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        population_based(**arguments)
