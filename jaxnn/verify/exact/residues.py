"""Residues: a program evaluated in towers of finite fields, where equal formulas stay equal.

A number has a residue for every draw and every level of the draw's tower, a float64 *shadow* to
decide comparisons, and a mask of the draws and levels on which the number is known. exp lowers the
level, log raises the level, and the operations of a field are exact. Hence residues obey the laws
of fields, exp(a + b) = exp(a) exp(b), log(u v) = log u + log v, sqrt(u)^2 = u, exp(log u) = u. A
function without a model, such as sin, is an unknown function: equal operands, equal random values.

The sign of a residue is the quadratic character. A draw is given up on the levels where the operand
of a root is no square, or where a divisor vanishes. The discrete logarithm of u is the logarithm of
|u|; the *parity* of a logarithm remembers the sign of u, so that exp(log u) is u.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxnn.verify.exact import Undecided
from jaxnn.verify.exact.towers import Towers
from jaxnn.verify.graph import Unsupported

DEGREE = 2**12
"""The largest power; the bound of a certificate is the bound for functions of this degree."""


LOGARITHMS = 10
"""Draws with logarithms, on the last two levels; further logarithms take time."""

FEWEST = 8
"""Levels of draws on which equal numbers agree; a wrong sign of a root agrees on half."""

LARGEST = 2**17
"""The most entries of an array: 64 MB of residues of 16 draws."""


class OutOfTime(Exception):  # noqa: N818
    """The deadline of an arithmetic has passed."""


@dataclass(frozen=True)
class Numbers:
    """A flat array of numbers, with the operations of a field."""

    of: "Residues"
    residues: np.ndarray  # [entries, draws, levels]
    shadow: np.ndarray  # [entries], float64; infinite and NaN entries have no residues
    known: np.ndarray  # [draws, levels]
    parity: np.ndarray  # [entries, draws, levels], or ones: 0; 1: exp is not a square; NaN: unknown
    constant: bool = False  # whether no input has a part in the numbers

    def __len__(self) -> int:
        return len(self.shadow)

    def __getitem__(self, index: np.ndarray) -> "Numbers":
        _check_size(len(index))
        parts = self.residues[index], self.shadow[index], self.known, self.parity[index]
        return Numbers(self.of, *parts, self.constant)

    def filled(self, value: float) -> "Numbers":
        """A constant in the place of every entry."""
        return self.of.exactly(np.full(len(self), value))

    @property
    def zero(self) -> np.ndarray:
        """Whether an entry is zero, by shadow and by all residues."""
        return (self.shadow == 0) & np.all((self.residues == 0)[:, self.known], axis=1)

    def __neg__(self) -> "Numbers":
        return replace(self, residues=self.of.towers.neg(self.residues), shadow=0.0 - self.shadow)

    def __add__(self, other: "Numbers | float") -> "Numbers":
        y = other if isinstance(other, Numbers) else self.filled(other)
        residues, parity = self.of.towers.add(self.residues, y.residues), self.parity + y.parity
        return _made(self.shadow + y.shadow, residues, self, y, parity=parity % 2)

    def __sub__(self, other: "Numbers | float") -> "Numbers":
        return self + -other

    def __rsub__(self, other: float) -> "Numbers":
        return -self + other

    def __mul__(self, other: "Numbers") -> "Numbers":
        residues, parity = self.of.towers.mul(self.residues, other.residues), None
        for x, factor in ((self, other), (other, self)):
            if factor.constant and np.all(factor.shadow == np.rint(factor.shadow)):
                parity = x.parity * factor.shadow[:, None, None] % 2
        shadow = self.shadow * other.shadow
        _check_signs(np.isinf(shadow), self, other)
        return _made(shadow, residues, self, other, parity=parity)

    def __truediv__(self, other: "Numbers | float") -> "Numbers":
        y = other if isinstance(other, Numbers) else self.filled(other)
        residues = self.of.towers.mul(self.residues, self.of.towers.inverse(y.residues))
        bad = (y.residues == 0) & ~y.zero[:, None, None] & np.isfinite(y.shadow)[:, None, None]
        shadow = self.shadow / y.shadow
        _check_signs(np.isinf(shadow), self, y)
        return _made(shadow, residues, self, y, pole=y.zero, bad=bad)

    def __rtruediv__(self, other: float) -> "Numbers":
        return self.filled(other) / self


def _made(
    shadow: np.ndarray, residues: np.ndarray, *operands: Numbers, pole: Any = False,
    known: np.ndarray | None = None, bad: Any = False, parity: np.ndarray | None = None,
) -> Numbers:  # fmt: skip
    """A result, unknown where an ordinary entry is bad; other entries follow exact limits.

    Of an infinite operand the limit 0, as of exp(-inf), is exact. An infinite value of finite
    operands is exact at a ``pole``; elsewhere the shadow overflowed, and becomes NaN.
    """
    if parity is None:
        parity = np.where(sum(x.parity for x in operands) == 0, 0.0, np.nan)
    shared = np.logical_and.reduce([x.known for x in operands]) if known is None else known
    if not all(np.all(np.isfinite(part)) for part in (shadow, *(x.shadow for x in operands))):
        infinite = np.logical_or.reduce([~np.isfinite(x.shadow) for x in operands])
        wrong = np.where(infinite, np.isfinite(shadow) & (shadow != 0), ~np.isfinite(shadow))
        shadow = np.where(wrong & ~np.asarray(pole), np.nan, shadow)
        gone = (infinite | ~np.isfinite(shadow))[:, None, None]
        residues, parity = np.where(gone, np.uint64(0), residues), np.where(gone, 0.0, parity)
        bad = bad & ~gone
    constant = all(x.constant for x in operands)
    shared = shared & ~np.any(bad, axis=0)
    shadow = shadow + 0.0  # there is no negative zero
    return Numbers(operands[0].of, residues, shadow, shared, parity, constant)


def _check_signs(entries: np.ndarray, *operands: Numbers) -> None:
    """Refuses entries of a limit, such as inf y, 1 / 0 or 0^y, decided by the sign of an input."""
    for x in operands:
        if not (x.of.by_shadow or x.constant) and np.any(entries & np.isfinite(x.shadow)):
            raise Undecided("the sign of an infinity")


def _check_size(entries: int) -> None:
    if entries > LARGEST:
        raise Unsupported(f"an array or sum of {entries:,} entries is too large for a certificate")


def _lowered(known: np.ndarray) -> np.ndarray:
    """The levels on which exp(a) is known: a is known one level below."""
    return np.hstack([known[:, 1:], np.zeros((len(known), 1), bool)])


class Residues:
    """The arithmetic of residues; see ``exact.Arithmetic``."""

    def __init__(self, towers: Towers, deadline: float = math.inf):
        """The arithmetic in given towers, up to a deadline of ``time.thread_time``."""
        self.towers = towers
        self._deadline = deadline
        self.by_shadow = False  # whether shadows may decide comparisons
        self.unknown: dict[str, np.ndarray] = {}  # random bits per unknown function
        self.roots = False  # whether a root was taken, with a choice of the sign
        self._logarithms: dict[bytes, np.ndarray] = {}

    def exactly(self, array: np.ndarray) -> Numbers:
        """The residues of integers and of float64 numbers, integers times 2^n."""
        flat = np.ravel(array)
        _check_size(len(flat))
        if flat.dtype.kind == "c":
            raise Unsupported("complex numbers have no exact model")
        with np.errstate(all="ignore"):
            shadow = flat.astype(np.float64) + 0.0
        if np.all(np.abs(shadow) < 2.0**53) and np.all(shadow == np.rint(shadow)):
            signed = self.towers.primes.astype(np.int64)
            residues = (shadow.astype(np.int64)[:, None, None] % signed).astype(np.uint64)
        else:
            finite = [number if np.isfinite(number) else 0 for number in flat.tolist()]
            ratios = [number.as_integer_ratio() for number in finite]
            above, below = (self.towers.integers(part) for part in zip(*ratios, strict=True))
            residues = self.towers.mul(above, self.towers.inverse(below))
        everywhere = np.ones(self.towers.primes.shape, bool)
        return Numbers(self, residues, shadow, everywhere, np.zeros((len(flat), 1, 1)), True)

    def apply(self, name: str, *operands: Numbers, **params: Any) -> Numbers:
        """A primitive on every entry; see ``exact.Arithmetic``."""
        if name not in RULES:
            raise Unsupported(f"the primitive {name!r} has no exact model")
        if time.thread_time() > self._deadline:
            raise OutOfTime
        with np.errstate(all="ignore"):
            return RULES[name](*operands, **params)

    def compare(self, x: Numbers, y: Numbers) -> np.ndarray:
        """Equal residues are equal; else shadows decide, of inputs only if allowed."""
        signs, undecided = self.order(x, y)
        if np.any(undecided):
            raise Undecided("a comparison that random inputs do not decide")
        return signs

    def order(self, x: Numbers, y: Numbers) -> tuple[np.ndarray, np.ndarray]:
        """The signs of x - y, 2 for NaN, and the entries where nothing decides."""
        signs = (x.shadow > y.shadow).astype(np.int8) - (x.shadow < y.shadow)
        signs[np.isnan(x.shadow) | np.isnan(y.shadow)] = 2
        known = x.known & y.known
        equal = np.all((x.residues == y.residues)[:, known], axis=1)
        equal &= np.count_nonzero(known) >= FEWEST
        doubtful = np.isfinite(x.shadow) & np.isfinite(y.shadow) & ~equal
        signs[equal & np.isfinite(x.shadow) & np.isfinite(y.shadow)] = 0
        if not (self.by_shadow or (x.constant and y.constant)):
            return signs, doubtful
        return signs, doubtful & (signs == 0)

    def joined(self, parts: Sequence[Numbers]) -> Numbers:
        """See ``exact.Arithmetic``, as of the methods below."""
        residues = np.concatenate([part.residues for part in parts])
        shadow = np.concatenate([part.shadow for part in parts])
        known = np.logical_and.reduce([part.known for part in parts])
        size = max(part.parity.shape[1:] for part in parts)
        parity = np.concatenate(
            [np.broadcast_to(part.parity, (len(part), *size)) for part in parts]
        )
        return Numbers(self, residues, shadow, known, parity, all(part.constant for part in parts))

    def logarithms(self, squares: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """``Towers.log`` with a memory: formula and reference often take equal logarithms."""
        call = squares.tobytes() + wanted.tobytes()
        if call not in self._logarithms:
            self._logarithms[call] = self.towers.log(squares, wanted)
        return self._logarithms[call]

    def floats(self, x: Numbers) -> np.ndarray:
        """The shadows."""
        return x.shadow

    def rounded(self, x: Numbers) -> np.ndarray:
        """Residues have no nearest float."""
        raise Unsupported("rounding to fewer bits has no exact model")

    def whole(self, x: Numbers) -> np.ndarray:
        """The whole parts of the shadows."""
        return _step(np.trunc, x).shadow


def _integer_pow(x: Numbers, y: int) -> Numbers:
    if abs(y) > DEGREE:
        raise Unsupported(f"the power {y} has too large a degree for a certificate")
    if y <= 0:
        return x.filled(1.0) if y == 0 else 1.0 / _integer_pow(x, -y)
    residues = x.of.towers.power(x.residues, np.array(y, np.uint64))
    return _made(x.shadow**y, residues, x)


def _pow(x: Numbers, y: Numbers) -> Numbers:
    """|x|^y has the exponent y of the next level, as exp(y log x) has."""
    if y.constant and np.all(y.shadow % 1 == 0):
        result = x
        for exponent in np.unique(y.shadow):
            result = _chosen(y.shadow == exponent, result, _integer_pow(x, int(exponent)))
        return result
    x.of.roots = x.of.roots or y.constant  # of other exponents no power is a whole number
    bad = ~x.of.towers.is_square(x.residues) | (np.roll(y.parity, -1, axis=2) != 0)
    bad, known = bad & (x.shadow > 0)[:, None, None], x.known & _lowered(y.known)
    residues = x.of.towers.power(x.residues, np.roll(y.residues, -1, axis=2))
    shadow = np.where(x.shadow < 0, np.nan, x.shadow**y.shadow)
    _check_signs(x.zero | np.isinf(x.shadow) | np.isinf(y.shadow), x, y)
    return _made(shadow, residues, x, y, pole=x.zero & (y.shadow < 0), known=known, bad=bad)


def _sqrt(x: Numbers) -> Numbers:
    towers, of = x.of.towers, x.of
    if x.constant and np.all(np.isfinite(x.shadow)):  # the root of 4 is 2, a square or not
        root = of.exactly(np.sqrt(x.shadow))
        if np.array_equal(towers.mul(root.residues, root.residues), x.residues):
            return root
    of.roots = True
    root = towers.power(x.residues, (towers.primes + np.uint64(1)) >> np.uint64(2))  # a square
    bad = (towers.mul(root, root) != x.residues) & (x.shadow >= 0)[:, None, None]
    return _made(np.sqrt(x.shadow), root, x, bad=bad)


def _cbrt(x: Numbers) -> Numbers:
    """Every residue has a single cube root: 3 is no divisor of p - 1."""
    order, three = x.of.towers.primes - np.uint64(1), np.uint64(3)
    third = (order * (three - order % three) + np.uint64(1)) // three
    residues = x.of.towers.power(x.residues, third)
    return _made(np.cbrt(x.shadow), residues, x)


def _exp(x: Numbers) -> Numbers:
    residues, parity = x.of.towers.exp(x.residues), np.roll(x.parity, -1, axis=2)
    residues = np.where(parity == 1, x.of.towers.neg(residues), residues)
    known, even = _lowered(x.known), np.zeros((len(x), 1, 1))
    return _made(np.exp(x.shadow), residues, x, known=known, bad=np.isnan(parity), parity=even)


def _log(x: Numbers) -> Numbers:
    of, zero = x.of, x.zero
    ordinary = (x.shadow > 0)[:, None, None]
    known = x.known & ~np.any((x.residues == 0) & ordinary, axis=0)
    draws, levels = (np.flatnonzero(known[:, :-1].any(axis=axis)) for axis in (1, 0))
    few = np.zeros_like(known)
    few[np.ix_(draws[:LOGARITHMS], levels[-2:])] = True
    known = known & few
    u = np.where((x.residues == 0) | ~ordinary, np.uint64(1), x.residues)
    square = of.towers.is_square(u)
    size = np.where(square, u, of.towers.neg(u))
    residues = of.logarithms(size, known)
    parity, known = np.roll(1.0 - square, 1, axis=2), np.roll(known, 1, axis=1)
    return _made(np.log(x.shadow), residues, x, pole=zero, known=known, parity=parity)


def _step(rounding: Callable[[np.ndarray], np.ndarray], x: Numbers, **_: Any) -> Numbers:
    """A step function, constant beside the shadow."""
    exact = x.of.order(x, x.of.exactly(np.rint(x.shadow)))[0] == 0
    inside = np.abs(2 * x.shadow - np.rint(2 * x.shadow)) > 1e-9
    if not (x.constant or np.all(exact) or (x.of.by_shadow and np.all(exact | inside))):
        raise Undecided("a step function at a step")
    return replace(x.of.exactly(rounding(x.shadow)), constant=x.constant)


def _abs(x: Numbers) -> Numbers:
    return _chosen(x.of.compare(x, x.filled(0.0)) == -1, x, -x)


def _sign(x: Numbers) -> Numbers:
    signs = x.of.compare(x, x.filled(0.0))
    return replace(x.of.exactly(np.where(signs == 2, np.nan, signs)), constant=x.constant)


def _chosen(second: np.ndarray, x: Numbers, y: Numbers) -> Numbers:
    return x.of.joined([x, y])[np.arange(len(x)) + len(x) * second]


def _extreme(name: str, sign: int, x: Numbers, y: Numbers) -> Numbers:
    """max or min; an unknown symmetric function while shadows may not decide."""
    signs, undecided = x.of.order(x, y)
    chosen = _chosen((signs == -sign) | np.isnan(y.shadow), x, y)
    if not np.any(undecided):
        return chosen
    if x.of.by_shadow:
        raise Undecided("a tie of random numbers")
    return _chosen(undecided, chosen, _unknown(name, 0, chosen.shadow, x + y, x * y))


def _unknown(name: str, symmetry: int, shadow: np.ndarray, *operands: Numbers) -> Numbers:
    """An unknown function: even (symmetry 1), odd (-1), or neither."""
    of, first = operands[0].of, operands[0].residues
    flipped = (first > of.towers.neg(first)) & bool(symmetry)
    mixed = of.unknown.setdefault(name, of.towers.uniform(1))
    for x in operands:
        mixed = _mixed(mixed ^ np.where(flipped, of.towers.neg(x.residues), x.residues))
    residues = mixed % of.towers.primes
    if symmetry < 0:
        residues = np.where(flipped, of.towers.neg(residues), residues)
        residues = np.where(first == 0, np.uint64(0), residues)
    return _made(shadow, residues, *operands)


def _mixed(bits: np.ndarray) -> np.ndarray:
    """A permutation of 64 bits without structure (splitmix64)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    return bits ^ (bits >> np.uint64(31))


SYMMETRY = {
    "acos": 0, "asin": -1, "atan": -1, "atan2": 0, "cos": 1, "digamma": 0, "erf": -1,
    "erf_inv": -1, "lgamma": 0, "polygamma": 0, "sin": -1,
}  # fmt: skip
"""Functions without a model: even (1), odd (-1), or neither."""


def _uninterpreted(name: str) -> Callable[..., Numbers]:
    function = getattr(np, name, None) or getattr(jax.lax, name)

    def rule(*xs: Numbers) -> Numbers:
        shadow = np.asarray(function(*(x.shadow for x in xs)), np.float64)
        return _unknown(name, SYMMETRY[name], shadow, *xs)

    return rule


STEPS = {"ceil": np.ceil, "floor": np.floor, "round": np.round}

RULES: dict[str, Callable[..., Numbers]] = {
    **{name: _uninterpreted(name) for name in SYMMETRY},
    **{name: partial(_step, rounding) for name, rounding in STEPS.items()},
    "abs": _abs,
    "acosh": lambda x: _log(x + _sqrt(x * x - 1.0)),
    "add": lambda x, y: x + y,
    "asinh": lambda x: _log(x + _sqrt(x * x + 1.0)),
    "atanh": lambda x: (_log(x + 1.0) - _log(1.0 - x)) / 2.0,
    "cbrt": _cbrt,
    "cosh": lambda x: (_exp(x) + _exp(-x)) / 2.0,
    "div": lambda x, y: x / y,
    "erfc": lambda x: 1.0 - RULES["erf"](x),
    "exp": _exp,
    "exp2": lambda x: _pow(x.filled(2.0), x),
    "expm1": lambda x: _exp(x) - 1.0,
    "integer_pow": _integer_pow,
    "log": _log,
    "log1p": lambda x: _log(x + 1.0),
    "log2": lambda x: _log(x) / _log(x.filled(2.0)),
    "logistic": lambda x: 1.0 / (_exp(-x) + 1.0),
    "max": partial(_extreme, "max", 1),
    "min": partial(_extreme, "min", -1),
    "mul": lambda x, y: x * y,
    "neg": lambda x: -x,
    "pow": _pow,
    "rem": lambda x, y: x - y * _step(np.trunc, x / y),
    "rsqrt": lambda x: 1.0 / _sqrt(x),
    "sign": _sign,
    "sinh": lambda x: (_exp(x) - _exp(-x)) / 2.0,
    "sqrt": _sqrt,
    "sub": lambda x, y: x - y,
    "tan": lambda x: RULES["sin"](x) / RULES["cos"](x),
    "tanh": lambda x: 1.0 - 2.0 / (_exp(x + x) + 1.0),
}
"""Primitives by name."""
