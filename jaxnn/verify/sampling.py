"""Random trials of a claim inside the domain of ``of``, as many as time and memory allow."""

import math
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.types import PyTree
from jaxnn.verify.claims import Claim, call
from jaxnn.verify.comparison import TracedClaim, Values, evaluate
from jaxnn.verify.graph import jit, located
from jaxnn.verify.inputs import SPREADS, adversarial, draw, filled

TRIES = 20
"""How often as many inputs as trials are drawn, to find trials in the domain."""

FEWEST = 10
"""Trials in the domain that a verdict needs at least, if more were asked for."""

SECONDS = 3.0
"""The time for the trials at the same sizes, without compilation."""


BLACK_BOX = (2.0, 100)
"""The time for the trials of a formula that JAX does not trace, and the fewest trials."""


class DomainError(Exception):
    """Too few random inputs are in the domain; the message is a line for the reader."""


class Trials(NamedTuple):
    """Random trials in the domain, then the awkward inputs, with both values at each."""

    points: list[np.ndarray]  # flat inputs, each [T + A, ...]
    values: Values
    random: int  # T
    note: str  # a sentence where most inputs are outside of the domain, and T is less than asked


def run_trials(
    traced: TracedClaim, trials: int, rng: np.random.Generator, awkward: bool = True
) -> Trials:
    """Formula and reference at random inputs in the domain, and at awkward inputs.

    An input is in the domain if the claim's ``where`` holds, and ``of`` and the reference are
    finite in float64. Other inputs are drawn again, at most ``TRIES`` times as many as trials.

    Args:
      traced: the claim.
      trials: random trials; fewer if the trials take more than ``SECONDS``.
      rng: of the random numbers.
      awkward: whether the awkward inputs come last; they are outside of the domain too.

    Raises:
      DomainError: too few inputs are in the domain, or ``where`` raises an exception.
    """
    inputs, deadline = dict(traced.claim.inputs), math.inf
    seconds, fewest = (SECONDS, FEWEST) if traced.black_box is None else BLACK_BOX
    extra = 0
    parts: list[tuple[list[np.ndarray], Values]] = []
    found = drawn = 0
    for attempt in range(TRIES):
        first = attempt == 0
        points = jax.tree.leaves(draw(inputs, traced.sizes, trials + extra * (not first), rng))
        if first and awkward:  # all attempts have equal shapes, and share a program
            special = jax.tree.leaves(adversarial(inputs, traced.sizes, rng))
            points = [np.concatenate(pair) for pair in zip(special, points, strict=True)]
            extra = len(special[0])
        rows = len(points[0])
        values = evaluate(traced, points, seconds, fewest + extra * first)
        deadline = min(deadline, time.perf_counter() + seconds)
        done = len(values.finite)
        points = [value[:done] for value in points]
        allowed = satisfies(traced.claim, points)
        inside = allowed & in_domain(values)
        if first and awkward:
            parts.append(_selected(points, values, np.flatnonzero(allowed[:extra])))
        fresh = extra if first else 0
        chosen = fresh + np.flatnonzero(inside[fresh:])[: trials - found]
        parts.insert(attempt, _selected(points, values, chosen))
        found, drawn = found + len(chosen), drawn + done - fresh
        if found == trials or done < rows or time.perf_counter() > deadline:
            break
    if found < min(trials, FEWEST):
        raise DomainError(_too_few(traced.claim, found, drawn))
    points, values = jax.tree.map(lambda *some: np.concatenate(some), *parts)
    share = f"{found:,} of {drawn:,} inputs drawn are in the domain"
    return Trials(points, values, found, share if found < min(trials, drawn / 2) else "")


def _selected(
    points: Sequence[np.ndarray], values: Values, rows: np.ndarray
) -> tuple[list[np.ndarray], Values]:
    if len(rows) == len(values.finite):
        return list(points), values
    return jax.tree.map(lambda array: array[rows], (list(points), values))


def _too_few(claim: Claim, found: int, drawn: int) -> str:
    where = " and satisfy where=" if claim.where is not None else ""
    return (
        f"{found:,} of {drawn:,} inputs drawn are in the domain of `of`{where}, expected at least "
        f"{FEWEST}: declare the domain by interval(low, high, ...), positive(...), "
        "positive_definite(...), symmetric(...) or where="
    )


def in_domain(values: Values) -> np.ndarray:
    """Per trial whether ``of`` and the reference by both modes are finite, [T]."""
    inside = values.finite.copy()
    for leaf in (*values.reference, *values.forward):
        inside &= np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1)
    return inside


def satisfies(claim: Claim, points: Sequence[np.ndarray]) -> np.ndarray:
    """Per trial whether the claim's ``where`` holds, [T].

    Raises:
      DomainError: ``where`` raises an exception, as for values of JAX in an ``if``.
    """
    if claim.where is None:
        return np.ones(len(points[0]), bool)
    try:
        return np.asarray(_condition(claim)(*points))
    except Exception as error:
        raise DomainError(f"where: {located(error)}") from error


@lru_cache(maxsize=32)
def _condition(claim: Claim) -> jax.stages.Wrapped:
    where = claim.where or (lambda: True)

    def holds(*flat: Any) -> jax.Array:
        return jnp.all(jnp.asarray(call(where, filled(dict(claim.inputs), flat))))

    return jit(jax.vmap(holds))


def draw_inside(
    traced: TracedClaim,
    trials: int,
    rng: np.random.Generator,
    spreads: Sequence[float] = SPREADS,
) -> PyTree:
    """Random inputs in the domain, [T, ...], as by ``draw``; some outside if too few are found."""
    inputs = dict(traced.claim.inputs)
    drawn = draw(inputs, traced.sizes, trials, rng, spreads)
    flat, structure = jax.tree.flatten(drawn)
    for _ in range(TRIES):
        inside = satisfies(traced.claim, flat) & in_domain(evaluate(traced, flat))
        if inside.all():
            break
        again = jax.tree.leaves(draw(inputs, traced.sizes, trials, rng, spreads))
        flat = [
            np.where(inside.reshape(-1, *[1] * (old.ndim - 1)), old, new)
            for old, new in zip(flat, again, strict=True)
        ]
    return jax.tree.unflatten(structure, flat)
