"""Methods that stop bad trials early: successive halving and Hyperband."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from jaxnn.search.methods import BuiltIn, Round, Rounds, Trial, fresh
from jaxnn.search.methods.sampling import random_configurations
from jaxnn.search.space import Space, expect
from jaxnn.spec import require_count

Bracket = list[tuple[int, int]]
"""Rungs: (number of trials, evaluation up to which the trials train)."""


def successive_halving(count: int, *, eta: int = 3, minimum: int = 1) -> BuiltIn:
    """Trains many configurations shortly, and the best ones on (Jamieson and Talwalkar, 2016).

    From rung to rung the best 1/eta of the trials go on, from their current states, to eta times
    the budget; the last rung ends at the task's full budget. There are as many rungs as the count
    and the budget allow.

    Args:
      count: random configurations in the first rung.
      eta: the factor by which the number of trials falls from rung to rung.
      minimum: the fewest evaluations in the first rung.
    """
    count, minimum = require_count("count", count), require_count("minimum", minimum)
    eta = _eta(eta)

    def brackets(evaluations: int) -> list[Bracket]:
        expect(
            minimum <= evaluations,
            f"successive_halving: minimum is {minimum} evaluations, expected at most the task's "
            f"{evaluations}",
        )
        halvings = _whole_log(min(count, evaluations // minimum), eta)
        return [_bracket(count, eta, halvings, evaluations)]

    settings = {"count": count, "eta": eta, "minimum": minimum}
    return _halving("successive_halving", settings, brackets)


def hyperband(*, eta: int = 3) -> BuiltIn:
    """Successive halvings from many short trainings to few full trainings (Li et al., 2018).

    The task's budget decides the number of configurations: with R evaluations, bracket s of
    s_max = floor(log_eta R), ..., 0 starts ceil((s_max + 1) / (s + 1) * eta^s) configurations at
    R / eta^s.

    Args:
      eta: the factor by which the number of trials falls from rung to rung.
    """
    eta = _eta(eta)

    def brackets(evaluations: int) -> list[Bracket]:
        most = _whole_log(evaluations, eta)
        counts = [-(-(most + 1) * eta**s // (s + 1)) for s in range(most + 1)]
        return [_bracket(counts[s], eta, s, evaluations) for s in range(most, -1, -1)]

    return _halving("hyperband", {"eta": eta}, brackets)


def _halving(
    name: str, settings: dict[str, Any], brackets: Callable[[int], list[Bracket]]
) -> BuiltIn:
    """One bracket after the other, each of new random configurations."""

    def rounds(space: Space, evaluations: int, seed: int) -> Rounds:
        number = 0
        for bracket in brackets(evaluations):
            configs = random_configurations(space, seed, bracket[0][0], number)
            yield from _halve(fresh(configs, number), bracket)
            number += len(configs)

    def work(_: Space, evaluations: int) -> int:
        steps = [step for bracket in brackets(evaluations) for step in pairwise([(0, 0), *bracket])]
        return sum(count * (until - start) for (_, start), (count, until) in steps)

    return BuiltIn(name, settings, rounds, work)


def _bracket(count: int, eta: int, halvings: int, evaluations: int) -> Bracket:
    """Rung i: count / eta^i trials up to evaluation evaluations / eta^(halvings - i).

    Both are rounded down; eta^halvings may exceed neither the count nor the evaluations.
    """
    return [(count // eta**i, evaluations // eta ** (halvings - i)) for i in range(halvings + 1)]


def _halve(trials: tuple[Trial, ...], bracket: Bracket) -> Rounds:
    """The rounds of a bracket: the best trials with finite scores go on, in order of numbers."""
    for rung, (_, until) in enumerate(bracket):
        following = tuple(bracket[rung + 1 :])
        best = (yield Round(trials, until, following)).best
        finite = [trial for trial in trials if math.isfinite(best[trial.number])]
        if not finite or not following:
            return
        ranked = sorted(finite, key=lambda trial, best=best: (best[trial.number], trial.number))
        chosen = sorted(ranked[: following[0][0]], key=lambda trial: trial.number)
        trials = tuple(trial._replace(parent=trial.number) for trial in chosen)


def _whole_log(value: int, base: int) -> int:
    """The logarithm rounded down, in integers: in floating point log_3 243 is 4.999..."""
    power = 0
    while base ** (power + 1) <= value:
        power += 1
    return power


def _eta(eta: int) -> int:
    expect(require_count("eta", eta) > 1, f"eta is {eta}, expected at least 2")
    return int(eta)
