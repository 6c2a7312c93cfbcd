"""Every derivative, identity and update rule of the sources, verified as printed.

``experiments/claims`` has the statements, ``jaxnn.verify`` judges them, and the report shows the
correct statement below every statement that does not hold. The worked derivations are verified
line by line.
"""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiments import harness
from experiments.claims.expected import EXPECTED, WRONG_LINES
from experiments.config import Config, Whole
from jaxnn.verify import Verdict, report, runner
from jaxnn.verify.claims import Description
from jaxnn.verify.report import to_html, to_json
from jaxnn.verify.verdict import broken

CLAIMS = Path(__file__).parent / "claims"
FILES = tuple(
    CLAIMS / f"{name}.py" for name in ("s1", "s2", "s2_affine", "s3", "s3_network", "s4", "s5")
)

WORKED = (CLAIMS / "derivations.py",)
"""Files of derivations with their lines."""

CERTIFIED = 0.85
"""The share of the statements that hold to be certified."""


class Judged(NamedTuple):
    """A statement with a verdict per seed."""

    claimed: Description
    verdicts: tuple[Verdict, ...]

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The verdicts, per seed, in the words of the record."""
        return tuple(outcome(verdict) for verdict in self.verdicts)

    @property
    def recorded(self) -> str:
        """The recorded verdict; "" where the record lacks the statement."""
        return EXPECTED.get(self.claimed.name, "")

    @property
    def as_recorded(self) -> bool:
        """Whether every seed's verdict is among the recorded verdicts."""
        return set(self.outcomes) <= set(self.recorded.split(" or "))


def outcome(verdict: Verdict) -> str:
    """The verdict, for a refuted statement with the diagnosis: ``refuted: sign``."""
    if verdict.verdict != "refuted":
        return verdict.verdict
    return "refuted: " + ", ".join(sorted({finding.code for finding in verdict.diagnosis}))


@dataclass(frozen=True, kw_only=True)
class DerivationsConfig(Config):
    """Verify every derivative, identity and update rule of the sources (S1 to S5).

    The statements are verified as printed, on random inputs, and the worked derivations line by
    line. Exit status 1 when a corrected statement does not hold, a printed statement has another
    verdict than the recorded verdict, or another line of a derivation does not follow.
    """

    seeds: Whole = 1
    """Number of seeds of the random inputs; every seed has to lead to the same verdict."""

    out: Path | None = None
    """Folder for results.json, history.csv and report.html; default: runs/derivations."""

    trials: Whole | None = None
    """Random trials per statement; default: 10000."""

    timeout: float | None = None
    """Seconds after which a statement is given up, with worker processes; default: 60."""

    workers: Whole | None = None
    """Worker processes; default: one per core; 0: no worker process and no time limit."""

    def validate(self) -> None:
        """See ``Config``."""
        super().validate()
        self.at_least(1, "seeds", "trials")
        self.at_least(0, "workers")
        self.positive("timeout")
        self.only_with(self.workers != 0, "worker processes", "timeout")


def experiment(config: DerivationsConfig, run: harness.Run) -> Mapping[str, Any]:
    """Verifies the statements, shows the verdicts, and compares the verdicts with the record."""
    judged = judge(config, run)
    statements = [statement for statement in judged if not statement.verdicts[0].step]
    run.table(
        "The sources' statements",
        ("source", "statement", "verdict", "bits lost", "diagnosis"),
        [_row(s) for s in sorted(statements, key=lambda s: s.verdicts[0].rank)],
    )
    for source in sorted({_document(statement) for statement in statements}):
        _check_record(run, source, [s for s in statements if _document(s) == source])
    _check_corrections(run, statements)
    _check_certificates(run, statements)
    _check_statements(run, statements)
    worked = _worked(judged)
    _check_lines(run, worked)
    run.history([row for statement in judged for row in _history(statement)])
    _write_report(run, judged)
    return {
        "statements": len(statements),
        "verdicts": _counts(statements),
        "claims": [_result(statement, statements) for statement in statements],
        "derivations": {
            name: [_result(line, statements) for line in lines] for name, lines in worked.items()
        },
    }


def judge(config: DerivationsConfig, run: harness.Run) -> list[Judged]:
    """The verdicts of every seed on every statement, in the order of the sources."""
    by_seed = []
    for seed in range(config.seeds):
        with run.progress(f"seed {seed}") as report:
            by_seed.append(
                runner.judge(
                    (*FILES, *WORKED),
                    trials=config.trials,
                    seed=seed,
                    timeout=config.timeout or 60.0,
                    workers=config.workers,
                    together=True,
                    on_result=lambda done, total, _, report=report: report(done, total),
                )
            )
    return [
        Judged(
            entries[0][0]._replace(file=Path(entries[0][0].file).name),
            tuple(verdict._replace(file=Path(verdict.file).name) for _, verdict in entries),
        )
        for entries in zip(*by_seed, strict=True)
    ]


def _worked(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    """The lines of every derivation, by the derivation's name."""
    worked: dict[str, list[Judged]] = {}
    for line in judged:
        if line.verdicts[0].step:
            worked.setdefault(line.verdicts[0].step.derivation, []).append(line)
    return worked


def _check_lines(run: harness.Run, worked: Mapping[str, Sequence[Judged]]) -> None:
    """Shows every derivation, and checks that the recorded line is the first that is wrong."""
    found = {
        name: [
            _wrong_line([line.verdicts[seed] for line in lines])
            for seed in range(len(lines[0].verdicts))
        ]
        for name, lines in worked.items()
    }
    run.table(
        "The sources' worked derivations",
        ("source", "derivation", "lines", "does not follow"),
        [
            (lines[0].claimed.source, name, str(len(lines)), found[name][0])
            for name, lines in worked.items()
        ],
    )
    others = [
        f"{name} ({' | '.join(dict.fromkeys(some))}; recorded: {WRONG_LINES.get(name)})"
        for name, some in found.items()
        if {*some} != {WRONG_LINES.get(name)}
    ]
    wrong = sum(some[0] != "" for some in found.values())
    detail = f"{len(found)} derivations, {wrong} with a line that does not follow"
    detail = f"not as recorded: {'; '.join(others)}" if others else detail
    run.check("the wrong lines of the worked derivations", not others, detail)


def _wrong_line(lines: Sequence[Verdict]) -> str:
    """The first line that does not follow, with the codes of the diagnosis; "": every line does."""
    number, _ = broken(lines)
    if number is None:
        return ""
    codes = sorted({finding.code for finding in lines[number - 1].diagnosis})
    return f"line {number}: {', '.join(codes)}"


def _check_record(run: harness.Run, source: str, statements: Sequence[Judged]) -> None:
    """Checks that all statements of a source got the recorded verdict for every seed."""
    others = [
        f"{s.claimed.name} ({' | '.join(dict.fromkeys(s.outcomes))}; recorded: {s.recorded or '-'})"
        for s in statements
        if not s.as_recorded
    ]
    detail = f"not as recorded: {'; '.join(others)}" if others else f"{len(statements)} as recorded"
    run.check(f"{source}, the recorded verdicts", not others, detail)


def _check_corrections(run: harness.Run, statements: Sequence[Judged]) -> None:
    """Checks that corrections hold, and that every failing statement has a correction."""
    corrected = [s for s in statements if s.claimed.corrects is not None]
    failed = [s.claimed.name for s in corrected if not all(v.holds for v in s.verdicts)]
    detail = f"refuted: {', '.join(failed)}" if failed else f"{len(corrected)} hold"
    run.check("the corrected statements hold", not failed, detail)
    put_right = {(s.claimed.file, s.claimed.corrects) for s in corrected}
    missing = [
        s.claimed.name
        for s in statements
        if not all(v.holds for v in s.verdicts)
        and (s.claimed.file, s.claimed.place) not in put_right
    ]
    detail = f"missing for {', '.join(missing)}" if missing else "none is missing"
    run.check("every statement that fails has a correct form", not missing, detail)


def _check_certificates(run: harness.Run, statements: Sequence[Judged]) -> None:
    """Checks the share of the statements that hold, over all seeds, with a certificate."""
    holding = [
        verdict for statement in statements for verdict in statement.verdicts if verdict.holds
    ]
    found = [verdict.certificate for verdict in holding if verdict.certificate]
    detail = f"{len(found)} of {len(holding)}"
    if found:
        seconds = statistics.median(certificate.seconds for certificate in found)
        detail += f", median {seconds:.3f} s"
    missing = dict.fromkeys(f"{v.name}: {v.uncertified}" for v in holding if not v.certificate)
    run.check(
        "the statements that hold are certified",
        len(found) >= CERTIFIED * len(holding),
        "; ".join([detail, *missing]),
    )


def _check_statements(run: harness.Run, statements: Sequence[Judged]) -> None:
    """Checks that every statement in LaTeX that can be read says what the claim's code computes."""
    found = [(s.claimed.name, s.verdicts[0].statement) for s in statements]
    outcomes = Counter(statement.outcome for _, statement in found if statement)
    others = [
        f"{name}: {said.detail}" for name, said in found if said and said.outcome == "differs"
    ]
    detail = f"{outcomes['agrees']} of {len(found)} read and equal"
    run.check(
        "the statements say what their code computes", not others, "; ".join([detail, *others])
    )


def _row(statement: Judged) -> tuple[str, ...]:
    """A row of the table, for the first seed."""
    claimed, (verdict, *_) = statement
    bits = "" if verdict.bits_lost is None else f"{verdict.bits_lost:.1f}"
    return claimed.source, claimed.name, verdict.words, bits, report.findings(verdict)


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


def _result(statement: Judged, statements: Sequence[Judged]) -> dict[str, Any]:
    """The verdicts with all evidence, the statement and the recorded verdict."""
    claimed = statement.claimed
    names: dict[tuple[str, int | None], str] = {
        (s.claimed.file, s.claimed.place): s.claimed.name for s in statements
    }
    return {
        "name": claimed.name,
        "source": claimed.source,
        "statement": claimed.statement,
        "convention": claimed.doc,
        "corrects": names.get((claimed.file, claimed.corrects)),
        "recorded": statement.recorded,
        "as_recorded": statement.as_recorded,
        "verdicts": json.loads(to_json(statement.verdicts)),
    }


def _counts(statements: Sequence[Judged]) -> dict[str, int]:
    """The number of statements by verdict, for the first seed."""
    found = [statement.verdicts[0].verdict for statement in statements]
    return {verdict: found.count(verdict) for verdict in dict.fromkeys(found)}


def _document(statement: Judged) -> str:
    """The document of a section: S2 for S2.4."""
    return statement.claimed.source.split(".")[0]


def _write_report(run: harness.Run, statements: Sequence[Judged]) -> None:
    """Writes the page for the first seed, each correction below the printed statement."""
    page = to_html(
        [(statement.claimed, statement.verdicts[0]) for statement in statements],
        title="The derivations of the five sources",
    )
    run.page("report.html", page)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; see ``harness.main``."""
    return harness.main("derivations", DerivationsConfig, experiment, argv)


if __name__ == "__main__":
    harness.leave(main())
