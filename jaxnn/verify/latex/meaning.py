"""The meaning of a formula in LaTeX: symbols are inputs, sizes or definitions, letters indices.

A formula with two meanings is refused, with both readings.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from fractions import Fraction
from functools import cache, partial, reduce
from importlib.resources import files
from itertools import accumulate, combinations, pairwise, permutations
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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
    "exp": jnp.exp, "log": jnp.log, "ln": jnp.log, "sin": jnp.sin, "cos": jnp.cos, "tan": jnp.tan,
    "sinh": jnp.sinh, "cosh": jnp.cosh, "tanh": jnp.tanh, "sech": lambda x: 1 / jnp.cosh(x),
    "arcsin": jnp.arcsin, "arccos": jnp.arccos, "arctan": jnp.arctan, "erf": jax.scipy.special.erf,
    "sigma": losses.sigmoid, "sigmoid": losses.sigmoid, "softplus": jax.nn.softplus,
    "relu": lambda x: jnp.maximum(x, 0), "ReLU": lambda x: jnp.maximum(x, 0),
    "sign": jnp.sign, "sgn": jnp.sign, "abs": jnp.abs,
}  # fmt: skip
"""Functions of every entry."""

UNCLEAR = ("exp", "log", "ln", "sin", "cos")
"""Functions with another meaning for square matrices."""

_TRACE: dict[int, Callable[..., Any]] = {2: partial(jnp.trace, axis1=-2, axis2=-1)}

OF_ARRAYS: dict[str, dict[int, Callable[..., Any]]] = {
    "softmax": {1: partial(losses.softmax, axis=-1)},
    "diag": {
        1: lambda a: a[..., None] * jnp.eye(a.shape[-1]),
        2: partial(jnp.diagonal, axis1=-2, axis2=-1),
    },
    "det": {2: jnp.linalg.det},
    **dict.fromkeys(("tr", "Tr", "trace"), _TRACE),
}
"""Functions of vectors and square matrices, by the name and the rank."""

ENTRYWISE = (r"\odot", r"\circ")
"""Signs of products entry by entry."""

GATHERED: dict[str, tuple[Callable[..., Any], float]] = {
    r"\sum": (jnp.sum, 0.0), r"\prod": (jnp.prod, 1.0),
    r"\max": (jnp.max, -jnp.inf), r"\min": (jnp.min, jnp.inf),
}  # fmt: skip
"""Functions over an index, each with the number that changes nothing."""

SUMS, LARGEST = (r"\sum", r"\prod"), (r"\max", r"\min")

RELATIONS: dict[str, Callable[..., Any]] = {
    "=": jnp.equal, "<": jnp.less, ">": jnp.greater, r"\ne": jnp.not_equal,
    r"\neq": jnp.not_equal, r"\le": jnp.less_equal, r"\leq": jnp.less_equal,
    r"\leqslant": jnp.less_equal, r"\ge": jnp.greater_equal, r"\geq": jnp.greater_equal,
    r"\geqslant": jnp.greater_equal, r"\lt": jnp.less, r"\gt": jnp.greater,
}  # fmt: skip

GREEK_INDICES = (r"\ell", r"\alpha", r"\beta", r"\mu", r"\nu")
BRACKETS = ("round", "brackets", "square", "curly")
SYMBOLS = ("letters", "command", "words", "accent", "font", "gradient")
"""Kinds of atoms that are symbols."""

TRANSPOSED = (r"\top", "T", r"\intercal", r"\mathsf{T}", r"\mathrm{T}", r"\mathsf{\top}")
SAME = {r"\widehat": r"\hat", r"\widetilde": r"\tilde", r"\overline": r"\bar"}
PLAIN_FONTS = (r"\mathbf", r"\boldsymbol", r"\bm", r"\vec", r"\mathit", r"\mathsf")
NORMS: dict[tuple[int, str], Callable[..., Any]] = {
    (1, "1"): lambda a, axes: jnp.sum(jnp.abs(a), axes),
    (1, "2"): lambda a, axes: jnp.sqrt(jnp.sum(a**2, axes)),
    (1, r"\infty"): lambda a, axes: jnp.max(jnp.abs(a), axes),
    (2, "F"): lambda a, axes: jnp.sqrt(jnp.sum(a**2, axes)),
}
"""Norms by the rank and the index below."""

OTHERWISE = re.compile(r"\s*(otherwise|else|sonst)\.?\s*")


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


def parsed(latex: str, words: Collection[str] = ()) -> Formula:
    """The tree of a formula; ``words`` are the symbols of several letters.

    Raises:
      Unreadable: too long, too deep, prose, or no formula; the message has the place.
    """
    require("verify", "lark")
    from lark.exceptions import UnexpectedCharacters, UnexpectedInput

    if len(latex) > LONGEST:
        raise Unreadable(f"{len(latex):,} characters, expected at most {LONGEST:,}")
    items = len(re.findall(r"\\[A-Za-z]+|[A-Za-z|]|\d+", latex))
    if items > MOST_ITEMS:
        raise Unreadable(f"{items:,} symbols, expected at most {MOST_ITEMS:,}")
    text = _normalised(latex)
    defined = re.findall(r"([A-Za-z]{2,})(?:[_^]\{[^{}]*\})*\s*=", text)
    text = re.sub(r"\\(?:begin|end|math\w+|operatorname\*?|text\w*|mbox)\s*\{[^{}]*\}|\\?[A-Za-z]+",
                  partial(_spaced, {*words, *defined}), text)  # fmt: skip
    if dots := re.search(r"\\[lcdv]?dots\w*|\.\.\.|…", text):
        raise Unreadable(f"{dots[0]} leaves out a part")
    steps = [(c in "([{") - (c in ")]}") for c in re.sub(r"\\[{}]", "(", text)]
    highest = max(accumulate(steps), default=0)
    if highest > DEEPEST:
        raise Unreadable(f"{highest} brackets within brackets, expected at most {DEEPEST}")
    try:
        return Formula(text, _grammar().parse(text).children[0])
    except UnexpectedInput as error:
        ended = getattr(getattr(error, "token", None), "type", "") == "$END"
        rest = "the end" if ended else repr(text[error.pos_in_stream or 0 :][:12])
        kind = "no LaTeX" if isinstance(error, UnexpectedCharacters) else "no formula"
        raise Unreadable(f"{kind} at {rest}") from None


def _spaced(words: Collection[str], found: re.Match[str]) -> str:
    """Letters side by side as a product, unless they are the name of a symbol."""
    if found[0][0] == "\\" or len(found[0]) == 1:
        return found[0]
    if found[0] in words and all(letter in words for letter in found[0]):
        raise Unreadable(
            f"{found[0]} has two readings: the symbol {found[0]}, or a product of its letters"
        )
    return found[0] if found[0] in words else " ".join(found[0])


def _normalised(latex: str) -> str:
    """The formula without spacing, sizes of brackets and optional braces."""
    text = "".join(map(_in_latex, latex)).strip().strip("$").strip()
    text = re.sub(r"^\\[\[(]|\\[\])]$", "", text).strip().rstrip(" .,;")
    text = _of_one_step(_without_alignment(text).replace(r"\Vert", r"\|").replace(r"\vert", "|"))
    text = re.sub(r"[,;.]\s*(?=\\\\|&|\\end)", " ", text)
    text = re.sub(r"&\s*\\text\s*\{\s*(if|for|when|where|with)?\s*\}", "& ", text)
    text = re.sub(r"\\quad\s*\\text\s*\{\s*(where|with|and)\s*\}", r"\\quad ", text)
    text = re.sub(r"\\substack\s*\{([^{}]*)\\\\([^{}]*)\}", r"\1, \2", text)
    text = re.sub(r"(\([^()|]*?)(?:\\\||\\mid\b|\|)([^()|]*\))", r"\1, \2", text)
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


def _of_one_step(text: str) -> str:
    r"""A step such as ``w_{t+1} = w_t - \\eta g_t`` without the time t."""
    left, equals, right = text.partition("=")
    step = re.search(r"^(.*?)([_^])\{\(?([A-Za-z]) *\+ *1\)?\}\s*$", left)
    if step is None:
        return text
    symbol, script, time = step.groups()
    now = rf"{re.escape(script)}(\{{\(?{time}\)?\}}|{time}(?![A-Za-z]))"
    if not re.search(re.escape(symbol) + now, right):
        return text
    return symbol + equals + re.sub(now, "", right)


UNICODE = {
    "\u2211": r"\sum ", "\u220f": r"\prod ", "\u00b7": r"\cdot ", "\u22c5": r"\cdot ",
    "\u2212": "-", "\u2016": r"\|", "\u2202": r"\partial ", "\u2207": r"\nabla ",
    "\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\ne ", "\u2299": r"\odot ",
    "\u00d7": r"\times ", "\u1d40": r"^\top ", "\u22a4": r"\top ", "\u27e8": r"\langle ",
    "\u27e9": r"\rangle ", "\u221e": r"\infty ",
}  # fmt: skip
"""Signs that are no ASCII, in LaTeX."""


def _in_latex(character: str) -> str:
    """A Greek letter, a sign or a small digit in LaTeX."""
    if character.isascii() or character in UNICODE:
        return UNICODE.get(character, character)
    kind, _, name = unicodedata.name(character, "").rpartition(" LETTER ")
    if kind in ("GREEK SMALL", "GREEK CAPITAL"):
        name = name.replace("LAMDA", "LAMBDA")
        return rf"\{name.lower() if kind.endswith('SMALL') else name.title()} "
    if unicodedata.category(character) == "No":
        script = "^" if "SUPERSCRIPT" in unicodedata.name(character) else "_"
        return f"{script}{{{unicodedata.normalize('NFKD', character)}}}"
    return character


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
    if kind == "gradient":
        return " ".join(parts)
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
        return _scripted(parts[0], parts[1:])
    brackets = {"round": "()", "square": "[]", "brackets": "[]", "curly": "{}"}
    if kind in brackets:
        return "".join(parts).join(brackets[kind])
    if kind == "fraction":
        return rf"\frac{{{parts[1]}}}{{{parts[2]}}}"
    return ("," if kind in ("clauses", "cell") else "").join(parts)


def _scripted(symbol: str, scripts: Sequence[str]) -> str:
    """A symbol with primes first, then indices and powers."""
    return symbol + "".join(sorted(scripts, key=lambda text: "'_^".index(text[0])))


def plain(symbol: str) -> str:
    """The name of a symbol, without the backslash."""
    return symbol.removeprefix("\\")


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
    name = plain(symbol).removeprefix("var" if symbol[:1] == "\\" else "")
    return [name.replace(" ", "_")]


class Names:
    """The symbols known to a formula.

    Args:
      inputs: by name, the shapes of the inputs in names of sizes.
      declared: by spelled symbol the key of a definition, ``input x`` or ``size n``.
      classes: by key, ``input y``, the number of classes of a label.
    """

    def __init__(
        self,
        inputs: Mapping[str, tuple[Size, ...]],
        declared: Mapping[str, str],
        classes: Mapping[str, Size],
    ):
        self.inputs, self.declared, self.classes = inputs, declared, classes
        shapes = inputs.values()
        self.sizes = {size for shape in shapes for size in shape if isinstance(size, str)}

    def known(self, symbol: str, scripts: Sequence[str] = ()) -> str | None:
        """The key of a definition, ``input x``, ``size n``, or None."""
        full = _scripted(symbol, scripts)
        if full in self.declared:
            return self.declared[full]
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
        name = _scripted(symbol, [scripts[n] for n in range(len(scripts)) if n not in left])
        if others and name not in self.declared:
            raise Unreadable(
                f"{symbol}{''.join(scripts)} has two readings: the {key}, or {others[-1][0]} with "
                "an index or a power"
            )
        return key, left


# Evaluation


class Evaluation:
    """The values of formulas at given inputs.

    Args:
      names: the symbols.
      formulas: the definitions in LaTeX, by spelled symbol, with indices such as i of h_i.
      values: inputs and definitions as arrays, by key as of ``Names.known``.
      sizes: the number of every named size.
      ranges: the size of the range of every index; grows while formulas are evaluated.
      free: indices on the left side.
    """

    def __init__(
        self,
        names: Names,
        formulas: Mapping[str, tuple[Formula, "Tree", tuple[str, ...]]],
        values: Mapping[str, Value | Callable[..., Any]],
        sizes: Mapping[str, int],
        ranges: dict[str, Size],
        free: Sequence[str] = (),
    ):
        self.names, self.formulas, self.values = names, formulas, dict(values)
        self.sizes: dict[Size, int] = {**sizes}
        self.ranges, self.bound, self.loose = ranges, list(free), False
        self.formula, self.within, self.entrywise = Formula("", None), list[str](), False
        self.starts, self.masks = dict[str, int](), list[Value]()

    def __call__(self, formula: Formula, tree: Any) -> Value:
        """The value of a clause, sum, term, item or atom."""
        before, self.formula = self.formula, formula
        try:
            return self.value(tree)
        finally:
            self.formula = before

    def value(self, tree: Any) -> Value:
        """The value of a part of the tree."""
        if tree.data == "item":
            return self.term([tree], tree)
        return getattr(self, f"_{tree.data}", self._no_value)(tree)

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
        """A value; of numbers and vectors between commas the joined vector."""
        if len(tree.children) == 1:
            return self.value(tree.children[0])
        parts = self.each(tree.children)
        if any(part.rank > 1 or part.pending or part.indices for part in parts):
            raise Unreadable(f"{self.source(tree)!r} is a list, expected numbers or vectors")
        if len({part.row for part in parts if part.rank}) > 1:
            raise Unreadable("a list of rows and columns")
        data = jnp.concatenate([jnp.atleast_1d(array(part)) for part in parts])
        return Value(data, (), (len(data),), any(part.row for part in parts))

    def _clause(self, tree: Any) -> Value:
        if len(tree.children) > 1:
            raise Unreadable(f"{self.source(tree)!r} is an equation, expected a value")
        return self.value(tree.children[0])

    def _sum(self, tree: Any) -> Value:
        terms, signs = sides_of(tree)
        if not terms:
            raise Unreadable(f"{self.source(tree)!r} is a sign alone")
        if r"\pm" in signs or r"\mp" in signs:
            raise Unreadable(f"{self.source(tree)!r} has two readings: + and -")
        signs = signs if len(signs) == len(terms) else ["+", *signs]
        terms, signs = _with_negative_bodies(terms, signs)
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
        rest = list(items)
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
                rest = [] if self.takes_more(rest[0]) else rest[1:]
            waiting = ""
        if errors:
            raise errors[0]
        if waiting:
            raise Unreadable(f"{self.source(tree)!r}: {waiting} lacks a factor")
        return self.product(operands, signs, tree)

    def takes_more(self, item: Any) -> bool:
        """Whether an item is a sum or a function, and takes later factors."""
        symbol = spelled(item.children[0])
        return symbol in GATHERED or plain(symbol) in {*FUNCTIONS, *OF_ARRAYS}

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
            return divided(numerator, operands[-1])
        if r"\otimes" in signs:
            raise Unreadable(
                f"{self.source(tree)!r} has two readings: the outer product, or Kronecker's"
            )
        counts = [0]
        for value, sign in zip(operands, signs, strict=True):
            counts += [0] if sign in ENTRYWISE else []
            counts[-1] += value.rank > 0
        orders = (False, True) if len(counts) > 1 and max(counts) > 1 else (False,)
        readings = [_attempt(partial(self.grouped, operands, signs, n, tree)) for n in orders]
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

    def grouped(
        self, operands: Sequence[Value], signs: Sequence[str], entries_first: bool, tree: Any
    ) -> Value:
        """A product: products entry by entry first, or products of linear algebra first."""
        parts, between = list[Value](), list[str]()
        for value, sign in zip(operands, signs, strict=True):
            if parts and (sign in ENTRYWISE) == entries_first:
                parts[-1] = self.multiplied(parts[-1], value, sign, tree)
            else:
                parts.append(value)
                between.append(sign)
        result = parts[0]
        for value, sign in zip(parts[1:], between[1:], strict=True):
            result = self.multiplied(result, value, sign, tree)
        return result

    def multiplied(self, a: Value, b: Value, sign: str, tree: Any) -> Value:
        """The product of two factors with a sign between."""
        both = a.rank and b.rank
        if sign in ENTRYWISE:
            return entrywise(a, b, self.sizes)
        if sign in (r"\times", "*", r"\ast") and both:
            raise Unreadable(f"{self.source(tree)!r}: {sign} of {a} and {b}")
        if self.entrywise and both and a.shape == b.shape and not sign:
            return entrywise(a, b, self.sizes)
        try:
            return times(a, b, self.sizes, sign == r"\cdot")
        except Unreadable as error:
            raise Unreadable(f"{self.source(tree)!r}: {error}") from None

    def factor(self, rest: Sequence[Any], tree: Any) -> tuple[Value, list[Any]]:
        """The value of the first factor, and the items that remain."""
        item, *after = rest
        symbol = spelled(item.children[0])
        key, _ = self.resolved(item)
        if after and item.children[0].data not in ("round", "number"):
            applied = spelled(item) + spelled(after[0].children[0])
            if applied in self.names.declared:
                value = self.lookup(self.names.declared[applied])
                inner = [i for i in script_letters(after[0].children[0]) if i in self.bound]
                if inner and len(value.shape) >= len(inner):  # h(x^{(i)}) of an array of all h
                    value = self.indexed(value, inner, item)
                return self.scripted(value, after[0].children[1:], item), after[1:]
        if key is None and symbol in GATHERED:
            return self.gathered(symbol, item, after, tree)
        if key is None and symbol in (r"\mathbb{1}", r"\mathbf{1}", "1", r"\mathbbm{1}"):
            found = self.indicator(item, after)
            if found:
                return found
        function = self.function(item)
        if function is None and key is not None and after:
            self.refuse_application(item, after[0], key)
        if function:
            return self.applied(function, item, after, tree)
        if after and after[0].children[0].data == "square" and key is not None:
            entries = self.entries(after[0].children[0].children[0])
            if all(isinstance(e, int) or e in self.ranges or not self._key(e) for e in entries):
                value = self.indexed(self.item(item), entries, item)
                return self.scripted(value, after[0].children[1:], item), after[1:]
        return self.item(item), after

    def refuse_application(self, item: Any, following: Any, key: str) -> None:
        r"""Refuses f(x) of an input f, and \\sigma(...) beside an input sigma."""
        bracket = following.children[0]
        if bracket.data not in ("round", "brackets", "square") or len(item.children) > 1:
            return
        clauses = bracket.children[0].children
        alone = [part for clause in clauses for part in row_of(clause)]
        name = len(alone) == 1 and alone[0].children[0].data in SYMBOLS
        function = plain(spelled(item)) in FUNCTIONS and key.startswith("input ")
        if function or (bracket.data == "round" and (name or len(clauses) > 1)):
            text = f"{self.source(item)}{self.source(following)}"
            raise Unreadable(
                f"{text!r} has two readings: a function, or a product with {key}; expected "
                r"\cdot between the factors of a product"
            )

    # Functions

    def function(self, item: Any) -> "Callable[[Value], Value] | None":
        """The function named by an item, with a power or a prime; None for other items."""
        atom, *scripts = item.children
        symbol = spelled(atom)
        key, _ = self.resolved(item)
        own = self.values.get(key or "")
        if callable(own):
            found = partial(aligned, own)
        elif key is None and plain(symbol) in FUNCTIONS:
            found = partial(self.elementwise, symbol)
        elif key is None and plain(symbol) in OF_ARRAYS:
            found = partial(self.of_array, symbol)
        else:
            return None
        then: Callable[[Value], Value] = lambda value: value  # noqa: E731
        for script in scripts:
            text = spelled(script)
            number = Value(Fraction(text[2:-1])) if text[2:-1].isdigit() else None
            of_numbers = own if callable(own) else FUNCTIONS.get(plain(symbol))
            if text == "'" and of_numbers:
                found = partial(aligned, _slope(of_numbers))
            elif script.data == "sup" and number:
                then = partial(self.power, exponent=number, item=item)
            elif symbol == r"\log" and script.data == "sub" and number:
                found = partial(self.logarithm, number)
            elif text == "^{-1}":
                raise Unreadable(
                    f"{self.source(item)} has two readings: the inverse, or 1 / {symbol}"
                )
            else:
                raise Unreadable(f"{self.source(item)} is no function that is known")
        return lambda value: then(found(value))

    def logarithm(self, base: Value, value: Value) -> Value:
        """The logarithm to a base."""
        return divided(self.elementwise("log", value), aligned(jnp.log, base))

    def elementwise(self, symbol: str, value: Value) -> Value:
        """A function of every entry."""
        name = plain(symbol)
        if value.square and name in UNCLEAR:
            raise Unreadable(
                f"{symbol} of {value} has two readings: of every entry, or of the matrix"
            )
        if value.pending:
            raise Unreadable(f"{symbol} of {value}: the size is not known")
        return aligned(FUNCTIONS[name], value)

    def of_array(self, symbol: str, value: Value) -> Value:
        """softmax, trace, determinant, diag."""
        name, of = plain(symbol), OF_ARRAYS[plain(symbol)].get(value.rank)
        if value.pending or value.rank == 0:
            raise Unreadable(f"{name} of {value}, expected a vector or matrix of known size")
        if of is None and name == "softmax":
            raise Unreadable(f"softmax of {value} has two readings: of rows, or of columns")
        if of is None or (value.rank == 2 and not value.square):
            raise Unreadable(f"{name} of {value}, expected a square matrix")
        data = of(value.data)
        shape = value.shape[:1] * (jnp.ndim(data) - len(value.indices))
        return Value(data, value.indices, shape, value.row and name == "softmax")

    def applied(
        self, function: Callable[[Value], Value], item: Any, after: Sequence[Any], tree: Any
    ) -> tuple[Value, list[Any]]:
        """A function of the next bracket, or of the next factor if no other factor follows."""
        if not after or self.sign_of(after[0]):
            raise Unreadable(f"{self.source(item)!r} lacks an argument")
        atom, *scripts = after[0].children
        if atom.data in (*BRACKETS, "braces"):
            argument = self.value(atom.children[0])
            value = function(argument)
            raised = [script for script in scripts if script.data == "sup"]
            if raised and plain(spelled(item.children[0])) in UNCLEAR:
                raise Unreadable(
                    f"{self.source(item)}{self.source(after[0])} has two readings: the power of "
                    "the function, or of the argument"
                )
            return self.scripted(value, scripts, after[0]), list(after[1:])
        value, left = self.factor(after, tree)
        if left and self.function(left[0]) is None and not self.takes_more(left[0]):
            raise Unreadable(
                f"{self.source(tree)!r} has two readings: {self.source(item)} of one factor, or of "
                "all that follow; expected brackets"
            )
        return function(value), left

    # Sums, products, largest entries

    def gathered(
        self, symbol: str, item: Any, after: Sequence[Any], tree: Any
    ) -> tuple[Value, list[Any]]:
        """A sum or product over indices of all later factors; max and min of the next factor."""
        if not after:
            raise Unreadable(f"{self.source(item)!r} lacks a body")
        scripts = {child.data: child for child in item.children[1:]}
        if symbol in LARGEST and "sub" not in scripts:
            return self.largest(symbol, after)
        neutral = GATHERED[symbol][1]
        state = [*self.bound], {**self.starts}, self.masks, self.entrywise
        try:
            indices, conditions = self.bounds(scripts.get("sub"), scripts.get("sup"), item)
            self.entrywise = not indices or self.entrywise
            found = [_attempt(condition) for condition in conditions]
            masks = [mask for mask in found if isinstance(mask, Value)]
            self.masks = self.masks + [m for m in masks if isinstance(m.data, np.ndarray)]
            body, left = self.factor(after, tree) if symbol in LARGEST else (None, [])
            if left and not self.sign_of(left[0]):
                raise Unreadable(f"{self.source(tree)!r} has two readings: expected brackets")
            body = self.term(after, tree) if body is None else body
            for error in found:
                if isinstance(error, Unreadable):
                    raise error
            for mask in masks:
                if mask.rank:
                    raise Unreadable(f"{self.source(item)!r} has a condition on {mask}")
                if not isinstance(mask.data, np.ndarray) or not np.all(mask.data):
                    body = aligned(lambda keep, a: jnp.where(keep, a, neutral), mask, body)
        finally:
            self.bound, self.starts, self.masks, self.entrywise = state
        return self.reduced(symbol, body, indices, "sup" in scripts, item), left

    def bounds(
        self, below: Any, above: Any, item: Any
    ) -> tuple[list[str], list[Callable[[], Value]]]:
        """Binds the indices below a sum; the indices, and conditions such as j != i."""
        indices: list[str] = []
        conditions: list[Callable[[], Value]] = []
        for clause in below.children[0].children if below else ():
            sides, signs = sides_of(clause)
            if signs in ([], ["="]):
                listed = self.entries(sides[0])
                if not all(isinstance(entry, str) for entry in listed):
                    raise Unreadable(f"{self.source(item)} lacks an index")
                for index in listed:
                    if index in self.bound:
                        raise Unreadable(
                            f"{self.source(item)}: the index {index} is in use outside"
                        )
                if signs and (not above or len(listed) > 1):
                    raise Unreadable(f"{self.source(item)}, expected an index from 1 to a size")
                lower = sides[1] if signs else None
                if above:
                    conditions += [partial(self.limits, i, lower, above, item) for i in listed]
            elif {*signs} <= RELATIONS.keys():
                listed = [self._entry(side) for side in sides]
                listed = [e for e in listed if isinstance(e, str) and e not in self.bound
                          and (e is listed[0] or self.names.known(e) is None)]  # fmt: skip
                conditions.append(partial(self.condition, [clause]))
            else:
                raise Unreadable(f"{self.source(item)}: the range is not readable")
            if len({*listed}) < len(listed):
                raise Unreadable(f"{self.source(item)} names an index twice")
            indices += listed
            self.bound += listed
        if not indices and (below or above):
            raise Unreadable(f"{self.source(item)} lacks an index")
        return indices, conditions

    def limits(self, index: str, lower: Any, upper: Any, item: Any) -> Value:
        """Learns the range of an index from the limits of a sum; whether the index is within."""
        spans = [self.span(self._entry(part)) for part in upper.find_data("item")]
        names = {span for span in spans if span is not None}
        high, text = self.constant(upper), spelled(upper)[2:-1]
        names = names or {int(text)} if text.isdigit() else names
        start = 0 if lower is not None and spelled(lower) == "0" else 1
        if high is None or len(names) != 1:
            raise Unreadable(f"{self.source(item)}: {text} is no size")
        (size,) = names
        last = self.number(size) + start - 1
        if np.any(high.data > last) or np.any(high.data % 1):
            raise Unreadable(f"{self.source(item)} is more than {size} numbers, expected an index "
                             "from 1 to a size")  # fmt: skip
        self.starts[index] = start
        self.learn(index, size)
        low = Value(Fraction(start)) if lower is None else self.constant(lower)
        if low is None:
            raise Unreadable(f"{self.source(item)}, expected an index from 1 to a size")
        with jax.ensure_compile_time_eval():
            runs = self.index(index)
            return _fixed(aligned(lambda i, a, b: (a <= i) & (i <= b), runs, low, high))

    def number(self, size: Size) -> int:
        """The number of a size."""
        number = self.sizes.get(size, size)
        if isinstance(number, str):
            raise Unreadable(f"the size {size} is the size of no input")
        return int(number)

    def constant(self, tree: Any) -> Value | None:
        """The value of an expression of numbers, sizes and indices alone; None for others."""
        if not hasattr(tree, "data"):
            with jax.ensure_compile_time_eval():
                return (
                    _fixed(self.entry(tree)) if isinstance(tree, int) or self.span(tree) else None
                )
        for item in tree.find_data("item"):
            index = spelled(item)
            symbol = item.children[0].data in SYMBOLS
            size = (self.resolved(item)[0] or "").startswith("size ")
            if symbol and index not in self.bound and not size:
                return None
        with jax.ensure_compile_time_eval():
            value = self.value(tree.children[0] if tree.data in ("sub", "sup") else tree)
            return _fixed(value) if value.rank == 0 else None

    def learn(self, index: str, size: Size) -> None:
        """Notes the size of the range of an index."""
        known = self.ranges.setdefault(index, size)
        if known != size:
            raise Unreadable(f"the index {index} runs to {known} and to {size}")

    def reduced(
        self, symbol: str, body: Value, indices: Sequence[str], bounded: bool, item: Any
    ) -> Value:
        """The sum, product, largest or smallest entry over indices."""
        pick = GATHERED[symbol][0]
        if not indices:
            if body.pending or isinstance(body.data, Fraction) or body.rank == 0:
                raise Unreadable(f"{self.source(item)} lacks an index")
            axes = tuple(range(len(body.indices), jnp.ndim(body.data)))
            return Value(pick(body.data, axis=axes), body.indices)
        for index in indices:
            if index in body.indices:
                axis = body.indices.index(index)
                left = tuple(other for other in body.indices if other != index)
                body = body._replace(data=pick(body.data, axis=axis), indices=left)
            elif symbol == r"\sum" and bounded:
                body = scaled(body, Value(Fraction(self.number(self.ranges[index]))))
            else:
                raise Unreadable(f"{self.source(item)}: nothing that follows depends on {index}")
        return body

    def largest(self, symbol: str, after: Sequence[Any]) -> tuple[Value, list[Any]]:
        """max(a, b): the larger of numbers, or of every entry."""
        atom, *scripts = after[0].children
        if atom.data not in BRACKETS:
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
        sides, signs = sides_of(clause)
        if len(sides) != len(signs) + 1 or not signs or not {*signs} <= RELATIONS.keys():
            raise Unreadable(f"{self.source(clause)!r} is no condition")
        return self.compared(signs, [self._entry(side) for side in sides], clause)

    def compared(self, signs: Sequence[str], entries: Sequence[Any], tree: Any) -> Value:
        """Whether relations between neighbours hold; classes of labels are counted from 1."""
        for one, other in (*pairwise(entries), *pairwise(entries[::-1])):
            span, new = self.span(one), other not in self.ranges
            if span is not None and other in self.bound and (one in self.bound or new):
                self.learn(other, span)
        labels = [self.label(entry) is not None for entry in entries]
        clear = all(label or (isinstance(entry, str) and entry in self.bound)
                    for label, entry in zip(labels, entries, strict=True))  # fmt: skip
        if any(labels) and not clear:
            raise Unreadable(f"{self.source(tree)!r} has two readings: classes count from 0 or 1")
        fixed = all(self.label(e) is None and self.constant(e) is not None for e in entries)
        with jax.ensure_compile_time_eval() if fixed else nullcontext():
            values = self.each(entries, self.entry)
            values = [aligned(lambda a: a + 1.0, value) if label else value
                      for value, label in zip(values, labels, strict=True)]  # fmt: skip
            found = list[Value]()
            for sign, (left, right) in zip(signs, pairwise(values), strict=True):
                if left.rank and right.rank and left.shape != right.shape:
                    raise Unreadable(f"{self.source(tree)!r} compares {left} and {right}")
                found.append(aligned(RELATIONS[sign], left, right))
            result = reduce(lambda a, b: aligned(jnp.logical_and, a, b), found)
            return _fixed(result) if fixed else result

    def indicator(self, item: Any, after: Sequence[Any]) -> tuple[Value, list[Any]] | None:
        """1[condition], or ones: a vector 1_n, a matrix 1_{n x m}; None for the number 1."""
        atom, *scripts = item.children
        below = [script for script in scripts if script.data == "sub"]
        brackets = [item.children[0] for item in after[:1] if not scripts]
        brackets = [atom for atom in brackets if atom.data in BRACKETS]
        for part, rest in ((below, after), (brackets, after[1:])):
            clauses = part[0].children[0].children if part else []
            if any(len(clause.children) > 1 for clause in clauses):
                return _number(self.condition(clauses)), list(rest)
        if below:
            names = re.split(r"\\times|,", spelled(below[0])[2:-1])
            shape = tuple(self.size(name.strip(), item) for name in names)
            if len(shape) > 2:
                raise Unreadable(f"{self.source(item)}, expected a vector or a matrix of ones")
            value = Value(jnp.ones(list(map(self.number, shape))), (), shape)
            return self.scripted(value, [s for s in scripts if s not in below], item), list(after)
        if atom.data == "number":
            return None
        return self.scripted(Value(Fraction(1), pending="ones"), scripts, item), list(after)

    def size(self, text: str, item: Any) -> Size:
        """The size named in a script."""
        key = f"size {text}" if text.isdigit() else self.names.known(text) or ""
        if not key.startswith("size "):
            raise Unreadable(f"{self.source(item)}: {text} is no size")
        name = key.removeprefix("size ")
        return int(name) if name.isdigit() else name

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
        """The value with a true condition; without "otherwise" NaN where none or two are true."""
        if any(len(row) != 2 or not row[0].children or not row[1].children for row in rows):
            raise Unreadable(f"{self.source(tree)!r}, expected a value and a condition in each row")
        rest = [bool(OTHERWISE.fullmatch(spelled(condition))) for _, condition in rows]
        if any(rest[:-1]):
            raise Unreadable(f"{self.source(tree)!r}, expected otherwise in the last row")
        given = [condition.children[0].children for _, condition in rows[: len(rows) - rest[-1]]]
        readings = [partial(self.value, row[0].children[0]) for row in rows]
        readings += [partial(self.condition, clauses) for clauses in given]
        found = self.each(readings, lambda reading: reading())
        values, conditions = found[: len(rows)], found[len(rows) :]
        shapes = {value.shape for value in values if value.rank}
        turned = {value.row for value in values if value.rank == 1}
        if len(shapes) > 1 or len(turned) > 1 or any(value.pending for value in values):
            raise Unreadable(f"{self.source(tree)!r} has values of several shapes")
        result = values.pop() if rest[-1] else Value(jnp.asarray(jnp.nan))
        for condition, value in zip(conditions[::-1], values[::-1], strict=True):
            if condition.rank and (condition.shape,) != (*shapes,):
                raise Unreadable(f"{self.source(tree)!r} has a condition on {condition}")
            result = aligned(jnp.where, condition, value, result)
        for two in [] if rest[-1] else combinations(conditions, 2):
            both = reduce(partial(aligned, jnp.logical_and), two)
            result = aligned(lambda both, value: jnp.where(both, jnp.nan, value), both, result)
        return result

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

    def _derivative(self, atom: Any) -> tuple[str, list[Any]]:
        """The definition of a derivative, with the indices above and below."""
        symbol, entries = spelled(atom), list[Any]()
        for part in atom.iter_subtrees_topdown():
            inner = [part] if part.data == "square" else []
            if part.data == "item":
                inner = [script for script in part.children[1:] if script.data == "sub"]
            for script in inner:
                found = self._entries_or_none(script.children[0])
                if found and all(isinstance(entry, str) for entry in found):
                    symbol = symbol.replace(spelled(script), "", 1)
                    entries += found
            if symbol in self.names.declared:
                return self.names.declared[symbol], entries
        raise Unreadable(f"{self.source(atom)} is not known, expected a where= for it")

    def unknown(self, symbol: str, scripts: Sequence[Any], item: Any) -> Value:
        """The value of a symbol without declaration: e, pi, I, an index."""
        if symbol == "e" and scripts[:1] and scripts[0].data == "sup":
            exponent = self.value(scripts[0].children[0])
            return self.scripted(self.elementwise(r"\exp", exponent), scripts[1:], item)
        index = symbol + "'" * sum(script.data == "prime" for script in scripts)
        if index in self.bound:
            left = [script for script in scripts if script.data != "prime"]
            return self.scripted(self.index(index), left, item)
        if symbol in (r"\pi", "e") and not scripts:
            return Value(jnp.asarray(jnp.pi if symbol == r"\pi" else jnp.e))
        if symbol == r"\delta" and len(scripts) == 1 and scripts[0].data == "sub":
            entries = self.entries(scripts[0].children[0])
            if len(entries) == 2:
                return _number(self.compared("=", entries, item))
        if symbol in ("I", r"\mathbb{I}") and not [s for s in scripts if s.data == "sup"]:
            if not scripts:
                return Value(Fraction(1), pending="identity")
            size = self.size(spelled(scripts[0])[2:-1], item)
            return Value(jnp.eye(self.number(size)), (), (size, size))
        raise Unreadable(
            f"{self.source(item)!r} is not known, expected an input, a size, an index, or a where= "
            "for it"
        )

    def index(self, name: str) -> Value:
        """The numbers of a bound index."""
        if name not in self.ranges:
            raise Unreadable(f"the index {name} runs over no known size")
        first = self.starts.get(name, 1)
        return Value(np.arange(first, first + self.number(self.ranges[name]), dtype=float), (name,))

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
        if any(self.starts.get(index) == 0 for index in value.indices):
            raise Unreadable(f"{key} has an index that starts at 0, expected 1")
        return value

    def defined(self, key: str) -> Value:
        """The value of a definition in LaTeX; the indices of h_i become axes of an array h."""
        formula, tree, indices = self.formulas[key]
        state = self.bound, self.loose, self.entrywise, self.masks
        self.within.append(key)
        self.bound, self.loose, self.entrywise, self.masks = list(indices), not indices, False, []
        try:
            value = self(formula, tree)
        finally:
            self.within.pop()
            self.bound, self.loose, self.entrywise, self.masks = state
        if not indices or value.pending:
            return value
        if {*indices} != {*value.indices} or value.rank:
            raise Unreadable(f"{key}: the indices on the left side are not those on the right side")
        data = jnp.transpose(value.data, [value.indices.index(index) for index in indices])
        return Value(data, (), tuple(self.ranges[index] for index in indices))

    def _fraction(self, tree: Any) -> Value:
        above, below = self.each(tree.children[1:])
        return divided(above, below)

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
        return self.norm(self.value(tree.children[0]), "", tree)

    def norm(self, value: Value, order: str, tree: Any) -> Value:
        """A norm of a vector, or Frobenius's norm of a matrix."""
        if value.pending:
            raise Unreadable(f"the norm of {value}: the size is not known")
        if value.rank == 2 and not order:
            raise Unreadable(
                rf"{self.source(tree)!r} of {value} has two readings: Frobenius's or the spectral "
                "norm; expected an index F or 2"
            )
        if value.rank == 0 and order in ("", "2"):
            return aligned(jnp.abs, value)
        if (value.rank, order or "2") not in NORMS:
            raise Unreadable(f"{self.source(tree)!r}: no norm {order} of {value}")
        axes = tuple(range(len(value.indices), jnp.ndim(value.data)))
        return Value(NORMS[value.rank, order or "2"](array(value), axes), value.indices)

    def _inner(self, tree: Any) -> Value:
        parts = self.each(tree.children[0].children)
        if len(parts) != 2 or any(part.rank != 1 or part.row for part in parts):
            raise Unreadable(f"{self.source(tree)!r}, expected two vectors")
        return times(parts[0], parts[1], self.sizes, dot=True)

    # Scripts: indices first, then powers and transposes

    def scripted(self, value: Value, scripts: Sequence[Any], item: Any) -> Value:
        """A value with the indices, the powers and the transposes of its scripts."""
        above, below, powers = list[Any](), list[Any](), list[Any]()
        for script in scripts:
            if script.data == "prime":
                raise Unreadable(f"{self.source(item)!r} is not known, expected a where= for it")
            if not script.children or script.children[0].data == "nothing":
                raise Unreadable(f"{self.source(item)!r} has an empty script")
            inside = script.children[0]
            if script.data == "sub":
                found = self.entries(inside)
                product = len(value.shape) == 1 and len(found) == 2 and isinstance(found[0], int)
                below += [inside] if product else found  # x_{2i}
            else:
                found, left = self._superscript(inside)
                above += found
                powers += left
        if above or below:
            of_matrix = any(isinstance(p, str) or spelled(p) == "-1" for p in powers)
            if of_matrix and value.rank == 2 and len(above + below) == 2:
                raise Unreadable(
                    f"{self.source(item)!r} has two readings: the entry of the matrix with the "
                    "superscript, or the entry with the superscript"
                )
            value = self.indexed(value, above + below, item, bool(above and below))
        for power in powers:
            value = self._raised(value, power, item)
        return value

    def _superscript(self, tree: Any) -> tuple[list[Any], list[Any]]:
        """The indices in parentheses of a superscript, and the power or transpose."""
        items = row_of(tree)
        if items and items[0].children[0].data == "round" and len(items[0].children) == 1:
            found = self._entries_or_none(items[0].children[0].children[0])
            if found is not None and all(spelled(item) in TRANSPOSED for item in items[1:]):
                return found, [self._transpose(spelled(item)) for item in items[1:]]
        text = spelled(tree).removeprefix("-")
        minus = "-" if text != spelled(tree) else ""
        return [], [minus + self._transpose(text) if text in TRANSPOSED else tree]

    def _entries_or_none(self, inner: Any) -> list[Any] | None:
        try:
            found = self.entries(inner)
        except Unreadable:
            return None
        return None if any(hasattr(entry, "data") for entry in found) else found

    def _transpose(self, text: str) -> str:
        if text == "T" and "T" in {*self.names.inputs, *self.names.sizes, *self.names.declared}:
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

    def entries(self, tree: Any) -> list[Any]:
        """The entries in a script: indices such as i and j of ``ij``, numbers, None for all
        entries, and the trees of labels and of expressions such as i + 1.
        """  # noqa: D205
        clauses = tree.children if tree.data == "clauses" else [tree]
        found = [entry for clause in clauses for entry in self._entries(clause)]
        if not found:
            raise Unreadable(f"{self.source(tree)!r} is no index")
        return found

    def _entries(self, tree: Any) -> Iterator[Any]:
        items = row_of(tree)
        if not items:
            yield tree
        for item in items:
            atom, *scripts = item.children
            text, primes = spelled(atom), "".join(spelled(s) for s in scripts if s.data == "prime")
            if len(primes) < len(scripts):
                yield item
            elif atom.data == "number" and text.isdigit() and not primes:
                yield int(text)
            elif atom.data == "letters" or text in GREEK_INDICES:
                yield text + primes
            elif text in (r"\cdot", "*"):
                yield None
            else:
                raise Unreadable(f"{self.source(tree)!r} is no index")

    def _entry(self, tree: Any) -> Any:
        """The letter of an index; other parts stay the same."""
        found = self._entries_or_none(tree)
        return found[0] if found and len(found) == 1 and isinstance(found[0], str) else tree

    def _key(self, entry: Any) -> str:
        """The key of an entry's symbol; "" for bound indices and expressions."""
        if isinstance(entry, str):
            return "" if entry in self.bound else self.names.known(entry) or ""
        items = row_of(entry) if hasattr(entry, "data") else []
        return (self.resolved(items[0])[0] or "") if len(items) == 1 else ""

    def label(self, entry: Any) -> Size | None:
        """The number of classes of a label; None for other entries."""
        return self.names.classes.get(self._key(entry))

    def span(self, entry: Any) -> Size | None:
        """The size of the range of an index, a label, or a size itself; None for others."""
        key = self._key(entry)
        if isinstance(entry, str) and not key:
            return self.ranges.get(entry)
        return key.removeprefix("size ") if key.startswith("size ") else self.label(entry)

    def entry(self, entry: Any) -> Value:
        """The number of an entry: of an index, a label, a size, or an expression."""
        if isinstance(entry, int):
            return Value(Fraction(entry))
        if not isinstance(entry, str):
            return self.value(entry)
        if entry in self.bound:
            return self.index(entry)
        key = self.names.known(entry)
        if key is None:
            raise Unreadable(f"{entry!r} is not known, expected an input, a size, or an index")
        return self.lookup(key)

    def indexed(
        self, value: Value, entries: Sequence[Any], item: Any, mixed: bool = False
    ) -> Value:
        """The entries of a vector or matrix; rows or columns if an index is missing."""
        if value.pending or len(entries) > len(value.shape):
            raise Unreadable(f"{self.source(item)!r}: {len(entries)} indices of {value}")
        for name in entries:
            known = name in self.bound or self.loose or self._key(name)
            if isinstance(name, str) and not known:
                error = Unreadable(
                    f"{self.source(item)!r}: the index {name} is on no left side and below no sum, "
                    f"expected a left side such as f_{name} = ..."
                )
                error.index = name
                raise error
        row, axes = value.row, self.axes(value, entries, item, mixed)
        given = sorted((axis, n) for n, axis in enumerate(axes) if entries[n] is not None)
        for taken, (axis, n) in enumerate(given):
            value = self.taken(value, axis - taken, entries[n], item)
        return value._replace(row=row and len(value.shape) == 1)

    def taken(self, value: Value, axis: int, entry: Any, item: Any) -> Value:
        """The entries along an axis: all, under the name of an index, or those at some places."""
        first, size = len(value.indices), value.shape[axis]
        shape = (*value.shape[:axis], *value.shape[axis + 1 :])
        data = jnp.moveaxis(value.data, first + axis, first)
        if isinstance(entry, str) and not self._key(entry) and self.starts.get(entry, 1) == 1:
            self.learn(entry, size)
            if entry not in value.indices:
                return Value(data, (*value.indices, entry), shape)
        rows, places = Value(data, value.indices, (size, *shape)), self.places(entry, size, item)
        rank = len(rows.shape)
        chosen = aligned(lambda a, at: jnp.take_along_axis(a, at, at.ndim - rank), rows, places)
        return Value(jnp.squeeze(chosen.data, len(chosen.indices)), chosen.indices, shape)

    def places(self, entry: Any, size: Size, item: Any) -> Value:
        """The places along an axis, from 0, of an entry that is no index alone."""
        classes = self.label(entry)
        if classes is not None:
            if classes != size:
                raise Unreadable(f"{self.source(item)!r}: a label of {classes} classes, not {size}")
            return aligned(lambda label: label.astype(int), self.entry(entry))
        if isinstance(entry, int) and entry > 1 and isinstance(size, str):
            raise Unreadable(
                f"{self.source(item)!r}: the entry {entry}, expected an index, or a number within "
                "a fixed size"
            )
        found = self.constant(entry)
        if found is None:
            raise Unreadable(f"{self.source(item)!r}: {spelled(entry)!r} is no index")
        with jax.ensure_compile_time_eval():
            outside = aligned(lambda i: (i < 1) | (i > self.number(size)) | (i % 1 > 0), found)
            for mask in self.masks:
                outside = aligned(jnp.logical_and, outside, mask)
            if np.any(outside.data):
                raise Unreadable(
                    f"{self.source(item)!r} reaches beyond the entries 1 to {size}, expected "
                    "limits of a sum that keep within"
                )
            last = self.number(size) - 1
            return aligned(lambda i: jnp.clip(i - 1, 0, last).astype(int), found)

    def axes(self, value: Value, entries: Sequence[Any], item: Any, mixed: bool) -> list[int]:
        """The axis of every index: by place; by the sizes if an index is missing."""
        rank = len(value.shape)
        if len(entries) == rank and not mixed:
            return list(range(rank))
        spans = [self.span(entry) for entry in entries]
        fits = [
            list(axes)
            for axes in permutations(range(rank), len(entries))
            if all(span in (None, value.shape[a]) for span, a in zip(spans, axes, strict=True))
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


def _attempt(reading: Callable[[], Value]) -> Value | Unreadable:
    try:
        return reading()
    except Unreadable as error:
        return error


def _slope(function: Callable[..., Any]) -> Callable[[jax.Array], jax.Array]:
    return lambda x: jax.jvp(function, (x,), (jnp.ones_like(x),))[1]


def _fixed(value: Value) -> Value:
    """A value that no input changes, as a NumPy array."""
    return value._replace(data=np.asarray(array(value)))


def _number(condition: Value) -> Value:
    return condition._replace(data=jnp.where(condition.data, 1.0, 0.0))


def sides_of(tree: Any) -> tuple[list[Any], list[str]]:
    """The parts of a clause or a sum, and the signs between."""
    parts = [child for child in tree.children if hasattr(child, "data")]
    return parts, [str(child) for child in tree.children if not hasattr(child, "data")]


def _with_negative_bodies(
    terms: Sequence[Any], signs: Sequence[str]
) -> tuple[list[Any], list[str]]:
    """Terms and signs; a minus behind a bare sum sign belongs to the body of the sum."""
    from lark import Tree

    found, left = list[Any](), list[str]()
    minus = Tree("item", [Tree("number", ["-1"])])
    for term, sign in zip(terms, signs, strict=True):
        if found and sign == "-" and spelled(found[-1].children[-1].children[0]) in SUMS:
            found[-1] = Tree("term", [*found[-1].children, minus, *term.children], term.meta)
        else:
            found.append(term)
            left.append(sign)
    return found, left


def row_of(tree: Any) -> list[Any]:
    """The items of a part that is a single term; none of other parts."""
    while tree.data in ("clauses", "clause", "sum") and len(tree.children) == 1:
        tree = tree.children[0]
        if not hasattr(tree, "data"):
            return []
    return [tree] if tree.data == "item" else [*tree.children] if tree.data == "term" else []


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
            found.append(text + primes)
    return found


__all__ = ["Evaluation", "Formula", "Names", "Unreadable", "Value", "parsed", "settled"]
