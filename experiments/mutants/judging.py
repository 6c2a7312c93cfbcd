"""What ``jaxnn.verify`` says of the catalogue, and whether it is right."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from experiments.mutants import MUTANTS, Case
from experiments.mutants.family import Mutant
from experiments.mutants.pool import over_processes
from jaxnn.progress import Report
from jaxnn.verify.verdict import Verdict
from jaxnn.verify.verification import verify

ALTERNATIVE = re.compile(r"alternative \d+ of \d+")
NOT_REFUTED = "not refuted"


class Outcome(NamedTuple):
    """What was said of one claim with one seed."""

    case: Case
    seed: int
    verdict: str
    codes: tuple[str, ...]
    judgement: str  # as ``judge`` and ``judge_correct`` say it
    detail: str


def judge(mutant: Mutant, verdict: Verdict) -> str:
    """Whether a verdict tells the mistake of a mutant.

    Returns:
      ``right``: what is reported, or each of the alternatives, describes the mistake and tells it
      whole; ``alternatives``: one of the alternatives does; ``unknown``: no code; ``wrong``:
      another mistake, or half of one; ``not refuted``: another verdict than the mutant should get.
    """
    if verdict.verdict != mutant.verdict:
        return NOT_REFUTED
    groups: dict[str, set[str]] = {}
    for finding in verdict.diagnosis:
        alternative = ALTERNATIVE.match(finding.detail)
        groups.setdefault(alternative.group() if alternative else "", set()).add(finding.code)
    if not groups or any("unknown" in codes for codes in groups.values()):
        named = set().union(*groups.values()) - {"unknown"}
        return "unknown" if named <= mutant.codes else "wrong"
    told = [_tells(mutant, codes) for codes in groups.values()]
    if all(told):
        return "right"
    return "alternatives" if any(told) else "wrong"


def _tells(mutant: Mutant, codes: set[str]) -> bool:
    whole = any(explanation <= codes for explanation in mutant.explanations)
    return whole and codes <= mutant.codes


def judge_correct(verdict: Verdict) -> str:
    """``right`` where a right derivation is not refuted, else ``wrong``."""
    return "right" if verdict.verdict in ("holds", "holds_unstable", "kink") else "wrong"


def outcomes(
    cases: Sequence[Case],
    seeds: Sequence[int],
    trials: int,
    *,
    workers: int,
    report: Report = lambda done, total: None,
) -> list[Outcome]:
    """What is said of claims of the catalogue, by name and seed.

    Args:
      cases: the claims.
      seeds: each claim is verified with each of them.
      trials: random trials for every verdict.
      workers: processes.
      report: is told how many claims of how many have been judged.
    """
    found = over_processes(examine, cases, seeds, trials, workers=workers, report=report)
    return sorted(
        (outcome for some in found for outcome in some),
        key=lambda outcome: (outcome.case.claim.name, outcome.seed),
    )


def examine(case: Case, seeds: Sequence[int], trials: int) -> list[Outcome]:
    """All seeds of one claim, in one process so that its compiled programs are used again."""
    return [_examine(case, seed, trials) for seed in seeds]


def _examine(case: Case, seed: int, trials: int) -> Outcome:
    try:
        verdict = verify(case.claim, trials=trials, seed=seed)
    except Exception as error:  # the rest still has to be judged
        detail = f"{type(error).__name__}: {error}"
        judgement = NOT_REFUTED if case.is_mutant else "wrong"
        return Outcome(case, seed, "crashed", (), judgement, detail)
    return Outcome(
        case,
        seed,
        verdict.verdict,
        tuple(dict.fromkeys(finding.code for finding in verdict.diagnosis)),
        judge(MUTANTS[case.index], verdict) if case.is_mutant else judge_correct(verdict),
        verdict.detail,
    )
