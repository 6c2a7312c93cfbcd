"""Certificates: a formula and its reference are equal in random towers of finite fields.

Why a false formula passes with a probability below 2^-100. Formula and reference are, level by
level, quotients of polynomials in residues drawn at random: the inputs, the exponentials of
exponents that are independent over the rational numbers, and the values of unknown functions. Two
different polynomials of degree d agree at a random point of a field of p elements with a
probability of at most d / p (Schwartz and Zippel); half of p counts, since some residues are drawn
among the squares. Every draw has its own primes, so that a coefficient other than zero is not zero
in all of them, and counts once, on the largest level that both sides know. Of the tried draws, n
are counted: the bound is C(tried, n) (2 d / p)^n for functions up to the degree d = DEGREE. With
square roots, a choice of signs has to agree on 100 levels of draws besides. The bound rests on
exponentials of independent exponents being independent in finite fields, as Gonnet's signatures do
(G. Gonnet, "New results for random determination of equivalence of expressions", SYMSAC 1986).

The primes come from a hash of both programs: no file can be written against known primes.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np

from jaxnn.verify.comparison import Layout, TracedClaim, Values
from jaxnn.verify.exact.arithmetic import Undecided
from jaxnn.verify.exact.interpreter import compile
from jaxnn.verify.exact.residues import DEGREE, OutOfTime, Residues
from jaxnn.verify.exact.towers import Towers
from jaxnn.verify.graph import Unsupported
from jaxnn.verify.inputs import Input, leaves
from jaxnn.verify.verdict import Certificate, Verdict

DRAWS = 16
"""Draws at a time."""

BITS = 100
"""The error of a certificate is below 2^-BITS."""

PATTERNS = 3
"""Sign patterns of a certificate that rests on comparisons."""

SECONDS = 2.0
"""The time limit of a claim."""

POINTS = 24
"""Random inputs from which the shadows are chosen."""

OVERFLOWING = 0.05
"""Share of the random inputs at which either formula or function may overflow in float64."""

FRUITLESS = 128
"""Draws after which a certificate without a draw that counts is given up."""


class Uncertified(Exception):  # noqa: N818
    """There is no certificate; the message is the reason."""


class _NotFinite(Exception):  # noqa: N818
    """A leaf is infinite or NaN at the shadow."""


def with_certificate(
    verdict: Verdict,
    traced: TracedClaim,
    layouts: Sequence[Layout],
    points: Sequence[np.ndarray],
    values: Values,
    seed: int,
) -> Verdict:
    """The verdict on a formula that holds, with a certificate or the reason for none."""
    arrange = [layout.arrange for layout in layouts]
    try:
        return verdict._replace(certificate=certify(traced, arrange, points, values, seed))
    except Uncertified as reason:
        return verdict._replace(uncertified=str(reason))


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
    rng = np.random.default_rng(_digest(traced, seed))
    arithmetic = Residues(Towers(rng, DRAWS), began + seconds)
    try:
        trial = _Trial(traced, arrange, arithmetic, _shadows(traced, points, values))
        patterns, tally = trial.certified()
    except OutOfTime:
        raise Uncertified(f"not done in {seconds:g} s") from None
    except (Unsupported, Undecided) as reason:
        raise Uncertified(str(reason)) from reason
    spent = time.perf_counter() - began
    return Certificate(traced.sizes, patterns, len(tally.bits), tally.error, spent)


def _digest(traced: TracedClaim, seed: int) -> list[int]:
    digest = blake2b(str(seed).encode(), digest_size=16)
    for closed in (traced.formula, traced.reverse):
        digest.update(str(closed.jaxpr).encode())
        for constant in closed.consts:
            digest.update(str(np.asarray(constant).tolist()).encode())
    return [*digest.digest()]


def _shadows(
    traced: TracedClaim, points: Sequence[np.ndarray], values: Values
) -> list[list[np.ndarray]]:
    """Points where formula and reference are finite, each as unlike those before as possible."""
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


class _Tally:
    """The draws on which formula and reference agree, of one pattern and one leaf."""

    def __init__(self):
        self.tried, self.pairs = 0, 0
        self.bits: list[float] = []  # per draw that counts

    def add(self, common: np.ndarray, primes: np.ndarray) -> None:
        """Counts the draws with a common level, [draws, levels], once each."""
        largest = np.max(np.where(common, primes, 0), axis=1)
        self.tried += len(common)
        self.pairs += int(common.sum())
        self.bits += [math.log2(prime / (2 * DEGREE)) for prime in largest.tolist() if prime]

    @property
    def error(self) -> float:
        """The logarithm to base 2 of the bound."""
        return math.log2(math.comb(self.tried, len(self.bits))) - sum(self.bits)


class _Trial:
    """Formula and reference in residues, at as many draws and patterns as a certificate needs."""

    def __init__(self, traced, arrange, arithmetic: Residues, shadows: list[list[np.ndarray]]):
        places = [
            change(np.arange(aval.size).reshape(aval.shape))
            for change, aval in zip(arrange, traced.reverse.out_avals, strict=True)
        ]
        if [x.shape for x in places] != [aval.shape for aval in traced.formula.out_avals]:
            raise Uncertified("formula and function have different shapes")
        self._places, self._shadows = [*map(np.ravel, places)], shadows
        self._generators, self._arithmetic = leaves(traced.claim.inputs), arithmetic
        self._programs = [
            compile(closed, arithmetic) for closed in (traced.formula, traced.reverse)
        ]

    def certified(self) -> tuple[int, _Tally]:
        """The number of patterns, 0 where the inputs are arbitrary, and the worst tally."""
        try:
            return self._at_patterns()
        except Undecided:
            pass
        except Uncertified:
            if not (self._arithmetic.unknown or self._has("binary", "one_hot")):
                raise
        self._arithmetic.by_shadow = True
        self._arithmetic.unknown.clear()
        return self._at_patterns()

    def _has(self, *kinds: str) -> bool:
        return any(generator.kind in kinds for generator in self._generators)

    def _at_patterns(self) -> tuple[int, _Tally]:
        several = self._arithmetic.by_shadow or self._has("label")
        wanted, tallies = PATTERNS if several else 1, []
        for shadow in self._shadows:
            try:
                tallies.append(self._at(shadow))
            except _NotFinite:
                continue
            if len(tallies) == wanted:
                return wanted * several, max(tallies, key=lambda tally: tally.error)
        raise Uncertified("an intermediate value is infinite or too large")

    def _at(self, shadow: Sequence[np.ndarray]) -> _Tally:
        """The tally of the worst leaf, once all leaves have enough draws."""
        tallies, enough = [_Tally() for _ in self._places], 0
        while True:
            for tally, common in zip(tallies, self._compared(shadow), strict=True):
                tally.add(common, self._arithmetic.towers.primes)
            worst = max(tallies, key=lambda tally: tally.error)
            enough = BITS if self._arithmetic.roots else 0
            if worst.error < -BITS and min(tally.pairs for tally in tallies) >= enough:
                return worst
            if worst.tried >= FRUITLESS and not worst.bits:
                raise Uncertified("exponentials too deep in one another, or a divisor is zero")

    def _compared(self, shadow: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Per leaf the levels that formula and reference share, [draws, levels]."""
        inputs = [*map(self._residues, self._generators, shadow)]
        formula, reference = (program(inputs) for program in self._programs)
        if not all(np.all(np.isfinite(x.shadow)) for x in (*formula, *reference)):
            raise _NotFinite
        for x, y, places in zip(formula, reference, self._places, strict=True):
            common = x.known & y.known
            if np.any((x.residues != y.residues[places])[:, common]):
                raise Uncertified(self._difference())
            yield common

    def _difference(self) -> str:
        unknown = sorted(self._arithmetic.unknown)
        if unknown:
            return f"formula and function differ where {', '.join(unknown)} may be any functions"
        return "formula and function differ where a constant such as 0.1 is its binary fraction"

    def _residues(self, generator: Input, value: np.ndarray) -> Any:
        """Random residues of an input with a shadow; labels, and whole numbers of a pattern."""
        if generator.kind == "label":
            return value
        by_shadow, towers = self._arithmetic.by_shadow, self._arithmetic.towers
        numbers = self._arithmetic.exactly(value)
        if by_shadow and generator.kind in ("binary", "one_hot"):
            return replace(numbers, constant=False)
        squares = generator.kind in ("positive", "simplex")
        residues = (towers.squares if squares else towers.uniform)(value.size)
        if by_shadow and not squares:  # the sign of the residue is the sign of the shadow
            negative = towers.is_square(residues) == (value.ravel() < 0)[:, None, None]
            residues = np.where(negative, towers.neg(residues), residues)
        if generator.kind in ("one_hot", "simplex"):
            moved = np.moveaxis(
                residues.reshape(*value.shape, *towers.primes.shape), generator.axis - 2, 0
            )
            moved[-1] = 1
            for others in moved[:-1]:
                moved[-1] = towers.add(moved[-1], towers.neg(others))
        return replace(numbers, residues=residues, constant=False)
