"""Methods that stop early what looks bad: successive halving and Hyperband."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxnn.search.domain import SpaceError
from jaxnn.search.methods.rounds import Round, Rounds, Scores, Trial, fresh
from jaxnn.search.methods.sampling import random_configuration, random_configurations
from jaxnn.search.space import Space
from jaxnn.spec import require_count


@dataclass(frozen=True)
class SuccessiveHalving:
    """Rungs of fewer and fewer configurations; see ``successive_halving``."""

    count: int
    eta: int
    minimum: int

    def rungs(self, evaluations: int) -> list[tuple[int, int]]:
        """(trials, evaluation up to which they are trained) per rung."""
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
        """Every rung's new evaluations."""
        return _work(self.rungs(evaluations))

    def describe(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "method": "successive_halving",
            "count": self.count,
            "eta": self.eta,
            "minimum": self.minimum,
        }


def successive_halving(count: int, *, eta: int = 3, minimum: int = 1) -> SuccessiveHalving:
    """Trains many configurations a little and the best of them on (Jamieson and Talwalkar, 2016).

    From rung to rung the best 1/eta go on, from the state they are in, to eta times the budget; the
    last rung ends at the task's full budget. There are as many rungs as the count and the budget
    allow.

    Args:
      count: random configurations in the first rung.
      eta: how many times fewer of them there are in the next.
      minimum: evaluations in the first rung, at least.
    """
    return SuccessiveHalving(
        require_count("count", count), _eta(eta), require_count("minimum", minimum)
    )


@dataclass(frozen=True)
class Hyperband:
    """Several successive halvings; see ``hyperband``."""

    eta: int

    def brackets(self, evaluations: int) -> list[list[tuple[int, int]]]:
        """The rungs of each bracket, the most impatient first."""
        most = _whole_log(evaluations, self.eta)
        return [
            rungs(
                -(-(most + 1) * self.eta**halvings // (halvings + 1)),
                self.eta,
                halvings,
                evaluations,
            )
            for halvings in range(most, -1, -1)
        ]

    def rounds(self, space: Space, evaluations: int, seed: int) -> Rounds:
        """One bracket after another."""
        number = 0
        for bracket in self.brackets(evaluations):
            count = bracket[0][0]
            configs = [random_configuration(space, seed, number + i) for i in range(count)]
            yield from _halve(fresh(configs, number), bracket)
            number += count

    def work(self, space: Space, evaluations: int) -> int:
        """That of all brackets."""
        return sum(_work(bracket) for bracket in self.brackets(evaluations))

    def describe(self) -> dict[str, Any]:
        """In JSON's types."""
        return {"method": "hyperband", "eta": self.eta}


def hyperband(*, eta: int = 3) -> Hyperband:
    """Successive halvings from many short trainings to few full ones (Li et al., 2018).

    The task's budget says how many configurations there are: with R evaluations, bracket s of
    s_max = floor(log_eta R), ..., 0 starts ceil((s_max + 1) / (s + 1) * eta^s) of them at
    R / eta^s.

    Args:
      eta: how many times fewer configurations go on from rung to rung.
    """
    return Hyperband(_eta(eta))


def rungs(count: int, eta: int, halvings: int, evaluations: int) -> list[tuple[int, int]]:
    """(trials, evaluation) per rung: count / eta^i of them up to evaluations / eta^(halvings - i).

    Both are rounded down; eta^halvings may exceed neither the count nor the evaluations.
    """
    return [(count // eta**i, evaluations // eta ** (halvings - i)) for i in range(halvings + 1)]


def survivors(trials: Sequence[Trial], scores: Scores, count: int) -> tuple[Trial, ...]:
    """The best of them that have not diverged, in the order of their numbers."""
    finite = [trial for trial in trials if math.isfinite(scores.best[trial.number])]
    ranked = sorted(finite, key=lambda trial: (scores.best[trial.number], trial.number))
    chosen = sorted(ranked[:count], key=lambda trial: trial.number)
    return tuple(trial._replace(parent=trial.number) for trial in chosen)


def _halve(trials: tuple[Trial, ...], rungs: list[tuple[int, int]]) -> Rounds:
    for rung, (_, until) in enumerate(rungs):
        following = tuple(rungs[rung + 1 :])
        scores = yield Round(trials, until, following)
        trials = survivors(trials, scores, following[0][0] if following else 0)
        if not trials:
            return


def _work(rungs: list[tuple[int, int]]) -> int:
    before = [0, *(until for _, until in rungs)]
    return sum(
        count * (until - start) for (count, until), start in zip(rungs, before, strict=False)
    )


def _whole_log(value: int, base: int) -> int:
    """The logarithm rounded down, in whole numbers: that of floats is 4.999... of 243 to 3."""
    power = 0
    while base ** (power + 1) <= value:
        power += 1
    return power


def _eta(eta: int) -> int:
    if require_count("eta", eta) < 2:
        raise SpaceError(f"eta is {eta}, expected at least 2")
    return eta
