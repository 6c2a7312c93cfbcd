"""Verdicts and evidence in words and short decimals, for a terminal and for a report."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

import jax
import numpy as np

from jaxnn.reporting import console, print_table, printable
from jaxnn.types import PyTree
from jaxnn.verify.claims import Claim, Description
from jaxnn.verify.verdict import (
    HOLDS_UP_TO_LAYOUT,
    VERDICTS,
    Certificate,
    Counterexample,
    Verdict,
    Worst,
)

if TYPE_CHECKING:
    from rich.text import Text

KINDS = {
    "gradient": "gradient by",
    "jacobian": "Jacobian by",
    "hessian": "Hessian by",
    "update": "update of",
    "value": "value",
    "vjp": "vjp by",
}

COLUMNS = ("name", "source", "verdict", "trials", "bits lost", "what")

CERTIFIED = (
    "Formula and function are also equal in random towers of finite fields, which obey the laws of "
    "fields, exponentials, logarithms and roots; a false formula passes with a probability below "
    "2^-100, at the sizes and on the sign patterns noted."
)
"""The meaning of a certificate."""

MAX_INPUT = 60  # characters of an input in a table; the evidence has the whole input

MAX_ENTRIES = 64  # of an array; counterexamples are shrunk, only the sizes can make an array larger


def print_verdicts(verdicts: Sequence[Verdict], stream: TextIO | None = None) -> None:
    """Prints a row per verdict, refuted claims first; verdicts of several files with the file."""
    several = len({verdict.file for verdict in verdicts}) > 1
    rows = [
        (
            *([verdict.file] if several else []),
            verdict.name if verdict.kind else "",
            verdict.source,
            _styled(verdict),
            f"{verdict.trials:,}" if verdict.trials else "",
            "" if verdict.bits_lost is None else f"{verdict.bits_lost:.1f}",
            findings(verdict),
        )
        for verdict in sorted(verdicts, key=lambda verdict: verdict.rank)
    ]
    print_table("", (*(["file"] if several else []), *COLUMNS), rows, stream)


def print_evidence(
    claim: Claim | Description, verdict: Verdict, stream: TextIO | None = None, file: str = ""
) -> None:
    """Prints the evidence: the counterexample, or the input at which the claim is unstable."""
    from rich.text import Text

    output = console(stream)
    shown = partial(printable, encoding=output.encoding)
    file, source = file and f"{file}, ", f" ({verdict.source})" if verdict.source else ""
    lines = Text.assemble((shown(f"{file}{verdict.name}{source}: "), "bold"), _styled(verdict))
    for label, content in evidence(claim, verdict):
        lines.append(f"\n  {shown(label)}: ", "dim").append(shown(content))
    output.print(lines.append("\n"))


def _styled(verdict: Verdict) -> "Text":
    from rich.text import Text

    return Text(verdict.words, VERDICTS[verdict.verdict].style)


def evidence(claim: Claim | Description, verdict: Verdict) -> Iterator[tuple[str, str]]:
    """Labels and sentences: the statement, the worst entry, the counterexample, the diagnosis."""
    if claim.statement:
        yield "statement", claim.statement
    if verdict.worst:
        wrong, right = difference(verdict.worst.claimed, verdict.worst.true)
        known = f"; {proof(verdict.worst)}" if verdict.verdict == "refuted" else ""
        yield entry(verdict.kind, verdict.worst), f"claimed {wrong}, true {right}{known}"
    if verdict.counterexample:
        label = "counterexample" if verdict.verdict == "refuted" else "at the input"
        yield label, example(verdict.counterexample)
    for finding in verdict.diagnosis:
        where = f" in {finding.where}" if finding.where else ""
        yield "diagnosis", f"{finding.code}{where}: {finding.detail}"
    if verdict.detail:
        yield "note", verdict.detail
    if verdict.certificate or verdict.uncertified:
        yield "certificate", certificate(verdict)


def certificate(verdict: Verdict) -> str:
    """The certificate, or the reason for none: ``for all inputs, sizes n = 3, ...``."""
    found = verdict.certificate
    if not found:
        return f"none: {verdict.uncertified}"
    inputs = f"on {found.patterns} sign patterns" if found.patterns else "for all inputs"
    given = f", sizes {sizes(found)}" if found.sizes else ""
    return f"{inputs}{given}, in {found.towers} random towers of fields, error below 2^-100"


def findings(verdict: Verdict) -> str:
    """The remarkable in a few words: codes with places, the layout, the error."""
    if verdict.diagnosis and (verdict.verdict == "refuted" or not verdict.detail):
        named = [f"{f.code} ({f.where})" if f.where else f.code for f in verdict.diagnosis]
        return ", ".join(named)
    if verdict.verdict == "kink" and verdict.worst and verdict.worst.one_sided:
        left, right = map(number, verdict.worst.one_sided)
        where = entry(verdict.kind, verdict.worst)
        return f"{where}: {left} from the left, {right} from the right"
    if verdict.verdict in HOLDS_UP_TO_LAYOUT and verdict.counterexample:
        at = example(verdict.counterexample)
        return f"{verdict.detail}, at {at if len(at) <= MAX_INPUT else at[:MAX_INPUT] + ' ...'}"
    return verdict.detail or (verdict.uncertified and f"not certified: {verdict.uncertified}")


def entry(kind: str, worst: Worst) -> str:
    """The entry of the derivative: ``gradient by z, entry [1]``."""
    what = worst.where if kind == "value" else f"{KINDS[kind]} {worst.where}"
    return what + (f", entry {list(worst.index)}" if worst.index else "")


def example(counterexample: Counterexample) -> str:
    """The sizes and the inputs in one line: ``n = 1; x = [40]``."""
    values = [f"{name} = {value}" for name, value in arrays(counterexample.inputs)]
    return "; ".join(filter(None, [sizes(counterexample), *values]))


def sizes(evidence: Counterexample | Certificate) -> str:
    """The sizes of a counterexample or certificate: ``n = 3, C = 2``."""
    return ", ".join(f"{name} = {size}" for name, size in evidence.sizes.items())


def arrays(inputs: Mapping[str, PyTree]) -> Iterator[tuple[str, str]]:
    """Every array of the inputs under its path: ``params[0].weight`` and ``[[1, 0]]``."""
    for name, tree in inputs.items():
        for path, value in jax.tree.flatten_with_path(tree)[0]:
            yield name + jax.tree_util.keystr(path), array(value)


def array(value: Any) -> str:
    """An array as nested lists of short decimals: ``[[1, 0], [0.5, -2]]``."""
    value = np.asarray(value)
    if value.size > MAX_ENTRIES:
        shape = " x ".join(map(str, value.shape))
        return f"{shape} numbers from {number(value.min())} to {number(value.max())}"
    return "[" + ", ".join(map(array, value)) + "]" if value.ndim else number(value.item())


def proof(worst: Worst) -> str:
    """How certain a refutation is: a bound of |claimed - true| that enclosures prove, or trials."""
    if not worst.at_least:
        return "by float64"
    return f"proved: they differ by at least {worst.at_least:.3g}"


def difference(claimed: float, true: float) -> tuple[str, str]:
    """Two unequal numbers with enough digits to differ."""
    pairs = [(number(claimed, digits), number(true, digits)) for digits in range(6, 18)]
    return next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])


def number(value: float, digits: int = 6) -> str:
    """A number, shortened: ``0.5``, ``-2``, ``1e-08``, ``inf``."""
    value = float(value)
    if value == 0 or not np.isfinite(value):
        return f"{abs(value) if value == 0 else value:g}"
    if 1e-4 <= abs(value) < 1e7:
        return np.format_float_positional(
            value, precision=digits, unique=True, fractional=False, trim="-"
        )
    return np.format_float_scientific(value, precision=digits - 1, unique=True, trim="-")
