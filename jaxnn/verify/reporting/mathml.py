"""Formulas for a browser: LaTeX as MathML, or not at all."""

import re
from xml.etree import ElementTree

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
