"""Formula and reference at single points, enclosed in balls: wrong, or only inaccurate?

A formula in float64 is off for three reasons: the formula is wrong; the function has no derivative;
or rounding errors grow. Autodiff in float64 cannot tell the reasons apart: at logits
(37.4, 0, -1, -2) autodiff loses the same 50 bits as the textbook's softmax Jacobian. A judge
encloses the results of the formula and of autodiff's operations. A wrong formula is proved wrong:
the enclosure of claimed - true excludes zero by more than the tolerance.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from flint import arb

from jaxnn.verify.claims import call, places
from jaxnn.verify.comparison import TracedClaim, refuse_large
from jaxnn.verify.comparison import reference as autodiff_of
from jaxnn.verify.exact import Undecided
from jaxnn.verify.exact.balls import Balls, is_infinite, precision
from jaxnn.verify.exact.interpreter import compile
from jaxnn.verify.graph import Unsupported, jit, primitives
from jaxnn.verify.inputs import (
    NONNEGATIVE_KINDS,
    REAL_KINDS,
    TRIANGULAR_KINDS,
    Input,
    filled,
    leaves,
)
from jaxnn.verify.verdict import MANTISSA

BITS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Precisions tried in turn until every comparison is decided."""

EXPENSIVE, RETRIES = 2048, 4
"""Points of a claim that are judged with more than EXPENSIVE bits, which takes seconds."""

EXACTLY = 4096
"""Bits in which sums of a few float64 numbers are exact."""

HAIR = 2.0**-200
"""One-sided derivatives are evaluated at x ± HAIR²; smaller jumps are ignored."""

MARGIN = 16
"""Bits by which JAX's own derivative has to be better for a formula to be unstable."""

SMALLEST, LARGEST = 1e-3, 16.0
"""Sizes of the inputs at which float64 shows whether a black box is wrong."""

STEP, FAR = 2.0**-24, 2.0**-12
"""Relative distances of points whose third differences are rounding errors."""

PICKING = frozenset(("argmax", "argmin", "select_and_gather_add", "select_and_scatter_add", "sort"))
"""Primitives whose derivative picks an entry among equal ones: agreement is no derivative there."""

_SINGULAR = 2.0**150
"""A larger one-sided derivative has no limit."""

_TINY = 2.0**-1074
_SMALLEST = 2.0**-1022
"""Smaller numbers count as zero: float64 loses relative accuracy below."""

Enclosed = Any
"""The entries of all leaves, one leaf after the other: an array of balls."""


class Judgement(NamedTuple):
    """The result at one point."""

    outcome: str  # right, wrong, kink, undefined or undecided
    bits_lost: float = 0.0  # of the formula in float64, beyond the effect of rounding the inputs
    leaf: int = 0  # of the worst entry
    index: tuple[int, ...] = ()
    formula: float = np.nan
    reference: float = np.nan
    one_sided: tuple[float, float] | None = None
    limit: float | None = None  # of a wrong formula, not a number at the point itself
    at_least: float | None = None  # a proven bound of |formula - reference|
    autodiff_lost: float = 0.0  # bits that JAX's own derivative loses in the same entry
    unstable: bool = False  # where JAX's own derivative is better
    told: bool = True  # False: rounding hardly explains the difference of a black box


class Judge:
    """Judges a traced claim at single points."""

    def __init__(
        self,
        traced: TracedClaim,
        arrange: Sequence[Callable[[np.ndarray], np.ndarray]],
        usual: Sequence[float] = (),
    ):
        """Compiles formula and reference.

        Args:
          traced: the traced claim.
          arrange: per leaf, from jaxnn's layout to the formula's.
          usual: per leaf the usual norm of the reference, beside which a black box is judged.

        Raises:
          Unsupported: formula or reference has an operation unknown to the balls, or too many.
        """
        refuse_large(traced)
        balls = Balls()
        self._black_box = traced.black_box if traced.read is None else None
        self._formula_program = None if traced.read is None else compile(traced.read, balls)
        self._reference_program = compile(traced.reverse, balls)
        self._value = compile(traced.value, balls)
        self._floor = [1e-3 * norm for norm in usual if self._black_box] or [0.0] * len(arrange)
        self._generators = leaves(traced.claim.inputs)
        self._arrange = arrange
        arrays = (np.empty(aval.shape) for aval in traced.reverse.out_avals)
        self._shapes = [change(x).shape for change, x in zip(arrange, arrays, strict=True)]
        self._ends = np.cumsum([*map(math.prod, self._shapes)])
        self._formula_shapes = [aval.shape for aval in traced.read.out_avals] if traced.read else []
        self._autodiff = _autodiff(traced)
        self._tolerance = traced.claim.tolerance
        self._is_value = traced.claim.kind == "value"  # exists even where the function jumps
        self._picks = not PICKING.isdisjoint(primitives(traced.reverse))
        self._wrt = _places(traced)
        self._retries = RETRIES

    def __call__(self, point: Sequence[np.ndarray], computed: Sequence[np.ndarray]) -> Judgement:
        """Judges the formula at a point.

        Args:
          point: the flat inputs.
          computed: the formula's leaves at the point, in float64.
        """
        exactly = self._exactly(point)
        for bits in BITS:
            self._retries -= bits == 2 * EXPENSIVE
            if bits > EXPENSIVE and self._retries < 0:
                break
            with precision(bits):
                try:
                    return self._judge(exactly, point, _joined(computed))
                except Undecided:
                    continue
                except Unsupported:  # a loop without an end
                    break
        return Judgement("undecided")

    def at_least(
        self, point: Sequence[np.ndarray], leaf: int, index: tuple[int, ...]
    ) -> float | None:
        """A proven lower bound of |formula - reference| at an entry; None where none is found."""
        if self._formula_shapes != self._shapes:  # a black box, too
            return None
        entry = self._ends[leaf - 1] * bool(leaf) + np.ravel_multi_index(index, self._shapes[leaf])
        for bits in BITS[:5]:
            with precision(bits), suppress(Undecided, Unsupported):
                exactly = self._exactly(point)
                difference = self._formula(exactly)[entry] - self._reference(exactly)[entry]
                if difference.is_finite() and abs(difference) > 0:
                    return float(difference.abs_lower())
        return None

    def is_defined(self, point: Sequence[np.ndarray]) -> bool:
        """Whether ``of`` has a value at a point, as log x has none at -1."""
        with precision(BITS[1]), suppress(Undecided, Unsupported):
            return _finite(_joined(self._value(self._exactly(point))))
        return True

    def _judge(
        self, point: Sequence[Any], given: Sequence[np.ndarray], computed: np.ndarray
    ) -> Judgement:
        formula, reference = self._formula(point), self._reference(point)
        movement = partial(self._movement, point, reference)
        is_finite = _finite(formula)
        finite = _finite(reference) and is_finite
        differs = not finite or self._differs(formula, reference)
        if self._is_value and finite:
            jumps = differs and any(
                self._jumps(self._reference(side), reference) for side in self._beside(point)
            )
            unmoved = partial(movement, of_formula=self._black_box is not None)
            if jumps or (differs and self._differs(formula, reference, unmoved())):
                if self._is_telling(given):
                    return self._worst("wrong", formula, reference)
                explained = not jumps and self._is_rounding(point, formula, reference)
                return self._accuracy(given, computed, reference, movement)._replace(told=explained)
        elif differs or self._picks:
            sides, one_sided = self._one_sided(point)
            if not all(map(_finite, one_sided)) or max(map(_largest, one_sided)) > _SINGULAR:
                return Judgement("undefined")
            if self._jumps(*one_sided):
                if not _finite(reference):
                    return Judgement("undefined")
                return self._worst("kink", formula, reference, one_sided)
            if not differs:
                return self._accuracy(given, computed, reference, movement)
            # The derivative's limit, where autodiff at the point has another value or none.
            reference = one_sided[0]
            movement = partial(self._movement, point, reference)
            if not self._is_telling(given, is_finite):
                told = not is_finite or self._is_rounding(point, formula, reference)
                return self._accuracy(given, computed, reference, movement)._replace(told=told)
            if not is_finite:  # 0/0 in the formula: the formula's limit may be right
                formula = self._formula(sides[0])
            if self._differs(formula, reference) and self._differs(formula, reference, movement()):
                wrong = self._worst("wrong", formula, reference)
                if is_finite:
                    return wrong
                return wrong._replace(formula=np.nan, limit=wrong.formula, at_least=None)
        return self._accuracy(given, computed, reference, movement)

    def _exactly(self, point: Sequence[np.ndarray]) -> list[Any]:
        """The point's floats as balls of radius 0, probabilities with a sum of exactly one."""
        with precision(EXACTLY):
            return [
                _constrained(value, generator) if value.dtype.kind == "f" else value
                for value, generator in zip(point, self._generators, strict=True)
            ]

    def _formula(self, point: Sequence[Any]) -> Enclosed:
        """Balls of the formula; of a black box the values in float64, at the nearest point."""
        arrays = [*map(np.asarray, point)]
        if self._formula_program is not None:
            return _joined(self._formula_program(arrays))
        values = [v.astype(float) if v.dtype == object else v for v in arrays]
        return _exact(_joined(self._black_box.at(values))) if self._black_box else np.array([])

    def _reference(self, point: Sequence[Any]) -> Enclosed:
        return self._arranged(self._reference_program([*map(np.asarray, point)]))

    def _arranged(self, leaves: Sequence[np.ndarray]) -> np.ndarray:
        """The entries of leaves in jaxnn's layout, in the formula's."""
        return _joined([change(x) for change, x in zip(self._arrange, leaves, strict=True)])

    def _one_sided(
        self, point: Sequence[Any]
    ) -> tuple[Sequence[Sequence[Any]], tuple[Enclosed, Enclosed]]:
        """Points beside along the derivative's parameters, else along all inputs, and references.

        Another input moves only where autodiff has no value otherwise: labels made from u > 0
        jump in u, which is no jump of a derivative by another parameter.
        """
        for everything in (False, True):
            sides = self._beside(point, everything)
            one_sided = self._reference(sides[0]), self._reference(sides[1])
            if everything or all(map(_finite, (*one_sided, self._formula(sides[0])))):
                break
        return sides, one_sided

    def _movement(
        self, point: Sequence[Any], reference: Enclosed, of_formula: bool = True
    ) -> Enclosed:
        """The change of formula and reference when every input is rounded once: unavoidable.

        Formula and reference need to change alike only within the inputs' constraints:
        p - y and p sum(y) - y do not.
        """
        programs, moved = [(reference, self._reference)], _exact(np.zeros(len(reference)))
        if of_formula and self._black_box:
            moved = self._noise(point)
        elif of_formula:
            programs.append((self._formula(point), self._formula))
        for seed in range(2):
            nudged = self._nudged(point, seed)
            for here, program in programs:
                there = program(nudged)
                if _finite(here) and _finite(there):
                    moved = np.frompyfunc(arb.max, 2, 1)(moved, abs(there - here))
        return moved

    def _is_telling(self, given: Sequence[np.ndarray], is_finite: bool = True) -> bool:
        """Whether a wrong value at a point shows a wrong formula, which balls always do.

        A black box is known in float64 alone: at large or tiny inputs rounding hides the formula,
        and 0/0 at zeros or equal numbers may have the right limit.
        """
        if self._black_box is None:
            return True
        numbers = _joined([v for v in given if v.dtype.kind == "f"] or [np.ones(1)])
        sizes = np.abs(numbers)
        moderate = ~np.any((sizes > LARGEST) | (sizes > 0) & (sizes < SMALLEST))
        ordinary = is_finite or (numbers.all() and len(np.unique(numbers)) == len(numbers))
        return bool(moderate and ordinary)

    def _directions(
        self, point: Sequence[Any], seed: int
    ) -> Iterator[tuple[int, Input, np.ndarray, np.ndarray]]:
        """Per real input: the place, the numbers' sizes, of zeros 1, and random factors."""
        rng = np.random.default_rng(seed)
        for place, (value, generator) in enumerate(zip(point, self._generators, strict=True)):
            if generator.kind in REAL_KINDS:
                size = np.abs(value.astype(float))
                factors = rng.uniform(0.5, 1.0, size.shape) * rng.choice([-1.0, 1.0], size.shape)
                yield place, generator, np.where(size == 0, 1.0, size), factors

    def _is_rounding(self, point: Sequence[Any], formula: Enclosed, reference: Enclosed) -> bool:
        """Whether rounding explains the difference of a black box at large or tiny inputs.

        Where few digits are left, as of 1 - p near p = 1, values beside the point are equal; the
        rounding errors show over a distance of many such steps.
        """
        noise = self._noise(point, FAR)
        return _finite(noise) and not self._differs(formula, reference, noise)

    def _noise(self, point: Sequence[Any], distance: float = STEP) -> Enclosed:
        """The rounding errors of a black box, from third differences beside the point."""
        steps = {
            place: _exact(distance * size * factors)
            for place, _, size, factors in self._directions(point, 0)
        }
        a, b, c, d = (
            self._formula([x + k * steps[i] if i in steps else x for i, x in enumerate(point)])
            for k in range(1, 5)
        )
        return np.abs(a - 3 * b + 3 * c - d)

    def _nudged(self, point: Sequence[Any], seed: int) -> list[Any]:
        """The point with every real number changed by at most a rounding error of float64."""
        nudged = list(point)
        for place, generator, size, factors in self._directions(point, seed):
            value, nudge = point[place], 2.0**-MANTISSA * size * factors
            inwards = (value.astype(float) == 0) & (generator.kind in NONNEGATIVE_KINDS)
            with precision(EXACTLY):
                value = value + _exact(np.where(inwards, np.abs(nudge), nudge))
                nudged[place] = _onto(generator, value, TRIANGULAR_KINDS)
        return nudged

    def _beside(self, point: Sequence[Any], everything: bool = False) -> Sequence[Sequence[Any]]:
        """Two points a hair apart from the point, opposite, within the inputs' domain."""
        sides = [*point], [*point]
        for place, generator, _, factors in self._directions(point, 0):
            if not (everything or place in self._wrt):
                continue
            with precision(EXACTLY):
                value, hair = point[place], _exact(factors) * arb(HAIR**2)
                width, pair = abs(hair), (value - hair, value + hair)
                if generator.kind in NONNEGATIVE_KINDS:
                    edge = np.asarray(value <= width, bool)
                    pair = np.where(edge, (value + width / 2, value + width), pair)
                for side, moved in zip(sides, pair, strict=True):
                    side[place] = _onto(generator, moved)
        return sides

    def _differs(
        self,
        value: Enclosed,
        reference: Enclosed,
        moved: Enclosed | None = None,
        tolerance: float | None = None,
        least: float = _SMALLEST,
    ) -> bool:
        """Whether a leaf is off, by norm, by more than tolerance, movement and ``least`` allow.

        Raises:
          Undecided: the balls are too wide to tell.
        """
        relative = arb(self._tolerance if tolerance is None else tolerance)
        if not _finite(value) or not _finite(reference):
            return True
        undecided = False
        change = _exact(np.zeros(len(reference))) if moved is None else moved
        columns = (np.split(x, self._ends[:-1]) for x in (value, reference, change))
        for v, r, m, floor in zip(*columns, self._floor, strict=True):
            allowed = relative * (_norm(r) + arb(floor)) + arb(least) + 1024 * _norm(m)
            distance = _norm(v - r)
            if distance > allowed:
                return True
            undecided |= not distance <= allowed
        if undecided:
            raise Undecided("formula and reference may differ, or not")
        return False

    def _jumps(self, side: Enclosed, other: Enclosed) -> bool:
        """Whether the function, or the derivative, has no limit between two points beside."""
        return self._differs(side, other, None, 1e-6, HAIR)

    def _accuracy(
        self, given: Sequence[np.ndarray], computed: np.ndarray, reference: Enclosed,
        movement: Callable[[], Enclosed],
    ) -> Judgement:  # fmt: skip
        """The bits that the formula loses in float64, in the worst entry, and autodiff beside.

        Bits that rounding the inputs would lose do not count; the movement and autodiff are
        computed only where the formula loses more than half its bits.
        """
        if not len(reference):
            return Judgement("right")
        nearest = _floats(reference)
        lost = _bits_lost(computed, nearest)
        autodiff_lost, unstable = np.zeros(lost.shape), np.zeros(lost.shape, bool)
        if np.any(lost > MANTISSA / 2):
            moved = movement().astype(float)
            lost = _bits_lost(computed, nearest, moved)
        if np.any(lost > MANTISSA / 2):
            autodiff_lost = _bits_lost(self._arranged(self._autodiff(given)), nearest, moved)
            unstable = (lost > MANTISSA / 2) & (autodiff_lost < lost - MARGIN)
            unstable |= ~np.isfinite(computed) & np.isfinite(nearest)
        worst = np.argmax(lost + 2 * MANTISSA * unstable)
        return Judgement(
            "right",
            float(lost[worst]),
            *self._place(worst),
            float(computed[worst]),
            float(nearest[worst]),
            autodiff_lost=float(autodiff_lost[worst]),
            unstable=bool(unstable[worst]),
        )

    def _worst(
        self,
        outcome: str,
        formula: Enclosed,
        reference: Enclosed,
        one_sided: tuple[Enclosed, Enclosed] | None = None,
    ) -> Judgement:
        """A judgement that names the entry with the largest difference; NaN counts as infinite."""
        a, b = one_sided or (formula, reference)  # at a kink the largest jump
        distances = np.abs((a - b).astype(float))
        worst = np.argmax(np.nan_to_num(distances, nan=np.inf, posinf=np.inf))
        limits = sorted(_rounded(side[worst]) for side in one_sided or ())
        claimed, true = formula[worst], reference[worst]
        difference = claimed - true
        proven = difference.is_finite() and not self._black_box
        return Judgement(
            outcome,
            0.0,
            *self._place(worst),
            _rounded(claimed),
            _rounded(true),
            (limits[0], limits[1]) if limits else None,
            at_least=float(difference.abs_lower()) if proven else None,
        )

    def _place(self, entry: Any) -> tuple[int, tuple[int, ...]]:
        """The leaf and the index of an entry."""
        leaf = int(np.searchsorted(self._ends, entry, side="right"))
        inside = entry - self._ends[leaf] + math.prod(self._shapes[leaf])
        return leaf, tuple(map(int, np.unravel_index(inside, self._shapes[leaf])))


def _places(traced: TracedClaim) -> frozenset[int]:
    """The positions, among the flat inputs, of the parameters that a derivative is taken by."""
    inputs = dict(traced.claim.inputs)
    wrt = traced.claim.wrt if traced.claim.kind != "value" else ()
    paths = wrt or inputs
    return frozenset(place for path in paths for place in places(inputs, path))


def _autodiff(traced: TracedClaim) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """JAX's own derivative in float64, with custom rules, of one point; compiled when needed."""
    claim = traced.claim
    derivative = autodiff_of(claim, of=lambda inputs: call(claim.of, inputs))

    @partial(jit, programs=[traced.reverse])
    def leaves(flat):
        return jax.tree.leaves(derivative(filled(dict(claim.inputs), flat)))

    return lambda point: [np.asarray(leaf, float) for leaf in leaves(list(point))]


def _joined(leaves: Sequence[Any]) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def _floats(balls: Enclosed) -> np.ndarray:
    """The float64 next to every ball.

    Raises:
      Undecided: a ball has fewer bits than a float64.
    """
    for ball in balls:
        if ball.is_finite() and ball.rel_accuracy_bits() < 60 and not ball.rad() < _TINY:
            raise Undecided("a result is not known to the bits of a float64")
    return balls.astype(float)


def _rounded(ball: arb) -> float:
    """To float64; a remainder below a hair is zero."""
    value = float(ball)
    return 0.0 if abs(value) < HAIR else value


def _bits_lost(
    computed: np.ndarray, nearest: np.ndarray, unavoidable: np.ndarray | None = None
) -> np.ndarray:
    """Per entry, of a value in float64, against the reference rounded to float64.

    Of more than half the bits, those that rounding the inputs would lose do not count.
    """
    with np.errstate(all="ignore"):
        error = np.abs(computed - nearest)
        unit = np.maximum(np.abs(nearest) * 2.0**-MANTISSA, _SMALLEST)
        bits = np.log2(np.maximum(1.0, error / unit))
        bits = np.minimum(MANTISSA, np.where(np.isfinite(computed), bits, MANTISSA))
        bits = np.where(np.isfinite(nearest), bits, 0.0)  # else no formula reaches the value
        if unavoidable is None:
            return bits
        beyond = np.log2(np.maximum(1.0, error / unavoidable))
    known = (unavoidable > 0) & (unavoidable < np.inf) & (beyond <= MANTISSA / 2)
    return np.where((bits > MANTISSA / 2) & np.isfinite(computed) & known, beyond, bits)


_exact = Balls().exactly


def _constrained(value: np.ndarray, generator: Input) -> np.ndarray:
    """Balls; of probabilities the largest takes the rest, so that their sum is exactly one.

    Points of a sphere and orthogonal matrices are enclosures of exact ones.
    """
    exactly = _onto(generator, _exact(value))
    if generator.kind == "simplex":
        largest = np.argmax(value, axis=generator.axis, keepdims=True)
        np.put_along_axis(exactly, largest, _exact(0), generator.axis)
        rest = 1 - exactly.sum(axis=generator.axis, keepdims=True)
        np.put_along_axis(exactly, largest, rest, generator.axis)
    return exactly


def _onto(generator: Input, value: np.ndarray, kinds: Sequence[str] = REAL_KINDS) -> np.ndarray:
    """Balls [*shape] brought onto the constraint of an input, if they are not there."""
    if generator.kind not in kinds:
        return value
    if generator.kind in TRIANGULAR_KINDS:
        kept = np.tri(value.shape[-1], dtype=bool)
        return np.where(kept if generator.kind == "lower_triangular" else kept.T, value, _exact(0))
    if generator.kind == "sphere":
        return _unit(value)
    if generator.kind == "orthogonal":
        columns: list[np.ndarray] = []
        for column in np.moveaxis(value, -1, 0):
            for other in columns:
                column = column - other * np.sum(other * column, axis=-1, keepdims=True)
            columns.append(_unit(column))
        return np.stack(columns, axis=-1)
    return value


def _unit(vectors: np.ndarray) -> np.ndarray:
    squares = np.sum(vectors * vectors, axis=-1, keepdims=True)
    return vectors / np.frompyfunc(arb.sqrt, 1, 1)(squares)


def _finite(balls: Enclosed) -> bool:
    """Whether every entry is finite.

    Raises:
      Undecided: an entry may be anything.
    """
    others = [ball for ball in balls if not ball.is_finite()]
    if any(ball.is_nan() or is_infinite(ball) for ball in others):
        return False
    if others:
        raise Undecided("a result may be any number")
    return True


def _largest(balls: Enclosed) -> float:
    return max((float(abs(ball)) for ball in balls), default=0.0)


def _norm(leaf: Enclosed) -> arb:
    return sum((ball * ball for ball in leaf), start=arb(0)).nonnegative_part().sqrt()
