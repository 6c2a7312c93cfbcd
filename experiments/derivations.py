"""Every derivative, identity and update rule of the sources: which ones hold as printed?

``experiments/claims`` states them, ``jaxnn.verify`` judges them, and the report shows
the correct statement below each one that does not hold.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiments import harness
from experiments.claims.expected import EXPECTED
from experiments.config import Config, Whole
from jaxnn.atomic import atomic_write
from jaxnn.verify import Claim, Verdict
from jaxnn.verify.reporting import text
from jaxnn.verify.reporting.report import to_html, to_json
from jaxnn.verify.running import runner

CLAIMS = Path(__file__).parent / "claims"
FILES = tuple(
    CLAIMS / f"{name}.py" for name in ("s1", "s2", "s2_affine", "s3", "s3_network", "s4", "s5")
)


class Judged(NamedTuple):
    """A statement with the verdicts on it, one per seed."""

    claimed: Claim
    verdicts: tuple[Verdict, ...]

    @property
    def outcomes(self) -> tuple[str, ...]:
        """What was found, per seed, in the words of the record."""
        return tuple(outcome(verdict) for verdict in self.verdicts)

    @property
    def recorded(self) -> str:
        """What the record says; of a statement that is not in it, nothing."""
        return EXPECTED.get(self.claimed.name, "")

    @property
    def as_recorded(self) -> bool:
        """Whether every seed's verdict is the recorded one, or one of those."""
        return set(self.outcomes) <= set(self.recorded.split(" or "))


def outcome(verdict: Verdict) -> str:
    """The verdict, and of a refuted statement the diagnosis: ``refuted: sign``."""
    if verdict.verdict != "refuted":
        return verdict.verdict
    return "refuted: " + ", ".join(sorted({finding.code for finding in verdict.diagnosis}))


@dataclass(frozen=True, kw_only=True)
class DerivationsConfig(Config):
    """Every derivative, identity and update rule of the sources (S1 to S5): which ones hold?

    They are verified as printed, on random inputs: --dataset and --data-dir change nothing. Exit
    status 1 when a corrected statement does not hold, or a printed one has another verdict than
    the recorded one.
    """

    seeds: Whole = 1
    """Number of seeds of the random inputs; each has to lead to the same verdict."""

    out: Path | None = None
    """Folder for results.json, history.csv and report.html; default: runs/derivations."""

    trials: Whole | None = None
    """Random trials per statement; default: 10000."""

    timeout: float = 60.0
    """Seconds after which a statement is given up."""

    workers: Whole | None = None
    """Processes to use; default: one per core; 0: none but this, without time limit."""

    def validate(self) -> None:
        """Raises ValueError, naming the flag, its value and what was expected."""
        super().validate()
        self.at_least(1, "trials")
        self.at_least(0, "workers")
        self.positive("timeout")


def experiment(config: DerivationsConfig, run: harness.Run) -> Mapping[str, Any]:
    """Verifies the statements, shows the verdicts, and checks them against the record."""
    statements = judge(config, run)
    run.table(
        "The sources' statements",
        ("source", "statement", "verdict", "bits lost", "diagnosis"),
        [_row(statement) for statement in statements],
    )
    for source in sorted({_document(statement) for statement in statements}):
        _check_record(run, source, [s for s in statements if _document(s) == source])
    _check_corrections(run, statements)
    run.history([row for statement in statements for row in _history(statement)])
    _write_report(run, statements)
    return {
        "statements": len(statements),
        "verdicts": _counts(statements),
        "claims": [_result(statement) for statement in statements],
    }


def judge(config: DerivationsConfig, run: harness.Run) -> list[Judged]:
    """The verdicts of every seed on every statement, in the order of the sources."""
    todo = runner.tasks(FILES)
    by_seed = []
    for seed in range(config.seeds):
        with run.progress(f"seed {seed}") as report:
            verdicts = runner.judge(
                todo,
                trials=config.trials,
                seed=seed,
                timeout=config.timeout,
                workers=config.workers,
                on_result=lambda done, total, _, report=report: report(done, total),
            )
        by_seed.append(verdicts)
    return [
        Judged(task.claimed, verdicts)
        for task, *verdicts in zip(todo, *by_seed, strict=True)
        for verdicts in [tuple(verdicts)]
    ]


def _check_record(run: harness.Run, source: str, statements: Sequence[Judged]) -> None:
    """Whether all statements of a source got the recorded verdict, whatever the seed."""
    others = [
        f"{s.claimed.name} ({' | '.join(dict.fromkeys(s.outcomes))}; recorded: {s.recorded or '-'})"
        for s in statements
        if not s.as_recorded
    ]
    detail = f"not as recorded: {'; '.join(others)}" if others else f"{len(statements)} as recorded"
    run.check(f"{source}, the recorded verdicts", not others, detail)


def _check_corrections(run: harness.Run, statements: Sequence[Judged]) -> None:
    """Whether every corrected statement holds, and there is one for every statement that fails."""
    corrected = [s for s in statements if s.claimed.corrects is not None]
    failed = [s.claimed.name for s in corrected if not all(v.holds for v in s.verdicts)]
    detail = f"these do not: {', '.join(failed)}" if failed else f"{len(corrected)} do"
    run.check("the corrected statements hold", not failed, detail)
    put_right = {id(s.claimed.corrects) for s in corrected}
    missing = [
        s.claimed.name
        for s in statements
        if not all(v.holds for v in s.verdicts) and id(s.claimed) not in put_right
    ]
    detail = f"not of {', '.join(missing)}" if missing else "none is missing"
    run.check("every statement that fails has a correct form", not missing, detail)


def _row(statement: Judged) -> tuple[str, ...]:
    """A line of the table, of the first seed."""
    claimed, (verdict, *_) = statement
    bits = "" if verdict.bits_lost is None else f"{verdict.bits_lost:.1f}"
    return claimed.source, claimed.name, verdict.verdict, bits, text.findings(verdict)


def _history(statement: Judged) -> list[dict[str, Any]]:
    return [
        {
            "source": verdict.source,
            "name": verdict.name,
            "kind": verdict.kind,
            "seed": seed,
            "verdict": verdict.verdict,
            "bits_lost": verdict.bits_lost,
            "diagnosis": " ".join(finding.code for finding in verdict.diagnosis),
            "seconds": verdict.seconds,
        }
        for seed, verdict in enumerate(statement.verdicts)
    ]


def _result(statement: Judged) -> dict[str, Any]:
    """Everything of the verdicts, with what was stated and recorded."""
    claimed = statement.claimed
    return {
        "name": claimed.name,
        "source": claimed.source,
        "statement": claimed.statement,
        "convention": claimed.formula.__doc__,
        "corrects": claimed.corrects and claimed.corrects.name,
        "recorded": statement.recorded,
        "as_recorded": statement.as_recorded,
        "verdicts": json.loads(to_json(statement.verdicts)),
    }


def _counts(statements: Sequence[Judged]) -> dict[str, int]:
    """How many statements got each verdict, of the first seed."""
    found = [statement.verdicts[0].verdict for statement in statements]
    return {verdict: found.count(verdict) for verdict in dict.fromkeys(found)}


def _document(statement: Judged) -> str:
    """S2 of S2.4."""
    return statement.claimed.source.split(".")[0]


def _write_report(run: harness.Run, statements: Sequence[Judged]) -> None:
    """The page, of the first seed, with every correct statement below the printed one."""
    page = to_html(
        [(statement.claimed, statement.verdicts[0]) for statement in statements],
        title="The derivations of the five sources",
    )
    run.files["report.html"] = None
    with atomic_write(run.out / "report.html", "w") as file:
        file.write(page)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; see ``harness.main``."""
    return harness.main("derivations", DerivationsConfig, experiment, argv)


if __name__ == "__main__":
    harness.leave(main())
