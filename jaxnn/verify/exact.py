"""Formula and reference at single points in high precision: wrong, or only inaccurate?

A formula in float64 is off for three reasons: the formula is wrong; the function has no derivative;
or rounding errors grow. Autodiff in float64 cannot tell the reasons apart: at logits
(37.4, 0, -1, -2) autodiff loses the same 50 bits as the textbook's softmax Jacobian. A judge
evaluates the formula and autodiff's operations with 1200 bits.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import mpmath
import numpy as np

from jaxnn.verify import precise
from jaxnn.verify.comparison import TracedClaim
from jaxnn.verify.inputs import REAL_KINDS, Input, leaves
from jaxnn.verify.verdict import MANTISSA

BITS = 1200
"""Bits of the high precision: enough for 1 + the smallest float64."""

RETRIES = 4
"""Points of a claim judged again with 16 times the bits, which takes seconds."""

HAIR = 2.0**-200
"""One-sided derivatives are evaluated at x ± HAIR²; smaller jumps are ignored."""

_SINGULAR = 2.0**150
"""A larger one-sided derivative has no limit."""

_SMALLEST = 2.0**-1022
"""Smaller numbers count as zero: float64 loses relative accuracy below."""

Exact = list[np.ndarray]
"""Leaves as object arrays of high-precision numbers."""


class Judgement(NamedTuple):
    """The result at one point."""

    outcome: str  # right, wrong, kink or undefined
    bits_lost: float = 0.0  # of the formula in float64, beyond the effect of rounding the inputs
    leaf: int = 0  # of the worst entry
    index: tuple[int, ...] = ()
    formula: float = np.nan
    reference: float = np.nan
    one_sided: tuple[float, float] | None = None


class Judge:
    """Judges a traced claim at single points."""

    def __init__(self, traced: TracedClaim, arrange: Sequence[Callable[[np.ndarray], np.ndarray]]):
        """Compiles formula and reference.

        Args:
          traced: the traced claim.
          arrange: per leaf, from jaxnn's layout to the formula's.

        Raises:
          Unsupported: formula or reference has an operation unknown to the high precision.
        """
        self._formula = precise.compile(traced.formula)
        self._reverse = precise.compile(traced.reverse)
        self._generators = leaves(traced.claim.inputs)
        self._arrange = arrange
        self._tolerance = traced.claim.tolerance
        self._is_value = traced.claim.kind == "value"  # exists even where the function jumps
        self._retries = RETRIES

    def __call__(self, point: Sequence[np.ndarray], computed: Sequence[np.ndarray]) -> Judgement:
        """Judges the formula at a point.

        Args:
          point: the flat inputs.
          computed: the formula's leaves at the point, in float64.
        """
        for bits in (BITS, 16 * BITS):
            with mpmath.workprec(bits):
                exactly = [_constrained(v, g) for v, g in zip(point, self._generators, strict=True)]
                judgement = self._judge(exactly, computed, bits)
                unremarkable = judgement.outcome == "right" and judgement.bits_lost <= MANTISSA / 2
                if unremarkable or judgement.outcome == "undefined":
                    return judgement
                if not self._in_doubt(exactly, bits):
                    return judgement
            self._retries -= 1
            if self._retries < 0:
                break
        # More bits do not help: 1 - p may vanish with any number of bits.
        largest = max(np.max(np.abs(value), initial=0.0) for value in point)
        ordinary = largest <= 100 and not _finite(self._formula(exactly, bits))
        return judgement if ordinary else Judgement("undefined")

    def _judge(self, point: Sequence[Any], computed: Sequence[np.ndarray], bits: int) -> Judgement:
        formula, reference = self._formula(point, bits), self._reference(point, bits)
        movement = partial(self._movement, point, reference, bits)
        finite = _finite(reference) and _finite(formula)
        differs = not finite or self._differs(formula, reference)
        if self._is_value and finite:
            if differs and (
                any(  # the function jumps
                    self._differs(self._reference(side, bits), reference, None, 1e-6, HAIR)
                    for side in self._beside(point)
                )
                or self._differs(formula, reference, movement(of_formula=False))
            ):
                return _worst("wrong", formula, reference)
        elif differs:
            below, above = self._beside(point)
            one_sided = self._reference(below, bits), self._reference(above, bits)
            if not all(map(_finite, one_sided)) or max(map(_largest, one_sided)) > _SINGULAR:
                return Judgement("undefined")
            if self._differs(*one_sided, None, 1e-6, HAIR):
                if not _finite(reference) or not self._differs(formula, reference):
                    return Judgement("undefined")
                return _worst("kink", formula, reference, one_sided)
            # The derivative's limit, where autodiff at the point has another value or none.
            reference = one_sided[0]
            movement = partial(self._movement, point, reference, bits)
            if not _finite(formula):  # 0/0 in the formula: the formula's limit may be right
                formula = self._formula(below, bits)
            if self._differs(formula, reference) and self._differs(formula, reference, movement()):
                return _worst("wrong", formula, reference)
        return _accuracy(computed, reference, movement)

    def _in_doubt(self, point: Sequence[Any], bits: int) -> bool:
        """Whether formula or reference lost all bits to cancellation, at the point or beside.

        Lost bits depend on the direction in which sums are rounded.
        """

        def lost(program: Callable[..., Exact], where: Sequence[Any]) -> bool:
            down, up = program(where, bits), program(where, bits, away=True)
            if not _finite(down):
                return where is not point  # 0/0 at the point alone is no loss
            return self._differs(down, up, None, 1e-9)

        places = (point, *self._beside(point))
        return any(lost(program, at) for at in places for program in (self._formula, self._reverse))

    def _reference(self, point: Sequence[Any], bits: int) -> Exact:
        leaves = self._reverse(point, bits)
        return [
            arrange(np.asarray(leaf, object))
            for arrange, leaf in zip(self._arrange, leaves, strict=True)
        ]

    def _movement(
        self, point: Sequence[Any], reference: Exact, bits: int, of_formula: bool = True
    ) -> Exact:
        """The change of formula and reference when every input is rounded once: unavoidable.

        Formula and reference need to change alike only within the inputs' constraints:
        p - y and p sum(y) - y do not.
        """
        programs = [(reference, self._reference)]
        if of_formula:
            programs.append((self._formula(point, bits), self._formula))
        moved = [np.zeros(leaf.shape, object) for leaf in reference]
        for seed in range(2):
            nudged = self._nudged(point, np.random.default_rng(seed))
            for here, program in programs:
                there = program(nudged, bits)
                if _finite(here) and _finite(there):
                    moved = [
                        np.asarray(np.maximum(m, _absolute(b - a)), object)
                        for m, a, b in zip(moved, here, there, strict=True)
                    ]
        return moved

    def _nudged(self, point: Sequence[Any], rng: np.random.Generator) -> list[Any]:
        """The point with every real number changed by at most a rounding error of float64."""
        nudged = []
        for value, generator in zip(point, self._generators, strict=True):
            if generator.kind in REAL_KINDS:
                size = np.asarray(value, float)
                unit = np.where(size == 0, 1.0, np.abs(size)) * 2.0**-MANTISSA
                nudge = unit * _direction(rng, size.shape)
                inwards = (size == 0) & (generator.kind != "real")
                value = _exact(value) + _exact(np.where(inwards, np.abs(nudge), nudge))
            nudged.append(value)
        return nudged

    def _beside(self, point: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Two points a hair apart from the point, opposite, within the inputs' domain."""
        rng = np.random.default_rng(0)
        pairs = []
        for value, generator in zip(point, self._generators, strict=True):
            pair = value, value
            if generator.kind in REAL_KINDS:
                hair = _exact(_direction(rng, np.shape(value))) * HAIR**2
                value, width = _exact(value), _absolute(hair)
                pair = value - hair, value + hair
                if generator.kind != "real":
                    edge = value <= width
                    pair = np.where(edge, (value + width / 2, value + width), pair)
            pairs.append(pair)
        return [*zip(*pairs, strict=True)]

    def _differs(
        self,
        value: Exact,
        reference: Exact,
        moved: Exact | None = None,
        tolerance: float | None = None,
        least: float = _SMALLEST,
    ) -> bool:
        """Whether a leaf is off, by norm, by more than tolerance, movement and ``least`` allow."""
        tolerance = self._tolerance if tolerance is None else tolerance
        moved = moved or [np.zeros(1)] * len(reference)
        return any(
            not _norm(v - r) <= tolerance * _norm(r) + least + 1024 * _norm(m)
            for v, r, m in zip(value, reference, moved, strict=True)
        )


def _worst(
    outcome: str, formula: Exact, reference: Exact, one_sided: tuple[Exact, Exact] | None = None
) -> Judgement:
    """A judgement that names the entry with the largest difference; NaN counts as infinite."""
    distances = [np.abs(np.asarray(f - r, float)) for f, r in zip(formula, reference, strict=True)]
    leaf, index = _largest_at([np.nan_to_num(d, nan=np.inf, posinf=np.inf) for d in distances])
    limits = None
    if one_sided is not None:
        below, above = sorted(_rounded(leaves[leaf][index]) for leaves in one_sided)
        limits = below, above
    values = _rounded(formula[leaf][index]), _rounded(reference[leaf][index])
    return Judgement(outcome, 0.0, leaf, index, *values, limits)


def _accuracy(
    computed: Sequence[np.ndarray], reference: Exact, movement: Callable[[], Exact]
) -> Judgement:
    """The bits that the formula loses in float64, in the worst entry.

    Bits that rounding the inputs would lose do not count; the movement is computed only where
    bits are lost.
    """
    nearest = [leaf.astype(float) for leaf in reference]
    lost = [_bits_lost(f, t) for f, t in zip(computed, nearest, strict=True)]
    if any(np.any(bits > MANTISSA / 2) for bits in lost):
        for leaf, moved in enumerate(movement()):
            bits, unavoidable = lost[leaf], moved.astype(float)
            with np.errstate(all="ignore"):
                error = np.abs(computed[leaf] - nearest[leaf])
                beyond = np.log2(np.maximum(1.0, error / unavoidable))
            known = (unavoidable > 0) & (unavoidable < np.inf) & (beyond <= MANTISSA / 2)
            counted = (bits > MANTISSA / 2) & np.isfinite(computed[leaf]) & known
            lost[leaf] = np.where(counted, beyond, bits)
    leaf, index = _largest_at(lost)
    if not lost[leaf].size:
        return Judgement("right")
    values = float(computed[leaf][index]), float(nearest[leaf][index])
    return Judgement("right", float(lost[leaf][index]), leaf, index, *values)


def _largest_at(leaves: Sequence[np.ndarray]) -> tuple[int, tuple[int, ...]]:
    """The leaf and the index of the largest entry."""
    leaf = max(range(len(leaves)), key=lambda leaf: leaves[leaf].max(initial=0.0))
    if not leaves[leaf].size:
        return leaf, ()
    index = np.unravel_index(np.argmax(leaves[leaf]), leaves[leaf].shape)
    return leaf, tuple(map(int, index))


def _rounded(number: Any) -> float:
    """To float64; a remainder below a hair is zero."""
    value = float(number)
    return 0.0 if abs(value) < HAIR else value


def _bits_lost(computed: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Per entry, of a value in float64, against the reference rounded to float64."""
    with np.errstate(all="ignore"):
        error = np.abs(computed - nearest)
        bits = np.log2(
            np.maximum(1.0, error / np.maximum(np.abs(nearest) * 2.0**-MANTISSA, _SMALLEST))
        )
    bits = np.where(np.isfinite(computed), bits, MANTISSA)
    beyond_range = ~np.isfinite(nearest)  # no formula in float64 reaches the value
    return np.asarray(np.minimum(MANTISSA, np.where(beyond_range, 0.0, bits)))


def _direction(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random numbers of either sign, from 0.5 to 1 in size."""
    return rng.uniform(0.5, 1.0, size=shape) * rng.choice([-1.0, 1.0], size=shape)


def _exact(array: np.ndarray) -> np.ndarray:
    return np.frompyfunc(mpmath.mpf, 1, 1)(np.asarray(array, object)) + mpmath.mpf(0)


def _constrained(value: np.ndarray, generator: Input) -> np.ndarray:
    """Probabilities with a sum of exactly one, not one up to rounding."""
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


def _norm(leaf: np.ndarray) -> Any:
    entries = np.asarray(leaf, object).flat  # arrays of rank 0 differ by a plain number
    return mpmath.sqrt(sum((entry * entry for entry in entries), start=mpmath.mpf(0)))
