"""Wrong derivatives: in a wrong layout, cut down to the diagonal, with a mistake on the way."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial
from typing import NamedTuple

import numpy as np

from jaxnn.verify.comparison import alternative_layouts, arranged, declared_layout, same_shape
from jaxnn.verify.diagnosis.ablation import Ablation, Mistakes, backward_mistakes
from jaxnn.verify.diagnosis.coefficients import fit
from jaxnn.verify.diagnosis.trials import GROUPS, Leaves, Program, Sample, same
from jaxnn.verify.graph import build_graph
from jaxnn.verify.reference import reference
from jaxnn.verify.verdict import Finding

Arrange = Callable[[np.ndarray, int], np.ndarray]
"""(Leaf [T, ...], rank of the function's value) -> the leaf in another layout."""


class Hypothesis(NamedTuple):
    """A wrong derivative, to be combined with coefficients of the terms."""

    findings: tuple[Finding, ...]  # none: the right derivative
    terms: Callable[[Sample], list[Leaves]]  # in the claim's layout; may be empty


def _stated(sample: Sample, terms: Sequence[Leaves]) -> list[Leaves]:
    layout = partial(declared_layout, sample.program.claim.layout)
    return _arranged(lambda leaf, rank: arranged(layout(rank), leaf), sample, terms)


def _arranged(arrange: Arrange, sample: Sample, terms: Sequence[Leaves]) -> list[Leaves]:
    """Terms with every leaf arranged, with the formula's axes of length 1."""

    def like(formula: np.ndarray, leaf: np.ndarray, rank: int) -> np.ndarray:
        other = arrange(leaf, rank)
        fits = same_shape(other.shape[1:], formula.shape[1:])
        return other.reshape(formula.shape) if fits else other

    ranks = sample.program.value_ranks
    return [list(map(like, sample.formula, term, ranks)) for term in terms]


RIGHT = Hypothesis((), lambda sample: _stated(sample, sample.terms))
"""The right derivative, in the claim's declared layout."""


def right(sample: Sample) -> Leaves:
    """The right derivative, the sum of the terms."""
    return [np.sum(leaves, axis=0) for leaves in zip(*RIGHT.terms(sample), strict=True)]


def rearranged(sample: Sample) -> Iterator[Hypothesis]:
    """The derivative in every wrong layout, and the derivative's diagonal."""
    widest = max((leaf.shape[1:] for leaf in sample.terms[0]), key=len, default=())

    def hypothesis(code: str, detail: str, arrange: Arrange) -> Hypothesis:
        finding = Finding(code, "", detail)
        return Hypothesis((finding,), lambda sample: _arranged(arrange, sample, sample.terms))

    layouts = alternative_layouts(widest, max(sample.program.value_ranks, default=0))
    for number, layout in enumerate(layouts):
        detail = f"the formula is {layout.name}"
        yield hypothesis(layout.code, detail, partial(_in_layout, number))
    yield hypothesis("diagonal_only", "the entries off the diagonal are dropped", _diagonal)


def _in_layout(number: int, leaf: np.ndarray, rank: int) -> np.ndarray:
    every = list(alternative_layouts(leaf.shape[1:], rank))
    return arranged(every[number].arrange, leaf) if number < len(every) else leaf


def _diagonal(leaf: np.ndarray, rank: int) -> np.ndarray:
    del rank
    square = leaf.ndim == 3 and leaf.shape[1] == leaf.shape[2]
    return leaf * np.eye(leaf.shape[1]) if square else leaf


def shape_problem(sample: Sample) -> Finding | None:
    """The mistake in a formula with the shape of the derivative in no layout."""
    ready = sample.program
    gradients = [np.sum(leaves, axis=0) for leaves in zip(*sample.terms, strict=True)]
    if len(sample.formula) != len(gradients):
        detail = f"the formula returns {len(sample.formula)} arrays, expected {len(gradients)}"
        return Finding("shape", ", ".join(ready.names), detail)
    leaves = zip(ready.names, ready.value_ranks, sample.formula, gradients, strict=True)
    for name, rank, formula, gradient in leaves:
        layouts = [layout.arrange for layout in alternative_layouts(gradient.shape[1:], rank)]
        layouts.append(declared_layout(ready.claim.layout, rank))
        known = [arranged(arrange, gradient).shape[1:] for arrange in layouts]
        if not any(same_shape(formula.shape[1:], shape) for shape in known):
            return Finding("shape", name, _shapes_differ(ready.sizes, formula, gradient))
    return None


def _shapes_differ(sizes: dict[str, int], formula: np.ndarray, gradient: np.ndarray) -> str:
    detail = f"the formula has shape {formula.shape[1:]}, the derivative {gradient.shape[1:]}"
    if sizes:
        detail += f" ({', '.join(f'{name} = {size}' for name, size in sizes.items())})"
    for axis in range(1, formula.ndim):
        if same(formula.sum(axis=axis), gradient):
            detail += f": the sum over axis {axis - 1} is missing"
    return detail


def mistaken(sample: Sample, two: bool) -> Iterator[Hypothesis]:
    """The derivative with a mistake, or two, if the mistake explains a leaf of the formula."""

    @cache
    def gradients(sample: Sample) -> dict[tuple[int, Mistakes], Leaves]:
        return {
            (term, mistakes): leaves
            for term, ablation in _ablations(sample.program).items()
            for mistakes, leaves in ablation.leaves(sample.flat, two)
        }

    def terms(key: tuple[int, Mistakes], sample: Sample) -> list[Leaves]:
        leaves = gradients(sample).get(key)
        if leaves is None:
            return []
        return _stated(sample, [*sample.terms[: key[0]], leaves, *sample.terms[key[0] + 1 :]])

    true = RIGHT.terms(sample)
    for key in gradients(sample):
        varied = terms(key, sample)
        if any(
            not unchanged(varied, true, leaf)
            and fit(target, [term[leaf] for term in varied], GROUPS) is not None
            for leaf, target in enumerate(sample.formula)
        ):
            yield Hypothesis(tuple(mistake.finding for mistake in key[1]), partial(terms, key))


def unchanged(varied: Sequence[Leaves], true: Sequence[Leaves], leaf: int) -> bool:
    """Whether a hypothesis keeps a leaf of the right derivative."""
    return all(same(a[leaf], b[leaf]) for a, b in zip(varied, true, strict=True))


@lru_cache(maxsize=8)
def _ablations(ready: Program) -> dict[int, Ablation]:
    """The mistakes in the derivatives of the terms of the data, by number of the term."""
    ablations: dict[int, Ablation] = {}
    for number, term in enumerate(ready.terms):
        graph, derivative = term.graph, ready.derivative
        if derivative.kind == "hessian":  # the mistake is made in differentiating the gradient
            gradient = reference(replace(derivative, kind="gradient"), of=term)
            graph = build_graph(gradient, ready.shapes)
            derivative = replace(derivative, kind="jacobian")
        if derivative.kind != "value" and not term.penalty and len(graph.outputs) == 1:
            ablations[number] = backward_mistakes(ready, graph, derivative)
    return ablations
