"""HTML for notebooks: text stays text, tables sort without a script, figures are inside.

HTML is built as a tree of elements: no text of a user can become markup. Colours come from the
notebook's theme. Jupyter, marimo and nbconvert show everything; where a style is refused, as in
an untrusted notebook, a plain table is left.
"""

import re
import sys
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from jaxnn.files import printable
from jaxnn.types import is_installed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 50
"""Rows of the longest table: a notebook keeps every output."""

TONES = {
    "red": "#c0392b", "green": "#1e8449", "yellow": "#96690b", "cyan": "#2471a3",
    "magenta": "#8e44ad",
}  # fmt: skip
"""Colours by the names that rich uses, readable on white and on black."""

_STYLE = """
.jaxnn { font-size: .9em; line-height: 1.5; max-width: 80em; overflow-wrap: break-word; }
.jaxnn p { margin: 0; }
.jaxnn .head:not(:first-of-type) { margin-top: .8em; }
.jaxnn .head { display: flex; flex-wrap: wrap; gap: 0 1em; align-items: baseline; }
.jaxnn .title, .jaxnn .tone { font-weight: 600; }
.jaxnn .title { font-size: 1.1em; }
.jaxnn .soft, .jaxnn summary { opacity: .7; font-weight: 400; }
.jaxnn math, .jaxnn .formula > code { display: block; width: max-content; margin: .5em 0; }
.jaxnn math { font-size: 1.2em; text-align: left; }
.jaxnn mtd { text-align: inherit; padding: .2em .4em; border: 0; }
.jaxnn .formula { overflow-x: auto; }
.jaxnn .facts { display: grid; grid-template-columns: max-content minmax(0, 1fr);
  gap: .1em 1.2em; white-space: pre-wrap; }
.jaxnn pre { margin: .3em 0; padding: .5em .8em; overflow-x: auto; background: #8881; }
.jaxnn summary { cursor: pointer; width: max-content; }
.jaxnn img { display: inline-block; max-width: 100%; margin: .5em 1em .5em 0; }
.jaxnn progress { width: 24em; max-width: 100%; }
.jaxnn form { max-height: 26em; overflow: auto; margin: .5em 0; }
.jaxnn form table { display: grid; width: max-content; margin: 0; border: 0; font-size: .95em;
  grid-template-columns: repeat(var(--columns), auto); }
.jaxnn form :is(thead, tbody, tr) { display: contents; }
.jaxnn.jaxnn form :is(th, td) { padding: .1em .9em .1em 0; border: 0; text-align: left;
  border-bottom: 1px solid #8884; white-space: nowrap; background: none; }
.jaxnn.jaxnn form th { order: -1000000; position: sticky; top: 0; font-weight: 600;
  background: var(--jp-layout-color0, Canvas); }
.jaxnn.jaxnn form .number { text-align: right; font-variant-numeric: tabular-nums; }
.jaxnn.jaxnn form .chosen { font-weight: 600; }
.jaxnn form label { display: inline !important; cursor: pointer; opacity: .4; margin: 0; }
.jaxnn form label:is(:hover, :focus-within, :has(:checked)) { opacity: 1; }
.jaxnn form input { position: absolute; opacity: 0; margin: 0; width: 1px; height: 1px; }
"""


Child = Element | str | None


def element(tag: str, *children: Child, **attributes: str) -> Element:
    """An element of HTML around texts and elements; None is left out.

    Texts are shown as they are, control characters as escapes. ``class_`` is the class.
    """
    made = Element(tag, {name.rstrip("_"): value for name, value in attributes.items() if value})
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif child is not None:
            text = printable(child, keep="\n\t")
            if len(made):
                made[-1].tail = (made[-1].tail or "") + text
            else:
                made.text = (made.text or "") + text
    return made


def html(*children: Child) -> str:
    """The HTML of an output: the style, then the elements from top to bottom."""
    style = Element("style")
    style.text = _STYLE
    made = element("div", style, *children, class_="jaxnn")
    return ElementTree.tostring(made, encoding="unicode", method="html")


def heading(title: str, words: str = "", tone: str = "", about: str = "") -> Element:
    """A line: the title, words in the colour of a tone, and a remark.

    Args:
      title: such as the name of a claim.
      words: such as the verdict.
      tone: a name of ``TONES``, also after a further word: "bold red".
      about: a remark in pale letters.
    """
    colour = f"color: {TONES.get(tone.split()[-1] if tone else '', 'inherit')}"
    return element(
        "p",
        element("span", title, class_="title"),
        " ",  # where a notebook refuses the style
        element("span", words, class_="tone", style=colour) if words else None,
        " ",
        element("span", about, class_="soft") if about else None,
        class_="head",
    )


def facts(pairs: Iterable[tuple[str, str]]) -> Element:
    """A list of labels with texts."""
    listed = [e for k, v in pairs for e in (element("div", k, class_="soft"), element("div", v))]
    return element("div", *listed, class_="facts")


def code(title: str, text: str) -> Element | None:
    """Code behind a heading, opened by a click; None without code."""
    block = element("pre", element("code", text))
    return element("details", element("summary", title), block) if text else None


def formula(statement: str) -> Element | None:
    """A formula in LaTeX as MathML, or as LaTeX if the conversion fails; None without formula."""
    if not statement.strip():
        return None
    made = math(statement)
    return element("div", element("code", statement) if made is None else made, class_="formula")


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    keys: Sequence[Sequence[object]] | None = None,
    chosen: int | None = None,
) -> Element:
    """A table with arrows in the heading, which sort by any column without a script.

    Args:
      columns: the headings.
      rows: the cells as shown; None is empty.
      keys: the values to sort by, as many as cells; default: the cells.
      chosen: the number of a row in bold letters.
    """
    by_column = [*zip(*(rows if keys is None else keys), strict=True)] or [()] * len(columns)
    kinds = ["number" if all(map(_is_number, column)) else "" for column in by_column]
    heads = [
        element("th", name, *(_arrow(way, place) for way in ("up", "down")), class_=kind)
        for place, (name, kind) in enumerate(zip(columns, kinds, strict=True))
    ]
    ranks = [*zip(*map(_ranks, by_column), strict=True)]
    body = [
        element(
            "tr",
            *(
                element("td", None if cell is None else str(cell), class_=kind)
                for cell, kind in zip(row, kinds, strict=True)
            ),
            class_="chosen" if number == chosen else "",
            style=";".join(f"--by{place}:{rank}" for place, rank in enumerate(order)),
        )
        for number, (row, order) in enumerate(zip(rows, ranks, strict=True))
    ]
    style = Element("style")
    style.text = "".join(
        f".jaxnn form:has(.{way}{place}:checked) td{{order:calc({sign}*var(--by{place}))}}"
        for place in range(len(columns))
        for way, sign in (("up", 1), ("down", -1))
    )
    sheet = element("table", element("thead", element("tr", *heads)), element("tbody", *body))
    sheet.set("style", f"--columns:{len(columns)}")
    return element("form", style, sheet)


def _is_number(value: object) -> bool:
    """Whether a column with the value can be a column of numbers."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _ranks(column: Sequence[object]) -> list[int]:
    """The places of values in the order of numbers, texts, missing values; equal for equals."""

    def key(value: object) -> tuple[int, float, str]:
        if value is None or value != value:
            return 2, 0.0, ""
        return (0, float(value), "") if _is_number(value) else (1, 0.0, str(value))  # type: ignore

    places = {each: place for place, each in enumerate(sorted({*map(key, column)}))}
    return [places[key(value)] for value in column]


def _arrow(way: str, place: int) -> Element:
    """A button of the heading, hidden without the style; of a form a single button is on."""
    button = element("input", type="radio", name="by", class_=f"{way}{place}")
    return element("label", button, " ▲" if way == "up" else "▼", hidden="hidden")


def records(rows: Sequence[Mapping[str, Any]]) -> Element:
    """A table of rows with equal keys, at most ``ROWS``."""
    names = [*rows[0]] if rows else []
    shown = [[row.get(name) for name in names] for row in rows[:ROWS]]
    cells = [[f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in shown]
    left = f"the first {ROWS} of {len(rows):,} rows" if len(rows) > ROWS else ""
    return element("div", table(names, cells, shown), remark(left) if left else None)


class Table(list[dict[str, Any]]):
    """A list of rows with equal keys, shown as a table by a notebook."""

    def _repr_html_(self) -> str:
        return html(records(self))


def remark(text: str) -> Element:
    """A line in pale letters."""
    return element("p", text, class_="soft")


def picture(figure: "Figure", name: str) -> Element:
    """A figure of Matplotlib as an image inside the page; screen readers read the name."""
    from jaxnn.figures import as_png

    content = b64encode(as_png(figure)).decode()
    width = f"width: {4.5 * figure.get_figwidth():.0f}em"
    return element("img", src=f"data:image/png;base64,{content}", alt=name, style=width)


class Figures(dict[str, Any]):
    """Figures of Matplotlib by name; a notebook shows all figures without a magic."""

    def _repr_html_(self) -> str:
        return html(*(picture(figure, name) for name, figure in self.items()))

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        from jaxnn.figures import as_png

        bundle = {"text/plain": repr(self), "text/html": self._repr_html_()}
        return bundle if len(self) != 1 else bundle | {"image/png": as_png(*self.values())}

    def __repr__(self) -> str:
        return f"Figures({', '.join(self)})"


def curves(iteration: Any, scores: Sequence[tuple[str, str, Any]]) -> Element | None:
    """A picture for every measure: a curve for each (label, measure, values [E] or [S, E]).

    No picture without Matplotlib, or of fewer than two evaluations.
    """
    if not is_installed("matplotlib") or len(iteration) < 2:
        return None
    from jaxnn.figures import COLOURS, Curve, curves_figure

    pictures = []
    for measure in dict.fromkeys(measure for _, measure, _ in scores):
        drawn = [Curve(label, iteration, v) for label, m, v in scores if m == measure]
        figure = curves_figure(drawn[: len(COLOURS)], title="", y_label=measure)
        pictures.append(picture(figure, measure))
    return element("div", *pictures)


class Live:
    """HTML in the running cell of a notebook, each time in the place of the HTML before."""

    def __init__(self, replace: Callable[[Any], object]):
        self._replace = replace
        self._text = self._html = ""

    def show(self, text: str, done: float, total: float | None) -> None:
        """Shows a text, and a bar if the total is known."""
        share = {"value": f"{done:.0f}", "max": f"{total:.0f}"} if total else {}
        bar = element("progress", **share) if total else None
        self._text, self._html = text, html(element("p", text), bar)
        self._replace(self)

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return self._html


def live() -> Live | None:
    """A place for HTML in the running cell of Jupyter or marimo; None elsewhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is not None:
        from IPython.display import DisplayHandle

        handle, begun = DisplayHandle(), []

        def replace(shown: Live) -> None:
            (handle.update if begun else handle.display)(shown)
            begun.append(True)

        return Live(replace)
    marimo = sys.modules.get("marimo")
    if marimo is not None and marimo.running_in_notebook():
        return Live(marimo.output.replace)
    return None


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

CODE = re.compile("&#x([0-9A-Fa-f]+);")
"""A character as the converter writes characters, such as ``&#x2207;``."""

REFUSED = re.compile(r"&#|\\def|\\new|&\s*\\end")
"""What the converter gets wrong: entities, which become characters; macros, which can double for
ever; a last cell without content, which takes the row along."""


def math(statement: str) -> Element | None:
    """The statement as a ``math`` element, None if the conversion fails.

    The converter copies text, unknown commands, links and styles. Hence text stays text, and a
    result with other elements or attributes than the above, with missing children or with LaTeX
    commands counts as failed.
    """
    try:
        from latex2mathml.converter import convert_to_element
    except ModuleNotFoundError:
        return None
    source = statement.strip().strip("$").strip()
    if len(source) > LONGEST or REFUSED.search(source):
        return None
    try:
        root = convert_to_element(source, display="block")
        for each in root.iter():
            each.text = printable(CODE.sub(lambda code: chr(int(code[1], 16)), each.text or ""))
    except Exception:  # the converter raises IndexError and more
        return None
    if not all(map(_is_plain, root.iter())):
        return None
    for row in list(root.iter()):
        _merge_upright(row)
        _space_functions(row)
    return root


def mathml(statement: str) -> str | None:
    """The text of ``math``."""
    root = math(statement)
    return None if root is None else ElementTree.tostring(root, encoding="unicode")


def _is_plain(element: Element) -> bool:
    """Whether a formula may have this element."""
    return (
        element.tag in ELEMENTS
        and len(element) == (ELEMENTS[element.tag] or len(element))
        and ATTRIBUTES.issuperset(element.keys())
        and all(VALUE.fullmatch(word) for _, value in element.items() for word in value.split(" "))
        and "\\" not in (element.text or "")
    )


def _merge_upright(row: Element) -> None:
    """Joins upright letters such as those of ``diag``, spaced like factors, to a word."""
    letters = list(row) if row.tag == "mrow" else []
    if len(letters) > 1 and all(
        letter.tag == "mi" and letter.get("mathvariant") == "normal" for letter in letters
    ):
        letters[0].text = "".join(letter.text or "" for letter in letters)
        row[1:] = []


def _space_functions(row: Element) -> None:
    """Sets names of functions like TeX: a thin space before an argument, none before "("."""
    for index, element in reversed(list(enumerate(row, start=1))):
        word = element.text or ""
        if element.tag in ("mo", "mi") and len(word) > 1 and word.isalpha():
            element.tag = "mi"
            if row.tag == "mrow" and index < len(row) and row[index].tag != "mo":
                row.insert(index, Element("mspace", {"width": "0.167em"}))
