"""Coefficients of a formula in the terms of the objective, and the mistakes behind.

``fit`` solves for the coefficients; ``recognise`` reads sizes and scalars off the values; and
``findings`` names the mistakes: a factor n is a missing mean, a penalty times 0 a missing penalty.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import combinations, product
from typing import NamedTuple

import numpy as np

from jaxnn.verify.claims import Claim, learning_rate_name, parameters
from jaxnn.verify.diagnosis.trials import GROUPS, PER_GROUP, TOLERANCE, Leaves, Sample
from jaxnn.verify.verdict import Finding

_LARGEST_DENOMINATOR = 100
_PLAIN = ("1", "2", "1/2")
"""The numbers beside sizes and scalars that are preferred to other fractions."""

_PENALTY_ON_BIAS = "the penalty, as on the weights"
_NEW_PENALTY = "the parameter itself"


class Coefficient(NamedTuple):
    """A factor c * n^k * ..., with sizes and scalars by name."""

    value: float
    powers: tuple[tuple[str, float], ...] = ()

    def at(self, context: Mapping[str, float]) -> float:
        """The factor as a number."""
        return self.value * float(np.prod([context[name] ** k for name, k in self.powers]))

    def __str__(self) -> str:
        """Such as ``-2 n``, ``1/sqrt(n)`` or ``2/3``."""
        number = fraction(abs(self.value))
        above = [_power(name, k) for name, k in self.powers if k > 0]
        below = [_power(name, -k) for name, k in self.powers if k < 0]
        head = number or f"{abs(self.value):.6g}"
        if "/" in head and below:
            head, under = head.split("/")
            below.insert(0, under)
        head = " ".join(([] if head == "1" and above else [head]) + above)
        tail = "/" + (below[0] if len(below) == 1 else f"({' '.join(below)})") if below else ""
        return ("-" if self.value < 0 else "") + head + tail


def _power(name: str, k: float) -> str:
    if k in (0.5, 1.5):
        return f"sqrt({name})" if k == 0.5 else f"{name} sqrt({name})"
    return name if k == 1 else f"{name}^{k:g}"


def fraction(value: float) -> str:
    """A number as a fraction, "" if the number is no plain fraction."""
    near = Fraction(value).limit_denominator(_LARGEST_DENOMINATOR)
    return str(near) if abs(near - Fraction(value)) <= 1e-8 * abs(value) else ""


ZERO, ONE = Coefficient(0.0), Coefficient(1.0)

Coefficients = dict[str, Coefficient]
"""The coefficients of a leaf by the name of the term; a zero term has no coefficient."""


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
      is no combination of the columns, or has another shape, or if the combination is not unique.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norm, *norms = (float(np.linalg.norm(array)) for array in (target, *columns))
    shapes = {array.shape for array in (target, *columns)}
    if len(shapes) > 1 or not np.isfinite([norm, *norms]).all():
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
        results.append([solution[used.index(i)] if i in used else None for i in range(len(norms))])
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
    """The simplest coefficient with a value in each context, sizes and scalars by name.

    A number alone may be any number; a number beside sizes or scalars is a fraction.
    """
    observed = np.asarray(values)
    if np.all(np.abs(observed) < TOLERANCE):
        return ZERO
    table = {name: np.array([at[name] for at in contexts], float) for name in contexts[0]}
    numbers: dict[tuple[tuple[str, float], ...], float] = {}
    for powers in _monomials([*table]):
        with np.errstate(invalid="ignore"):
            monomial = np.prod([table[name] ** k for name, k in powers] or [np.ones(1)], axis=0)
        ratios = observed / monomial
        number = float(np.median(ratios))
        if np.all(np.abs(ratios - number) <= 4 * TOLERANCE * abs(number)):
            plain = fraction(abs(number))
            if plain in _PLAIN:
                return Coefficient(float(np.copysign(float(Fraction(plain)), number)), powers)
            numbers[powers] = (
                float(np.copysign(float(Fraction(plain)), number)) if plain else number
            )
    known = (Coefficient(number, powers) for powers, number in numbers.items())
    return next((c for c in known if fraction(abs(c.value)) or not c.powers), None)


def _monomials(names: Sequence[str]) -> Iterator[tuple[tuple[str, float], ...]]:
    """Products of powers, few factors before many, sizes before scalars."""
    yield ()
    yield from (((name, k),) for k in (1, -1) for name in names)
    for a, b in combinations(names, 2):
        yield from (((a, j), (b, k)) for j, k in product((-1, 1), repeat=2))
    yield from (((name, k),) for k in (0.5, -0.5, 2, -2, 3, -3) for name in names)


def coefficients(
    samples: Sequence[Sample], varied: Sequence[Sequence[Leaves]], leaf: int
) -> Coefficients | None:
    """The coefficients of a leaf of the formula in terms at every sample, None without any."""
    observed: dict[str, list[tuple[float, dict[str, float]]]] = {}
    for sample, terms in zip(samples, varied, strict=True):
        fitted = _fit_leaf(sample, terms, leaf)
        if fitted is None:
            return None
        for context, by_name in zip(sample.contexts, fitted, strict=True):
            for name, value in by_name.items():
                observed.setdefault(name, []).append((value, context))
    known: Coefficients = {}
    for name, pairs in observed.items():
        coefficient = recognise(*zip(*pairs, strict=True))
        if coefficient is None or not _is_plausible(samples[0].program.claim, name, coefficient):
            return None
        known[name] = coefficient
    return known


def _fit_leaf(sample: Sample, terms: Sequence[Leaves], leaf: int) -> list[dict[str, float]] | None:
    """The coefficients of every group by name, with added penalties or else without."""
    columns = _columns(sample, terms, leaf)
    for names in dict.fromkeys((tuple(columns), tuple(columns)[: len(terms)])):
        fitted = fit(sample.formula[leaf], [columns[name] for name in names], GROUPS)
        if fitted is not None:
            groups = (zip(names, values, strict=True) for values in fitted)
            return [{name: value for name, value in some if value is not None} for some in groups]
    return None


def predicted(
    terms_at: Callable[[Sample], list[Leaves]], known: Coefficients, leaf: int, sample: Sample
) -> np.ndarray | None:
    """A leaf predicted by a hypothesis with coefficients, if defined at the sample."""
    terms = terms_at(sample)
    if not terms:
        return None
    contexts = [context for context in sample.contexts for _ in range(PER_GROUP)]
    columns = _columns(sample, terms, leaf)
    return sum(
        (_scaled([c.at(context) for context in contexts], columns[n]) for n, c in known.items()),
        np.zeros(sample.formula[leaf].shape),
    )


def _columns(sample: Sample, terms: Sequence[Leaves], leaf: int) -> dict[str, np.ndarray]:
    """The arrays to combine to a leaf, by name: terms, then added penalties."""
    known = zip(sample.program.terms, terms, strict=True)
    return {term.name: part[leaf] for term, part in known} | _added_penalties(sample, leaf)


def _added_penalties(sample: Sample, leaf: int) -> dict[str, np.ndarray]:
    """Gradients by a leaf of penalties that the objective lacks, by name.

    For an objective with a penalty on the weights: a penalty of equal strength on a bias. For an
    objective without a penalty: the parameter, to be multiplied by a scalar.
    """
    parameters, kind = sample.parameters, sample.program.claim.kind
    if kind not in ("gradient", "update") or parameters[leaf].shape != sample.formula[leaf].shape:
        return {}
    terms = zip(sample.program.terms, sample.terms, strict=True)
    penalties = [gradients for term, gradients in terms if term.penalty]
    for gradients in penalties:
        if np.any(gradients[leaf]):
            return {}
        for weight, gradient in zip(parameters, gradients, strict=True):
            if np.any(gradient):
                trials = zip(weight, gradient, strict=True)
                strengths = [np.vdot(g, w) / np.vdot(w, w) for w, g in trials]
                return {_PENALTY_ON_BIAS: _scaled(strengths, parameters[leaf])}
    return {} if penalties else {_NEW_PENALTY: parameters[leaf]}


def _scaled(factors: Sequence[float], array: np.ndarray) -> np.ndarray:
    """An array [T, ...] times a factor [T] per trial."""
    return np.reshape(factors, (-1, *[1] * (array.ndim - 1))) * array


def _is_plausible(claim: Claim, term: str, coefficient: Coefficient) -> bool:
    """Whether a person would write an added penalty with the coefficient.

    The penalty on a bias has the strength of the penalty on the weights, perhaps over a size; the
    strength of a penalty in an objective without a penalty is a scalar unknown to the objective.
    """
    if coefficient.value == 0 or term not in (_PENALTY_ON_BIAS, _NEW_PENALTY):
        return True
    strengths = set(claim.inputs) - {*parameters(claim.of), learning_rate_name(claim)}
    of_strengths = [power for name, power in coefficient.powers if name in strengths]
    return coefficient.value > 0 and of_strengths == ([1] if term == _NEW_PENALTY else [])


def findings(sample: Sample, leaves: Mapping[str, Coefficients]) -> tuple[Finding, ...]:
    """The mistakes behind the coefficients of leaves, by name of the leaf.

    A mistake in several leaves is a single finding; a mistake in all leaves names no leaf.
    """
    penalty = {term.name: term.penalty for term in sample.program.terms}
    scalars = sample.program.scalars
    whole = tuple(leaves) == sample.program.names
    different: dict[tuple[str, Coefficient], list[str]] = {}
    for name, leaf in leaves.items():
        for term, coefficient in leaf.items():
            if coefficient != (ONE if term in penalty else ZERO):
                different.setdefault((term, coefficient), []).append(name)
    common = {c for leaf in leaves.values() for term, c in leaf.items() if term in penalty}
    if len(common) == 1 and all(term in penalty for term, _ in different):
        place = "" if whole else ", ".join(leaves)
        return tuple(scale_findings(common.pop(), place, "the formula", scalars))
    found: list[Finding] = []
    for (term, coefficient), names in different.items():
        where = ", ".join(names)
        everywhere = names == [name for name, leaf in leaves.items() if term in leaf]
        place = term if whole and everywhere else joined(where, term)
        multiplied = f"the penalty's gradient is multiplied by {coefficient}"
        if term == _NEW_PENALTY:
            detail = f"the formula adds a penalty, {coefficient} times the parameter"
            found.append(Finding("wrong_l2", where, detail))
        elif term == _PENALTY_ON_BIAS:
            found.append(Finding("l2_on_bias", where, "the penalty is applied to the bias, too"))
            found += [Finding("wrong_l2", where, multiplied)] if coefficient != ONE else []
        elif not penalty[term]:
            found += scale_findings(coefficient, place, "the term", scalars)
        elif coefficient == ZERO:
            found.append(Finding("missing_l2", place, "the penalty's gradient is missing"))
        else:
            found.append(Finding("wrong_l2", place, multiplied))
    return tuple(dict.fromkeys(found))


def scale_findings(
    coefficient: Coefficient, where: str, subject: str, scalars: Collection[str]
) -> Iterator[Finding]:
    """The mistakes that turn a coefficient of 1 into ``coefficient``."""
    if coefficient.value == 0:
        yield Finding("missing_term", where, f"the gradient of {subject} is missing")
        return
    if coefficient.value < 0:
        yield Finding("sign", where, f"{subject} has the wrong sign")
    number = abs(coefficient.value)
    if any(" " in name for name, _ in coefficient.powers):
        detail = f"{subject} is multiplied by {coefficient._replace(value=number)}"
        yield Finding("factor", where, detail)
        return
    for name, power in coefficient.powers:
        fixed = Fraction(number).limit_denominator(100) ** int(-np.sign(power))
        detail = f"{subject} is multiplied by {Coefficient(1.0, ((name, power),))}"
        if name in scalars or abs(power) != 1:
            yield Finding("factor", where, detail)
        elif fixed.denominator == 1 and fixed > 2 and len(coefficient.powers) == 1:
            detail = f"{subject} has the number {fixed} in place of the size {name}"
            yield Finding("fixed_size", where, detail)
            return
        elif power > 0:
            yield Finding("missing_mean", where, f"{detail}: a mean over {name} is missing")
        else:
            yield Finding("extra_mean", where, f"{detail}: a mean over {name} is taken twice")
    if number != 1:
        detail = f"{subject} is multiplied by {Coefficient(number)}"
        yield Finding("factor", where, detail)


def joined(*parts: str) -> str:
    """The non-empty parts, with colons between."""
    return ": ".join(part for part in parts if part)
