"""What every method promises: the same rounds again, no trial twice, the work it announces."""

import itertools
import json
import math

import pytest
from playing import everything_diverges, play

from jaxnn.search import (
    Space,
    choice,
    conditional,
    grid,
    hyperband,
    log_uniform,
    optuna,
    population_based,
    random,
    sobol,
    successive_halving,
    uniform,
)

SPACE = Space(
    {
        "learning_rate": log_uniform(1e-3, 1.0),
        "optimizer": choice("sgd", "momentum"),
        "momentum": conditional(uniform(0.5, 0.9), optimizer="momentum"),
    }
)
METHODS = {
    "grid": grid(3),
    "random": random(7),
    "sobol": sobol(7),
    "successive_halving": successive_halving(20),
    "hyperband": hyperband(),
    "population_based": population_based(6, interval=2),
    "optuna": optuna(10, batch=4),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


def uneven(trial):
    """A third of the trials diverge."""
    return math.inf if trial.number % 3 == 1 else abs(math.log(trial.config["learning_rate"] / 0.1))


@every_method
def test_same_scores_give_the_same_rounds(method):
    assert play(method, SPACE, uneven, seed=3) == play(method, SPACE, uneven, seed=3)


@every_method
def test_seed_decides_what_is_random(method):
    different = play(method, SPACE, uneven, seed=3) != play(method, SPACE, uneven, seed=4)
    assert different == (method is not METHODS["grid"])


@every_method
def test_no_trial_is_twice_in_a_round_or_changes(method):
    configs = {}
    for asked in play(method, SPACE, uneven):
        numbers = [trial.number for trial in asked.trials]
        assert len(set(numbers)) == len(numbers)
        for trial in asked.trials:
            assert configs.setdefault(trial.number, trial.config) == trial.config
    assert sorted(configs) == list(range(len(configs)))


@every_method
def test_trials_go_on_from_the_round_before_or_start_fresh(method):
    for before, after in itertools.pairwise(play(method, SPACE, uneven)):
        numbers = {trial.number for trial in before.trials}
        parents = {trial.parent for trial in after.trials}
        assert parents == {None} or (parents <= numbers and before.until < after.until)


@every_method
def test_work_is_what_is_asked_for_when_nothing_diverges(method):
    reached, done = {}, 0
    for asked in play(method, SPACE, evaluations=10):
        assert asked.until <= 10
        for trial in asked.trials:
            done += asked.until - (0 if trial.parent is None else reached[trial.parent])
        reached = {trial.number: asked.until for trial in asked.trials}
    assert done == method.work(SPACE, 10)


@every_method
def test_everything_diverging_ends_the_search(method):
    played = play(method, SPACE, everything_diverges)
    assert all(trial.parent is None for asked in played for trial in asked.trials)


@every_method
def test_description_is_json_and_has_the_name(method):
    described = method.describe()
    assert json.loads(json.dumps(described)) == described
    assert METHODS[described["method"]] is method
