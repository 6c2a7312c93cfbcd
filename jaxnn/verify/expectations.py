"""Expectations: sums over all outcomes of random inputs, or means of samples with a stated error.

An expectation over finitely many outcomes is an ordinary function of the remaining inputs, and a
claim about the expectation an ordinary claim: exact, differentiated by JAX, certified. Where the
outcomes are too many, or continuous, the claim is judged by a confidence sequence (Waudby-Smith and
Ramdas, 2023): an enclosure of the mean that holds after any number of samples.
"""

import inspect
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, update_wrapper
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.types import PyTree, real, require_type, shown, whole
from jaxnn.verify import comparison
from jaxnn.verify.claims import Claim, call, parameters
from jaxnn.verify.comparison import TracedClaim
from jaxnn.verify.graph import LOOPED, by_primitives, jit, primitives
from jaxnn.verify.inputs import draw, filled
from jaxnn.verify.sampling import DomainError, satisfies
from jaxnn.verify.verdict import Counterexample, Finding, Sampling, Verdict, Worst

MOST_OUTCOMES = 2**12
"""The most outcomes that are enumerated; more are sampled."""

Inputs = Mapping[str, PyTree]
Given = Any
"""A value, the name of an input with the value, or a function of inputs to the value."""


def _value(given: Given, inputs: Inputs) -> Any:
    if isinstance(given, str):
        return inputs[given]
    return call(given, inputs) if callable(given) else given


def _names(*given: Given) -> set[str]:
    """The names of the inputs that such values need."""
    functions = [parameters(each) for each in given if callable(each)]
    return {each for each in given if isinstance(each, str)}.union(*functions)


class Outcomes(NamedTuple):
    """All outcomes of a random input, with the probabilities weights / total."""

    values: PyTree  # [K, ...]
    weights: jax.Array  # [K]
    total: int = 1  # apart from the weights: 1 / 3 is no float64


@dataclass(frozen=True, eq=False)
class Random:
    """A random input: how to draw an outcome, and where finite all outcomes with probabilities.

    The inputs that the functions get are those before the random input, other random inputs
    included.
    """

    draw: Callable[[jax.Array, Inputs], PyTree]  # an outcome
    density: Callable[[PyTree, Inputs], jax.Array] | None  # of an outcome, up to a constant
    outcomes: Callable[[Inputs], "Outcomes"] | None
    count: Callable[[Inputs], float]  # K, by the shapes of the inputs alone
    uses: frozenset[str]  # the names of the inputs
    needs: frozenset[str]  # the names of the inputs that shift probabilities


def _shape(given: Given, inputs: Inputs) -> tuple[int, ...]:
    """The shape of a random array: sizes, the shape of an input, or a function's value."""
    shape = jnp.shape(inputs[given]) if isinstance(given, str) else _value(given, inputs)
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _length(given: Given, inputs: Inputs) -> int:
    """A number of examples: a number, or the length of an input's first axis."""
    return _shape(given, inputs)[0]


def _grid(values: int, places: int) -> np.ndarray:
    """All sequences of numbers below ``values``, [values^places, places]."""
    return np.array(list(itertools.product(range(values), repeat=places)), int).reshape(-1, places)


def bernoulli(probability: Given = 0.5, shape: Given = ()) -> Random:
    """Independent zeros and ones, such as a mask of dropout; 1 with the probability given.

    Args:
      probability: a number, the name of an input, or a function of inputs; broadcast to the shape.
      shape: sizes, the name of an input of this shape, or a function of inputs.
    """
    fixed = real(probability)
    if fixed is not None and not 0 <= fixed <= 1:
        raise ValueError(f"probability is {shown(probability)}, expected a number from 0 to 1")

    def ones(inputs: Inputs) -> jax.Array:
        return jnp.broadcast_to(_value(probability, inputs), _shape(shape, inputs))

    def density(mask: PyTree, inputs: Inputs) -> jax.Array:
        p = ones(inputs)
        return jnp.prod(mask * p + (1 - mask) * (1 - p))

    def outcomes(inputs: Inputs) -> Outcomes:
        size = _shape(shape, inputs)
        if fixed in (0, 1):  # an impossible outcome may have no finite value
            return Outcomes(jnp.full((1, *size), float(fixed)), jnp.ones(1))
        masks = jnp.asarray(_grid(2, math.prod(size)).reshape(-1, *size), float)
        return Outcomes(masks, jax.vmap(partial(density, inputs=inputs))(masks))

    def sample(key: jax.Array, inputs: Inputs) -> jax.Array:
        return jax.random.bernoulli(key, ones(inputs)).astype(float)

    def count(inputs: Inputs) -> float:
        return 1 if fixed in (0, 1) else 2.0 ** math.prod(_shape(shape, inputs))

    return Random(sample, density, outcomes, count, *_both(_names(probability), _names(shape)))


def _both(needs: set[str], others: set[str]) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(needs | others), frozenset(needs)


def discrete(values: Given, probabilities: Given) -> Random:
    """One of K values, [K, ...], with the probabilities [K].

    Args:
      values: an array or a tree of arrays, the name of an input, or a function of inputs.
      probabilities: an array that sums to 1, the name of an input, or a function of inputs.
    """

    def p(inputs: Inputs) -> jax.Array:
        return jnp.asarray(_value(probabilities, inputs))

    def outcomes(inputs: Inputs) -> Outcomes:
        every = _value(values, inputs)
        return Outcomes(jax.tree.map(jnp.asarray, every), p(inputs))

    def sample(key: jax.Array, inputs: Inputs) -> PyTree:
        every = outcomes(inputs)
        index = jax.random.choice(key, len(every.weights), p=every.weights)
        return jax.tree.map(lambda leaf: leaf[index], every.values)

    # Values that are drawn need not be unlike: the density of a value has no meaning.
    uses = _both(_names(probabilities, values), set())
    return Random(sample, None, outcomes, lambda inputs: len(p(inputs)), *uses)


def categorical(probabilities: Given, shape: Given = ()) -> Random:
    """Independent indices from 0 to C-1, such as actions or negative samples.

    Args:
      probabilities: an array [C] that sums to 1, the name of an input, or a function of inputs
        such as ``lambda theta: jax.nn.softmax(theta)``.
      shape: sizes, the name of an input of this shape, or a function of inputs.
    """

    def p(inputs: Inputs) -> jax.Array:
        return jnp.asarray(_value(probabilities, inputs))

    def density(index: PyTree, inputs: Inputs) -> jax.Array:
        return jnp.prod(p(inputs)[index])

    def outcomes(inputs: Inputs) -> Outcomes:
        size = _shape(shape, inputs)
        every = _grid(len(p(inputs)), math.prod(size)).reshape(-1, *size)
        every = jnp.asarray(every)
        return Outcomes(every, jax.vmap(partial(density, inputs=inputs))(every))

    def sample(key: jax.Array, inputs: Inputs) -> jax.Array:
        return jax.random.choice(key, len(p(inputs)), _shape(shape, inputs), p=p(inputs))

    def count(inputs: Inputs) -> float:
        return float(len(p(inputs))) ** math.prod(_shape(shape, inputs))

    return Random(sample, density, outcomes, count, *_both(_names(probabilities), _names(shape)))


def minibatch(examples: Given, size: int, replace: bool = False) -> Random:
    """Indices of a minibatch, [size]: all sets of examples alike, or drawn with replacement.

    Args:
      examples: their number, the name of an input with the examples along the first axis, or a
        function of inputs.
      size: of the minibatch.
      replace: whether an example can be drawn again.
    """
    if (whole(size) or 0) < 1:
        raise ValueError(f"size is {shown(size)}, expected a whole number, at least 1")

    def length(inputs: Inputs) -> int:
        if not replace and size > _length(examples, inputs):
            raise ValueError(
                f"size is {size}, expected at most the {_length(examples, inputs)} examples"
            )
        return _length(examples, inputs)

    def every(n: int) -> np.ndarray:
        return _grid(n, size) if replace else np.array([*itertools.combinations(range(n), size)])

    def sample(key: jax.Array, inputs: Inputs) -> jax.Array:
        return jax.random.choice(key, length(inputs), (size,), replace=replace)

    def count(inputs: Inputs) -> float:
        n = length(inputs)
        return float(n) ** size if replace else float(math.comb(n, size))

    return _alike(every, length, sample, count, examples)


def permutation(examples: Given) -> Random:
    """The order of the examples, [n]: all orders alike.

    Args:
      examples: their number, the name of an input with the examples along the first axis, or a
        function of inputs.
    """
    length = partial(_length, examples)
    return _alike(
        lambda n: np.array([*itertools.permutations(range(n))]),
        length,
        lambda key, inputs: jax.random.permutation(key, length(inputs)),
        lambda inputs: float(math.factorial(length(inputs))),
        examples,
    )


def _alike(
    every: Callable[[int], np.ndarray],
    length: Callable[[Inputs], int],
    sample: Callable[[jax.Array, Inputs], jax.Array],
    count: Callable[[Inputs], float],
    examples: Given,
) -> Random:
    """A random input with equal probabilities."""

    def outcomes(inputs: Inputs) -> Outcomes:
        listed = every(length(inputs))
        return Outcomes(jnp.asarray(listed), jnp.ones(len(listed)), len(listed))

    def density(outcome: PyTree, inputs: Inputs) -> jax.Array:
        return jnp.ones(())

    return Random(sample, density, outcomes, count, *_both(set(), _names(examples)))


def sampled(draw: Callable[..., PyTree], log_density: Callable[..., Any] | None = None) -> Random:
    """A random input drawn by a function, for continuous outcomes.

    Args:
      draw: a function of ``key``, a random key of JAX, and of inputs, such as
        ``lambda key, mu: mu + jax.random.normal(key)``.
      log_density: the logarithm of the density, up to a constant, as a function of ``outcome`` and
        of inputs. A derivative by an input that ``draw`` depends on needs the density.
    """
    for name, function, first in (("draw", draw, "key"), ("log_density", log_density, "outcome")):
        if function is not None and (not callable(function) or first not in parameters(function)):
            raise ValueError(f"{name} is {shown(function)}, expected a function of {first!r}")

    def density(outcome: PyTree, inputs: Inputs) -> jax.Array:
        assert log_density is not None
        value = call(log_density, {**inputs, "outcome": outcome})
        return jnp.exp(value - jax.lax.stop_gradient(value))

    given = parameters(log_density) if log_density is not None else {}
    needs = {*parameters(draw), *given} - {"key", "outcome"}

    def sample(key: jax.Array, inputs: Inputs) -> PyTree:
        return call(draw, {**inputs, "key": key})

    known = None if log_density is None else density
    return Random(sample, known, None, lambda inputs: math.inf, *_both(needs, set()))


class Expectation:
    """The mean of a function over random inputs; made by ``expectation``."""

    def __init__(self, function: Callable[..., PyTree], over: Mapping[str, Random]):
        """Checks that every random input is a parameter of the function, or of a later one."""
        update_wrapper(self, function)
        self.function, self.over = function, dict(over)
        known = parameters(function)
        later = set(known).union(*(each.uses for each in over.values()))
        for name in over:
            if name not in later:
                raise ValueError(
                    f"over has {name!r}, expected one of the parameters {', '.join(known)}"
                )
        names = {name: None for name in (*known, *sorted(later)) if name not in over}
        given = inspect.signature(function).parameters
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        self.__signature__ = inspect.Signature(
            [
                inspect.Parameter(name, kind)
                for name in names
                if name not in given or given[name].default is inspect.Parameter.empty
            ]
        )

    def __call__(self, *args: PyTree, **kwargs: PyTree) -> PyTree:
        """The expectation, as a sum over all outcomes.

        Raises:
          ValueError: the outcomes cannot be enumerated.
        """
        inputs = self.__signature__.bind(*args, **kwargs).arguments
        count = self.count(inputs)
        if count > MOST_OUTCOMES:
            number = "infinitely many" if math.isinf(count) else f"{count:,.0f}"
            raise ValueError(
                f"an expectation over {number} outcomes, expected at most {MOST_OUTCOMES:,}; more "
                "are sampled where `of` or the formula itself is the expectation"
            )
        return self._sum(list(self.over), inputs)

    def _sum(self, names: Sequence[str], inputs: Inputs) -> PyTree:
        if not names:
            return call(self.function, inputs)
        first, *rest = names
        random = self.over[first]
        assert random.outcomes is not None  # else the count is infinite
        values, weights, total = random.outcomes(inputs)
        inner = jax.vmap(lambda value: self._sum(rest, {**inputs, first: value}))(values)
        return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1) / total, inner)

    def count(self, inputs: Inputs) -> float:
        """The number of outcomes of all random inputs, by the shapes of the inputs alone."""
        total = 1.0

        def counted(inputs: Inputs) -> tuple[()]:
            nonlocal total
            for name, random in self.over.items():
                total *= random.count(inputs)
                inputs = {**inputs, name: random.draw(jax.random.key(0), inputs)}
            return ()

        jax.eval_shape(counted, inputs)
        return total

    def at(self, key: jax.Array, inputs: Inputs, derived: bool = False) -> PyTree:
        """The function at one random draw, with the mean of the expectation.

        ``derived``: times density / density, so that also the derivatives, of any order, have the
        means of the derivatives of the expectation (Foerster et al., 2018).
        """
        weight, plain = jnp.ones(()), {n: jax.lax.stop_gradient(v) for n, v in inputs.items()}
        drawn: dict[str, PyTree] = {}
        for place, (name, random) in enumerate(self.over.items()):
            before = dict(drawn)
            drawn[name] = random.draw(jax.random.fold_in(key, place), {**plain, **before})
            if derived and random.density is not None:
                density = random.density(drawn[name], {**inputs, **before})
                weight = weight * density / jax.lax.stop_gradient(density)
        value = by_primitives(lambda inputs: call(self.function, inputs))({**inputs, **drawn})
        return jax.tree.map(lambda leaf: leaf * weight, value) if derived else value


def expectation(
    function: Callable[..., PyTree] | None = None, *, over: Mapping[str, Random]
) -> Any:
    """The expectation of a function over random inputs, a function of the remaining inputs.

    E f = sum_k P(k) f(outcome k)

    Args:
      function: the function; without, ``expectation`` is a decorator.
      over: for each random input ``bernoulli``, ``categorical``, ``minibatch``, ``permutation``,
        ``discrete`` or ``sampled``; the probabilities of an input may depend on random inputs
        before.

    Returns:
      A function of the inputs that are not random: of ``function``, and of the probabilities. As
      ``of`` or formula of a claim the expectation may have too many outcomes for a sum: then
      ``verify`` samples.

    Raises:
      ValueError: a random input is no parameter, or no distribution.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxnn.verify import bernoulli, claim, expectation, interval, real, verify
      >>> @expectation(over={"mask": bernoulli("keep", shape="x")})
      ... def dropout(x, mask, keep):
      ...     return mask * x / keep
      >>> inputs = {"x": real("n"), "keep": interval(0, 1)}
      >>> @claim(of=dropout, kind="value", inputs=inputs)
      ... def unchanged(x):
      ...     return x
      >>> verify(unchanged, trials=1000).words
      'holds, certified'
    """
    if not isinstance(over, Mapping) or not over:
        raise ValueError(f"over is {shown(over)}, expected a dict such as {{'mask': bernoulli()}}")
    for name, random in over.items():
        known = isinstance(random, Random)
        require_type(known, f"over[{name!r}]", random, "a random input such as bernoulli()")
    if function is None:
        return partial(expectation, over=over)
    require_type(callable(function), "function", function, "a function of inputs")
    return Expectation(function, over)


# Claims about expectations that cannot be enumerated: samples, and enclosures of means


ERROR = 1e-6
"""The probability that a claim that holds is refuted, or that more difference is left than said."""

SECONDS = 5.0
"""The time for the samples, without compilation."""

RESOLVED, LARGEST_LEFT = 1e-3, 0.1
"""Relative differences: sampling ends below the first, above the second a claim is not decided."""

POINTS = 4
"""Inputs at which formula and function are sampled."""

TRIES = 16
"""Inputs drawn for every input in the domain at most."""

PILOT = 4096
"""Samples before the test, for the centre and the range."""

RANGE = 100.0
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


def is_sampled(claim: Claim, sizes: Mapping[str, int]) -> bool:
    """Whether formula or ``of`` is an expectation with too many outcomes at these sizes."""
    sides = [side for side in (claim.formula, claim.of) if isinstance(side, Expectation)]
    one = comparison.one_trial(claim, dict(sizes)) if sides else {}
    return any(
        side.count({name: one[name] for name in parameters(side) if name in one}) > MOST_OUTCOMES
        for side in sides
    )


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


def refuse_unknown_density(claim: Claim) -> None:
    """Refuses a derivative by an input that shifts the outcomes of a random input unseen.

    Raises:
      ValueError: a random input depends on the parameter of the derivative, and has no density.
    """
    roots = {path.partition("[")[0].partition(".")[0] for path in claim.wrt}
    for name, random in claim.of.over.items() if isinstance(claim.of, Expectation) else ():
        shifted = sorted(roots & random.needs)
        if shifted and random.density is None:
            raise ValueError(
                f"the outcomes of {name!r} depend on {shifted[0]!r}, the parameter of the "
                "derivative, expected sampled(..., log_density=), or a function of outcomes that "
                "do not"
            )


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
    """Formula and reference at random draws, as one compiled program."""

    def __init__(self, claim: Claim, traced: TracedClaim):
        """Compiles nothing yet; ``traced`` is of the claim at a draw."""
        self.claim = claim
        self.batch = max(1, min(PILOT, traced.chunk))
        self.order = [
            comparison.declared_layout(claim.layout, rank)(np.arange(v.size).reshape(v.shape))
            for rank, v in zip(traced.value_ranks, traced.reverse.out_avals, strict=True)
        ]
        self.zeros = Sums(*[np.zeros(sum(order.size for order in self.order))] * len(Sums._fields))
        programs = [traced.formula, traced.reverse]
        looped = not LOOPED.isdisjoint(set().union(*map(primitives, programs)))
        self.map = jax.lax.map if looped else lambda one, keys: jax.vmap(one)(keys)
        self.run = jit(self._run, programs) if looped else jax.jit(self._run)

    def __call__(self, point: Point, batches: int) -> Sums:
        """The sums over further samples at a point."""
        first, point.drawn = point.drawn, point.drawn + batches
        sums = self.run(point.flat, point.key, point.centre, first, point.drawn)
        return jax.tree.map(np.asarray, sums)

    def _values(self, flat: Sequence[jax.Array], key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Claimed and true value of a draw, [E] each, in the order of the formula's entries."""
        inputs, drawn = filled(dict(self.claim.inputs), flat), at_key(self.claim, key)
        true = comparison.reference(drawn, of=lambda inputs: call(drawn.of, inputs))(inputs)
        pairs = zip(jax.tree.leaves(true), self.order, strict=True)
        ordered = [jnp.ravel(value)[order.ravel()] for value, order in pairs]
        claimed = [jnp.ravel(value) for value in jax.tree.leaves(drawn.evaluate(inputs))]
        return jnp.concatenate(claimed).astype(float), jnp.concatenate(ordered).astype(float)

    def _run(
        self, flat: Sequence[jax.Array], key: jax.Array, centre: jax.Array, first: int, end: int
    ) -> Sums:
        def batch(number: jax.Array, sums: Sums) -> Sums:
            keys = jax.random.split(jax.random.fold_in(key, number), self.batch)
            claimed, true = self.map(partial(self._values, flat), keys)
            y = claimed - true - centre
            power = jnp.maximum(jnp.abs(claimed), jnp.abs(true)) ** 2
            added = [jnp.sum(each, 0) for each in (y, y**2, y, claimed, true, power)]
            new = Sums(*(old + each for old, each in zip(sums, added, strict=True)))
            farthest = jnp.maximum(sums.farthest, jnp.max(jnp.abs(y), 0))
            return new._replace(farthest=farthest)

        return jax.lax.fori_loop(first, end, batch, jax.tree.map(jnp.asarray, self.zeros))


def judge(claim: Claim, traced: TracedClaim, rng: np.random.Generator) -> Verdict:
    """The verdict on a claim about an expectation by samples, without a diagnosis.

    At every input the difference of independent draws of formula and function is enclosed until the
    enclosure is without zero, which refutes the claim, or is narrow, or the time is over.

    Args:
      claim: the claim.
      traced: the claim at a draw, by ``at_key``.
      rng: of the random numbers.

    Raises:
      DomainError: no input drawn is in the domain, or samples are not finite.
    """

    def verdict(word: str, **fields: Any) -> Verdict:
        return Verdict(claim.name, claim.source, claim.kind, word, **fields)

    sampler = Sampler(claim, traced)
    wrong = _wrong_shape(traced, sampler)
    if wrong:
        return verdict("refuted", diagnosis=(wrong,))
    _refuse_constant(claim, traced.sizes, rng)
    points = _pilots(sampler, traced, rng)
    _sample(sampler, points)
    count = len(points)
    samples = min(point.count for point in points)
    known = zip(points, differences_left(points), strict=True)
    worst, left = max(known, key=lambda pair: (pair[0].refuted(count), pair[1]))
    small = worst.value()[1]
    found = Sampling(samples, count, left, ERROR, ASSUMPTION, "samples" if small else "value")
    trials = sum(point.count for point in points)
    if worst.refuted(count):
        entry, factor = _entry(traced, sampler, worst, count), _factor(worst, count)
        example = Counterexample(traced.sizes, filled(dict(claim.inputs), worst.flat))
        return verdict(
            "refuted", trials=trials, worst=entry, counterexample=example, detail=factor,
            sampling=found,
        )  # fmt: skip
    heavy = any(np.any(point.heavy) for point in points)
    if heavy or not left <= LARGEST_LEFT:
        detail = f"the samples leave a difference of {left:.2g} times the {found.of}" + (
            "; few samples make most of the spread, as where the variance is infinite"
            if heavy
            else ""
        )
        return verdict("undecided", trials=trials, detail=detail, sampling=found)
    return verdict("holds", trials=trials, sampling=found)


def _wrong_shape(traced: TracedClaim, sampler: Sampler) -> Finding | None:
    claimed = traced.formula_shapes
    true = [order.shape for order in sampler.order]
    if claimed == true:
        return None
    return Finding("shape", "", f"the formula returns the shapes {claimed}, expected {true}")


def _refuse_constant(claim: Claim, sizes: Mapping[str, int], rng: np.random.Generator) -> None:
    """Refuses a random input whose draws are all equal, as where the key is not used."""
    one = jax.tree.map(lambda value: value[0], draw(dict(claim.inputs), sizes, 1, rng))
    for side in (claim.of, claim.formula):
        inputs = dict(one)
        for name, random in side.over.items() if isinstance(side, Expectation) else ():
            keys = jax.random.split(jax.random.key(0), 16)
            some = jax.vmap(lambda key, random=random, known=dict(inputs): random.draw(key, known))(
                keys
            )
            if random.outcomes is None and all(
                np.all(np.asarray(leaf) == leaf[0]) for leaf in jax.tree.leaves(some)
            ):
                raise DomainError(
                    f"16 draws of {name!r} are equal, expected a draw that depends on the key"
                )
            inputs[name] = jax.tree.map(lambda leaf: leaf[0], some)


def _pilots(sampler: Sampler, traced: TracedClaim, rng: np.random.Generator) -> list[Point]:
    """Inputs in the domain, each with centre and range by samples before those of the test."""
    claim = sampler.claim
    drawn = draw(dict(claim.inputs), traced.sizes, TRIES * POINTS, rng, spreads=(0.3, 1.0))
    columns = jax.tree.leaves(drawn)
    allowed = np.flatnonzero(satisfies(claim, columns))
    batches = -(-PILOT // sampler.batch)
    found: list[Point] = []
    for row in allowed:
        flat = [column[row] for column in columns]
        key = jax.random.fold_in(jax.random.key(int(rng.integers(2**31))), int(row))
        point = Point(flat, key, *sampler.zeros[:2], sampler.zeros)
        sums = sampler(point, batches)
        if not np.all(np.isfinite(sums.true)):
            continue
        if not np.all(np.isfinite(sums.claimed)):
            inputs = filled(dict(claim.inputs), [value.tolist() for value in flat])
            raise DomainError(
                f"some of {PILOT:,} samples of the formula are not finite, expected numbers; at "
                f"{inputs}"
            )
        count = batches * sampler.batch
        point.centre, point.drawn = sums.apart / count, 0
        farthest, size = sampler(point, batches).farthest, np.sqrt(sums.power / count)
        # Where all samples are equal, a rare one may be of the size of the values, or of 1.
        equal = farthest <= ROUNDING * size
        point.range = RANGE * np.where(equal, np.maximum(1.0, size), farthest)
        found.append(point)
        if len(found) == POINTS:
            break
    if not found:
        raise DomainError(
            f"0 of {len(columns[0]):,} inputs drawn are in the domain of `of`, expected at least "
            "1: declare the domain by interval(low, high, ...), positive(...) or where="
        )
    return found


def _sample(sampler: Sampler, points: Sequence[Point]) -> None:
    """Samples until a point refutes, all differences are small, or the time is over."""
    batches, count, deadline = 1, len(points), time.perf_counter() + SECONDS
    while True:
        began = time.perf_counter()
        for point in points:
            sums = sampler(point, batches)
            if np.any(sums.farthest > point.range):  # the assumption fails: start again, with more
                point.range = RANGE * np.maximum(point.range / RANGE, sums.farthest)
                point.sums, point.count = sampler.zeros, 0
                point.restarts += 1
            else:
                point.sums = point.sums.joined(sums)
                point.count += batches * sampler.batch
        if any(point.refuted(count) for point in points):
            return
        if max(differences_left(points)) <= RESOLVED:
            return
        now = time.perf_counter()
        if now > deadline:
            return
        if now - began < SECONDS / 10:
            batches *= 2


def _entry(traced: TracedClaim, sampler: Sampler, point: Point, points: int) -> Worst:
    """The entry in which the expectation is farthest from zero, beyond the radius."""
    beyond = np.where(point.heavy, -np.inf, np.abs(point.apart) - point.radius(points))
    place = entry = int(np.argmax(beyond))
    for name, order in zip(traced.names, sampler.order, strict=True):
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
