"""Factors of a formula in the terms of the objective, and the mistakes behind.

``fit`` solves for numbers, ``recognise`` reads sizes and scalars off the numbers, and
``scale_findings`` names the mistakes: a factor n is a missing mean, a penalty times 0 a missing
penalty. A factor that varies between entries is fitted too: where formula = rest + factor * part,
the logarithm of (formula - rest) / part is linear in the logarithms of the values behind a
monomial.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import combinations, product
from typing import NamedTuple

import numpy as np

from jaxnn.verify.claims import Claim, learning_rate_name, parameters
from jaxnn.verify.diagnosis.evaluated_graph import function_of
from jaxnn.verify.diagnosis.trials import GROUPS, PER_GROUP, TOLERANCE, Leaves, Sample, same
from jaxnn.verify.verdict import Finding

_LARGEST_DENOMINATOR = 100
_PLAIN = ("1", "2", "1/2")
"""The numbers beside sizes and scalars that are preferred to other fractions."""

_PENALTY_ON_BIAS = "the penalty, as on the weights"
_NEW_PENALTY = "the parameter itself"

_SCREENED = 8
"""Trials that rule out most candidates."""

Powers = tuple[tuple[str, float], ...]
"""A product of powers by name."""

Columns = dict[str, np.ndarray]
"""Arrays [T, ...] to combine to a leaf, by name."""


class Factor(NamedTuple):
    """A factor c * n^k * u^k * ..., with sizes, scalars and values of the function by name."""

    value: float
    powers: Powers = ()  # of sizes and scalars
    entries: Powers = ()  # of inputs and intermediate values

    def at(self, context: Mapping[str, float]) -> float:
        """The number beside the entries."""
        return self.value * float(np.prod([context[name] ** k for name, k in self.powers]))

    def applied(self, sample: Sample, part: np.ndarray) -> np.ndarray:
        """The factor times an array [T, ...]; NaN where a value has no place in the array."""
        numbers = np.repeat([self.at(context) for context in sample.contexts], PER_GROUP)
        result = _scaled(numbers, part)
        values = function_values(sample)
        for name, k in self.entries:
            value = broadcast(values[name], part.shape) if name in values else None
            result = result * (np.nan if value is None else _raised(value, k))
        return result

    def __str__(self) -> str:
        """Such as ``-2 n``, ``1/sqrt(n)``, ``2/3`` or ``2 n gamma``."""
        powers = self.powers + self.entries
        above = [_power(name, k) for name, k in powers if k > 0]
        below = [_power(name, -k) for name, k in powers if k < 0]
        head = fraction(abs(self.value)) or f"{abs(self.value):.6g}"
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


ZERO, ONE = Factor(0.0), Factor(1.0)

Factors = dict[str, Factor]
"""The factors of a leaf by the name of the term; a zero term has no factor."""


def predicted(
    columns_at: Callable[[Sample], Columns], known: Factors, sample: Sample
) -> np.ndarray | None:
    """The sum of the columns times factors, if there are columns at the sample."""
    columns = columns_at(sample)
    products = (factor.applied(sample, columns[name]) for name, factor in known.items())
    return sum(products, np.zeros_like(next(iter(columns.values())))) if columns else None


def fits(value: np.ndarray | None, formula: np.ndarray) -> bool:
    """Whether a prediction, if there is one, is a leaf of the formula."""
    return value is None or same(value, formula)


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


def recognise(values: Sequence[float], contexts: Sequence[Mapping[str, float]]) -> Factor | None:
    """The simplest factor with a value in each context, sizes and scalars by name.

    A number alone may be any number; a number beside sizes or scalars is a fraction.
    """
    observed = np.asarray(values)
    if np.all(np.abs(observed) < TOLERANCE):
        return ZERO
    table = {name: np.array([at[name] for at in contexts], float) for name in contexts[0]}
    simplest = None
    for powers in _monomials([*table]):
        with np.errstate(invalid="ignore"):
            monomial = np.prod([table[name] ** k for name, k in powers] or [np.ones(1)], axis=0)
        ratios = observed / monomial
        number = float(np.median(ratios))
        if np.all(np.abs(ratios - number) <= 4 * TOLERANCE * abs(number)):
            if plain := fraction(abs(number)):
                number = float(np.copysign(float(Fraction(plain)), number))
            if plain in _PLAIN:
                return Factor(number, powers)
            if simplest is None and (plain or not powers):
                simplest = Factor(number, powers)
    return simplest


def _monomials(names: Sequence[str]) -> Iterator[Powers]:
    """Products of powers, few factors before many, sizes before scalars."""
    yield ()
    yield from (((name, k),) for k in (1, -1) for name in names)
    for a, b in combinations(names, 2):
        yield from (((a, j), (b, k)) for j, k in product((-1, 1), repeat=2))
    yield from (((name, k),) for k in (0.5, -0.5, 2, -2, 3, -3) for name in names)


def fitted_factors(
    samples: Sequence[Sample], leaf: int, columns_at: Callable[[Sample], Columns]
) -> Factors | None:
    """The factors of a leaf of the formula in the columns at every sample, None without any."""
    observed: dict[str, list[tuple[float, dict[str, float]]]] = {}
    for sample in samples:
        fitted = _fit_leaf(sample, leaf, columns_at(sample))
        if fitted is None:
            return None
        for context, by_name in zip(sample.contexts, fitted, strict=True):
            for name, value in by_name.items():
                observed.setdefault(name, []).append((value, context))
    known: Factors = {}
    for name, pairs in observed.items():
        factor = recognise(*zip(*pairs, strict=True))
        if factor is None or not _is_plausible(samples[0].program.claim, name, factor):
            return None
        known[name] = factor
    return known


def _fit_leaf(sample: Sample, leaf: int, columns: Columns) -> list[dict[str, float]] | None:
    """The coefficients of every group by name, with added penalties or else without."""
    terms = len(sample.program.terms)
    for names in dict.fromkeys((tuple(columns), tuple(columns)[:terms])) if columns else ():
        fitted = fit(sample.formula[leaf], [columns[name] for name in names], GROUPS)
        if fitted is not None:
            groups = (zip(names, values, strict=True) for values in fitted)
            return [{name: value for name, value in some if value is not None} for some in groups]
    return None


def columns_of(
    terms_at: Callable[[Sample], Sequence[Leaves]], leaf: int, sample: Sample
) -> Columns:
    """The terms of a leaf, then added penalties; nothing where there are no terms."""
    known = {t.name: part[leaf] for t, part in zip(sample.program.terms, terms_at(sample))}  # noqa: B905
    return known | (_added_penalties(sample, leaf) if known else {})


def _added_penalties(sample: Sample, leaf: int) -> Columns:
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


def _scaled(factors: Sequence[float] | np.ndarray, array: np.ndarray) -> np.ndarray:
    """An array [T, ...] times a factor [T] per trial."""
    return np.reshape(factors, (-1, *[1] * (array.ndim - 1))) * array


def _is_plausible(claim: Claim, term: str, factor: Factor) -> bool:
    """Whether a person would write an added penalty with the factor.

    The penalty on a bias has the strength of the penalty on the weights, perhaps over a size; the
    strength of a penalty in an objective without a penalty is a scalar unknown to the objective.
    """
    if factor.value == 0 or term not in (_PENALTY_ON_BIAS, _NEW_PENALTY):
        return True
    strengths = set(claim.inputs) - {*parameters(claim.of), learning_rate_name(claim)}
    of_strengths = [power for name, power in factor.powers if name in strengths]
    return factor.value > 0 and of_strengths == ([1] if term == _NEW_PENALTY else [])


@lru_cache(maxsize=8)
def input_values(sample: Sample) -> Columns:
    """The float inputs by path."""
    values = dict(zip(sample.program.inputs, sample.flat, strict=True))
    return {name: value for name, value in values.items() if value.dtype.kind == "f"}


@lru_cache(maxsize=8)
def function_values(sample: Sample) -> Columns:
    """The float inputs, and the values of the function ``of``, by description.

    The program of a function such as a determinant has other values at other sizes; the function's
    own value comes last.
    """
    function = function_of(sample.program)
    values, inputs = function.at_trials(sample.flat), function.graph.inputs
    found = {
        function.described(name): values[name] for name in function.distinct if name not in inputs
    }
    output, *more = function.graph.outputs
    if not more and values.get(output, np.zeros(1, int)).dtype.kind == "f":
        found["the function's value"] = values[output]
    return input_values(sample) | found


def varying_factor(
    samples: Sequence[Sample], leaf: int, columns_at: Callable[[Sample], Columns]
) -> Factors | None:
    """The simplest factor with formula = rest + factor * part at every sample, None without any.

    Args:
      samples: trials at several sizes.
      leaf: of the formula.
      columns_at: the arrays ``part`` and ``rest`` of the leaf at a sample.
    """
    columns = [columns_at(sample) for sample in samples]
    parts = [some["part"] for some in columns]
    if any(s.formula[leaf].shape != part.shape for s, part in zip(samples, parts, strict=True)):
        return None
    wanted = [s.formula[leaf] - c["rest"] for s, c in zip(samples, columns, strict=True)]
    scalars = samples[0].program.scalars
    contexts = [{n: v for n, v in s.contexts[0].items() if n not in scalars} for s in samples]
    for entries in _candidates(samples[0], wanted[0], parts[0]):
        factor = Factor(1.0, (), entries)
        products = (factor.applied(*pair) for pair in zip(samples, parts, strict=True))
        fitted = [fit(w, [product], 1) for w, product in zip(wanted, products, strict=True)]
        numbers = [number for some in fitted for (number,) in some or () if number is not None]
        found = recognise(numbers, contexts) if len(numbers) == len(samples) else None
        if found is not None:
            known = {"part": found._replace(entries=entries), "rest": ONE}
            if all(fits(predicted(columns_at, known, s), s.formula[leaf]) for s in samples):
                return known
    return None


def _candidates(sample: Sample, wanted: np.ndarray, part: np.ndarray) -> Iterator[Powers]:
    """Powers of values in proportion to wanted / part, the simplest first."""
    trials = slice(0, None, len(part) // _SCREENED)
    part, wanted = part[trials], wanted[trials]
    with np.errstate(all="ignore"):
        used = np.abs(part) > 1e-3 * np.abs(part).max(initial=0)
        quotient = np.log(np.abs(wanted[used] / part[used]))
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


def findings(sample: Sample, leaves: Mapping[str, Factors]) -> tuple[Finding, ...]:
    """The mistakes behind the factors of leaves, by name of the leaf.

    A mistake in several leaves is a single finding; a mistake in all leaves names no leaf.
    """
    penalty = {term.name: term.penalty for term in sample.program.terms}
    scalars = sample.program.scalars
    whole = tuple(leaves) == sample.program.names
    different: dict[tuple[str, Factor], list[str]] = {}
    for name, leaf in leaves.items():
        for term, factor in leaf.items():
            if factor != (ONE if term in penalty else ZERO):
                different.setdefault((term, factor), []).append(name)
    common = {f for leaf in leaves.values() for term, f in leaf.items() if term in penalty}
    if len(common) == 1 and all(term in penalty for term, _ in different):
        place = "" if whole else ", ".join(leaves)
        return tuple(scale_findings(common.pop(), place, "the formula", scalars))
    found: list[Finding] = []
    for (term, factor), names in different.items():
        where = ", ".join(names)
        everywhere = names == [name for name, leaf in leaves.items() if term in leaf]
        place = term if whole and everywhere else joined(where, term)
        multiplied = f"the penalty's gradient is multiplied by {factor}"
        if term == _NEW_PENALTY:
            detail = f"the formula adds a penalty, {factor} times the parameter"
            found.append(Finding("wrong_l2", where, detail))
        elif term == _PENALTY_ON_BIAS:
            found.append(Finding("l2_on_bias", where, "the penalty is applied to the bias, too"))
            found += [Finding("wrong_l2", where, multiplied)] if factor != ONE else []
        elif not penalty[term]:
            found += scale_findings(factor, place, "the term", scalars)
        elif factor == ZERO:
            found.append(Finding("missing_l2", place, "the penalty's gradient is missing"))
        else:
            found.append(Finding("wrong_l2", place, multiplied))
    return tuple(dict.fromkeys(found))


def scale_findings(
    factor: Factor, where: str, subject: str, scalars: Collection[str]
) -> Iterator[Finding]:
    """The mistakes that turn a factor of 1 into ``factor``."""
    if factor.value == 0:
        yield Finding("missing_term", where, f"the gradient of {subject} is missing")
        return
    if factor.value < 0:
        yield Finding("sign", where, f"{subject} has the wrong sign")
    factor = factor._replace(value=abs(factor.value))
    detail = f"{subject} is multiplied by {factor}"
    exponents = [k for _, k in factor.entries]
    if (len(exponents), sum(exponents), factor[:2]) == (2, 0, ONE[:2]):
        above, below = (name for name, _ in sorted(factor.entries, key=lambda power: -power[1]))
        yield Finding("wrong_value", where, f"{subject} has {above} in place of {below}")
    elif factor.entries:
        names = ", ".join(name for name, _ in factor.entries)
        yield Finding("factor", where, f"{detail}: off by {names}")
    elif any(" " in name for name, _ in factor.powers):
        yield Finding("factor", where, detail)
    else:
        yield from _power_findings(factor, where, subject, scalars)


def _power_findings(
    factor: Factor, where: str, subject: str, scalars: Collection[str]
) -> Iterator[Finding]:
    """The mistakes behind powers of sizes and scalars, and behind the number beside."""
    for name, power in factor.powers:
        fixed = Fraction(factor.value).limit_denominator(100) ** int(-np.sign(power))
        detail = f"{subject} is multiplied by {Factor(1.0, ((name, power),))}"
        if name in scalars or abs(power) != 1:
            yield Finding("factor", where, detail)
        elif fixed.denominator == 1 and fixed > 2 and len(factor.powers) == 1:
            detail = f"{subject} has the number {fixed} in place of the size {name}"
            yield Finding("fixed_size", where, detail)
            return
        elif power > 0:
            yield Finding("missing_mean", where, f"{detail}: a mean over {name} is missing")
        else:
            yield Finding("extra_mean", where, f"{detail}: a mean over {name} is taken twice")
    if factor.value != 1:
        detail = f"{subject} is multiplied by {Factor(factor.value)}"
        yield Finding("factor", where, detail)


def joined(*parts: str) -> str:
    """The non-empty parts, with colons between."""
    return ": ".join(part for part in parts if part)
