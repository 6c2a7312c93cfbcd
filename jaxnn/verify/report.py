"""Verdicts as JSON, and as one page of HTML that needs nothing else to be read."""

import inspect
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import NamedTuple
from xml.etree import ElementTree

from jaxnn.reporting import plain
from jaxnn.verify import text
from jaxnn.verify.claims import Claim
from jaxnn.verify.verdict import VERDICTS, Verdict

Entry = tuple[Claim, Verdict]

SYMBOLS = {
    "holds": "✓",
    "holds_unstable": "≈",
    "holds_other_layout": "⇄",
    "refuted": "✗",
    "kink": "∠",
    "error": "!",
}


def to_json(verdicts: Iterable[Verdict]) -> str:
    """A list of ``{name, source, kind, verdict, ...}``: the fields of a ``Verdict``, all evidence.

    Arrays are nested lists. NaN and infinity, for which JSON has no numbers, are the strings
    ``"nan"``, ``"inf"`` and ``"-inf"``.
    """
    entries = plain(list(verdicts), not_finite=str, unknown=str)
    return json.dumps(entries, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


class Card(NamedTuple):
    """What the page shows of one claim."""

    role: str  # "as printed", "corrected", or "" for a claim that stands alone
    anchor: str  # the identifier within the page
    claimed: Claim
    function: str  # the name of what the claim is about
    verdict: Verdict
    formula: str | None  # MathML
    paragraphs: list[str]  # of the docstring
    worst: tuple[str, str, str] | None  # entry, claimed, true
    inputs: list[tuple[str, str]]  # of the counterexample


def to_html(entries: Iterable[Entry], title: str = "Verified derivations") -> str:
    """One self-contained page: every claim, its verdict, and what speaks against it.

    Args:
      entries: claims with their verdicts; a claim that corrects another is shown below it.
      title: the page's heading.

    Returns:
      HTML with its style inside and formulas as MathML.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    listed = list(entries)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"text": text, "symbols": SYMBOLS, "markup": Markup}
    template = files("jaxnn.verify").joinpath("report.html.jinja").read_text(encoding="utf-8")
    counts = Counter(verdict.verdict for _, verdict in listed)
    return environment.from_string(template).render(
        title=title,
        total=len(listed),
        counts=[(name, counts[name]) for name in VERDICTS if counts[name]],
        groups=[_cards(group, number) for number, group in enumerate(groups(listed), 1)],
    )


def groups(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Every claim with those that correct it, in the order of the first of each."""
    known = {id(claimed) for claimed, _ in entries}
    found: dict[int, list[Entry]] = {}
    for entry in entries:
        printed = entry[0]
        while printed.corrects is not None and id(printed.corrects) in known:
            printed = printed.corrects
        found.setdefault(id(printed), []).append(entry)
    return [
        sorted(group, key=lambda entry, first=first: id(entry[0]) != first)
        for first, group in found.items()
    ]


def _cards(group: Sequence[Entry], number: int) -> list[Card]:
    anchors = [f"claim-{number}" + (f"-{i}" if i else "") for i in range(len(group))]
    return [
        _card(claimed, verdict, anchor, len(group) > 1)
        for anchor, (claimed, verdict) in zip(anchors, group, strict=True)
    ]


def _card(claimed: Claim, verdict: Verdict, anchor: str, paired: bool) -> Card:
    corrected = "corrected" if claimed.corrects is not None else "as printed"
    wrong = verdict.worst
    evidence = verdict.counterexample
    return Card(
        role=corrected if paired else "",
        anchor=anchor,
        claimed=claimed,
        function=getattr(claimed.of, "__name__", "a function"),
        verdict=verdict,
        formula=mathml(claimed.statement),
        paragraphs=_paragraphs(claimed),
        worst=wrong
        and (text.entry(verdict.kind, wrong), *text.difference(wrong.claimed, wrong.true)),
        inputs=list(text.arrays(evidence.inputs)) if evidence else [],
    )


def _paragraphs(claimed: Claim) -> list[str]:
    docstring = inspect.getdoc(claimed.formula) or ""
    return [" ".join(part.split()) for part in docstring.split("\n\n") if part.strip()]


NAMESPACE = "http://www.w3.org/1998/Math/MathML"

CHILDREN = {
    "mfrac": 2, "msub": 2, "msup": 2, "mover": 2, "munder": 2, "mroot": 2,
    "msubsup": 3, "munderover": 3,
}  # fmt: skip
"""How many children an element must have."""


def mathml(statement: str) -> str | None:
    """The statement as a ``math`` element, None if it cannot be converted.

    What the converter does not know it passes on as it stands, or leaves out; neither belongs on a
    page, so the result must be well-formed, complete and free of LaTeX commands.
    """
    from latex2mathml.converter import convert

    source = statement.strip().strip("$").strip()
    try:
        converted = convert(source, display="block")
        root = ElementTree.fromstring(converted)
    except Exception:  # the converter's own errors, and IndexError and others from within it
        return None
    for element in root.iter():
        expected = CHILDREN.get(_name(element))
        if expected is not None and len(element) != expected:
            return None
        if "\\" in (element.text or ""):
            return None
    _merge_upright(root)
    _space_functions(root)
    ElementTree.register_namespace("", NAMESPACE)
    return ElementTree.tostring(root, encoding="unicode")


def _merge_upright(root: ElementTree.Element) -> None:
    """Makes one upright word of the letters of ``diag``, which are spaced as factors."""
    for row in list(root.iter(f"{{{NAMESPACE}}}mrow")):
        letters = list(row)
        if len(letters) > 1 and all(
            _name(letter) == "mi" and letter.get("mathvariant") == "normal" for letter in letters
        ):
            letters[0].text = "".join(letter.text or "" for letter in letters)
            for letter in letters[1:]:
                row.remove(letter)


def _space_functions(root: ElementTree.Element) -> None:
    """Sets the names of functions as TeX does: a thin space before an argument, none before "("."""
    for row in list(root.iter()):
        for index, element in reversed(list(enumerate(row))):
            word = element.text or ""
            if _name(element) not in ("mo", "mi") or len(word) < 2 or not word.isalpha():
                continue
            element.tag = f"{{{NAMESPACE}}}mi"
            if _name(row) == "mrow" and index + 1 < len(row) and _name(row[index + 1]) != "mo":
                thin = ElementTree.Element(f"{{{NAMESPACE}}}mspace", {"width": "0.167em"})
                row.insert(index + 1, thin)


def _name(element: ElementTree.Element) -> str:
    return re.sub(r"\{.*\}", "", str(element.tag))
