"""Population-based training: the bad copy the good, and try other hyperparameters from there."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxnn.search.domain import Domain, SpaceError
from jaxnn.search.methods.rounds import Round, Rounds, Scores, Trial, fresh
from jaxnn.search.methods.sampling import random_configurations
from jaxnn.search.space import TRACED, Config, Space
from jaxnn.spec import require_count


@dataclass(frozen=True)
class PopulationBased:
    """Exploit and explore between segments; see ``population_based``."""

    count: int
    interval: int
    quantile: float
    factors: tuple[float, ...]
    resample: float

    def rounds(self, space: Space, evaluations: int, seed: int) -> Rounds:
        """One round per interval."""
        self._check(space, evaluations)
        trials = fresh(random_configurations(space, seed, self.count))
        made = self.count
        for step, until in enumerate(self._ends(evaluations)):
            scores = yield Round(trials, until)
            rng = np.random.default_rng([seed, 4, step])
            trials, made = self._next(trials, scores, space, rng, made)
            if not trials:
                return

    def _check(self, space: Space, evaluations: int) -> None:
        if not any(name in TRACED for name in space.searched):
            raise SpaceError(
                "population_based changes hyperparameters in training, expected one of "
                f"{', '.join(TRACED)} in the space, with more than one value"
            )
        for name, domain in space.items():
            changing = [condition for condition, _ in domain.conditions if condition in TRACED]
            if name not in TRACED and changing:
                raise SpaceError(
                    f"population_based changes {changing[0]} in training, expected that {name}, "
                    "which is compiled, does not depend on it"
                )
        if self.interval >= evaluations:
            raise SpaceError(
                f"population_based: interval is {self.interval} evaluations, expected fewer than "
                f"the task's {evaluations}"
            )

    def _ends(self, evaluations: int) -> list[int]:
        return [*range(self.interval, evaluations, self.interval), evaluations]

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
        bad = {trial.number for trial in ranked[len(ranked) - tail :]}
        bad |= {trial.number for trial in ranked} - {trial.number for trial in finite}
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
        """Other values of the traced hyperparameters: perturbed, or drawn anew.

        One that starts to apply, because what it depends on has changed, is drawn anew.
        """
        changed = dict(config)
        for name in [name for name in space if name in TRACED]:
            anew, u, factor = rng.random(), rng.random(), rng.integers(len(self.factors))
            if anew < self.resample or name not in config:
                changed[name] = space[name].at(u)
            else:
                changed[name] = _perturbed(space[name], config[name], self.factors[factor])
        return space.active(changed)

    def work(self, space: Space, evaluations: int) -> int:
        """Every member's training."""
        return self.count * evaluations

    def describe(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "method": "population_based",
            "count": self.count,
            "interval": self.interval,
            "quantile": self.quantile,
            "factors": list(self.factors),
            "resample": self.resample,
        }


def population_based(
    count: int,
    *,
    interval: int = 1,
    quantile: float = 0.25,
    factors: tuple[float, ...] = (0.8, 1.25),
    resample: float = 0.25,
) -> PopulationBased:
    """Population-based training (Jaderberg et al., 2017), with truncation selection.

    After every interval the worst members, by their latest score, go on as copies of some of the
    best, parameters and optimizer state included, with other traced hyperparameters. A copy is a
    trial of its own, with its parent's number.

    Args:
      count: members of the population.
      interval: evaluations between two selections.
      quantile: which part of the members counts as best, and which as worst; at most a half.
      factors: by which a value is multiplied (a choice or whole number moves to a neighbour).
      resample: how probably a value is drawn anew instead.
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
    """The value times the factor, within the domain; one that is listed moves to a neighbour."""
    if domain.is_interval:
        return min(max(value * factor, domain.low), domain.high)
    values = domain.values
    place = values.index(value) + (factor > 1) - (factor < 1)
    return values[min(max(place, 0), len(values) - 1)]
