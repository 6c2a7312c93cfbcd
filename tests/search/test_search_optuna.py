"""Optuna's ask-and-tell: what it is asked and told, and that nothing else can reach it."""

import importlib.util
import io
import json
import logging
import math
import os
import subprocess
import sys
import warnings

import jax
import numpy as np
import optuna as library
import pytest
from databases import rewrite, stored
from playing import everything_diverges, play

from jaxnn import Data
from jaxnn.search import (
    Scores,
    Space,
    SpaceError,
    Task,
    choice,
    conditional,
    fixed,
    integer,
    log_uniform,
    optuna,
    random,
    search,
    uniform,
)

SPACE = Space(
    {
        "learning_rate": log_uniform(1e-3, 1.0),
        "optimizer": choice("sgd", "momentum"),
        "momentum": conditional(uniform(0.5, 0.9), optimizer="momentum"),
        "batch_size": integer(10, 100),
        "hidden": choice((), (50, 50), (90, 50)),
        "l2": fixed(1e-4),
    }
)


def score(trial):
    """Lowest at a learning rate of 0.03 and two hidden layers; too large a rate diverges."""
    rate = trial.config["learning_rate"]
    off = abs(math.log10(rate / 0.03)) + (trial.config["hidden"] != (90, 50))
    return math.inf if rate > 0.7 else off


def configurations(method, *, score=score, seed=0):
    return [t.config for asked in play(method, SPACE, score, seed=seed) for t in asked.trials]


class Recorder(library.samplers.RandomSampler):
    """Notes what it is asked and told."""

    def __init__(self, seed):
        super().__init__(seed)
        self.distributions, self.told = {}, []

    def after_trial(self, study, trial, state, values):
        self.distributions |= trial.distributions
        self.told.append((state.name, None if values is None else values[0]))


def recorded(scores, batch):
    """What a sampler was asked and told when the trials had these scores."""
    made = []
    method = optuna(len(scores), batch=batch, sampler=lambda s: made.append(Recorder(s)) or made[0])
    play(method, SPACE, lambda trial: scores[trial.number])
    return made[0]


def test_domains_become_optunas_distributions_and_fixed_values_are_not_asked_for():
    library_distributions = library.distributions
    assert recorded([1.0] * 8, 8).distributions == {
        "learning_rate": library_distributions.FloatDistribution(1e-3, 1.0, log=True),
        "optimizer": library_distributions.CategoricalDistribution((0, 1)),
        "momentum": library_distributions.FloatDistribution(0.5, 0.9),
        "batch_size": library_distributions.IntDistribution(10, 100),
        "hidden": library_distributions.CategoricalDistribution((0, 1, 2)),
    }


def test_a_batch_is_asked_before_it_is_told_and_the_last_may_be_smaller():
    played = play(optuna(10, batch=4), SPACE, score)
    assert [len(asked.trials) for asked in played] == [4, 4, 2]
    assert [t.number for asked in played for t in asked.trials] == list(range(10))
    assert all(t.parent is None and asked.until == 9 for asked in played for t in asked.trials)


def test_configurations_are_in_the_space_and_keep_to_its_conditions():
    for config in configurations(optuna(40, batch=8)):
        assert ("momentum" in config) == (config["optimizer"] == "momentum")
        assert 1e-3 <= config["learning_rate"] <= 1.0
        assert config["batch_size"] in range(10, 101)
        assert config["hidden"] in ((), (50, 50), (90, 50))
        assert config["l2"] == 1e-4


@pytest.mark.parametrize(
    ("scores", "batch", "told"),
    [
        ([3.0, 1.0, 2.0], 2, [3.0, 1.0, 2.0]),
        ([3.0, math.inf, 1.0, math.inf], 1, [3.0, 3.0, 1.0, 3.0]),
        ([math.inf, 5.0, math.inf, 7.0, math.inf], 2, [5.0, 5.0, 7.0, 7.0, 7.0]),
    ],
)
def test_a_divergence_is_told_as_the_worst_finite_score_so_far(scores, batch, told):
    assert recorded(scores, batch).told == [("COMPLETE", value) for value in told]


def test_a_divergence_is_told_as_a_failure_while_nothing_was_finite():
    expected = [("FAIL", None)] * 2 + [("COMPLETE", 2.0)] * 2
    assert recorded([math.inf, math.inf, 2.0, math.inf], 2).told == expected


@pytest.mark.parametrize("sampler", ["tpe", "random", library.samplers.TPESampler])
def test_replay_gives_the_same_configurations_whatever_else_optuna_does(sampler):
    made = sampler if isinstance(sampler, str) else lambda seed: sampler(seed=seed)
    first = configurations(optuna(24, batch=6, sampler=made))  # pyright: ignore[reportArgumentType]
    np.random.seed(7)
    other = library.create_study(sampler=library.samplers.TPESampler(seed=0))
    other.optimize(lambda trial: trial.suggest_float("learning_rate", 0, 1), n_trials=12)
    assert configurations(optuna(24, batch=6, sampler=made)) == first  # pyright: ignore[reportArgumentType]
    assert configurations(optuna(24, batch=6, sampler=made), seed=1) != first  # pyright: ignore[reportArgumentType]


def test_two_studies_at_once_do_not_mix():
    alone = configurations(optuna(12, batch=4))
    one, two = (optuna(12, batch=4).rounds(SPACE, 9, seed) for seed in (0, 1))
    asked, other = next(one), next(two)
    found = list(asked.trials)
    for _ in range(2):
        told, others = ({t.number: score(t) for t in r.trials} for r in (asked, other))
        asked, other = one.send(Scores(told, told)), two.send(Scores(others, others))
        found += asked.trials
    assert [trial.config for trial in found] == alone


PROCESS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from test_search_optuna import configurations, optuna
print(json.dumps(configurations(optuna(30, batch=10))))
"""


def test_another_process_with_other_hashes_gives_the_same_configurations():
    ours = json.dumps(configurations(optuna(30, batch=10)))
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    arguments = [sys.executable, "-c", PROCESS, os.path.dirname(__file__)]
    theirs = subprocess.run(
        arguments, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert theirs.stdout.strip() == ours


def test_tpe_finds_better_configurations_than_random():
    def late(method, seed):
        found = play(method, SPACE, score, seed=seed)
        return np.mean([min(score(t), 3.0) for asked in found for t in asked.trials][-16:])

    seeds = range(5)
    tpe = np.mean([late(optuna(48), seed) for seed in seeds])
    assert tpe < 0.7 * np.mean([late(random(48), seed) for seed in seeds])


def test_divergences_teach_tpe_where_not_to_go():
    def diverges(trial):
        return math.inf if trial.config["optimizer"] == "sgd" else 1.0 + trial.number * 1e-3

    late = configurations(optuna(64, batch=8), score=diverges)[-24:]
    assert sum(config["optimizer"] == "sgd" for config in late) <= 6  # 12 by chance


def test_optuna_says_nothing_and_keeps_its_settings(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(logging.getLogger("optuna"), "handlers", [logging.StreamHandler(said)])
    library.logging.set_verbosity(logging.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play(optuna(12, batch=4), SPACE, score)
        play(optuna(6, batch=3), SPACE, everything_diverges)
    assert library.logging.get_verbosity() == logging.INFO
    assert said.getvalue() == ""


def test_description_has_what_decides_the_proposals():
    described = optuna(8, batch=2).describe()
    assert described["versions"] == {"optuna": library.__version__}
    assert (described["count"], described["batch"], described["sampler"]) == (8, 2, "tpe")
    own = optuna(8, sampler=library.samplers.RandomSampler).describe()
    assert own["sampler"].endswith("RandomSampler")
    assert own["versions"] == described["versions"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count is 0, expected a positive integer"),
        ({"count": 4, "batch": 0}, "batch is 0, expected a positive integer"),
        ({"count": 4, "sampler": "cmaes"}, r"sampler is 'cmaes', expected one of \['tpe', 'gp'"),
        ({"count": 4, "sampler": None}, "sampler is None, expected one of"),
    ],
)
def test_bad_argument_is_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        optuna(**arguments)
    assert "\n" not in str(error.value)


def test_function_that_makes_no_sampler_is_one_clear_line():
    with pytest.raises(SpaceError, match=r"sampler\(seed\) returned 'tpe', expected an optuna"):
        play(optuna(4, sampler=lambda seed: "tpe"), SPACE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sampler", "missing"), [("tpe", "optuna"), ("gp", "torch"), (print, "optuna")]
)
def test_missing_package_is_named(monkeypatch, sampler, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{missing} is not installed.* pip install '"):
        optuna(4, sampler=sampler)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_gaussian_process_replays():
    first = configurations(optuna(14, batch=11, sampler="gp"))
    assert configurations(optuna(14, batch=11, sampler="gp")) == first
    assert set(optuna(4, sampler="gp").describe()["versions"]) == {"optuna", "scipy", "torch"}


def test_search_goes_on_where_it_stopped(tmp_path):
    rng = np.random.default_rng(0)
    data = Data(rng.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 3)
    domains = {"learning_rate": log_uniform(1e-2, 1.0), "batch_size": choice(5, 10)}

    def table(folder):
        method, key = optuna(6, batch=3), jax.random.key(0)
        return search(Task(data, epochs=2), domains, method=method, key=key, folder=folder).table

    whole = table(tmp_path / "whole")
    cut = tmp_path / "cut"
    cut.mkdir()
    records = stored(tmp_path / "whole")
    rewrite(cut, records[: len(records) // 2])
    assert table(cut) == whole
