"""Wrong derivatives: in another layout, cut down to the diagonal, with a mistake on the way."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from itertools import combinations
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn.verify.claims import Claim
from jaxnn.verify.comparison import alternative_layouts, arranged, declared_layout, same_shape
from jaxnn.verify.diagnosis.ablation import Ablation, Mistake
from jaxnn.verify.diagnosis.coefficients import fit
from jaxnn.verify.diagnosis.evaluated_graph import EvaluatedGraph
from jaxnn.verify.diagnosis.trials import GROUPS, Leaves, Sample, gradient_claim, program, same
from jaxnn.verify.graph import build_graph, jit
from jaxnn.verify.reference import is_rule, reference
from jaxnn.verify.verdict import Finding

MOST_PAIRS = 2000
_NOT_IN_PAIRS = ("unknown", "factor", "sign", "wrong_value")
"""Coefficients explain factors and signs; two exchanged values explain too much."""


class Hypothesis(NamedTuple):
    """A wrong derivative, to be combined with coefficients of the terms."""

    findings: tuple[Finding, ...]  # none: the right derivative
    terms: Callable[[Sample], list[Leaves] | None]  # in the claim's layout; None: does not exist


def right(claim: Claim) -> Hypothesis:
    """The right derivative, in the claim's declared layout."""
    return Hypothesis((), lambda sample: [_stated(claim, sample, t) for t in sample.terms])


def rearranged(claim: Claim, sample: Sample) -> Iterator[Hypothesis]:
    """The derivative in every other layout, and the derivative's diagonal.

    Args:
      claim: the claim.
      sample: any sample; only the shapes matter.
    """
    ranks = program(claim, sample.choice).value_ranks
    widest = max((leaf.shape[1:] for leaf in sample.terms[0]), key=len, default=())

    def everywhere(arrange: Callable[[np.ndarray, int], np.ndarray | None]) -> Callable:
        def leaf(array: np.ndarray, rank: int, formula: np.ndarray) -> np.ndarray:
            other = arrange(array, rank)
            return _like(formula, array if other is None else other)

        return lambda sample: [
            list(map(leaf, term, ranks, sample.formula)) for term in sample.terms
        ]

    for number, layout in enumerate(alternative_layouts(widest, max(ranks, default=0))):

        def other(leaf: np.ndarray, rank: int, number: int = number) -> np.ndarray | None:
            every = list(alternative_layouts(leaf.shape[1:], rank))
            return arranged(every[number].arrange, leaf) if number < len(every) else None

        finding = Finding(layout.code, "", f"the formula is {layout.name}")
        yield Hypothesis((finding,), everywhere(other))
    finding = Finding("diagonal_only", "", "the entries off the diagonal are dropped")
    yield Hypothesis((finding,), everywhere(lambda leaf, rank: _diagonal(leaf)))


def _diagonal(leaf: np.ndarray) -> np.ndarray | None:
    if leaf.ndim != 3 or leaf.shape[1] != leaf.shape[2]:
        return None
    return leaf * np.eye(leaf.shape[1])


def _stated(claim: Claim, sample: Sample, leaves: Leaves) -> Leaves:
    """Leaves in the claim's declared layout."""
    ranks = program(claim, sample.choice).value_ranks
    return [
        _like(formula, arranged(declared_layout(claim.layout, rank), leaf))
        for leaf, rank, formula in zip(leaves, ranks, sample.formula, strict=True)
    ]


def _like(formula: np.ndarray, leaf: np.ndarray) -> np.ndarray:
    """A leaf with the formula's axes of length 1, unchanged if the other axes differ."""
    if same_shape(leaf.shape[1:], formula.shape[1:]):
        return leaf.reshape(formula.shape)
    return leaf


def shape_problem(claim: Claim, sample: Sample) -> Finding | None:
    """The mistake in a formula whose shape is the derivative's in no layout."""
    ready = program(claim, sample.choice)
    gradients = [np.sum(leaves, axis=0) for leaves in zip(*sample.terms, strict=True)]
    if len(sample.formula) != len(gradients):
        detail = f"the formula returns {len(sample.formula)} arrays, expected {len(gradients)}"
        return Finding("shape", ", ".join(ready.names), detail)
    leaves = zip(ready.names, ready.value_ranks, sample.formula, gradients, strict=True)
    for name, rank, formula, gradient in leaves:
        stated = arranged(declared_layout(claim.layout, rank), gradient)
        others = (
            arranged(layout.arrange, gradient)
            for layout in alternative_layouts(gradient.shape[1:], rank)
        )
        shapes = [array.shape[1:] for array in (stated, *others)]
        if not any(same_shape(formula.shape[1:], shape) for shape in shapes):
            return Finding("shape", name, _shapes_differ(sample, formula, gradient))
    return None


def _shapes_differ(sample: Sample, formula: np.ndarray, gradient: np.ndarray) -> str:
    detail = f"the formula has shape {formula.shape[1:]}, the derivative {gradient.shape[1:]}"
    if sample.sizes:
        listed = ", ".join(f"{size} = {number}" for size, number in sample.sizes.items())
        detail += f" ({listed})"
    for axis in range(1, formula.ndim):
        if same(formula.sum(axis=axis), gradient):
            detail += f": the sum over axis {axis - 1} is missing"
    return detail


def mistaken(claim: Claim, sample: Sample, two: bool) -> Iterator[Hypothesis]:
    """The derivative with one mistake, or two, in the backward pass.

    Args:
      claim: the claim.
      sample: only mistakes that explain a leaf of the formula at the sample are hypotheses.
      two: two mistakes rather than one.
    """

    @cache
    def gradients(sample: Sample) -> dict[tuple, tuple[int, Leaves]]:
        return _mistaken_gradients(claim, sample, two)

    def terms(sample: Sample, key: tuple) -> list[Leaves] | None:
        if key not in gradients(sample):
            return None
        number, leaves = gradients(sample)[key]
        varied = [*sample.terms[:number], leaves, *sample.terms[number + 1 :]]
        return [_stated(claim, sample, term) for term in varied]

    true = right(claim).terms(sample) or []
    for key in gradients(sample):
        varied = terms(sample, key) or []
        if any(
            not unchanged(varied, true, leaf) and _fits(target, varied, leaf)
            for leaf, target in enumerate(sample.formula)
        ):
            findings = tuple(Finding(m.code, m.where, m.detail) for m in key[1:])
            yield Hypothesis(findings, lambda sample, key=key: terms(sample, key))


def unchanged(varied: Sequence[Leaves], true: Sequence[Leaves], leaf: int) -> bool:
    """Whether a hypothesis keeps a leaf of the right derivative."""
    return all(same(a[leaf], b[leaf]) for a, b in zip(varied, true, strict=True))


def _fits(target: np.ndarray, terms: Sequence[Leaves], leaf: int) -> bool:
    columns = [term[leaf] for term in terms]
    return all(column.shape == target.shape for column in columns) and (
        fit(target, columns, GROUPS) is not None
    )


def _mistaken_gradients(claim: Claim, sample: Sample, two: bool) -> dict[tuple, tuple[int, Leaves]]:
    """(Term, mistake, ...) -> (term, the term's gradient with the mistakes)."""
    table: dict[tuple, tuple[int, Leaves]] = {}
    for term, ablation, run in _ablations(claim, sample.choice):
        combined: list[tuple[Mistake, ...]] = [(mistake,) for mistake in ablation.mistakes]
        if two:
            named = [m for m in ablation.mistakes if m.code not in _NOT_IN_PAIRS]
            pairs = [(a, b) for a, b in combinations(named, 2) if a.knob != b.knob]
            combined = [*pairs[:MOST_PAIRS]]
        settings = np.zeros((len(combined), ablation.knobs))
        for row, mistakes in enumerate(combined):
            for mistake in mistakes:
                settings[row, mistake.knob] = mistake.setting
        rows = len(ablation.mistakes)
        for start in range(0, len(settings), max(1, rows)):
            chunk = settings[start : start + rows]
            # Every chunk has equally many rows, so that one program serves all chunks.
            padded = np.pad(chunk, ((0, rows - len(chunk)), (0, 0)))
            leaves = [np.asarray(leaf) for leaf in run(padded, *sample.flat)]
            for row, mistakes in enumerate(combined[start : start + rows]):
                table.setdefault((term, *mistakes), (term, [leaf[:, row] for leaf in leaves]))
    return table


@lru_cache(maxsize=8)
def _ablations(claim: Claim, choice: int) -> list[tuple[int, Ablation, Callable[..., Any]]]:
    """(Term, knobs, compiled gradient of settings and flat inputs) for the terms of the data."""
    ready = program(claim, choice)
    if claim.kind == "value" or is_rule(claim, ready.one):
        return []
    structure = jax.tree.structure(ready.one)
    hessian = claim.kind == "hessian"
    differentiated = replace(claim, kind="jacobian") if hessian else gradient_claim(claim, False)
    ablations = []
    for number, term in enumerate(ready.terms):
        if term.penalty:
            continue
        graph = term.graph
        if hessian:  # the mistake is made in differentiating the gradient
            graph = build_graph(reference(replace(claim, kind="gradient"), of=term), ready.one)
            if len(graph.outputs) != 1:
                continue
        ablation = Ablation(EvaluatedGraph(claim, choice, graph))

        def gradient(settings, *flat, ablation=ablation):
            def of(inputs: Any) -> Any:
                return ablation.evaluate(settings, jax.tree.leaves(inputs))[0]

            inputs = jax.tree.unflatten(structure, flat)
            return jax.tree.leaves(reference(differentiated, of=of)(inputs))

        over_settings = jax.vmap(gradient, in_axes=(0, *[None] * structure.num_leaves))
        over_trials = jax.vmap(over_settings, in_axes=(None, *[0] * structure.num_leaves))
        ablations.append((number, ablation, jit(over_trials)))
    return ablations
