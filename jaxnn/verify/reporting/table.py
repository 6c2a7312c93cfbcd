"""What the command line shows: progress, a table of verdicts, the evidence against each claim."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from jaxnn.verify.claims import Claim
from jaxnn.verify.reporting import text
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
NUMERIC = ("trials", "bits lost")


def print_table(verdicts: Sequence[Verdict], stream: TextIO | None = None) -> None:
    """Prints a row per verdict: as wide as it needs, except on a terminal, where it wraps."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in COLUMNS:
        right = column in NUMERIC
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for verdict in verdicts:
        bits = "" if verdict.bits_lost is None else f"{verdict.bits_lost:.1f}"
        trials = f"{verdict.trials:,}" if verdict.trials else ""
        table.add_row(
            Text(verdict.name),
            Text(verdict.source),
            Text(text.WORDS[verdict.verdict], STYLES[verdict.verdict]),
            trials,
            bits,
            Text(text.findings(verdict)),
        )
    _console(stream).print(table)


def print_evidence(claimed: Claim, verdict: Verdict, stream: TextIO | None = None) -> None:
    """Prints what speaks against a refuted claim."""
    source = f" ({verdict.source})" if verdict.source else ""
    lines = Text()
    lines.append(f"{verdict.name}{source}: ", "bold")
    lines.append(text.WORDS[verdict.verdict], STYLES[verdict.verdict])
    for label, content in evidence(claimed, verdict):
        lines.append(f"\n  {label}: ", "dim")
        lines.append(content)
    lines.append("\n")
    _console(stream).print(lines)


def evidence(claimed: Claim, verdict: Verdict) -> Iterator[tuple[str, str]]:
    """Labels and sentences: the statement, the worst entry, the counterexample, the diagnosis."""
    if claimed.statement:
        yield "statement", claimed.statement
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


@contextmanager
def progress(stream: TextIO | None = None) -> Iterator[Callable[[int, int, Verdict], None]]:
    """Shows how many claims are judged: a bar with the time left, or a few lines if no terminal.

    Args:
      stream: default: standard error.

    Yields:
      A callable (done, total, verdict).
    """
    output = stream or sys.stderr
    if not output.isatty():
        yield Lines(output)
        return
    bar = Progress(
        TextColumn("verifying"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(file=output),
        transient=True,
    )
    with bar:
        shown = bar.add_task("", total=None)
        yield lambda done, total, verdict: bar.update(
            shown, completed=done, total=total, description=verdict.name
        )


class Lines:
    """Prints a line whenever another tenth is done, and at most one a second."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic):
        self._stream = stream
        self._clock = clock
        self._began = self._printed = clock()
        self._tenths = 0

    def __call__(self, done: int, total: int, verdict: Verdict) -> None:
        """Takes a report, and prints it if it is time to."""
        now = self._clock()
        if 10 * done // total <= self._tenths or now - self._printed < 1:
            return
        self._tenths, self._printed = 10 * done // total, now
        left = (now - self._began) * (total - done) / done
        ending = f", about {left:.0f} s left" if done < total else ""
        print(f"verified {done} of {total}{ending}", file=self._stream, flush=True)


def _console(stream: TextIO | None) -> Console:
    output = stream or sys.stdout
    return Console(
        file=output, width=None if output.isatty() else 10_000, highlight=False, soft_wrap=False
    )
