"""Verdicts as JSON and as a self-contained page of HTML, with formulas as MathML."""

import json
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from jaxnn.reporting import plain, printable
from jaxnn.verify import text
from jaxnn.verify.claims import Claim, Description, descriptions
from jaxnn.verify.verdict import VERDICTS, Verdict

if TYPE_CHECKING:
    from jinja2 import Template

Entry = tuple[Description, Verdict]


def to_json(verdicts: Iterable[Verdict]) -> str:
    """A list of ``{name, source, kind, verdict, ...}``: every field of every ``Verdict``.

    Arrays are nested lists. NaN and infinity are the strings ``"nan"``, ``"inf"`` and ``"-inf"``.
    Control characters are JSON's escapes.
    """
    entries = plain(list(verdicts), not_finite=str, unknown=str)
    content = json.dumps(entries, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in content)


def to_html(
    entries: Iterable[tuple[Claim, Verdict]] | Iterable[Entry], title: str = "Verified derivations"
) -> str:
    """A self-contained page: every claim, the verdict and the evidence.

    Args:
      entries: claims with verdicts; corrections follow the corrected claim.
      title: the page's heading.

    Returns:
      HTML with the style inside and formulas as MathML; a browser runs no script of the page, and
      asks no server for anything.
    """
    given = list(entries)
    described = iter(descriptions([claim for claim, _ in given if isinstance(claim, Claim)]))
    listed = [
        (next(described) if isinstance(claim, Claim) else claim, verdict)
        for claim, verdict in given
    ]
    counts = Counter(verdict.verdict for _, verdict in listed)
    return _template().render(
        title=title,
        counts={name: counts[name] for name in VERDICTS if counts[name]},
        groups=_groups(listed),
        several=len({claim.file for claim, _ in listed}) > 1,
        certified=any(verdict.certificate for _, verdict in listed),
    )


@cache
def _template() -> "Template":
    """The page without claims; every text of a claim is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True,
        finalize=_literal,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"text": text, "verdicts": VERDICTS}
    environment.filters |= {"mathml": mathml, "digest": _digest}
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
    found: dict[Description, list[Entry]] = {}
    for entry in entries:
        printed = entry[0]
        for _ in entries:
            printed = known.get((printed.file, printed.corrects), printed)
        found.setdefault(printed, []).append(entry)
    groups = [
        sorted(group, key=lambda entry, first=first: entry[0] != first)
        for first, group in found.items()
    ]
    return sorted(groups, key=lambda group: min(verdict.rank for _, verdict in group))


NAMESPACE = "http://www.w3.org/1998/Math/MathML"

ELEMENTS = {
    "math": None, "mi": None, "mn": None, "mo": None, "mtext": None, "mspace": None, "mrow": None,
    "mstyle": None, "mpadded": None, "mphantom": None, "msqrt": None, "mtable": None, "mtr": None,
    "mtd": None, "mfrac": 2, "msub": 2, "msup": 2, "mover": 2, "munder": 2, "mroot": 2,
    "msubsup": 3, "munderover": 3,
}  # fmt: skip
"""The elements of a formula, with the number of children that an element must have."""

ATTRIBUTES = {
    "accent", "columnalign", "columnlines", "columnspacing", "depth", "display", "displaystyle",
    "fence", "form", "height", "largeop", "linebreak", "linethickness", "lspace", "mathsize",
    "mathvariant", "maxsize", "minsize", "movablelimits", "rowlines", "rowspacing", "rspace",
    "scriptlevel", "separator", "stretchy", "voffset", "width", "xmlns",
}  # fmt: skip
"""The attributes of a formula: no address, no style, no colour, in which text could hide."""

VALUE = re.compile(rf"{NAMESPACE}|[+-]?[0-9]{{0,2}}(\.[0-9]+)?[a-z%-]*")
"""A value of an attribute: a word, or a length below 100 units."""

LONGEST = 5_000
"""Characters of the longest statement that is converted; the converter's time grows faster."""

REFUSED = re.compile(r"&#|\\def|\\new|&\s*\\end")
"""What the converter gets wrong: entities, which become characters; macros, which can double for
ever; a last cell without content, which takes the row along."""


def mathml(statement: str) -> str | None:
    """The statement as a ``math`` element, None if the conversion fails.

    The converter copies text, unknown commands, links and styles. Hence text stays text, and a
    result with other elements or attributes than the above, with missing children or with LaTeX
    commands counts as failed.
    """
    from latex2mathml.converter import convert_to_element

    source = statement.strip().strip("$").strip()
    if len(source) > LONGEST or REFUSED.search(source):
        return None
    try:
        root = convert_to_element(source, display="block")
        for element in root.iter():
            element.text = _characters(element.text or "")
    except Exception:  # the converter raises IndexError and more
        return None
    if not all(map(_is_plain, root.iter())):
        return None
    for row in list(root.iter()):
        _merge_upright(row)
        _space_functions(row)
    return ElementTree.tostring(root, encoding="unicode")


def _characters(text: str) -> str:
    """The text with the converter's entities, such as ``&#x2207;``, as characters."""
    return printable(re.sub("&#x([0-9A-Fa-f]+);", lambda found: chr(int(found[1], 16)), text))


def _is_plain(element: ElementTree.Element) -> bool:
    """Whether a formula may have this element."""
    return (
        element.tag in ELEMENTS
        and len(element) == (ELEMENTS[element.tag] or len(element))
        and ATTRIBUTES.issuperset(element.keys())
        and all(VALUE.fullmatch(word) for _, value in element.items() for word in value.split(" "))
        and "\\" not in (element.text or "")
    )


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
