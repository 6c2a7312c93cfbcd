"""Expectations: sums over all outcomes of random inputs, or means of samples with a stated error.

An expectation over finitely many outcomes is an ordinary function of the remaining inputs, and a
claim about the expectation an ordinary claim: exact, differentiated by JAX, certified. Where the
outcomes are too many, or continuous, the claim is judged by samples.
"""

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, update_wrapper
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.types import PyTree, real, require_type, shown, whole
from jaxnn.verify.claims import call, parameters
from jaxnn.verify.graph import by_primitives

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
    log_density: Callable[[PyTree, Inputs], jax.Array] | None  # of an outcome, up to a constant
    outcomes: Callable[[Inputs], "Outcomes"] | None  # None: infinitely many
    count: Callable[[Inputs], float]  # K, by the shapes of the inputs alone
    uses: set[str]  # the names of the inputs
    shifting: set[str]  # among those: of the inputs that change the probabilities
    probabilities: Callable[[Inputs], jax.Array] | None = None  # [..., C], to be checked


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

    def of_one(inputs: Inputs) -> jax.Array:
        p = jnp.asarray(_value(probability, inputs), float)
        return jnp.broadcast_to(p, _shape(shape, inputs))

    def each(mask: PyTree, inputs: Inputs) -> jax.Array:
        p = of_one(inputs)
        return mask * p + (1 - mask) * (1 - p)

    def outcomes(inputs: Inputs) -> Outcomes:
        size = _shape(shape, inputs)
        if fixed in (0, 1):  # an impossible outcome may have no finite value
            return Outcomes(jnp.full((1, *size), float(fixed)), jnp.ones(1))
        masks = jnp.asarray(_grid(2, math.prod(size)).reshape(-1, *size), float)
        return Outcomes(masks, jax.vmap(lambda mask: jnp.prod(each(mask, inputs)))(masks))

    def count(inputs: Inputs) -> float:
        return 1 if fixed in (0, 1) else 2.0 ** math.prod(_shape(shape, inputs))

    return Random(
        lambda key, inputs: jax.random.bernoulli(key, of_one(inputs)).astype(float),
        lambda mask, inputs: jnp.sum(jnp.log(each(mask, inputs))),
        outcomes,
        count,
        _names(probability, shape),
        _names(probability),
        lambda inputs: jnp.stack([of_one(inputs), 1 - of_one(inputs)], axis=-1),
    )


def categorical(probabilities: Given, shape: Given = ()) -> Random:
    """Independent indices from 0 to C-1, such as actions or negative samples.

    Args:
      probabilities: an array [C] that sums to 1, the name of an input, or a function of inputs
        such as ``lambda theta: jax.nn.softmax(theta)``.
      shape: sizes, the name of an input of this shape, or a function of inputs.
    """

    def p(inputs: Inputs) -> jax.Array:
        return jnp.asarray(_value(probabilities, inputs))

    def outcomes(inputs: Inputs) -> Outcomes:
        size = _shape(shape, inputs)
        every = jnp.asarray(_grid(len(p(inputs)), math.prod(size)).reshape(-1, *size))
        return Outcomes(every, jax.vmap(lambda index: jnp.prod(p(inputs)[index]))(every))

    return Random(
        lambda key, inputs: jax.random.choice(
            key, len(p(inputs)), _shape(shape, inputs), p=p(inputs)
        ),
        lambda index, inputs: jnp.sum(jnp.log(p(inputs)[index])),
        outcomes,
        lambda inputs: float(len(p(inputs))) ** math.prod(_shape(shape, inputs)),
        _names(probabilities, shape),
        _names(probabilities),
        p,
    )


def minibatch(examples: Given, size: int, replace: bool = False) -> Random:
    """Indices of a minibatch, [size]: all sets of examples alike, in ascending order.

    Args:
      examples: their number, the name of an input with the examples along the first axis, or a
        function of inputs.
      size: of the minibatch.
      replace: whether an example can be drawn again: all sequences are alike.
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
        index = jax.random.choice(key, length(inputs), (size,), replace=replace)
        return index if replace else jnp.sort(index)

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

    return Random(
        sample, lambda outcome, inputs: jnp.zeros(()), outcomes, count, _names(examples), set()
    )


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

    given = parameters(log_density) if log_density is not None else {}
    uses = {*parameters(draw), *given} - {"key", "outcome"}
    known = log_density and (
        lambda outcome, inputs: call(log_density, {**inputs, "outcome": outcome})
    )
    return Random(
        lambda key, inputs: call(draw, {**inputs, "key": key}),
        known, None, lambda inputs: math.inf, uses, uses,
    )  # fmt: skip


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

    def draws(self, key: jax.Array, inputs: Inputs) -> dict[str, PyTree]:
        """An outcome of every random input."""
        drawn: dict[str, PyTree] = {}
        for place, (name, random) in enumerate(self.over.items()):
            drawn[name] = random.draw(jax.random.fold_in(key, place), {**inputs, **drawn})
        return drawn

    def log_density(self, drawn: Inputs, inputs: Inputs) -> jax.Array:
        """The logarithm of the density of outcomes, of the random inputs with a known density."""
        every = [
            random.log_density(drawn[name], {**inputs, **drawn})
            for name, random in self.over.items()
            if random.log_density is not None
        ]
        return sum(every, jnp.zeros(()))

    def at(self, key: jax.Array, inputs: Inputs, derived: bool = False) -> PyTree:
        """The function at one random draw, with the mean of the expectation.

        ``derived``: times density / density, so that also the derivatives, of any order, have the
        means of the derivatives of the expectation (Foerster et al., 2018).
        """
        drawn = self.draws(key, jax.lax.stop_gradient(dict(inputs)))
        value = self.value(drawn, inputs)
        if not derived:
            return value
        density = self.log_density(drawn, inputs)
        weight = jnp.exp(density - jax.lax.stop_gradient(density))
        return jax.tree.map(lambda leaf: leaf * weight, value)

    def value(self, drawn: Inputs, inputs: Inputs) -> PyTree:
        """The function at given outcomes, without custom derivative rules."""
        return by_primitives(lambda inputs: call(self.function, inputs))({**inputs, **drawn})


def expectation(
    function: Callable[..., PyTree] | None = None, *, over: Mapping[str, Random]
) -> Any:
    """The expectation of a function over random inputs, a function of the remaining inputs.

    E f = sum_k P(k) f(outcome k)

    Args:
      function: the function; without, ``expectation`` is a decorator.
      over: for each random input ``bernoulli``, ``categorical``, ``minibatch``, ``permutation`` or
        ``sampled``; the probabilities of an input may depend on random inputs before.

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
