"""Certificates: formula and reference are equal in random towers of finite fields.

Why a false formula passes with a probability below 2^-100. On every level, formula and reference
are quotients of polynomials in random residues: inputs, exponentials of exponents independent over
the rational numbers, and values of unknown functions. Different polynomials of degree d agree at a
random point of a field of p elements with a probability of at most d / p (Schwartz, Zippel), or
2 d / p among squares. A draw counts once, on the largest level known to both sides; a coefficient
of H bits vanishes modulo the primes of H / 27 draws at most. The bound for n counted draws among
the tried draws is C(tried, n) (2 d / p)^n, up to the degree d = DEGREE. A root is a choice of a
sign: with roots, a false formula may pass a level with 1 / 2, and all levels of draws count.

The bound rests on an assumption: exponentials of independent exponents are independent in finite
fields too (G. Gonnet, "New results for random determination of equivalence of expressions", SYMSAC
1986). A hash of both programs seeds the primes: no file can be written against known primes.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes

from jaxnn.verify.comparison import Layout, TracedClaim, Values, refuse_large
from jaxnn.verify.exact import Undecided
from jaxnn.verify.exact.interpreter import compile
from jaxnn.verify.exact.residues import DEGREE, Residues
from jaxnn.verify.exact.towers import Towers
from jaxnn.verify.graph import Unsupported, message
from jaxnn.verify.inputs import (
    DISCRETE_KINDS,
    SYMMETRIC_KINDS,
    TRIANGULAR_KINDS,
    Input,
    leaves,
)
from jaxnn.verify.verdict import Certificate, Verdict

DRAWS = 16
"""Draws at a time."""

BITS = 100
"""The error of a certificate is below 2^-BITS."""

PATTERNS = 3
"""Sign patterns behind a certificate where comparisons matter."""

SECONDS = 2.0
"""The time limit of a claim, of the thread: other processes do not matter."""

POINTS = 24
"""Random inputs from which the shadows are chosen."""

OVERFLOWING = 0.05
"""Share of the random inputs at which either formula or function may overflow in float64."""

FRUITLESS = 8
"""Batches of draws without any counted draw, before the search ends."""


class Uncertified(Exception):  # noqa: N818
    """There is no certificate; the message is the reason."""


def with_certificate(
    verdict: Verdict,
    traced: TracedClaim,
    layouts: Sequence[Layout],
    points: Sequence[np.ndarray],
    values: Values,
    seed: int,
) -> Verdict:
    """The verdict on a right formula, with a certificate or the reason for none."""
    arrange = [layout.arrange for layout in layouts]
    try:
        return verdict._replace(certificate=certify(traced, arrange, points, values, seed))
    except Uncertified as reason:
        return verdict._replace(uncertified=str(reason))
    except Exception as error:  # no defect of a certificate changes a verdict
        return verdict._replace(uncertified=message(error))


def certify(
    traced: TracedClaim,
    arrange: Sequence[Callable[[np.ndarray], np.ndarray]],
    points: Sequence[np.ndarray],
    values: Values,
    seed: int,
    seconds: float = SECONDS,
) -> Certificate:
    """Certifies that formula and reference are equal at the sizes of a traced claim.

    Args:
      traced: the traced claim.
      arrange: per leaf, from jaxnn's layout to the formula's.
      points: the flat inputs of ordinary trials, each [T, ...]; some become shadows.
      values: formula and reference at the trials.
      seed: of the random numbers.
      seconds: the time limit.

    Raises:
      Uncertified: formula and reference differ, or the exact model or the time does not suffice.
    """
    began = time.perf_counter()
    if traced.read is None:
        raise Uncertified("the formula is a black box: no operations are known")
    rng = np.random.default_rng(_digest(traced, seed))
    arithmetic = Residues(Towers(rng, DRAWS), time.thread_time() + seconds)
    try:
        refuse_large(traced)
        shadows = _shadows(traced, points, values)
        found = _Comparison(traced, arrange, arithmetic, shadows).certified()
    except TimeoutError:
        raise Uncertified(f"not done in {seconds:g} s") from None
    except (Unsupported, Undecided) as reason:
        raise Uncertified(str(reason)) from reason
    return Certificate(traced.sizes, *found, time.perf_counter() - began)


def _digest(traced: TracedClaim, seed: int) -> list[int]:
    """A seed of random numbers, unforeseeable for the author of a claim."""
    digest = blake2b(str(seed).encode(), digest_size=16)
    for closed in filter(None, (traced.read, traced.reverse)):
        digest.update(str(closed).encode())
        for constant in _constants(closed):
            if jax.numpy.issubdtype(constant.dtype, dtypes.prng_key):
                constant = jax.random.key_data(constant)
            digest.update(np.asarray(constant).tobytes())
    return [*digest.digest()]


def _constants(jaxpr: Any) -> Iterator[Any]:
    """The constants of a jaxpr and of the jaxprs inside; the text of a jaxpr has none."""
    yield from getattr(jaxpr, "consts", ())
    for equation in jaxpr.eqns:
        for part in jax.tree.leaves([*equation.params.values()]):
            if hasattr(part, "eqns"):
                yield from _constants(part)


def _shadows(
    traced: TracedClaim, points: Sequence[np.ndarray], values: Values
) -> list[list[np.ndarray]]:
    """Points where formula and reference are finite; early points differ in many signs."""
    finite = [
        np.all([np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1) for leaf in side], axis=0)
        for side in (values.formula, values.reference)
    ]
    if np.mean(finite[0] != finite[1]) > OVERFLOWING:
        raise Uncertified("formula and function are finite at different inputs")
    usable = np.flatnonzero(finite[0] & finite[1])[:POINTS]
    if not len(usable):
        raise Uncertified("formula and function are finite at none of the random inputs")
    columns = []
    for generator, value in zip(leaves(traced.claim.inputs), points, strict=True):
        flat = value[usable].reshape(len(usable), -1)
        middle = 0.0 if generator.kind == "real" else np.median(flat, axis=0)
        columns.append(flat if generator.kind in ("label", "one_hot") else flat > middle)
    signs = np.hstack(columns)
    order, distance = [0], np.full(len(usable), np.inf)
    while len(order) < len(usable):
        distance = np.minimum(distance, np.sum(signs != signs[order[-1]], axis=1))
        distance[order] = -1
        order.append(int(np.argmax(distance)))
    return [[value[i] for value in points] for i in usable[order]]


class _Comparison:
    """Formula and reference in residues, at enough draws and patterns for a certificate."""

    def __init__(self, traced, arrange, arithmetic: Residues, shadows: list[list[np.ndarray]]):
        formula = traced.read
        places = [
            change(np.arange(aval.size).reshape(aval.shape))
            for change, aval in zip(arrange, traced.reverse.out_avals, strict=True)
        ]
        if [x.shape for x in places] != [aval.shape for aval in formula.out_avals]:
            raise Uncertified("formula and function have different shapes")
        self._places, self._shadows = places, shadows
        self._generators, self._arithmetic = leaves(traced.claim.inputs), arithmetic
        avals = traced.reverse.in_avals
        self._constraints = [
            _constraint(generator, aval, arithmetic)
            for generator, aval in zip(self._generators, avals, strict=True)
        ]
        self._pair = formula, traced.reverse
        self._programs = [compile(closed, arithmetic) for closed in self._pair]

    def certified(self) -> tuple[int, int, float]:
        """The patterns, 0 where the inputs are arbitrary; the draws, and the error's logarithm."""
        try:
            return self._at_patterns()
        except Undecided:
            pass
        except Uncertified:
            if not (self._arithmetic.unknown or self._has("binary", "mask", "one_hot")):
                raise
        self._arithmetic.by_shadow = True
        self._arithmetic.unknown.clear()
        return self._at_patterns()

    def _has(self, *kinds: str) -> bool:
        return any(generator.kind in kinds for generator in self._generators)

    def _at_patterns(self) -> tuple[int, int, float]:
        by_shadow, found = self._arithmetic.by_shadow, list[tuple[float, int]]()
        several = by_shadow or self._has(*DISCRETE_KINDS, "orthogonal")  # signs of determinants
        reason = "no random inputs are left"
        for shadow in self._shadows:
            try:
                found.append(self._at(shadow))
            except (FloatingPointError, Undecided) as failed:
                if isinstance(failed, Undecided) and not by_shadow:
                    raise
                reason = str(failed)
            if len(found) == (PATTERNS if several else 1):
                error, draws = max(found)
                return len(found) * several, draws, error
        raise Uncertified(reason)

    def _at(self, shadow: Sequence[np.ndarray]) -> tuple[float, int]:
        """The error of the worst leaf, once all leaves have enough draws, and the draws."""
        primes, batches = self._arithmetic.towers.primes, []
        while True:
            batches.append([*self._compared(shadow)])
            shared = [np.concatenate(batch) for batch in zip(*batches, strict=True)]
            levels, roots = np.tile(primes, (len(batches), 1)), self._arithmetic.roots
            worst = max(_error(leaf, levels, roots) for leaf in shared)
            if worst[0] < -BITS:
                return worst
            if len(batches) == FRUITLESS and worst[1] == 0:
                raise Uncertified("exponentials too deep in one another, or a divisor is zero")

    def _compared(self, shadow: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Per leaf the levels known to formula and reference, all equal, [draws, levels]."""
        inputs = [*map(self._residues, self._generators, self._constraints, shadow)]
        formula, reference = (program(inputs) for program in self._programs)
        if not all(np.all(np.isfinite(x.shadow)) for x in (*formula, *reference)):
            raise FloatingPointError("an intermediate value is infinite or too large")
        for x, y, places in zip(formula, reference, self._places, strict=True):
            y, shared = y.reshape(-1)[places], x.known & y.known
            if np.any((x.residues != y.residues)[..., shared]):
                raise Uncertified(self._difference())
            yield shared

    def _difference(self) -> str:
        unknown = sorted(self._arithmetic.unknown)
        if any(" while[" in str(closed) for closed in self._pair):
            unknown.append("while")
        if unknown:
            return f"not equal in a model that knows nothing of {', '.join(unknown)}"
        return "not equal in exact arithmetic, where 0.1 is a binary fraction"

    def _residues(self, generator: Input, constraint: Any, value: np.ndarray) -> Any:
        """Random residues of an input with a shadow; labels, and whole numbers of a pattern."""
        kind, by_shadow = generator.kind, self._arithmetic.by_shadow
        if kind in DISCRETE_KINDS:
            return value
        towers = self._arithmetic.towers
        numbers = replace(self._arithmetic.exactly(value), constant=False)
        if by_shadow and kind in ("binary", "mask", "one_hot"):
            return numbers
        squares = kind in ("positive", "simplex")
        residues = (towers.squares if squares else towers.uniform)(*value.shape)
        if by_shadow and not squares:  # the sign of the residue is the sign of the shadow
            negative = towers.is_square(residues) == (value < 0)[..., None, None]
            residues = np.where(negative, towers.neg(residues), residues)
        free = replace(numbers, residues=residues)
        if constraint is None:
            return free
        determinants = np.linalg.det(value) if kind == "orthogonal" else np.ones(value.shape[:-2])
        (made,) = constraint([free, self._arithmetic.exactly(np.sign(determinants))])
        return replace(free, residues=made.residues, known=made.known)


CONSTRAINED = ("one_hot", "simplex", "sphere", "orthogonal", *SYMMETRIC_KINDS, *TRIANGULAR_KINDS)
"""Kinds of inputs whose numbers are functions of free numbers."""


def _constraint(generator: Input, aval: Any, arithmetic: Residues) -> Any:
    """``_constrained`` in residues, compiled; None for free inputs."""
    if generator.kind not in CONSTRAINED:
        return None
    determinants = jax.ShapeDtypeStruct(aval.shape[:-2], float)
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(partial(_constrained, generator))(aval, determinants)
    return compile(closed, arithmetic)


def _constrained(generator: Input, u: jax.Array, determinants: jax.Array) -> jax.Array:
    """An input's numbers from free numbers u, with the determinants, 1 or -1, if orthogonal."""
    kind, size = generator.kind, u.shape[-1]
    if kind in ("one_hot", "simplex"):
        others = jnp.moveaxis(u, generator.axis, -1)[..., :-1]
        last = 1 - jnp.sum(others, -1, keepdims=True)
        return jnp.moveaxis(jnp.append(others, last, -1), -1, generator.axis)
    if kind == "sphere":  # the stereographic projection of u
        pole = jnp.arange(size) == size - 1
        u = jnp.where(pole, 1.0, u)
        return 2 * u / jnp.sum(u * u, -1, keepdims=True) - pole
    if kind == "orthogonal":  # n reflections reach all matrices of a determinant
        q = jnp.broadcast_to(jnp.eye(size), u.shape)
        for v in jnp.unstack(u, axis=-2):
            along = 2 * jnp.sum(q * v[..., None, :], -1) / jnp.sum(v * v, -1, keepdims=True)
            q = q - along[..., None] * v[..., None, :]
        sign = (-1.0) ** size * determinants[..., None, None]
        return jnp.where(jnp.arange(size) == 0, sign * q, q)
    lower = jnp.tril(u)
    if kind == "positive_definite":
        return lower @ lower.mT
    if kind == "symmetric":
        return lower + jnp.tril(u, -1).mT
    return lower if kind == "lower_triangular" else jnp.triu(u)


def _error(shared: np.ndarray, primes: np.ndarray, roots: bool) -> tuple[float, int]:
    """The logarithm to base 2 of a leaf's error, and the draws counted.

    A draw counts once, on the largest of the shared levels, [draws, levels]; with roots, the signs
    on all shared levels count too.
    """
    largest = np.max(np.where(shared, primes, 0), axis=1).astype(float)
    counted = largest[largest > 0]
    bits = float(np.sum(np.log2(counted / (2 * DEGREE))))
    error = math.log2(math.comb(len(shared), len(counted))) - bits
    return max(error, -float(np.count_nonzero(shared)) if roots else error), len(counted)
