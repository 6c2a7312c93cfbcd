"""Factors that are inputs, intermediate values, sizes or numbers: fitted, not looked up.

Where formula = rest + factor * part, the quotient (formula - rest) / part is the factor in every
entry. The quotient's logarithm is linear in the logarithms of the values behind a monomial.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache, partial
from itertools import combinations
from typing import NamedTuple

import jax
import numpy as np

from jaxnn.verify.claims import call
from jaxnn.verify.diagnosis.coefficients import ONE, Coefficient, recognise, scale_findings
from jaxnn.verify.diagnosis.evaluated_graph import EvaluatedGraph, every_value
from jaxnn.verify.diagnosis.trials import PER_GROUP, Program, Sample, same
from jaxnn.verify.graph import build_graph, jit
from jaxnn.verify.verdict import Finding

SCREENED = 8
"""Trials that rule out most candidates."""

Powers = tuple[tuple[str, float], ...]
"""A product of powers of values or sizes by name."""


class Factor(NamedTuple):
    """A factor c * u^k * ...: numbers, sizes and scalars in c; values of the function by name."""

    number: Coefficient
    powers: Powers = ()

    def applied(self, sample: Sample, split: "Split") -> np.ndarray:
        """Rest + factor * part at every trial."""
        numbers = np.repeat([self.number.at(context) for context in sample.contexts], PER_GROUP)
        product = split.part * numbers.reshape(-1, *[1] * (split.part.ndim - 1))
        for name, k in self.powers:
            value = broadcast(function_values(sample)[name], split.part.shape)
            product = product * (np.nan if value is None else _raised(value, k))
        return split.rest + product

    def __str__(self) -> str:
        """Such as ``1/gamma`` or ``2 n gamma``."""
        return str(Coefficient(self.number.value, self.number.powers + self.powers))


@lru_cache(maxsize=8)
def input_values(sample: Sample) -> dict[str, np.ndarray]:
    """The float inputs by path."""
    paths, _ = jax.tree.flatten_with_path(sample.program.shapes)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    values = dict(zip(names, sample.flat, strict=True))
    return {name: value for name, value in values.items() if value.dtype.kind == "f"}


@lru_cache(maxsize=8)
def function_values(sample: Sample) -> dict[str, np.ndarray]:
    """The float inputs, and the values of the function ``of``, by description."""
    run, described = _every_value(sample.program)
    found = {described[n]: np.asarray(v) for n, v in run(*sample.flat).items() if n in described}
    return input_values(sample) | {n: v for n, v in found.items() if v.dtype.kind == "f"}


@lru_cache(maxsize=8)
def _every_value(ready: Program) -> tuple[Callable[..., dict], dict[int, str]]:
    """The values of ``of`` at trials, and the descriptions of the distinct values."""
    graph = build_graph(partial(call, ready.claim.of), ready.shapes)
    evaluated = EvaluatedGraph(ready, graph)
    seen: list[np.ndarray] = []
    described = {}
    for name, value in evaluated.values.items():
        if name not in graph.inputs and not any(np.array_equal(value, other) for other in seen):
            seen.append(value)
            described[name] = evaluated.described(name)
    return jit(jax.vmap(partial(every_value, graph)), [graph]), described


class Split(NamedTuple):
    """A leaf [T, ...] of a wrong derivative: what a factor multiplies, and the rest."""

    part: np.ndarray
    rest: np.ndarray | float = 0.0


def fitted_factor(samples: Sequence[Sample], leaf: int, splits: Sequence[Split]) -> Factor | None:
    """The simplest factor with formula = rest + factor * part at every sample, None without any.

    Args:
      samples: trials at several sizes.
      leaf: of the formula.
      splits: of the leaf at every sample.
    """
    pairs = list(zip(samples, splits, strict=True))
    if any(sample.formula[leaf].shape != split.part.shape for sample, split in pairs):
        return None
    scalars = samples[0].program.scalars
    contexts = [{n: v for n, v in s.contexts[0].items() if n not in scalars} for s in samples]
    for powers in _candidates(*pairs[0], leaf):
        numbers = [_number(*pair, leaf, powers) for pair in pairs]
        number = recognise(numbers, contexts) if np.isfinite(numbers).all() else None
        if number is not None:
            factor = Factor(number, powers)
            if all(same(factor.applied(*pair), pair[0].formula[leaf]) for pair in pairs):
                return factor
    return None


def _number(sample: Sample, split: Split, leaf: int, powers: Powers) -> float:
    """The number beside powers of values that fits best at a sample."""
    product = Factor(ONE, powers).applied(sample, split._replace(rest=0.0))
    target = sample.formula[leaf] - split.rest
    with np.errstate(all="ignore"):
        return float(np.vdot(product, target) / np.vdot(product, product))


def _candidates(sample: Sample, split: Split, leaf: int) -> Iterator[Powers]:
    """Powers of values in proportion to (formula - rest) / part, the simplest first."""
    trials = slice(0, None, len(split.part) // SCREENED)
    part = split.part[trials]
    difference = (sample.formula[leaf] - split.rest)[trials]
    with np.errstate(all="ignore"):
        used = np.abs(part) > 1e-3 * np.abs(part).max(initial=0)
        quotient = np.log(np.abs(difference[used] / part[used]))
        if not np.any(used) or np.isnan(quotient).any():
            return
        if _constant(quotient):
            yield ()
            return
        arrays = {n: broadcast(v[trials], part.shape) for n, v in function_values(sample).items()}
        logs = {n: np.log(np.abs(array[used])) for n, array in arrays.items() if array is not None}
        for k in _EXPONENTS:
            yield from (((name, k),) for name, log in logs.items() if _constant(quotient - k * log))
        inputs = [name for name in input_values(sample) if name in logs]
        inputs = [n for n in inputs if np.isfinite(logs[n]).all() and np.ptp(logs[n]) > 1e-9]
        columns = np.stack([np.ones_like(quotient), *(logs[name] for name in inputs)], axis=1)
        if np.isfinite(quotient).all() and len(columns) > columns.shape[1] > 2:
            exponents, _, rank, _ = np.linalg.lstsq(columns, quotient, rcond=1e-8)
            halves = np.round(2 * exponents[1:]) / 2
            fits = _constant(quotient - columns[:, 1:] @ halves)
            if rank == columns.shape[1] and fits and np.abs(halves).max() <= 3:
                yield tuple((n, float(k)) for n, k in zip(inputs, halves, strict=True) if k)


_EXPONENTS = (-1, 1, -2, 2, -0.5, 0.5, -3, 3, -1.5, 1.5)


def _constant(logarithm: np.ndarray) -> bool:
    """Whether a quotient is constant; entries 0/0, as of a mask, are left out."""
    known = logarithm[~np.isnan(logarithm)]
    return bool(len(known) and np.isfinite(known).all() and np.ptp(known) < 1e-6)


def broadcast(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """A value [T, ...] along the axes of equal length of an array [T, ...], if unique in order."""
    sizes = [size for size in value.shape[1:] if size != 1]
    found = [
        axes
        for axes in combinations(range(1, len(shape)), len(sizes))
        if [shape[axis] for axis in axes] == sizes
    ]
    if len(found) == 0:
        return None
    full = [size if axis in (0, *found[-1]) else 1 for axis, size in enumerate(shape)]
    return np.broadcast_to(value.reshape(full), shape)


def _raised(value: np.ndarray, k: float) -> np.ndarray:
    """A value to a power; of a negative value to a fractional power the power of the size."""
    with np.errstate(all="ignore"):
        return value**k if float(k).is_integer() else np.abs(value) ** k


def factor_findings(
    factor: Factor, where: str, subject: str, scalars: Collection[str]
) -> tuple[Finding, ...]:
    """The mistakes behind a factor of a subject."""
    if not factor.powers:
        return tuple(scale_findings(factor.number, where, subject, scalars))
    sign, number = factor.number.value < 0, abs(factor.number.value)
    size = factor._replace(number=factor.number._replace(value=number))
    names = ", ".join(name for name, _ in factor.powers)
    found = Finding("factor", where, f"{subject} is multiplied by {size}: off by {names}")
    if len(factor.powers) == 2 and sum(k for _, k in factor.powers) == 0 and size.number == ONE:
        above, below = (name for name, _ in sorted(factor.powers, key=lambda power: -power[1]))
        found = Finding("wrong_value", where, f"{subject} has {above} in place of {below}")
    return (Finding("sign", where, f"{subject} has the wrong sign"), found) if sign else (found,)
