"""The confusion matrix of the diagnosis over the catalogue of mutants.

``python tests/verify/confusion_matrix.py [--seeds N] [--workers N] [--trials N] [--only TEXT]``
verifies every right derivation and every mutant with each seed. Exit status 0 when no right
derivation is refuted, every mutant gets its verdict, no diagnosis is wrong, and at least 90 % of
the mistakes that a code describes are named.
"""

import argparse
import multiprocessing
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from catalogue import CORRECT, MUTANTS
from catalogue_family import Mutant
from pebble import ProcessPool

from jaxnn.verify.verdict import CODES, Verdict
from jaxnn.verify.verification import verify

NAMED_SHARE = 0.9
CLAIMS_PER_PROCESS = 25  # compiled programs fill the memory
ALTERNATIVE = re.compile(r"alternative \d+ of \d+")


class Outcome(NamedTuple):
    """What was said of one claim with one seed."""

    mutant: int | None  # its number in the catalogue, None for a right derivation
    name: str
    seed: int
    verdict: str
    codes: tuple[str, ...]
    judgement: str  # as ``judge`` and ``judge_correct`` say it
    seconds: float
    detail: str


def judge(mutant: Mutant, verdict: Verdict) -> str:
    """Whether a verdict tells the mistake of a mutant.

    Returns:
      ``right``: what is reported, or each of the alternatives, describes the mistake and tells it
      whole; ``alternatives``: one of the alternatives does; ``unknown``: no code; ``wrong``:
      another mistake, or half of one; ``not refuted``: another verdict than the mutant should get.
    """
    if verdict.verdict != mutant.verdict:
        return "not refuted"
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


def examine(mutant: int | None, index: int, seeds: Sequence[int], trials: int) -> list[Outcome]:
    """All seeds of one claim, in one process so that its compiled programs are used again."""
    return [_examine(mutant, index, seed, trials) for seed in seeds]


def _examine(mutant: int | None, index: int, seed: int, trials: int) -> Outcome:
    claim = CORRECT[index] if mutant is None else MUTANTS[mutant].claim
    try:
        verdict = verify(claim, trials=trials, seed=seed)
    except Exception as error:  # the rest still has to be judged
        detail = f"{type(error).__name__}: {error}"
        judgement = "wrong" if mutant is None else "not refuted"
        return Outcome(mutant, claim.name, seed, "crashed", (), judgement, 0.0, detail)
    return Outcome(
        mutant,
        claim.name,
        seed,
        verdict.verdict,
        tuple(dict.fromkeys(finding.code for finding in verdict.diagnosis)),
        judge_correct(verdict) if mutant is None else judge(MUTANTS[mutant], verdict),
        verdict.seconds,
        verdict.detail,
    )


def run(
    seeds: Sequence[int], workers: int, trials: int, only: str = ""
) -> tuple[list[Outcome], list[Outcome]]:
    """The outcomes of the right derivations, and of the mutants, whose name contains a text."""
    tasks = [(None, i) for i, claim in enumerate(CORRECT) if only in claim.name]
    tasks += [(i, i) for i, mutant in enumerate(MUTANTS) if only in mutant.claim.name]
    outcomes: list[Outcome] = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPool(workers, max_tasks=CLAIMS_PER_PROCESS, context=spawn) as pool:
        futures = [pool.schedule(examine, args=(*task, seeds, trials)) for task in tasks]
        for done, future in enumerate(futures, start=1):
            outcomes += future.result()
            if sys.stderr.isatty():
                print(f"\r{done}/{len(tasks)} claims", end="", file=sys.stderr, flush=True)
    outcomes.sort(key=lambda outcome: (outcome.name, outcome.seed))
    return (
        [outcome for outcome in outcomes if outcome.mutant is None],
        [outcome for outcome in outcomes if outcome.mutant is not None],
    )


def matrix(outcomes: Iterable[Outcome]) -> list[str]:
    """The confusion matrix as lines: true classes down, diagnosed codes across."""
    cells: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        assert outcome.mutant is not None
        row = MUTANTS[outcome.mutant].true_class
        cells.setdefault(row, Counter())[_column(outcome)] += 1
    order = {code: place for place, code in enumerate((*CODES, "not refuted"))}
    columns = sorted(
        {column for row in cells.values() for column in row},
        key=lambda column: (column not in order, order.get(column, 0), column),
    )
    rows = sorted(cells, key=lambda row: (row not in order, order.get(row, 0), row))
    width = max(map(len, rows), default=0)
    legend = [f"{number:3}  {column}" for number, column in enumerate(columns, start=1)]
    head = " " * width + "".join(f"{number:5}" for number in range(1, len(columns) + 1))
    body = [
        f"{row:<{width}}" + "".join(f"{cells[row][column] or '.':>5}" for column in columns)
        for row in rows
    ]
    return ["true class \\ diagnosis", "", *legend, "", head, *body]


def _column(outcome: Outcome) -> str:
    if outcome.judgement == "not refuted":
        return "not refuted"
    return "+".join(sorted(outcome.codes)) or "unknown"


def report(correct: Sequence[Outcome], mutants: Sequence[Outcome]) -> tuple[list[str], bool]:
    """The report as lines, and whether every requirement is met."""
    counts = Counter(outcome.judgement for outcome in mutants)
    refuted = [outcome for outcome in correct if outcome.judgement == "wrong"]
    described = [o for o in mutants if o.mutant is not None and MUTANTS[o.mutant].described]
    named = sum(outcome.judgement in ("right", "alternatives") for outcome in described)
    share = named / len(described) if described else 1.0
    fine = {"right", "alternatives"}
    listed = refuted + [
        o for o in mutants if o.judgement not in (fine if o in described else {*fine, "unknown"})
    ]
    lines = [
        *matrix(mutants),
        "",
        f"right derivations       {len(correct):6}",
        f"  refuted               {len(refuted):6}  (required: 0)",
        f"mutants                 {len(mutants):6}",
        f"  not given the verdict {counts['not refuted']:6}  (required: 0)",
        f"  wrongly diagnosed     {counts['wrong']:6}  (required: 0)",
        f"  rightly diagnosed     {counts['right']:6}",
        f"  among alternatives    {counts['alternatives']:6}",
        f"  unknown               {counts['unknown']:6}",
        f"named                   {share:6.1%}  of {len(described)} that a code describes "
        f"(required: {NAMED_SHARE:.0%})",
        "",
        *_grouped(listed),
    ]
    met = not (refuted or counts["not refuted"] or counts["wrong"]) and share >= NAMED_SHARE
    return lines, met


def _grouped(outcomes: Iterable[Outcome]) -> list[str]:
    """One line for every claim and what was said of it, with the seeds."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for o in outcomes:
        said = f"{o.verdict} {'+'.join(o.codes)}".strip()
        groups.setdefault((o.judgement, o.name, said, o.detail[:100]), []).append(o.seed)
    return [
        f"{judgement}: {name} -> {said}; seeds {', '.join(map(str, seeds))}"
        + (f"; {detail}" if detail else "")
        for (judgement, name, said, detail), seeds in sorted(groups.items())
    ]


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=1, help="seeds for every claim")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--trials", type=int, default=1000, help="random trials for every verdict")
    parser.add_argument("--only", default="", help="only claims with this text in their name")
    arguments = parser.parse_args()
    if min(arguments.seeds, arguments.workers, arguments.trials) < 1:
        parser.error("--seeds, --workers and --trials take numbers from 1")
    correct, mutants = run(
        range(arguments.seeds), arguments.workers, arguments.trials, arguments.only
    )
    if not correct and not mutants:
        parser.error(f"--only is {arguments.only!r}, expected a part of a claim's name")
    lines, met = report(correct, mutants)
    print("\n".join(lines))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
