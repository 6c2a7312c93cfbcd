"""Population-based training: bad trials copy good trials and change hyperparameters."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxnn.search.methods import Round, Rounds, Scores, Trial, description, fresh
from jaxnn.search.methods.sampling import random_configurations
from jaxnn.search.space import Config, Domain, Space, SpaceError
from jaxnn.spec import require_count
from jaxnn.types import Hyper


@dataclass(frozen=True)
class PopulationBased:
    """Exploit and explore between intervals of training; see ``population_based``."""

    count: int
    interval: int
    quantile: float
    factors: tuple[float, ...]
    resample: float

    def rounds(self, space: Space, evaluations: int, seed: int) -> Rounds:
        """One round per interval."""
        self._check(space, evaluations)
        trials, made = fresh(random_configurations(space, seed, self.count)), self.count
        ends = [*range(self.interval, evaluations, self.interval), evaluations]
        for step, until in enumerate(ends):
            scores = yield Round(trials, until)
            rng = np.random.default_rng([seed, 4, step])
            trials, made = self._next(trials, scores, space, rng, made)
            if not trials:
                return

    def _check(self, space: Space, evaluations: int) -> None:
        if not set(space.traced) & set(space.searched):
            raise SpaceError(
                "population_based changes hyperparameters in training, expected one of "
                f"{', '.join(Hyper._fields)} in the space, with more than one value"
            )
        for name in space.static:
            changing = [c for c, _ in space[name].conditions if c in space.traced]
            if changing:
                raise SpaceError(
                    f"population_based changes {changing[0]} in training, expected that {name}, "
                    "which is compiled, does not depend on it"
                )
        if self.interval >= evaluations:
            raise SpaceError(
                f"population_based: interval is {self.interval} evaluations, expected fewer than "
                f"the task's {evaluations}"
            )

    def _next(
        self,
        trials: tuple[Trial, ...],
        scores: Scores,
        space: Space,
        rng: np.random.Generator,
        made: int,
    ) -> tuple[tuple[Trial, ...], int]:
        """The population of the next interval, and the number of trials made so far."""
        ranked = sorted(trials, key=lambda trial: (scores.last[trial.number], trial.number))
        finite = [trial for trial in ranked if math.isfinite(scores.last[trial.number])]
        if not finite:
            return (), made
        tail = max(1, int(self.quantile * len(ranked)))
        good = finite[:tail]
        bad = {trial.number for trial in ranked[len(ranked) - tail :] + ranked[len(finite) :]}
        following = []
        for trial in trials:
            if trial.number in bad:
                parent = good[rng.integers(len(good))]
                config = self.explore(parent.config, space, rng)
                following.append(Trial(made, config, parent.number))
                made += 1
            else:
                following.append(trial._replace(parent=trial.number))
        return tuple(following), made

    def explore(self, config: Config, space: Space, rng: np.random.Generator) -> Config:
        """New values of the traced hyperparameters: perturbed, or drawn again.

        A hyperparameter is drawn when a changed condition makes the hyperparameter apply.
        """
        changed = dict(config)
        for name in space.traced:
            chance, u, factor = rng.random(), rng.random(), rng.integers(len(self.factors))
            if chance < self.resample or name not in config:
                changed[name] = space[name].at(u)
            else:
                changed[name] = _perturbed(space[name], config[name], self.factors[factor])
        return space.active(changed)

    def work(self, space: Space, evaluations: int) -> int:
        """Full training of every member."""
        return self.count * evaluations

    def describe(self) -> dict[str, Any]:
        """The method in JSON's types."""
        return description("population_based", self)


def population_based(
    count: int,
    *,
    interval: int = 1,
    quantile: float = 0.25,
    factors: tuple[float, ...] = (0.8, 1.25),
    resample: float = 0.25,
) -> PopulationBased:
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
    if require_count("count", count) < 2:
        raise SpaceError(f"population_based: count is {count}, expected at least 2 members")
    if not 0 < quantile <= 0.5:
        raise SpaceError(f"quantile is {quantile!r}, expected a number above 0, at most 0.5")
    if not 0 <= resample <= 1:
        raise SpaceError(f"resample is {resample!r}, expected a probability")
    if not factors or not all(math.isfinite(f) and f > 0 for f in factors):
        raise SpaceError(f"factors is {factors!r}, expected numbers above 0")
    return PopulationBased(
        count, require_count("interval", interval), float(quantile), tuple(factors), float(resample)
    )


def _perturbed(domain: Domain, value: Any, factor: float) -> Any:
    """The value times the factor, within the domain; a listed value moves to a neighbour."""
    if domain.is_interval:
        return min(max(value * factor, domain.low), domain.high)
    values = domain.values
    place = values.index(value) + (factor > 1) - (factor < 1)
    return values[min(max(place, 0), len(values) - 1)]
