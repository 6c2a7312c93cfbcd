"""What coefficients say: a factor of n is a missing mean, a penalty with none is missing."""

from collections.abc import Sequence

import numpy as np

from jaxnn.verify.diagnosis.fitting import ONE, Coefficient
from jaxnn.verify.diagnosis.sampling import Sample
from jaxnn.verify.diagnosis.terms import Term
from jaxnn.verify.verdict import Finding

Coefficients = dict[str, Coefficient]
"""By the name of the term; those of a column of zeros are left out."""

_ON_BIAS = "the penalty, as on the weights"
_ADDED = "the parameter itself"


def penalties(sample: Sample, leaf: int, terms: Sequence[Term]) -> dict[str, np.ndarray]:
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
    return {_ADDED: parameter}


def is_penalty(term: str, coefficient: Coefficient, scalars: frozenset[str]) -> bool:
    """Whether a multiple of the parameter is what somebody would write for a penalty.

    On a bias it is the weights' strength, or that over a size; in an objective that has none, a
    scalar that the rest of the formula does not depend on. Else a variable was forgotten.
    """
    if coefficient.value == 0 or term not in (_ON_BIAS, _ADDED):
        return True
    of_scalars = [power for name, power in coefficient.powers if name in scalars]
    return coefficient.value > 0 and of_scalars == ([1] if term == _ADDED else [])


def _per_trial(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum((a * b).reshape(len(a), -1), axis=1)


def findings(
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
    found: list[Finding] = []
    for (term, coefficient), where in different.items():
        having = [n for n, c in zip(names, leaves, strict=True) if term in c]
        place = term if whole and where == having else joined(", ".join(where), term)
        if term == _ON_BIAS:
            found.append(
                Finding("l2_on_bias", ", ".join(where), "the penalty is applied to it, too")
            )
            if coefficient != ONE:
                found += _named(coefficient, ", ".join(where), True, scalars)
        elif term == _ADDED:
            detail = f"it has a penalty that the objective has not, {coefficient} times its value"
            found.append(Finding("wrong_l2", ", ".join(where), detail))
        else:
            penalty = next(t.penalty for t in terms if t.name == term)
            found += _named(coefficient, place, penalty, scalars)
    return tuple(dict.fromkeys(found))


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
    found = []
    if coefficient.value < 0:
        found.append(Finding("sign", where, "the sign is wrong"))
    if abs(coefficient.value) != 1:
        size = Coefficient(abs(coefficient.value))
        found.append(Finding("factor", where, f"it is multiplied by {size}"))
    for name, power in coefficient.powers:
        alone = Coefficient(1.0, ((name, power),))
        if name not in scalars:
            code = "missing_mean" if power > 0 else "extra_mean"
            detail = f"it is multiplied by {alone}: a mean over {name} is " + (
                "missing" if power > 0 else "taken once too often"
            )
        else:
            code, detail = "factor", f"it is multiplied by {alone}"
        found.append(Finding(code, where, detail))
    return tuple(found)


def joined(*parts: str) -> str:
    """The parts that are not empty, with colons between them."""
    return ": ".join(part for part in parts if part)
