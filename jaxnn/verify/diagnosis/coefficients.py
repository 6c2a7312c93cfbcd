"""Coefficients of a formula in the terms of the objective, and the mistakes that they mean.

``fit`` solves for the coefficients; ``recognise`` reads sizes and scalars off the values; and
``findings`` names the mistakes: a factor n is a missing mean, a penalty times 0 a missing penalty.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import NamedTuple

import numpy as np

from jaxnn.verify.claims import Claim, learning_rate_name, parameters
from jaxnn.verify.diagnosis.trials import (
    GROUPS,
    PER_GROUP,
    TOLERANCE,
    Leaves,
    Sample,
    Term,
    program,
)
from jaxnn.verify.inputs import fixed_sizes
from jaxnn.verify.verdict import Finding

_NUMBERS = (1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
_PENALTY_ON_BIAS = "the penalty, as on the weights"
_NEW_PENALTY = "the parameter itself"


class Coefficient(NamedTuple):
    """A factor c * n^k * ..., with sizes and scalars by name."""

    value: float  # 0, +-1/2, +-1 or +-2
    powers: tuple[tuple[str, int], ...] = ()

    def at(self, context: Mapping[str, float]) -> float:
        """The factor as a number."""
        return self.value * float(np.prod([context[name] ** k for name, k in self.powers]))

    def __str__(self) -> str:
        """Such as ``-2 n`` or ``1/n``."""
        above = [n if k == 1 else f"{n}^{k}" for n, k in self.powers if k > 0]
        below = [n if k == -1 else f"{n}^{-k}" for n, k in self.powers if k < 0]
        size = {0.5: "1/2", 1.0: "1", 2.0: "2", 0.0: "0"}[abs(self.value)]
        head = " ".join(([] if size == "1" and above else [size]) + above)
        tail = "/" + (below[0] if len(below) == 1 else f"({' '.join(below)})") if below else ""
        return ("-" if self.value < 0 else "") + head + tail


ZERO, ONE = Coefficient(0.0), Coefficient(1.0)

Coefficients = dict[str, Coefficient]
"""The coefficients of one leaf by the name of the term; a term that is zero has no coefficient."""


def fit(
    target: np.ndarray, columns: Sequence[np.ndarray], groups: int
) -> list[list[float | None]] | None:
    """The coefficients of an array as a combination of columns, in every group of trials.

    Args:
      target: [T, ...].
      columns: arrays [T, ...].
      groups: the number of groups, of T / groups consecutive trials each.

    Returns:
      For each group a coefficient of every column, None for a column of zeros. None if the target
      is no combination of the columns, or if the combination is not unique.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norm, *norms = (float(np.linalg.norm(array)) for array in (target, *columns))
    if not np.isfinite([norm, *norms]).all():
        return None
    used = [i for i, size in enumerate(norms) if size > 1e-12 * max(norms)]
    if not used:
        none: list[float | None] = [None] * len(columns)
        return None if norm else [none] * groups
    results = []
    for group in np.split(np.arange(len(target)), groups):
        matrix = np.stack([columns[i][group].ravel() for i in used], axis=1)
        solution = _solve(matrix, target[group].ravel())
        if solution is None:
            return None
        coefficients = dict(zip(used, solution, strict=True))
        results.append([coefficients.get(i) for i in range(len(columns))])
    return results


def _solve(matrix: np.ndarray, target: np.ndarray) -> list[float] | None:
    """The unique x with matrix x = target, None if no x or several solve the equation."""
    scale = np.linalg.norm(matrix, axis=0)
    if np.any(scale == 0):
        return None
    scaled = matrix / scale
    solution, _, rank, _ = np.linalg.lstsq(scaled, target, rcond=1e-10)
    size = max(np.linalg.norm(target), 1e-3 * np.linalg.norm(solution))
    solved = np.linalg.norm(scaled @ solution - target) <= TOLERANCE * size
    return (solution / scale).tolist() if solved and rank == len(scale) else None


def recognise(
    values: Sequence[float], contexts: Sequence[Mapping[str, float]]
) -> Coefficient | None:
    """The coefficient with these values in these contexts, the one with the fewest factors.

    Args:
      values: of the coefficient.
      contexts: sizes and scalars by name, for each value; sizes come first.
    """
    observed = np.asarray(values)
    if np.all(np.abs(observed) < TOLERANCE):
        return ZERO
    table = {name: np.asarray([context[name] for context in contexts]) for name in contexts[0]}
    for powers in _monomials(list(table)):
        monomial = np.prod([table[name] ** k for name, k in powers] or [np.ones(1)], axis=0)
        for number in _NUMBERS:
            if np.all(np.abs(observed / monomial - number) < 4 * TOLERANCE):
                return Coefficient(number, powers)
    return None


def _monomials(names: Sequence[str]) -> Iterator[tuple[tuple[str, int], ...]]:
    yield ()
    yield from (((name, k),) for k in (1, -1) for name in names)
    for a, b in combinations(names, 2):
        yield from (((a, j), (b, k)) for j, k in product((-1, 1), repeat=2))
    yield from (((name, k),) for k in (2, -2) for name in names)


def coefficients(
    claim: Claim, samples: Sequence[Sample], varied: Sequence[Sequence[Leaves]], leaf: int
) -> Coefficients | None:
    """The coefficients with which a hypothesis is one leaf of the formula, None without any.

    Args:
      claim: the claim.
      samples: of the claim.
      varied: the terms of the hypothesis at every sample.
      leaf: the number of the leaf.
    """
    values: dict[str, list[float]] = {}
    contexts: dict[str, list[dict[str, float]]] = {}
    for sample, terms in zip(samples, varied, strict=True):
        fitted = _fit_leaf(claim, sample, terms, leaf)
        if fitted is None:
            return None
        for group, by_name in enumerate(fitted):
            for name, value in by_name.items():
                if value is not None:
                    values.setdefault(name, []).append(value)
                    contexts.setdefault(name, []).append(_context(claim, sample, group))
    known: Coefficients = {}
    strengths = set(claim.inputs) - {*parameters(claim.of), learning_rate_name(claim)}
    for name in values:
        coefficient = recognise(values[name], contexts[name])
        if coefficient is None or not _is_plausible(name, coefficient, strengths):
            return None
        known[name] = coefficient
    return known


def _fit_leaf(
    claim: Claim, sample: Sample, terms: Sequence[Leaves], leaf: int
) -> list[dict[str, float | None]] | None:
    """The coefficients of every group by name, with added penalties or else without."""
    columns = _columns(claim, sample, terms, leaf)
    target = sample.formula[leaf]
    if any(column.shape != target.shape for column in columns.values()):
        return None
    for names in dict.fromkeys((tuple(columns), tuple(columns)[: len(terms)])):
        fitted = fit(target, [columns[name] for name in names], GROUPS)
        if fitted is not None:
            return [dict(zip(names, values, strict=True)) for values in fitted]
    return None


def predicted(
    claim: Claim, sample: Sample, terms: Sequence[Leaves], leaf: int, known: Coefficients
) -> np.ndarray:
    """The leaf of the formula that coefficients predict."""
    columns = _columns(claim, sample, terms, leaf)
    total = np.zeros(sample.formula[leaf].shape)
    for name, coefficient in known.items():
        factors = [coefficient.at(_context(claim, sample, group)) for group in range(GROUPS)]
        total = total + _scaled(np.repeat(factors, PER_GROUP), columns[name])
    return total


def _columns(
    claim: Claim, sample: Sample, terms: Sequence[Leaves], leaf: int
) -> dict[str, np.ndarray]:
    """The arrays of which a leaf may be a combination, by name: terms, then added penalties."""
    known = program(claim, sample.choice).terms
    columns = {term.name: part[leaf] for term, part in zip(known, terms, strict=True)}
    return columns | _added_penalties(sample, leaf, known)


def _context(claim: Claim, sample: Sample, group: int) -> dict[str, float]:
    """The sizes and scalars of a group of trials."""
    fixed = {str(size): float(size) for size in sorted(fixed_sizes(claim.inputs))}
    sizes = {name: float(size) for name, size in sample.sizes.items()}
    return {**sizes, **fixed, **sample.scalars[group]}


def _added_penalties(sample: Sample, leaf: int, terms: Sequence[Term]) -> dict[str, np.ndarray]:
    """Gradients of penalties that a formula may add to the objective, by name, of one leaf.

    Where the objective has a penalty on other leaves: the same penalty on this leaf (a bias). Where
    the objective has no penalty: the parameter, with any scalar as its strength.
    """
    parameters = sample.parameters
    if parameters is None or parameters[leaf].shape != sample.formula[leaf].shape:
        return {}
    penalties = [part for term, part in zip(terms, sample.terms, strict=True) if term.penalty]
    for gradients in penalties:
        if np.any(gradients[leaf]):
            return {}
        for weight, gradient in zip(parameters, gradients, strict=True):
            if np.any(gradient):
                strength = _dot(gradient, weight) / _dot(weight, weight)
                return {_PENALTY_ON_BIAS: _scaled(strength, parameters[leaf])}
    return {} if penalties else {_NEW_PENALTY: parameters[leaf]}


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum((a * b).reshape(len(a), -1), axis=1)


def _scaled(factors: np.ndarray, array: np.ndarray) -> np.ndarray:
    """An array [T, ...] times a factor [T] per trial."""
    return factors.reshape(-1, *[1] * (array.ndim - 1)) * array


def _is_plausible(term: str, coefficient: Coefficient, scalars: Collection[str]) -> bool:
    """Whether an added penalty has a coefficient that a person would write.

    A penalty on a bias has the strength of the penalty on the weights, or a size's share of it; a
    penalty that the objective lacks has a scalar that enters nothing else. Any other coefficient
    means that the formula lacks a variable.

    Args:
      term: the name of the term or of the added penalty.
      coefficient: of the term.
      scalars: the scalar inputs that the objective does not use.
    """
    if coefficient.value == 0 or term not in (_PENALTY_ON_BIAS, _NEW_PENALTY):
        return True
    of_scalars = [power for name, power in coefficient.powers if name in scalars]
    return coefficient.value > 0 and of_scalars == ([1] if term == _NEW_PENALTY else [])


def findings(
    terms: Sequence[Term],
    names: Sequence[str],
    leaves: Sequence[Coefficients],
    whole: bool,
    scalars: frozenset[str],
) -> tuple[Finding, ...]:
    """The mistakes that coefficients mean; a mistake in several leaves is one finding.

    Args:
      terms: of the objective.
      names: of the leaves.
      leaves: the coefficients of each leaf.
      whole: whether the leaves are all leaves of the formula; findings then omit their names.
      scalars: the names of scalar inputs; the other names in coefficients are sizes.
    """
    penalty = {term.name: term.penalty for term in terms}
    different: dict[tuple[str, Coefficient], list[str]] = {}
    for name, coefficients in zip(names, leaves, strict=True):
        for term, coefficient in coefficients.items():
            if coefficient != (ONE if term in penalty else ZERO):
                different.setdefault((term, coefficient), []).append(name)
    common = _common_factor(penalty, leaves, list(different))
    if common is not None:
        place = "" if whole else ", ".join(names)
        return tuple(_mistakes(common, place, "the formula", scalars))
    found: list[Finding] = []
    for (term, coefficient), where in different.items():
        place = ", ".join(where)
        if term == _PENALTY_ON_BIAS:
            found.append(Finding("l2_on_bias", place, "the penalty is applied to the bias, too"))
            found += [] if coefficient == ONE else [_penalty_mistake(coefficient, place)]
        elif term == _NEW_PENALTY:
            detail = f"the formula adds a penalty, {coefficient} times the parameter"
            found.append(Finding("wrong_l2", place, detail))
        else:
            everywhere = where == [n for n, c in zip(names, leaves, strict=True) if term in c]
            place = term if whole and everywhere else joined(place, term)
            if penalty[term]:
                found.append(_penalty_mistake(coefficient, place))
            else:
                found += _mistakes(coefficient, place, "the term", scalars)
    return tuple(dict.fromkeys(found))


def _common_factor(
    terms: Mapping[str, bool],
    leaves: Sequence[Coefficients],
    different: Sequence[tuple[str, Coefficient]],
) -> Coefficient | None:
    """The coefficient that all terms of all leaves share, None where they differ."""
    values = {coefficient for _, coefficient in different}
    if len(values) != 1 or any(term not in terms for term, _ in different):
        return None
    (common,) = values
    shared = all(leaf.get(term, common) == common for leaf in leaves for term in terms)
    return common if shared else None


def _penalty_mistake(coefficient: Coefficient, where: str) -> Finding:
    if coefficient.value == 0:
        return Finding("missing_l2", where, "the penalty's gradient is missing")
    return Finding("wrong_l2", where, f"the penalty's gradient is multiplied by {coefficient}")


def _mistakes(
    coefficient: Coefficient, where: str, subject: str, scalars: frozenset[str]
) -> Iterator[Finding]:
    """The mistakes that turn a coefficient of 1 into ``coefficient``."""
    if coefficient.value == 0:
        yield Finding("unknown", where, f"{subject}'s gradient is missing")
        return
    if coefficient.value < 0:
        yield Finding("sign", where, f"{subject} has the wrong sign")
    if abs(coefficient.value) != 1:
        factor = Coefficient(abs(coefficient.value))
        yield Finding("factor", where, f"{subject} is multiplied by {factor}")
    for name, power in coefficient.powers:
        detail = f"{subject} is multiplied by {Coefficient(1.0, ((name, power),))}"
        if name in scalars:
            yield Finding("factor", where, detail)
        elif power > 0:
            yield Finding("missing_mean", where, f"{detail}: a mean over {name} is missing")
        else:
            yield Finding(
                "extra_mean", where, f"{detail}: a mean over {name} is taken once too often"
            )


def joined(*parts: str) -> str:
    """The parts that are not empty, with colons between them."""
    return ": ".join(part for part in parts if part)
