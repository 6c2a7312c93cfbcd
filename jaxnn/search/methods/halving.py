"""Methods that stop bad trials early: successive halving and Hyperband."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxnn.search.methods import Round, Rounds, Scores, Trial, description, fresh
from jaxnn.search.methods.sampling import random_configurations
from jaxnn.search.space import Space, SpaceError
from jaxnn.spec import require_count

Rung = tuple[int, int]
"""(number of trials, evaluation up to which the trials train)."""


@dataclass(frozen=True)
class SuccessiveHalving:
    """Rungs of fewer and fewer trials; see ``successive_halving``."""

    count: int
    eta: int
    minimum: int

    def rungs(self, evaluations: int) -> list[Rung]:
        """The rungs that the count and the budget allow."""
        halvings = _whole_log(min(self.count, evaluations // self.minimum), self.eta)
        return rungs(self.count, self.eta, halvings, evaluations)

    def rounds(self, space: Space, evaluations: int, seed: int) -> Rounds:
        """One round per rung."""
        if self.minimum > evaluations:
            raise SpaceError(
                f"successive_halving: minimum is {self.minimum} evaluations, expected at most the "
                f"task's {evaluations}"
            )
        configs = random_configurations(space, seed, self.count)
        yield from _halve(fresh(configs), self.rungs(evaluations))

    def work(self, space: Space, evaluations: int) -> int:
        """The evaluations of all rungs."""
        return _work(self.rungs(evaluations))

    def describe(self) -> dict[str, Any]:
        """The method in JSON's types."""
        return description("successive_halving", self)


def successive_halving(count: int, *, eta: int = 3, minimum: int = 1) -> SuccessiveHalving:
    """Trains many configurations shortly, and the best ones on (Jamieson and Talwalkar, 2016).

    From rung to rung the best 1/eta of the trials go on, from their current states, to eta times
    the budget; the last rung ends at the task's full budget. There are as many rungs as the count
    and the budget allow.

    Args:
      count: random configurations in the first rung.
      eta: the factor by which the number of trials falls from rung to rung.
      minimum: the fewest evaluations in the first rung.
    """
    return SuccessiveHalving(
        require_count("count", count), _eta(eta), require_count("minimum", minimum)
    )


@dataclass(frozen=True)
class Hyperband:
    """Several successive halvings; see ``hyperband``."""

    eta: int

    def brackets(self, evaluations: int) -> list[list[Rung]]:
        """The rungs of each bracket; the bracket with the most trials comes first."""
        most = _whole_log(evaluations, self.eta)
        counts = [-(-(most + 1) * self.eta**s // (s + 1)) for s in range(most + 1)]
        return [rungs(counts[s], self.eta, s, evaluations) for s in range(most, -1, -1)]

    def rounds(self, space: Space, evaluations: int, seed: int) -> Rounds:
        """The rungs of all brackets in turn."""
        number = 0
        for bracket in self.brackets(evaluations):
            count, _ = bracket[0]
            configs = random_configurations(space, seed, count, number)
            yield from _halve(fresh(configs, number), bracket)
            number += count

    def work(self, space: Space, evaluations: int) -> int:
        """The evaluations of all brackets."""
        return sum(map(_work, self.brackets(evaluations)))

    def describe(self) -> dict[str, Any]:
        """The method in JSON's types."""
        return description("hyperband", self)


def hyperband(*, eta: int = 3) -> Hyperband:
    """Successive halvings from many short trainings to few full trainings (Li et al., 2018).

    The task's budget decides the number of configurations: with R evaluations, bracket s of
    s_max = floor(log_eta R), ..., 0 starts ceil((s_max + 1) / (s + 1) * eta^s) configurations at
    R / eta^s.

    Args:
      eta: the factor by which the number of trials falls from rung to rung.
    """
    return Hyperband(_eta(eta))


def rungs(count: int, eta: int, halvings: int, evaluations: int) -> list[Rung]:
    """Rung i: count / eta^i trials up to evaluation evaluations / eta^(halvings - i).

    Both are rounded down; eta^halvings may exceed neither the count nor the evaluations.
    """
    return [(count // eta**i, evaluations // eta ** (halvings - i)) for i in range(halvings + 1)]


def survivors(trials: Sequence[Trial], scores: Scores, count: int) -> tuple[Trial, ...]:
    """The best ``count`` trials with finite scores, in the order of the numbers."""
    finite = [trial for trial in trials if math.isfinite(scores.best[trial.number])]
    ranked = sorted(finite, key=lambda trial: (scores.best[trial.number], trial.number))
    chosen = sorted(ranked[:count], key=lambda trial: trial.number)
    return tuple(trial._replace(parent=trial.number) for trial in chosen)


def _halve(trials: tuple[Trial, ...], rungs: list[Rung]) -> Rounds:
    for rung, (_, until) in enumerate(rungs):
        following = tuple(rungs[rung + 1 :])
        scores = yield Round(trials, until, following)
        trials = survivors(trials, scores, following[0][0] if following else 0)
        if not trials:
            return


def _work(rungs: list[Rung]) -> int:
    starts = [0, *(until for _, until in rungs)]
    return sum(
        count * (until - start) for (count, until), start in zip(rungs, starts, strict=False)
    )


def _whole_log(value: int, base: int) -> int:
    """The logarithm rounded down, in integers: in floating point log_3 243 is 4.999..."""
    power = 0
    while base ** (power + 1) <= value:
        power += 1
    return power


def _eta(eta: int) -> int:
    if require_count("eta", eta) < 2:
        raise SpaceError(f"eta is {eta}, expected at least 2")
    return eta
