"""Which mistake a refuted formula most likely is.

Every hypothesis predicts the whole formula, and is believed only if the prediction is met to 1e-9
in all trials, at sizes it was not made from: a wrong diagnosis is worse than none. The truth is
varied in three ways, (1) the terms of the objective with coefficients, leaf by leaf, (2) the
backward pass with a mistake in it, (3) the answer transposed or cut down to its diagonal; each of
(2) and (3) also with coefficients. At most two mistakes at once, and one rather than two.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from jaxnn.verify import layouts, sampling
from jaxnn.verify.ablation import CROSS_ENTROPY_GRADIENT
from jaxnn.verify.claims import Claim
from jaxnn.verify.comparison import FormulaError, FunctionError, arranged
from jaxnn.verify.fitting import ONE, TOLERANCE, Coefficient, fit, recognise
from jaxnn.verify.inputs import fixed_sizes
from jaxnn.verify.layouts import declared
from jaxnn.verify.sampling import GROUPS, Leaves, Sample
from jaxnn.verify.substitution import exchanges
from jaxnn.verify.terms import Term
from jaxnn.verify.verdict import Finding

MOST = 2
"""Mistakes at once."""

Arrange = Callable[[np.ndarray], np.ndarray]

Explanation = frozenset[Finding]
"""The mistakes that together predict the formula; none if it is right."""


class Variation(NamedTuple):
    """The truth with something wrong in it, to be combined with coefficients."""

    findings: tuple[Finding, ...]
    terms: Sequence[Leaves]  # in the claim's layout


def diagnose(claimed: Claim, seed: int = 0) -> tuple[Finding, ...]:
    """Names the mistakes in a refuted formula.

    Args:
      claimed: the claim.
      seed: of the trials.

    Returns:
      The mistakes made at once, or ``unknown``.
    """
    samples = list(_samples(claimed, seed))
    if not samples:
        return _simplest([])
    problem = _shape_problem(claimed, samples[0])
    if problem is not None:
        return (problem,)
    true = next(_transforms(claimed, samples))
    if all(_right(samples, true)):
        detail = "it is right at ordinary inputs, and wrong at special ones as the one given"
        return (Finding("unknown", "", detail),)
    found = _explanations(claimed, samples, _transforms(claimed, samples))
    for pairs in (False, True):
        named = [e for e in found if not _rank(e)[0]]
        if not named or (not pairs and min(map(len, named)) > 1):
            varied = _mistaken(claimed, samples[:2], pairs)
            found += _explanations(claimed, samples[:2], varied)
    if not found or _rank(min(found, key=_rank))[0]:
        found += [frozenset({finding}) for finding in exchanges(claimed, samples[:2])]
    return _simplest(found)


def _samples(claimed: Claim, seed: int) -> Iterator[Sample]:
    """Trials at several choices of sizes, those at which everything is finite."""
    for choice in range(3):
        try:
            sample = sampling.sample(claimed, choice, seed)
        except (FormulaError, FunctionError):
            continue
        arrays = [*sample.claimed, *(leaf for term in sample.terms for leaf in term)]
        if all(np.isfinite(array).all() for array in arrays):
            yield sample


def _shape_problem(claimed: Claim, sample: Sample) -> Finding | None:
    """What is wrong if no layout of the derivative has the formula's shape."""
    names, ranks = sampling.program(claimed, 0)[-2:]
    true = sample.terms[0]
    if len(sample.claimed) != len(true):
        what = f"the formula returns {len(sample.claimed)} arrays, expected {len(true)}"
        return Finding("shape", ", ".join(names), what)
    for name, rank, c, t in zip(names, ranks, sample.claimed, true, strict=True):
        if not any(
            layouts.same_shape(c.shape[1:], a.shape[1:]) for _, a in _layouts(claimed, t, rank)
        ):
            detail = f"it has shape {_shape(c)}, the derivative {_shape(t)}"
            for axis in range(1, c.ndim):
                summed = c.sum(axis=axis)
                if summed.shape == t.shape:
                    total = sum(term[names.index(name)] for term in sample.terms)
                    if np.allclose(summed, total, rtol=1e-9, atol=0):
                        detail += f": the sum over its axis {axis - 1} is missing"
            return Finding("shape", name, f"{detail} (sizes {_listed(sample.sizes)})")
    return None


def _layouts(
    claimed: Claim, true: np.ndarray, rank: int
) -> Iterator[tuple[layouts.Layout, np.ndarray]]:
    """Every layout of a leaf, the declared one first, with the leaf in it."""
    stated = layouts.Layout("", "", declared(claimed.layout, rank))
    for layout in (stated, *layouts.others(true.shape[1:], rank)):
        yield layout, arranged(layout.arrange, true)


def _transforms(claimed: Claim, samples: Sequence[Sample]) -> Iterator[list[Variation]]:
    """The truth itself, in every layout, and its diagonal."""
    rank = max(sampling.program(claimed, 0).value_ranks, default=0)
    ways: list[tuple[tuple[Finding, ...], Callable[[np.ndarray, int], np.ndarray | None]]] = []
    shapes = [leaf.shape[1:] for leaf in samples[0].terms[0]]
    widest = max(shapes, key=len, default=())
    for number, (layout, _) in enumerate(_layouts(claimed, np.zeros((1, *widest)), rank)):
        found = (Finding(layout.code, "", f"it is {layout.name}"),) if layout.code else ()

        def arrange(leaf: np.ndarray, rank: int, number: int = number) -> np.ndarray | None:
            every = [a for _, a in _layouts(claimed, leaf, rank)]
            return every[number] if number < len(every) else None

        ways.append((found, arrange))
    off = Finding("diagonal_only", "", "the entries off the diagonal are dropped")
    ways.append(((off,), lambda leaf, rank: _diagonal(leaf)))
    ranks = sampling.program(claimed, 0).value_ranks
    for found, arrange in ways:
        variation = []
        for sample in samples:
            terms = [
                [
                    _as_claimed(arrange(leaf, rank), leaf, c)
                    for leaf, rank, c in zip(term, ranks, sample.claimed, strict=True)
                ]
                for term in sample.terms
            ]
            variation.append(Variation(found, terms))
        yield variation


def _as_claimed(array: np.ndarray | None, leaf: np.ndarray, claimed: np.ndarray) -> np.ndarray:
    """A leaf in another layout, with the claim's axes of length 1; as it is where it has none."""
    array = leaf if array is None else array
    if layouts.same_shape(array.shape[1:], claimed.shape[1:]):
        return array.reshape(claimed.shape)
    return array


def _diagonal(leaf: np.ndarray) -> np.ndarray | None:
    if leaf.ndim != 3 or leaf.shape[1] != leaf.shape[2]:
        return None
    return leaf * np.eye(leaf.shape[1])


def _mistaken(claimed: Claim, samples: Sequence[Sample], pairs: bool) -> Iterator[list[Variation]]:
    """The truth as it is, then with the mistakes in the backward pass that may explain a leaf."""
    ranks = sampling.program(claimed, 0).value_ranks

    def stated(sample: Sample, leaves: Leaves) -> Leaves:
        return [
            _as_claimed(arranged(declared(claimed.layout, rank), leaf), leaf, c)
            for leaf, rank, c in zip(leaves, ranks, sample.claimed, strict=True)
        ]

    true = [[stated(sample, term) for term in sample.terms] for sample in samples]
    yield [Variation((), terms) for terms in true]
    tables = [_table(claimed, 0, samples[0], pairs)]
    for key, (number, leaves) in tables[0].items():
        varied = [*true[0]]
        varied[number] = stated(samples[0], leaves)
        changed = [not _same(a, b) for a, b in zip(varied[number], true[0][number], strict=True)]
        if not any(
            change and _leaf_fits(samples[0].claimed[leaf], varied, leaf)
            for leaf, change in enumerate(changed)
        ):
            continue
        findings = tuple(Finding(code, where, detail) for code, where, detail in key[1:])
        variation = [Variation(findings, varied)]
        for choice, sample in enumerate(samples[1:], start=1):
            if len(tables) <= choice:
                tables.append(_table(claimed, choice, sample, pairs))
            if key in tables[choice]:
                again = [*true[choice]]
                again[number] = stated(sample, tables[choice][key][1])
                variation.append(Variation(findings, again))
        if len(variation) == len(samples):
            yield variation


def _table(
    claimed: Claim, choice: int, sample: Sample, pairs: bool
) -> dict[tuple, tuple[int, Leaves]]:
    """The gradients with mistakes, by the mistakes."""
    table: dict[tuple, tuple[int, Leaves]] = {}
    for term, combinations, leaves in sampling.mistaken(claimed, choice, sample.flat, pairs):
        for row, combination in enumerate(combinations):
            key = (term, *((m.code, m.where, m.detail) for m in combination))
            table.setdefault(key, (term, [leaf[:, row] for leaf in leaves]))
    return table


def _leaf_fits(target: np.ndarray, terms: Sequence[Leaves], leaf: int) -> bool:
    columns = [term[leaf] for term in terms]
    return all(c.shape == target.shape for c in columns) and (
        fit(target, columns, GROUPS) is not None
    )


def _unchanged(varied: Sequence[Leaves], true: Sequence[Leaves], leaf: int) -> bool:
    return all(
        a[leaf].shape == b[leaf].shape and _same(a[leaf], b[leaf])
        for a, b in zip(varied, true, strict=True)
    )


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.linalg.norm(a - b) <= TOLERANCE * np.linalg.norm(b))


def _simplest(found: Sequence[Explanation]) -> tuple[Finding, ...]:
    """The explanation with the fewest mistakes, named ones before unnamed ones.

    Explanations that name different codes cannot be told apart on these inputs: all are given.
    """
    if not found:
        return (Finding("unknown", "", "no known mistake, nor two of them, gives this formula"),)
    ranked = sorted(found, key=_rank)
    alike = {}
    for explanation in ranked:
        if _rank(explanation) == _rank(ranked[0]):
            alike.setdefault(tuple(sorted(f.code for f in explanation)), explanation)
    ordered = [sorted(explanation, key=lambda f: f.where) for explanation in alike.values()]
    if len(ordered) == 1:
        return tuple(ordered[0])
    return tuple(
        finding._replace(detail=f"alternative {i + 1} of {len(ordered)}: {finding.detail}")
        for i, explanation in enumerate(ordered)
        for finding in explanation
    )


def _rank(explanation: Explanation) -> tuple[bool, int, bool]:
    """Explanations that name every mistake come first, then those with the fewest."""
    codes = [finding.code for finding in explanation]
    indirect = any(finding.detail == CROSS_ENTROPY_GRADIENT for finding in explanation)
    return "unknown" in codes, len(codes), indirect


def _explanations(
    claimed: Claim, samples: Sequence[Sample], variations: Iterator[list[Variation]]
) -> list[Explanation]:
    """What explains the claim at every sample, among variations of the truth with coefficients.

    Args:
      claimed: the claim.
      samples: at several choices of sizes.
      variations: each at every sample.
    """
    whole: list[Explanation] = []
    per_leaf: list[list[Explanation]] = [[] for _ in samples[0].claimed]
    terms = sampling.program(claimed, 0).terms
    names = sampling.program(claimed, 0).names
    scalars = frozenset(samples[0].scalars[0])
    true: Sequence[Leaves] | None = None
    for variation in variations:
        true = variation[0].terms if true is None else true
        given = variation[0].findings
        changed = [not _unchanged(variation[0].terms, true, leaf) for leaf in range(len(names))]
        if given and not any(changed):
            continue
        leaves = [
            _leaf_coefficients(claimed, samples, variation, leaf, terms)
            for leaf in range(len(names))
        ]
        if all(leaf is not None for leaf in leaves):
            read = _read(terms, names, [c for c in leaves if c is not None], True, scalars)
            whole.append(frozenset(given + read))
        for leaf, coefficients in enumerate(leaves):
            if coefficients is not None and (changed[leaf] or not given):
                read = _read(terms, [names[leaf]], [coefficients], False, scalars)
                own = tuple(f._replace(where=_joined(names[leaf], f.where)) for f in given)
                per_leaf[leaf].append(frozenset(own + read))
    whole = [explanation for explanation in whole if 0 < len(explanation) <= MOST]
    if not whole and len(per_leaf) > 1 and all(per_leaf):
        best = [[e for e in leaf if len(e) == min(map(len, leaf))][:4] for leaf in per_leaf]
        if sum(len(leaf[0]) for leaf in best) <= MOST:
            whole = [frozenset().union(*choice) for choice in product(*best)]
    return whole


def _right(samples: Sequence[Sample], true: Sequence[Variation]) -> Iterator[bool]:
    """Per sample, whether the formula is the truth there."""
    for sample, variation in zip(samples, true, strict=True):
        total = [sum(leaves) for leaves in zip(*variation.terms, strict=True)]
        yield all(
            c.shape == t.shape and _same(c, t) for c, t in zip(sample.claimed, total, strict=True)
        )


Coefficients = dict[str, Coefficient]
"""By the name of the term; those of a column of zeros are left out."""


def _leaf_coefficients(
    claimed: Claim,
    samples: Sequence[Sample],
    variation: Sequence[Variation],
    leaf: int,
    terms: Sequence[Term],
) -> Coefficients | None:
    """The coefficients with which a variation is one leaf of the claim, None if with none."""
    observed: dict[str, list[float]] = {}
    contexts: dict[str, list[dict[str, float]]] = {}
    for sample, varied in zip(samples, variation, strict=True):
        columns = {term.name: part[leaf] for term, part in zip(terms, varied.terms, strict=True)}
        columns |= _penalties(claimed, sample, leaf, terms)
        target = sample.claimed[leaf]
        if any(column.shape != target.shape for column in columns.values()):
            return None
        fitted = fit(target, list(columns.values()), GROUPS)
        if fitted is None and len(columns) > len(terms):  # without the penalties that may be
            columns = dict(list(columns.items())[: len(terms)])
            fitted = fit(target, list(columns.values()), GROUPS)
        if fitted is None:
            return None
        for scalars, coefficients in zip(sample.scalars, fitted, strict=True):
            fixed = {str(size): float(size) for size in sorted(fixed_sizes(claimed.inputs))}
            context = {**{k: float(v) for k, v in sample.sizes.items()}, **fixed, **scalars}
            for name, value in zip(columns, coefficients, strict=True):
                if value is not None:
                    observed.setdefault(name, []).append(value)
                    contexts.setdefault(name, []).append(context)
    read: Coefficients = {}
    for name, values in observed.items():
        coefficient = recognise(values, contexts[name])
        if coefficient is None:
            return None
        read[name] = coefficient
    return read


_ON_BIAS = "the penalty, on "
_ADDED = "a penalty of strength "


def _penalties(
    claimed: Claim, sample: Sample, leaf: int, terms: Sequence[Term]
) -> dict[str, np.ndarray]:
    """Penalties that the objective does not have, but a formula may."""
    parameter = sample.parameters[leaf] if sample.parameters is not None else None
    if parameter is None or parameter.shape != sample.claimed[leaf].shape:
        return {}
    column = (-1, *[1] * (parameter.ndim - 1))
    for number, term in enumerate(terms):
        if term.penalty and sample.parameters is not None:
            if np.any(sample.terms[number][leaf]):
                return {}
            for weight, slope in zip(sample.parameters, sample.terms[number], strict=True):
                if np.any(slope):
                    strength = _per_trial(slope, weight) / _per_trial(weight, weight)
                    return {_ON_BIAS: strength.reshape(column) * parameter}
    if any(term.penalty for term in terms):
        return {}
    return {
        _ADDED + name: np.repeat([group[name] for group in sample.scalars], sampling.PER_GROUP)
        .reshape(column) * parameter
        for name in sample.scalars[0]
    }  # fmt: skip


def _per_trial(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum((a * b).reshape(len(a), -1), axis=1)


def _read(
    terms: Sequence[Term],
    names: Sequence[str],
    leaves: Sequence[Coefficients],
    whole: bool,
    scalars: frozenset[str],
) -> tuple[Finding, ...]:
    """The mistakes that coefficients stand for, the same one in several leaves being one.

    Args:
      terms: of the objective.
      names: of the leaves.
      leaves: the coefficients of each.
      whole: whether these are all the leaves, so that their names go without saying.
      scalars: the names that are scalar inputs rather than sizes.
    """
    own = {term.name for term in terms}
    different: dict[tuple[str, Coefficient], list[str]] = {}
    for name, coefficients in zip(names, leaves, strict=True):
        for term, coefficient in coefficients.items():
            if coefficient != (ONE if term in own else Coefficient(0.0)):
                different.setdefault((term, coefficient), []).append(name)
    common = {c for _, c in different}
    everywhere = len(common) == 1 and all(
        coefficients.get(term.name, next(iter(common))) in common
        for coefficients in leaves
        for term in terms
    )
    if everywhere and not any(term not in own for term, _ in different):
        place = "" if whole else ", ".join(names)
        return _named(next(iter(common)), place, False, scalars)
    findings: list[Finding] = []
    for (term, coefficient), where in different.items():
        having = [n for n, c in zip(names, leaves, strict=True) if term in c]
        place = term if whole and where == having else _joined(", ".join(where), term)
        if term.startswith(_ON_BIAS):
            findings.append(
                Finding("l2_on_bias", ", ".join(where), "the penalty is applied to it, too")
            )
            if coefficient != ONE:
                findings += _named(coefficient, place, True, scalars)
        elif term.startswith(_ADDED):
            detail = f"it has a penalty that the objective has not, {coefficient} times its value"
            findings.append(Finding("wrong_l2", ", ".join(where), detail))
        else:
            penalty = next(t.penalty for t in terms if t.name == term)
            findings += _named(coefficient, place, penalty, scalars)
    return tuple(dict.fromkeys(findings))


def _named(
    coefficient: Coefficient, where: str, penalty: bool, scalars: frozenset[str]
) -> tuple[Finding, ...]:
    """The mistakes that make a coefficient of 1 into this one."""
    if penalty and coefficient.value == 0:
        return (Finding("missing_l2", where, "the penalty's gradient is missing"),)
    if penalty:
        return (
            Finding("wrong_l2", where, f"the penalty's gradient is multiplied by {coefficient}"),
        )
    if coefficient.value == 0:
        return (Finding("unknown", where, "this term's gradient is missing"),)
    findings = []
    if coefficient.value < 0:
        findings.append(Finding("sign", where, "the sign is wrong"))
    if abs(coefficient.value) != 1:
        size = Coefficient(abs(coefficient.value))
        findings.append(Finding("factor", where, f"it is multiplied by {size}"))
    for name, power in coefficient.powers:
        alone = Coefficient(1.0, ((name, power),))
        if name not in scalars:
            code = "missing_mean" if power > 0 else "extra_mean"
            detail = f"it is multiplied by {alone}: a mean over {name} is " + (
                "missing" if power > 0 else "taken once too often"
            )
        else:
            code, detail = "factor", f"it is multiplied by {alone}"
        findings.append(Finding(code, where, detail))
    return tuple(findings)


def _joined(*parts: str) -> str:
    return ": ".join(part for part in parts if part)


def _shape(array: np.ndarray) -> tuple[int, ...]:
    return array.shape[1:]


def _listed(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} = {size}" for name, size in sizes.items())
