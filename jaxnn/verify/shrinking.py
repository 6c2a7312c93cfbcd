"""The shortest input at which a formula fails: small sizes, whole numbers, many zeros."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import jax
import numpy as np

from jaxnn.verify.claims import Claim
from jaxnn.verify.comparison import (
    FormulaError,
    FunctionError,
    TracedClaim,
    arranged,
    declared_layout,
    evaluate,
    generators,
    norms,
    trace_claim,
)
from jaxnn.verify.inputs import REAL_KINDS, draw, is_input, simple, simpler, symbols
from jaxnn.verify.verdict import Counterexample, Worst

BATCH = 256
"""Candidates tried at once: a fixed number, so that every size compiles a single program."""

ROUNDS = 12

Point = list[np.ndarray]
"""The flat inputs of one trial."""


class _Search(NamedTuple):
    claim: Claim
    traced: TracedClaim
    sizes: dict[str, int]


def counterexample(
    claim: Claim, sizes: dict[str, int], seed: int
) -> tuple[Worst | None, Counterexample | None]:
    """A short input at which the formula is wrong, and the worst entry.

    Args:
      claim: a refuted claim.
      sizes: of the refutation.
      seed: of the candidates.

    Returns:
      None for the input if no candidate fails clearly, None for the entry if the shapes differ.
    """
    for smaller in (*_small_sizes(claim), sizes):
        try:
            traced = trace_claim(claim, tuple(smaller.items()), both_modes=False)
        except (FormulaError, FunctionError):
            continue
        search = _Search(claim, traced, smaller)
        rng = np.random.default_rng(seed)
        for candidates in (
            simple(dict(claim.inputs), smaller, BATCH, rng),
            draw(dict(claim.inputs), smaller, BATCH, rng, spreads=(1.0,)),
        ):
            points = [list(point) for point in zip(*jax.tree.leaves(candidates), strict=True)]
            failing = [p for p, bad in zip(points, _fails(search, points), strict=True) if bad]
            if failing:
                return _described(search, _shrink(search, min(failing, key=length)))
    return None, None


def _small_sizes(claim: Claim) -> list[dict[str, int]]:
    names = symbols(claim.inputs)
    if not names:
        return []
    ones = dict.fromkeys(names, 1)
    one_two = [ones | {name: 2} for name in names] if len(names) in (2, 3) else []
    rising = dict(zip(names, range(2, 2 + len(names)), strict=True))
    every = [ones, *one_two, dict.fromkeys(names, 2), rising]
    return [a for a, b in pairwise([*every, {}]) if a != b]


def _fails(search: _Search, points: Sequence[Point]) -> list[bool]:
    """Per point whether the formula fails at the point and beside: kinks do not count."""
    columns = [np.stack(column) for column in zip(*points, strict=True)]
    missing = BATCH - len(points)
    columns = [np.concatenate([c, np.repeat(c[:1], missing, axis=0)]) for c in columns]
    rng = np.random.default_rng(0)
    steps = [1e-7 * rng.uniform(-1, 1, size=c.shape) for c in columns]
    bad, true = _differ(search, columns)
    for sign in (-1, 1):
        beside = [
            c + sign * step if g.kind in REAL_KINDS else c
            for c, step, g in zip(columns, steps, generators(search.claim), strict=True)
        ]
        bad_beside, true_beside = _differ(search, beside)
        bad &= bad_beside
        for a, b in zip(true, true_beside, strict=True):
            with np.errstate(invalid="ignore", over="ignore"):
                bad &= norms(a - b) <= 1e-3 * np.maximum(1.0, norms(a))
    return bad[: len(points)].tolist()


def _differ(search: _Search, columns: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Per trial whether the formula is clearly wrong, and the reference."""
    values = evaluate(search.traced, list(columns))
    if len(values.formula) != len(values.reference):
        return np.ones(len(columns[0]), bool), values.reference
    bad = np.zeros(len(columns[0]), bool)
    for c, t, rank in zip(values.formula, values.reference, search.traced.value_ranks, strict=True):
        t = arranged(declared_layout(search.claim.layout, rank), t)
        if c.size != t.size:
            return np.ones(len(columns[0]), bool), values.reference
        with np.errstate(invalid="ignore", over="ignore"):
            distance = norms(c.reshape(t.shape) - t)
            size = np.maximum(norms(c), norms(t))
            bad |= np.isfinite(distance) & (distance > 1e-2 * size) & (distance > 1e-4)
    return bad, values.reference


def _shrink(search: _Search, point: Point) -> Point:
    """The shortest point found by simplifying entries while the formula fails."""
    leaves = generators(search.claim)
    for _ in range(ROUNDS):
        candidates = [
            [*point[:i], candidate, *point[i + 1 :]]
            for i, leaf in enumerate(leaves)
            for candidate in simpler(leaf, point[i])
        ]
        candidates = sorted((c for c in candidates if length(c) < length(point)), key=length)
        found = None
        for start in range(0, len(candidates), BATCH):
            batch = candidates[start : start + BATCH]
            bad = _fails(search, batch)
            found = next((c for c, fails in zip(batch, bad, strict=True) if fails), None)
            if found is not None:
                break
        if found is None:
            return point
        point = found
    return point


def length(point: Sequence[np.ndarray]) -> int:
    """The length of the numbers for a reader: 0 is shortest, then 1, then by characters."""
    return sum(
        0 if number == 0 else 1 if number == 1 else 1 + len(repr(float(number)))
        for value in point
        for number in np.asarray(value, float).flat
    )


def _described(search: _Search, point: Point) -> tuple[Worst | None, Counterexample]:
    structure = jax.tree.structure(dict(search.claim.inputs), is_leaf=is_input)
    found = Counterexample(dict(search.sizes), jax.tree.unflatten(structure, point))
    values = evaluate(search.traced, [value[None] for value in point])
    worst, furthest = None, -1.0
    if len(values.formula) != len(values.reference):
        return None, found
    for leaf, (c, t) in enumerate(zip(values.formula, values.reference, strict=True)):
        true = arranged(declared_layout(search.claim.layout, search.traced.value_ranks[leaf]), t)[0]
        if c[0].size != true.size:
            return None, found
        for index in np.ndindex(c[0].shape):
            value = float(c[0][index]), float(true.reshape(c[0].shape)[index])
            if abs(value[0] - value[1]) > furthest:
                furthest = abs(value[0] - value[1])
                worst = Worst(search.traced.names[leaf], index, *value)
    return worst, found
