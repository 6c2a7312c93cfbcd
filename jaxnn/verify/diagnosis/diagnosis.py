"""Which mistake a refuted formula most likely is.

Every hypothesis predicts the whole formula, and is believed only if the prediction is met to 1e-9
in all trials, at sizes it was not made from: a wrong diagnosis is worse than none. The truth is
varied in three ways, (1) the terms of the objective with coefficients, leaf by leaf, (2) the
backward pass with a mistake in it, (3) the answer transposed or cut down to its diagonal; each of
(2) and (3) also with coefficients. Failing these, (4) a value of the formula is exchanged. At most
two mistakes at once, and one rather than two.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, product
from typing import NamedTuple

import jax
import numpy as np

from jaxnn.verify.claims import Claim, learning_rate_name, parameters
from jaxnn.verify.diagnosis import sampling
from jaxnn.verify.diagnosis.ablation import CROSS_ENTROPY_GRADIENT
from jaxnn.verify.diagnosis.fitting import fit, recognise
from jaxnn.verify.diagnosis.hypotheses import (
    Hypothesis,
    mistakes,
    same,
    shape_problem,
    transforms,
    truth,
    unchanged,
)
from jaxnn.verify.diagnosis.reading import Coefficients, findings, is_penalty, joined, penalties
from jaxnn.verify.diagnosis.sampling import GROUPS, PER_GROUP, Leaves, Sample
from jaxnn.verify.diagnosis.substitution import exchanges
from jaxnn.verify.failures import FormulaError, FunctionError
from jaxnn.verify.inputs import fixed_sizes
from jaxnn.verify.verdict import Finding

MOST = 2
"""Mistakes at once."""

UNKNOWN = Finding("unknown", "", "no known mistake, nor two of them, gives this formula")

ONLY_SPECIAL = Finding(
    "unknown", "", "it is right at ordinary inputs, and wrong at special ones as the one given"
)


class Explanation(NamedTuple):
    """Mistakes that together predict the formula."""

    findings: frozenset[Finding]
    predict: Callable[[Sample], Leaves | None]

    @property
    def rank(self) -> tuple[bool, int, bool]:
        """Those that name every mistake come first, then those with the fewest."""
        codes = [finding.code for finding in self.findings]
        indirect = any(finding.detail == CROSS_ENTROPY_GRADIENT for finding in self.findings)
        return "unknown" in codes, len(codes), indirect

    @property
    def codes(self) -> tuple[str, ...]:
        """The mistakes' codes."""
        return tuple(sorted(finding.code for finding in self.findings))


class Diagnosis(NamedTuple):
    """The mistakes in a formula, and what tells alternatives apart."""

    findings: tuple[Finding, ...]
    detail: str = ""


def diagnose(claimed: Claim, seed: int = 0) -> Diagnosis:
    """Names the mistakes in a refuted formula.

    Args:
      claimed: the claim.
      seed: of the trials.

    Returns:
      The mistakes made at once, or ``unknown``. Where several explanations cannot be told apart on
      the claim's inputs, all of them, and in ``detail`` an input that would.
    """
    samples = list(_samples(claimed, seed, (0, 1)))
    if not samples:
        return Diagnosis((UNKNOWN,))
    problem = shape_problem(claimed, samples[0])
    if problem is not None:
        return Diagnosis((problem,))
    true = truth(claimed)
    if all(_is_right(sample, true) for sample in samples):
        return Diagnosis((ONLY_SPECIAL,))
    found = _explanations(claimed, samples, [true, *transforms(claimed, samples[0])])
    if found:
        found = [e for e in found if _confirmed(e, _samples(claimed, seed, (2,)))]
    for pairs in (False, True):
        named = [explanation for explanation in found if not explanation.rank[0]]
        if not named or (not pairs and min(e.rank[1] for e in named) > 1):
            varied = [true, *mistakes(claimed, samples[0], pairs)]
            found += _explanations(claimed, samples, varied)
    mostly_wrong = not any(_share_right(sample, true) > 0.25 for sample in samples)
    if mostly_wrong and (not found or min(e.rank for e in found)[0]):
        exchanged = exchanges(claimed, samples)
        found += [Explanation(frozenset({finding}), lambda _: None) for finding in exchanged]
    return _simplest(claimed, found, seed)


def _samples(claimed: Claim, seed: int, choices: Iterable[int]) -> Iterator[Sample]:
    """Trials at several choices of sizes, those at which everything is finite."""
    for choice in choices:
        try:
            sample = sampling.sample(claimed, choice, seed)
        except (FormulaError, FunctionError):
            continue
        arrays = [*sample.claimed, *(leaf for term in sample.terms for leaf in term)]
        if all(np.isfinite(array).all() for array in arrays):
            yield sample


def _confirmed(explanation: Explanation, samples: Iterable[Sample]) -> bool:
    """Whether an explanation predicts the formula at more samples, too."""
    for sample in samples:
        predicted = explanation.predict(sample)
        if predicted is not None and not all(map(same, predicted, sample.claimed)):
            return False
    return True


def _is_right(sample: Sample, true: Hypothesis) -> bool:
    """Whether the formula is the truth at a sample."""
    total = [np.sum(leaves, axis=0) for leaves in zip(*(true.terms(sample) or []), strict=True)]
    return all(map(same, sample.claimed, total))


def _share_right(sample: Sample, true: Hypothesis) -> float:
    """The share of trials at which the formula is right: large where one branch of it is wrong."""
    total = [np.sum(leaves, axis=0) for leaves in zip(*(true.terms(sample) or []), strict=True)]
    trials = range(GROUPS * PER_GROUP)
    right = [
        all(same(c[i], t[i]) for c, t in zip(sample.claimed, total, strict=True)) for i in trials
    ]
    return float(np.mean(right))


def _explanations(
    claimed: Claim, samples: Sequence[Sample], hypotheses: Iterable[Hypothesis]
) -> list[Explanation]:
    """What explains the claim at every sample, among hypotheses with coefficients.

    Args:
      claimed: the claim.
      samples: at several choices of sizes.
      hypotheses: the truth itself first.
    """
    ready = sampling.program(claimed, samples[0].choice)
    scalars = frozenset(samples[0].scalars[0])
    whole: list[Explanation] = []
    per_leaf: list[list[Explanation]] = [[] for _ in ready.names]
    true: Sequence[Leaves] = []
    for hypothesis in hypotheses:
        given = hypothesis.findings
        varied = [hypothesis.terms(sample) for sample in samples]
        here = varied[0] or []
        true = true or here
        changed = [not unchanged(here, true, leaf) for leaf in range(len(ready.names))]
        if any(terms is None for terms in varied) or (given and not any(changed)):
            continue
        leaves = [_coefficients(claimed, samples, varied, leaf) for leaf in range(len(changed))]
        if all(leaf is not None for leaf in leaves):
            known = [coefficients or {} for coefficients in leaves]
            read = findings(ready.terms, ready.names, known, True, scalars)
            whole.append(_explanation(claimed, given + read, hypothesis, known))
        for leaf, coefficients in enumerate(leaves):
            if coefficients is not None and (changed[leaf] or not given):
                read = findings(ready.terms, [ready.names[leaf]], [coefficients], False, scalars)
                own = tuple(f._replace(where=joined(ready.names[leaf], f.where)) for f in given)
                per_leaf[leaf].append(Explanation(frozenset(own + read), lambda _: None))
    whole = [e for e in whole if 0 < len(e.findings) <= MOST and not _contrived(e)]
    if not whole and len(per_leaf) > 1 and all(per_leaf):
        whole = list(_leaf_by_leaf(per_leaf))
    return whole


def _contrived(explanation: Explanation) -> bool:
    """An exchanged value together with another mistake: with luck that explains anything."""
    return "wrong_value" in explanation.codes and len(explanation.findings) > 1


def _leaf_by_leaf(per_leaf: Sequence[Sequence[Explanation]]) -> Iterator[Explanation]:
    """Explanations that differ from leaf to leaf, if they take no more than two mistakes."""
    fewest = [min(len(e.findings) for e in leaf) for leaf in per_leaf]
    if sum(fewest) > MOST:
        return
    best = [
        [e for e in leaf if len(e.findings) == count][:4]
        for leaf, count in zip(per_leaf, fewest, strict=True)
    ]
    for choice in product(*best):
        together: frozenset[Finding] = frozenset().union(*(e.findings for e in choice))
        yield Explanation(together, lambda _: None)


def _columns(
    claimed: Claim, sample: Sample, terms: Sequence[Leaves], leaf: int
) -> dict[str, np.ndarray]:
    """What a leaf may be a combination of, by name: the terms, and penalties they do not have."""
    known = sampling.program(claimed, sample.choice).terms
    columns = {term.name: part[leaf] for term, part in zip(known, terms, strict=True)}
    return columns | penalties(sample, leaf, known)


def _context(claimed: Claim, sample: Sample, group: int) -> dict[str, float]:
    """The sizes and scalars of a group of trials."""
    fixed = {str(size): float(size) for size in sorted(fixed_sizes(claimed.inputs))}
    return {**{k: float(v) for k, v in sample.sizes.items()}, **fixed, **sample.scalars[group]}


def _coefficients(
    claimed: Claim,
    samples: Sequence[Sample],
    varied: Sequence[Sequence[Leaves] | None],
    leaf: int,
) -> Coefficients | None:
    """The coefficients with which a hypothesis is one leaf of the claim, None if with none."""
    observed: dict[str, list[float]] = {}
    contexts: dict[str, list[dict[str, float]]] = {}
    for sample, terms in zip(samples, varied, strict=True):
        columns = _columns(claimed, sample, terms or [], leaf)
        target = sample.claimed[leaf]
        if any(column.shape != target.shape for column in columns.values()):
            return None
        fitted = fit(target, list(columns.values()), GROUPS)
        if fitted is None:  # without the penalties that may be
            columns = dict(list(columns.items())[: len(terms or [])])
            fitted = fit(target, list(columns.values()), GROUPS)
        if fitted is None:
            return None
        for group, coefficients in enumerate(fitted):
            for name, value in zip(columns, coefficients, strict=True):
                if value is not None:
                    observed.setdefault(name, []).append(value)
                    contexts.setdefault(name, []).append(_context(claimed, sample, group))
    read = {name: recognise(values, contexts[name]) for name, values in observed.items()}
    strengths = _strengths(claimed)
    known = {
        name: coefficient
        for name, coefficient in read.items()
        if coefficient is not None and is_penalty(name, coefficient, strengths)
    }
    return known if len(known) == len(read) else None


def _strengths(claimed: Claim) -> frozenset[str]:
    """The scalar inputs that the objective does not use, nor a step as its rate."""
    used = {*parameters(claimed.of), learning_rate_name(claimed)}
    return frozenset(name for name in claimed.inputs if name not in used)


def _explanation(
    claimed: Claim,
    found: Sequence[Finding],
    hypothesis: Hypothesis,
    leaves: Sequence[Coefficients],
) -> Explanation:
    """Mistakes with the formula they predict."""

    def predict(sample: Sample) -> Leaves | None:
        terms = hypothesis.terms(sample)
        if terms is None:
            return None
        predicted = []
        for leaf, coefficients in enumerate(leaves):
            columns = _columns(claimed, sample, terms, leaf)
            total = np.zeros(sample.claimed[leaf].shape)
            for name, coefficient in coefficients.items():
                factors = [coefficient.at(_context(claimed, sample, g)) for g in range(GROUPS)]
                column = columns[name]
                shape = (-1, *[1] * (column.ndim - 1))
                total = total + np.repeat(factors, PER_GROUP).reshape(shape) * column
            predicted.append(total)
        return predicted

    return Explanation(frozenset(found), predict)


def _simplest(claimed: Claim, found: Sequence[Explanation], seed: int) -> Diagnosis:
    """The explanation with the fewest mistakes, named ones before unnamed ones."""
    if not found:
        return Diagnosis((UNKNOWN,))
    least = min(explanation.rank for explanation in found)
    alike: dict[tuple[str, ...], Explanation] = {}
    for explanation in found:
        if explanation.rank == least:
            alike.setdefault(explanation.codes, explanation)
    ordered = [
        sorted(explanation.findings, key=lambda f: f.where) for explanation in alike.values()
    ]
    if len(ordered) == 1:
        return Diagnosis(tuple(ordered[0]))
    named = tuple(
        finding._replace(detail=f"alternative {i + 1} of {len(ordered)}: {finding.detail}")
        for i, explanation in enumerate(ordered)
        for finding in explanation
    )
    return Diagnosis(named, _telling(claimed, list(alike.values()), seed))


def _telling(claimed: Claim, explanations: Sequence[Explanation], seed: int) -> str:
    """An input that tells explanations apart, outside of what the claim's generators draw."""
    sample = sampling.sample(claimed, 0, seed, unconstrained=True)
    predictions = [explanation.predict(sample) for explanation in explanations]
    for a, b in combinations(predictions, 2):
        if a is None or b is None or all(map(same, a, b)):
            continue
        inputs = jax.tree.unflatten(
            sampling.structure(claimed), [np.round(value[0], 2).tolist() for value in sample.flat]
        )
        return f"the alternatives differ where the inputs' constraints are dropped, as at {inputs}"
    return "the alternatives give the same formula for every input of these shapes"
