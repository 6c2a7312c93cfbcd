"""The meaning of a formula in LaTeX: symbols are inputs, sizes or definitions, letters indices.

A formula with two meanings is refused, with both readings.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache, reduce
from importlib.resources import files
from itertools import combinations, pairwise, permutations
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn import losses
from jaxnn.types import require
from jaxnn.verify.latex.values import (
    Size,
    Unreadable,
    Value,
    aligned,
    array,
    divided,
    entrywise,
    inverted,
    plus,
    scaled,
    settled,
    summed,
    times,
    transposed,
)

if TYPE_CHECKING:
    from lark import Lark, Tree

LONGEST, DEEPEST, MOST_ITEMS = 5_000, 40, 500
"""The most characters of a formula, brackets within brackets, and symbols."""

LONGEST_NUMBER, LARGEST_POWER = 40, 300
"""The most digits of a number as written, and of a power of a number."""

FUNCTIONS: dict[str, Callable[..., Any]] = {
    r"\exp": jnp.exp, r"\log": jnp.log, r"\ln": jnp.log, r"\sin": jnp.sin, r"\cos": jnp.cos,
    r"\tan": jnp.tan, r"\sinh": jnp.sinh, r"\cosh": jnp.cosh, r"\tanh": jnp.tanh,
    r"\arctan": jnp.arctan, r"\sigma": losses.sigmoid, "sigmoid": losses.sigmoid,
    "relu": lambda x: jnp.maximum(x, 0), "ReLU": lambda x: jnp.maximum(x, 0),
    "softplus": jax.nn.softplus, "sign": jnp.sign, "sgn": jnp.sign, "abs": jnp.abs,
    "erf": jax.scipy.special.erf, "log": jnp.log, "exp": jnp.exp, "tanh": jnp.tanh,
}  # fmt: skip
"""Functions of every entry."""

UNCLEAR = (r"\exp", r"\log", r"\ln", r"\sin", r"\cos", "exp", "log")
"""Functions with another meaning for square matrices."""

OF_ARRAYS = (
    "softmax", r"\softmax", "tr", "Tr", "trace", r"\tr", r"\Tr", r"\det", "det", "diag", r"\diag",
)  # fmt: skip
"""Functions of vectors and matrices."""

ENTRYWISE = (r"\odot", r"\circ")
"""Signs of products entry by entry."""

SUMS = {r"\sum": jnp.sum, r"\prod": jnp.prod}
LARGEST = {r"\max": jnp.max, r"\min": jnp.min}

RELATIONS: dict[str, Callable[..., Any]] = {
    "=": jnp.equal, "<": jnp.less, ">": jnp.greater, r"\ne": jnp.not_equal,
    r"\neq": jnp.not_equal, r"\le": jnp.less_equal, r"\leq": jnp.less_equal,
    r"\leqslant": jnp.less_equal, r"\ge": jnp.greater_equal, r"\geq": jnp.greater_equal,
    r"\geqslant": jnp.greater_equal, r"\lt": jnp.less, r"\gt": jnp.greater,
}  # fmt: skip

OPPOSITE = {
    jnp.equal: jnp.not_equal, jnp.less: jnp.greater_equal, jnp.greater: jnp.less_equal,
    jnp.not_equal: jnp.equal, jnp.greater_equal: jnp.less, jnp.less_equal: jnp.greater,
}  # fmt: skip

TURNED = {
    jnp.less: jnp.greater, jnp.greater: jnp.less,
    jnp.less_equal: jnp.greater_equal, jnp.greater_equal: jnp.less_equal,
}  # fmt: skip
"""Relations with the sides exchanged."""

GREEK_INDICES = (r"\ell", r"\alpha", r"\beta", r"\mu", r"\nu")
SYMBOLS = ("letters", "command", "words", "accent", "font")
"""Kinds of atoms that are symbols."""

TRANSPOSED = (r"\top", "T", r"\intercal", r"\mathsf{T}", r"\mathrm{T}", r"\mathsf{\top}")
SAME = {r"\widehat": r"\hat", r"\widetilde": r"\tilde", r"\overline": r"\bar"}
PLAIN_FONTS = (r"\mathbf", r"\boldsymbol", r"\bm", r"\vec", r"\mathit", r"\mathsf")
OTHERWISE = re.compile(r"\s*(otherwise|else|sonst)\.?\s*")
CONNECTED = re.compile(r"\s*(if|for|when|and|where|with)?\s*")


@cache
def _grammar() -> "Lark":
    from lark import Lark

    text = files("jaxnn.verify.latex").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", propagate_positions=True, maybe_placeholders=False)


class Formula(NamedTuple):
    """A formula as read: the normalised text, and the tree of clauses."""

    text: str
    tree: Any

    def source(self, tree: "Tree") -> str:
        """The LaTeX of a part of the formula."""
        start, end = getattr(tree.meta, "start_pos", 0), getattr(tree.meta, "end_pos", 0)
        return self.text[start:end].strip()


def parsed(latex: str) -> Formula:
    """The tree of a formula.

    Raises:
      Unreadable: too long, too deep, prose, or no formula; the message has the place.
    """
    require("verify", "lark")
    from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput

    if len(latex) > LONGEST:
        raise Unreadable(f"{len(latex):,} characters, expected at most {LONGEST:,}")
    items = len(re.findall(r"\\[A-Za-z]+|[A-Za-z|]|\d+", latex))
    if items > MOST_ITEMS:
        raise Unreadable(f"{items:,} symbols, expected at most {MOST_ITEMS:,}")
    text = _normalised(latex)
    if dots := re.search(r"\\[lcdv]?dots\w*|\.\.\.|…", text):
        raise Unreadable(f"{dots[0]} leaves out a part")
    depth = highest = 0
    for character in re.sub(r"\\[{}]", "(", text):
        depth += (character in "([{") - (character in ")]}")
        highest = max(highest, depth)
    if highest > DEEPEST:
        raise Unreadable(f"{highest} brackets within brackets, expected at most {DEEPEST}")
    try:
        return Formula(text, _with_nabla(_grammar().parse(text).children[0]))
    except UnexpectedInput as error:
        at = getattr(error, "pos_in_stream", None)
        ended = isinstance(error, UnexpectedEOF) or at is None or at >= len(text)
        rest = "the end" if ended else repr(text[at:][:12])
        kind = "no LaTeX" if isinstance(error, UnexpectedCharacters) else "no formula"
        token = getattr(error, "token", None)
        if token is not None and token.type == "$END":
            rest = "the end"
        raise Unreadable(f"{kind} at {rest}") from None


def _with_nabla(tree: Any) -> Any:
    """The tree with every nabla joined to the next symbol."""
    from lark import Tree

    for part in list(tree.iter_subtrees()):
        if part.data in ("sub", "sup", "fraction", "root"):
            part.children = [_in_clauses(child) for child in part.children]
    for term in tree.find_data("term"):
        items: list[Any] = []
        for item in term.children:
            atom, *scripts = item.children
            last = items[-1] if items else None
            after = last is not None and len(last.children) == 1 and spelled(last) == r"\nabla"
            if last is None or not after or atom.data not in SYMBOLS:
                items.append(item)
                continue
            one = Tree("command", [r"\nabla " + spelled(atom)], _between(last.meta, atom.meta))
            items[-1] = Tree("item", [one, *scripts], _between(last.meta, item.meta))
        term.children = items
    return tree


def _in_clauses(tree: Any) -> Any:
    """A symbol without braces as the clauses in braces; other parts stay the same."""
    from lark import Tree

    if getattr(tree, "data", "") in (*SYMBOLS, "number", "operator"):
        for kind in ("item", "term", "sum", "clause", "clauses"):
            tree = Tree(kind, [tree], tree.meta)
    return tree


def _between(first: Any, last: Any) -> Any:
    """The place from the start of a part to the end of another."""
    from lark.tree import Meta

    part = Meta()
    part.empty = False
    part.start_pos, part.end_pos = first.start_pos, last.end_pos
    return part


def _normalised(latex: str) -> str:
    """The formula without spacing, sizes of brackets and optional braces."""
    text = _without_alignment(latex.strip().strip("$").strip())
    text = re.sub(r"^\\\[|\\\]$", "", text).rstrip(" .,;")
    text = re.sub(r"\\\\|\\[,:;!> ]|~", lambda found: found[0] if found[0] == r"\\" else " ", text)
    text = re.sub(r"\\(displaystyle|textstyle|limits|nolimits|nonumber)(?![A-Za-z])", " ", text)
    text = re.sub(r"\\[Bb]igg?[lrm]?(?![A-Za-z])|\\middle(?![A-Za-z])", " ", text)
    text = re.sub(r"[,;]?\s*(\\q?quad(?![A-Za-z])\s*)+", "; ", text)
    text = re.sub(r"\\left\s*\[", r"\\lbrack ", text)
    text = re.sub(r"\\right\s*\]", r"\\rbrack ", text)
    text = re.sub(r"\\left\s*\|", r"\\lvert ", re.sub(r"\\right\s*\|", r"\\rvert ", text))
    text = re.sub(r"\\left\s*\\\|", r"\\lVert ", re.sub(r"\\right\s*\\\|", r"\\rVert ", text))
    text = re.sub(r"\\(left|right)(?![A-Za-z])", " ", text)
    text = _paired(_paired(text, r"\|", r"\lVert ", r"\rVert "), "|", r"\lvert ", r"\rvert ")
    text = re.sub(r"(\\mathrm|\\mathsf)\s+([A-Za-z])", r"\1{\2}", text)
    named = "frac|dfrac|tfrac|sqrt|hat|widehat|tilde|widetilde|bar|overline|mathbf|mathcal|vec"
    text = re.sub(
        rf"(\\(?:{named}|mathbb|boldsymbol|bm))\s*([0-9]|(?<=\s)[A-Za-z])", r"\1{\2}", text
    )
    text = re.sub(r"(\\[dt]?frac\{[^{}]*\})\s*([A-Za-z0-9])", r"\1{\2}", text)
    return re.sub(r"([_^])\s*([A-Za-z0-9])", r"\1{\2}", text)


def _without_alignment(text: str) -> str:
    """The equations of an ``align``: a line that begins with = continues the line before."""
    kinds = r"\{(?:align|aligned|equation|split|gather)\*?\}"
    found = re.fullmatch(rf"\\begin{kinds}(.*)\\end{kinds}", text, re.DOTALL)
    if found is None or r"\begin" in found[1]:
        return text
    lines = found[1].replace("&", " ").strip()
    lines = re.sub(r"\\\\\s*(?==)", " ", re.sub(r"\\\\\s*$", "", lines))
    return lines.replace(r"\\", r" \quad ").strip()


def _paired(text: str, bar: str, left: str, right: str) -> str:
    """Vertical bars as brackets: after a symbol or a bracket a bar closes an open bar."""
    parts = re.split(r"(?<!\\)\|" if bar == "|" else r"\\\|", text)
    opened, result = [], parts[0]
    for before, after in pairwise(parts):
        depth = len(re.findall(r"[({\[]", result)) - len(re.findall(r"[)}\]]", result))
        closes = opened[-1:] == [depth] and not re.search(r"(^|[-+=(\[{,/^_]|\\cdot)\s*$", before)
        result += (right if closes else left) + after
        opened = opened[:-1] if closes else [*opened, depth]
    return result


# Names


def spelled(tree: Any) -> str:
    """A symbol in a single spelling, without optional braces, spaces and bold letters."""
    if not hasattr(tree, "data"):
        return str(tree)
    parts = [spelled(child) for child in tree.children]
    kind = tree.data
    if kind in ("number", "letters", "command", "operator"):
        return parts[0]
    if kind == "words":
        return re.sub(r"^\\\w+\*?\s*\{|\}$", "", parts[0]).strip()
    if kind == "accent":
        return f"{SAME.get(parts[0], parts[0])}{{{parts[1]}}}"
    if kind == "font":
        bold = parts[0] in PLAIN_FONTS and parts[1] not in ("1", "T")
        return parts[1] if bold else f"{parts[0]}{{{parts[1]}}}"
    if kind in ("sub", "sup"):
        return f"{'_' if kind == 'sub' else '^'}{{{''.join(parts)}}}"
    if kind == "item":
        first, *scripts = parts
        return first + "".join(sorted(scripts, key=lambda text: "'_^".index(text[0])))
    brackets = {"round": "()", "square": "[]", "brackets": "[]", "curly": "{}"}
    if kind in brackets:
        return "".join(parts).join(brackets[kind])
    if kind == "fraction":
        return rf"\frac{{{parts[1]}}}{{{parts[2]}}}"
    return ("," if kind in ("clauses", "cell") else "").join(parts)


def python_names(symbol: str) -> list[str]:
    r"""The possible names of a symbol in Python: ``lam``, ``lambda_`` for ``\\lambda``."""
    if accent := re.fullmatch(r"\\(hat|bar|tilde|dot|check)\{(.*)\}", symbol):
        inner = python_names(accent[2])
        return [name + end for name in inner for end in (f"_{accent[1]}", accent[1])]
    if font := re.fullmatch(r"\\math\w+\{(.*)\}", symbol):
        return python_names(font[1])
    if symbol == r"\lambda":
        return ["lambda_", "lam"]
    if symbol in (r"\varepsilon", r"\epsilon"):
        return ["epsilon", "eps"]
    name = symbol.removeprefix("\\").removeprefix("var" if symbol[:1] == "\\" else "")
    return [name.replace(" ", "_")]


class Names:
    """The symbols known to a formula.

    Args:
      inputs: by name, the shapes of the inputs in names of sizes.
      definitions: by spelled symbol.
      renamed: by spelled symbol, the name of an input or a size.
    """

    def __init__(
        self,
        inputs: Mapping[str, tuple[Size, ...]],
        definitions: Mapping[str, Any],
        renamed: Mapping[str, str],
    ):
        self.inputs, self.definitions, self.renamed = inputs, definitions, renamed
        shapes = inputs.values()
        self.sizes = {size for shape in shapes for size in shape if isinstance(size, str)}

    def known(self, symbol: str, scripts: Sequence[str] = ()) -> str | None:
        """The key of a definition, ``input x``, ``size n``, or None."""
        full = self._full(symbol, scripts)
        if full in self.definitions:
            return full
        if full in self.renamed:
            name = self.renamed[full]
            return f"input {name}" if name in self.inputs else f"size {name}"
        ends = [re.sub(r"[\\_^{}()]", "", text) for text in scripts]
        if any(not end or re.search(r"\W", end) for end in ends):
            return None
        for base in self._cases(symbol):
            for name in dict.fromkeys([base + "".join(ends), "_".join([base, *ends])]):
                found = [kind for kind in ("inputs", "sizes") if name in getattr(self, kind)]
                if len(found) == 2:
                    raise Unreadable(f"{full} is an input and a size, expected a where= for it")
                if found:
                    return f"{found[0][:-1]} {name}"
        return None

    def _full(self, symbol: str, scripts: Sequence[str]) -> str:
        return symbol + "".join(sorted(scripts, key=lambda text: "'_^".index(text[0])))

    def _cases(self, symbol: str) -> Iterator[str]:
        """The names of a symbol, then the names with the letter in the other case."""
        names = python_names(symbol)
        yield from names
        yield from (name.swapcase() for name in names if len(name) == 1)
        yield from (name[0].swapcase() + name[1:] for name in names if name[1:] in ("_hat", "hat"))

    def resolve(self, symbol: str, scripts: Sequence[str]) -> tuple[str | None, list[int]]:
        """The longest known name, and the places of the scripts outside the name.

        Raises:
          Unreadable: ``w^2`` with inputs w and w2, ``b_1`` with inputs b and b1.
        """
        found: list[tuple[str, list[int]]] = []
        for count in range(len(scripts), -1, -1):
            for chosen in combinations(range(len(scripts)), count):
                key = self.known(symbol, [scripts[place] for place in chosen])
                if key is not None:
                    found.append((key, [n for n in range(len(scripts)) if n not in chosen]))
        if not found:
            return None, list(range(len(scripts)))
        (key, left), *others = found
        name = self._full(symbol, [scripts[n] for n in range(len(scripts)) if n not in left])
        declared = name in self.definitions or name in self.renamed
        if others and not declared:
            raise Unreadable(
                f"{symbol}{''.join(scripts)} has two readings: the {key}, or {others[-1][0]} with "
                "an index or a power"
            )
        return key, left


# Evaluation


class Index(NamedTuple):
    """An entry of a subscript or superscript: an index, a number, or None for all entries."""

    entry: str | int | None
    above: bool  # a superscript in parentheses


class Evaluation:
    """The values of formulas at given inputs.

    Args:
      names: the symbols.
      formulas: the definitions in LaTeX, by spelled symbol.
      values: inputs and definitions as arrays, by key as of ``Names.known``.
      sizes: the number of every named size.
      ranges: the size of the range of every index; grows while formulas are evaluated.
      free: indices on the left side.
      key_indices: by symbol, the indices of a definition such as h_i.
    """

    def __init__(
        self,
        names: Names,
        formulas: Mapping[str, tuple[Formula, "Tree"]],
        values: Mapping[str, Value | Callable[..., Any]],
        sizes: Mapping[str, int],
        ranges: dict[str, Size],
        free: Sequence[str] = (),
        key_indices: Mapping[str, tuple[str, ...]] | None = None,
    ):
        self.names, self.formulas, self.values = names, formulas, dict(values)
        self.sizes: dict[Size, int] = {**sizes}
        self.ranges, self.bound, self.loose = ranges, list(free), False
        self.key_indices = key_indices or {}
        self.formula, self.within, self.entrywise = Formula("", None), list[str](), False

    def __call__(self, formula: Formula, tree: Any) -> Value:
        """The value of a clause, sum, term, item or atom."""
        before, self.formula = self.formula, formula
        try:
            return self.value(tree)
        finally:
            self.formula = before

    def value(self, tree: Any) -> Value:
        """The value of a part of the tree."""
        kind = tree.data
        if kind == "item":
            return self.term([tree], tree)
        return getattr(self, f"_{kind}", self._no_value)(tree)

    def _no_value(self, tree: Any) -> Value:
        raise Unreadable(f"{self.source(tree)!r} has no value")

    def source(self, tree: Any) -> str:
        """The LaTeX of a part, shortened."""
        text = self.formula.source(tree)
        return text if len(text) <= 40 else text[:37] + "..."

    def each(
        self, trees: Sequence[Any], value: "Callable[[Any], Value] | None" = None
    ) -> list[Value]:
        """All values; every part is evaluated, for the ranges of indices, before an error."""
        found, errors = [], []
        for tree in trees:
            try:
                found.append((value or self.value)(tree))
            except Unreadable as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return found

    def _clauses(self, tree: Any) -> Value:
        if len(tree.children) == 1:
            return self.value(tree.children[0])
        parts = self.each(tree.children)
        if any(part.rank > 1 or part.pending for part in parts):
            raise Unreadable(f"{self.source(tree)!r} is a list, expected numbers or vectors")
        return self._joined(parts)

    def _joined(self, parts: Sequence[Value]) -> Value:
        """Numbers and vectors, joined to a vector."""
        indices = tuple(dict.fromkeys(index for part in parts for index in part.indices))
        if indices:
            raise Unreadable(f"a list that depends on {', '.join(indices)}")
        if len({part.row for part in parts if part.rank}) > 1:
            raise Unreadable("a list of rows and columns")
        data = jnp.concatenate([jnp.atleast_1d(array(part)) for part in parts])
        return Value(data, (), (len(data),), any(part.row for part in parts))

    def _clause(self, tree: Any) -> Value:
        if len(tree.children) > 1:
            raise Unreadable(f"{self.source(tree)!r} is an equation, expected a value")
        return self.value(tree.children[0])

    def _sum(self, tree: Any) -> Value:
        terms = [child for child in tree.children if hasattr(child, "data")]
        if not terms:
            raise Unreadable(f"{self.source(tree)!r} is a sign alone")
        signs = [str(child) for child in tree.children if not hasattr(child, "data")]
        if r"\pm" in signs or r"\mp" in signs:
            raise Unreadable(f"{self.source(tree)!r} has two readings: + and -")
        signs = signs if len(signs) == len(terms) else ["+", *signs]
        values = [
            scaled(value, Value(Fraction(-1))) if sign == "-" else value
            for sign, value in zip(signs, self.each(terms), strict=True)
        ]
        return reduce(lambda a, b: plus(a, b, self.sizes), values)

    def _term(self, tree: Any) -> Value:
        return self.term(tree.children, tree)

    # Terms: rows of factors, functions, sums and signs of multiplication

    def term(self, items: Sequence[Any], tree: Any) -> Value:
        """The product of a row of items; the sum sign takes all later items."""
        operands: list[Value] = []
        signs: list[str] = []
        errors: list[Unreadable] = []
        rest = list(self._split(items))
        waiting = ""
        while rest:
            sign = self.sign_of(rest[0])
            if sign:
                if waiting or (not operands and not errors):
                    raise Unreadable(f"{self.source(tree)!r}: {sign} lacks a factor")
                waiting = sign
                rest = rest[1:]
                continue
            try:
                value, rest = self.factor(rest, tree)
                operands.append(value)
                signs.append(waiting)
            except Unreadable as error:
                errors.append(error)
                # Later items were evaluated with the sum or function already.
                rest = [] if self._reaches_on(rest[0]) else rest[1:]
            waiting = ""
        if errors:
            raise errors[0]
        if waiting:
            raise Unreadable(f"{self.source(tree)!r}: {waiting} lacks a factor")
        return self.product(operands, signs, tree)

    def _split(self, items: Sequence[Any]) -> Iterator[Any]:
        """The items; letters such as ``xy`` are a symbol each, unless ``xy`` is known."""
        from lark import Tree

        for item in items:
            atom = item.children[0]
            text = str(atom.children[0]) if atom.data == "letters" else ""
            if len(text) < 2 or self.names.known(text):
                single = len(text) > 1 and all(self.names.known(letter) for letter in text)
                if single:
                    raise Unreadable(
                        f"{text} has two readings: the symbol {text}, or a product of its letters"
                    )
                yield item
                continue
            for place, letter in enumerate(text):
                meta = _part(atom.meta, place)
                one = Tree("letters", [letter], meta)
                scripts = item.children[1:] if place == len(text) - 1 else []
                yield Tree("item", [one, *scripts], item.meta if scripts else meta)

    def _reaches_on(self, item: Any) -> bool:
        """Whether an item is a sum or a function, and takes later factors."""
        symbol = spelled(item.children[0])
        return symbol in SUMS | LARGEST | FUNCTIONS or symbol in OF_ARRAYS

    def sign_of(self, item: Any) -> str:
        """The sign of multiplication or division; "" for factors."""
        atom = item.children[0]
        return str(atom.children[0]) if atom.data == "operator" else ""

    def product(self, operands: Sequence[Value], signs: Sequence[str], tree: Any) -> Value:
        """The product of factors with the signs before each: "" where written side by side."""
        if "/" in signs or r"\div" in signs:
            *before, last = signs
            if last not in ("/", r"\div") or {"/", r"\div"} & {*before}:
                raise Unreadable(
                    f"{self.source(tree)!r} has two readings: what follows / divides, or multiplies"
                )
            numerator = self.product(operands[:-1], before, tree)
            return divided(numerator, operands[-1], self.sizes)
        if r"\otimes" in signs:
            raise Unreadable(
                f"{self.source(tree)!r} has two readings: the outer product, or Kronecker's"
            )
        if not any(sign in ENTRYWISE for sign in signs):
            return self._chain(operands, signs, tree)
        parts = _segments(operands, signs)
        if all(sum(value.rank > 0 for value in segment) < 2 for segment, _ in parts):
            return self._entries_last(parts, tree)
        readings = [
            _attempt(lambda: self._entries_last(parts, tree)),
            _attempt(lambda: self._entries_first(operands, signs, tree)),
        ]
        values = [reading for reading in readings if isinstance(reading, Value)]
        if len(values) == 2:
            raise Unreadable(
                f"{self.source(tree)!r} has two readings: the matrix product first, or the product "
                "entry by entry first"
            )
        for reading in readings:
            if not values and isinstance(reading, Unreadable):
                raise reading
        return values[0]

    def _entries_last(self, segments: "Sequence[_Segment]", tree: Any) -> Value:
        """The products of linear algebra first, then those entry by entry."""
        parts = [self._chain(*segment, tree) for segment in segments]
        return reduce(lambda a, b: entrywise(jnp.multiply, a, b, self.sizes), parts)

    def _entries_first(self, operands: Sequence[Value], signs: Sequence[str], tree: Any) -> Value:
        """The products entry by entry first, then those of linear algebra."""
        parts, between = [operands[0]], [""]
        for value, sign in zip(operands[1:], signs[1:], strict=True):
            if sign in ENTRYWISE:
                parts[-1] = entrywise(jnp.multiply, parts[-1], value, self.sizes)
            else:
                parts.append(value)
                between.append(sign)
        return self._chain(parts, between, tree)

    def _chain(self, operands: Sequence[Value], signs: Sequence[str], tree: Any) -> Value:
        """A product from left to right."""
        result = operands[0]
        for place, (value, sign) in enumerate(zip(operands[1:], signs[1:], strict=True)):
            both = result.rank and value.rank
            if sign in (r"\times", "*", r"\ast") and both:
                raise Unreadable(f"{self.source(tree)!r}: {sign} of {result} and {value}")
            if sign == r"\cdot" and both and place and result.rank == value.rank == 1:
                raise Unreadable(f"{self.source(tree)!r}: a dot between three vectors")
            if self.entrywise and both and result.shape == value.shape and not sign:
                result = entrywise(jnp.multiply, result, value, self.sizes)
                continue
            try:
                result = times(result, value, self.sizes, sign == r"\cdot")
            except Unreadable as error:
                raise Unreadable(f"{self.source(tree)!r}: {error}") from None
        return result

    def factor(self, rest: Sequence[Any], tree: Any) -> tuple[Value, list[Any]]:
        """The value of the first factor, and the items that remain."""
        item, *after = rest
        symbol = spelled(item.children[0])
        key, _ = self.resolved(item)
        if after and item.children[0].data not in ("round", "number"):
            applied = spelled(item) + spelled(after[0].children[0])
            if applied in self.names.definitions:
                return self.scripted(self.lookup(applied), after[0].children[1:], item), after[1:]
        if key is None and symbol in SUMS | LARGEST:
            return self.gathered(symbol, item, after, tree)
        if key is None and symbol in (r"\mathbb{1}", r"\mathbf{1}", "1", r"\mathbbm{1}"):
            found = self.indicator(item, after)
            if found:
                return found
        function = self.function(item)
        if function:
            return self.applied(function, item, after, tree)
        if after and after[0].children[0].data == "square" and key is not None:
            entries = self.entries(after[0].children[0].children[0], above=False)
            if all(isinstance(e.entry, int) or self._is_index(e.entry) for e in entries):
                return self.bracketed(item, entries, after[0].children[1:]), after[1:]
        return self.item(item), after

    def _is_index(self, entry: str | int | None) -> bool:
        return isinstance(entry, str) and (
            entry in self.bound or entry in self.ranges or self.names.known(entry) is None
        )

    # Functions

    def function(self, item: Any) -> "Callable[[Value], Value] | None":
        """The function named by an item, with a power or a prime; None for other items."""
        atom, *scripts = item.children
        symbol = spelled(atom)
        key, _ = self.resolved(item)
        own = self.values.get(key or "")
        if key is not None and not callable(own):
            return None
        if callable(own):
            plain = lambda value: aligned(own, value)  # noqa: E731
        elif symbol in FUNCTIONS:
            plain = lambda value: self.elementwise(symbol, value)  # noqa: E731
        elif symbol in OF_ARRAYS:
            plain = lambda value: self.of_array(symbol, value)  # noqa: E731
        else:
            return None
        power, primes = None, 0
        for script in scripts:
            text = spelled(script)
            if script.data == "prime":
                primes = len(text)
            elif script.data == "sup" and re.fullmatch(r"\^\{\d+\}", text):
                power = int(text[2:-1])
            elif text in ("^{-1}",):
                raise Unreadable(
                    f"{self.source(item)} has two readings: the inverse, or 1 / {symbol}"
                )
            else:
                raise Unreadable(f"{self.source(item)} is no function that is known")
        if primes:
            inner = own if callable(own) else FUNCTIONS.get(symbol)
            if inner is None or primes > 1:
                raise Unreadable(f"{self.source(item)} is no function that is known")
            plain = lambda value: aligned(_slope(inner), value)  # noqa: E731
        if power is not None:
            return lambda value: self.power(plain(value), Value(Fraction(power)), item)
        return plain

    def elementwise(self, symbol: str, value: Value) -> Value:
        """A function of every entry."""
        if value.square and symbol in UNCLEAR:
            raise Unreadable(
                f"{symbol} of {value} has two readings: of every entry, or of the matrix"
            )
        if value.pending:
            raise Unreadable(f"{symbol} of {value}: the size is not known")
        return aligned(FUNCTIONS[symbol], value)

    def of_array(self, symbol: str, value: Value) -> Value:
        """softmax, trace, determinant, diag."""
        name = symbol.removeprefix("\\")
        axis = len(value.indices)
        if value.pending or value.rank == 0:
            raise Unreadable(f"{name} of {value}, expected a vector or matrix of known size")
        if name == "softmax":
            if value.rank > 1:
                raise Unreadable(f"softmax of {value} has two readings: of rows, or of columns")
            return value._replace(data=losses.softmax(value.data, axis=-1))
        if name == "diag" and value.rank == 1:
            unit = jnp.eye(value.data.shape[axis])
            data = value.data[..., None] * unit
            return Value(data, value.indices, (*value.shape, *value.shape))
        if not value.square:
            raise Unreadable(f"{name} of {value}, expected a square matrix")
        if name == "diag":
            return Value(
                jnp.diagonal(value.data, axis1=-2, axis2=-1), value.indices, value.shape[:1]
            )
        of = jnp.linalg.det if name == "det" else lambda a: jnp.trace(a, axis1=-2, axis2=-1)
        return Value(of(value.data), value.indices)

    def applied(
        self, function: Callable[[Value], Value], item: Any, after: Sequence[Any], tree: Any
    ) -> tuple[Value, list[Any]]:
        """A function of the next bracket, or of the next factor if no other factor follows."""
        if not after or self.sign_of(after[0]):
            raise Unreadable(f"{self.source(item)!r} lacks an argument")
        atom, *scripts = after[0].children
        if atom.data in ("round", "brackets", "square", "curly", "braces"):
            argument = self.value(atom.children[0])
            value = function(argument)
            raised = [script for script in scripts if script.data == "sup"]
            if raised and spelled(item.children[0]) in UNCLEAR:
                raise Unreadable(
                    f"{self.source(item)}{self.source(after[0])} has two readings: the power of "
                    "the function, or of the argument"
                )
            return self.scripted(value, scripts, after[0]), list(after[1:])
        value, left = self.factor(after, tree)
        if left and not self._starts_function(left[0]):
            raise Unreadable(
                f"{self.source(tree)!r} has two readings: {self.source(item)} of one factor, or of "
                "all that follow; expected brackets"
            )
        return function(value), left

    def _starts_function(self, item: Any) -> bool:
        symbol = spelled(item.children[0])
        return self.function(item) is not None or symbol in SUMS

    # Sums, products, largest entries

    def gathered(
        self, symbol: str, item: Any, after: Sequence[Any], tree: Any
    ) -> tuple[Value, list[Any]]:
        """A sum or product over indices of all later factors; max and min of the next factor."""
        if not after:
            raise Unreadable(f"{self.source(item)!r} lacks a body")
        below = [child for child in item.children[1:] if child.data == "sub"]
        above = [child for child in item.children[1:] if child.data == "sup"]
        if symbol in LARGEST and not below:
            return self.largest(symbol, after)
        indices, condition = self.bounds(below, above, item)
        for index in indices:
            if index in self.bound:
                raise Unreadable(f"{self.source(item)}: the index {index} is in use outside")
        self.bound += indices
        before, self.entrywise = self.entrywise, not indices or self.entrywise
        try:
            if symbol in LARGEST:
                body, left = self.factor(after, tree)
                if left and not self.sign_of(left[0]):
                    raise Unreadable(f"{self.source(tree)!r} has two readings: expected brackets")
            else:
                body, left = self.term(after, tree), []
            if condition is not None:
                body = self.masked(body, condition)
        finally:
            self.bound = self.bound[: len(self.bound) - len(indices)]
            self.entrywise = before
        return self.reduced(symbol, body, indices, bool(above), item), left

    def bounds(
        self, below: Sequence[Any], above: Sequence[Any], item: Any
    ) -> tuple[list[str], Any]:
        """The indices below a sum, and a condition such as j != i."""
        if not below:
            if above:
                raise Unreadable(f"{self.source(item)} lacks an index")
            return [], None
        indices, condition = [], None
        for clause in below[0].children[0].children if below[0].children else []:
            names = [str(part) for part in clause.children if not hasattr(part, "data")]
            sums = [part for part in clause.children if hasattr(part, "data")]
            first = self.entries(sums[0], above=False)
            if not all(isinstance(entry.entry, str) for entry in first):
                raise Unreadable(f"{self.source(item)} lacks an index")
            listed = [str(entry.entry) for entry in first]
            if not names:
                indices += listed
                for index in listed if above else ():
                    self.learn(index, self.size(above[0], item))
            elif names == ["="]:
                if spelled(sums[1]) != "1" or not above or len(listed) != 1:
                    raise Unreadable(f"{self.source(item)}, expected an index from 1 to a size")
                indices += listed
                self.learn(listed[0], self.size(above[0], item))
            elif len(names) == 1 and names[0] in RELATIONS and len(listed) == 1:
                indices += listed
                condition = clause
            else:
                raise Unreadable(f"{self.source(item)}: the range is not readable")
        if len({*indices}) < len(indices):
            raise Unreadable(f"{self.source(item)} names an index twice")
        return indices, condition

    def size(self, above: Any, item: Any) -> Size:
        """The size at the end of a sum: the name of a size, or a number."""
        text = spelled(above.children[0])
        if text.isdigit():
            return int(text)
        inner = list(above.children[0].find_data("item"))
        key = self.resolved(inner[0])[0] if len(inner) == 1 else None
        if key is None or not key.startswith("size "):
            raise Unreadable(f"{self.source(item)}: {text} is no size")
        return key.removeprefix("size ")

    def learn(self, index: str, size: Size) -> None:
        """Notes the size of the range of an index."""
        known = self.ranges.setdefault(index, size)
        if known != size:
            raise Unreadable(f"the index {index} runs to {known} and to {size}")

    def reduced(
        self, symbol: str, body: Value, indices: Sequence[str], bounded: bool, item: Any
    ) -> Value:
        """The sum, product, largest or smallest entry over indices."""
        if not indices:
            if body.pending or isinstance(body.data, Fraction) or body.rank == 0:
                raise Unreadable(f"{self.source(item)} lacks an index")
            axes = tuple(range(len(body.indices), jnp.ndim(body.data)))
            return Value((SUMS | LARGEST)[symbol](body.data, axis=axes), body.indices)
        for index in indices:
            if index in body.indices:
                axis = body.indices.index(index)
                left = tuple(other for other in body.indices if other != index)
                data = (SUMS | LARGEST)[symbol](body.data, axis=axis)
                body = body._replace(data=data, indices=left)
            elif symbol == r"\sum" and bounded:
                size = self.ranges[index]
                body = scaled(body, Value(Fraction(self.sizes.get(size, size))))
            else:
                raise Unreadable(f"{self.source(item)}: nothing that follows depends on {index}")
        return body

    def largest(self, symbol: str, after: Sequence[Any]) -> tuple[Value, list[Any]]:
        """max(a, b): the larger of numbers, or of every entry."""
        atom, *scripts = after[0].children
        if atom.data not in ("round", "curly", "brackets", "square"):
            raise Unreadable(f"{symbol} {self.source(after[0])} lacks an index")
        parts = self.each(atom.children[0].children)
        if len(parts) < 2:
            raise Unreadable(f"{symbol}{self.source(after[0])}, expected several numbers")
        full = [part.shape for part in parts if part.rank]
        if len({*full}) > 1 or any(part.pending for part in parts):
            raise Unreadable(f"{symbol}{self.source(after[0])}, expected equal shapes")
        pick = jnp.maximum if symbol == r"\max" else jnp.minimum
        value = reduce(lambda a, b: aligned(pick, a, b), parts)
        return self.scripted(value, scripts, after[0]), list(after[1:])

    # Conditions

    def condition(self, clauses: Sequence[Any]) -> Value:
        """Whether all of some relations hold, as an array of booleans."""
        found = self.each(clauses, self._relation)
        return reduce(lambda a, b: aligned(jnp.logical_and, a, b), found)

    def _relation(self, clause: Any) -> Value:
        sums = [part for part in clause.children if hasattr(part, "data")]
        signs = [str(part) for part in clause.children if not hasattr(part, "data")]
        sums = [part for part in map(self._without_words, sums) if part is not None]
        if len(sums) != len(signs) + 1 or not signs or not {*signs} <= RELATIONS.keys():
            raise Unreadable(f"{self.source(clause)!r} is no condition")
        indices = [spelled(part) for part in sums]
        for one, other in (indices[:2], indices[1::-1]):
            if one in self.ranges and {one, other} <= {*self.bound}:
                self.learn(other, self.ranges[one])
        values, found = self.each(sums), list[Value]()
        for sign, left, right in zip(signs, values, values[1:], strict=False):
            if left.rank and right.rank and left.shape != right.shape:
                raise Unreadable(f"{self.source(clause)!r} compares {left} and {right}")
            found.append(aligned(RELATIONS[sign], left, right))
        return reduce(lambda a, b: aligned(jnp.logical_and, a, b), found)

    def _without_words(self, tree: Any) -> Any:
        """A sum without a leading "if"; None for words alone."""
        from lark import Tree

        if tree.data != "sum" or tree.children[0].data != "term":
            return tree
        term, *others = tree.children
        items = list(term.children)
        while items and items[0].children[0].data == "words":
            if not CONNECTED.fullmatch(spelled(items[0])) or r"\text" not in self.source(items[0]):
                break
            items = items[1:]
        if not items:
            return None
        return Tree("sum", [Tree("term", items, term.meta), *others], tree.meta)

    def indicator(self, item: Any, after: Sequence[Any]) -> tuple[Value, list[Any]] | None:
        """1[condition], or ones: a vector 1_n, a matrix 1_{n x m}; None for the number 1."""
        atom, *scripts = item.children
        below = [child for child in scripts if child.data == "sub"]
        number = atom.data == "number"
        if below:
            clauses = below[0].children[0].children
            if any(len(clause.children) > 1 for clause in clauses):
                return _number(self.condition(clauses)), list(after)
            value = self.ones(below[0], item)
            others = [child for child in scripts if child.data != "sub"]
            return self.scripted(value, others, item), list(after)
        bracket = after[0].children[0] if after and not scripts else None
        if bracket is not None and bracket.data in ("curly", "brackets", "square", "round"):
            clauses = bracket.children[0].children
            if any(len(clause.children) > 1 for clause in clauses):
                return _number(self.condition(clauses)), list(after[1:])
        if number:
            return None
        return self.scripted(Value(Fraction(1), pending="ones"), scripts, item), list(after)

    def ones(self, below: Any, item: Any) -> Value:
        """A vector or matrix of ones of stated sizes."""
        parts = list(re.split(r"\\times|,", spelled(below)[2:-1]))
        shape: list[Size] = []
        for part in parts:
            key = self.names.known(part.strip()) if not part.isdigit() else ""
            if key is None or not (part.isdigit() or key.startswith("size ")):
                raise Unreadable(f"{self.source(item)}: {part} is no size")
            shape.append(int(part) if part.isdigit() else key.removeprefix("size "))
        if len(shape) > 2:
            raise Unreadable(f"{self.source(item)}, expected a vector or a matrix of ones")
        return Value(jnp.ones([self.sizes.get(s, s) for s in shape]), (), tuple(shape))

    def masked(self, body: Value, clause: Any) -> Value:
        """A body with zeros where a condition is false."""
        condition = self.condition([clause])
        if condition.rank:
            raise Unreadable(f"{self.source(clause)!r} is a condition on {condition}")
        return aligned(lambda mask, value: jnp.where(mask, value, 0.0), condition, body)

    def _environment(self, tree: Any) -> Value:
        name, *rows, last = tree.children
        kind = str(name).removeprefix(r"\begin{").rstrip("*}")
        cells = [list(row.children) for row in rows]
        cells = [row for row in cells if any(cell.children for cell in row)]
        if not cells or str(last) != str(name).replace("begin", "end", 1):
            raise Unreadable(f"{self.source(tree)!r} is no environment")
        if kind in ("bmatrix", "pmatrix", "matrix"):
            if any(not cell.children for row in cells for cell in row):
                raise Unreadable(f"{self.source(tree)!r} has an empty entry")
            values = [self.each([cell.children[0] for cell in row]) for row in cells]
            if any(v.rank or v.indices for row in values for v in row):
                raise Unreadable(f"{self.source(tree)!r} has entries that are no numbers")
            if len({len(row) for row in values}) != 1:
                raise Unreadable(f"{self.source(tree)!r} has rows of several lengths")
            data = jnp.asarray([[array(value) for value in row] for row in values])
            if data.shape[1] == 1:
                return Value(data[:, 0], (), (len(data),))
            return Value(data, (), data.shape)
        if kind != "cases":
            raise Unreadable(f"{kind} is no environment that is known")
        return self.cases(cells, tree)

    def cases(self, rows: Sequence[Sequence[Any]], tree: Any) -> Value:
        """The first value with a true condition; the last condition is the remaining case."""
        if any(len(row) != 2 or not row[0].children or not row[1].children for row in rows):
            raise Unreadable(f"{self.source(tree)!r}, expected a value and a condition in each row")
        texts = [spelled(row[1]) for row in rows]
        last = bool(OTHERWISE.fullmatch(texts[-1]))
        if any(OTHERWISE.fullmatch(text) for text in texts[:-1]):
            raise Unreadable(f"{self.source(tree)!r}, expected otherwise in the last row")
        if not last and not (len(rows) == 2 and self._opposite(rows[0][1], rows[1][1])):
            raise Unreadable(f"{self.source(tree)!r} does not cover all cases, expected otherwise")
        with_conditions = [row[1].children[0].children for row in rows[:-1]]
        conditions: list[Value] = []

        def value_or_condition(part: Any) -> Value:
            return self.condition(part) if isinstance(part, list) else self.value(part)

        found = self.each(
            [row[0].children[0] for row in rows] + with_conditions, value_or_condition
        )
        values, conditions = found[: len(rows)], found[len(rows) :]
        shapes = {value.shape for value in values if value.rank}
        turned = {value.row for value in values if value.rank == 1}
        if len(shapes) > 1 or len(turned) > 1 or any(value.pending for value in values):
            raise Unreadable(f"{self.source(tree)!r} has values of several shapes")
        result = values[-1]
        for condition, value in zip(conditions[::-1], values[-2::-1], strict=True):
            if condition.rank and (condition.shape,) != (*shapes,):
                raise Unreadable(f"{self.source(tree)!r} has a condition on {condition}")
            result = aligned(jnp.where, condition, value, result)
        return result

    def _opposite(self, one: Any, other: Any) -> bool:
        """Whether two conditions are each other's negation."""
        found = []
        for cell in (one, other):
            if not cell.children or len(cell.children[0].children) != 1:
                return False
            clause = cell.children[0].children[0]
            if len(clause.children) != 3:
                return False
            left, sign, right = clause.children
            sides = [self._without_words(left), right]
            if sides[0] is None:
                return False
            found.append(([spelled(side) for side in sides], RELATIONS.get(str(sign))))
        (sides, sign), (others, opposite) = found
        if sign is None or opposite is None:
            return False
        direct = sides == others and OPPOSITE[sign] is opposite
        turned = sides == others[::-1] and OPPOSITE[sign] is TURNED.get(opposite, opposite)
        return direct or turned

    # Items: a symbol or a bracket, with scripts

    def resolved(self, item: Any) -> tuple[str | None, list[int]]:
        """The key of an item's symbol, and the places of the scripts outside the name."""
        atom, *scripts = item.children
        known = (*SYMBOLS, "number", "fraction")
        symbol, texts = spelled(atom), [spelled(script) for script in scripts]
        index = symbol + "".join(text for text in texts if text[0] == "'")
        if atom.data not in known or index in self.bound:
            return None, list(range(len(scripts)))
        return self.names.resolve(symbol, texts)

    def item(self, item: Any) -> Value:
        """The value of a symbol, number or bracket with scripts."""
        atom, *scripts = item.children
        symbol = spelled(atom)
        key, left = self.resolved(item)
        if key is not None:
            return self.scripted(self.lookup(key), [scripts[place] for place in left], item)
        if atom.data in SYMBOLS:
            return self.unknown(symbol, scripts, item)
        if atom.data == "fraction" and r"\partial" in symbol:
            key, entries = self._derivative(atom)
            value = self.indexed(self.lookup(key), entries, item) if entries else self.lookup(key)
            return self.scripted(value, scripts, item)
        if atom.data == "norm" and scripts and scripts[0].data == "sub":
            order = spelled(scripts[0])[2:-1]
            value = self.norm(self.value(atom.children[0]), order, item)
            return self.scripted(value, scripts[1:], item)
        return self.scripted(self.value(atom), scripts, item)

    def _derivative(self, atom: Any) -> tuple[str, list[Index]]:
        """The definition of a derivative, with the indices above and below."""
        symbol, entries = spelled(atom), list[Index]()
        for part in atom.iter_subtrees_topdown():
            inner = [part] if part.data == "square" else []
            if part.data == "item":
                inner = [script for script in part.children[1:] if script.data == "sub"]
            for script in inner:
                found = self._entries_or_none(script.children[0])
                if found and all(isinstance(entry.entry, str) for entry in found):
                    symbol = symbol.replace(spelled(script), "", 1)
                    entries += [entry._replace(above=False) for entry in found]
            if symbol in self.names.definitions:
                return symbol, entries
        if symbol not in self.names.definitions:
            raise Unreadable(f"{self.source(atom)} is not known, expected a where= for it")
        return symbol, entries

    def unknown(self, symbol: str, scripts: Sequence[Any], item: Any) -> Value:
        """The value of a symbol without declaration: e, pi, I, an index."""
        if symbol == "e" and scripts[:1] and scripts[0].data == "sup":
            exponent = self.value(scripts[0].children[0])
            return self.scripted(self.elementwise(r"\exp", exponent), scripts[1:], item)
        index = symbol + "'" * sum(script.data == "prime" for script in scripts)
        if index in self.bound:
            if index not in self.ranges:
                raise Unreadable(f"the index {index} runs over no known size")
            size = self.ranges[index]
            data = jnp.arange(1.0, 1.0 + int(self.sizes.get(size, size)))
            left = [script for script in scripts if script.data != "prime"]
            return self.scripted(Value(data, (index,)), left, item)
        if symbol in (r"\pi", "e") and not scripts:
            return Value(jnp.asarray(jnp.pi if symbol == r"\pi" else jnp.e))
        if symbol == r"\delta" and len(scripts) == 1 and scripts[0].data == "sub":
            entries = self.entries(scripts[0].children[0], above=False)
            if len(entries) == 2 and all(isinstance(e.entry, str) for e in entries):
                return self.kronecker(str(entries[0].entry), str(entries[1].entry), item)
        if symbol in ("I", r"\mathbb{I}") and not [s for s in scripts if s.data == "sup"]:
            return self.identity(scripts, item)
        raise Unreadable(
            f"{self.source(item)!r} is not known, expected an input, a size, an index, or a where= "
            "for it"
        )

    def kronecker(self, first: str, second: str, item: Any) -> Value:
        """1 where two indices are equal."""
        for one, other in ((first, second), (second, first)):
            if one in self.ranges:
                self.learn(other, self.ranges[one])
        if first not in self.ranges or first == second:
            raise Unreadable(f"{self.source(item)}: the index {first} runs over no known size")
        return Value(jnp.eye(int(self.sizes.get(self.ranges[first], 0))), (first, second))

    def identity(self, scripts: Sequence[Any], item: Any) -> Value:
        """I, or I_n."""
        if not scripts:
            return Value(Fraction(1), pending="identity")
        key = self.names.known(spelled(scripts[0])[2:-1])
        if len(scripts) > 1 or key is None or not key.startswith("size "):
            raise Unreadable(f"{self.source(item)} is not known, expected I or I_n of a size n")
        size = key.removeprefix("size ")
        return Value(jnp.eye(self.sizes[size]), (), (size, size))

    def lookup(self, key: str) -> Value:
        """The value of an input, a size or a definition."""
        if key.startswith("size "):
            return Value(Fraction(self.sizes[key.removeprefix("size ")]))
        if key in self.formulas and key not in self.values:
            if key in self.within:  # x_i as the definition of x is an entry of the input
                outer = Names(self.names.inputs, {}, {}).known(key)
                if outer is None:
                    raise Unreadable(f"{key} is defined by itself")
                return self.lookup(outer)
            self.values[key] = self.defined(key)
        value = self.values[key]
        if not isinstance(value, Value):
            raise Unreadable(f"{key} is a function, expected an argument in brackets")
        return value

    def defined(self, key: str) -> Value:
        """The value of a definition in LaTeX; the indices of h_i become axes of an array h."""
        indices = self.key_indices.get(key, ())
        state = self.bound, self.loose, self.entrywise
        self.within.append(key)
        self.bound, self.loose, self.entrywise = list(indices), not indices, False
        try:
            value = self(*self.formulas[key])
        finally:
            self.within.pop()
            self.bound, self.loose, self.entrywise = state
        if not indices or value.pending:
            return value
        if {*indices} != {*value.indices} or value.rank:
            raise Unreadable(f"{key}: the indices on the left side are not those on the right side")
        data = jnp.transpose(value.data, [value.indices.index(index) for index in indices])
        return Value(data, (), tuple(self.ranges[index] for index in indices))

    def _fraction(self, tree: Any) -> Value:
        above, below = self.each(tree.children[1:])
        return divided(above, below, self.sizes)

    def _root(self, tree: Any) -> Value:
        *degree, body = tree.children[1:]
        value = self.value(body)
        if degree:
            return self.power(value, Value(1 / Fraction(str(degree[0]))), tree)
        if value.square:
            raise Unreadable(f"{self.source(tree)!r} is the root of {value}")
        return aligned(jnp.sqrt, value)

    def _number(self, tree: Any) -> Value:
        text = str(tree.children[0])
        if len(text) > LONGEST_NUMBER:
            raise Unreadable(f"a number of {len(text)} characters")
        return Value(Fraction(text))

    def _inside(self, tree: Any) -> Value:
        return self.value(tree.children[0])

    _round = _braces = _inside

    def _square(self, tree: Any) -> Value:
        value = self.value(tree.children[0])
        return value if len(tree.children[0].children) == 1 else value._replace(row=True)

    _brackets = _square

    def _curly(self, tree: Any) -> Value:
        if len(tree.children[0].children) > 1:
            raise Unreadable(f"{self.source(tree)!r} is a set, expected a number or an array")
        return self.value(tree.children[0])

    def _bars(self, tree: Any) -> Value:
        value = self.value(tree.children[0])
        if value.rank == 0:
            return aligned(jnp.abs, value)
        square = value.rank == 2 and value.shape[0] == value.shape[1]
        number = r"one number, \det(...)" if square else r"one number, \|...\|_2"
        raise Unreadable(f"{self.source(tree)!r} has two readings: entry by entry, or {number}")

    def _norm(self, tree: Any) -> Value:
        value = self.value(tree.children[0])
        if value.rank == 2:
            raise Unreadable(
                rf"\|{self.source(tree.children[0])}\| of {value} has two readings: Frobenius's or "
                "the spectral norm; expected an index F or 2"
            )
        return self.norm(value, "2", tree)

    def norm(self, value: Value, order: str, tree: Any) -> Value:
        """A norm of a vector, or Frobenius's norm of a matrix."""
        if value.pending:
            raise Unreadable(f"the norm of {value}: the size is not known")
        if (value.rank, order) not in ((1, "1"), (1, "2"), (1, r"\infty"), (2, "F"), (0, "2")):
            raise Unreadable(f"{self.source(tree)!r}: no norm {order} of {value}")
        axes = tuple(range(len(value.indices), jnp.ndim(value.data)))
        data = array(value)
        if value.rank == 0:
            return aligned(jnp.abs, value)
        if order == "1":
            return Value(jnp.sum(jnp.abs(data), axes), value.indices)
        if order == r"\infty":
            return Value(jnp.max(jnp.abs(data), axes), value.indices)
        return Value(jnp.sqrt(jnp.sum(data**2, axes)), value.indices)

    def _inner(self, tree: Any) -> Value:
        parts = self.each(tree.children[0].children)
        if len(parts) != 2 or any(part.rank != 1 or part.row for part in parts):
            raise Unreadable(f"{self.source(tree)!r}, expected two vectors")
        return times(parts[0], parts[1], self.sizes, dot=True)

    # Scripts: indices first, then powers and transposes

    def scripted(self, value: Value, scripts: Sequence[Any], item: Any) -> Value:
        """A value with the indices, the powers and the transposes of its scripts."""
        entries: list[Index] = []
        powers: list[Any] = []
        for script in scripts:
            if script.data == "prime":
                raise Unreadable(f"{self.source(item)!r} is not known, expected a where= for it")
            if not script.children or script.children[0].data == "nothing":
                raise Unreadable(f"{self.source(item)!r} has an empty script")
            inside = script.children[0]
            if script.data == "sub":
                entries += self.entries(inside, above=False)
            else:
                found, left = self._superscript(inside)
                entries = found + entries
                powers += left
        if entries:
            if powers and value.rank == 2 and len(entries) == 2:
                for power in powers:
                    if isinstance(power, str) or spelled(power) == "-1":
                        raise Unreadable(
                            f"{self.source(item)!r} has two readings: the entry of the matrix with "
                            "the superscript, or the entry with the superscript"
                        )
            value = self.indexed(value, entries, item)
        for power in powers:
            value = self._raised(value, power, item)
        return value

    def _superscript(self, tree: Any) -> tuple[list[Index], list[Any]]:
        """The indices in parentheses of a superscript, and the power or transpose."""
        items = _row(tree)
        if items and items[0].children[0].data == "round" and len(items[0].children) == 1:
            found = self._entries_or_none(items[0].children[0].children[0])
            if found is not None and all(spelled(item) in TRANSPOSED for item in items[1:]):
                return found, [self._transpose(spelled(item)) for item in items[1:]]
        if tree.data == "command" and spelled(tree) in TRANSPOSED:
            return [], [self._transpose(spelled(tree))]
        text = spelled(tree)
        if text in TRANSPOSED:
            return [], [self._transpose(text)]
        if text.startswith("-") and text[1:] in TRANSPOSED:
            return [], [r"-\top"]
        return [], [tree]

    def _entries_or_none(self, inner: Any) -> list[Index] | None:
        try:
            return self.entries(inner, above=True)
        except Unreadable:
            return None

    def _transpose(self, text: str) -> str:
        if text == "T" and "T" in {*self.names.inputs, *self.names.sizes, *self.names.definitions}:
            raise Unreadable(r"^T has two readings: the transpose, ^\top, or the power T")
        return r"\top"

    def _raised(self, value: Value, power: Any, item: Any) -> Value:
        if isinstance(power, str):
            value = inverted(value) if power.startswith("-") else value
            return transposed(value)
        text = spelled(power)
        if text == "-1":
            return inverted(value)
        entry = re.fullmatch(r"\\(?:circ|odot)(\d+)", text)
        if entry:
            return aligned(lambda x: x ** int(entry[1]), value)
        if text in ("*", r"\dagger", r"\star", "+", r"\prime", r"\ast"):
            raise Unreadable(f"{self.source(item)!r} is not known, expected a where= for it")
        return self.power(value, self.value(power), item)

    def power(self, value: Value, exponent: Value, item: Any) -> Value:
        """A power: of a number, of every entry, of a square matrix."""
        if (exponent.rank and exponent.shape != value.shape) or value.pending:
            raise Unreadable(f"{self.source(item)!r}: {value} to the power of {exponent}")
        whole = isinstance(exponent.data, Fraction) and exponent.data.denominator == 1
        if whole and abs(exponent.data) > 100:
            raise Unreadable(f"{self.source(item)!r}: a power above 100")
        if value.square:
            if not whole or exponent.data < 1:
                raise Unreadable(f"{self.source(item)!r}: {value} to the power of {exponent}")
            return reduce(lambda a, b: times(a, b, self.sizes), [value] * int(exponent.data))
        if whole and isinstance(value.data, Fraction):
            if value.data == 0 and exponent.data < 0:
                raise Unreadable("a division by zero")
            digits = max(len(str(value.data.numerator)), len(str(value.data.denominator)))
            if digits * abs(exponent.data) > LARGEST_POWER:
                raise Unreadable(f"{self.source(item)!r}: a number too large for float64")
            return Value(value.data ** int(exponent.data))
        if whole:
            return aligned(lambda x: x ** int(exponent.data), value)
        if isinstance(exponent.data, Fraction) and exponent.data == Fraction(1, 2):
            return aligned(jnp.sqrt, value)
        return aligned(jnp.power, value, exponent)

    # Indices

    def entries(self, tree: Any, above: bool) -> list[Index]:
        """The indices in a script, such as i and j of ``ij``.

        Raises:
          Unreadable: an expression such as i + 1.
        """
        found: list[Index] = []
        for item in _row(tree, several=True):
            atom, *scripts = item.children
            text, primes = spelled(atom), "".join(spelled(s) for s in scripts if s.data == "prime")
            if len(primes) < len(scripts):
                raise Unreadable(f"the index {self.source(tree)!r}")
            if atom.data == "number" and text.isdigit() and not primes:
                found.append(Index(int(text), above))
            elif atom.data == "letters":
                found += [Index(letter, above) for letter in text[:-1]]
                found.append(Index(text[-1] + primes, above))
            elif text in (r"\cdot", "*", ":"):
                found.append(Index(None, above))
            elif text in GREEK_INDICES:
                found.append(Index(text + primes, above))
            else:
                raise Unreadable(f"{self.source(tree)!r} is no index")
        if not found:
            raise Unreadable(f"{self.source(tree)!r} is no index")
        return found

    def indexed(self, value: Value, entries: Sequence[Index], item: Any) -> Value:
        """The entries of a vector or matrix; rows or columns if an index is missing."""
        if value.pending or len(entries) > len(value.shape):
            raise Unreadable(f"{self.source(item)!r}: {len(entries)} indices of {value}")
        for entry in entries:
            name = entry.entry
            if isinstance(name, str) and name not in self.bound and not self.loose:
                raise Unreadable(
                    f"{self.source(item)!r}: the index {name} is on no left side and below no sum, "
                    f"expected a left side such as f_{name} = ..."
                )
        axes = self.axes(value, entries, item)
        data, shape = value.data, list(value.shape)
        taken: list[tuple[int, str]] = []
        first = len(value.indices)
        for entry, axis in sorted(zip(entries, axes, strict=True), key=lambda pair: -pair[1]):
            if isinstance(entry.entry, int):
                size = shape.pop(axis)
                if not 1 <= entry.entry <= int(self.sizes.get(size, size)) or isinstance(size, str):
                    raise Unreadable(
                        f"{self.source(item)!r}: the entry {entry.entry} of {value}, expected an "
                        "index, or a number within a fixed size"
                    )
                data = jnp.take(data, entry.entry - 1, axis=first + axis)
            elif entry.entry is not None:
                self.learn(entry.entry, shape[axis])
                taken.append((axis, entry.entry))
        removed = [axis for e, axis in zip(entries, axes, strict=True) if isinstance(e.entry, int)]
        taken = [(axis - sum(r < axis for r in removed), name) for axis, name in taken]
        names = [name for _, name in sorted(taken)]
        places = [axis for axis, _ in sorted(taken)]
        left = [axis for axis in range(len(shape)) if axis not in places]
        order = [
            *range(first),
            *(first + axis for axis in places),
            *(first + axis for axis in left),
        ]
        data = jnp.transpose(data, order)
        indices = (*value.indices, *names)
        kept = tuple(shape[axis] for axis in left)
        return _without_doubles(Value(data, indices, kept, value.row and len(kept) == 1))

    def axes(self, value: Value, entries: Sequence[Index], item: Any) -> list[int]:
        """The axis of every index: by place; by the sizes if an index is missing."""
        rank = len(value.shape)
        mixed = len({entry.above for entry in entries}) > 1
        if len(entries) == rank and not mixed:
            return list(range(rank))
        fits = [
            list(axes)
            for axes in permutations(range(rank), len(entries))
            if all(
                not isinstance(entry.entry, str)
                or self.ranges.get(entry.entry, value.shape[axis]) == value.shape[axis]
                for entry, axis in zip(entries, axes, strict=True)
            )
        ]
        if not fits:
            raise Unreadable(f"{self.source(item)!r}: the indices do not fit {value}")
        if len(fits) == 1 or (mixed and len(entries) == rank):
            return fits[0]
        symbol = spelled(item.children[0])
        if rank > 2 or symbol.startswith(r"\frac"):
            return fits[0]
        raise Unreadable(
            f"{self.source(item)!r} of {value} has two readings: a row, or a column; expected "
            f"where= to give the index its size"
        )

    def bracketed(self, item: Any, entries: list[Index], scripts: Sequence[Any]) -> Value:
        """y[k]: an entry, with the scripts of the bracket."""
        value = self.indexed(self.item(item), entries, item)
        return self.scripted(value, scripts, item)


_Segment = tuple[list[Value], list[str]]
"""Factors between two signs of a product entry by entry, with the signs before each."""


def _segments(operands: Sequence[Value], signs: Sequence[str]) -> list[_Segment]:
    found: list[_Segment] = []
    for value, sign in zip(operands, signs, strict=True):
        if not found or sign in ENTRYWISE:
            found.append(([], []))
        found[-1][0].append(value)
        found[-1][1].append("" if sign in ENTRYWISE else sign)
    return found


def _attempt(reading: Callable[[], Value]) -> Value | Unreadable:
    try:
        return reading()
    except Unreadable as error:
        return error


def _slope(function: Callable[..., Any]) -> Callable[[jax.Array], jax.Array]:
    return lambda x: jax.jvp(function, (x,), (jnp.ones_like(x),))[1]


def _number(condition: Value) -> Value:
    return condition._replace(data=jnp.where(condition.data, 1.0, 0.0))


def _without_doubles(value: Value) -> Value:
    """The diagonal for an index that stands twice, as in x_{ii}."""
    for index in value.indices:
        places = [place for place, other in enumerate(value.indices) if other == index]
        if len(places) > 1:
            data = jnp.moveaxis(
                jnp.diagonal(value.data, axis1=places[0], axis2=places[1]), -1, places[0]
            )
            left = [other for place, other in enumerate(value.indices) if place != places[1]]
            return _without_doubles(value._replace(data=data, indices=tuple(left)))
    return value


def _row(tree: Any, several: bool = False) -> list[Any]:
    """The items of a script that is a single term, or of several separated by commas."""
    if not hasattr(tree, "children"):
        return []
    if tree.data not in ("clauses", "clause", "sum", "term", "item"):
        from lark import Tree

        return [Tree("item", [tree], tree.meta)]
    if tree.data == "term":
        return list(tree.children)
    if tree.data == "item":
        return [tree]
    if any(not hasattr(child, "data") for child in tree.children):
        return []
    if len(tree.children) > 1 and not (several and tree.data == "clauses"):
        return []
    return [item for child in tree.children for item in _row(child, several)]


def script_letters(tree: Any) -> list[str]:
    """The letters of a script, possible indices, each with the primes."""
    found: list[str] = []
    for part in tree.iter_subtrees_topdown():
        if part.data == "item" and part.children[0].data in ("letters", "command"):
            atom, *scripts = part.children
            text = spelled(atom)
            primes = "".join(spelled(script) for script in scripts if script.data == "prime")
            other = any(script.data != "prime" for script in scripts)
            if other or (atom.data == "command" and text not in GREEK_INDICES):
                continue
            letters = [text] if atom.data == "command" else list(text)
            found += [*letters[:-1], letters[-1] + primes]
    return found


def _part(meta: Any, place: int) -> Any:
    """The place of a letter among letters."""
    part = _between(meta, meta)
    part.start_pos += place
    part.end_pos = part.start_pos + 1
    return part


__all__ = ["Evaluation", "Formula", "Names", "Unreadable", "Value", "parsed", "settled", "summed"]
