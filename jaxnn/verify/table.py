"""Tables of verdicts on the command line, and the evidence against a claim."""

from collections.abc import Iterator, Sequence
from typing import TextIO

from rich.text import Text

from jaxnn.reporting import console, print_table
from jaxnn.verify import text
from jaxnn.verify.claims import Claim
from jaxnn.verify.verdict import Verdict

STYLES = {
    "holds": "green",
    "holds_unstable": "yellow",
    "holds_other_layout": "cyan",
    "refuted": "bold red",
    "kink": "cyan",
    "error": "bold magenta",
}

COLUMNS = ("name", "source", "verdict", "trials", "bits lost", "what")


def print_verdicts(verdicts: Sequence[Verdict], stream: TextIO | None = None) -> None:
    """Prints a row per verdict."""
    print_table("", COLUMNS, map(_row, verdicts), stream)


def _row(verdict: Verdict) -> tuple[str | Text, ...]:
    return (
        verdict.name,
        verdict.source,
        Text(text.WORDS[verdict.verdict], STYLES[verdict.verdict]),
        f"{verdict.trials:,}" if verdict.trials else "",
        "" if verdict.bits_lost is None else f"{verdict.bits_lost:.1f}",
        text.findings(verdict),
    )


def print_evidence(claim: Claim, verdict: Verdict, stream: TextIO | None = None) -> None:
    """Prints the evidence against a refuted claim."""
    source = f" ({verdict.source})" if verdict.source else ""
    lines = Text()
    lines.append(f"{verdict.name}{source}: ", "bold")
    lines.append(text.WORDS[verdict.verdict], STYLES[verdict.verdict])
    for label, content in evidence(claim, verdict):
        lines.append(f"\n  {label}: ", "dim")
        lines.append(content)
    lines.append("\n")
    console(stream).print(lines)


def evidence(claim: Claim, verdict: Verdict) -> Iterator[tuple[str, str]]:
    """Labels and sentences: the statement, the worst entry, the counterexample, the diagnosis."""
    if claim.statement:
        yield "statement", claim.statement
    if verdict.worst:
        wrong, right = text.difference(verdict.worst.claimed, verdict.worst.true)
        yield text.entry(verdict.kind, verdict.worst), f"claimed {wrong}, true {right}"
    if verdict.counterexample:
        values = [f"{name} = {value}" for name, value in text.arrays(verdict.counterexample.inputs)]
        sizes = text.sizes(verdict.counterexample)
        yield "counterexample", "; ".join([sizes, *values] if sizes else values)
    for finding in verdict.diagnosis:
        where = f" in {finding.where}" if finding.where else ""
        yield "diagnosis", f"{finding.code}{where}: {finding.detail}"
    if verdict.detail:
        yield "note", verdict.detail
