"""Grid, random and Sobol' configurations, against scikit-learn and SciPy."""

import numpy as np
import pytest
from playing import play
from scipy import stats
from scipy.stats import qmc
from sklearn.model_selection import ParameterGrid

from jaxnn.search import (
    Space,
    SpaceError,
    choice,
    conditional,
    fixed,
    grid,
    integer,
    log_uniform,
    random,
    sobol,
    uniform,
)

SPACE = Space(
    {
        "learning_rate": log_uniform(1e-3, 1.0),
        "l2": log_uniform(1e-6, 1e-2),
        "optimizer": choice("sgd", "momentum"),
        "momentum": conditional(uniform(0.5, 0.9), optimizer="momentum"),
        "batch_size": integer(10, 200),
        "hidden": choice((), (50, 50), (90, 50)),
    }
)
CUBE = Space(
    {
        "learning_rate": uniform(1e-12, 1),
        "l2": uniform(0, 1),
        "optimizer": fixed("adam"),
        "b1": uniform(0, 1 - 1e-12),
    }
)


def configurations(method, space=SPACE, seed=0):
    """Those of all trials that a method asks for, in the order of their numbers."""
    return [t.config for asked in play(method, space, seed=seed) for t in asked.trials]


def test_random_configurations_have_the_distributions_of_the_space():
    drawn = configurations(random(1500))
    rates = [config["learning_rate"] for config in drawn]
    momenta = [config["momentum"] for config in drawn if config["optimizer"] == "momentum"]
    hidden = [config["hidden"] for config in drawn]
    assert stats.kstest(rates, stats.loguniform(1e-3, 1.0).cdf).pvalue > 0.01
    assert stats.kstest(momenta, stats.uniform(0.5, 0.4).cdf).pvalue > 0.01
    assert stats.chisquare([hidden.count(o) for o in ((), (50, 50), (90, 50))]).pvalue > 0.01
    assert stats.binomtest(len(momenta), 1500, 0.5).pvalue > 0.01


def test_random_hyperparameters_are_independent():
    drawn = configurations(random(1500))
    columns = np.array([[c["learning_rate"], c["l2"], c["batch_size"]] for c in drawn])
    correlations = np.corrcoef(stats.rankdata(columns, axis=0).T)[np.triu_indices(3, 1)]
    assert np.all(np.abs(correlations) < 3 / np.sqrt(1500))


@pytest.mark.parametrize("method", [random, sobol])
def test_configuration_is_a_function_of_seed_and_number_alone(method):
    many = configurations(method(33))
    for count in (1, 2, 5, 16):
        assert configurations(method(count)) == many[:count]
    assert configurations(method(33), seed=1) != many
    assert len({str(config) for config in many}) == 33


def test_random_and_sobol_are_recorded_by_name_and_count():
    assert random(7).describe() == {"method": "random", "count": 7}
    assert sobol(7).describe() == {"method": "sobol", "count": 7}
    assert random(7) == random(7) != sobol(7) != sobol(8)


def test_sobol_is_scipys_own():
    points = [[c["learning_rate"], c["l2"], c["b1"]] for c in configurations(sobol(16), CUBE, 7)]
    expected = qmc.Sobol(3, rng=np.random.default_rng([7, 3])).random(16)
    np.testing.assert_allclose(points, expected, atol=1e-9)


def test_sobol_is_more_even_than_random():
    def discrepancy(method, seed):
        drawn = configurations(method(64), CUBE, seed)
        return qmc.discrepancy(np.array([[c["learning_rate"], c["l2"], c["b1"]] for c in drawn]))

    for seed in range(5):
        assert discrepancy(sobol, seed) < discrepancy(random, seed) / 5


@pytest.mark.parametrize("method", [random(3), sobol(3), grid()])
def test_space_with_nothing_to_search_has_one_configuration(method):
    space = Space(
        {"learning_rate": fixed(0.1), "hidden": choice((5,)), "batch_size": integer(8, 8)}
    )
    expected = {"learning_rate": 0.1, "hidden": (5,), "batch_size": 8}
    assert all(config == expected for config in configurations(method, space))


def test_grid_without_conditions_is_scikit_learns():
    domains = {
        "learning_rate": log_uniform(1e-3, 1.0),
        "l2": uniform(0.0, 1.0),
        "batch_size": integer(50, 52),
        "hidden": choice((), (50,)),
    }
    expected = ParameterGrid(
        {
            "learning_rate": np.geomspace(1e-3, 1.0, 4).tolist(),
            "l2": np.linspace(0.0, 1.0, 3).tolist(),
            "batch_size": [50, 51, 52],
            "hidden": [(), (50,)],
        }
    )
    found = configurations(grid(l2=3, learning_rate=4), Space(domains))
    assert sorted(map(_sortable, found)) == sorted(map(_sortable, expected))


def _sortable(config):
    return sorted((name, str(value)) for name, value in config.items())


def test_grid_has_every_conditional_configuration_once():
    found = configurations(grid(3, batch_size=2), SPACE)
    per_optimizer = 3 * 3 * 2 * 3  # learning_rate, l2, batch_size, hidden
    assert len(found) == per_optimizer * (1 + 3)  # sgd once, momentum with 3 values
    assert len({str(_sortable(config)) for config in found}) == len(found)
    assert all(("momentum" in c) == (c["optimizer"] == "momentum") for c in found)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (grid(), "learning_rate has no end of values, expected a number of points"),
        (grid(3, rate=4), "points are given for 'rate', expected one of"),
        (grid(3, hidden=2), "points are given for 'hidden', expected one of"),
        (grid(300), "more than 100000 combinations"),
    ],
)
def test_grid_that_does_not_fit_is_one_clear_line(method, message):
    with pytest.raises(SpaceError, match=message) as error:
        next(method.rounds(SPACE, 9, 0))
    assert "\n" not in str(error.value)


def test_grid_of_a_billion_is_refused_without_listing_it():
    space = Space({"learning_rate": fixed(0.1), "batch_size": integer(1, 10**9)})
    with pytest.raises(SpaceError, match="more than 100000 combinations, at batch_size"):
        next(grid().rounds(space, 9, 0))


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (grid, (1,), "points is 1, expected at least 2"),
        (grid, (2.5,), "points is 2.5, expected a positive integer"),
        (random, (0,), "count is 0, expected a positive integer"),
        (sobol, (-1,), "count is -1, expected a positive integer"),
        (sobol, (True,), "count is True, expected a positive integer"),
    ],
)
def test_bad_count_is_one_clear_line(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(*arguments)
