"""Verdicts as JSON and as a self-contained page of HTML, with formulas as MathML."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.resources import files
from xml.etree import ElementTree

from jaxnn.reporting import plain
from jaxnn.verify import text
from jaxnn.verify.claims import Claim, Description, descriptions
from jaxnn.verify.verdict import VERDICTS, Verdict

Entry = tuple[Description, Verdict]


def to_json(verdicts: Iterable[Verdict]) -> str:
    """A list of ``{name, source, kind, verdict, ...}``: every field of every ``Verdict``.

    Arrays are nested lists. NaN and infinity are the strings ``"nan"``, ``"inf"`` and ``"-inf"``.
    """
    entries = plain(list(verdicts), not_finite=str, unknown=str)
    return json.dumps(entries, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def to_html(
    entries: Iterable[tuple[Claim, Verdict]] | Iterable[Entry], title: str = "Verified derivations"
) -> str:
    """A self-contained page: every claim, the verdict and the evidence.

    Args:
      entries: claims with verdicts; corrections follow the corrected claim.
      title: the page's heading.

    Returns:
      HTML with the style inside and formulas as MathML.
    """
    from jinja2 import Environment, StrictUndefined

    given = list(entries)
    described = iter(descriptions([claim for claim, _ in given if isinstance(claim, Claim)]))
    listed = [
        (next(described) if isinstance(claim, Claim) else claim, verdict)
        for claim, verdict in given
    ]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"text": text, "verdicts": VERDICTS}
    environment.filters["mathml"] = mathml
    template = files("jaxnn.verify").joinpath("report.html.jinja").read_text(encoding="utf-8")
    counts = Counter(verdict.verdict for _, verdict in listed)
    return environment.from_string(template).render(
        title=title,
        counts={name: counts[name] for name in VERDICTS if counts[name]},
        groups=_groups(listed),
    )


def _groups(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Every claim in a list with the corrections, in the order of the first members."""
    known: dict[tuple[str, int | None], Description] = {
        (claim.file, claim.place): claim for claim, _ in entries
    }
    found: dict[Description, list[Entry]] = {}
    for entry in entries:
        printed = entry[0]
        for _ in entries:
            printed = known.get((printed.file, printed.corrects), printed)
        found.setdefault(printed, []).append(entry)
    return [
        sorted(group, key=lambda entry, first=first: entry[0] != first)
        for first, group in found.items()
    ]


NAMESPACE = "http://www.w3.org/1998/Math/MathML"

CHILDREN = {
    "mfrac": 2, "msub": 2, "msup": 2, "mover": 2, "munder": 2, "mroot": 2,
    "msubsup": 3, "munderover": 3,
}  # fmt: skip
"""The number of children that an element must have."""


def mathml(statement: str) -> str | None:
    """The statement as a ``math`` element, None if the conversion fails.

    The converter copies or drops unknown commands; hence a result with missing children or LaTeX
    commands counts as failed.
    """
    from latex2mathml.converter import convert

    source = statement.strip().strip("$").strip()
    try:
        converted = convert(source, display="block").replace(f' xmlns="{NAMESPACE}"', "")
        root = ElementTree.fromstring(converted)
    except Exception:  # the converter raises IndexError and more
        return None
    for element in root.iter():
        complete = len(element) == CHILDREN.get(element.tag, len(element))
        if not complete or "\\" in (element.text or ""):
            return None
    for row in list(root.iter()):
        _merge_upright(row)
        _space_functions(row)
    math = ElementTree.tostring(root, encoding="unicode")
    return math.replace("<math", f'<math xmlns="{NAMESPACE}"', 1)


def _merge_upright(row: ElementTree.Element) -> None:
    """Joins upright letters such as those of ``diag``, spaced like factors, to a word."""
    letters = list(row) if row.tag == "mrow" else []
    if len(letters) > 1 and all(
        letter.tag == "mi" and letter.get("mathvariant") == "normal" for letter in letters
    ):
        letters[0].text = "".join(letter.text or "" for letter in letters)
        row[1:] = []


def _space_functions(row: ElementTree.Element) -> None:
    """Sets names of functions like TeX: a thin space before an argument, none before "("."""
    for index, element in reversed(list(enumerate(row, start=1))):
        word = element.text or ""
        if element.tag in ("mo", "mi") and len(word) > 1 and word.isalpha():
            element.tag = "mi"
            if row.tag == "mrow" and index < len(row) and row[index].tag != "mo":
                row.insert(index, ElementTree.Element("mspace", {"width": "0.167em"}))
