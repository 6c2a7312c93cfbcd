"""The verdicts of ``jaxnn.verify`` on the catalogue, judged right or wrong."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from experiments.mutants import MUTANTS, Case
from experiments.mutants.family import Mutant
from experiments.mutants.pool import over_processes
from experiments.mutants.twins import twin
from jaxnn.reporting import Report
from jaxnn.verify import Claim, comparison
from jaxnn.verify.exact.certificate import SECONDS, Uncertified, certify
from jaxnn.verify.inputs import draw, draw_sizes
from jaxnn.verify.verdict import Certificate, Verdict
from jaxnn.verify.verification import verify

ALTERNATIVE = re.compile(r"alternative \d+ of \d+")
NOT_REFUTED = "not refuted"

POINTS = 64
"""Random inputs of a claim to be certified."""


class Outcome(NamedTuple):
    """The verdict on one claim with one seed, and the judgement of the verdict."""

    case: Case
    seed: int
    verdict: str
    codes: tuple[str, ...]
    judgement: str  # of ``judge`` or ``judge_correct``
    detail: str
    seconds: float = 0.0


def judge(mutant: Mutant, verdict: Verdict) -> str:
    """Whether a verdict tells the mistake of a mutant.

    Returns:
      ``right``: the diagnosis, or every alternative of the diagnosis, describes the whole mistake
      and nothing else; ``alternatives``: some alternatives do; ``unknown``: the diagnosis has no
      code; ``wrong``: the diagnosis names a different mistake, or half of the mistake; ``not
      refuted``: the verdict is not the verdict of the mutant.
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


def certified(claim: Claim, seed: int = 0, seconds: float = SECONDS) -> Certificate | str:
    """The certificate of a claim, right or wrong, or the reason for none; no verdict is asked."""
    sizes = draw_sizes(claim.inputs, seed)
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        try:
            traced = comparison.trace_claim(claim, tuple(sizes.items()), both_modes=False)
            points = draw(dict(claim.inputs), sizes, POINTS, np.random.default_rng(seed))
            values = comparison.evaluate(traced, points)
            arrange = [comparison.declared_layout(claim.layout, r) for r in traced.value_ranks]
            return certify(traced, arrange, jax.tree.leaves(points), values, seed, seconds)
        except Uncertified as reason:
            return str(reason)
        except (comparison.FormulaError, ValueError):
            return "shapes do not fit"


def judge_correct(verdict: Verdict) -> str:
    """``right`` where a right derivation is not refuted, else ``wrong``."""
    return "right" if verdict.verdict in ("holds", "holds_unstable", "kink") else "wrong"


def outcomes(
    cases: Sequence[Case],
    seeds: Sequence[int],
    trials: int,
    *,
    workers: int,
    language: str = "jax",
    report: Report = lambda done, total: None,
) -> list[Outcome]:
    """The outcomes of claims of the catalogue, sorted by name and seed.

    Args:
      cases: the claims.
      seeds: each claim is verified with every seed.
      trials: random trials for every verdict.
      workers: processes.
      language: of the formulas, from ``LANGUAGES``.
      report: called with the number of judged claims and the number of all claims.
    """
    arguments = seeds, trials, language
    found = over_processes(examine, cases, *arguments, workers=workers, report=report)
    return sorted(
        (outcome for some in found for outcome in some),
        key=lambda outcome: (outcome.case.claim.name, outcome.seed),
    )


LANGUAGES: dict[str, Callable[[Claim], Claim]] = {
    "jax": lambda claim: claim,
    "numpy": twin,
    "black box": partial(twin, called=True),
}
"""The languages of the formulas: NumPy by default, and as a black box whose code is not read."""


def examine(case: Case, seeds: Sequence[int], trials: int, language: str) -> list[Outcome]:
    """The outcomes of one claim for all seeds, in one process, which compiles programs once."""
    claim = LANGUAGES[language](case.claim)
    return [_examine(case, claim, seed, trials) for seed in seeds]


def _examine(case: Case, claim: Claim, seed: int, trials: int) -> Outcome:
    try:
        verdict = verify(claim, trials=trials, seed=seed)
    except Exception as error:  # the remaining claims are still judged
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
        verdict.seconds,
    )
