"""The shortest input at which a formula fails: small sizes, whole numbers, many zeros."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

import jax
import numpy as np

from jaxnn.types import PyTree
from jaxnn.verify import comparison
from jaxnn.verify.claims import Claim
from jaxnn.verify.comparison import FormulaError, FunctionError, TracedClaim, Values, norms
from jaxnn.verify.graph import summed_lengths
from jaxnn.verify.inputs import (
    REAL_KINDS,
    Input,
    draw,
    filled,
    is_input,
    leaves,
    simple,
    simpler,
    symbols,
)
from jaxnn.verify.sampling import in_domain, satisfies
from jaxnn.verify.verdict import Counterexample, Worst

BATCH = 256
"""Candidates tried at once: a fixed number, so that every size compiles a single program."""

ROUNDS = 12

SECONDS = 4.0
"""The time to look for a short input at which a black box fails."""

SCALES = (1e-3, 1e-6, 1e-9, 1e-12, 30.0, 1e3)
"""Factors of the last candidates' real numbers: some mistakes show at small or large inputs."""

RIGHT, DEGENERATE, WRONG = 0, 1, 2
"""What a formula is at a point: right, or wrong; degenerate where the truth vanishes beside the
claimed value, as for a batch of one example, where the claimed value is no number, or where the
derivative is ``UNUSUAL`` times the median of ordinary points, as for a batch of equal examples."""

UNUSUAL = 30.0

Point = list[np.ndarray]
"""The flat inputs of one trial."""


def counterexample(
    claim: Claim, sizes: dict[str, int], seed: int
) -> tuple[Worst | None, Counterexample | None]:
    """A short input at which the formula of a refuted claim is wrong, and the worst entry.

    The last sizes tried are those of the refutation. Sizes over which formula or derivative sum
    are at least 2, and a point where the truth vanishes is taken only where no other is found.
    The input is None if no candidate fails clearly, the entry is None if the shapes differ.
    """
    called = claim  # a black box without the translation, a compilation less by sizes
    with suppress(FormulaError, FunctionError):
        if comparison.trace_claim(claim, tuple(sizes.items())).black_box:
            called = replace(claim, black_box=True)
    every = [*((called, small) for small in _small_sizes(claim, sizes)), (claim, sizes)]
    deadline = time.perf_counter() + SECONDS
    for candidates in (_ordinary, _scaled):
        found = _first(every, candidates, seed, deadline)
        if found:
            return _described(found[0], _shrink(*found, deadline))
    return None, None


def _first(
    every: Sequence[tuple[Claim, dict[str, int]]],
    candidates: Callable[..., Any],
    seed: int,
    deadline: float,
) -> tuple[TracedClaim, Point, list[float], int] | None:
    """The first wrong point by sizes, else the first degenerate point, with usual and level."""
    degenerate = None
    for claim, sizes in every:
        try:
            traced = comparison.trace_claim(claim, tuple(sizes.items()), both_modes=False)
        except (FormulaError, FunctionError):
            continue
        if traced.black_box and time.perf_counter() > deadline:
            break
        usual = _usual(traced, seed)
        for some in candidates(dict(claim.inputs), sizes, seed):
            points = [list(point) for point in zip(*jax.tree.leaves(some), strict=True)]
            points = points[: _batch(traced)]
            levels = _levels(traced, points, usual)
            if WRONG in levels:
                return traced, _shortest(points, levels, WRONG), usual, WRONG
            if DEGENERATE in levels and degenerate is None:
                degenerate = traced, _shortest(points, levels, DEGENERATE), usual, DEGENERATE
    return degenerate


def _usual(traced: TracedClaim, seed: int) -> list[float]:
    """Per leaf the median norm of the reference at ordinary points; infinity for zero."""
    rng = np.random.default_rng(seed)
    points = draw(dict(traced.claim.inputs), traced.sizes, _batch(traced), rng, spreads=(1.0,))
    values = comparison.evaluate(traced, points)
    inside = in_domain(values)
    sizes = [norms(leaf[inside]) for leaf in values.reference]
    return [float(np.median(size)) or np.inf if len(size) else np.inf for size in sizes]


def _ordinary(inputs: PyTree, sizes: dict[str, int], seed: int) -> Iterator[PyTree]:
    rng = np.random.default_rng(seed)
    yield simple(inputs, sizes, BATCH, rng)
    yield draw(inputs, sizes, BATCH, rng, spreads=(1.0,))


def _scaled(inputs: PyTree, sizes: dict[str, int], seed: int) -> Iterator[PyTree]:
    rng = np.random.default_rng(seed)
    short, scales = simple(inputs, sizes, BATCH, rng), rng.choice(SCALES, size=BATCH)

    def scaled(leaf: Input, values: np.ndarray) -> np.ndarray:
        if leaf.kind != "real":
            return values
        return values * scales.reshape(-1, *[1] * len(leaf.shape))

    yield jax.tree.map(scaled, inputs, short, is_leaf=is_input)


def _shortest(points: Sequence[Point], levels: Sequence[int], level: int) -> Point:
    return min((p for p, found in zip(points, levels, strict=True) if found == level), key=length)


def _small_sizes(claim: Claim, sizes: dict[str, int]) -> list[dict[str, int]]:
    names = symbols(claim.inputs)
    summed = _summed(claim, sizes)
    ones, twos = {name: 2 if name in summed else 1 for name in names}, dict.fromkeys(names, 2)
    threes = ones | dict.fromkeys(summed, 3)
    one_two = [ones | {name: 2} for name in names] if len(names) in (2, 3) else []
    rising = {name: size for size, name in enumerate(names, start=2)}
    every = [ones, *one_two, twos, threes, rising]
    return [sizes for i, sizes in enumerate(every) if sizes and sizes not in every[:i]]


def _summed(claim: Claim, sizes: dict[str, int]) -> list[str]:
    """The sizes over which formula or derivative sum, or that the formula transposes."""
    try:
        traced = comparison.trace_claim(claim, tuple(sizes.items()))
    except (FormulaError, FunctionError):
        return []
    lengths = summed_lengths(traced.reverse)
    if traced.read is not None:
        lengths |= summed_lengths(traced.read, transposed=True)
    return [name for name, size in sizes.items() if size in lengths]


def _levels(traced: TracedClaim, points: Sequence[Point], usual: Sequence[float]) -> list[int]:
    """Per point whether the formula fails at the point and beside: kinks do not count."""
    padded = [*points, *[points[0]] * (_batch(traced) - len(points))]
    columns = [np.stack(column) for column in zip(*padded, strict=True)]
    rng = np.random.default_rng(0)
    units = [np.where(c == 0, 1.0, np.abs(c)) for c in columns]
    steps = [1e-7 * unit * rng.uniform(-1, 1, size=unit.shape) for unit in units]
    levels, true = _differ(traced, columns, usual)
    for sign in (-1, 1):
        beside = [
            c + sign * step if g.kind in REAL_KINDS else c
            for c, step, g in zip(columns, steps, leaves(traced.claim.inputs), strict=True)
        ]
        levels_beside, true_beside = _differ(traced, beside, usual, strict=False)
        levels = np.minimum(levels, levels_beside)
        for a, b in zip(true, true_beside, strict=True):
            with np.errstate(invalid="ignore", over="ignore"):
                smooth = norms(a - b) <= 1e-3 * np.maximum(1.0, norms(a))
            levels = np.where(smooth, levels, RIGHT)
    return levels[: len(points)].tolist()


def _differ(
    traced: TracedClaim, columns: Point, usual: Sequence[float], strict: bool = True
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Per trial whether the formula is clearly wrong, and the reference.

    Inputs outside of the domain count as right; ``strict``: also those that ``where`` excludes.
    """
    values = comparison.evaluate(traced, columns)
    pairs = _pairs(traced, values)
    levels = np.full(len(columns[0]), WRONG if pairs is None else RIGHT)
    for (formula, true), most in zip(pairs or (), usual, strict=False):
        with np.errstate(invalid="ignore", over="ignore"):
            distance, norm = norms(formula - true), norms(true)
            size = np.maximum(norms(formula), norm)
            wrong = ~(distance <= 1e-2 * size) & ~(distance <= 1e-4) & np.isfinite(norm)
            clear = (norm > 1e-2 * size) & (size <= UNUSUAL * most)  # NaN is not clear
        levels = np.maximum(levels, np.where(wrong, np.where(clear, WRONG, DEGENERATE), RIGHT))
    inside = in_domain(values)
    if strict:
        inside &= satisfies(traced.claim, columns)
    return np.where(inside, levels, RIGHT), values.reference


def _pairs(traced: TracedClaim, values: Values) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Per leaf formula and reference [T, ...], in the declared layout; None if sizes differ."""
    if [leaf.size for leaf in values.formula] != [leaf.size for leaf in values.reference]:
        return None
    pairs = []
    for formula, true, rank in zip(*values[:2], traced.value_ranks, strict=True):
        true = comparison.arranged(comparison.declared_layout(traced.claim.layout, rank), true)
        pairs.append((formula, true.reshape(formula.shape)))
    return pairs


def _batch(traced: TracedClaim) -> int:
    """The candidates tried at once, fewer where every call of a black box takes long."""
    seconds = traced.black_box.seconds if traced.black_box else 0.0
    return max(8, min(BATCH, int(SECONDS / 10 / max(seconds, 1e-9))))


def _shrink(
    traced: TracedClaim, point: Point, usual: Sequence[float], level: int, deadline: float
) -> Point:
    """The shortest point found by simplifying entries while the formula fails as clearly."""
    batch_size = _batch(traced)
    for _ in range(ROUNDS):
        if traced.black_box and time.perf_counter() > deadline:
            break
        candidates = [
            [*point[:i], candidate, *point[i + 1 :]]
            for i, leaf in enumerate(leaves(traced.claim.inputs))
            for candidate in simpler(leaf, point[i])
        ]
        candidates = sorted((c for c in candidates if length(c) < length(point)), key=length)
        starts = range(0, len(candidates), batch_size)
        batches = (candidates[start : start + batch_size] for start in starts)
        judged = chain.from_iterable(
            zip(batch, _levels(traced, batch, usual), strict=True) for batch in batches
        )
        shorter = next((candidate for candidate, found in judged if found >= level), None)
        if shorter is None:
            return point
        point = shorter
    return point


def length(point: Sequence[np.ndarray]) -> int:
    """The length of the numbers for a reader: 0 is shortest, then 1, then by characters."""
    return sum(
        0 if number == 0 else 1 if number == 1 else 1 + len(repr(float(number)))
        for value in point
        for number in np.asarray(value, float).flat
    )


def _described(traced: TracedClaim, point: Point) -> tuple[Worst | None, Counterexample]:
    found = Counterexample(traced.sizes, filled(dict(traced.claim.inputs), point))
    pairs = _pairs(traced, comparison.evaluate(traced, [value[None] for value in point])) or []
    claimed, true = [pair[0][0] for pair in pairs], [pair[1][0] for pair in pairs]
    return worst_entry(traced.names, claimed, true), found


def worst_entry(
    names: Sequence[str], claimed: Sequence[np.ndarray], true: Sequence[np.ndarray]
) -> Worst | None:
    """The entry with the largest distance, else with a claimed value that is no number."""
    entries = [
        Worst(name, index, float(value), float(reference[index]))
        for name, leaf, reference in zip(names, claimed, true, strict=False)
        for index, value in np.ndenumerate(leaf)
        if np.isfinite(reference[index])
    ]

    def distance(entry: Worst) -> tuple[bool, float]:
        apart = abs(entry.claimed - entry.true)
        return (False, -1.0) if np.isnan(apart) else (True, apart)

    return max(entries, key=distance, default=None)
