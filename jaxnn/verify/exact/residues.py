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
from functools import partial, reduce
from typing import Any, ClassVar

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


@dataclass(frozen=True)
class Numbers:
    """An array of numbers, with the operations of a field."""

    of: "Residues"
    residues: np.ndarray  # [*shape, draws, levels]
    shadow: np.ndarray  # [*shape], float64; infinite and NaN entries have no residues
    known: np.ndarray  # [draws, levels]
    parity: np.ndarray  # as residues, or ones: 0; 1: exp is not a square; NaN: unknown
    constant: bool = False  # whether no input has a part in the numbers

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return np.shape(self.shadow)

    def _each(self, change: Callable[[np.ndarray], np.ndarray]) -> "Numbers":
        """The numbers after a change of every part's leading axes."""
        residues, shadow, parity = map(change, (self.residues, self.shadow, self.parity))
        return replace(self, residues=residues, shadow=shadow, parity=parity)

    def __getitem__(self, index: Any) -> "Numbers":
        _check_size(np.size(index) if isinstance(index, np.ndarray) else 0)
        return self._each(lambda part: part[index])

    def reshape(self, *shape: Any) -> "Numbers":
        """The same entries in another shape."""
        rank, shape = len(self.shape), self.shadow.reshape(*shape).shape
        return self._each(lambda part: part.reshape((*shape, *part.shape[rank:])))

    @property
    def zero(self) -> np.ndarray:
        """Whether an entry is zero, by shadow and by all residues."""
        return (self.shadow == 0) & np.all((self.residues == 0)[..., self.known], axis=-1)

    def __neg__(self) -> "Numbers":
        return replace(self, residues=self.of.towers.neg(self.residues), shadow=0.0 - self.shadow)

    def __add__(self, other: Any) -> "Numbers":
        y = self.of.exactly(other)
        residues, parity = self.of.towers.add(self.residues, y.residues), self.parity + y.parity
        return _made(self.shadow + y.shadow, residues, self, y, parity=parity % 2)

    def __sub__(self, other: Any) -> "Numbers":
        return self + -other

    def __rsub__(self, other: float) -> "Numbers":
        return -self + other

    def __mul__(self, other: "Numbers") -> "Numbers":
        residues, parity = self.of.towers.mul(self.residues, other.residues), None
        for x, factor in ((self, other), (other, self)):
            if factor.constant and np.all(factor.shadow == np.rint(factor.shadow)):
                parity = x.parity * _beside(factor.shadow) % 2
        shadow = self.shadow * other.shadow
        _check_signs(np.isinf(shadow), self, other)
        return _made(shadow, residues, self, other, parity=parity)

    def __truediv__(self, other: Any) -> "Numbers":
        y = self.of.exactly(other)
        residues = self.of.towers.mul(self.residues, self.of.towers.inverse(y.residues))
        bad = (y.residues == 0) & _beside(~y.zero & np.isfinite(y.shadow))
        shadow = self.shadow / y.shadow
        _check_signs(np.isinf(shadow), self, y)
        return _made(shadow, residues, self, y, pole=y.zero, bad=bad)

    def __rtruediv__(self, other: float) -> "Numbers":
        return self.of.exactly(other) / self


def _beside(part: Any) -> np.ndarray:
    """An array [*shape] beside residues [*shape, draws, levels]."""
    return np.asarray(part)[..., None, None]


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
        infinite = reduce(np.logical_or, [~np.isfinite(x.shadow) for x in operands])
        wrong = np.where(infinite, np.isfinite(shadow) & (shadow != 0), ~np.isfinite(shadow))
        shadow = np.where(wrong & ~np.asarray(pole), np.nan, shadow)
        gone = _beside(infinite | ~np.isfinite(shadow))
        residues, parity = np.where(gone, np.uint64(0), residues), np.where(gone, 0.0, parity)
        bad = bad & ~gone
    constant = all(x.constant for x in operands)
    shared = shared & ~np.any(bad, axis=tuple(range(np.ndim(bad) - 2)))
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


def _integer_pow(x: Numbers, y: int) -> Numbers:
    if abs(y) > DEGREE:
        raise Unsupported(f"the power {y} has too large a degree for a certificate")
    if y <= 0:
        return x.of.exactly(np.ones(x.shape)) if y == 0 else 1.0 / _integer_pow(x, -y)
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
    bad = ~x.of.towers.is_square(x.residues) | (np.roll(y.parity, -1, axis=-1) != 0)
    bad, known = bad & _beside(x.shadow > 0), x.known & _lowered(y.known)
    residues = x.of.towers.power(x.residues, np.roll(y.residues, -1, axis=-1))
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
    bad = (towers.mul(root, root) != x.residues) & _beside(x.shadow >= 0)
    return _made(np.sqrt(x.shadow), root, x, bad=bad)


def _cbrt(x: Numbers) -> Numbers:
    """Every residue has a single cube root: 3 is no divisor of p - 1."""
    order, three = x.of.towers.primes - np.uint64(1), np.uint64(3)
    third = (order * (three - order % three) + np.uint64(1)) // three
    residues = x.of.towers.power(x.residues, third)
    return _made(np.cbrt(x.shadow), residues, x)


def _exp(x: Numbers) -> Numbers:
    residues, parity = x.of.towers.exp(x.residues), np.roll(x.parity, -1, axis=-1)
    residues = np.where(parity == 1, x.of.towers.neg(residues), residues)
    known, even = _lowered(x.known), np.zeros((*x.shape, 1, 1))
    return _made(np.exp(x.shadow), residues, x, known=known, bad=np.isnan(parity), parity=even)


def _log(x: Numbers) -> Numbers:
    of, zero = x.of, x.zero
    ordinary = _beside(x.shadow > 0)
    zeros = np.any((x.residues == 0) & ordinary, axis=tuple(range(len(x.shape))))
    known = x.known & ~zeros
    draws, levels = (np.flatnonzero(known[:, :-1].any(axis=axis)) for axis in (1, 0))
    few = np.zeros_like(known)
    few[np.ix_(draws[:LOGARITHMS], levels[-2:])] = True
    known = known & few
    u = np.where((x.residues == 0) | ~ordinary, np.uint64(1), x.residues)
    square = of.towers.is_square(u)
    size = np.where(square, u, of.towers.neg(u))
    residues = of.logarithms(size, known)
    parity, known = np.roll(1.0 - square, 1, axis=-1), np.roll(known, 1, axis=1)
    return _made(np.log(x.shadow), residues, x, pole=zero, known=known, parity=parity)


def _step(rounding: Callable[[np.ndarray], np.ndarray], x: Numbers, **_: Any) -> Numbers:
    """A step function, constant beside the shadow."""
    exact = x.of.order(x, x.of.exactly(np.rint(x.shadow)))[0] == 0
    inside = np.abs(2 * x.shadow - np.rint(2 * x.shadow)) > 1e-9
    if not (x.constant or np.all(exact) or (x.of.by_shadow and np.all(exact | inside))):
        raise Undecided("a step function at a step")
    return replace(x.of.exactly(rounding(x.shadow)), constant=x.constant)


def _abs(x: Numbers) -> Numbers:
    return _chosen(x.of.compare(x, 0.0) == -1, x, -x)


def _sign(x: Numbers) -> Numbers:
    signs = x.of.compare(x, 0.0)
    return replace(x.of.exactly(np.where(signs == 2, np.nan, signs)), constant=x.constant)


def _chosen(second: np.ndarray, x: Numbers, y: Numbers) -> Numbers:
    parts = (
        np.where(_beside(second), y.residues, x.residues), np.where(second, y.shadow, x.shadow),
        x.known & y.known, np.where(_beside(second), y.parity, x.parity),
    )  # fmt: skip
    return Numbers(x.of, *parts, x.constant and y.constant)


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
    "acos": 0, "asin": -1, "atan": -1, "atan2": 0, "bessel_i0e": 1, "bessel_i1e": -1, "cos": 1,
    "digamma": 0, "erf": -1, "erf_inv": -1, "igamma": 0, "igammac": 0, "lgamma": 0,
    "polygamma": 0, "sin": -1, "zeta": 0,
}  # fmt: skip
"""Functions without a model: even (1), odd (-1), or neither."""


def _uninterpreted(name: str) -> Callable[..., Numbers]:
    function = getattr(np, name, None) or getattr(jax.lax, name)

    def rule(*xs: Numbers) -> Numbers:
        shadow = np.asarray(function(*(x.shadow for x in xs)), np.float64)
        return _unknown(name, SYMMETRY[name], shadow, *xs)

    return rule


STEPS = {"ceil": np.ceil, "floor": np.floor, "round": np.round}

FUNCTIONS: dict[str, Callable[..., Numbers]] = {
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
    "erfc": lambda x: 1.0 - FUNCTIONS["erf"](x),
    "exp": _exp,
    "exp2": lambda x: _pow(x.of.exactly(2.0), x),
    "expm1": lambda x: _exp(x) - 1.0,
    "integer_pow": _integer_pow,
    "log": _log,
    "log1p": lambda x: _log(x + 1.0),
    "log2": lambda x: _log(x) / _log(x.of.exactly(2.0)),
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
    "tan": lambda x: FUNCTIONS["sin"](x) / FUNCTIONS["cos"](x),
    "tanh": lambda x: 1.0 - 2.0 / (_exp(x + x) + 1.0),
}
"""Primitives by name."""


class Residues:
    """The arithmetic of residues; see ``exact.Arithmetic``."""

    FUNCTIONS: ClassVar = FUNCTIONS
    RULES: ClassVar = {}
    UNKNOWN: ClassVar[str] = "has no exact model"

    def __init__(self, towers: Towers, deadline: float = math.inf):
        """The arithmetic in given towers, up to a deadline of ``time.thread_time``."""
        self.towers = towers
        self._deadline = deadline
        self.by_shadow = False  # whether shadows may decide comparisons
        self.unknown: dict[str, np.ndarray] = {}  # random bits per unknown function
        self.roots = False  # whether a root was taken, with a choice of the sign
        self._logarithms: dict[bytes, np.ndarray] = {}

    def exactly(self, array: Any) -> Numbers:
        """The residues of integers and of float64 numbers, integers times 2^n."""
        if isinstance(array, Numbers):
            return array
        array = np.asarray(array)
        _check_size(array.size)
        if array.dtype.kind == "c":
            raise Unsupported("complex numbers have no exact model")
        with np.errstate(all="ignore"):
            shadow = array.astype(np.float64) + 0.0
            finite = np.where(np.isfinite(shadow), array, 0)
        if np.all(np.abs(finite) < 2.0**53) and np.all(finite == np.rint(finite)):
            signed = self.towers.primes.astype(np.int64)
            residues = (_beside(finite.astype(np.int64)) % signed).astype(np.uint64)
        else:
            ratios = [number.as_integer_ratio() for number in finite.ravel().tolist()]
            above, below = (self.towers.integers(part) for part in zip(*ratios, strict=True))
            residues = self.towers.mul(above, self.towers.inverse(below))
            residues = residues.reshape(*array.shape, *self.towers.primes.shape)
        everywhere = np.ones(self.towers.primes.shape, bool)
        return Numbers(self, residues, shadow, everywhere, np.zeros((*array.shape, 1, 1)), True)

    def apply(self, name: str, *operands: Any, **params: Any) -> Numbers:
        """A primitive on every entry; see ``exact.Arithmetic``."""
        if time.thread_time() > self._deadline:
            raise TimeoutError
        numbers = [self.exactly(x) for x in operands]
        _check_size(math.prod(np.broadcast_shapes(*(x.shape for x in numbers))))
        with np.errstate(all="ignore"):
            return self.FUNCTIONS[name](*numbers, **params)

    def compare(self, x: Any, y: Any) -> np.ndarray:
        """Equal residues are equal; else shadows decide, of inputs only if allowed."""
        signs, undecided = self.order(self.exactly(x), self.exactly(y))
        if np.any(undecided):
            raise Undecided("a comparison that random inputs do not decide")
        return signs

    def order(self, x: Numbers, y: Numbers) -> tuple[np.ndarray, np.ndarray]:
        """The signs of x - y, 2 for NaN, and the entries where nothing decides."""
        known, finite = x.known & y.known, np.isfinite(x.shadow) & np.isfinite(y.shadow)
        equal = finite & np.all((x.residues == y.residues)[..., known], axis=-1)
        equal &= np.count_nonzero(known) >= FEWEST
        signs = (x.shadow > y.shadow).astype(np.int8) - (x.shadow < y.shadow)
        signs = np.where(np.isnan(x.shadow) | np.isnan(y.shadow), 2, np.where(equal, 0, signs))
        by_shadow = self.by_shadow or (x.constant and y.constant)
        return signs, finite & ~equal & ((signs == 0) | (not by_shadow))

    def joined(self, parts: Sequence[Numbers]) -> Numbers:
        """See ``exact.Arithmetic``, as of the methods below."""
        parts = [part.reshape(-1) for part in parts]
        shadow = np.concatenate([part.shadow for part in parts])
        residues = np.concatenate([part.residues for part in parts])
        known = np.logical_and.reduce([part.known for part in parts])
        axes = max(part.parity.shape[1:] for part in parts)
        parity = [np.broadcast_to(part.parity, (*part.shape, *axes)) for part in parts]
        constant = all(part.constant for part in parts)
        return Numbers(self, residues, shadow, known, np.concatenate(parity), constant)

    def logarithms(self, squares: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """``Towers.log`` with a memory: formula and reference often take equal logarithms."""
        call = squares.tobytes() + wanted.tobytes()
        if call not in self._logarithms:
            self._logarithms[call] = self.towers.log(squares, wanted)
        return self._logarithms[call]

    def rounded(self, x: Numbers) -> np.ndarray:
        """Residues have no nearest float."""
        raise Unsupported("rounding to fewer bits has no exact model")

    def whole(self, x: Numbers) -> np.ndarray:
        """The whole parts of the shadows."""
        return _step(np.trunc, x).shadow
