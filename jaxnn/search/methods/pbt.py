"""Population-based training: bad trials copy good trials and change hyperparameters."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxnn.search.methods import BuiltIn, Round, Rounds, Trial, fresh
from jaxnn.search.methods.sampling import random_configurations
from jaxnn.search.space import Config, Domain, Space, expect
from jaxnn.spec import require_count
from jaxnn.types import Hyper, real, require_number, shown


def population_based(
    count: int,
    *,
    interval: int = 1,
    quantile: float = 0.25,
    factors: tuple[float, ...] = (0.8, 1.25),
    resample: float = 0.25,
) -> BuiltIn:
    """Population-based training (Jaderberg et al., 2017), with truncation selection.

    After every interval the worst members, by their latest scores, go on as copies of some of the
    best members, parameters and optimizer state included, with new traced hyperparameters. A copy
    is a new trial, and names its parent.

    Args:
      count: members of the population.
      interval: evaluations between two selections.
      quantile: the share of members in the best, and in the worst group; at most a half.
      factors: a value is multiplied by a factor (a choice or integer moves to a
        neighbour).
      resample: the probability of drawing a value again instead.
    """
    count, interval = require_count("count", count), require_count("interval", interval)
    expect(count > 1, f"population_based: count is {count}, expected at least 2 members")
    most_half = "a number above 0, at most 0.5"
    quantile = require_number("quantile", quantile, most_half, lambda q: 0 < q <= 0.5)
    resample = require_number("resample", resample, "a probability", lambda p: 0 <= p <= 1)
    several = tuple(map(real, factors)) if isinstance(factors, Iterable) else ()
    positive = bool(several) and all(f and 0 < f < math.inf for f in several)
    expect(positive, f"factors is {shown(factors)}, expected numbers above 0")
    settings = {
        "count": count,
        "interval": interval,
        "quantile": quantile,
        "factors": tuple(factors),
        "resample": resample,
    }

    def rounds(space: Space, evaluations: int, seed: int) -> Rounds:
        _check(space, evaluations, interval)
        trials, made = fresh(random_configurations(space, seed, count)), count
        tail = max(1, int(quantile * count))
        for step, until in enumerate([*range(interval, evaluations, interval), evaluations]):
            last = (yield Round(trials, until)).last
            ranked = sorted(trials, key=lambda trial, last=last: (last[trial.number], trial.number))
            finite = [trial for trial in ranked if math.isfinite(last[trial.number])]
            if not finite:
                return
            good = finite[:tail]
            bad = {trial.number for trial in ranked[count - tail :] + ranked[len(finite) :]}
            rng = np.random.default_rng([seed, 4, step])
            following = []
            for trial in trials:
                if trial.number in bad:
                    parent = good[rng.integers(len(good))]
                    config = explore(parent.config, space, rng, factors, resample)
                    following.append(Trial(made, config, parent.number))
                    made += 1
                else:
                    following.append(trial._replace(parent=trial.number))
            trials = tuple(following)

    return BuiltIn("population_based", settings, rounds, lambda _, evaluations: count * evaluations)


def _check(space: Space, evaluations: int, interval: int) -> None:
    expect(
        not set(space.traced).isdisjoint(space.searched),
        "population_based changes hyperparameters in training, expected one of "
        f"{', '.join(Hyper._fields)} in the space, with more than one value",
    )
    for name in space.static:
        for condition, _ in space[name].conditions:
            expect(
                condition in space.static,
                f"population_based changes {condition} in training, expected that {name}, which is "
                "compiled, does not depend on it",
            )
    expect(
        interval < evaluations,
        f"population_based: interval is {interval} evaluations, expected fewer than the task's "
        f"{evaluations}",
    )


def explore(
    config: Config,
    space: Space,
    rng: np.random.Generator,
    factors: tuple[float, ...],
    resample: float,
) -> Config:
    """New values of the traced hyperparameters: perturbed, or drawn again.

    A hyperparameter is drawn when a changed condition makes the hyperparameter apply.
    """
    changed = dict(config)
    for name in space.traced:
        chance, u, factor = rng.random(), rng.random(), factors[rng.integers(len(factors))]
        drawn = chance < resample or name not in config
        changed[name] = (
            space[name].at(u) if drawn else _perturbed(space[name], config[name], factor)
        )
    return space.active(changed)


def _perturbed(domain: Domain, value: Any, factor: float) -> Any:
    """The value times the factor, within the domain; a listed value moves to a neighbour."""
    if domain.is_interval:
        return min(max(value * factor, domain.low), domain.high)
    values = domain.values
    place = values.index(value) + (factor > 1) - (factor < 1)
    return values[min(max(place, 0), len(values) - 1)]
