"""The shortest input at which a formula fails: small sizes, whole numbers, many zeros."""

from collections.abc import Sequence
from itertools import chain, compress

import jax
import numpy as np

from jaxnn.verify import comparison
from jaxnn.verify.claims import Claim
from jaxnn.verify.comparison import FormulaError, FunctionError, TracedClaim, Values, norms
from jaxnn.verify.inputs import REAL_KINDS, draw, is_input, leaves, simple, simpler, symbols
from jaxnn.verify.verdict import Counterexample, Worst

BATCH = 256
"""Candidates tried at once: a fixed number, so that every size compiles a single program."""

ROUNDS = 12

Point = list[np.ndarray]
"""The flat inputs of one trial."""


def counterexample(
    claim: Claim, sizes: dict[str, int], seed: int
) -> tuple[Worst | None, Counterexample | None]:
    """A short input at which the formula of a refuted claim is wrong, and the worst entry.

    The last sizes tried are those of the refutation. The input is None if no candidate fails
    clearly, the entry is None if the shapes differ.
    """
    for smaller in (*_small_sizes(claim), sizes):
        try:
            traced = comparison.trace_claim(claim, tuple(smaller.items()), both_modes=False)
        except (FormulaError, FunctionError):
            continue
        rng = np.random.default_rng(seed)
        for candidates in (
            simple(dict(claim.inputs), smaller, BATCH, rng),
            draw(dict(claim.inputs), smaller, BATCH, rng, spreads=(1.0,)),
        ):
            points = [list(point) for point in zip(*jax.tree.leaves(candidates), strict=True)]
            failing = list(compress(points, _fails(traced, points)))
            if failing:
                return _described(traced, _shrink(traced, min(failing, key=length)))
    return None, None


def _small_sizes(claim: Claim) -> list[dict[str, int]]:
    names = symbols(claim.inputs)
    ones, twos = dict.fromkeys(names, 1), dict.fromkeys(names, 2)
    one_two = [ones | {name: 2} for name in names] if len(names) in (2, 3) else []
    rising = {name: size for size, name in enumerate(names, start=2)}
    every = [ones, *one_two, twos, rising]
    return [sizes for i, sizes in enumerate(every) if sizes and sizes not in every[:i]]


def _fails(traced: TracedClaim, points: Sequence[Point]) -> list[bool]:
    """Per point whether the formula fails at the point and beside: kinks do not count."""
    padded = [*points, *[points[0]] * (BATCH - len(points))]
    columns = [np.stack(column) for column in zip(*padded, strict=True)]
    rng = np.random.default_rng(0)
    steps = [1e-7 * rng.uniform(-1, 1, size=c.shape) for c in columns]
    bad, true = _differ(traced, columns)
    for sign in (-1, 1):
        beside = [
            c + sign * step if g.kind in REAL_KINDS else c
            for c, step, g in zip(columns, steps, leaves(traced.claim.inputs), strict=True)
        ]
        bad_beside, true_beside = _differ(traced, beside)
        bad &= bad_beside
        for a, b in zip(true, true_beside, strict=True):
            with np.errstate(invalid="ignore", over="ignore"):
                bad &= norms(a - b) <= 1e-3 * np.maximum(1.0, norms(a))
    return bad[: len(points)].tolist()


def _differ(traced: TracedClaim, columns: Point) -> tuple[np.ndarray, list[np.ndarray]]:
    """Per trial whether the formula is clearly wrong, and the reference."""
    values = comparison.evaluate(traced, columns)
    pairs = _pairs(traced, values)
    bad = np.full(len(columns[0]), pairs is None)
    for formula, true in pairs or ():
        with np.errstate(invalid="ignore", over="ignore"):
            distance = norms(formula - true)
            size = np.maximum(norms(formula), norms(true))
            bad |= np.isfinite(distance) & (distance > 1e-2 * size) & (distance > 1e-4)
    return bad, values.reference


def _pairs(traced: TracedClaim, values: Values) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Per leaf formula and reference [T, ...], in the declared layout; None if sizes differ."""
    if [leaf.size for leaf in values.formula] != [leaf.size for leaf in values.reference]:
        return None
    pairs = []
    for formula, true, rank in zip(*values[:2], traced.value_ranks, strict=True):
        true = comparison.arranged(comparison.declared_layout(traced.claim.layout, rank), true)
        pairs.append((formula, true.reshape(formula.shape)))
    return pairs


def _shrink(traced: TracedClaim, point: Point) -> Point:
    """The shortest point found by simplifying entries while the formula fails."""
    for _ in range(ROUNDS):
        candidates = [
            [*point[:i], candidate, *point[i + 1 :]]
            for i, leaf in enumerate(leaves(traced.claim.inputs))
            for candidate in simpler(leaf, point[i])
        ]
        candidates = sorted((c for c in candidates if length(c) < length(point)), key=length)
        batches = (candidates[i : i + BATCH] for i in range(0, len(candidates), BATCH))
        failing = chain.from_iterable(compress(batch, _fails(traced, batch)) for batch in batches)
        shorter = next(failing, None)
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
    structure = jax.tree.structure(dict(traced.claim.inputs), is_leaf=is_input)
    found = Counterexample(traced.sizes, jax.tree.unflatten(structure, point))
    pairs = _pairs(traced, comparison.evaluate(traced, [value[None] for value in point]))
    entries = [
        Worst(name, index, float(value), float(true[0][index]))
        for name, (formula, true) in zip(traced.names, pairs or (), strict=False)
        for index, value in np.ndenumerate(formula[0])
    ]
    comparable = (entry for entry in entries if not np.isnan(entry.claimed - entry.true))
    return max(comparable, key=lambda e: abs(e.claimed - e.true), default=None), found
