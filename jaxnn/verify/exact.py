"""Claim and truth at single points, in high precision: is it wrong there, or only inaccurate?

A formula evaluated in float64 is off for three reasons: it is wrong; the function has no derivative
there; or its rounding errors grow. Autodiff in float64 cannot tell them apart, since at logits
(37.4, 0, -1, -2) it loses the same 50 bits as the textbook's softmax Jacobian. Here the formula
and autodiff's own operations are evaluated with 1200 bits.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import mpmath
import numpy as np

from jaxnn.verify import precise
from jaxnn.verify.comparison import TracedClaim
from jaxnn.verify.inputs import REAL_KINDS, Input
from jaxnn.verify.verdict import MANTISSA

BITS = 1200
"""Of the high precision: enough for the smallest float64 beside 1."""

RETRIES = 4
"""Points of a claim that are judged again with 16 times the bits: that takes seconds."""

HAIR = 2.0**-200
"""One-sided derivatives are taken at its square to either side; kinks are larger than it."""

_SINGULAR = 2.0**150
"""A one-sided derivative larger than this has no limit."""

_SMALLEST = 2.0**-1022
"""Nothing below counts: float64 has no relative accuracy there."""

Exact = list[np.ndarray]
"""Leaves as object arrays of high-precision numbers."""


class Judgement(NamedTuple):
    """What is so at one point."""

    outcome: str  # right, wrong, kink or undefined
    bits_lost: float = 0.0  # of the formula in float64, beyond what rounding its inputs explains
    leaf: int = 0  # the worst entry
    index: tuple[int, ...] = ()
    formula: float = np.nan
    reference: float = np.nan
    one_sided: tuple[float, float] | None = None


class Judge:
    """Judges a traced claim at single points."""

    def __init__(
        self,
        traced: TracedClaim,
        generators: Sequence[Input],
        arrange: Sequence[Callable[[np.ndarray], np.ndarray]],
        tolerance: float,
        exactly: bool = False,
    ):
        """Compiles both sides.

        Args:
          traced: the traced claim.
          generators: what the flat inputs are drawn from.
          arrange: per leaf, from this package's layout to the formula's.
          tolerance: the largest relative error, by norm, of a right formula.
          exactly: the claim is about a value, which is what it is even where the function jumps.

        Raises:
          precise.Unsupported: an operation of either side is unknown to the high precision.
        """
        self._formula = precise.compile(traced.formula)
        self._reverse = precise.compile(traced.reverse)
        self._generators = generators
        self._arrange = arrange
        self._tolerance = tolerance
        self._exactly = exactly
        self._retries = RETRIES

    def __call__(self, point: Sequence[np.ndarray], computed: Sequence[np.ndarray]) -> Judgement:
        """Judges the formula at a point.

        Args:
          point: the flat inputs.
          computed: the formula's leaves there, in float64.
        """
        bits = BITS
        while True:
            with mpmath.workprec(bits):
                exactly = [_constrained(v, g) for v, g in zip(point, self._generators, strict=True)]
                judgement = self._judge(exactly, computed, bits)
                unremarkable = judgement.outcome == "right" and judgement.bits_lost <= MANTISSA / 2
                if unremarkable or judgement.outcome == "undefined":
                    return judgement
                if not self._in_doubt(exactly, bits):
                    return judgement
            self._retries -= 1
            if bits > BITS or self._retries < 0:
                # More bits do not help: of 1 - p there may be nothing left with any number of them.
                largest = max(np.max(np.abs(value), initial=0.0) for value in point)
                ordinary = largest <= 100 and not _finite(self._formula(exactly, bits))
                return judgement if ordinary else Judgement("undefined")
            bits *= 16

    def _judge(self, point: Sequence[Any], computed: Sequence[np.ndarray], bits: int) -> Judgement:
        claimed, true = self._formula(point, bits), self._true(point, bits)
        if self._exactly and _finite(true) and _finite(claimed):
            if self._differs(claimed, true, None):
                return self._worst("wrong", claimed, true)
        elif not _finite(true) or not _finite(claimed) or self._differs(claimed, true, None):
            sides = self._beside(point)
            one_sided = self._true(sides[0], bits), self._true(sides[1], bits)
            if not all(map(_finite, one_sided)) or max(map(_largest, one_sided)) > _SINGULAR:
                return Judgement("undefined")
            if self._differs(*one_sided, None, 1e-6, HAIR):
                if not _finite(true) or not self._differs(claimed, true, None):
                    return Judgement("undefined")
                return self._worst("kink", claimed, true, one_sided)
            true = one_sided[0]  # the derivative's limit, where autodiff's own value is not
            if not _finite(claimed):  # 0/0 in the formula: its limit may be right
                claimed = self._formula(sides[0], bits)
            if self._differs(claimed, true, None) and self._differs(
                claimed, true, self._movement(point, true, bits)
            ):
                return self._worst("wrong", claimed, true)
        return self._accuracy(computed, true, partial(self._movement, point, true, bits))

    def _in_doubt(self, point: Sequence[Any], bits: int) -> bool:
        """Whether either side has lost its bits, at the point or beside it, even with so many.

        Then it depends on which way sums are rounded.
        """
        for where in (point, *self._beside(point)):
            for side in (self._formula, self._reverse):
                down, up = side(where, bits), side(where, bits, away=True)
                if not _finite(down):
                    if where is point:  # 0/0 in one point only
                        continue
                    return True
                if self._differs(down, up, None, 1e-9):
                    return True
        return False

    def _true(self, point: Sequence[Any], bits: int) -> Exact:
        leaves = self._reverse(point, bits)
        return [
            arrange(np.asarray(leaf, object))
            for arrange, leaf in zip(self._arrange, leaves, strict=True)
        ]

    def _movement(self, point: Sequence[Any], true: Exact, bits: int) -> Exact:
        """How much either side moves when every input is rounded once: what none can avoid.

        Both, for only within its constraints need they move alike: p - y and p sum(y) - y do not.
        """
        claimed = self._formula(point, bits)
        moved = [np.zeros(leaf.shape, object) for leaf in true]
        for nudge in range(2):
            rng = np.random.default_rng(nudge)
            nudged = []
            for value, generator in zip(point, self._generators, strict=True):
                if generator.kind in REAL_KINDS:
                    size = np.asarray(value, float)
                    unit = np.where(size == 0, 1.0, np.abs(size)) * 2.0**-MANTISSA
                    nudge = unit * _direction(rng, size.shape)
                    inwards = (size == 0) & (generator.kind != "real")
                    value = _exact(value) + _exact(np.where(inwards, np.abs(nudge), nudge))
                nudged.append(value)
            for here, there in (
                (true, self._true(nudged, bits)),
                (claimed, self._formula(nudged, bits)),
            ):
                if _finite(here) and _finite(there):
                    moved = [
                        np.asarray(np.maximum(m, _absolute(b - a)), object)
                        for m, a, b in zip(moved, here, there, strict=True)
                    ]
        return moved

    def _beside(self, point: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The points a hair to either side, in a random direction, within the inputs' domain."""
        rng = np.random.default_rng(0)
        before, after = [], []
        for value, generator in zip(point, self._generators, strict=True):
            if generator.kind not in REAL_KINDS:
                before.append(value)
                after.append(value)
                continue
            hair = _exact(_direction(rng, np.shape(value))) * HAIR**2
            value = _exact(value)
            width = _absolute(hair)
            edge = (value <= width) & (generator.kind != "real")
            before.append(np.where(edge, value + width / 2, value - hair))
            after.append(np.where(edge, value + width, value + hair))
        return before, after

    def _differs(
        self,
        claimed: Exact,
        true: Exact,
        moved: Exact | None,
        tolerance: float | None = None,
        least: float = _SMALLEST,
    ) -> bool:
        """Whether any leaf is off, by norm, by more than the tolerance, and at least by so much."""
        tolerance = self._tolerance if tolerance is None else tolerance
        for leaf, (c, t) in enumerate(zip(claimed, true, strict=True)):
            allowed = tolerance * _norm(t) + least
            if moved is not None:
                allowed += 1024 * _norm(moved[leaf])
            if not _norm(c - t) <= allowed:
                return True
        return False

    def _worst(
        self,
        outcome: str,
        claimed: Exact,
        true: Exact,
        one_sided: tuple[Exact, Exact] | None = None,
    ) -> Judgement:
        """The judgement that names the entry where two sides differ most."""
        leaf, index, _ = max(
            (
                (leaf, index, _size(c[index] - t[index]))
                for leaf, (c, t) in enumerate(zip(claimed, true, strict=True))
                for index in np.ndindex(c.shape)
            ),
            key=lambda entry: entry[2],
        )
        sides = None
        if one_sided is not None:
            before, after = (_rounded(side[leaf][index]) for side in one_sided)
            sides = (min(before, after), max(before, after))
        return Judgement(
            outcome,
            0.0,
            leaf,
            index,
            _rounded(claimed[leaf][index]),
            _rounded(true[leaf][index]),
            sides,
        )

    def _accuracy(
        self, computed: Sequence[np.ndarray], true: Exact, movement: Callable[[], Exact]
    ) -> Judgement:
        """How many bits the formula loses in float64, in its worst entry.

        Bits that rounding the inputs once would lose are not counted; how many those are is only
        asked where there is a loss to explain.
        """
        nearest = [leaf.astype(float) for leaf in true]
        lost = [_bits_lost(f, t) for f, t in zip(computed, nearest, strict=True)]
        if max((bits.max(initial=0.0) for bits in lost), default=0.0) > MANTISSA / 2:
            moved = movement()
            for leaf, bits in enumerate(lost):
                for index in map(tuple, np.argwhere(bits > MANTISSA / 2)):
                    if not np.isfinite(computed[leaf][index]):
                        continue
                    moves = float(moved[leaf][index])
                    error = abs(float(computed[leaf][index]) - nearest[leaf][index])
                    beyond = _bits(error / moves) if 0 < moves < np.inf else MANTISSA
                    bits[index] = min(bits[index], MANTISSA if beyond > MANTISSA / 2 else beyond)
        leaf = max(range(len(lost)), key=lambda leaf: lost[leaf].max(initial=0.0))
        if not lost[leaf].size:
            return Judgement("right")
        index = tuple(map(int, np.unravel_index(np.argmax(lost[leaf]), lost[leaf].shape)))
        values = float(computed[leaf][index]), float(nearest[leaf][index])
        return Judgement("right", float(lost[leaf][index]), leaf, index, *values)


def _rounded(number: Any) -> float:
    """To float64; what is left of a hair is zero."""
    value = float(number)
    return 0.0 if abs(value) < HAIR else value


def _bits_lost(computed: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Per entry, of a value in float64 and the true one rounded to it."""
    with np.errstate(all="ignore"):
        error = np.abs(computed - true)
        bits = np.log2(
            np.maximum(1.0, error / np.maximum(np.abs(true) * 2.0**-MANTISSA, _SMALLEST))
        )
    bits = np.where(np.isfinite(computed), bits, MANTISSA)
    beyond_range = ~np.isfinite(true)  # no formula in float64 can give that
    return np.asarray(np.minimum(MANTISSA, np.where(beyond_range, 0.0, bits)))


def _bits(ratio: Any) -> float:
    return float(min(MANTISSA, np.log2(ratio))) if ratio > 1 else 0.0


def _direction(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random numbers of either sign, none of them small."""
    return rng.uniform(0.5, 1.0, size=shape) * rng.choice([-1.0, 1.0], size=shape)


def _exact(array: np.ndarray) -> np.ndarray:
    return np.frompyfunc(mpmath.mpf, 1, 1)(np.asarray(array, object)) + mpmath.mpf(0)


def _constrained(value: np.ndarray, generator: Input) -> np.ndarray:
    """Probabilities that sum to one exactly, rather than to rounding."""
    if generator.kind != "simplex":
        return value
    exactly = _exact(value)
    return exactly / exactly.sum(axis=generator.axis, keepdims=True)


def _finite(leaves: Exact) -> bool:
    return all(mpmath.isfinite(entry) for leaf in leaves for entry in leaf.flat)


def _absolute(array: np.ndarray) -> np.ndarray:
    return np.frompyfunc(abs, 1, 1)(array)


def _largest(leaves: Exact) -> Any:
    return max((abs(entry) for leaf in leaves for entry in leaf.flat), default=0)


def _size(number: Any) -> float:
    """For ordering: not a number counts as infinite."""
    return float(abs(number)) if mpmath.isfinite(number) else float("inf")


def _norm(leaf: np.ndarray) -> Any:
    entries = np.asarray(leaf, object).flat  # the difference of two arrays of rank 0 is none
    return mpmath.sqrt(sum((entry * entry for entry in entries), start=mpmath.mpf(0)))
