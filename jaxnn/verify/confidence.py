"""Claims about expectations by samples: the difference of formula and function, enclosed.

A confidence sequence (Waudby-Smith and Ramdas, 2023) encloses the mean of the difference, with a
stated error after any number of samples.
"""

import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxnn.types import PyTree
from jaxnn.verify import comparison
from jaxnn.verify.claims import Claim, at_path, call, parameters, with_path
from jaxnn.verify.comparison import FormulaError, FunctionError, TracedClaim
from jaxnn.verify.expectations import MOST_OUTCOMES, Expectation, Inputs, Random
from jaxnn.verify.graph import LOOPED, jit, primitives
from jaxnn.verify.inputs import draw, filled
from jaxnn.verify.sampling import DomainError, satisfies
from jaxnn.verify.verdict import Counterexample, Finding, Sampling, Verdict, Worst, rounded_up

ERROR = 1e-6
"""The probability that a claim that holds is refuted, or that more difference is left than said."""

SECONDS = 8.0
"""The time for the samples, without compilation; at larger sizes a quarter."""

RESOLVED, LARGEST_LEFT = 1e-3, 0.1
"""Relative differences: sampling ends below the first, above the second a claim is not decided."""

POINTS = 4
"""Inputs at which formula and function are sampled."""

TRIES = 16
"""Inputs drawn for every input in the domain at most."""

PILOT = 4096
"""Samples before the test, for the centre and the range."""

RANGE = 30.0
"""No sample is assumed to lie so many times as far from the centre as all samples before."""

ROUNDING = 1e-9
"""Relative differences that may be rounding."""

FEWEST = 20
"""Samples that make the spread, at least, where a claim is refuted: fewer are a heavy tail."""

SLOPES = np.geomspace(1e-4, 0.95, 24)
"""Parameters of the supermartingales, relative to the range; the best for a mean is among them."""

ASSUMPTION = (
    f"no sample is {RANGE:g} times as far from the mean as the farthest of the {PILOT:,} or more "
    "samples before the test"
)


def exactly(claim: Claim) -> Claim:
    """The claim with a smaller tolerance where a side is an expectation: sums are exact."""
    return replace(claim, tolerance=claim.tolerance / 10) if _sides(claim) else claim


def is_sampled(claim: Claim, sizes: Mapping[str, int]) -> bool:
    """Whether formula or ``of`` is an expectation with too many outcomes at these sizes.

    Raises:
      FormulaError: from an exception of the formula's random inputs.
      FunctionError: from an exception of the random inputs of ``of``.
    """
    one = comparison.one_trial(claim, dict(sizes)) if _sides(claim) else {}
    return any(_count(claim, side, one) > MOST_OUTCOMES for side in _sides(claim))


def _count(claim: Claim, side: Expectation, one: Inputs) -> float:
    try:
        return side.count({name: one[name] for name in parameters(side) if name in one})
    except Exception as error:
        raise (FormulaError if side is claim.formula else FunctionError) from error


def at_key(claim: Claim, key: jax.Array) -> Claim:
    """The claim with the function at a random draw in place of every expectation."""
    of, formula = jax.random.split(key)
    derived = claim.kind != "value"
    return replace(
        claim, of=_drawn(claim.of, of, derived), formula=_drawn(claim.formula, formula, False)
    )


def _drawn(side: Callable[..., PyTree], key: jax.Array, derived: bool) -> Callable[..., PyTree]:
    if not isinstance(side, Expectation):
        return side

    def drawn(**inputs: PyTree) -> PyTree:
        return side.at(key, inputs, derived)

    vars(drawn)["__signature__"] = inspect.signature(side)
    return drawn


class Sums(NamedTuple):
    """Sums over samples, per entry of claimed - true, each [E]."""

    apart: np.ndarray  # of claimed - true - centre
    squares: np.ndarray
    farthest: np.ndarray  # the largest |claimed - true - centre|
    claimed: np.ndarray
    true: np.ndarray
    power: np.ndarray  # of max(|claimed|, |true|)^2

    def joined(self, other: "Sums") -> "Sums":
        """The sums over both samples."""
        added = Sums(*(a + b for a, b in zip(self, other, strict=True)))
        return added._replace(farthest=np.maximum(self.farthest, other.farthest))


@dataclass
class Point:
    """An input, and the enclosure of the expectation of claimed - true there."""

    flat: list[np.ndarray]
    key: jax.Array
    centre: np.ndarray  # [E], known before the samples of the sums
    range: np.ndarray  # [E], assumed to be larger than every |claimed - true - centre|
    sums: Sums
    count: int = 0  # samples in the sums
    drawn: int = 0  # batches, also those before the sums
    restarts: int = 0

    @property
    def apart(self) -> np.ndarray:
        """The mean of claimed - true, [E]."""
        return self.centre + self.sums.apart / max(1, self.count)

    @property
    def size(self) -> np.ndarray:
        """The root mean square of the values, [E]."""
        return np.sqrt(self.sums.power / max(1, self.count))

    def radius(self, points: int) -> np.ndarray:
        """How far the mean can be from the expectation, [E], after any number of samples.

        For independent Y > -1 the products of exp(s (Y - E Y) - psi(s) Y^2) with
        psi(s) = -log(1 - s) - s are supermartingales (Fan, Grama and Liu, 2015): by Ville's
        inequality none ever exceeds 1 / error, but with a probability of the error.
        """
        tests = 2 * len(self.centre) * len(SLOPES) * points * 2.0 ** (self.restarts + 1)
        tests *= 2  # ordinary and larger sizes
        slopes = SLOPES[:, None]
        psi = -np.log1p(-slopes) - slopes
        limits = math.log(tests / ERROR) + psi * self.sums.squares / self.range**2
        least = np.min(limits / slopes, axis=0) / max(1, self.count)
        return self.range * least + ROUNDING * self.size

    @property
    def heavy(self) -> np.ndarray:
        """Per entry whether a few samples are most of the spread, [E]."""
        some = self.sums.farthest > ROUNDING * self.size
        return some & (FEWEST * self.sums.farthest**2 > self.sums.squares)

    def refuted(self, points: int) -> bool:
        """Whether the expectation of an entry is not zero."""
        wrong = (np.abs(self.apart) > self.radius(points)) & ~self.heavy
        return bool(self.count and np.any(wrong))

    def value(self) -> tuple[float, bool]:
        """The size of the value, by norm, or else, where too small to tell from 0, of samples."""
        true = float(np.linalg.norm(self.sums.true / max(1, self.count)))
        samples = float(np.linalg.norm(self.size))
        small = true <= 5 * samples / max(1, self.count) ** 0.5
        return (samples, True) if small else (true, False)


def differences_left(points: Sequence[Point]) -> list[float]:
    """Per input the largest difference left, by norm, relative to the size of the value.

    A value smaller than at half of the inputs counts as large as there.
    """
    usual = np.median([point.value()[0] for point in points])
    most = [np.linalg.norm(np.abs(p.apart) + p.radius(len(points))) for p in points]
    sizes = [max(point.value()[0], usual) or 1.0 for point in points]
    return [float(each / size) for each, size in zip(most, sizes, strict=True)]


class Sampler:
    """Samples of claimed and true value, [E] each, summed in one compiled program."""

    def __init__(
        self,
        values: Callable[[Sequence[jax.Array], jax.Array], tuple[jax.Array, jax.Array]],
        entries: int,
        traced: TracedClaim,
    ):
        """Compiles nothing yet.

        Args:
          values: from flat inputs and a key to claimed and true value.
          entries: E.
          traced: a claim about as large, for the number of samples at once.
        """
        self.values, self.batch = values, max(1, min(PILOT, traced.chunk))
        self.zeros = Sums(*[np.zeros(entries)] * len(Sums._fields))
        programs = [traced.formula, traced.reverse]
        looped = not LOOPED.isdisjoint(set().union(*map(primitives, programs)))
        self.map = jax.lax.map if looped else lambda one, keys: jax.vmap(one)(keys)
        self.run = jit(self._run, programs) if looped else jax.jit(self._run)

    def __call__(self, point: Point, batches: int) -> Sums:
        """The sums over further samples at a point."""
        first, point.drawn = point.drawn, point.drawn + batches
        sums = self.run(point.flat, point.key, point.centre, first, point.drawn)
        return jax.tree.map(np.asarray, sums)

    def _run(
        self, flat: Sequence[jax.Array], key: jax.Array, centre: jax.Array, first: int, end: int
    ) -> Sums:
        def batch(number: jax.Array, sums: Sums) -> Sums:
            keys = jax.random.split(jax.random.fold_in(key, number), self.batch)
            claimed, true = self.map(partial(self.values, flat), keys)
            y = claimed - true - centre
            power = jnp.maximum(jnp.abs(claimed), jnp.abs(true)) ** 2
            added = [jnp.sum(each, 0) for each in (y, y**2, y, claimed, true, power)]
            new = Sums(*(old + each for old, each in zip(sums, added, strict=True)))
            farthest = jnp.maximum(sums.farthest, jnp.max(jnp.abs(y), 0))
            return new._replace(farthest=farthest)

        return jax.lax.fori_loop(first, end, batch, jax.tree.map(jnp.asarray, self.zeros))

    def pilot(self, flat: list[np.ndarray], key: jax.Array) -> tuple[Point, Sums]:
        """A point with centre and range by samples before the test, and the sums."""
        batches = -(-PILOT // self.batch)
        point = Point(flat, key, *self.zeros[:2], self.zeros)
        sums, count = self(point, batches), batches * self.batch
        point.centre, point.drawn = sums.apart / count, 0
        farthest, size = self(point, batches).farthest, np.sqrt(sums.power / count)
        # Where all samples are equal, a rare one may be of the size of the values, or of 1.
        equal = farthest <= ROUNDING * size
        point.range = RANGE * np.where(equal, np.maximum(1.0, size), farthest)
        return point, sums

    def sample(self, points: Sequence[Point], seconds: float, least: int = 0) -> None:
        """Samples until a point refutes, all differences are small, or the time is over."""
        batches, deadline = 1, time.perf_counter() + seconds
        while True:
            began = time.perf_counter()
            for point in points:
                self._further(point, batches)
            now = time.perf_counter()
            if any(point.refuted(len(points)) for point in points):
                return
            if now > deadline and min(point.drawn for point in points) * self.batch >= least:
                return
            if max(differences_left(points)) <= RESOLVED:
                return
            if now - began < seconds / 10:
                batches *= 2

    def _further(self, point: Point, batches: int) -> None:
        sums = self(point, batches)
        if not np.all(np.isfinite(sums.claimed) & np.isfinite(sums.true)):
            raise DomainError(
                f"a few of {batches * self.batch:,} samples are not finite, expected numbers"
            )
        if np.any(sums.farthest > point.range):  # the assumption fails: again, with a larger range
            point.range = RANGE * np.maximum(point.range / RANGE, sums.farthest)
            point.sums, point.count, point.restarts = self.zeros, 0, point.restarts + 1
        else:
            point.sums = point.sums.joined(sums)
            point.count += batches * self.batch


def _order(claim: Claim, traced: TracedClaim) -> list[np.ndarray]:
    """Per leaf of the reference the numbers of its entries in the layout of the formula."""
    return [
        comparison.declared_layout(claim.layout, rank)(np.arange(v.size).reshape(v.shape))
        for rank, v in zip(traced.value_ranks, traced.reverse.out_avals, strict=True)
    ]


def _claimed_and_true(
    claim: Claim, order: Sequence[np.ndarray], flat: Sequence[jax.Array], key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Claimed and true value of independent draws, [E] each, in the order of the formula."""
    inputs, drawn = filled(dict(claim.inputs), flat), at_key(claim, key)
    true = comparison.reference(drawn, of=lambda inputs: call(drawn.of, inputs))(inputs)
    pairs = zip(jax.tree.leaves(true), order, strict=True)
    ordered = [jnp.ravel(value)[place.ravel()] for value, place in pairs]
    return _entries(drawn.evaluate(inputs)), _entries(ordered)


def _entries(tree: PyTree) -> jax.Array:
    return ravel_pytree(tree)[0].astype(float)


def judge(
    claim: Claim, traced: TracedClaim, rng: np.random.Generator, seconds: float = SECONDS
) -> Verdict:
    """The verdict on a claim about an expectation by samples, without a diagnosis.

    At every input the difference of independent draws of formula and function is enclosed until the
    enclosure is without zero, which refutes the claim, or is narrow, or the time is over.

    Args:
      claim: the claim.
      traced: the claim at a draw, by ``at_key``.
      rng: of the random numbers.
      seconds: the time for the samples.

    Raises:
      DomainError: no input drawn is in the domain, or samples are not finite.
    """

    def verdict(word: str, **fields: Any) -> Verdict:
        return Verdict(claim.name, claim.source, claim.kind, word, **fields)

    order = _order(claim, traced)
    claimed, true = list(traced.formula_shapes), [each.shape for each in order]
    if claimed != true:
        detail = f"the formula returns the shapes {claimed}, expected {true}"
        return verdict("refuted", diagnosis=(Finding("shape", "", detail),))
    _refuse_unknown_density(claim)
    _check_draws(claim, traced, rng)
    entries = sum(each.size for each in order)
    sampler = Sampler(partial(_claimed_and_true, claim, order), entries, traced)
    points = _pilots(claim, sampler, traced.sizes, rng)
    sampler.sample(points, seconds)
    known = zip(points, differences_left(points), strict=True)
    worst, left = max(known, key=lambda pair: (pair[0].refuted(len(points)), pair[1]))
    of = "samples" if worst.value()[1] else "value"
    samples = min(point.count for point in points)
    found = Sampling(samples, len(points), left, ERROR, ASSUMPTION, of)
    said = partial(verdict, trials=sum(point.count for point in points), sampling=found)
    if worst.refuted(len(points)):
        return said(
            "refuted",
            worst=_entry(traced, order, worst, len(points)),
            counterexample=Counterexample(traced.sizes, filled(dict(claim.inputs), worst.flat)),
            detail=_factor(worst, len(points)),
        )
    heavy = any(np.any(point.heavy) for point in points)
    if left <= LARGEST_LEFT and not heavy:
        return said("holds")
    tails = "; few samples make most of the spread, as where the variance is infinite"
    detail = f"the samples leave a difference of {rounded_up(left)} times the {of}"
    return said("undecided", detail=detail + (tails if heavy else ""))


def _pilots(
    claim: Claim, sampler: Sampler, sizes: Mapping[str, int], rng: np.random.Generator
) -> list[Point]:
    """Inputs in the domain, each with the samples before those of the test."""
    columns = _drawn_inside(claim, sizes, TRIES * POINTS, rng)
    found: list[Point] = []
    for row in range(len(columns[0])):
        flat = [column[row] for column in columns]
        point, sums = sampler.pilot(flat, jax.random.key(int(rng.integers(2**31))))
        if not np.all(np.isfinite(sums.true)):
            continue
        if not np.all(np.isfinite(sums.claimed)):
            inputs = filled(dict(claim.inputs), [value.tolist() for value in flat])
            raise DomainError(
                f"some of {PILOT:,} samples of the formula are not finite, expected numbers; at "
                f"{inputs}"
            )
        found.append(point)
        if len(found) == POINTS:
            return found
    if not found:
        raise DomainError(
            f"0 of {TRIES * POINTS} inputs drawn are in the domain of `of`, expected at least 1: "
            "declare the domain by interval(low, high, ...), positive(...) or where="
        )
    return found


def _drawn_inside(
    claim: Claim, sizes: Mapping[str, int], trials: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Flat random inputs of ordinary size, each [T, ...], that satisfy ``where``."""
    columns = jax.tree.leaves(draw(dict(claim.inputs), sizes, trials, rng, spreads=(0.3, 1.0)))
    allowed = satisfies(claim, columns)
    return [column[allowed] for column in columns]


def _entry(traced: TracedClaim, orders: Sequence[np.ndarray], point: Point, points: int) -> Worst:
    """The entry in which the expectation is farthest from zero, beyond the radius."""
    beyond = np.where(point.heavy, -np.inf, np.abs(point.apart) - point.radius(points))
    place = entry = int(np.argmax(beyond))
    for name, order in zip(traced.names, orders, strict=True):
        if place < order.size:
            index = tuple(map(int, np.unravel_index(place, order.shape)))
            true = float(point.sums.true[entry] / point.count)
            claimed = true + float(point.apart[entry])
            return Worst(name, index, claimed, true, at_least=float(beyond[entry]))
        place -= order.size
    raise AssertionError("an entry of no leaf")


def _factor(point: Point, points: int) -> str:
    """A sentence on the number that the value is multiplied by, if all entries agree."""
    true = point.sums.true / point.count
    claimed, size = true + point.apart, float(true @ true)
    if not size or np.any(point.heavy):
        return ""
    factor = float(true @ claimed) / size
    near = np.linalg.norm(point.radius(points)) / size**0.5
    if np.any(np.abs(claimed - factor * true) > point.radius(points)) or near > 0.2:
        return ""
    return f"the formula is about {factor:.3g} times the value, within {near:.1g}"


# Checks of random inputs


MOVED = 0.3
"""The share of the way to another input by which a parameter is moved for a check."""

CHECKED_SECONDS, CHECKED = 2.0, 2**17
"""The time for the samples of a check of densities, and the samples at least."""


def check_probabilities(claim: Claim, sizes: Mapping[str, int]) -> None:
    """Refuses negative probabilities, and probabilities without the sum 1.

    Raises:
      DomainError: with the name of the random input.
    """
    for side in _sides(claim):
        checked = {n: each.probabilities for n, each in side.over.items() if each.probabilities}
        columns = _drawn_inside(claim, sizes, 16, np.random.default_rng(0)) if checked else []

        def extremes(*flat: jax.Array, side: Expectation = side, names: Any = checked) -> Any:
            inputs = filled(dict(claim.inputs), flat)
            inputs = {**inputs, **side.draws(jax.random.key(0), inputs)}
            every = {name: names[name](inputs) for name in names}
            return {n: (jnp.min(p), p.sum(-1).min(), p.sum(-1).max()) for n, p in every.items()}

        for name, (least, *sums) in (jit(jax.vmap(extremes))(*columns) if checked else {}).items():
            least, low, high = map(float, (jnp.min(least), jnp.min(sums[0]), jnp.max(sums[1])))
            if least < 0 or low < 1 - 1e-9 or high > 1 + 1e-9:
                total = high if high > 1 + 1e-9 else low
                raise DomainError(
                    f"the probabilities of {name!r} are {least:.3g} at least and sum to "
                    f"{total:.3g}, expected numbers from 0 whose sum is 1"
                )


def _sides(claim: Claim) -> list[Expectation]:
    return [side for side in (claim.formula, claim.of) if isinstance(side, Expectation)]


def _check_draws(claim: Claim, traced: TracedClaim, rng: np.random.Generator) -> None:
    """Refuses draws independent of the key, wrong densities, and functions with jumps.

    Raises:
      DomainError: one of these.
    """
    columns = _drawn_inside(claim, traced.sizes, 2 * POINTS, rng)
    one = filled(dict(claim.inputs), [column[0] for column in columns])
    for side in _sides(claim):
        keys = jax.random.split(jax.random.key(0), 16)
        some = jax.vmap(lambda key, side=side: side.draws(key, one))(keys)
        for name, values in some.items():
            leaves = map(np.asarray, jax.tree.leaves(values))
            infinite = side.over[name].outcomes is None
            if infinite and all(np.all(leaf == leaf[0]) for leaf in leaves):
                raise DomainError(
                    f"16 draws of {name!r} are equal, expected a draw that depends on the key"
                )
    side = claim.of
    if claim.kind == "value" or not isinstance(side, Expectation):
        return
    shifted = [
        n for n, random in side.over.items() if _shifting(claim, random) and _endless(random)
    ]
    if shifted:
        _check_density(claim, side, shifted, traced, columns)
    if any(map(_endless, side.over.values())):
        _check_jumps(claim, side, columns)


def _endless(random: Random) -> bool:
    return random.outcomes is None


def _shifting(claim: Claim, random: Random) -> list[str]:
    """The parameters of the derivative that change the probabilities of a random input."""
    roots = {path.partition("[")[0].partition(".")[0] for path in claim.wrt}
    return sorted(roots & random.shifting)


def _refuse_unknown_density(claim: Claim) -> None:
    """Refuses a derivative by an input that shifts the outcomes of a random input unseen.

    Raises:
      DomainError: a random input depends on the parameter of the derivative, and has no density.
    """
    for name, random in claim.of.over.items() if isinstance(claim.of, Expectation) else ():
        shifting = _shifting(claim, random)
        if shifting and random.log_density is None:
            raise DomainError(
                f"the outcomes of {name!r} depend on {shifting[0]!r}, the parameter of the "
                "derivative, expected sampled(..., log_density=), or a function of outcomes that "
                "do not"
            )


def _moved(claim: Claim, flat: Sequence[jax.Array], other: Sequence[jax.Array], share: Any) -> Any:
    """The inputs, the parameters of the derivative on the way to other values."""
    moved, target = (filled(dict(claim.inputs), each) for each in (flat, other))
    for path in claim.wrt:
        pair = at_path(moved, path), at_path(target, path)
        moved = with_path(moved, path, jax.tree.map(lambda a, b: a + share * (b - a), *pair))
    return moved


def _check_density(
    claim: Claim,
    side: Expectation,
    shifted: Sequence[str],
    traced: TracedClaim,
    columns: Sequence[np.ndarray],
) -> None:
    """Refuses densities of other draws.

    E h(x) p(x; b) / p(x; a) of draws at a is E h(x) of draws at b, for h = 1, sin and cos.
    """

    def features(drawn: Inputs) -> jax.Array:
        x = _entries([drawn[name] for name in shifted])
        return jnp.concatenate([jnp.ones(1), jnp.sin(x), jnp.cos(x)])

    def values(flat: Sequence[jax.Array], key: jax.Array) -> tuple[jax.Array, jax.Array]:
        here, other = flat[: len(columns)], flat[len(columns) :]
        a, b = filled(dict(claim.inputs), here), _moved(claim, here, other, MOVED)
        first, second = jax.random.split(key)
        drawn = side.draws(first, a)
        ratio = jnp.exp(side.log_density(drawn, b) - side.log_density(drawn, a))
        return ratio * features(drawn), features(side.draws(second, b))

    pairs = [[column[row] for row in (k, k + 1) for column in columns] for k in (0, 2)]
    entries = jax.eval_shape(values, pairs[0], jax.random.key(0))[0].size
    sampler = Sampler(values, entries, traced)
    points = [sampler.pilot(flat, jax.random.key(k))[0] for k, flat in enumerate(pairs)]
    sampler.sample(points, CHECKED_SECONDS, CHECKED)
    if any(point.refuted(len(points)) for point in points):
        raise DomainError(
            f"log_density of {shifted[0]!r} is not the logarithm of the density of its draws, "
            "expected also the factors that depend on the parameter"
        )


def _check_jumps(claim: Claim, side: Expectation, columns: Sequence[np.ndarray]) -> None:
    """Refuses a function with a jump in the parameter: the mean is smooth, with more derivative."""

    def jump(flat: Sequence[jax.Array], other: Sequence[jax.Array], key: jax.Array) -> Any:
        drawn = side.draws(key, filled(dict(claim.inputs), flat))

        def at(share: jax.Array) -> jax.Array:
            return _entries(side.value(drawn, _moved(claim, flat, other, share)))

        def half(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            low, high = ends
            middle = (low + high) / 2
            f = at(middle)
            left = jnp.sum((f - at(low)) ** 2) > jnp.sum((at(high) - f) ** 2)
            return jnp.where(left, low, middle), jnp.where(left, middle, high)

        low, high = jax.lax.fori_loop(0, 40, half, (jnp.zeros(()), jnp.full((), MOVED)))
        return jnp.max(jnp.abs(at(high) - at(low))), jnp.max(jnp.abs(at(low)))

    keys = jax.random.split(jax.random.key(0), PILOT // 4)
    search = jax.jit(jax.vmap(jump, in_axes=(None, None, 0)))
    for row in range(0, 4, 2):
        flat, other = ([column[k] for column in columns] for k in (row, row + 1))
        jumps, sizes = search(flat, other, keys)
        finite = np.isfinite(np.asarray(sizes))
        if not finite.all():
            if finite.any():
                raise DomainError(
                    "`of` is not finite at some outcomes, expected numbers: the mean is none"
                )
            continue  # outside of the domain
        if bool(jnp.any(jumps > 1e-6 * jnp.max(sizes))):
            raise DomainError(
                f"`of` jumps where {claim.wrt[0]!r} moves, so that the derivative of the mean is "
                "not the mean of derivatives, expected a function without jumps, or a random input "
                "with a log_density that depends on the parameter instead"
            )
