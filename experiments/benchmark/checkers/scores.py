"""The checkers on the catalogue: the mutants that each checker lets through, and false alarms."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax

from experiments.benchmark.checkers import load
from experiments.benchmark.checkers.statement import points, state
from experiments.mutants import MUTANTS, Case
from experiments.mutants.judging import NOT_REFUTED, Outcome


class Finding(NamedTuple):
    """A checker's answer about a claim."""

    checker: str
    case: Case
    stated: bool  # whether the checker can judge such a claim
    rejected_at: int | None = None  # the first point at which the checker rejects the claim


def examine(case: Case, checkers: Sequence[str], count: int, seed: int) -> list[Finding]:
    """All checkers on a claim at equal points; an exception of any kind rejects the claim."""
    statement = state(case.claim)
    if statement is None:
        return [Finding(name, case, stated=False) for name in checkers]

    def first_rejection(checker: str) -> int | None:
        check = load(checker).check_of(statement)
        for number, point in enumerate(points(case.claim, count, seed)):
            try:
                check(point)
            except Exception:  # wrong shapes raise all sorts of exceptions
                return number
        return None

    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        return [Finding(name, case, True, first_rejection(name)) for name in checkers]


def of_outcome(outcome: Outcome, checker: str) -> Finding:
    """A verdict of jaxnn: a mutant has to be refuted, a right derivation must not be."""
    refuted = outcome.judgement != NOT_REFUTED
    rejects = refuted if outcome.case.is_mutant else outcome.judgement == "wrong"
    return Finding(checker, outcome.case, True, 0 if rejects else None)


def score(findings: Iterable[Finding], count: int) -> dict[str, Any]:
    """The counts of a checker at the first ``count`` points.

    Returns:
      ``mutants`` and ``right``: the numbers of claims; ``let_through``: the mutants not rejected,
      of which the checker cannot judge ``not_stated``; ``false_alarms``: right derivations
      rejected; ``classes``, ``survivors``: classes and names of judged mutants let through.
    """
    findings = list(findings)
    mutants = [finding for finding in findings if finding.case.is_mutant]
    right = [finding for finding in findings if not finding.case.is_mutant]
    through = [finding for finding in mutants if not rejected(finding, count)]
    survivors = [finding.case for finding in through if finding.stated]
    return {
        "mutants": len(mutants),
        "right": len(right),
        "let_through": len(through),
        "not_stated": len(through) - len(survivors),
        "false_alarms": sum(rejected(finding, count) for finding in right),
        "classes": dict(Counter(MUTANTS[case.index].true_class for case in survivors)),
        "survivors": [case.claim.name for case in survivors],
    }


def rejected(finding: Finding, count: int) -> bool:
    """Whether the checker rejects the claim at one of the first points."""
    return finding.rejected_at is not None and finding.rejected_at < count
