"""Formula and reference at single points, enclosed in balls: wrong, or only inaccurate?

A formula in float64 is off for three reasons: the formula is wrong; the function has no derivative;
or rounding errors grow. Autodiff in float64 cannot tell the reasons apart: at logits
(37.4, 0, -1, -2) autodiff loses the same 50 bits as the textbook's softmax Jacobian. A judge
encloses the results of the formula and of autodiff's operations. A wrong formula is proved wrong:
the enclosure of claimed - true excludes zero by more than the tolerance.
"""

from collections.abc import Callable, Sequence
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

STEP = 2.0**-24
"""The relative distance of points whose third differences are rounding errors."""

PICKING = frozenset(("argmax", "argmin", "select_and_gather_add", "select_and_scatter_add", "sort"))
"""Primitives whose derivative picks an entry among equal ones: agreement is no derivative there."""

_SINGULAR = 2.0**150
"""A larger one-sided derivative has no limit."""

_TINY = arb(2.0**-1074)
_SMALLEST = 2.0**-1022
"""Smaller numbers count as zero: float64 loses relative accuracy below."""

Enclosed = list[np.ndarray]
"""Leaves as object arrays of balls."""


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


class _Program:
    """A jaxpr in balls, from flat inputs to leaves."""

    def __init__(self, jaxpr: Any, balls: Balls):
        self._compiled = compile(jaxpr, balls)
        self._shapes = [aval.shape for aval in jaxpr.out_avals]

    def __call__(self, point: Sequence[Any]) -> Enclosed:
        arrays = map(np.asarray, point)
        flat = self._compiled([v.ravel() if v.dtype == object else v for v in arrays])
        return [np.reshape(leaf, s) for leaf, s in zip(flat, self._shapes, strict=True)]


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
        self._formula_program = None if traced.read is None else _Program(traced.read, balls)
        self._floor = [1e-3 * norm for norm in usual if self._black_box] or [0.0] * len(arrange)
        self._reference_program = _Program(traced.reverse, balls)
        self._generators = leaves(traced.claim.inputs)
        self._arrange = arrange
        self._autodiff = _autodiff(traced)
        self._tolerance = traced.claim.tolerance
        self._is_value = traced.claim.kind == "value"  # exists even where the function jumps
        self._picks = not PICKING.isdisjoint(primitives(traced.reverse))
        self._value = _Program(traced.value, balls)
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
                    return self._judge(exactly, point, computed)
                except Undecided:
                    continue
                except Unsupported:  # a loop without an end
                    break
        return Judgement("undecided")

    def at_least(
        self, point: Sequence[np.ndarray], leaf: int, index: tuple[int, ...]
    ) -> float | None:
        """A proven lower bound of |formula - reference| at an entry; None where none is found."""
        if self._black_box:
            return None
        for bits in BITS[:5]:
            with precision(bits), suppress(Undecided, Unsupported):
                exactly = self._exactly(point)
                claimed, true = self._formula(exactly)[leaf], self._reference(exactly)[leaf]
                if claimed.shape != true.shape:
                    return None
                difference = claimed[index] - true[index]
                if difference.is_finite() and abs(difference) > 0:
                    return float(difference.abs_lower())
        return None

    def is_defined(self, point: Sequence[np.ndarray]) -> bool:
        """Whether ``of`` has a value at a point, as log x has none at -1."""
        with precision(BITS[1]), suppress(Undecided, Unsupported):
            return _finite(self._value(self._exactly(point)))
        return True

    def _judge(
        self, point: Sequence[Any], given: Sequence[np.ndarray], computed: Sequence[np.ndarray]
    ) -> Judgement:
        formula, reference = self._formula(point), self._reference(point)
        movement = partial(self._movement, point, reference)
        is_finite = _finite(formula)
        finite = _finite(reference) and is_finite
        differs = not finite or self._differs(formula, reference)
        if self._is_value and finite:
            jumps = differs and any(
                self._differs(self._reference(side), reference, None, 1e-6, HAIR)
                for side in self._beside(point)
            )
            unmoved = partial(movement, of_formula=self._black_box is not None)
            if self._is_telling(given) and (
                jumps or (differs and self._differs(formula, reference, unmoved()))
            ):
                return self._wrong(formula, reference)
        elif differs or self._picks:
            sides, one_sided = self._one_sided(point)
            if not all(map(_finite, one_sided)) or max(map(_largest, one_sided)) > _SINGULAR:
                return Judgement("undefined")
            if self._differs(*one_sided, None, 1e-6, HAIR):
                if not _finite(reference):
                    return Judgement("undefined")
                return _worst("kink", formula, reference, one_sided)
            if not differs:
                return self._accuracy(given, computed, reference, movement)
            # The derivative's limit, where autodiff at the point has another value or none.
            reference = one_sided[0]
            movement = partial(self._movement, point, reference)
            if not self._is_telling(given, is_finite):
                return self._accuracy(given, computed, reference, movement)
            if not is_finite:  # 0/0 in the formula: the formula's limit may be right
                formula = self._formula(sides[0])
            if self._differs(formula, reference) and self._differs(formula, reference, movement()):
                wrong = self._wrong(formula, reference)
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
        program = self._formula_program
        if program is not None:
            return program(point)
        arrays = map(np.asarray, point)
        values = [v.astype(float) if v.dtype == object else v for v in arrays]
        return [_exact(leaf) for leaf in self._black_box.at(values)] if self._black_box else []

    def _reference(self, point: Sequence[Any]) -> Enclosed:
        leaves = self._reference_program(point)
        return [
            np.asarray(arrange(leaf), object)
            for arrange, leaf in zip(self._arrange, leaves, strict=True)
        ]

    def _one_sided(
        self, point: Sequence[Any]
    ) -> tuple[Sequence[Sequence[Any]], tuple[Enclosed, Enclosed]]:
        """Points beside along the derivative's parameters, else along all inputs, and references.

        Another input moves only where autodiff has no value otherwise: labels made from u > 0
        jump in u, which is no jump of a derivative by another parameter.
        """
        sides = self._beside(point)
        one_sided = self._reference(sides[0]), self._reference(sides[1])
        if not all(map(_finite, (*one_sided, self._formula(sides[0])))):
            sides = self._beside(point, everything=True)
            one_sided = self._reference(sides[0]), self._reference(sides[1])
        return sides, one_sided

    def _movement(
        self, point: Sequence[Any], reference: Enclosed, of_formula: bool = True
    ) -> Enclosed:
        """The change of formula and reference when every input is rounded once: unavoidable.

        Formula and reference need to change alike only within the inputs' constraints:
        p - y and p sum(y) - y do not.
        """
        programs = [(reference, self._reference)]
        moved = [np.full(leaf.shape, arb(0)) for leaf in reference]
        if self._black_box:
            moved = self._noise(point) if of_formula else moved
        elif of_formula:
            programs.append((self._formula(point), self._formula))
        for seed in range(2):
            nudged = self._nudged(point, np.random.default_rng(seed))
            for here, program in programs:
                there = program(nudged)
                if _finite(here) and _finite(there):
                    moved = [
                        np.frompyfunc(arb.max, 2, 1)(m, abs(b - a))
                        for m, a, b in zip(moved, here, there, strict=True)
                    ]
        return [np.asarray(m, object) for m in moved]

    def _is_telling(self, given: Sequence[np.ndarray], is_finite: bool = True) -> bool:
        """Whether a wrong value at a point shows a wrong formula, which balls always do.

        A black box is known in float64 alone: at large or tiny inputs rounding hides the formula,
        and 0/0 at zeros or equal numbers may have the right limit.
        """
        if self._black_box is None:
            return True
        numbers = np.concatenate([v.ravel() for v in given if v.dtype.kind == "f"] or [[1.0]])
        sizes = np.abs(numbers)
        moderate = ~np.any((sizes > LARGEST) | (sizes > 0) & (sizes < SMALLEST))
        ordinary = is_finite or (numbers.all() and len(np.unique(numbers)) == len(numbers))
        return bool(moderate and ordinary)

    def _wrong(self, formula: Enclosed, reference: Enclosed) -> Judgement:
        wrong = _worst("wrong", formula, reference)
        return wrong._replace(at_least=None) if self._black_box else wrong

    def _noise(self, point: Sequence[Any]) -> Enclosed:
        """The rounding errors of a black box, from third differences beside the point."""
        rng = np.random.default_rng(0)

        def moved(value: Any, generator: Input) -> list[Any]:
            if generator.kind not in REAL_KINDS:
                return [value] * 4
            unit = np.where(value == 0, 1.0, np.abs(value.astype(float)))
            step = _exact(STEP * unit * _direction(rng, unit.shape))
            return [value + k * step for k in range(1, 5)]

        columns = map(moved, point, self._generators)
        rows = [self._formula(row) for row in zip(*columns, strict=True)]
        return [np.abs(a - 3 * b + 3 * c - d) for a, b, c, d in zip(*rows, strict=True)]

    def _nudged(self, point: Sequence[Any], rng: np.random.Generator) -> list[Any]:
        """The point with every real number changed by at most a rounding error of float64."""
        nudged = []
        for value, generator in zip(point, self._generators, strict=True):
            if generator.kind in REAL_KINDS:
                size = value.astype(float)
                unit = np.where(size == 0, 1.0, np.abs(size)) * 2.0**-MANTISSA
                nudge = unit * _direction(rng, size.shape)
                inwards = (size == 0) & (generator.kind in NONNEGATIVE_KINDS)
                with precision(EXACTLY):
                    value = value + _exact(np.where(inwards, np.abs(nudge), nudge))
                    if generator.kind in TRIANGULAR_KINDS:
                        value = _onto(generator, value)
            nudged.append(value)
        return nudged

    def _beside(self, point: Sequence[Any], everything: bool = False) -> Sequence[Sequence[Any]]:
        """Two points a hair apart from the point, opposite, within the inputs' domain."""
        rng = np.random.default_rng(0)
        pairs = []
        for place, (value, generator) in enumerate(zip(point, self._generators, strict=True)):
            pair = value, value
            if generator.kind in REAL_KINDS and (everything or place in self._wrt):
                with precision(EXACTLY):
                    hair = _exact(_direction(rng, np.shape(value))) * arb(HAIR**2)
                    width = abs(hair)
                    pair = value - hair, value + hair
                    if generator.kind in NONNEGATIVE_KINDS:
                        edge = np.asarray(value <= width, bool)
                        pair = np.where(edge, (value + width / 2, value + width), pair)
            if generator.kind in ONTO:
                with precision(EXACTLY):
                    pair = tuple(_onto(generator, side) for side in pair)
            pairs.append(pair)
        return [*zip(*pairs, strict=True)]

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
        for leaf, (v, r) in enumerate(zip(value, reference, strict=True)):
            allowed = relative * (_norm(r) + arb(self._floor[leaf])) + arb(least)
            if moved:
                allowed += 1024 * _norm(moved[leaf])
            distance = _norm(v - r)
            if distance > allowed:
                return True
            undecided |= not distance <= allowed
        if undecided:
            raise Undecided("formula and reference may differ, or not")
        return False

    def _accuracy(
        self, given: Sequence[np.ndarray], computed: Sequence[np.ndarray], reference: Enclosed,
        movement: Callable[[], Enclosed],
    ) -> Judgement:  # fmt: skip
        """The bits that the formula loses in float64, in the worst entry, and autodiff beside.

        Bits that rounding the inputs would lose do not count; the movement and autodiff are
        computed only where the formula loses more than half its bits.
        """
        nearest = [_floats(leaf) for leaf in reference]
        lost = [_bits_lost(f, t) for f, t in zip(computed, nearest, strict=True)]
        autodiff_lost = [np.zeros(bits.shape) for bits in lost]
        if any(np.any(bits > MANTISSA / 2) for bits in lost):
            moved = [leaf.astype(float) for leaf in movement()]
            lost = [*map(_beyond_rounding, lost, computed, nearest, moved)]
        unstable = [np.zeros(bits.shape, bool) for bits in lost]
        if any(np.any(bits > MANTISSA / 2) for bits in lost):
            autodiff = [
                f(leaf) for f, leaf in zip(self._arrange, self._autodiff(given), strict=True)
            ]
            autodiff_lost = [_bits_lost(a, t) for a, t in zip(autodiff, nearest, strict=True)]
            autodiff_lost = [*map(_beyond_rounding, autodiff_lost, autodiff, nearest, moved)]
            unstable = [
                ~np.isfinite(f) & np.isfinite(t) | (bits > MANTISSA / 2) & (own < bits - MARGIN)
                for f, t, bits, own in zip(computed, nearest, lost, autodiff_lost, strict=True)
            ]
        worst = [
            np.where(u, bits + 2 * MANTISSA, bits) for u, bits in zip(unstable, lost, strict=True)
        ]
        leaf, index = _largest_at(worst)
        if not lost[leaf].size:
            return Judgement("right")
        return Judgement(
            "right",
            float(lost[leaf][index]),
            leaf,
            index,
            float(computed[leaf][index]),
            float(nearest[leaf][index]),
            autodiff_lost=float(autodiff_lost[leaf][index]),
            unstable=bool(unstable[leaf][index]),
        )


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


def _worst(
    outcome: str,
    formula: Enclosed,
    reference: Enclosed,
    one_sided: tuple[Enclosed, Enclosed] | None = None,
) -> Judgement:
    """A judgement that names the entry with the largest difference; NaN counts as infinite."""
    pairs = zip(*(one_sided or (formula, reference)), strict=True)  # at a kink the largest jump
    distances = [np.abs(np.asarray(a - b, object).astype(float)) for a, b in pairs]
    leaf, index = _largest_at([np.nan_to_num(d, nan=np.inf, posinf=np.inf) for d in distances])
    limits = None
    if one_sided is not None:
        below, above = sorted(_rounded(leaves[leaf][index]) for leaves in one_sided)
        limits = below, above
    claimed, true = formula[leaf][index], reference[leaf][index]
    difference = claimed - true
    bound = float(difference.abs_lower()) if difference.is_finite() else None
    return Judgement(
        outcome, 0.0, leaf, index, _rounded(claimed), _rounded(true), limits, at_least=bound
    )


def _floats(leaf: np.ndarray) -> np.ndarray:
    """The float64 next to every ball.

    Raises:
      Undecided: a ball has fewer bits than a float64.
    """
    for ball in leaf.flat:
        if ball.is_finite() and ball.rel_accuracy_bits() < 60 and not ball.rad() < _TINY:
            raise Undecided("a result is not known to the bits of a float64")
    return leaf.astype(float)


def _beyond_rounding(
    bits: np.ndarray, computed: np.ndarray, nearest: np.ndarray, unavoidable: np.ndarray
) -> np.ndarray:
    """The bits lost, without those that rounding the inputs would lose."""
    with np.errstate(all="ignore"):
        beyond = np.log2(np.maximum(1.0, np.abs(computed - nearest) / unavoidable))
    known = (unavoidable > 0) & (unavoidable < np.inf) & (beyond <= MANTISSA / 2)
    return np.where((bits > MANTISSA / 2) & np.isfinite(computed) & known, beyond, bits)


def _largest_at(leaves: Sequence[np.ndarray]) -> tuple[int, tuple[int, ...]]:
    """The leaf and the index of the largest entry."""
    leaf = max(range(len(leaves)), key=lambda leaf: leaves[leaf].max(initial=0.0))
    if not leaves[leaf].size:
        return leaf, ()
    index = np.unravel_index(np.argmax(leaves[leaf]), leaves[leaf].shape)
    return leaf, tuple(map(int, index))


def _rounded(ball: arb) -> float:
    """To float64; a remainder below a hair is zero."""
    value = float(ball)
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
    return Balls().exactly(array).reshape(np.shape(array))


def _constrained(value: np.ndarray, generator: Input) -> np.ndarray:
    """Balls; of probabilities the largest takes the rest, so that their sum is exactly one.

    Points of a sphere and orthogonal matrices are enclosures of exact ones.
    """
    exactly = _onto(generator, _exact(value))
    if generator.kind == "simplex":
        largest = np.argmax(value, axis=generator.axis, keepdims=True)
        rest = exactly.sum(axis=generator.axis, keepdims=True) - np.take_along_axis(
            exactly, largest, generator.axis
        )
        np.put_along_axis(exactly, largest, 1 - rest, generator.axis)
    return exactly


ONTO = (*TRIANGULAR_KINDS, "sphere", "orthogonal")
"""Kinds whose numbers, in float64 or moved by a hair, are brought back onto the constraint."""


def _onto(generator: Input, value: np.ndarray) -> np.ndarray:
    """Balls [*shape] brought onto the constraint of an input, if they are not there."""
    if generator.kind in TRIANGULAR_KINDS:
        dropped = ~np.tri(value.shape[-1], dtype=bool)
        dropped = dropped if generator.kind == "lower_triangular" else dropped.T
        value = value.copy()
        value[..., dropped] = arb(0)
        return value
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


def _finite(leaves: Enclosed) -> bool:
    """Whether every entry is finite.

    Raises:
      Undecided: an entry may be anything.
    """
    balls = [ball for leaf in leaves for ball in leaf.flat if not ball.is_finite()]
    if any(ball.is_nan() or is_infinite(ball) for ball in balls):
        return False
    if balls:
        raise Undecided("a result may be any number")
    return True


def _largest(leaves: Enclosed) -> Any:
    return max((float(abs(ball)) for leaf in leaves for ball in leaf.flat), default=0.0)


def _norm(leaf: np.ndarray) -> arb:
    squares = sum((ball * ball for ball in np.asarray(leaf, object).flat), start=arb(0))
    return squares.nonnegative_part().sqrt()
