"""The confusion matrix of the diagnosis over the catalogue of mutants.

``PYTHONPATH=. python tests/verify/confusion_matrix.py [--seeds N] [--workers N] [--trials N]
[--only TEXT] [--language jax|numpy|black-box] [--certificates]`` verifies every right derivation
and every mutant with each seed, with the formulas in a language. Exit status 0 when no right
derivation is refuted, every mutant gets its verdict, no diagnosis is wrong, and at least 90 % of
the mistakes that a code describes are named. With ``--certificates`` every claim is to be
certified instead: at least 85 % of the right derivations are, and no mutant.
"""

import argparse
import os
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from experiments.mutants import CASES, MUTANTS, Case, judging
from experiments.mutants.judging import NOT_REFUTED, Outcome
from jaxnn.reporting import progress
from jaxnn.verify.verdict import CODES

NAMED_SHARE = 0.9

CERTIFIED_SHARE = 0.85


def matrix(outcomes: Iterable[Outcome]) -> list[str]:
    """The confusion matrix as lines: true classes down, diagnosed codes across."""
    cells: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        row = MUTANTS[outcome.case.index].true_class
        cells.setdefault(row, Counter())[_column(outcome)] += 1
    order = {code: place for place, code in enumerate((*CODES, NOT_REFUTED))}
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
    if outcome.judgement == NOT_REFUTED:
        return NOT_REFUTED
    return "+".join(sorted(outcome.codes)) or "unknown"


def report(correct: Sequence[Outcome], mutants: Sequence[Outcome]) -> tuple[list[str], bool]:
    """The report as lines, and whether every requirement is met."""
    counts = Counter(outcome.judgement for outcome in mutants)
    refuted = [outcome for outcome in correct if outcome.judgement == "wrong"]
    described = [o for o in mutants if MUTANTS[o.case.index].described]
    named = sum(outcome.judgement in ("right", "alternatives") for outcome in described)
    share = named / len(described) if described else 1.0
    fine, seen = {"right", "alternatives"}, [*correct, *mutants]
    listed = refuted + [
        o for o in mutants if o.judgement not in (fine if o in described else {*fine, "unknown"})
    ]
    lines = [
        *matrix(mutants),
        "",
        f"right derivations       {len(correct):6}",
        f"  refuted               {len(refuted):6}  (required: 0)",
        f"mutants                 {len(mutants):6}",
        f"  not given the verdict {counts[NOT_REFUTED]:6}  (required: 0)",
        f"  wrongly diagnosed     {counts['wrong']:6}  (required: 0)",
        f"  rightly diagnosed     {counts['right']:6}",
        f"  among alternatives    {counts['alternatives']:6}",
        f"  unknown               {counts['unknown']:6}",
        f"named                   {share:6.1%}  of {len(described)} that a code describes "
        f"(required: {NAMED_SHARE:.0%})",
        f"seconds a claim         {statistics.median(o.seconds for o in seen):6.2f}  (median)",
        "",
        *_grouped(listed),
    ]
    met = not (refuted or counts["not refuted"] or counts["wrong"]) and share >= NAMED_SHARE
    return lines, met


def _grouped(outcomes: Iterable[Outcome]) -> list[str]:
    """A line for every claim and diagnosis, with the seeds."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for o in outcomes:
        said = f"{o.verdict} {'+'.join(o.codes)}".strip()
        groups.setdefault((o.judgement, o.case.claim.name, said, o.detail[:100]), []).append(o.seed)
    return [
        f"{judgement}: {name} -> {said}; seeds {', '.join(map(str, seeds))}"
        + (f"; {detail}" if detail else "")
        for (judgement, name, said, detail), seeds in sorted(groups.items())
    ]


def certificates(cases: Sequence[Case], seeds: range) -> tuple[list[str], bool]:
    """The certified claims and the reasons for the others, and whether the figures suffice."""
    certified, reasons, wrong, attempts = [], list[str](), list[str](), [0, 0]
    claims = [case for case in cases if not case.is_mutant or _is_refuted(case)]
    with progress("claims") as done:
        for number, case in enumerate(claims):
            for seed in seeds:
                attempts[case.is_mutant] += 1
                found = judging.certified(case.claim, seed)
                if case.is_mutant and not isinstance(found, str):
                    wrong.append(f"CERTIFIED {case.claim.name}, seed {seed}")
                elif not case.is_mutant:
                    certified += [] if isinstance(found, str) else [found.seconds]
                    reasons += [f"{case.claim.name}: {found}"] if isinstance(found, str) else []
            done(number + 1, len(claims))
    share = len(certified) / max(1, attempts[0])
    lines = [
        f"right derivations {attempts[0]:6}",
        f"  certified       {share:6.1%}  (required: {CERTIFIED_SHARE:.0%})",
        f"mutants           {attempts[1]:6}",
        f"  certified       {len(wrong):6}  (required: 0)",
        f"a certificate     {statistics.median(certified or [0.0]):6.3f}  s (median)",
        "",
        *(f"{text} ({count})" for text, count in Counter(wrong + reasons).items()),
    ]
    return lines, share >= CERTIFIED_SHARE and not wrong


def _is_refuted(case: Case) -> bool:
    return MUTANTS[case.index].verdict == "refuted"


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=1, help="seeds for every claim")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--trials", type=int, default=1000, help="random trials for every verdict")
    parser.add_argument("--only", default="", help="only claims with this text in their name")
    languages = {name.replace(" ", "-"): name for name in judging.LANGUAGES}
    parser.add_argument(
        "--language", choices=languages, default="jax", help="of the formulas; default: jax"
    )
    parser.add_argument("--certificates", action="store_true", help="certify, do not verify")
    arguments = parser.parse_args()
    if min(arguments.seeds, arguments.workers, arguments.trials) < 1:
        parser.error("--seeds, --workers and --trials take numbers from 1")
    cases = [case for case in CASES if arguments.only in case.claim.name]
    if not cases:
        parser.error(f"--only is {arguments.only!r}, expected a part of a claim's name")
    if arguments.certificates:
        lines, met = certificates(cases, range(arguments.seeds))
        print("\n".join(lines))
        return 0 if met else 1
    with progress("claims") as done:
        found = judging.outcomes(
            cases,
            range(arguments.seeds),
            arguments.trials,
            workers=arguments.workers,
            language=languages[arguments.language],
            report=done,
        )
    correct = [outcome for outcome in found if not outcome.case.is_mutant]
    mutants = [outcome for outcome in found if outcome.case.is_mutant]
    lines, met = report(correct, mutants)
    print("\n".join(lines))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
