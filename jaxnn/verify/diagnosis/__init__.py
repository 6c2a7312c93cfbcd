"""The most likely mistake in a refuted formula.

Every hypothesis predicts the whole formula, and is believed only if the prediction is right to 1e-9
in all trials, also at sizes that did not make the hypothesis: a wrong diagnosis does harm.
Hypotheses are (1) the right derivative, (2) the derivative in other layouts, or the diagonal, (3)
the derivative with one or two mistakes in the backward pass, all with coefficients of the terms of
the objective; and (4) an exchanged value in the formula. A diagnosis has at most two mistakes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations, product
from typing import NamedTuple

import jax
import numpy as np

from jaxnn.verify.claims import Claim
from jaxnn.verify.comparison import FormulaError, FunctionError
from jaxnn.verify.diagnosis import hypotheses
from jaxnn.verify.diagnosis.ablation import CROSS_ENTROPY_GRADIENT
from jaxnn.verify.diagnosis.coefficients import coefficients, findings, joined, predicted
from jaxnn.verify.diagnosis.hypotheses import RIGHT, Hypothesis
from jaxnn.verify.diagnosis.substitution import diagnose_shapes, exchanges
from jaxnn.verify.diagnosis.trials import Leaves, Sample, draw_sample, same
from jaxnn.verify.graph import located
from jaxnn.verify.inputs import is_input
from jaxnn.verify.verdict import Finding

__all__ = ["Diagnosis", "diagnose", "diagnose_shapes"]

MOST_MISTAKES = 2
"""Mistakes in one explanation."""

UNKNOWN = Finding("unknown", "", "no known mistake, nor two known mistakes, give this formula")

ONLY_SPECIAL = Finding(
    "unknown", "", "the formula is right at ordinary inputs, and wrong at special ones as given"
)


class Diagnosis(NamedTuple):
    """The mistakes in a formula, and an input at which alternatives differ."""

    findings: tuple[Finding, ...]
    detail: str = ""


class Explanation(NamedTuple):
    """Mistakes, and the formula values predicted by the mistakes."""

    findings: frozenset[Finding]
    predict: Callable[[Sample], Leaves | None] = lambda sample: None

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the mistakes."""
        return tuple(sorted(finding.code for finding in self.findings))

    @property
    def rank(self) -> tuple[bool, int, bool]:
        """Explanations without an unknown mistake come first, then those with few mistakes."""
        indirect = any(finding.detail == CROSS_ENTROPY_GRADIENT for finding in self.findings)
        return "unknown" in self.codes, len(self.codes), indirect

    @property
    def plausible(self) -> bool:
        """Whether the mistakes are few; an exchanged value and a second mistake fit by luck."""
        most = 1 if "wrong_value" in self.codes else MOST_MISTAKES
        return 0 < len(self.findings) <= most

    def confirmed(self, sample: Sample) -> bool:
        """Whether the explanation predicts the formula at a further sample, if anything."""
        prediction = self.predict(sample)
        return prediction is None or all(map(same, prediction, sample.formula))


def diagnose(claim: Claim, seed: int = 0) -> Diagnosis:
    """Names the mistakes in a refuted formula.

    Args:
      claim: the claim.
      seed: of the trials.

    Returns:
      The mistakes, or ``unknown``, also if the diagnosis raises an exception: the verdict stands
      without a diagnosis. Where several explanations agree at the claim's inputs: all
      explanations, and in ``detail`` an input at which the explanations differ.
    """
    try:
        return _diagnose(claim, seed)
    except Exception as error:
        return Diagnosis((Finding("unknown", "", f"the diagnosis failed: {located(error)}"),))


def _diagnose(claim: Claim, seed: int) -> Diagnosis:
    samples = list(_samples(claim, seed, (0, 1)))
    if not samples:
        return Diagnosis((UNKNOWN,))
    problem = hypotheses.shape_problem(samples[0])
    if problem is not None:
        return Diagnosis((problem,))
    if all(all(map(same, sample.formula, hypotheses.right(sample))) for sample in samples):
        return Diagnosis((ONLY_SPECIAL,))
    found = _explanations(samples, [RIGHT, *hypotheses.rearranged(samples[0])])
    if found:
        confirming = list(_samples(claim, seed, (2,)))
        found = list(filter(lambda e: all(map(e.confirmed, confirming)), found))
    for two in (False, True):
        named = [explanation.rank for explanation in found if "unknown" not in explanation.codes]
        if not named or (not two and min(named)[1] > 1):
            found += _explanations(samples, [RIGHT, *hypotheses.mistaken(samples[0], two)])
    unnamed = all("unknown" in explanation.codes for explanation in found)
    if unnamed and all(_share_right(sample) <= 0.25 for sample in samples):
        found += [Explanation(frozenset({finding})) for finding in exchanges(samples)]
    return _simplest(claim, found, seed)


def _samples(claim: Claim, seed: int, choices: Iterable[int]) -> Iterator[Sample]:
    """Trials at several choices of sizes; choices without finite values are left out."""
    for choice in choices:
        try:
            sample = draw_sample(claim, choice, seed)
        except (FormulaError, FunctionError):
            continue
        if all(
            np.isfinite(leaf).all() for leaves in (sample.formula, *sample.terms) for leaf in leaves
        ):
            yield sample


def _share_right(sample: Sample) -> float:
    """The share of trials with a right formula; large where a single branch is wrong."""
    trials = zip(*sample.formula, *hypotheses.right(sample), strict=True)
    leaves = len(sample.formula)
    return float(np.mean([all(map(same, trial, trial[leaves:])) for trial in trials]))


def _explanations(samples: Sequence[Sample], varied: Iterable[Hypothesis]) -> list[Explanation]:
    """The explanations of the formula at every sample, by hypotheses with coefficients.

    Where no hypothesis explains the whole formula: combinations of explanations of single leaves.
    """
    names = samples[0].program.names
    true = RIGHT.terms(samples[0])
    whole: list[Explanation] = []
    per_leaf: list[list[Explanation]] = [[] for _ in names]
    for given, terms_at in varied:
        terms = [terms_at(sample) for sample in samples]
        if not all(terms):
            continue
        changed = [not hypotheses.unchanged(terms[0], true, leaf) for leaf in range(len(names))]
        if given and not any(changed):
            continue
        leaves = [coefficients(samples, terms, leaf) for leaf in range(len(names))]
        known = {names[leaf]: some for leaf, some in enumerate(leaves) if some is not None}
        if len(known) == len(names):
            read = findings(samples[0], known)
            whole.append(Explanation(frozenset(given + read), partial(predicted, terms_at, known)))
        for leaf, (name, some) in enumerate(zip(names, leaves, strict=True)):
            if some is not None and (changed[leaf] or not given):
                here = [f._replace(where=joined(name, f.where)) for f in given]
                read = findings(samples[0], {name: some})
                per_leaf[leaf].append(Explanation(frozenset((*here, *read))))
    whole = [explanation for explanation in whole if explanation.plausible]
    if not whole and len(names) > 1 and all(per_leaf):
        whole = list(_leaf_by_leaf(per_leaf))
    return whole


def _leaf_by_leaf(per_leaf: Sequence[Sequence[Explanation]]) -> Iterator[Explanation]:
    """Combinations of explanations of single leaves with the fewest mistakes."""
    fewest = [min(len(explanation.findings) for explanation in leaf) for leaf in per_leaf]
    if sum(fewest) > MOST_MISTAKES:
        return
    best = [
        [explanation for explanation in leaf if len(explanation.findings) == count][:4]
        for leaf, count in zip(per_leaf, fewest, strict=True)
    ]
    for choice in product(*best):
        yield Explanation(frozenset().union(*(explanation.findings for explanation in choice)))


def _simplest(claim: Claim, found: Sequence[Explanation], seed: int) -> Diagnosis:
    """The explanations of the lowest rank, with equal codes only the first."""
    if not found:
        return Diagnosis((UNKNOWN,))
    least = min(explanation.rank for explanation in found)
    simplest: dict[tuple[str, ...], Explanation] = {}
    for explanation in found:
        if explanation.rank == least:
            simplest.setdefault(explanation.codes, explanation)
    ordered = [sorted(e.findings, key=lambda f: (f.where, f)) for e in simplest.values()]
    if len(ordered) == 1:
        return Diagnosis(tuple(ordered[0]))
    named = tuple(
        finding._replace(detail=f"alternative {i} of {len(ordered)}: {finding.detail}")
        for i, explanation in enumerate(ordered, start=1)
        for finding in explanation
    )
    return Diagnosis(named, _distinguishing_input(claim, list(simplest.values()), seed))


def _distinguishing_input(claim: Claim, explanations: Sequence[Explanation], seed: int) -> str:
    """An input, outside of the claim's generators, at which explanations differ."""
    sample = draw_sample(claim, 0, seed, unconstrained=True)
    predictions = [explanation.predict(sample) for explanation in explanations]
    for a, b in combinations(predictions, 2):
        if a is None or b is None or all(map(same, a, b)):
            continue
        structure = jax.tree.structure(dict(claim.inputs), is_leaf=is_input)
        values = [np.round(value[0], 2).tolist() for value in sample.flat]
        inputs = jax.tree.unflatten(structure, values)
        return f"the alternatives differ where the inputs' constraints are dropped, as at {inputs}"
    return "the alternatives give the same formula for every input of these shapes"
