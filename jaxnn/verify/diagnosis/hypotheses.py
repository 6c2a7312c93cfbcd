"""Wrong derivatives: in a wrong layout, cut down to the diagonal, with a mistake on the way."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial
from itertools import combinations
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn.verify.comparison import alternative_layouts, arranged, declared_layout, same_shape
from jaxnn.verify.diagnosis.ablation import Ablation, Mistake
from jaxnn.verify.diagnosis.coefficients import fit
from jaxnn.verify.diagnosis.evaluated_graph import EvaluatedGraph
from jaxnn.verify.diagnosis.trials import GROUPS, Leaves, Program, Sample, gradient_claim, same
from jaxnn.verify.graph import build_graph, jit
from jaxnn.verify.reference import is_rule, reference
from jaxnn.verify.verdict import Finding

MOST_PAIRS = 2000
_NOT_IN_PAIRS = ("unknown", "factor", "sign", "wrong_value")
"""Coefficients explain factors and signs; two exchanged values explain too much."""


Mistakes = tuple[Mistake, ...]
"""Mistakes made at once."""


class Hypothesis(NamedTuple):
    """A wrong derivative, to be combined with coefficients of the terms."""

    findings: tuple[Finding, ...]  # none: the right derivative
    terms: Callable[[Sample], list[Leaves]]  # in the claim's layout; may be empty


RIGHT = Hypothesis((), lambda sample: [_stated(sample, term) for term in sample.terms])
"""The right derivative, in the claim's declared layout."""


def _stated(sample: Sample, term: Leaves) -> Leaves:
    layout = partial(declared_layout, sample.program.claim.layout)
    return _each_leaf(sample, term, lambda leaf, rank: arranged(layout(rank), leaf))


def _each_leaf(
    sample: Sample, term: Leaves, arrange: Callable[[np.ndarray, int], np.ndarray]
) -> Leaves:
    """Leaves arranged by a function of (leaf, rank of the value), with the formula's unit axes."""

    def like(formula: np.ndarray, leaf: np.ndarray, rank: int) -> np.ndarray:
        other = arrange(leaf, rank)
        fits = same_shape(other.shape[1:], formula.shape[1:])
        return other.reshape(formula.shape) if fits else other

    return list(map(like, sample.formula, term, sample.program.value_ranks))


def rearranged(sample: Sample) -> Iterator[Hypothesis]:
    """The derivative in every wrong layout, and the derivative's diagonal."""
    ranks = sample.program.value_ranks
    widest = max((leaf.shape[1:] for leaf in sample.terms[0]), key=len, default=())

    def terms(arrange: Callable[[np.ndarray, int], np.ndarray], sample: Sample) -> list[Leaves]:
        return [_each_leaf(sample, term, arrange) for term in sample.terms]

    for number, layout in enumerate(alternative_layouts(widest, max(ranks, default=0))):
        finding = Finding(layout.code, "", f"the formula is {layout.name}")
        yield Hypothesis((finding,), partial(terms, partial(_in_layout, number)))
    finding = Finding("diagonal_only", "", "the entries off the diagonal are dropped")
    yield Hypothesis((finding,), partial(terms, _diagonal))


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
    gradients = cache(partial(_mistaken_gradients, two))

    def terms(key: tuple[int, Mistakes], sample: Sample) -> list[Leaves]:
        leaves = gradients(sample).get(key)
        if leaves is None:
            return []
        varied = [leaves if i == key[0] else term for i, term in enumerate(sample.terms)]
        return [_stated(sample, term) for term in varied]

    true = RIGHT.terms(sample)
    for key in gradients(sample):
        varied = terms(key, sample)
        if any(
            not unchanged(varied, true, leaf) and _fits(target, varied, leaf)
            for leaf, target in enumerate(sample.formula)
        ):
            yield Hypothesis(tuple(mistake.finding for mistake in key[1]), partial(terms, key))


def unchanged(varied: Sequence[Leaves], true: Sequence[Leaves], leaf: int) -> bool:
    """Whether a hypothesis keeps a leaf of the right derivative."""
    return all(same(a[leaf], b[leaf]) for a, b in zip(varied, true, strict=True))


def _fits(target: np.ndarray, terms: Sequence[Leaves], leaf: int) -> bool:
    columns = [term[leaf] for term in terms]
    comparable = all(column.shape == target.shape for column in columns)
    return comparable and fit(target, columns, GROUPS) is not None


def _mistaken_gradients(two: bool, sample: Sample) -> dict[tuple[int, Mistakes], Leaves]:
    """(Term, mistakes) -> the term's gradient with the mistakes."""
    table: dict[tuple[int, Mistakes], Leaves] = {}
    for term, ablation, run in _ablations(sample.program):
        combined: list[Mistakes] = [(mistake,) for mistake in ablation.mistakes]
        if two:
            named = [m for m in ablation.mistakes if m.finding.code not in _NOT_IN_PAIRS]
            pairs = (pair for pair in combinations(named, 2) if pair[0].knob != pair[1].knob)
            combined = list(pairs)[:MOST_PAIRS]
        rows = len(ablation.mistakes)
        for start in range(0, len(combined), max(1, rows)):
            chunk = combined[start : start + rows]
            # Every chunk has equally many rows, and the compiled program serves all chunks.
            settings = np.zeros((rows, ablation.knobs))
            for row, mistakes in enumerate(chunk):
                for mistake in mistakes:
                    settings[row, mistake.knob] = mistake.setting
            leaves = [np.asarray(leaf) for leaf in run(settings, *sample.flat)]
            for row, mistakes in enumerate(chunk):
                table.setdefault((term, mistakes), [leaf[:, row] for leaf in leaves])
    return table


@lru_cache(maxsize=8)
def _ablations(ready: Program) -> list[tuple[int, Ablation, Callable[..., Any]]]:
    """(Term, knobs, compiled gradient of settings and flat inputs) for the terms of the data."""
    claim = ready.claim
    if claim.kind == "value" or is_rule(claim, ready.shapes):
        return []
    hessian = claim.kind == "hessian"
    differentiated = replace(claim, kind="jacobian") if hessian else gradient_claim(claim, False)
    ablations = []
    for number, term in enumerate(ready.terms):
        if not term.penalty:
            graph = term.graph
            if hessian:  # the mistake is made in differentiating the gradient
                graph = build_graph(
                    reference(replace(claim, kind="gradient"), of=term), ready.shapes
                )
            if len(graph.outputs) == 1 or not hessian:
                ablation = Ablation(EvaluatedGraph(ready, graph))
                ablations.append((number, ablation, _compiled(ready, ablation, differentiated)))
    return ablations


def _compiled(ready: Program, ablation: Ablation, differentiated: Any) -> Callable[..., Any]:
    """(Settings [S, knobs], flat inputs [T, ...]) -> leaves [T, S, ...] of the derivative."""
    structure = jax.tree.structure(ready.shapes)

    def gradient(settings, *flat):
        def of(inputs: Any) -> Any:
            return ablation.evaluate(settings, jax.tree.leaves(inputs))[0]

        inputs = jax.tree.unflatten(structure, flat)
        return jax.tree.leaves(reference(differentiated, of=of)(inputs))

    over_settings = jax.vmap(gradient, in_axes=(0, *[None] * structure.num_leaves))
    return jit(jax.vmap(over_settings, in_axes=(None, *[0] * structure.num_leaves)))
