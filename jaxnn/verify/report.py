"""Verdicts and evidence in words: for a terminal, as JSON, and as a self-contained page of HTML."""

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import jax
import numpy as np

from jaxnn.reporting import console, plain, print_table, printable, registered_html
from jaxnn.types import PyTree
from jaxnn.verify.claims import Claim, Description, descriptions
from jaxnn.verify.inputs import is_input
from jaxnn.verify.verdict import (
    HOLDS_UP_TO_LAYOUT,
    STEPS,
    VERDICTS,
    Certificate,
    Counterexample,
    DerivationVerdict,
    Sampling,
    Statement,
    Verdict,
    Worst,
    broken,
    rounded_up,
)

if TYPE_CHECKING:
    from jinja2 import Template
    from rich.text import Text

    from jaxnn.display import Child
    from jaxnn.verify.derivations import Derivation

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


def print_verdicts(
    verdicts: Sequence[Verdict | DerivationVerdict], stream: TextIO | None = None
) -> None:
    """Prints a row per verdict and line, refuted claims first, the lines of a derivation together.

    Verdicts of several files have the file's name.
    """
    judged = ordered([(verdict.name, line) for verdict in verdicts for line in lines(verdict)])
    several = len({verdict.file for verdict in verdicts}) > 1
    table = [
        (
            *([verdict.file] if several else []),
            verdict.name if verdict.kind else "",
            verdict.source,
            _styled(verdict),
            f"{verdict.trials:,}" if verdict.trials else "",
            "" if verdict.bits_lost is None else f"{verdict.bits_lost:.1f}",
            findings(verdict),
        )
        for _, verdict in judged
    ]
    print_table("", (*(["file"] if several else []), *COLUMNS), table, stream)


def lines(verdict: Verdict | DerivationVerdict) -> tuple[Verdict, ...]:
    """The verdicts on the lines of a derivation, with its file; the verdict on a claim alone."""
    if isinstance(verdict, Verdict):
        return (verdict,)
    return tuple(line._replace(file=verdict.file) for line in verdict.lines)


T = TypeVar("T")


def ordered(entries: Sequence[tuple[T, Verdict]]) -> list[tuple[T, Verdict]]:
    """Entries with verdicts, refuted claims first; the lines of a derivation stay together."""
    ranks: dict[object, int] = {}
    for _, verdict in entries:
        key = _derivation(verdict)
        ranks[key] = min(verdict.rank, ranks.get(key, verdict.rank))
    return sorted(entries, key=lambda entry: ranks.get(_derivation(entry[1]), 0))


def _derivation(verdict: Verdict) -> object:
    """Equal for the verdicts on the lines of a derivation, otherwise the verdict's own."""
    return (verdict.file, verdict.step.derivation) if verdict.step else id(verdict)


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
    if verdict.statement and verdict.statement.outcome != "agrees":
        yield "statement and formula", agreement(verdict.statement)
    if verdict.worst:
        wrong, right = difference(verdict.worst.claimed, verdict.worst.true)
        known = f"; {proof(verdict)}" if verdict.verdict == "refuted" else ""
        yield entry(verdict.kind, verdict.worst), f"claimed {wrong}, true {right}{known}"
    if verdict.counterexample:
        label = "counterexample" if verdict.verdict == "refuted" else "at the input"
        yield label, example(verdict.counterexample)
    if verdict.step:
        yield "step", step(verdict)
    for finding in verdict.diagnosis:
        where = f" in {finding.where}" if finding.where else ""
        yield "diagnosis", f"{finding.code}{where}: {finding.detail}"
    if verdict.convention:
        yield "convention", verdict.convention
    if verdict.detail:
        yield "note", verdict.detail
    if verdict.black_box:
        yield "formula", verdict.black_box
    if verdict.certificate or verdict.uncertified:
        yield "certificate", certificate(verdict)
    if verdict.sampling:
        yield "samples", samples(verdict.sampling)


def agreement(statement: Statement) -> str:
    """Whether the statement says what the formula computes: ``agrees``, ``differs: ...``."""
    return ": ".join(filter(None, statement))


def certificate(verdict: Verdict) -> str:
    """The certificate, or the reason for none: ``for all inputs, sizes n = 3, ...``."""
    found = verdict.certificate
    if not found:
        return f"none: {verdict.uncertified}"
    inputs = f"on {found.patterns} sign patterns" if found.patterns else "for all inputs"
    given = f", sizes {sizes(found)}" if found.sizes else ""
    return f"{inputs}{given}, in {found.towers} random towers of fields, error below 2^-100"


def step(verdict: Verdict) -> str:
    """How a line of a derivation stands to the lines before: ``does not follow from line 2``."""
    if verdict.step is None:
        return ""
    words, after = STEPS[verdict.step.outcome], " and ".join(map(str, verdict.step.after))
    named = f"line{'s' * (len(verdict.step.after) > 1)} {after}" if after else "the function"
    case = f"for {verdict.step.case}: " if verdict.step.case else ""
    return f"{case}{words}{' after' if verdict.step.outcome == 'repair' else ' from'} {named}"


def summary(lines: Sequence[Verdict]) -> str:
    """The first line that does not follow, the line that repairs, and unstable lines."""
    wrong, repaired = broken(lines)
    unstable = [str(n) for n, line in enumerate(lines, start=1) if "unstable" in line.verdict]
    said = [f"line {wrong} {findings(lines[wrong - 1])}"] if wrong else []
    said += [f"line {repaired} is right again"] if repaired else []
    said += [f"right but unstable: line{'s' * (len(unstable) > 1)} {', '.join(unstable)}"] * any(
        unstable
    )
    return "; ".join(said)


def findings(verdict: Verdict) -> str:
    """The remarkable in a few words: a line's step, codes with places, the layout, the error."""
    found = _findings(verdict)
    if verdict.step and verdict.step.outcome != "follows":
        return ": ".join(filter(None, (step(verdict), found)))
    return found


def _findings(verdict: Verdict) -> str:
    """Codes with places, the layout, the error."""
    if verdict.diagnosis and (verdict.verdict == "refuted" or not verdict.detail):
        named = [f"{f.code} ({f.where})" if f.where else f.code for f in verdict.diagnosis]
        return ", ".join(named)
    if verdict.verdict == "kink" and verdict.worst and verdict.worst.one_sided:
        left, right = map(number, verdict.worst.one_sided)
        where = entry(verdict.kind, verdict.worst)
        return f"{where}: {left} from the left, {right} from the right"
    if verdict.verdict == "misstated" and verdict.statement:
        return verdict.statement.detail
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


def proof(verdict: Verdict) -> str:
    """How certain a refutation is: a bound of |claimed - true|, proved or by samples, or none."""
    if not verdict.worst or not verdict.worst.at_least:
        return "by float64"
    bound = f"they differ by at least {verdict.worst.at_least:.3g}"
    return f"by samples: {bound}" if verdict.sampling else f"proved: {bound}"


def samples(found: Sampling) -> str:
    """How far samples decide a claim: number, the difference left, error, assumption."""
    small = ", too small a value to tell from 0" if found.of == "samples" else ""
    return (
        f"{found.samples:,} at each of {found.inputs} inputs; the difference left is at most "
        f"{rounded_up(found.left)} times the size of the {found.of}{small}; wrong with a "
        f"probability of {found.error:g} at most, if {found.assumption}"
    )


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


# Notebooks


@registered_html.register
def verdict_html(verdict: Verdict) -> str:
    """A verdict in a notebook: the formula, the evidence, the code of the formula."""
    from jaxnn import display

    return display.html(*_elements(verdict, verdict.name, verdict.source))


@registered_html.register
def derivation_html(verdict: DerivationVerdict) -> str:
    """The verdict on a derivation in a notebook: every line with the formula and the step."""
    from jaxnn import display

    wording, found = VERDICTS[verdict.verdict], summary(verdict.lines)
    words = f"{wording.symbol} {wording.words}"
    shown = [display.heading(verdict.name, words, wording.style, verdict.source)]
    shown += [display.remark(found)] if found else []
    for number, line in enumerate(verdict.lines, start=1):
        shown += _elements(line, f"line {number}", step(line))
    return display.html(*shown)


def _elements(verdict: Verdict, title: str, about: str) -> "list[Child]":
    """The parts of a verdict in a notebook."""
    from jaxnn import display

    wording, found = VERDICTS[verdict.verdict], [*evidence(Description(verdict.name), verdict)]
    if verdict.trials:
        lost = "" if verdict.bits_lost is None else f", {verdict.bits_lost:.1f} of 53 bits lost"
        found.append(("trials", f"{verdict.trials:,} random inputs{lost}"))
    return [
        display.heading(title, f"{wording.symbol} {verdict.words}", wording.style, about),
        display.formula(verdict.latex),
        display.facts((label, text) for label, text in found if text != about),
        display.code("Code of the formula", verdict.code),
    ]


@registered_html.register
def claim_html(claim: Claim) -> str:
    """A claim in a notebook: the formula, the inputs, the code."""
    from jaxnn import display

    (described,) = descriptions([claim])
    about = f"{KINDS[claim.kind]} {', '.join(claim.wrt)}".strip() + f" of {described.function}"
    inputs = [
        (name + jax.tree_util.keystr(path), f"{leaf.kind} [{', '.join(map(str, leaf.shape))}]")
        for name, tree in claim.inputs.items()
        for path, leaf in jax.tree.flatten_with_path(tree, is_leaf=is_input)[0]
    ]
    return display.html(
        display.heading(claim.name, about=f"claim: {about} {claim.source}"),
        display.formula(claim.statement),
        display.facts(inputs),
        display.code("Code of the formula", described.formula_code),
        display.code("Code of the objective", described.function_code),
    )


# Files


Entry = tuple[Description, Verdict]


def rows(claim: Description, verdict: Verdict | DerivationVerdict) -> list[Entry]:
    """A claim with the verdict, or every line of a derivation with the line's verdict."""
    if isinstance(verdict, Verdict):
        return [(claim, verdict)]
    named = (line._replace(file=claim.file) for line in claim.lines)
    return list(zip(named, lines(verdict), strict=True))


def to_json(verdicts: Iterable[Verdict | DerivationVerdict]) -> str:
    """A list of ``{name, source, kind, verdict, ...}``: every field of every verdict.

    The verdict on a derivation has the verdicts on the lines in ``lines``.

    Arrays are nested lists. NaN and infinity are the strings ``"nan"``, ``"inf"`` and ``"-inf"``.
    Control characters are JSON's escapes.
    """
    entries = plain(list(verdicts), not_finite=str, unknown=str)
    content = json.dumps(entries, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in content)


def to_html(
    entries: "Iterable[tuple[Claim | Derivation | Description, Verdict | DerivationVerdict]]",
    title: str = "Verified derivations",
) -> str:
    """A self-contained page: every claim, the verdict and the evidence.

    Args:
      entries: claims and derivations with verdicts; corrections follow the corrected claim.
      title: the page's heading.

    Returns:
      HTML with the style inside and formulas as MathML; a browser runs no script of the page, and
      asks no server for anything.
    """
    given = list(entries)
    made = [claim for claim, _ in given if not isinstance(claim, Description)]
    described = iter(descriptions(made))
    listed = [
        row
        for claim, verdict in given
        for row in rows(claim if isinstance(claim, Description) else next(described), verdict)
    ]
    counts = Counter(verdict.verdict for _, verdict in listed)
    return _template().render(
        title=title,
        counts={name: counts[name] for name in VERDICTS if counts[name]},
        groups=_groups(listed),
        several=len({claim.file for claim, _ in listed}) > 1,
        certified=CERTIFIED if any(verdict.certificate for _, verdict in listed) else "",
    )


@cache
def _template() -> "Template":
    """The page without claims; every text of a claim is escaped."""
    from jinja2 import Environment, StrictUndefined

    from jaxnn import display

    environment = Environment(
        autoescape=True,
        finalize=_literal,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (
        agreement,
        arrays, certificate, difference, entry, number, proof, samples, sizes, step, summary
    )  # fmt: skip
    environment.globals |= {function.__name__: function for function in words}
    environment.globals |= {"kinds": KINDS, "verdicts": VERDICTS}
    environment.filters |= {"mathml": display.mathml, "digest": _digest}
    template = files("jaxnn.verify").joinpath("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template)


def _literal(value: object) -> object:
    """The text of a claim without control characters; the markup of the template's macros."""
    from markupsafe import Markup

    return value if type(value) is Markup else printable(value, keep="\n\t")


def _digest(style: str) -> str:
    """The digest by which the page's policy allows the page's style, and no other."""
    return b64encode(sha256(style.encode()).digest()).decode()


def _groups(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Every claim in a list with the corrections: refuted claims first, then errors."""
    known: dict[tuple[str, int | None], Description] = {
        (claim.file, claim.place): claim for claim, _ in entries
    }
    found: dict[object, list[Entry]] = {}
    for entry in entries:
        printed = entry[0]
        for _ in entries:
            printed = known.get((printed.file, printed.corrects), printed)
        found.setdefault(_derivation(entry[1]) if entry[1].step else printed, []).append(entry)
    groups = [
        group
        if group[0][1].step
        else sorted(group, key=lambda entry, first=first: entry[0] != first)
        for first, group in found.items()
    ]
    return sorted(groups, key=lambda group: min(verdict.rank for _, verdict in group))
